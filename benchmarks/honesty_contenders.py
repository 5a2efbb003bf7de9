"""Contenders of `benchmarks.honesty`: lmtorch in two dtypes, alone and batched, scipy, lmfit."""

import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import lmfit
import numpy as np
import torch
from scipy.optimize import OptimizeWarning, curve_fit, least_squares

import lmtorch

from .honesty_curves import Array, Model
from .honesty_problems import Group

NOT_OF_THE_RESULT = (lmtorch.FallbackWarning, DeprecationWarning, FutureWarning)


class Outcome(NamedTuple):
    """Where a fit ended, and what was said."""

    p: Any  # (n,), NaN where nothing was returned
    word: str  # the exception, the status or the warning; empty if all was called well
    evaluations: int = 0
    status: str = ""


Contender = Callable[[Group], list[Outcome] | None]  # None where it does not take part


# ---- lmtorch -------------------------------------------------------------------------------------


def _ours(group: Group, dtype: torch.dtype, batched: bool) -> list[Outcome]:
    if batched:
        return _called(group, dtype, None)
    return [_called(group, dtype, i)[0] for i in range(len(group))]


def _data(group: Group, place: Any) -> tuple[Model, Array, Array | None]:
    """The curve, y and sigma of a problem or of all."""
    assert group.model is not None
    assert group.y is not None
    return group.model, group.y[place], None if group.sigma is None else group.sigma[place]


def _called(group: Group, dtype: torch.dtype, i: int | None) -> list[Outcome]:
    """The one call that a user would make, for problem i or for all of them."""
    place: Any = slice(None) if i is None else i
    lost = np.full_like(np.atleast_2d(group.starts[place]), np.nan)

    def given(values: Array | None) -> Any:
        return (
            values
            if dtype is torch.float64 or values is None
            else torch.from_numpy(values).to(dtype)
        )

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            if group.torch_residual is not None:
                start = given(group.starts[place])
                fit = lmtorch.least_squares(
                    group.torch_residual, start, in_dims=None if i is not None else (0,)
                )
                found, finite = fit.x, True
            else:
                model, y, sigma = _data(group, place)
                fit = lmtorch.curve_fit(
                    lambda x, *p: model(torch, x, *p), given(group.x), given(y),
                    given(group.starts[place]), sigma=given(sigma), each_x=False,
                )  # fmt: skip
                found, covariance = fit
                finite = np.isfinite(np.asarray(covariance)).all((-2, -1))
        except Exception as error:  # any is a word
            evaluations = re.search(r"(\d+) evaluations", str(error))
            count = int(evaluations[1]) if evaluations else 0
            return [Outcome(p, f"{type(error).__name__}: {error}", count, "raised") for p in lost]
    heard = [w for w in said if not issubclass(w.category, NOT_OF_THE_RESULT)]
    outcomes = []
    fields = (np.asarray(v) for v in (fit.success, fit.status, fit.nfev, finite))
    success, status, nfev, finite = (np.broadcast_to(v, len(lost)) for v in fields)
    for k, p in enumerate(np.array(found, dtype=np.float64).reshape(lost.shape)):
        name = lmtorch.Status(int(status[k])).name
        # a warning about the covariances of a batch means those that are infinite
        words = [
            str(w.message)
            for w in heard
            if i is not None or w.category is not OptimizeWarning or not finite[k]
        ]
        outcomes.append(Outcome(p, "; ".join(words) if success[k] else name, int(nfev[k]), name))
    return outcomes


# ---- rivals --------------------------------------------------------------------------------------


def _one_by_one(solve: Callable[[Group, int], tuple[Any, str]]) -> Contender:
    """A rival that returns (parameters, word) of a problem; exceptions and warnings are words."""

    def run(group: Group) -> list[Outcome]:
        outcomes = []
        for i in range(len(group)):
            with warnings.catch_warnings(record=True) as said, np.errstate(all="ignore"):
                warnings.simplefilter("always")
                try:
                    p, word = solve(group, i)
                except Exception as error:
                    p, word = (
                        np.full(group.starts.shape[-1], np.nan),
                        f"{type(error).__name__}: {error}",
                    )
            heard = [str(w.message) for w in said if not issubclass(w.category, NOT_OF_THE_RESULT)]
            outcomes.append(Outcome(p, word or "; ".join(heard)))
        return outcomes

    return run


def _least_squares(method: str) -> Contender:
    def solve(group: Group, i: int) -> tuple[Any, str]:
        found = least_squares(lambda p: group.residual(i, p), group.starts[i], method=method)
        return found.x, "" if found.success else found.message

    return _one_by_one(solve)


def _curve_fit(group: Group, i: int) -> tuple[Any, str]:
    model, y, sigma = _data(group, i)
    popt, _ = curve_fit(lambda x, *p: model(np, x, *p), group.x, y, group.starts[i], sigma)
    return popt, ""


def _lmfit(group: Group, i: int) -> tuple[Any, str]:
    start = lmfit.Parameters()
    for k, value in enumerate(group.starts[i]):
        start.add(f"p{k}", value=value)
    found = lmfit.minimize(
        lambda p: group.residual(i, np.array([p[name].value for name in p])), start
    )
    p = np.array([found.params[name].value for name in found.params])
    return p, "" if found.success and found.errorbars else str(found.message)


OURS: dict[str, Contender] = {
    f"lmtorch {name} {how}": lambda group, dtype=dtype, batched=how == "batched": _ours(
        group, dtype, batched
    )
    for name, dtype in (("float64", torch.float64), ("float32", torch.float32))
    for how in ("single", "batched")
}
RIVALS: dict[str, Contender] = {
    "scipy trf": _least_squares("trf"),
    "scipy lm": _least_squares("lm"),
    "scipy curve_fit": lambda group: (
        None if group.model is None else _one_by_one(_curve_fit)(group)
    ),
    "lmfit": _one_by_one(_lmfit),
}
