"""A fit as HTML, for notebooks: values with errors, how it ended, how good it is, correlations."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from ...core.termination import Status
from ..inference.derived import derived_of
from ..inference.inference import Inference
from .table import QUANTILES, bounds_of, correlations, goodness, summary

LEAST = 0.1  # smaller correlations are left out


def html_of(fit: Inference, notes: Sequence[str]) -> str:
    """A fit, or a batch of fits, as HTML; what comes from the user is escaped.

    Args:
        fit: of one fit or many.
        notes: what a reader of the errors should know.

    Returns:
        The text.
    """
    parts = _of_many(fit) if fit.lead else _of_one(fit)
    told = "".join(f"<li>{escape(note)}</li>" for note in notes)
    if told:
        parts.append(f"<ul>{told}</ul>")
    return f"<div>{''.join(parts)}</div>"


def plus_minus(value: float, error: float) -> str:
    """A value to two digits of its error, as in 2.512 ± 0.016.

    Args:
        value: the value.
        error: its standard error.

    Returns:
        The text.
    """
    if math.isnan(error):
        return f"{value:.6g} (at its bound)"
    if math.isinf(error):
        return f"{value:.6g} ± ∞ (undetermined)"
    if not error > 0 or not math.isfinite(value):
        return f"{value:.6g}"
    place = math.floor(math.log10(error)) - 1
    if float(f"{error:.1e}") >= 10.0 ** (place + 2):  # 0.0996 becomes 0.10
        place += 1
    size = max(abs(value), error)
    if place > 0 or size < 1e-4:
        power = math.floor(math.log10(size))
        digits = max(0, power - place)
        scale = 10.0**power
        return f"({value / scale:.{digits}f} ± {error / scale:.{digits}f})e{power:+d}"
    return f"{value:.{-place}f} ± {error:.{-place}f}"


def _of_one(fit: Inference) -> list[str]:
    status = Status(int(fit.solution.status))
    parameters, bounds = fit.fitter.parameters, bounds_of(fit)
    start = fit.fitter.start.tolist()
    rows = []
    for i, (name, value, error) in enumerate(
        zip(fit.names, fit.p.tolist(), fit.stderr.tolist(), strict=True)
    ):
        role = parameters.role(name)
        share = f"{abs(error / value):.2%}" if 0 < error < math.inf and value else ""
        low, high = bounds.get(name, (-math.inf, math.inf))
        within = "" if -low == high == math.inf else f"{low:g} to {high:g}"
        begun = "" if role == "tied" else f"{start[i]:.6g}"
        shown = f"{value:.6g}" if role == "fixed" else plus_minus(value, error)
        rows.append((name, shown, share, begun, within, parameters.told(name)))
    for name, (value, error) in derived_of(fit).items():
        rows.append((name, plus_minus(float(value), float(error)), "", "", "", "derived"))
    head = ("parameter", "value ± error", "relative", "start", "bounds", "")
    pairs = [(name, f"{value:+.3f}") for name, value in correlations(fit, LEAST)]
    parts = [_title(fit.fitter.model.label, [status.message]), _table(head, rows)]
    parts.append(_folded("statistics", _table((), goodness(fit))))
    if pairs:
        parts.append(_folded(f"correlations of {LEAST} and more", _table((), pairs)))
    return parts


def _of_many(fit: Inference) -> list[str]:
    counts, quantiles = summary(fit)
    total = sum(count for count, _ in counts)
    rows = []
    for one in quantiles:
        numbers = (f"{number:.6g}" for number in (one.low, one.middle, one.high))
        unknown = f"{one.unknown} at a bound or undetermined" if one.unknown else ""
        rows.append((one.name, *numbers, f"{one.error:.2g}", unknown))
    shape = " × ".join(map(str, fit.lead))
    words = [f"{shape} fits", *(f"{count / total:.1%}: {text}" for count, text in counts)]
    head = ("parameter", "5 %", "median", "95 %", "median error", "")
    return [
        _title(fit.fitter.model.label, words),
        _table(head, rows),
        f"<small>{QUANTILES}</small>",
    ]


def _title(label: str, words: Iterable[str]) -> str:
    return f"<p><code>{escape(label)}</code><br/>{'<br/>'.join(map(escape, words))}</p>"


def _folded(title: str, inside: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inside}</details>"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    first = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = [
        f"<tr><th>{escape(str(row[0]))}</th>"
        + "".join(f"<td>{escape(str(cell))}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    ]
    top = f"<thead><tr>{first}</tr></thead>" if head else ""
    return f"<table>{top}<tbody>{''.join(lines)}</tbody></table>"
