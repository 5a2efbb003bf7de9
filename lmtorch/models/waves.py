"""Sinusoids, steady and damped."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from .searching import Found, Try, extent, nearest
from .shape import Shape

FREQUENCY = (0.0, math.inf)
FINENESS = 4  # frequencies that are tried, in a full turn over the length of the data
MOST = 4096  # points, of which the highest frequency makes half a turn each


class Sine(Shape):
    """A sinusoid, amplitude · sin(frequency · x + shift).

    Parameters, as of lmfit's SineModel: amplitude (units of y); frequency ≥ 0, an angular one, 2π
    over the period (of 1/x); shift, the phase at x = 0, in radians.

    Example:
        >>> from lmtorch import models
        >>> models.Sine()([0.0, 1.0], amplitude=2.0, frequency=3.0, shift=0.5).round(4)
        array([ 0.9589, -0.7016])
    """

    parameters = ("amplitude", "frequency", "shift")
    limits: ClassVar = {"frequency": FREQUENCY}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, frequency: Any, shift: Any) -> Any:
        """The sinusoid at x."""
        return amplitude * torch.sin(frequency * x + shift)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The highest of the spectrum of least squares, amplitude positive."""
        return _phased(nearest(y, _waves(x, y)), x)


class DampedSine(Shape):
    """A damped sinusoid, amplitude · sin(frequency · x + shift) · exp(−x · decay).

    Parameters, as of lmfit's expsine lineshape: amplitude (units of y); frequency ≥ 0 (radians over
    x); shift, the phase at x = 0, in radians; decay, a rate (of 1/x).

    Example:
        >>> from lmtorch import models
        >>> wave = models.DampedSine()
        >>> wave([0.0, 1.0], amplitude=2.0, frequency=3.0, shift=0.5, decay=0.1).round(4)
        array([ 0.9589, -0.6348])
    """

    parameters = ("amplitude", "frequency", "shift", "decay")
    limits: ClassVar = {"frequency": FREQUENCY}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, frequency: Any, shift: Any, decay: Any) -> Any:
        """The sinusoid at x."""
        return amplitude * torch.sin(frequency * x + shift) * torch.exp(-x * decay)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The highest of the spectra of least squares of some rates."""
        first, span = x[..., :1], extent(x)

        def tries() -> Iterator[Try]:
            for size in (0.0, 1.0, 3.0, 8.0, 20.0):
                decay = size / span
                fall = torch.exp(-(x - first) * decay[..., None])
                for values, columns in _waves(x, y):
                    yield (
                        {**values, "decay": decay},
                        {name: column * fall for name, column in columns.items()},
                    )

        found = _phased(nearest(y, tries()), x)
        found["amplitude"] = found["amplitude"] * torch.exp(first[..., 0] * found["decay"])
        return found


def _waves(x: Tensor, y: Tensor) -> Iterator[Try]:
    """Sine and cosine of rising frequencies, each turned from the last by the same angle."""
    step = 2 * math.pi / FINENESS / extent(x)
    angle = (x - x[..., :1]) * step[..., None]
    sine, cosine = torch.sin(angle).expand(y.shape), torch.cos(angle).expand(y.shape)
    turn = torch.complex(cosine, sine)
    now = turn
    for k in range(1, FINENESS * min(y.shape[-1], MOST) // 2 + 1):
        yield {"frequency": k * step}, {"sine": now.imag, "cosine": now.real}
        now = now * turn


def _phased(found: Found, x: Tensor) -> Found:
    """Amplitude and phase at x = 0, of the heights of sine and cosine from the first point on."""
    sine, cosine = found.pop("sine"), found.pop("cosine")
    shift = torch.atan2(cosine, sine) - found["frequency"] * x[..., 0]
    turns = torch.round(shift / (2 * math.pi))
    return {
        **found,
        "amplitude": torch.hypot(sine, cosine),
        "shift": shift - 2 * math.pi * turns,
    }
