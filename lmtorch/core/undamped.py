"""What is seen at a point without damping: curvature, and what the quadratic model still promises.

Parameters are measured in units in which every curvature is at most about one. The curvature is
that of the exact Hessian of the cost, by reverse mode twice, where it can be had and agrees with J;
elsewhere JᵀJ, and where that leaves a doubt about a black box, with differences of second order.

Reference: Boyd & Vandenberghe, Convex optimization (2004), §9.5.1, on the Newton decrement.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._autodiff import ranges
from ..arrays import (
    all_entries_finite,
    all_finite,
    apply,
    count,
    every,
    gathered,
    join,
    largest,
    maximum,
    minimum,
    never,
    norm,
    nowhere,
    on_numpy,
    resolution,
    select,
    settled,
    some,
    spread,
    sqrt,
    to_type,
    total,
    transposed,
    where,
    zeros,
)
from ..jacobians.base import GROSS
from ..linearizations.base import Linearization, rounding_of_cost
from ..recording.outside import outside
from .allowance import strict
from .columns_of_roundoff import heard
from .curvature import exact_blocks, exact_hessian, residual_curvature, trembling
from .influence import FINE_ENOUGH, ROUNDINGS, Looked, underflow
from .method import Method
from .problem import Problem
from .spectrum import whole as whole_of
from .state import State

# parameters up to which the Hessian is made: each takes a reverse pass through the gradient
EXACT = 64
ENTRIES = 2**24  # entries of the Jacobian up to which the Hessian is made
# parameters up to which a black box is asked for second differences: (n + 1)(n + 2)/2 evaluations
DIFFERENCED = 8
# a gradient in single precision of less than so many times its expected rounding counts as zero:
# four deviations of ten roundings of a row, each of which is ε/√12 of what is rounded
WALK = 4.0
RESOLVED = 4.0  # singular values of J below so many ε of the largest are those of rounded entries


class Undamped(NamedTuple):
    """What is seen at a point, without damping."""

    cost: Tensor  # (...,)
    gradient: Tensor  # (..., n), of the variables that may move
    units: Tensor  # (..., n): in them every curvature is at most about one
    noise: Tensor  # (...,), rounding error of the cost
    excused: Tensor  # (...,), a decrement up to this may be round-off, in units of the cost
    decrement: Tensor  # (...,), in units of the cost; infinite where nothing can be said
    lowest: Tensor  # (...,), smallest curvature
    downward: Tensor  # (..., n), the direction of it, of length one in the units
    newton: Tensor  # (..., n), step to the minimum of the quadratic model
    blind: Tensor  # (...,) bool: a curvature is below the round-off of single precision
    flat: Tensor  # (...,) bool: gradient and curvature are zero
    exact: Tensor  # (...,) bool: the curvature is that of the exact Hessian
    curvature: Any  # (..., n, n), of all variables, or blocks of it
    hidden: Tensor  # (...,), share of the cost that round-off in the gradient may hide
    norms: Tensor  # (..., n), ‖J e_j‖ of all variables
    looked: Looked  # what influence is judged by
    # what of the decrement is along directions whose curvature is that of J alone, as single
    # precision blurs the Hessian's, and the step along them: see `core/blurred.py`
    beyond: Tensor  # (...,)
    aside: Tensor  # (..., n)
    seen_in: Any = None  # the curvature in the units, and its spectrum; None: of many problems

    @property
    def promise(self) -> Tensor:
        """The decrement as a share of the cost, (...,); zero where both are."""
        return where(self.decrement > 0, self.decrement / self.cost, 0.0)


def examine(
    problem: Problem,
    method: Method,
    state: State,
    *,
    doubted: bool = False,
    near: Undamped | None = None,
) -> Undamped:
    """Look at the point where a run has ended.

    Args:
        problem: what was minimised.
        method: how.
        state: where the run has ended.
        doubted: look more closely, as a first look has left a doubt.
        near: what was seen at a point so near that the curvature is the same.
    """
    x = state.x
    whole = problem.model_at_end(x)
    free = problem.free(x, whole.gradient)
    more = heard(problem, x, whole, state.begun)
    if more is not None:
        free = free & more
    held = problem.bounds is not None or more is not None
    model = whole.freeze(free) if held else whole
    wide = to_type(x, problem.dtype)
    length = spread(to_type(sqrt(2 * model.cost), problem.dtype))  # ‖r‖, (..., 1)
    if near is None:
        curvature, exact = _curvature(problem, state, whole, length, doubted)
    else:
        curvature, exact = near.curvature, near.exact
    matrix: Any = whole_of(curvature)
    if held:
        matrix = matrix.between(free)

    curvatures = abs(matrix.diagonal)
    if near is None or near.seen_in is None or problem.bounds is not None:
        units = maximum(model.column_norms, sqrt(curvatures))
        units = where(units > 0, units, 1.0)
        scaled = matrix.scaled(units)
        slope = model.gradient / units
        finite = scaled.finite & all_finite(slope)
        spectrum = scaled.spectrum(finite)
    else:  # of the same curvature in the same units
        units, (scaled, spectrum) = near.units, near.seen_in
        slope = model.gradient / units
        finite = all_finite(slope)
    values, every_value, vectors = spectrum.values, spectrum.every, spectrum.vectors

    eps = problem.eps(x)
    every_along = spectrum.along(slope)
    error = _column_error(problem, method, model, wide)
    unclear = ROUNDINGS * eps * spread(carried(model, wide)) + length * (
        ROUNDINGS * method.slopes + error / units
    )
    clear = where(abs(slope) > unclear, slope, 0.0)
    unclear = spectrum.error(unclear)
    floor = underflow(units, problem.rows)
    finite = finite & gathered(floor < 1)  # else all of the curvature may be error
    floor = floor + ROUNDINGS * x.shape[-1] * max(eps, resolution(problem.dtype))
    steep = maximum(abs(every_value), floor)
    resolved, blurred = every_value > floor, never(every_value)
    noise = rounding_of_cost(model, wide, eps)
    excused = ROUNDINGS * noise
    if _has_rows(problem, method, matrix):
        # a bound of norms may hide what has no part in it: where it matters, the rows are asked
        rough = total(every_along * every_along / steep) / 2
        doubt = rough > strict(problem.precision or x.dtype) * model.cost
        if eps > FINE_ENOUGH:
            doubt = doubt | some(abs(every_value) <= floor)
        doubt = doubt & finite
        if not nowhere(doubt):
            told = turned_along(problem, whole, x, spectrum, units, free)
            if eps > FINE_ENOUGH:
                bent, least = told.length, spread(largest(every_value)) * (RESOLVED * eps) ** 2
                # what the Hessian cannot tell from zero, the rows of J may still tell
                blurred = spread(doubt) & (abs(every_value) <= floor)
                steep = where(blurred, minimum(maximum(bent, least), floor), steep)
                resolved = resolved | (blurred & (bent > least))
                # rounding x moves all rows at once
                at_once = steep * apply(transposed(abs(vectors)), abs(units * wide))
                turned = WALK * eps * (sqrt(told.walk) + at_once)
            else:
                turned = ROUNDINGS * eps * (length + told.worst)
            unclear = where(spread(doubt), minimum(unclear, turned), unclear)
        excused = zeros(noise)
    along = where(abs(every_along) > unclear, every_along, 0.0)
    # a curvature within round-off has no sign
    lowest = spectrum.lowest
    lowest = where(abs(lowest) <= gathered(floor), 0.0, lowest)
    promised = total(along * along / steep)
    if method.slopes:
        # the error of one column by differences may hide every direction that it has a part in, and
        # yet along the axis of another the cost falls: no less than that is promised
        axes = clear * clear / maximum(abs(scaled.diagonal), floor)
        promised = maximum(promised, largest(axes))
    decrement = to_type(promised, model.cost.dtype) / 2
    step = where(resolved, along / steep, 0.0)
    beyond, aside = zeros(decrement), zeros(x)
    if eps > FINE_ENOUGH:
        beyond = to_type(total(where(blurred, along * along / steep, 0.0)), decrement.dtype) / 2
        aside = -spectrum.back(where(blurred, step, 0.0)) / units
    newton = -spectrum.back(step) / units
    hidden = total(unclear * unclear / steep)
    hidden = to_type(hidden, model.cost.dtype) / 2
    if doubted:
        noise = maximum(noise, gathered(length) * trembling(problem, x))
        excused = maximum(excused, ROUNDINGS * noise)
    remains = finite & (model.cost > ROUNDINGS * noise)
    looked = Looked(
        model.cost,
        noise,
        length,
        model.column_norms,
        error,
        curvatures,
        values,
        vectors,
        floor,
        free,
        remains,
    )
    seen = Undamped(
        cost=model.cost,
        gradient=model.gradient,
        norms=whole.column_norms,
        units=units,
        noise=noise,
        excused=excused,
        decrement=where(finite, decrement, torch.inf),
        lowest=to_type(where(finite, lowest, -torch.inf), model.cost.dtype),
        downward=to_type(vectors[..., 0] / units, x.dtype),
        newton=where(spread(finite), newton, 0.0),
        blind=remains & (count(values <= floor) > count(~free)) & (eps > FINE_ENOUGH),
        flat=matrix.zero & every(model.gradient == 0) & some(free),
        exact=exact,
        curvature=curvature,
        hidden=hidden / model.cost,
        looked=looked,
        beyond=where(finite, beyond, 0.0),
        aside=to_type(where(spread(finite), aside, 0.0), x.dtype),
        seen_in=(scaled, spectrum) if on_numpy(model.cost) else None,
    )
    return problem.agreed(seen)


def _has_rows(problem: Problem, method: Method, matrix: Any) -> bool:
    """Whether the rows of J can be asked what round-off does to the gradient.

    The error of finite differences is another than round-off, and points with variables of their
    own have as many directions.
    """
    return (
        getattr(matrix, "of_all", False)
        and not method.slopes
        and hasattr(problem.form, "of_roundoff")
    )


@outside
def turned_along(
    problem: Problem, model: Any, x: Tensor, spectrum: Any, units: Tensor, free: Tensor
) -> Any:
    """How far round-off turns the gradient at x along each eigenvector: `Told` of a linear model.

    Args:
        problem: what was minimised.
        model: at x, whatever may move.
        x: the point, (..., n).
        spectrum: of the curvature in the units.
        units: of the parameters, (..., n).
        free: which may move, (..., n) bool.
    """
    directions = where(free[..., :, None], spectrum.vectors / units[..., :, None], 0.0)
    return _turned(problem, model, x, directions)


def _turned(problem: Problem, model: Any, x: Tensor, directions: Tensor) -> Any:
    """The same along directions (..., n, k).

    Args:
        problem: what was minimised.
        model: at x.
        x: the point, (..., n), in the dtype in which the residuals take it.
        directions: of the parameters, (..., n, k), in that of the linear algebra.
    """
    wide = to_type(x, directions.dtype)
    if hasattr(model, "turned"):
        return model.turned(directions, wide)
    if problem.apart(x):
        chosen = ranges(len(x), problem.together or len(x))
        return join([_turned(problem.take(s), None, x[s], directions[s]) for s in chosen])
    form: Any = problem.form
    asking = replace(problem, form=form.of_roundoff(directions, wide), sample=None, keep=False)
    told: Any = asking.model(x)
    return told.found


def carried(model: Linearization, x: Tensor) -> Tensor:
    """‖r‖ + ‖J∘x‖, (...,): rounding x and r costs an entry of the scaled gradient ε times that."""
    length = to_type(sqrt(2 * model.cost), x.dtype)
    return length + norm(model.column_norms * x)


def _column_error(problem: Problem, method: Method, model: Linearization, x: Tensor) -> Tensor:
    """How large the error of a column is, (..., n): zero but for finite differences.

    A column that ought to vanish consists of this error alone.
    """
    if not method.slopes:
        return zeros(x)
    return ROUNDINGS * method.slopes * spread(carried(model, x)) / problem.sizes(x)


def _curvature(
    problem: Problem, state: State, model: Linearization, length: Tensor, doubted: bool
) -> tuple[Any, Tensor]:
    """The exact Hessian (..., n, n) if it can be had and agrees with J, else JᵀJ; and which it is.

    For a black box JᵀJ is all there is at first; where it leaves a doubt, differences of second
    order are added.
    """
    x = state.x
    if hasattr(model, "arrow"):
        return _of_blocks(problem, x, model, length)
    n = x.shape[-1]
    found = exact_hessian(problem, x) if n <= EXACT and n * problem.rows <= ENTRIES else None
    if found is None:
        normal = model.normal
        if not doubted or n > DIFFERENCED:
            return normal, never(model.cost)
        size = maximum(abs(x), abs(state.begun.x))
        size = where(size > 0, size, 1.0)
        second = residual_curvature(problem, x, size)
        if second is not None:
            # an entry that may be no more than the round-off of its differences is left out
            effect = abs(second) * size[..., :, None] * size[..., None, :]
            noise = ROUNDINGS * problem.eps(x) ** 0.5 * length
            noise = noise * spread(carried(model, to_type(x, problem.dtype)))
            normal = normal + where(effect > spread(noise), second, 0.0)
        return normal, never(model.cost)
    # a source of derivatives that is not torch's own may see what torch does not
    norms = where(model.column_norms > 0, model.column_norms, 1.0)
    apart = spread(largest(abs((found.gradient - model.gradient) / norms)))
    exact = all_entries_finite(found.matrix) & gathered(apart <= GROSS * length)
    if settled(exact):
        return found.matrix, exact
    return where(spread(spread(exact)), found.matrix, model.normal), exact


def _of_blocks(problem: Problem, x: Tensor, model: Any, length: Tensor) -> tuple[Any, Tensor]:
    """The same where points have variables of their own: nothing of their size is written out."""
    met = getattr(problem.residual, "met", EXACT + 1)
    small = met <= EXACT and met * problem.rows <= ENTRIES
    found = exact_blocks(problem, x, model) if small else None
    if found is None:
        return model.arrow, never(model.cost)
    norms = where(model.column_norms > 0, model.column_norms, 1.0)
    apart = spread(largest(abs((found.gradient - model.gradient) / norms)))
    exact = found.matrix.finite & gathered(apart <= GROSS * length)
    if settled(exact):
        return found.matrix, exact
    return select(exact, found.matrix, model.arrow), exact
