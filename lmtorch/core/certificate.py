"""Whether a run has ended at a minimum: a look at the point itself, and Newton steps if they help.

A run ends because its steps became short, and steps are short for many reasons. So the point is
looked at once more, without any damping. With parameters measured in units in which every curvature
is at most one, let M = V Λ Vᵀ be the exact Hessian of the cost (JᵀJ where second derivatives cannot
be had) and g the gradient.

    decrement   ½ Σ (vₖᵀg)² / λₖ    what the quadratic model still promises, in units of the cost
    saddle      λₖ < 0              the cost curves downward
    lost        ‖J e_j‖ → 0         a parameter had an influence and has none any more

A point is certified if the decrement is negligible, no curvature is negative and nothing is lost.
Near a minimum with large residuals Gauss–Newton steps shrink the gradient by a constant factor
only; with the Hessian at hand, Newton's are taken instead.

References: Boyd & Vandenberghe, Convex optimization (2004), §9.5.1, on the Newton decrement;
Nocedal & Wright (2006), theorem 2.4 on second-order conditions, and §10.3.
"""

from typing import Any, NamedTuple

from torch import Tensor

from ..arrays import (
    at_least,
    every,
    never,
    norm,
    nowhere,
    on_numpy,
    read,
    resolution,
    select,
    some,
    spread,
    sqrt,
    statuses,
    to_type,
    where,
)
from ..recording.steps import functions
from .allowance import LOOSER, allowance
from .blurred import TRIALS, bearable, tried
from .influence import FINE_ENOUGH, ROUNDINGS, Suspects, lost, suspects
from .method import Method
from .polish import fine
from .problem import Problem
from .state import Certificate, State, blank
from .termination import Status, among, at_rest
from .undamped import Undamped, examine
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
# plain ints: torch.compile gets it wrong where a tensor meets a member of an enum
MINIMUM, SADDLE, VALLEY, LOST = (
    int(s) for s in (Status.MINIMUM, Status.SADDLE, Status.VALLEY, Status.LOST)
)
SLOW, FLAT, EVALUATIONS = int(Status.SLOW), int(Status.FLAT), int(Status.EVALUATIONS)
NEGATIVE = 1e-6  # a curvature below minus this makes a saddle; the largest is about one
NEWTON = 12  # Newton steps at most; they converge quadratically
# On the way to the minimum the Hessian changes by some such multiple of the root of what is
# promised: a curvature has to exceed that to be positive there, too.
CHANGE = 30.0
LOWEST = 1e-6  # a curvature above this is positive beyond doubt, and its digits suffice
# share of the cost that round-off in the gradient may hide without a loss of digits: its root is
# the share of a standard error by which a parameter may be off
HIDDEN = 1e-16
LOOKED = ("state", "trials")  # what a look is given beside problem and method
FALL = 0.5  # a Newton step must shrink the gradient by at least this factor


class Resting(NamedTuple):
    """What is known of the problems that are looked at."""

    judged: Tensor  # (...,) bool, still to be improved
    ended: Tensor  # (...,), the status with which the run ended
    seen: Undamped


class Next(NamedTuple):
    """What is to be done with the problems that have been judged."""

    wanting: Tensor  # (...,) bool: a Newton step may help
    wanted: int  # how many
    inexact: bool  # a curvature is not that of the exact Hessian


def certify(
    problem: Problem,
    method: Method,
    state: State,
    ended: int | None = None,
    trials: int | None = None,
) -> State:
    """Judge the problems that have come to rest, after Newton steps where the Hessian can be had.

    Args:
        problem: what is minimised.
        method: how.
        state: where the run has ended.
        ended: the status of a single problem, if the host knows it.
        trials: evaluations at trial points at most, with those of the run; None: any.
    """
    return _certified(problem, method, state, ended, trials)[0]


def certify_clear(
    problem: Problem, method: Method, state: State, trials: int | None = None
) -> tuple[State, bool]:
    """Certify one problem, and say whether it is at a minimum that round-off hides nothing of.

    Then Newton's steps have left nothing for `core/polish.py` to do. Round-off hides digits of a
    parameter where the gradient that is left is clear to no more than a share of its standard
    error: the root of `hidden`, whatever the condition.
    """
    look: Any = functions(problem, method, state, ((_clear, LOOKED),))[0]
    most = None if trials is None else statuses(state.cost, trials)
    state, clear = look(problem, method, state, most)
    return state, bool(clear)


def _clear(
    problem: Problem, method: Method, state: State, trials: int | None
) -> tuple[State, Tensor]:
    """The same, recorded where it can be, see `recording`."""
    state, seen = _certified(problem, method, state, None, trials)
    if seen is None:
        return state, never(state.cost)
    clear = (state.status > 0) & seen.exact & (seen.hidden <= HIDDEN) & (seen.promise <= HIDDEN)
    return state, clear


def _certified(
    problem: Problem, method: Method, state: State, ended: int | None, trials: int | None
) -> tuple[State, Undamped | None]:
    """The state after `certify`, and what was seen last; None: nothing was to be judged."""
    judged, count = at_rest(state.status, JUDGED, ended)
    state = state._replace(certificate=blank(state.x))
    if count == 0:
        return state, None
    working, whole, first = WorkingSet(state), (problem, method), judged
    problem, method, state, judged = working.thin(problem, method, state, judged, count, judged)
    rest = Resting(judged, state.status, examine(problem, method, state))
    state, after = _judge(problem, method, state, rest, trials)
    # JᵀJ says nothing of a parameter whose column of J vanishes: there the cost may curve downward
    doubt = (state.status <= 0) | some(rest.seen.norms == 0)
    if after.inexact and bool((judged & doubt & ~rest.seen.exact).any()):
        rest = rest._replace(seen=examine(problem, method, state, doubted=True))
        state, after = _judge(problem, method, state, rest, trials)
    for _ in range(min(NEWTON, method.polish)):
        if after.wanted == 0:
            break
        rest = rest._replace(judged=after.wanting)
        problem, method, state, rest = working.thin(
            problem, method, state, after.wanting, after.wanted, rest
        )
        state, rest, after = _newton(problem, method, state, rest, trials)
    state = working.all(state)
    if whole[0].eps(state.x) > FINE_ENOUGH:
        state = _beyond_blur(*whole, state, first, trials)
    return state, rest.seen


def _beyond_blur(
    problem: Problem, method: Method, state: State, judged: Tensor, trials: int | None
) -> State:
    """The state after what blurred directions promise has been tried, see `core/blurred.py`."""
    working, enough = WorkingSet(state), _enough(problem, method, state)
    for _ in range(min(NEWTON, method.polish)):
        doubt = judged & (state.status == VALLEY)
        if trials is not None:
            doubt = doubt & (state.trials + TRIALS <= trials)
        judged, count = at_rest(state.status, (Status.VALLEY,), None, doubt)
        if count == 0:
            break
        problem, method, state, judged = working.thin(problem, method, state, judged, count, judged)
        seen = examine(problem, method, state)
        # at once where the last trial has led to a minimum
        state, _ = _judge(problem, method, state, Resting(judged, state.status, seen), None)
        judged = judged & (state.status == VALLEY) & (seen.beyond > 0)
        if nowhere(judged):
            break
        state, seen, judged = tried(problem, state, seen, judged, enough)
        rest = Resting(~judged & (state.status == VALLEY), state.status, seen)
        state, _ = _judge(problem, method, state, rest, None)
    return working.all(state)


def _enough(problem: Problem, method: Method, state: State) -> float:
    """Share of the cost that a certified point may promise."""
    enough = allowance(method.tolerances, problem.precision or state.x.dtype)
    # the error of finite differences promises something at every point: that much is allowed
    return max(enough, LOOSER * min(method.slopes, problem.eps(state.x) ** 0.5))


def _newton(
    problem: Problem, method: Method, state: State, rest: Resting, trials: int | None
) -> tuple[State, Resting, Next]:
    """One Newton step of the problems that want it, kept where the gradient falls."""
    moving, _, seen = rest
    trial = problem.move(state.x, where(spread(moving), seen.newton, 0.0))
    there = state._replace(x=trial)
    ahead = examine(problem, method, there, near=seen if _steady(seen) else None)
    length, fallen = (norm(e.gradient / seen.units) for e in (seen, ahead))
    nearer = fallen <= FALL * length
    if problem.eps(state.x) > FINE_ENOUGH:
        # round-off in steep directions may be more of the gradient than all of a blurred one
        nearer = nearer | ((seen.beyond > 0) & (ahead.decrement <= FALL * FALL * seen.decrement))
    better = moving & nearer & (ahead.cost <= seen.cost + ROUNDINGS * seen.noise)
    state = state._replace(
        x=select(better, trial, state.x),
        cost=where(better, ahead.cost, state.cost),
        trials=state.trials + moving,
        linearizations=state.linearizations + moving,
    )
    following = rest._replace(judged=better, seen=ahead)
    state, after = _judge(problem, method, state, following, trials)
    return state, rest._replace(judged=better, seen=select(better, ahead, seen)), after


def _steady(seen: Undamped) -> bool:
    """Whether the Hessian of one small problem is that of the minimum, for all that is asked of it.

    Steps with it shrink the gradient by a constant factor, which is the smaller the nearer the
    minimum is, and each costs a tenth of a new Hessian.
    """
    if not on_numpy(seen.lowest):
        return False
    return bool(seen.exact) and bool(seen.lowest > at_least(CHANGE * sqrt(seen.promise), LOWEST))


def _judge(
    problem: Problem, method: Method, state: State, rest: Resting, trials: int | None
) -> tuple[State, Next]:
    """The state with what is seen of the problems judged, and what comes next: one host read."""
    suspected = suspects(problem, state, rest.seen.looked)
    wanting, spent = wanted(state, rest), None
    if trials is not None:
        spent = wanting & (state.trials >= trials)
        wanting = wanting & ~spent
    count, inexact, dependent, silent = read(
        wanting.sum(),
        (rest.judged & ~rest.seen.exact).any(),
        suspected.dependent.any(),
        suspected.silent.any(),
    )
    state = judge(problem, method, state, rest, suspected, dependent > 0, silent > 0)
    if spent is not None and not nowhere(spent):  # a Newton step might yet have led to a minimum
        unsure = among(state.status, (Status.VALLEY, Status.SLOW))
        state = state._replace(status=where(spent & unsure, EVALUATIONS, state.status))
    return state, Next(wanting, count, inexact > 0)


def wanted(state: State, rest: Resting) -> Tensor:
    """The problems that are judged which a Newton step may help, (...,) bool."""
    judged, _, seen = rest
    return (
        judged
        & seen.exact
        & (seen.lowest > -NEGATIVE)
        & (seen.promise > fine(resolution(state.x.dtype)))
    )


def judge(
    problem: Problem,
    method: Method,
    state: State,
    rest: Resting,
    suspected: Suspects,
    dependent: bool,
    silent: bool,
) -> State:
    """The state with the status and the certificate of the problems judged.

    Args:
        problem: what is minimised.
        method: how.
        state: at the points that are looked at.
        rest: who is judged, and what was seen there.
        suspected: what calls for a closer look at influence.
        dependent: whether any parameters are suspected to depend on each other.
        silent: whether any parameters have no influence there.
    """
    judged, ended, seen = rest
    gone = lost(problem, state, seen.looked, suspected, dependent, silent)
    enough = _enough(problem, method, state)
    status = certified_status(ended, seen, gone.lost, enough, max(enough, bearable(problem.rows)))
    downward = where(spread(status == LOST), 0.0, seen.downward)
    if silent:  # no curvature tells of a kink or a flat piece beside which the cost is lower
        kink = gone.falls & ((status > 0) | (status == LOST))
        status = where(kink, SADDLE, status)
        # in units of the length of the residuals, as all such directions
        way = gone.way / to_type(seen.looked.length, gone.way.dtype)
        downward = where(spread(kink | (status == LOST)), way, downward)
    found = Certificate(seen.promise, seen.lowest, downward, gone.lost, seen.blind)
    return state._replace(
        status=where(judged, status, state.status),
        certificate=select(judged, found, state.certificate),
    )


def certified_status(
    ended: Tensor, seen: Undamped, gone: Tensor, enough: float, beyond: float
) -> Tensor:
    """The status of a point after a look at it, (...,).

    Args:
        ended: the status with which its run ended, (...,).
        seen: what is seen at the point.
        gone: parameters that have lost their influence, (..., n) bool.
        enough: share of the cost that the point may still promise.
        beyond: share that it may promise along directions that single precision blurs.
    """
    clear = seen._replace(decrement=seen.decrement - seen.beyond).promise
    blurred = seen._replace(decrement=seen.beyond).promise
    nothing = ((clear <= enough) & (blurred <= beyond)) | (seen.decrement <= seen.excused)
    # where every column of J vanishes no cosine says anything, and only the curvature can
    upgraded = (ended <= 0) | every(seen.norms == 0)
    status = where(upgraded, MINIMUM, ended)
    status = where(seen.lowest < -NEGATIVE, SADDLE, status)
    status = where(nothing, status, where(ended == SLOW, ended, VALLEY))
    status = where(some(gone), LOST, status)
    return where(seen.flat & (seen.cost > 0), FLAT, status)
