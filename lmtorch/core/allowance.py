"""What a certified point may still promise, as a share of its cost."""

import torch

from ..arrays import resolution
from .termination import Tolerances

# share of the cost that a certified point may still promise, by the resolution of the dtype
ENOUGH = {resolution(torch.float64): 1e-8}
ENOUGH_COARSE = 1e-5  # the share that it may promise in coarser dtypes
LOOSER = 10  # where the user's tolerances allow more than `ENOUGH`, so many times as much is enough


def allowance(tolerances: Tolerances, dtype: torch.dtype) -> float:
    """Share of the cost that a certified point may promise; more if the user asked for less."""
    asked = max(tolerances.cost, tolerances.gradient**2, tolerances.step**2)
    return max(strict(dtype), LOOSER * asked)


def strict(dtype: torch.dtype) -> float:
    """The share where the user asks for all that the dtype has."""
    return ENOUGH.get(resolution(dtype), ENOUGH_COARSE)
