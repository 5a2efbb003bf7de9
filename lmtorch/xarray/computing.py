"""Runs Dask's tasks and yields each result as it comes: on the workers of a client, or here."""

from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any


def compute(tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Compute delayed objects.

    Args:
        tasks: of Dask.

    Yields:
        The number of a task, and its result, in the order in which they end.
    """
    if not tasks:
        return
    from dask.base import get_scheduler

    client = getattr(get_scheduler(), "__self__", None)
    if hasattr(client, "scheduler_info"):
        yield from _by_client(client, tasks)
    else:
        yield from _here(tasks)


def _by_client(client: Any, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """On the workers of a client; what a dead worker had is given to another."""
    from distributed import as_completed

    futures = client.compute(list(tasks))
    number = {future.key: i for i, future in enumerate(futures)}
    try:
        for future in as_completed(futures):
            yield number[future.key], future.result()
    finally:
        client.cancel(futures)


def _here(tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """In this process, or in those of Dask's local schedulers."""
    from dask.base import compute as dask_compute
    from dask.callbacks import Callback

    number = {task.key: i for i, task in enumerate(tasks)}
    ready: SimpleQueue[Any] = SimpleQueue()

    def after(key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
        if key in number:
            ready.put((number[key], result))

    def run() -> None:
        try:
            with Callback(posttask=after):
                dask_compute(*tasks, optimize_graph=False)
            ready.put(None)
        except BaseException as error:  # comes out where results are waited for
            ready.put(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    while (one := ready.get()) is not None:
        if isinstance(one, BaseException):
            raise one
        yield one
    thread.join()
