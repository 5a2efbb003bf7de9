"""Whether a run has ended at a minimum: evidence from the point itself, and Newton steps where they help.

A run ends because its steps became short, and steps are short for many reasons. So the point is looked at once more,
without any damping. With parameters measured in units in which every curvature is at most one, let M = V Λ Vᵀ be the
exact Hessian of the cost (JᵀJ where second derivatives cannot be had) and g the gradient.

    decrement   ½ Σ (vₖᵀg)² / λₖ    what the quadratic model still promises, in units of the cost
    saddle      λₖ < 0              the cost curves downward
    lost        ‖J e_j‖ → 0         a parameter had an influence and has none any more

A point is certified if the decrement is negligible, no curvature is negative and nothing is lost. Near a minimum with
large residuals Gauss–Newton steps shrink the gradient by a constant factor only; with the Hessian at hand, Newton's are
taken instead.

References: Boyd & Vandenberghe, Convex optimization (2004), §9.5.1, on the Newton decrement; Nocedal & Wright (2006),
theorem 2.4 on second-order conditions, and §10.3.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .._masks import select
from ..jacobians.base import GROSS
from ..linearizations.base import Linearization
from ..losses.base import scalar_dtype
from .method import Method
from .problem import Problem
from .state import Certificate, State
from .termination import Status, Tolerances, rounding
from .working_set import WorkingSet

JUDGED = (Status.GRADIENT, Status.COST, Status.STEP, Status.MINIMUM, Status.STALLED, Status.SLOW)
ENOUGH = {torch.float64: 1e-8}  # share of the cost that a certified point may still promise
ENOUGH_COARSE = 1e-5  # the same in coarser dtypes
LOOSER = 10  # times the user's tolerances, where they ask for less than that
ROUNDINGS = 16  # times its rounding error: a gradient, curvature or cost below that counts as zero
NEGATIVE = 1e-6  # a curvature below minus this makes a saddle; the largest is about one
SHRUNK = 1e-5  # of its largest norm, below which a column may be lost
DEAD = 1e-7  # of the residuals, by less than which moving a lost parameter by all of itself changes them
INVOLVED = 1e-3  # squared entry of a null vector from which its parameter takes part in it
FAR = 1e4  # times its start, a parameter has run away
FINE_ENOUGH = 1e-12  # round-off up to which a null direction can be told from a weak one
ROOT = 1e-28  # of the cost at the start: so close to a singular root J is deficient as it should be
ELSEWHERE = (0.0, 0.1, -1.0)  # times the parameters that have no influence: places to look for it
EXACT = 64  # parameters up to which the Hessian is made: a reverse pass through the gradient for each
DIFFERENCED = 8  # parameters up to which a black box is asked for second differences, (n + 1)(n + 2)/2 evaluations
ENTRIES = 2**24  # of a Jacobian up to which it is
NEWTON = 12  # Newton steps at most; they converge quadratically
FINE = 1e-20  # share of the cost below which a decrement is worth no Newton step, in float64
FALL = 0.5  # a Newton step must shrink the gradient by at least this factor


class Evidence(NamedTuple):
    """What is seen at a point, without damping."""

    cost: Tensor  # (...,)
    gradient: Tensor  # (..., n), of the variables that may move
    units: Tensor  # (..., n), by which the gradient was divided
    noise: Tensor  # (...,), rounding error of the cost
    decrement: Tensor  # (...,), in units of the cost; infinite where nothing can be said
    lowest: Tensor  # (...,), smallest curvature
    downward: Tensor  # (..., n), the direction of it, of length one in the units
    newton: Tensor  # (..., n), step to the minimum of the quadratic model
    lost: Tensor  # (..., n) bool
    blind: Tensor  # (...,) bool
    flat: Tensor  # (...,) bool: gradient and curvature are zero
    exact: Tensor  # (...,) bool: the curvature is that of the exact Hessian
    norms: Tensor  # (..., n), ‖J e_j‖ of all variables

    @property
    def promise(self) -> Tensor:
        """The decrement as a share of the cost, (...,); zero where both are."""
        return torch.where(self.decrement > 0, self.decrement / self.cost, 0.0)


class Looked(NamedTuple):
    """What there is to be seen, before anything is concluded from it."""

    cost: Tensor  # (...,)
    noise: Tensor  # (...,)
    length: Tensor  # (..., 1), ‖r‖
    norms: Tensor  # (..., n), ‖J e_j‖
    error: Tensor  # (..., n), of the norms, by finite differences
    diagonal: Tensor  # (..., n), of the curvature
    values: Tensor  # (..., n), of the scaled curvature, rising
    vectors: Tensor  # (..., n, n)
    floor: float  # its round-off
    free: Tensor  # (..., n) bool
    remains: Tensor  # (...,) bool: the residuals are not zero


class Resting(NamedTuple):
    """What is known of the problems that are looked at."""

    judged: Tensor  # (...,) bool, still to be improved
    ended: Tensor  # (...,), the status with which the run ended
    seen: Evidence | None = None


def certify(problem: Problem, method: Method, state: State) -> State:
    """Judge the problems that have come to rest, after Newton steps where the Hessian can be had."""
    assert state.status is not None
    judged = torch.stack([state.status == s for s in JUDGED]).any(0)
    count = int(judged.sum())
    ended = state.status
    state = state._replace(certificate=blank(state.x))
    if count == 0:
        return state
    working = WorkingSet(state)
    problem, state, rest = working.thin(problem, state, judged, count, Resting(judged, ended))
    seen = examine(problem, method, state)
    state = _judge(problem, method, state, rest, rest.judged, seen)
    assert state.status is not None
    if bool((rest.judged & (state.status <= 0) & ~seen.exact).any()):
        seen = examine(problem, method, state, doubted=True)
        state = _judge(problem, method, state, rest, rest.judged, seen)
    rest = rest._replace(seen=seen)
    for _ in range(min(NEWTON, method.polish)):
        assert rest.seen is not None
        seen = rest.seen
        fine = max(FINE, torch.finfo(state.x.dtype).eps ** 2)
        wanted = rest.judged & seen.exact & (seen.lowest > -NEGATIVE) & (seen.promise > fine)
        count = int(wanted.sum())
        if count == 0:
            break
        problem, state, rest = working.thin(problem, state, wanted, count, rest._replace(judged=wanted))
        state, rest = _newton(problem, method, state, rest)
    return working.all(state)


def _newton(problem: Problem, method: Method, state: State, rest: Resting) -> tuple[State, Resting]:
    """One Newton step of the problems that want it, kept where the gradient falls."""
    seen, wanted = rest.seen, rest.judged
    assert seen is not None
    assert state.cost is not None
    assert state.trials is not None
    assert state.linearizations is not None
    trial = problem.move(state.x, torch.where(wanted[..., None], seen.newton, 0.0))
    ahead = examine(problem, method, state._replace(x=trial))
    before, after = (torch.linalg.vector_norm(e.gradient / seen.units, dim=-1) for e in (seen, ahead))
    better = wanted & (after <= FALL * before) & (ahead.cost <= seen.cost + ROUNDINGS * seen.noise)
    state = state._replace(
        x=select(better, trial, state.x),
        cost=torch.where(better, ahead.cost, state.cost),
        trials=state.trials + wanted,
        linearizations=state.linearizations + wanted,
    )
    state = _judge(problem, method, state, rest, better, ahead)
    return state, rest._replace(seen=select(better, ahead, seen), judged=better)


def _judge(problem: Problem, method: Method, state: State, rest: Resting, concerned: Tensor, seen: Evidence) -> State:
    """The state with what the evidence says of the problems concerned."""
    assert state.status is not None
    enough = allowance(method.tolerances, problem.precision or state.x.dtype)
    status = verdict(rest.ended, seen, enough)
    found = Certificate(seen.promise, seen.lowest, seen.downward, seen.lost, seen.blind)
    assert state.certificate is not None
    return state._replace(
        status=torch.where(concerned, status, state.status), certificate=select(concerned, found, state.certificate)
    )


def verdict(ended: Tensor, seen: Evidence, enough: float) -> Tensor:
    """The status of a point, (...,), from that with which its run ended and from the evidence."""
    nothing = (seen.promise <= enough) | (seen.decrement <= ROUNDINGS * seen.noise)
    # where every column of J vanishes no cosine says anything, and only the curvature can
    upgraded = (ended <= 0) | (seen.norms == 0).all(-1)
    status = torch.where(upgraded, Status.MINIMUM, ended)
    status = torch.where(seen.lowest < -NEGATIVE, Status.SADDLE, status)
    status = torch.where(nothing, status, torch.where(ended == Status.SLOW, ended, Status.VALLEY))
    status = torch.where(seen.lost.any(-1), Status.LOST, status)
    return torch.where(seen.flat & (seen.cost > 0), Status.FLAT, status)


def examine(problem: Problem, method: Method, state: State, *, doubted: bool = False) -> Evidence:
    """Look at the point where a run has ended; once more, and more closely, if a first look has left a doubt."""
    x = state.x
    assert state.begun is not None
    whole = problem.model(x)
    free = problem.free(x, whole.gradient)
    model = whole.freeze(free)
    wide = x.to(problem.dtype)
    length = (2 * model.cost).sqrt().to(problem.dtype)[..., None]  # ‖r‖, (..., 1)
    size = torch.maximum(x.abs(), state.begun.x.abs())
    size = torch.where(size > 0, size, 1.0)
    matrix, exact = _curvature(problem, x, whole, length, size, doubted)
    matrix = torch.where(free[..., :, None] & free[..., None, :], matrix, 0.0)

    diagonal = matrix.diagonal(dim1=-2, dim2=-1).abs()
    units = torch.maximum(model.column_norms, diagonal.sqrt())
    units = torch.where(units > 0, units, 1.0)
    scaled = matrix / units[..., :, None] / units[..., None, :]
    slope = model.gradient / units
    finite = scaled.isfinite().all(-1).all(-1) & slope.isfinite().all(-1)
    identity = torch.eye(x.shape[-1], dtype=scaled.dtype, device=x.device)
    values, vectors = torch.linalg.eigh(torch.where(finite[..., None, None], scaled, identity))

    eps = problem.eps(x)
    along = (vectors.mT @ slope[..., None])[..., 0]
    error = _column_error(method, model, wide)
    unclear = ROUNDINGS * eps * _carried(model, wide) + length * (ROUNDINGS * method.slopes + error / units)
    unclear = (vectors.square().mT @ unclear.square()[..., None])[..., 0].sqrt()
    along = torch.where(along.abs() > unclear, along, 0.0)
    floor = ROUNDINGS * x.shape[-1] * max(eps, torch.finfo(problem.dtype).eps)
    decrement = (along.square() / values.abs().clamp(min=floor)).sum(-1).to(model.cost.dtype) / 2
    newton = -(vectors @ torch.where(values > floor, along / values, 0.0)[..., None])[..., 0] / units
    noise = rounding(model, wide, eps)
    if doubted:
        noise = torch.maximum(noise, length[..., 0] * problem.trembling(x))
    remains = finite & (model.cost > ROUNDINGS * noise)
    looked = Looked(
        model.cost, noise, length, model.column_norms, error, diagonal, values, vectors, floor, free, remains
    )
    return Evidence(
        model.cost,
        model.gradient,
        units,
        noise,
        torch.where(finite, decrement, torch.inf),
        torch.where(finite, values[..., 0], -torch.inf).to(model.cost.dtype),
        (vectors[..., 0] / units).to(x.dtype),
        torch.where(finite[..., None], newton, 0.0),
        _lost(problem, state, looked),
        remains & ((values <= floor).sum(-1) > (~free).sum(-1)) & (eps > FINE_ENOUGH),
        (matrix == 0).all(-1).all(-1) & (model.gradient == 0).all(-1) & free.any(-1),
        exact,
        whole.column_norms,
    )


def _carried(model: Linearization, x: Tensor) -> Tensor:
    """‖r‖ + ‖J∘x‖, (..., 1): of ε of that size is what rounding x and r costs an entry of the scaled gradient."""
    length = (2 * model.cost).sqrt().to(x.dtype)[..., None]
    return length + torch.linalg.vector_norm(model.column_norms * x, dim=-1, keepdim=True)


def _column_error(method: Method, model: Linearization, x: Tensor) -> Tensor:
    """Size of the error of a column by finite differences, (..., n): a column that ought to vanish is nothing else."""
    return ROUNDINGS * method.slopes * _carried(model, x) / x.abs().clamp(min=1)


def _curvature(
    problem: Problem, x: Tensor, model: Linearization, length: Tensor, size: Tensor, doubted: bool
) -> tuple[Tensor, Tensor]:
    """The exact Hessian (..., n, n) where it can be had and agrees with J, elsewhere JᵀJ; and which it is, (...,).

    Of a black box JᵀJ is all there is at first; where it leaves a doubt, differences of second order are added.
    """
    normal = model.normal
    n = x.shape[-1]
    found = problem.hessian(x) if n <= EXACT and n * problem.residual.rows <= ENTRIES else None
    if found is None:
        second = problem.residual_curvature(x, size) if doubted and n <= DIFFERENCED else None
        if second is not None:  # but for what is only the round-off of its differences
            effect = second.abs() * size[..., :, None] * size[..., None, :]
            noise = ROUNDINGS * problem.eps(x) ** 0.5 * length * _carried(model, x.to(problem.dtype))
            normal = normal + torch.where(effect > noise[..., None], second, 0.0)
        return normal, torch.zeros_like(model.cost, dtype=torch.bool)
    # a source of derivatives that is not torch's own may see what torch does not
    norms = torch.where(model.column_norms > 0, model.column_norms, 1.0)
    apart = ((found.gradient - model.gradient) / norms).abs().amax(-1, keepdim=True)
    exact = (found.matrix.isfinite().all(-1).all(-1)) & (apart <= GROSS * length)[..., 0]
    return torch.where(exact[..., None, None], found.matrix, normal), exact


def _lost(problem: Problem, state: State, looked: Looked) -> Tensor:
    """Parameters that have lost their influence, (..., n) bool: alone, together with others, or before the start."""
    return _died(state, looked) | _dependent(problem, state, looked) | _out_of_reach(problem, state, looked)


def _died(state: State, looked: Looked) -> Tensor:
    """Columns of J that have died since the run began, (..., n) bool.

    A column may shrink by many orders of magnitude on the way to a minimum, as that of exp(b t) does. It is lost if,
    besides, moving the parameter by all of itself would change next to nothing, in first and in second order.
    """
    assert state.begun is not None
    norms, length, x = looked.norms, looked.length, state.x.to(looked.norms.dtype)
    reach = torch.maximum(x.abs(), state.begun.x.to(x.dtype).abs())
    shrunk = (norms <= SHRUNK * state.begun.norms) & (state.begun.norms > 0)
    curved = looked.diagonal * reach.square() > DEAD * length.square()
    silent = (norms * reach <= DEAD * length) | (norms <= looked.error)
    return shrunk & silent & ~curved & (length > 0) & looked.free


def _dependent(problem: Problem, state: State, looked: Looked) -> Tensor:
    """Parameters that can be changed together without an effect, and could not where the run began, (..., n) bool.

    A model may have such combinations everywhere, a sum of two amplitudes for example, and minima all the same; and
    there are minima at which J is deficient. What tells a plateau is that there were fewer such combinations at the
    start, and that one of the parameters has run far away. Round-off hides that in single precision.
    """
    null = looked.values <= looked.floor
    count = null.sum(-1) - (~looked.free).sum(-1)
    nothing = torch.zeros_like(looked.free)
    assert state.begun is not None
    clear = (count > 0) & looked.remains & (looked.cost > ROOT * state.begun.cost)
    if problem.eps(state.x) > FINE_ENOUGH or not bool(clear.any()):
        return nothing
    before, now = (_deficiency(problem.model(x), looked.floor) for x in (state.begun.x, state.x))
    more = clear & (now > before)
    share = torch.where(null[..., None, :], looked.vectors.square(), 0.0).sum(-1)
    involved = (share > INVOLVED) & looked.free
    begun = state.begun.x.abs()
    ran = state.x.abs() > FAR * torch.where(begun > 0, begun, 1.0)
    return (more & (involved & ran).any(-1))[..., None] & involved


def _deficiency(model: Linearization, floor: float) -> Tensor:
    """How many combinations of parameters have no influence to first order, (...,) int."""
    units = torch.where(model.column_norms > 0, model.column_norms, 1.0)
    scaled = model.normal / units[..., :, None] / units[..., None, :]
    finite = scaled.isfinite().all(-1).all(-1)
    return (torch.linalg.eigvalsh(torch.where(finite[..., None, None], scaled, 0.0)) <= floor).sum(-1)


def _out_of_reach(problem: Problem, state: State, looked: Looked) -> Tensor:
    """Parameters without an influence here that have one elsewhere, (..., n) bool: the start was too far off.

    A parameter that the model does not use has none anywhere, and is left alone.
    """
    assert state.begun is not None
    reach = torch.maximum(state.x.abs(), state.begun.x.abs()).to(looked.norms.dtype)
    least = problem.eps(state.x) * looked.length
    bent = ROUNDINGS * problem.eps(state.x) * looked.length.square()
    silent = (looked.norms * reach <= least) & (looked.diagonal * reach.square() <= bent)
    silent = silent & looked.free & looked.remains[..., None]
    if not bool(silent.any()):
        return silent
    heard = torch.zeros_like(looked.remains)
    for factor in ELSEWHERE:
        moved = torch.where(silent, factor * state.x, state.x)
        if problem.bounds is not None:
            moved = problem.bounds.project(moved.to(problem.dtype)).to(state.x.dtype)
        cost = problem.cost(moved)
        heard = heard | ~((cost - looked.cost).abs() <= ROUNDINGS * looked.noise)
    return silent & heard[..., None]


def allowance(tolerances: Tolerances, dtype: torch.dtype) -> float:
    """Share of the cost that a certified point may still promise: more where the user asked for less."""
    asked = max(tolerances.cost, tolerances.gradient**2, tolerances.step**2)
    return max(ENOUGH.get(dtype, ENOUGH_COARSE), LOOSER * asked)


def blank(x: Tensor) -> Certificate:
    """Nothing seen yet."""
    nothing = torch.full(x.shape[:-1], torch.nan, dtype=scalar_dtype(x.device), device=x.device)
    none = torch.zeros_like(x, dtype=torch.bool)
    return Certificate(nothing, nothing.clone(), torch.zeros_like(x), none, none.any(-1))
