"""What falls or grows by a law: exponentials, powers, the rate of a reaction with temperature."""

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor

from .searching import Try, extent, ladder, nearest
from .shape import Shape

POSITIVE = (0.0, math.inf)
AT_ZERO = -1e6  # its logarithm: times a small exponent it is still that of zero
OVER = 60.0  # exp(−exp(OVER)) is zero
GAS_CONSTANT = 8.31446261815324  # J/(mol K), exact since 2019
LONGEST, SHORTEST = 10.0, 0.004  # decay times that are tried, in the length of the data
RATES = 14  # how many of them


class Exponential(Shape):
    """An exponential decay, amplitude · exp(−x / decay); growth, where decay is negative.

    Parameters, as of lmfit's ExponentialModel: amplitude, the value at x = 0 (units of y); decay,
    the time in which it falls to 1/e (of x).

    Example:
        >>> from lmtorch import models
        >>> models.Exponential()([0.0, 2.0], amplitude=3.0, decay=2.0).round(4)
        array([3.    , 1.1036])
    """

    parameters = ("amplitude", "decay")
    linear = ("amplitude",)
    background = True

    @staticmethod
    def formula(x: Any, amplitude: Any, decay: Any) -> Any:
        """The decay at x."""
        return amplitude * torch.exp(-x / decay)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The nearest of some decays and growths."""
        span = extent(x)

        def tries() -> Iterator[Try]:
            for size in ladder(SHORTEST, LONGEST, RATES):
                # heights are those at the end where it is highest, as the others may overflow
                for decay, top in ((size * span, x[..., :1]), (-size * span, x[..., -1:])):
                    column = torch.exp(-(x - top) / decay[..., None]).expand(y.shape)
                    yield {"decay": decay, "top": top[..., 0]}, {"amplitude": column}

        found = nearest(y, tries())
        found["amplitude"] = found["amplitude"] * torch.exp(found.pop("top") / found["decay"])
        return found


class Biexponential(Shape):
    """A sum of two decays, amplitude1 · exp(−x / decay1) + amplitude2 · exp(−x / decay2).

    Parameters: amplitude1 and amplitude2 (units of y), decay1 and decay2 > 0 (of x), as of two of
    lmfit's ExponentialModel; a guess has decay1 < decay2.

    Example:
        >>> from lmtorch import models
        >>> two = models.Biexponential()
        >>> two([0.0, 2.0], amplitude1=3.0, decay1=0.5, amplitude2=1.0, decay2=4.0).round(4)
        array([4.    , 0.6615])
    """

    parameters = ("amplitude1", "decay1", "amplitude2", "decay2")
    limits: ClassVar = {"decay1": POSITIVE, "decay2": POSITIVE}
    linear = ("amplitude1", "amplitude2")
    background = True

    @staticmethod
    def formula(x: Any, amplitude1: Any, decay1: Any, amplitude2: Any, decay2: Any) -> Any:
        """The sum at x."""
        return amplitude1 * torch.exp(-x / decay1) + amplitude2 * torch.exp(-x / decay2)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The nearest of some pairs."""
        first, span = x[..., :1], extent(x)
        sizes = list(ladder(0.01, 3.0, 9))
        columns = [torch.exp(-(x - first) / (s * span)[..., None]).expand(y.shape) for s in sizes]
        pairs = list(combinations(range(len(sizes)), 2))

        def tries() -> Iterator[Try]:
            for short, long in pairs:
                values = {"decay1": sizes[short] * span, "decay2": sizes[long] * span}
                yield values, {"amplitude1": columns[short], "amplitude2": columns[long]}

        found = nearest(y, tries())
        for k in "12":
            grown = torch.exp(first[..., 0] / found[f"decay{k}"])
            found[f"amplitude{k}"] = found[f"amplitude{k}"] * grown
        return found


class StretchedExponential(Shape):
    """A stretched exponential (Kohlrausch), amplitude · exp(−(x / decay)^β), for x ≥ 0.

    Parameters: amplitude, the value at x = 0 (units of y); decay > 0, the time in which it falls to
    1/e (of x); beta > 0, below 1 for a spread of decay times. Values of x below zero are taken for
    zero.

    Source: Kohlrausch, Ann. Phys. Chem. 91 (1854) 179; Williams & Watts, Trans. Faraday Soc. 66
    (1970) 80.

    Example:
        >>> from lmtorch import models
        >>> decay = models.StretchedExponential()
        >>> decay([0.0, 2.0], amplitude=3.0, decay=2.0, beta=0.5).round(4)
        array([3.    , 1.1036])
    """

    parameters = ("amplitude", "decay", "beta")
    limits: ClassVar = {"decay": POSITIVE, "beta": POSITIVE}
    linear = ("amplitude",)
    background = True

    @staticmethod
    def formula(x: Any, amplitude: Any, decay: Any, beta: Any) -> Any:
        """The decay at x."""
        # a power of zero has no derivative, where its logarithm is far enough below has zero
        after = x > 0
        log = torch.log(torch.where(after, x, 1.0)) - torch.log(decay)
        power = beta * torch.where(after, log, AT_ZERO)
        # above, nothing is left, and the derivative of an infinite power would be NaN
        return amplitude * torch.exp(-torch.exp(power.clamp(max=OVER)))

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The nearest of some decays and exponents."""
        last = x[..., -1]
        last = torch.where(last > 0, last, 1.0)

        def tries() -> Iterator[Try]:
            for size in ladder(0.001, 3.0, 12):
                for beta in (0.3, 0.5, 0.8, 1.2, 2.0):
                    decay = (size * last)[..., None]
                    column = StretchedExponential.formula(x, 1.0, decay, beta)
                    yield (
                        {"decay": size * last, "beta": torch.full_like(last, beta)},
                        {"amplitude": column.expand(y.shape)},
                    )

        return nearest(y, tries())


class PowerLaw(Shape):
    """A power law, amplitude · x^exponent, for x > 0.

    Parameters, as of lmfit's PowerLawModel: amplitude, the value at x = 1 (units of y); exponent.

    Example:
        >>> from lmtorch import models
        >>> models.PowerLaw()([1.0, 4.0], amplitude=3.0, exponent=0.5)
        array([3., 6.])
    """

    parameters = ("amplitude", "exponent")
    linear = ("amplitude",)
    background = True

    @staticmethod
    def formula(x: Any, amplitude: Any, exponent: Any) -> Any:
        """The power at x."""
        return amplitude * x**exponent

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The nearest of some exponents, and the line through the logarithms."""
        inside = (x > 0).expand(y.shape)
        x = torch.where(x > 0, x, 1.0).expand(y.shape)
        log = torch.log(x)
        high = torch.where(inside, log, -math.inf).amax(-1, keepdim=True)
        low = torch.where(inside, log, math.inf).amin(-1, keepdim=True)
        size = torch.log(torch.where(y == 0, 1.0, y.abs()))
        weight = (y * y * inside).detach()
        total = weight.sum(-1).clamp(min=torch.finfo(y.dtype).tiny)
        mean, level = (weight * log).sum(-1) / total, (weight * size).sum(-1) / total
        away = log - mean[..., None]
        spread = (weight * away * away).sum(-1)
        line = (weight * away * (size - level[..., None])).sum(-1)

        def tries() -> Iterator[Try]:
            exponents = [line / torch.where(spread > 0, spread, 1.0)]
            exponents += [torch.full_like(level, k / 2) for k in range(-12, 13) if k]
            for exponent in exponents:
                top = torch.where(exponent[..., None] > 0, high, low)
                column = torch.where(inside, torch.exp(exponent[..., None] * (log - top)), 0.0)
                yield {"exponent": exponent, "top": top[..., 0]}, {"amplitude": column}

        found = nearest(y, tries())
        found["amplitude"] = found["amplitude"] * torch.exp(-found["exponent"] * found.pop("top"))
        return found


class Arrhenius(Shape):
    """The rate of a reaction at a temperature, amplitude · exp(−energy / (R x)), x in kelvin.

    Parameters: amplitude, the rate at infinite temperature (units of y); energy, of activation, in
    J/mol, with R = 8.31446261815324 J/(mol K).

    Source: Arrhenius, Z. Phys. Chem. 4 (1889) 226.

    Example:
        >>> from lmtorch import models
        >>> models.Arrhenius()([300.0, 310.0], amplitude=1e13, energy=5e4).round(1)
        array([19696.8, 37603. ])
    """

    parameters = ("amplitude", "energy")
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, energy: Any) -> Any:
        """The rate at x."""
        return amplitude * torch.exp(energy / x * (-1 / GAS_CONSTANT))

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The nearest of some energies, from a fraction of RT to two hundred RT."""
        middle = x.mean(-1, keepdim=True)
        thermal = GAS_CONSTANT * middle[..., 0]

        def tries() -> Iterator[Try]:
            for size in ladder(0.1, 200.0, 40):
                for energy in (size * thermal, -size * thermal):
                    turn = (1 / x - 1 / middle) * (-1 / GAS_CONSTANT)
                    column = torch.exp(energy[..., None] * turn).expand(y.shape)
                    yield {"energy": energy}, {"amplitude": column}

        found = nearest(y, tries())
        found["amplitude"] = found["amplitude"] * torch.exp(found["energy"] / thermal)
        return found
