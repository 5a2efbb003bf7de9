"""Curve fits: NIST's problems beside scipy, and many small fits beside a loop of scipy's."""

import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import curve_fit, least_squares, leastsq
from torch import Tensor

import lmtorch
from tests.nist import PROBLEMS, NistProblem, log_relative_error

from .machine import table

TIGHT = 1e-15
SIZES = (1, 100, 1_000, 10_000)
POINTS = 50
REPEATS = 3


class Found(NamedTuple):
    """Where a fit ended."""

    x: Any
    success: bool
    evaluations: int
    errors: Any = None


def run() -> str:
    """Both tables."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f"## Curve fits\n\n{_nist()}\n\n{_many()}"


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


# ---- many fits -----------------------------------------------------------------------------------


def peak(t: Tensor, height: Tensor, center: Tensor, width: Tensor, background: Tensor) -> Tensor:
    """A Gaussian on a background."""
    return height * torch.exp(-0.5 * ((t - center) / width) ** 2) + background


def peak_numpy(t: Any, height: float, center: float, width: float, background: float) -> Any:
    """The same."""
    return height * np.exp(-0.5 * ((t - center) / width) ** 2) + background


def _many() -> str:
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, POINTS)
    most = max(SIZES)
    true = np.stack(
        [
            1 + 2 * rng.random(most),
            0.3 + 0.4 * rng.random(most),
            0.05 + 0.1 * rng.random(most),
            rng.random(most) / 2,
        ],
        -1,
    )
    curves = peak_numpy(t, *(true[:, i : i + 1] for i in range(4))) + 0.02 * rng.standard_normal(
        (most, POINTS)
    )
    start = [1.0, 0.5, 0.1, 0.0]
    rows = []
    for size in SIZES:
        y = curves[:size]
        ours, theirs = [], []
        for _ in range(REPEATS):
            begun = time.perf_counter()
            fit = lmtorch.curve_fit(peak, t, y, start)
            popt, _ = fit  # the covariance is computed when it is asked for; scipy's always is
            ours.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            loop = [curve_fit(peak_numpy, t, one, start)[0] for one in y]
            theirs.append(time.perf_counter() - begun)
        apart = np.abs(popt - np.array(loop)).max(-1)
        rows.append([
            f"{size:,}",
            f"{min(ours):.3g} s",
            f"{min(theirs):.3g} s",
            f"{min(theirs) / min(ours):.2f}",
            f"{np.mean(fit.success):.2%}",
            f"{np.mean(apart < 1e-5):.2%}",
        ])  # fmt: skip
    header = [
        "fits",
        "lmtorch.curve_fit, one call",
        "scipy curve_fit, a loop",
        "ratio",
        "converged",
        "agree to 1e-5",
    ]
    intro = (
        f"Gaussian peaks, {POINTS} points, 4 parameters, the same poor start for all, in "
        f"float64; the fastest of {REPEATS} runs. scipy's model is NumPy code, its tolerances "
        "1e-8; ours 1e-10 and polishing."
    )
    return f"### Many small fits\n\n{intro}\n\n{table(header, rows)}"
