"""A value with its derivatives along several directions, and the choice of second derivatives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

FEW = 4  # up to so many directions their products are summed one by one
# so are more directions if each has more entries than this: with fewer, a call of torch costs more
# than what it computes
MANY = 2**15
Multiply = Callable[[Any, Any], Tensor]
Pairing = Callable[[Tensor, Tensor, Multiply], Tensor]
"""½ (∂ᵢa ∂ⱼb + ∂ⱼa ∂ᵢb) for the chosen pairs (i, j): from (d, ...) and (d, ...) to (q, ...)."""


class NoRuleError(Exception):
    """The function does something that Taylor mode does not know, or cannot see."""


class Setting(NamedTuple):
    """What stays the same throughout an evaluation."""

    batch: int  # how many leading dimensions of a value are samples
    pairing: Pairing | None  # which second derivatives are carried; None: none
    watched: bool = True  # what `watched()` said when the evaluation began
    # neither another mode nor autograd sees the evaluation: a rule may write over its own results
    fresh: bool = False


@dataclass(frozen=True)
class Jet:
    """A value z with its ∂ᵢz and some of its ∂ᵢⱼz, the dimension of the directions in front.

    To pytrees it is a leaf, as a tensor is.
    """

    value: Tensor  # (*shape)
    first: Tensor  # (d, *shape), or what broadcasts to it
    second: Tensor | None = None  # (q, *shape), or what broadcasts to it; None: zero, or not wanted


def trace(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
    """The pairing that carries one number, Σᵢ ∂ᵢᵢ: a Laplacian."""
    if multiply is torch.mul and (left.shape[0] <= FEW or left.shape[1:].numel() > MANY):
        parts = left.unbind()  # so that no product with all directions is held
        others = parts if left is right else right.unbind()
        total = parts[0] * others[0]
        for a, b in zip(parts[1:], others[1:], strict=True):
            total = torch.addcmul(total, a, b)
        return total[None]
    return multiply(left, right).sum(0, keepdim=True)


def diagonal(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
    """The pairing that carries ∂ᵢᵢ for each direction."""
    return multiply(left, right)


def every(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
    """The pairing that carries ∂ᵢⱼ for i ≤ j, in the order of `torch.triu_indices`."""
    # views: an index would copy, and its gradient would be summed entry by entry
    parts, others = left.unbind(), right.unbind()
    pairs = [(i, j) for i in range(len(parts)) for j in range(i, len(parts))]
    if left is right and multiply is torch.mul:  # not for matrices, which do not commute
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
    """A pairing that carries ∂ᵢⱼ, as `every` does, for some of the directions alone."""
    first, last = min(chosen), max(chosen) + 1
    consecutive = list(chosen) == list(range(first, last))  # then a view does, without a copy

    def pairs(left: Tensor, right: Tensor, multiply: Multiply) -> Tensor:
        some, others = (
            side[first:last] if consecutive else torch.stack([side[i] for i in chosen])
            for side in (left, right)
        )
        return every(some, some if left is right else others, multiply)

    return pairs


def watched() -> bool:
    """Whether another mode sees what we do: nested Taylor mode, the Jacobian by linear layers."""
    return torch._C._len_torch_function_stack() > 0


def aligned(part: Tensor, ndim: int) -> Tensor:
    """Insert dimensions of one behind d into (d, *shape), to broadcast like a value of `ndim`."""
    missing = ndim + 1 - part.ndim
    return part if missing <= 0 else part.reshape(part.shape[0], *(1,) * missing, *part.shape[1:])


def values(argument: Any) -> Any:
    """The value of an argument that is a jet; any other argument as it is."""
    return argument.value if isinstance(argument, Jet) else argument
