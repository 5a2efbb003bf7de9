"""Curve fits: NIST's problems beside scipy."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import curve_fit, least_squares, leastsq

import lmtorch
from tests.nist import PROBLEMS, NistProblem, log_relative_error

from .machine import table

TIGHT = 1e-15


class Found(NamedTuple):
    """Where a fit ended."""

    x: Any
    success: bool
    evaluations: int
    errors: Any = None


def run() -> str:
    """The table."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f"## Curve fits\n\n{_nist()}"


# ---- NIST ----------------------------------------------------------------------------------------


def _ours(problem: NistProblem, start: tuple[float, ...]) -> Found:
    fit = lmtorch.curve_fit(
        lambda x, *b: problem.model(torch.stack(b), x),
        problem.x.numpy(),
        problem.y.numpy(),
        p0=start,
    )
    return Found(fit.popt, fit.success, fit.nfev, fit.stderr)


def _ours_tight(problem: NistProblem, start: tuple[float, ...]) -> Found:
    found = lmtorch.least_squares(problem.residual, start, ftol=TIGHT, xtol=TIGHT, gtol=TIGHT)
    return Found(found.x, found.success, found.nfev)


def _scipy_curve_fit(problem: NistProblem, start: tuple[float, ...]) -> Found:
    def f(_: Any, *b: float) -> Any:
        return problem.model(torch.tensor(b, dtype=torch.float64), problem.x).numpy()

    try:
        popt, pcov, info, _, code = curve_fit(
            f, problem.x.numpy(), problem.y.numpy(), p0=start, full_output=True
        )
    except RuntimeError:
        return Found(np.full(len(start), np.nan), False, 0)
    return Found(popt, code in (1, 2, 3, 4), info["nfev"], np.sqrt(np.diag(pcov)))


def _scipy_trf(problem: NistProblem, start: tuple[float, ...]) -> Found:
    fun, jacobian = _exact(problem)
    found = least_squares(fun, np.array(start), jacobian)
    return Found(found.x, found.success, found.nfev)


def _scipy_leastsq_tight(problem: NistProblem, start: tuple[float, ...]) -> Found:
    fun, jacobian = _exact(problem)
    x, _, info, _, code = leastsq(
        fun,
        start,
        Dfun=jacobian,
        full_output=True,
        ftol=TIGHT,
        xtol=TIGHT,
        gtol=TIGHT,
        maxfev=10_000,
    )
    return Found(x, code in (1, 2, 3, 4), info["nfev"])


def _exact(problem: NistProblem) -> tuple[Callable[..., Any], Callable[..., Any]]:
    derivative = torch.func.jacfwd(problem.residual)
    return (
        lambda x: problem.residual(torch.from_numpy(x)).numpy(),
        lambda x: derivative(torch.from_numpy(x)).numpy(),
    )


FITTERS: dict[str, Callable[[NistProblem, tuple[float, ...]], Found]] = {
    "lmtorch.curve_fit, defaults": _ours,
    "scipy curve_fit, defaults (differences)": _scipy_curve_fit,
    "scipy least_squares, defaults, exact J": _scipy_trf,
    "lmtorch.least_squares, tolerances 1e-15": _ours_tight,
    "scipy leastsq, tolerances 1e-15, exact J": _scipy_leastsq_tight,
}


def _nist() -> str:
    rows = []
    for name, fitter in FITTERS.items():
        found = [
            (problem, fitter(problem, start))
            for problem in PROBLEMS.values()
            for start in problem.starts
        ]
        digits = [log_relative_error(f.x, problem.certified) for problem, f in found]
        false = sum(f.success and d < 4 for (_, f), d in zip(found, digits, strict=True))
        errors = [
            log_relative_error(f.errors, p.certified_std) for p, f in found if f.errors is not None
        ]
        rows.append([
            name,
            f"{sum(d >= 6 for d in digits)}",
            f"{np.mean(digits):.2f}",
            f"{false}",
            f"{sum(f.evaluations for _, f in found):,}",
            f"{sum(d >= 4 for d in errors)}" if errors else "–",
        ])  # fmt: skip
    header = [
        "",
        "≥ 6 digits",
        "mean digits",
        "false successes",
        "evaluations",
        "standard errors ≥ 4 digits",
    ]
    intro = (
        "NIST's 27 problems from both starts, 54 runs. A false success has fewer than four digits. "
        "Evaluations are those of the residuals; scipy's curve_fit counts those of its "
        "differences, too, but not those of runs that it gave up."
    )
    return f"### NIST\n\n{intro}\n\n{table(header, rows)}"
