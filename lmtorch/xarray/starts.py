"""Where fits start that were not told: defaults of the function, a model's guess, or the bounds."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..fitting.models import OfNumbers
from ..models import Model
from .task import Task


def defaults_of(
    task: Task,
    x: np.ndarray,
    y: np.ndarray,
    starts: Mapping[str, np.ndarray],
    given: Mapping[str, Any],
    box: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> dict[str, Any]:
    """A start for every parameter in every pixel.

    Args:
        task: what is fitted.
        x: the coordinates.
        y: (b, m).
        starts: maps (b,) by name; where they are NaN the default is taken.
        given: `mask` (b, m) of the points that count.
        box: bounds (b,) by name, where they are not those of the task.

    Returns:
        (b,) by name.
    """
    b = len(y)
    guessed = _guess(task, x, y, given)
    plain = {} if guessed else OfNumbers(task.func, None).defaults
    found = {}
    for n in task.names:
        low, high = box[n] if box is not None else task.box.get(n, (-np.inf, np.inf))
        if n in task.start:
            value: Any = task.start[n]
        elif n in guessed:
            value = guessed[n]
        else:
            value = plain.get(n, 1.0)
            value = np.where((value < low) | (value > high), _middle(low, high), value)
        value = np.broadcast_to(np.asarray(value, np.float64), (b,))
        if n in starts:
            value = np.where(np.isnan(starts[n]), value, starts[n])
        found[n] = np.clip(value, low, high)
    return found


def _middle(low: Any, high: Any) -> Any:
    """scipy's start within bounds: the middle, or one from the only bound."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    with np.errstate(invalid="ignore"):
        inner = np.where(np.isfinite(high), (low + high) / 2, low + 1)
        return np.where(np.isfinite(low), inner, np.where(np.isfinite(high), high - 1, 0.0))


def _guess(task: Task, x: np.ndarray, y: np.ndarray, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a model guesses from the data; empty of a function."""
    if not isinstance(task.func, Model):
        return {}
    mask = given.get("mask")
    return dict(task.func.guess(x, y if mask is None else np.where(mask, y, np.nan)))
