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

from ..arrays import apply, to_type, transposed
from ..distributed.processes import Processes
from ..rows.base import Rows
from ..rows.columns import Columns
from ..rows.matrix import DenseRows
from .base import Exact, Prior, Sums, Values


class Told(NamedTuple):
    """What rows say of directions t: sums over the rows, (..., k) each."""

    worst: Tensor  # Σᵢ |(J t)ᵢ| eᵢ
    walk: Tensor  # the sum of squares of a random walk, see above
    length: Tensor  # ‖J t‖²

    def with_rows(self, other: "Told") -> "Told":
        """What these rows and others say together."""
        return Told(*(own + more for own, more in zip(self, other, strict=True)))


def turned(residual: Tensor, rows: Rows, directions: Tensor, x: Tensor) -> Told:
    """What the rows say of each direction.

    Args:
        residual: r, (..., rows).
        rows: of J.
        directions: T, (..., n, k).
        x: where they were made, (..., n).
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
    return Told(*(torch.cat(sums, -1) for sums in zip(*found, strict=True)))


def _sums(along: Tensor, entries: Tensor, left: Tensor, spent: Tensor) -> Told:
    """The three sums of |J t| and Σⱼ |tⱼ Jᵢⱼ|, (..., rows, k), with |r| and e, (..., rows)."""
    squares = along * along
    walk = apply(transposed(squares), spent * spent)
    walk = walk + apply(transposed(entries * entries), left * left)
    return Told(apply(transposed(along), spent), walk, squares.sum(-2))


def with_prior(told: Told, prior: Prior | None, directions: Tensor, x: Tensor) -> Told:
    """What the rows of a prior say, too, whose residuals are their entries times x."""
    if prior is None:
        return told
    left = abs(prior.root * x)
    along = abs(prior.root[..., :, None] * directions)
    return told.with_rows(_sums(along, along, left, 2 * left))


class Turned(NamedTuple):
    """What is summed over all rows, in the place of a linear model."""

    found: Told
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
        nothing = torch.zeros_like(directions[..., 0, :])
        self.found = Told(nothing, nothing, nothing)

    @property
    def sums(self) -> Sums:
        """All three."""
        return tuple(self.found)

    @sums.setter
    def sums(self, sums: Sums) -> None:
        self.found = Told(*sums)

    def workspace(self, rows: int) -> Tensor:
        """Room for the rows of a block."""
        *batch, n, _ = self.directions.shape
        return self.directions.new_empty(*batch, rows, n)

    def add(self, residual: Tensor, rows: Columns | DenseRows) -> None:
        """Sum up the block."""
        self.found = self.found.with_rows(turned(residual, rows, self.directions, self.x))

    def share(self, processes: Processes) -> Callable[[], None]:
        """Add the sums over all processes."""
        adding = processes.adding(list(self.found))

        def arrived() -> None:
            self.found = Told(*adding())

        return arrived

    def finish(
        self, cost: Tensor, prior: Prior | None, exact: Exact | None = None, values: Values = None
    ) -> Turned:
        """The sums, with the prior's rows."""
        return Turned(with_prior(self.found, prior, self.directions, self.x))
