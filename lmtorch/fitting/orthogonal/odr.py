"""`odr`: orthogonal distance regression, for data with errors in x and in y."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..._autocast import without_autocast
from ..._checks import flag
from ..._errors import InputError, InputTypeError
from ..._faces import face
from ...minimising.arguments import limits, tolerance
from ..brought import brought, start_from
from ..measurements.labels import warn_of_order
from ..measurements.reading import in_unit_of
from ..models import Model, model_of, started
from ..options import refuse
from ..parameters import Parameters, Tie, Transform
from ..preparing import bounds_from, box_of, check_count, check_order, start_of
from .data import Given, PointData, read
from .fit import OrthogonalFit, concluded, refuse_scaled
from .fitter import OrthogonalFitter


@face
@without_autocast
def odr(
    f: Callable[..., Any] | nn.Module,
    x: Any,
    y: Any,
    p0: Any = None,
    sx: Any = None,
    sy: Any = None,
    *,
    wd: Any = None,
    we: Any = None,
    fixed_x: Any = None,
    delta0: Any = None,
    jac: Sequence[Callable[..., Any]] | None = None,
    absolute_sigma: bool = False,
    bounds: Any = (-math.inf, math.inf),
    fixed: str | Sequence[str] | Mapping[str, float] = (),
    ties: Mapping[str, Tie] | None = None,
    transforms: Mapping[str, Transform] | None = None,
    batch: bool = False,
    ftol: float | str | None = "auto",
    xtol: float | str | None = "auto",
    gtol: float | str | None = "auto",
    max_nfev: int | None = None,
    callback: Callable[..., Any] | None = None,
    **other: Any,
) -> OrthogonalFit:
    """Fit a curve to data with errors in x and y: points move to it by the shortest way.

    Minimises Σ ((f(x + δ) − y)/σ_y)² + Σ (δ/σ_x)² over the parameters and a δ for every point, by
    the same loop as `curve_fit`; the δ are eliminated point by point, so the cost of an iteration
    is that of a plain fit. Without y the model is implicit: Σ (δ/σ_x)² is minimised where
    f(x + δ) = 0, as for a circle or an ellipse.

    Args:
        f: f(x, a, b, ...), as for `curve_fit`; each value may depend on its own x alone. Of q
            responses it returns (q, m), or a tuple of q curves.
        x: (m,), or (k, m) for k predictors.
        y: (m,), or (q, m) for q responses. Points that a masked array (of x, y, sx or sy) hides are
            left out. None: the model is implicit, f(x) = 0, with one equation (m,) or several.
        p0: as for `curve_fit`.
        sx: standard deviations of x, a number or of the shape of x, (k, 1) for one each; zero where
            x is exact. Or covariances (k, k), or (k, k, m) of each point. Default: 1.
        sy: of y, a number or of the shape of y; or covariances (q, q) or (q, q, m). Default: 1.
        wd: in the place of sx weights of x, 1/σ_x², or weight matrices, as scipy.odr's `Data`.
        we: in the place of sy weights of y, 1/σ_y². A response of weight zero does not count, not
            even as a degree of freedom.
        fixed_x: true where x is exact, for all x or of their shape.
        delta0: where the displacements start, of the shape of x. Default: 0.
        jac: (∂f/∂p, ∂f/∂x), two functions of (x, a, b, ...) for what torch cannot differentiate.
            The first returns (m, P), points by parameters, the second the shape of x; of q
            responses (q, m, P), and q times the shape of x. They are held to differences of f at
            the start. Default: torch differentiates f.
        absolute_sigma: the errors are in the units of the data, and need no scaling by χ². Default:
            False.
        bounds: of the parameters, as for `curve_fit`.
        fixed: parameters that are held, as for `curve_fit`.
        ties: parameters that follow from others, as for `curve_fit`.
        transforms: scales on which parameters are fitted, as for `curve_fit`.
        batch: x, y and, if they differ, p0, errors and delta0 have a dimension in front that counts
            fits, which are made at once. Default: False.
        ftol: as for `least_squares`.
        xtol: as for `least_squares`.
        gtol: as for `least_squares`.
        max_nfev: evaluations of f at all points at most. Default: 1000.
        callback: as for `least_squares`: called after every iteration with an `Iterate`, whose x
            are the parameters; may raise StopIteration to end the fit where it stands, which is
            then no success and may `resume`. A first look without errors in x is not shown.
        other: there is no other option; the error says which one may be meant.

    Returns:
        An `OrthogonalFit`, which unpacks to popt, pcov.

    Raises:
        InputError: data or options that cannot be fitted; also a `TypeError` where they are of a
            wrong type.
        NotConvergedError: no minimum was found; its `fit` has the best point.

    Reference: Boggs, Byrd & Schnabel, A stable and efficient algorithm for nonlinear orthogonal
        distance regression (1987); Boggs & Rogers, Orthogonal distance regression (1990), for the
        errors of the parameters.

    Example:
        >>> import numpy as np, torch, lmtorch
        >>> rng = np.random.default_rng(1)
        >>> t = np.linspace(0.2, 3, 30)
        >>> x, y = t + 0.05 * rng.standard_normal(30), np.exp(-t) + 0.02 * rng.standard_normal(30)
        >>> fit = lmtorch.odr(lambda x, a, k: a * torch.exp(-k * x), x, y, sx=0.05, sy=0.02)
        >>> bool(abs(fit["k"] - 1) < 3 * fit.stderr[1]), fit.delta.shape
        (True, (30,))
        >>> angle = np.linspace(0, 4, 20)
        >>> ring = np.array([3 * np.cos(angle), 3 * np.sin(angle) + 1])
        >>> circle = lambda x, a, b, r: (x[0] - a) ** 2 + (x[1] - b) ** 2 - r**2
        >>> lmtorch.odr(circle, ring + 0.01 * rng.standard_normal((2, 20)), None, p0=[0, 0, 1])
        CurveFit(a=-0.003(3), b=0.999(3), r=3.000(2))
    """
    refuse(other, odr)
    absolute_sigma, batch = flag(absolute_sigma, "absolute_sigma"), flag(batch, "batch")
    tolerances = tuple(
        tolerance(value, name) for value, name in ((ftol, "ftol"), (xtol, "xtol"), (gtol, "gtol"))
    )
    trials = limits(max_nfev)
    if callback is not None and not callable(callback):
        raise InputError(f"callback is {type(callback).__name__}, not a function.")
    warn_of_order(x=x, y=y, sx=sx, sy=sy)
    sx, sy = in_unit_of(sx, x, ("sx", "x")), in_unit_of(sy, y, ("sy", "y"))
    data = read(x, y, Given(sx, sy, wd, we, fixed_x, delta0), batch)
    p0 = started(p0)
    if not batch:
        check_order(data, p0)
    model = model_of(f, p0, None, 0)
    rules = brought(model, bounds, fixed, ties, transforms)
    parameters = Parameters(list(model.names), tuple(rules.fixed), rules.ties, transforms or {})
    lower, upper = bounds_from(rules.bounds, model, parameters)
    if not data.implicit and data.each == 1:  # of other data no model of the library guesses
        p0 = start_from(model, data, p0, rules, (lower, upper))
    start = start_of(model, p0, data, rules.values, lower, upper)
    if data.implicit:
        data = data.with_equations(_equations(model, data, start))
    fitter = OrthogonalFitter(
        model, parameters, data, start, box_of(lower, upper, parameters, start, bounds),
        _pair(jac), tolerances=tolerances, trials=trials,
    )  # fmt: skip
    check_count(data, fitter.varying)
    u = parameters.inward(start)
    u = u.expand(*data.lead, -1) if data.lead else u
    if data.implicit:
        refuse_scaled(fitter, u)
    solution = fitter.solve(u, near=delta0 is not None, callback=callback)
    return concluded(fitter, solution, absolute_sigma, u)


def _pair(jac: Any) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """The user's two derivatives.

    Returns:
        ∂f/∂p and ∂f/∂x, or None where there are none.

    Raises:
        InputTypeError: they are no two functions.
    """
    if jac is None:
        return None
    if not isinstance(jac, tuple | list) or len(jac) != 2 or not all(map(callable, jac)):
        raise InputTypeError(f"jac={jac!r} must be a pair of functions (∂f/∂p, ∂f/∂x), or None.")
    return jac[0], jac[1]


def _equations(model: Model, data: PointData, start: Tensor) -> int:
    """How many equations an implicit model has.

    Returns:
        q.

    Raises:
        InputError: f returned neither (m,) nor (q, m).
    """
    x, p = (data.x[0], start[0] if start.ndim > 1 else start) if data.lead else (data.x, start)
    with torch.no_grad():
        try:
            values = model(x, p)
        except (TypeError, RuntimeError):  # it takes arrays
            values = model(x.numpy(), p.numpy())
    shape = tuple(values.shape) if hasattr(values, "shape") else (len(values), data.points)
    m = data.points
    if shape[-1:] != (m,) or len(shape) > 2:
        raise InputError(
            f"f returned {shape}: of an implicit model it returns a number for each of {m} points, "
            f"({m},), or (q, {m}) of q equations."
        )
    return shape[0] if len(shape) == 2 else 1
