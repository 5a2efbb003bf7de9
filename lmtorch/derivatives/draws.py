"""One draw of random numbers for all evaluations that make up one derivative.

A function with dropout, or with noise of its own, is another function at each evaluation. Within
one pass that does not matter: what comes out are the derivatives of the function that was drawn.
But columns that are made a chunk at a time would each belong to another function, and differences
would be of two. So every evaluation but the first begins with the random numbers of the first.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from .. import _draws

T = TypeVar("T")


class Draws:
    """The state of torch's random numbers, on the processor and on the device of a tensor."""

    def __init__(self, x: Tensor) -> None:
        self._device = x.device
        self._states = _draws.read(x.device)

    def again(self) -> None:
        """Go back to it."""
        _draws.write(self._states, self._device)


def alike(blocks: Iterable[T], x: Tensor) -> Iterator[T]:
    """Go through blocks so that what is done with each begins with the same random numbers.

    Afterwards random numbers go on as after a single block.

    Yields:
        The blocks.
    """
    blocks = list(blocks)
    if len(blocks) < 2 or torch.compiler.is_compiling():
        yield from blocks
        return
    draws = Draws(x)
    for place, block in enumerate(blocks):
        if place:
            draws.again()
        yield block
