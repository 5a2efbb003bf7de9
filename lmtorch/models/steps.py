"""Steps and edges, in the forms that lmfit has."""

import math
from collections.abc import Iterable, Iterator
from itertools import combinations, product
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._checks import choice
from .base import Model
from .searching import Found, Try, extent, nearest, quantiles

FORMS = ("linear", "arctan", "erf", "logistic")
POSITIVE = (0.0, math.inf)
PLACES = 25  # centers that are tried of a step
CORNERS = 15  # and of a rectangle, in pairs
# widths, in the length of the data: between two of them a fit of a step with corners gets stuck
SIZES = (0.003, 0.01, 0.03, 0.08, 0.2, 0.4)
FINER = (1.0, 0.4, 0.15)  # a fit does not move far where its curve has corners


def rise(form: str, z: Any) -> Any:
    """A step from 0 to 1 about z = 0.

    Args:
        form: one of `FORMS`.
        z: where.

    Returns:
        min(1, max(0, z + ½)), ½ + atan(z)/π, (1 + erf z)/2 or 1/(1 + e^(−z)).
    """
    if form == "linear":
        return (z + 0.5).clamp(0.0, 1.0)
    if form == "arctan":
        return 0.5 + torch.atan(z) * (1 / math.pi)
    return 0.5 * (1 + torch.erf(z)) if form == "erf" else torch.sigmoid(z)


def _checked(form: str) -> str:
    """A form by its name, of which lmfit has two for the arctan."""
    form = "arctan" if form == "atan" else form
    choice(form, "form", FORMS)
    return form


class Step(Model):
    """A step or edge, amplitude · S((x − center)/σ), from zero to amplitude.

    S is, by form: "linear", min(1, max(0, z + ½)); "arctan", ½ + atan(z)/π; "erf", (1 + erf z)/2;
    "logistic", 1/(1 + e^(−z)).

    Parameters, as of lmfit's StepModel: amplitude, the height (units of y); center, where half of
    it is reached (of x); sigma, the width (of x), negative for a step down.

    Args:
        prefix: before the names of the parameters. Default: none.
        form: "linear", "arctan" (or "atan"), "erf" or "logistic". Default: "linear", as in lmfit.

    Raises:
        InputError: there is no such form.

    Example:
        >>> from lmtorch import models
        >>> edge = models.Step(form="erf")
        >>> edge([0.0, 1.0, 2.0], amplitude=2.0, center=1.0, sigma=0.5).round(4)
        array([0.0047, 1.    , 1.9953])
    """

    parameters = ("amplitude", "center", "sigma")
    linear = ("amplitude",)

    def __init__(self, prefix: str = "", form: str = "linear") -> None:
        super().__init__(prefix, form=_checked(form))

    def formula(self, x: Any, *values: Any) -> Any:
        """The step at x."""
        amplitude, center, sigma = values
        return amplitude * rise(self.options["form"], (x - center) / sigma)

    def start(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The nearest of some steps up and down, and then of some about that."""
        span, form = extent(x), self.options["form"]

        def tries(centers: Iterable[Tensor], sizes: Iterable[Tensor]) -> Iterator[Try]:
            sizes = list(sizes)
            for center in centers:
                for sigma in sizes:
                    z = (x - center[..., None]) / sigma[..., None]
                    values = {"center": center, "sigma": sigma}
                    yield values, {"amplitude": rise(form, z).expand(y.shape)}

        both = [sign * size * span for size in SIZES for sign in (1, -1)]
        found = nearest(y, tries(quantiles(x, PLACES), both))
        for fineness in FINER:
            found = nearest(
                y, tries(*_about(found["center"], found["sigma"], span / PLACES, fineness))
            )
        return found


def _about(
    center: Tensor, sigma: Tensor, gap: Tensor, fineness: float
) -> tuple[list[Tensor], list[Tensor]]:
    """Places and widths between those that were tried before."""
    step = 0.5 * fineness * gap
    centers = [center + part * step for part in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    return centers, [sigma * ratio**fineness for ratio in (0.4, 0.63, 1.0, 1.6, 2.5)]


class Rectangle(Model):
    """A step up and a step down, amplitude · (S((x − center1)/σ1) + S((center2 − x)/σ2) − 1).

    S is as of `Step` by its form, but for "linear", where lmfit's steps from −1 to 1 are twice as
    wide: S(z) = ½ + ½ min(1, max(−1, z)).

    Parameters, as of lmfit's RectangleModel: amplitude (units of y); center1 and center2, of the
    steps up and down (of x); sigma1 > 0 and sigma2 > 0, their widths (of x).

    Args:
        prefix: before the names of the parameters. Default: none.
        form: as of `Step`. Default: "linear".

    Raises:
        InputError: there is no such form.

    Example:
        >>> from lmtorch import models
        >>> box = models.Rectangle(form="logistic")
        >>> values = {"amplitude": 2.0, "center1": 1.0, "sigma1": 0.1, "center2": 3.0}
        >>> box([0.0, 1.0, 2.0, 4.0], **values, sigma2=0.1).round(3)
        array([0., 1., 2., 0.])
    """

    parameters = ("amplitude", "center1", "sigma1", "center2", "sigma2")
    limits: ClassVar = {"sigma1": POSITIVE, "sigma2": POSITIVE}
    linear = ("amplitude",)

    def __init__(self, prefix: str = "", form: str = "linear") -> None:
        super().__init__(prefix, form=_checked(form))

    def formula(self, x: Any, *values: Any) -> Any:
        """The rectangle at x."""
        amplitude, center1, sigma1, center2, sigma2 = values
        return amplitude * self._box((x - center1) / sigma1, (center2 - x) / sigma2)

    def _box(self, up: Any, down: Any) -> Any:
        form = self.options["form"]
        if form == "linear":
            up, down = 0.5 * up, 0.5 * down
        return rise(form, up) + rise(form, down) - 1

    def start(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The nearest of some rectangles, and then of some whose steps are about its own."""
        span = extent(x)

        def tries(ones: Iterable[Found]) -> Iterator[Try]:
            for one in ones:
                up = (x - one["center1"][..., None]) / one["sigma1"][..., None]
                down = (one["center2"][..., None] - x) / one["sigma2"][..., None]
                yield one, {"amplitude": self._box(up, down).expand(y.shape)}

        pairs = combinations(quantiles(x, CORNERS), 2)
        found = nearest(
            y,
            tries(
                {"center1": left, "sigma1": size * span, "center2": right, "sigma2": size * span}
                for left, right in pairs
                for size in (0.01, 0.06)
            ),
        )
        for fineness, k in product(FINER, "12"):
            center, sigma = f"center{k}", f"sigma{k}"
            places, sizes = _about(found[center], found[sigma], span / CORNERS, fineness)
            known = {name: found[name] for name in self.parameters if name != "amplitude"}
            found = nearest(y, tries({**known, center: c, sigma: w} for c in places for w in sizes))
        return found
