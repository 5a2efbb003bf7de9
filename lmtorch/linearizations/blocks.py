"""The linear model of points with variables of their own: dense in the shared ones, blocks beside.

    r(β, δ),  e = w δ,      J = [ G  diag(V) ]      G = ∂r/∂β (q·m, n),  V = ∂r/∂δ
                                [ 0  diag(w) ]

Each of m points has k variables of its own, so their columns meet only its q rows. w is the root of
a quadratic penalty, the problem's prior: of a fit with errors in x, δ are the errors in units of
their deviations, and w = 1.

Reference: Boggs, Byrd & Schnabel, A stable and efficient algorithm for nonlinear orthogonal
distance regression (1987).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from .._errors import InputError
from .._triangles import Triangle
from ..arrays import (
    apply,
    column_norms,
    diagonal,
    diagonal_matrix,
    every_entry,
    gram,
    inner,
    joined,
    on_numpy,
    room,
    settled,
    sqrt,
    squared,
    to_type,
    transposed,
    where,
    zeros,
)
from ..rows.own import OwnRows, collapsed, flat
from .arrow import Arrow, summed
from .base import Exact, Prior, Sums, Values, cost_beyond
from .dense import Dense, DenseForm


class Blocks(NamedTuple):
    """The blocks of J; the variables are β (n,), then δ (m·k,), point by point; any batch (...)."""

    residual: Tensor  # (..., q·m), r
    rows: OwnRows  # G and V
    prior: Prior  # (..., n + m·k) each, w and e; zero where there is no penalty
    cost: Tensor  # (...,)
    gradient: Tensor  # (..., n + m·k), Jᵀ(r, e): an iteration asks for it a dozen times
    column_norms: Tensor  # (..., n + m·k), ‖J e_j‖
    values: Values = None

    @classmethod
    def of(
        cls, residual: Tensor, rows: OwnRows, prior: Prior, cost: Tensor, values: Values = None
    ) -> Self:
        """The blocks with what follows from them."""
        gradient = rows.transposed_times(residual) + prior.root * prior.residual
        norms = sqrt(rows.column_norms**2 + prior.root**2)
        return cls(residual, rows, prior, cost, gradient, norms, values)

    @property
    def normal(self) -> Tensor:
        """JᵀJ of all variables, (..., n + m·k, n + m·k): only a small problem wants it."""
        written = self.rows.dense()
        return transposed(written) @ written + diagonal_matrix(self.prior.root**2)

    @property
    def arrow(self) -> Arrow:
        """JᵀJ of all variables, block by block."""
        shared, own = self.rows.shared, self.rows.by_point
        columns = [shared[..., i] for i in range(shared.shape[-1])]
        columns += [flat(own[..., i]) for i in range(own.shape[-1])]
        found = summed(columns, self.residual, {}, self.rows.each, shared.shape[-1])
        return found.matrix.plus(self.prior.root)

    @property
    def condensed(self) -> Dense:
        """The model of the shared variables alone, the others eliminated."""
        return self.reduced().dense

    @property
    def apart(self) -> Tensor:
        """‖(r, e)‖² of the points, where their own variables alone go to the minimum, (...,)."""
        _, across, shifted = self._eliminated(None, 1.0)
        return inner(shifted, _weighed(across, shifted))

    def squared_length(self, step: Tensor) -> Tensor:
        """‖J s‖²."""
        return squared(self.rows.times(step)) + squared(self.prior.root * step)

    def freeze(self, free: Tensor) -> Self:
        """Zero columns outside `free`."""
        of_shared, of_own = self.rows.parts(free)
        rows = self.rows._replace(
            shared=where(of_shared[..., None, :], self.rows.shared, 0.0),
            own=where(of_own[..., None, :, :], self.rows.by_point, 0.0).reshape(
                self.rows.own.shape
            ),
        )
        prior = Prior(self.prior.root * free, self.prior.residual * free)
        return self.of(self.residual, rows, prior, self.cost, self.values)

    def shifted(self, shift: Tensor) -> Self:
        """Residuals where the linear model comes to by `shift` (..., n + m·k)."""
        residual = self.residual + self.rows.times(shift)
        prior = Prior(self.prior.root, self.prior.residual + self.prior.root * shift)
        return self.of(residual, self.rows, prior, cost_beyond(self, shift))

    def reduced(self, damping: Tensor | None = None, floor: Tensor | float = 1.0) -> "Reduced":
        """Eliminate the own variables of the points.

        Args:
            damping: λD_δ² (..., m, k); None: none.
            floor: variance of a row itself, (..., q, m) or for all; zero of rows that hold exactly.
        """
        inverse, across, shifted = self._eliminated(damping, floor)
        (of_shared, _), (shared_residual, _) = map(self.rows.parts, self.prior)
        each, points = self.rows.by_point.shape[-3:-1]
        prior = Prior(of_shared, shared_residual)
        if on_numpy(shifted) and each == 1:
            both = joined([transposed(self.rows.shared), shifted[None]], 0)
            both *= sqrt(across.inverse[0])[:, 0]
            held = prior if of_shared.any() else None
            return Reduced(inverse, across, shifted, DenseForm().whole(both, self.cost, held, None))
        both = joined([self.rows.shared, shifted[..., None]], -1)
        *lead, _, columns = both.shape
        both = _whitened(across, both.reshape(*lead, each, points, columns)).reshape(both.shape)
        rows, residual = both[..., :-1], both[..., -1]
        dense = Dense(
            residual,
            rows,
            prior,
            self.cost,
            apply(transposed(rows), residual) + of_shared * shared_residual,
            sqrt(column_norms(rows) ** 2 + of_shared**2),
        )
        return Reduced(inverse, across, shifted, dense)

    def _eliminated(
        self, damping: Tensor | None, floor: Tensor | float
    ) -> tuple[Tensor, Triangle, Tensor]:
        """What there is of `Reduced` without its rows: B⁻¹, S and r̃."""
        (_, weights), (_, errors) = map(self.rows.parts, self.prior)
        own = self.rows.by_point
        diagonal = weights**2 if damping is None else weights**2 + damping
        # a variable with an empty column stays where it is; another one that nothing holds has no
        # inverse, which makes the step NaN, and the loop raises the damping
        inverse = 1 / diagonal
        if not settled(every_entry(diagonal > 0)):
            without = where((own == 0).all(-3), 0.0, torch.nan)
            inverse = where(diagonal > 0, inverse, without)
        across = _variances(own, inverse, floor)
        return inverse, across, self.residual - _across(own, inverse * weights * errors)


class Reduced(NamedTuple):
    """What is left of the blocks at some λ, with the own variables of the points eliminated."""

    inverse: Tensor  # (..., m, k), B⁻¹
    across: Triangle  # of S = floor + V B⁻¹ Vᵀ, q × q for each point, in entries (..., m, 1)
    shifted: Tensor  # (..., q·m), r̃
    dense: Dense  # rows R G and R r̃ with RᵀR = S⁻¹, and the prior of the shared parameters

    @property
    def root(self) -> Tensor:
        """R with RᵀR = S⁻¹, (..., m, q, q)."""
        like = self.across.pivots[0]  # (..., m, 1)
        each = len(self.across.pivots)
        eye = torch.eye(each, dtype=like.dtype, device=like.device)
        rows = torch.stack([row.expand(*like.shape[:-1], each) for row in eye], -3)
        return _whitened(self.across, rows).movedim(-3, -2)

    def weighed(self, values: Tensor) -> Tensor:
        """S⁻¹ of one number for each row, (..., q·m)."""
        return _weighed(self.across, values)


def _weighed(across: Triangle, values: Tensor) -> Tensor:
    """S⁻¹ of one number for each row, (..., q·m)."""
    each = len(across.pivots)
    if each == 1:
        return values * across.inverse[0][..., 0]
    rows = values.reshape(*values.shape[:-1], each, values.shape[-1] // each)
    entries = [rows[..., row, :, None] for row in range(each)]
    return joined([entry[..., 0] for entry in across.solve(entries)], -1)


def _across(own: Tensor, variables: Tensor) -> Tensor:
    """V of variables (..., m, k), (..., q·m)."""
    return flat(collapsed(own * variables[..., None, :, :], -1))


def _variances(own: Tensor, inverse: Tensor, floor: Tensor | float) -> Triangle:
    """floor + V B⁻¹ Vᵀ of each point, factored."""
    rows = [own[..., row, :, :, None] for row in range(own.shape[-3])]  # (..., m, k, 1) each
    spread = [row * inverse[..., None] for row in rows]
    lower = [[collapsed(row * other, -2) for other in spread[:j]] for j, row in enumerate(rows)]
    diagonal = [collapsed(row * other, -2) for row, other in zip(rows, spread, strict=True)]
    if isinstance(floor, Tensor):
        levels = floor.expand(own.shape[:-1])[..., None].unbind(-3)
        diagonal = [own_part + level for own_part, level in zip(diagonal, levels, strict=True)]
    else:
        diagonal = [own_part + floor for own_part in diagonal]
    return Triangle(lower, diagonal)


def _whitened(across: Triangle, rows: Tensor) -> Tensor:
    """R of rows (..., q, m, n) with RᵀR = S⁻¹."""
    found = across.forward([rows[..., row, :, :] for row in range(rows.shape[-3])])
    scaled = [row * sqrt(inverse) for row, inverse in zip(found, across.inverse, strict=True)]
    return joined([row[..., None, :, :] for row in scaled], -3)


@dataclass(frozen=True)
class BlocksForm:
    """Rows of the points, m (n + k) numbers instead of m (n + m k).

    Attributes:
        own: k, how many variables of its own a point has.
    """

    own: int = 1
    sampled: ClassVar[bool] = False
    arrays: ClassVar[bool] = True
    # the exact Hessian costs as little as a step, see `core/newton.py`
    doubled: ClassVar[int] = 0

    def entries(self, n: int, m: int) -> int:
        """The entries of the blocks; n counts what a row meets: shared variables and its own."""
        return m * n

    def described(self, n: int, m: int) -> str:
        """The blocks with their shape."""
        return f"blocks of the Jacobian ({m} x {n})"

    def accumulator(self, shape: tuple[int, ...], rows: int, like: Tensor) -> "BlocksAccumulator":
        """Rows side by side."""
        return BlocksAccumulator(shape, like)

    def whole(self, both: Tensor, cost: Tensor, prior: Prior, values: Values) -> Blocks:
        """The linear model of all rows of one small problem.

        Args:
            both: columns of the shared variables, then those of a variable of all points each, and
                below them r, (n + k + 1, q·m), an array. It is kept.
            cost: as the accumulator is given it.
            prior: likewise.
            values: likewise.
        """
        n, residual = len(both) - 1 - self.own, both[-1]
        points = (len(prior.root) - n) // self.own
        rows = OwnRows(both[:n].T, both[n:-1].T, both.shape[1] // points)
        if rows.each > 1:
            return Blocks.of(residual, rows, prior, cost, values)
        # what `Blocks.of` computes, by fewer operations
        products, own = gram(both), both[n:-1]
        gradient, squares = prior.root * prior.residual, prior.root * prior.root
        gradient[:n] += products[:n, -1]
        gradient[n:] += (own * residual).T.reshape(-1)
        squares[:n] += diagonal(products)[:n]
        squares[n:] += (own * own).T.reshape(-1)
        return Blocks(residual, rows, prior, cost, gradient, sqrt(squares), values)


class BlocksAccumulator:
    """Keeps the rows of all points."""

    kinds = (OwnRows,)
    sums: Sums = ()  # nothing is summed over rows

    def __init__(self, shape: tuple[int, ...], like: Tensor) -> None:
        self.shape = shape  # (..., n), variables in all
        self.like = like
        self.dtype = torch.float64 if on_numpy(like) else like.dtype
        self.residuals: list[Tensor] = []
        self.rows: list[OwnRows] = []

    def workspace(self, rows: int) -> Tensor:
        """Dense rows in all variables, which nobody should want of this form."""
        *batch, n = self.shape
        return room(self.like, *batch, rows, n)

    def add(self, residual: Tensor, rows: OwnRows) -> None:
        """Keep the rows of some points."""
        self.residuals.append(to_type(residual, self.dtype))
        self.rows.append(rows)

    def finish(
        self, cost: Tensor, prior: Prior | None, exact: Exact | None = None, values: Values = None
    ) -> Blocks:
        """The rows of all points with the prior."""
        if exact is not None:
            raise InputError("a sampled curvature needs the normal equations: solver='cholesky'")
        each = self.rows[0].each
        if len(self.rows) > 1 and each > 1:
            raise InputError("rows of points that have several come all at once, in one block.")
        shared = joined([rows.shared for rows in self.rows], -2)
        own = joined([rows.own for rows in self.rows], -2)
        rows = OwnRows(shared, own, each)
        if prior is None:
            zero = zeros(room(self.like, *self.shape))
            prior = Prior(zero, zero)
        return Blocks.of(joined(self.residuals, -1), rows, prior, cost, values)
