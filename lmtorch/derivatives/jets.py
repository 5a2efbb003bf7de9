"""A value with derivatives along several directions, and which of the second ones are carried."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

FEW = 4  # directions that are summed one by one
Multiply = Callable[[Any, Any], Tensor]
Pairing = Callable[[Tensor, Tensor, Multiply], Tensor]
"""½ (∂ᵢa ∂ⱼb + ∂ⱼa ∂ᵢb) for the pairs (i, j) that are carried: from (d, ...) and (d, ...) to (q, ...)."""


class NoRuleError(Exception):
    """The function does something that Taylor mode does not know, or cannot see."""


class Setting(NamedTuple):
    """What is the same throughout an evaluation."""

    batch: int  # leading dimensions of a value that are samples
    pairing: Pairing | None  # None: no second derivatives


@dataclass(frozen=True)
class Jet:
    """A value z with ∂ᵢz and some ∂ᵢⱼz; the dimension of the directions is in front. No pytree: a leaf, as a tensor."""

    value: Tensor  # (*shape)
    first: Tensor  # (d, *shape), or what broadcasts to it
    second: Tensor | None = None  # (q, *shape), or what broadcasts to it; None: zero, or not wanted


def trace(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
    """Σᵢ ∂ᵢᵢ, one number: a Laplacian."""
    if multiply is torch.mul and left.shape[0] <= FEW:  # no product of the size of all directions
        total = left[:1] * right[:1]
        for i in range(1, left.shape[0]):
            total = torch.addcmul(total, left[i : i + 1], right[i : i + 1])
        return total
    return multiply(left, right).sum(0, keepdim=True)


def diagonal(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
    """∂ᵢᵢ for each direction."""
    return multiply(left, right)


def every(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
    """∂ᵢⱼ for i ≤ j, in the order of `torch.triu_indices`."""
    i, j = torch.triu_indices(left.shape[0], left.shape[0], device=left.device)
    if left is right and multiply is torch.mul:  # of matrices ∂ᵢa ∂ⱼa is not ∂ⱼa ∂ᵢa
        return multiply(left[i], left[j])
    return (multiply(left[i], right[j]) + multiply(left[j], right[i])) / 2


def aligned(part: Tensor, ndim: int) -> Tensor:
    """A part (d, *shape) with dimensions of one behind d, so that it broadcasts as a value of `ndim` dimensions."""
    missing = ndim + 1 - part.ndim
    return part if missing <= 0 else part.reshape(part.shape[0], *(1,) * missing, *part.shape[1:])


def values(argument: Any) -> Any:
    """An argument, with the value in place of a jet."""
    return argument.value if isinstance(argument, Jet) else argument
