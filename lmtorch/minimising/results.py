"""Converts the loop's tensors to the user's structure and array type, under scipy's names."""

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..arrays import arrays_of, largest, on_numpy, quiet, take, tensor_from, to_type, where
from ..core.bounds import Bounds
from ..core.state import State
from ..core.termination import Status
from .ending import Ended, Ending
from .jacobians_at_end import Jacobians
from .solution import Later, Solution
from .unknowns import Unknowns
from .watch import Iterate

if TYPE_CHECKING:  # a process that compiles nothing does not import what compiles
    from ..compiling.single import End


class Results:
    """The conversion of one run, whose numbers are tensors, or NumPy's if it is one small fit.

    Args:
        unknowns: the structure of x0.
        lead: leading dimensions of what the loop runs on, as the user will see them: (), (b,),
            (starts,) or (starts, b).
        bounds: of the loop's variables.
        scale: C of the loss as given.
        names: of the parameters, for messages.
        ways: of further runs, for messages.
        unit: by which the residuals were multiplied.
        least: of a criterion, what is added to the loop's costs, one for each of `lead`.
    """

    def __init__(
        self,
        unknowns: Unknowns,
        lead: tuple[int, ...],
        bounds: Bounds | None,
        scale: float | Tensor,
        names: Sequence[str],
        ways: Sequence[str] = (),
        unit: float = 1.0,
        least: Tensor | None = None,
    ) -> None:
        self.unknowns = unknowns
        self.lead = lead
        self.bounds = bounds
        self.scale = scale
        self.names = names
        self.ways = ways
        self.unit = unit
        self.least = least
        self.begun = perf_counter()
        self.cost: Tensor | None = None  # of the iterate before

    def of_best(self, lead: tuple[int, ...], bounds: Bounds | None) -> "Results":
        """The conversion for one start of each problem, with dimensions `lead` in front."""
        least = None if self.least is None else self.least.reshape(self.lead)[0]
        return Results(
            self.unknowns, lead, bounds, self.scale, self.names, self.ways, self.unit, least
        )

    def solution(
        self,
        outcome: Ending,
        graph: tuple[Tensor, Tensor, Tensor] | None = None,
        again: Jacobians | Callable[[], Jacobians] | None = None,
    ) -> Solution:
        """The solution.

        Args:
            outcome: where the run has ended.
            graph: x, cost and residuals that carry gradients, if there are such.
            again: makes J where it was not kept; or what makes that.
        """
        state = outcome.state
        point = state.x
        x, cost, residual = graph or (point, state.cost, outcome.residual)
        status = self._shaped(state.status)
        told = self._evidence(outcome)
        # words for many problems take longer than their fits, and of a device they wait for it
        ours = on_numpy(status)
        later = status.ndim > 0 or (not ours and status.device.type != "cpu")
        with quiet():  # squares of residuals of 1e20 are beyond single precision
            cost = to_type(self._value(cost), point.dtype)
            gradient = to_type(self._squared(outcome.gradient), point.dtype)
            steepest = _largest(where(outcome.free, gradient, 0.0))

        return Solution(
            x=self._structure(self._shaped(x)),
            cost=self._number(self._shaped(cost)),
            fun=self._residuals(residual, again),
            jac=self._again(again) if again else self._jacobian(outcome),
            grad=self._array(self._shaped(gradient)),
            optimality=self._number(self._shaped(steepest)),
            active_mask=self._nowhere(point)
            if later and self.bounds is None
            else self._array(self._shaped(self._active(point, outcome.gradient))),
            nfev=self._count(self._shaped(told[2])),
            njev=self._count(self._shaped(state.linearizations)),
            status=Status(int(status)) if status.ndim == 0 else self._array(status),
            message=self._told(told) if later or ours else self._messages(told),
            success=bool(status > 0) if status.ndim == 0 else self._array(status > 0),
            f_scale=self.scale
            if outcome.scale is None
            else self._number(self._shaped(self._ours(outcome.scale))),
            promise=self._number(self._shaped(outcome.promise)),
            lost=self._array(self._shaped(self._lost(state))),
        )

    @property
    def plain(self) -> bool:
        """Whether a solution of one problem is made of NumPy's numbers as they are."""
        one = self.unknowns.numpy and self.unknowns.tree is None and not self.lead
        return one and self.unit == 1 and self.least is None

    def of_program(
        self, end: "End", x: Any, residual: Any, free: Any, again: Callable[[], Jacobians]
    ) -> Solution:
        """The solution of one fit that a program has made a success of, where it is plain.

        It has what `solution` makes of it, for a third of the time, which is a tenth of such a fit.

        Args:
            end: of the program, in float64.
            x: of the end, (n,), the solution's own.
            residual: there, (m,).
            free: which variables are not held at a bound, (n,); None: there are no bounds.
            again: makes J.
        """
        gradient, n = end.gradient, len(x)
        steepest = abs(gradient if free is None else np.where(free, gradient, 0.0))
        status, nfev = Status(end.status), 1 + end.trials
        told = partial(self._message, status, float(end.cosine), nfev, 1, 0, [False] * n)
        return Solution(
            x=x.reshape(self.unknowns.layout.shapes[0]),
            cost=float(end.cost),
            fun=residual,
            jac=self._again(again),
            grad=gradient,
            optimality=float(largest(steepest)),
            active_mask=self._active(x, gradient),
            nfev=nfev,
            njev=end.linearizations,
            status=status,
            message=Later(told),
            success=True,
            f_scale=self.scale,
            promise=float(end.promise),
            lost=np.zeros(n, dtype=bool),
        )

    def _ours(self, value: Tensor) -> Tensor:
        """A number in the unit of residuals, as the user's have it."""
        return value if self.unit == 1 else value / self.unit

    def _squared(self, value: Tensor) -> Tensor:
        """A number in units of squared residuals, as the user's residuals have them."""
        return self._ours(self._ours(value))

    def _value(self, cost: Tensor) -> Tensor:
        """A cost as the user has it."""
        if self.least is None:
            return self._squared(cost)
        whole = cost.shape == self.least.shape or cost.numel() == self.least.numel()
        return cost + self.least.reshape(cost.shape) if whole else cost

    def iterate(self, state: State, number: int) -> Iterate:
        """The state as a callback sees it."""
        trial = state.trial
        whole = state.x.shape[:-1].numel() == self._size()
        shaped = self._shaped if whole else lambda t: t
        before, self.cost = self.cost, state.cost
        reduction = (
            trial.cost if before is None or before.shape != state.cost.shape else before
        ) - state.cost
        cost, reduction = self._value(state.cost), self._squared(reduction)
        status = shaped(state.status)
        return Iterate(
            self._structure(shaped(state.x).clone()),  # a callback may write into what it is given
            self._number(shaped(cost)),
            number,
            1 + int(state.trials.max()),
            bool(trial.accepted) if status.ndim == 0 else self._array(shaped(trial.accepted)),
            self._number(shaped(reduction)),
            self._number(shaped(trial.length)),
            self._number(shaped(trial.optimality)),
            self._number(shaped(trial.damping)),
            self._number(shaped(trial.ratio)),
            Status(int(status)) if status.ndim == 0 else self._array(status),
            perf_counter() - self.begun,
        )

    def _size(self) -> int:
        return int(torch.Size(self.lead).numel())

    def _shaped(self, value: Tensor) -> Tensor:
        """Reshape (problems, ...) to (*lead, ...)."""
        return value.reshape(*self.lead, *value.shape[1:]) if len(self.lead) > 1 else value

    def _structure(self, x: Tensor) -> Any:
        if on_numpy(x) and self.unknowns.numpy and self.unknowns.tree is None:
            array: Any = x
            return array.reshape(self.unknowns.layout.shapes[0])
        parts = self.unknowns.layout.split(tensor_from(x))
        return self.unknowns.restore(tuple(self._array(part) for part in parts))

    def _array(self, value: Tensor) -> Any:
        if on_numpy(value):
            return value if self.unknowns.numpy else tensor_from(value)
        return value.detach().cpu().numpy() if self.unknowns.numpy else value

    def _number(self, value: Tensor) -> Any:
        if value.ndim > 0 or not self.unknowns.numpy:
            return self._array(value)
        return float(value)

    def _count(self, value: Tensor) -> Any:
        return int(value) if value.ndim == 0 else self._array(value)

    def _active(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The active mask: −1 at a lower bound, 1 at an upper; if equal, the one pushed to."""
        if self.bounds is None:
            if on_numpy(x):
                none: Any = np.zeros(x.shape, dtype=np.int64)
                return none
            return torch.zeros_like(x, dtype=torch.int64)
        lower, upper = arrays_of(self.bounds) if on_numpy(x) else self.bounds
        low, high = x <= lower, x >= upper
        side = where(low & high, where(gradient < 0, 1, -1), where(high, 1, -1))
        return where(low | high, side, 0)

    def _nowhere(self, x: Tensor) -> Later:
        """The active mask where there are no bounds."""
        return Later(
            lambda: self._array(self._shaped(self._active(x, x))),
            lambda chosen: self._array(self._active(x[chosen], x[chosen])),
        )

    def _residuals(
        self, residual: Tensor | None, again: Jacobians | Callable[[], Jacobians] | None
    ) -> Any:
        """The residuals as they were kept, or made again."""
        if residual is not None:
            return self._array(self._shaped(self._ours(residual)))
        assert isinstance(again, Jacobians)
        return Later(
            lambda: self._array(again.residuals()),
            lambda chosen: self._array(again.residuals_of(chosen)),
        )

    def _jacobian(self, outcome: Ending) -> Any:
        """J as it was kept, None where it was not."""
        if outcome.jacobian is None:
            return None
        jacobian = to_type(self._ours(outcome.jacobian), outcome.state.x.dtype)
        return self._array(self._shaped(jacobian))

    def _again(self, again: Jacobians | Callable[[], Jacobians]) -> Later:
        """J made again, None where it does not fit the memory."""

        def make() -> Any:
            jacobian = (again if isinstance(again, Jacobians) else again()).all()
            return None if jacobian is None else self._array(jacobian)

        if not (self.lead and isinstance(again, Jacobians)):
            return Later(make)
        return Later(make, lambda chosen: self._array(again.of(chosen)))

    def _evidence(self, outcome: Ending) -> tuple[Tensor, ...]:
        """What the messages are made of: (...,) each, and (..., n) bool, what is lost."""
        state = outcome.state
        nfev = 1 + state.trials
        return state.status, outcome.cosine, nfev, outcome.runs, outcome.kept, self._lost(state)

    def _told(self, evidence: tuple[Tensor, ...]) -> Later:
        """The messages, when somebody asks for them."""
        return Later(
            lambda: self._messages(evidence),
            lambda chosen: self._messages(tuple(part[chosen] for part in evidence)),
        )

    def _messages(self, evidence: tuple[Tensor, ...]) -> Any:
        """The status of each problem in words, with its evidence."""
        if not evidence[0].ndim:
            one: Any = [part.tolist() for part in evidence]
            return self._message(*one)
        columns: Any = [part.tolist() for part in evidence]
        texts = [self._message(*one) for one in zip(*columns, strict=True)]
        if len(self.lead) > 1:
            width = self.lead[-1]
            return [texts[start : start + width] for start in range(0, len(texts), width)]
        return texts

    def _message(
        self, number: int, cosine: float, nfev: int, runs: int, kept: int, lost: list[bool]
    ) -> str:
        status = Status(number)
        text = status.message
        if status is Status.LOST:
            names = [name for name, gone in zip(self.names, lost, strict=True) if gone]
            have = "has" if len(names) == 1 else "have"
            text = f"lost: {', '.join(names)} {have} no influence any more: no minimum"
        found = (
            f"largest cosine between the residuals and a column of J {cosine:.1e}, "
            f"{nfev} evaluations"
        )
        if runs > 1:
            found += f" in {runs} runs"
            found += (
                f", of which the best was with {self.ways[kept - 1]}"
                if kept
                else ", of which the first was the best"
            )
        return f"{text} ({found})"

    @staticmethod
    def _lost(state: Ended) -> Tensor:
        """Parameters that have no influence any more, (..., n) bool."""
        return state.lost


def _largest(values: Tensor) -> Tensor:
    """The largest absolute value of (..., n), (...,); zero where there are none."""
    return largest(abs(values)) if values.shape[-1] else values.sum(-1)


def pick(outcome: Ending, chosen: Tensor) -> Ending:
    """The ending of the chosen start of each problem, (*rest), out of (starts, *rest)."""
    count = chosen.numel()
    places = chosen.reshape(-1) * count + torch.arange(count, device=chosen.device)
    taken = take(outcome, places)
    return taken if chosen.ndim else _first(taken)


def _first(value: Any) -> Any:
    """The only problem of a batch of one."""
    if isinstance(value, tuple):
        made: Any = value
        return made._make(_first(part) for part in made)
    return value[0] if isinstance(value, Tensor) else value
