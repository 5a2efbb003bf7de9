"""Errors in x and y: a residual in β and in one displacement δ of each point.

    F(β, δ) = ½ Σ ((f(x + δ, β) − y)/σ_y)² + ½ Σ (δ/σ_x)²

The second sum is a quadratic penalty, the problem's prior. In the first, points see only their own
x, so that ∂f_i/∂δ_i is the derivative along a displacement τ of all points together: n + k
directions give every block of J, by whatever source of derivatives is at hand.

Reference: Boggs, Byrd & Schnabel (1987).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._autodiff import Params
from ..jacobians.base import Bending, Block, JacobianSource, Workspace, as_block
from ..minimising.user_function import UserFunction
from ..residuals.base import Part
from ..rows.own import OwnRows


@dataclass(frozen=True)
class DisplacementResidual:
    """r(β, δ), the first of the two sums, in one part.

    Attributes:
        calling: the residuals (m,) at (β, τ), of the points that it is given.
        x: (m,) or (k, m), the points where they were measured.
        n: parameters.
        black_box: no derivatives lead through it.
    """

    calling: UserFunction
    x: Tensor
    n: int
    black_box: bool

    @property
    def rows(self) -> int:
        """How many points there are, m."""
        return self.x.shape[-1]

    @property
    def predictors(self) -> int:
        """How many numbers x has at each point, k."""
        return 1 if self.x.ndim == 1 else self.x.shape[0]

    def params(self, x: Tensor) -> Params:
        """β (n,) and δ (m, k)."""
        return x[: self.n], x[self.n :].view(-1, self.predictors)

    def parts(self) -> Iterable[Part]:
        """All rows, in one part."""
        yield Part(self._function, _run, black_box=self.black_box)

    def shifted(self, delta: Tensor) -> Part:
        """The rows as a function of (β, τ), with points displaced by δ + τ."""
        moved = self._moved(delta)
        return Part(
            lambda params: self.calling.residual(params, moved), _run, black_box=self.black_box
        )

    def replay(self) -> AbstractContextManager[None]:
        """A pure function draws nothing."""
        return nullcontext()

    def take(self, places: Tensor) -> "DisplacementResidual":
        """There is one problem."""
        return self

    def _function(self, params: Params) -> Tensor:
        beta, delta = params
        theta = torch.cat([beta, beta.new_zeros(self.predictors)])
        return self.calling.residual((theta,), self._moved(delta))

    def _moved(self, delta: Tensor) -> Tensor:
        return self.x + (delta[:, 0] if self.x.ndim == 1 else delta.mT)


def _run(other: Callable[..., Any], params: Params) -> Any:
    return other(params)


@dataclass(frozen=True)
class OwnColumns:
    """Rows with own columns, from the derivatives in (β, τ).

    Attributes:
        residual: whose rows they are.
        inner: takes these derivatives.
        movable: (m, k) bool, which points have an error in which x; others stay where they are.
    """

    residual: DisplacementResidual
    inner: JacobianSource
    movable: Tensor

    kinds = (OwnRows,)

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[Block]:
        """All rows, in the blocks of the inner source."""
        beta, delta = params
        theta = torch.cat([beta, beta.new_zeros(self.residual.predictors)])
        dense = Workspace(lambda rows: workspace(rows).new_empty(rows, len(theta)))
        start = 0
        for found in self.inner.blocks(self.residual.shifted(delta), (theta,), dense):
            values, rows = as_block(found)
            matrix, some = rows.dense(), slice(start, start + values.shape[-1])
            own = torch.where(self.movable[some], matrix[:, len(beta) :], 0.0)
            yield Block(values, OwnRows(matrix[:, : len(beta)], own))
            start = some.stop

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals, as the inner source evaluates them."""
        return self.inner.evaluate(part, params)

    def bend(self, part: Part, params: Params, direction: Params) -> Tensor | None:
        """d²r(x + tv)/dt² at t = 0, (m,), as the inner source has it."""
        inner = self.inner
        return inner.bend(part, params, direction) if isinstance(inner, Bending) else None
