"""A model as a picture: its curve with its terms, and the data that it is for."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._arrays import to_array
from .._errors import InputError
from .._pyplot import pyplot

GRID = 400  # how many points a curve is drawn with


def draw(model: Any, x: Any, y: Any, values: Mapping[str, Any] | None, ax: Any) -> Any:
    """Draw a model at x.

    Args:
        model: the model.
        x: points (m,).
        y: data (m,), or None.
        values: parameters by name; None: guessed from the data.
        ax: axes; None: new ones.

    Returns:
        The figure.

    Raises:
        InputError: x is not one number for each point, or there are neither values nor data.
    """
    points = np.asarray(to_array(x), dtype=np.float64)
    if points.ndim != 1 or (y is not None and np.shape(y) != points.shape):
        raise InputError(
            f"a picture needs x (m,) and y (m,), not {points.shape} and {np.shape(y)}: draw "
            "model(x, **values) yourself."
        )
    if values is None and y is not None:
        values = model.guess(x, y)
    grid = np.linspace(points.min(), points.max(), GRID)
    numbers = {name: float(value) for name, value in (values or {}).items()}
    parts = model.components(grid, **numbers)
    ax = pyplot().subplots(layout="constrained")[1] if ax is None else ax
    if y is not None:
        ax.plot(points, to_array(y), "o", ms=3.5, mfc="none", color="C0", label="data")
    ax.plot(grid, to_array(model(grid, **numbers)), color="C3", lw=1.5, label=model.label)
    if len(parts) > 1:
        for label, curve in parts.items():
            ax.plot(grid, to_array(curve), "--", lw=1, label=label)
    ax.legend(frameon=False)
    return ax.figure
