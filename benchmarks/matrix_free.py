"""Steps without a matrix, beside L-BFGS and Adam: 10,000 parameters, and 10⁶ on a table.

All run in one process, in processor time of one thread. The table is any of numbers with a row of
names whose last column is the target, as UCI's of a power plant (9,568 rows); without one it is the
concretes' that are there:

    python -m benchmarks.matrix_free power_plant.csv
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import lmtorch

from .machine import table
from .matrix_free_memory import network
from .matrix_free_memory import run as memory
from .tasks import CONCRETE

SECONDS = 20.0  # for each on the network
PARAMETERS = 10_000
EACH = 20.0  # for each on the table
RATES = (1e-4, 3e-4, 1e-3)  # of Adam, on batches of 256 rows


def chain(x: Tensor) -> Tensor:
    """(10 n,) of a chain of decays, neighbours alike."""
    amplitude, rate = x.view(-1, 2).unbind(1)
    t = torch.linspace(0, 1, 19, dtype=x.dtype)
    truth = 1 + 0.5 * torch.sin(torch.arange(len(x) // 2, dtype=x.dtype))
    decays = amplitude[:, None] * torch.exp(-rate[:, None] * t)
    misfit = decays - truth[:, None] * torch.exp(-truth[:, None] * t)
    return torch.cat([misfit.reshape(-1), 0.1 * (amplitude - rate)])


def lbfgs(
    params: list[Tensor], loss: Callable[[], Tensor], iterations: int
) -> Callable[[], object]:
    """So many iterations, with a strong Wolfe search."""
    optimizer = torch.optim.LBFGS(
        params, max_iter=iterations, history_size=20, line_search_fn="strong_wolfe",
        tolerance_grad=0, tolerance_change=0,
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    return lambda: optimizer.step(closure)


def of_chain() -> list[list[str]]:
    """Seconds until the cost is below 1e-6 of the first."""
    start = torch.ones(PARAMETERS, dtype=torch.float64)
    goal = 1e-6 * float(chain(start).square().sum() / 2)
    reached: list[float] = []

    def look(iterate: lmtorch.Iterate) -> None:
        if not reached and float(iterate.cost) < goal:
            reached.append(time.process_time() - begun)

    lmtorch.least_squares(chain, start, solver="cg", max_nfev=2)  # what the first call imports
    begun = time.process_time()
    lmtorch.least_squares(chain, start, solver="cg", callback=look)
    whole = time.process_time() - begun
    x = start.clone().requires_grad_()
    other = lbfgs([x], lambda: chain(x).square().sum() / 2, 5)
    begun = time.process_time()
    for _ in range(1000):
        other()
        with torch.no_grad():
            if chain(x).square().sum() / 2 < goal:
                break
    theirs = time.process_time() - begun
    return [
        [
            "chain of decays, to 1e-6 of the cost",
            f"{theirs:.2f} s",
            f"{reached[0]:.2f} s, and {whole:.2f} s to its minimum",
        ]
    ]


def of_network() -> list[list[str]]:
    """The mean squared residual after equal seconds."""
    torch.manual_seed(0)
    x = torch.randn(100_000, 20)
    teacher = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 1))
    with torch.no_grad():
        y = teacher(2 * x) + 0.01 * torch.randn(len(x), 1)
        y = (y - y.mean()) / y.std()

    def made() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Linear(20, 90), nn.Tanh(), nn.Linear(90, 85), nn.Tanh(), nn.Linear(85, 1)
        )

    ours, theirs = made(), made()
    optimizer = lmtorch.LevenbergMarquardt(ours, solver="cg")
    other = lbfgs(list(theirs.parameters()), lambda: (theirs(x) - y).square().mean(), 5)
    spent, left = [0.0, 0.0], [0.0, 0.0]
    while min(spent) < SECONDS:
        for place, step in enumerate((
            other,
            lambda: optimizer.step(lambda x, y: ours(x) - y, x, y),
        )):  # fmt: skip
            begun = time.process_time()
            if spent[place] < SECONDS:
                step()
                spent[place] += time.process_time() - begun
    with torch.no_grad():
        left = [float((net(x) - y).square().mean()) for net in (theirs, ours)]
    size = sum(p.numel() for p in ours.parameters())
    what = f"network of {size:,}, mean square after {SECONDS:.0f} s"
    return [[what, *(f"{value:.2e}" for value in left)]]


def of_table(path: Path) -> str:
    """The mean squared residual of 10⁶ parameters after equal seconds, on all rows."""
    values = np.genfromtxt(path, delimiter=",", skip_header=1)
    data = torch.as_tensor((values - values.mean(0)) / values.std(0), dtype=torch.float32)
    x, y = data[:, :-1], data[:, -1:]
    rows, size = [], 0
    for name, make in _contenders(x, y).items():
        torch.manual_seed(0)
        net = network(x.shape[1])
        size = sum(p.numel() for p in net.parameters())
        step, spent, steps = make(net), 0.0, 0
        while spent < EACH:
            begun = time.process_time()
            step()
            spent, steps = spent + time.process_time() - begun, steps + 1
        with torch.no_grad():
            rows.append([name, f"{float((net(x) - y).square().mean()):.4f}", str(steps)])
            print(*rows[-1], f"{spent:.1f} s", file=sys.stderr)
    return f"### {size:,} parameters, {len(x):,} rows of {path.stem}\n\n" + table(
        ["", f"mean square after {EACH:.0f} s", "steps"], rows
    )


def _contenders(x: Tensor, y: Tensor) -> dict[str, Callable[[nn.Module], Callable[[], object]]]:
    """What makes a step of each for a network."""

    def ours(net: nn.Module) -> Callable[[], object]:
        optimizer = lmtorch.LevenbergMarquardt(net)
        return lambda: optimizer.step(lambda x, y: net(x) - y, x, y)

    def one_of_lbfgs(net: nn.Module) -> Callable[[], object]:
        return lbfgs(list(net.parameters()), lambda: (net(x) - y).square().mean(), 1)

    def adam(rate: float) -> Callable[[nn.Module], Callable[[], object]]:
        def made(net: nn.Module) -> Callable[[], object]:
            optimizer = torch.optim.Adam(net.parameters(), lr=rate)

            def step() -> None:
                some = torch.randint(len(x), (256,))
                optimizer.zero_grad()
                (net(x[some]) - y[some]).square().mean().backward()
                optimizer.step()

            return step

        return made

    rates = {f"Adam, rate {rate:g}": adam(rate) for rate in RATES}
    return {"lmtorch": ours, "L-BFGS": one_of_lbfgs, **rates}


def run(path: Path = CONCRETE) -> str:
    """The tables."""
    torch.set_num_threads(1)
    small = "## No matrix: 100,000 residuals of 10,000 parameters\n\n" + table(
        ["", "L-BFGS", 'lmtorch, solver="cg"'], of_chain() + of_network()
    )
    return "\n\n".join([small, of_table(path), memory()])


if __name__ == "__main__":
    print(run(*map(Path, sys.argv[1:2])))
