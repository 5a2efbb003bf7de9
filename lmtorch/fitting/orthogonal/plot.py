"""Pictures of fits with errors in x: one panel for each response, or the curve f = 0."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..._arrays import to_array
from ..._errors import InputError
from ..._pyplot import pyplot
from ..inference.bands import variance
from ..results.plot import grid_of

if TYPE_CHECKING:
    from .inference import OrthogonalInference

GRID = 200  # points a side of the grid on which the sign of f is looked at
MARGIN = 0.15  # of the extent of the points that is shown around them


def draw_responses(
    fit: "OrthogonalInference", level: float, ax: Any, words: Mapping[str, str]
) -> Any:
    """Draw each response with its curve and band, and below it what is left over.

    Returns:
        The figure.

    Raises:
        InputError: x is not one number for each point, or the axes are not as many.
    """
    data = fit.data
    q = data.each
    if not data.flat:
        raise InputError(
            "a plot of several responses needs one x for each point, not (k, m): draw x_fit and "
            "best_fit yourself."
        )
    above, below = panels_of(ax, q)
    x, y = to_array(data.x), to_array(data.grid)
    counts, across = to_array(data.counts), to_array(fit.x_error)[:, 0]
    errors = deviations(data.whitening)
    left = vertical(fit)
    for axis in (*above, *below):
        if "xscale" in words:
            axis.set_xscale(words["xscale"])
    grid = grid_of(x[counts.any(0)], above[0].get_xscale())
    band = fit.band(grid, level, None, None)
    curve, lower, upper = (to_array(side).reshape(q, -1) for side in band)
    for place, axis in enumerate(above):
        if "yscale" in words:
            axis.set_yscale(words["yscale"])
        shown = counts[place]
        axis.errorbar(
            x[shown], y[place][shown], errors[place][shown], across[shown],
            fmt="o", ms=3.5, mfc="none", lw=0.8, label=f"response {place}",
        )  # fmt: skip
        axis.fill_between(
            grid,
            lower[place],
            upper[place],
            color="C3",
            alpha=0.25,
            lw=0,
            label=f"{level:.0%} band",
        )
        axis.plot(grid, curve[place], color="C3", lw=1.5, label=fit.fitter.model.label)
        axis.legend(frameon=False)
        if below:
            below[place].plot(x[shown], left[place][shown], "o", ms=3, mfc="none")
            below[place].axhline(0, color="0.5", lw=1)
        if "xlabel" in words:
            (below or above)[place].set(xlabel=words["xlabel"])
    if below:
        below[0].set(ylabel="(data − fit)/σ")
    above[0].set(**{key: words[key] for key in ("ylabel", "title") if key in words})
    return above[0].figure


def vertical(fit: "OrthogonalInference") -> np.ndarray:
    """How far each response lies above its curve at the measured x, in units of both errors.

    The distances of a fit are those of each response given the ones before it; in a picture of one
    of them it stands alone.

    Returns:
        (q, m).
    """
    data = fit.data
    root = fit.solution.normals[..., : data.each, :].mT  # (m, q, q), RᵀR = S⁻¹
    scales = data.whitening
    scales = torch.diag_embed(scales.mT) if scales.ndim == 2 else scales.movedim(-1, 0)
    back = torch.linalg.pinv(scales) @ torch.linalg.inv(root)
    apart = (back @ fit.residual.reshape(data.each, -1).mT[..., None])[..., 0]
    deviation = torch.linalg.vector_norm(back, dim=-1)
    return -to_array((apart / deviation).mT)


def deviations(whitening: torch.Tensor) -> np.ndarray:
    """Standard deviations of y from R, (q, m); infinite where there is no weight."""
    if whitening.ndim == 2:
        with np.errstate(divide="ignore"):
            found: np.ndarray = 1 / to_array(whitening)
            return found
    root = whitening.movedim(-1, 0)  # (m, q, q)
    covariance = torch.linalg.pinv(root.mT @ root, hermitian=True)
    return to_array(covariance.diagonal(dim1=-2, dim2=-1).mT.sqrt())


def panels_of(ax: Any, count: int, shared: bool = True) -> tuple[list[Any], list[Any]]:
    """The axes of the curves, and those of the residuals, which may share their x.

    Returns:
        Both; the second may be empty.

    Raises:
        InputError: `ax` is neither as many axes, nor twice as many.
    """
    if ax is None:
        _, axes = pyplot().subplots(
            2, count, figsize=(4.5 * count, 5.5), sharex=shared, height_ratios=(3, 1),
            layout="constrained", squeeze=False,
        )  # fmt: skip
        return list(axes[0]), list(axes[1])
    found = list(np.ravel(np.asarray(ax, dtype=object)))
    if len(found) not in (count, 2 * count) or not all(hasattr(one, "errorbar") for one in found):
        raise InputError(
            f"ax must hold matplotlib's axes for {count} curves, or twice as many, the second half "
            "for the residuals."
        )
    return found[:count], found[count:]


def draw_implicit(
    fit: "OrthogonalInference", level: float, ax: Any, words: Mapping[str, str]
) -> Any:
    """Draw points, f = 0 with its band, and below the distances of the points.

    The band is where f is no further from zero than its error makes it.

    Returns:
        The figure.

    Raises:
        InputError: points have not two predictors, or the axes are none.
    """
    data = fit.data
    if data.flat or data.predictors != 2:
        raise InputError(
            f"a plot of an implicit model needs points in a plane, (2, m), not "
            f"{tuple(data.x.shape)}: draw x_fit yourself."
        )
    (above,), below = panels_of(ax, 1, shared=False)
    shown = to_array(data.counts.any(-2))
    points, errors = to_array(data.x)[:, shown], to_array(fit.x_error.mT)[:, shown]
    moved = to_array(fit.moved)[:, shown]
    ends = np.concatenate([points, moved], 1)
    low, high = ends.min(1), ends.max(1)
    room = MARGIN * np.maximum(high - low, 1e-12 * np.abs(ends).max())
    sides = [np.linspace(low[i] - room[i], high[i] + room[i], GRID) for i in range(2)]
    plane = np.stack(np.meshgrid(*sides))
    values, slopes = fit.sensitivity(
        torch.as_tensor(plane.reshape(2, -1)).to(data.y), data.each * GRID**2
    )
    spread = variance(slopes, fit.covariance, fit.factor)
    shape = (data.each, GRID, GRID)
    f, wide = to_array(values).reshape(shape), to_array(spread).reshape(shape)
    reach = float(fit.quantile(level))
    for i in range(data.each):
        colour = f"C{3 + i}"
        above.contourf(
            *plane, f[i] ** 2 - reach**2 * wide[i], levels=[-np.inf, 0], colors=colour, alpha=0.25
        )
        above.contour(*plane, f[i], levels=[0], colors=colour, linewidths=1.5)
        above.plot([], [], color=colour, lw=1.5, label=f"{fit.fitter.model.label} = 0")
    above.errorbar(
        *points, errors[1], errors[0], fmt="o", ms=3.5, mfc="none", lw=0.8, color="C0", label="data"
    )
    above.plot(*np.stack([points, moved], 1), color="0.5", lw=0.7)
    above.legend(frameon=False)
    above.set(**{key: words[key] for key in words if key not in ("xscale", "yscale")})
    left = to_array(fit.deviance_residual).reshape(data.each, -1)
    if below:
        for i in range(data.each):
            below[0].plot(np.flatnonzero(shown), left[i][shown], "o", ms=3, mfc="none")
        below[0].axhline(0, color="0.5", lw=1)
        below[0].set(xlabel="point", ylabel="distance/σ")
    return above.figure
