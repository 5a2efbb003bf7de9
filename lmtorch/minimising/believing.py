"""How large a cost is believed to be that of the right minimum."""

import torch
from torch import Tensor

from ..core.problem import Problem

LINEAR = 1e-8  # relative change of JᵀJ up to which a model counts as linear
LOWER = 1e-6  # share of the cost by which another point is lower


def believable(
    problem: Problem, x: Tensor, end: Tensor, acceptable: Tensor | None
) -> Tensor | None:
    """The largest cost that is believed; any where the model is linear: it has one minimum.

    But where terms cancel to round-off, even zeros may be better than what seemed to be it.

    Args:
        problem: what is minimised.
        x: where the run began.
        end: where it has ended.
        acceptable: the largest cost of any other model.

    Returns:
        It, (...,); None: any.
    """
    if acceptable is None:
        return None
    before, after = problem.model(x), problem.model(end)
    scale = torch.where(before.column_norms > 0, before.column_norms, 1.0)
    change = (after.normal - before.normal) / scale[..., :, None] / scale[..., None, :]
    apart = change.abs().amax((-2, -1))
    # where nothing has an influence, nothing is known
    linear = (apart <= LINEAR) & (before.column_norms > 0).all(-1)
    zero = torch.zeros_like(end)
    zero = zero if problem.bounds is None else problem.bounds.project(zero)
    if bool(linear.any()):
        linear = linear & ~(problem.cost(zero) < (1 - LOWER) * after.cost)
    return torch.where(linear, torch.inf, acceptable)
