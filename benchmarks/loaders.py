"""Samples that come from a loader: a step beside the products that it needs, and its memory.

Memory is that of 10⁶ samples, each way in a process of its own (Linux), because the peak of memory
is that of a process; times are those of fewer samples, in turns in one process.
"""

import ctypes
import json
import sys
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import lmtorch
from lmtorch._symmetric import add_gram_

from .machine import table
from .many_tall import RESET, child, high_water
from .paired import in_turns, shown, timed

SAMPLES, FEWER = 1_000_000, 20_000
ROWS = 1024  # of J, as many as are made together
Step = Callable[[], object]


class Made:
    """Batches that are made when they are read, as from a file: they are never there together."""

    def __init__(self, samples: int, size: int = 4096) -> None:
        self.samples, self.size = samples, size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self.samples, self.size):
            yield data(min(self.size, self.samples - start), start)


def data(samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Eight inputs and a target."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 8, generator=generator)
    return x, (2 * x[:, :1]).sin() + 0.1 * torch.randn(samples, 1, generator=generator)


def network() -> nn.Module:
    """1,951 parameters in float32."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 39), nn.Tanh(), nn.Linear(39, 39), nn.Tanh(), nn.Linear(39, 1)
    )


def shuffled(samples: int) -> DataLoader[Tensor]:
    """A `DataLoader` that takes whole batches from the tensors, in any order."""
    pairs = TensorDataset(*data(samples))
    return DataLoader(
        pairs, sampler=BatchSampler(RandomSampler(pairs), 4096, drop_last=False), batch_size=None
    )


def _tensors(samples: int, curvature: str) -> Step:
    model, batch = network(), data(samples)
    optimizer = lmtorch.LevenbergMarquardt(model, curvature=curvature, acceleration=False)
    return lambda: optimizer.step(lambda x, y: model(x) - y, *batch)


def _loader(kind: Callable[[int], object]) -> Callable[[int, str], Step]:
    def made(samples: int, curvature: str) -> Step:
        model, loader = network(), kind(samples)
        optimizer = lmtorch.LevenbergMarquardt(model, curvature=curvature)
        return lambda: optimizer.step(lambda x, y: model(x) - y, loader)

    return made


WAYS: dict[str, Callable[[int, str], Step]] = {
    "`step(closure, x, y)`": _tensors,
    "a shuffled `DataLoader`": _loader(shuffled),
    "batches of 4,096 that are made when they are read": _loader(Made),
    "batches of 256, likewise": _loader(lambda samples: Made(samples, 256)),
}


def products(samples: int) -> Step:
    """One triangle of JᵀJ by blocks of rows that are there, and nothing else."""
    rows = torch.randn(ROWS, sum(p.numel() for p in network().parameters()))

    def sums() -> None:
        normal = rows.new_zeros(rows.shape[1], rows.shape[1])
        for start in range(0, samples, ROWS):
            add_gram_(normal, rows[: min(ROWS, samples - start)])

    return sums


def run() -> str:
    """The table."""
    torch.set_num_threads(1)
    bare = "products of rows"
    ways = {name: way(FEWER, "full") for name, way in WAYS.items()}
    turns = in_turns({bare: products(FEWER), **ways}, seconds=3.0, most=3)
    rows = []
    for name in WAYS:
        found = None
        if RESET.exists():
            found = child([sys.executable, "-W", "ignore", "-m", __spec__.name, name])
        rows.append([
            name,
            f"{turns.ratio(name, bare):.2f}",
            "" if found is None else shown(found["processor"]),
            "" if found is None else f"{found['peak']:.0f} MiB",
        ])  # fmt: skip
    intro = (
        "A network of 1,951 parameters in float32, one thread. A step with JᵀJ of all rows, beside "
        f"one triangle of JᵀJ from rows that are there ({FEWER:,} samples, "
        f"{shown(turns.least[bare].processor)}); and a step as chosen, with JᵀJ of a tenth of the "
        f"rows, on {SAMPLES:,} samples. The peak is that of the process above what it held before, "
        "with the data where that is in memory."
    )
    header = ["", "÷ products", f"{SAMPLES:,} samples, a step", "peak above the data"]
    return f"## Data from a loader\n\n{intro}\n\n{table(header, rows)}"


def _measure(name: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    WAYS[name](2_000, "auto")()
    step = WAYS[name](SAMPLES, "auto")
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator has kept would hide as much of the peak
    RESET.write_text("5")  # the peak begins anew: proc(5), clear_refs
    before = high_water()
    _, spent = timed(step)
    print(json.dumps({"processor": spent.processor, "peak": high_water() - before}))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _measure(sys.argv[1])
    else:
        print(run())
