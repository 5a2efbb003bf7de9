"""Some rows of J as a preconditioner: their JₛᵀJₛ, inverted in s × s by Woodbury's identity.

Of many samples a few hundred know most of the directions that all of them bend in. With as many
rows as there are the step is exact in one iteration, that of the dual equations. Of many processes
each gives a share of its rows to all.

Reference: Roosta-Khorasani & Mahoney, Sub-sampled Newton methods (2019); Woodbury (1950); Xu,
Roosta-Khorasani & Mahoney, Newton-type methods for non-convex optimization under inexact Hessian
information (2020).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from .._errors import InputError
from ..arrays import where
from ..linearizations.products import ByProducts
from ..rows.base import Rows
from ..rows.factors import Weight, taken
from ..rows.layers import LayerBlock, LayerRows, joined
from ..rows.matrix import DenseRows
from .preconditioners import Divide

WORTH = 2  # iterations whose products the equations of the rows may cost
FEWEST = 64  # rows that are worth the calls
WRITTEN = 2**20  # numbers up to which the rows are written out: one product, not one a layer
SAFE = 10  # units of round-off of the longest row, below which λ is not seen


@dataclass(frozen=True)
class RowSample:
    """A random part of the rows, where rows or their factors are known.

    Args:
        rows: how many. Default: as many as cost about as much as two iterations; where a step takes
            many iterations, more of them.
        seed: of the choice.
    """

    rows: int | None = None
    seed: int = 0

    def prepare(self, model: ByProducts, scale: Tensor) -> "Woodbury":
        """The rows, and their products with each other.

        Raises:
            InputError: rows are known by products alone.
        """
        if not known(model):
            raise InputError(
                "RowSample needs rows, or their factors from linear layers on samples, "
                "step(closure, *batch): here only products are known. Leave preconditioner out, or "
                "choose Nystrom()."
            )
        m = _total(model)
        count = self.rows or worth(WORTH, m, scale.shape[-1])
        return Woodbury(model, scale, self, min(count, m))


def known(model: ByProducts) -> bool:
    """Whether the rows of all processes are kept by them, as numbers or as factors."""
    here = isinstance(model.blocks, tuple) and all(
        isinstance(rows, LayerRows | DenseRows) for rows in model.blocks
    )
    if model.across is None:
        return here
    _, told = model.across.telling("kind of rows", lambda: here, lambda own: [float(own)], 1)
    return bool(told.all())


def _total(model: ByProducts) -> int:
    """Rows of all processes."""

    def own() -> int:
        return sum(rows.shape[-2] for rows in model.blocks)

    if model.across is None:
        return own()
    _, told = model.across.telling("rows", own, lambda rows: [float(rows)], 1)
    return int(told.sum())


def worth(iterations: float, m: int, n: int) -> int:
    """Rows s whose equations, 4 s²√n + s³/3, cost as much as so many iterations, of 4 m n each."""
    target = 4.0 * iterations * m * n
    low, high = FEWEST, m
    while low < high:
        middle = (low + high + 1) // 2
        if 4 * middle**2 * math.sqrt(n) + middle**3 / 3 <= target:
            low = middle
        else:
            high = middle - 1
    return low


class Woodbury:
    """M = JₛᵀJₛ, scaled to all rows, with the prior's share."""

    def __init__(self, model: ByProducts, scale: Tensor, choice: RowSample, count: int) -> None:
        self.model, self.scale, self.choice, self.count = model, scale, choice, count
        self.total = _total(model)
        self.rows = _sample(model, count / self.total, choice.seed)
        self.gram: Tensor | None = None  # Jₛ D⁻² Jₛᵀ
        self.decay = _multiple(model, scale)  # w where W = w D²
        small = sum(rows.shape[-2] for rows in self.rows) * scale.shape[-1] <= WRITTEN
        self.written = [DenseRows(rows.dense()) for rows in self.rows] if small else self.rows

    def grown(self, iterations: int) -> "Woodbury | None":
        """More rows, as many as the iterations that were made have cost."""
        if self.choice.rows is not None or self.count == self.total:
            return None
        count = min(self.total, worth(WORTH + iterations, self.total, self.scale.shape[-1]))
        if count < 1.5 * self.count:
            return None
        return Woodbury(self.model, self.scale, self.choice, count)

    def at(self, damping: Tensor) -> Divide:
        """w ↦ B⁻¹(w − Jₛᵀ(I + Jₛ B⁻¹ Jₛᵀ)⁻¹ Jₛ B⁻¹ w) for B = λD² + W, with the prior's W."""
        squares = self._level(self.scale.square())
        wide = damping[..., None].to(squares.dtype)
        if self.gram is None:
            self.gram = self._products(squares)
        largest = self.gram.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True)
        wide = torch.maximum(wide, SAFE * torch.finfo(squares.dtype).eps * largest)
        if self.decay is not None:
            wide = wide + self.decay
            divisor, matrix = wide * squares, self.gram / wide[..., None]
        else:  # the prior is of another shape than D²
            assert self.model.prior is not None
            divisor = self._level(wide * squares + self.model.prior.root.square())
            matrix = self._products(divisor)
        matrix.diagonal(dim1=-2, dim2=-1).add_(1)
        triangle, _ = torch.linalg.cholesky_ex(matrix)
        free = self.model.free

        def divide(w: Tensor) -> Tensor:
            w = w / divisor
            moved = torch.cat([rows.times(w) for rows in self.written], -1)
            moved = torch.cholesky_solve(moved[..., None], triangle)[..., 0]
            shares = moved.split([rows.shape[-2] for rows in self.rows], -1)
            for rows, share in zip(self.written, shares, strict=True):
                w = w - rows.transposed_times(share) / divisor
            return w if free is None else where(free, w, 0.0)

        return divide

    def _products(self, squares: Tensor) -> Tensor:
        """Jₛ diag(squares)⁻¹ Jₛᵀ."""
        if len(self.rows) == 1 and isinstance(self.rows[0], LayerRows | DenseRows):
            return self.rows[0].gram(squares)
        scaled = torch.cat([rows.dense() for rows in self.rows], -2) / squares.sqrt()[..., None, :]
        return scaled @ scaled.mT

    def _level(self, squares: Tensor) -> Tensor:
        """D² with one number in each parameter that rows know by factors, as these need it."""
        segments = {
            segment for rows in self.rows if isinstance(rows, LayerRows)
            for block in rows.blocks for segment in _segments(block)
        }  # fmt: skip
        if not segments:
            return squares
        found = squares.clone()
        for start, stop in segments:
            found[start:stop] = squares[start:stop].mean()
        return found


def _multiple(model: ByProducts, scale: Tensor) -> Tensor | float | None:
    """w where the prior's W is w D², as one weight decay beside D = I has it; None: it is not."""
    if model.prior is None:
        return 0.0
    shares = (model.prior.root / scale).square()
    low, high = torch.aminmax(shares)
    return high if bool(low == high) else None


def _segments(block: LayerBlock) -> list[tuple[int, int]]:
    """Columns of the parameters that a block knows by factors or by their numbers."""
    found = []
    for factor in block.factors:
        found.append((factor.start, factor.start + factor.columns))
        if isinstance(factor, Weight) and factor.bias is not None:
            found.append((factor.bias, factor.bias + factor.left.shape[-1]))
    return found


def _sample(model: ByProducts, share: float, seed: int) -> list[Rows]:
    """A share of the rows of each process, the same on all of them."""
    across = model.across
    generator = torch.Generator().manual_seed(seed + (0 if across is None else across.rank))

    def own() -> list[Rows]:
        return [
            _some(rows, share, model.factor, generator)
            for rows in model.blocks
            if rows.shape[-2] > 0
        ]

    if across is None:
        return own()
    found = across.gathered("sample of rows", lambda: tree_map_only(Tensor, _sent, own()))
    every = tree_map_only(
        Tensor, lambda t: t.to(model.gradient.device), [rows for some in found for rows in some]
    )
    layers = [rows for rows in every if isinstance(rows, LayerRows)]
    if not layers or len(layers) < len(every):
        return every
    blocks = joined([block for rows in layers for block in rows.blocks])
    return [layers[0]._replace(blocks=blocks)]


def _sent(tensor: Tensor) -> Tensor:
    """A tensor without what else its storage holds, which would be sent with it."""
    return tensor.detach().cpu().clone()


def _some(rows: Rows, share: float, factor: float, generator: torch.Generator) -> Rows:
    """A share of the rows, scaled so that their JᵀJ stands for that of all."""
    if isinstance(rows, DenseRows):
        chosen, root = _chosen(rows.shape[-2], share, factor, generator)
        return DenseRows(root * rows.matrix[..., chosen.to(rows.matrix.device), :])
    assert isinstance(rows, LayerRows)
    return rows._replace(
        like=rows.like.new_empty(0),
        blocks=tuple(
            _some_of_block(block, rows.like, share, factor, generator)
            for block in rows.blocks
            if block.samples > 0
        ),
    )


def _some_of_block(
    block: LayerBlock, like: Tensor, share: float, factor: float, generator: torch.Generator
) -> LayerBlock:
    """A share of the samples of a block, with all residuals of each."""
    chosen, root = _chosen(block.samples, share, factor, generator)
    chosen = chosen.to(like.device)
    some = block._replace(
        samples=len(chosen), factors=tuple(taken(factor, chosen) for factor in block.factors)
    )
    return some.scaled(like.new_full((some.rows,), root))


def _chosen(
    count: int, share: float, factor: float, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Which of so many, at least one, and the root of what each stands for."""
    some = max(1, math.ceil(share * count))
    chosen = torch.randperm(count, generator=generator, device="cpu")[:some].sort().values
    return chosen, math.sqrt(factor * count / some)
