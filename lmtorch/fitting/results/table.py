"""A fit in words and numbers, in the style of lmfit's report, and as a dict for JSON."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from ..._arrays import tensor_of, to_array
from ...core.termination import Status
from ..inference.derived import derived_of
from ..inference.goodness import STATISTICS
from ..inference.inference import Inference
from ..likelihoods import Likelihood

BY_CHANCE = 0.01  # ten times the share of good fits whose residuals look like a pattern
QUANTILES = "quantiles over the fits that converged, and the median error"


class Quantiles(NamedTuple):
    """A parameter over many fits."""

    name: str
    low: float  # 5 %
    middle: float
    high: float  # 95 %
    error: float  # the median of those that are known
    unknown: int  # errors that are not


def report(fit: Inference, min_correl: float, notes: list[str]) -> str:
    """The report of a fit, or of a batch of fits, as text."""
    if fit.lead:
        return _many(fit)
    told = ["[[Notes]]", *(f"    {note}" for note in notes)] if notes else []
    return "\n".join(
        [*_head(fit), *_variables(fit), *_derived(fit), *_correlations(fit, min_correl), *told]
    )


def with_error(value: float, error: float) -> str:
    """Write a value to the digits that its error leaves, as in 2.503(5)."""
    if not (math.isfinite(error) and error > 0 and math.isfinite(value)):
        return f"{value:.6g}"
    exponent = math.floor(math.log10(error))
    digits = round(error / 10**exponent)
    exponent, digits = (exponent + 1, 1) if digits == 10 else (exponent, digits)
    if not -8 <= exponent <= 5:
        return f"{value:.6g} ± {error:.1g}"
    if exponent > 0:  # 1900(200)
        return f"{round(value, -exponent):.0f}({digits * 10**exponent})"
    return f"{value:.{-exponent}f}({digits})"


def as_dict(fit: Inference, notes: list[str]) -> dict[str, Any]:
    """Everything but the data as plain numbers; what is not finite becomes None."""
    parameters, fitter = fit.fitter.parameters, fit.fitter
    bounds = bounds_of(fit)
    start = to_array(fitter.start.expand(fit.p.shape))
    return {
        "model": fitter.model.label,
        "parameters": {
            name: {
                "value": _plain(fit.p[..., i].detach()),
                "stderr": _plain(fit.stderr[..., i]),
                "start": _plain(start[..., i]),
                "role": parameters.role(name) or "free",
                **_tie(fit, name),
                "bounds": [_plain(side) for side in bounds.get(name, (-math.inf, math.inf))],
            }
            for i, name in enumerate(fit.names)
        },
        "derived": {
            name: {"value": _plain(value), "stderr": _plain(error)}
            for name, (value, error) in derived_of(fit).items()
        },
        "covariance": _plain(fit.pcov),
        "ndata": _plain(fitter.data.count.to(torch.int64)),
        "nvarys": fit.n,
        "nfree": _plain(fit.freedom.to(torch.int64)),
        **{key: _plain(getattr(fit, key)) for key in STATISTICS},
        "likelihood": "gaussian" if fit.fitter.likelihood is None else fit.fitter.likelihood.name,
        **{key: _plain(_lead(fit, fit.solution[key])) for key in ("nfev", "success", "status")},
        "message": fit.solution.message,
        "notes": list(notes),
    }


def _tie(fit: Inference, name: str) -> dict[str, str]:
    """The equation of a tied parameter, by the key "tie", where it was given as text."""
    text = fit.fitter.parameters.told(name).partition("tied: ")[2]
    return {"tie": text} if text else {}


def goodness(fit: Inference) -> list[tuple[str, Any]]:
    """What a report says of how a single fit goes with its data."""
    solution = fit.solution
    likelihood = fit.fitter.likelihood
    rows = [
        ("fitting method", "Levenberg-Marquardt"),
        ("function evals", solution.nfev),
        ("data points", int(fit.fitter.data.count)),
        ("variables", fit.n),
        *(() if likelihood is None else _of_likelihood(fit, likelihood)),
        ("chi-square", f"{float(fit.chisqr):.8g}"),
        ("reduced chi-square", f"{float(fit.redchi):.8g}" if float(fit.freedom) > 0 else "none"),
        ("Akaike info crit", f"{float(fit.aic):.8g}"),
        ("Bayesian info crit", f"{float(fit.bic):.8g}"),
    ]
    if not math.isnan(float(fit.rsquared)):
        rows.append(("R-squared", f"{float(fit.rsquared):.8g}"))
    if not math.isnan(float(fit.runs)):
        expected = f"{float(fit.run.expected):.0f}"
        rows.append(("residual runs", f"{float(fit.runs):.0f} ({expected} expected)"))
    if fit.loss is not None:
        rows.append(("scale of the loss", f"{float(solution.f_scale):.6g}"))
    return rows


def _head(fit: Inference) -> list[str]:
    return [
        "[[Model]]",
        f"    {fit.fitter.model.label}",
        "[[Fit Statistics]]",
        f"    # {Status(int(fit.solution.status)).message}",
        *(f"    {name:<18} = {value}" for name, value in goodness(fit)),
    ]


def _of_likelihood(fit: Inference, likelihood: Likelihood) -> list[tuple[str, str]]:
    return [
        ("likelihood", likelihood.name),
        ("log-likelihood", f"{float(fit.loglikelihood):.8g}"),
        ("deviance", f"{float(fit.deviance):.8g}"),
    ]


def _variables(fit: Inference) -> list[str]:
    width = max(map(len, fit.names)) + 1
    parameters, start = fit.fitter.parameters, fit.fitter.start.tolist()
    lines = ["[[Variables]]"]
    pairs = zip(fit.p.tolist(), fit.stderr.tolist(), strict=True)
    for i, (name, (value, error)) in enumerate(zip(fit.names, pairs, strict=True)):
        role = parameters.role(name)
        text = f"    {name + ':':<{width}} {value:.8g}"
        if role == "fixed":
            lines.append(f"{text} (fixed)")
            continue
        text += _plus_minus(value, error)
        suffix = f" ({parameters.told(name)})" if role else ""
        lines.append(f"{text}{suffix}" + (f" (init = {start[i]:.6g})" if role != "tied" else ""))
    return lines


def _plus_minus(value: float, error: float) -> str:
    """What is behind a value: its error, and what part of it that is."""
    if math.isnan(error):
        return " (at its bound)"
    if math.isinf(error):
        return " +/- inf (undetermined)"
    return f" +/- {error:.6g}" + (f" ({abs(error / value):.2%})" if value else "") if error else ""


def _derived(fit: Inference) -> list[str]:
    found = derived_of(fit)
    width = max(map(len, found), default=0) + 1
    lines = [
        f"    {name + ':':<{width}} {float(value):.8g}{_plus_minus(float(value), float(error))}"
        for name, (value, error) in found.items()
    ]
    return ["[[Derived]]", *lines] if lines else []


def correlations(fit: Inference, least: float) -> list[tuple[str, float]]:
    """Pairs of parameters whose correlation is no smaller, as "C(a, b)", the largest first."""
    matrix = to_array(fit.correlation)
    pairs = [
        (f"C({fit.names[j]}, {fit.names[i]})", float(matrix[i, j]))
        for i in range(len(fit.names))
        for j in range(i)
        if abs(matrix[i, j]) >= least
    ]
    return sorted(pairs, key=lambda pair: -abs(pair[1]))


def _correlations(fit: Inference, least: float) -> list[str]:
    pairs = correlations(fit, least)
    if not pairs:
        return []
    width = max(len(name) for name, _ in pairs)
    return [
        f"[[Correlations]] (unreported correlations are < {least:.3f})",
        *(f"    {name:<{width}} = {value:+.4f}" for name, value in pairs),
    ]


def _many(fit: Inference) -> str:
    """The report of a batch: how many fits ended how, and quantiles of the parameters."""
    counts, rows = summary(fit)
    width = max(map(len, fit.names)) + 1
    lines = [
        "[[Model]]",
        f"    {fit.fitter.model.label}",
        f"[[{sum(count for count, _ in counts)} Fits]]",
        *(f"    {count:>9}  {message}" for count, message in counts),
        f"[[Variables]]   ({QUANTILES})",
        f"    {'':<{width}} {'5 %':>12} {'median':>12} {'95 %':>12} {'+/-':>12}",
    ]
    for one in rows:
        row = (
            f"    {one.name + ':':<{width}} {one.low:>12.6g} {one.middle:>12.6g} "
            f"{one.high:>12.6g} {one.error:>12.3g}"
        )
        lines.append(f"{row}   ({one.unknown} at a bound or undetermined)" if one.unknown else row)
    told = _undetermined(fit) + _patterned(fit)
    return "\n".join(lines + (["[[Notes]]", *told] if told else []))


def _patterned(fit: Inference) -> list[str]:
    """Lines that say how many fits of a batch pass their data by, if more than chance has it."""
    good = to_array(tensor_of(fit.solution.status)).reshape(-1) > 0
    found = to_array(fit.run.patterned).reshape(-1)[good]
    if not found.mean() > BY_CHANCE:
        return []
    return [
        f"    {found.sum()} of the {len(found)} fits that converged have residuals that keep their "
        "sign along x",
        "    for longer than chance has it (runs_pvalue < 0.001): the model lacks something there, "
        "or another",
        "    start finds a lower minimum.",
    ]


def _undetermined(fit: Inference) -> list[str]:
    """Lines that say how many fits of a batch do not determine which parameters."""
    good = to_array(tensor_of(fit.solution.status)).reshape(-1) > 0
    endless = np.isinf(to_array(fit.stderr).reshape(-1, len(fit.names))[good])
    count = int(endless.any(-1).sum())
    if not count:
        return []
    names = ", ".join(name for name, met in zip(fit.names, endless.any(0), strict=True) if met)
    return [
        f"    {count} of the {len(endless)} fits that converged do not determine {names}: these "
        "errors are",
        "    infinite. Fix a parameter, or leave its term out, if that is true of most of them.",
    ]


def summary(fit: Inference) -> tuple[list[tuple[int, str]], list[Quantiles]]:
    """Of a batch of fits: how many ended how, in words, and quantiles of each parameter."""
    status = to_array(tensor_of(fit.solution.status))
    counts = [(int((status == s).sum()), Status(int(s)).message) for s in np.unique(status)[::-1]]
    good = status > 0
    values = to_array(fit.p).reshape(-1, len(fit.names))[good]
    errors = to_array(fit.stderr).reshape(-1, len(fit.names))[good]
    rows = []
    for i, name in enumerate(fit.names):
        low, middle, high = (
            np.quantile(values[:, i], (0.05, 0.5, 0.95)) if good.any() else (math.nan,) * 3
        )
        known = np.isfinite(errors[:, i])
        error = np.median(errors[known, i]) if known.any() else math.nan
        rows.append(Quantiles(name, low, middle, high, error, int((~known).sum())))
    return counts, rows


def bounds_of(fit: Inference) -> dict[str, tuple[float, float]]:
    """Bounds of the variables by name; the same for all fits of a batch."""
    sides = [
        side.reshape(-1, len(fit.fitter.parameters.variables))[0].tolist()
        for side in fit.fitter.bounds
    ]
    return dict(zip(fit.fitter.parameters.variables, zip(*sides, strict=True), strict=True))


def _lead(fit: Inference, value: Any) -> Any:
    return value.reshape(fit.lead) if fit.lead else value


def _plain(value: Any) -> Any:
    """Convert to Python numbers and lists; None stands for what JSON cannot hold."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = to_array(value) if isinstance(value, torch.Tensor) else value
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value
