"""Helmholtz' equation on a square, oscillating in one direction: Δu + u = q, u = sin πx sin 4πy, u = 0 on the edge.

The case that is hard for gradient descent (Wang, Teng & Perdikaris, Understanding and mitigating gradient pathologies
in physics-informed neural networks, 2021), whose networks came to relative errors of 1e-3 to 1e-1.
"""

import math
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import lmtorch

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the other examples are, if this is run as a script

from examples.physics import F64, Problem, Run, compare, draw_errors, draw_field, perceptron, ratio, relative, save

INSIDE, EDGE = 2500, 400  # points
WEIGHT = 10.0  # of the edge
WAVES = 1, 4


def solution(xy: Tensor) -> Tensor:
    """What q is made of."""
    return torch.sin(WAVES[0] * math.pi * xy[:, 0]) * torch.sin(WAVES[1] * math.pi * xy[:, 1])


def points(seed: int = 0) -> tuple[Tensor, Tensor]:
    """At random in [−1, 1]², and along the four sides."""
    generator = torch.Generator().manual_seed(seed)
    inside = torch.rand(INSIDE, 2, dtype=F64, generator=generator) * 2 - 1
    edge = torch.rand(EDGE, 2, dtype=F64, generator=generator) * 2 - 1
    side = torch.arange(EDGE) % 4
    edge[side == 0, 0], edge[side == 1, 0], edge[side == 2, 1], edge[side == 3, 1] = -1.0, 1.0, -1.0, 1.0
    return inside, edge


def terms(net: nn.Module) -> list[tuple]:
    """The equation inside, the condition on the edge, each scaled to a mean."""
    inside, edge = points()
    source = (1 - (WAVES[0] ** 2 + WAVES[1] ** 2) * math.pi**2) * solution(inside)

    def equation(xy, q):
        u, _, hessian = lmtorch.value_jacobian_hessian(net, xy)
        return (hessian.diagonal(dim1=-2, dim2=-1).sum(-1) + u - q[:, None]) / math.sqrt(INSIDE)

    def condition(xy):
        return WEIGHT * net(xy) / math.sqrt(EDGE)

    return [(equation, inside, source), (condition, edge)]


def grid(size: int = 101) -> Tensor:
    """(size², 2)."""
    line = torch.linspace(-1, 1, size, dtype=F64)
    return torch.cartesian_prod(line, line)


@torch.no_grad()
def error(net: nn.Module) -> float:
    """On a grid."""
    return relative(net(grid())[:, 0], solution(grid()))


PROBLEM = Problem(lambda: perceptron(2, 30, 30, 1), terms, error)


def main(output: Path = Path("output"), seconds: float = 90.0) -> float:
    """Compare, draw. Returns how many times less the error of Levenberg–Marquardt is than the best of the others."""
    runs = compare(PROBLEM, seconds)
    print(f"Levenberg–Marquardt is {ratio(runs):.0f} times closer to the solution than the best of the others")
    print("picture:", draw(runs, output / "helmholtz.png"))
    return ratio(runs)


@torch.no_grad()
def draw(runs: dict[str, Run], path: Path) -> Path:
    """The solution, where two methods miss it, and the errors by the second."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.5), layout="constrained")
    square = (-1, 1, -1, 1)
    exact = solution(grid()).view(101, 101)
    draw_field(figure, axes[0], exact, square, "u = sin πx sin 4πy", cmap="viridis")
    for axis, name in zip(axes[1:3], ("Levenberg–Marquardt", "Adam, then L-BFGS"), strict=True):
        missed = runs[name].network(grid()).view(101, 101) - exact
        size = float(missed.abs().max())
        draw_field(figure, axis, missed, square, f"error, {name}", cmap="RdBu", vmin=-size, vmax=size)
    draw_errors(axes[3], runs)
    return save(figure, path)


if __name__ == "__main__":
    main()
