"""A fit in words and numbers, in the style of lmfit's report, and as a dict for JSON."""

import math
from typing import Any

import numpy as np
import torch

from .._arrays import tensor_of, to_array
from ..core.termination import Status
from .inference import Inference
from .likelihoods import Likelihood

STATISTICS = (
    "chisqr", "redchi", "deviance", "loglikelihood", "rsquared", "aic", "bic", "pvalue",
)  # fmt: skip


def report(fit: Inference, min_correl: float, notes: list[str]) -> str:
    """The report of a fit, or of a batch of fits, as text."""
    if fit.lead:
        return _many(fit)
    told = ["[[Notes]]", *(f"    {note}" for note in notes)] if notes else []
    return "\n".join([*_head(fit), *_variables(fit), *_correlations(fit, min_correl), *told])


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
    bounds = _bounds(fit)
    start = to_array(fitter.start.expand(fit.p.shape))
    return {
        "model": fitter.model.label,
        "parameters": {
            name: {
                "value": _plain(fit.p[..., i].detach()),
                "stderr": _plain(fit.stderr[..., i]),
                "start": _plain(start[..., i]),
                "role": parameters.role(name) or "free",
                "bounds": [_plain(side) for side in bounds.get(name, (-math.inf, math.inf))],
            }
            for i, name in enumerate(fit.names)
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


def _head(fit: Inference) -> list[str]:
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
    if fit.loss is not None:
        rows.append(("scale of the loss", f"{float(solution.f_scale):.6g}"))
    return [
        "[[Model]]",
        f"    {fit.fitter.model.label}",
        "[[Fit Statistics]]",
        f"    # {Status(int(solution.status)).message}",
        *(f"    {name:<18} = {value}" for name, value in rows),
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
        if math.isnan(error):
            text += " (at its bound)"
        elif math.isinf(error):
            text += " +/- inf (undetermined)"
        elif error > 0:
            text += f" +/- {error:.6g}" + (f" ({abs(error / value):.2%})" if value else "")
        suffix = f" ({role})" if role else ""
        lines.append(f"{text}{suffix}" + (f" (init = {start[i]:.6g})" if role != "tied" else ""))
    return lines


def _correlations(fit: Inference, least: float) -> list[str]:
    matrix = to_array(fit.correlation)
    pairs = [
        (matrix[i, j], fit.names[i], fit.names[j])
        for i in range(len(fit.names))
        for j in range(i)
        if abs(matrix[i, j]) >= least
    ]
    if not pairs:
        return []
    pairs.sort(key=lambda pair: -abs(pair[0]))
    width = max(len(f"C({b}, {a})") for _, a, b in pairs)
    return [
        f"[[Correlations]] (unreported correlations are < {least:.3f})",
        *(f"    {f'C({b}, {a})':<{width}} = {value:+.4f}" for value, a, b in pairs),
    ]


def _many(fit: Inference) -> str:
    """The report of a batch: how many fits ended how, and quantiles of the parameters."""
    status = to_array(tensor_of(fit.solution.status))
    lines = [
        "[[Model]]",
        f"    {fit.fitter.model.label}",
        f"[[{status.size} Fits]]",
        *(
            f"    {int((status == s).sum()):>9}  {Status(int(s)).message}"
            for s in np.unique(status)[::-1]
        ),
        "[[Variables]]   (quantiles over the fits that converged, and the median error)",
    ]
    good = status > 0
    width = max(map(len, fit.names)) + 1
    values = to_array(fit.p).reshape(-1, len(fit.names))[good]
    errors = to_array(fit.stderr).reshape(-1, len(fit.names))[good]
    lines.append(f"    {'':<{width}} {'5 %':>12} {'median':>12} {'95 %':>12} {'+/-':>12}")
    for i, name in enumerate(fit.names):
        low, middle, high = (
            np.quantile(values[:, i], (0.05, 0.5, 0.95)) if good.any() else (math.nan,) * 3
        )
        known = np.isfinite(errors[:, i])
        error = np.median(errors[known, i]) if known.any() else math.nan
        row = f"    {name + ':':<{width}} {low:>12.6g} {middle:>12.6g} {high:>12.6g} {error:>12.3g}"
        lines.append(
            row if known.all() else f"{row}   ({int((~known).sum())} at a bound or undetermined)"
        )
    return "\n".join(lines)


def _bounds(fit: Inference) -> dict[str, tuple[float, float]]:
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
