"""What tests of compiled programs share."""

import shutil

import pytest
import torch
from torch import Tensor

from lmtorch.compiling import building, descent
from lmtorch.fitting import fronts
from lmtorch.minimising import compiled as asked
from lmtorch.minimising import effort, kinds, repeated_batches, repeated_eager

compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="there is no C++ compiler"
)
T = torch.linspace(0, 4, 20, dtype=torch.float64)


def decays(count: int) -> tuple[Tensor, Tensor]:
    """Starts (b, 2) of two parameters, and noisy decays (b, 20) at the times T."""
    drawn = torch.Generator().manual_seed(1)
    truth = 1 + torch.rand(count, 2, generator=drawn, dtype=torch.float64)
    noise = torch.randn(count, len(T), generator=drawn, dtype=torch.float64)
    y = truth[:, :1] * torch.exp(-truth[:, 1:] * T) + 0.02 * noise
    return 1.3 * truth, y


def forget() -> None:
    """What a process does not know when it begins."""
    descent._PROGRAMS.clear()
    descent._RIGHT.clear()
    building.LOADED.clear()
    asked.TOLD.clear()
    effort._EFFORTS.clear()
    kinds._KNOWN.clear()
    repeated_eager._CHANGED.clear()
    fronts._FRONTS.clear()
    repeated_batches._TRACED.clear()
