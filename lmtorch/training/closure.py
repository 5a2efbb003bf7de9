"""A user's closure as a residual: opaque, or on a batch of independent samples."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .._autodiff import Params, ranges
from ..jacobians.learned_rows import LearnedRows
from ..losses.criterion import Bound, Targeted
from ..residuals.base import Part
from ..residuals.layout import Layout
from ..residuals.replay import Replay
from . import outputs
from .compiled import Through
from .samples import Samples
from .swap import Swap
from .targets import Read, RowsChangedError


def _same_kind(result: Any, targeted: bool) -> Any:
    """A closure's result, which has targets if it had them before.

    Raises:
        RowsChangedError: it has, and had none, or the other way round.
    """
    if isinstance(result, Targeted) != targeted:
        raise RowsChangedError(
            "the closure returned residuals in one evaluation and a criterion's outputs in another."
        )
    return result


class ClosureResidual:
    """step(closure): no structure is assumed; all rows are one part.

    Args:
        layout: how x is made of the parameters.
        swap: calls the closure at other values of them.
        closure: returns residuals of any shape.
        rows: m.
        replay: of the random numbers of a step, shared by all terms.
        leading: the first dimension of the residuals, if they are one tensor.
        through: calls its evaluations, in compiled form where there is one; None: they are plain.
        loss: of these rows, if they are outputs with targets.
    """

    def __init__(
        self,
        layout: Layout,
        swap: Swap,
        closure: Callable[..., Any],
        rows: int,
        replay: Replay,
        leading: int | None = None,
        through: Through | None = None,
        loss: Bound | None = None,
    ) -> None:
        self.layout = layout
        self.swap = swap
        self.closure = closure
        self.rows = rows
        self.draws = replay
        self.leading = leading
        self.through = through
        self.loss = loss

    def params(self, x: Tensor) -> Params:
        """x as the tensors that it is made of."""
        return self.layout.split(x)

    def parts(self) -> Iterable[Part]:
        """All rows in one part; none where other processes have them all."""
        if self.rows == 0:
            return
        yield Part(
            self._residuals,
            self._run,
            random=self.draws.random,
            kept=self.draws.kept,
            leading=self.leading,
            through=self.through,
            loss=self.loss,
        )

    @property
    def losses(self) -> list[Bound]:
        """The loss of its own, if it has one."""
        return [] if self.loss is None else [self.loss]

    def results(self, params: Params) -> list[Any]:
        """What the closure returns at params, in one piece."""
        return [self._run(self.closure, params)]

    def with_loss(self, loss: Bound) -> "ClosureResidual":
        """The same, of outputs with targets."""
        return ClosureResidual(
            self.layout,
            self.swap,
            self.closure,
            self.rows,
            self.draws,
            self.leading,
            self.through,
            loss,
        )

    def replay(self) -> AbstractContextManager[None]:
        """A context for each evaluation: all of a step draw the same random numbers."""
        return self.draws()

    def take(self, places: Tensor) -> "ClosureResidual":
        """There is one problem."""
        return self

    def _run(self, other: Callable[..., Any], params: Params) -> Any:
        return self.swap(self.layout.twins(params), other)

    def _residuals(self, params: Params) -> Tensor:
        """All residuals (m,)."""
        with torch.enable_grad():  # a physics-informed closure differentiates its network by itself
            result = self.swap(self.layout.twins(params), self.closure)
            residual = outputs.flat(_same_kind(result, self.loss is not None))
        if residual.shape[0] != self.rows:
            raise RowsChangedError(
                f"the closure returned {residual.shape[0]} residuals after {self.rows} at the "
                "first evaluation of this step. All evaluations within a step must see the same "
                "data: draw random points or batches outside the closure, or pass the batch as "
                "step(closure, *batch)."
            )
        return residual


class SampleResidual:
    """step(closure, *batch): rows are independent per sample and stream in chunks.

    Args:
        layout: how x is made of the parameters.
        swap: calls the closure at other values of them.
        closure: takes a batch (some of the samples) and returns one row of residuals for each.
        samples: the batch.
        chunk: samples of one part.
        per_sample: k, residuals of one sample.
        replay: of the random numbers of a step, shared by all terms.
        through: calls its evaluations, in compiled form where there is one; None: they are plain.
        loss: of these rows, if they are outputs with targets.
        reads: whether they are, and targets are read with each evaluation.
        weight: samples that each of them stands for, where the others are left out.
    """

    def __init__(
        self,
        layout: Layout,
        swap: Swap,
        closure: Callable[..., Any],
        samples: Samples,
        chunk: int,
        per_sample: int,
        replay: Replay,
        through: Through | None = None,
        loss: Bound | None = None,
        *,
        reads: bool = False,
        weight: float = 1.0,
    ) -> None:
        self.layout = layout
        self.swap = swap
        self.closure = closure
        self.samples = samples
        self.weight = weight
        self.chunk = chunk
        self.per_sample = per_sample
        self.draws = replay
        self.through = through
        self.loss = loss
        self.reads = reads
        plain = per_sample == 1 and loss is None and not reads and not replay.kept
        self.by_rows = LearnedRows(self._of_few) if plain and through is None else None
        self.known: dict[int, Read] = {}  # targets that were read, by the first sample of a chunk

    @property
    def rows(self) -> int:
        """One row block of k for each sample."""
        return self.samples.count * self.per_sample

    def params(self, x: Tensor) -> Params:
        """x as the tensors that it is made of."""
        return self.layout.split(x)

    def parts(self) -> Iterable[Part]:
        """Chunks of samples, in order."""
        for chosen in ranges(self.samples.count, self.chunk):
            tensors, k = self.samples.take(chosen), self.per_sample
            rows = slice(chosen.start * k, chosen.stop * k)
            read = self._reading(chosen.start, tensors)
            yield Part(
                partial(self._residuals, tensors=tensors, read=read),
                partial(self.run, tensors=tensors),
                sample=self._of_one,
                samples=tensors,
                random=self.draws.random,
                kept=self.draws.kept,
                whole=self.chunk >= self.samples.count,
                weight=self.weight,
                through=self.through and self.through.beside(tensors),
                by_rows=None if self.draws.random else self.by_rows,
                row_data=tensors,
                loss=read or (self.loss and self.loss.some(rows)),
            )

    @property
    def losses(self) -> list[Bound | Read]:
        """The loss of its own, if it has one, chunk by chunk where targets are read."""
        if self.reads:
            return [part.loss for part in self.parts() if isinstance(part.loss, Read)]
        return [] if self.loss is None else [self.loss]

    def results(self, params: Params) -> list[Any]:
        """What the closure returns at params, chunk by chunk."""
        return [self.run(self.closure, params, part.samples) for part in self.parts()]

    def with_loss(self, loss: Bound) -> "SampleResidual":
        """The same, of outputs with targets."""
        return self._of(self.samples, self.draws, loss)

    def reading(self) -> "SampleResidual":
        """The same, of outputs whose targets are read with the first evaluation."""
        return self._of(self.samples, self.draws, None, reads=True)

    def replay(self) -> AbstractContextManager[None]:
        """A context for each evaluation: all of a step draw the same random numbers."""
        return self.draws()

    def take(self, places: Tensor) -> "SampleResidual":
        """There is one problem."""
        return self

    def subset(self, chosen: Tensor) -> "SampleResidual":
        """The residual of some of the samples, by index, which draws random numbers of its own."""
        some = self.samples.subset(chosen)
        replay = Replay(self.draws.device, self.draws.random, self.draws.kept)
        loss = self.loss and self.loss.of(chosen, self.per_sample)
        weight = self.weight * self.samples.count / max(1, some.count)
        return self._of(some, replay, loss, reads=self.reads, weight=weight)

    def _of(
        self,
        samples: Samples,
        replay: Replay,
        loss: Bound | None,
        *,
        reads: bool = False,
        weight: float = 1.0,
    ) -> "SampleResidual":
        """The same closure of other samples, or with another loss."""
        return SampleResidual(
            self.layout,
            self.swap,
            self.closure,
            samples,
            self.chunk,
            self.per_sample,
            replay,
            self.through,
            loss,
            reads=reads,
            weight=weight,
        )

    def _reading(self, start: int, tensors: Sequence[Tensor]) -> Read | None:
        """The loss of a chunk, whose targets are read once; None: they are not read so."""
        if not self.reads:
            return None
        read = Read(partial(self._read, tensors), self.per_sample)
        return self.known.setdefault(start, read)

    def _residuals(
        self, params: Params, tensors: Sequence[Tensor], read: Read | None = None
    ) -> Tensor:
        """Residuals (s · k,) of s samples."""
        return self.evaluated(params, tensors, read)[0].reshape(-1)

    def evaluated(
        self, params: Params, tensors: Sequence[Tensor], read: Read | None = None
    ) -> tuple[Tensor, Any]:
        """Residuals (s, k) of s samples, and what the closure returned."""
        with torch.enable_grad():  # a physics-informed closure differentiates its network by itself
            result = self.swap(
                self.layout.twins(params), self.closure, *self.samples.arguments(tensors)
            )
        _same_kind(result, self.reads or self.loss is not None)
        # within a transform of torch.func targets are not what they are outside of it
        if read is not None and not torch._C._are_functorch_transforms_active():
            read.note(result)
        rows = outputs.by_sample(result, tensors[0].shape[0])
        if rows.shape[1] != self.per_sample:
            raise RowsChangedError(
                f"the closure returned {rows.shape[1]} residuals for each sample after "
                f"{self.per_sample} before. Each sample needs the same number in every evaluation."
            )
        return rows, result

    def _read(self, tensors: Sequence[Tensor]) -> Any:
        """What the closure returns at the parameters as they are, without a trace of the call."""
        replay = Replay(self.draws.device, self.draws.random, self.draws.kept)
        with replay(), torch.enable_grad():
            result = self.run(self.closure, self.layout.split(self.layout.flatten()), tensors)
        replay.rewind()
        return result

    def _of_few(self, params: Params, tensors: Sequence[Tensor]) -> Tensor:
        """Residuals of some samples."""
        return self._residuals(params, tensors)

    def _of_one(self, params: Params, *sample: Tensor) -> Tensor:
        """Residuals (k,) of one sample."""
        return self._residuals(params, [t[None] for t in sample])

    def run(self, other: Callable[..., Any], params: Params, tensors: Sequence[Tensor]) -> Any:
        """Call as the closure is called, at params and on these samples."""
        return self.swap(self.layout.twins(params), other, *self.samples.arguments(tensors))
