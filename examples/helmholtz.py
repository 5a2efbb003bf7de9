"""Helmholtz' equation on a square, oscillating in one direction: Δu + u = q.

The solution is u = sin πx sin 4πy, with u = 0 on the edge.

The case that is hard for gradient descent (Wang, Teng & Perdikaris, Understanding and
mitigating gradient pathologies in physics-informed neural networks, 2021), whose networks came
to relative errors of 1e-3 to 1e-1.
"""

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

INSIDE, EDGE = 2500, 400  # points
WEIGHT = 10.0  # of the edge
WAVES = 1, 4


def solution(xy: Tensor) -> Tensor:
    """What q is made of."""
    return torch.sin(WAVES[0] * math.pi * xy[:, 0]) * torch.sin(WAVES[1] * math.pi * xy[:, 1])


def terms(net: nn.Module) -> list[tuple]:
    """The equation inside, the condition on the edge, each scaled to a mean."""
    inside, edge = square(INSIDE, EDGE, low=-1.0)
    source = (1 - (WAVES[0] ** 2 + WAVES[1] ** 2) * math.pi**2) * solution(inside)

    def equation(xy, q):
        u, _, hessian = lmtorch.value_jacobian_hessian(net, xy)
        return (hessian.diagonal(dim1=-2, dim2=-1).sum(-1) + u - q[:, None]) / math.sqrt(INSIDE)

    def condition(xy):
        return WEIGHT * net(xy) / math.sqrt(EDGE)

    return [(equation, inside, source), (condition, edge)]


@torch.no_grad()
def error(net: nn.Module) -> float:
    """On a grid."""
    return relative(net(square_grid(-1.0))[:, 0], solution(square_grid(-1.0)))


PROBLEM = Problem(lambda: perceptron(2, 30, 30, 1), terms, error)


def main(output: Path = Path("output"), seconds: float = 90.0) -> float:
    """Compare the methods and draw.

    Returns how many times smaller the error of Levenberg–Marquardt is than the best other one.
    """
    return show(PROBLEM, seconds, draw, output / "helmholtz.png")


def draw(runs: dict[str, Run], path: Path) -> Path:
    """The solution, where two methods miss it, and the errors by the second."""
    return draw_square(runs, solution, -1.0, "u = sin πx sin 4πy", path)


if __name__ == "__main__":
    main()
