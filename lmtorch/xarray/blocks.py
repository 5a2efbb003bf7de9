"""A block of a stack in NumPy's arrays: which pixels can be fitted, and their fits by tiles."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from math import prod
from typing import Any

import numpy as np

from .._errors import NotConvergedError
from .boxes import fit_in_boxes
from .task import Task, tiles
from .threads import one_thread
from .variables import EMPTY, FEW, INVALID, empty, variables, words

# fits in a call at least: of fewer, sums run in another order, and last digits differ
LEAST = 64
COUNTS = ("poisson", "binomial", "negative_binomial")


def fit_block(
    y: np.ndarray, *arrays: np.ndarray, task: Task, seen: Callable[[int, int], Any] | None = None
) -> tuple[np.ndarray, ...]:
    """Fit all pixels of a block.

    Args:
        y: (*pixels, *points).
        *arrays: the coordinates, and the fields that the task names, which broadcast to that; of
            start values and bounds (*pixels).
        task: what is fitted.
        seen: called with the number of fits that are done, and how many of them failed.

    Returns:
        The variables, in the order of `variables`, with the pixels in front.

    Raises:
        NotConvergedError: a pixel failed, and the task is to raise.
    """
    lead = y.shape[: y.ndim - task.reduced]
    shapes = [y.shape] * task.coords + [
        lead if kind in ("p0", "lower", "upper") else y.shape for kind, _ in task.fields
    ]
    # a coordinate that is the same everywhere stays one
    same = [a.ndim <= task.reduced for a in arrays[: task.coords]]
    if not any(same) or not all(same):
        same = [False] * task.coords
    whole = [
        a.reshape(-1) if k < task.coords and same[k] else np.broadcast_to(a, shape)
        for k, (a, shape) in enumerate(zip(arrays, shapes, strict=True))
    ]
    names = variables(task.neighbours)
    found = empty(prod(lead), len(task.names), task.neighbours)
    found = {name: value.reshape((*lead, *value.shape[1:])) for name, value in found.items()}
    with one_thread() if task.alone else nullcontext():
        for place in tiles(lead, task.tile):
            parts = [
                a if k < task.coords and same[k] else _rows(a[place], len(lead))
                for k, a in enumerate(whole)
            ]
            made = fit_pixels(_rows(y[place], len(lead)), parts, task)
            # a single pixel has no second pass
            if task.errors == "raise" and not (task.neighbours and lead):
                status = made["status"].reshape(found["status"][place].shape)
                raise_if_failed(status, place)
            for name, value in made.items():
                target: Any = found[name]
                target = target[(*place, ...)]  # a view, also where there is one pixel
                target[...] = value.reshape(target.shape)
            if seen is not None:
                seen(len(made["status"]), int(failed(made["status"]).sum()))
    return tuple(found[name] for name in names)


def _rows(part: np.ndarray, lead: int) -> np.ndarray:
    """The pixels of a tile in a row, (b, m) of data and (b,) of a number for each."""
    b = prod(part.shape[:lead])
    return part.reshape(b) if part.ndim == lead else part.reshape(b, -1)


def failed(status: np.ndarray) -> np.ndarray:
    """Which pixels failed: all that are no success, but for those without data."""
    return (status <= 0) & (status != EMPTY)


def raise_if_failed(status: np.ndarray, place: tuple[slice, ...] | None = None) -> None:
    """Raise an error that names the first pixel whose fit failed.

    Args:
        status: (*pixels), of a block or a tile.
        place: of the tile in its block. Default: all of it.

    Raises:
        NotConvergedError: there is one.
    """
    bad = failed(status)
    if not bad.any():
        return
    first = np.argwhere(bad)[0] if bad.ndim else np.zeros(0, int)
    corner = [0] * bad.ndim if place is None else [part.start for part in place]
    where = tuple(int(i) + start for i, start in zip(first, corner, strict=True))
    raise NotConvergedError(
        f"{int(bad.sum())} of {bad.size} fits failed, the first at {where} of its block: "
        f"{words(int(status[tuple(first)]))}. errors='ignore' makes a status of it instead of an "
        "exception."
    )


def fit_pixels(y: np.ndarray, arrays: Sequence[np.ndarray], task: Task) -> dict[str, np.ndarray]:
    """Fit pixels in a row.

    Args:
        y: (b, m).
        arrays: coordinates (m,) or (b, m), then fields (b, m) or (b,).
        task: what is fitted.

    Returns:
        The variables, (b, ...).
    """
    y = y.astype(np.float64)
    xs = [_numbers(a) for a in arrays[: task.coords]]
    fields = {key: np.asarray(a) for key, a in zip(task.fields, arrays[task.coords :], strict=True)}
    found = empty(len(y), len(task.names), task.neighbours)
    kept, status = _points(y, xs, fields, task)
    found["status"][:] = status
    (chosen,) = np.nonzero(status == 0)
    if len(chosen):
        fit_rows(y, xs, fields, kept, chosen, task, found)
    return found


def _numbers(x: np.ndarray) -> np.ndarray:
    """A coordinate as float64, but for what is no number: that is for `curve_fit` to refuse."""
    return x.astype(np.float64) if x.dtype.kind in "fiub" else x


def _points(
    y: np.ndarray, xs: Sequence[np.ndarray], fields: dict[Any, np.ndarray], task: Task
) -> tuple[np.ndarray, np.ndarray]:
    """Which points count, (b, m), and the status of each pixel, (b,): 0 where it can be fitted."""
    shown = np.ones(y.shape, bool)
    if (mask := fields.get(("mask", ""))) is not None:
        shown &= mask.astype(bool)
    good = np.isfinite(y)
    for x in xs:
        if x.dtype.kind == "f":
            good &= np.isfinite(x)
    sigma, total = fields.get(("sigma", "")), fields.get(("total_count", ""))
    for one in (sigma, total):
        if one is not None:
            good &= ~np.isnan(one.astype(np.float64))
    kept = shown & good if task.skipna else shown
    status = np.zeros(len(y), np.int8)
    wrong = np.zeros(len(y), bool)
    if not task.skipna:
        wrong |= (shown & ~good).any(-1)
    if sigma is not None:
        wrong |= (kept & ~(sigma > 0)).any(-1)
    for n in task.names:
        low, high = (
            np.asarray(fields.get((side, n), np.nan), np.float64) for side in ("lower", "upper")
        )
        wrong |= low > high
    kind = task.options.get("likelihood", "gaussian")
    if isinstance(kind, str) and kind in COUNTS:
        with np.errstate(invalid="ignore"):
            outside = y < 0
            if kind == "binomial":
                most = total if total is not None else task.options.get("total_count")
                outside = outside | (y > np.asarray(most, np.float64))
        wrong |= (kept & outside).any(-1)
    status[wrong] = INVALID
    count = kept.sum(-1)
    status[count < task.least] = FEW
    status[~shown.any(-1) | (count == 0)] = EMPTY
    if not task.skipna:
        status[wrong & shown.any(-1)] = INVALID
    return kept, status


def fit_rows(
    y: np.ndarray,
    xs: Sequence[np.ndarray],
    fields: dict[Any, np.ndarray],
    kept: np.ndarray,
    chosen: np.ndarray,
    task: Task,
    found: dict[str, np.ndarray],
) -> None:
    """Fit the chosen pixels, and write what comes out into `found`."""
    # a few fits are filled up with copies of the first, which are thrown away
    rows = np.concatenate([chosen, np.repeat(chosen[:1], max(0, LEAST - len(chosen)))])
    x: Any = xs[0] if len(xs) == 1 else np.stack(xs, -2)
    each = x.ndim > (1 if len(xs) == 1 else 2)
    given: dict[str, Any] = {"each_x": each, "mask": kept[rows]}
    if bool(given["mask"].all()):
        given["mask"] = None
    for kind in ("sigma", "total_count"):
        if (values := fields.get((kind, ""))) is not None:
            given[kind] = _finite_where(values[rows].astype(np.float64), kept[rows])
    part = {key: a[rows] for key, a in fields.items() if key[0] in ("p0", "lower", "upper")}
    made = fit_in_boxes(task, x[rows] if each else x, y[rows], part, given)
    good = made["status"] > 0
    if task.errors != "keep":
        for name in ("coefficients", "covariance", "stderr", "redchi"):
            made[name][~good] = np.nan
    for name, value in made.items():
        found[name][chosen] = value[: len(chosen)]


def _finite_where(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The values, with ones for points that are left out."""
    return np.where(kept, values, 1.0)
