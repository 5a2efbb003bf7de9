"""How a linear model that knows its column norms answers when the loop asks whether to stop.

Every form whose `column_norms` are exact hands these questions on to here. A form without columns
has to find answers of its own.
"""

import torch
from torch import Tensor

from ..arrays import is_nan, largest, maximum, norm, nowhere, spread, sqrt, to_type, where
from .base import Linearization


def optimality(model: Linearization) -> Tensor:
    """The largest cosine between residuals and a column of J, (...,): MINPACK's scaled gradient.

    Reference: Moré, Garbow & Hillstrom (1980), MINPACK user guide, LMDER's `gtol`.
    """
    length = to_type(spread(sqrt(2 * model.cost)), model.gradient.dtype)
    cosine = abs(model.gradient) / (model.column_norms * length)
    found = largest(cosine)
    if nowhere(is_nan(found)):  # no column is zero, nor are the residuals
        return found
    return largest(where(model.gradient == 0, 0.0, cosine))


def rounding(model: Linearization, x: Tensor, eps: float) -> Tensor:
    """How far round-off alone may move the cost, (...,): ε (F + ‖r‖ ‖J∘x‖).

    A relative change ε of each parameter, which is what storing them costs, moves the residuals by
    up to ε Σ ‖J e_j‖ |x_j|, and so the cost by up to ‖r‖ times that.
    """
    moved = to_type(norm(model.column_norms * x), model.cost.dtype)
    return eps * (model.cost + sqrt(2 * model.cost) * moved)


def relative_length(model: Linearization, x: Tensor, step: Tensor) -> Tensor:
    """The largest entry of a step beside its x, (...,): max |s_j| / max(|x_j|, ‖r‖ / ‖J e_j‖).

    Moving a parameter alone by ‖r‖ / ‖J e_j‖ changes the residuals by as much as they are: that
    length stands in for a parameter near zero. A norm over all parameters, as ‖D s‖ / ‖D x‖ in
    MINPACK, would not do: one parameter that runs away makes ‖D x‖ so large that every step is
    short beside it.
    """
    norms = model.column_norms
    alone = to_type(spread(sqrt(2 * model.cost)), norms.dtype) / norms
    beside = maximum(abs(x), alone)
    if nowhere(model.cost == 0):  # beside a column of zeros, or a step of zero, zero follows
        return to_type(largest(abs(step) / beside), model.cost.dtype)
    beside = where(norms > 0, beside, torch.inf)
    return to_type(largest(where(step == 0, 0.0, abs(step) / beside)), model.cost.dtype)


def longest_single_move(model: Linearization, x: Tensor) -> Tensor:
    """The longest of the best moves of one parameter alone, g_j / ‖J e_j‖², relative, (...,)."""
    norms = model.column_norms
    moves = where(norms > 0, abs(model.gradient) / norms / norms, 0.0)
    return relative_length(model, x, moves)
