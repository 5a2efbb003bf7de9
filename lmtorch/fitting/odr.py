"""`odr`: orthogonal distance regression, for data with errors in x and in y."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from .. import choose
from .._arrays import to_array
from .._autocast import without_autocast
from .._checks import flag
from .._errors import InputError, NotConvergedError
from .._faces import face
from ..choose import Facts, Options
from ..core.bounds import Bounds
from ..core.loop import descend
from ..core.method import Method
from ..core.problem import Problem
from ..core.state import Start, State
from ..core.termination import Status
from ..jacobians.finite_difference import FiniteDifference
from ..jacobians.ladder import Ladder
from ..linearizations.blocks import Blocks
from ..losses.linear import Linear
from ..minimising.arguments import limits, tolerance
from ..minimising.probing import probe
from ..minimising.solution import Solution
from ..minimising.unknowns import Unknowns
from ..minimising.user_function import UserFunction
from .brought import brought, start_from
from .data import Data, gather
from .fitter import Fitter, in_kind
from .inference import Inference
from .models import model_of, started
from .orthogonal import DisplacementResidual, OwnColumns
from .parameters import Parameters, Tie, Transform
from .preparing import (
    bounds_from,
    box_of,
    check_count,
    check_order,
    failure,
    start_of,
    warn_of,
)
from .reading import numbers_of, shown_of
from .result import CurveFit


class OrthogonalInference(Inference):
    """Inference from the rows that are left when each point's error in x is eliminated.

    Args:
        fitter: model, parameters, data.
        solution: of the parameters alone.
        absolute: as for `Inference`.
        delta: displacements, in the shape of x.
        x_error: σ_x (m, k), zero where x is exact.
    """

    def __init__(
        self, fitter: Fitter, solution: Solution, absolute: bool, delta: Tensor, x_error: Tensor
    ) -> None:
        super().__init__(fitter, solution, absolute, None)
        self.delta = delta
        self.x_error = x_error

    extras = ("delta", "x_error", "curve")

    @cached_property
    def curve(self) -> Tensor:
        """The curve where the points have moved to, (m,); NaN for a point that is left out."""
        return self.counted(self.again())

    def again(self) -> Tensor:
        """The curve there, as the model gives it now."""
        data = self.fitter.data
        return self.sensitivity(data.x + self.delta, data.m)[0]

    def counted(self, values: Tensor) -> Tensor:
        """Values (..., m) with NaN for points that are left out."""
        weights = self.fitter.data.weights
        return values if weights is None else torch.where(weights > 0, values, torch.nan)

    @property
    def rsquared(self) -> Tensor:
        """R² is NaN: with errors in x there is no variance of y to compare with."""
        return torch.full_like(self.chisqr, math.nan)

    @property
    def loglikelihood(self) -> Tensor:
        """NaN: with errors in x it is another one for each way to treat where points are."""
        return torch.full_like(self.chisqr, math.nan)


class OrthogonalFit(CurveFit):
    """The result of `odr`: a `CurveFit` that knows where the points have moved to.

    Errors of the parameters are those of the linear model with each point's error in x eliminated;
    chisqr counts both errors. R² is NaN, and there is no profile and no bootstrap.

    Example:
        >>> import numpy as np, torch, lmtorch
        >>> x, y = np.array([0.0, 1.1, 1.9, 3.0]), np.array([0.1, 2.0, 4.1, 5.9])
        >>> fit = lmtorch.odr(lambda x, a, b: a + b * x, x, y, sx=0.1, sy=0.1)
        >>> print(fit)
        CurveFit(a=0.0(2), b=2.0(1))
    """

    _inference: OrthogonalInference

    @property
    def delta(self) -> Any:
        """The displacements x_fit − x, in the shape of x."""
        return self._out(self._inference.delta)

    @property
    def x_fit(self) -> Any:
        """Where the points are on the curve, in the shape of x, or NaN; scipy.odr's xplus."""
        return self._out(
            self._inference.counted(self._inference.fitter.data.x + self._inference.delta)
        )

    @property
    def eps(self) -> Any:
        """The fitted y minus the measured, (m,)."""
        return self._out(self._inference.curve - self._inference.fitter.data.y)

    def profile(self, names: Any = None, level: float = 0.95, points: int = 15) -> Any:
        """Not available.

        Args:
            names: ignored.
            level: ignored.
            points: ignored.

        Raises:
            InputError: always.
        """
        raise InputError("profiles of fits with errors in x are not available.")

    def bootstrap(self, samples: int = 1000, kind: str | None = None, seed: int = 0) -> Any:
        """Not available.

        Args:
            samples: ignored.
            kind: ignored.
            seed: ignored.

        Raises:
            InputError: always.
        """
        raise InputError("the bootstrap of fits with errors in x is not available.")


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
    absolute_sigma: bool = False,
    bounds: Any = (-math.inf, math.inf),
    fixed: str | Sequence[str] | Mapping[str, float] = (),
    ties: Mapping[str, Tie] | None = None,
    transforms: Mapping[str, Transform] | None = None,
    ftol: float | str | None = "auto",
    xtol: float | str | None = "auto",
    gtol: float | str | None = "auto",
    max_nfev: int | None = None,
) -> OrthogonalFit:
    """Fit a curve to data with errors in x and y: points move to it by the shortest way.

    Minimises Σ ((f(x + δ) − y)/σ_y)² + Σ (δ/σ_x)² over the parameters and a δ for every point, by
    the same loop as `curve_fit`; the δ are eliminated point by point, so the cost of an iteration
    is that of a plain fit.

    Args:
        f: f(x, a, b, ...), as for `curve_fit`; each value may depend on its own x alone.
        x: (m,), or (k, m) for k predictors.
        y: (m,). Points that a masked array (of x, y, sx or sy) hides are left out.
        p0: as for `curve_fit`.
        sx: standard deviations of x, a number or of the shape of x, (k, 1) for one each; zero where
            x is exact. Default: 1.
        sy: of y, a number or (m,). Default: 1.
        absolute_sigma: the errors are in the units of the data, and need no scaling by χ². Default:
            False.
        bounds: of the parameters, as for `curve_fit`.
        fixed: parameters that are held, as for `curve_fit`.
        ties: parameters that follow from others, as for `curve_fit`.
        transforms: scales on which parameters are fitted, as for `curve_fit`.
        ftol: as for `least_squares`.
        xtol: as for `least_squares`.
        gtol: as for `least_squares`.
        max_nfev: evaluations of f at all points at most. Default: 1000.

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
    """
    absolute_sigma = flag(absolute_sigma, "absolute_sigma")
    tolerances = tuple(
        tolerance(value, name) for value, name in ((ftol, "ftol"), (xtol, "xtol"), (gtol, "gtol"))
    )
    trials = limits(max_nfev)
    shown = shown_of(sx)
    mask = None if shown is None else shown.reshape(-1, shown.shape[-1]).all(0)
    try:
        data = gather(x, y, sy, mask, check_finite=True, nan_policy=None, joint=False, each_x=False)
    except InputError as error:
        raise type(error)(_renamed(str(error))) from error
    if data.y.ndim != 1:
        raise InputError(f"y has shape {tuple(data.y.shape)}: odr fits one curve, (m,).")
    if data.root is not None:
        raise InputError("sy is a matrix: odr takes standard deviations of independent errors.")
    if not isinstance(data.x, Tensor) or data.x.ndim > 2 or data.x.shape[-1] != data.m:
        raise InputError(f"x must be numbers of shape ({data.m},) or (k, {data.m}), as many as y.")
    p0 = started(p0)
    check_order(data, p0)
    model = model_of(f, p0, None, 0)
    rules = brought(model, bounds, fixed, ties, transforms)
    parameters = Parameters(list(model.names), tuple(rules.fixed), rules.ties, transforms or {})
    lower, upper = bounds_from(rules.bounds, model, parameters)
    start = start_from(model, data, p0, rules, (lower, upper))
    start = start_of(model, start, data, rules.values, lower, upper)
    n = len(parameters.variables)
    fitter = Fitter(model, parameters, data, start, box_of(lower, upper, parameters, start, bounds))
    check_count(data, fitter.varying)
    weights = _weights(sx, data)
    problem, method, point = _problem(fitter, parameters.inward(start), weights, tolerances)
    with torch.no_grad():
        state, _ = descend(problem, method, Start(point), trials=trials)
        solution, delta = _solution(problem, state, n)
    shape = data.x.shape
    moved = delta[:, 0] if len(shape) == 1 else delta.mT
    x_error = torch.where(weights > 0, 1 / weights, 0.0).expand(delta.shape)
    inference = OrthogonalInference(fitter, solution, absolute_sigma, moved, x_error)
    if why := failure(solution, data):
        raise NotConvergedError(why, OrthogonalFit(inference, failed=True))
    warn_of(solution, data)
    inference.warn()
    return OrthogonalFit(inference)


def _renamed(message: str) -> str:
    """A message about arguments of `curve_fit` with the names of the arguments of `odr`."""
    for theirs, ours in (("xdata", "x"), ("ydata", "y"), ("sigma", "sy")):
        message = re.sub(rf"\b{theirs}\b", ours, message)
    return message


def _weights(sx: Any, data: Data) -> Tensor:
    """Weights of the displacements.

    Returns:
        1/σ_x (m, k), zero where x is exact.

    Raises:
        InputError: negative, NaN, or of another shape.
    """
    x = data.x
    try:
        deviations = numbers_of(1.0 if sx is None else sx, "sx").to(x).expand(x.shape)
    except RuntimeError as error:
        raise InputError(
            f"sx does not fit x of shape {tuple(x.shape)}: give one number, or the shape of x."
        ) from error
    left_out = x.new_zeros(data.m, dtype=torch.bool) if data.weights is None else data.weights <= 0
    if not bool(((deviations >= 0) | left_out).all()):
        raise InputError(
            "sx has entries that are negative or NaN: it holds standard deviations, zero for an "
            "exact x."
        )
    inverse = torch.where(deviations > 0, 1 / deviations, 0.0)
    return inverse[:, None] if x.ndim == 1 else inverse.mT.contiguous()


def _problem(
    fitter: Fitter, u: Tensor, weights: Tensor, tolerances: tuple[float | None, ...]
) -> tuple[Problem, Method, Tensor]:
    """The loop's problem, its method, and where it starts."""
    data, start = fitter.data, fitter.start
    n, (m, k) = len(u), weights.shape
    y, scale = data.y.detach(), data.weights

    def residual(theta: Any, x: Any) -> Any:
        """The residuals at (u, τ), with all points displaced by τ."""
        shift = theta[n:]
        p = fitter.parameters_at(theta[:n], start)
        points = x + (shift if data.x.ndim == 1 else shift[:, None])
        curve = fitter.curve(fitter.model(points, in_kind(p, theta)), p, m)
        values = fitter.whiten(curve - y.to(curve), scale, None)
        return in_kind(values, theta)

    theta = torch.cat([u, u.new_zeros(k)])
    unknowns = Unknowns(to_array(theta) if data.numpy else theta)

    def make(arrays: bool) -> UserFunction:
        return UserFunction(residual, unknowns, (data.x.detach()[None],), {}, (0,), arrays)

    room = theta.new_full((k,), math.inf)
    inside = Bounds(torch.cat([fitter.bounds[0], -room]), torch.cat([fitter.bounds[1], room]))
    calling, probed = probe(make, None, inside)
    if not probed.finite:
        raise InputError(
            "the residuals are not finite at p0: start elsewhere, or look for NaN in the data."
        )
    options = Options(
        solver=choose.ELIMINATION,
        damping="trust_region",
        scaling="more",
        jacobian=FiniteDifference() if probed.black_box else "auto",
        ftol=tolerances[0],
        xtol=tolerances[1],
        gtol=tolerances[2],
        polish=choose.POLISH,
        certified=0,
    )
    plan = choose.plan([Facts(n + k, m, None, probed.activations, u.dtype, u.device)], options)
    point = torch.cat([u, u.new_zeros(m * k)])
    free = point.new_full((m * k,), math.inf)
    box = Bounds(torch.cat([fitter.bounds[0], -free]), torch.cat([fitter.bounds[1], free]))
    bounded = bool((box.lower.isfinite() | box.upper.isfinite()).any())
    displaced = DisplacementResidual(calling.detached(), data.x.detach(), n, probed.black_box)
    weights = weights.to(plan.dtype).expand(m, k)
    problem = Problem(
        displaced,
        OwnColumns(displaced, Ladder(plan.terms[0].rungs), weights > 0),
        plan.method.solver.form,
        Linear(),
        plan.dtype,
        penalty=torch.cat([weights.new_zeros(n), weights.square().flatten()]),
        bounds=Bounds(*(side.to(plan.dtype) for side in box)) if bounded else None,
        differences=plan.differences,
    )
    return problem, plan.method, point


def _solution(problem: Problem, state: State, n: int) -> tuple[Solution, Tensor]:
    """The solution in the parameters, rows √ω r̃ and √ω G without the errors in x, and δ (m, k)."""
    x = state.x
    model = problem.model(x)
    assert isinstance(model, Blocks)
    reduced = model.reduced().dense
    status = Status(int(state.status))
    free = problem.free(x, model.gradient)[:n]
    side = torch.where(model.gradient[:n] > 0, -1, 1)
    solution = Solution(
        x=x[:n],
        cost=float(state.cost),
        fun=reduced.residual,
        jac=reduced.jacobian,
        active_mask=torch.where(free, 0, side),
        nfev=1 + int(state.trials),
        status=status,
        message=status.message,
        success=status.converged,
        f_scale=1.0,
    )
    return solution, x[n:].view(model.rows.own.shape)
