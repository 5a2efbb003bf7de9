"""Fits of image stacks through xarray: here, on one and on two workers of Dask, and beside scipy.

The tasks are decays with an offset, three parameters and 21 points. On workers the processor time
is theirs; what the client spends is told apart. Memory is that of the processes that stream blocks
to a store. `python -m benchmarks.stacks` measures, for some two minutes, and puts the section into
docs/benchmarks.md; with `kept` that of the last measurement. With `large` it streams ten million
fits into a store, which takes longer, and keeps what it measured for the section.
"""

import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy import optimize

import lmtorch.xarray  # noqa: F401  # to import it gives every DataArray its accessor .lm

from . import machine
from .many_tall import child, high_water

RESULTS = Path(__file__).parent / "results" / "stacks.json"
DOCS = Path(__file__).parents[1] / "docs" / "benchmarks.md"
T = np.linspace(0, 4, 21)
SIDE, CHUNK = 384, 128  # pixels along each side, and of a block
LARGE = 3200
FEW = 20  # pixels along a side for what fits one after the other
START = {"a": 2.0, "b": 1.0, "c": 0.1}
ROUNDS = 2


def decay(t: Any, a: Any, b: Any, c: Any) -> Any:
    """The model for torch."""
    return a * torch.exp(-b * t) + c


def of_numpy(t: Any, a: Any, b: Any, c: Any) -> Any:
    """The model for scipy."""
    return a * np.exp(-b * t) + c


def numbers(shape: tuple[int, ...], seed: Any) -> np.ndarray:
    """Noisy decays with rates of their own."""
    rng = np.random.default_rng(seed)
    curves = 2.5 * np.exp(-rng.uniform(0.5, 2, (*shape, 1)) * T) + 0.4
    return curves + 0.05 * rng.standard_normal(curves.shape)


def stack(side: int) -> xr.DataArray:
    """An image stack in memory."""
    return xr.DataArray(numbers((side, side), 0), {"t": T}, ("y", "x", "t"))


def _made(block_info: Any = None) -> np.ndarray:
    place = block_info[None]
    return numbers(place["chunk-shape"][:2], place["chunk-location"]).astype(np.float32)


def lazy(side: int, chunk: int) -> xr.DataArray:
    """An image stack that is made block by block where it is needed."""
    import dask.array

    whole, rest = divmod(side, chunk)
    chunks = ((chunk,) * whole + (rest,) * (rest > 0),) * 2 + ((len(T),),)
    made = dask.array.map_blocks(
        _made, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32)
    )
    return xr.DataArray(made, {"t": T}, ("y", "x", "t"))


def _loop(da: xr.DataArray) -> None:
    for curve in da.values.reshape(-1, len(T)):
        optimize.curve_fit(of_numpy, T, curve, list(START.values()))


def here() -> dict[str, dict[str, float]]:
    """Fits a second of processor time in this process, the ways in turns."""
    large, small = stack(SIDE), stack(FEW)
    ways: dict[str, tuple[int, Callable[[], Any]]] = {
        "a loop of scipy.optimize.curve_fit": (FEW**2, lambda: _loop(small)),
        "xarray's DataArray.curvefit": (
            FEW**2,
            lambda: small.curvefit("t", of_numpy, p0=START),
        ),
        "da.lm.curvefit": (SIDE**2, lambda: large.lm.curvefit("t", decay, p0=START)),
        "da.lm.curvefit, compile=True": (
            SIDE**2,
            lambda: large.lm.curvefit("t", decay, p0=START, compile=True),
        ),
    }
    found: dict[str, dict[str, float]] = {name: {"wall": 0.0, "processor": 0.0} for name in ways}
    for _ in range(ROUNDS):
        for name, (count, way) in ways.items():
            processor, wall = time.process_time(), time.perf_counter()
            way()
            for kind, spent in (
                ("processor", time.process_time() - processor),
                ("wall", time.perf_counter() - wall),
            ):
                found[name][kind] = max(found[name][kind], count / spent)
    return found


@contextmanager
def workers(count: int) -> Iterator[Any]:
    """A client of so many workers, of one thread each."""
    import dask
    from distributed import Client, LocalCluster

    with (
        # what watches the workers would be counted, the more the longer they wait for a processor
        dask.config.set({"distributed.worker.profile.enabled": False}),
        LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        yield client


def on_workers(count: int, **options: Any) -> dict[str, float]:
    """Fits a second on so many workers, by the clock and by their processor time."""
    from distributed import wait

    found = {"wall": 0.0, "processor": 0.0, "client": 0.0}
    with workers(count) as client:
        da = lazy(SIDE, CHUNK).persist()  # data are made before, where they are fitted
        wait(da)
        for _ in range(ROUNDS + 1):  # in the first workers import and compile
            before = client.run(time.process_time)
            own, wall = time.process_time(), time.perf_counter()
            da.lm.curvefit("t", decay, p0=START, **options).compute()
            wall, own = time.perf_counter() - wall, time.process_time() - own
            after = client.run(time.process_time)
            spent = sum(after[worker] - before[worker] for worker in after)
            found["wall"] = max(found["wall"], SIDE**2 / wall)
            if SIDE**2 / spent > found["processor"]:
                found["processor"], found["client"] = SIDE**2 / spent, own / spent
    return found


def into_store(side: int, count: int = 0) -> dict[str, float]:
    """The peak of memory while side² fits stream to a store, in this process or on workers.

    Of several processes it is the sum of the peak of each, in which the pages of libraries, which
    they share, are counted for each of them.
    """
    import dask

    torch.set_num_threads(1)
    folder = tempfile.mkdtemp()
    try:
        with ExitStack() as stack:
            client = stack.enter_context(workers(count)) if count else None
            if client is None:
                stack.enter_context(dask.config.set(scheduler="synchronous"))
            before, wall = high_water(), time.perf_counter()
            fit = lazy(side, 256).lm.curvefit("t", decay, p0=START, store=f"{folder}/fit.zarr")
            wall, peak = time.perf_counter() - wall, high_water()
            if client is not None:
                peak += sum(client.run(high_water).values())
            ended = fit.curvefit_status.values
            share = float((ended > 0).mean())
    finally:
        shutil.rmtree(folder)
    return {"before": before, "peak": peak, "wall": wall, "fits": ended.size, "succeeded": share}


def large() -> dict[str, Any]:
    """Stream ten million fits to a store on two workers, and keep what it took."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found["large"] = into_store(LARGE, 2) | {"machine": machine.description()}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found["large"]


def measure() -> dict[str, Any]:
    """Measure everything, and keep it."""
    torch.set_num_threads(1)
    versions = {name: version(name) for name in ("xarray", "dask", "distributed", "zarr", "numpy")}
    found: dict[str, Any] = {"machine": machine.description(), "versions": versions}
    found["pixels"] = SIDE**2
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found |= {"large": before["large"]} if "large" in before else {}
    found["here"] = here()
    for name, options in (("eager", {}), ("compiled", {"compile": True})):
        found[name] = {str(count): on_workers(count, **options) for count in (1, 2)}
    found["memory"] = {
        str(side**2): child([sys.executable, "-W", "ignore", "-m", __spec__.name, str(side)])
        for side in (512, 768)
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def run() -> str:
    """Measure, and tell it."""
    return section(measure())


def section(found: dict[str, Any]) -> str:
    """What was measured, as a section of docs/benchmarks.md."""
    slow = found["here"]["a loop of scipy.optimize.curve_fit"]["processor"]
    rows = [
        [
            name,
            f"{rate['processor']:,.0f}",
            f"{rate['wall']:,.0f}",
            f"{rate['processor'] / slow:.0f}",
        ]
        for name, rate in found["here"].items()
    ]
    for name in ("eager", "compiled"):
        for count, rate in found[name].items():
            rows.append([
                f"{count} worker{'s' * (count != '1')} of Dask, {name}",
                f"{rate['processor']:,.0f}",
                f"{rate['wall']:,.0f}",
                f"{rate['processor'] / slow:.0f}",
            ])  # fmt: skip
    gains = " and ".join(
        f"{found[name]['2']['wall'] / found[name]['1']['wall']:.2f} ({name})"
        for name in ("eager", "compiled")
    )
    client = " and ".join(f"{found[name]['2']['client']:.0%}" for name in ("eager", "compiled"))
    dask = (
        f"By the clock two workers do {gains} times what one does. The client, to which all "
        f"results come, spends {client} of the processor time of two workers on top of theirs."
    )
    peaks = ", ".join(
        f"{int(count):,} fits {spent['peak']:.0f} MiB ({spent['before']:.0f} before they began)"
        for count, spent in found["memory"].items()
        if spent is not None
    )
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    intro = (
        "Decays with an offset, three parameters and 21 points, one thread of torch; "
        f"{found['pixels']:,} pixels for lmtorch, {FEW**2} for what fits one after the other. "
        "Processor time of workers is theirs alone; the wall clock runs on while a machine has "
        f"other work to do ({found['machine'].split(';')[0]}; {versions}; "
        "`python -m benchmarks.stacks`)."
    )
    header = ["fits a second", "of processor time", "of the wall clock", "× the loop"]
    memory = (
        "Streamed to Zarr in blocks of 256 × 256 pixels, the peak of memory of the process: "
        f"{peaks}."
    )
    if "large" in found:
        most = found["large"]
        memory += (
            f" In one run on two workers, {most['fits']:,} fits, of which {most['succeeded']:.3%} "
            f"succeeded: {most['peak']:.0f} MiB, the peaks of client and workers added up, in "
            f"{most['wall']:.0f} s ({most['machine'].split(';')[0]})."
        )
    table = machine.table(header, rows)
    return f"## Image stacks\n\n{intro}\n\n{table}\n\n{dask}\n\n{memory}"


def put(text: str) -> None:
    """Print a section, and put it into docs/benchmarks.md in the place of what was there."""
    print(text)
    filled = machine.filled(text + "\n\n")
    found, count = re.subn(
        r"^## Image stacks\n.*?(?=^## |\Z)", lambda _: filled, DOCS.read_text(), flags=re.M | re.S
    )
    if count != 1:
        raise ValueError(f"{DOCS} has {count} sections on image stacks")
    DOCS.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["large"]:
        print(json.dumps(large()))
    elif sys.argv[1:] == ["kept"]:
        put(section(json.loads(RESULTS.read_text())))
    elif len(sys.argv) > 1:
        print(json.dumps(into_store(int(sys.argv[1]))))
    else:
        put(run())
