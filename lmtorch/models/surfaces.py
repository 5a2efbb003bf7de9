"""Shapes of two coordinates: a spot in an image."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._arrays import is_tensor
from .._errors import InputError
from .peaks import HALF
from .searching import Try, nearest
from .shape import Shape

POSITIVE = (0.0, math.inf)


def _two(x: Any, *, flat: bool = False) -> None:
    """Check points.

    Raises:
        InputError: they have not two coordinates each, or are `flat` and yet in rows and columns.
    """
    if is_tensor(x) and (x.ndim < 2 or x.shape[0] != 2 or (flat and x.ndim > 2)):
        raise InputError(
            f"x of shape {tuple(x.shape)} are no points of two coordinates, (2, m): stack a row of "
            "each, np.stack([columns.ravel(), rows.ravel()]), and flatten the image."
        )


class Gaussian2D(Shape):
    """A Gaussian spot, amplitude / (2π σ_x σ_y) · exp(−(x − c_x)²/(2σ_x²) − (y − c_y)²/(2σ_y²)).

    Its points have two coordinates: x is (2, m), a row for each, and the data are (..., m); an
    image is flattened, as in the example.

    Parameters, as of lmfit's Gaussian2dModel: amplitude, the volume (units of the data times both
    coordinates'); centerx and sigmax > 0 (of the first coordinate); centery and sigmay > 0 (of the
    second).

    Example:
        >>> import torch
        >>> from lmtorch import models
        >>> rows = torch.arange(3.0)
        >>> points = torch.stack(torch.meshgrid(rows, rows, indexing="xy")).flatten(1)  # (2, 9)
        >>> spot = models.Gaussian2D()
        >>> values = {"amplitude": 6.28, "centerx": 1.0, "sigmax": 1.0, "centery": 1.0}
        >>> spot(points, **values, sigmay=1.0).reshape(3, 3)
        tensor([[0.3677, 0.6062, 0.3677],
                [0.6062, 0.9995, 0.6062],
                [0.3677, 0.6062, 0.3677]])
    """

    parameters = ("amplitude", "centerx", "centery", "sigmax", "sigmay")
    limits: ClassVar = {"sigmax": POSITIVE, "sigmay": POSITIVE}
    linear = ("amplitude",)

    @staticmethod
    def formula(
        x: Any, amplitude: Any, centerx: Any, centery: Any, sigmax: Any, sigmay: Any
    ) -> Any:
        """The spot at points (2, m)."""
        _two(x)
        across, along = (x[0] - centerx) / sigmax, (x[1] - centery) / sigmay
        front = amplitude / (2 * math.pi * sigmax * sigmay)
        return front * torch.exp(-0.5 * (across * across + along * along))

    @staticmethod
    def derived(
        amplitude: Any, centerx: Any, centery: Any, sigmax: Any, sigmay: Any
    ) -> dict[str, Any]:
        """Full widths at half height, and height (of the data)."""
        height = amplitude / (2 * math.pi * sigmax * sigmay)
        widths = {"fwhmx": 2 * HALF * abs(sigmax), "fwhmy": 2 * HALF * abs(sigmay)}
        return {**widths, "height": height}

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The spot that is most of y: by moments of what is high, and about the highest point."""
        _two(x, flat=True)

        def tries() -> Iterator[Try]:
            level = y.median(-1, keepdim=True).values
            for base in (y, y - level):
                at = base.abs().argmax(-1, keepdim=True)
                sign = torch.sign(base.take_along_dim(at, -1))
                up = base * sign
                top = up.amax(-1, keepdim=True)
                for part in (0.2, 0.4, 0.6):
                    # of a Gaussian above that part of its height, less what is cut off below
                    weight = (up - part * top).clamp(min=0.0)
                    center, spread = _moments(x, weight)
                    for grown in (1.0, 1.5):
                        yield _spot(x, y, center, grown * spread)
                    for size in (0.03, 0.1, 0.3):
                        span = x.amax(-1) - x.amin(-1)
                        place = torch.stack(
                            [row.expand(y.shape).take_along_dim(at, -1) for row in x]
                        )
                        yield _spot(
                            x, y, place[..., 0], (size * span).reshape(2, *(1,) * (y.ndim - 1))
                        )

        return nearest(y, tries())


def _moments(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations (2, ...) of both coordinates."""
    rows = x.reshape(2, *(1,) * (weight.ndim - 1), x.shape[-1])
    total = weight.sum(-1)
    total = torch.where(total > 0, total, 1.0)
    center = (weight * rows).sum(-1) / total
    spread = ((weight * (rows - center[..., None]) ** 2).sum(-1) / total).sqrt()
    span = (x.amax(-1) - x.amin(-1)).reshape(2, *(1,) * (weight.ndim - 1))
    least = torch.where(span > 0, span, 1.0) / (4 * math.sqrt(x.shape[-1]))
    return center, torch.maximum(spread, least.expand(spread.shape))


def _spot(x: Tensor, y: Tensor, center: Tensor, spread: Tensor) -> Try:
    """A spot of volume one."""
    spread = spread.expand(center.shape)
    values = {
        "centerx": center[0],
        "centery": center[1],
        "sigmax": spread[0],
        "sigmay": spread[1],
    }
    ones = torch.ones_like(center[0])
    full = [ones, *values.values()]
    column = Gaussian2D.formula(x, *(v[..., None] for v in full))
    return values, {"amplitude": column.expand(y.shape)}
