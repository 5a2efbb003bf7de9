"""Fits a stack on two workers of Dask, one of which is killed in the middle, and compares.

test_dask.py runs this in a process of its own, which ends after so many seconds with where it
stands if something waits for ever. It leaves without closing the cluster, whose workers end with
it, since Dask may be starting another one in the place of that which was killed.
"""

import faulthandler
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from xarray_stacks import decay, same_bits, stack

import lmtorch.xarray  # noqa: F401  (gives arrays their accessor)
from lmtorch.xarray import task

BEGUN = time.perf_counter()


def lose_a_worker(folder: Path, limit: float) -> None:
    """Assert that what the others find is the same, into a store and lazily."""
    from distributed import Client, LocalCluster

    task.TILE = 16  # tiles of 4 x 4
    torch.set_num_threads(1)
    da, here = stack(8, 8), os.getpid()
    far = np.zeros(da.shape[:2], bool)
    far[3, 3:6] = far[4, 4] = far[0, 0] = far[6:8, 2:5] = True
    starts = xr.DataArray(np.where(far, 1e5, 1.0), dims=("y", "x"))
    options = {"p0": {"a": 2.0, "b": starts}, "second_opinion": False, "start": "neighbour"}
    plain = da.lm.curvefit("t", decay, **options)
    armed, store = folder / "armed", folder / "fit.zarr"
    armed.touch()

    def deadly(t, a, b):
        done = list((store / "lmtorch" / "fitted").glob("[0-9]*"))
        if len(done) >= 1 and os.getpid() != here:
            try:
                armed.rename(folder / f"killed {os.getpid()}")
            except FileNotFoundError:  # by the other, or before
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return a * torch.exp(-b * t)

    chunked = da.chunk({"y": 4, "x": 4})
    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    )
    client = Client(cluster)
    workers = client.run(os.getpid).values()
    say("two workers run", workers)
    stored = chunked.lm.curvefit("t", deadly, store=store, **options)
    say("the store is complete", list(folder.glob("*")))
    same_bits(plain, stored.compute())
    (killed,) = folder.glob("killed *")
    assert int(killed.name.split()[1]) in workers
    lazy = chunked.lm.curvefit("t", decay, **options)
    same_bits(plain, client.compute(lazy).result(timeout=limit))
    say("the same bits")


def say(*what: object) -> None:
    print(f"{time.perf_counter() - BEGUN:.0f} s:", *what, flush=True)


if __name__ == "__main__":
    seconds = float(sys.argv[2])
    faulthandler.dump_traceback_later(seconds, exit=True)
    lose_a_worker(Path(sys.argv[1]), seconds)
    os._exit(0)
