"""A value with derivatives along several directions, and which of the second ones are carried."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

FEW = 4  # directions that are summed one by one
# entries of one direction from which on all are: below, a call costs more than what it computes
MANY = 2**15
Multiply = Callable[[Any, Any], Tensor]
Pairing = Callable[[Tensor, Tensor, Multiply], Tensor]
"""½ (∂ᵢa ∂ⱼb + ∂ⱼa ∂ᵢb) for the pairs (i, j) that are carried: from (d, ...) and (d, ...) to (q, ...)."""


class NoRuleError(Exception):
    """The function does something that Taylor mode does not know, or cannot see."""


class Setting(NamedTuple):
    """What is the same throughout an evaluation."""

    batch: int  # leading dimensions of a value that are samples
    pairing: Pairing | None  # None: no second derivatives
    watched: bool = True  # `watched()` when the evaluation began
    fresh: bool = False  # neither that nor autograd does: what a rule has made it may write over


@dataclass(frozen=True)
class Jet:
    """A value z with ∂ᵢz and some ∂ᵢⱼz; the dimension of the directions is in front. No pytree: a leaf, as a tensor."""

    value: Tensor  # (*shape)
    first: Tensor  # (d, *shape), or what broadcasts to it
    second: Tensor | None = None  # (q, *shape), or what broadcasts to it; None: zero, or not wanted


def trace(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
    """Σᵢ ∂ᵢᵢ, one number: a Laplacian."""
    if multiply is torch.mul and (left.shape[0] <= FEW or left.shape[1:].numel() > MANY):
        parts = left.unbind()  # no product of the size of all directions
        others = parts if left is right else right.unbind()
        total = parts[0] * others[0]
        for a, b in zip(parts[1:], others[1:], strict=True):
            total = torch.addcmul(total, a, b)
        return total[None]
    return multiply(left, right).sum(0, keepdim=True)


def diagonal(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
    """∂ᵢᵢ for each direction."""
    return multiply(left, right)


def every(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
    """∂ᵢⱼ for i ≤ j, in the order of `torch.triu_indices`."""
    parts, others = (
        left.unbind(),
        right.unbind(),
    )  # views: an index would copy, and its gradient sum entry by entry
    pairs = [(i, j) for i in range(len(parts)) for j in range(i, len(parts))]
    if left is right and multiply is torch.mul:  # of matrices ∂ᵢa ∂ⱼa is not ∂ⱼa ∂ᵢa
        if not watched() and not torch.is_grad_enabled():
            result = left.new_empty(len(pairs), *left.shape[1:])
            blocks = result.split(list(range(len(parts), 0, -1)))
            for i, block in enumerate(blocks):
                torch.mul(left[i:], parts[i], out=block)
            return result
        return torch.stack([parts[i] * parts[j] for i, j in pairs])
    return torch.stack(
        [(multiply(parts[i], others[j]) + multiply(parts[j], others[i])) / 2 for i, j in pairs]
    )


def among(chosen: Sequence[int]) -> Pairing:
    """As `every`, of some of the directions."""
    first, last = min(chosen), max(chosen) + 1
    consecutive = list(chosen) == list(range(first, last))  # a view then serves

    def pairs(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
        some, others = (
            side[first:last] if consecutive else torch.stack([side[i] for i in chosen])
            for side in (left, right)
        )
        return every(some, some if left is right else others, multiply)

    return pairs


def watched() -> bool:
    """Whether another mode follows what is done: nested Taylor mode, the Jacobian by linear layers."""
    return torch._C._len_torch_function_stack() > 0


def aligned(part: Tensor, ndim: int) -> Tensor:
    """A part (d, *shape) with dimensions of one behind d, so that it broadcasts as a value of `ndim` dimensions."""
    missing = ndim + 1 - part.ndim
    return part if missing <= 0 else part.reshape(part.shape[0], *(1,) * missing, *part.shape[1:])


def values(argument: Any) -> Any:
    """An argument, with the value in place of a jet."""
    return argument.value if isinstance(argument, Jet) else argument
