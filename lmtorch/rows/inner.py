"""Inner products of rows that are known by the factors of layers: JJᵀ, and J never made.

In the weight of a layer the inner product of two rows is

    ⟨Σ_t g_t a_tᵀ, Σ_u g′_u a′_uᵀ⟩ = Σ_tu (gᵀg′)_tu (aᵀa′)_tu,

p + q products for each pair of uses where p q entries would be written out. In a table of which
rows are looked up, aᵀa′ says whether it is the same one. For each pair of blocks the cheaper way is
taken: of rows by many uses, as of derivatives in Taylor mode, the entries of some columns at a time
are written out, and of pairs of those with rows by few uses they need not be.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from torch import Tensor

from .._symmetric import add_gram_, mirror_
from . import factors
from .factors import Factor, Lookup, Weight, pieces

# an entry of an elementwise product costs as much as so many products within a matrix product
PASSES = 40
WRITING = 20  # the same of an entry of a row that is written out, for each use of its layer
STRIPS = 4  # of a block with itself at least: of those above the diagonal nothing is made


class Side(NamedTuple):
    """What the blocks of rows of one side of a product have of one parameter."""

    places: Sequence[slice]  # of the rows of each block
    parts: Sequence[Factor | None]

    def of(self, chosen: set[int]) -> dict[int, Factor]:
        """What some of the blocks have."""
        return {i: part for i, part in enumerate(self.parts) if part is not None and i in chosen}


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
    places = _places(rows)
    for parts in _by_parameter(blocks):
        _add_(found, [Side(places, parts)], squares)
    mirror_(found)
    return found


def products(
    one: Sequence[Sequence[Factor]],
    other: Sequence[Sequence[Factor]],
    rows: tuple[Sequence[int], Sequence[int]],
    squares: Tensor,
    like: Tensor,
) -> Tensor:
    """J D⁻² J′ᵀ, (rows, rows′), of blocks on two sides, each as `gram` takes them, `rows` of both.

    A bias is beside its weight in all blocks of both or in none.
    """
    found = like.new_zeros(*map(sum, rows))
    mine, theirs = map(_places, rows)
    for parts in _by_parameter([*one, *other]):
        sides = [Side(mine, parts[: len(one)]), Side(theirs, parts[len(one) :])]
        _add_(found, sides, squares)
    return found


def _places(rows: Sequence[int]) -> list[slice]:
    """Where the rows of each block are."""
    return [slice(end - count, end) for end, count in zip(accumulate(rows), rows, strict=True)]


def _by_parameter(blocks: Sequence[Sequence[Factor]]) -> Iterator[list[Factor | None]]:
    """What each of the blocks has of one parameter after another."""
    for start in sorted({factor.start for block in blocks for factor in block}):
        yield [next((f for f in block if f.start == start), None) for block in blocks]


def _add_(gram: Tensor, sides: Sequence[Side], squares: Tensor) -> None:
    """Add the share of a parameter, and of a bias used with it; of one side the lower triangle."""
    one, other, alone = sides[0], sides[-1], len(sides) == 1
    written: list[tuple[int, int]] = []
    for i, a in enumerate(one.parts):
        for j, b in enumerate(other.parts[: i + 1] if alone else other.parts):
            if a is None or b is None:
                continue
            if _cheaper_by_factors(a, b):
                _add_inner_(gram[one.places[i], other.places[j]], a, b, squares)
            else:
                written.append((i, j))
    if not written:
        return
    chosen = [{i for i, _ in written}, {j for _, j in written}]
    known = [one.of(chosen[0] | chosen[1])] if alone else [one.of(chosen[0]), other.of(chosen[1])]
    parts = [part for found in known for part in found.values()]
    line = max(part.line for part in parts)
    count = sum(
        side.places[i].stop - side.places[i].start
        for side, found in zip(sides, known, strict=True)
        for i in found
    )
    start, columns = parts[0].start, parts[0].columns
    for some in pieces(columns, line, count, gram.device, gram.numel() // 2):
        entries = [
            {i: part.written(some).flatten(0, 1) for i, part in found.items()} for found in known
        ]
        _add_columns_(gram, sides, written, entries, squares[start])
    weights = [{i: w for i, w in found.items() if isinstance(w, Weight)} for found in known]
    for bias in {w.bias for found in weights for w in found.values()} - {None}:
        used = [
            {i: w.left[:, :, 0].flatten(0, 1) for i, w in found.items() if w.bias == bias}
            for found in weights
        ]
        pairs = [(i, j) for i, j in written if i in used[0] and j in used[-1]]
        _add_columns_(gram, sides, pairs, used, squares[bias])


def _add_columns_(
    gram: Tensor,
    sides: Sequence[Side],
    pairs: Sequence[tuple[int, int]],
    entries: Sequence[dict[int, Tensor]],
    square: Tensor,
) -> None:
    """Add the share of columns that are written out, (rows, columns) of each block of a side."""
    scaled = [{i: part / square.sqrt() for i, part in found.items()} for found in entries]
    for i, j in pairs:
        place = gram[sides[0].places[i], sides[-1].places[j]]
        if len(sides) == 1 and i == j:
            add_gram_(place, scaled[0][i].mT)
        else:
            place.addmm_(scaled[0][i], scaled[-1][j].mT)


def _cheaper_by_factors(a: Factor, b: Factor) -> bool:
    """Whether pairs of uses are fewer products than the entries of two rows.

    What it takes to write these out is shared by the rows of the other block, which may be few.
    """
    if not (isinstance(a, Weight | Lookup) and type(a) is type(b)):
        return False
    (s, k, t, p), (samples, residuals, u, _) = a.left.shape, b.left.shape
    inputs = a.right.shape[-1] / (k * residuals) if isinstance(a, Weight) else 0
    pairs = max(1, s * k * samples * residuals)
    writing = WRITING * (t * s * k + u * samples * residuals) / pairs
    return bool(t * u * (p + inputs + PASSES) < a.columns * (1 + writing))


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
