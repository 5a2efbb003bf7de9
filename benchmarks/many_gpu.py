"""Peaks a second on a CUDA device; needs torch and lmtorch alone.

python -m benchmarks.many_gpu [LARGEST NUMBER OF PEAKS]
"""

import inspect
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import lmtorch

from .many_tasks import PEAKS, peak

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
EAGER = 100_000  # peaks up to which the eager path is run as well
REPEATS = 3


def run(ways: Mapping[str, dict[str, Any]], most: int = SIZES[-1]) -> str:
    """The table, or nothing where there is no such device."""
    if not torch.cuda.is_available():
        return ""
    lines = [
        f"### Many fits on a GPU\n\n{torch.cuda.get_device_name()}, torch {torch.__version__}. "
        "Peaks, 4 × 50, one call of `least_squares`; the fastest of "
        f"{REPEATS} after a first one, by the clock. A fit is right if its sum of squares is no "
        "more than 1 + 1e-6 times that of the same fit, compiled, in float64.\n",
        "| peaks | dtype | | seconds | peaks a second | right | called a success | peak memory "
        "| first |",
        "|" + " --- |" * 9,
    ]
    for size in (size for size in SIZES if size <= most):
        x, y = _data(size)
        try:
            best = _costs(_fit(x.double(), y.double(), {"compile": True})[0], x, y)
        except torch.OutOfMemoryError:
            best = None
        for dtype in (torch.float32, torch.float64):
            here = x.to(dtype), y.to(dtype)
            for way, options in ways.items():
                if not options and size > EAGER:
                    continue
                name = f"{size:,} | {str(dtype).removeprefix('torch.')} | {way}"
                try:
                    lines.append(f"| {name} | {_measured(*here, best, options)} |")
                except Exception:  # the rest of the table is worth having
                    traceback.print_exc()
                    lines.append(f"| {name} | – | – | – | – | – | – |")
    return "\n".join(lines)


def _data(size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator("cuda").manual_seed(0)
    low, high = torch.tensor([[1, 0.3, 0.05, 0], [3, 0.7, 0.15, 0.5]], device="cuda")
    true = low + (high - low) * torch.rand(size, 4, generator=generator, device="cuda")
    x = torch.linspace(0, 1, 50, device="cuda")
    y = peak(x, *true.T.unsqueeze(-1))
    return x, y + 0.02 * torch.randn(y.shape, generator=generator, device="cuda")


def _fit(x: Tensor, y: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    found = lmtorch.least_squares(
        PEAKS.residual,
        torch.tensor(PEAKS.start, dtype=y.dtype, device="cuda"),
        args=(x, y),
        in_dims=(None, None, 0),
        **options,
    )
    torch.cuda.synchronize()
    return found.x, found.success


def _costs(p: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Sums of squares in float64, by parts that leave the memory free."""
    return torch.cat([
        (peak(x.double(), *some.double().T.unsqueeze(-1)) - data.double()).square().sum(-1)
        for some, data in zip(p.split(100_000), y.split(100_000), strict=True)
    ])  # fmt: skip


def _measured(x: Tensor, y: Tensor, best: Tensor | None, options: dict[str, Any]) -> str:
    begun = time.perf_counter()
    p, success = _fit(x, y, options)
    first = time.perf_counter() - begun
    seconds = []
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in range(REPEATS if first < 60 else 1):
        begun = time.perf_counter()
        p, success = _fit(x, y, options)
        seconds.append(time.perf_counter() - begun)
    held = torch.cuda.max_memory_allocated() - before
    right = "–" if best is None else f"{_share(_costs(p, x, y) <= best * (1 + 1e-6)):.2%}"
    return " | ".join([
        f"{min(seconds):.3g}",
        f"{len(y) / min(seconds):.3g}",
        right,
        f"{_share(torch.as_tensor(success)):.2%}",
        f"{held / 2**20:.0f} MiB",
        f"{first:.3g} s",
    ])  # fmt: skip


def _share(mask: Tensor) -> float:
    return mask.double().mean().item()


if __name__ == "__main__":
    compiles = "compile" in inspect.signature(lmtorch.least_squares).parameters
    asked = int(float(sys.argv[1])) if sys.argv[1:] else SIZES[-1]
    print(torch.__version__)
    print(
        run({"eager": {}, **({"compiled": {"compile": True}} if compiles else {})}, asked)
        or "no CUDA device"
    )
