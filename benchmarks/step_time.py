"""Seconds of one step of each Levenberg–Marquardt, measured in turns on the same machine."""

import time
from statistics import median

import torch

from . import rivals, tasks
from .gram import fastest
from .machine import table
from .tasks import Task

STEPS = 25
TASKS = {"sinc": tasks.SINC, "wide": tasks.WIDE}


def run() -> str:
    """A table for each task."""
    return "## One step\n\n" + "\n\n".join(_task(key, task) for key, task in TASKS.items())


def _task(key: str, task: Task) -> str:
    x, y = task.data()
    n = sum(p.numel() for p in task.network(0).parameters())
    J, normal = torch.randn(len(x), n), torch.zeros(n, n)
    bare = fastest(lambda: torch.mm(J.mT, J, out=normal))
    steps = {name: make(task.network(0), x, y) for name, make in rivals.LM.items()}
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(STEPS):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - begun)
    ours = times["lmtorch (all rows)"]
    rows = []
    for name, each in times.items():
        paired = median(theirs / own for theirs, own in zip(each, ours, strict=True))
        rows.append([
            name, f"{min(each) * 1e3:.1f} ms", f"{median(each) * 1e3:.1f} ms",
            f"{min(each) / min(ours):.2f}",
            f"{paired:.2f}", f"{min(each) / bare:.2f}",
        ])  # fmt: skip
    title = (
        f"### {task.name}, n = {n:,}\n\nThe product JᵀJ alone (torch.mm, J whole): "
        f"{bare * 1e3:.1f} ms.\n\n"
    )
    return title + table(
        [
            "",
            "fastest step",
            "median step",
            "fastest over lmtorch's",
            "median of the ratios",
            "over JᵀJ alone",
        ],
        rows,
    )
