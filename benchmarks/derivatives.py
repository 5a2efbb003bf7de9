"""Derivatives of a batch: lmtorch's operators and what users write with torch, in time and memory.

Every way is called in turns with the others, after all have agreed. Peaks of memory are those
of a child of its own for each number, forked from a process that has imported torch and run
next to nothing (Linux).
"""

import ctypes
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch.func import hessian, vmap

from .derivative_ways import CASES, OURS, Case, Way, inputs
from .machine import table

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
BATCHES = (10, 100, 1_000, 10_000)
# what a call may take: one that would take more, by what a tenth of the batch took, is left out
SECONDS, MIB = (2.0, 4096.0)
TURNS = 0.12  # seconds of turns for each way; at least three turns, or one of more than SLOW
SLOW, QUICK = 0.4, 2e-3
ROUNDING = 2e-4  # of the largest number, in float32 and through second derivatives
NOISE = 0.95  # a ratio that counts as no slower


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
    verdict = (
        f"Least ratio of the best rival over lmtorch: {ratio:.2f} ({name}, batch of {batch:,}). "
    )
    slower = sorted(
        f"{name}: {ratio:.2f} at {batch:,}" for ratio, batch, name in least if ratio < NOISE
    )
    verdict += f"Below {NOISE}: {'; '.join(slower) or 'nowhere'}."
    if growth:
        factor, name = max(growth)
        verdict += (
            " From 1,000 to 10,000 samples the peak memory of lmtorch grows at most by a factor of "
            f"{factor:.1f} ({name})."
        )
    intro = (
        "Times are milliseconds for lmtorch, and multiples of these for the others; then follow "
        "peaks of memory, above what the process held before, in MiB. All is in float32. A way "
        f"that would take more than {SECONDS:g} s or {MIB / 1024:g} GiB is left out (–). Ways in "
        "italics are lmtorch's own other modes. No graph is made, unless the title says 'with its "
        "gradient': then the mean square of the result is differentiated in all parameters, as "
        "training does.\n\n"
    )
    return "## Derivatives\n\n" + intro + verdict + "\n\n" + "\n\n".join(sections)


def _compared(
    key: str, case: Case, server: "_Server | None"
) -> tuple[str, dict[int, float], list[float]]:
    """The table; the best rival's time over ours by batch; our peaks, MiB."""
    ways = case.ways()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():  # what torch imports at a first call
        way.call(inputs(case, BATCHES[0]))
    for batch in BATCHES:
        x = inputs(case, batch)
        alive = {}
        for name, way in ways.items():
            growth = 10**way.power
            if len(seconds[name]) < len(seconds[OURS]) or (  # left out before
                seconds[name]
                and (
                    seconds[name][-1] * growth > SECONDS or (peaks[name] or [0])[-1] * growth > MIB
                )
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
        rivals = [
            seconds[name][place]
            for name, way in ways.items()
            if way.rival and place < len(seconds[name])
        ]
        if rivals:
            ratios[batch] = min(rivals) / seconds[OURS][place]
    best = ", ".join(f"{ratio:.2f}" for ratio in ratios.values())
    return (
        f"### {case.name}\n\n{table(header, rows)}\n\nBest rival over lmtorch: {best}.",
        ratios,
        peaks[OURS],
    )


def _filled(cells: list[str]) -> list[str]:
    return cells + ["–"] * (len(BATCHES) - len(cells))


def _turns(ways: dict[str, Way], x: Tensor) -> dict[str, float]:
    """Least seconds of each, called in turns, after a call of each whose results agree."""
    least, spent, count = (
        dict.fromkeys(ways, float("inf")),
        dict.fromkeys(ways, 0.0),
        dict.fromkeys(ways, 0),
    )
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


# ---- memory --------------------------------------------------------------------------------------


class _Server:
    """A process that forks a child for each peak: importing torch for each would take minutes."""

    def __init__(self) -> None:
        child = [sys.executable, "-W", "ignore", "-m", __spec__.name]
        self.process = subprocess.Popen(
            child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

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
        vmap(hessian(lambda point: (point @ point.new_ones(2, 1)).tanh()))(torch.ones(2, 2))
    for line in sys.stdin:
        key, batch, name = line.rstrip("\n").split(" ", 2)
        if child := os.fork():
            os.waitpid(child, 0)
            continue
        torch.set_num_threads(threads)
        case = CASES[key]
        way, x = case.ways()[name], inputs(case, int(batch))
        for few in BATCHES[:2]:
            way.call(inputs(case, few))
        # what the allocator has kept of that would hide as much of the peak
        ctypes.CDLL(None).malloc_trim(0)
        RESET.write_text("5")  # the peak begins anew: proc(5), clear_refs
        before = _high_water()
        way.call(x)
        print(_high_water() - before, flush=True)
        os._exit(0)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _serve()
