"""Parameters that have lost their influence where a run has ended.

They may have lost it alone, together with others, or before the start.

A fit whose parameter has run to infinity, or began where it changes nothing, sits on a plateau, and
every test of gradient, cost and step is satisfied there.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..arrays import (
    all_entries_finite,
    count,
    eigvalsh,
    finite,
    largest,
    maximum,
    never,
    some,
    spread,
    to_type,
    total,
    where,
    zeros,
)
from ..linearizations.base import Linearization
from .problem import Problem
from .state import State

# a gradient, curvature or cost of less than so many times its rounding error counts as zero
ROUNDINGS = 16
SHRUNK = 1e-5  # a column may be lost whose norm fell below this share of the largest that it had
# moving a lost parameter by all of itself changes the residuals by less than this share
DEAD = 1e-7
INVOLVED = 1e-3  # squared entry of a null vector from which on its parameter takes part in it
FAR = 1e4  # a parameter has run away if it grew by this factor
FINE_ENOUGH = 1e-12  # round-off up to which a null direction can be told from a weak one
SUBNORMAL = 2.0**-1074  # the distance between the smallest numbers of float64
# below this share of the cost at the start the point is close to a singular root, where J is
# deficient as it should be
ROOT = 1e-28
# factors of the parameters without influence: places to look for it
ELSEWHERE = (0.0, 0.1, -1.0, 10.0)
# and of what is added to those that are zero: about the root of third order of the resolution
ASIDE = (1.0, -1.0, 1e4, -1e4)


class Looked(NamedTuple):
    """The measurements at a point from which influence is judged."""

    cost: Tensor  # (...,)
    noise: Tensor  # (...,), rounding error of the cost
    length: Tensor  # (..., 1), ‖r‖
    norms: Tensor  # (..., n), ‖J e_j‖
    error: Tensor  # (..., n), error of the norms: zero but for finite differences
    diagonal: Tensor  # (..., n), diagonal of the curvature
    values: Tensor  # (..., n), eigenvalues of the scaled curvature, rising
    vectors: Tensor  # (..., n, n), its eigenvectors; see `linearizations/arrow.py`, too
    floor: Tensor  # (..., 1), an eigenvalue up to this is round-off
    free: Tensor  # (..., n) bool
    remains: Tensor  # (...,) bool: the residuals are not zero


class Gone(NamedTuple):
    """What has no influence, and whether the cost falls where it has one."""

    lost: Tensor  # (..., n) bool
    falls: Tensor  # (...,) bool: where what is silent is heard, the cost is lower
    way: Tensor  # (..., n), to such a place, or to one where it is heard; zero: there is none


class Suspects(NamedTuple):
    """What calls for a closer look, which costs evaluations."""

    dependent: Tensor  # (...,) bool: parameters can be changed together without an effect
    silent: Tensor  # (..., n) bool: parameters have no influence here


def suspects(problem: Problem, state: State, looked: Looked) -> Suspects:
    """What calls for a closer look. Round-off hides dependent parameters in single precision."""
    null = count(looked.values <= looked.floor) - count(~looked.free)
    dependent = (null > 0) & looked.remains & (looked.cost > ROOT * state.begun.cost)
    if problem.eps(state.x) > FINE_ENOUGH:
        dependent = never(dependent)
    reach = to_type(maximum(abs(state.x), abs(state.begun.x)), looked.norms.dtype)
    least = problem.eps(state.x) * looked.length
    bent = ROUNDINGS * problem.eps(state.x) * (looked.length * looked.length)
    silent = (looked.norms * reach <= least) & (looked.diagonal * (reach * reach) <= bent)
    return Suspects(dependent, silent & looked.free & spread(looked.remains))


def lost(
    problem: Problem,
    state: State,
    looked: Looked,
    suspected: Suspects,
    dependent: bool,
    silent: bool,
) -> Gone:
    """Parameters that have lost their influence.

    Args:
        problem: what was minimised.
        state: where the run has ended.
        looked: what was measured there.
        suspected: what calls for a closer look.
        dependent: whether any parameters are suspected to depend on each other: to read it here
            would wait for the device.
        silent: whether any parameters have no influence here, likewise.
    """
    found = _died(state, looked)
    if dependent:
        found = found | _dependent(problem, state, looked, suspected.dependent)
    if silent:
        beyond = _out_of_reach(problem, state, looked, suspected.silent)
        # towards the infinity of what has died the cost falls for ever
        falls = beyond.falls & ~some(found)
        return beyond._replace(lost=found | beyond.lost, falls=falls)
    return Gone(found, never(looked.cost), zeros(state.x))


def _died(state: State, looked: Looked) -> Tensor:
    """Columns of J that have died since the run began, (..., n) bool.

    A column may shrink by many orders of magnitude on the way to a minimum, as that of exp(b t)
    does. It is lost if, besides, moving the parameter by all of itself would change next to
    nothing, in first and in second order.
    """
    norms, length, x = looked.norms, looked.length, to_type(state.x, looked.norms.dtype)
    reach = maximum(abs(x), abs(to_type(state.begun.x, x.dtype)))
    shrunk = (norms <= SHRUNK * state.begun.norms) & (state.begun.norms > 0)
    # The move that would have changed the residuals by their own size where the column was largest.
    # |x| and |x₀| alone are not enough: each step of an optimizer is a run of its own, and begins
    # where the parameter may be close to zero already.
    once = length / where(state.begun.norms > 0, state.begun.norms, torch.inf)
    curved = looked.diagonal * maximum(reach, once) ** 2 > DEAD * length**2
    silent = (norms * reach <= DEAD * length) | (norms <= looked.error)
    return shrunk & silent & ~curved & (length > 0) & looked.free


def _dependent(problem: Problem, state: State, looked: Looked, clear: Tensor) -> Tensor:
    """Parameters that became dependent: changed together they have no effect, (..., n) bool.

    A model may have such combinations everywhere, a sum of two amplitudes for example, and minima
    all the same; and there are minima at which J is deficient. What tells a plateau is that there
    were fewer such combinations at the start, and that one of the parameters has run far away.
    """
    null = looked.values <= looked.floor
    least, rows = ROUNDINGS * state.x.shape[-1] * problem.eps(state.x), problem.rows
    before, now = (_deficiency(problem.model(x), least, rows) for x in (state.begun.x, state.x))
    more = clear & (now > before)
    share = total(where(null[..., None, :], looked.vectors**2, 0.0))
    involved = (share > INVOLVED) & looked.free
    begun = abs(state.begun.x)
    ran = abs(state.x) > FAR * where(begun > 0, begun, 1.0)
    return spread(more & some(involved & ran)) & involved


def underflow(units: Tensor, rows: int) -> Tensor:
    """How far sums of so many squares may be off, (..., 1), for they have left the range of dtypes.

    Where J is so small that its squares are subnormal they have lost digits. In the units (..., n)
    that is a large error, which would pass for curvature.
    """
    return ROUNDINGS * rows * SUBNORMAL / spread(-largest(-units)) ** 2


def _deficiency(model: Linearization, floor: float, rows: int) -> Tensor:
    """How many combinations of parameters have no influence to first order, (...,) int."""
    # where points have variables of their own none but the shared ones can be one too many
    model = getattr(model, "condensed", model)
    units = where(model.column_norms > 0, model.column_norms, 1.0)
    scaled = model.normal / units[..., :, None] / units[..., None, :]
    finite = all_entries_finite(scaled)
    values = eigvalsh(where(spread(spread(finite)), scaled, 0.0))
    return count(values <= floor + underflow(units, rows))


def _out_of_reach(problem: Problem, state: State, looked: Looked, silent: Tensor) -> Gone:
    """Parameters whose start was too far off: they have an influence only elsewhere.

    A parameter that the model does not use has none anywhere, and is left alone. One that is zero,
    at a kink as that of |x| there, whose derivative is taken for zero, is moved a little: the kink
    may well be the minimum, and is none where the cost falls beside it. So it is wherever one of
    the places that are looked at is lower, as on the flat piece of max(k, 2): a run may go on from
    there.
    """
    at_zero = silent & (state.x == 0) & (looked.norms == 0)
    at_zero = at_zero & ~spread(some(silent & ~at_zero))
    heard, falls, way = never(looked.remains), never(looked.remains), zeros(state.x)
    length = problem.eps(state.x) ** (1 / 3)
    for factor, step in zip(ELSEWHERE, ASIDE, strict=True):
        moved = where(silent, factor * state.x, state.x)
        moved = where(at_zero, step * length, moved)
        if problem.bounds is not None:
            moved = to_type(problem.bounds.project(to_type(moved, problem.dtype)), state.x.dtype)
        cost = problem.cost(moved)
        here = ~(abs(cost - looked.cost) <= ROUNDINGS * looked.noise)
        lower = ~falls & (cost < looked.cost - ROUNDINGS * looked.noise) & some(silent)
        first = here & ~heard & finite(cost) & ~some(at_zero)
        way = where(spread(lower | first), moved - state.x, way)
        heard, falls = heard | here, falls | lower
    return Gone(silent & ~at_zero & spread(heard), falls, way)
