"""One thread of torch in each of Dask's tasks: Dask's workers are what uses the cores."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_running = 0  # tasks at work in this process
_before = 1  # threads when none was
_log = logging.getLogger("lmtorch.xarray")


@contextmanager
def one_thread() -> Iterator[None]:
    """Give torch one thread in this process while tasks are at work in it, and say so in the log.

    Several threads of Dask may be inside: torch keeps the number for the process, and in part for
    each thread, so that every thread sets it, to what it was before the first of them came.
    """
    global _running, _before  # noqa: PLW0603  (there is one setting for the whole process)
    with _lock:
        if not _running:
            _before = torch.get_num_threads()
            if _before > 1:
                _log.info("torch has 1 thread, and not %d, while fits run in this worker", _before)
        _running += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            torch.set_num_threads(1 if _running else _before)
