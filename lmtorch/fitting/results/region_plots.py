"""Pictures of confidence regions, with matplotlib."""

from typing import Any

import numpy as np

from ..._pyplot import pyplot
from ..inference.inference import Inference
from ..inference.profile import Trace, outward, traces
from ..inference.regions import Region, limit_of, region_of


def draw_region(region: Region, ax: Any) -> Any:
    """Draw the outlines of regions, the widest the lightest, with their ellipses dashed."""
    if ax is None:
        _, ax = pyplot().subplots(figsize=(4.2, 4), layout="constrained")
    for number, level in enumerate(region.levels):
        strength = 1 - 0.5 * number / len(region.levels)
        for place, line in enumerate(region.contours[level]):
            label = f"{level:.4g}" if place == 0 else None
            ax.plot(line[:, 0], line[:, 1], color="C0", alpha=strength, lw=1.5, label=label)
        ellipse = region.ellipses[level]
        linear = "linear" if number == 0 and len(ellipse) else None
        ax.plot(ellipse[:, 0], ellipse[:, 1], "--", color="0.5", alpha=strength, lw=1, label=linear)
    ax.plot(*region.best, "+", color="C3")
    ax.set(xlabel=region.names[0], ylabel=region.names[1])
    return ax.figure


def draw_matrix(fit: Inference, names: list[str], levels: tuple[float, ...], points: int) -> Any:
    """Draw the regions of each pair below the diagonal, and on it the profile of each parameter."""
    count = len(names)
    figure, axes = pyplot().subplots(
        count,
        count,
        figsize=(2.4 * count, 2.3 * count),
        sharex="col",
        squeeze=False,
        layout="constrained",
    )
    found = traces(fit, names, max(limit_of(fit, level) for level in levels) ** 0.5, points)
    for i, row in enumerate(names):
        for j, column in enumerate(names):
            axis = axes[i, j]
            if j > i:
                axis.set_visible(False)
            elif j < i:
                draw_region(region_of(fit, (column, row), levels, points), axis)
                axis.set(xlabel="", ylabel="" if j else row)
                if j:
                    axis.sharey(axes[i, 0])
                    axis.tick_params(labelleft=False)
            else:
                _draw_rise(fit, axis, row, found[row], levels)
    for j, column in enumerate(names):
        axes[-1, j].set(xlabel=column)
    return figure


def _draw_rise(
    fit: Inference, axis: Any, name: str, found: Trace, levels: tuple[float, ...]
) -> None:
    """The rise of χ² along a parameter, with its intervals."""
    top = max(limit_of(fit, level) for level in levels)
    values, rise = outward(fit, name, found.pairs[:, 0]), np.square(found.pairs[:, 1])
    shown = rise <= 1.2 * top
    axis.plot(values[shown], rise[shown], color="C0", lw=1.5)
    for number, level in enumerate(levels):
        limit = float(fit.quantile(level)) ** 2
        strength = 1 - 0.5 * number / len(levels)
        axis.axhline(limit, ls=":", color="0.5", alpha=strength, lw=1)
    axis.axvline(float(fit.p.detach()[fit.names.index(name)]), color="C3", lw=1)
    axis.set(
        ylim=(0, 1.2 * top), ylabel="Δχ² / s²" if not axis.get_subplotspec().colspan.start else ""
    )
    axis.yaxis.tick_right()
