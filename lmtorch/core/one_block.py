"""The linear model of one small problem from one block of columns.

Of few rows of few parameters, to stream them costs as much as to make them, and so does to ask at
every point what is the same at all of them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..arrays import arrays_of, heard, tensor_from, to_type
from ..jacobians.base import DescendedError
from ..linearizations.base import Linearization
from .clock import timed

if TYPE_CHECKING:
    from .problem import Problem


def model_from_one_block(problem: "Problem") -> Callable[[Tensor], Linearization | None] | None:
    """How the linear model is made from one block.

    Args:
        problem: what is minimised.

    Returns:
        Makes it at a point, or None where another source has taken the place of the one that makes
        the block. None: it is not to be had so.
    """
    ask, make = getattr(problem.source, "at_once", None), getattr(problem.form, "whole", None)
    if problem.noises is None or problem.sample is not None or ask is None or make is None:
        return None
    (part, *others) = problem.residual.parts()
    if others or getattr(problem.loss, "together", 1) > 1:
        return None
    params_of, replay, noises = problem.residual.params, problem.residual.replay, problem.noises
    expand, clock, dtype, keep = problem.loss.expand, problem.clock, problem.dtype, problem.keep
    plain, cost_of = getattr(problem.loss, "plain", False), problem.loss.cost
    source: Any = problem.source

    def once(x: Tensor) -> Linearization | None:
        learned = getattr(source, "learned", None)
        both: Any = None if learned is None else learned.at(x)
        if both is None:
            try:
                with timed(clock, "linearize"), replay(), heard(noises):
                    block = ask(part, params_of(tensor_from(x)))
            except DescendedError:  # the source in its place gives its rows in its own way
                return None
            if block is None:
                return None
            both = arrays_of(block.rows.above(block.residual))
            if learned is not None:
                source.saw(part, x, both)
        values = both[-1]
        if plain:
            cost, prior = cost_of(values), None
        else:
            expansion = expand(values)
            if expansion.root is not None:
                both = both * expansion.root
                both[-1] = expansion.residual
            cost, prior = expansion.value, None
        if problem.penalty is not None:
            cost, prior = problem.with_penalty(cost, x), problem.prior(x)
        found: Linearization = make(to_type(both, dtype), cost, prior, (values,) if keep else None)
        return found

    return once
