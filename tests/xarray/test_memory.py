"""A stack that streams to a store is never in memory whole; workers keep memory while they fit."""

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lmtorch.xarray import threads
from lmtorch.xarray.threads import one_thread

STATUS = Path("/proc/self/status")
CODE = """
import re, sys
from pathlib import Path

import dask, dask.array
import numpy as np
import torch
import xarray as xr

import lmtorch.xarray

torch.set_num_threads(1)
t = np.linspace(0, 4, 100)


def block(block_info=None):
    rng = np.random.default_rng(0)
    return 2 * np.exp(-t) + 0.05 * rng.standard_normal(block_info[None]["chunk-shape"])


def decay(t, a, b):
    return a * torch.exp(-b * t)


def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def fit(rows, store):
    chunks = ((64,) * rows, (64,) * 4, (100,))
    made = dask.array.map_blocks(block, chunks=chunks, dtype=float, meta=np.empty((0, 0, 0)))
    da = xr.DataArray(made, {"t": t}, ("y", "x", "t"))
    da.lm.curvefit("t", decay, store=f"{sys.argv[1]}/{store}.zarr")


with dask.config.set(scheduler="synchronous"):
    fit(1, "few")
    before = peak()
    fit(10, "many")
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="the peak of memory is read as Linux tells it")
def test_memory_does_not_grow_with_the_number_of_blocks(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # glibc gives back what is freed; what it keeps of its own accord is 30 to over 100 MiB
    env |= {"MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, tmp_path],
        capture_output=True, text=True, env=env, check=True,
    )  # fmt: skip
    # the data alone are 131 MB: ten times as many blocks as were in memory one by one before
    assert float(done.stdout) < 100


class Library:
    """Notes what is set."""

    def __init__(self) -> None:
        self.set: dict[int, int] = {}
        self.returned = threading.Event()

    def mallopt(self, which: int, value: int) -> None:
        """A setting."""
        self.set[which] = value

    def malloc_trim(self, pad: int) -> None:
        """The last that is called."""
        self.returned.set()


def test_memory_is_kept_between_tasks_and_returned_when_none_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = Library()
    monkeypatch.setattr(threads, "_glibc", lambda: library)
    # elsewhere than in Dask's workers, or where users set more, nothing is touched
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    with one_thread():
        assert not library.set
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1048576")
    with one_thread():
        assert not library.set
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_")
    monkeypatch.setattr(threads, "IDLE", 60.0)
    kept = {threads.M_MMAP_THRESHOLD: threads.LARGEST, threads.M_TRIM_THRESHOLD: threads.KEPT}
    for _ in range(2):  # the second comes before the memory of the first is returned
        with one_thread(), one_thread():
            assert library.set == kept
        assert library.set == kept
    monkeypatch.setattr(threads, "IDLE", 0.0)
    with one_thread():
        assert not library.returned.wait(0.05)
    assert library.returned.wait(60)
    assert library.set == {threads.M_MMAP_THRESHOLD: 128 * 1024, threads.M_TRIM_THRESHOLD: 65536}


@pytest.mark.parametrize("given", [2**30, 2**32])
def test_who_keeps_more_memory_than_that_goes_on_to(
    given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library()
    monkeypatch.setattr(threads, "_glibc", lambda: library)
    monkeypatch.setattr(threads, "IDLE", 0.0)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", str(given))
    with one_thread():
        # what C takes as a negative number or as zero would trim after every operation
        assert library.set[threads.M_TRIM_THRESHOLD] == min(given, 2**31 - 1)
    assert library.returned.wait(60)
    assert library.set[threads.M_TRIM_THRESHOLD] == min(given, 2**31 - 1)


FAULTS = """
import resource, torch
from lmtorch.xarray.threads import one_thread

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        torch.ones(2**20)  # 1,024 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = faults()
with one_thread():
    kept = faults()
print(without, kept)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_tensors_of_dasks_workers_do_not_come_from_the_system_each_time() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    env |= {"MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, env=env, check=True
    )
    without, kept = map(int, done.stdout.split())
    assert kept < without / 10
