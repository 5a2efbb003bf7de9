"""Whole or coarse numbers for x become real ones of the data's dtype, as those of arrays do.

torch makes float32 of a root or a quotient of whole numbers, whatever the parameters are: seven
digits beside their sixteen, and x**20 leaves the range of int64 in silence. Of x in float32 and a
parameter in float64, which is a number and no array, it makes float32, too. NumPy makes float64.
But an index has to be whole, a network has weights of its own dtype, and what f does with x only f
can tell: so it is asked once.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..._threads import quiet
from ..models import Model
from .data import Data


def with_real_numbers(data: Data, model: Model, start: Tensor, jac: Any = None) -> Data:
    """The data with x of real numbers wherever f takes such.

    Args:
        data: of the fit.
        model: the user's function.
        start: of the parameters, (P,) or (..., P).
        jac: the user's function for the derivatives, if there is one.

    Returns:
        The data as they are where x has no such tensor, or f refuses others.
    """
    leaves, tree = tree_flatten(data.x)
    dtype = data.y.dtype
    real = {i: _real(x, dtype) for i, x in enumerate(leaves) if whole(x) or coarse(x, dtype)}
    if not real:
        return data
    # a function of NumPy, which needs no other numbers, refuses parameters with gradients
    p = start.detach().reshape(-1, start.shape[-1])[0].clone().requires_grad_()
    asked: list[Callable[[Any], Any]] = [lambda x: model(x, p)]
    if callable(jac):
        asked.append(lambda x: jac(x, *p))

    def mixed(chosen: Collection[int]) -> Any:
        return tree_unflatten([real[i] if i in chosen else x for i, x in enumerate(leaves)], tree)

    def taken(chosen: Collection[int]) -> bool:
        x = mixed(chosen)
        if data.each_x:
            x = x[(0,) * len(data.lead)]
        try:
            with torch.enable_grad(), quiet():
                for function in asked:
                    function(x)
        except Exception:  # whatever it is: f gets what it was given, and says what is wrong
            return False
        return True

    chosen: Collection[int] = real
    if not taken(chosen):
        chosen = [i for i in real if taken([i])] if len(real) > 1 else []
    return replace(data, x=mixed(chosen)) if chosen else data


def like_known(leaf: Any, known: Any) -> Any:
    """New points in the dtype of those of the fit where these are real and finer than the new."""
    if not (isinstance(known, Tensor) and known.is_floating_point()):
        return leaf
    return leaf.to(known.dtype) if whole(leaf) or coarse(leaf, known.dtype) else leaf


def coarse(leaf: Any, dtype: torch.dtype) -> bool:
    """Whether it is a tensor of real numbers with fewer digits than the dtype has."""
    if not (isinstance(leaf, Tensor) and leaf.is_floating_point() and dtype.is_floating_point):
        return False
    return torch.finfo(leaf.dtype).eps > torch.finfo(dtype).eps


def whole(leaf: Any) -> bool:
    """Whether it is a tensor of whole numbers: no truth values, which choose."""
    if not isinstance(leaf, Tensor) or leaf.dtype is torch.bool:
        return False
    return not (leaf.is_floating_point() or leaf.is_complex())


def _real(leaf: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers in a dtype, or in float64 where that has no room for all their digits."""
    found = leaf.to(dtype)
    return found if bool((found.to(leaf.dtype) == leaf).all()) else leaf.to(torch.float64)
