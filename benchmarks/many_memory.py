"""What memory 10⁷ fits in one call take above their data, in a process of its own (Linux)."""

import ctypes
import json
import sys
import warnings
from typing import Any

import torch
from torch import Tensor

import lmtorch

from .machine import table
from .many_tall import RESET, child, high_water
from .many_tasks import PEAKS
from .paired import shown, timed

MOST = 10_000_000
DRAWN = 500_000  # fits; the others are noisy copies of them
NOISE = 0.02


def run(ways: dict[str, dict[str, Any]], most: int) -> str:
    """The table, of compiled fits where they can be."""
    if not RESET.exists():
        return "### Memory of many fits\n\nNot measured: this system does not tell the peak."
    way = list(ways)[-1]
    count = MOST if most >= 1_000_000 else most
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        __spec__.name,
        str(count),
        json.dumps(ways[way]),
    ]
    told = child(command)
    if told is None:
        return ""
    row = [
        f"{count:,}", way, shown(told["processor"] / count), f"{told['success']:.2%}",
        f"{told['data']:.0f} MiB", f"{told['kept']:.0f} MiB", f"{told['peak']:.0f} MiB",
    ]  # fmt: skip
    intro = (
        "Peaks, 4 × 50, in float32 with one x for all, in one call of `least_squares`. Memory is "
        "what the process has resident, above what it held with the data: at most, and at the end."
    )
    header = [
        "fits", "", "processor, a fit", "called a success", "data", "kept above it",
        "peak above it",
    ]  # fmt: skip
    return f"### Memory of many fits\n\n{intro}\n\n{table(header, [row])}"


def _data(count: int) -> Tensor:
    drawn = torch.from_numpy(PEAKS.data(min(count, DRAWN))[1]).float()
    y = torch.empty(count, drawn.shape[1])
    generator = torch.Generator().manual_seed(0)
    for part in y.split(len(drawn)):
        part.normal_(0, NOISE, generator=generator).add_(drawn[: len(part)])
    return y


def _measure(count: int, options: dict[str, Any]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    x = torch.from_numpy(PEAKS.x).float()
    start = torch.tensor(PEAKS.start)

    def fit(y: Tensor) -> Any:
        return lmtorch.least_squares(
            PEAKS.residual, start, args=(x, y), in_dims=(None, None, 0), **options
        )

    y = _data(count)
    fit(y[:70_000])
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator has kept would hide as much of the peak
    RESET.write_text("5")  # the peak begins anew: proc(5), clear_refs
    before = high_water()
    found, spent = timed(lambda: fit(y))
    peak = high_water() - before
    ctypes.CDLL(None).malloc_trim(0)
    RESET.write_text("5")
    told = {"peak": peak, "kept": high_water() - before, "processor": spent.processor}
    told |= {"success": float(found.success.double().mean()), "data": y.nbytes / 2**20}
    print(json.dumps(told))


if __name__ == "__main__":
    _measure(int(sys.argv[1]), json.loads(sys.argv[2]))
