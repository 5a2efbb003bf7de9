"""One warning each, with the remedy, for habits of first-order training that cost dearly here."""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from ._errors import level

# below it a learning rate is probably meant for a first-order optimizer; it is looked at where the
# optimizer is made, so that a schedule may go below later
SMALL_RATE = 0.05
WINDOW = 40  # steps on changing data that are looked at together
MUCH = math.log(1.5)  # what such a step gains on its own batch if it fits the batch above all
LITTLE = 0.01  # what the loss of new batches falls by in such a step if it is of any use
MOST = 0.9  # share of the steps whose data are others than those of the step before


def of_rate(lr: float | Tensor) -> None:
    """Warn of a learning rate meant for Adam, with which each step would be far too short."""
    if isinstance(lr, int | float) and 0 < lr < SMALL_RATE:
        _say(
            f"lr={lr} takes {lr:.2g} of every Levenberg–Marquardt step, whose length the damping "
            "has already found. Leave lr out (it is 1)."
        )


def of_derivatives() -> None:
    """Warn of `torch.autograd.grad` in the closure: rows of J are then made one by one."""
    _say(
        "the closure takes derivatives by torch.autograd.grad, which leaves only the slowest way "
        "to the Jacobian, row by row. lmtorch.laplacian, gradient, batch_jacobian, "
        "hessian_diagonal and their like give the same in a form that is some ten to hundred times "
        "faster here, as in lmtorch.laplacian(model, x)."
    )


def of_not_finite(source: str) -> None:
    """Warn of a step that was none, which a loss that is finite may hide."""
    _say(
        f"the step was not taken, and the parameters stay as they are: {source}. Leave such "
        "samples out, or give them a finite value inside and torch.where(fine, residuals, 0) "
        "outside: NaN times zero is NaN."
    )


def of_columns(n: int) -> None:
    """Warn of a model's column (n, 1) less data (n,): every prediction against every datum."""
    _say(
        f"the residuals are {n} x {n}, made of a column ({n}, 1) and a vector ({n},): every "
        "prediction against every datum or weight. Give both the same shape: model(x) - y[:, "
        "None], or model(x)[:, 0] - y."
    )


def of_each_alone() -> None:
    """Warn of a wrapped module whose processes would each take steps of their own."""
    _say(
        "the module is under DistributedDataParallel, whose gradients are not used here, and no "
        "process_group was given: each process takes steps on its own data alone, and the models "
        "come apart. Pass process_group=torch.distributed.group.WORLD."
    )


def of_repeated(count: int) -> None:
    """Warn of samples that a sampler repeats so that all processes have as many."""
    _say(
        f"the DistributedSampler repeats {count} samples to give all processes as many, and these "
        "count twice in the sum that a step minimises. Give it drop_last=True, or each process a "
        "shard of its own without it: shards may differ in length."
    )


def of_strange(names: Sequence[str]) -> None:
    """Warn of parameters that the module got after the optimizer was made: they are not fitted."""
    some = ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
    _say(
        f"the module has parameters that the optimizer does not, {some}: a layer was replaced, "
        "added or pruned, or its weight given another form, after the optimizer was made. They "
        "stay as they are. Make the optimizer anew, or call add_param_group; freeze what is to "
        "stay: requires_grad_(False)."
    )


class Batches:
    """Watches whether steps on data that change do any good to the data that come next."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []  # before and after, and whether the data have changed
        self.told = False

    def look(self, before: Tensor, after: Tensor, changed: Tensor, rows: int, n: int) -> None:
        """Warn if steps lower the loss of their own batch by much, and that of new ones not at all.

        Args:
            before: the loss at the start of a step, ().
            after: at its end, on the same data.
            changed: whether they are other data than those of the last step, () bool.
            rows: how many residuals there are.
            n: how many parameters.
        """
        if self.told:
            return
        self.losses.append(torch.stack([before, after, changed.to(before.dtype)]))
        if len(self.losses) < WINDOW:
            return
        first, last, other = torch.stack(self.losses).unbind(1)
        self.losses.clear()
        half = WINDOW // 2
        claimed = (first / last).log().mean()
        fallen = (first[:half].log().mean() - first[half:].log().mean()) / half
        # one read in so many steps; of losses that are zero or no numbers nothing is said
        own, new, share = torch.stack([claimed, fallen, other.mean()]).tolist()
        if not (MUCH <= own < math.inf and new < LITTLE and share >= MOST):
            return
        self.told = True
        _say(
            f"each of the last {WINDOW} steps lowered the loss of its own batch, by a factor of "
            f"{math.exp(own):.2g}, and the loss of the batches that followed has not fallen: a "
            f"batch of {rows} residuals is too small to say where {n} parameters should go. Pass "
            "larger batches, or all samples, whose rows stream; with less, add weight_decay, or "
            "let lr fall by a schedule."
        )


def of_inputs(values: Tensor) -> None:
    """Warn of inputs (s, d) of a first layer that are far from zero mean and unit deviation."""
    columns = values.detach().double()
    mean, deviation = columns.mean(0).abs(), columns.std(0)
    there = deviation > 1e-6 * mean
    if bool((there & ((mean > 4 * deviation) | (deviation > 10))).any()):
        _say(
            "inputs of the first layer are far from zero mean and unit deviation in some column, "
            "and many such trainings end at a bad minimum. Scale them: x = (x - x.mean(0)) / "
            "x.std(0), and the targets likewise."
        )


def _say(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=level())
