"""How much memory there is, and how many rows or columns of a matrix to make at once.

The sizes of chunks follow from two budgets. One must never be exceeded: a share of the memory that
the device has free. The other is the cache of a CPU: a chunk of the Jacobian that is still in cache
when JᵀJ is accumulated costs less than one that has been to memory and back (benchmarks/). A GPU
takes as long to be called as to go through a hundred megabytes: there chunks are large.
"""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch

# bytes that are there without asking: to ask the system takes longer than to fit a small problem
MODEST = 16 * 2**20
SHARE = 0.25  # the largest part of the free memory that a single allocation may take
CACHE = {"cpu": 64 * 2**20}  # bytes that may be evaluated together
# bytes that rows of J made together may take
CACHE_ROWS = {"cpu": 16 * 2**20, "cuda": 256 * 2**20}
# bytes of one number for each residual of all the problems of a batch that are evaluated together
PLANE = {"cpu": 2**20}
STREAM = 2**30  # the limit of both on other devices (GPUs)
PART = 64  # of the memory of a GPU that is the limit where it is less


def free_bytes(device: torch.device) -> int:
    """Bytes that could still be allocated on the device, as driver or operating system report."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    # this system does not tell how much is free: take half of the memory it has
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def budget(device: torch.device, limit: int | None = None) -> int:
    """Bytes that one allocation may take: the user's limit, or `SHARE` of what is free."""
    return limit if limit is not None else int(SHARE * free_bytes(device))


def fits(size: int, device: torch.device, limit: int | None = None) -> bool:
    """Whether one allocation may have so many bytes."""
    return (limit is None and size <= MODEST) or size <= budget(device, limit)


def most(each: int, count: int, device: torch.device, limit: int | None = None) -> int:
    """How many of `count` things of so many bytes may be held at once, at least one."""
    if limit is None and each * count <= MODEST:
        return count
    return max(1, min(count, budget(device, limit) // max(1, each)))


@cache
def keep_freed() -> None:
    """Have the C library keep what is freed for the next tensor, up to 32 MiB a piece.

    By default glibc returns freed blocks of more than 128 KiB to the system, which clears each page
    again when it is used next: operations on tensors of a megabyte then take up to ten times as
    long. It does so only above the size of the largest block that was ever freed, up to 32 MiB; so
    one such block is taken, of which no page is touched, and freed.

    Reference: mallopt(3), M_MMAP_THRESHOLD, "dynamic mmap threshold".
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8, device="cpu")


def stream_rows(
    bytes_per_row: int,
    device: torch.device,
    limit: int | None = None,
    cache: Mapping[str, int] = CACHE,
) -> int:
    """How many rows a streamed chunk has: as many as fit cache and limit, at least one."""
    target = cache.get(device.type) or _streamed(device)
    if limit is not None:
        target = min(target, limit)
    return max(1, target // max(1, bytes_per_row))


def _streamed(device: torch.device) -> int:
    """Bytes that may be evaluated together on a GPU: always the same on the same one."""
    if device.type != "cuda":
        return STREAM
    return min(STREAM, int(torch.cuda.get_device_properties(device).total_memory) // PART)
