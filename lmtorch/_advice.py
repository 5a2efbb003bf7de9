"""One warning each, with the remedy, for habits of first-order training that cost dearly here."""

import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._errors import level

# below it a learning rate is probably meant for a first-order optimizer; it is looked at where the
# optimizer is made, so that a schedule may go below later
SMALL_RATE = 0.05


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


class Batches:
    """Remembers the batch of the last step, to tell mini-batches from one set of data."""

    def __init__(self) -> None:
        self.last: Any = None
        self.told = False

    def look(self, batches: Sequence[Sequence[Tensor]], rows: int, parameters: int) -> None:
        """Warn if the samples change from step to step and are fewer rows than parameters."""
        now = [_place(tensors[0]) for tensors in batches if tensors]
        before, self.last = self.last, now
        if self.told or before is None or rows >= parameters or not now or _same(before, now):
            return
        self.told = True
        _say(
            f"{rows} residuals of other samples at each step cannot determine {parameters} "
            "parameters: a step fits its batch and forgets the one before. Pass all samples, whose "
            "rows stream, or batches of at least as many residuals as parameters; with less, add "
            "weight_decay or use a first-order optimizer."
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


def _place(tensor: Tensor) -> tuple[Any, int, torch.Size]:
    """What tells one batch from another: the tensor that owns its memory, the offset, the shape."""
    owner = tensor if tensor._base is None else tensor._base
    return weakref.ref(owner), int(tensor.storage_offset()), tensor.shape


def _same(
    before: Sequence[tuple[Any, int, torch.Size]], now: Sequence[tuple[Any, int, torch.Size]]
) -> bool:
    return len(before) == len(now) and all(
        a[0]() is not None and a[0]() is b[0]() and a[1:] == b[1:]
        for a, b in zip(before, now, strict=True)
    )


def _say(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=level())
