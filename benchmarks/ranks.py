"""Steps of 1, 2 and 4 gloo processes on one machine, each with its share of the samples.

python -m benchmarks.ranks
"""

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

import lmtorch

from .machine import description, table

SIZES = (1, 2, 4)
STEPS = 4
TASKS = {
    "40,000 x 1,153, JᵀJ": (40_000, 32, {"curvature": "full", "solver": "cholesky"}),
    "40,000 x 1,153, products": (40_000, 32, {"solver": "cg"}),
    "400 x 8,449, JJᵀ by rows": (400, 90, {"solver": "dual", "scaling": "more"}),
}


def network(hidden: int) -> nn.Sequential:
    """Two inputs, two hidden layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1)
    )


def work(rank: int, size: int, meeting: str, results: Any) -> None:
    """Take the steps of every task."""
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    group = dist.group.WORLD if size > 1 else None
    for name, (samples, hidden, options) in TASKS.items():
        generator = torch.Generator().manual_seed(0)
        x = (torch.rand(samples, 2, generator=generator) * 4 - 2)[rank::size].clone()
        y = torch.sin(2 * x[:, :1]) * x[:, 1:]
        model = network(hidden)
        opt = lmtorch.LevenbergMarquardt(model, process_group=group, **options)

        def residuals(x: Tensor, y: Tensor, model: nn.Module = model) -> Tensor:
            return model(x) - y

        opt.step(residuals, x, y)  # finds out what works
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, busy = time.perf_counter(), time.process_time()
        for _ in range(STEPS):
            opt.step(residuals, x, y)
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
        assert opt.report is not None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
        results.put(
            (name, rank, wall / STEPS, busy / STEPS, peak, before, opt.report.loss_after,
             found.double().sum().item(), sum(p.numel() for p in model.parameters()))
        )  # fmt: skip
    if size > 1:
        dist.barrier()


def main() -> None:
    """Print a table."""
    context = mp.get_context("spawn")
    rows: dict[str, list[list[str]]] = {name: [] for name in TASKS}
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            results = context.Queue()
            arguments = (size, str(Path(folder) / "meeting"), results)
            processes = [context.Process(target=work, args=(r, *arguments)) for r in range(size)]
            for process in processes:
                process.start()
            found = [results.get() for _ in range(size * len(TASKS))]
            for process in processes:
                process.join()
        for name in TASKS:
            of = [one for one in found if one[0] == name]
            assert len({one[7] for one in of}) == 1  # the same digits on all
            rows[name].append([
                name, str(size), f"{max(one[2] for one in of):.3g} s",
                f"{max(one[3] for one in of):.3g} s",
                f"{max(one[4] for one in of) // 1024} MiB", f"{of[0][6]:.7g}",
            ])  # fmt: skip
    print(description())
    header = ["task", "processes", "a step", "of it busy, a process", "peak, a process", "loss"]
    print(table(header, [row for name in TASKS for row in rows[name]]))


if __name__ == "__main__":
    main()
