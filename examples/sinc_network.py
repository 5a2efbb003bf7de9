"""Train a network in a few steps: 1-20-20-1 on a noisy sinc, in float32, samples as a batch."""

from pathlib import Path

import torch
from torch import nn

import lmtorch


def network(seed: int = 0) -> nn.Module:
    """A tanh network of 481 parameters."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 1)
    )


def data(samples: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of standard deviation 0.1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(samples, 1, generator=generator) * 8 - 4
    return x, torch.sinc(x) + 0.1 * torch.randn(samples, 1, generator=generator)


def main(output: Path = Path("output"), samples: int = 10_000, steps: int = 30) -> float:
    """Train, print every few steps, draw.

    Returns the root mean square distance from the noiseless sinc.
    """
    x, y = data(samples)
    net = network()
    opt = lmtorch.LevenbergMarquardt(net)
    history = []
    for step in range(steps):
        opt.step(lambda x, y: net(x) - y, x, y)
        history.append(2 * opt.report.loss_after / samples)
        if step % 5 == 0 or step == steps - 1:
            print(f"step {step:3d}  mean square {history[-1]:.6f}  {opt.report}")
        if opt.status.final:
            break
    opt.explain()

    grid = torch.linspace(-4, 4, 400)[:, None]
    with torch.no_grad():
        fitted = net(grid)
    distance = float((fitted - torch.sinc(grid)).square().mean().sqrt())
    print(f"noise 0.1 in the data; network is {distance:.4f} from the sinc itself")
    print("picture:", draw(x, y, grid, fitted, history, output / "sinc_network.png"))
    return distance


def draw(
    x: torch.Tensor,
    y: torch.Tensor,
    grid: torch.Tensor,
    fitted: torch.Tensor,
    history: list[float],
    path: Path,
) -> Path:
    """Data and network, and the loss by step."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(x[:2000], y[:2000], ".", ms=2, color="0.75", label="data (some)")
    left.plot(grid, torch.sinc(grid), color="C0", lw=3, alpha=0.5, label="sinc")
    left.plot(grid, fitted, color="C3", lw=1.5, label="network")
    left.set(xlabel="x", ylabel="y")
    left.legend(frameon=False)
    right.semilogy(range(1, len(history) + 1), history, "o-", ms=3, color="C3")
    right.axhline(0.01, color="0.5", ls=":", label="variance of the noise")
    right.set(xlabel="step", ylabel="mean squared residual")
    right.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
