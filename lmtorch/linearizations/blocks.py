"""The linear model of points with variables of their own: dense in the shared ones, blocks beside.

    r(β, δ),  e = w δ,      J = [ G  diag(V) ]      G = ∂r/∂β (m, n),  V = ∂r/∂δ (m, k)
                                [ 0  diag(w) ]

Each point has variables of its own, so their columns meet only its rows. w is the root of a
quadratic penalty, the problem's prior: of a fit with errors in x, δ are the errors and w = 1/σ_x.

Reference: Boggs, Byrd & Schnabel, A stable and efficient algorithm for nonlinear orthogonal
distance regression (1987).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from .._errors import InputError
from ..rows.own import OwnRows
from . import by_columns
from .base import Exact, Prior, Sums, Values, cost_beyond
from .dense import Dense


class Blocks(NamedTuple):
    """The blocks of J; the variables are β (n,), then δ (m·k,), point by point."""

    residual: Tensor  # (m,), r
    rows: OwnRows  # G (m, n) and V (m, k)
    prior: Prior  # (n + m·k,) each, w and e; zero where there is no penalty
    cost: Tensor
    values: Values = None

    @property
    def gradient(self) -> Tensor:
        """Jᵀ(r, e), (n + m·k,)."""
        return self.rows.transposed_times(self.residual) + self.prior.root * self.prior.residual

    @property
    def column_norms(self) -> Tensor:
        """‖J e_j‖, (n + m·k,)."""
        return (self.rows.column_norms.square() + self.prior.root.square()).sqrt()

    @property
    def normal(self) -> Tensor:
        """JᵀJ of all variables, (n + m·k, n + m·k): only a small problem wants it."""
        written = self.rows.dense()
        return written.mT @ written + torch.diag_embed(self.prior.root.square())

    def squared_length(self, step: Tensor) -> Tensor:
        """‖J s‖²."""
        return self.rows.times(step).square().sum(-1) + (self.prior.root * step).square().sum(-1)

    def freeze(self, free: Tensor) -> Self:
        """Zero columns outside `free`."""
        of_shared, of_own = self.rows.parts(free)
        return self._replace(
            rows=OwnRows(
                torch.where(of_shared, self.rows.shared, 0.0),
                torch.where(of_own, self.rows.own, 0.0),
            ),
            prior=Prior(self.prior.root * free, self.prior.residual * free),
        )

    def shifted(self, shift: Tensor) -> Self:
        """Residuals where the linear model comes to by `shift` (n + m·k,)."""
        return self._replace(
            residual=self.residual + self.rows.times(shift),
            prior=Prior(self.prior.root, self.prior.residual + self.prior.root * shift),
            cost=cost_beyond(self, shift),
            values=None,
        )

    def optimality(self) -> Tensor:
        """The largest cosine between the residuals and a column of J, (...,)."""
        return by_columns.optimality(self)

    def rounding(self, x: Tensor, eps: float) -> Tensor:
        """How far round-off alone may move the cost, (...,)."""
        return by_columns.rounding(self, x, eps)

    def relative_length(self, x: Tensor, step: Tensor) -> Tensor:
        """The largest entry of a step beside its parameter, (...,)."""
        return by_columns.relative_length(self, x, step)

    def longest_single_move(self, x: Tensor) -> Tensor:
        """The relative length of the longest best move of one parameter alone, (...,)."""
        return by_columns.longest_single_move(self, x)

    def reduced(self, damping: Tensor | None = None) -> "Reduced":
        """Eliminate the own variables of the points.

        Args:
            damping: λD_δ² (m, k); None: none.
        """
        (of_shared, weights), (shared_residual, errors) = map(self.rows.parts, self.prior)
        own = self.rows.own
        diagonal = weights.square() if damping is None else weights.square() + damping
        # a variable with an empty column stays where it is; another one that nothing holds has no
        # inverse, which makes the step NaN, and the loop raises the damping
        without = torch.where(own == 0, 0.0, torch.nan)
        inverse = torch.where(diagonal > 0, 1 / diagonal, without)
        share = 1 / (1 + (own.square() * inverse).sum(-1))
        shifted = self.residual - (own * inverse * weights * errors).sum(-1)
        root = share.sqrt()
        residual, rows = root * shifted, root[..., None] * self.rows.shared
        dense = Dense(
            residual,
            rows,
            Prior(of_shared, shared_residual),
            self.cost,
            rows.mT @ residual + of_shared * shared_residual,
            (torch.linalg.vector_norm(rows, dim=-2).square() + of_shared.square()).sqrt(),
        )
        return Reduced(inverse, share, shifted, dense)


class Reduced(NamedTuple):
    """What is left of the blocks at some λ, with the own variables of the points eliminated."""

    inverse: Tensor  # (m, k), B⁻¹
    share: Tensor  # (m,), ω
    shifted: Tensor  # (m,), r̃
    dense: Dense  # rows √ω G and √ω r̃, with the prior of the shared parameters


@dataclass(frozen=True)
class BlocksForm:
    """Rows of the points, m (n + k) numbers instead of m (n + m k)."""

    sampled: ClassVar[bool] = False

    def entries(self, n: int, m: int) -> int:
        """The entries of the blocks; n counts what a row meets: shared variables and its own."""
        return m * n

    def described(self, n: int, m: int) -> str:
        """The blocks with their shape."""
        return f"blocks of the Jacobian ({m} x {n})"

    def accumulator(self, shape: tuple[int, ...], rows: int, like: Tensor) -> "BlocksAccumulator":
        """Rows side by side."""
        return BlocksAccumulator(shape[-1], like)


class BlocksAccumulator:
    """Keeps the rows of all points."""

    kinds = (OwnRows,)
    sums: Sums = ()  # nothing is summed over rows

    def __init__(self, n: int, like: Tensor) -> None:
        self.n = n  # variables in all
        self.like = like
        self.residuals: list[Tensor] = []
        self.rows: list[OwnRows] = []

    def workspace(self, rows: int) -> Tensor:
        """Dense rows in all variables, which nobody should want of this form."""
        return self.like.new_empty(rows, self.n)

    def add(self, residual: Tensor, rows: OwnRows) -> None:
        """Keep the rows of some points."""
        self.residuals.append(residual.to(self.like.dtype))
        self.rows.append(rows)

    def finish(
        self, cost: Tensor, prior: Prior | None, exact: Exact | None = None, values: Values = None
    ) -> Blocks:
        """The rows of all points with the prior."""
        if exact is not None:
            raise InputError("a sampled curvature needs the normal equations: solver='cholesky'")
        zero = self.like.new_zeros(self.n)
        rows = OwnRows(*(torch.cat(blocks) for blocks in zip(*self.rows, strict=True)))
        return Blocks(torch.cat(self.residuals), rows, prior or Prior(zero, zero), cost, values)
