"""Inner products of rows that are known by the factors of layers: JJᵀ, and J never made.

In the weight of a layer the inner product of two rows is

    ⟨Σ_t g_t a_tᵀ, Σ_u g′_u a′_uᵀ⟩ = Σ_tu (gᵀg′)_tu (aᵀa′)_tu,

p + q products for each pair of uses where p q entries would be written out. In a table of which
rows are looked up, aᵀa′ says whether it is the same one. For each pair of blocks the cheaper way is
taken: of rows by many uses, as of derivatives in Taylor mode, the entries of some columns at a time
are written out, and of pairs of those with rows by few uses they need not be.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._symmetric import add_gram_, mirror_
from . import factors
from .factors import Factor, Lookup, Weight, pieces

# an entry of an elementwise product costs as much as so many products within a matrix product
PASSES = 40
STRIPS = 4  # of a block with itself at least: of those above the diagonal nothing is made


def gram(
    blocks: Sequence[Sequence[Factor]], rows: Sequence[int], squares: Tensor, like: Tensor
) -> Tensor:
    """J D⁻² Jᵀ, (rows, rows).

    Args:
        blocks: the factors of each block of rows; no two of a block begin at the same column, and a
            bias is beside its weight in all blocks or in none.
        rows: of each block.
        squares: D², (n,), one number in each parameter.
        like: the dtype and device.
    """
    found = like.new_zeros(sum(rows), sum(rows))
    ends = torch.tensor(rows).cumsum(0).tolist()
    places = [slice(end - count, end) for end, count in zip(ends, rows, strict=True)]
    for start in sorted({factor.start for block in blocks for factor in block}):
        parts = [next((f for f in block if f.start == start), None) for block in blocks]
        _add_(found, places, parts, squares)
    mirror_(found)
    return found


def _add_(
    gram: Tensor, places: Sequence[slice], parts: Sequence[Factor | None], squares: Tensor
) -> None:
    """Add the share of a parameter, and of a bias used with it, to the lower triangle."""
    there = [(i, part) for i, part in enumerate(parts) if part is not None]
    written = []
    for row, (i, a) in enumerate(there):
        for j, b in there[: row + 1]:
            if _cheaper_by_factors(a, b):
                _add_inner_(gram[places[i], places[j]], a, b, squares)
            else:
                written.append((i, j))
    if not written:
        return
    _, some = there[0]
    known = {i: part for i, part in there if any(i in pair for pair in written)}
    line = max(part.line for part in known.values())
    count = sum(places[i].stop - places[i].start for i in known)
    for columns in pieces(some.columns, line, count, gram.device, gram.numel() // 2):
        entries = {i: part.written(columns).flatten(0, 1) for i, part in known.items()}
        _add_columns_(gram, places, written, entries, squares[some.start])
    weights = {i: part for i, part in known.items() if isinstance(part, Weight)}
    for bias in {weight.bias for weight in weights.values()} - {None}:
        used = {i: w.left[:, :, 0].flatten(0, 1) for i, w in weights.items() if w.bias == bias}
        pairs = [pair for pair in written if used.keys() >= set(pair)]
        _add_columns_(gram, places, pairs, used, squares[bias])


def _add_columns_(
    gram: Tensor,
    places: Sequence[slice],
    pairs: Sequence[tuple[int, int]],
    entries: dict[int, Tensor],
    square: Tensor,
) -> None:
    """Add the share of columns that are written out, (rows, columns) of each block."""
    entries = {i: part / square.sqrt() for i, part in entries.items()}
    for i, j in pairs:
        if i == j:
            add_gram_(gram[places[i], places[i]], entries[i].mT)
        else:
            gram[places[i], places[j]].addmm_(entries[i], entries[j].mT)


def _cheaper_by_factors(a: Factor, b: Factor) -> bool:
    """Whether pairs of uses are fewer products than the entries of two rows."""
    if not (isinstance(a, Weight | Lookup) and type(a) is type(b)):
        return False
    (k, t, p), (residuals, u, _) = a.left.shape[1:], b.left.shape[1:]
    inputs = a.right.shape[-1] / (k * residuals) if isinstance(a, Weight) else 0
    return bool(t * u * (p + inputs + PASSES) < a.columns)


def _add_inner_(gram: Tensor, a: Factor, b: Factor, squares: Tensor) -> None:
    """Add ⟨rows of a, rows of b⟩ to `gram` (rows of a, rows of b), some samples at a time.

    Where both are the same, only the lower triangle is of use, and of strips above it nothing is
    made.
    """
    assert isinstance(a, Weight | Lookup)
    assert isinstance(b, Weight | Lookup)
    s, k, t, _ = a.left.shape
    samples, residuals, u, _ = b.left.shape
    width = factors.at_once(k * t * samples * residuals * u, gram.device)
    if a is b:
        width = max(1, min(width, -(-s // STRIPS)))
    own = squares[a.start]
    for begin in range(0, s, width):
        some = slice(begin, min(begin + width, s))
        last = slice(0, some.stop if a is b else samples)
        outputs = a.left[some].flatten(0, 2) @ b.left[last].flatten(0, 2).mT  # pairs of uses
        inputs = _inputs(a, b, some, last).div_(own)
        if isinstance(a, Weight) and isinstance(b, Weight) and None not in (a.bias, b.bias):
            inputs += 1 / squares[a.bias]
        count = some.stop - begin
        products = outputs.view(count, k, t, last.stop, residuals, u)
        products *= inputs.view(count, 1, t, last.stop, 1, u)
        if t != 1 or u != 1:
            products = products.sum((2, 5))
        gram[begin * k : some.stop * k, : last.stop * residuals] += products.reshape(
            count * k, last.stop * residuals
        )


def _inputs(a: Weight | Lookup, b: Weight | Lookup, some: slice, last: slice) -> Tensor:
    """Inner products of the inputs of all uses, (uses of a, uses of b)."""
    if isinstance(a, Weight) and isinstance(b, Weight):
        return a.right[some].flatten(0, 1) @ b.right[last].flatten(0, 1).mT
    assert isinstance(a, Lookup)
    assert isinstance(b, Lookup)
    same = a.places[some].flatten()[:, None] == b.places[last].flatten()
    return same.to(a.left.dtype)
