"""What every test may ask for."""

import pytest
import torch
from hypothesis import settings

from . import stand_in

# What hypothesis draws is the same for every run, so that a check that passed fails by a change
# alone; `make fuzz` draws anew each time, and more.
settings.register_profile("same", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("fuzz", deadline=None, max_examples=500)
settings.load_profile("same")

GPU = pytest.param(
    "cuda" if torch.cuda.is_available() else stand_in.NAME,
    marks=[
        pytest.mark.cuda,
        pytest.mark.skipif(
            not torch.cuda.is_available() and stand_in.MISSING is not None,
            reason=str(stand_in.MISSING),
        ),
    ],
)
DEVICES = ["cpu", GPU]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device that is there."""
    return torch.device(request.param)


@pytest.fixture(params=[GPU])
def elsewhere(request: pytest.FixtureRequest) -> torch.device:
    """A device that is not the CPU: a GPU, or what stands in for it."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same numbers, whatever ran before it."""
    torch.manual_seed(0)
