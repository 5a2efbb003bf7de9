"""How far round-off turns the gradient, direction by direction: a sum over the rows of J.

Rounding x and r costs row i up to ε eᵢ, with eᵢ = |rᵢ| + Σⱼ |Jᵢⱼ xⱼ|, and so the slope along t

    |tᵀJᵀδr| ≤ ε Σᵢ |(J t)ᵢ| eᵢ

A bound of norms, ε ‖J t‖ ‖e‖, would be far too large where a parameter has run along a valley: one
row alone then carries all of a large column, which the direction of the valley leaves as it is. It
may be thousands of times what the gradient still says, and hide that the cost falls.

Reference: Higham, Accuracy and Stability of Numerical Algorithms (2002), §3.1 and §20.1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..arrays import apply, to_type, total, transposed
from ..distributed.processes import Processes
from ..rows.base import Rows
from ..rows.columns import Columns
from ..rows.matrix import DenseRows
from .base import Exact, Prior, Sums, Values


def turned(residual: Tensor, rows: Rows, directions: Tensor, x: Tensor) -> Tensor:
    """Σᵢ |(J t)ᵢ| eᵢ of each direction t, (..., k).

    Args:
        residual: r, (..., rows).
        rows: of J.
        directions: T, (..., n, k).
        x: where they were made, (..., n).
    """
    given: Any = rows
    if not isinstance(rows, Columns):
        matrix = to_type(rows.dense(), directions.dtype)
        spent = abs(to_type(residual, directions.dtype)) + apply(abs(matrix), abs(x))
        return apply(transposed(abs(matrix @ directions)), spent)
    columns = [None if c is None else c.to(directions.dtype) for c in given.columns]
    there = [(place, column) for place, column in enumerate(columns) if column is not None]
    spent = abs(residual.to(directions.dtype))
    for place, column in there:
        spent = spent + abs(column * x[..., place, None])
    found = []
    for one in directions.unbind(-1):
        along = sum(column * one[..., place, None] for place, column in there)
        found.append(total(abs(along) * spent))
    return torch.stack(found, -1)


def turned_by_prior(prior: Prior | None, directions: Tensor, x: Tensor) -> Tensor | float:
    """The same of the rows of a prior, whose residuals are their entries times x; 0: none."""
    if prior is None:
        return 0.0
    spent = 2 * abs(prior.root * x)
    return apply(transposed(abs(prior.root[..., :, None] * directions)), spent)


class Turned(NamedTuple):
    """What is summed over all rows, in the place of a linear model."""

    found: Tensor  # (..., k), Σᵢ |(J t)ᵢ| eᵢ of each direction
    rows: tuple[()] = ()  # none are kept, nor is this another linear model of the point


@dataclass(frozen=True)
class RoundOffForm:
    """The sums alone; rows stream.

    Args:
        directions: T, (..., n, k).
        x: the point, (..., n), in the dtype of the directions.
    """

    directions: Tensor
    x: Tensor
    sampled: ClassVar[bool] = False

    def entries(self, n: int, m: int) -> int:
        """One number for each direction."""
        return self.directions.shape[-1]

    def described(self, n: int, m: int) -> str:
        """Sums with their number."""
        return f"round-off in {self.directions.shape[-1]} directions"

    def accumulator(self, shape: tuple[int, ...], rows: int, like: Tensor) -> "RoundOff":
        """Sums that start at zero."""
        return RoundOff(self.directions, self.x)


class RoundOff:
    """Adds up what the rows of each block say."""

    kinds = (Columns, DenseRows)

    def __init__(self, directions: Tensor, x: Tensor) -> None:
        self.directions, self.x = directions, x
        self.found = torch.zeros_like(directions[..., 0, :])

    @property
    def sums(self) -> Sums:
        """Σᵢ |(J t)ᵢ| eᵢ."""
        return (self.found,)

    @sums.setter
    def sums(self, sums: Sums) -> None:
        (self.found,) = sums

    def workspace(self, rows: int) -> Tensor:
        """Room for the rows of a block."""
        *batch, n, _ = self.directions.shape
        return self.directions.new_empty(*batch, rows, n)

    def add(self, residual: Tensor, rows: Columns | DenseRows) -> None:
        """Sum up the block."""
        self.found = self.found + turned(residual, rows, self.directions, self.x)

    def share(self, processes: Processes) -> Callable[[], None]:
        """Add the sums over all processes."""
        adding = processes.adding([self.found])

        def arrived() -> None:
            (self.found,) = adding()

        return arrived

    def finish(
        self, cost: Tensor, prior: Prior | None, exact: Exact | None = None, values: Values = None
    ) -> Turned:
        """The sums, with the prior's rows."""
        return Turned(self.found + turned_by_prior(prior, self.directions, self.x))
