"""Which process of a group has ended, once something sent to the others has failed.

Who is connected to a process that was killed hears of it at once, the others only when the time
that the group allows is over, and they hear it of those who have stopped waiting for them. So who
finds out writes it down in the store through which the group has met, where the others read it.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist

PATIENCE = 2.0  # seconds in which those who have stopped waiting say so
LOST, HERE = "lmtorch/lost", "lmtorch/here/"
TAG = 7041  # of what is sent to see whether a connection is open


def culprits(group: Any, rank: int, names: Sequence[int], number: int) -> int | None:
    """Find out which process has ended or hangs.

    Args:
        group: what has failed.
        rank: of this process in it.
        names: ranks of all its members in the world.
        number: of the exchange that has failed.

    Returns:
        Its rank in the world; None: nobody can tell.
    """
    closed = _closed(group, rank, names)
    store = _store_of(group)
    if store is not None:
        # the store may have ended with the process that kept it
        with suppress(RuntimeError):
            return _agreed(store, rank, names, closed, number)
    return names[closed[0]] if closed else None


def _agreed(
    store: Any, rank: int, names: Sequence[int], closed: Sequence[int], number: int
) -> int | None:
    """What the first to find out has written down, or this process's own finding."""
    store.set(f"{HERE}{number}/{rank}", "")
    end = time.monotonic() + PATIENCE
    missing = [place for place in range(len(names)) if place != rank]
    while missing and time.monotonic() < end:
        if store.check([f"{LOST}/{number}"]):
            return int(store.get(f"{LOST}/{number}"))
        missing = [place for place in missing if not store.check([f"{HERE}{number}/{place}"])]
        time.sleep(0.02)
    suspects = [place for place in closed if place in missing] or missing
    if not suspects:
        return None
    found = names[suspects[0]]
    store.set(f"{LOST}/{number}", str(found))
    return found


def _store_of(group: Any) -> Any:
    """The store through which the group has met; None where torch does not show it."""
    # torch has no public way to it (2.13)
    own = getattr(dist.distributed_c10d, "_get_process_group_store", None)
    if own is None:
        return None
    with suppress(RuntimeError, KeyError):
        return own(group)
    return None


def _closed(group: Any, rank: int, names: Sequence[int]) -> list[int]:
    """Members to which the connection is closed, as gloo tells when something is sent to them."""
    if "gloo" not in dist.get_backend(group):
        return []
    found = []
    for place, name in enumerate(names):
        if place == rank:
            continue
        try:
            dist.isend(torch.zeros(1), name, group=group, tag=TAG)
        except RuntimeError:
            found.append(place)
    return found
