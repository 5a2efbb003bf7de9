"""Steps of networks and of one tall fit on a GPU, and what they take beside Adam and L-BFGS there.

    python -m benchmarks.networks_gpu [power_plant.csv]

Seconds are those of the clock once the device is done. Needs torch and lmtorch alone, and for 10⁶
parameters a table of numbers with a row of names whose last column is the target, as UCI's of a
power plant (9,568 rows).
"""

import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lmtorch
from examples import digits

from .machine import description, table
from .many_tall import data, spectrum
from .matrix_free_memory import network

Step = Callable[[], object]
REPEATS = 6
TARGET = 1e-3  # mean square
SECONDS = 1.5  # in which it is to be reached
FREE_SECONDS = 3.0
BARE = 10  # pieces of J in which the bare product is made
ENOUGH, DIGITS_SECONDS, SEEDS = 0.98, 1.2, range(5)
TOGETHER = 5  # updates of Adam after which held-out images are looked at
CUDA = torch.device("cuda")


def seconds_of(step: Step, device: torch.device) -> float:
    """The clock's, until the device is done."""
    _wait(device)
    begun = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - begun


def peak(step: Step, device: torch.device) -> str:
    """MiB above what is held before."""
    if device.type != "cuda":
        step()
        return "–"
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    return f"{(torch.cuda.max_memory_allocated(device) - before) / 2**20:.0f} MiB"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def perceptron(*widths: int, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """A tanh network, always the same."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for wide, next_wide in pairwise(widths):
        layers += [nn.Linear(wide, next_wide, dtype=dtype), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _by_lm(net: nn.Module, x: Tensor, y: Tensor, **options: Any) -> Step:
    optimizer = lmtorch.LevenbergMarquardt(net, **options)
    return lambda: optimizer.step(lambda x, y: net(x) - y, x, y)


def _by_adam(net: nn.Module, x: Tensor, y: Tensor, rate: float, batch: int = 0) -> Step:
    optimizer = torch.optim.Adam(net.parameters(), rate)

    def step() -> None:
        some = torch.randint(len(x), (batch,), device=x.device) if batch else slice(None)
        optimizer.zero_grad()
        (net(x[some]) - y[some]).square().mean().backward()
        optimizer.step()

    return step


def _by_lbfgs(net: nn.Module, x: Tensor, y: Tensor) -> Step:
    optimizer = torch.optim.LBFGS(
        net.parameters(), max_iter=1, history_size=50, line_search_fn="strong_wolfe",
        tolerance_grad=0, tolerance_change=0,
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = (net(x) - y).square().mean()
        value.backward()
        return value

    return lambda: optimizer.step(closure)


def _measured(step: Step, device: torch.device) -> list[str]:
    """The least and median seconds of steps after a first one, and the peak of memory."""
    step()
    times = [seconds_of(step, device) for _ in range(REPEATS)]
    return [f"{min(times) * 1e3:.1f} ms", f"{median(times) * 1e3:.1f} ms", peak(step, device)]


def wide(device: torch.device, samples: int = 512, hidden: int = 310) -> list[list[str]]:
    """Few residuals of many parameters: equations of the residuals, from layers."""
    rows = []
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        x = torch.rand(samples, 10, dtype=dtype, device=device)
        y = torch.sin(3 * x.sum(1, keepdim=True))
        for options in ({}, {"solver": "dual"}):
            net = perceptron(10, hidden, hidden, 1, dtype=dtype).to(device)
            what = _said(len(x), net, dtype, options)
            rows.append([what, *_measured(_by_lm(net, x, y, **options), device)])
    return rows


def many_samples(device: torch.device, samples: int = 10**6) -> list[list[str]]:
    """Many residuals: rows that stream into JᵀJ, or rough steps; and the product alone."""
    torch.manual_seed(0)
    x = torch.rand(samples, 8, device=device)
    y = torch.sin(3 * x[:, :4].sum(1, keepdim=True)) + 0.1 * torch.randn(samples, 1, device=device)
    net = perceptron(8, 40, 38, 1)
    n = sum(p.numel() for p in net.parameters())
    rows = [[f"JᵀJ alone, {samples:,} × {n:,}, float32", *_bare(samples, n, device), ""]]
    for options in ({"curvature": "full", "solver": "cholesky"}, {}):
        net = perceptron(8, 40, 38, 1).to(device)
        what = _said(samples, net, torch.float32, options)
        rows.append([what, *_measured(_by_lm(net, x, y, **options), device)])
    return rows


def _bare(samples: int, n: int, device: torch.device) -> list[str]:
    """The least and median seconds of the product JᵀJ, in pieces of which one is there."""
    J, normal = torch.randn(samples // BARE, n, device=device), torch.zeros(n, n, device=device)

    def product() -> None:
        for _ in range(BARE):
            normal.addmm_(J.mT, J)

    times = [seconds_of(product, device) for _ in range(REPEATS)]
    return [f"{min(times) * 1e3:.1f} ms", f"{median(times) * 1e3:.1f} ms"]


def tall(device: torch.device, samples: int = 10**6) -> list[list[str]]:
    """A function of 50 parameters: a step, and a whole fit."""
    start, x, y = data(samples)
    t, z, begin = (torch.from_numpy(array).to(device) for array in (x, y, start))
    p = begin.clone().requires_grad_()
    optimizer = lmtorch.LevenbergMarquardt([p])
    rows = [[
        f"{samples:,} × 50, float64: a step",
        *_measured(lambda: optimizer.step(lambda t, z: spectrum(p, t) - z, t, z), device),
    ]]  # fmt: skip

    def fit() -> object:
        return lmtorch.least_squares(lambda p, t, z: spectrum(p, t) - z, begin, args=(t, z))

    fit()
    once = seconds_of(fit, device)
    what = f"{samples:,} × 50, float64: `least_squares` to its end"
    return [*rows, [what, f"{once * 1e3:.0f} ms", "", peak(fit, device)]]


def _said(samples: int, net: nn.Module, dtype: torch.dtype, options: dict[str, Any]) -> str:
    n = sum(p.numel() for p in net.parameters())
    how = ", ".join(f'{name}="{value}"' for name, value in options.items()) or "defaults"
    return f"{samples:,} × {n:,}, {str(dtype).removeprefix('torch.')}, {how}"


def to_a_loss(device: torch.device, samples: int = 512, hidden: int = 310) -> list[list[str]]:
    """Seconds of a wide network to a mean square."""
    torch.manual_seed(0)
    x = torch.rand(samples, 10, device=device)
    y = torch.sin(3 * x.sum(1, keepdim=True))
    ways: dict[str, Callable[[nn.Module], Step]] = {
        "lmtorch": lambda net: _by_lm(net, x, y),
        "L-BFGS": lambda net: _by_lbfgs(net, x, y),
        **{
            f"Adam, rate {rate:g}": lambda net, rate=rate: _by_adam(net, x, y, rate)
            for rate in (1e-3, 3e-3)
        },
    }
    rows = []
    for name, make in ways.items():
        make(perceptron(10, hidden, hidden, 1).to(device))()
        net = perceptron(10, hidden, hidden, 1).to(device)
        step, spent, steps, loss = make(net), 0.0, 0, float("inf")
        while spent < SECONDS and loss > TARGET:
            spent, steps = spent + seconds_of(step, device), steps + 1
            with torch.no_grad():
                loss = float((net(x) - y).square().mean())
        there = f"{spent:.2f} s" if loss <= TARGET else f"not in {SECONDS:g} s: {loss:.2g}"
        rows.append([name, there, str(steps)])
    return rows


def without_matrix(
    device: torch.device, path: Path, seconds: float = FREE_SECONDS
) -> list[list[str]]:
    """The mean square of 10⁶ parameters after equal seconds."""
    values = np.genfromtxt(path, delimiter=",", skip_header=1)
    scaled = torch.as_tensor((values - values.mean(0)) / values.std(0), dtype=torch.float32)
    x, y = scaled[:, :-1].to(device), scaled[:, -1:].to(device)
    ways: dict[str, Callable[[nn.Module], Step]] = {
        "lmtorch": lambda net: _by_lm(net, x, y),
        "L-BFGS": lambda net: _by_lbfgs(net, x, y),
        **{
            f"Adam, rate {rate:g}": lambda net, rate=rate: _by_adam(net, x, y, rate, 256)
            for rate in (3e-4, 1e-3)
        },
    }
    rows = []
    for name, make in ways.items():
        for first in (True, False):  # what torch loads once is not counted
            torch.manual_seed(0)
            net = network(x.shape[1]).to(device)
            step, spent, steps = make(net), 0.0, 0
            while spent < (0.0001 if first else seconds):
                spent, steps = spent + seconds_of(step, device), steps + 1
        with torch.no_grad():
            loss = float((net(x) - y).square().mean())
        rows.append([name, f"{loss:.4f}", str(steps)])
    return rows


def of_digits(device: torch.device) -> list[list[str]]:
    """Seconds to so many held-out images."""
    train, held_out = ([t.to(device) for t in part] for part in digits.data())

    def ours(seed: int) -> tuple[nn.Module, Step]:
        net, criterion = digits.network(seed).to(device), lmtorch.CrossEntropyLoss()
        optimizer = digits.optimizer(net, seed)
        return net, lambda: optimizer.step(lambda x, y: criterion(net(x), y), *train)

    def adam(seed: int, rate: float, batch: int) -> tuple[nn.Module, Step]:
        net = digits.network(seed).to(device)
        optimizer = torch.optim.Adam(net.parameters(), rate)
        generator, left = torch.Generator().manual_seed(seed), list[Tensor]()

        def step() -> None:
            for _ in range(TOGETHER):
                if not left:
                    order = torch.randperm(len(train[0]), generator=generator)
                    left.extend(order.to(device).split(batch))
                some = left.pop()
                optimizer.zero_grad()
                F.cross_entropy(net(train[0][some]), train[1][some]).backward()
                optimizer.step()

        return net, step

    ways: dict[str, Callable[[int], tuple[nn.Module, Step]]] = {"lmtorch": ours}
    for rate, batch in ((1e-2, 64), (1e-2, 128), (3e-2, 128)):
        name = f"Adam, rate {rate:g}, batches of {batch}"
        ways[name] = lambda seed, rate=rate, batch=batch: adam(seed, rate, batch)
    rows = []
    for name, make in ways.items():
        make(len(SEEDS))[1]()
        times = []
        for seed in SEEDS:
            net, step = make(seed)
            spent, right = 0.0, 0.0
            while spent < DIGITS_SECONDS and right < ENOUGH:
                spent += seconds_of(step, device)
                right = digits.share_right(net, *held_out)
            times.append(spent if right >= ENOUGH else float("inf"))
        there = sum(t < float("inf") for t in times)
        rows.append([name, f"{median(times):.2f} s", f"{there} of {len(times)}"])
    return rows


def run(device: torch.device = CUDA, path: Path | None = None) -> str:
    """All tables."""
    steps = [*wide(device), *many_samples(device), *tall(device)]
    parts = [
        description(),
        table(["residuals × parameters", "least", "median", "peak"], steps),
        table(["512 residuals", f"to a mean square of {TARGET:g}", "steps"], to_a_loss(device)),
        table(["digits", f"to {ENOUGH:.0%}, median", "starts"], of_digits(device)),
    ]
    if path is not None:
        head = ["10⁶ parameters", f"mean square after {FREE_SECONDS:g} s", "steps"]
        parts.append(table(head, without_matrix(device, path)))
    return "\n\n".join(parts)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(run(path=Path(sys.argv[1]) if sys.argv[1:] else None))
