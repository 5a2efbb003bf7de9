"""Rows known by the factors that layers give them, never written out: for wide networks.

In the weight W (p × q) of a linear layer the row of residual o of sample s is a sum over the uses
of the layer, Σ_t g_sot a_stᵀ, of the gradients g in its outputs and of its inputs a. What the
equations of fewer residuals than parameters need of such rows are inner products of two of them,
J v and Jᵀw, and all three follow from the factors: JJᵀ = Σ_layers (GGᵀ) ∘ (AAᵀ + 1), with the bias
as an input that is one, takes p + q products for each pair of rows instead of p q, and G and A in
the place of J (`inner.py`).

Reference: Dangel, Tatzel & Hennig, ViViT: Curvature access through the generalized Gauss–Newton's
low-rank structure (2022), §2; Novak, Sohl-Dickstein & Schoenholz, Fast finite width neural tangent
kernel (2022), §3.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from .factors import Factor, Plain, Weight, pieces, taken, together
from .inner import gram, products


class LayerBlock(NamedTuple):
    """Rows of k residuals for each of s samples; columns that are not named are zero."""

    samples: int
    residuals: int  # k
    factors: tuple[Factor, ...]  # of different columns

    @property
    def rows(self) -> int:
        """Rows in all, s k."""
        return self.samples * self.residuals

    def scaled(self, root: Tensor) -> "LayerBlock":
        """R times these rows: only what belongs to a residual is scaled, not the inputs."""
        return self._replace(factors=tuple(factor.scaled(root) for factor in self.factors))

    def to(self, dtype: torch.dtype) -> "LayerBlock":
        """The rows in another dtype."""
        return self._replace(factors=tuple(factor.to(dtype) for factor in self.factors))

    def like(self, other: "LayerBlock") -> bool:
        """Whether the samples of both can stand in one block."""
        return (
            self.residuals == other.residuals
            and len(self.factors) == len(other.factors)
            and all(a.like(b) for a, b in zip(self.factors, other.factors, strict=True))
        )


class LayerRows(NamedTuple):
    """Rows in blocks of samples that are alike: the terms of a problem may differ."""

    n: int  # columns
    blocks: tuple[LayerBlock, ...]
    like: Tensor  # of their dtype, on their device

    @property
    def shape(self) -> torch.Size:
        """(rows, n)."""
        return torch.Size((sum(block.rows for block in self.blocks), self.n))

    @property
    def column_norms(self) -> Tensor:
        """‖J e_j‖, (n,)."""
        squares = self.like.new_zeros(self.n)
        for block in self.blocks:
            for factor in block.factors:
                factor.add_squares_(squares)
        return squares.sqrt_()

    def scaled(self, root: Tensor) -> Self:
        """R J: the left factors are new, the right ones shared."""
        if len(self.blocks) == 1:
            return self._replace(blocks=(self.blocks[0].scaled(root),))
        each = [block.samples if root.ndim > 1 else block.rows for block in self.blocks]
        pairs = zip(self.blocks, root.split(each), strict=True)
        return self._replace(blocks=tuple(block.scaled(share) for block, share in pairs))

    def to(self, dtype: torch.dtype) -> Self:
        """The rows, and all that is made of them, in another dtype."""
        blocks = tuple(block.to(dtype) for block in self.blocks)
        return self._replace(blocks=blocks, like=self.like.to(dtype))

    def times(self, v: Tensor) -> Tensor:
        """J v, (rows,)."""
        found = []
        for block in self.blocks:
            total = v.new_zeros(block.samples, block.residuals)
            for factor in block.factors:
                total += factor.times(v)
            found.append(total.flatten())
        return torch.cat(found)

    def transposed_times(self, w: Tensor) -> Tensor:
        """Jᵀw, (n,)."""
        found = self.like.new_zeros(self.n)
        shares = w.split([block.rows for block in self.blocks])
        for block, share in zip(self.blocks, shares, strict=True):
            for factor in block.factors:
                factor.add_transposed_times_(found, share.view(block.samples, block.residuals))
        return found

    def dense(self) -> Tensor:
        """All entries, (rows, n)."""
        matrix = self.like.new_zeros(self.shape)
        shares = matrix.split([block.rows for block in self.blocks])
        for block, rows in zip(_biases_apart(self.blocks), shares, strict=True):
            for factor in block.factors:
                for some in pieces(factor.columns, factor.line, block.rows, rows.device):
                    place = slice(factor.start + some.start, factor.start + some.stop)
                    rows[:, place] = factor.written(some).flatten(0, 1)
        return matrix

    def gram(self, squares: Tensor) -> Tensor:
        """J D⁻² Jᵀ, (rows, rows), for a D that is one number in each parameter.

        Args:
            squares: D², (n,).
        """
        blocks = _biases_alike(self.blocks)
        return gram(
            [block.factors for block in blocks],
            [block.rows for block in blocks],
            squares,
            self.like,
        )

    def products(self, others: Self, squares: Tensor) -> Tensor:
        """J D⁻² J′ᵀ, (rows, rows of the others), for a D that is one number in each parameter.

        Args:
            others: J′, rows of the same columns.
            squares: D², (n,).
        """
        count = len(self.blocks)
        every = _biases_alike((*self.blocks, *others.blocks))
        one, other = every[:count], every[count:]
        return products(
            [block.factors for block in one],
            [block.factors for block in other],
            ([block.rows for block in one], [block.rows for block in other]),
            squares,
            self.like,
        )

    def squared_lengths(self, squares: Tensor) -> Tensor:
        """The diagonal of J D⁻² Jᵀ, (rows,)."""
        found = []
        for block in self.blocks:
            total = self.like.new_zeros(block.samples, block.residuals)
            for factor in block.factors:
                total += factor.squared_lengths(squares)
            found.append(total.flatten())
        return torch.cat(found)

    def of_samples(self, chosen: Tensor) -> tuple[Self, Tensor]:
        """The rows of some samples, and their places (rows,).

        Args:
            chosen: numbers of samples, counted through all blocks, in order.
        """
        blocks, places, before, row = [], [], 0, 0
        for block in self.blocks:
            own = chosen[(chosen >= before) & (chosen < before + block.samples)] - before
            if len(own):
                few = tuple(taken(factor, own) for factor in block.factors)
                blocks.append(block._replace(samples=len(own), factors=few))
                first = row + own * block.residuals
                places.append((first[:, None] + torch.arange(block.residuals)).flatten())
            before, row = before + block.samples, row + block.rows
        return self._replace(blocks=tuple(blocks)), torch.cat(places)


def _biases_alike(blocks: Sequence[LayerBlock]) -> tuple[LayerBlock, ...]:
    """The blocks with a bias beside its weight in all of them or in none.

    A layer that is applied once in one term may be applied to derivatives in another.
    """
    weights: dict[int, set[int]] = {}
    for block in blocks:
        for factor in block.factors:
            if isinstance(factor, Weight) and factor.bias is not None:
                weights.setdefault(factor.bias, set()).add(factor.start)
    apart = {factor.start for block in blocks for factor in block.factors}
    apart |= {bias for bias, starts in weights.items() if len(starts) > 1}
    return tuple(_bias_apart(block, apart) for block in blocks)


def _biases_apart(blocks: Sequence[LayerBlock]) -> tuple[LayerBlock, ...]:
    """The blocks with all biases as columns of their own."""
    every = {f.bias for block in blocks for f in block.factors if isinstance(f, Weight)}
    return tuple(_bias_apart(block, every) for block in blocks)


def _bias_apart(block: LayerBlock, apart: set[int] | set[int | None]) -> LayerBlock:
    """The block with some biases as columns of their own."""
    found: list[Factor] = []
    for factor in block.factors:
        if isinstance(factor, Weight) and factor.bias is not None and factor.bias in apart:
            found += [factor._replace(bias=None), Plain(factor.bias, factor.left[:, :, 0])]
        else:
            found.append(factor)
    return block._replace(factors=tuple(found))


def joined(blocks: Sequence[LayerBlock]) -> tuple[LayerBlock, ...]:
    """The blocks with those that follow each other and are alike as one."""
    found: list[list[LayerBlock]] = []
    for block in blocks:
        if found and found[-1][0].like(block):
            found[-1].append(block)
        else:
            found.append([block])
    return tuple(one[0] if len(one) == 1 else _together(one) for one in found)


def _together(blocks: Sequence[LayerBlock]) -> LayerBlock:
    """Blocks that are alike as one block."""
    factors = zip(*(block.factors for block in blocks), strict=True)
    return LayerBlock(
        sum(block.samples for block in blocks),
        blocks[0].residuals,
        tuple(map(together, factors)),
    )
