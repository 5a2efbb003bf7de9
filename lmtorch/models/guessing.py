"""Data made ready for a guess: tensors, ascending in x, every point with a number."""

from collections.abc import Iterator
from itertools import repeat
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from .._arrays import to_array
from .._errors import InputError, InputTypeError
from .calls import dated

TOGETHER = 2**20  # numbers of the data of a batch that are guessed from together
FEWEST = 5  # points that a guess can be made of


class Points(NamedTuple):
    """Points that guesses can work with.

    Attributes:
        x: (m,), ascending; (..., m) if each curve has its own; (k, m) of k coordinates.
        y: (..., m), finite.
    """

    x: Any
    y: Tensor

    @classmethod
    def of(cls, x: Any, y: Any, kept: Tensor | None = None, each_x: bool | None = None) -> Self:
        """Make them from data as users have them.

        Args:
            x: arrays or tensors.
            y: (..., m).
            kept: which points count, (..., m) bool. Default: those that are finite.
            each_x: whether x has the leading dimensions of y. Default: if it has its shape.

        Raises:
            InputError: x and y do not belong together, or no point of any curve is left.
            InputTypeError: they are no numbers.
        """
        y = _numbers(y, "y")
        if not isinstance(x, Tensor):
            x = _numbers(x, "x")
        x = x.detach().to(y)
        if x.ndim > 1 and x.shape[-1] == 1 < y.shape[-1] and x.shape[-2] == y.shape[-1]:
            x = x[..., 0]  # a column, as y may come, too
        if not y.ndim or x.shape[-1:] != y.shape[-1:]:
            turned = " Turn y about, y.T." if y.ndim == 2 and x.shape == y.shape[:1] else ""
            raise InputError(
                f"x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)} do not belong "
                f"together: the last dimension is that of the points.{turned}"
            )
        if each_x is None:
            each_x = y.ndim > 1 and x.shape == y.shape
        good = y.isfinite() if kept is None else y.isfinite() & kept.to(y.device)
        spread = x.ndim == 1 or each_x
        good = good & (x if spread else x.reshape(-1, x.shape[-1]).sum(0)).isfinite()
        empty = ~good.any(-1, keepdim=True)
        if bool(empty.all()):
            raise InputError("no point is left to guess from: all are NaN, infinite or masked.")
        if bool(empty.any()):  # in a batch there is an answer for the others
            y, good = torch.where(empty, 0.0, y), good | empty
        if good.ndim == 1 and not bool(good.all()):
            return cls(*_sorted(x[..., good], y[..., good], spread))
        return cls(*_sorted(x, y, spread, None if bool(good.all()) else good))

    @property
    def lead(self) -> tuple[int, ...]:
        """The leading dimensions of y."""
        return tuple(self.y.shape[:-1])

    @property
    def lines(self) -> bool:
        """Whether x is one number for each point."""
        return self.x.ndim == 1 or self.x.shape == self.y.shape

    def between(self, low: float, high: float) -> Self:
        """The points with x in an interval; all, if there are few, or x is no number for all."""
        if self.x.ndim != 1:
            return self
        chosen = (self.x >= low) & (self.x <= high)
        if int(chosen.sum()) < FEWEST:
            return self
        return self._replace(x=self.x[chosen], y=self.y[..., chosen])

    def parts(self) -> Iterator[Self]:
        """The curves of a large batch a few at a time, so that what is made of them is not larger.

        Yields:
            Some curves, whose leading dimensions are one; a small batch, or a curve, as it is.
        """
        m = self.y.shape[-1]
        count = max(1, TOGETHER // max(1, m))
        if self.y.ndim == 1 or self.y.numel() <= count * m:
            yield self
            return
        own = self.x.ndim > 1 and self.x.shape == self.y.shape
        for y, x in zip(
            self.y.reshape(-1, m).split(count),
            self.x.reshape(-1, m).split(count) if own else repeat(self.x),
            strict=False,
        ):
            yield self._replace(x=x, y=y)

    def remainder(self, curve: Tensor) -> Self:
        """The points less a curve (..., m)."""
        return self._replace(y=self.y - curve)


def as_given(found: dict[str, Tensor], y: Any) -> dict[str, Any]:
    """Values by name as the user's y came: tensors, or NumPy's arrays and numbers."""
    if isinstance(y, Tensor):
        return found
    return {name: to_array(value)[()] for name, value in found.items()}


def _sorted(
    x: Tensor, y: Tensor, spread: bool, good: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The points in the order of x, where it is one number for each; gaps filled by neighbours."""
    if spread:
        order = x.argsort(dim=-1, stable=True)
        x = x.take_along_dim(order, -1)
        places = order.expand(y.shape)
        y = y.take_along_dim(places, -1)
        good = None if good is None else good.take_along_dim(places, -1)
    if good is None:
        return x, y
    places = torch.arange(y.shape[-1], device=y.device).expand(y.shape)
    before = torch.where(good, places, -1).cummax(-1).values
    first = good.to(torch.int8).argmax(-1, keepdim=True)
    return x, y.take_along_dim(torch.where(before < 0, first, before), -1)


def _numbers(values: Any, name: str) -> Tensor:
    """A floating-point tensor of them, of arrays and lists in float64; masked entries are NaN.

    Raises:
        InputTypeError: they are no real numbers.
    """
    if isinstance(values, Tensor):
        values = values.detach()
        return values if values.is_floating_point() else values.double()
    try:
        # NumPy would take them for numbers of whatever unit they are kept in
        if (kind := np.asarray(values).dtype).kind in "mM":
            raise InputTypeError(dated(name, kind))
        if np.ma.isMaskedArray(values):
            values = np.ma.filled(values.astype(np.float64), np.nan)
        return torch.from_numpy(np.array(values, dtype=np.float64))
    except InputTypeError:
        raise
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{name} is no array of real numbers: {error}") from error
