"""What the physics-informed examples share: a network, four ways to train it, a table, a picture.

Every method sees the same network, points and terms, in float64, for the same time:
Levenberg–Marquardt by `opt.step(*terms)`, the others the sum of the same squares. Adam's rate falls
from 5e-3 by a cosine over the time that it is given; L-BFGS has a strong Wolfe line search and 50
pairs, and begins anew when it stops by itself.
"""

import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

import lmtorch

F64 = torch.float64
RATE = 5e-3
PAIRS = 50
SIZE = 101  # of a grid
LOOKS = 40  # at the error in the course of a run, whose time is not counted


class Problem(NamedTuple):
    """A differential equation to be solved by a network."""

    network: Callable[[], nn.Module]
    # as `step` takes them: a closure and its samples
    terms: Callable[[nn.Module], Sequence[tuple[Any, ...]]]
    error: Callable[[nn.Module], float]  # relative L2 distance from the solution


class Run(NamedTuple):
    """What a method came to."""

    network: nn.Module
    seconds: list[float]
    errors: list[float]
    steps: int


def perceptron(*widths: int, seed: int = 0) -> nn.Sequential:
    """A tanh network with Glorot's start."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for wide, next_wide in pairwise(widths):
        layer = nn.Linear(wide, next_wide, dtype=F64)
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def square(inside: int, edge: int, low: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points at random in [low, 1]², and along its four sides."""
    generator = torch.Generator().manual_seed(seed)
    within, around = (
        low + (1 - low) * torch.rand(n, 2, dtype=F64, generator=generator) for n in (inside, edge)
    )
    side = torch.arange(edge) % 4
    around[side == 0, 0], around[side == 1, 0], around[side == 2, 1], around[side == 3, 1] = (
        low,
        1.0,
        low,
        1.0,
    )
    return within, around


def square_grid(low: float) -> Tensor:
    """Points of a grid over [low, 1]², (SIZE², 2)."""
    line = torch.linspace(low, 1, SIZE, dtype=F64)
    return torch.cartesian_prod(line, line)


def relative(found: Tensor, known: Tensor) -> float:
    """‖found − known‖ / ‖known‖."""
    return float((found - known).norm() / known.norm())


def loss(terms: Sequence[tuple[Any, ...]]) -> Tensor:
    """½Σr², what Levenberg–Marquardt minimises, for the others."""
    return (
        sum(
            (closure(*batch).square().sum() for closure, *batch in terms),
            torch.zeros((), dtype=F64),
        )
        / 2
    )


# ---- the methods: each takes one step, and is told what share of its time has gone ---------------

Step = Callable[[float], None]


def levenberg_marquardt(net: nn.Module, terms: Sequence[tuple[Any, ...]], **options: Any) -> Step:
    """lmtorch at its defaults, unless there are options."""
    opt = lmtorch.LevenbergMarquardt(net, **options)
    return lambda share: _drop(opt.step(*terms))


def adam(net: nn.Module, terms: Sequence[tuple[Any, ...]]) -> Step:
    """torch's Adam, full batch."""
    opt = torch.optim.Adam(net.parameters(), lr=RATE)

    def step(share: float) -> None:
        for group in opt.param_groups:
            group["lr"] = RATE * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)
        opt.zero_grad()
        loss(terms).backward()
        opt.step()

    return step


def lbfgs(net: nn.Module, terms: Sequence[tuple[Any, ...]]) -> Step:
    """torch's L-BFGS, without its tests for an end."""

    def new() -> torch.optim.LBFGS:
        return torch.optim.LBFGS(
            net.parameters(), max_iter=10, history_size=PAIRS, tolerance_grad=0, tolerance_change=0,
            line_search_fn="strong_wolfe",
        )  # fmt: skip

    opt, before = new(), [math.inf]

    def closure() -> Tensor:
        opt.zero_grad()
        value = loss(terms)
        value.backward()
        return value

    def step(share: float) -> None:
        nonlocal opt
        value = float(opt.step(closure).detach())
        if value >= before[0]:  # its pairs have lost their use
            opt = new()
        before[0] = value

    return step


def adam_then_lbfgs(net: nn.Module, terms: Sequence[tuple[Any, ...]]) -> Step:
    """A third of the time Adam, then L-BFGS."""
    first, second = adam(net, terms), lbfgs(net, terms)
    return lambda share: first(3 * share) if share < 1 / 3 else second(share)


def _drop(value: object) -> None:
    """Steps return nothing here."""


METHODS: dict[str, Callable[[nn.Module, Sequence[tuple[Any, ...]]], Step]] = {
    "Levenberg–Marquardt": levenberg_marquardt,
    "Adam": adam,
    "L-BFGS": lbfgs,
    "Adam, then L-BFGS": adam_then_lbfgs,
}


def train(problem: Problem, method: str, seconds: float, steps: int | None = None) -> Run:
    """Train for so many seconds, or steps if given; measuring the error does not count."""
    net = problem.network()
    step = METHODS[method](net, problem.terms(net))
    times, errors = [0.0], [problem.error(net)]
    spent, made, looks = 0.0, 0, [seconds * (i / LOOKS) ** 2 for i in range(1, LOOKS + 1)]
    total = steps or seconds
    bar = tqdm(
        total=total,
        desc=method,
        bar_format="{desc:<20} {percentage:3.0f}%|{bar}|{postfix}",
        leave=False,
        disable=None,
    )
    with bar:
        while (share := (made if steps else spent) / total) < 1:
            begun = time.perf_counter()
            step(share)
            spent, made = spent + time.perf_counter() - begun, made + 1
            if not steps and spent >= looks[0]:
                looks = [look for look in looks if look > spent] or [math.inf]
                times.append(spent)
                errors.append(problem.error(net))
                bar.set_postfix_str(f" relative error {errors[-1]:.1e}", refresh=False)
            bar.update(min(total, made if steps else spent) - bar.n)
    times.append(spent)
    errors.append(problem.error(net))
    return Run(net, times, errors, made)


def compare(problem: Problem, seconds: float) -> dict[str, Run]:
    """Every method for the same time, one after the other; prints a table."""
    runs = {}
    n = sum(p.numel() for p in problem.network().parameters())
    print(f"n = {n} parameters, {seconds:g} s each")
    print(
        f"{'method':<20} {'relative L2 error':>18} {'first under 1e-3':>17} {'1e-5':>8} "
        f"{'1e-6':>8} {'steps':>8}"
    )
    for method in METHODS:
        run = runs[method] = train(problem, method, seconds)
        reached = [_when(run, target) for target in (1e-3, 1e-5, 1e-6)]
        print(
            f"{method:<20} {run.errors[-1]:>18.1e} {reached[0]:>17} {reached[1]:>8} "
            f"{reached[2]:>8} {run.steps:>8}"
        )
    return runs


def ratio(runs: dict[str, Run]) -> float:
    """How many times smaller the error of Levenberg–Marquardt is than the best of the others."""
    ours = runs["Levenberg–Marquardt"].errors[-1]
    return (
        min(min(run.errors) for name, run in runs.items() if name != "Levenberg–Marquardt") / ours
    )


def show(
    problem: Problem, seconds: float, draw: Callable[[dict[str, Run], Path], Path], path: Path
) -> float:
    """Compare, and draw what came of it. Returns the ratio of errors."""
    runs = compare(problem, seconds)
    print(
        f"Levenberg–Marquardt is {ratio(runs):.0f} times closer to the solution than "
        "the best of the others"
    )
    print("picture:", draw(runs, path))
    return ratio(runs)


def _when(run: Run, target: float) -> str:
    return next(
        (f"{t:.1f} s" for t, e in zip(run.seconds, run.errors, strict=True) if e < target), "–"
    )


# ---- pictures ------------------------------------------------------------------------------------


def draw_errors(axis: Any, runs: dict[str, Run]) -> None:
    """Relative L2 error against seconds."""
    for (name, run), colour in zip(runs.items(), ("C3", "0.55", "C0", "C2"), strict=False):
        axis.loglog(
            run.seconds[1:],
            run.errors[1:],
            color=colour,
            lw=2 if colour == "C3" else 1.2,
            label=name,
        )
    axis.set(xlabel="seconds", ylabel="relative L2 error")
    axis.legend(frameon=False, fontsize=8)
    axis.grid(alpha=0.2)


def draw_field(
    figure: Any, axis: Any, values: Tensor, extent: Sequence[float], title: str, **options: Any
) -> None:
    """Numbers on a grid, x to the right."""
    image = axis.imshow(values.mT.numpy(), origin="lower", extent=extent, aspect="auto", **options)
    figure.colorbar(image, ax=axis, shrink=0.85)
    axis.set_title(title, fontsize=10)


@torch.no_grad()
def draw_square(
    runs: dict[str, Run], solution: Callable[[Tensor], Tensor], low: float, title: str, path: Path
) -> Path:
    """The solution on a square, where two methods miss it, and the errors by the second."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.5), layout="constrained")
    extent, places = (low, 1, low, 1), square_grid(low)
    exact = solution(places).view(SIZE, SIZE)
    draw_field(figure, axes[0], exact, extent, title, cmap="viridis")
    for axis, name in zip(axes[1:3], ("Levenberg–Marquardt", "Adam, then L-BFGS"), strict=True):
        missed = runs[name].network(places).view(SIZE, SIZE) - exact
        size = float(missed.abs().max())
        draw_field(
            figure, axis, missed, extent, f"error, {name}", cmap="RdBu", vmin=-size, vmax=size
        )
    draw_errors(axes[3], runs)
    return save(figure, path)


def save(figure: Any, path: Path) -> Path:
    """Write and close."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
