"""JᵀJ: whole, and as block rows up to the diagonal in chunks that stay in cache."""

import time
from collections.abc import Callable

import torch

from lmtorch._symmetric import add_gram_

from .machine import table

SHAPES = ((10_000, 481), (20_640, 1_377))
CHUNKS = (500, 1_000, 2_000)


def fastest(call: Callable[[], object], repeats: int = 7) -> float:
    """Least seconds of some runs, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return min(times)


def run() -> str:
    """Milliseconds of the product of the whole matrix, and ratios to it."""
    rows = []
    for m, n in SHAPES:
        J, normal = torch.randn(m, n), torch.zeros(n, n)
        whole = fastest(lambda J=J, normal=normal: torch.mm(J.mT, J, out=normal))

        def streamed(chunk: int, J: torch.Tensor = J, normal: torch.Tensor = normal) -> None:
            for part in J.split(chunk):
                add_gram_(normal, part)

        ratios = [f"{fastest(lambda chunk=chunk: streamed(chunk)) / whole:.2f}" for chunk in CHUNKS]
        rows.append([f"{m:,} x {n:,}", f"{whole * 1e3:.1f} ms", *ratios])
    return "## JᵀJ, float32\n\n" + table(
        ["J", "torch.mm, whole", *(f"block rows, chunks of {c:,}" for c in CHUNKS)], rows
    )
