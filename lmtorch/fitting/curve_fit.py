"""`curve_fit`: scipy's signature, named parameters, and a result that knows its errors."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from inspect import unwrap
from typing import Any

from torch import Tensor, nn

from .._arrays import tensor_of
from .._autocast import without_autocast
from .._checks import flag
from .._errors import InputError, InputTypeError, NotConvergedError, warn_of_fit
from .._faces import face
from ..core.termination import Status
from ..losses.criterion import Criterion
from ..losses.linear import Linear
from ..losses.robust import Robust
from ..minimising.infinite_slopes import better, by_differences
from ..minimising.least_squares import least_squares
from ..minimising.solution import Solution
from . import fronts, infinite_slopes
from .brought import beyond, brought, start_from
from .doubts.doses import explained, mistaken, warn_of_doses
from .doubts.patterns import passed_by
from .doubts.runaways import beyond_infinity, grown, told
from .doubts.runaways_of_many import mark
from .doubts.signs import changed
from .doubts.stopped_short import warn_if_short, warn_if_some_are_short
from .fitter import Fitter
from .inference.inference import Inference
from .inference.rho import robust_of
from .likelihoods import check, likelihood_of, with_total
from .measurements.coarse_data import warn_if_coarse
from .measurements.data import Data, gather
from .measurements.grids import flattened
from .measurements.integers import with_real_numbers
from .measurements.labels import warn_of_order
from .measurements.own_rows import check_rows, of_rows
from .measurements.reading import in_unit_of
from .models import by_name, model_of, of_lmfit, started
from .options import check_options, refuse_sides
from .parameters import Parameters, Tie, Transform
from .preparing import (
    acceptable,
    acceptable_counts,
    bounds_from,
    box_of,
    check_count,
    check_order,
    failure,
    start_of,
    take_back,
    understood,
    warn_of,
)
from .results.result import CurveFit
from .starts.blind import beside, unknown
from .starts.unguessed import ADVICE, Blind, searched

# options of `least_squares` that apply to the fit itself, and not to refits for a profile or
# bootstrap
FIRST = (
    "callback",
    "verbose",
    "progress",
    "history",
    "n_starts",
    "sampler",
    "acceptable",
    "second_opinion",
    "compile",
)
minimised = unwrap(least_squares)  # without its face, whose work this face has done
FROM_ZERO = (
    "All parameters start at zero, where they may cancel each other: start from numbers of the "
    "size that you expect."
)
UNIT = (
    "absolute_sigma=True without sigma: the errors are those of data whose standard deviation is "
    "1. Give sigma in the units of ydata (sigma=1 where that is so), or leave absolute_sigma out, "
    "and the scatter of the data tells."
)
NONE = frozenset([type(None)])
STARTS = 8  # how many more starts are tried if p0 was not given and the first fails


@face
@without_autocast
def curve_fit(
    f: Callable[..., Any] | nn.Module | Sequence[Callable[..., Any]],
    xdata: Any,
    ydata: Any,
    p0: Any = None,
    sigma: Any = None,
    absolute_sigma: bool = False,
    check_finite: bool | None = None,
    bounds: Any = (-math.inf, math.inf),
    method: str | None = None,
    jac: str | Callable[..., Any] | None = None,
    *,
    full_output: bool = False,
    nan_policy: str | None = None,
    mask: Any = None,
    fixed: str | Sequence[str] | Mapping[str, float] = (),
    ties: Mapping[str, Tie | str] | Sequence[str] | None = None,
    transforms: Mapping[str, Transform] | None = None,
    shared: Sequence[str] | None = None,
    each_x: bool | None = None,
    likelihood: str | Criterion = "gaussian",
    total_count: Any = None,
    **options: Any,
) -> CurveFit:
    """Fit a curve f(x, a, b, ...) to data, by least squares of (f(x) − y)/σ or by a likelihood.

    To come from `scipy.optimize.curve_fit`, change the import; docs/curve_fit.md lists what
    differs. Write f in torch operations and derivatives are exact; NumPy code is fitted by finite
    differences after a warning.

    Args:
        f: f(x, a, b, ...), with the parameters' names; a model or sum of `lmtorch.models`, which
            brings its start, bounds, fixed values and ties, where the call does not say otherwise;
            f(x, *p) with p0; f(x, params), where p0 is a dict of arrays or tensors; or an
            `nn.Module`, whose parameters are fitted and left as they are (`fit.popt` has the
            values). With `shared`, a list with a function for each data set is allowed.
        xdata: what f takes: (m,), or (k, m) for k predictors, or anything else. Grids of the
            shape of ydata, as numpy.meshgrid makes them, are the points of one surface. With
            `shared`, a list. A table with named columns (a pandas DataFrame) goes to f as it is,
            and is not searched for NaN. Tensors of whole numbers, or of fewer digits than
            ydata has, take the dtype of ydata, as arrays do, unless f refuses these: it may index
            with x.
        ydata: (m,), or a column (m, 1); or (..., m) for a batch of fits, one for each of the
            leading dimensions; or an image over such grids, or (..., H, W) of as many images, of
            whose points the result has a row each.
            With `shared`, a list. Points that a masked array (of x, y or sigma) hides are left out,
            as by `mask`.
        p0: the start: numbers in the order of f's arguments, or a dict by name; (..., P) for one
            start for each fit of a batch; or an earlier fit, which gives its popt. It also says how
            many parameters there are. Default: what a model guesses from the data; else f's default
            values, the middle of bounds, or 1; then arguments whose default is no number (True,
            "linear", None) are no parameters. A dict need not have all names.
        sigma: standard deviations of ydata, a number or (m,) or (..., m), infinite for a point that
            does not count; or their covariance (m, m). Default: all equal.
        absolute_sigma: sigma is in the units of ydata, so that χ² needs no scaling.
            Default: False, as in scipy.
        check_finite: refuse NaN and infinity in the data. Default: True, unless
            nan_policy says otherwise.
        bounds: (lower, upper), each a number or one for each parameter, `scipy.optimize.Bounds`, or
            a dict of pairs by name. Equal bounds fix a parameter. With two parameters
            `[(0, 1), (2, 3)]` means lower and upper bounds, as in scipy, not pairs. Default: none.
        method: scipy's names are accepted; all of them run the same method.
        jac: jac(x, *p) → (m, P), "2-point" or "3-point" for finite differences. Default: exact.
        full_output: unpack to popt, pcov, infodict, mesg, ier. Default: False.
        nan_policy: "raise", or "omit" to leave out points with NaN, for each fit of a batch its
            own, with their rows and columns of a full sigma. Default: None.
        mask: True for points that count, (m,) or (..., m). Default: all.
        fixed: names of parameters to hold at their start, or a dict of values to hold them at.
        ties: equations, `["b = 2 * a"]`; or by name what a parameter follows from, as text,
            `{"b": "2 * a"}`, or as a function of a dict of the other values,
            `{"b": lambda p: 2 * p["a"]}`. In text stand numbers, names of parameters, + − * / **,
            brackets, and functions such as sqrt, exp, log, abs, min, max; it is read and never run.
        transforms: by name, "positive" or an open interval (lower, upper); a change of variables
            keeps the parameter inside.
        shared: names of parameters that several data sets have in common: a global fit. Each data
            set has its own copy of the others, called `name[0]`, `name[1]`, ...
        each_x: whether xdata has the leading dimensions of ydata. Default: if it has the shape of
            ydata, and that is no column. False: its rows are the variables of f, also then.
        likelihood: "poisson", "binomial" or "negative_binomial" for counts, fitted by maximum
            likelihood with errors from the Fisher information; then f is the mean count, or for
            "binomial" the probability. Or a criterion of one output for each point, such as
            `lmtorch.PoissonNLLLoss()`; then f is its output, here log μ. Without sigma and loss.
            Default: "gaussian", least squares.
        total_count: of "binomial" the trials at each point, of which ydata are the successes; of
            "negative_binomial" r of the variance μ + μ²/r. A number, (m,) or (..., m).
        options: options of `least_squares`: loss, f_scale, max_nfev, ftol, solver, n_starts,
            callback, verbose, progress, ...

    Returns:
        A `CurveFit`, which unpacks to popt (..., P), pcov (..., P, P). They are NumPy arrays if
        ydata was; otherwise tensors with the dtype and device of ydata, and popt carries gradients
        to xdata, ydata and sigma where they require them.

    Raises:
        InputError: data, parameters or options cannot be fitted. It is also a `ValueError`.
        InputTypeError: an argument has a wrong type, or there are fewer points than parameters, as
            in scipy. It is also a `TypeError`.
        NotConvergedError: a single fit came to no minimum; the error's `fit` has the best point. It
            is also a `RuntimeError`. For a batch look at `success`.

    References: Bates & Watts, Nonlinear regression analysis and its applications (1988); Press et
    al., Numerical recipes (2007), §15.

    Example:
        >>> import numpy as np, torch, lmtorch
        >>> x = np.array([0.02, 0.06, 0.11, 0.22, 0.56, 1.10])
        >>> y = np.array([61.5, 102.0, 131.0, 155.5, 196.0, 203.5])
        >>> def rate(concentration, v_max, k):
        ...     return v_max * concentration / (k + concentration)
        >>> popt, pcov = fit = lmtorch.curve_fit(rate, x, y, p0=[200, 0.1])
        >>> print(fit)
        CurveFit(v_max=213(7), k=0.064(8))
    """
    call = None
    squares = type(likelihood) is str and likelihood == "gaussian"
    if absolute_sigma is True and sigma is None and squares:
        warn_of_fit(UNIT)
    others = (
        sigma, check_finite, method, jac, nan_policy, mask, ties, transforms, shared, each_x,
        total_count, None if squares else likelihood,
    )  # fmt: skip
    plain = NONE.issuperset(map(type, others)) and type(fixed) is tuple and not fixed
    if plain:
        given = {**options, "absolute": absolute_sigma, "full": full_output}
        call = fronts.asked_of(f, xdata, ydata, p0, bounds, given)
        if call and (fit := fronts.fitted(f, call)) is not None:
            return fit
    options = dict(options)
    if "maxfev" in options:
        options["max_nfev"] = options.pop("maxfev")  # leastsq's name
    for name in ("args", "kwargs", "in_dims", "x0", "fun"):
        if name in options:
            raise InputError(f"{name} is not an option of curve_fit: put constants into f itself.")
    if options.get("process_group") is not None:
        raise InputError(
            "curve_fit runs in one process: process_group is for least_squares, whose function "
            "returns the residuals of the points that a process has."
        )
    if "weights" in options:
        raise InputTypeError(
            "weights is not an option of curve_fit, as it has two meanings. Of weights that "
            "multiply residuals, as in lmfit or numpy.polyfit, give sigma=1/weights; of those that "
            "multiply their squares, as in R or MATLAB, sigma=1/numpy.sqrt(weights)."
        )
    refuse_sides(sigma, absolute_sigma)
    absolute_sigma, full_output = (
        flag(absolute_sigma, "absolute_sigma"),
        flag(full_output, "full_output"),
    )
    check_finite = (
        nan_policy is None if check_finite is None else flag(check_finite, "check_finite")
    )
    if elsewhere := of_lmfit(f):
        raise InputTypeError(elsewhere)
    if shared is None and not callable(f):
        raise InputTypeError(
            f"f is {type(f).__name__}: give a function f(x, a, b, ...), f(x, params) or a module. "
            "It comes first, curve_fit(f, xdata, ydata)."
        )
    warn_of_order(xdata=xdata, ydata=ydata, sigma=sigma, mask=mask)
    likely = likelihood_of(likelihood, total_count, options, sigma)
    sigma = in_unit_of(sigma, ydata, ("sigma", "ydata"))
    image = shared is None and each_x is None
    if image and (surface := flattened(f, xdata, ydata, sigma, mask, total_count)):
        xdata, ydata, sigma, mask, total_count = surface
    data = gather(
        xdata, ydata, sigma, mask,
        check_finite=check_finite, nan_policy=nan_policy, joint=shared is not None,
        each_x=None if each_x is None else flag(each_x, "each_x"),
    )  # fmt: skip
    if likely is not None:
        data = with_total(data, total_count)
        check(likely, data)
    p0 = started(p0)
    check_order(data, p0)
    model = model_of(f, p0, shared, len(data.sizes))
    check_options(options, model.names, curve_fit)
    rules = brought(model, bounds, fixed, ties, transforms)
    held = tuple(rules.fixed)
    parameters = Parameters(list(model.names), held, rules.ties, transforms or {})
    lower, upper = bounds_from(rules.bounds, model, parameters)

    def begin(data: Data) -> Tensor:
        start = start_from(model, data, p0, rules, (lower, upper), likely)
        return start_of(model, start, data, rules.values, lower, upper)

    start = begin(data)
    data = with_real_numbers(data, model, start, jac)
    n = len(parameters.variables)
    box = box_of(lower, upper, parameters, start, bounds)
    if method is not None:
        options["method"] = method
    robust = robust_of(options)
    fitter = Fitter(model, parameters, data, start, box, jac, options, likely)
    check_count(data, fitter.varying)
    own = each_x is None and data.each_x
    if own:
        check_rows(model, data, start)
    u = parameters.inward(start.expand(*data.lead, -1) if start.ndim == 1 else start)
    warn_of_doses(f, data)
    with understood(data, xdata), explained(fitter), of_rows(data) if own else nullcontext():
        rows = u.reshape(-1, n) if data.lead else u
        asked = fitter.minimisation(rows, **_doubts(fitter, robust, p0))
        blind = Blind(fitter, asked, minimised) if searched(fitter, robust, p0) else None
        solution, u = (minimised(**asked), u) if blind is None else blind.first(u)
        if infinite_slopes.met(fitter, solution):
            second = by_differences(minimised, asked)
            if better(second, solution):
                infinite_slopes.tell(fitter, solution)
                fitter, solution = replace(fitter, jac="2-point"), second
        if blind is not None:
            solution, u = blind.second(solution, u, fitter.jac != jac)
    take_back(solution, data, fitter.varying)
    # refits for a profile or a bootstrap start from the solution, and without messages
    quiet = {key: value for key, value in options.items() if key not in FIRST}
    if quiet.keys() != options.keys():
        fitter = replace(fitter, options=quiet)
    away: list[int] = []
    ran = ""
    if data.lead:
        ran = mark(fitter, solution, u)
    else:
        solution, away = beyond_infinity(fitter, solution, u, asked.get("acceptable"))
    inference = _inference(fitter, solution, absolute_sigma, robust)
    hint = "" if data.lead or solution.success else mistaken(fitter)
    if why := failure(solution, data, hint):
        why += grown(parameters.variables, solution, u)
        raise NotConvergedError(why, CurveFit(inference, full_output=full_output, failed=True))
    hint = hint or inference.edge
    if not (data.lead or solution.success or bool((u != 0).any())):
        hint = hint or FROM_ZERO
    warn_of(solution, data, hint)
    if robust is None and fitter.likelihood is None:
        warn_if_coarse(data, tensor_of(solution.cost))
        if data.lead:
            warn_if_some_are_short(fitter, solution, absolute_sigma)
        else:
            warn_if_short(inference)
    if rules.limits and (out := beyond(rules.limits, by_name(inference.names, inference.p))):
        warn_of_fit(
            f"a tie has led to {out}: bound what it follows from, or write the tie otherwise."
        )
    amiss = blind is not None and blind.amiss(solution)
    if (names := unknown(model, p0, rules)) and beside(data, inference.residual):
        said = (
            "the curve misses the data by far more than their scatter. Nothing was known of where "
            f"{names} start, and another start may end at a lower minimum: give "
            "p0={name: value, ...}, or from_function(f, guess=...)."
        )
    elif amiss:
        said = ADVICE
    else:
        said = "" if p0 is None else changed(fitter, solution, u)
    constants = None if "acceptable" in options else asked.get("acceptable")
    if said := said or passed_by(inference, constants):
        warn_of_fit(said)
    if away:
        ran = told(parameters.variables, away, solution, u)
        solution["status"], solution["message"] = Status.RUNAWAY, Status.RUNAWAY.message
    if ran:
        warn_of_fit(ran)
    if not data.lead:
        inference.warn([parameters.variables[i] for i in away])
    if call and not (names or amiss):  # a fit by what is remembered would say nothing
        fronts.remember(call, fitter, solution, absolute_sigma, full_output, begin)
    return CurveFit(inference, full_output=full_output)


def _inference(
    fitter: Fitter, solution: Solution, absolute: bool, robust: Robust | None
) -> Inference:
    """What follows from a fit by squares, or by a likelihood."""
    if fitter.likelihood is not None:
        from .inference.counting import CountedInference  # is imported where it is needed

        return CountedInference(fitter, solution)
    return Inference(fitter, solution, absolute, robust)


def _doubts(fitter: Fitter, robust: Robust | None, p0: Any) -> dict[str, Any]:
    """Options of `least_squares` that say what is doubtful and how it is tried again."""
    parameters, data, options = fitter.parameters, fitter.data, fitter.options
    found: dict[str, Any] = {"names": parameters.variables}
    if p0 is None and not parameters.transforms:
        found["second_opinion"] = STARTS
    # with fixed or tied parameters a model may not be able to match a constant; and if the scale of
    # the loss is estimated, the cost of a constant is not known beforehand
    if (
        not parameters.fixed
        and not parameters.ties
        and not data.sizes
        and options.get("f_scale") != "mad"
    ):
        if fitter.likelihood is not None:
            bar = acceptable_counts(data, fitter.likelihood)
        else:
            bar = acceptable(data, Linear() if robust is None else robust)
        if bar is not None:
            found["acceptable"] = bar.reshape(-1) if data.lead else bar
    return {key: value for key, value in found.items() if key not in options}
