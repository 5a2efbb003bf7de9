"""The robust losses of scipy, and those that reject outliers, as functions z → ρ, ρ′, ρ″.

References: scipy.optimize.least_squares, `loss`; Triggs et al. (2000); Beaton & Tukey, The fitting
of power series (1974); Geman & McClure, Bayesian image analysis (1985); Barron, A general and
adaptive robust loss function (2019).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard

import torch
from torch import Tensor

from .._arrays import tensor_of
from .._errors import InputError
from ..arrays import (
    arrays_of,
    at_least,
    maximum,
    on_numpy,
    resolution,
    sqrt,
    tensor_from,
    with_type_of,
)
from .base import Expansion, Rho, half_sum, wide


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
    """The biweight: ρ = (1 − (1 − z)³)/3 up to 1, and 1/3 beyond, where influence ends."""
    inside = z.clamp(max=1)
    left = 1 - inside
    return Rho(inside * (1 - inside + inside**2 / 3), left**2, -2 * left)


def geman_mcclure(z: Tensor) -> Rho:
    """ρ = z/(1 + z): bounded."""
    t = 1 + z
    return Rho(z / t, t**-2, -2 * t**-3)


@dataclass(frozen=True)
class Barron:
    """ρ = 2(|α − 2|/α)((z/|α − 2| + 1)^(α/2) − 1): from least squares to the rejection of outliers.

    Args:
        alpha: 2 is plain least squares, 1 is soft_l1, 0 a Cauchy loss, −2 Geman and McClure's, −∞
            Welsch's; the latter three with z/2, z/4 and z/2 in place of z. Default: 0.

    Reference: Barron (2019), eq. 8, times two, so that ρ ≈ z near zero.
    """

    alpha: float = 0.0

    def __call__(self, z: Tensor) -> Rho:
        """ρ, ρ′, ρ″."""
        if self.alpha == 2:
            return Rho(z, torch.ones_like(z), torch.zeros_like(z))
        if self.alpha == -math.inf:
            first = torch.exp(-z / 2)
            return Rho(-2 * torch.expm1(-z / 2), first, -first / 2)
        bend, half = abs(self.alpha - 2), self.alpha / 2
        grown = torch.log1p(z / bend)
        # α → 0 is the logarithm; expm1 keeps the digits on the way there
        value = bend * grown if half == 0 else bend * torch.expm1(half * grown) / half
        first = torch.exp((half - 1) * grown)
        return Rho(value, first, (half - 1) / bend * torch.exp((half - 2) * grown))


def given_rho(function: Callable[..., Any]) -> Callable[[Tensor], Rho]:
    """z → ρ, ρ′, ρ″ from a function of a vector z that returns a tuple or the rows of (3, m)."""

    def rho(z: Tensor) -> Rho:
        flat = z.reshape(-1)
        try:
            found = function(flat)
        except (TypeError, RuntimeError):
            found = function(flat.detach().cpu().numpy())
        rows = [tensor_of(row).to(z) for row in found]
        if len(rows) != 3 or any(row.shape != flat.shape for row in rows):
            raise InputError(
                f"the loss returned {len(rows)} rows of shapes "
                f"{[tuple(row.shape) for row in rows]} for z of {tuple(flat.shape)}. It must "
                "return ρ, ρ′ and ρ″, each of the shape of z."
            )
        return Rho(*(row.view_as(z) for row in rows))

    return rho


CURVATURE_FLOOR = 0.01  # the curvature W of a residual is kept at or above this share of ρ′


@dataclass(frozen=True)
class Robust:
    """½ Σ C² ρ((r/C)²).

    Args:
        rho: z → ρ, ρ′, ρ″, with ρ(z) ≈ z near zero.
        scale: C, in the units of the residuals: beyond it they count less. Default:
            1, as scipy's `f_scale`.
    """

    rho: Callable[[Tensor], Rho]
    scale: float | Tensor = 1.0  # a tensor: (...,), one for each problem
    arrays: ClassVar[bool] = True

    def cost(self, residual: Tensor) -> Tensor:
        """½ Σ C² ρ."""
        return self._unit(residual) * half_sum(self._rho(self._squares(residual)).value)

    def expand(self, residual: Tensor) -> Expansion:
        """Slope ρ′r and root √W, with W = ρ′ + 2zρ″ kept positive: W ≥ CURVATURE_FLOOR · ρ′."""
        r = wide(residual)
        z = self._squares(residual)
        rho = self._rho(z)
        # beyond the inflection W would be zero or negative: leave a share of ρ′. scipy leaves
        # ε, but then a residual ρ′r/√W is 10⁸ times too large, and its digits are missed
        # where it must cancel in Jᵀr
        floor = at_least(CURVATURE_FLOOR * rho.first, resolution(z.dtype))
        curvature = maximum(rho.first + 2 * z * rho.second, floor)
        value = self._unit(residual) * half_sum(rho.value)
        return Expansion(value, r * rho.first, sqrt(curvature))

    def curvature(self, residual: Tensor) -> Tensor:
        """ρ′ + 2zρ″, negative beyond an inflection: the exact Hessian has no floor."""
        z = self._squares(residual)
        rho = self._rho(z)
        return rho.first + 2 * z * rho.second

    def take(self, places: Tensor) -> "Robust":
        """The loss with the scales C of some problems of a batch."""
        return Robust(self.rho, self.scale[places]) if _each(self.scale) else self

    def _squares(self, residual: Tensor) -> Tensor:
        """z = (r/C)²."""
        scale = self.scale[..., None] if _each(self.scale) else self.scale
        ratio = wide(residual) / with_type_of(scale, residual)
        return ratio * ratio

    def _unit(self, residual: Tensor) -> float | Tensor:
        """C², of the kind of the residuals."""
        scale: float | Tensor = with_type_of(self.scale, residual)
        return scale**2

    def _rho(self, z: Tensor) -> Rho:
        """ρ and its derivatives, which are functions of tensors."""
        return arrays_of(self.rho(tensor_from(z))) if on_numpy(z) else self.rho(z)


def _each(scale: float | Tensor) -> TypeGuard[Tensor]:
    """Whether there is a scale for each problem."""
    return isinstance(scale, Tensor) and scale.ndim > 0
