"""A fit in words and numbers, in the manner of lmfit's report, and as a dict for JSON."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..core.termination import Status
from ..functional.calling import to_array

if TYPE_CHECKING:
    from .result import CurveFit


def report(fit: "CurveFit", min_correl: float) -> str:
    """The text."""
    lead = fit._fitter.data.lead
    return (
        _many(fit)
        if lead
        else "\n".join([*_head(fit), *_variables(fit), *_correlations(fit, min_correl), *_notes(fit)])
    )


def with_error(value: float, error: float) -> str:
    """A value to the digits that its error leaves: 2.503(5)."""
    if not (math.isfinite(error) and error > 0 and math.isfinite(value)):
        return f"{value:.6g}"
    exponent = math.floor(math.log10(error))
    digits = round(error / 10**exponent)
    exponent, digits = (exponent + 1, 1) if digits == 10 else (exponent, digits)
    if exponent > 0 or exponent < -8:
        return f"{value:.6g} ± {error:.1g}"
    return f"{value:.{-exponent}f}({digits})"


def as_dict(fit: "CurveFit") -> dict[str, Any]:
    """Plain numbers; what is not finite becomes None."""
    parameters, fitter = fit._fitter.parameters, fit._fitter
    bounds = _bounds(fit)
    start = to_array(fitter.start.expand(fit._p.shape))
    return {
        "model": fitter.model.label,
        "parameters": {
            name: {
                "value": _plain(fit.popt[..., i]),
                "stderr": _plain(fit.stderr[..., i]),
                "start": _plain(start[..., i]),
                "role": parameters.role(name) or "free",
                "bounds": [_plain(side) for side in bounds.get(name, (-math.inf, math.inf))],
            }
            for i, name in enumerate(fit.names)
        },
        "covariance": _plain(fit.pcov),
        **{
            key: _plain(getattr(fit, key))
            for key in ("ndata", "nvarys", "nfree", "chisqr", "redchi", "rsquared", "aic", "bic", "nfev", "success")
        },
        "status": _plain(fit.status),
        "message": fit.message,
        "notes": list(fit.notes),
    }


def _head(fit: "CurveFit") -> list[str]:
    solution = fit.solution
    rows = [
        ("fitting method", "Levenberg-Marquardt"),
        ("function evals", fit.nfev),
        ("data points", fit.ndata),
        ("variables", fit.nvarys),
        ("chi-square", f"{fit.chisqr:.8g}"),
        ("reduced chi-square", f"{fit.redchi:.8g}" if fit.nfree > 0 else "none"),
        ("Akaike info crit", f"{fit.aic:.8g}"),
        ("Bayesian info crit", f"{fit.bic:.8g}"),
    ]
    if not math.isnan(fit.rsquared):
        rows.append(("R-squared", f"{fit.rsquared:.8g}"))
    if fit._loss is not None:
        rows.append(("scale of the loss", f"{float(solution.f_scale):.6g}"))
    return [
        "[[Model]]",
        f"    {fit._fitter.model.label}",
        "[[Fit Statistics]]",
        f"    # {Status(int(solution.status)).message}",
        *(f"    {name:<18} = {value}" for name, value in rows),
    ]


def _variables(fit: "CurveFit") -> list[str]:
    width = max(map(len, fit.names)) + 1
    parameters, start = fit._fitter.parameters, fit._fitter.start.tolist()
    lines = ["[[Variables]]"]
    errors = np.asarray(to_array(fit.stderr), dtype=float)
    for i, name in enumerate(fit.names):
        value, error, role = float(fit.popt[i]), float(errors[i]), parameters.role(name)
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


def _correlations(fit: "CurveFit", least: float) -> list[str]:
    matrix = np.asarray(to_array(fit.correlation), dtype=float)
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


def _notes(fit: "CurveFit") -> list[str]:
    return ["[[Notes]]", *(f"    {note}" for note in fit.notes)] if fit.notes else []


def _many(fit: "CurveFit") -> str:
    """Quantiles over a batch."""
    status = np.ravel(to_array(torch.as_tensor(fit.status)))
    lines = [
        "[[Model]]",
        f"    {fit._fitter.model.label}",
        f"[[{status.size} Fits]]",
        *(f"    {int((status == s).sum()):>9}  {Status(int(s)).message}" for s in np.unique(status)[::-1]),
        "[[Variables]]   (quantiles over the fits that converged, and the median error)",
    ]
    good = status > 0
    width = max(map(len, fit.names)) + 1
    values = to_array(fit.popt).reshape(-1, len(fit.names))[good]
    errors = to_array(fit.stderr).reshape(-1, len(fit.names))[good]
    lines.append(f"    {'':<{width}} {'5 %':>12} {'median':>12} {'95 %':>12} {'+/-':>12}")
    for i, name in enumerate(fit.names):
        low, middle, high = np.quantile(values[:, i], (0.05, 0.5, 0.95)) if good.any() else (math.nan,) * 3
        error = np.median(errors[:, i]) if good.any() else math.nan
        lines.append(f"    {name + ':':<{width}} {low:>12.6g} {middle:>12.6g} {high:>12.6g} {error:>12.3g}")
    return "\n".join(lines)


def _bounds(fit: "CurveFit") -> dict[str, tuple[float, float]]:
    sides = [side.reshape(-1, len(fit._fitter.parameters.variables))[0].tolist() for side in fit._fitter.bounds]
    return dict(zip(fit._fitter.parameters.variables, zip(*sides, strict=True), strict=True))


def _plain(value: Any) -> Any:
    """Python numbers and lists; None for what JSON cannot hold."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = to_array(value) if isinstance(value, torch.Tensor) else value
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value
