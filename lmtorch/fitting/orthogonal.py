"""Errors in x and y: a residual in β and in displacements η of each point.

    F(β, η) = ½ Σ ‖R_i (f(x_i + T_i η_i, β) − y_i)‖² + ½ Σ ‖η_i‖²

T_i T_iᵀ is the covariance of x_i and R_iᵀR_i the inverse of that of y_i, so that all η have
deviation one. The second sum is a quadratic penalty, the problem's prior. In the first, points see
only their own x, so that ∂f_i/∂η_i is the derivative along a displacement τ of all points together:
n + k directions give every block of J, by whatever source of derivatives is at hand.

Reference: Boggs, Byrd & Schnabel (1987).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from .._autodiff import Params
from ..jacobians.base import Bending, Block, JacobianSource, Workspace, as_block
from ..minimising.user_function import UserFunction
from ..residuals.base import Part
from ..rows.own import OwnRows


@dataclass(frozen=True)
class PointsPart(Part):
    """All rows, and whose they are: what stands for some problems of a batch knows of these."""

    residual: "DisplacementResidual | None" = None


@dataclass(frozen=True)
class DisplacementResidual:
    """r(β, η), the first of the two sums, in one part; of a batch (b,) one for each.

    Attributes:
        calling: the residuals (q·m,) of one problem at (β, τ), called with ηᵀ and its shares.
        shares: arguments that differ between problems, (b, ...) each; (1, ...) of a single one.
        n: parameters.
        points: m.
        predictors: how many numbers x has at each point, k.
        each: how many residuals a point has, q.
        batched: there is a batch.
        looped: its problems are called one after the other, for what `torch.vmap` refuses.
        black_box: no derivatives lead through it.
    """

    calling: UserFunction
    shares: tuple[Tensor, ...]
    n: int
    points: int
    predictors: int
    each: int = 1
    batched: bool = False
    looped: bool = False
    black_box: bool = False

    @property
    def rows(self) -> int:
        """How many residuals there are, q·m."""
        return self.each * self.points

    def params(self, x: Tensor) -> Params:
        """β (..., n) and η (..., m, k)."""
        return x[..., : self.n], x[..., self.n :].unflatten(-1, (self.points, self.predictors))

    def parts(self) -> Iterable[Part]:
        """All rows, in one part."""
        yield PointsPart(
            self._function, _run, int(self.batched), black_box=self.black_box, residual=self
        )

    def shifted(self, eta: Tensor) -> Part:
        """The rows as a function of (β, τ), with points displaced by T (η + τ)."""
        run = partial(self._run, eta)
        function = partial(run, self.calling.residual)
        return Part(function, run, int(self.batched), black_box=self.black_box)

    def replay(self) -> AbstractContextManager[None]:
        """A pure function draws nothing."""
        return nullcontext()

    def take(self, places: Tensor) -> "DisplacementResidual":
        """Some problems of the batch."""
        return replace(self, shares=tuple(share[places] for share in self.shares))

    def with_tau(self, beta: Tensor) -> Tensor:
        """(β, τ) at τ = 0."""
        return torch.cat([beta, beta.new_zeros(*beta.shape[:-1], self.predictors)], -1)

    def _function(self, params: Params) -> Tensor:
        beta, eta = params
        return self._run(eta, self.calling.residual, (self.with_tau(beta),))

    def _run(self, eta: Tensor, function: Callable[..., Any], params: Params) -> Any:
        """What a function (params, ηᵀ, *shares) of one problem returns, for all of them."""
        eta = eta.mT
        if not self.batched:
            return function(params, eta, *(share[0] for share in self.shares))
        if not self.looped:
            return vmap(function)(params, eta, *self.shares)
        singles = zip(*(t.unbind(0) for t in (*params, eta, *self.shares)), strict=True)
        return torch.stack([function(one[:1], *one[1:]) for one in singles])


def _run(other: Callable[..., Any], params: Params) -> Any:
    return other(params)


@dataclass(frozen=True)
class OwnColumns:
    """Rows with own columns, from the derivatives in (β, τ).

    Attributes:
        inner: takes these derivatives.
    """

    inner: JacobianSource

    kinds = (OwnRows,)

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[Block]:
        """All rows in one block, from the blocks of the inner source."""
        assert isinstance(part, PointsPart)
        assert part.residual is not None
        residual, (beta, eta) = part.residual, params
        theta, n = residual.with_tau(beta), beta.shape[-1]
        lead = theta.shape[:-1]
        dense = Workspace(lambda rows: workspace(rows).new_empty(*lead, rows, theta.shape[-1]))
        inner = self.inner.blocks(residual.shifted(eta), (theta,), dense)
        found = [(values, rows.dense()) for values, rows in map(as_block, inner)]
        matrix = torch.cat([rows for _, rows in found], -2)
        rows = OwnRows(matrix[..., :n], matrix[..., n:], residual.each)
        yield Block(torch.cat([values for values, _ in found], -1), rows)

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals, as the inner source evaluates them."""
        return self.inner.evaluate(part, params)

    def bend(self, part: Part, params: Params, direction: Params) -> Tensor | None:
        """d²r(x + tv)/dt² at t = 0, (..., q·m), as the inner source has it."""
        inner = self.inner
        return inner.bend(part, params, direction) if isinstance(inner, Bending) else None
