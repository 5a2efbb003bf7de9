"""A real table: the strength of concrete from eight numbers, against Adam in the same time."""

import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import lmtorch

DATA = Path(__file__).parent / "data" / "concrete.csv"


def data() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor], float]:
    """Standardised training and test rows (80:20), and the deviation of the strength in MPa."""
    values = np.genfromtxt(DATA, delimiter=",", skip_header=1)
    order = np.random.default_rng(0).permutation(len(values))
    train, test = values[order[206:]], values[order[:206]]
    mean, std = train.mean(0), train.std(0)

    def split(part: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        table = torch.as_tensor((part - mean) / std, dtype=torch.float32)
        return table[:, :8], table[:, 8:]

    return split(train), split(test), float(std[8])


def network() -> nn.Module:
    """1,377 parameters, more than there are training rows: weight decay does the rest."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
    )


def main(output: Path = Path("output"), steps: int = 25, weight_decay: float = 0.3) -> float:
    """Train both, print root mean square errors in MPa, draw.

    Returns the error of lmtorch on the test rows.
    """
    (x, y), (x_test, y_test), unit = data()

    def error(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
        with torch.no_grad():
            return unit * float((net(x) - y).square().mean().sqrt())

    net = network()
    opt = lmtorch.LevenbergMarquardt(net, weight_decay=weight_decay)
    begun = time.perf_counter()
    for _ in range(steps):
        opt.step(lambda x, y: net(x) - y, x, y)
    seconds = time.perf_counter() - begun
    opt.explain()

    rival = network()
    adam = torch.optim.Adam(rival.parameters(), lr=1e-2)
    begun, updates = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        adam.zero_grad()
        penalty = sum(p.square().sum() for p in rival.parameters())
        (0.5 * (rival(x) - y).square().sum() + 0.5 * weight_decay * penalty).backward()
        adam.step()
        updates += 1

    print(f"{seconds:.1f} s each; root mean square error in MPa")
    print(f"{'':34}{'training':>10}{'test':>8}")
    print(
        f"{f'lmtorch, {steps} steps':34}{error(net, x, y):10.2f}{error(net, x_test, y_test):8.2f}"
    )
    print(
        f"{f'Adam, {updates} updates':34}{error(rival, x, y):10.2f}"
        f"{error(rival, x_test, y_test):8.2f}"
    )
    print("picture:", draw(net, x_test, y_test, unit, output / "regression_table.png"))
    return error(net, x_test, y_test)


def draw(net: nn.Module, x: torch.Tensor, y: torch.Tensor, unit: float, path: Path) -> Path:
    """Predicted against measured, on the test rows."""
    import matplotlib.pyplot as plt

    with torch.no_grad():
        predicted = net(x)
    figure, axes = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
    axes.plot(unit * y, unit * predicted, "o", ms=4, mfc="none", color="C0")
    limits = [unit * float(y.min()) - 3, unit * float(y.max()) + 3]
    axes.plot(limits, limits, color="C3", lw=1)
    axes.set(
        xlabel="measured strength − mean (MPa)",
        ylabel="predicted",
        xlim=limits,
        ylim=limits,
        aspect="equal",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
