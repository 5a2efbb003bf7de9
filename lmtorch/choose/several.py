"""Methods that differ in their strategy as one: that of many runs, each of which has its own."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..core.method import Method
from ..damping.base import Damping
from ..damping.several import SeveralDampings, SeveralScalings
from ..damping.trust_region import TrustRegion

T = TypeVar("T")
ENDLESS = 2**31  # windows without a gain that no run has: it is never given up


def as_one(methods: Sequence[Method], asked: Tensor, places: Tensor) -> Method:
    """One method in which each run has its own strategy.

    Args:
        methods: which differ in damping, scaling and patience alone.
        asked: (k,) int, the number of that of each run.
        places: (k,), of the problem of each run among all.

    Returns:
        The method of all runs.
    """
    dampings, damps = _distinct(_alike([one.damping for one in methods], asked), asked)
    scalings, scales = _distinct([one.scaling for one in methods], asked)
    # where the problems are in doubt that only runs that are never given up are asked about, there
    # are no others
    first = next((one for one in methods if one.patience), methods[0])
    windows = [one.windows if one.patience else ENDLESS for one in methods]
    several = replace(
        first,
        damping=dampings[0] if len(dampings) == 1 else SeveralDampings(tuple(dampings), damps),
        scaling=scalings[0],
        windows=torch.tensor(windows, device=asked.device)[asked],
    )
    # what the members know of each problem they know of each run, and the rest is of runs already
    of_runs = replace(first, scaling=scalings[0]).take(places)
    scaling: Any = of_runs.scaling
    if len(scalings) > 1:
        each = [replace(first, scaling=one).take(places).scaling for one in scalings]
        scaling = SeveralScalings(tuple(each), scales)
    return replace(several, solver=of_runs.solver, scaling=scaling)


def _alike(dampings: Sequence[Damping], asked: Tensor) -> list[Damping]:
    """The dampings, those that differ in the first radius alone as one that has it of each run."""
    regions = [one for one in dampings if isinstance(one, TrustRegion)]
    if len({one.iterations for one in regions}) != 1 or len(regions) < 2:
        return list(dampings)
    radii = [one.initial if isinstance(one, TrustRegion) else 1.0 for one in dampings]
    initial = torch.tensor(radii, dtype=torch.float64, device=asked.device)[asked]
    one_for_all = TrustRegion(initial, regions[0].iterations)
    return [one_for_all if isinstance(one, TrustRegion) else one for one in dampings]


def _distinct(members: Sequence[T], asked: Tensor) -> tuple[list[T], Tensor]:
    """The members without those that are there already, and which of them each run has."""
    found: list[T] = []
    numbers = []
    for member in members:
        known = [n for n, one in enumerate(found) if one is member or _equal(one, member)]
        if not known:
            found.append(member)
        numbers.append(known[0] if known else len(found) - 1)
    return found, torch.tensor(numbers, device=asked.device)[asked]


def _equal(one: Any, other: Any) -> bool:
    """Whether two members do the same; of those that hold tensors it is not known."""
    held = any(isinstance(value, Tensor) for value in vars(one).values())
    return type(one) is type(other) and not held and bool(one == other)
