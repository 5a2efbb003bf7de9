"""A network on data that lie with several processes.

    torchrun --nproc-per-node 2 examples/many_processes.py

Each process makes, or would read, samples of its own; the step is that of all of them.
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn

import lmtorch


def data(rank: int, size: int, samples: int) -> tuple[Tensor, Tensor]:
    """The samples of one process: every so many-th of a noisy surface."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(samples, 2, generator=generator, dtype=torch.float64) * 4 - 2
    noise = 0.05 * torch.randn(samples, 1, generator=generator, dtype=torch.float64)
    y = torch.sin(2 * x[:, :1]) * x[:, 1:] + noise
    return x[rank::size], y[rank::size]


def main(samples: int = 4_000, steps: int = 20) -> float:
    """Train on all processes of the group, if there is one. Returns the root mean square."""
    group = dist.group.WORLD if dist.is_initialized() else None
    rank, size = (dist.get_rank(), dist.get_world_size()) if group else (0, 1)
    x, y = data(rank, size, samples)
    torch.manual_seed(rank)  # all get the parameters of the first process
    model = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 1)).double()
    # all samples in every step: any number of processes then takes the same steps
    opt = lmtorch.LevenbergMarquardt(
        model, solver="cholesky", curvature="full", process_group=group
    )
    for _ in range(steps):
        opt.step(lambda x, y: model(x) - y, x, y)
    assert opt.report is not None
    error = (2 * opt.report.loss_after / samples) ** 0.5
    if rank == 0:
        opt.explain()
        print(f"{size} processes, {samples} samples: root mean square {error:.6f}")
    return error


if __name__ == "__main__":
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    main()
    if dist.is_initialized():
        dist.destroy_process_group()
