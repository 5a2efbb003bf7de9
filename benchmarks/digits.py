"""Handwritten digits by the network of `examples/digits.py`: seconds to 98 % of held-out images."""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn
from torch.nn import functional as F

import lmtorch
from examples import digits

from .machine import table

SEEDS = range(5)
ENOUGH = 0.98
SECONDS = 8.0  # of a processor, in which it is to be reached
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
BATCH = 64  # of Adam
LOOKED_AT = 5  # updates of Adam after which held-out images are looked at
Step = Callable[[], None]


def run() -> str:
    """The table."""
    ways: dict[str, Callable[[nn.Module, int], Step]] = {
        "lmtorch, as in the example": _by_products,
        "lmtorch, defaults": _by_default,
        **{f"Adam, rate {rate:g}, batches of {BATCH}": _adam(rate) for rate in RATES},
    }
    rows = []
    for name, begin in ways.items():
        times, steps = zip(*(_reached(begin, seed) for seed in SEEDS), strict=True)
        there = sum(t < float("inf") for t in times)
        shown = "–" if median(times) == float("inf") else f"{median(times):.2f}"
        rows.append([name, shown, f"{median(steps):.0f}", f"{there} of {len(times)}"])
    header = ["", f"seconds to {ENOUGH:.0%}", "looks", "starts that came there"]
    return (
        "## Digits\n\nProcessor seconds until 98 % of 360 held-out images are right, on "
        "one thread, medians of five starts. Held-out images are looked at, which is not counted, "
        f"after each step, and after each {LOOKED_AT} updates of Adam.\n\n" + table(header, rows)
    )


def _reached(begin: Callable[[nn.Module, int], Step], seed: int) -> tuple[float, int]:
    """The seconds and steps until enough held-out images are right; infinite: they never were."""
    _, held_out = digits.data()
    net = digits.network(seed)
    begun = time.process_time()
    step, steps = begin(net, seed), 0
    spent = time.process_time() - begun
    while spent < SECONDS:
        begun = time.process_time()
        step()
        spent += time.process_time() - begun
        steps += 1
        if digits.share_right(net, *held_out) >= ENOUGH:
            return spent, steps
    return float("inf"), steps


def _by_products(net: nn.Module, seed: int) -> Step:
    return _lm(net, digits.optimizer(net, seed))


def _by_default(net: nn.Module, seed: int) -> Step:
    return _lm(net, lmtorch.LevenbergMarquardt(net, weight_decay=0.5))


def _lm(net: nn.Module, opt: lmtorch.LevenbergMarquardt) -> Step:
    (images, labels), _ = digits.data()
    criterion = lmtorch.CrossEntropyLoss()

    def step() -> None:
        opt.step(lambda x, y: criterion(net(x), y), images, labels)

    return step


def _adam(rate: float) -> Callable[[nn.Module, int], Step]:
    def begin(net: nn.Module, seed: int) -> Step:
        (images, labels), _ = digits.data()
        opt = torch.optim.Adam(net.parameters(), rate)
        generator = torch.Generator().manual_seed(seed)
        batches: list[torch.Tensor] = []

        def step() -> None:
            for _ in range(LOOKED_AT):
                if not batches:
                    order = torch.randperm(len(images), generator=generator)
                    batches.extend(order.split(BATCH))
                chosen = batches.pop()
                opt.zero_grad()
                F.cross_entropy(net(images[chosen]), labels[chosen]).backward()
                opt.step()

        return step

    return begin


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(run())
