"""A call in which every pixel fails is said to be one."""

import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.optimize import OptimizeWarning

from lmtorch import InputError
from lmtorch.xarray import curvefit

B = np.array([0.0, 10, 50, 100, 300, 800])
RATES = np.array([[1e-3, 2e-3, 5e-4], [8e-4, 3e-3, 1e-3]])
DATA = xr.DataArray(
    1000 * np.exp(-B * RATES[..., None]), dims=("y", "x", "b"), coords={"b": B}, name="signal"
)
START = {"size": 900.0, "rate": 1e-3}


def decay(b, size, rate):
    return size * torch.exp(-b * rate)


def turned(size, rate, b):
    return torch.sqrt(-1 - size**2) * torch.exp(-b * rate)


@pytest.mark.parametrize("errors", ["ignore", "keep"])
def test_a_function_that_takes_its_coordinate_last_is_told_to_take_it_first(errors):
    with pytest.warns(OptimizeWarning, match="none of 6 fits has succeeded.*'b' is a parameter"):
        found = curvefit(DATA, "b", turned, errors=errors)
    assert not (found.curvefit_status > 0).any()


def test_a_single_pixel_has_its_status_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert int(curvefit(DATA[0, 0, :1], "b", decay).curvefit_status) < 0


def test_of_a_dataset_the_variable_is_named():
    both = xr.Dataset({"good": DATA, "bad": DATA.astype(float) * 0 + np.inf}, coords=DATA.coords)
    with pytest.warns(OptimizeWarning, match="none of 6 fits of 'bad' has") as said:
        curvefit(both, "b", decay, p0=START, skipna=False)
    assert len(said) == 1


@pytest.mark.parametrize("missing", [0, 5, 6])
def test_pixels_that_fail_or_have_no_data_are_a_status_alone(missing):
    data = DATA.copy()
    data.values.reshape(6, -1)[:missing] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = curvefit(data, "b", decay, p0=START)
    assert int((found.curvefit_status > 0).sum()) == 6 - missing


def test_an_array_for_a_mask_is_told_how_it_becomes_one_with_names():
    mask = np.ones((2, 3), bool)
    with pytest.raises(InputError, match=r"xarray\.DataArray\(mask, dims=\['y', 'x'\]\)"):
        curvefit(DATA, "b", decay, p0=START, mask=mask)
    with pytest.raises(InputError, match=r"that counts\.$"):
        curvefit(DATA, "b", decay, p0=START, mask=np.ones(4, bool))
    named = xr.DataArray(mask, dims=["y", "x"])
    assert bool((curvefit(DATA, "b", decay, p0=START, mask=named).curvefit_status > 0).all())
