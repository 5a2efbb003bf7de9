"""How torch works in Dask's tasks: one thread in each, and memory is kept from one to the next."""

import ctypes
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

_lock = threading.Lock()
_running = 0  # tasks at work in this process
_before = 1  # threads when none was
_log = logging.getLogger("lmtorch.xarray")

# of glibc's mallopt(3): which setting, and what it is until somebody sets it
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, BY_DEFAULT = -1, -3, 128 * 1024
LARGEST = 32 * 2**20  # that glibc takes for M_MMAP_THRESHOLD
KEPT = 2 * LARGEST  # bytes at the end of the heap that are kept while they are free
MOST = 2**31 - 1  # that a setting of mallopt holds
IDLE = 1.0  # seconds without a task after which they go back to the system
_waiting: threading.Timer | None = None  # for that


@contextmanager
def one_thread() -> Iterator[None]:
    """Give torch one thread in this process while tasks are at work in it, and say so in the log.

    Several threads of Dask may be inside: torch keeps the number for the process, and in part for
    each thread, so that every thread sets it, to what it was before the first of them came.

    Dask starts its workers with MALLOC_TRIM_THRESHOLD_=65536, so that they give back what they do
    not need. But glibc then also takes every tensor of more than 128 KiB from the system, which
    clears its pages, and gives it back after the operation: eager fits took three times as long.
    So what is freed is kept while tasks run, and given back when for a second none has.
    """
    global _running, _before  # noqa: PLW0603  # one setting of torch for the process, so one count and one former value
    with _lock:
        if not _running:
            _before = torch.get_num_threads()
            if _before > 1:
                _log.info("torch has 1 thread, and not %d, while fits run in this worker", _before)
            _keep_memory()
        _running += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            torch.set_num_threads(1 if _running else _before)
            if not _running:
                _return_memory_soon()


def _keep_memory() -> None:
    """Have glibc keep what is freed, where the environment says that it is not to."""
    global _waiting  # noqa: PLW0603  # glibc has one heap for the process, so one timer waits
    library, trimmed = _glibc(), _trimmed()
    if library is None or trimmed is None:
        return
    if _waiting is not None:  # it keeps it still
        _waiting.cancel()
        _waiting = None
        return
    library.mallopt(M_MMAP_THRESHOLD, LARGEST)
    library.mallopt(M_TRIM_THRESHOLD, max(KEPT, trimmed))


def _return_memory_soon() -> None:
    global _waiting  # noqa: PLW0603  # glibc has one heap for the process, so one timer waits
    if _glibc() is not None and _trimmed() is not None:
        _waiting = threading.Timer(IDLE, _return_memory)
        _waiting.daemon = True
        _waiting.start()


def _return_memory() -> None:
    """Give back what was kept, and set glibc to what the environment says."""
    global _waiting  # noqa: PLW0603  # glibc has one heap for the process, so one timer waits
    with _lock:
        library, trimmed = _glibc(), _trimmed()
        # a task may have come while this waited for the lock
        if _waiting is not threading.current_thread() or library is None or trimmed is None:
            return
        _waiting = None
        library.mallopt(M_MMAP_THRESHOLD, BY_DEFAULT)
        library.mallopt(M_TRIM_THRESHOLD, trimmed)
        library.malloc_trim(0)


def _trimmed() -> int | None:
    """What the environment sets, as Dask does; None where it sets nothing, or more than that."""
    given = os.environ.get("MALLOC_TRIM_THRESHOLD_", "")
    if not given.isdecimal() or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return None
    return min(int(given), MOST)


@cache
def _glibc() -> Any:
    """The C library, where it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
