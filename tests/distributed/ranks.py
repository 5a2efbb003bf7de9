"""Processes of a gloo group that run checks, started once for many of them."""

import contextlib
import multiprocessing.connection
import os
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

SECONDS = 20  # that a group waits
# what a first step imports, which takes seconds
PRELOADED = ("lmtorch", "scipy", "torch._dynamo", "torch.fx.experimental.symbolic_shapes")


class Ranks:
    """So many processes, each of which runs a function of a module when asked.

    Args:
        size: of the group.
        seconds: that the group waits.
    """

    def __init__(self, size: int, seconds: int = SECONDS) -> None:
        context = mp.get_context("forkserver")  # which imports torch once for all
        context.set_forkserver_preload([*PRELOADED, "tests.distributed.fits"])
        self.folder = tempfile.TemporaryDirectory()
        self.pipes, self.processes = [], []
        for rank in range(size):
            mine, theirs = context.Pipe()
            meeting = str(Path(self.folder.name) / "meeting")
            arguments = (rank, size, meeting, seconds, theirs)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(mine)
            self.processes.append(process)

    def ask(self, check: Callable[..., Any], *args: Any) -> None:
        """Have all of them run a check, which gets the rank, the size and the arguments."""
        for pipe in self.pipes:
            pipe.send((check, args))

    def answers(self, of: Sequence[int] | None = None) -> list[Any]:
        """What a check has returned on each process, or on some.

        Raises:
            AssertionError: it has failed, or takes too long.
        """
        found = {}
        for rank in range(len(self.pipes)) if of is None else of:
            assert self.pipes[rank].poll(3 * SECONDS), f"rank {rank} does not answer"
            found[rank] = self.pipes[rank].recv()
        for rank, (worked, value) in found.items():
            assert worked, f"rank {rank}:\n{value}"
        return [value for _, value in found.values()]

    def run(self, check: Callable[..., Any], *args: Any) -> list[Any]:
        """Run a check on all of them."""
        self.ask(check, *args)
        return self.answers()

    def close(self) -> None:
        """End all processes."""
        for pipe in self.pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self.processes:
            process.join(5)
            if process.is_alive():
                process.kill()
        self.folder.cleanup()


def _serve(
    rank: int, size: int, meeting: str, seconds: int, pipe: multiprocessing.connection.Connection
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=seconds),
    )
    while (asked := pipe.recv()) is not None:
        check, args = asked
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = check(rank, size, *args)
            pipe.send((True, value))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
    os._exit(0)  # a group whose member was killed waits for it otherwise
