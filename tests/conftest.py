"""What every test may ask for."""

from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs of a file of tests are kept."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def own_programs(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs of these tests alone, built quickly, and nothing that is remembered of others."""
    from lmtorch.compiling import building

    from .programs import forget

    monkeypatch.setenv("LMTORCH_CACHE", str(disk))
    quickly = tuple("-O0" if flag == "-O3" else flag for flag in building.FLAGS)
    monkeypatch.setattr(building, "FLAGS", quickly)
    forget()
    yield
    forget()
