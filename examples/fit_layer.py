"""A fit inside a network's loss: a counter that misses counts is calibrated by known half-lives.

A detector is blind for a moment after each count, so that it misses more of them the faster they
come: decay curves bend, and the half-lives fitted to them are too long. A network learns to correct
the rates from sources of known half-life. It is never told a true rate: its output is fitted by
`least_squares`, its loss is on the fitted half-lives, and gradients pass through the fit by the
implicit function theorem. The data are simulated.

Both fits are Levenberg-Marquardt: the inner one of decay curves, all sources as one batch, and the
outer one of the network, whose residuals are the logarithms of fitted over known half-life.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

import lmtorch

MINUTES = torch.linspace(0, 60, 61, dtype=torch.float64)
BLIND = 200e-6  # seconds after each count: for the simulation only


def counted(half_life: Tensor, seed: int) -> Tensor:
    """What the counter shows in each minute, in counts per second.

    The sources have up to 6000 decays per second.
    """
    generator = torch.Generator().manual_seed(seed)
    first = 2000 + 4000 * torch.rand(len(half_life), 1, dtype=torch.float64, generator=generator)
    true = first * torch.exp2(-MINUTES / half_life[:, None])
    return torch.poisson(60 * true / (1 + BLIND * true), generator=generator) / 60


class Correction(nn.Module):
    """Rates in, rates out: a small network says by how much, and nothing at rate zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        nn.init.zeros_(self.net[2].weight)  # at first no correction

    def forward(self, rate: Tensor) -> Tensor:
        """Same shape."""
        return (
            rate
            * (self.net(rate[..., None] / 3000) - self.net(torch.zeros(1).double()))[..., 0].exp()
        )


def half_lives(rate: Tensor) -> Tensor:
    """The layer: a decay curve fitted to each row (b, 61), in minutes (b,); it passes gradients."""

    def residual(x: Tensor, rate: Tensor) -> Tensor:
        return x[0] * torch.exp2(-MINUTES / x[1]) - rate / 1000

    start = torch.tensor([3.0, 15.0], dtype=torch.float64)
    return lmtorch.least_squares(residual, start, args=(rate,), in_dims=(None, 0)).x[:, 1]


def main(output: Path = Path("output"), steps: int = 8) -> float:
    """Train on known sources, test on others, draw.

    Returns the error of unknown half-lives before training over that after it.
    """
    known = torch.tensor([4.0, 8, 12, 16, 20, 30], dtype=torch.float64).repeat(4)
    shown = counted(known, seed=0)
    unknown = 5 + 30 * torch.rand(
        100, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    tested = counted(unknown, seed=2)

    def error(rate: Tensor) -> tuple[Tensor, float]:
        with torch.no_grad():
            fitted = half_lives(rate)
        return fitted, float((fitted / unknown - 1).square().mean().sqrt())

    def residual() -> Tensor:
        return (half_lives(correct(shown)) / known).log()

    correct = Correction()
    opt = lmtorch.LevenbergMarquardt(correct, jacobian="autograd")
    before, first = error(tested)
    print(f"no correction: error of 100 unknown half-lives {first:.1%}")
    errors, losses = [first], [float(residual().square().mean().sqrt().detach())]
    for step in range(1, steps + 1):
        opt.step(residual)
        losses.append(float(2 * opt.report.loss_after / len(known)) ** 0.5)
        after, last = error(correct(tested))
        errors.append(last)
        print(f"step {step}: {last:.2%}   {opt.report}")
    _, ideal = error(tested / (1 - BLIND * tested))
    print(f"with the formula of the simulation, which the network has not seen: {ideal:.2%}")
    print(
        "picture:",
        draw(correct, losses, errors, ideal, unknown, before, after, output / "fit_layer.png"),
    )
    return first / last


def draw(
    correct: nn.Module,
    losses: list[float],
    errors: list[float],
    ideal: float,
    unknown: Tensor,
    before: Tensor,
    after: Tensor,
    path: Path,
) -> Path:
    """Draw loss and error by step, half-lives of unknown sources, and the learned correction."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 3.8), layout="constrained")
    left.semilogy([100 * e for e in errors], "o-", ms=4, color="C3", label="100 unknown sources")
    left.semilogy(
        [100 * e for e in losses], "s--", ms=3.5, color="0.5", label="24 known ones (loss)"
    )
    left.axhline(100 * ideal, color="C0", lw=1, ls=":", label="with the true correction")
    left.set(xlabel="step", ylabel="error of the fitted half-life (%)")
    left.legend(frameon=False, fontsize=9)

    middle.plot([0, 40], [0, 40], color="0.6", lw=1)
    middle.plot(unknown, before, "o", ms=4, mfc="none", color="0.5", label="before")
    middle.plot(unknown, after, "o", ms=4, mfc="none", color="C3", label="after")
    middle.set(
        xlabel="true half-life (min)", ylabel="fitted half-life (min)", xlim=(0, 40), ylim=(0, 60)
    )
    middle.legend(frameon=False, fontsize=9)

    shown = torch.linspace(0, 2700, 200, dtype=torch.float64)
    with torch.no_grad():
        learned = correct(shown)
    right.plot(shown, shown / (1 - BLIND * shown), color="C0", lw=4, alpha=0.4, label="true rate")
    right.plot(shown, learned, color="C3", lw=1.5, label="learned")
    right.plot(shown, shown, color="0.6", lw=1, ls="--", label="uncorrected")
    right.set(
        xlabel="counts per second shown", ylabel="corrected (1/s)", xlim=(0, 2700), ylim=(0, None)
    )
    right.legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
