"""Directions in which single precision blurs the curvature: what is promised there is tried.

Second derivatives of single precision are off by ε of the largest curvature, and a curvature below
that has no sign. The rows of J say more, as ‖J t‖² is off by ε² only; but by how much Σ r ∇²r
changes it nobody knows: where two rates of decay have met, it is all of the curvature. So a
decrease that the rows promise is tried along its step and along shorter ones. If the cost falls,
the point is no minimum, and the trial is kept. If it does not, though it would have been seen to
fall, nothing is promised. What round-off in the cost itself would hide stays a doubt, and so does
what is more than a standard error: a valley that bends is left by every straight step.
"""

from torch import Tensor

from ..arrays import select, spread, to_type, where
from .problem import Problem
from .state import State
from .undamped import WALK, Undamped

FACTORS = (1.0, 0.25, 0.0625, 0.015625)  # of the step that is tried, the longest first
TRIALS = len(FACTORS)
SEEN = 7 / 16  # share of the promise that a quarter of the step redeems if the cost is quadratic
# standard errors by which a fit may be off where nobody can tell: its cost is then above the
# minimum by about the square of that over the number of residuals
OFF = 0.1
ONE = 1.0  # square of the standard errors that may be promised in vain


def bearable(rows: int) -> float:
    """Share of the cost that blurred directions may promise of so many residuals."""
    return OFF * OFF / rows


def tried(
    problem: Problem, state: State, seen: Undamped, doubt: Tensor, enough: float
) -> tuple[State, Undamped, Tensor]:
    """Try what is promised along blurred directions.

    Args:
        problem: what is minimised.
        state: at the points that are looked at.
        seen: what is seen there.
        doubt: of which problems, (...,) bool.
        enough: share of the cost that may be promised.

    Returns:
        The state after trials that the cost has confirmed, what is seen without promises that it
        has disproved, and which trials were worth it, (...,) bool: there another look is due.
    """
    rows = problem.rows
    # a difference of two sums of squares, whose rows are rounded each for itself
    noise = to_type(WALK / rows**0.5 * seen.noise, state.cost.dtype)
    best, cost = state.x, seen.cost
    for factor in FACTORS:
        trial = problem.move(state.x, where(spread(doubt), factor * seen.aside, 0.0))
        there = problem.cost(trial)
        lower = there < cost
        best, cost = select(lower, trial, best), where(lower, there, cost)
    spent = state.trials + TRIALS * doubt
    gained = doubt & (seen.cost - cost > noise)
    worth = gained & (seen.cost - cost > enough * seen.cost)
    clear = doubt & ~worth & (SEEN * seen.beyond > noise) & (rows * seen.beyond <= ONE * seen.cost)
    state = state._replace(
        x=select(gained, best, state.x), cost=where(gained, cost, state.cost), trials=spent
    )
    found = seen._replace(
        decrement=where(clear, seen.decrement - seen.beyond, seen.decrement),
        beyond=where(clear, 0.0, seen.beyond),
    )
    return state, found, worth
