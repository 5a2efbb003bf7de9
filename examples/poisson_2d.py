"""Poisson's equation on a square by a network of 501 parameters: −Δu = f, u = 0 on the edge, u = sin πx sin πy."""

import math
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import lmtorch

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the other examples are, if this is run as a script

from examples.physics import F64, Problem, Run, compare, draw_errors, draw_field, perceptron, ratio, relative, save

INSIDE, EDGE = 1500, 240  # points
WEIGHT = 10.0  # of the edge


def solution(xy: Tensor) -> Tensor:
    """What f is made of."""
    return torch.sin(math.pi * xy[:, 0]) * torch.sin(math.pi * xy[:, 1])


def points(seed: int = 0) -> tuple[Tensor, Tensor]:
    """At random inside, and along the four sides."""
    generator = torch.Generator().manual_seed(seed)
    inside = torch.rand(INSIDE, 2, dtype=F64, generator=generator)
    edge = torch.rand(EDGE, 2, dtype=F64, generator=generator)
    side = torch.arange(EDGE) % 4
    edge[side == 0, 0], edge[side == 1, 0], edge[side == 2, 1], edge[side == 3, 1] = 0.0, 1.0, 0.0, 1.0
    return inside, edge


def terms(net: nn.Module) -> list[tuple]:
    """The equation inside, the condition on the edge, each scaled to a mean."""
    inside, edge = points()
    source = 2 * math.pi**2 * solution(inside)

    def equation(xy, f):
        return (lmtorch.laplacian(net, xy)[:, 0] + f) / math.sqrt(INSIDE)

    def condition(xy):
        return WEIGHT * net(xy) / math.sqrt(EDGE)

    return [(equation, inside, source), (condition, edge)]


def grid(size: int = 101) -> Tensor:
    """(size², 2)."""
    line = torch.linspace(0, 1, size, dtype=F64)
    return torch.cartesian_prod(line, line)


@torch.no_grad()
def error(net: nn.Module) -> float:
    """On a grid."""
    return relative(net(grid())[:, 0], solution(grid()))


PROBLEM = Problem(lambda: perceptron(2, 20, 20, 1), terms, error)


def main(output: Path = Path("output"), seconds: float = 60.0) -> float:
    """Compare, draw. Returns how many times less the error of Levenberg–Marquardt is than the best of the others."""
    runs = compare(PROBLEM, seconds)
    print(f"Levenberg–Marquardt is {ratio(runs):.0f} times closer to the solution than the best of the others")
    print("picture:", draw(runs, output / "poisson_2d.png"))
    return ratio(runs)


@torch.no_grad()
def draw(runs: dict[str, Run], path: Path) -> Path:
    """The solution, where two methods miss it, and the errors by the second."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.5), layout="constrained")
    square = (0, 1, 0, 1)
    exact = solution(grid()).view(101, 101)
    draw_field(figure, axes[0], exact, square, "u = sin πx sin πy", cmap="viridis")
    for axis, name in zip(axes[1:3], ("Levenberg–Marquardt", "Adam, then L-BFGS"), strict=True):
        missed = runs[name].network(grid()).view(101, 101) - exact
        size = float(missed.abs().max())
        draw_field(figure, axis, missed, square, f"error, {name}", cmap="RdBu", vmin=-size, vmax=size)
    draw_errors(axes[3], runs)
    return save(figure, path)


if __name__ == "__main__":
    main()
