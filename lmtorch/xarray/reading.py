"""What a user gives `curvefit`, as one task and the arrays that it needs, by dimensions."""

import inspect
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
import xarray as xr

from .._checks import positive
from .._errors import InputError, InputTypeError
from .._names import meant
from ..fitting.curve_fit import curve_fit
from ..minimising.least_squares import least_squares
from ..models import Model
from .task import Task, names_of, tile_of
from .variables import LABELS, variables

ERRORS = ("raise", "ignore", "keep")
# bytes that an allocation may take: the same on every machine, as blocks of another size may end
# in other last digits
MEMORY = 2**28
OURS = {"f", "xdata", "ydata", "p0", "bounds", "each_x", "nan_policy", "check_finite", "progress"}
ALONE = ("shared", "full_output", "callback", "history", "verbose", "process_group")
KNOWN = {
    name
    for function in (curve_fit, least_squares)
    for name, p in inspect.signature(function).parameters.items()
    if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
} - {"fun", "x0", "args", "kwargs", "in_dims", "names"} | {"maxfev", "weights"}


@dataclass(frozen=True)
class Stack:
    """One array with all that its fits need.

    Attributes:
        task: what is fitted.
        data: the array, with the pixels' dimensions in front.
        arrays: coordinates, then the fields of the task.
        pixels: dimensions that are kept.
        points: dimensions along which is fitted.
        name: of the array, as the results' names begin: empty for a DataArray by itself.
    """

    task: Task
    data: xr.DataArray
    arrays: tuple[xr.DataArray, ...]
    pixels: tuple[Hashable, ...]
    points: tuple[Hashable, ...]
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the pixels."""
        return tuple(self.data.sizes[dim] for dim in self.pixels)

    @property
    def cores(self) -> list[list[Hashable]]:
        """Which dimensions of each array a single fit takes: those of the points that it has."""
        kinds = ["x"] * self.task.coords + [kind for kind, _ in self.task.fields]
        per_pixel = ("p0", "lower", "upper")
        return [[] if kind in per_pixel else list(self.points) for kind in kinds]

    @property
    def lazy(self) -> bool:
        """Whether the data, or anything that goes with them, are Dask's."""
        return any(a.chunks is not None for a in (self.data, *self.arrays))


def options_of(kwargs: Mapping[str, Any] | None, options: dict[str, Any]) -> dict[str, Any]:
    """Options of `curve_fit`, which come as `kwargs`, as in xarray, or by themselves.

    Raises:
        InputError: one comes twice, or is set by `curvefit` itself.
        InputTypeError: one is none.
    """
    if not isinstance(kwargs, Mapping | None):
        raise InputTypeError(f"kwargs={kwargs!r} must be a dict of options of curve_fit.")
    twice = set(kwargs or {}) & set(options)
    if twice:
        raise InputError(f"{sorted(twice)} are given twice, in kwargs and by themselves.")
    found = {**(kwargs or {}), **options}
    for name in found:
        if name in ALONE:
            raise InputError(
                f"{name} is not for a stack: it is of a single fit. Use lmtorch.curve_fit for it."
            )
        if name in OURS:
            raise InputError(
                f"{name} is set by curvefit itself: give coords, p0, bounds, skipna and progress "
                "by their own names."
            )
        if name not in KNOWN:
            raise InputTypeError(
                f"curvefit has no option {name!r}, nor has lmtorch.curve_fit.{meant([name], KNOWN)}"
            )
    if "weights" in found:
        raise InputTypeError(
            "weights is not an option, as it has two meanings. Of weights that multiply "
            "residuals, as in xarray's polyfit, give sigma=1/weights; of those that multiply their "
            "squares, sigma=1/numpy.sqrt(weights)."
        )
    found.setdefault("memory_limit", MEMORY)
    return found


def dims_of(obj: Any, coords: Sequence[xr.DataArray], reduce_dims: Any) -> set[Hashable]:
    """The dimensions along which is fitted.

    Raises:
        InputError: there are none.
    """
    if reduce_dims is ...:
        given: list[Hashable] = list(obj.dims)
    elif reduce_dims is None or (isinstance(reduce_dims, tuple | list) and not reduce_dims):
        given = []
    elif isinstance(reduce_dims, str) or not isinstance(reduce_dims, Iterable):
        given = [reduce_dims]
    else:
        given = list(reduce_dims)
    unknown = [dim for dim in given if dim not in obj.dims]
    if unknown:
        raise InputError(f"reduce_dims names {unknown}: the dimensions are {list(obj.dims)}.")
    found = set(given)
    for coord in coords:
        found |= {dim for dim in obj.dims if coord.equals(obj[dim])}
    if not found:
        raise InputError(
            "none of coords is a dimension of the data, and reduce_dims is empty, so that every "
            f"fit would have one point. Name the dimensions to fit along: {list(obj.dims)}."
        )
    return found


def coords_of(obj: Any, coords: Any) -> list[xr.DataArray]:
    """The coordinates as DataArrays.

    Raises:
        InputError: a name that the data do not have.
    """
    if isinstance(coords, str | xr.DataArray) or not isinstance(coords, Iterable):
        coords = [coords]
    found = []
    for coord in coords:
        if isinstance(coord, xr.DataArray):
            found.append(coord)
            continue
        if coord not in obj.coords and coord not in obj.dims:
            raise InputError(
                f"coords names {coord!r}, which the data do not have: {list(obj.coords)}."
                f"{meant([coord], list(map(str, obj.coords)))}"
            )
        found.append(obj[coord])
    return found


def _as_array(value: Any, data: xr.DataArray) -> str:
    """How an array that has the sizes of some dimensions becomes a DataArray; "": it has not."""
    shape, left, dims = np.shape(value), list(data.dims), []
    for size in shape:
        while left and data.sizes[left[0]] != size:
            del left[0]
        if not left:
            return ""
        dims.append(str(left.pop(0)))
    return f", xarray.DataArray(mask, dims={dims})" if shape else ""


def _map_or_number(value: Any, what: str, pixels: Sequence[Hashable]) -> Any:
    """A number as a float, or a DataArray over pixels.

    Raises:
        InputError: it has other dimensions.
        InputTypeError: it is neither.
    """
    if isinstance(value, xr.DataArray):
        unexpected = set(value.dims) - set(pixels)
        if unexpected:
            raise InputError(
                f"{what} has unexpected dimensions {tuple(unexpected)}. It should only have "
                f"dimensions that are in data dimensions {list(pixels)}."
            )
        return value if value.ndim else float(value)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{what} is {value!r}: give a number or a DataArray.") from error


def _by_name(values: Any, names: Sequence[str], what: str) -> dict[str, Any]:
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InputTypeError(f"{what} must be a dict by names of parameters, {list(names)}.")
    unknown = [name for name in values if name not in names]
    if unknown:
        raise InputError(
            f"{what} names {unknown}: the parameters are {list(names)}.{meant(unknown, names)}"
        )
    return dict(values)


def stack_of(
    obj: Any,
    data: xr.DataArray,
    name: str,
    coords: Any,
    func: Any,
    reduce_dims: Any,
    p0: Any,
    bounds: Any,
    param_names: Sequence[str] | None,
    fields: Mapping[str, Any],
    options: dict[str, Any],
    **settings: Any,
) -> Stack:
    """Put together what one array needs.

    Raises:
        InputError: the arguments do not go together.
        InputTypeError: an argument has a wrong type.
    """
    func, names = names_of(func, param_names)
    # coordinates that results have of their own, as in a fit of what a fit has found
    data = _numbers(data.drop_vars([n for n in LABELS if n in data.coords and n not in data.dims]))
    given = coords_of(obj, coords)
    reduced = dims_of(obj, given, reduce_dims)
    points = tuple(dim for dim in data.dims if dim in reduced)
    pixels = tuple(dim for dim in data.dims if dim not in reduced)
    _check_names(data, pixels, f"{name}_" if name else "")
    parts = "fit real and imaginary parts, as two variables of a Dataset."
    _check_kind(data, f"the variable {name!r}" if name else "the array", advice=parts)
    if not points:
        raise InputError(f"{name!r} has none of the dimensions {sorted(map(str, reduced))}.")
    # as in xarray: coordinates of several dimensions span a grid
    for coord in given:
        _check_labels(coord, data, "a coordinate")
    spread = [coord.drop_vars(list(coord.coords)) for coord in given]
    spread = [
        coord.broadcast_like(data.drop_vars(list(data.coords)), exclude=pixels)
        for coord in xr.broadcast(*spread)
    ]
    extra = {d for coord in spread for d in coord.dims} - set(data.dims)
    if extra:
        raise InputError(
            f"coords have dimensions {sorted(map(str, extra))}, which the data do not have: "
            f"{list(data.dims)}."
        )
    arrays = [_ordered(coord, pixels, points) for coord in spread]
    kinds: list[tuple[str, str]] = []
    start: dict[str, float] = {}
    box: dict[str, tuple[float, float]] = {}
    for n, value in _by_name(p0, names, "p0").items():
        value = _map_or_number(value, f"Initial guess for {n!r}", pixels)
        if isinstance(value, float):
            start[n] = value
        else:
            kinds.append(("p0", n))
            arrays.append(_aligned(value, data, pixels, (), f"p0 of {n!r}"))
    for n, pair in _by_name(bounds, names, "bounds").items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputTypeError(f"the bounds of {n!r} are {pair!r}: give a pair, (lower, upper).")
        sides = [
            _map_or_number(one, f"{label} bound for {n!r}", pixels)
            for label, one in zip(("Lower", "Upper"), pair, strict=True)
        ]
        if all(isinstance(side, float) for side in sides):
            box[n] = (sides[0], sides[1])
            continue
        rules = isinstance(func, Model) and (func.ties or func.fixed)
        if rules or options.get("ties") or options.get("transforms"):
            raise InputError(
                "bounds that differ between pixels do not go with ties, transforms, or a model's "
                "fixed parameters: give numbers as bounds."
            )
        for kind, side in zip(("lower", "upper"), sides, strict=True):
            if isinstance(side, float):
                side = xr.DataArray(side)
            kinds.append((kind, n))
            arrays.append(_aligned(side, data, pixels, (), f"the {kind} bound of {n!r}"))
    for kind, value in fields.items():
        if value is None:
            continue
        if kind == "mask" and (
            not isinstance(value, xr.DataArray) or value.dtype.kind not in "bui"
        ):
            raise InputTypeError(
                f"mask is {_kind(value)}: it must be a DataArray that holds True for each point "
                f"that counts{_as_array(value, data)}."
            )
        if kind == "sigma" and not isinstance(value, xr.DataArray) and np.ndim(value):
            raise InputTypeError(
                f"sigma is {_kind(value)}, whose dimensions have no names: give "
                f"xr.DataArray(sigma, dims={list(points)}), or a number."
            )
        if not isinstance(value, xr.DataArray):
            options[kind] = positive(value, kind) if kind == "sigma" else value
            continue
        kinds.append((kind, ""))
        arrays.append(_aligned(value, data, pixels, points, kind))
    _check_start(start, box)
    shape = [data.sizes[dim] for dim in pixels]
    task = Task(
        func, names, len(points), len(given), tuple(kinds), start, box, options,
        tile=tile_of(shape), **settings,
    )  # fmt: skip
    data = data.transpose(*pixels, *points)
    return Stack(task, data, tuple(arrays), pixels, points, name)


def _numbers(data: xr.DataArray) -> xr.DataArray:
    """The data with a type that Dask knows the size of.

    Raises:
        InputError: Dask does not know yet how many there are.
        InputTypeError: they hold objects that are no numbers.
    """
    for dim, sides in data.chunksizes.items():
        if any(map(isnan, sides)):
            raise InputError(
                f"the sizes of chunks along {dim!r} are not known: call compute_chunk_sizes() of "
                "the array of Dask, or compute what selects from it."
            )
    try:
        return data.astype(np.float64) if data.dtype.hasobject else data
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"the data hold objects that are no numbers: {error}") from error


def _check_names(data: xr.DataArray, pixels: Sequence[Hashable], prefix: str) -> None:
    """See whether the data use a name for something that results need it for.

    Raises:
        InputError: they do.
    """
    taken = [dim for dim in pixels if dim in LABELS]
    results = [f"{prefix}curvefit_{name}" for name in variables(True)]
    taken += [name for name in {*data.dims, *data.coords} if name in results]
    if taken:
        raise InputError(
            f"the data have {taken} as a dimension or coordinate, and the result needs that name: "
            f"rename it, .rename({{{taken[0]!r}: 'own_{taken[0]}'}})."
        )


def _kind(value: Any) -> str:
    """What came, in a word or two: an array may be long."""
    return f"of shape {np.shape(value)}" if np.ndim(value) else repr(value)


def _check_start(start: dict[str, float], box: dict[str, tuple[float, float]]) -> None:
    """See whether the start lies within the bounds, where both are numbers.

    Raises:
        InputError: it does not, or bounds are reversed.
    """
    for n, (low, high) in box.items():
        if not low <= high:
            raise InputError(f"the bounds of {n!r} are ({low}, {high}): lower, then upper.")
        if n in start and not low <= start[n] <= high:
            raise InputError(
                f"p0 is infeasible: {n!r} starts at {start[n]}, outside its bounds, {low} to "
                f"{high}. Move it inside."
            )


def _aligned(
    value: xr.DataArray,
    data: xr.DataArray,
    pixels: Sequence[Hashable],
    points: Sequence[Hashable],
    what: str,
) -> xr.DataArray:
    """An array that goes with the data, in the order of their dimensions.

    Raises:
        InputError: its labels are not those of the data, or it has other dimensions.
    """
    extra = [dim for dim in value.dims if dim not in data.dims]
    if extra:
        raise InputError(f"{what} has dimensions {extra}: the data have {list(data.dims)}.")
    _check_labels(value, data, what)
    _check_kind(value, what)
    if points:
        value = value.broadcast_like(data, exclude=pixels)
    return _ordered(value.drop_vars(list(value.coords)), pixels, points)


def _check_labels(value: xr.DataArray, data: xr.DataArray, what: str) -> None:
    """See whether an array lies on the places of the data.

    Raises:
        InputError: it does not.
    """
    for dim in set(value.dims) & set(data.dims):
        if value.sizes[dim] != data.sizes[dim] or (
            dim in value.indexes
            and dim in data.indexes
            and not value.indexes[dim].equals(data.indexes[dim])
        ):
            raise InputError(
                f"{what} has other labels along {dim!r} than the data: select or reindex it "
                "before, as with xarray.align."
            )


def _check_kind(value: xr.DataArray, what: str, *, advice: str = "give real ones.") -> None:
    """See whether an array has real numbers.

    Raises:
        InputTypeError: it has not.
    """
    if value.dtype.kind == "c":
        raise InputTypeError(f"{what} has complex numbers: {advice}")
    if value.dtype.kind not in "fiubO":
        raise InputTypeError(
            f"{what} of {value.dtype} has no numbers. Of dates or times make some, "
            "(time - time[0]) / numpy.timedelta64(1, 's')."
        )


def _ordered(
    value: xr.DataArray, pixels: Sequence[Hashable], points: Sequence[Hashable]
) -> xr.DataArray:
    return value.transpose(*(dim for dim in (*pixels, *points) if dim in value.dims))
