"""Planning for several processes: the same facts and the same memory, so that all plan the same."""

import re
import socket
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import _memory
from .._errors import InputError
from ..distributed.processes import Processes
from .facts import Facts, Plan
from .options import Options

T = TypeVar("T")
EXACT = 2**52  # integers below it are exact in float64
PRIME = EXACT - 47
CHUNK = 2**18  # numbers of which bits are summed together


def of_all(processes: Processes, every: Sequence[Sequence[Facts]]) -> list[Facts]:
    """The facts of each term, of all processes together.

    Args:
        processes: that share the rows.
        every: of each process, for each term; of one without rows its own number of rows is 0.

    Raises:
        InputError: they do not fit each other.
    """
    if len({len(facts) for facts in every}) > 1:
        raise InputError(
            "the processes pass different numbers of terms: "
            f"{[len(facts) for facts in every]}. Each passes all terms, those of which it has no "
            "samples with tensors of length 0."
        )
    return [_together(processes, term) for term in zip(*every, strict=True)]


def _together(processes: Processes, each: Sequence[Facts]) -> Facts:
    """One term's facts."""
    mine = each[processes.rank]
    for what in ("parameters", "dtype"):
        values = [getattr(facts, what) for facts in each]
        if len(set(values)) > 1:
            raise InputError(
                f"the processes have different {what}: {values}. All need the same model."
            )
    if len({facts.device.type for facts in each}) > 1:
        raise InputError("the processes have parameters on different kinds of devices.")
    if len({facts.streams for facts in each}) > 1:
        raise InputError(
            "some processes pass a loader, and some tensors, which are planned for in other ways. "
            "Pass a loader on all of them; a list of one batch is one: step(closure, [(x, y)])."
        )
    if len({facts.samples is None for facts in each}) > 1:
        raise InputError(
            "some processes pass a batch with the closure, and some do not: "
            "step(closure, *batch) on all of them, with tensors of length 0 where there are none."
        )
    there = [facts for facts in each if facts.residuals > 0]
    if not there:
        raise InputError("no process has residuals: m = 0. There is nothing to fit.")
    counted = [facts.samples or 0 for facts in each]
    rows = {facts.residuals // (facts.samples or 1) for facts in there}
    if mine.samples is not None and len(rows) > 1:
        raise InputError(
            f"the closure returns {sorted(rows)} residuals for each sample on different processes."
        )
    leading = [facts.leading for facts in there]
    return mine._replace(
        residuals=sum(facts.residuals for facts in there),
        samples=None if mine.samples is None else sum(counted),
        activations=max(facts.activations for facts in there),
        outputs=max(facts.outputs for facts in there),
        precision=there[0].precision,
        leading=None if None in leading else sum(length or 0 for length in leading),
        functional=all(facts.functional for facts in there),
        processes=processes.size,
    )


def with_memory(processes: Processes, options: Options, device: torch.device) -> Options:
    """The options with the least memory of all; processes of one machine share what is free."""

    def own() -> tuple[str, int]:
        return socket.gethostname(), _memory.budget(device, options.memory_limit)

    every = processes.gathered("memory", own)
    hosts = [host for host, _ in every]
    shared = device.type == "cpu" and options.memory_limit is None
    each = [budget // (hosts.count(host) if shared else 1) for host, budget in every]
    return replace(options, memory_limit=min(each))


def check_same(processes: Processes, plan: Plan) -> None:
    """Check that all processes have planned the same.

    Raises:
        InputError: options differ.
    """
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(plan.reasons))
    _, each = processes.telling(
        "plan", lambda: None, lambda _: [float(zlib.crc32(text.encode()))], 1
    )
    if len(set(each[:, 0].tolist())) > 1:
        raise InputError(
            "the processes plan different steps: give LevenbergMarquardt, or least_squares, the "
            "same options on all of them. explain() of one process alone shows what it chooses."
        )


def numbers_of(options: Mapping[str, Any]) -> dict[str, float]:
    """A number for each option of a run, the same on processes that were given the same.

    Of an object it is that of its class, and memory may differ: the least of all counts.
    """
    return {name: _number(value) for name, value in options.items() if name != "memory_limit"}


def _number(value: Any) -> float:
    if isinstance(value, Tensor):
        return bits(value)
    if isinstance(value, tuple | list):
        text = repr([_number(entry) for entry in value])
    elif isinstance(value, int | float):
        text = repr(float(value))
    elif value is None or isinstance(value, str):
        text = repr(value)
    else:
        text = type(value).__qualname__
    return float(zlib.crc32(text.encode()))


def check_numbers(processes: Processes, names: Sequence[str], each: Tensor) -> None:
    """Check that all processes were given the same options.

    Args:
        processes: those that share the rows.
        names: of the options.
        each: (processes, names), what `numbers_of` gives of each.

    Raises:
        InputError: they were not.
    """
    for name, numbers in zip(names, each.unbind(1), strict=True):
        others = (numbers != numbers[0]).nonzero()
        if len(others):
            raise InputError(
                f"{name} of rank {processes.names[int(others[0])]} is not that of rank "
                f"{processes.names[0]}: all processes take the same steps, and need the same "
                "options. Where a schedule or a validation sets it, take what it looks at from "
                "all of them, as by torch.distributed.all_reduce."
            )


def bits(tensor: Tensor) -> float:
    """A number that a tensor with other values, or with the same in another order, hardly has."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    flat = tensor.detach().contiguous().view(whole[tensor.element_size()]).reshape(-1)
    weights = 2 * torch.arange(CHUNK, device=flat.device) + 1
    found = 0
    for some in flat.split(CHUNK):
        found = (found * 31 + int((some.to(torch.int64) * weights[: len(some)]).sum())) % PRIME
    return float(found)
