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

from .._masks import read, select
from ..losses.base import scalar_dtype
from .evidence import Evidence, examine
from .influence import ROUNDINGS, lost, suspects
from .method import Method
from .problem import Problem
from .state import Certificate, State
from .termination import Status, Tolerances, among
from .working_set import WorkingSet

JUDGED = (
    Status.FLAT,
    Status.GRADIENT,
    Status.COST,
    Status.STEP,
    Status.MINIMUM,
    Status.STALLED,
    Status.SLOW,
)
ENOUGH = {torch.float64: 1e-8}  # share of the cost that a certified point may still promise
ENOUGH_COARSE = 1e-5  # the same in coarser dtypes
LOOSER = 10  # times the user's tolerances, where they ask for less than that
NEGATIVE = 1e-6  # a curvature below minus this makes a saddle; the largest is about one
NEWTON = 12  # Newton steps at most; they converge quadratically
FINE = 1e-20  # share of the cost below which a decrement is worth no Newton step, in float64
FALL = 0.5  # a Newton step must shrink the gradient by at least this factor


class Resting(NamedTuple):
    """What is known of the problems that are looked at."""

    judged: Tensor  # (...,) bool, still to be improved
    ended: Tensor  # (...,), the status with which the run ended
    seen: Evidence | None = None


class Next(NamedTuple):
    """What is to be done with the problems that have been judged."""

    wanting: Tensor  # (...,) bool: a Newton step may help
    wanted: int  # how many
    inexact: bool  # a curvature is not that of the exact Hessian


def certify(problem: Problem, method: Method, state: State) -> State:
    """Judge the problems that have come to rest, after Newton steps where the Hessian can be had."""
    assert state.status is not None
    judged = among(state.status, JUDGED)
    count = int(judged.sum()) if state.ended is None else int(state.ended in JUDGED)
    ended = state.status
    state = state._replace(certificate=blank(state.x))
    if count == 0:
        return state
    working = WorkingSet(state)
    problem, method, state, rest = working.thin(
        problem, method, state, judged, count, Resting(judged, ended)
    )
    seen = examine(problem, method, state)
    state, after = _judge(problem, method, state, rest, rest.judged, seen)
    assert state.status is not None
    if after.inexact and bool((rest.judged & (state.status <= 0) & ~seen.exact).any()):
        seen = examine(problem, method, state, doubted=True)
        state, after = _judge(problem, method, state, rest, rest.judged, seen)
    rest = rest._replace(seen=seen)
    for _ in range(min(NEWTON, method.polish)):
        if after.wanted == 0:
            break
        rest = rest._replace(judged=after.wanting)
        problem, method, state, rest = working.thin(
            problem, method, state, after.wanting, after.wanted, rest
        )
        state, rest, after = _newton(problem, method, state, rest)
    return working.all(state)


def _newton(
    problem: Problem, method: Method, state: State, rest: Resting
) -> tuple[State, Resting, Next]:
    """One Newton step of the problems that want it, kept where the gradient falls."""
    seen, wanted = rest.seen, rest.judged
    assert seen is not None
    assert state.cost is not None
    assert state.trials is not None
    assert state.linearizations is not None
    trial = problem.move(state.x, torch.where(wanted[..., None], seen.newton, 0.0))
    ahead = examine(problem, method, state._replace(x=trial))
    before, after = (
        torch.linalg.vector_norm(e.gradient / seen.units, dim=-1) for e in (seen, ahead)
    )
    better = wanted & (after <= FALL * before) & (ahead.cost <= seen.cost + ROUNDINGS * seen.noise)
    state = state._replace(
        x=select(better, trial, state.x),
        cost=torch.where(better, ahead.cost, state.cost),
        trials=state.trials + wanted,
        linearizations=state.linearizations + wanted,
    )
    state, after = _judge(problem, method, state, rest, better, ahead)
    return state, rest._replace(seen=select(better, ahead, seen), judged=better), after


def _judge(
    problem: Problem, method: Method, state: State, rest: Resting, concerned: Tensor, seen: Evidence
) -> tuple[State, Next]:
    """The state with what the evidence says of the problems concerned, and what comes next: one host read."""
    assert state.status is not None
    assert state.certificate is not None
    assert seen.looked is not None
    fine = max(FINE, torch.finfo(state.x.dtype).eps ** 2)
    wanting = concerned & seen.exact & (seen.lowest > -NEGATIVE) & (seen.promise > fine)
    suspected = suspects(problem, state, seen.looked)
    count, inexact, dependent, silent = read(
        wanting.sum(),
        (concerned & ~seen.exact).any(),
        suspected.dependent.any(),
        suspected.silent.any(),
    )
    seen = seen._replace(
        lost=lost(problem, state, seen.looked, suspected, dependent > 0, silent > 0)
    )
    enough = allowance(method.tolerances, problem.precision or state.x.dtype)
    # a promise made of the error of differences is not held against a point
    enough = max(enough, LOOSER * min(method.slopes, problem.eps(state.x) ** 0.5))
    status = verdict(rest.ended, seen, enough)
    found = Certificate(seen.promise, seen.lowest, seen.downward, seen.lost, seen.blind)
    return state._replace(
        status=torch.where(concerned, status, state.status),
        certificate=select(concerned, found, state.certificate),
    ), Next(wanting, count, inexact > 0)


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


def allowance(tolerances: Tolerances, dtype: torch.dtype) -> float:
    """Share of the cost that a certified point may still promise: more where the user asked for less."""
    asked = max(tolerances.cost, tolerances.gradient**2, tolerances.step**2)
    return max(ENOUGH.get(dtype, ENOUGH_COARSE), LOOSER * asked)


def blank(x: Tensor) -> Certificate:
    """Nothing seen yet."""
    nothing = torch.full(x.shape[:-1], torch.nan, dtype=scalar_dtype(x.device), device=x.device)
    none = torch.zeros_like(x, dtype=torch.bool)
    return Certificate(nothing, nothing.clone(), torch.zeros_like(x), none, none.any(-1))
