"""Results that stream to a Zarr store, block by block, so that a run can go on where it ended.

A block is done when its mark is written, after all its variables. The mark has two digests: of the
data that went into it, which a run that goes on compares with the data that it is given, and of
what came out, by which it sees whether files have been lost or cut off since.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product
from math import ceil, prod
from os import PathLike
from typing import Any

import numpy as np
import xarray as xr

from .._errors import InputError, InputTypeError
from .blocks import failed, fit_block, raise_if_failed
from .computing import compute
from .fingerprint import digest_of, fingerprint
from .neighbours import ROUNDS, begun, fit_again
from .progress import Bar
from .reading import Stack
from .running import check_chunks
from .task import tile_numbers
from .trial import try_options
from .variables import FILL, variables

MARKS = "lmtorch"  # the group of marks, which `xarray.open_zarr` does not read
PASSES = ("fitted", "fitted_again")


@dataclass(frozen=True)
class Target:
    """Where the results of a stack go; it is sent along with every block.

    Attributes:
        store: of Zarr, or its path.
        stack: of which only the task, dimensions and shape are used.
        blocks: how many pixels a block has along each dimension.
    """

    store: Any
    stack: Stack
    blocks: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """How many blocks there are along each dimension."""
        return tuple(map(_count, self.stack.shape, self.blocks))

    @property
    def prefix(self) -> str:
        """How names of variables begin."""
        return f"{self.stack.name}_" if self.stack.name else ""

    def mark(self, which: int) -> str:
        """The name of the array of marks of a pass."""
        return f"{self.prefix}{PASSES[which]}"

    def places(self) -> Iterator[tuple[int, ...]]:
        """The numbers of all blocks."""
        return product(*map(range, self.grid))

    def pixels(self, place: Sequence[int], beyond: int = 0) -> tuple[slice, ...]:
        """The pixels of a block, and so many around it."""
        return tuple(
            slice(max(0, i * side - beyond), min(size, (i + 1) * side + beyond))
            for i, side, size in zip(place, self.blocks, self.stack.shape, strict=True)
        )

    def sent(self) -> "Target":
        """The target without the data."""
        nothing = xr.DataArray(np.empty([0] * self.stack.data.ndim), dims=self.stack.data.dims)
        shape = _Shape(self.stack.task, nothing, (), self.stack.pixels, self.stack.points,
                       self.stack.name, self.stack.shape)  # fmt: skip
        return replace(self, stack=shape)


@dataclass(frozen=True)
class _Shape(Stack):
    """A stack without its data, whose shape is remembered."""

    known: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the pixels."""
        return self.known


def fit_to_store(
    stacks: Sequence[Stack], obj: Any, store: Any, *, resume: bool, progress: bool
) -> xr.Dataset:
    """Fit all blocks that are not in the store yet, and open it.

    Raises:
        InputError: a package is missing, the store is there already, or is of other data or
            options.
        InputTypeError: the store is none.
    """
    if not isinstance(store, str | PathLike) and not hasattr(store, "supports_writes"):
        raise InputTypeError(f"store={store!r} must be a path, or a store of Zarr.")
    for package in ("zarr", "dask"):
        if find_spec(package) is None:
            raise InputError(
                f"store= needs {package}: pip install 'levenberg-marquardt[xarray]' has it."
            )
    targets = [_target(stack, store) for stack in stacks]
    for stack in stacks:
        try_options(stack.task)
    marked = _open(store, "r")
    if marked is None:
        _create(targets, obj, store)
    elif not resume:
        raise InputError(
            f"the store {store} is there already: resume=True goes on with it. Otherwise give "
            "another path, or remove it."
        )
    else:
        _check_options(targets, marked)
        _check_blocks(targets)
    for which in range(max(map(_passes, targets))):
        _run([target for target in targets if which < _passes(target)], which, progress)
    return xr.open_zarr(store, consolidated=False)


def _target(stack: Stack, store: Any) -> Target:
    """Where a stack goes, and in which blocks.

    Raises:
        InputError: a store cannot hold such chunks or labels.
    """
    check_chunks(stack)
    for dim in stack.pixels:
        if dim in stack.data.indexes and stack.data.indexes[dim].nlevels > 1:
            raise InputError(
                f"a store cannot hold {dim!r}, whose labels are of several levels: "
                f".reset_index({dim!r}) makes coordinates of them."
            )
    sides = []
    for dim, side, size in zip(stack.pixels, stack.task.tile, stack.shape, strict=True):
        chunks = stack.data.chunksizes.get(dim)
        if chunks is None:
            sides.append(min(side, size))
            continue
        if len(set(chunks[:-1])) > 1 or chunks[-1] > chunks[0]:
            raise InputError(
                f"a store has blocks of one size, and the data lie in chunks of {chunks} along "
                f"{dim!r}: rechunk them, .chunk({{{dim!r}: {max(chunks)}}})."
            )
        sides.append(chunks[0])
    return Target(store, replace(stack, task=replace(stack.task, alone=True)), tuple(sides))


def _count(size: int, side: int) -> int:
    return ceil(size / side) if side else 0


def _passes(target: Target) -> int:
    """How many passes there are: a single pixel has no neighbours."""
    return 1 + (target.stack.task.neighbours and bool(target.stack.pixels))


def _open(store: Any, mode: Any, path: str = "") -> Any:
    """A group of the store; None where there is no store."""
    import zarr

    try:
        return zarr.open_group(store, mode=mode, path=path or None)
    except FileNotFoundError:
        return None


def _create(targets: Sequence[Target], obj: Any, store: Any) -> None:
    """Write names, labels and attributes of everything, and no numbers."""
    import dask.array
    import zarr

    from .curvefit import finished

    found, encoding, written = [], {}, {}
    for target in targets:
        stack, made = target.stack, {}
        count = len(stack.task.names)
        for name, (dtype, dims) in variables(stack.task.neighbours).items():
            behind = (count,) * len(dims)
            chunks = (*target.blocks, *behind)
            whole = (*stack.shape, *behind)
            empty = dask.array.full(whole, FILL[dtype], dtype=dtype, chunks=chunks)
            made[name] = xr.DataArray(empty, dims=(*stack.pixels, *dims))
            # of integers xarray takes a fill for a missing number: these are written as any other
            nothing = FILL[dtype] if dtype == "float64" else None
            label = f"{target.prefix}curvefit_{name}"
            encoding[label] = {"chunks": chunks, "_FillValue": nothing}
            if dtype in ("int32", "int8"):
                written[label] = FILL[dtype]
        found.append(made)
    finished([target.stack for target in targets], found, obj).to_zarr(
        store, mode="w-", compute=False, encoding=encoding, zarr_format=2, consolidated=False
    )
    marks = zarr.open_group(store, path=MARKS, mode="a", zarr_format=2)
    for target in targets:
        for which in range(_passes(target)):
            ones = (1,) * len(target.grid)
            marks.create_array(
                target.mark(which), shape=(*target.grid, 2), chunks=(*ones, 2), dtype="uint64",
                fill_value=0,
            )  # fmt: skip
    group = _open(store, "r+")
    for label, nothing in written.items():
        group[label][...] = nothing
    marks.attrs["made_with"] = _versions()
    marks.attrs["fingerprint"] = _fingerprints(targets)  # the last: now it can be gone on with


def _versions() -> dict[str, str]:
    import torch

    from .. import __version__

    return {"lmtorch": __version__, "torch": torch.__version__, "xarray": xr.__version__}


def _fingerprints(targets: Sequence[Target]) -> dict[str, dict[str, str]]:
    return {
        target.stack.name: fingerprint(
            target.stack.task,
            (*target.stack.pixels, *target.stack.points),
            target.stack.shape,
            target.blocks,
            {
                dim: np.asarray(index)
                for dim, index in target.stack.data.indexes.items()
                if dim in target.stack.pixels
            },
        )
        for target in targets
    }


def _check_options(targets: Sequence[Target], marked: Any) -> None:
    """See whether a store was made with these options.

    Raises:
        InputError: it was not, or is no store of ours.
    """
    there = dict(marked[MARKS].attrs).get("fingerprint") if MARKS in marked else None
    if there is None:
        raise InputError(
            "the store was not begun by curvefit, or not to its end: there is nothing to go on "
            "with. Give another path, or remove it."
        )
    for name, now in _fingerprints(targets).items():
        then = there.get(name, {})
        other = [what for what, value in now.items() if then.get(what) != value]
        if other:
            of = f" for {name!r}" if name else ""
            raise InputError(
                f"the store was made{of} with other {', '.join(other)}, so that its blocks and "
                "new ones would not go together. Use what it was made with, or another store."
            )


def _marks(target: Target, which: int) -> np.ndarray:
    """The digests of all blocks, (*grid, 2), of which a block that is not done has zeros."""
    marks = _open(target.store, "r", MARKS)[target.mark(which)]
    try:
        return np.asarray(marks[...])
    except Exception:  # of a file that was cut off zarr, or its codec, tells in several ways
        found = np.zeros((*target.grid, 2), np.uint64)
        for place in target.places():
            with suppress(Exception):
                found[place] = marks[place]
        return found


def _check_blocks(targets: Sequence[Target]) -> None:
    """See whether the blocks that are done were made of these data, and are whole.

    The mark of a block that has lost something is taken away, so that it is fitted again.

    Raises:
        InputError: they were made of other data.
    """
    from dask.delayed import delayed

    for target in targets:
        marks = [_marks(target, which) for which in range(_passes(target))]
        places = [place for place in target.places() if marks[0][place].all()]
        sent = delayed(target.sent(), traverse=False)
        tasks = [delayed(_digests)(sent, place, *_data(target, place)) for place in places]
        for number, (data, results) in compute(tasks):
            place = places[number]
            if data != int(marks[0][place][0]):
                where = dict(zip(target.stack.pixels, target.pixels(place), strict=True))
                at = ", ".join(f"{dim}={p.start}:{p.stop}" for dim, p in where.items())
                raise InputError(
                    f"the store was made with other data: those at {at} differ (the data, "
                    "coordinates, sigma, mask, p0 or bounds). Use another store for these."
                )
            last = [mark[place] for mark in marks if mark[place].all()][-1]
            if results != int(last[1]):
                group = _open(target.store, "r+", MARKS)
                for which in range(len(marks)):
                    group[target.mark(which)][place] = np.zeros(2, np.uint64)


def _digests(target: Target, place: Sequence[int], *arrays: np.ndarray) -> tuple[int, int]:
    """Digests of the data of a block and of its results, as they are in the store."""
    data = digest_of([np.asarray(array) for array in arrays])
    try:
        return data, _digest(_written(target, place))
    except Exception:  # of a file that was cut off zarr, or its codec, tells in several ways
        return data, 0


def _digest(values: Sequence[np.ndarray]) -> int:
    """A digest of results, in which one NaN is as good as another."""
    return digest_of(
        [np.where(np.isnan(v), np.nan, v) if v.dtype.kind == "f" else v for v in values]
    )


def _written(target: Target, place: Sequence[int], beyond: int = 0) -> list[np.ndarray]:
    """The variables of a block, and of so many pixels around it, as they are in the store."""
    group, pixels = _open(target.store, "r"), target.pixels(place, beyond)
    # the status first: another worker writes it last, see `_first_pass`
    names = reversed(variables(target.stack.task.neighbours))
    found = [np.asarray(group[f"{target.prefix}curvefit_{name}"][pixels]) for name in names]
    return found[::-1]


def _data(target: Target, place: Sequence[int], beyond: int = 0) -> list[Any]:
    """The data of a block and all that goes with them, as arrays of NumPy or Dask."""
    pixels = dict(zip(target.stack.pixels, target.pixels(place, beyond), strict=True))
    found = []
    for array in (target.stack.data, *target.stack.arrays):
        part = array.isel({dim: where for dim, where in pixels.items() if dim in array.dims})
        # dimensions that it lacks among those it has are added, as broadcasting needs
        lacking = [
            dim
            for dim in target.stack.pixels
            if dim not in part.dims and set(part.dims) & {*pixels}
        ]
        part = part.expand_dims(lacking)
        order = (*target.stack.pixels, *target.stack.points)
        found.append(part.transpose(*(dim for dim in order if dim in part.dims)).variable._data)
    return [_in_memory(data) for data in found]


def _in_memory(data: Any) -> Any:
    """An array of NumPy or Dask as it is, one that is read when it is needed as Dask's."""
    if isinstance(data, np.ndarray) or hasattr(data, "__dask_graph__"):
        return data
    from dask.delayed import delayed

    return delayed(np.asarray)(data)


def _run(targets: Sequence[Target], which: int, progress: bool) -> None:
    """Fit the blocks that a pass has not done yet."""
    from dask.delayed import delayed

    tasks, fits = [], 0
    for target in targets:
        marks = _marks(target, which)
        if which:
            _mark_fitted(target, marks)
        sent = delayed(target.sent(), traverse=False)
        for place in target.places():
            if marks[place].all():
                continue
            fits += prod(p.stop - p.start for p in target.pixels(place))
            # not pure: a task that writes is not to be taken for another one
            task = delayed(_fit_again_and_write if which else _fit_and_write, pure=False)
            tasks.append(task(sent, place, *_data(target, place, ROUNDS if which else 0)))
    if not progress or not tasks:
        for _ in compute(tasks):
            pass
        return
    with Bar(fits, len(tasks)) as bar:
        for _, (count, bad) in compute(tasks):
            bar.fits(count, bad)


def _mark_fitted(target: Target, marks: np.ndarray) -> None:
    """Mark the blocks that the second pass has nothing to do in, so that no data are read."""
    group = _open(target.store, "r+", MARKS)
    first = _marks(target, 0)
    status = _open(target.store, "r")[f"{target.prefix}curvefit_status"]
    for place in target.places():
        if not marks[place].all() and not begun(np.asarray(status[target.pixels(place)])).any():
            marks[place] = group[target.mark(1)][place] = first[place]


def _fit_and_write(target: Target, place: Sequence[int], *data: np.ndarray) -> tuple[int, int]:
    """Fit a block in a worker, and write it.

    Returns:
        How many fits it has, and how many of them failed.
    """
    arrays = [np.asarray(array) for array in data]
    values = fit_block(*arrays, task=target.stack.task)
    return _write(target, place, 0, digest_of(arrays), values)


def _fit_again_and_write(
    target: Target, place: Sequence[int], *data: np.ndarray
) -> tuple[int, int]:
    """The second pass over a block, to which come so many pixels around it as there are rounds."""
    task = target.stack.task
    wide, inner = target.pixels(place, ROUNDS), target.pixels(place)
    numbers = np.ix_(*tile_numbers(target.stack.shape, task.tile, wide))
    arrays = [np.asarray(array) for array in data]
    values = fit_again(
        *arrays, *_first_pass(target, place), sum(numbers[1:], numbers[0]), task=task
    )
    corner = [w.start for w in wide]
    own = tuple(slice(p.start - c, p.stop - c) for p, c in zip(inner, corner, strict=True))
    values = tuple(value[own] for value in values)
    if task.errors == "raise":
        raise_if_failed(values[-1])
    digest = int(_open(target.store, "r", MARKS)[target.mark(0)][tuple(place)][0])
    return _write(target, place, 1, digest, values)


def _write(
    target: Target, place: Sequence[int], which: int, digest: int, values: Sequence[np.ndarray]
) -> tuple[int, int]:
    """Write the variables of a block, and then its mark."""
    group = _open(target.store, "r+")
    for name, value in zip(variables(target.stack.task.neighbours), values, strict=True):
        group[f"{target.prefix}curvefit_{name}"][target.pixels(place)] = value
    mark = np.array([digest, _digest(values)], np.uint64)
    _open(target.store, "r+", MARKS)[target.mark(which)][tuple(place)] = mark
    return values[-1].size, int(failed(values[-1]).sum())


def _first_pass(target: Target, place: Sequence[int]) -> list[np.ndarray]:
    """The variables that the first pass found, in a block and around it.

    A second pass that was written there marks a pixel first and gives it a status last: read the
    other way round, no such pixel is taken for one of the first pass.
    """
    later, *others, status = _written(target, place, ROUNDS)
    return [np.zeros_like(later), *others, np.where(later, np.int8(0), status)]
