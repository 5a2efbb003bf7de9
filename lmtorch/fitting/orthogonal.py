"""Errors in x and y as a problem of the loop: β and one displacement δ for each point.

    F(β, δ) = ½ Σ ((f(x + δ, β) − y)/σ_y)² + ½ Σ (δ/σ_x)²

Points see only their own x, so that ∂f_i/∂δ_i is the derivative along a displacement τ of all points together: n + k
directions give every block of J, by whatever source of derivatives serves.

Reference: Boggs, Byrd & Schnabel (1987).
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .._autodiff import Params
from .._errors import as_raised
from ..core.problem import Problem
from ..jacobians.base import DescendedError
from ..linearizations.base import Linearization
from ..linearizations.blocks import Arrow
from ..losses.base import half_sum
from ..minimising.user_function import UserFunction
from ..residuals.base import Part


@dataclass(frozen=True)
class DisplacementResidual:
    """r(β, δ) with the points where they are, as a function of β and a common displacement τ.

    Attributes:
        calling: the residuals (m,) at (β, τ) of points that are its share.
        x: (m,) or (k, m).
        n: parameters.
        black_box: no derivatives lead through.
    """

    calling: UserFunction
    x: Tensor
    n: int
    black_box: bool
    rows: int = 0

    @property
    def predictors(self) -> int:
        """k."""
        return 1 if self.x.ndim == 1 else self.x.shape[0]

    def params(self, x: Tensor) -> Params:
        """β with τ = 0, and δ (m, k) beside it."""
        beta, delta = x[: self.n], x[self.n :].view(-1, self.predictors)
        return torch.cat([beta, beta.new_zeros(self.predictors)]), delta

    def part_at(self, delta: Tensor) -> Part:
        """All rows, of (β, τ), with the points displaced by δ."""
        moved = (self.x + (delta[:, 0] if self.x.ndim == 1 else delta.mT))[None]
        return Part(
            lambda params: self.calling.residual(params, moved[0]), _run, black_box=self.black_box
        )

    def parts(self) -> Iterable[Part]:
        """All rows, with no point displaced."""
        yield self.part_at(self.x.new_zeros(self.x.shape[-1], self.predictors))

    def replay(self) -> AbstractContextManager[None]:
        """A pure function draws nothing."""
        return nullcontext()

    def take(self, places: Tensor) -> "DisplacementResidual":
        """There is one problem."""
        return self


def _run(other: Callable[..., Any], params: Params) -> Any:
    return other(params)


@dataclass(frozen=True)
class OrthogonalProblem(Problem):
    """The loop's problem, with J as an arrow."""

    weights: Tensor = field(
        default_factory=lambda: torch.ones(1, 1, device="cpu")
    )  # (m, k), 1/σ_x, zero where x is exact

    def cost(self, x: Tensor) -> Tensor:
        """F(β, δ)."""
        theta, delta = self.residual.params(x)
        return self._cost(self.source.evaluate(self._displaced.part_at(delta), (theta,)), delta)

    def hessian(self, x: Tensor) -> None:
        """None: second derivatives are not taken here."""

    @as_raised
    def model(self, x: Tensor) -> Linearization:
        """The blocks of J."""
        theta, delta = self.residual.params(x)
        rows, k = delta.shape
        part = self._displaced.part_at(delta)
        try:
            blocks = list(
                self.source.blocks(
                    part, (theta,), lambda m: x.new_empty(m, len(theta), dtype=self.dtype)
                )
            )
        except DescendedError:
            return self.model(x)
        values = torch.cat([block[0] for block in blocks])
        jacobian = torch.cat([block[1] for block in blocks])
        return Arrow(
            values.to(self.dtype),
            self.weights * delta,
            jacobian[:, :-k],
            torch.where(self.weights > 0, jacobian[:, -k:], 0.0),
            self.weights.expand(rows, k),
            self._cost(values, delta),
        )

    @property
    def _displaced(self) -> DisplacementResidual:
        assert isinstance(self.residual, DisplacementResidual)
        return self.residual

    def _cost(self, values: Tensor, delta: Tensor) -> Tensor:
        errors = self.weights * delta
        return half_sum(values.square()) + half_sum(errors.flatten().square())
