"""Stacks that the tests of this folder fit, and how they compare them."""

import numpy as np
import torch
import xarray as xr

T = np.linspace(0.2, 4, 15)


def decay(t, a, b):
    return a * torch.exp(-b * t)


def decay_of_numpy(t, a, b):
    return a * np.exp(-b * t)


def stack(ny: int = 12, nx: int = 10, noise: float = 0.05) -> xr.DataArray:
    """Decays of known rates in ny × nx pixels."""
    rng = np.random.default_rng(0)
    rates = xr.DataArray(rng.uniform(0.5, 2, (ny, nx)), dims=("y", "x"))
    t = xr.DataArray(T, {"t": ("t", T, {"units": "s"})})
    data = 2.5 * np.exp(-rates * t) + noise * rng.standard_normal((ny, nx, len(T)))
    labels = {"y": np.arange(ny), "x": ("x", 0.1 * np.arange(nx), {"units": "mm"})}
    return data.assign_coords(labels).assign_attrs(units="V", note="simulated").rename("signal")


def same_bits(one: xr.Dataset, other: xr.Dataset) -> None:
    """Assert that all variables are equal, bit for bit."""
    assert set(one) == set(other)
    for name in one:
        left, right = one[name].values, other[name].values
        assert left.dtype == right.dtype
        assert np.array_equal(left, right, equal_nan=left.dtype.kind == "f"), name
