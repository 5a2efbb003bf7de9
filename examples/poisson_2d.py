"""Poisson's equation on a square by a network of 501 parameters: −Δu = f, u = sin πx sin πy."""

import math
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import lmtorch

# where the other examples are, if this is run as a script
sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.physics import (
    Problem,
    Run,
    draw_square,
    perceptron,
    relative,
    show,
    square,
    square_grid,
)

INSIDE, EDGE = 1500, 240  # points
WEIGHT = 10.0  # of the edge


def solution(xy: Tensor) -> Tensor:
    """What f is made of."""
    return torch.sin(math.pi * xy[:, 0]) * torch.sin(math.pi * xy[:, 1])


def terms(net: nn.Module) -> list[tuple]:
    """The equation inside, the condition on the edge, each scaled to a mean."""
    inside, edge = square(INSIDE, EDGE, low=0.0)
    source = 2 * math.pi**2 * solution(inside)

    def equation(xy, f):
        return (lmtorch.laplacian(net, xy)[:, 0] + f) / math.sqrt(INSIDE)

    def condition(xy):
        return WEIGHT * net(xy) / math.sqrt(EDGE)

    return [(equation, inside, source), (condition, edge)]


@torch.no_grad()
def error(net: nn.Module) -> float:
    """On a grid."""
    return relative(net(square_grid(0.0))[:, 0], solution(square_grid(0.0)))


PROBLEM = Problem(lambda: perceptron(2, 20, 20, 1), terms, error)


def main(output: Path = Path("output"), seconds: float = 60.0) -> float:
    """Compare the methods and draw.

    Returns how many times smaller the error of Levenberg–Marquardt is than the best other one.
    """
    return show(PROBLEM, seconds, draw, output / "poisson_2d.png")


def draw(runs: dict[str, Run], path: Path) -> Path:
    """The solution, where two methods miss it, and the errors by the second."""
    return draw_square(runs, solution, 0.0, "u = sin πx sin πy", path)


if __name__ == "__main__":
    main()
