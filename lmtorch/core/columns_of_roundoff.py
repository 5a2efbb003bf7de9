"""Columns of J that consist of nothing but round-off, which count as zero.

Attention does not change with the bias of its keys, nor a softmax with what is added to all of its
inputs: the derivative by such a parameter is a sum that cancels, and what is left of it is the
round-off of its terms. D scales every column to length one, and so a step would give that parameter
whatever the residuals have in common with noise, divided by 10⁻¹⁶. The look at the end of a run
does the same with the root of a curvature, which is round-off as well.

How long the column is does not tell: t² with t in nanoseconds is as short beside a constant, and
every digit of it holds. But a column that means something is almost the same at a point that is
almost the same, and round-off is another at every point. So where a column is very short beside the
longest, J is made once or twice more, a share √ε away on either side. A parameter of which that was
done, and which D knows since, is not asked again.

Of many rows nothing is kept but JᵀJ, in which the column of another point is not to be compared.
There a few sums of its entries with signs stand in for it, see `linearizations/sketch.py`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..arrays import (
    all_finite,
    every,
    filled,
    largest,
    maximum,
    minimum,
    never,
    places,
    put,
    seen,
    settled,
    some,
    spread,
    sqrt,
    take,
    to_type,
    where,
)
from ..linearizations.base import Linearization
from ..recording.outside import outside
from .method import Method
from .problem import Problem
from .state import Begun

# power of ε: a column below this share of the longest may be round-off, 4·10⁻¹¹ in float64
SHORT = 2 / 3
# power of ε: the share of itself, at most, by which each parameter is moved
ASIDE = 1 / 2
# share of |a| + |b| that |a − b| of two columns of noise exceeds, summed over the rows, as one
# coarse row would decide of squares: about 0.7, and 0.05 was seen in single precision, where
# columns that mean something differ by up to 0.01
ANOTHER = 0.03
# noise is about as long at every point; a column that is so much longer nearby is zero at x, as a
# cosine is at π/2, and means something
GROWN = 100.0


def scaled_by(
    problem: Problem,
    method: Method,
    x: Tensor,
    held: Linearization,
    known: Tensor | None,
    begun: Begun | None,
) -> Linearization:
    """The model that D is made of, with those columns set to zero that are nothing but round-off.

    A column that vanishes at x alone is one of them here: D would be as small as what the rounding
    of x has left of it.

    Args:
        problem: what is minimised.
        method: how.
        x: the point.
        held: the linear model there.
        known: D as the scaling left it; None: none yet.
        begun: where the run began; None: here.
    """
    remembers = getattr(method.scaling, "remembers", False)
    if remembers is False:
        return held
    if not seen(some(below(problem, x, held))):
        return held
    asked = short(problem, x, held, begun)
    if known is not None:
        asked = asked & ~(known > 0)
    if remembers is not True:  # of each problem of a batch
        asked = asked & spread(remembers)
    if not seen(some(asked)):
        return held
    noise, vanishing = of_roundoff(problem, x, held, asked)
    noise = noise | vanishing
    return held.freeze(~noise) if seen(some(noise)) else held


def without_roundoff(
    problem: Problem, x: Tensor, model: Linearization, begun: Begun | None = None
) -> Linearization:
    """The model with those columns set to zero that are nothing but round-off, whatever D is."""
    more = heard(problem, x, model, begun)
    return model if more is None else model.freeze(more)


def heard(
    problem: Problem, x: Tensor, model: Linearization, begun: Begun | None = None
) -> Tensor | None:
    """Which columns of J are more than round-off, (..., n) bool; None: all of them, or unknown.

    Nobody looks where somebody would have to wait for it, or while a program is compiled.

    Args:
        problem: what is minimised.
        x: the point.
        model: the linear model there.
        begun: where the run began; None: here.
    """
    if not seen(some(below(problem, x, model))):
        return None
    asked = short(problem, x, model, begun)
    if not seen(some(asked)):
        return None
    noise, _ = of_roundoff(problem, x, model, asked)
    return ~noise if seen(some(noise)) else None


def below(problem: Problem, x: Tensor, model: Linearization) -> Tensor:
    """The columns of J that are very short beside the longest, (..., n) bool."""
    norms = model.column_norms
    return _below(problem, x, norms, largest(norms))


def short(problem: Problem, x: Tensor, model: Linearization, begun: Begun | None = None) -> Tensor:
    """The columns of J that may be round-off, by their length alone, (..., n) bool.

    A column that moves the residuals as the others do, or by as much as they are, if all of the
    parameter is moved, is short by its unit alone, or beside one that explodes; one that was longer
    has died. But what has followed round-off may be far off, and has met the data.

    Args:
        problem: what is minimised.
        x: the point.
        model: the linear model there.
        begun: where the run began, and the largest norms since; None: here.
    """
    norms, size = model.column_norms, abs(to_type(x, problem.dtype))
    known, least, cost = norms, size, model.cost
    if begun is not None:
        known = maximum(norms, begun.norms)
        least, cost = minimum(size, abs(to_type(begun.x, problem.dtype))), begun.cost
    length, moves = to_type(sqrt(2 * cost), problem.dtype), known * least
    still = _below(problem, x, moves, largest(norms * size)) & _below(problem, x, moves, length)
    return _below(problem, x, known, largest(norms)) & still & (norms > 0)


def _below(problem: Problem, x: Tensor, lengths: Tensor, beside: Tensor) -> Tensor:
    """Which lengths (..., n) are round-off beside one (...,)."""
    return lengths <= problem.eps(x) ** SHORT * spread(beside)


@outside
def of_roundoff(problem: Problem, x: Tensor, model: Any, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Which columns of J are others at points that are almost the same.

    Args:
        problem: what is minimised.
        x: the point, (..., n).
        model: there, whatever may move.
        asked: the columns that are asked after, (..., n) bool.

    Returns:
        Those that are nothing but round-off, and those that vanish at x alone, (..., n) bool.
    """
    noise = vanishing = never(x)
    of_some = some(asked)
    if x.ndim == 2 and not settled(of_some):  # the others of a batch are not evaluated for them
        chosen = places(of_some, int(of_some.sum()))
        found = of_roundoff(problem.take(chosen), x[chosen], take(model, chosen), asked[chosen])
        return put((noise, vanishing), chosen, found)
    columns = _columns(problem)
    if columns is None:
        return noise, vanishing
    here = model.jacobian if hasattr(model, "jacobian") else columns(x)
    aside = _aside(problem, x, model, asked)
    for side in (aside, -aside):
        near = columns(problem.move(x, side))
        apart, there, before = _sizes(near - here), _sizes(near), _sizes(here)
        another = asked & spread(all_finite(there)) & (apart > ANOTHER * (there + before))
        longer = there > GROWN * before
        noise, vanishing = noise | (another & ~longer), vanishing | (another & longer)
        if settled(every(noise | vanishing | ~asked)):
            break
    return noise, vanishing


def _columns(problem: Problem) -> Callable[[Tensor], Tensor] | None:
    """Makes J at a point, or some rows that stand in for it; None: they are not to be had."""
    form: Any = getattr(problem.form, "compared", None)
    if form is None:
        return None
    rows = problem.residual if problem.sample is None else problem.sample
    asking = replace(problem, form=form, residual=rows, sample=None, keep=False)

    def columns(x: Tensor) -> Tensor:
        found: Any = asking.model(x)
        return found.jacobian

    return columns


def _aside(problem: Problem, x: Tensor, model: Any, asked: Tensor) -> Tensor:
    """A step to a point that is almost the same, (..., n), by a share of its own of each parameter.

    Where all moved alike, some would be rounded alike. Of a parameter that is zero what moves the
    residuals by as much as they are stands in for its size.
    """
    size, norms = to_type(x, problem.dtype), model.column_norms
    length = spread(to_type(sqrt(2 * model.cost), problem.dtype))
    alone = where(asked | (norms == 0), 0.0, length / norms)
    size = where(size == 0, alone, size)
    return problem.eps(x) ** ASIDE * filled(size, 1.0).cumsum(-1) / x.shape[-1] * size


def _sizes(matrix: Tensor) -> Tensor:
    """The sum of what each column holds, without signs, (..., n)."""
    return abs(matrix).sum(-2)
