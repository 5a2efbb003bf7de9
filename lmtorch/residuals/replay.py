"""Equal random numbers and buffers in every evaluation of a step.

Dropout draws one mask for all trials of a step, and running statistics are left as they were.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


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
            self.before = self._read()
        elif self.random:
            self._write(self.before)
        try:
            yield
        except BaseException:
            # an evaluation that failed was none: its draws are taken back, and the next one is the
            # first again
            self._write(self.before)
            self.before = None if first else self.before
            raise
        if first:
            self.after = self._read()
            self.random |= not all(
                torch.equal(a, b) for a, b in zip(self.before, self.after, strict=True)
            )

    def finish(self) -> None:
        """Leave the generators as one evaluation would: the next step draws new ones."""
        if self.random and self.after is not None:
            self._write(self.after)

    def rewind(self) -> None:
        """Leave the generators as if nothing had been evaluated."""
        if self.random and self.before is not None:
            self._write(self.before)

    def _put_back(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for tensor, value in zip(self.kept, values, strict=True):
                tensor.copy_(value)

    def _read(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        return states

    def _write(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self.device)
