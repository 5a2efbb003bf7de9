"""Poisson's equation on an interval with two length scales: −u″ = f, u = sin 2πx + sin(16πx)/10."""

import math
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import lmtorch

# where the other examples are, if this is run as a script
sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.physics import F64, Problem, Run, draw_errors, perceptron, relative, save, show

INSIDE = 300  # points
WEIGHT = 10.0  # of the ends


def solution(x: Tensor) -> Tensor:
    """What f is made of."""
    return torch.sin(2 * math.pi * x) + torch.sin(16 * math.pi * x) / 10


def source(x: Tensor) -> Tensor:
    """f = −u″."""
    return (2 * math.pi) ** 2 * torch.sin(2 * math.pi * x) + (16 * math.pi) ** 2 * torch.sin(
        16 * math.pi * x
    ) / 10


def terms(net: nn.Module) -> list[tuple]:
    """The equation on the interval, the condition at its ends."""
    inside = torch.linspace(0, 1, INSIDE, dtype=F64)[:, None]
    ends = torch.tensor([[0.0], [1.0]], dtype=F64)

    def equation(x, f):
        return (lmtorch.laplacian(net, x) + f) / math.sqrt(INSIDE)

    return [(equation, inside, source(inside)), (lambda x: WEIGHT * net(x), ends)]


GRID = torch.linspace(0, 1, 1001, dtype=F64)[:, None]


@torch.no_grad()
def error(net: nn.Module) -> float:
    """On a grid."""
    return relative(net(GRID), solution(GRID))


PROBLEM = Problem(lambda: perceptron(1, 20, 20, 1), terms, error)


def main(output: Path = Path("output"), seconds: float = 30.0) -> float:
    """Compare the methods and draw.

    Returns how many times smaller the error of Levenberg–Marquardt is than the best other one.
    """
    return show(PROBLEM, seconds, draw, output / "poisson_1d.png")


@torch.no_grad()
def draw(runs: dict[str, Run], path: Path) -> Path:
    """The solution with the networks, how far each misses it, and the errors by the second."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    axes[0].plot(GRID, solution(GRID), color="0.7", lw=4, label="u")
    for (name, run), colour in zip(runs.items(), ("C3", "0.55", "C0", "C2"), strict=True):
        found = run.network(GRID)
        axes[0].plot(GRID, found, color=colour, lw=1)
        axes[1].semilogy(
            GRID, (found - solution(GRID)).abs().clamp(min=1e-16), color=colour, lw=1, label=name
        )
    axes[0].set(xlabel="x", title="u = sin 2πx + sin(16πx)/10")
    axes[1].set(xlabel="x", title="|error|")
    draw_errors(axes[2], runs)
    return save(figure, path)


if __name__ == "__main__":
    main()
