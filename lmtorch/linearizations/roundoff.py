"""How far round-off turns the gradient, direction by direction: a sum over the rows of J.

Rounding x and r costs row i up to ε eᵢ, with eᵢ = |rᵢ| + Σⱼ |Jᵢⱼ xⱼ|, and so the slope along t

    |tᵀJᵀδr| ≤ ε Σᵢ |(J t)ᵢ| eᵢ

A bound of norms, ε ‖J t‖ ‖e‖, would be far too large where a parameter has run along a valley: one
row alone then carries all of a large column, which the direction of the valley leaves as it is. It
may be thousands of times what the gradient still says, and hide that the cost falls.

That is the worst case. Roundings of m rows that know nothing of each other add up like a random
walk, and of the entries of J too:

    |tᵀδ(Jᵀr)| ~ ε √(Σᵢ (J t)ᵢ² eᵢ² + (Σⱼ |tⱼ Jᵢⱼ|)² rᵢ²)

In single precision the one is so far above the other, √m times, that it would excuse steps of whole
standard errors.

References: Higham, Accuracy and Stability of Numerical Algorithms (2002), §3.1 and §20.1;
Higham & Mary, A new approach to probabilistic rounding error analysis (2019), theorem 2.4.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..arrays import apply, joined, to_type, transposed
from ..distributed.processes import Processes
from ..rows.base import Rows
from ..rows.columns import Columns
from ..rows.matrix import DenseRows
from .base import Exact, Prior, Sums, Values


def turned(residual: Tensor, rows: Rows, directions: Tensor, x: Tensor) -> Tensor:
    """What the rows say of each direction t, (..., 3, k).

    Args:
        residual: r, (..., rows).
        rows: of J.
        directions: T, (..., n, k).
        x: where they were made, (..., n).

    Returns:
        Side by side Σᵢ |(J t)ᵢ| eᵢ, the sum of squares of a random walk, and ‖J t‖².
    """
    given: Any = rows
    if not isinstance(rows, Columns):
        matrix = to_type(rows.dense(), directions.dtype)
        left = abs(to_type(residual, directions.dtype))
        spent = left + apply(abs(matrix), abs(x))
        return _sums(abs(matrix @ directions), abs(matrix) @ abs(directions), left, spent)
    columns = [None if c is None else c.to(directions.dtype) for c in given.columns]
    there = [(place, column) for place, column in enumerate(columns) if column is not None]
    left = abs(residual.to(directions.dtype))
    spent = left
    for place, column in there:
        spent = spent + abs(column * x[..., place, None])
    found = []
    for one in directions.unbind(-1):
        moves = [column * one[..., place, None] for place, column in there]
        along, entries = abs(sum(moves)), sum(abs(move) for move in moves)
        found.append(_sums(along[..., None], entries[..., None], left, spent))
    return torch.cat(found, -1)


def _sums(along: Tensor, entries: Tensor, left: Tensor, spent: Tensor) -> Tensor:
    """The three sums of |J t| and Σⱼ |tⱼ Jᵢⱼ|, (..., rows, k), with |r| and e, (..., rows)."""
    squares = along * along
    walk = apply(transposed(squares), spent * spent)
    walk = walk + apply(transposed(entries * entries), left * left)
    return _beside(apply(transposed(along), spent), walk, squares.sum(-2))


def _beside(worst: Tensor, walk: Tensor, length: Tensor) -> Tensor:
    return joined([worst[..., None, :], walk[..., None, :], length[..., None, :]], -2)


def turned_by_prior(prior: Prior | None, directions: Tensor, x: Tensor) -> Tensor | float:
    """The same of the rows of a prior, whose residuals are their entries times x; 0: none."""
    if prior is None:
        return 0.0
    left = abs(prior.root * x)
    along = abs(prior.root[..., :, None] * directions)
    return _sums(along, along, left, 2 * left)


class Turned(NamedTuple):
    """What is summed over all rows, in the place of a linear model."""

    found: Tensor  # (..., 3, k), see `turned`
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
        """Three numbers for each direction."""
        return 3 * self.directions.shape[-1]

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
        *batch, _, count = directions.shape
        self.found = directions.new_zeros(*batch, 3, count)

    @property
    def sums(self) -> Sums:
        """All three."""
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
