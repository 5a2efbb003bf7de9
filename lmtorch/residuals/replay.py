"""Equal random numbers and buffers in every evaluation of a step.

Dropout draws one mask for all trials of a step, and running statistics are left as they were.
"""

import pickle
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _draws


class Replay:
    """Remembers the generators at a step's first evaluation and puts them back for each other one.

    Args:
        device: whose generator is watched, beside the CPU's.
        random: whether numbers are drawn, if that is known before the first evaluation: sources
            that draw in an order of their own must do so from the first evaluation on.
        kept: tensors that an evaluation writes to, and that are to be as before
            after it: running statistics.
    """

    def __init__(
        self, device: torch.device, random: bool = False, kept: Sequence[Tensor] = ()
    ) -> None:
        self.device = device
        self.before: list[Tensor] | None = None
        self.after: list[Tensor] | None = None
        self.random = random
        self.kept = tuple(kept)

    @contextmanager
    def __call__(self, leave: bool = False) -> Iterator[None]:
        """Around one evaluation of all rows; with `leave`, what it writes stays, if it succeeds."""
        values = [tensor.clone() for tensor in self.kept]
        try:
            with self._same_draws():
                yield
        except BaseException:
            self._put_back(values)
            raise
        if not leave:
            self._put_back(values)

    @contextmanager
    def _same_draws(self) -> Iterator[None]:
        first = self.before is None
        if self.before is None:
            self.before = _draws.read(self.device)
        elif self.random:
            _draws.write(self.before, self.device)
        try:
            yield
        except BaseException:
            # an evaluation that failed was none: its draws are taken back, and the next one is the
            # first again
            _draws.write(self.before, self.device)
            self.before = None if first else self.before
            raise
        if first:
            self.after = _draws.read(self.device)
            self.random |= not all(
                torch.equal(a, b) for a, b in zip(self.before, self.after, strict=True)
            )

    def finish(self) -> None:
        """Leave the generators as one evaluation would: the next step draws new ones."""
        if self.random and self.after is not None:
            _draws.write(self.after, self.device)

    def rewind(self) -> None:
        """Leave the generators as if nothing had been evaluated."""
        if self.random and self.before is not None:
            _draws.write(self.before, self.device)

    def _put_back(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for tensor, value in zip(self.kept, values, strict=True):
                tensor.copy_(value)


class Generators:
    """All that code of the main process may draw from: torch's, Python's and NumPy's generators.

    Args:
        device: whose generator belongs to it, beside the CPU's.
        own: objects that may hold generators of their own, in their attributes.
    """

    def __init__(self, device: torch.device, own: Sequence[Any] = ()) -> None:
        self.device = device
        self.own = list(_held(own))
        self.torchs = len(_draws.read(device))  # how many of the states, the first, are torch's

    def read(self) -> list[Any]:
        """Their states."""
        of_numpy = np.random.get_state()  # noqa: NPY002  # closures of users draw from this one
        own = [_state(generator) for generator in self.own]
        return [*_draws.read(self.device), random.getstate(), of_numpy, *own]

    def write(self, states: Sequence[Any]) -> None:
        """Put states back."""
        _draws.write(states[: self.torchs], self.device)
        of_python, of_numpy, *own = states[self.torchs :]
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002  # closures of users draw from this one
        for generator, state in zip(self.own, own, strict=True):
            _set_state(generator, state)


KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
DEPTH = 4  # attributes of attributes: the generator of a sampler of a batch sampler of a loader


def _held(objects: Sequence[Any]) -> Iterator[Any]:
    """The generators among objects and their attributes."""
    known: set[int] = set()
    nodes = list(objects)
    for _ in range(DEPTH):
        following: list[Any] = []
        for node in nodes:
            if id(node) in known or isinstance(node, Tensor | torch.nn.Module | type):
                continue
            known.add(id(node))
            if isinstance(node, KINDS):
                yield node
            else:
                following += getattr(node, "__dict__", {}).values()
        nodes = following


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return generator.get_state()
    return generator.bit_generator.state


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def same_state(one: Any, other: Any) -> bool:
    """Whether nothing was drawn between two readings of a generator."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return pickle.dumps(one) == pickle.dumps(other)
