"""A few sums of rows with signs, which stand in for J where it is too long to be kept.

    S J,   S (k, m) with one entry ±1 in each column

‖S a‖² is ‖a‖² on average, with a relative deviation of √(2/k): enough to tell two columns that are
almost the same from two that have nothing in common.

Reference: Charikar, Chen & Farach-Colton, Finding frequent items in data streams (2002).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..distributed.processes import Processes
from ..rows.columns import Columns
from ..rows.matrix import DenseRows
from .base import Exact, Prior, Sums, Values

SUMS = 64  # k: the square of a length is off by a sixth
# shifts and factors that spread a number over all of 32 bits: MurmurHash3's, by A. Appleby
MIXED = ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1))


class Sketch(NamedTuple):
    """What is summed over all rows, in the place of a linear model."""

    jacobian: Tensor  # (..., k, n), S J
    rows: tuple[()] = ()  # none are kept, nor is this another linear model of the point


@dataclass(frozen=True)
class SketchForm:
    """The sums alone; rows stream."""

    sampled: ClassVar[bool] = False

    def entries(self, n: int, m: int) -> int:
        """As many rows as there are sums."""
        return SUMS * n

    def described(self, n: int, m: int) -> str:
        """Sums with their shape."""
        return f"sums of rows of the Jacobian ({SUMS} x {n})"

    def accumulator(self, shape: tuple[int, ...], rows: int, like: Tensor) -> "SketchAccumulator":
        """Sums that start at zero."""
        *batch, n = shape
        return SketchAccumulator(like.new_zeros(*batch, SUMS, n))


class SketchAccumulator:
    """Adds each row to one of the sums, or takes it away."""

    kinds = (Columns, DenseRows)

    def __init__(self, jacobian: Tensor) -> None:
        self.jacobian = jacobian
        self.filled = 0

    @property
    def sums(self) -> Sums:
        """S J."""
        return (self.jacobian,)

    @sums.setter
    def sums(self, sums: Sums) -> None:
        (self.jacobian,) = sums

    def workspace(self, rows: int) -> Tensor:
        """Room for the rows of a block."""
        *batch, _, n = self.jacobian.shape
        return self.jacobian.new_empty(*batch, rows, n)

    def add(self, residual: Tensor, rows: Columns | DenseRows) -> None:
        """Add the rows of a block."""
        matrix = rows.dense().to(self.jacobian.dtype)
        count = matrix.shape[-2]
        number = torch.arange(self.filled, self.filled + count, device=matrix.device)
        for shift, factor in MIXED:
            number = ((number ^ (number >> shift)) * factor) & 0xFFFFFFFF
        sign = (1 - 2 * (number & 1)).to(matrix.dtype)
        self.jacobian.index_add_(-2, (number >> 1) % SUMS, matrix * sign[:, None])
        self.filled += count

    def share(self, processes: Processes) -> Callable[[], None]:
        """Add the sums over all processes."""
        adding = processes.adding([self.jacobian])

        def arrived() -> None:
            (self.jacobian,) = adding()

        return arrived

    def finish(
        self, cost: Tensor, prior: Prior | None, exact: Exact | None = None, values: Values = None
    ) -> Sketch:
        """The sums; a prior is no part of J."""
        return Sketch(self.jacobian)
