"""`da.lm`: what lmtorch does with an array or a dataset of xarray."""

import inspect
from collections.abc import Callable
from typing import Any

import xarray as xr

from .curvefit import curvefit


def _with_arguments(method: Any) -> Any:
    """A method that tells the arguments of `curvefit`, as help and completion show them."""
    whole = inspect.signature(curvefit)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__signature__ = whole.replace(parameters=[own, *list(whole.parameters.values())[1:]])
    return method


@xr.register_dataarray_accessor("lm")
@xr.register_dataset_accessor("lm")
class Accessor:
    """What lmtorch adds to a DataArray or Dataset, as its attribute `lm`.

    Args:
        obj: the DataArray or Dataset.

    Example:
        >>> import numpy as np, torch, xarray as xr, lmtorch.xarray
        >>> t = np.linspace(0, 4, 20)
        >>> curves = [2 * np.exp(-0.5 * t), 3 * np.exp(-1.5 * t)]
        >>> da = xr.DataArray(curves, {"x": [0, 1], "t": t})
        >>> def decay(t, amplitude, rate):
        ...     return amplitude * torch.exp(-rate * t)
        >>> fit = da.lm.curvefit("t", decay)
        >>> fit.curvefit_coefficients.sel(param="rate").values.round(6).tolist()
        [0.5, 1.5]
    """

    def __init__(self, obj: xr.DataArray | xr.Dataset) -> None:
        self._obj = obj

    @_with_arguments
    def curvefit(self, coords: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Fit a curve along some coordinates, in every pixel: `lmtorch.xarray.curvefit`.

        Args:
            coords: the coordinate that f is a function of, or several.
            func: f(x, a, b, ...), or a model of `lmtorch.models`.
            *args: as of `lmtorch.xarray.curvefit`.
            **kwargs: likewise.

        Returns:
            The Dataset of that function.
        """
        return curvefit(self._obj, coords, func, *args, **kwargs)
