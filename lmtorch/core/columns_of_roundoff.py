"""Columns of J that consist of nothing but round-off, which count as zero.

Attention does not change with the bias of its keys, nor a softmax with what is added to all of its
inputs: the derivative by such a parameter is a sum that cancels, and what is left of it is the
round-off of its terms. D scales every column to length one, and so a step would give that parameter
whatever the residuals have in common with noise, divided by 10⁻¹⁶.

How long the column is does not tell: t² with t in nanoseconds is as short beside a constant, and
every digit of it holds. But a column that means something is almost the same at a point that is
almost the same, and round-off is another at every point. So where a column is very short beside the
longest, J is made twice more, a share √ε away on either side. A parameter of which that was done,
and which D knows since, is not asked again.
"""

from typing import Any

from torch import Tensor

from ..arrays import (
    all_finite,
    every,
    filled,
    largest,
    never,
    seen,
    settled,
    some,
    spread,
    to_type,
)
from ..linearizations.base import Linearization
from ..recording.outside import outside
from .method import Method
from .problem import Problem

# power of ε: a column below this share of the longest may be round-off, 4·10⁻¹¹ in float64
SHORT = 2 / 3
# power of ε: the share of itself, at most, by which each parameter is moved
ASIDE = 1 / 2
# share of ‖a‖² + ‖b‖² that ‖a − b‖² of two columns of noise exceeds: on average it is one
ANOTHER = 0.1


def without_roundoff(
    problem: Problem, method: Method, x: Tensor, held: Linearization, known: Tensor | None
) -> Linearization:
    """The model with those columns set to zero that are nothing but round-off.

    Only where D is made of the columns, and where a look at them makes nobody wait: on a CPU, and
    not in what is compiled.

    Args:
        problem: what is minimised.
        method: how.
        x: the point.
        held: the linear model there.
        known: D as the scaling left it; None: none yet.
    """
    if getattr(method.scaling, "remembers", False) is not True:
        return held
    norms = held.column_norms
    short = norms <= problem.eps(x) ** SHORT * spread(largest(norms))
    if not seen(some(short)):
        return held
    short = short & (norms > 0)
    if known is not None:
        short = short & ~(known > 0)
    if not seen(some(short)):
        return held
    noise = of_roundoff(problem, x, held, short)
    return held.freeze(~noise) if seen(some(noise)) else held


@outside
def of_roundoff(problem: Problem, x: Tensor, model: Any, short: Tensor) -> Tensor:
    """Which of the short columns of J are others at points that are almost the same, (..., n) bool.

    Args:
        problem: what is minimised.
        x: the point, (..., n).
        model: there, whatever may move.
        short: the columns that are asked after, (..., n) bool.
    """
    found = never(x)
    jacobian = getattr(model, "jacobian", None)
    if jacobian is None:
        return found
    wide = to_type(x, problem.dtype)
    # each by a share of its own: where all grew alike, some would be rounded alike
    share = problem.eps(x) ** ASIDE * filled(wide, 1.0).cumsum(-1) / x.shape[-1]
    for side in (share, -share):
        near: Any = problem.model(problem.move(x, side * wide))
        apart = _squares(near.jacobian - jacobian)
        size = _squares(near.jacobian) + _squares(jacobian)
        clear = all_finite(near.column_norms)
        found = found | (short & spread(clear) & (apart > ANOTHER * size))
        if settled(every(found | ~short)):
            break
    return found


def _squares(matrix: Tensor) -> Tensor:
    """The sum of squares of each column, (..., n)."""
    return (matrix * matrix).sum(-2)
