"""Peaks: their amplitude is the area, as in lmfit."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Model

AREA = math.sqrt(2 * math.pi)  # of a Gaussian of height and width one
HALF = math.sqrt(8 * math.log(2))  # full width at half maximum of a Gaussian, in σ


class Gaussian(Model):
    """A Gaussian peak, amplitude / (σ √(2π)) · exp(−(x − center)² / (2σ²)).

    Parameters: amplitude, the area (in units of x times y); center (of x); sigma ≥ 0, the standard
    deviation (of x). Normalised as lmfit's GaussianModel.

    Args:
        prefix: before the names of the parameters. Default: none.

    Example:
        >>> from lmtorch import models
        >>> peak = models.Gaussian()
        >>> round(float(peak(1.0, amplitude=2.0, center=1.0, sigma=0.5)), 4)
        1.5958
    """

    parameters = ("amplitude", "center", "sigma")
    limits: ClassVar = {"sigma": (0.0, math.inf)}
    linear = ("amplitude",)

    def __init__(self, prefix: str = "") -> None:
        super().__init__(prefix)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any) -> Any:
        """The peak at x."""
        distance = (x - center) / sigma
        return amplitude / (AREA * sigma) * torch.exp(-0.5 * distance * distance)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The highest point, or the lowest, and how far it is to half of its height."""
        at = y.abs().argmax(-1, keepdim=True)
        x = x.expand(y.shape)
        height, center = y.take_along_dim(at, -1), x.take_along_dim(at, -1)
        below = y / height < 0.5
        place = torch.arange(y.shape[-1], device=y.device)
        before, after = below & (place < at), below & (place > at)
        infinity = torch.full_like(x, math.inf)
        left = center - torch.where(before, x, -infinity).amax(-1, keepdim=True)
        right = torch.where(after, x, infinity).amin(-1, keepdim=True) - center
        # a peak at the edge of the data has one side; one that fills them has none
        width = torch.minimum(left, right)
        span = x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)
        width = torch.where(width.isfinite(), 2 * width, span)
        sigma = torch.where(width > 0, width, 1.0) / HALF
        found = {"amplitude": AREA * sigma * height, "center": center, "sigma": sigma}
        return {name: value[..., 0] for name, value in found.items()}
