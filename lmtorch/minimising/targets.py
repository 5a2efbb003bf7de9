"""Functions that return outputs of a criterion with their targets, in the place of residuals.

The targets are data: they are read once, for all problems and starts, and become the loss of the
loop's problem. What is then evaluated again and again are the outputs alone.
"""

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_leaves

from .._autodiff import Params
from .._errors import InputError
from ..losses.criterion import Bound, Criterion, Targeted
from .user_function import UserFunction


def bound_of(
    calling: UserFunction, x: Tensor, shares: tuple[Tensor, ...], *, looped: bool = False
) -> Bound:
    """The loss of the outputs of one problem x (n,), or of all problems (b, n).

    Args:
        calling: the function of one problem.
        x: where it is evaluated; targets do not depend on it.
        shares: arguments that differ between the problems, (b, ...) each.
        looped: `torch.vmap` refuses the function.

    Returns:
        The loss, with the targets of every problem.

    Raises:
        InputError: a target or the criterion depends on what it must not.
    """
    seen: list[Targeted] = []

    def targets(params: Params, *own: Tensor) -> tuple[Tensor, ...]:
        found = calling.returned(params, *own)
        assert isinstance(found, Targeted)  # the probe has seen one
        seen.append(found)
        return found.flat()

    params = calling.unknowns.layout.split(x)
    if x.ndim == 1:
        flat = targets(params, *shares)
    elif looped:
        each = [
            targets(tuple(p[place] for p in params), *(share[place] for share in shares))
            for place in range(len(x))
        ]
        flat = tuple(torch.stack(column) for column in zip(*each, strict=True))
    else:
        flat = vmap(targets)(params, *shares)
    _same_criterion(seen)
    first = seen[0]
    return Bound(first.criterion, flat, first.values.shape[-1], first.factor, x.ndim > 1)


def check(calling: UserFunction, bound: Bound, x: Tensor) -> None:
    """See whether a criterion fits the start (n,) of the first problem.

    Args:
        calling: the function, without a graph of its arguments.
        bound: the loss of the first problem.
        x: its start.

    Raises:
        InputError: a target depends on the parameters, a cost is below zero, or the loss is not
            finite at the start.
    """
    params = tuple(p.clone().requires_grad_() for p in calling.unknowns.layout.split(x))
    shares = tuple(share[0] for share in calling.shares)
    with torch.enable_grad():
        found = calling.returned(params, *shares)
        if not calling.arrays:
            found.bound()  # refuses targets with a graph
    values = found.values.detach().reshape(-1)
    bound.check(values)
    if not bool(bound.cost(values).isfinite()) and not calling.unknowns.batched:
        raise InputError(
            f"{type(bound.criterion).__name__} is not finite at the start, where the outputs are "
            f"{float(values.min()):.3g} to {float(values.max()):.3g}: is a rate or variance zero "
            "or negative there? Start elsewhere, or keep it positive by bounds or by an exp."
        )


def _same_criterion(seen: list[Targeted]) -> None:
    """See that the criterion itself holds nothing of single problems of a batch.

    Raises:
        InputError: it does.
    """
    criterion: Criterion = seen[0].criterion
    held = [leaf for leaf in tree_leaves(vars(criterion)) if isinstance(leaf, Tensor)]
    # what those of one output each are made of, they make a part of their targets
    if not criterion.elementwise and any(map(torch._C._functorch.is_batchedtensor, held)):
        raise InputError(
            f"{type(criterion).__name__} was made of numbers that differ between the problems of "
            "the batch, which only targets may. Make it outside of the function."
        )
