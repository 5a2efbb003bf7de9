"""step(closure, loader): the residuals of batches that are read anew in every pass.

Nothing is kept of a batch but sums: neither its samples, nor its rows, nor its targets.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from .._autodiff import Params
from ..residuals.base import Part
from ..residuals.layout import Layout
from ..residuals.replay import Replay
from .closure import SampleResidual
from .loaders import Stream, pieces
from .samples import Samples
from .swap import Swap
from .targets import Read


class Least(Protocol):
    """What knows what losses cost at least."""

    def least(self) -> Tensor:
        """What has to be added to the cost for the usual value."""


class StreamResidual:
    """The residuals of a loader's samples, one pass for an evaluation.

    Args:
        layout: how x is made of the parameters.
        swap: calls the closure at other values of them.
        closure: takes a batch and returns one row of residuals for each sample, or a criterion's
            outputs and targets.
        stream: yields the batches.
        chunk: samples of one part: larger batches are cut, smaller ones are joined.
        per_sample: k, residuals of one sample.
        replay: of the random numbers of a step, shared by all terms.
        targeted: whether the rows are outputs with targets.
        chosen: numbers of the batches of which rows are taken; None: all.
    """

    streams = True  # samples are read anew in each pass, and must not be kept

    def __init__(
        self,
        layout: Layout,
        swap: Swap,
        closure: Callable[..., Any],
        stream: Stream,
        chunk: int,
        per_sample: int,
        replay: Replay,
        *,
        targeted: bool = False,
        chosen: frozenset[int] | None = None,
    ) -> None:
        self.layout = layout
        self.swap = swap
        self.closure = closure
        self.stream = stream
        self.chunk = max(1, chunk)
        self.per_sample = per_sample
        self.draws = replay
        self.targeted = targeted
        self.chosen = chosen
        self.taken: int | None = None  # samples of the last whole pass
        self.known_least: Tensor | None = None

    @property
    def rows(self) -> int:
        """One row block of k for each sample; of a choice of batches, what the last pass had."""
        count = self.stream.count
        if self.chosen is not None:
            count = self.taken or math.ceil(count * len(self.chosen) / self.stream.batches)
        return count * self.per_sample

    def params(self, x: Tensor) -> Params:
        """x as the tensors that it is made of."""
        return self.layout.split(x)

    def parts(self) -> Iterable[Part]:
        """One pass: pieces of about so many samples as a chunk has."""
        count, least = 0, list[Tensor]()
        for samples in self._pieces():
            for part in self._piece(samples).parts():
                yield replace(part, whole=False)
                if isinstance(part.loss, Read) and self.known_least is None:
                    least.append(part.loss.least())
            count += samples.count
        self.taken = count
        if least:
            self.known_least = torch.stack(least).sum()

    @property
    def losses(self) -> list[Least]:
        """The residual itself, which knows what its losses cost at least."""
        return [self] if self.targeted else []

    def least(self) -> Tensor:
        """What has to be added to the cost for the usual value."""
        assert self.known_least is not None  # of the linear model's pass
        return self.known_least

    def evaluate(self, params: Params) -> None:
        """Call the closure once for all samples, for what it leaves behind."""
        for samples in self._pieces():
            for part in self._piece(samples).parts():
                part.run(self.closure, params)

    def replay(self) -> AbstractContextManager[None]:
        """A context for each evaluation: all of a step draw the same random numbers."""
        return self.draws()

    def take(self, places: Tensor) -> "StreamResidual":
        """There is one problem."""
        return self

    def some(self, share: float, generator: torch.Generator) -> "StreamResidual":
        """The residual of a random choice of the batches, which draws random numbers of its own."""
        batches = self.stream.batches
        order = torch.randperm(batches, generator=generator, device="cpu")
        return StreamResidual(
            self.layout,
            self.swap,
            self.closure,
            self.stream,
            self.chunk,
            self.per_sample,
            Replay(self.draws.device, self.draws.random, self.draws.kept),
            targeted=self.targeted,
            chosen=frozenset(order[: math.ceil(share * batches)].tolist()),
        )

    def _pieces(self) -> Iterable[Samples]:
        chosen = None if self.chosen is None else self.chosen.__contains__
        ordered = self.draws.random or chosen is not None
        return pieces(self.stream.read(ordered=ordered, chosen=chosen), self.chunk)

    def _piece(self, samples: Samples) -> SampleResidual:
        """The residuals of a piece, cut into equal parts."""
        chunk = -(-samples.count // -(-samples.count // self.chunk))
        own = (self.layout, self.swap, self.closure)
        return SampleResidual(
            *own, samples, chunk, self.per_sample, self.draws, reads=self.targeted
        )
