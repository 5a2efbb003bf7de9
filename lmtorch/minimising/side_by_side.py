"""Several second opinions on a batch at once: their runs go side by side, as more problems.

An iteration on a hundred problems costs as much as on ten, as its cost is that of some thousand
calls. The runs of all opinions that can be asked at one time are one batch, in which a problem
stands once for each opinion on it, with that one's strategy.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import choose
from ..arrays import put, take
from ..core.linearizing import begin
from ..core.loop import descend
from ..core.method import Method
from ..core.problem import Problem
from ..core.state import Begun, Start, State

SWIFT = 512  # runs from which on a solver with all digits takes longer than all that is a call


class Room(NamedTuple):
    """How opinions may run side by side."""

    runs: int  # that fit the memory; 0: each opinion runs by itself
    method: Method | None = None  # of the first run, whose solver may be a quicker one


class Voice(NamedTuple):
    """One opinion on some problems."""

    method: Method
    places: Tensor  # (k,), of the problems among all
    start: Start  # where its runs begin, (k, n)


def together(methods: Sequence[Method]) -> bool:
    """Whether runs by these methods may be one batch: they differ in strategy and no more."""
    kinds = [_without_strategy(one) for one in methods]
    # a run that is never given up is looked at as the others are, and goes on
    return any(one.patience for one in methods) and all(kind == kinds[0] for kind in kinds)


def run_together(problem: Problem, voices: Sequence[Voice], trials: int, room: Room) -> list[State]:
    """Run all problems of all opinions.

    Args:
        problem: of the whole batch.
        voices: the opinions, with the problems that each is asked about.
        trials: of each run, at most.
        room: of all runs.

    Returns:
        Where they end, for each opinion.
    """
    counts = [len(voice.places) for voice in voices]
    places = torch.cat([voice.places for voice in voices])
    numbers = torch.arange(len(voices), device=places.device)
    asked = numbers.repeat_interleave(torch.tensor(counts, device=places.device))
    method = choose.as_one([voice.method for voice in voices], asked, places)
    swift = room.method
    if swift is not None and swift.careful == method.solver and len(places) > SWIFT:
        method = replace(method, solver=swift.solver, careful=swift.careful)
    part = replace(problem.take(places), form=method.solver.form)
    x = torch.cat([voice.start.x for voice in voices])
    known = [voice.start.begun for voice in voices]
    begun = None
    if any(one is not None for one in known):
        begun = begin(part, method, Start(x))[0].begun
        at = 0
        for one, count in zip(known, counts, strict=True):
            if one is not None:
                where = torch.arange(at, at + count, device=places.device)
                begun = put(begun, where, Begun(*one))
            at += count
    state, _ = descend(part, method, Start(x, begun=begun), trials=trials)
    state = state._replace(damping=None)
    ends, at = [], 0
    for count in counts:
        ends.append(take(state, torch.arange(at, at + count, device=places.device)))
        at += count
    return ends


def _without_strategy(method: Method) -> tuple[Any, ...]:
    """What has to be alike."""
    return (
        method.solver, method.careful, method.tolerances, method.polish, method.certify,
        method.asks, method.slopes, method.frugal, method.momentum, method.steady,
    )  # fmt: skip
