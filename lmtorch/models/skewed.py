"""Peaks whose two sides differ."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..calculus.special import voigt_profile
from .peaks import AREA, HALF, POSITIVE, fitted
from .searching import peak
from .shape import Shape
from .tails import exponential_tail

SKEWS = (-3.0, 0.0, 3.0)


class SkewedGaussian(Shape):
    """A skew normal peak, G(x; amplitude, center, σ) · (1 + erf(γ(x − center)/(σ√2))).

    Parameters, as of lmfit's SkewedGaussianModel: amplitude, the area (units of x times y); center
    (of x), which is not the place of the maximum; sigma > 0 (of x); gamma, the skew: the longer
    tail is to the right where it is positive.

    Source: Azzalini, Scand. J. Statist. 12 (1985) 171.

    Example:
        >>> from lmtorch import models
        >>> peak = models.SkewedGaussian()
        >>> peak([1.0, 1.5], amplitude=2.0, center=1.0, sigma=0.5, gamma=2.0).round(4)
        array([1.5958, 1.8918])
    """

    parameters = ("amplitude", "center", "sigma", "gamma")
    limits: ClassVar = {"sigma": POSITIVE}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any, gamma: Any) -> Any:
        """The peak at x."""
        distance = (x - center) / sigma
        tail = 1 + torch.erf(gamma * distance / math.sqrt(2))
        return amplitude / (AREA * sigma) * torch.exp(-0.5 * distance * distance) * tail

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The peak that is most of y, leaning to either side."""
        center, width = peak(x, y)
        return fitted(SkewedGaussian, x, y, list(_leaning(center, width, "gamma")))


def _leaning(center: Tensor, width: Tensor, skew: str) -> Iterator[dict[str, Any]]:
    """Skew peaks of about the same place and width."""
    for gamma in SKEWS:
        # of a skew normal the mean is δσ√(2/π) from the center, and σ is larger than the width
        lean = gamma / math.sqrt(1 + gamma * gamma) * math.sqrt(2 / math.pi)
        for part in (0.7, 1.0):
            sigma = part * width / HALF / math.sqrt(1 - lean * lean)
            yield {"center": center - lean * sigma, "sigma": sigma, skew: gamma}


class SkewedVoigt(Shape):
    """A skewed Voigt peak, V(x; amplitude, center, σ, γ) · (1 + erf(skew (x − center)/(σ√2))).

    Parameters, as of lmfit's SkewedVoigtModel: amplitude (units of x times y); center (of x); sigma
    > 0 (of x); gamma ≥ 0 (of x); skew: the longer tail is to the right where it is positive. lmfit
    ties gamma to sigma unless it is told otherwise; here it is free.

    Example:
        >>> from lmtorch import models
        >>> peak = models.SkewedVoigt()
        >>> peak([1.0, 1.5], amplitude=2.0, center=1.0, sigma=0.5, gamma=0.2, skew=2.0).round(4)
        array([1.1913, 1.6264])
    """

    parameters = ("amplitude", "center", "sigma", "gamma", "skew")
    limits: ClassVar = {"sigma": POSITIVE, "gamma": POSITIVE}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any, gamma: Any, skew: Any) -> Any:
        """The peak at x."""
        away = x - center
        tail = 1 + torch.erf(skew * away / (math.sqrt(2) * sigma))
        return amplitude * voigt_profile(away, sigma, gamma) * tail

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The peak that is most of y, leaning to either side."""
        center, width = peak(x, y)
        tries = [
            {**one, "gamma": share * one["sigma"]}
            for one in _leaning(center, width, "skew")
            for share in (0.1, 0.7)
        ]
        return fitted(SkewedVoigt, x, y, tries)


class ExponentialGaussian(Shape):
    """A Gaussian convolved with an exponential tail: a peak of chromatography.

    amplitude · γ/2 · exp(γ(center − x) + γ²σ²/2) · erfc((center + γσ² − x)/(σ√2)), evaluated so
    that neither factor overflows.

    Parameters, as of lmfit's ExponentialGaussianModel: amplitude, the area (units of x times y);
    center (of x) and sigma > 0 (of x) of the Gaussian; gamma > 0, the rate of the tail (of 1/x).
    The mean is center + 1/γ.

    Source: Kalambet et al., J. Chemometrics 25 (2011) 352.

    Example:
        >>> from lmtorch import models
        >>> peak = models.ExponentialGaussian()
        >>> peak([1.0, 1.5], amplitude=2.0, center=1.0, sigma=0.5, gamma=1.0).round(4)
        array([0.6992, 0.9505])
    """

    parameters = ("amplitude", "center", "sigma", "gamma")
    limits: ClassVar = {"sigma": POSITIVE, "gamma": POSITIVE}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any, gamma: Any) -> Any:
        """The peak at x."""
        return amplitude * gamma * exponential_tail(x - center, sigma, gamma)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The peak that is most of y, with a short or a long tail."""
        center, width = peak(x, y)
        tries = []
        for part in (0.4, 0.7, 1.0):
            sigma = part * width / HALF
            for tail in (0.3, 1.0, 3.0):
                for shift in (0.0, 0.5):
                    place = center - shift * sigma * tail
                    tries.append({"center": place, "sigma": sigma, "gamma": 1 / (tail * sigma)})
        return fitted(ExponentialGaussian, x, y, tries)


class Lognormal(Shape):
    """A log-normal peak, amplitude / (xσ√(2π)) · exp(−(ln x − center)² / (2σ²)), zero for x ≤ 0.

    Parameters, as of lmfit's LognormalModel: amplitude, the area (units of x times y); center, the
    mean of ln x; sigma > 0, the standard deviation of ln x.

    Example:
        >>> from lmtorch import models
        >>> models.Lognormal()([0.0, 1.0], amplitude=2.0, center=0.0, sigma=0.5).round(4)
        array([0.    , 1.5958])
    """

    parameters = ("amplitude", "center", "sigma")
    limits: ClassVar = {"sigma": POSITIVE}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any) -> Any:
        """The peak at x."""
        inside = x > 0
        safe = torch.where(inside, x, 1.0)
        distance = (torch.log(safe) - center) / sigma
        found = amplitude / (AREA * sigma * safe) * torch.exp(-0.5 * distance * distance)
        return torch.where(inside, found, 0.0)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The peak that is most of y, over ln x."""
        inside = x > 0
        safe = torch.where(inside, x, 1.0)
        # y x is a Gaussian of ln x
        center, width = peak(torch.where(inside, safe.log(), -50.0), y * safe * inside)
        tries = [{"center": center, "sigma": part * width / HALF} for part in (0.5, 1.0, 1.5)]
        return fitted(Lognormal, x, y, tries)


class SplitGaussian(Shape):
    """A peak of two halves of Gaussians, σ on the left and σ_r on the right of the maximum.

    amplitude · 2 / ((σ + σ_r)√(2π)) · exp(−(x − center)² / (2s²)), s = σ where x < center, σ_r
    elsewhere.

    Parameters, named as of lmfit's SplitLorentzianModel: amplitude, the area (units of x times y);
    center, the place of the maximum (of x); sigma > 0 and sigma_r > 0 (of x).

    Example:
        >>> from lmtorch import models
        >>> peak = models.SplitGaussian()
        >>> peak([0.5, 1.0, 1.5], amplitude=2.0, center=1.0, sigma=0.5, sigma_r=1.0).round(4)
        array([0.6453, 1.0638, 0.9388])
    """

    parameters = ("amplitude", "center", "sigma", "sigma_r")
    limits: ClassVar = {"sigma": POSITIVE, "sigma_r": POSITIVE}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any, sigma_r: Any) -> Any:
        """The peak at x."""
        away = x - center
        distance = torch.where(away < 0, away / sigma, away / sigma_r)
        front = 2 * amplitude / (AREA * (sigma + sigma_r))
        return front * torch.exp(-0.5 * distance * distance)

    @staticmethod
    def derived(amplitude: Any, center: Any, sigma: Any, sigma_r: Any) -> dict[str, Any]:
        """Full width at half height (of x), and height (of y)."""
        both = sigma + sigma_r
        return {"fwhm": HALF * (abs(sigma) + abs(sigma_r)), "height": 2 * amplitude / (AREA * both)}

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The peak that is most of y, wider on either side."""
        return fitted(SplitGaussian, x, y, list(_split(x, y, 1 / HALF)))


class SplitLorentzian(Shape):
    """A peak of two halves of Lorentzians, σ on the left and σ_r on the right of the maximum.

    amplitude · 2 / (π(σ + σ_r)) · s² / (s² + (x − center)²), s = σ where x < center, σ_r elsewhere.

    Parameters, as of lmfit's SplitLorentzianModel: amplitude, the area (units of x times y);
    center, the place of the maximum (of x); sigma > 0 and sigma_r > 0, half widths (of x).

    Example:
        >>> from lmtorch import models
        >>> peak = models.SplitLorentzian()
        >>> peak([0.5, 1.0, 2.0], amplitude=2.0, center=1.0, sigma=0.5, sigma_r=1.0).round(4)
        array([0.4244, 0.8488, 0.4244])
    """

    parameters = ("amplitude", "center", "sigma", "sigma_r")
    limits: ClassVar = {"sigma": POSITIVE, "sigma_r": POSITIVE}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any, sigma_r: Any) -> Any:
        """The peak at x."""
        away = x - center
        distance = torch.where(away < 0, away / sigma, away / sigma_r)
        return 2 * amplitude / (math.pi * (sigma + sigma_r) * (1 + distance * distance))

    @staticmethod
    def derived(amplitude: Any, center: Any, sigma: Any, sigma_r: Any) -> dict[str, Any]:
        """Full width at half height (of x), and height (of y)."""
        both = sigma + sigma_r
        return {"fwhm": abs(sigma) + abs(sigma_r), "height": 2 * amplitude / (math.pi * both)}

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The peak that is most of y, wider on either side."""
        return fitted(SplitLorentzian, x, y, list(_split(x, y, 1.0)))


def _split(x: Tensor, y: Tensor, unit: float) -> Iterator[dict[str, Any]]:
    """Peaks of two widths of about the same place, in `unit` half widths."""
    center, width = peak(x, y)
    for left in (0.4, 0.7, 1.0, 1.5):
        for right in (0.4, 0.7, 1.0, 1.5):
            place = center - 0.5 * (right - left) * width
            for at in (place, center):
                yield {
                    "center": at,
                    "sigma": left * width * unit,
                    "sigma_r": right * width * unit,
                }


class Doniach(Shape):
    """A Doniach–Šunjić peak of photoemission from metals.

    amplitude / σ^(1 − γ) · cos(πγ/2 + (1 − γ) atan u) / (1 + u²)^((1 − γ)/2), u = (x − center)/σ.

    Parameters, as of lmfit's DoniachModel: amplitude; center (of x); sigma > 0 (of x); gamma, the
    asymmetry: at 0 it is a Lorentzian of height amplitude/σ.

    Source: Doniach & Šunjić, J. Phys. C 3 (1970) 285.

    Example:
        >>> from lmtorch import models
        >>> models.Doniach()([1.0, 1.5], amplitude=2.0, center=1.0, sigma=0.5, gamma=0.1).round(4)
        array([3.6862, 1.7743])
    """

    parameters = ("amplitude", "center", "sigma", "gamma")
    limits: ClassVar = {"sigma": POSITIVE}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any, gamma: Any) -> Any:
        """The peak at x."""
        distance = (x - center) / sigma
        rest = 1 - gamma
        angle = math.pi / 2 * gamma + rest * torch.atan(distance)
        size = torch.log(sigma) + 0.5 * torch.log1p(distance * distance)
        return amplitude * torch.cos(angle) * torch.exp(-rest * size)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The peak that is most of y."""
        center, width = peak(x, y)
        tries = [
            {"center": center, "sigma": part * width, "gamma": gamma}
            for part in (0.5, 0.8)
            for gamma in (-0.2, 0.0, 0.2)
        ]
        return fitted(Doniach, x, y, tries)


class BreitWigner(Shape):
    """A Breit–Wigner–Fano resonance, amplitude · (qΓ + x − center)² / (Γ² + (x − center)²).

    Γ is σ/2. Parameters, as of lmfit's BreitWignerModel: amplitude, the level far from the
    resonance (units of y); center (of x); sigma > 0, the full width (of x); q, the asymmetry.

    Source: Fano, Phys. Rev. 124 (1961) 1866, equation (21).

    Example:
        >>> from lmtorch import models
        >>> models.BreitWigner()([1.0, 1.5], amplitude=2.0, center=1.0, sigma=1.0, q=1.0)
        array([2., 4.])
    """

    parameters = ("amplitude", "center", "sigma", "q")
    limits: ClassVar = {"sigma": POSITIVE}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any, q: Any) -> Any:
        """The resonance at x."""
        distance = 2 * (x - center) / sigma
        return amplitude * (q + distance) ** 2 / (1 + distance * distance)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """A peak, a dip, or both, on a level that is the median."""
        level = y.median(-1, keepdim=True).values
        center, width = peak(x, y - level)
        tries = [
            {"center": center + shift * width, "sigma": 2 * part * width, "q": q}
            for part in (0.6, 1.0, 2.0)
            for shift in (-1.0, 0.0, 1.0)
            for q in (-8.0, -2.0, -1.0, -0.3, 0.0, 0.3, 1.0, 2.0, 8.0)
        ]
        return fitted(BreitWigner, x, y, tries)
