"""One call of `curve_fit` for many pixels, of which each may have its own start and bounds.

`curve_fit` has one box for a batch. Where bounds differ between pixels the parameter is measured
from its bound, in units of the width of its box: p = l + (u − l) q with q in [0, 1], p = l + q with
q ≥ 0, p = u − q. These maps are linear, so that errors carry over as they are. Pixels with bounds
of several kinds are fitted kind by kind.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..fitting.curve_fit import curve_fit
from ..fitting.doubts.runaways_of_many import untold
from ..models import Model
from .starts import defaults_of
from .task import Named, Task

INF = np.inf


class Boxed:
    """A function of parameters of which some are measured from their bounds.

    Args:
        function: f(x, *p).
        names: of its parameters.
        measured: those that are.
    """

    def __init__(
        self, function: Callable[..., Any], names: tuple[str, ...], measured: tuple[str, ...]
    ) -> None:
        self.function = function
        self.names = names
        self.places = [names.index(name) for name in measured]

    def __call__(self, x: Any, *values: Any) -> Any:
        """f at p = origin + width · q, of which origins and widths come behind the q."""
        count, size = len(self.names), len(self.places)
        p = list(values[:count])
        for k, place in enumerate(self.places):
            p[place] = values[count + k] + values[count + size + k] * p[place]
        return self.function(x, *p)


def fit_in_boxes(
    task: Task,
    x: np.ndarray,
    y: np.ndarray,
    fields: Mapping[tuple[str, str], np.ndarray],
    given: dict[str, Any],
) -> dict[str, np.ndarray]:
    """Fit pixels in a row.

    Args:
        task: what is fitted.
        x: coordinates, (m,), (k, m), or of each pixel (b, m), (b, k, m).
        y: (b, m).
        fields: ("p0", name), ("lower", name) and ("upper", name), (b,) each.
        given: further arguments of `curve_fit`: what is (b, m) in it is cut as y is.

    Returns:
        coefficients, covariance, stderr, redchi, nfev and status, (b, ...).
    """
    measured = tuple(n for n in task.names if ("lower", n) in fields or ("upper", n) in fields)
    starts = {n: fields["p0", n] for n in task.names if ("p0", n) in fields}
    if not measured:
        return _fitted(task, task.func, x, y, _feasible(task, x, y, starts, given), given)
    b = len(y)
    low = {n: _side(task, fields, "lower", n, b) for n in task.names}
    high = {n: _side(task, fields, "upper", n, b) for n in task.names}
    kinds = np.zeros(b, np.int64)
    for n in measured:
        kind = np.isfinite(low[n]) + 2 * np.isfinite(high[n]) + (low[n] == high[n])
        kinds = 5 * kinds + kind
    whole: dict[str, np.ndarray] = {}
    for kind in np.unique(kinds):
        (rows,) = np.nonzero(kinds == kind)
        cut = {k: v[rows] if _is_rows(v, y) else v for k, v in given.items()}
        made = _of_a_kind(
            task, measured, x[rows] if given["each_x"] else x, y[rows],
            {n: (low[n][rows], high[n][rows]) for n in task.names},
            {n: v[rows] for n, v in starts.items()}, cut,
        )  # fmt: skip
        for name, value in made.items():
            if name not in whole:
                whole[name] = np.empty((b, *value.shape[1:]), value.dtype)
            whole[name][rows] = value
    return whole


def _is_rows(value: Any, y: np.ndarray) -> bool:
    return isinstance(value, np.ndarray) and value.shape == y.shape


def _side(
    task: Task, fields: Mapping[tuple[str, str], np.ndarray], side: str, name: str, b: int
) -> np.ndarray:
    """A bound of a parameter in every pixel, (b,); NaN in a map means that there is none."""
    none = -INF if side == "lower" else INF
    if (side, name) in fields:
        values = fields[side, name].astype(np.float64)
        return np.where(np.isnan(values), none, values)
    pair = task.box.get(name, (-INF, INF))
    return np.full(b, pair[side == "upper"])


def _of_a_kind(
    task: Task,
    measured: tuple[str, ...],
    x: np.ndarray,
    y: np.ndarray,
    box: dict[str, tuple[np.ndarray, np.ndarray]],
    starts: dict[str, np.ndarray],
    given: dict[str, Any],
) -> dict[str, np.ndarray]:
    """Fit pixels whose bounds are finite on the same sides."""
    b, size = len(y), len(measured)
    begin = defaults_of(task, x, y, starts, given, box)
    origin, width, bounds, fixed = {}, {}, {}, []
    for n in measured:
        low, high = box[n]
        begin[n] = np.clip(begin[n], low, high)
        if low[0] == high[0] and np.isfinite(low[0]):
            origin[n], width[n] = low, np.ones(b)
            fixed.append(n)
        elif np.isfinite(low[0]) and np.isfinite(high[0]):
            origin[n], width[n], bounds[n] = low, high - low, (0.0, 1.0)
        elif np.isfinite(high[0]):
            origin[n], width[n], bounds[n] = high, -np.ones(b), (0.0, INF)
        else:
            bounded = np.isfinite(low[0])
            origin[n] = low if bounded else np.zeros(b)
            width[n], bounds[n] = np.ones(b), (0.0, INF) if bounded else (-INF, INF)
        begin[n] = (begin[n] - origin[n]) / width[n]
        if bounds.get(n) == (0.0, 1.0):
            begin[n] = np.clip(begin[n], 0.0, 1.0)
    others = [f"{part}_of_{n}" for part in ("origin", "width") for n in measured]
    begin |= dict(zip(others[:size], origin.values(), strict=True))
    begin |= dict(zip(others[size:], width.values(), strict=True))
    for n, (low, high) in box.items():
        if n not in measured and (low[0], high[0]) != (-INF, INF):
            bounds[n] = (float(low[0]), float(high[0]))
    func = Named(Boxed(task.func, task.names, measured), (*task.names, *others))
    held = task.options.get("fixed", ())
    if isinstance(held, Mapping):
        for n, value in held.items():
            begin[n] = np.full(b, float(value))
            if n in measured:
                begin[n] = (begin[n] - origin[n]) / width[n]
    held = (held,) if isinstance(held, str) else tuple(held)
    options = {**given, "fixed": (*held, *fixed, *others)}
    made = _fitted(task, func, x, y, begin, options, bounds)
    count = len(task.names)
    scale = np.ones((b, count))
    for n in measured:
        k = task.names.index(n)
        made["coefficients"][:, k] = origin[n] + width[n] * made["coefficients"][:, k]
        # of round-off, which may carry it over its bound
        made["coefficients"][:, k] = np.clip(made["coefficients"][:, k], *box[n])
        scale[:, k] = width[n]
    made["coefficients"] = made["coefficients"][:, :count]
    made["stderr"] = made["stderr"][:, :count] * abs(scale)
    made["covariance"] = (
        made["covariance"][:, :count, :count] * scale[:, :, None] * scale[:, None, :]
    )
    return made


def _feasible(
    task: Task,
    x: np.ndarray,
    y: np.ndarray,
    starts: dict[str, np.ndarray],
    given: dict[str, Any],
) -> dict[str, Any] | None:
    """Start values of bounds that are the same everywhere: maps of them are moved inside."""
    if not starts:
        return dict(task.start) or None
    begin: dict[str, Any] = {**task.start, **starts}
    if isinstance(task.func, Model) or any(np.isnan(v).any() for v in starts.values()):
        begin = defaults_of(task, x, y, starts, given)
        # what is fixed or tied has its value from elsewhere, if it is not told
        told = {*starts, *task.start}
        begin = {n: v for n, v in begin.items() if n in told or n not in task.held}
    for n in starts:
        if n in task.box:
            begin[n] = np.clip(begin[n], *task.box[n])
    return begin


def _fitted(
    task: Task,
    func: Callable[..., Any],
    x: np.ndarray,
    y: np.ndarray,
    p0: dict[str, Any] | None,
    given: dict[str, Any],
    bounds: dict[str, tuple[float, float]] | None = None,
) -> dict[str, np.ndarray]:
    """`curve_fit`, and what is kept of its result."""
    bounds = task.bounds if bounds is None else bounds
    options = {**task.options, **given}
    if bounds:
        options["bounds"] = bounds
    with untold():  # each tile would tell of its own
        fit = curve_fit(func, x, y, p0, **options)
    return {
        "coefficients": np.array(fit.popt),
        "covariance": np.array(fit.pcov),
        "stderr": np.array(fit.stderr),
        "redchi": np.array(fit.redchi, np.float64),
        "nfev": np.asarray(fit.nfev, np.int32),
        "status": np.asarray(fit.status, np.int8),
    }
