"""What follows a run: its end polished and certified."""

import torch

from ..arrays import on_numpy, seen, select, where
from .certificate import certify, certify_clear
from .glance import glance, quick
from .influence import FINE_ENOUGH
from .last_step import asked, resolved
from .method import Method
from .polish import fine, polish
from .problem import Problem
from .state import State
from .termination import Status

EVALUATIONS = int(Status.EVALUATIONS)


def look(
    problem: Problem,
    method: Method,
    state: State,
    ended: int | None = None,
    trials: int | None = None,
) -> State:
    """The end of a run polished and certified.

    Where evaluations are dear, it is polished only if it is not certified as it is.

    Args:
        problem: what is minimised.
        method: how.
        state: where the run has ended.
        ended: the status of a single problem, if the host knows it.
        trials: at most, with those of the run; None: any.
    """
    if not method.certify:
        if method.polish:
            state = polish(problem, method, state, ended, trials=trials)
        return (asked if method.asks else resolved)(problem, method, state, ended)
    if quick(method, state):
        state, sure, _ = glance(problem, method, state, trials)
        doubted = state._replace(status=torch.where(sure, EVALUATIONS, state.status))
        looked = _looked(problem, method, doubted, ended, trials)
        return select(sure, state, looked)
    return _looked(problem, method, state, ended, trials)


def _looked(
    problem: Problem, method: Method, state: State, ended: int | None, trials: int | None
) -> State:
    """The end of a run polished and certified in full."""
    if method.polish and not method.frugal:
        return _polished(problem, method, state, ended, trials)
    certified = certify(problem, method, state, ended, trials)
    doubt = certified.status <= 0
    if not (method.polish and seen(doubt)):
        return certified
    doubted = state._replace(status=where(doubt, state.status, EVALUATIONS))
    polished = polish(problem, method, doubted, ended, trials=trials)
    return select(doubt, certify(problem, method, polished, ended, trials), certified)


def _polished(
    problem: Problem, method: Method, state: State, ended: int | None, trials: int | None
) -> State:
    """The end of a run polished and certified, with Newton's steps where polishing is slow."""
    # where the Hessian costs little Newton's steps with it are the shorter way
    curves = on_numpy(state.x) and getattr(problem.source, "curves", False)
    if curves and problem.eps(state.x) <= FINE_ENOUGH:
        certified, clear = certify_clear(problem, method, state, trials)
        if clear:
            return certified
        # what round-off hides from the Hessian's steps those from J itself may still see
        tried = certified.trials, certified.linearizations
        state = state._replace(trials=tried[0], linearizations=tried[1])
    hurried = polish(problem, method, state, ended, trials=trials, hurried=True)
    certified = certify(problem, method, hurried, ended, trials)
    # no Newton step was taken, as the exact Hessian cannot be had: then polishing goes on
    waiting = (certified.status > 0) & (certified.trials == hurried.trials)
    waiting = waiting & (certified.certificate.promise > fine(problem.eps(state.x)))
    if not seen(waiting):
        return certified
    again = certified._replace(status=where(waiting, state.status, EVALUATIONS))
    again = certify(problem, method, polish(problem, method, again, trials=trials), None, trials)
    return select(waiting, again, certified)
