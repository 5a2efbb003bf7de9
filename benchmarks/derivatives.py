"""Derivatives of a batch's outputs: lmtorch's operators and what is written with torch instead, in time and memory.

Every way is called in turns with the others, after all have agreed. Peaks of memory are those of a child of its own
for each number, forked from a process that has imported torch and run next to nothing (Linux).
"""

import ctypes
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import functional, grad
from torch.func import functional_call, hessian, jacfwd, jacrev, jvp, vmap

import lmtorch

from .machine import table

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
BATCHES = (10, 100, 1_000, 10_000)
SECONDS, MIB = 2.0, 4096.0  # that a call may take; beyond, by what it took for a tenth of the batch, it is left out
TURNS = 0.12  # seconds of turns for each way; at least three turns, or one of more than SLOW
SLOW, QUICK = 0.4, 2e-3
ROUNDING = 2e-4  # of the largest number, in float32 and through second derivatives
NOISE = 0.95  # a ratio that counts as no slower
OURS = "lmtorch"
Result = Tensor | Sequence[Tensor]


class Way(NamedTuple):
    """How to have a derivative."""

    call: Callable[[Tensor], Result]  # of the batch's inputs
    power: int = 1  # of the batch, with which time and memory grow
    rival: bool = True  # not one of lmtorch's own


class Case(NamedTuple):
    """What is compared."""

    name: str
    inputs: tuple[int, ...]  # of a sample
    ways: Callable[[], dict[str, Way]]  # lmtorch's first


def run() -> str:
    """A table for each case, and what follows from all of them."""
    server = _Server() if RESET.exists() else None
    sections, least, growth = [], [], []
    for key, case in CASES.items():
        section, ratios, peaks = _compared(key, case, server)
        sections.append(section)
        least.append((*min((ratio, batch) for batch, ratio in ratios.items()), case.name))
        if len(peaks) > 1 and peaks[-2] > 2:
            growth.append((peaks[-1] / peaks[-2], case.name))
    ratio, batch, name = min(least)
    verdict = f"Least ratio of the best rival over lmtorch: {ratio:.2f} ({name}, batch of {batch:,}). "
    slower = sorted(f"{name}: {ratio:.2f} at {batch:,}" for ratio, batch, name in least if ratio < NOISE)
    verdict += f"Below {NOISE}: {'; '.join(slower) or 'nowhere'}."
    if growth:
        verdict += " Peak memory of lmtorch from 1,000 to 10,000 samples grows at most by {:.1f} ({}).".format(
            *max(growth)
        )
    intro = (
        "lmtorch in milliseconds, the others over lmtorch's; then the peak of memory over what the process held "
        f"before, in MiB. float32. A way that would take more than {SECONDS:g} s or {MIB / 1024:g} GiB is left out "
        "(–). Ways in italics are lmtorch's own other modes. Without a graph unless it says 'with its gradient': the "
        "mean square of the result, differentiated in all parameters, as training does.\n\n"
    )
    return "## Derivatives\n\n" + intro + verdict + "\n\n" + "\n\n".join(sections)


def _compared(key: str, case: Case, server: "_Server | None") -> tuple[str, dict[int, float], list[float]]:
    """The table; the best rival's time over ours by batch; our peaks, MiB."""
    ways = case.ways()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():  # what torch imports at a first call
        way.call(_inputs(case, BATCHES[0]))
    for batch in BATCHES:
        x = _inputs(case, batch)
        alive = {}
        for name, way in ways.items():
            growth = 10**way.power
            if len(seconds[name]) < len(seconds[OURS]) or (  # left out before
                seconds[name] and (seconds[name][-1] * growth > SECONDS or (peaks[name] or [0])[-1] * growth > MIB)
            ):
                continue
            alive[name] = way
        for name in alive:
            if server is not None:
                peaks[name].append(server.peak(key, name, batch))
        for name, least in _turns(alive, x).items():
            seconds[name].append(least)
    rows = []
    for name, way in ways.items():
        own = name == OURS
        times = [
            f"**{t * 1e3:.2f} ms**" if own else f"{t / ours:.2f}"
            for t, ours in zip(seconds[name], seconds[OURS], strict=False)
        ]
        held = [f"{peak:.0f}" if peak >= 10 else f"{peak:.1f}" for peak in peaks[name]]
        label = f"**{name}**" if own else name if way.rival else f"_{name}_"
        rows.append([label, *_filled(times), *_filled(held)])
    header = ["", *(f"{b:,}" for b in BATCHES), *(f"MiB at {b:,}" for b in BATCHES)]
    ratios = {}
    for place, batch in enumerate(BATCHES):
        rivals = [seconds[name][place] for name, way in ways.items() if way.rival and place < len(seconds[name])]
        if rivals:
            ratios[batch] = min(rivals) / seconds[OURS][place]
    best = ", ".join(f"{ratio:.2f}" for ratio in ratios.values())
    return f"### {case.name}\n\n{table(header, rows)}\n\nBest rival over lmtorch: {best}.", ratios, peaks[OURS]


def _filled(cells: list[str]) -> list[str]:
    return cells + ["–"] * (len(BATCHES) - len(cells))


def _turns(ways: dict[str, Way], x: Tensor) -> dict[str, float]:
    """Least seconds of each, called in turns, after a call of each whose results agree."""
    least, spent, count = dict.fromkeys(ways, float("inf")), dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
    reference: list[Tensor] | None = None
    for name, way in ways.items():
        least[name], found = _timed(way, x)
        reference = reference or found
        for mine, theirs in zip(reference, found, strict=True):
            assert mine.shape == theirs.shape, (name, mine.shape, theirs.shape)
            assert (mine - theirs).abs().max() <= ROUNDING * mine.abs().max(), f"{name} disagrees"
    del reference
    going = {name for name in ways if least[name] <= SLOW}
    for name in going:  # the first call warmed up
        least[name] = min(least[name], _timed(ways[name], x)[0])
    while going:
        for name in list(going):
            # several calls of what is fast: the first finds the caches full of another's
            turn = [_timed(ways[name], x)[0] for _ in range(4 if least[name] < QUICK else 1)]
            least[name] = min(least[name], *turn)
            spent[name], count[name] = spent[name] + sum(turn), count[name] + 1
            if count[name] >= 3 and spent[name] > TURNS:
                going.remove(name)
    return least


def _timed(way: Way, x: Tensor) -> tuple[float, list[Tensor]]:
    begun = time.perf_counter()
    found = way.call(x)
    seconds = time.perf_counter() - begun
    return seconds, [part.detach() for part in ((found,) if isinstance(found, Tensor) else found)]


# ---- memory ----------------------------------------------------------------------------------------------------------


class _Server:
    """A process that forks a child for each peak that is asked for: an import of torch for each would take minutes."""

    def __init__(self) -> None:
        child = [sys.executable, "-W", "ignore", "-m", __spec__.name]
        self.process = subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def peak(self, key: str, name: str, batch: int) -> float:
        """MiB over what the child held before, of one call."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(key, batch, name, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def _high_water() -> float:
    """MiB that the process has had resident at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return int(found[1]) / 1024


def _serve() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # no child can have the threads of its parent
    with torch.no_grad():  # what torch imports at a first call, a second for each child otherwise
        vmap(hessian(_single(_mlp(2, 2, 1))))(torch.ones(2, 2))
    for line in sys.stdin:
        key, batch, name = line.rstrip("\n").split(" ", 2)
        if child := os.fork():
            os.waitpid(child, 0)
            continue
        torch.set_num_threads(threads)
        case = CASES[key]
        way, x = case.ways()[name], _inputs(case, int(batch))
        for few in BATCHES[:2]:
            way.call(_inputs(case, few))
        ctypes.CDLL(None).malloc_trim(0)  # what the allocator has kept of that would hide as much of the peak
        RESET.write_text("5")  # the peak begins anew: proc(5), clear_refs
        before = _high_water()
        way.call(x)
        print(_high_water() - before, flush=True)
        os._exit(0)


# ---- networks --------------------------------------------------------------------------------------------------------


def _inputs(case: Case, batch: int) -> Tensor:
    return torch.randn(batch, *case.inputs, generator=torch.Generator().manual_seed(1))


def _mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inside, outside in pairwise(widths):
        layers += [nn.Linear(inside, outside), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _classifier() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.Tanh(), nn.Conv2d(8, 16, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 10)
    )


def _frozen(net: nn.Module) -> nn.Module:
    """Of no parameter is a graph wanted: to the advantage of every rival."""
    return net.requires_grad_(False)


def _single(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """A sample's outputs, as functions for `vmap` are written."""
    return lambda point: net(point[None])[0]


def _quiet(call: Callable[[Tensor], Result]) -> Callable[[Tensor], Result]:
    return torch.no_grad()(call)


def _trained(net: nn.Module, ways: dict[str, Way]) -> dict[str, Way]:
    """The same with a backward pass through the result, into all parameters."""

    def through(call: Callable[[Tensor], Result]) -> Callable[[Tensor], Result]:
        def gradients(x: Tensor) -> Result:
            found = call(x)
            assert isinstance(found, Tensor)
            return grad(found.square().mean(), list(net.parameters()), materialize_grads=True)

        return gradients

    return {name: way._replace(call=through(way.call)) for name, way in ways.items()}


# ---- first derivatives in the inputs ---------------------------------------------------------------------------------


def _jacobians(net: nn.Module) -> dict[str, Way]:
    _frozen(net)

    def diagonal(whole: Tensor) -> Tensor:
        count = whole.shape[0]
        return whole[torch.arange(count), :, torch.arange(count)]

    def per_output(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        y = net(x)
        rows = [grad(y[:, k].sum(), x, retain_graph=True)[0] for k in range(y.shape[1])]
        return torch.stack(rows, 1)

    def per_number(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        y = net(x)
        rows = [grad(number, x, retain_graph=True)[0][i] for i, row in enumerate(y) for number in row]
        return torch.stack(rows).unflatten(0, y.shape)

    return {
        OURS: Way(_quiet(lambda x: lmtorch.batch_jacobian(net, x)), rival=False),
        "vmap(jacrev)": Way(_quiet(vmap(jacrev(_single(net))))),
        "vmap(jacfwd)": Way(_quiet(vmap(jacfwd(_single(net))))),
        "autograd.grad of each output's sum over the batch": Way(per_output),
        "autograd.grad of each sample's outputs": Way(per_number, 2),
        "autograd.functional.jacobian, its diagonal": Way(lambda x: diagonal(functional.jacobian(net, x)), 2),
        "the same with vectorize=True": Way(lambda x: diagonal(functional.jacobian(net, x, vectorize=True)), 2),
    }


# ---- second derivatives in the inputs --------------------------------------------------------------------------------


def _laplacians(net: nn.Module, training: bool) -> dict[str, Way]:
    def trick(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            (first,) = grad(net(x).sum(), x, create_graph=True)
            total = torch.zeros_like(x[:, 0])
            for i in range(x.shape[1]):
                second = grad(first[:, i].sum(), x, retain_graph=True, create_graph=training)[0][:, i]
                total = total + second
        return total[:, None]

    def traced(point: Tensor) -> Tensor:
        return hessian(_single(net))(point).diagonal(dim1=-2, dim2=-1).sum(-1)

    def twice(x: Tensor, v: Tensor) -> Tensor:
        v = v.expand_as(x)
        return jvp(lambda x: jvp(net, (x,), (v,))[1], (x,), (v,))[1]

    def nested(x: Tensor) -> Tensor:
        return vmap(lambda v: twice(x, v))(torch.eye(x.shape[1])).sum(0)

    def looped(x: Tensor) -> Tensor:
        return sum((twice(x, v) for v in torch.eye(x.shape[1])), torch.zeros(len(x), 1))

    ways = {
        OURS: Way(lambda x: lmtorch.laplacian(net, x), rival=False),
        'lmtorch, mode="forward"': Way(lambda x: lmtorch.laplacian(net, x, mode="forward"), rival=False),
        'lmtorch, mode="reverse"': Way(lambda x: lmtorch.laplacian(net, x, mode="reverse"), rival=False),
        "autograd.grad of each component's sum": Way(trick),
        "trace of vmap(hessian)": Way(vmap(traced)),
        "jvp of jvp, vmap over directions": Way(nested),
        "jvp of jvp, a loop over directions": Way(looped),
    }
    if training:
        return _trained(net, ways)
    _frozen(net)
    return {name: way._replace(call=_quiet(way.call)) for name, way in ways.items()}


def _hessians(net: nn.Module) -> dict[str, Way]:
    _frozen(net)

    def trick(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            (first,) = grad(net(x).sum(), x, create_graph=True)
            rows = [grad(first[:, i].sum(), x, retain_graph=True)[0] for i in range(x.shape[1])]
        return torch.stack(rows, 1)[:, None]

    def one_by_one(x: Tensor) -> Tensor:
        return torch.stack([functional.hessian(lambda p: net(p).squeeze(), point) for point in x])[:, None]

    return {
        OURS: Way(_quiet(lambda x: lmtorch.batch_hessian(net, x)), rival=False),
        'lmtorch, mode="taylor"': Way(_quiet(lambda x: lmtorch.batch_hessian(net, x, mode="taylor")), rival=False),
        'lmtorch, mode="forward"': Way(_quiet(lambda x: lmtorch.batch_hessian(net, x, mode="forward")), rival=False),
        "vmap(hessian)": Way(_quiet(vmap(hessian(_single(net))))),
        "autograd.grad of each component's sum": Way(trick),
        "autograd.functional.hessian, sample by sample": Way(one_by_one),
    }


def _burgers(net: nn.Module) -> dict[str, Way]:
    def whole(tx: Tensor, mode: str = "auto") -> Tensor:
        u, J, H = lmtorch.value_jacobian_hessian(net, tx, mode=mode, coordinates=1)
        return J[..., 0] + u * J[..., 1] - 0.01 * H[..., 0, 0]

    def chain(tx: Tensor) -> Tensor:
        t, x = (part.detach().requires_grad_() for part in (tx[:, :1], tx[:, 1:]))
        u = net(torch.cat([t, x], 1))
        u_t = grad(u, t, torch.ones_like(u), create_graph=True)[0]
        u_x = grad(u, x, torch.ones_like(u), create_graph=True)[0]
        u_xx = grad(u_x, x, torch.ones_like(u_x), create_graph=True)[0]
        return u_t + u * u_x - 0.01 * u_xx

    def joint(tx: Tensor) -> Tensor:
        tx = tx.detach().requires_grad_()
        u = net(tx)
        (first,) = grad(u.sum(), tx, create_graph=True)
        u_t, u_x = first[:, :1], first[:, 1:]
        u_xx = grad(u_x.sum(), tx, create_graph=True)[0][:, 1:]
        return u_t + u * u_x - 0.01 * u_xx

    def sample(tx: Tensor) -> Tensor:
        function = _single(net)
        u, J, H = function(tx), jacrev(function)(tx), hessian(function)(tx)
        return J[..., 0] + u * J[..., 1] - 0.01 * H[..., 1, 1]

    return _trained(
        net,
        {
            OURS: Way(whole, rival=False),
            'lmtorch, mode="reverse"': Way(partial(whole, mode="reverse"), rival=False),
            "a chain of autograd.grad, t and x apart": Way(chain),
            "a chain of autograd.grad, t and x together": Way(joint),
            "vmap of value, jacrev and hessian": Way(vmap(sample)),
        },
    )


# ---- in the parameters -----------------------------------------------------------------------------------------------


def _parameters(net: nn.Module, record: bool) -> dict[str, Way]:
    params = dict(net.named_parameters())

    def by_jacrev(x: Tensor) -> Result:
        at = params if record else {name: p.detach() for name, p in params.items()}
        one = jacrev(lambda p, point: functional_call(net, p, (point[None],))[0])
        return list(vmap(one, (None, 0))(at, x).values())

    def by_row(x: Tensor) -> Result:
        with torch.enable_grad():
            y = net(x)
            numbers = [number for sample in y for number in sample]
        rows = [
            grad(number, list(params.values()), retain_graph=True, create_graph=record, materialize_grads=True)
            for number in numbers
        ]
        return [torch.stack(blocks).unflatten(0, y.shape) for blocks in zip(*rows, strict=True)]

    ways = {
        OURS: Way(lambda x: list(lmtorch.parameter_jacobian(net, x).values()), rival=False),
        "vmap(jacrev of functional_call)": Way(by_jacrev),
        "autograd.grad of each sample's outputs": Way(by_row, 2),
    }
    return ways if record else {name: way._replace(call=_quiet(way.call)) for name, way in ways.items()}


def _columns(net: nn.Module, count: int) -> dict[str, Way]:
    params = {name: p.detach() for name, p in net.named_parameters()}
    name = "2.weight"
    places = list(range(0, 64 * count, 64))

    def by_jacrev(x: Tensor) -> Tensor:
        one = jacrev(lambda p, point: functional_call(net, p, (point[None],))[0])
        whole = vmap(one, (None, 0))(params, x)[name]
        return whole.flatten(2)[..., places].movedim(-1, 0)

    def by_jvp(x: Tensor) -> Tensor:
        weight = params[name]

        def along(place: Tensor) -> Tensor:
            direction = torch.zeros_like(weight).flatten().scatter(0, place[None], 1).view_as(weight)
            return jvp(lambda w: functional_call(net, {name: w}, (x,)), (weight,), (direction,))[1]

        if count == 1:
            return along(torch.tensor(places[0]))[None]
        return vmap(along)(torch.tensor(places))

    return {
        key: Way(_quiet(call), rival=key != OURS)
        for key, call in {
            OURS: lambda x: lmtorch.parameter_column(net, name, places, x),
            "jvp of functional_call, by hand": by_jvp,
            "the whole Jacobian by vmap(jacrev)": by_jacrev,
            "the whole Jacobian by lmtorch": lambda x: (
                lmtorch.parameter_jacobian(net, x, names=[name])[name].flatten(2)[..., places].movedim(-1, 0)
            ),
        }.items()
    }


CASES = {
    "jacobian-mlp": Case("Jacobian per sample, MLP 3-64-64-5", (3,), lambda: _jacobians(_mlp(3, 64, 64, 5))),
    "jacobian-conv": Case(
        "Jacobian per sample, convolutions, 12 x 12 to 10", (1, 12, 12), lambda: _jacobians(_classifier())
    ),
    "laplacian-2": Case("Laplacian, MLP 2-64-64-64-1", (2,), lambda: _laplacians(_mlp(2, 64, 64, 64, 1), False)),
    "laplacian-10": Case("Laplacian, MLP 10-64-64-64-1", (10,), lambda: _laplacians(_mlp(10, 64, 64, 64, 1), False)),
    "training-2": Case(
        "Laplacian with its gradient, MLP 2-64-64-64-1", (2,), lambda: _laplacians(_mlp(2, 64, 64, 64, 1), True)
    ),
    "training-10": Case(
        "Laplacian with its gradient, MLP 10-64-64-64-1", (10,), lambda: _laplacians(_mlp(10, 64, 64, 64, 1), True)
    ),
    "hessian-3": Case("Hessian per sample, MLP 3-64-64-1", (3,), lambda: _hessians(_mlp(3, 64, 64, 1))),
    "hessian-10": Case("Hessian per sample, MLP 10-64-64-1", (10,), lambda: _hessians(_mlp(10, 64, 64, 1))),
    "parameters": Case("In all parameters, MLP 3-64-64-5", (3,), lambda: _parameters(_mlp(3, 64, 64, 5), False)),
    "parameters-graph": Case(
        "In all parameters, differentiable, MLP 3-64-64-5", (3,), lambda: _parameters(_mlp(3, 64, 64, 5), True)
    ),
    "column-1": Case("In one weight, MLP 3-64-64-5", (3,), lambda: _columns(_mlp(3, 64, 64, 5), 1)),
    "column-16": Case("In sixteen weights, MLP 3-64-64-5", (3,), lambda: _columns(_mlp(3, 64, 64, 5), 16)),
    "burgers": Case(
        "Burgers' residual with its gradient, MLP 2-20-20-20-1", (2,), lambda: _burgers(_mlp(2, 20, 20, 20, 1))
    ),
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _serve()
