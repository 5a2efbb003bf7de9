"""The robust losses of scipy, and two that reject outliers, as functions z → ρ, ρ′, ρ″.

References: scipy.optimize.least_squares, `loss`; Triggs et al. (2000); Beaton & Tukey, The fitting of power series
(1974); Geman & McClure, Bayesian image analysis (1985).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Rho, half_sum, wide


def soft_l1(z: Tensor) -> Rho:
    """ρ = 2(√(1 + z) − 1): a smooth absolute value."""
    t = 1 + z
    return Rho(2 * z / (t.sqrt() + 1), t**-0.5, -0.5 * t**-1.5)


def huber(z: Tensor) -> Rho:
    """ρ = z up to 1 and 2√z − 1 beyond."""
    inside, safe = z <= 1, z.clamp(min=1)
    return Rho(
        torch.where(inside, z, 2 * safe.sqrt() - 1),
        torch.where(inside, 1.0, safe**-0.5),
        torch.where(inside, 0.0, -0.5 * safe**-1.5),
    )


def cauchy(z: Tensor) -> Rho:
    """ρ = ln(1 + z)."""
    t = 1 + z
    return Rho(torch.log1p(z), 1 / t, -1 / t**2)


def arctan(z: Tensor) -> Rho:
    """ρ = arctan z: bounded."""
    t = 1 + z**2
    return Rho(torch.arctan(z), 1 / t, -2 * z / t**2)


def tukey(z: Tensor) -> Rho:
    """ρ = (1 − (1 − z)³)/3 up to 1, and 1/3 beyond, where a residual has no influence any more: the biweight."""
    inside = z.clamp(max=1)
    left = 1 - inside
    return Rho(inside * (1 - inside + inside**2 / 3), left**2, -2 * left)


def geman_mcclure(z: Tensor) -> Rho:
    """ρ = z/(1 + z): bounded."""
    t = 1 + z
    return Rho(z / t, t**-2, -2 * t**-3)


@dataclass(frozen=True)
class Robust:
    """½ Σ C² ρ((r/C)²).

    Args:
        rho: z → ρ, ρ′, ρ″, with ρ(z) ≈ z near zero.
        scale: C, in the units of the residuals: beyond it they count less. Default: 1, as scipy's `f_scale`.
    """

    rho: Callable[[Tensor], Rho]
    scale: float = 1.0

    def cost(self, residual: Tensor) -> Tensor:
        """½ Σ C² ρ."""
        return self.scale**2 * half_sum(self.rho((wide(residual) / self.scale).square()).value)

    def rescale(self, residual: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
        """Rows times √W, residuals ρ′r/√W, W = ρ′ + 2zρ″."""
        z = (wide(residual) / self.scale).square()
        rho = self.rho(z)
        # beyond the inflection W would be negative: leave a positive crumb, as scipy does
        weight = (rho.first + 2 * z * rho.second).clamp(min=torch.finfo(z.dtype).eps).sqrt()
        return residual * rho.first / weight, jacobian * weight[..., None]

    def influence(self, residual: Tensor) -> Tensor:
        """ρ′ r."""
        return self.rho((wide(residual) / self.scale).square()).first * residual
