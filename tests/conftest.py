"""What every test may ask for."""

import ctypes
import gc
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
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
QUICKLY = {"-O3": "-O0"}  # of the flags of a compiler
# what every program includes, which takes a compiler as long to read as to compile a small one
HEADERS = """#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
"""


gc.disable()  # until all is collected


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` looks for slow tests in the files that name their mark."""
    for path in {item.path for item in items if item.get_closest_marker("slow")}:
        if "mark.slow" not in path.read_text("utf-8"):
            raise pytest.UsageError(f"{path}: its slow tests have their mark from elsewhere")


def pytest_collection_finish() -> None:
    """What was imported and collected stays: no search for garbage walks through it."""
    gc.enable()
    gc.collect()
    gc.freeze()


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
    """Every test draws the same numbers and collects garbage, whatever ran before it.

    The collection was seen to be off after a test that had run Dask, where peaks of memory grow.
    """
    torch.manual_seed(0)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the compiled programs of all tests are, each of which is compiled once, and quickly.

    All processes of a run share the folder, by what is compiled as the product does, and one that
    needs what another is compiling waits for it. Without the compiler's optimisations that takes a
    fifth of the time, and with the headers read once for all three fifths of that;
    `as_users_have_them` is for what depends on them.
    """
    from lmtorch.compiling import building

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "programs"
    folder.mkdir(exist_ok=True)
    plain, users = building._compiled, building.FLAGS
    header = folder / "headers.h"
    quick = tuple(QUICKLY.get(flag, flag) for flag in users)

    def read() -> None:
        """Read the headers, unless another process has."""
        with FileLock(folder / "headers.lock"):
            if not header.exists():
                header.write_text(HEADERS, "utf-8")
                command = [building.compiler(), *quick, "-x", "c++-header", str(header)]
                subprocess.run([*command, "-o", f"{header}.gch"], capture_output=True, check=False)

    def once(key: str, text: str) -> ctypes.CDLL:
        place = building.folder()
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / f"{key}.lock"):
            found = building.load(place / f"{key}.so", key)
            if found is None:
                read()
                found = plain(key, text)
            return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMTORCH_CACHE", str(folder))
        patch.setattr(building, "FLAGS", (*quick, "-include", str(header)))
        patch.setattr(building, "_compiled", once)
        yield folder


@pytest.fixture
def own_programs() -> Iterator[None]:
    """A process that remembers no programs, as before its first fit; on disk there may be some."""
    from .programs import forget

    forget()
    yield
    forget()


@pytest.fixture
def as_users_have_them(own_programs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are compiled with the flags that users have, for half a minute each."""
    from lmtorch.compiling import building

    slowly = {quick: flag for flag, quick in QUICKLY.items()}
    flags = building.FLAGS[: building.FLAGS.index("-include")]
    monkeypatch.setattr(building, "FLAGS", tuple(slowly.get(f, f) for f in flags))
