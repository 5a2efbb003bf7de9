"""Robust losses: the cost is ½ Σ C² ρ((r/C)²), and what the solver sees are rescaled rows.

With z = (r/C)², the gradient of the cost is Jᵀ(ρ′ r), and its Gauss–Newton Hessian JᵀWJ with W = ρ′ + 2zρ″, kept
positive. Rows scaled by √W, with residuals ρ′r/√W, give exactly this gradient and this matrix, so that nothing
downstream knows of the loss.

Reference: Triggs et al., Bundle adjustment: a modern synthesis (2000), §4.3; the same rows as in scipy's
`scale_for_robust_loss_function`.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Rho(NamedTuple):
    """ρ(z), ρ′(z), ρ″(z), each of the shape of z."""

    value: Tensor
    first: Tensor
    second: Tensor


class Loss(Protocol):
    """What the core asks of a loss."""

    def cost(self, residual: Tensor) -> Tensor:
        """½ Σ C² ρ((r/C)²) over the last dimension, (...,), summed in float64 where the device has it."""

    def rescale(self, residual: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
        """Rows whose plain least squares have the gradient and the Gauss–Newton matrix of the robust cost."""

    def influence(self, residual: Tensor) -> Tensor:
        """ρ′ r: the gradient of the cost in the residuals."""

    def curvature(self, residual: Tensor) -> Tensor:
        """ρ′ + 2zρ″: the second derivative of the cost in each residual, negative beyond an inflection."""

    def take(self, places: Tensor) -> "Loss":
        """The loss of some problems of a batch (b,), by their numbers (k,)."""


def scalar_dtype(device: torch.device) -> torch.dtype:
    """float64, in which costs are summed, but where the device has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def wide(residual: Tensor) -> Tensor:
    """Residuals in the dtype in which costs are summed, so that squaring neither overflows nor underflows.

    The square of 256 is beyond float16, that of 1e-23 below float32.
    """
    return residual.to(scalar_dtype(residual.device))


def half_sum(values: Tensor) -> Tensor:
    """½ Σ over the last dimension; a cost in float32 would drown decreases that its residuals still resolve."""
    return values.sum(-1, dtype=scalar_dtype(values.device)) / 2
