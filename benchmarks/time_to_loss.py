"""Loss against seconds for every optimizer from the same starts, and when each loss was reached."""

import time
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from . import rivals
from .machine import table
from .tasks import CONCRETE_TABLE, SINC, Task

SEEDS = (0, 1, 2)
Curve = list[tuple[float, float]]


def run(pictures: Path) -> str:
    """A table and a figure for each task."""
    sections = []
    for task, picture in (
        (SINC, "benchmark_sinc.png"), (CONCRETE_TABLE, "benchmark_concrete.png"),
    ):  # fmt: skip
        curves = {}
        for name in rivals.there():
            if name not in task.without:
                rivals.ALL[name](task.network(0), *task.data())()
                curves[name] = [_curve(task, name, seed) for seed in SEEDS]
        rows = []
        for name, runs in curves.items():
            times = [[_reached(curve, target) for curve in runs] for target in task.targets]
            last = median(min(loss for _, loss in curve) for curve in runs)
            rows.append([name, *(_show(t) for t in times), f"{last:.5f}"])
        header = [
            "seconds to a loss of",
            *(f"{target:g}" for target in task.targets),
            f"loss in {task.seconds:g} s",
        ]
        _draw(task, curves, pictures / picture)
        sections.append(
            f"### {task.name}\n\n{table(header, rows)}\n\n![Loss against seconds](images/{picture})"
        )
    intro = (
        f"Processor seconds on one thread, medians of {len(SEEDS)} starts; – where fewer than "
        "half of them came there in the time given. A first step of another network, which loads "
        "what torch loads once, is not counted."
    )
    return "## Time to a loss\n\n" + intro + "\n\n" + "\n\n".join(sections)


def _curve(task: Task, name: str, seed: int) -> Curve:
    x, y = task.data()
    net = task.network(seed)
    step = rivals.ALL[name](net, x, y)
    curve, spent = [(0.0, _loss(net, x, y))], 0.0
    while spent < task.seconds and curve[-1][1] > task.targets[-1]:
        begun = time.process_time()
        try:
            step()
        except Exception:
            break
        spent += time.process_time() - begun
        curve.append((spent, _loss(net, x, y)))
    return curve


@torch.no_grad()
def _loss(net: nn.Module, x: Tensor, y: Tensor) -> float:
    return (net(x) - y).square().mean().item()


def _reached(curve: Curve, target: float) -> float:
    return next((seconds for seconds, loss in curve if loss <= target), float("inf"))


def _show(times: list[float]) -> str:
    value = median(times)
    return f"{value:.2f}" if value < float("inf") else "–"


def _draw(task: Task, curves: dict[str, list[Curve]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for index, (name, runs) in enumerate(curves.items()):
        for number, curve in enumerate(runs):
            seconds, losses = zip(*curve[1:], strict=True) if len(curve) > 1 else ((), ())
            style = {"color": f"C{index}", "lw": 2.2 if name == "lmtorch" else 1.3, "alpha": 0.85}
            axes.plot(seconds, losses, label=name if number == 0 else None, **style)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="seconds of a processor",
        ylabel="mean squared residual",
        title=task.name,
    )
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.25)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
