"""100,000 residuals of 10,000 parameters without a matrix, beside L-BFGS.

Both run in turns in one process, in processor time of one thread.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import lmtorch

from .machine import table

SECONDS = 20.0  # for each on the network
PARAMETERS = 10_000


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
    begun = time.process_time()
    solution = lmtorch.least_squares(chain, start, solver="cg")
    ours = time.process_time() - begun
    assert float(solution.cost) < goal
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
        ["chain of decays, to 1e-6 of the cost", f"{theirs:.2f} s", f"{ours:.2f} s, to its minimum"]
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


def run() -> str:
    """The table."""
    torch.set_num_threads(1)
    return "## No matrix: 100,000 residuals of 10,000 parameters\n\n" + table(
        ["", "L-BFGS", 'lmtorch, solver="cg"'], of_chain() + of_network()
    )


if __name__ == "__main__":
    print(run())
