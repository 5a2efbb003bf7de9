"""Rows known by the factors that layers give them, never written out: for wide networks.

In the weight W (p × q) of a linear layer the row of residual o of sample s is a sum over the uses
of the layer, Σ_t g_sot a_stᵀ, of the gradients g in its outputs and of its inputs a. What the
equations of fewer residuals than parameters need of such rows are inner products of two of them,

    ⟨Σ_t g_t a_tᵀ, Σ_u g′_u a′_uᵀ⟩ = Σ_tu (gᵀg′)_tu (aᵀa′)_tu,

and so JJᵀ = Σ_layers (GGᵀ) ∘ (AAᵀ + 1), with the bias as an input that is one, takes p + q products
for each pair of rows instead of p q, and G and A in the place of J.

Reference: Dangel, Tatzel & Hennig, ViViT: Curvature access through the generalized Gauss–Newton's
low-rank structure (2022), §2; Novak, Sohl-Dickstein & Schoenholz, Fast finite width neural tangent
kernel (2022), §3.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from .._symmetric import add_gram_, mirror_
from .base import scale

# an entry of an elementwise product costs as much as so many products within a matrix product
PASSES = 40
ENTRIES = 2**20  # numbers of a block that is made on the way, so that it stays in cache


class Weight(NamedTuple):
    """Columns of a weight (p, q): Σ_t left[s, o, t] right[s, t]ᵀ for residual o of sample s."""

    start: int  # the first column
    left: Tensor  # (s, k, t, p)
    right: Tensor  # (s, t, q)
    bias: int | None = None  # the first column of a bias that is used with it, once: t = 1

    @property
    def size(self) -> int:
        """p q."""
        return self.left.shape[-1] * self.right.shape[-1]


class Plain(NamedTuple):
    """Columns of which nothing is known but their numbers."""

    start: int
    matrix: Tensor  # (s, k, c)


class LayerBlock(NamedTuple):
    """Rows of k residuals for each of s samples; columns that are not named are zero."""

    samples: int
    residuals: int  # k
    weights: tuple[Weight, ...]
    plain: tuple[Plain, ...]

    @property
    def rows(self) -> int:
        """Rows in all, s k."""
        return self.samples * self.residuals

    def scaled(self, root: Tensor) -> "LayerBlock":
        """R times these rows: only what belongs to a residual is scaled, not the inputs."""
        return self._replace(
            weights=tuple(
                w._replace(left=scale(w.left.flatten(0, 1).flatten(1), root).view_as(w.left))
                for w in self.weights
            ),
            plain=tuple(
                p._replace(matrix=scale(p.matrix.flatten(0, 1), root).view_as(p.matrix))
                for p in self.plain
            ),
        )

    def to(self, dtype: torch.dtype) -> "LayerBlock":
        """The rows in another dtype."""
        return self._replace(
            weights=tuple(
                w._replace(left=w.left.to(dtype), right=w.right.to(dtype)) for w in self.weights
            ),
            plain=tuple(p._replace(matrix=p.matrix.to(dtype)) for p in self.plain),
        )

    def structure(self) -> tuple[object, ...]:
        """What is the same in blocks whose samples can stand in one block."""
        weights = tuple((w.start, w.bias, w.left.shape[1:]) for w in self.weights)
        return self.residuals, weights, tuple(p.start for p in self.plain)


class LayerRows(NamedTuple):
    """Rows in blocks of samples that are alike: the terms of a problem may differ."""

    n: int  # columns
    blocks: tuple[LayerBlock, ...]

    @property
    def shape(self) -> torch.Size:
        """(rows, n)."""
        return torch.Size((sum(block.rows for block in self.blocks), self.n))

    @property
    def like(self) -> Tensor:
        """A tensor on their device and of their dtype."""
        block = self.blocks[0]
        return block.weights[0].left if block.weights else block.plain[0].matrix

    @property
    def column_norms(self) -> Tensor:
        """‖J e_j‖, (n,)."""
        squares = self.like.new_zeros(self.n)
        for block in self.blocks:
            for weight in block.weights:
                _add_squares_(squares, weight)
            for start, matrix in block.plain:
                squares[start : start + matrix.shape[-1]] += matrix.square().sum((0, 1))
        return squares.sqrt_()

    def scaled(self, root: Tensor) -> Self:
        """R J: the left factors are new, the right ones shared."""
        if len(self.blocks) == 1:
            return self._replace(blocks=(self.blocks[0].scaled(root),))
        each = [block.samples if root.ndim > 1 else block.rows for block in self.blocks]
        pairs = zip(self.blocks, root.split(each), strict=True)
        return self._replace(blocks=tuple(block.scaled(share) for block, share in pairs))

    def times(self, v: Tensor) -> Tensor:
        """J v, (rows,)."""
        return torch.cat([_times(block, v) for block in self.blocks])

    def transposed_times(self, w: Tensor) -> Tensor:
        """Jᵀw, (n,)."""
        found = self.like.new_zeros(self.n)
        shares = w.split([block.rows for block in self.blocks])
        for block, share in zip(self.blocks, shares, strict=True):
            _add_transposed_times_(found, block, share.view(block.samples, block.residuals))
        return found

    def dense(self) -> Tensor:
        """All entries, (rows, n)."""
        matrix = self.like.new_zeros(self.shape)
        begin = 0
        for block in self.blocks:
            end = begin + block.rows
            for weight in block.weights:
                for columns, part in _written(weight):
                    matrix[begin:end, columns] = part
                if weight.bias is not None:
                    p = weight.left.shape[-1]
                    matrix[begin:end, weight.bias : weight.bias + p] = weight.left.flatten(0, 2)
            for start, part in block.plain:
                matrix[begin:end, start : start + part.shape[-1]] = part.flatten(0, 1)
            begin = end
        return matrix

    def gram(self, squares: Tensor) -> Tensor:
        """J D⁻² Jᵀ, (rows, rows), for a D that is one number in each parameter.

        Args:
            squares: D², (n,).
        """
        rows = self.shape[0]
        gram = self.like.new_zeros(rows, rows)
        alike = self._replace(blocks=_biases_alike(self.blocks))
        for start in sorted({w.start for block in alike.blocks for w in block.weights}):
            alike._add_weight_(gram, start, squares)
        for start in sorted({p.start for block in alike.blocks for p in block.plain}):
            parts = [_plain_of(block, start) for block in alike.blocks]
            columns = next(part.shape[-1] for part in parts if part is not None)
            alike._add_columns_(gram, parts, columns, squares[start])
        mirror_(gram)
        return gram

    def _add_weight_(self, gram: Tensor, start: int, squares: Tensor) -> None:
        """Add the share of a weight, and of a bias used with it, to the lower triangle."""
        found = [_weight_of(block, start) for block in self.blocks]
        pairs = [
            (block, weight) for block, weight in zip(self.blocks, found, strict=True)
            if weight is not None
        ]  # fmt: skip
        some = pairs[0][1]
        p, q = some.left.shape[-1], some.right.shape[-1]
        uses = sum(block.rows * weight.right.shape[1] for block, weight in pairs)
        rows = sum(block.rows for block, _ in pairs)
        if uses**2 * (p + q + PASSES) < rows**2 * p * q:
            self._add_by_factors_(gram, found, squares)
            return
        width = _at_once(rows * q)
        for begin in range(0, p, width):
            lines = slice(begin, min(begin + width, p))
            parts = [None if w is None else _lines(w, lines) for w in found]
            self._add_columns_(gram, parts, (lines.stop - begin) * q, squares[start])
        for bias in {w.bias for _, w in pairs} - {None}:
            parts = [w.left[:, :, 0] if w and w.bias is not None else None for w in found]
            self._add_columns_(gram, parts, p, squares[bias])

    def _add_columns_(
        self, gram: Tensor, parts: Sequence[Tensor | None], columns: int, square: Tensor
    ) -> None:
        """Add the share of columns that are written out, (s, k, c) of each block."""
        whole = [
            gram.new_zeros(block.rows, columns)
            if part is None
            else part.reshape(block.rows, columns)
            for part, block in zip(parts, self.blocks, strict=True)
        ]
        matrix = whole[0] if len(whole) == 1 else torch.cat(whole)
        add_gram_(gram, (matrix / square.sqrt()).mT)

    def _add_by_factors_(
        self, gram: Tensor, found: Sequence[Weight | None], squares: Tensor
    ) -> None:
        """Add the share of a weight as inner products of its factors."""
        ends = torch.tensor([block.rows for block in self.blocks]).cumsum(0).tolist()
        for i, (a, block) in enumerate(zip(found, self.blocks, strict=True)):
            if a is None:
                continue
            for j, b in enumerate(found[: i + 1]):
                if b is None:
                    continue
                below = gram[
                    ends[i] - block.rows : ends[i], ends[j] - self.blocks[j].rows : ends[j]
                ]
                _add_inner_(below, a, b, squares)


def _biases_alike(blocks: Sequence[LayerBlock]) -> tuple[LayerBlock, ...]:
    """The blocks with a bias beside its weight in all of them or in none.

    A layer that is applied once in one term may be applied to derivatives in another.
    """
    apart = {p.start for block in blocks for p in block.plain}
    return tuple(_bias_apart(block, apart) for block in blocks)


def _bias_apart(block: LayerBlock, apart: set[int]) -> LayerBlock:
    """The block with some biases as columns of their own."""
    moved = [w for w in block.weights if w.bias in apart]
    if not moved:
        return block
    return block._replace(
        weights=tuple(w._replace(bias=None) if w in moved else w for w in block.weights),
        plain=(*block.plain, *(Plain(int(w.bias or 0), w.left[:, :, 0]) for w in moved)),
    )


def joined(blocks: Sequence[LayerBlock]) -> tuple[LayerBlock, ...]:
    """The blocks with those that follow each other and are alike as one."""
    found: list[list[LayerBlock]] = []
    for block in blocks:
        if found and found[-1][0].structure() == block.structure():
            found[-1].append(block)
        else:
            found.append([block])
    return tuple(one[0] if len(one) == 1 else _together(one) for one in found)


def _together(blocks: Sequence[LayerBlock]) -> LayerBlock:
    """Blocks that are alike as one block."""
    weights = zip(*(block.weights for block in blocks), strict=True)
    plain = zip(*(block.plain for block in blocks), strict=True)
    return LayerBlock(
        sum(block.samples for block in blocks),
        blocks[0].residuals,
        tuple(
            ws[0]._replace(
                left=torch.cat([w.left for w in ws]), right=torch.cat([w.right for w in ws])
            )
            for ws in weights
        ),
        tuple(ps[0]._replace(matrix=torch.cat([p.matrix for p in ps])) for ps in plain),
    )


def _weight_of(block: LayerBlock, start: int) -> Weight | None:
    return next((w for w in block.weights if w.start == start), None)


def _plain_of(block: LayerBlock, start: int) -> Tensor | None:
    return next((p.matrix for p in block.plain if p.start == start), None)


def _at_once(entries: int) -> int:
    """How many things of so many entries are written out together."""
    return max(1, ENTRIES // max(1, entries))


def _lines(weight: Weight, lines: slice) -> Tensor:
    """The columns of some lines of a weight, written out, (s, k, lines · q)."""
    left = weight.left[..., lines]
    if left.shape[2] == 1:
        products = left[:, :, 0, :, None] * weight.right[:, :, None]
    else:
        products = left.mT @ weight.right[:, None]  # Σ_t g aᵀ
    return products.flatten(2)


def _written(weight: Weight) -> Iterator[tuple[slice, Tensor]]:
    """The columns of a weight, some at a time, and what stands in them (rows, columns)."""
    (s, k, _, p), q = weight.left.shape, weight.right.shape[-1]
    width = _at_once(s * k * q)
    for begin in range(0, p, width):
        lines = slice(begin, min(begin + width, p))
        columns = slice(weight.start + begin * q, weight.start + lines.stop * q)
        yield columns, _lines(weight, lines).flatten(0, 1)


def _add_squares_(squares: Tensor, weight: Weight) -> None:
    """Add the squares of the entries of each column."""
    once = weight.left.shape[2] == 1
    if once:  # of a product of two numbers the square is that of both
        left = weight.left.square().sum(1)[:, 0]  # (s, p)
        found = left.mT @ weight.right[:, 0].square()
        squares[weight.start : weight.start + weight.size] += found.flatten()
    else:
        for columns, part in _written(weight):
            squares[columns] += part.square().sum(0)
    if weight.bias is not None:
        p = weight.left.shape[-1]
        squares[weight.bias : weight.bias + p] += weight.left.square().sum((0, 1, 2))


def _times(block: LayerBlock, v: Tensor) -> Tensor:
    """J v of a block, (s k,)."""
    total = v.new_zeros(block.samples, block.residuals)
    for weight in block.weights:
        p, q = weight.left.shape[-1], weight.right.shape[-1]
        matrix = v[weight.start : weight.start + p * q].view(p, q)
        moved = weight.right @ matrix.mT  # (s, t, p)
        if weight.bias is not None:
            moved = moved + v[weight.bias : weight.bias + p]
        total += (weight.left * moved[:, None]).sum((-2, -1))
    for start, matrix in block.plain:
        total += matrix @ v[start : start + matrix.shape[-1]]
    return total.flatten()


def _add_transposed_times_(found: Tensor, block: LayerBlock, w: Tensor) -> None:
    """Add Jᵀw of a block, w (s, k)."""
    for weight in block.weights:
        left = (w[..., None, None] * weight.left).sum(1)  # (s, t, p)
        both = left.flatten(0, 1).mT @ weight.right.flatten(0, 1)
        found[weight.start : weight.start + weight.size] += both.flatten()
        if weight.bias is not None:
            found[weight.bias : weight.bias + left.shape[-1]] += left.sum((0, 1))
    for start, matrix in block.plain:
        found[start : start + matrix.shape[-1]] += (w[..., None] * matrix).sum((0, 1))


def _add_inner_(gram: Tensor, a: Weight, b: Weight, squares: Tensor) -> None:
    """Add ⟨rows of a, rows of b⟩ to `gram` (rows of a, rows of b), some samples at a time.

    Where both are the same, only the lower triangle is of use, and of blocks above it nothing is
    made.
    """
    s, k, t, _ = a.left.shape
    samples, residuals, u, _ = b.left.shape
    width = _at_once(k * t * samples * residuals * u)
    own = squares[a.start]
    for begin in range(0, s, width):
        some = slice(begin, min(begin + width, s))
        last = some.stop if a is b else samples
        left, right = b.left[:last].flatten(0, 2), b.right[:last].flatten(0, 1)
        outputs = a.left[some].flatten(0, 2) @ left.mT  # pairs of uses
        inputs = (a.right[some].flatten(0, 1) @ right.mT).div_(own)
        if a.bias is not None and b.bias is not None:
            inputs += 1 / squares[a.bias]
        count = some.stop - begin
        inputs = inputs.view(count, 1, t, last, 1, u)
        products = outputs.view(count, k, t, last, residuals, u) * inputs
        if t > 1 or u > 1:
            products = products.sum((2, 5))
        gram[begin * k : some.stop * k, : last * residuals] += products.reshape(
            count * k, last * residuals
        )
