"""Gradients of a solution in the data of its problem, by the implicit function theorem.

At a minimum the gradient of the cost vanishes, g(x*, θ) = 0, whatever the data θ; so dx*/dθ = −H⁻¹
∂g/∂θ with the Hessian H of the cost, residuals' curvature included. The path of the minimisation
plays no part: backward is one solve with the kept factor, and one pullback of g. Variables held at
a bound stay; so do directions in which the cost has no curvature.

Reference: Gould et al., On differentiating parameterized argmin and argmax problems (2016); Krantz
& Parks, The implicit function theorem (2013).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..losses.base import Loss
from ..losses.criterion import Bound
from .problems import ProblemsResidual


def attach(
    residual: ProblemsResidual,
    loss: Loss,
    x: Tensor,  # (..., n), a minimum
    free: Tensor,  # (..., n) bool
) -> Tensor:
    """x with a graph that leads to the arguments of the residual."""
    if not x.numel():
        return x
    (part,) = residual.parts()
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        gradient = _gradient(loss, part.function(residual.params(point)), point)
        if gradient is None:
            return x
        rows = [
            torch.autograd.grad(
                entry, point, retain_graph=True, allow_unused=True, materialize_grads=True
            )[0]
            if entry.requires_grad
            else torch.zeros_like(point)
            for entry in gradient.reshape(-1, x.shape[-1]).sum(0)
        ]
        if not gradient.requires_grad:
            return x
        hessian = torch.stack(rows, -2)
        both = free[..., :, None] & free[..., None, :]
        values, vectors = torch.linalg.eigh(torch.where(both, (hessian + hessian.mT) / 2, 0.0))
        largest = values.abs().amax(-1, keepdim=True)
        kept = values.abs() > x.shape[-1] * torch.finfo(x.dtype).eps * largest
        inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)
        return _implicit(gradient, x.detach(), vectors, inverse)


def _gradient(loss: Loss, values: Tensor, point: Tensor) -> Tensor | None:
    """The gradient of the cost of residuals or outputs, with its graph; None: there is none."""
    if not values.requires_grad:
        return None
    if isinstance(loss, Bound):
        # by its slope: autograd would see the corners where a cost is kept from falling below zero
        slope = loss.expand(values).slope.to(values.dtype)
        (gradient,) = torch.autograd.grad(values, point, slope, create_graph=True)
    else:
        (gradient,) = torch.autograd.grad(loss.cost(values).sum(), point, create_graph=True)
    return gradient


class _Implicit(torch.autograd.Function):
    """x as a function of the gradient g: its derivative is −H⁻¹."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, vectors: Tensor, inverse: Tensor) -> Tensor:
        """The value is that of the minimisation."""
        ctx.save_for_backward(gradient, vectors, inverse)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        """Multiply the cotangent by −H⁻¹."""
        gradient, vectors, inverse = ctx.saved_tensors
        inside = inverse * (vectors.mT @ cotangent[..., None])[..., 0]
        result = -(vectors @ inside[..., None])[..., 0]
        return _once(result, gradient), None, None, None


class _Once(torch.autograd.Function):
    """Ends the graph: what it passes on may not be differentiated again, as H has no graph.

    torch's own `once_differentiable` says so only where the cotangent asks for gradients, not where
    the data do.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, leading: Tensor) -> Tensor:
        """The value, at the end of the graph that leads to the data."""
        return value.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        """Refuse a second differentiation.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            "a solution of least_squares can be differentiated once: its second derivatives would "
            "need those of the Hessian. Take them by differences of first ones."
        )


# torch 2.13 has no types for them
_implicit: Callable[..., Tensor] = _Implicit.apply
_once: Callable[..., Tensor] = _Once.apply
