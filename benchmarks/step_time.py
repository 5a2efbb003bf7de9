"""Seconds of one step of each Levenberg–Marquardt, interleaved in one run."""

import time

import torch

from . import rivals, tasks
from .gram import fastest
from .machine import table
from .tasks import Task

STEPS = 7
TASKS = {"sinc": tasks.SINC, "wide": tasks.WIDE}
SLOW = 2.0  # seconds of a step beyond which a rival is asked only once


def run() -> str:
    """A table for each task."""
    return "## One step\n\n" + "\n\n".join(_task(key, task) for key, task in TASKS.items())


def _task(key: str, task: Task) -> str:
    x, y = task.data()
    n = sum(p.numel() for p in task.network(0).parameters())
    J, normal = torch.randn(len(x), n), torch.zeros(n, n)
    bare = fastest(lambda: torch.mm(J.mT, J, out=normal))
    steps = {name: make(task.network(0), x, y) for name, make in rivals.LM.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    failed: dict[str, str] = {}
    for _ in range(STEPS):
        for name, step in steps.items():
            if name in failed or (times[name] and times[name][0] > SLOW):
                continue
            begun = time.perf_counter()
            try:
                step()
            except Exception as error:  # a rival may fail: that is a result
                failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"
            times[name].append(time.perf_counter() - begun)
    ours = min(times["lmtorch (all rows)"])
    rows = []
    for name in steps:
        if name in failed:
            rows.append([name, failed[name], "", ""])
            continue
        best = min(times[name])
        rows.append([
            name, f"{best * 1e3:.1f} ms", f"{best / ours:.2f}", f"{best / bare:.2f}"
        ])  # fmt: skip
    title = f"### {task.name}, n = {n:,}\n\nThe product JᵀJ alone (torch.mm, J whole): {bare * 1e3:.1f} ms.\n\n"
    return title + table(["", "fastest step", "over lmtorch", "over JᵀJ alone"], rows)
