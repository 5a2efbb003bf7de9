"""However numbers lie in memory, in whatever order of dimensions: the fits are the same bits."""

from collections.abc import Callable

import dask.array
import numpy as np
import pytest
import xarray as xr
from xarray_stacks import T, decay, same_bits, stack

import lmtorch.xarray  # noqa: F401  (gives arrays their accessor)
from lmtorch import InputError


def rounded() -> xr.DataArray:
    """Data that float32 and int16 hold without error."""
    return (stack(4, 5) * 128).round()


LAYOUTS: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
    "float32": lambda da: da.astype("f4"),
    "int16": lambda da: da.astype("i2"),
    "of the other endianness": lambda da: da.astype(da.dtype.newbyteorder()),
    "objects": lambda da: da.astype(object),
    "columns first": lambda da: da.copy(data=np.asfortranarray(da.values)),
    "every second": lambda da: da.copy(data=np.repeat(da.values, 2, -1)[..., ::2]),
    "read-only": lambda da: da.copy(data=np.broadcast_to(da.values, da.shape)),
    "points first": lambda da: da.transpose("t", "y", "x"),
    "points between": lambda da: da.transpose("x", "t", "y"),
    "backwards": lambda da: da[::-1, ::-1],
    "float32 of Dask": lambda da: da.astype("f4").chunk({"y": 3, "x": 2}),
    "points first of Dask": lambda da: da.transpose("t", "x", "y").chunk({"y": 3}),
    "backwards of Dask": lambda da: da.chunk({"y": 3, "x": 2})[::-1, ::-1],
}


def turned(array: xr.DataArray, layout: str) -> xr.DataArray:
    """An array in the order of the pixels of a layout, or back in that of the others."""
    back = {dim: slice(None, None, -1) for dim in ("y", "x") if dim in array.dims}
    return array.isel(back) if layout.startswith("backwards") else array


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fits_do_not_depend_on_the_layout(layout: str) -> None:
    da = rounded()
    labels = {"y": da.y, "x": da.x}
    start = xr.DataArray(np.linspace(50, 500, 20).reshape(4, 5), labels, ("y", "x"))
    sigma = xr.DataArray(np.linspace(1, 2, 4), {"y": da.y}) * (1 + 0.1 * da.t)
    plain = da.lm.curvefit("t", decay, p0={"a": start}, sigma=sigma)
    assert len(np.unique(plain.curvefit_nfev)) > 1  # the starts take part
    other = LAYOUTS[layout](da)
    start, sigma = turned(start, layout), turned(sigma, layout)
    for p0, errors in ((start, sigma), (start.T, sigma.T), (start.chunk({"x": 2}), sigma.chunk())):
        fit = other.lm.curvefit("t", decay, p0={"a": p0}, sigma=errors)
        fit = fit.compute(scheduler="synchronous").map(turned, layout=layout)
        fit, counts = fit.transpose("y", "x", ...), ["curvefit_nfev", "curvefit_status"]
        if layout.startswith("backwards"):  # others lie beside each other, and last digits differ
            xr.testing.assert_allclose(plain.drop_vars(counts), fit.drop_vars(counts), rtol=1e-9)
        else:
            same_bits(plain, fit)


def test_coordinates_may_be_of_dask_and_labels_may_come_twice() -> None:
    da = stack(4, 5)
    plain = da.lm.curvefit("t", decay)
    coord = xr.DataArray(dask.array.from_array(T, chunks=15), dims="t")
    for fit in (
        da.lm.curvefit(coord, decay, reduce_dims="t"),
        da.assign_coords(time=coord).lm.curvefit("time", decay, reduce_dims="t"),
        da.assign_coords(x=[1, 1, 2, 2, 2]).lm.curvefit("t", decay),
    ):
        same_bits(plain, fit.compute(scheduler="synchronous"))
    with pytest.raises(InputError, match="3 chunks along 't'"):
        da.lm.curvefit(coord.chunk({"t": 5}), decay, reduce_dims="t")
    twice = da.assign_coords(x=[1, 1, 2, 2, 2])
    start = xr.DataArray(np.ones(5), {"x": [1, 1, 2, 2, 3]})
    with pytest.raises(InputError, match="p0 of 'a' has other labels along 'x'"):
        twice.lm.curvefit("t", decay, p0={"a": start})


def test_all_dimensions_and_those_that_have_the_names_of_results() -> None:
    da = stack(4, 5)
    whole = da.lm.curvefit("t", decay, reduce_dims=...)
    same_bits(da.lm.curvefit("t", decay, reduce_dims=["y", "x"]), whole)
    for name in ("param", "cov_i", "cov_j", "curvefit_status"):
        with pytest.raises(InputError, match=f"the result needs that name: rename it.*'{name}'"):
            da.rename(y=name).lm.curvefit("t", decay)
    with pytest.raises(InputError, match=r"have .'v_curvefit_redchi'. as a dimension or coord"):
        da.assign_coords(v_curvefit_redchi=1).to_dataset(name="v").lm.curvefit("t", decay)
    same_bits(
        da.lm.curvefit("t", decay, start="neighbour"),
        da.rename(y="neighbour").lm.curvefit("t", decay, start="neighbour"),
    )
    # a fit of what a fit has found: its label of a parameter is not the new ones'
    rates = da.lm.curvefit("t", decay).curvefit_coefficients.sel(param="b")
    fit = rates.lm.curvefit("x", lambda x, mean: mean + 0 * x)
    assert fit.param.values.tolist() == ["mean"]
    np.testing.assert_allclose(fit.curvefit_coefficients[:, 0], rates.mean("x"))


def test_chunks_of_unknown_sizes_are_refused() -> None:
    whole = dask.array.from_array(stack(4, 5).values, chunks=(2, 5, 15))
    some = whole[dask.array.from_array(np.array([True, True, False, True]), chunks=2)]
    da = xr.DataArray(some, dims=("y", "x", "t"), coords={"t": T})
    with pytest.raises(InputError, match=r"along 'y' are not known: call compute_chunk_sizes"):
        da.lm.curvefit("t", decay)
