"""Backgrounds: what other terms of a sum stand on."""

from typing import Any

from torch import Tensor

from .base import Model


class Linear(Model):
    """A straight line, slope · x + intercept.

    Parameters: slope (in units of y over x), intercept (of y). As lmfit's LinearModel.

    Args:
        prefix: before the names of the parameters. Default: none.

    Example:
        >>> from lmtorch import models
        >>> models.Linear()([0.0, 1.0], slope=2.0, intercept=1.0)
        array([1., 3.])
    """

    parameters = ("slope", "intercept")
    linear = ("slope", "intercept")
    background = True

    def __init__(self, prefix: str = "") -> None:
        super().__init__(prefix)

    @staticmethod
    def formula(x: Any, slope: Any, intercept: Any) -> Any:
        """The line at x."""
        return slope * x + intercept

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The line of least squares."""
        middle, level = x.mean(-1), y.mean(-1)
        away = x - middle[..., None]
        spread = away.square().sum(-1)
        slope = (away * (y - level[..., None])).sum(-1) / spread.where(spread > 0, 1.0)
        return {"slope": slope, "intercept": level - slope * middle}
