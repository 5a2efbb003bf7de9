"""The second pass: pixels that failed start from the solutions of their neighbours, round by round.

Neighbours are the two next pixels along each dimension. A round starts from solutions of rounds
before only, so that the result depends neither on the order of pixels nor on blocks: a block with
so many pixels around it as there are rounds finds what the whole array finds. The last digits of a
fit depend on what it is fitted together with. So pixels of one tile of the array are, as in the
first pass, and starts are rounded: they are the same from a tile that lies in a block in part.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .blocks import fit_pixels
from .task import Task
from .threads import one_thread
from .variables import EMPTY, FEW, INVALID, variables

ROUNDS = 8  # how many pixels solutions spread at most: blocks overlap by as many


def fit_again(
    y: np.ndarray, *arrays: np.ndarray, task: Task, rounds: int | None = None
) -> tuple[np.ndarray, ...]:
    """Fit the pixels of a block that failed, until a round finds no more.

    Args:
        y: (*pixels, *points).
        *arrays: those of the first pass, then the variables that it found, and the number of the
            tile that each pixel lies in, `tile_numbers`.
        task: what is fitted.
        rounds: at most. Default: `ROUNDS`.

    Returns:
        The variables, with the solutions of the second pass where there are some.
    """
    names = tuple(variables(True))
    given, numbers = arrays[: -1 - len(names)], arrays[-1]
    found = dict(zip(names, map(np.array, arrays[-1 - len(names) : -1]), strict=True))
    new = found["status"] > 0  # solutions that no neighbour has started from yet
    with one_thread():
        for _ in range(ROUNDS if rounds is None else rounds):
            new = _round(y, given, found, new, numbers, task)
            if not new.any():
                break
    return tuple(found.values())


def begun(status: np.ndarray) -> np.ndarray:
    """Which pixels have failed, and may be fitted again."""
    return (status <= 0) & ~np.isin(status, (EMPTY, FEW, INVALID))


def _round(
    y: np.ndarray,
    given: Sequence[np.ndarray],
    found: dict[str, np.ndarray],
    new: np.ndarray,
    numbers: np.ndarray,
    task: Task,
) -> np.ndarray:
    """Fit every pixel that failed once from each new solution beside it.

    Returns:
        Which pixels have got a solution.
    """
    pixels = np.argwhere(begun(found["status"]))
    inside = np.broadcast_to(numbers, new.shape)[tuple(pixels.T)]
    known = found["coefficients"].copy()  # of the round before, in all of this one
    got = np.zeros(new.shape, bool)
    for number in np.unique(inside):
        rows, begin = _starts(pixels[inside == number], known, new)
        if not len(begin):
            continue
        where = tuple(rows.T)
        made = _fitted(y, given, where, begin, task)
        better = _best(made, where, new.shape)
        target = tuple(rows[better].T)
        for name, value in made.items():
            found[name][target] = value[better]
        found["from_neighbour"][target] = got[target] = True
    return got


def _starts(
    pixels: np.ndarray, known: np.ndarray, new: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The pixels that have new solutions beside them, once for each, (n, d), and those, (n, P)."""
    rows, starts = [pixels[:0]], [known[:0].reshape(0, known.shape[-1])]
    for axis, size in enumerate(new.shape):
        for step in (-1, 1):
            beside = pixels.copy()
            beside[:, axis] += step
            (inside,) = np.nonzero((beside[:, axis] >= 0) & (beside[:, axis] < size))
            inside = inside[new[tuple(beside[inside].T)]]
            rows.append(pixels[inside])
            starts.append(known[tuple(beside[inside].T)])
    # round-off, by which solutions may differ, is far below 30 bits
    part, exponent = np.frexp(np.concatenate(starts))
    return np.concatenate(rows), np.ldexp(np.round(part * 2**30) / 2**30, exponent)


def _fitted(
    y: np.ndarray,
    given: Sequence[np.ndarray],
    where: tuple[np.ndarray, ...],
    begin: np.ndarray,
    task: Task,
) -> dict[str, np.ndarray]:
    """Fit pixels, given by their places, from start values."""
    lead = y.shape[: y.ndim - task.reduced]
    parts = []
    kinds = ["x"] * task.coords + [kind for kind, _ in task.fields]
    for kind, array in zip(kinds, given, strict=True):
        single = kind in ("p0", "lower", "upper")
        if kind == "x" and array.ndim <= task.reduced:
            parts.append(array.reshape(-1))
            continue
        part = np.broadcast_to(array, lead if single else y.shape)[where]
        parts.append(part if single else part.reshape(len(part), -1))
    again, arrays = _from_neighbours(task, parts, begin)
    return fit_pixels(y[where].reshape(len(begin), -1), arrays, again)


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
