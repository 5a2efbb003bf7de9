"""An unknown coefficient from noisy measurements: the viscosity of Burgers' equation.

The viscosity is one more parameter of the module. The equation is imposed so strongly that it is a
constraint, the measurements are in units of their noise; so the minimum is the fit of the equation
to the data. How well the viscosity can be known is told by a curve fit of the exact solution, which
a real problem would not have.
"""

import math
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import lmtorch

# where the other examples are, if this is run as a script
sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.burgers import GRID, cole_hopf
from examples.physics import F64, Problem, Run, compare, draw_errors, perceptron, relative, save

VISCOSITY = 0.05  # to be found
NOISE = 0.01
MEASURED, INSIDE = 400, 1500  # points
STRICT = 1e5  # weight of the equation and of its conditions, beside data in units of their noise


class Unknown(nn.Module):
    """The solution as a network, and log ν: positive whatever its value."""

    def __init__(self) -> None:
        super().__init__()
        self.net = perceptron(2, 16, 16, 1)
        # ten times too large
        self.log_viscosity = nn.Parameter(torch.tensor(math.log(0.5), dtype=F64))

    def forward(self, tx: Tensor) -> Tensor:
        """u(t, x); −sin πx at the start and 0 at the walls, whatever the network says."""
        t, x = tx[:, 0], tx[:, 1]
        return -torch.sin(math.pi * x) + t * (1 - x * x) * self.net(tx)[:, 0]


def measurements(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Places (t, x), and u there with noise."""
    generator = torch.Generator().manual_seed(seed)
    tx = torch.rand(MEASURED, 2, dtype=F64, generator=generator) * torch.tensor(
        [1.0, 2.0]
    ) - torch.tensor([0.0, 1.0])
    return tx, cole_hopf(tx, VISCOSITY) + NOISE * torch.randn(
        MEASURED, dtype=F64, generator=generator
    )


def terms(model: Unknown) -> list[tuple]:
    """The equation everywhere, the data where they are."""
    generator = torch.Generator().manual_seed(1)
    inside = torch.rand(INSIDE, 2, dtype=F64, generator=generator) * torch.tensor(
        [1.0, 2.0]
    ) - torch.tensor([0.0, 1.0])

    def equation(tx):
        u, gradient, hessian = lmtorch.value_jacobian_hessian(model, tx, coordinates=1)
        u_t, u_x, u_xx = gradient[:, 0], gradient[:, 1], hessian[:, 0, 0]
        return STRICT * (u_t + u * u_x - model.log_viscosity.exp() * u_xx) / math.sqrt(INSIDE)

    def data(tx, u):
        return (model(tx) - u) / NOISE

    return [(equation, inside), (data, *measurements())]


def best_possible() -> tuple[float, float]:
    """ν and its standard error, from a fit of the exact solution to the same data."""
    tx, u = measurements()
    fit = lmtorch.curve_fit(cole_hopf, tx, u, p0=[0.1], sigma=NOISE * torch.ones_like(u))
    return float(fit["viscosity"]), float(fit.stderr[0])


BEST, STDERR = best_possible()
EXACT = cole_hopf(GRID, BEST)


@torch.no_grad()
def error(model: nn.Module) -> float:
    """On a grid, from the best solution that the data allow."""
    return relative(model(GRID), EXACT)


PROBLEM = Problem(Unknown, terms, error)


def main(output: Path = Path("output"), seconds: float = 30.0) -> dict[str, float]:
    """Compare the methods and draw.

    Returns how many standard errors each method's ν is away from that of the exact solution's fit.
    """
    runs = compare(PROBLEM, seconds)
    print(
        f"ν: true {VISCOSITY}; from the exact solution fitted to the data {BEST:.5f} ± {STDERR:.5f}"
    )
    away = {}
    for name, run in runs.items():
        found = float(run.network.log_viscosity.detach().exp())
        away[name] = abs(found - BEST) / STDERR
        print(f"{name:<20} ν = {found:.5f}, {away[name]:.2g} standard errors from that fit")
    print("picture:", draw(runs, output / "inverse_burgers.png"))
    return away


@torch.no_grad()
def draw(runs: dict[str, Run], path: Path) -> Path:
    """The data with the solution found, the viscosities, and the errors by the second."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    (tx, u), model = measurements(), runs["Levenberg–Marquardt"].network
    axes[0].scatter(tx[:, 1], u, c=tx[:, 0], s=8, cmap="viridis")
    x = torch.linspace(-1, 1, 201, dtype=F64)
    for t in (0.1, 0.4, 0.7, 1.0):
        axes[0].plot(
            x,
            model(torch.stack([torch.full_like(x, t), x], 1)),
            color=plt.get_cmap("viridis")(t),
            lw=1.3,
        )
    axes[0].set(
        xlabel="x", ylabel="u", title=f"{MEASURED} measurements (colour: t), the solution found"
    )
    axes[1].axhspan(
        BEST - STDERR,
        BEST + STDERR,
        color="0.85",
        label="fit of the exact solution ± standard error",
    )
    axes[1].axhline(VISCOSITY, color="0.3", ls=":", label="true")
    for place, ((_, run), colour) in enumerate(
        zip(runs.items(), ("C3", "0.55", "C0", "C2"), strict=True)
    ):
        axes[1].plot(place, float(run.network.log_viscosity.exp()), "o", color=colour, ms=8)
    axes[1].set_xticks(
        range(len(runs)),
        [name.replace(", ", ",\n").replace("–", "–\n") for name in runs],
        fontsize=8,
    )
    axes[1].set(title="viscosity")
    axes[1].legend(frameon=False, fontsize=8)
    draw_errors(axes[2], runs)
    return save(figure, path)


if __name__ == "__main__":
    main()
