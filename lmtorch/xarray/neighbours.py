"""The second pass: pixels that failed start from the solutions of their neighbours.

Neighbours are the two next pixels along each dimension. Only solutions of the first pass count, so
that the result depends neither on the order of pixels nor on blocks.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from .blocks import fit_pixels, raise_if_failed
from .task import Task, tiles
from .threads import one_thread
from .variables import EMPTY, FEW, INVALID, variables


def shifted(
    coefficients: xr.DataArray, status: xr.DataArray, pixels: Sequence[Hashable]
) -> xr.DataArray:
    """The parameters that each pixel's neighbours have, (*pixels, neighbour, param).

    Args:
        coefficients: (*pixels, param).
        status: (*pixels), of the first pass.
        pixels: the dimensions of pixels.

    Returns:
        NaN where there is no neighbour, or it failed.
    """
    known = coefficients.where(status > 0)
    moved = []
    for dim in pixels:
        for step in (1, -1):
            one = known.shift({dim: step})
            # a shift moves the borders of chunks along, and they must lie where the data's do
            moved.append(one.chunk(known.chunksizes) if known.chunks is not None else one)
    found = xr.concat(moved, "neighbour").transpose(*pixels, "neighbour", "param")
    return found.chunk({"neighbour": -1}) if known.chunks is not None else found


def fit_again(y: np.ndarray, *arrays: np.ndarray, task: Task) -> tuple[np.ndarray, ...]:
    """Fit the pixels of a block that failed.

    Args:
        y: (*pixels, *points).
        *arrays: those of the first pass, then the neighbours' parameters, (*pixels, k, P), and the
            variables that the first pass found.
        task: what is fitted.

    Returns:
        The variables, with the solutions of the second pass where there are some.
    """
    names = tuple(variables(True))
    given, starts = arrays[: -1 - len(names)], arrays[-1 - len(names)]
    found = dict(zip(names, map(np.array, arrays[-len(names) :]), strict=True))
    lead = y.shape[: y.ndim - task.reduced]
    with one_thread():
        for place in tiles(lead, task.tile):
            _fit_tile(y, given, starts, found, place, lead, task)
            if task.errors == "raise":
                status = found["status"][place]
                raise_if_failed(status.reshape(-1), status.shape, place)
    return tuple(found.values())


def _fit_tile(
    y: np.ndarray,
    given: Sequence[np.ndarray],
    starts: np.ndarray,
    found: dict[str, np.ndarray],
    place: tuple[slice, ...],
    lead: tuple[int, ...],
    task: Task,
) -> None:
    """Fit the pixels of a tile that failed, once from each neighbour that has a solution."""
    status = found["status"][place]
    begun = (status <= 0) & ~np.isin(status, (EMPTY, FEW, INVALID))
    good = begun[..., None] & np.isfinite(starts[place]).all(-1)
    where = np.nonzero(good)
    if not len(where[0]):
        return
    *pixel, _ = where
    rows = tuple(np.asarray(i) for i in pixel)
    parts = []
    kinds = ["x"] * task.coords + [kind for kind, _ in task.fields]
    for kind, array in zip(kinds, given, strict=True):
        single = kind in ("p0", "lower", "upper")
        if kind == "x" and array.ndim <= task.reduced:
            parts.append(array.reshape(-1))
            continue
        shape = lead if single else y.shape
        part = np.broadcast_to(array, shape)[place][rows]
        parts.append(part if single else part.reshape(len(part), -1))
    begin = starts[place][where]
    again = _from_neighbours(task, parts, begin)
    data = y[place][rows]
    made = fit_pixels(data.reshape(len(data), -1), again[1], again[0])
    better = _best(made, rows, status.shape)
    for name, value in made.items():
        target = found[name][place]
        target[tuple(i[better] for i in rows)] = value[better]
    found["from_neighbour"][place][tuple(i[better] for i in rows)] = True


def _from_neighbours(
    task: Task, parts: list[np.ndarray], begin: np.ndarray
) -> tuple[Task, list[np.ndarray]]:
    """The task with maps of start values in the place of its own, but for what does not vary."""
    varying = {name: k for k, name in enumerate(task.names) if name not in task.held}
    kept = [
        (field, array)
        for field, array in zip(task.fields, parts[task.coords :], strict=True)
        if field[0] != "p0" or field[1] not in varying
    ]
    fields = [("p0", name) for name in varying] + [field for field, _ in kept]
    arrays: list[Any] = [
        *parts[: task.coords], *(begin[:, k] for k in varying.values()), *(a for _, a in kept)
    ]  # fmt: skip
    start = {name: value for name, value in task.start.items() if name not in varying}
    return replace(task, fields=tuple(fields), start=start), arrays


def _best(
    made: dict[str, np.ndarray], rows: tuple[np.ndarray, ...], shape: tuple[int, ...]
) -> np.ndarray:
    """Which fits are the best of their pixel, as places; pixels that failed again have none."""
    pixel = np.ravel_multi_index(rows, shape)
    order = np.lexsort((made["redchi"], made["status"] <= 0, pixel))
    first = order[np.unique(pixel[order], return_index=True)[1]]
    return first[made["status"][first] > 0]
