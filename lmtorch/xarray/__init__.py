"""Fits of labelled arrays: image stacks and spectra, in memory, on Dask, or streamed to Zarr.

Importing it gives every DataArray and Dataset of xarray the accessor `lm`.
"""

from importlib.util import find_spec

if find_spec("xarray") is None:
    raise ImportError(
        "lmtorch.xarray needs xarray: pip install 'levenberg-marquardt[xarray]' has it, with dask "
        "and zarr. Without it lmtorch.curve_fit fits batches of NumPy's arrays."
    )

from .accessor import Accessor as Accessor
from .curvefit import curvefit as curvefit
