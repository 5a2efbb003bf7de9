"""Burgers' equation with a nearly discontinuous solution: u_t + u u_x = ν u_xx, ν = 0.01/π.

At t = 0 the solution is u = −sin πx.

The example of Raissi, Perdikaris & Karniadakis, Physics-informed neural networks (2019), §3.1,
where the relative error is 6.7e-4. The reference is the exact solution of Cole and Hopf, a ratio of
two integrals, which the trapezoidal rule gives to all digits as their integrands decay like
exp(−z²).
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
    F64,
    Problem,
    Run,
    draw_errors,
    draw_field,
    perceptron,
    relative,
    save,
    show,
)

VISCOSITY = 0.01 / math.pi
INSIDE, AROUND = 3000, 200  # points
STEEP = 0.025  # half of the points are crowded about x = 0 to this width
WEIGHT = 3.0  # of the start and of the walls
NODES = torch.linspace(-9, 9, 3001, dtype=F64)


def cole_hopf(tx: Tensor, viscosity: float | Tensor = VISCOSITY) -> Tensor:
    """The exact solution at t > 0 and its limit at t = 0, for u(0, x) = −sin πx, (points,)."""
    t, x = tx[:, :1], tx[:, 1:]
    y = x - torch.sqrt(4 * viscosity * t) * NODES
    weight = torch.exp(-(NODES**2) - (1 + torch.cos(math.pi * y)) / (2 * math.pi * viscosity))
    return -(weight * torch.sin(math.pi * y)).sum(1) / weight.sum(1)


def points(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(t, x) inside, at the start, at the walls."""
    generator = torch.Generator().manual_seed(seed)
    inside = torch.rand(INSIDE, 2, dtype=F64, generator=generator)
    inside[:, 1] = 2 * inside[:, 1] - 1
    crowded = inside[::2, 1].mul(0.9999).atanh() * STEEP
    inside[::2, 1] = crowded.clamp(-1, 1)
    x, t = torch.linspace(-1, 1, AROUND, dtype=F64), torch.linspace(0, 1, AROUND // 2, dtype=F64)
    start = torch.stack([torch.zeros_like(x), x], 1)
    walls = torch.cat([torch.stack([t, side * torch.ones_like(t)], 1) for side in (-1, 1)])
    return inside, start, walls


def terms(net: nn.Module) -> list[tuple]:
    """The equation, the start, the walls."""
    inside, start, walls = points()

    def equation(tx):
        u, gradient, hessian = lmtorch.value_jacobian_hessian(
            lambda tx: net(tx)[:, 0], tx, coordinates=1
        )
        u_t, u_x, u_xx = gradient[:, 0], gradient[:, 1], hessian[:, 0, 0]
        return (u_t + u * u_x - VISCOSITY * u_xx) / math.sqrt(INSIDE)

    def at_start(tx):
        return WEIGHT * (net(tx)[:, 0] + torch.sin(math.pi * tx[:, 1])) / math.sqrt(AROUND)

    def at_walls(tx):
        return WEIGHT * net(tx) / math.sqrt(AROUND)

    return [(equation, inside), (at_start, start), (at_walls, walls)]


TIMES, PLACES = torch.linspace(0, 1, 51, dtype=F64), torch.linspace(-1, 1, 257, dtype=F64)
GRID = torch.cartesian_prod(TIMES, PLACES)
EXACT = cole_hopf(GRID)


@torch.no_grad()
def error(net: nn.Module) -> float:
    """On a grid."""
    return relative(net(GRID)[:, 0], EXACT)


PROBLEM = Problem(lambda: perceptron(2, 20, 20, 20, 1), terms, error)


def main(output: Path = Path("output"), seconds: float = 90.0) -> float:
    """Compare the methods and draw.

    Returns how many times smaller the error of Levenberg–Marquardt is than the best other one.
    """
    return show(PROBLEM, seconds, draw, output / "burgers.png")


@torch.no_grad()
def draw(runs: dict[str, Run], path: Path) -> Path:
    """Draw the solution, its last profile by two networks, where ours is off, errors by time."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.5), layout="constrained")
    extent = (0, 1, -1, 1)
    exact = EXACT.view(len(TIMES), len(PLACES))
    draw_field(figure, axes[0], exact, extent, "u(t, x)", cmap="RdBu")
    axes[0].set(xlabel="t", ylabel="x")
    for name, colour, width in (
        ("Adam, then L-BFGS", "C2", 1.2),
        ("Levenberg–Marquardt", "C3", 1.5),
    ):
        last = runs[name].network(GRID).view_as(exact)[-1] - exact[-1]
        axes[1].semilogy(PLACES, last.abs().clamp(min=1e-12), color=colour, lw=width, label=name)
    axes[1].set(xlabel="x", title="|error| at t = 1")
    missed = runs["Levenberg–Marquardt"].network(GRID).view_as(exact) - exact
    size = float(missed.abs().quantile(0.995))
    draw_field(
        figure,
        axes[2],
        missed,
        extent,
        "error, Levenberg–Marquardt",
        cmap="RdBu",
        vmin=-size,
        vmax=size,
    )
    draw_errors(axes[3], runs)
    return save(figure, path)


if __name__ == "__main__":
    main()
