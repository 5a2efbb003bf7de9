"""Inner products of rows that are known by their factors, however they are made."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmtorch.rows import layers
from lmtorch.rows.layers import LayerBlock, LayerRows, Plain, Weight, joined

from ..contracts.cases import drawn

F64 = torch.float64
N = 1 + 12 + 4 + 2 + 10


def block(generator: torch.Generator, samples: int, k: int, uses: int, joint: bool) -> LayerBlock:
    """Rows in columns 1 to 19 of 29, whose bias is beside the weight where it is used once."""
    left = drawn(generator, samples, k, uses, 4)
    bias = Plain(13, drawn(generator, samples, k, 4))
    joint = joint and uses == 1
    first = Weight(1, left, drawn(generator, samples, uses, 3), 13 if joint else None)
    # a layer that only some of the blocks have
    second = Weight(19, drawn(generator, samples, k, uses, 5), drawn(generator, samples, uses, 2))
    weights = (first, second) if samples % 2 else (first,)
    plain = Plain(17, drawn(generator, samples, k, 2))
    return LayerBlock(samples, k, weights, (plain,) if joint else (bias, plain))


@pytest.mark.parametrize("passes", [0, 10**6], ids=["by factors", "written out"])
@pytest.mark.parametrize("entries", [1, 40, 2**24], ids=str)
@given(
    shapes=st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(1, 3), st.booleans()),
        min_size=1,
        max_size=3,
    ),
    seed=st.integers(0, 2**16),
)
def test_the_inner_products_are_those_of_the_rows(
    passes: int, entries: int, shapes: list[tuple[int, int, int, bool]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = LayerRows(N, tuple(block(generator, *shape) for shape in shapes))
    # one number in each parameter
    of_each = drawn(generator, 5).square() + 0.1
    squares = of_each.repeat_interleave(torch.tensor([1, 12, 4, 2, 10]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(layers, "PASSES", passes)
        patched.setattr(layers, "ENTRIES", entries)
        found, matrix = rows.gram(squares), rows.dense()
    torch.testing.assert_close(found, (matrix / squares) @ matrix.mT)


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5), seed=st.integers(0, 2**16))
def test_blocks_that_are_alike_are_joined_in_their_order(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    apart = tuple(block(generator, 2 * size, 2, 1 + size % 2, True) for size in sizes)
    together = joined(apart)
    kinds = [size % 2 for size in sizes]
    changes = sum(a != b for a, b in pairwise(kinds))
    assert len(together) == 1 + changes
    torch.testing.assert_close(LayerRows(N, together).dense(), LayerRows(N, apart).dense())
