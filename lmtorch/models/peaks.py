"""Symmetric peaks: their amplitude is the area, as in lmfit.

Widths at half height are those of |σ|, as a curve of negative σ and amplitude is the same again:
where bounds of σ were opened, a fit may end there. lmfit's formula has a negative width then.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..calculus.special import voigt_profile
from .ruled import Pair
from .searching import TOGETHER, Try, nearest, peak
from .shape import Shape

AREA = math.sqrt(2 * math.pi)  # of a Gaussian of height and width one
HALF = math.sqrt(2 * math.log(2))  # half width at half height of a Gaussian, in σ
POSITIVE = (0.0, math.inf)
WIDTHS = (0.5, 0.7, 1.0, 1.4)  # in the half width that a Gaussian would have
LARGE = 20.0  # exponent of Pearson's peak from which a series has all digits
NEWTON = 3  # steps, each of which doubles the digits
RATIO = (1 / 64, -5 / 2048, 61 / 49152, -1385 / 1048576, 50521 / 20971520)


class Gaussian(Shape):
    """A Gaussian peak, amplitude / (σ√(2π)) · exp(−(x − center)² / (2σ²)).

    Parameters, as of lmfit's GaussianModel: amplitude, the area (units of x times y); center (of
    x); sigma > 0, the standard deviation (of x). The full width at half height is 2.3548 σ.

    Example:
        >>> from lmtorch import models
        >>> models.Gaussian()([1.0, 1.5], amplitude=2.0, center=1.0, sigma=0.5).round(4)
        array([1.5958, 0.9679])
    """

    parameters = ("amplitude", "center", "sigma")
    limits: ClassVar = {"sigma": POSITIVE}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any) -> Any:
        """The peak at x."""
        distance = (x - center) / sigma
        return amplitude / (AREA * sigma) * torch.exp(-0.5 * distance * distance)

    @staticmethod
    def derived(amplitude: Any, center: Any, sigma: Any) -> dict[str, Any]:
        """Full width at half height (of x), and height (of y)."""
        return {"fwhm": 2 * HALF * abs(sigma), "height": amplitude / (AREA * sigma)}

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The peak that is most of y."""
        center, width = peak(x, y)
        return fitted(Gaussian, x, y, [{"center": center, "sigma": width / HALF}])


class Lorentzian(Shape):
    """A Lorentzian (Cauchy) peak, amplitude / (πσ) · 1 / (1 + ((x − center)/σ)²).

    Parameters, as of lmfit's LorentzianModel: amplitude, the area (units of x times y); center (of
    x); sigma > 0, the half width at half height (of x).

    Example:
        >>> from lmtorch import models
        >>> models.Lorentzian()([1.0, 1.5], amplitude=2.0, center=1.0, sigma=0.5).round(4)
        array([1.2732, 0.6366])
    """

    parameters = ("amplitude", "center", "sigma")
    limits: ClassVar = {"sigma": POSITIVE}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any) -> Any:
        """The peak at x."""
        distance = (x - center) / sigma
        return amplitude / (math.pi * sigma * (1 + distance * distance))

    @staticmethod
    def derived(amplitude: Any, center: Any, sigma: Any) -> dict[str, Any]:
        """Full width at half height (of x), and height (of y)."""
        return {"fwhm": 2 * abs(sigma), "height": amplitude / (math.pi * sigma)}

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The peak that is most of y."""
        center, width = peak(x, y)
        tries = [{"center": center, "sigma": part * width} for part in WIDTHS]
        return fitted(Lorentzian, x, y, tries)


class Voigt(Shape):
    """A Voigt peak: a Gaussian of standard deviation σ convolved with a Lorentzian of half width γ.

    amplitude · Re w(z) / (σ√(2π)), z = (x − center + iγ)/(σ√2), with the Faddeeva function w. It is
    right at γ = 0, a Gaussian, and at σ = 0, a Lorentzian, where other codes divide by zero.

    Parameters, as of lmfit's VoigtModel: amplitude, the area (units of x times y); center (of x);
    sigma ≥ 0 (of x); gamma ≥ 0 (of x). lmfit ties gamma to sigma unless it is told otherwise; here
    it is free, and `Voigt().with_ties("gamma = sigma")` does the same.

    Source: NIST Digital Library of Mathematical Functions, 7.19; `voigt_profile`.

    Example:
        >>> from lmtorch import models
        >>> models.Voigt()([1.0, 1.5], amplitude=2.0, center=1.0, sigma=0.5, gamma=0.2).round(4)
        array([1.1913, 0.8322])
    """

    parameters = ("amplitude", "center", "sigma", "gamma")
    limits: ClassVar = {"sigma": POSITIVE, "gamma": POSITIVE}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any, gamma: Any) -> Any:
        """The peak at x."""
        return amplitude * voigt_profile(x - center, sigma, gamma)

    @staticmethod
    def derived(amplitude: Any, center: Any, sigma: Any, gamma: Any) -> dict[str, Any]:
        """Full width at half height (of x), and height (of y)."""
        top = voigt_profile(torch.zeros_like(sigma), sigma, gamma)
        return {"fwhm": 2 * _half_of_voigt(sigma, gamma, top), "height": amplitude * top}

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The peak that is most of y, from nearly Gaussian to nearly Lorentzian."""
        center, width = peak(x, y)
        # the half width is about γ/2 + √(γ²/4 + (HALF σ)²), Olivero & Longbothum 1977
        tries = []
        for part in (0.7, 1.0):
            for share in (0.1, 0.5, 0.9):
                half, rest = part * width, math.sqrt(1 - share)
                tries.append({"center": center, "sigma": half * rest / HALF, "gamma": half * share})
        return fitted(Voigt, x, y, tries)


class PseudoVoigt(Shape):
    """A mixture of a Gaussian and a Lorentzian peak of the same width at half height.

    amplitude · ((1 − fraction) G(x; center, σ/√(2 ln 2)) + fraction L(x; center, σ)), both of area
    one; the full width at half height is 2σ.

    Parameters, as of lmfit's PseudoVoigtModel: amplitude, the area (units of x times y); center (of
    x); sigma > 0 (of x); fraction, between 0 and 1.

    Example:
        >>> from lmtorch import models
        >>> peak = models.PseudoVoigt()
        >>> peak([1.0, 1.5], amplitude=2.0, center=1.0, sigma=0.5, fraction=0.5).round(4)
        array([1.5761, 0.788 ])
    """

    parameters = ("amplitude", "center", "sigma", "fraction")
    limits: ClassVar = {"sigma": POSITIVE, "fraction": (0.0, 1.0)}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any, fraction: Any) -> Any:
        """The peak at x."""
        square = ((x - center) / sigma) ** 2
        bell = torch.exp2(-square) * math.sqrt(math.log(2) / math.pi)
        return amplitude / sigma * ((1 - fraction) * bell + fraction / (math.pi * (1 + square)))

    @staticmethod
    def derived(amplitude: Any, center: Any, sigma: Any, fraction: Any) -> dict[str, Any]:
        """Full width at half height (of x), and height (of y)."""
        bell = math.sqrt(math.log(2) / math.pi)
        height = amplitude / sigma * ((1 - fraction) * bell + fraction / math.pi)
        return {"fwhm": 2 * abs(sigma), "height": height}

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The peak that is most of y."""
        center, width = peak(x, y)
        tries = [
            {"center": center, "sigma": part * width, "fraction": fraction}
            for part in (0.7, 1.0)
            for fraction in (0.1, 0.5, 0.9)
        ]
        return fitted(PseudoVoigt, x, y, tries)


class Moffat(Shape):
    """A Moffat peak, amplitude · (1 + ((x − center)/σ)²)^(−β): a star through the atmosphere.

    Parameters, as of lmfit's MoffatModel: amplitude, here the height (units of y); center (of x);
    sigma > 0 (of x); beta > 0. The full width at half height is 2σ √(2^(1/β) − 1).

    Source: Moffat, Astron. Astrophys. 3 (1969) 455.

    Example:
        >>> from lmtorch import models
        >>> models.Moffat()([1.0, 1.5], amplitude=2.0, center=1.0, sigma=0.5, beta=2.0)
        array([2. , 0.5])
    """

    parameters = ("amplitude", "center", "sigma", "beta")
    limits: ClassVar = {"sigma": POSITIVE, "beta": POSITIVE}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any, beta: Any) -> Any:
        """The peak at x."""
        distance = (x - center) / sigma
        return amplitude * torch.exp(-beta * torch.log1p(distance * distance))

    @staticmethod
    def derived(amplitude: Any, center: Any, sigma: Any, beta: Any) -> dict[str, Any]:
        """Full width at half height (of x); the height is the amplitude."""
        return {"fwhm": 2 * abs(sigma) * torch.expm1(math.log(2) / beta).sqrt()}

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The peak that is most of y."""
        return Moffat.start_within(x, y, {})

    @staticmethod
    def start_within(x: Tensor, y: Tensor, box: Mapping[str, Pair]) -> dict[str, Tensor]:
        """The peak that is most of y; the width that σ stands for depends on beta."""
        return fitted(Moffat, x, y, _by_exponent(x, y, "beta", (1.0, 2.0, 4.0), box))


class Pearson7(Shape):
    """A Pearson VII peak, amplitude / (σ B(m − ½, ½)) · (1 + ((x − center)/σ)²)^(−m), m = expon.

    Parameters, as of lmfit's Pearson7Model: amplitude, the area (units of x times y); center (of
    x); sigma > 0 (of x); expon > ½: 1 is a Lorentzian, and large ones are nearly a Gaussian.

    Source: Hall et al., J. Appl. Cryst. 10 (1977) 66.

    Example:
        >>> from lmtorch import models
        >>> peak = models.Pearson7()
        >>> peak([1.0, 1.5], amplitude=2.0, center=1.0, sigma=0.5, expon=1.0).round(4)
        array([1.2732, 0.6366])
    """

    parameters = ("amplitude", "center", "sigma", "expon")
    limits: ClassVar = {"sigma": POSITIVE, "expon": (0.5, math.inf)}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any, expon: Any) -> Any:
        """The peak at x."""
        distance = (x - center) / sigma
        size = _log_height(expon) - 0.5 * math.log(math.pi)
        return amplitude / sigma * torch.exp(size - expon * torch.log1p(distance * distance))

    @staticmethod
    def derived(amplitude: Any, center: Any, sigma: Any, expon: Any) -> dict[str, Any]:
        """Full width at half height (of x), and height (of y)."""
        height = amplitude / sigma * torch.exp(_log_height(expon) - 0.5 * math.log(math.pi))
        half = abs(sigma) * torch.expm1(math.log(2) / expon).sqrt()
        return {"fwhm": 2 * half, "height": height}

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The peak that is most of y."""
        return Pearson7.start_within(x, y, {})

    @staticmethod
    def start_within(x: Tensor, y: Tensor, box: Mapping[str, Pair]) -> dict[str, Tensor]:
        """The peak that is most of y; the width that σ stands for depends on expon."""
        return fitted(Pearson7, x, y, _by_exponent(x, y, "expon", (1.0, 2.0, 5.0), box))


def _by_exponent(
    x: Tensor, y: Tensor, name: str, usual: Sequence[float], box: Mapping[str, Pair]
) -> list[dict[str, Any]]:
    """Tries of (1 + ((x − center)/σ)²)^(−m) with the width that the data have.

    Returns:
        Them, for usual m that are moved into its bounds; where it is held for that alone.
    """
    center, width = peak(x, y)
    low, high = box.get(name, (0.0, math.inf))
    exponents = sorted({min(max(m, low), high) for m in usual})
    return [
        {"center": center, "sigma": part * width / math.sqrt(math.expm1(math.log(2) / m)), name: m}
        for part in (0.7, 1.0)
        for m in exponents
    ]


def _half_of_voigt(sigma: Any, gamma: Any, top: Any) -> Any:
    """The half width at half height, by Newton's steps from an estimate with four digits.

    Returns:
        It, to round-off. Source of the estimate: Olivero & Longbothum, J. Quant. Spectrosc. Radiat.
        Transfer 17 (1977) 233.
    """
    half = 0.5346 * gamma + (0.2166 * gamma * gamma + (HALF * sigma) ** 2).sqrt()
    for _ in range(NEWTON):
        both = torch.func.jvp(
            lambda x: voigt_profile(x, sigma, gamma), (half,), (torch.ones_like(half),)
        )
        half = half - (both[0] - top / 2) / both[1]  # the value and its slope
    return half


def _log_height(expon: Any) -> Any:
    """ln Γ(m) − ln Γ(m − ½); where it would be lost in their rounding, by a series.

    Returns:
        It, in the shape of m. Source: Tricomi & Erdélyi, Pacific J. Math. 1 (1951) 133.
    """
    large = expon > LARGE
    small = torch.where(large, 1.0, expon)
    shifted = torch.where(large, expon, LARGE) - 0.75
    inverse, series = 1 / (shifted * shifted), torch.zeros_like(shifted)
    for coefficient in reversed(RATIO):
        series = (series + coefficient) * inverse
    few = torch.lgamma(small) - torch.lgamma(small - 0.5)
    return torch.where(large, 0.5 * torch.log(shifted) + series, few)


def fitted(
    shape: type[Shape], x: Tensor, y: Tensor, tries: list[dict[str, Any]]
) -> dict[str, Tensor]:
    """The nearest of some tries of a shape of one height, whose amplitude is solved for."""
    some = max(1, TOGETHER // max(1, y.numel()))

    def columns() -> Iterator[Try]:
        for first in range(0, len(tries), some):
            part = tries[first : first + some]
            full = [
                torch.stack(
                    [
                        torch.as_tensor(one.get(name, 1.0), dtype=y.dtype, device=y.device).expand(
                            y.shape[:-1]
                        )
                        for one in part
                    ]
                )[..., None]
                for name in shape.parameters
            ]
            curves = shape().formula(x, *full).expand(len(part), *y.shape)
            for one, curve in zip(part, curves, strict=True):
                yield one, {"amplitude": curve}

    return nearest(y, columns())
