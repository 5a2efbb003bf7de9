"""Pictures of a fit, with matplotlib."""

from typing import Any

import numpy as np

from .._arrays import to_array
from .._errors import InputError
from .curves import places_of
from .inference import Inference

GRID = 400  # how many points a curve is drawn with


def draw(fit: Inference, level: float, dataset: int | None) -> Any:
    """Draw data, curve and band, with the residuals below, of a likelihood those of deviance."""
    plt = _pyplot()
    data = fit.fitter.data
    sets = places_of(data.sizes) if data.sizes else [slice(None)]
    chosen = list(range(len(sets))) if dataset is None else [dataset]
    likelihood = fit.fitter.likelihood
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(7, 5.5), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    for place in chosen:
        colour = f"C{chosen.index(place)}"
        rows = sets[place]
        x = np.asarray(to_array(data.x[place] if data.sizes else data.x), dtype=float)
        y = to_array(data.y.detach())[rows]
        if x.size != y.size:
            raise InputError(
                f"a plot needs one x for each point, not {x.shape} for "
                f"{y.shape}: draw fit(x) yourself."
            )
        layout = [-1 if size == x.size else 1 for size in x.shape]  # if x is a column, f gets one
        x = x.reshape(-1)
        weights = None if data.weights is None else to_array(data.weights)[rows]
        shown = np.ones(len(y), dtype=bool) if weights is None else weights > 0
        error = None
        if weights is not None and likelihood is None and not np.all(weights[shown] == 1):
            error = 1 / weights[shown]
        if likelihood is not None and likelihood.name == "binomial" and data.total is not None:
            y = y / np.maximum(to_array(data.total)[rows], 1)  # the curve is a probability
        across = None if fit.x_error is None else to_array(fit.x_error)[shown, 0]
        above.errorbar(
            x[shown],
            y[shown],
            error,
            across,
            fmt="o",
            ms=3.5,
            mfc="none",
            lw=0.8,
            color=colour,
            label="data",
        )
        grid = np.linspace(x.min(), x.max(), GRID)
        band = fit.band(grid.reshape(layout), level, place if data.sizes else None, None)
        curve, lower, upper = (to_array(side) for side in band)
        line = "C3" if len(chosen) == 1 else colour
        above.fill_between(
            grid, lower, upper, color=line, alpha=0.25, lw=0, label=f"{level:.0%} band"
        )
        above.plot(grid, curve, color=line, lw=1.5, label=fit.fitter.model.label)
        left = to_array(fit.deviance_residual)[rows]
        below.plot(x[shown], left[shown], "o", ms=3, mfc="none", color=colour)
    below.axhline(0, color="0.5", lw=1)
    handles, labels = above.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    above.legend(unique.values(), unique.keys(), frameon=False)
    scaled = data.weights is not None or data.root is not None
    words = "(fit − data)/σ" if scaled else "fit − data"
    below.set(ylabel=words if likelihood is None else "deviance residuals")
    return figure


def draw_profile(
    values: dict[str, np.ndarray],
    tau: dict[str, np.ndarray],
    intervals: dict[str, tuple[float, float]],
    best: dict[str, float],
    limit: float,
    level: float,
) -> Any:
    """Draw τ against each parameter."""
    plt = _pyplot()
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


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise InputError("plot() needs matplotlib: pip install matplotlib.") from error
    return plt
