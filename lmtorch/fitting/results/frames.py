"""Fits as tables of pandas, and values with errors for the package uncertainties."""

import math
from importlib import import_module
from typing import Any

import numpy as np

from ..._arrays import tensor_of, to_array
from ..._errors import InputError
from ..inference.inference import Inference
from .table import bounds_of

STATISTICS = ("chisqr", "redchi", "rsquared", "aic", "bic")


def frame_of(fit: Inference, per: str) -> Any:
    """A data frame with a row for each parameter, or for each fit.

    Args:
        fit: of one fit or many.
        per: "parameter" or "fit".

    Returns:
        The frame.

    Raises:
        InputError: pandas is not installed, or `per` is neither.
    """
    if per not in ("parameter", "fit"):
        raise InputError(f"per={per!r} must be 'parameter' or 'fit'.")
    pandas = _package("pandas", "to_dataframe()")
    return _of_parameters(fit, pandas) if per == "parameter" else _of_fits(fit, pandas)


def _of_parameters(fit: Inference, pandas: Any) -> Any:
    names, parameters = fit.names, fit.fitter.parameters
    bounds = bounds_of(fit)
    start = to_array(fit.fitter.start.expand(fit.p.shape))
    sides = np.array([bounds.get(name, (-math.inf, math.inf)) for name in names])
    count = max(1, math.prod(fit.lead))
    columns = {
        "value": to_array(fit.p).reshape(-1),
        "stderr": to_array(fit.stderr).reshape(-1),
        "start": start.reshape(-1),
        "lower": np.tile(sides[:, 0], count),
        "upper": np.tile(sides[:, 1], count),
        "role": np.tile([parameters.role(name) or "free" for name in names], count),
    }
    if not fit.lead:
        return pandas.DataFrame(columns, index=pandas.Index(names, name="parameter"))
    levels = [*_levels(fit), names]
    index = pandas.MultiIndex.from_product(levels, names=[*_dimensions(fit), "parameter"])
    return pandas.DataFrame(columns, index=index)


def _of_fits(fit: Inference, pandas: Any) -> Any:
    columns: dict[str, Any] = {}
    for i, name in enumerate(fit.names):
        columns[name] = to_array(fit.p)[..., i].reshape(-1)
        columns[f"{name}_stderr"] = to_array(fit.stderr)[..., i].reshape(-1)
    for name in STATISTICS:
        columns[name] = to_array(getattr(fit, name)).reshape(-1)
    for name in ("nfev", "success"):
        columns[name] = to_array(tensor_of(fit.solution[name])).reshape(-1)
    columns["status"] = [reason.name for reason in fit.solution.reasons]
    labels = fit.fitter.data.labels
    if len(fit.lead) > 1:
        index = pandas.MultiIndex.from_product(_levels(fit), names=_dimensions(fit))
    elif labels is not None:
        index = labels.rename(*_dimensions(fit))
    else:
        index = pandas.RangeIndex(math.prod(fit.lead), name="fit")
    return pandas.DataFrame(columns, index=index)


def _levels(fit: Inference) -> list[Any]:
    """The labels of the leading dimensions: of the rows of a table, or numbers."""
    labels = fit.fitter.data.labels
    return [*map(range, fit.lead)] if labels is None else [labels]


def _dimensions(fit: Inference) -> list[str]:
    """The names of the leading dimensions."""
    labels = fit.fitter.data.labels
    if labels is not None and labels.name is not None:
        return [str(labels.name)]
    return ["fit"] if len(fit.lead) == 1 else [f"fit_{i}" for i in range(len(fit.lead))]


def with_uncertainties(fit: Inference) -> dict[str, Any]:
    """Values with errors and their correlations, by name, as the package uncertainties has them.

    Args:
        fit: a single fit.

    Returns:
        By name, a number with its standard deviation.

    Raises:
        InputError: the package is not installed.
    """
    package = _package("uncertainties", "to_uncertainties()")
    values, errors = to_array(fit.p).tolist(), to_array(fit.stderr)
    known = np.flatnonzero(np.isfinite(errors))
    some = [fit.names[i] for i in known]
    covariance = to_array(fit.pcov)[np.ix_(known, known)]
    found: dict[str, Any] = {}
    if some:  # the package takes no empty lists
        numbers = package.correlated_values([values[i] for i in known], covariance, tags=some)
        found = dict(zip(some, numbers, strict=True))
    return {
        name: found[name] if name in found else package.ufloat(value, error, tag=name)
        for name, value, error in zip(fit.names, values, errors.tolist(), strict=True)
    }


def _package(name: str, what: str) -> Any:
    """A package that is imported where it is used.

    Returns:
        The module.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"{what} needs {name}: pip install {name}.") from error
