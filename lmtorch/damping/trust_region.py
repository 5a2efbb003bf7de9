"""Moré's trust region: the step of least linear-model cost with ‖D p‖ ≤ Δ; Δ follows the gain.

λ is the multiplier of the constraint: zero where the Gauss–Newton step is inside,
otherwise the root of φ(λ) = ‖D p(λ)‖ − Δ, found to a tenth of Δ by Hebden's safeguarded
Newton iteration on 1/‖D p‖.

Reference: Moré, The Levenberg–Marquardt algorithm: implementation and theory (1978), §5 and
algorithm 7.1; the constants are those of MINPACK's lmder and lmpar, but for the initial
radius, see `TrustRegion`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from ..arrays import (
    always,
    arrays_of,
    at_least,
    at_most,
    finite,
    maximum,
    minimum,
    minority,
    never,
    norm,
    on_numpy,
    put,
    quiet,
    settled,
    sqrt,
    take,
    to_type,
    where,
    zeros,
)
from ..linearizations.base import Linearization
from ..solvers.base import Factor
from .base import LinearModel, Outcome, Proposal

CLOSE = 0.1  # |φ| ≤ CLOSE Δ is near enough; MINPACK's p1
NEWTON = 10  # iterations on λ at most, as in lmpar; one to three are usual
FLOOR = 1e-3  # share of the upper bound on λ below which no bracket starts
POOR, GOOD = 0.25, 0.75  # gain ratios under and over which the radius changes
LEAST = 0.1  # the radius shrinks to no less than this at once


class TrustRegionState(NamedTuple):
    """Δ, the λ of the last step, and whether no step has been tried yet, (...,)."""

    damping: Tensor
    radius: Tensor
    fresh: Tensor


@dataclass(frozen=True)
class TrustRegion:
    """An exact trust region.

    Args:
        initial: the first radius as a multiple of ‖D x₀‖ (of 1, where that is zero). Default: 1.
            MINPACK's 100 lets the first steps leave the basin: on NIST's 54 starts it loses one and
            costs 9 % more evaluations. One number, or (b,) for each problem of a batch.
        iterations: Newton's on λ at most.
    """

    initial: float | Tensor = 1.0
    iterations: int = NEWTON
    arrays: ClassVar[bool] = True
    recordable: ClassVar[bool] = True
    data: ClassVar[tuple[str, ...]] = ("initial",)  # what a compiled program is given as numbers

    def start(self, linearization: Linearization, scale: Tensor, x: Tensor) -> TrustRegionState:
        """Δ₀ from the size of the parameters."""
        size = to_type(norm(scale * x), linearization.cost.dtype)
        radius, initial = where(size > 0, size, 1.0), self.initial
        if isinstance(initial, Tensor):
            initial = to_type(initial, radius.dtype)
        radius = initial * radius
        return TrustRegionState(zeros(radius), radius, always(radius))

    def propose(self, model: LinearModel, state: TrustRegionState) -> Proposal:
        """The solution of the trust-region subproblem."""
        gradient = to_type(norm(model.equations.gradient / model.scale), state.radius.dtype)
        damping = multiplier(model.factor, gradient, state.radius, state.damping, self.iterations)
        after = TrustRegionState(damping, state.radius, state.fresh)
        return Proposal(model.factor.step(damping), after)

    def update(self, state: TrustRegionState, outcome: Outcome) -> TrustRegionState:
        """Shrink after a poor gain by how far the cost overshot, double after a good one."""
        ratio, length = outcome.ratio, outcome.length
        length = where(finite(length), length, state.radius)
        radius = where(state.fresh, minimum(state.radius, length), state.radius)
        # the parabola through F(0), F'(0) = gᵀp and F(p) is least at t = ½ gᵀp / (gᵀp + actual):
        # lmder's `temp`
        bend = where(
            outcome.actual >= 0, 0.5, outcome.slope / (2 * (outcome.slope + outcome.actual))
        )
        bend = at_most(at_least(where(finite(bend), bend, LEAST), LEAST), 0.5)
        shrunk = bend * minimum(radius, length / LEAST)
        full = (ratio >= GOOD) | (state.damping == 0)
        grown = where(full, 2 * length, radius)
        poor = ratio <= POOR
        damping = where(poor, state.damping / bend, where(full, 0.5, 1.0) * state.damping)
        return TrustRegionState(damping, where(poor, shrunk, grown), never(state.fresh))


def multiplier(
    factor: Factor,
    gradient: Tensor,  # (...,), ‖D⁻¹Jᵀr‖
    radius: Tensor,  # (...,)
    guess: Tensor,  # (...,), λ of the last step
    iterations: int = NEWTON,
) -> Tensor:
    """λ ≥ 0, (...,), with ‖D p(λ)‖ within a tenth of Δ, or zero for a shorter Gauss–Newton step."""
    if getattr(factor, "arrays", False) and not on_numpy(radius):  # many problems, on NumPy's
        many: Any = factor
        with quiet():
            given = arrays_of((gradient, radius, guess))
            found: Tensor = many.known_as(multiplier(factor, *given, iterations))
        return found
    zero = zeros(radius)
    length, slope = _measured(factor, zero, radius)
    inside = length <= (1 + CLOSE) * radius
    if settled(inside):
        return zero
    # φ is convex and falls: Newton from λ = 0 stays left of the root; ‖D p(λ)‖ ≤ ‖D⁻¹g‖ / λ
    # bounds it from the right
    newton = (length - radius) / -slope()
    lower = at_least(where(finite(newton), newton, 0.0), 0.0)
    upper = gradient / radius
    damping = minimum(maximum(guess, lower), upper)
    damping = where(damping > 0, damping, where(finite(length), gradient / length, FLOOR * upper))
    damping = where(inside, zero, damping)
    search = Search(radius, damping, lower, upper, inside)
    return _found(factor, search, iterations)  # where the search is done from the first, zero


class Search(NamedTuple):
    """A search for λ, (...,) each."""

    radius: Tensor
    damping: Tensor
    lower: Tensor
    upper: Tensor
    done: Tensor  # bool


def _found(factor: Any, search: Search, iterations: int) -> Tensor:
    """λ by Hebden's iteration; most problems of a batch do not need the last of them, and leave."""
    radius, damping, lower, upper, done = search
    for number in range(iterations):
        taken = getattr(factor, "take", None)  # of many small problems
        left = None if taken is None else minority(~done)
        if taken is not None and left is not None:
            rest = take(Search(radius, damping, lower, upper, done), left)
            some = taken(left)
            own = _found_by(some, rest, iterations - number)
            damping = put(damping, left, own)
            factor.join(damping, left, some, own)
            return damping
        length, slope = _measured(factor, damping, radius)
        excess = length - radius
        done = done | (abs(excess) <= CLOSE * radius)
        if settled(done):
            break
        failed = ~finite(length)  # no factorisation at this λ: it is too small
        lower = where((excess > 0) | failed, maximum(lower, damping), lower)
        upper = where(excess < 0, minimum(upper, damping), upper)
        hebden = damping + length / radius * excess / -slope()
        middle = maximum(FLOOR * upper, sqrt(lower * upper))
        outside = ~finite(hebden) | (hebden < lower) | (hebden > upper)
        damping = where(done, damping, where(outside, middle, hebden))
    return damping


def _found_by(factor: Any, search: Search, iterations: int) -> Tensor:
    """The same, on arrays where the equations are on them."""
    if not factor.arrays:
        return _found(factor, search, iterations)
    with quiet():
        found: Tensor = factor.known_as(_found(factor, arrays_of(search), iterations))
    return found


def _measured(factor: Factor, damping: Tensor, like: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """‖D p(λ)‖, (...,), and what gives its derivative."""
    many = getattr(factor, "measured", None)  # of many small problems, of which it is made if asked
    if many is not None:
        length, slope = many(damping)
        return to_type(length, like.dtype), lambda: to_type(slope(), like.dtype)
    length, known = factor.length(damping)
    return to_type(length, like.dtype), lambda: to_type(known, like.dtype)
