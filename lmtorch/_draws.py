"""The state of torch's random numbers, so that evaluations can draw the same ones again."""

from collections.abc import Sequence

import torch
from torch import Tensor


def read(device: torch.device) -> list[Tensor]:
    """The states of the processor's generator, and of a GPU's."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def write(states: Sequence[Tensor], device: torch.device) -> None:
    """Go back to states that were read for that device."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
