"""`curvefit`: xarray's signature and result names, and fits of all pixels together."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .._checks import choice, flag
from .._errors import InputError, InputTypeError
from .reading import ERRORS, Stack, options_of, stack_of
from .running import fit_lazily
from .telling import tell_of_none


def curvefit(
    obj: xr.DataArray | xr.Dataset,
    coords: str | xr.DataArray | Iterable[str | xr.DataArray],
    func: Callable[..., Any],
    reduce_dims: Hashable | Iterable[Hashable] | None = None,
    skipna: bool = True,
    p0: Mapping[str, float | xr.DataArray] | None = None,
    bounds: Mapping[str, tuple[float | xr.DataArray, float | xr.DataArray]] | None = None,
    param_names: Sequence[str] | None = None,
    errors: str = "ignore",
    kwargs: Mapping[str, Any] | None = None,
    *,
    sigma: float | xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    total_count: float | xr.DataArray | None = None,
    start: str | None = None,
    store: Any = None,
    resume: bool = False,
    progress: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Fit a curve f(x, a, b, ...) along some dimensions of a labelled array, in every pixel.

    As `xarray.DataArray.curvefit`, whose arguments and result names it has; all pixels of a block
    are fitted together. An array that Dask holds is fitted lazily, block by block.

    Args:
        obj: a DataArray, or a Dataset, of which every variable is fitted.
        coords: the coordinate that f is a function of, by name or as a DataArray; of several, f
            gets x with a row for each, f((x0, x1), a, b). They may differ between pixels.
        func: f(x, a, b, ...) in torch operations, or a model of `lmtorch.models`.
        reduce_dims: further dimensions that one fit takes together, as lines and columns for a
            function of both; ... takes all. Default: those that coords name.
        skipna: leave out points with NaN or infinity, of each pixel its own. Otherwise a pixel that
            has one is not fitted, and its status says so. Default: True.
        p0: start values by name, each a number or a map (a DataArray over pixels). Where a map is
            NaN the default is taken, and where it is outside the bounds the nearest bound. Default:
            f's default values, a model's guess, the middle of bounds, or 1.
        bounds: pairs (lower, upper) by name, of numbers or maps. Default: none.
        param_names: of f(x, *p), the names of its parameters.
        errors: "ignore": a pixel whose fit fails has NaN, and its status tells why; "keep": it has
            the best point that was found; "raise": an exception. In xarray the default is "raise".
        kwargs: options of `lmtorch.curve_fit`; they may also be given by themselves.
        sigma: standard deviations of the data, a number or a DataArray.
        mask: True for points that count; a DataArray over pixels, points or both. Default: all.
        total_count: of the likelihoods "binomial" and "negative_binomial".
        start: "neighbour" fits pixels that failed again, from the solution of each neighbour along
            each dimension (also in another block), and keeps the best; then those that have got
            new neighbours, until no more are found, at most eight times. Default: None, one pass.
        store: path of a Zarr store that results stream to, block by block; they are computed at
            once, and come back opened from there. Blocks are the data's chunks, where they have
            some. Default: None.
        resume: go on with a store that is there: only missing blocks are fitted. A store of other
            data or options is refused. Without a store there a new one begins. Default: False.
        progress: show a bar with fits per second and the share of failures (needs tqdm). Default:
            False.
        options: of `lmtorch.curve_fit`: likelihood, absolute_sigma, loss, f_scale, max_nfev, fixed,
            ties, compile, ...

    Returns:
        A Dataset with these variables, named as below or, of a Dataset's variable v, with `v_` in
        front:

        | name | dimensions behind the pixels' | |
        |---|---|---|
        | curvefit_coefficients | param | parameters |
        | curvefit_covariance | cov_i, cov_j | their covariance |
        | curvefit_stderr | param | standard errors, the roots of its diagonal |
        | curvefit_redchi | | reduced χ² |
        | curvefit_nfev | | evaluations of the residuals |
        | curvefit_status | | int8, a success where positive; attributes tell the meanings |
        | curvefit_from_neighbour | | with `start`: whether the second pass gave the solution |

        Coordinates and attributes of the data are kept, but for coordinates named param, cov_i or
        cov_j, which are replaced. Numbers are float64. In Dask's tasks torch
        has one thread: Dask's workers use the cores.

    Raises:
        InputError: the arguments do not go together. It is also a `ValueError`.
        InputTypeError: an argument has a wrong type. It is also a `TypeError`.
        NotConvergedError: a fit failed, with errors="raise". It is also a `RuntimeError`.

    Example:
        >>> import numpy as np, torch, xarray as xr
        >>> from lmtorch.xarray import curvefit
        >>> t = np.linspace(0, 4, 20)
        >>> rate = xr.DataArray([[0.5, 1.0], [1.5, np.nan]], dims=("y", "x"))
        >>> da = 2 * np.exp(-rate * xr.DataArray(t, {"t": t}))
        >>> def decay(t, amplitude, rate):
        ...     return amplitude * torch.exp(-rate * t)
        >>> fit = curvefit(da, "t", decay)
        >>> fit.curvefit_coefficients.sel(param="rate").values.round(6).tolist()
        [[0.5, 1.0], [1.5, nan]]
        >>> (fit.curvefit_status > 0).values.tolist()
        [[True, True], [True, False]]
    """
    if not isinstance(obj, xr.DataArray | xr.Dataset):
        raise InputTypeError(f"obj is {type(obj).__name__}, not a DataArray or Dataset of xarray.")
    choice(errors, "errors", ERRORS)
    choice(start, "start", (None, "neighbour"))
    skipna, resume = flag(skipna, "skipna"), flag(resume, "resume")
    progress = flag(progress, "progress")
    if resume and store is None:
        raise InputError("resume=True goes on with a store: give store=, the path of it.")
    fields = {"sigma": sigma, "mask": mask, "total_count": total_count}
    given = options_of(kwargs, options)
    for name, value in fields.items():  # some may have come among kwargs
        if name in given and value is not None:
            raise InputError(f"{name} is given twice, in kwargs and by itself.")
        fields[name] = given.pop(name, value)
    arrays = {"": obj} if isinstance(obj, xr.DataArray) else dict(obj.data_vars)
    if not arrays:
        raise InputError("the Dataset has no variables to fit.")
    stacks = [
        stack_of(
            obj, data, str(name), coords, func, reduce_dims, p0, bounds, param_names, fields,
            dict(given), skipna=skipna, errors=errors, neighbours=start is not None,
        )
        for name, data in arrays.items()
    ]  # fmt: skip
    if store is not None:
        from .store import fit_to_store

        return fit_to_store(stacks, obj, store, resume=resume, progress=progress)
    result = finished(stacks, [fit_lazily(stack, progress) for stack in stacks], obj)
    tell_of_none(stacks, result)
    return result


def finished(stacks: Sequence[Stack], found: Sequence[dict[str, xr.DataArray]], obj: Any) -> Any:
    """All variables as one Dataset, with labels and attributes.

    Args:
        stacks: what was fitted.
        found: the variables of each.
        obj: what the user gave, whose attributes are kept.

    Returns:
        The Dataset.
    """
    from .variables import LABELS, attributes

    result = xr.Dataset()
    for stack, made in zip(stacks, found, strict=True):
        prefix = f"{stack.name}_" if stack.name else ""
        of = stack.name or ("" if stack.data.name is None else str(stack.data.name))
        units = "1" if _known_scatter(stack) else _squared(stack.data.attrs.get("units"))
        for name, value in made.items():
            value.attrs = attributes(name, of, units)
            result[f"{prefix}curvefit_{name}"] = value
        kept = {
            name: coord
            for name, coord in stack.data.coords.items()
            if set(coord.dims) <= set(stack.pixels) and name not in result.coords
        }
        result = result.assign_coords(kept)
    names = np.array(stacks[0].task.names)
    # text of a fixed width has no specification in Zarr's format 3, and what is written may not be
    # readable one day; objects are written as text of any length
    kept_as: dict[str, Any] = {"dtype": np.dtype(object)}
    labels = {dim: xr.Variable(dim, names, encoding=kept_as) for dim in LABELS}
    result = result.assign_coords(labels)
    result.attrs = dict(obj.attrs)
    return result


def _known_scatter(stack: Stack) -> bool:
    """Whether residuals are in units of their errors."""
    options = stack.task.options
    return "sigma" in options or ("sigma", "") in stack.task.fields or "likelihood" in options


def _squared(units: Any) -> str | None:
    return f"({units})^2" if isinstance(units, str) and units not in ("", "1") else None
