"""Bands around a curve by the delta method: the variance of f(x; p) is gᵀ C g with g = ∂f/∂p.

Reference: Seber & Wild, Nonlinear regression (1989), §5.1.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .covariance import INVOLVED, Covariance


class Band(NamedTuple):
    """A curve with its lower and upper limits, (..., k) each."""

    curve: Any
    lower: Any
    upper: Any


def variance(
    slopes: Tensor,  # (..., k, n), ∂f/∂u
    covariance: Covariance,  # of u
    factor: Tensor,  # (...,), what it is to be multiplied by
) -> Tensor:
    """The variance of the curve, (..., k), infinite where it depends on what is undetermined."""
    slopes = slopes.to(covariance.matrix)
    known = ((slopes @ covariance.matrix) * slopes).sum(-1).clamp(min=0)
    known = torch.where(known == 0, 0.0, factor[..., None] * known)
    along = slopes[..., :, None, :] * covariance.null[..., None, :, :]
    follows = along.sum(-1).abs() > INVOLVED * along.abs().sum(-1)
    return torch.where(follows.any(-1), torch.inf, known)


def about(
    curve: Tensor,  # (..., k)
    variance: Tensor,  # (..., k), of the curve, or of a measurement
    quantile: Tensor,  # (...,)
) -> Band:
    """Make a band from a curve, its variance and the quantile of the distribution."""
    half = (quantile[..., None] * variance.sqrt()).to(curve)
    return Band(curve, curve - half, curve + half)
