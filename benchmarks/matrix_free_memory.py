"""What steps without a matrix take above data and parameters, in vectors of n numbers (Linux).

Each is measured in a process of its own, because the peak of memory is that of a process.
"""

import ctypes
import json
import sys
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

import lmtorch

from .machine import table
from .many_tall import RESET, child, high_water

WIDTH = 706  # of the two layers of a network of 10⁶ parameters
SIZES = (1_000_000, 10_000_000)
SAMPLES = 1_000


def network(inputs: int, outputs: int = 1) -> nn.Sequential:
    """About 10⁶ parameters in three hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(),
        nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, outputs),
    )  # fmt: skip


def line(x: Tensor) -> Tensor:
    """2 n residuals of n unknowns in a row, each of one or two of them."""
    return torch.cat([x + 0.2 * x**3 - 1, 0.8 * (x[1:] - x[:-1])])


def of_function(n: int) -> tuple[Callable[[], object], int]:
    """A fit of five evaluations, from a start in float32."""
    start = torch.linspace(-1, 2, n)
    return lambda: lmtorch.least_squares(line, start, max_nfev=5), 4 * n


def of_network(_: int) -> tuple[Callable[[], object], int]:
    """Three steps on 1,000 samples in float32."""
    torch.manual_seed(0)
    x, net = torch.randn(SAMPLES, 8), network(8)
    y = torch.sin(x[:, :4].sum(1, keepdim=True))
    optimizer = lmtorch.LevenbergMarquardt(net, solver="cg")

    def steps() -> None:
        for _ in range(3):
            optimizer.step(lambda x, y: net(x) - y, x, y)

    return steps, 4 * sum(p.numel() for p in net.parameters())


CASES = {"least_squares": of_function, "network": of_network}


def _measure(case: str, n: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    CASES["least_squares"](1000)[0]()  # what the first call loads is not of the problem
    call, vector = CASES[case](n)
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator has kept would hide as much of the peak
    RESET.write_text("5")  # the peak begins anew: proc(5), clear_refs
    before = high_water()
    call()
    print(json.dumps({"peak": high_water() - before, "vector": vector / 2**20}))


def run() -> str:
    """The table."""
    if not RESET.exists():
        return "### Memory without a matrix\n\nNot measured: this system does not tell the peak."
    asked = [("least_squares", n) for n in SIZES] + [("network", 1_000_000)]
    rows = []
    for case, n in asked:
        command = [sys.executable, "-W", "ignore", "-m", __spec__.name, case, str(n)]
        told = child(command)
        if told is not None:
            vectors = told["peak"] / told["vector"]
            rows.append([case, f"{n:,}", f"{told['peak']:.0f} MiB", f"{vectors:.0f}"])
    return (
        "### Memory without a matrix\n\nThe peak above data and parameters: of a fit of a line of "
        "unknowns with the graph of its 2 n residuals, and of three steps on 1,000 samples of a "
        "network of four layers, both in float32.\n\n"
        + table(["", "n", "peak", "in vectors of n"], rows)
    )


if __name__ == "__main__":
    _measure(sys.argv[1], int(sys.argv[2]))
