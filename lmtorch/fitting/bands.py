"""Bands about a curve, by the delta method: the variance of f(x; p) is gᵀ C g with g = ∂f/∂p.

Reference: Seber & Wild, Nonlinear regression (1989), §5.1.
"""

from typing import Any, NamedTuple

from torch import Tensor


class Band(NamedTuple):
    """A curve between its limits, (..., k) each."""

    curve: Any
    lower: Any
    upper: Any


def confidence(
    curve: Tensor,  # (..., k)
    slopes: Tensor,  # (..., k, n), ∂f/∂u
    covariance: Tensor,  # (..., n, n), of u
    quantile: Tensor,  # (...,)
) -> Band:
    """The curve and its own uncertainty."""
    return _about(curve, _variance(slopes, covariance), quantile)


def prediction(
    curve: Tensor,
    slopes: Tensor,
    covariance: Tensor,
    quantile: Tensor,
    scatter: Tensor,  # (..., k) or (..., 1), variance of a measurement
) -> Band:
    """The curve and the uncertainty of a measurement."""
    return _about(curve, _variance(slopes, covariance) + scatter, quantile)


def _variance(slopes: Tensor, covariance: Tensor) -> Tensor:
    slopes = slopes.to(covariance)
    return ((slopes @ covariance) * slopes).sum(-1).clamp(min=0)


def _about(curve: Tensor, variance: Tensor, quantile: Tensor) -> Band:
    half = (quantile[..., None] * variance.sqrt()).to(curve)
    return Band(curve, curve - half, curve + half)
