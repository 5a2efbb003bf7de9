"""Pictures of a fit, with matplotlib: data, curve and band, and below them what is left over."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..._arrays import to_array
from ..._errors import InputError
from ..._pyplot import pyplot
from ...models.base import Model
from ..inference.inference import Inference
from ..measurements.curves import places_of
from .components import components_at

GRID = 400  # how many points a curve is drawn with
WIDE = 50  # from this ratio of the largest x to the smallest on, a curve has points for log axes


class Points(NamedTuple):
    """The points of one data set, without those that are left out, (k,) each."""

    x: np.ndarray  # numbers, or dates
    y: np.ndarray
    error: np.ndarray | None  # of y
    across: np.ndarray | None  # of x
    left: np.ndarray  # data − fit, in units of the errors
    layout: list[int]  # the shape in which f gets x, −1 for the points


def draw(
    fit: Inference,
    level: float,
    dataset: int | None,
    ax: Any,
    words: Mapping[str, str],  # xlabel, ylabel, title, xscale, yscale, where they are given
    parts: bool,  # whether the terms of a sum are drawn
) -> Any:
    """Draw data, curve and band, with the residuals below, of a likelihood those of deviance."""
    data = fit.fitter.data
    if dataset is not None and not 0 <= dataset < len(data.sizes):
        raise InputError(f"dataset={dataset} does not name one of {len(data.sizes)} data sets.")
    sets = range(max(1, len(data.sizes))) if dataset is None else [dataset]
    points = [points_of_set(fit, place) for place in sets]
    above, below = axes_of(ax)
    for axis in (above, below):
        if axis is not None and "xscale" in words:
            axis.set_xscale(words["xscale"])
    if "yscale" in words:
        above.set_yscale(words["yscale"])
    several = len(points) > 1
    for number, (place, one) in enumerate(zip(sets, points, strict=True)):
        colour = f"C{number}"
        label = f"data set {place}" if several else "data"
        above.errorbar(
            one.x, one.y, one.error, one.across,
            fmt="o", ms=3.5, mfc="none", lw=0.8, color=colour, label=label,
        )  # fmt: skip
        grid = grid_of(one.x, above.get_xscale())
        where = place if data.sizes else None
        band = fit.band(grid.reshape(one.layout), level, where, None)
        curve, lower, upper = (to_array(side) for side in band)
        line = colour if several else "C3"
        told = (f"{level:.0%} band", fit.fitter.model.label) if number == 0 else (None, None)
        above.fill_between(grid, lower, upper, color=line, alpha=0.25, lw=0, label=told[0])
        above.plot(grid, curve, color=line, lw=1.5, label=told[1])
        if parts:
            draw_terms(fit, above, grid, grid.reshape(one.layout), where, colour if several else "")
        if below is not None:
            below.plot(one.x, one.left, "o", ms=3, mfc="none", color=colour)
    if "yscale" in words and above.get_yscale() == "log":
        show_data(above, np.concatenate([one.y for one in points]))
    above.legend(frameon=False)
    above.set(**{key: words[key] for key in ("ylabel", "title") if key in words})
    last = above
    if below is not None:
        last = below
        below.axhline(0, color="0.5", lw=1)
        below.set(ylabel=words_of_residuals(fit))
    if "xlabel" in words:
        last.set(xlabel=words["xlabel"])
    return above.figure


def draw_terms(
    fit: Inference, axis: Any, grid: np.ndarray, x: np.ndarray, place: int | None, colour: str
) -> None:
    """Draw the terms of a sum of models, dashed; in the colour, or with names in several."""
    model: Any = fit.fitter.model
    function = model.function if place is None else model.functions[place]
    if not isinstance(function, Model) or len(function.terms) < 2:
        return
    for number, (name, curve) in enumerate(components_at(fit, x, place).items()):
        shown = np.broadcast_to(to_array(curve), grid.shape)
        axis.plot(
            grid, shown, "--", lw=1, color=colour or f"C{(number + 4) % 10}",
            label=None if colour else name,
        )  # fmt: skip


def show_data(axis: Any, y: np.ndarray) -> None:
    """Let the data say how far down a logarithmic axis goes, and not the tails of curves."""
    positive = y[y > 0]
    if positive.size:
        bottom, top = axis.get_ylim()
        axis.set_ylim(bottom=max(bottom, min(positive.min() / 3, top / 3)))


def axes_of(ax: Any) -> tuple[Any, Any]:
    """The axes for the curve, and those for the residuals or None.

    Raises:
        InputError: `ax` is neither axes nor a pair of them.
    """
    if ax is None:
        _, (above, below) = pyplot().subplots(
            2, 1, figsize=(7, 5.5), sharex=True, height_ratios=(3, 1), layout="constrained"
        )
        return above, below
    pair = list(np.ravel(np.asarray(ax, dtype=object)))
    if len(pair) > 2 or not all(hasattr(one, "errorbar") for one in pair):
        raise InputError(
            f"ax={ax!r} must be matplotlib's axes for the curve, or a pair of them, the second for "
            "the residuals."
        )
    return pair[0], pair[1] if len(pair) == 2 else None


def points_of_set(fit: Inference, place: int) -> Points:
    """What is drawn of a data set.

    Raises:
        InputError: x is not one number for each point.
    """
    data, likelihood = fit.fitter.data.unwritten(), fit.fitter.likelihood
    rows = places_of(data.sizes)[place] if data.sizes else slice(None)
    x = np.asarray(to_array(data.x[place] if data.sizes else data.x))
    y = to_array(data.y.detach())[rows]
    if x.size != y.size or x.dtype.kind not in "biufM":
        raise InputError(
            f"a plot needs one x for each point, not {x.shape} for {y.shape}: draw fit(x) yourself."
        )
    layout = [-1 if size == x.size else 1 for size in x.shape]  # if x is a column, f gets one
    x = x.reshape(-1)
    x = x if x.dtype.kind == "M" else x.astype(float)
    weights = None if data.weights is None else to_array(data.weights)[rows]
    shown = np.ones(len(y), dtype=bool) if weights is None else weights > 0
    error = None
    if weights is not None and likelihood is None and not np.all(weights[shown] == 1):
        error = 1 / weights[shown]
    if likelihood is not None and likelihood.name == "binomial" and data.total is not None:
        y = y / np.maximum(to_array(data.total)[rows], 1)  # the curve is a probability
    across = None if fit.x_error is None else to_array(fit.x_error)[shown, 0]
    left = -to_array(fit.deviance_residual)[rows]
    return Points(x[shown], y[shown], error, across, left[shown], layout)


def grid_of(x: np.ndarray, scale: str) -> np.ndarray:
    """Points at which a curve is drawn, over all of x; dense on log axes where x is positive.

    Raises:
        InputError: no x is positive, and the axis is logarithmic.
    """
    if x.dtype.kind == "M":
        whole = x.astype(np.int64)
        return np.unique(np.linspace(whole.min(), whole.max(), GRID).astype(np.int64)).view(x.dtype)
    low, high = x.min(), x.max()
    even = np.linspace(low, high, GRID)
    positive = x[x > 0]
    if scale == "log":
        if not positive.size:
            raise InputError("xscale='log' needs an x that is positive.")
        return np.geomspace(positive.min(), high, GRID)
    if low > 0 and high > WIDE * low:
        return np.union1d(even, np.geomspace(low, high, GRID).clip(low, high))
    return even


def words_of_residuals(fit: Inference) -> str:
    """How the axis of the residuals is called."""
    data = fit.fitter.data
    if fit.fitter.likelihood is not None:
        return "deviance residuals"
    scaled = data.weights is not None or data.root is not None
    return "(data − fit)/σ" if scaled else "data − fit"


def draw_profile(
    values: dict[str, np.ndarray],
    tau: dict[str, np.ndarray],
    intervals: dict[str, tuple[float, float]],
    best: dict[str, float],
    limit: float,
    level: float,
) -> Any:
    """Draw τ against each parameter."""
    plt = pyplot()
    figure, axes = plt.subplots(
        1, len(values), figsize=(3.2 * len(values), 3), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[0], values, strict=True):
        axis.axhspan(-limit, limit, color="C0", alpha=0.12, lw=0)
        axis.plot(values[name], tau[name], ".-", color="C0", lw=1)
        for end in intervals[name]:
            if np.isfinite(end):
                axis.axvline(end, color="C3", lw=1)
        axis.axvline(best[name], color="0.5", lw=1)
        axis.set(xlabel=name)
    axes[0][0].set(ylabel=f"τ, and {level:.0%}")
    return figure
