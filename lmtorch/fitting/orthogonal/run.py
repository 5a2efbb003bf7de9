"""From a fitter of points with errors in x to the loop's problem, and from its end to a solution.

An implicit model f(x, β) = 0 is a sequence of explicit ones, by the method of multipliers: of
"measured" zeros y with weights κ (V Vᵀ)⁻¹, where V Vᵀ is what the errors of x make of f. After each
run of the loop y moves by −f, so that the next one comes nearer to f = 0 by a factor of about κ.
The last digits come of steps without weights, see `exactly.py`.

References: Boggs, Byrd & Schnabel (1987); Nocedal & Wright, Numerical optimization (2006), §17.3.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..._arrays import tensor_of, to_array
from ...core.bounds import Bounds
from ...core.loop import descend
from ...core.problem import Problem
from ...core.state import Start, State
from ...core.termination import Status
from ...jacobians.ladder import same_values
from ...linearizations.blocks import Blocks
from ...minimising.solution import Later, Solution
from . import memory
from .exactly import STEPS, Place, nearer
from .fitter import OrthogonalFitter, Points, distances
from .residual import OwnColumns
from .saddles import beside_saddles
from .sampson import LEAST, nearest
from .setting import End, Setting, set_up
from .still import LOOSE, fitted
from .watch import Onlooker

STRENGTHS = (1.0, 1e2, 1e4, 1e6)  # κ of the runs of an implicit fit; the last one is repeated
ROUNDS = 10  # runs at most
NEAR = 30.0  # times what is met, from where a run with the last κ is likely to meet it
MET = 1e-12  # f is zero if it is less than what this share of the displacements makes of it
DOUBTED = 1e4  # of that is left where the equations are not fulfilled
VANISHED = 1e-20  # f has lost its slopes to zero if so little is left of those at the start
ROUNDINGS = 64


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
    where = None if callback is not None else memory.place(fitter, u, points)
    kind = where and memory.known(where, fitter)
    if kind:
        found = _again(fitter, set_up(fitter, u, points, bounds, kind), u, near=near)
        if found is not None:
            kind.fits.append(None)
            return found
        memory.forget(kind)
    setting = set_up(fitter, u, points, bounds)
    seen = Onlooker(callback, u, fitter.parameters.variables, numpy=fitter.data.numpy)
    solution = _minimised(fitter, setting, u, seen, near=near)
    source: Any = setting.problem.source
    if where and solution.success and source.inner.verified:
        memory.keep(where, fitter, setting.look, source.inner.current)
    return solution


def _again(fitter: OrthogonalFitter, setting: Setting, u: Tensor, *, near: bool) -> Solution | None:
    """A fit of a kind that is remembered; None: it is to be made as the first time."""
    try:
        solution = _minimised(fitter, setting, u, Onlooker(None, u, [], numpy=False), near=near)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever it is: the first way says what is wrong, in its own words
        return None
    finally:
        for one in setting.opened:
            one.close()
    return solution if solution.success else None


def _minimised(
    fitter: OrthogonalFitter, setting: Setting, u: Tensor, seen: Onlooker, *, near: bool
) -> Solution:
    with torch.no_grad():
        if fitter.data.implicit:
            point, spent = (setting.x, 1) if near else _on_equations(fitter, setting)
            # near the curve weak equations have nothing more to say
            strengths = STRENGTHS[1:] if spent > 1 else STRENGTHS
            return _implicit(fitter, setting._replace(x=point), spent, seen, strengths)
        # no more than a half is spent on where to begin
        ready, half = setting.ready(), fitter.trials // 2
        point, spent = (setting.x, 1) if near else _started(fitter, setting, ready, half)
        left = fitter.trials + 1 - int(tensor_of(spent).max())
        seen.spent = spent
        problem, method = setting.problem, setting.method
        state, _ = descend(ready, method, Start(point), trials=left, watch=seen.watch)
        state = beside_saddles(problem, method, state, left, seen)
        end = setting.end(ready, state.x)
        return _solution(fitter, setting, state, spent + state.trials, end, 1.0)


def _started(
    fitter: OrthogonalFitter, setting: Setting, ready: Problem, trials: int
) -> tuple[Tensor, Tensor | int]:
    """From where to begin: p0, or the fit without errors in x.

    Far from a minimum points that may move far fit themselves to whatever curve there is. The
    nearer of both is taken, by the distances of the linear model.

    Returns:
        The point, and the evaluations for that.
    """
    problem, point, (x, spread, y, whitening, start), n = setting[0], *setting[2:5]
    if not bool(spread.any()):  # it is the same fit
        return point, 1
    here = setting.distance(ready, point)  # after which derivatives are known to be right
    box = problem.bounds and Bounds(*(side[..., :n] for side in problem.bounds))
    arguments, source = (x, y, whitening, start), problem.source
    assert isinstance(source, OwnColumns)
    found, made = fitted(
        fitter, setting.look, point[..., :n], arguments, box, trials, source.inner, setting.kind
    )
    other = torch.cat([found, point[..., n:]], -1)
    there = setting.distance(ready, other)
    return torch.where((there < here)[..., None], other, point), 1 + made


def _on_equations(fitter: OrthogonalFitter, setting: Setting) -> tuple[Tensor, Tensor | int]:
    """From where to begin with an implicit model: p0, or where points are near without moving.

    Returns:
        The point, and the evaluations for that.
    """
    point, (x, spread, y, mask, start), n = setting[2:5]
    raw = setting.of((x, spread, torch.zeros_like(y), mask, start))
    (part,) = raw.residual.parts()
    if point.ndim > 1 or part.black_box or fitter.jac is not None or mask.shape[1] > 1:
        return point, 1
    source = raw.source
    assert isinstance(source, OwnColumns)
    if not source.inner.verified:
        setting.blocks(raw, point)  # after which derivatives are known to be right
    box = raw.bounds and Bounds(*(side[..., :n] for side in raw.bounds))
    return nearest(raw, setting.look.still, point, n, box, fitter.trials)


def _implicit(
    fitter: OrthogonalFitter,
    setting: Setting,
    spent: Tensor | int,
    seen: Onlooker,
    strengths: Sequence[float],
) -> Solution:
    """Runs with these κ, the last one repeated, whose y moves until f is zero."""
    method, point, shares = setting[1:4]
    mask = shares[3]
    force = torch.zeros_like(mask)  # λ, by which F changes with each f
    evaluations = torch.ones(point.shape[:-1], dtype=torch.int64, device=point.device) * spent
    raw = _with(setting, torch.zeros_like(mask), mask)
    model, early = setting.blocks(raw, point), True
    before = most = math.inf
    left = fitter.trials + 1 - int(evaluations.max())
    begun = _slopes(model, mask)
    for number in range(ROUNDS):
        # only what may be the last run is polished and certified
        polished = not early
        early = number < len(strengths) or (early and NEAR < most <= before / 2)
        weights = _Weights(model, mask, strengths[min(number, len(strengths) - 1)])
        y = torch.where(mask > 0, -weights.inverse(force), 0.0)
        one = _with(setting, y, weights.root)
        way = replace(method, polish=0, certify=False) if early else method
        if number < len(strengths) - 1:
            way = replace(way, tolerances=LOOSE)
        seen.spent = evaluations
        state, _ = descend(one, way, Start(point), trials=max(1, left), watch=seen.watch)
        if not early:
            state = beside_saddles(one, way, state, left, seen)
        point, evaluations = state.x, evaluations + state.trials
        left = fitter.trials - int(evaluations.max())
        model = setting.blocks(raw, point)
        force = weights.times(model.residual.view(mask.shape) - y)
        apart = _apart(raw, model, point, mask)
        before, most = most, float(apart.amax())
        gone = _slopes(model, mask) <= VANISHED * begun
        last = number == ROUNDS - 1 or left <= 1 or bool(gone.all()) or seen.stopped
        settled = most <= 1 or (polished and not most <= before / 2)
        if last or (settled and not early):
            apart = torch.where(gone, torch.inf, apart)
            status = _judged(state.status, apart, spent=left <= 1)
            if seen.stopped:  # y has not settled, whatever this run has found
                status = torch.full_like(status, int(Status.STOPPED))
            state = state._replace(status=status)
            floor = (mask == 0).to(mask)
            floor = floor[0] if point.ndim == 1 else floor
            able = (status > 0) & (left > STEPS)
            if raw.bounds is None and not method.slopes:  # derivatives are exact, and all may move
                here = Place(point, model, apart.reshape(status.shape))
                look = partial(_place, setting, raw, mask)
                here, looked = nearer(here, able, setting.look.still.solver, floor, look)
                state, model = state._replace(x=here.x), here.model
                evaluations = evaluations + looked
            end = End.of(model, floor)
            return _solution(fitter, setting, state, evaluations, end, floor)
    raise AssertionError


def _place(setting: Setting, raw: Problem, mask: Tensor, x: Tensor) -> Place:
    """How an implicit model is at x."""
    model = setting.blocks(raw, x)
    return Place(x, model, _apart(raw, model, x, mask).reshape(x.shape[:-1]))


def _judged(status: Tensor, apart: Tensor, *, spent: bool) -> Tensor:
    """How an implicit fit has ended, (...,), by its last run and by whether f is zero."""
    met = (apart <= DOUBTED).reshape(status.shape)
    stalled = status == int(Status.STALLED)
    ended = (status != int(Status.EVALUATIONS)) & (status != int(Status.NOT_FINITE))
    # a run that begins at its end has nothing to gain but round-off
    status = torch.where(met & stalled, int(Status.COST), status)
    return torch.where(~met & ended, int(Status.EVALUATIONS if spent else Status.LOST), status)


def _with(setting: Setting, y: Tensor, whitening: Tensor) -> Problem:
    """The problem with other y and R."""
    x, spread, _, _, start = setting.shares
    return setting.of((x, spread, y, whitening, start))


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
    end: End,
    floor: Tensor | float,
) -> Solution:
    """The solution in the parameters, with the rows that are left without the errors in x."""
    n, problem, x = setting.n, setting.problem, state.x
    single = x.ndim == 1
    gradient = end.gradient
    free = problem.free(x, torch.cat([gradient, torch.zeros_like(x[..., n:])], -1))[..., :n]
    side = torch.where(gradient > 0, -1, 1)
    status = state.status
    told = [Status(int(number)) for number in status.reshape(-1).tolist()]
    eta = problem.residual.params(x)[1]
    curve = _curve(fitter, setting, x)
    if any(one.replayed for one in setting.opened):  # by the function itself, at the end
        _confirm(fitter, setting, end.values, curve)
    out = to_array if fitter.data.numpy else torch.Tensor.detach
    cost = state.cost
    if fitter.data.implicit:
        cost = end.residual.double().square().sum(-1) / 2
    return Solution(
        x=x[..., :n],
        cost=float(cost) if single else cost,
        fun=end.residual,
        jac=end.rows,
        active_mask=torch.where(free, 0, side),
        nfev=int(evaluations) if single else out(evaluations),
        status=told[0] if single else out(status),
        message=told[0].message if single else [one.message for one in told],
        success=told[0].converged if single else out(status > 0),
        f_scale=1.0,
        eta=eta,
        normals=Later(partial(_normals, end.whole, floor)),
        curve=curve,
    )


def _curve(fitter: OrthogonalFitter, setting: Setting, x: Tensor) -> Tensor:
    """f where points have moved to, (..., q·m), by the function itself."""
    points, spread, y, _, start = setting.shares
    if setting.kind is None:
        return _with(setting, torch.zeros_like(y), torch.ones_like(y)).values(x)[0]
    residual: Any = setting.problem.residual  # of one fit, called on tensors
    beta, eta = residual.params(x)
    theta = residual.with_tau(beta)
    return fitter.values_at(theta, eta.mT, points[0], spread[0], start[0]).reshape(-1).to(x)


def _confirm(fitter: OrthogonalFitter, setting: Setting, values: Tensor, curve: Tensor) -> None:
    """Compare residuals at the end, which may be replayed, with those of a plain evaluation.

    Raises:
        ArithmeticError: they differ.
    """
    y, whitening = setting.shares[2][0], setting.shares[3][0]
    y = torch.zeros_like(y) if fitter.data.implicit else y
    found = distances(curve.reshape(y.shape), y, whitening).reshape(-1)
    same_values(found, values)


def _normals(whole: Callable[[], Blocks], floor: Tensor | float) -> Tensor:
    """(floor, −V)ᵀRᵀ (..., m, q + k, q): how errors of a point lie for distances of length one."""
    model = whole()
    root = model.reduced(floor=floor).root
    own = model.rows.by_point.movedim(-3, -1)  # (..., m, k, q)
    each = own.shape[-1]
    eye = torch.eye(each, dtype=own.dtype, device=own.device)
    of_y = eye.expand(*own.shape[:-2], each, each)
    if isinstance(floor, Tensor):
        of_y = of_y * floor.mT[..., None]
    return torch.cat([of_y, -own], -2) @ root.mT
