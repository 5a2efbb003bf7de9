"""Confidence regions of two parameters: where χ², with all others refitted, rises by a limit.

S(a, b) is the least χ² with both parameters held. The region at a level is where

    (S(a, b) − S(â, b̂)) / s² ≤ 2 F(level; 2, m − n),

or the quantile of χ² with two degrees of freedom where errors are absolute or the data counts. S is
had on a grid along the ellipse of the linear model, all points as one batch; the grid grows until
the region is inside. Where a bound is in the way, it lies along the parameters instead, in the box
that the two profiles tell. Each point of the outline is then refitted along its edge of the grid
until it is on the limit.

Reference: Bates & Watts, Nonlinear regression analysis and its applications (1988), §6.1; Seber &
Wild, Nonlinear regression (1989), §5.4.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._arrays import to_array
from ..._errors import InputError
from .contours import lines_of
from .inference import Inference
from .profile import check, outward, traces
from .refits import rises

MARGIN = 0.04  # by how much a grid in a box is wider than the region, on each side
WIDER = 1.3  # the first grid reaches so many times as far as the linear model's region
GROWS = 1.6  # a side that the region runs out of is moved so many times as far
ROUNDS = 5  # at most so often
SMALL = 0.6  # a region of a smaller share of the grid's width has a grid of its own
OPEN = 3.0  # a side that the data do not limit is drawn so many times as far as the linear model's
POLISH = 4  # how often a point of the outline is moved
ROUND = 128  # points of an ellipse
ENOUGH = 9  # points of a profile that is to tell how far a region reaches


@dataclass(frozen=True)
class Region:
    """Joint confidence regions of two parameters.

    Attributes:
        names: of the parameters.
        best: the fitted values.
        levels: the probabilities, ascending.
        contours: by level, the outlines of the region, (j, 2) each; the first point is also the
            last where an outline is closed, and others run into a bound, or out of what was looked
            at.
        ellipses: by level, the outline of the linear model's region, (j, 2); empty where the linear
            model has none.
        points: where the fit was made anew for the largest level, (k, k, 2), a grid along the
            ellipse.
        rise: of χ² (of −2 log L) there, in units of s², (k, k); its root is what lmfit's
            `conf_interval2d` gives. NaN where a refit came to nothing.
        probability: of the regions whose outlines go through these points, (k, k).
    """

    names: tuple[str, str]
    best: tuple[float, float]
    levels: tuple[float, ...]
    contours: Mapping[float, list[np.ndarray]]
    ellipses: Mapping[float, np.ndarray]
    points: np.ndarray
    rise: np.ndarray
    probability: np.ndarray

    def plot(self, ax: Any = None) -> Any:
        """Draw the regions, and the ellipses dashed (needs matplotlib).

        Args:
            ax: matplotlib's axes. Default: a new figure.

        Returns:
            The matplotlib figure.
        """
        from ..results.region_plots import draw_region

        return draw_region(self, ax)


def region_of(fit: Inference, names: Any, level: Any, points: int) -> Region:
    """The regions of two parameters of one fit."""
    if isinstance(names, str) or not np.iterable(names) or len(tuple(names)) != 2:
        raise InputError(
            f"names={names!r} must be two names of parameters, in brackets, as in "
            'confidence_region(("a", "b")).'
        )
    one, other = pair = tuple(names)
    levels = tuple(sorted({float(value) for value in np.atleast_1d(level)}))
    for value in levels:
        check(fit, [one, other], value)
    if one == other:
        raise InputError(f"a region is of two parameters, not of {one!r} twice.")
    if type(points) is not int or points < 5:
        raise InputError(f"points={points!r} must be a whole number of 5 and more.")
    variables = fit.fitter.parameters.variables
    places = np.array([variables.index(name) for name in pair])
    where = [fit.names.index(name) for name in pair]

    def as_parameters(u: np.ndarray) -> np.ndarray:
        flat = u.reshape(-1, 2)
        columns = [outward(fit, name, flat[:, k]) for k, name in enumerate(pair)]
        return np.stack(columns, -1).reshape(u.shape)

    contours, ellipses = {}, {}
    nodes, rise = np.empty((0, 0, 2)), np.empty((0, 0))
    for value in levels:  # the last is the largest
        limit = limit_of(fit, value)
        nodes, rise = _surface(fit, list(pair), places, math.sqrt(limit), points)
        lines = _outlines(fit, places, nodes, np.sqrt(rise), math.sqrt(limit))
        contours[value] = [as_parameters(line) for line in lines]
        ellipses[value] = _ellipse(fit, where, limit)
    best = to_array(fit.p.detach())[where].tolist()
    return Region(
        (one, other), (best[0], best[1]), levels, contours, ellipses, as_parameters(nodes), rise,
        probability_of(fit, rise),
    )  # fmt: skip


def limit_of(fit: Inference, level: float) -> float:
    """The rise at the outline, in units of the variance; of two parameters it has a closed form."""
    if fit.absolute:
        return -2 * math.log1p(-level)
    freedom = float(fit.freedom)
    return freedom * math.expm1(-2 / freedom * math.log1p(-level))


def probability_of(fit: Inference, rise: np.ndarray) -> np.ndarray:
    """The level at whose outline such a rise is."""
    if fit.absolute:
        return -np.expm1(-rise / 2)
    freedom = float(fit.freedom)
    return -np.expm1(-freedom / 2 * np.log1p(rise / freedom))


def _surface(
    fit: Inference, names: list[str], places: np.ndarray, radius: float, points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (k, k, 2) of a grid in the variables with the region inside, and the rise there."""
    along = _along_ellipse(fit, places, radius, points)
    if along is not None:
        return along
    grid = _box(fit, names, radius, points)
    nodes = np.stack(np.meshgrid(*grid, indexing="ij"), -1)
    return nodes, _rises(fit, places, nodes)


def _along_ellipse(
    fit: Inference, places: np.ndarray, radius: float, points: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """The same, along the linear model's ellipse; None: it has none, or a bound is in the way."""
    center = to_array(fit.u.detach()).astype(float)[places]
    covariance = to_array(fit.ucov)[np.ix_(places, places)]
    low, high = (to_array(side).astype(float)[places] for side in fit.fitter.bounds)
    scale = np.sqrt(covariance.diagonal())
    if not np.isfinite(covariance).all() or not (scale > 0).all():
        return None
    if abs(covariance[0, 1]) >= scale[0] * scale[1] * (1 - 1e-12):
        return None
    root = np.linalg.cholesky(covariance)
    box = WIDER * radius * np.array([[-1.0, 1.0], [-1.0, 1.0]])
    rounds, tightened = 0, False
    while True:
        sides = [np.linspace(first, last, points) for first, last in box]
        nodes = center + np.stack(np.meshgrid(*sides, indexing="ij"), -1) @ root.T
        if bool(((nodes < low) | (nodes > high)).any()):
            return None
        rise = _rises(fit, places, nodes)
        inside = rise < radius**2
        out = np.array([[side.any() for side in (of[0], of[-1])] for of in (inside, inside.T)])
        rounds += 1
        if out.any() and not tightened and rounds <= ROUNDS:
            box = np.where(out, GROWS * box, box)
            continue
        narrow = None if tightened or out.any() else _narrowed(box, inside)
        if narrow is None:
            return nodes, rise
        box, tightened = narrow, True


def _rises(fit: Inference, places: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """The rise (k, l) at nodes (k, l, 2)."""
    return rises(fit, places, nodes.reshape(-1, 2)).reshape(nodes.shape[:-1])


def _narrowed(box: np.ndarray, inside: np.ndarray) -> np.ndarray | None:
    """The box (2, 2) of what is inside, with a step of the grid to spare; None: it is as good."""
    if not inside.any():
        return None
    found = []
    for axis, (first, last) in enumerate(box):
        step = (last - first) / (inside.shape[axis] - 1)
        hit = np.flatnonzero(inside.any(1 - axis))
        found.append((first + (hit[0] - 1) * step, first + (hit[-1] + 1) * step))
    narrow = np.array(found)
    shares = (narrow[:, 1] - narrow[:, 0]) / (box[:, 1] - box[:, 0])
    return narrow if shares.min() < SMALL else None


def _box(
    fit: Inference, names: list[str], radius: float, points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Values of both variables, over the box of the region and a little more."""
    variables, found = fit.fitter.parameters.variables, []
    low, high = (to_array(side.double()) for side in fit.fitter.bounds)
    traced = traces(fit, names, radius, ENOUGH)
    for name in names:
        i = variables.index(name)
        center, error = float(fit.u[i]), float(fit.ucov[i, i].sqrt())
        error = error if 0 < error < math.inf else max(1.0, abs(center))
        ends = [
            end if math.isfinite(end) else center + side * OPEN * radius * error
            for end, side in zip(traced[name].ends, (-1, 1), strict=True)
        ]
        margin = MARGIN * (ends[1] - ends[0])
        first, last = max(ends[0] - margin, low[i]), min(ends[1] + margin, high[i])
        found.append(np.linspace(first, last, points))
    return found[0], found[1]


def _outlines(
    fit: Inference,
    places: np.ndarray,
    nodes: np.ndarray,  # (k, l, 2)
    size: np.ndarray,  # (k, l), the root of the rise there
    radius: float,  # where it is to be
) -> list[np.ndarray]:
    """Lines (j, 2) on which the root of the rise is the radius, in the variables."""
    apart = size - radius
    edges, lines, closed = lines_of(apart)
    if not edges:
        return []
    ends = np.array(edges)  # (e, 2, 2): of each edge two nodes, of each node two numbers
    rows, columns = ends[..., 0], ends[..., 1]
    vertices = _polished(fit, places, nodes[rows, columns], apart[rows, columns], radius)
    orders = [
        [*line, line[0]] if round_ else line for line, round_ in zip(lines, closed, strict=True)
    ]
    return [vertices[order] for order in orders]


def _polished(
    fit: Inference,
    places: np.ndarray,
    ends: np.ndarray,  # (e, 2, 2), both ends of each edge
    apart: np.ndarray,  # (e, 2), what is to be zero, there
    radius: float,
) -> np.ndarray:
    """Where it is zero on each edge, (e, 2), by regula falsi with Illinois' halving."""
    share = np.array([[0.0, 1.0]]).repeat(len(ends), 0)
    apart = apart.copy()

    def crossing() -> np.ndarray:
        slope = apart[:, 1] - apart[:, 0]
        return share[:, 0] - apart[:, 0] * (share[:, 1] - share[:, 0]) / slope

    every = np.arange(len(ends))
    replaced = np.full(len(ends), -1)
    for _ in range(POLISH):
        at = crossing()
        points = ends[:, 0] + at[:, None] * (ends[:, 1] - ends[:, 0])
        found = np.sqrt(rises(fit, places, points)) - radius
        side = np.where((found < 0) == (apart[:, 0] < 0), 0, 1)  # the end on the same side
        good = np.isfinite(found)
        again = good & (side == replaced)
        apart[every[again], 1 - side[again]] /= 2  # the other end has stayed twice
        share[every[good], side[good]], apart[every[good], side[good]] = at[good], found[good]
        replaced = np.where(good, side, replaced)
    return ends[:, 0] + crossing()[:, None] * (ends[:, 1] - ends[:, 0])


def _ellipse(fit: Inference, where: list[int], limit: float) -> np.ndarray:
    """The outline of the linear model's region, (j, 2); empty if it has none."""
    covariance = to_array(fit.pcov)[np.ix_(where, where)]
    if not np.isfinite(covariance).all():
        return np.empty((0, 2))
    angle = np.linspace(0, 2 * math.pi, ROUND + 1)
    scale, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(scale.clip(0) * limit)
    center = to_array(fit.p.detach())[where]
    outline: np.ndarray = center + np.stack([np.cos(angle), np.sin(angle)], -1) @ root.T
    return outline
