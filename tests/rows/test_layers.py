"""Inner products of rows that are known by their factors, however they are made."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lmtorch.rows import factors, inner
from lmtorch.rows.factors import Factor, Lookup, Plain, Weight
from lmtorch.rows.layers import LayerBlock, LayerRows, joined

from ..contracts.cases import drawn

SIZES = [1, 12, 4, 2, 10, 15]  # of the parameters; nothing leads to the first
N = sum(SIZES)
LIKE = torch.empty((), dtype=torch.float64)


def block(generator: torch.Generator, samples: int, k: int, uses: int, kind: int) -> LayerBlock:
    """Rows whose bias is beside its weight where it is used once, in blocks of an even kind."""
    left, right = drawn(generator, samples, k, uses, 4), drawn(generator, samples, uses, 3)
    bias, last = drawn(generator, samples, k, 4), Plain(17, drawn(generator, samples, k, 2))
    beside = uses == 1 and kind % 2 == 0
    found: list[Factor] = [Weight(1, left, right, 13 if beside else None), last]
    if kind == 3:  # of one block that is written out, with others that are not
        found[0] = Plain(1, drawn(generator, samples, k, 12))
    if not beside:
        found.append(Plain(13, bias))
    if samples % 2:  # a layer that only some of the blocks have
        own, seen = drawn(generator, samples, k, uses, 5), drawn(generator, samples, uses, 2)
        found.append(Weight(19, own, seen))
    if kind != 2:
        places = torch.randint(5, (samples, uses), generator=generator)
        found.append(Lookup(29, drawn(generator, samples, k, uses, 3), places, 5))
    else:
        found.append(Plain(29, drawn(generator, samples, k, 15)))
    return LayerBlock(samples, k, tuple(found))


def outer_products(rows: LayerRows) -> Tensor:
    """The matrix, entry by entry from the definition of each kind."""
    found = []
    for block in rows.blocks:
        for s in range(block.samples):
            for o in range(block.residuals):
                row = torch.zeros(N, dtype=torch.float64)
                for factor in block.factors:
                    end = factor.start + factor.columns
                    if isinstance(factor, Plain):
                        row[factor.start : end] = factor.matrix[s, o]
                        continue
                    for t, g in enumerate(factor.left[s, o]):
                        if isinstance(factor, Weight):
                            row[factor.start : end] += torch.outer(g, factor.right[s, t]).flatten()
                            if factor.bias is not None:
                                row[factor.bias : factor.bias + len(g)] = g
                        elif isinstance(factor, Lookup):
                            begin = factor.start + int(factor.places[s, t]) * len(g)
                            row[begin : begin + len(g)] += g
                found.append(row)
    return torch.stack(found) if found else torch.empty(0, N, dtype=torch.float64)


@pytest.mark.parametrize("passes", [0, 10**6], ids=["by factors", "written out"])
@pytest.mark.parametrize("entries", [1, 40, 2**24], ids=str)
@given(
    shapes=st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3)),
        min_size=1,
        max_size=3,
    ),
    seed=st.integers(0, 2**16),
)
def test_the_inner_products_are_those_of_the_rows(
    passes: int, entries: int, shapes: list[tuple[int, int, int, int]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = LayerRows(N, tuple(block(generator, *shape) for shape in shapes), LIKE)
    # one number in each parameter
    of_each = drawn(generator, 6).square() + 0.1
    squares = of_each.repeat_interleave(torch.tensor(SIZES))
    matrix = outer_products(rows)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inner, "PASSES", passes)
        patched.setattr(factors, "ENTRIES", entries)
        found = rows.gram(squares)
        torch.testing.assert_close(rows.dense(), matrix)
    expected = (matrix / squares) @ matrix.mT
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(rows.squared_lengths(squares), expected.diagonal())


@pytest.mark.parametrize("passes", [0, 10**6], ids=["by factors", "written out"])
@pytest.mark.parametrize("entries", [1, 2**24], ids=str)
@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3)),
        min_size=1,
        max_size=3,
    ),
    seed=st.integers(0, 2**16),
)
def test_some_columns_of_the_inner_products_are_those_of_some_samples(
    passes: int, entries: int, shapes: list[tuple[int, int, int, int]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = LayerRows(N, tuple(block(generator, *shape) for shape in shapes), LIKE)
    squares = (drawn(generator, 6).square() + 0.1).repeat_interleave(torch.tensor(SIZES))
    samples = sum(shape[0] for shape in shapes)
    order = torch.randperm(samples, generator=generator)
    chosen = order[: 1 + seed % samples].sort().values
    some, places = rows.of_samples(chosen)
    matrix = outer_products(rows)
    of_row = torch.arange(samples).repeat_interleave(
        torch.cat([torch.full((s,), k) for s, k, *_ in shapes])
    )
    assert torch.equal(places, torch.isin(of_row, chosen).nonzero()[:, 0])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inner, "PASSES", passes)
        patched.setattr(factors, "ENTRIES", entries)
        found = rows.products(some, squares)
        v, w = drawn(generator, N), drawn(generator, len(matrix))
        torch.testing.assert_close(rows.times(v), matrix @ v)
        torch.testing.assert_close(rows.transposed_times(w), w @ matrix)
        torch.testing.assert_close(rows.column_norms, matrix.norm(dim=0))
    torch.testing.assert_close(found, (matrix / squares) @ matrix[places].mT)


def test_a_bias_may_go_with_one_weight_here_and_with_another_there() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (
        LayerBlock(
            3, 1, (Weight(start, drawn(generator, 3, 1, 1, 2), drawn(generator, 3, 1, 2), 8),)
        )
        for start in (0, 4)
    )
    rows = LayerRows(10, (one, other), LIKE)
    matrix = rows.dense()
    torch.testing.assert_close(rows.gram(torch.ones_like(matrix[0])), matrix @ matrix.mT)


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5), seed=st.integers(0, 2**16))
def test_blocks_that_are_alike_are_joined_in_their_order(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    apart = tuple(block(generator, 2 * size, 2, 1 + size % 2, 0) for size in sizes)
    together = joined(apart)
    kinds = [size % 2 for size in sizes]
    changes = sum(a != b for a, b in pairwise(kinds))
    assert len(together) == 1 + changes
    torch.testing.assert_close(
        LayerRows(N, together, LIKE).dense(), outer_products(LayerRows(N, apart, LIKE))
    )
