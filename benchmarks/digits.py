"""Handwritten digits by the network of `examples/digits.py`: seconds to 98 % of held-out images."""

import time
from collections.abc import Callable, Iterable
from itertools import product
from statistics import median

import torch
from torch import nn
from torch.nn import functional as F

import lmtorch
from examples import digits

from .machine import table

SEEDS = range(5)
ENOUGH = 0.98
SECONDS = 3.0  # of a processor, in which it is to be reached
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
BATCHES = (32, 64, 128, 256)
OURS = (128, 256, 384)  # lmtorch's batches, at its defaults
LOOKED_AT = 5  # updates of Adam after which held-out images are looked at
Step = Callable[[], None]
Begin = Callable[[nn.Module, int], Step]


def run(adams: Iterable[tuple[float, int]] = tuple(product(RATES, BATCHES))) -> str:
    """The table, with Adam at these rates and sizes of batches."""
    ways: dict[str, Begin] = {"lmtorch, all images": _lm}
    for batch in OURS:
        ways[f"lmtorch, batches of {batch}"] = _lm_of_batches(batch)
    for rate, batch in adams:
        ways[f"Adam, rate {rate:g}, batches of {batch}"] = _adam(rate, batch)
    rows = []
    for name, begin in ways.items():
        cpu, wall, steps = zip(*(_reached(begin, seed) for seed in SEEDS), strict=True)
        there = sum(t < float("inf") for t in cpu)
        rows.append([name, *map(_show, (cpu, wall)), f"{median(steps):.0f}", f"{there}"])
    header = ["", "processor seconds", "seconds", "looks", f"starts of {len(SEEDS)}"]
    return (
        f"## Digits\n\nSeconds until {ENOUGH:.0%} of 360 held-out images are right, on one thread, "
        f"medians of {len(SEEDS)} starts, and how many came there in {SECONDS:g} s of the "
        "processor. Held-out images are looked at, which is not counted, after each step, and "
        f"after each {LOOKED_AT} updates of Adam.\n\n" + table(header, rows)
    )


def _show(times: Iterable[float]) -> str:
    middle = median(times)
    return "–" if middle == float("inf") else f"{middle:.2f}"


def _reached(begin: Begin, seed: int) -> tuple[float, float, int]:
    """Seconds of processor and clock, and looks, until enough is right; infinite: it never was."""
    _, held_out = digits.data()
    net = digits.network(seed)
    begun, clock = time.process_time(), time.perf_counter()
    step, steps = begin(net, seed), 0
    spent, passed = time.process_time() - begun, time.perf_counter() - clock
    while spent < SECONDS:
        begun, clock = time.process_time(), time.perf_counter()
        step()
        spent += time.process_time() - begun
        passed += time.perf_counter() - clock
        steps += 1
        if digits.share_right(net, *held_out) >= ENOUGH:
            return spent, passed, steps
    return float("inf"), float("inf"), steps


def _lm(net: nn.Module, seed: int) -> Step:
    (images, labels), _ = digits.data()
    criterion, opt = lmtorch.CrossEntropyLoss(), digits.optimizer(net, seed)

    def step() -> None:
        opt.step(lambda x, y: criterion(net(x), y), images, labels)

    return step


def _lm_of_batches(batch: int) -> Begin:
    def begin(net: nn.Module, seed: int) -> Step:
        (images, labels), _ = digits.data()
        criterion = lmtorch.CrossEntropyLoss()
        opt = lmtorch.LevenbergMarquardt(
            net, weight_decay=0.5 * batch / len(images), seed=seed
        )  # on the scale of the sum
        generator = torch.Generator().manual_seed(seed)
        batches: list[torch.Tensor] = []

        def step() -> None:
            if not batches:
                order = torch.randperm(len(images), generator=generator)
                # another size would be planned for anew
                batches.extend(some for some in order.split(batch) if len(some) == batch)
            chosen = batches.pop()
            opt.step(lambda x, y: criterion(net(x), y), images[chosen], labels[chosen])

        return step

    return begin


def _adam(rate: float, batch: int) -> Begin:
    def begin(net: nn.Module, seed: int) -> Step:
        (images, labels), _ = digits.data()
        opt = torch.optim.Adam(net.parameters(), rate)
        generator = torch.Generator().manual_seed(seed)
        batches: list[torch.Tensor] = []

        def step() -> None:
            for _ in range(LOOKED_AT):
                if not batches:
                    order = torch.randperm(len(images), generator=generator)
                    batches.extend(order.split(batch))
                chosen = batches.pop()
                opt.zero_grad()
                F.cross_entropy(net(images[chosen]), labels[chosen]).backward()
                opt.step()

        return step

    return begin


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(run())
