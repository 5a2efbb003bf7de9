"""A stack that streams to a store is never in memory as a whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, tmp_path],
        capture_output=True, text=True, env=env, check=True,
    )  # fmt: skip
    # the data alone are 131 MB: ten times as many blocks as were in memory one by one before
    assert float(done.stdout) < 100
