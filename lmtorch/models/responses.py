"""Decays as an instrument shows them: convolved with its response."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError
from .base import Model
from .decays import POSITIVE
from .searching import Try, extent, ladder, nearest, peak
from .shape import Shape
from .tails import exponential_tail


class GaussianResponseDecay(Shape):
    """An exponential decay that begins at center, seen through a Gaussian response of width σ.

    amplitude · ∫₀^∞ exp(−t/decay) G(x − center − t; σ) dt with a response of area one: the closed
    form with erfc, evaluated so that nothing overflows. It is amplitude · decay times an
    `ExponentialGaussian` of gamma = 1/decay.

    Parameters: amplitude, the value at which the decay begins, without the response (units of
    y); decay > 0 (of x); center, time zero (of x); sigma > 0 (of x).

    Example:
        >>> from lmtorch import models
        >>> decay = models.GaussianResponseDecay()
        >>> decay([0.0, 1.0, 3.0], amplitude=2.0, decay=2.0, center=1.0, sigma=0.1).round(4)
        array([0.    , 0.9613, 0.7367])
    """

    parameters = ("amplitude", "decay", "center", "sigma")
    limits: ClassVar = {"decay": POSITIVE, "sigma": POSITIVE}
    linear = ("amplitude",)

    @staticmethod
    def formula(x: Any, amplitude: Any, decay: Any, center: Any, sigma: Any) -> Any:
        """The decay at x."""
        return amplitude * exponential_tail(x - center, sigma, 1 / decay)

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The nearest of some decays that begin before the highest point."""
        top, _ = peak(x, y)
        span = extent(x)

        def tries() -> Iterator[Try]:
            for size in ladder(0.01, 3.0, 8):
                decay = size * span
                for sigma in (0.005 * span, 0.02 * span, 0.3 * decay, decay):
                    for later in (0.0, 1.0, 2.5):
                        center = top - later * torch.minimum(sigma, decay)
                        column = exponential_tail(
                            x - center[..., None], sigma[..., None], 1 / decay[..., None]
                        )
                        values = {"decay": decay, "center": center, "sigma": sigma}
                        yield values, {"amplitude": column.expand(y.shape)}

        return nearest(y, tries())


class MeasuredResponseDecay(Model):
    """An exponential decay seen through a response that was measured.

    amplitude · ∫ r(t) exp(−(x − shift − t)/decay) dt over t < x − shift, with the response r linear
    between its points and zero outside, of area one; the integral is exact, so that x need not lie
    on the grid of the response, and the curve is a smooth function of shift.

    It takes (points of x) · (points of the response) numbers a few times over.

    Parameters: amplitude, the value at which the decay begins, without the response (units of y);
    decay > 0 (of x); shift, of the response (of x).

    Args:
        prefix: before the names of the parameters. Default: none.
        times: where the response was measured, ascending, in units of x.
        response: what was measured there, in any units: it is divided by its area.

    Raises:
        InputError: times and response are no two rows of as many finite numbers, times do not
            ascend, or the response has no positive area.

    Example:
        >>> from lmtorch import models
        >>> lamp = models.MeasuredResponseDecay(times=[0.0, 0.1, 0.2], response=[0.0, 1.0, 0.0])
        >>> lamp([0.0, 0.1, 1.1], amplitude=2.0, decay=2.0, shift=0.0).round(4)
        array([0.    , 0.9835, 1.2133])
    """

    parameters = ("amplitude", "decay", "shift")
    limits: ClassVar = {"decay": POSITIVE}
    linear = ("amplitude",)

    def __init__(
        self, prefix: str = "", *, times: Sequence[float], response: Sequence[float]
    ) -> None:
        grid, values = _grid(times, response)
        super().__init__(prefix, times=grid.tolist(), response=values.tolist())
        area = np.sum(np.diff(grid) * (values[1:] + values[:-1])) / 2
        if not area > 0:
            raise InputError(
                "the response has no positive area: subtract its background, and see to its sign."
            )
        self._values = values[:-1] / area
        self._slopes = np.diff(values) / np.diff(grid) / area
        self._grid = grid

    def formula(self, x: Any, *values: Any) -> Any:
        """The decay at x."""
        amplitude, decay, shift = values
        return amplitude * self._convolved((x - shift)[..., None], decay[..., None])

    def _convolved(self, x: Any, decay: Any) -> Any:
        """The integral over all intervals of the response, (..., m) for x (..., m, 1)."""
        begin, end, value, slope = (
            torch.as_tensor(part, dtype=x.dtype, device=x.device)
            for part in (self._grid[:-1], self._grid[1:], self._values, self._slopes)
        )
        # of the part of an interval that is over, in units of the decay: how far is its begin and
        # how far its end
        since = torch.relu(x - end) / decay
        passed = torch.relu(x - begin) / decay - since
        left = torch.exp(-since) * decay
        share = -torch.expm1(-passed)
        return (left * (value * share + slope * decay * (passed - share))).sum(-1)

    def start(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The nearest of some decays; the maximum of the response is a little before that of y."""
        span, step = extent(x), extent(x) / x.shape[-1]

        def tries() -> Iterator[Try]:
            for size in ladder(0.003, 3.0, 14):
                for shift in (-8.0, -2.0, 0.0, 2.0, 8.0):
                    moved = shift * step
                    column = self._convolved(
                        (x - moved[..., None])[..., None], (size * span)[..., None, None]
                    )
                    values = {"decay": size * span, "shift": moved}
                    yield values, {"amplitude": column.expand(y.shape)}

        return nearest(y, tries())


def _grid(times: Any, response: Any) -> tuple[Any, Any]:
    """Make arrays of both.

    Returns:
        Times and response.

    Raises:
        InputError: they do not belong together.
    """
    try:
        grid, values = (np.asarray(part, dtype=np.float64) for part in (times, response))
    except (TypeError, ValueError) as error:
        raise InputError(f"times and response must be rows of numbers: {error}") from error
    if grid.ndim != 1 or grid.shape != values.shape or len(grid) < 2:
        raise InputError(
            f"times and response must be two rows of as many numbers, at least two: they have "
            f"shapes {grid.shape} and {values.shape}."
        )
    if not (np.isfinite(grid).all() and np.isfinite(values).all() and (np.diff(grid) > 0).all()):
        raise InputError("times must ascend, and times and response must be finite.")
    return grid, values
