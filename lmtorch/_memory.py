"""How much memory there is, and how many rows or columns of a matrix to make at once.

Chunks come from a budget, not from the user. Two budgets matter: what must never be exceeded (a
share of what the device has free), and, on a CPU, what stays in cache: a chunk of the Jacobian that
is still in cache when JᵀJ is accumulated costs less than one that has been to memory and back
(benchmarks/).
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

SHARE = 0.25  # of the free memory, for the largest single thing that we allocate
CACHE = {"cpu": 64 * 2**20}  # bytes of what is evaluated together
CACHE_ROWS = {"cpu": 16 * 2**20}  # bytes of the rows of J made together
STREAM = 256 * 2**20  # bytes of either where there is no such cache (GPUs)


def free_bytes(device: torch.device) -> int:
    """Bytes that could still be allocated on the device, as its driver or the operating system tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    # no better answer: half of what is built in
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def budget(device: torch.device, limit: int | None = None) -> int:
    """Bytes that one allocation may take: the user's limit, or a quarter of what is free."""
    return limit if limit is not None else int(SHARE * free_bytes(device))


def stream_rows(
    bytes_per_row: int,
    device: torch.device,
    limit: int | None = None,
    cache: Mapping[str, int] = CACHE,
) -> int:
    """Rows of a streamed chunk, at least one: small enough for the cache and for the limit."""
    target = cache.get(device.type, STREAM)
    if limit is not None:
        target = min(target, limit)
    return max(1, target // max(1, bytes_per_row))
