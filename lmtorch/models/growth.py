"""What grows to a level: logistic curves, doses and responses, the speed of enzymes."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from .searching import Try, extent, ladder, nearest, quantiles
from .shape import Shape

POSITIVE = (0.0, math.inf)
NO_DOSE = -1e6  # its logarithm: times a small exponent it is still that of nothing
PLACES = 11  # centers that are tried
HILLS = (0.5, 1.0, 2.0, 4.0, 8.0)


class Logistic(Shape):
    """A logistic curve from zero, amplitude / (1 + exp(−(x − center)/σ)).

    Parameters, as of lmfit's logistic lineshape: amplitude, the level that is reached (units of y);
    center, where half of it is reached (of x); sigma (of x), negative for a fall.

    Example:
        >>> from lmtorch import models
        >>> models.Logistic()([1.0, 2.0], amplitude=2.0, center=1.0, sigma=0.5).round(4)
        array([1.    , 1.7616])
    """

    parameters = ("amplitude", "center", "sigma")
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, center: Any, sigma: Any) -> Any:
        """The curve at x."""
        return amplitude * torch.sigmoid((x - center) / sigma)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The nearest of some rises and falls."""

        def tries() -> Iterator[Try]:
            for values, rise in _rises(x):
                for sign in (1.0, -1.0):
                    column = torch.sigmoid(sign * rise).expand(y.shape)
                    yield {**values, "sigma": sign * values["sigma"]}, {"amplitude": column}

        return nearest(y, tries())


def _rises(x: Tensor) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Centers and widths that are tried, with (x − center)/σ."""
    span = extent(x)
    for center in quantiles(x, PLACES):
        for size in (0.005, 0.02, 0.06, 0.15, 0.4):
            sigma = size * span
            yield (
                {"center": center, "sigma": sigma},
                (x - center[..., None]) / sigma[..., None],
            )


class Logistic4(Shape):
    """A logistic curve between two levels, bottom + (top − bottom) / (1 + exp(−(x − center)/σ)).

    Parameters: bottom and top, the levels far to the left and far to the right (units of y);
    center, where it is half way (of x); sigma > 0 (of x).

    Example:
        >>> from lmtorch import models
        >>> curve = models.Logistic4()
        >>> curve([1.0, 2.0], bottom=1.0, top=3.0, center=1.0, sigma=0.5).round(4)
        array([2.    , 2.7616])
    """

    parameters = ("bottom", "top", "center", "sigma")
    limits: ClassVar = {"sigma": POSITIVE}
    linear = ("bottom", "top")

    @staticmethod
    def formula(x: Any, bottom: Any, top: Any, center: Any, sigma: Any) -> Any:
        """The curve at x."""
        return bottom + (top - bottom) * torch.sigmoid((x - center) / sigma)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The nearest of some rises, with both levels solved for."""
        return nearest(y, _between(y, _rises(x)))


def _between(y: Tensor, rises: Iterator[tuple[dict[str, Tensor], Tensor]]) -> Iterator[Try]:
    """Curves that go from one level to another."""
    for values, rise in rises:
        share = torch.sigmoid(rise).expand(y.shape)
        yield values, {"bottom": 1 - share, "top": share}


class Logistic5(Shape):
    """A logistic curve with unequal ends, bottom + (top − bottom) / (1 + exp(−(x − center)/σ))^s.

    s is the asymmetry: at 1 it is `Logistic4`, and center is half way there alone.

    Parameters: bottom, top (units of y); center (of x); sigma > 0 (of x); asymmetry > 0.

    Source: Richards, J. Exp. Bot. 10 (1959) 290.

    Example:
        >>> from lmtorch import models
        >>> curve = models.Logistic5()
        >>> curve([1.0], bottom=1.0, top=3.0, center=1.0, sigma=0.5, asymmetry=2.0)
        array([1.5])
    """

    parameters = ("bottom", "top", "center", "sigma", "asymmetry")
    limits: ClassVar = {"sigma": POSITIVE, "asymmetry": POSITIVE}
    linear = ("bottom", "top")

    @staticmethod
    def formula(x: Any, bottom: Any, top: Any, center: Any, sigma: Any, asymmetry: Any) -> Any:
        """The curve at x."""
        return bottom + (top - bottom) * _raised((x - center) / sigma, asymmetry)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """That of `Logistic4`."""
        found = nearest(y, _between(y, _rises(x)))
        return {**found, "asymmetry": torch.ones_like(found["top"])}


def _raised(rise: Any, asymmetry: Any) -> Any:
    """The sigmoid of a number to a power, by its logarithm, which does not underflow."""
    return torch.exp(asymmetry * torch.nn.functional.logsigmoid(rise))


class Hill(Shape):
    """A dose–response curve, bottom + (top − bottom) / (1 + (ec50 / x)^hill), for x ≥ 0.

    With the logarithm of x it is `Logistic4`: the four-parameter logistic of bioassays.

    Parameters: bottom, the response to no dose, and top, that to very much (units of y); ec50 > 0,
    the dose of half the response (of x); hill, the steepness: negative, it exchanges top and
    bottom.

    Source: Hill, J. Physiol. 40 (1910) iv.

    Example:
        >>> from lmtorch import models
        >>> curve = models.Hill()
        >>> curve([0.0, 2.0, 4.0], bottom=1.0, top=3.0, ec50=2.0, hill=2.0)
        array([1. , 2. , 2.6])
    """

    parameters = ("bottom", "top", "ec50", "hill")
    limits: ClassVar = {"ec50": POSITIVE}
    linear = ("bottom", "top")

    @staticmethod
    def formula(x: Any, bottom: Any, top: Any, ec50: Any, hill: Any) -> Any:
        """The response to x."""
        return bottom + (top - bottom) * torch.sigmoid(hill * _log_dose(x, ec50))

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The nearest of some doses and steepnesses, with both levels solved for."""
        return nearest(y, _between(y, _doses(x)))


def _log_dose(x: Any, ec50: Any) -> Any:
    """ln(x / ec50), and a number far below at no dose, where the response has no slope."""
    inside = x > 0
    return torch.where(inside, torch.log(torch.where(inside, x, 1.0)) - torch.log(ec50), NO_DOSE)


def _doses(x: Tensor) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Doses and steepnesses that are tried, with hill · ln(x / ec50)."""
    highest = x.amax(-1)
    highest = torch.where(highest > 0, highest, 1.0)
    lowest = torch.where(x > 0, x, math.inf).amin(-1)
    lowest = torch.minimum(torch.where(lowest.isfinite(), lowest, highest), highest / 100)
    for ec50 in ladder(lowest, 3 * highest, 14):
        for hill in HILLS:
            values = {"ec50": ec50, "hill": torch.full_like(ec50, hill)}
            yield values, hill * _log_dose(x, ec50[..., None])


class Hill5(Shape):
    """A dose–response curve with unequal ends, bottom + (top − bottom) / (1 + (ec50/x)^hill)^s.

    s is the asymmetry: at 1 it is `Hill`, and ec50 is the dose of half the response there alone.

    Parameters: bottom, top (units of y); ec50 > 0 (of x); hill; asymmetry > 0.

    Source: Gottschalk & Dunn, Anal. Biochem. 343 (2005) 54.

    Example:
        >>> from lmtorch import models
        >>> curve = models.Hill5()
        >>> curve([0.0, 2.0], bottom=1.0, top=3.0, ec50=2.0, hill=2.0, asymmetry=2.0)
        array([1. , 1.5])
    """

    parameters = ("bottom", "top", "ec50", "hill", "asymmetry")
    limits: ClassVar = {"ec50": POSITIVE, "asymmetry": POSITIVE}
    linear = ("bottom", "top")

    @staticmethod
    def formula(x: Any, bottom: Any, top: Any, ec50: Any, hill: Any, asymmetry: Any) -> Any:
        """The response to x."""
        return bottom + (top - bottom) * _raised(hill * _log_dose(x, ec50), asymmetry)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """That of `Hill`."""
        found = nearest(y, _between(y, _doses(x)))
        return {**found, "asymmetry": torch.ones_like(found["top"])}


class MichaelisMenten(Shape):
    """The speed of an enzyme, vmax · x / (km + x), for x ≥ 0.

    Parameters: vmax, the speed with very much substrate (units of y); km > 0, the concentration at
    half of it (of x).

    Source: Michaelis & Menten, Biochem. Z. 49 (1913) 333.

    Example:
        >>> from lmtorch import models
        >>> models.MichaelisMenten()([0.0, 2.0], vmax=3.0, km=1.0)
        array([0., 2.])
    """

    parameters = ("vmax", "km")
    limits: ClassVar = {"km": POSITIVE}
    linear = ("vmax",)

    @staticmethod
    def formula(x: Any, vmax: Any, km: Any) -> Any:
        """The speed at x."""
        return vmax * x / (km + x)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The nearest of some concentrations."""
        highest = x.abs().amax(-1)
        highest = torch.where(highest > 0, highest, 1.0)

        def tries() -> Iterator[Try]:
            for km in ladder(0.001 * highest, 30 * highest, 30):
                yield {"km": km}, {"vmax": (x / (km[..., None] + x)).expand(y.shape)}

        return nearest(y, tries())
