"""What is minimised, seen from the loop: a cost, a linear model of it, and a way to move.

    F(x) = ½ Σ C² ρ((r(x)/C)²) + ½ Σ w x²   over the box   lower ≤ x ≤ upper

Robust loss, prior, bounds, learning rate and the dtype of the parameters are properties of the problem; the loop does
not know of them. x has the dtype of the parameters, matrices and vectors that of the linear algebra, costs float64.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .._autodiff import second_directional
from ..jacobians.base import JacobianSource
from ..linearizations.base import Form, Linearization, Prior
from ..losses.base import Loss, half_sum
from ..residuals.base import Part, Residual
from .bounds import Bounds


class Curvature(Protocol):
    """Which rows JᵀJ is made of; the cost and the gradient always come from all of them."""

    def linearize(self, problem: "Problem", x: Tensor, prior: Prior | None) -> Linearization:
        """The linear model at x."""


@dataclass(frozen=True)
class Problem:
    """A sum of squares with everything that belongs to it."""

    residual: Residual
    source: JacobianSource
    form: Form
    loss: Loss
    dtype: torch.dtype  # of the linear algebra
    penalty: Tensor | None = None  # w, (n,): ½ Σ w x², weight decay
    bounds: Bounds | None = None
    rate: Tensor | None = None  # (n,): learning rates, factors of the step
    curvature: Curvature | None = None  # None: every row

    def cost(self, x: Tensor) -> Tensor:
        """F(x), (...,)."""
        params = self.residual.params(x)
        with self.residual.replay():
            parts = [self.loss.cost(self.source.evaluate(part, params)) for part in self.residual.parts()]
        return self._with_penalty(torch.stack(parts).sum(0) if len(parts) > 1 else parts[0], x)

    def linearize(self, x: Tensor) -> Linearization:
        """r ≈ r + J s at x, with the variables that may not move frozen."""
        prior = self.prior(x)
        whole = self.rows(x, prior) if self.curvature is None else self.curvature.linearize(self, x, prior)
        return whole if self.bounds is None else whole.freeze(self.bounds.free(x, whole.gradient))

    def rows(self, x: Tensor, prior: Prior | None) -> Linearization:
        """The linear model from every row."""
        accumulator = self.form.accumulator(tuple(x.shape), self.residual.rows, x.new_empty(0, dtype=self.dtype))
        params = self.residual.params(x)
        cost = None
        with self.residual.replay():
            for part in self.residual.parts():
                for residual, jacobian in self.source.blocks(part, params, accumulator.workspace):
                    share = self.loss.cost(residual)
                    cost = share if cost is None else cost + share
                    accumulator.add(*self.loss.rescale(residual, jacobian))
        assert cost is not None
        return accumulator.finish(self._with_penalty(cost, x), prior)

    def move(self, x: Tensor, step: Tensor) -> Tensor:
        """x + rate · step, inside the box and rounded to the dtype of the parameters."""
        moved = x.to(self.dtype) + (step if self.rate is None else self.rate * step)
        return (moved if self.bounds is None else self.bounds.project(moved)).to(x.dtype)

    def second_order(self, x: Tensor, direction: Tensor) -> Tensor:
        """Jᵀ r_vv, the second derivative of the residuals along v pulled back, (..., n)."""
        params, along = self.residual.params(x), self.residual.params(direction.to(x.dtype))
        total = torch.zeros_like(direction)
        with self.residual.replay():
            for part in self.residual.parts():
                bend = _second_directional(part, params, along)
                start = 0
                for residual, jacobian in self.source.blocks(part, params, _fresh(x, self.dtype)):
                    rows = residual.shape[-1]
                    weighted = bend[..., start : start + rows]
                    _, scaled = self.loss.rescale(residual, jacobian)
                    weighted = self.loss.rescale(residual, weighted[..., None])[1][..., 0].to(self.dtype)
                    total = total + (scaled.mT @ weighted[..., None])[..., 0]
                    start += rows
        return total

    def prior(self, x: Tensor) -> Prior | None:
        """The penalty as rows √w · x."""
        if self.penalty is None:
            return None
        root = self.penalty.to(self.dtype).sqrt().expand(x.shape)
        return Prior(root, root * x.to(self.dtype))

    def _with_penalty(self, cost: Tensor, x: Tensor) -> Tensor:
        return cost if self.penalty is None else cost + half_sum(self.penalty * x.square())


def _fresh(x: Tensor, dtype: torch.dtype):  # type: ignore[no-untyped-def]
    return lambda rows: x.new_empty(*x.shape[:-1], rows, x.shape[-1], dtype=dtype)


def _second_directional(part: Part, params: tuple[Tensor, ...], along: tuple[Tensor, ...]) -> Tensor:
    """r_vv by forward mode twice, or by central differences for what has no forward mode."""
    try:
        return second_directional(part.function, params, along)
    except (RuntimeError, NotImplementedError):
        # the least step whose square still resolves: ε^¼ of the size of the parameters (Transtrum & Sethna 2012, eq. 14)
        size = torch.stack([torch.linalg.vector_norm(p) for p in params]).max().clamp(min=1)
        length = torch.stack([torch.linalg.vector_norm(v) for v in along]).max()
        h = torch.finfo(params[0].dtype).eps ** 0.25 * size / length

        def at(t: Tensor) -> Tensor:
            return part.function(tuple(p + t * v for p, v in zip(params, along, strict=True)))

        return (at(h) - 2 * part.function(params) + at(-h)) / h**2
