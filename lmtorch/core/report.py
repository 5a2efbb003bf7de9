"""What a step did, read from the device only when it is looked at."""

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from .state import State
from .termination import Status


class Report:
    """The evidence of one optimizer step.

    Numbers are Python floats; on a GPU the first one that is read waits for the device, the others
    come with it.

    Attributes:
        seconds: wall-clock of the "linearize" and "trial" parts of the loop, of the rest of it,
            "solve", and of the whole step, "total". On a GPU the first two are the time that it
            took to queue their kernels, and the waiting for the device is in "solve".
        jacobian: the source of derivatives that was used.

    Example:
        >>> import torch, lmtorch
        >>> x = torch.tensor([3.0], requires_grad=True)
        >>> opt = lmtorch.LevenbergMarquardt([x])
        >>> loss = opt.step(lambda: x - 1)
        >>> opt.report.accepted, round(opt.report.loss, 6), opt.report.loss_after < 1e-12
        (True, 2.0, True)
    """

    _NAMES = (
        "loss",
        "loss_after",
        "damping",
        "gain_ratio",
        "accepted",
        "step_norm",
        "gradient",
        "status",
        "trials",
    )

    def __init__(
        self,
        state: State,
        seconds: Mapping[str, float],
        jacobian: str,
        least: Tensor | None = None,  # what the loss is more than the loop's cost
    ) -> None:
        trial, more = state.trial, 0.0 if least is None else least
        values = [
            trial.cost + more, state.cost + more, trial.damping, trial.ratio, trial.accepted,
            trial.length, trial.optimality, state.status, state.trials,
        ]  # fmt: skip
        self._packed: Tensor = torch.stack(
            [v.to(torch.float64 if v.device.type != "mps" else v.dtype) for v in values]
        )
        self.seconds = dict(seconds)
        self.jacobian = jacobian

    @cached_property
    def _values(self) -> dict[str, float]:
        return dict(zip(self._NAMES, self._packed.tolist(), strict=True))

    @property
    def loss(self) -> float:
        """½Σr² (with robust loss and prior) before the step, in squared units of the residuals.

        Of a criterion its sum over the samples.
        """
        return self._values["loss"]

    @property
    def loss_after(self) -> float:
        """The loss after the step; equal to `loss` if the step was not taken."""
        return self._values["loss_after"]

    @property
    def damping(self) -> float:
        """λ of the last trial; 0 for a Gauss–Newton step."""
        return self._values["damping"]

    @property
    def gain_ratio(self) -> float:
        """Decrease of the loss over the one that the linear model promised; −1 if not a number."""
        return self._values["gain_ratio"]

    @property
    def accepted(self) -> bool:
        """Whether a trial was kept.

        Polishing after convergence may move the parameters by round-off even if none was.
        """
        return bool(self._values["accepted"])

    @property
    def step_norm(self) -> float:
        """Length of the step that was tried, in units of the parameters."""
        return self._values["step_norm"]

    @property
    def gradient(self) -> float:
        """Largest cosine between residuals and a column of J, before the step: 0 at a minimum."""
        return self._values["gradient"]

    @property
    def trials(self) -> int:
        """Residual evaluations at trial points."""
        return int(self._values["trials"])

    @property
    def status(self) -> Status:
        """Where the minimisation stands after the step."""
        return Status(int(self._values["status"]))

    def __repr__(self) -> str:
        """One line with the numbers."""
        return (
            f"Report(loss={self.loss:.6g} -> {self.loss_after:.6g}, "
            f"{'accepted' if self.accepted else 'refused'}, "
            f"trials={self.trials}, damping={self.damping:.3g}, gain_ratio={self.gain_ratio:.3g}, "
            f"step_norm={self.step_norm:.3g}, gradient={self.gradient:.3g}, "
            f"status={self.status.name}, "
            f"{self.seconds['total'] * 1e3:.3g} ms)"
        )
