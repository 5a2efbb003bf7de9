"""From a fitter of points with errors in x to the loop's problem, and from its end to a solution.

An implicit model f(x, β) = 0 is a sequence of explicit ones, by the method of multipliers: of
"measured" zeros y with weights κ (V Vᵀ)⁻¹, where V Vᵀ is what the errors of x make of f. After each
run of the loop y moves by −f, so that the next one comes nearer to f = 0 by a factor of about κ.

References: Boggs, Byrd & Schnabel (1987); Nocedal & Wright, Numerical optimization (2006), §17.3.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import choose
from .._arrays import tensor_of, to_array
from .._errors import FallbackWarning, InputError
from .._threads import quiet as quiet_of
from ..choose import Facts, Options
from ..core.bounds import Bounds
from ..core.loop import descend
from ..core.method import Method
from ..core.problem import Problem
from ..core.state import Start, State
from ..core.termination import Status, Tolerances
from ..jacobians.finite_difference import FiniteDifference
from ..jacobians.given import GivenJacobian
from ..jacobians.ladder import Ladder
from ..linearizations.blocks import Blocks
from ..losses.linear import Linear
from ..minimising.least_squares import least_squares
from ..minimising.probing import probe
from ..minimising.solution import Solution
from ..minimising.unknowns import Unknowns
from ..minimising.user_function import UserFunction
from .orthogonal import DisplacementResidual, OwnColumns
from .orthogonal_checks import check_apart, check_given
from .orthogonal_fitter import OrthogonalFitter, Points
from .orthogonal_saddles import beside_saddles
from .orthogonal_watch import Onlooker

STRENGTHS = (1.0, 1e2, 1e4, 1e6)  # κ of the runs of an implicit fit; the last one is repeated
ROUNDS = 10  # runs at most
LOOSE = Tolerances(1e-3, 1e-3, 1e-3)  # of runs whose y is still far off
MET = 1e-12  # f is zero if it is less than what this share of the displacements makes of it
DOUBTED = 1e4  # of that is left where the equations are not fulfilled
LEAST = 1e-3  # V of a point is taken for no less than this share of the others'
VANISHED = 1e-20  # f has lost its slopes to zero if so little is left of those at the start
ROUNDINGS = 64


class Setting(NamedTuple):
    """What is minimised, how, and from where."""

    problem: Problem
    method: Method
    x: Tensor  # (..., n + m·k)
    shares: tuple[Tensor, ...]
    n: int


def minimised(
    fitter: OrthogonalFitter,
    u: Tensor,
    points: Points,
    bounds: tuple[Tensor, Tensor],
    *,
    near: bool,
    callback: Callable[..., Any] | None = None,
) -> Solution:
    """Minimise from every row of u, (n,) or (b, n), which is near a minimum or may be far."""
    setting = set_up(fitter, u, points, bounds)
    seen = Onlooker(callback, u, fitter.parameters.variables, fitter.data.numpy)
    with torch.no_grad():
        if fitter.data.implicit:
            point, spent = (setting.x, 1) if near else _on_equations(fitter, setting)
            return _implicit(fitter, setting._replace(x=point), spent, seen)
        # no more than a half is spent on where to begin
        point, spent = (setting.x, 1) if near else _started(setting, fitter.trials // 2)
        left = fitter.trials + 1 - int(tensor_of(spent).max())
        seen.spent = spent
        problem, method = setting.problem, setting.method
        state, _ = descend(problem, method, Start(point), trials=left, watch=seen.watch)
        state = beside_saddles(problem, method, state, left, seen)
        model = _blocks(setting.problem, state.x)
        return _solution(fitter, setting, state, spent + state.trials, model, 1.0)


def _started(setting: Setting, trials: int) -> tuple[Tensor, Tensor | int]:
    """From where to begin: p0, or the fit without errors in x.

    Far from a minimum points that may move far fit themselves to whatever curve there is. The
    nearer of both is taken, by the distances of the linear model.

    Returns:
        The point, and the evaluations for that.
    """
    problem, method, point, (x, spread, *rest), n = setting
    if not bool(spread.any()):  # it is the same fit
        return point, 1
    still = _of(problem, (x, torch.zeros_like(spread), *rest))
    way = replace(method, tolerances=LOOSE, polish=0, certify=False)
    state, _ = descend(still, way, Start(point), trials=trials)
    other = torch.cat([state.x[..., :n], point[..., n:]], -1)
    # a list: out of a generator a StopIteration of the user's function would come as another error
    here, there = [
        _blocks(problem, one).reduced().dense.residual.square().sum(-1) for one in (point, other)
    ]
    return torch.where((there < here)[..., None], other, point), 1 + state.trials


def set_up(
    fitter: OrthogonalFitter, u: Tensor, points: Points, bounds: tuple[Tensor, Tensor]
) -> Setting:
    """The loop's problem."""
    data, n, k, m = fitter.data, u.shape[-1], fitter.data.predictors, fitter.data.points
    batched, count = u.ndim > 1, len(u) if u.ndim > 1 else 1
    x, spread, y, whitening, eta = (one.detach().expand(count, *one.shape[1:]) for one in points)
    begin = fitter.start.expand(count, -1)
    shares = (x, spread, y, whitening, begin)
    theta = torch.cat([u, u.new_zeros(*u.shape[:-1], k)], -1)
    given = to_array(theta) if data.numpy else theta
    unknowns = Unknowns(given, 0, count) if batched else Unknowns(given)

    def make(arrays: bool) -> UserFunction:
        arguments = (eta.mT, *shares)
        return UserFunction(
            fitter.residual_at, unknowns, arguments, {}, (0,) * len(arguments), arrays
        )

    def box_of(free: int) -> Bounds:
        room = theta.new_full((*bounds[0].shape[:-1], free), math.inf)
        return Bounds(torch.cat([bounds[0], -room], -1), torch.cat([bounds[1], room], -1))

    calling, probed = probe(make, None if fitter.jac is None else False, box_of(k))
    if not probed.finite and not batched:
        raise InputError(
            "the residuals are not finite at p0: start elsewhere, or look for NaN in the data."
        )
    if not data.implicit:
        check_apart(calling, theta[0] if batched else theta, (eta.mT, *shares), data.each)
    source: str | GivenJacobian | FiniteDifference = "auto"
    if fitter.jac is not None:
        rows = calling.jacobian(fitter.given_rows)
        check_given(fitter, calling, rows, theta[0] if batched else theta, (eta.mT, *shares))
        source = GivenJacobian(rows)
    elif probed.black_box:
        source = FiniteDifference()
    ftol, xtol, gtol = fitter.tolerances
    options = Options(
        solver=choose.elimination(k),
        damping="trust_region",
        scaling="more",
        jacobian=source,
        ftol=ftol,
        xtol=xtol,
        gtol=gtol,
        polish=choose.POLISH,
    )
    facts = Facts(
        n + k, data.each * m, None, probed.activations * count, u.dtype, u.device, problems=count,
        functional=not batched,
    )  # fmt: skip
    plan = choose.plan([facts], options)
    residual = DisplacementResidual(
        calling.detached(), shares, n, m, k, data.each,
        batched=batched, looped=probed.looped, black_box=probed.black_box and fitter.jac is None,
    )  # fmt: skip
    start = eta if batched else eta[0]
    point = torch.cat([u, start.flatten(-2)], -1)
    box = box_of(m * k)
    bounded = bool((box.lower.isfinite() | box.upper.isfinite()).any())
    problem = Problem(
        residual,
        OwnColumns(Ladder(plan.terms[0].rungs)),
        plan.method.solver.form,
        Linear(),
        plan.dtype,
        penalty=torch.cat([u.new_zeros(n), u.new_ones(m * k)]).to(plan.dtype),
        bounds=Bounds(*(side.to(plan.dtype) for side in box)) if bounded else None,
        differences=plan.differences,
    )
    return Setting(problem, plan.method, point, shares, n)


def _on_equations(fitter: OrthogonalFitter, setting: Setting) -> tuple[Tensor, Tensor | int]:
    """From where to begin with an implicit model: p0, or where points are near without moving.

    Far from the curve points may move to another side of it than their own. To first order their
    distance is f/‖Tᵀ∇f‖ (Sampson's), a plain function of the parameters that is fitted first.

    Reference: Sampson, Fitting conic sections to very scattered data (1982).

    Returns:
        The point, and the evaluations for that.
    """
    problem, _, point, (x, spread, y, mask, start), n = setting
    raw = _of(problem, (x, spread, torch.zeros_like(y), mask, start))
    (part,) = raw.residual.parts()
    if point.ndim > 1 or part.black_box or fitter.jac is not None or mask.shape[1] > 1:
        return point, 1
    eta = raw.residual.params(point)[1]

    def apart(u: Tensor) -> Tensor:
        def values(eta: Tensor) -> Tensor:
            return part.function((u, eta))

        pulled: Any = torch.func.vjp(values, eta)
        f, pull = pulled
        squares = pull(torch.ones_like(f))[0].square().sum(-1)
        # a point in the middle of a circle is at no distance to first order
        size = (squares + LEAST**2 * squares.mean()).sqrt()
        return torch.where(mask.flatten() > 0, f / size, 0.0)

    if not bool(apart(point[:n]).isfinite().all()):
        return point, 1
    with quiet_of(FallbackWarning):
        found = least_squares(
            apart, point[:n], bounds=fitter.bounds, max_nfev=fitter.trials, polish=0
        )
    here, there = (float(apart(u).square().sum()) for u in (point[:n], found.x))
    other = torch.cat([found.x.detach(), point[n:]])
    return (other if there < here else point), 1 + int(found.nfev)


def _implicit(
    fitter: OrthogonalFitter, setting: Setting, spent: Tensor | int, seen: Onlooker
) -> Solution:
    """Runs whose y moves until f is zero."""
    problem, method, point, shares, _ = setting
    mask = shares[3]
    force = torch.zeros_like(mask)  # λ, by which F changes with each f
    evaluations = torch.ones(point.shape[:-1], dtype=torch.int64, device=point.device) * spent
    raw = _with(problem, shares, torch.zeros_like(mask), mask)
    model, before = _blocks(raw, point), math.inf
    left = fitter.trials + 1 - int(evaluations.max())
    begun = _slopes(model, mask)
    for number in range(ROUNDS):
        early = number < len(STRENGTHS) - 1
        weights = _Weights(model, mask, STRENGTHS[min(number, len(STRENGTHS) - 1)])
        y = torch.where(mask > 0, -weights.inverse(force), 0.0)
        one = _with(problem, shares, y, weights.root)
        way = replace(method, tolerances=LOOSE, polish=0, certify=False) if early else method
        seen.spent = evaluations
        state, _ = descend(one, way, Start(point), trials=max(1, left), watch=seen.watch)
        if not early:
            state = beside_saddles(one, way, state, left, seen)
        point, evaluations = state.x, evaluations + state.trials
        left = fitter.trials - int(evaluations.max())
        model = _blocks(raw, point)
        force = weights.times(model.residual.view(mask.shape) - y)
        apart = _apart(raw, model, point, mask)
        most = float(apart.amax())
        gone = _slopes(model, mask) <= VANISHED * begun
        last = number == ROUNDS - 1 or left <= 1 or bool(gone.all()) or seen.stopped
        if last or (not early and (most <= 1 or not most <= before / 2)):
            apart = torch.where(gone, torch.inf, apart)
            status = _judged(state.status, apart, spent=left <= 1)
            if seen.stopped:  # y has not settled, whatever this run has found
                status = torch.full_like(status, int(Status.STOPPED))
            state = state._replace(status=status)
            floor = (mask == 0).to(mask)
            return _solution(fitter, setting, state, evaluations, model, floor)
        before = math.inf if early else most
    raise AssertionError


def _judged(status: Tensor, apart: Tensor, *, spent: bool) -> Tensor:
    """How an implicit fit has ended, (...,), by its last run and by whether f is zero."""
    met = (apart <= DOUBTED).reshape(status.shape)
    stalled = status == int(Status.STALLED)
    ended = (status != int(Status.EVALUATIONS)) & (status != int(Status.NOT_FINITE))
    # a run that begins at its end has nothing to gain but round-off
    status = torch.where(met & stalled, int(Status.COST), status)
    return torch.where(~met & ended, int(Status.EVALUATIONS if spent else Status.LOST), status)


def _with(problem: Problem, shares: tuple[Tensor, ...], y: Tensor, whitening: Tensor) -> Problem:
    """The problem with other y and R."""
    x, spread, _, _, start = shares
    return _of(problem, (x, spread, y, whitening, start))


def _of(problem: Problem, shares: tuple[Tensor, ...]) -> Problem:
    """The problem with other arguments."""
    residual = problem.residual
    assert isinstance(residual, DisplacementResidual)
    return replace(problem, residual=replace(residual, shares=shares))


def _blocks(problem: Problem, x: Tensor) -> Blocks:
    model = problem.model(x)
    assert isinstance(model, Blocks)
    return model


class _Weights:
    """Weights κ (V Vᵀ)⁻¹ of the equations, for V of the raw model.

    Attributes:
        root: R, (b, q, m), or (b, q, q, m) of several equations.
    """

    def __init__(self, model: Blocks, mask: Tensor, strength: float) -> None:
        own = model.rows.by_point.reshape(*mask.shape, -1)  # (b, q, m, k)
        across = torch.einsum("bimk,bjmk->bmij", own, own)
        eye = torch.eye(across.shape[-1], dtype=own.dtype, device=own.device)
        size = across.diagonal(dim1=-2, dim2=-1).mean((-1, -2))[:, None, None, None]
        gone = (mask[:, 0] == 0)[..., None, None]
        self.across = torch.where(gone, eye, across + LEAST**2 * size * eye) / strength
        lower = torch.linalg.cholesky_ex(self.across).L
        root = torch.linalg.solve_triangular(lower, eye.expand(lower.shape), upper=False)
        self.whole = torch.where(gone, 0.0, root)  # (b, m, q, q)
        self.root = self.whole[..., 0].mT if len(eye) == 1 else self.whole.movedim(1, -1)

    def inverse(self, force: Tensor) -> Tensor:
        """W⁻¹ of (b, q, m)."""
        return (self.across @ force.mT[..., None])[..., 0].mT

    def times(self, left: Tensor) -> Tensor:
        """W of (b, q, m)."""
        return (self.whole.mT @ (self.whole @ left.mT[..., None]))[..., 0].mT


def _slopes(model: Blocks, mask: Tensor) -> Tensor:
    """The largest derivative of f in x of each fit, (b,)."""
    return model.rows.own.abs().reshape(len(mask), -1).amax(-1)


def _apart(raw: Problem, model: Blocks, point: Tensor, mask: Tensor) -> Tensor:
    """How far f is from zero beside what is as good as zero, of each fit, (b,)."""
    shared, n = model.rows.shared, model.rows.shared.shape[-1]
    own = model.rows.by_point.reshape(*mask.shape, -1)
    eta = raw.residual.params(point)[1].reshape(len(mask), 1, -1)
    size = torch.linalg.vector_norm(own, dim=-1) * eta.abs().amax(-1, keepdim=True)
    beta = point[..., :n].reshape(len(mask), 1, n)
    terms = (shared.reshape(len(mask), -1, n) * beta).abs().sum(-1).view(mask.shape)
    nothing = MET * size + ROUNDINGS * torch.finfo(point.dtype).eps * terms
    left = model.residual.view(mask.shape).abs()
    return torch.where(left > 0, left / nothing, 0.0).flatten(1).amax(-1)


def _solution(
    fitter: OrthogonalFitter,
    setting: Setting,
    state: State,
    evaluations: Tensor,
    model: Blocks,
    floor: Tensor | float,
) -> Solution:
    """The solution in the parameters, with the rows that are left without the errors in x."""
    n, problem, x = setting.n, setting.problem, state.x
    single = x.ndim == 1
    if isinstance(floor, Tensor) and single:
        floor = floor[0]
    whole = model.reduced(floor=floor)
    reduced = whole.dense
    gradient = reduced.gradient
    free = problem.free(x, torch.cat([gradient, torch.zeros_like(x[..., n:])], -1))[..., :n]
    side = torch.where(gradient > 0, -1, 1)
    status = state.status
    told = [Status(int(number)) for number in status.reshape(-1).tolist()]
    eta = problem.residual.params(x)[1]
    plain = (torch.zeros_like(setting.shares[2]), torch.ones_like(setting.shares[2]))
    out = to_array if fitter.data.numpy else torch.Tensor.detach
    cost = state.cost
    if fitter.data.implicit:
        cost = reduced.residual.double().square().sum(-1) / 2
    return Solution(
        x=x[..., :n],
        cost=float(cost) if single else cost,
        fun=reduced.residual,
        jac=reduced.jacobian,
        active_mask=torch.where(free, 0, side),
        nfev=int(evaluations) if single else out(evaluations),
        status=told[0] if single else out(status),
        message=told[0].message if single else [one.message for one in told],
        success=told[0].converged if single else out(status > 0),
        f_scale=1.0,
        eta=eta,
        normals=_normals(model, whole.root, floor),
        curve=_with(problem, setting.shares, *plain).values(x)[0],
    )


def _normals(model: Blocks, root: Tensor, floor: Tensor | float) -> Tensor:
    """(floor, −V)ᵀRᵀ (..., m, q + k, q): how errors of a point lie for distances of length one."""
    own = model.rows.by_point.movedim(-3, -1)  # (..., m, k, q)
    each = own.shape[-1]
    eye = torch.eye(each, dtype=own.dtype, device=own.device)
    of_y = eye.expand(*own.shape[:-2], each, each)
    if isinstance(floor, Tensor):
        of_y = of_y * floor.mT[..., None]
    return torch.cat([of_y, -own], -2) @ root.mT
