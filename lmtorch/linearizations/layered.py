"""J by the factors of layers, for fewer residuals than parameters.

Rows come as `LayerRows` where a source knows them so, and J is never written out. Rows of another
kind, and variables that are held at a bound, make it a matrix, `Dense`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ..distributed.processes import Processes
from ..rows.layers import LayerRows, joined
from ..rows.matrix import DenseRows
from .base import Exact, Prior, Sums, Values, shifted_rows
from .dense import Dense, DenseAccumulator, no_sample


class Layered(NamedTuple):
    """r, and J as its layers know it; a prior's rows stand beside them."""

    residual: Tensor  # (m,)
    rows: LayerRows
    prior: Prior | None
    cost: Tensor  # ()
    gradient: Tensor  # (n,)
    column_norms: Tensor  # (n,)
    values: Values = None

    @property
    def normal(self) -> Tensor:
        """JᵀJ with the prior's share, (n, n)."""
        return self.dense().normal

    def squared_length(self, step: Tensor) -> Tensor:
        """‖J s‖², ()."""
        length = self.rows.times(step).square().sum()
        return length if self.prior is None else length + (self.prior.root * step).square().sum()

    def freeze(self, free: Tensor) -> Dense:
        """Zero columns and gradient outside `free`."""
        return self.dense().freeze(free)

    def shifted(self, shift: Tensor) -> Self:
        """Residuals and gradient where the linear model comes to by `shift` (n,)."""
        shifted: Self = shifted_rows(self, shift)
        return shifted

    def dense(self) -> Dense:
        """The same with J written out."""
        return Dense(
            self.residual, self.rows.dense(), self.prior, self.cost, self.gradient,
            self.column_norms, self.values,
        )  # fmt: skip


@dataclass(frozen=True)
class LayeredForm:
    """Rows by the factors of layers; D and the prior must be one number in each parameter."""

    sampled: ClassVar[bool] = False

    def entries(self, n: int, m: int) -> int:
        """The matrix JJᵀ that is solved with, m²."""
        return m * m

    def described(self, n: int, m: int) -> str:
        """JJᵀ with its shape."""
        return f"matrix of the residuals ({m} x {m})"

    def accumulator(self, shape: tuple[int, ...], rows: int, like: Tensor) -> "LayeredAccumulator":
        """Blocks of rows, kept."""
        return LayeredAccumulator(shape, rows, like)


class LayeredAccumulator:
    """Keeps what comes, and writes J out if one block is no more than a matrix."""

    kinds = (LayerRows, DenseRows)
    sums: Sums = ()  # nothing is summed over rows

    def __init__(self, shape: tuple[int, ...], rows: int, like: Tensor) -> None:
        self.shape = shape
        self.count = rows
        self.like = like
        self.layered: list[tuple[Tensor, LayerRows]] = []
        self.whole: DenseAccumulator | None = None

    def workspace(self, rows: int) -> Tensor:
        """The next rows of a matrix."""
        return self._written().workspace(rows)

    def add(self, residual: Tensor, rows: LayerRows | DenseRows) -> None:
        """Keep a block."""
        if isinstance(rows, LayerRows) and self.whole is None:
            dtype = self.like.dtype
            self.layered.append((residual.to(dtype), rows.to(dtype)))
        else:
            matrix = rows if isinstance(rows, DenseRows) else DenseRows(rows.dense())
            self._written().add(residual, matrix)

    def _written(self) -> DenseAccumulator:
        """The accumulator of a matrix, with all rows so far."""
        if self.whole is None:
            *batch, n = self.shape
            self.whole = DenseAccumulator(
                self.like.new_empty(*batch, self.count, n), self.like.new_empty(*batch, self.count)
            )
            for residual, rows in self.layered:
                self.whole.add(residual, DenseRows(rows.dense()))
            self.layered.clear()
        return self.whole

    def share(self, processes: Processes) -> Callable[[], None]:
        """Take the factors of all processes, which are small; or rows, where one has no factors."""
        written = processes.gathered("kind of rows", lambda: self.whole is not None)
        if any(written):
            return self._written().share(processes)

        def own() -> list[tuple[Tensor, LayerRows]]:
            return tree_map_only(Tensor, lambda t: t.cpu(), self.layered)

        found = processes.gathered("factors", own)
        every = [pair for pairs in found for pair in pairs]
        self.layered = tree_map_only(Tensor, lambda t: t.to(self.like.device), every)
        return lambda: None

    def finish(
        self, cost: Tensor, prior: Prior | None, exact: Exact | None = None, values: Values = None
    ) -> Layered | Dense:
        """Jᵀr and the column norms, once."""
        if self.whole is not None or not self.layered:
            return self._written().finish(cost, prior, exact, values)
        if exact is not None:
            raise no_sample()
        residual = torch.cat([part for part, _ in self.layered])
        blocks = [block for _, rows in self.layered for block in rows.blocks]
        rows = LayerRows(self.shape[-1], joined(blocks), self.like)
        gradient, norms = rows.transposed_times(residual), rows.column_norms
        if prior is not None:
            gradient = gradient + prior.root * prior.residual
            norms = (norms.square() + prior.root.square()).sqrt()
        return Layered(residual, rows, prior, cost, gradient, norms, values)
