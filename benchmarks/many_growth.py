"""Time of a fit against the number of fits in one call, from 1 to 10⁶."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

import lmtorch

from .machine import table
from .many_peers import leastsq_loop
from .many_tasks import PEAKS
from .paired import in_turns, shown

SIZES = tuple(10**k for k in range(7))
SAMPLE = 1_000
PATIENCE = 30.0  # seconds: ten times as many fits are not tried after a call that took a third


def run(ways: Mapping[str, dict[str, Any]], pictures: Path, most: int) -> str:
    """The table, and a picture where matplotlib is installed."""
    contenders = {
        f"{way}, {str(dtype).removeprefix('torch.')}": (options, dtype)
        for way, options in ways.items()
        for dtype in (torch.float64, torch.float32)
    }
    seconds: dict[str, list[float]] = {"leastsq": [], **{name: [] for name in contenders}}
    walls = dict.fromkeys(seconds, 0.0)
    for size in (size for size in SIZES if size <= most):
        _, y = PEAKS.data(size)
        calls: dict[str, Any] = {"leastsq": partial(leastsq_loop, PEAKS, y[:SAMPLE])}
        for name, (options, dtype) in contenders.items():
            if len(seconds[name]) == len(seconds["leastsq"]) and walls[name] < PATIENCE / 3:
                calls[name] = partial(_fit, torch.from_numpy(y).to(dtype), options)
        turns = in_turns(calls, seconds=3.0 if size <= 10_000 else 0.0)
        for name, spent in turns.least.items():
            walls[name] = spent.wall
            number = min(size, SAMPLE) if name == "leastsq" else size
            seconds[name].append(spent.per(number).processor)
    rows = [
        [name, *(shown(s) for s in found), *["–"] * (len(SIZES) - len(found))]
        for name, found in seconds.items()
    ]
    text = (
        "### Growth\n\nProcessor time a fit in one call of `least_squares`, by the number of peaks "
        f"(4 × 50), beside a loop of leastsq, measured on {SAMPLE:,} at most. Ten times as many "
        f"are not tried (–) where a call took {PATIENCE / 3:g} s.\n\n"
        + table(["", *(f"{size:,}" for size in SIZES)], rows)
    )
    if _drawn(seconds, pictures / "benchmark_growth.png"):
        text += "\n\n![Time a fit against the number of fits](images/benchmark_growth.png)"
    return text


def _fit(data: torch.Tensor, options: dict[str, Any]) -> Any:
    return lmtorch.least_squares(
        PEAKS.residual,
        torch.tensor(PEAKS.start, dtype=data.dtype),
        args=(torch.from_numpy(PEAKS.x).to(data.dtype), data),
        in_dims=(None, None, 0),
        **options,
    ).x


def _drawn(seconds: dict[str, list[float]], path: Path) -> bool:
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, found in seconds.items():
        style = {"color": "0.5", "ls": "--"} if name == "leastsq" else {"marker": "o", "ms": 4}
        axes.plot(SIZES[: len(found)], found, label=name, **style)
    axes.set(
        xscale="log", yscale="log", xlabel="fits in one call", ylabel="processor seconds a fit"
    )
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.25)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True
