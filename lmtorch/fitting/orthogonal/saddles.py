"""Where a fit with errors in x has ended at a saddle: it goes on beside it.

At zero nothing may pull a parameter whose sign makes no difference, nor the points with it. A step
along the direction in which the cost curves downward leads away from there, to one side or the
other; how far the curvature holds is tried, as a model may be infinite where a long step ends.
"""

import torch
from torch import Tensor

from ...arrays import select
from ...core.method import Method
from ...core.problem import Problem
from ...core.state import State
from ...core.termination import Status
from ...minimising.opinions import Opinion, ask
from .watch import Onlooker

ROUNDS = 4  # saddles one after the other that a fit is led away from
# parts of the step that changes the residuals by about as much as they are
PARTS = (1.0, 1e-1, 1e-2, 1e-3)


def beside_saddles(
    problem: Problem, method: Method, state: State, trials: int, seen: Onlooker
) -> State:
    """Go on beside the saddles where fits have ended, if there are any: one host read each.

    Args:
        problem: what was minimised.
        method: how.
        state: where that has ended.
        trials: evaluations at most, with those of the run.
        seen: is shown every iteration, and counts what was spent before a run.

    Returns:
        The better ends, with the evaluations of all runs.
    """
    before = seen.spent
    again = Opinion("beside the saddle", method, restart=False)
    for _ in range(ROUNDS):
        saddle = state.status == Status.SADDLE.value
        if not bool((saddle & (state.trials < trials - 1)).any()) or seen.stopped:
            break
        aside, spent = _aside(problem, state, saddle, trials)
        state = state._replace(trials=state.trials + spent)
        seen.spent = before + state.trials + 1
        # only what has ended at a saddle is asked about
        asked = state._replace(status=torch.where(saddle, state.status, Status.COST.value))
        found = ask(
            problem, [again], aside, asked, trials=trials, in_all=trials, watch=seen.watch
        ).state
        state = select(saddle, found, state._replace(damping=None))
    return state


def _aside(problem: Problem, state: State, saddle: Tensor, trials: int) -> tuple[Tensor, Tensor]:
    """The lowest of some points beside each saddle, and how many were evaluated, (...,)."""
    length = (2 * state.cost).sqrt()[..., None] * state.certificate.downward
    best, least = state.x, torch.full_like(state.cost, torch.inf)
    spent = torch.zeros_like(state.trials)
    for part in PARTS:
        for sign in (1, -1):
            if int((state.trials + spent).max()) >= trials:
                return best, spent
            trial = state.x + (sign * part * length).nan_to_num(0.0, 0.0, 0.0).to(state.x)
            trial = trial if problem.bounds is None else problem.bounds.project(trial)
            cost = problem.cost(trial).to(least)
            spent = spent + saddle
            lower = cost < least
            best = torch.where((saddle & lower)[..., None], trial, best)
            least = torch.where(lower, cost, least)
        if bool((least < state.cost)[saddle].all()):
            break
    return best, spent
