"""Networks for differential equations as in a published table: one run, its curve kept as JSON.

    python -m benchmarks.physics_table poisson-2d --seed 0 --seconds 60
    python -m benchmarks.physics_table poisson-5d --method lbfgs --seconds 60
    python -m benchmarks.physics_table poisson-10d --device cuda --seconds 60
    python -m benchmarks.physics_table poisson-5d --redrawn 0 --seconds 100

The problems are those of Dangel, Müller & Zeinhofer, Kronecker-factored approximate curvature for
physics-informed neural networks (NeurIPS 2024). Losses are means of squares, of the equation inside
plus of the conditions on the boundary, without weights; float64; points are uniform; the error is
the root of the mean square of u_net − u at 10,000 points inside, which take no part in training.
Points are drawn on the CPU, the same on every device. On the CPU seconds are the processor's,
on a GPU the clock's, once the device is done with the step.
`python -m benchmarks.physics_page` makes the page of the documentation of what has been run.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import lmtorch
from examples import physics

from . import machine
from .self_scaled_broyden import SelfScaledBroyden, Vector

RESULTS = Path(__file__).parent / "results" / "physics"
ON_GPU = RESULTS / "cuda"
TESTED = 10_000  # points
CPU = torch.device("cpu")
DEVICES = ("cpu", "cuda")
CLOSER = 1.05  # the error is looked at whenever so many times the seconds of the last look are over
Function = Callable[[Tensor], Tensor]  # (points, inputs) to (points, 1)


class Equation(NamedTuple):
    """A linear equation on the unit cube whose solution is known, and is given on its edge."""

    inputs: int
    solution: Callable[[Tensor], Tensor]  # (points, inputs) to (points,)
    operator: Callable[[Function, Tensor], Tensor]  # of u at points, (points,)
    source: Callable[[Tensor], Tensor]  # what the operator makes of the solution
    # faces have this coordinate at 0, 1 or both; a point is on one of the groups in turn
    edges: tuple[tuple[tuple[int, float], ...], ...]


class Row(NamedTuple):
    """A problem of the table."""

    equation: Equation
    hidden: tuple[int, ...]  # widths
    inside: int
    edge: int
    redrawn: int = 0  # points are drawn anew after so many steps; 0: never

    def network(self, seed: int) -> nn.Sequential:
        """Its network at the start."""
        return physics.perceptron(self.equation.inputs, *self.hidden, 1, seed=seed)

    @property
    def parameters(self) -> int:
        """How many."""
        return sum(p.numel() for p in self.network(0).parameters())


def _minus_laplacian(u: Function, x: Tensor) -> Tensor:
    return -lmtorch.laplacian(u, x)[:, 0]


def _heat(u: Function, x: Tensor) -> Tensor:
    """u_t − ¼Δu, the time first."""
    onward = torch.zeros_like(x)
    onward[:, 0] = 1
    space = range(1, x.shape[1])
    return (lmtorch.jvp(u, x, onward) - lmtorch.laplacian(u, x, coordinates=space) / 4)[:, 0]


def _sines(x: Tensor) -> Tensor:
    return torch.sin(math.pi * x).prod(1)


def _cosines(x: Tensor) -> Tensor:
    return torch.cos(math.pi * x).sum(1)


def _pairs(x: Tensor) -> Tensor:
    return (x[:, ::2] * x[:, 1::2]).sum(1)


def _cooling(x: Tensor) -> Tensor:
    return torch.exp(-x[:, 0]) * torch.sin(2 * x[:, 1:]).sum(1)


def _nothing(x: Tensor) -> Tensor:
    return x.new_zeros(len(x))


def _walls(coordinates: range) -> tuple[tuple[int, float], ...]:
    return tuple((i, end) for i in coordinates for end in (0.0, 1.0))


def _poisson(
    inputs: int, solution: Callable[[Tensor], Tensor], source: Callable[[Tensor], Tensor]
) -> Equation:
    return Equation(inputs, solution, _minus_laplacian, source, (_walls(range(inputs)),))


SINES = _poisson(2, _sines, lambda x: 2 * math.pi**2 * _sines(x))
COSINES = _poisson(5, _cosines, lambda x: math.pi**2 * _cosines(x))
PAIRS = _poisson(10, _pairs, _nothing)
# half of its points at the start, half at the walls
HEAT = Equation(5, _cooling, _heat, _nothing, (((0, 0.0),), _walls(range(1, 5))))
WIDE = (256, 256, 128, 128)
ROWS = {
    "poisson-2d": Row(SINES, (64,), 900, 120),
    "poisson-2d-deep": Row(SINES, (64, 64, 48, 48), 900, 120),
    "poisson-5d": Row(COSINES, (64,), 3000, 500, redrawn=1),
    "poisson-5d-deep": Row(COSINES, (64, 48, 32, 16), 3000, 500, redrawn=1),
    "poisson-5d-wide": Row(COSINES, WIDE, 3000, 500, redrawn=100),
    "poisson-10d": Row(PAIRS, WIDE, 3000, 1000, redrawn=1),
    "heat-4d": Row(HEAT, (64,), 3000, 500, redrawn=1),
}


def draw(equation: Equation, inside: int, edge: int, generator: torch.Generator) -> list[Tensor]:
    """Points inside the cube (inside, inputs), and on its edge (edge, inputs)."""
    within, around = (
        torch.rand(n, equation.inputs, dtype=physics.F64, generator=generator)
        for n in (inside, edge)
    )
    for number, faces in enumerate(equation.edges):
        places = torch.arange(number, edge, len(equation.edges))
        chosen = torch.randint(len(faces), places.shape, generator=generator)
        where, value = (torch.tensor(kind)[chosen] for kind in zip(*faces, strict=True))
        around[places, where] = value.to(physics.F64)
    return [within, around]


def closures(row: Row, u: Function) -> tuple[Callable[..., Tensor], ...]:
    """Residuals of the equation and of the condition: squares sum to means."""

    def inside(x: Tensor, source: Tensor) -> Tensor:
        return (row.equation.operator(u, x) - source) / math.sqrt(row.inside)

    def edge(x: Tensor, value: Tensor) -> Tensor:
        return (u(x)[:, 0] - value) / math.sqrt(row.edge)

    return inside, edge


def batches(
    row: Row, generator: torch.Generator, device: torch.device = CPU
) -> list[tuple[Tensor, Tensor]]:
    """Points and what is known there, for each closure."""
    drawn = draw(row.equation, row.inside, row.edge, generator)
    inside, edge = (points.to(device) for points in drawn)
    return [(inside, row.equation.source(inside)), (edge, row.equation.solution(edge))]


@torch.no_grad()
def error(net: nn.Module, equation: Equation) -> float:
    """The root of the mean square of u_net − u."""
    points, _ = draw(equation, TESTED, 1, torch.Generator().manual_seed(TESTED))
    points = points.to(next(net.parameters()).device)
    return float((net(points)[:, 0] - equation.solution(points)).square().mean().sqrt())


def train(
    row: Row,
    step_of: Callable[..., physics.Step],
    seed: int,
    seconds: float,
    most: float = math.inf,
    seen: Callable[[list[list[float]]], object] = lambda curve: None,
    device: torch.device = CPU,
) -> list[list[float]]:
    """Train for so many seconds or `most` steps; looking at the error is not counted.

    Returns [processor seconds, wall seconds, steps, error] at each look; `seen` is told, too.
    """
    net, generator = row.network(seed).to(device), torch.Generator().manual_seed(seed)
    kept = closures(row, net)
    terms: list[tuple[Any, ...]] = []
    step = step_of(net, terms)
    spent, steps = [0.0, 0.0], 0
    counted = 0 if device.type == "cpu" else 1

    def look() -> list[float]:
        shown = [float(f"{value:.4g}") for value in (*spent, error(net, row.equation))]
        return [*shown[:2], steps, shown[2]]

    curve = [look()]
    while spent[counted] < seconds and steps < most:
        begun = time.process_time(), time.perf_counter()
        if not terms or (row.redrawn and steps % row.redrawn == 0):
            drawn = batches(row, generator, device)
            terms[:] = [(one, *batch) for one, batch in zip(kept, drawn, strict=True)]
        step(spent[counted] / seconds)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ended = time.process_time(), time.perf_counter()
        spent = [s + now - then for s, now, then in zip(spent, ended, begun, strict=True)]
        steps += 1
        now = spent[counted]
        if now >= CLOSER * curve[-1][counted] or now >= seconds or steps >= most:
            curve.append(look())
            seen(curve)
    return curve


def ssbroyden(net: nn.Module, terms: Sequence[tuple[Any, ...]]) -> physics.Step:
    """SSBroyden, ten iterations a step like L-BFGS."""
    parameters = list(net.parameters())
    start = nn.utils.parameters_to_vector(parameters).detach()
    method = SelfScaledBroyden(len(start))

    def at(x: Vector) -> Tensor:
        nn.utils.vector_to_parameters(torch.from_numpy(x), parameters)
        return physics.loss(terms)

    def gradient(x: Vector) -> Vector:
        found = torch.autograd.grad(at(x), parameters)
        return nn.utils.parameters_to_vector(found).numpy()

    def step(share: float) -> None:
        x = nn.utils.parameters_to_vector(parameters).detach().numpy().copy()
        at(method.iterate(x, lambda x: float(at(x).detach()), gradient, count=10))

    return step


METHODS: dict[str, Callable[..., physics.Step]] = {
    "lm": physics.levenberg_marquardt,
    "adam": physics.adam,
    "lbfgs": physics.lbfgs,
    "ssbroyden": ssbroyden,
}


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def main() -> None:
    """One run. Its file is written at each look, so that a run that is stopped is kept so far."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--method", choices=METHODS, default="lm")
    parser.add_argument("--option", type=_option, action="append", default=[], help="NAME=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--seconds", type=float, default=60.0, help="processor's, a GPU's clock's")
    parser.add_argument("--steps", type=int, default=math.inf, help="at most; default: any")
    parser.add_argument(
        "--redrawn", type=int, help="draw points anew after so many steps, 0: never; not the row's"
    )
    parser.add_argument("--beside", type=int, default=0, help="other runs on the GPU meanwhile")
    given = parser.parse_args()
    torch.set_num_threads(1)
    options = dict(given.option)
    about = {
        "row": given.row, "method": given.method, "options": options, "seed": given.seed,
        "seconds": given.seconds, "machine": machine.description(),
    }  # fmt: skip
    if given.device == "cuda":
        about["beside"] = given.beside
    row, named = ROWS[given.row], [f"{k}-{v}" for k, v in options.items()]
    if given.redrawn is not None:
        row, about["redrawn"] = row._replace(redrawn=given.redrawn), given.redrawn
        named.append(f"redrawn-{given.redrawn}")
    parts = [given.row, given.method, *named, str(given.seed)]
    folder = ON_GPU if given.device == "cuda" else RESULTS
    path = folder / ("_".join(parts) + ".json")
    path.parent.mkdir(parents=True, exist_ok=True)

    def keep(curve: list[list[float]]) -> None:
        path.write_text(json.dumps({**about, "curve": curve}) + "\n")

    step = partial(METHODS[given.method], **options)
    device = torch.device(given.device)
    curve = train(row, step, given.seed, given.seconds, given.steps, keep, device)
    print(path.name, *curve[-1])


if __name__ == "__main__":
    main()
