"""Every kind of rows answers as the matrix does that it stands for."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lmtorch._errors import InputError
from lmtorch.rows.base import Rows, richest, scale_each
from lmtorch.rows.dense import DenseRows
from lmtorch.rows.outer import Outer, OuterRows
from lmtorch.rows.own import OwnRows

F64 = torch.float64


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=F64, generator=generator)


def dense(generator: torch.Generator, samples: int, k: int) -> Rows:
    return DenseRows(draw(generator, samples * k, 5))


def batched(generator: torch.Generator, samples: int, k: int) -> Rows:
    return DenseRows(draw(generator, 2, samples * k, 5))


def outer(generator: torch.Generator, samples: int, k: int) -> Rows:
    """Columns 1 to 7 are outer products."""
    known = Outer(1, draw(generator, samples, k, 2), draw(generator, samples, 3))
    return OuterRows(
        torch.cat(
            [draw(generator, samples * k, 1), written(known), draw(generator, samples * k, 2)], 1
        ),
        (known,),
    )


def own(generator: torch.Generator, samples: int, k: int) -> Rows:
    return OwnRows(draw(generator, samples, 3), draw(generator, samples, 2))


def written(known: Outer) -> Tensor:
    """The columns that are outer products, from their factors."""
    products = known.left[..., :, None] * known.right[:, None, None, :]
    return products.flatten(2).flatten(0, 1)


KINDS = {"dense": dense, "batched": batched, "outer": outer, "own": own}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
drawn = given(samples=st.integers(1, 5), k=st.integers(1, 3), seed=st.integers(0, 2**16))


@kinds
@drawn
def test_products_and_norms_are_those_of_the_matrix(
    kind: Callable[..., Rows], samples: int, k: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = kind(generator, samples, k)
    matrix = rows.dense()
    assert rows.shape == matrix.shape
    *batch, m, n = matrix.shape
    v, w = draw(generator, *batch, n), draw(generator, *batch, m)
    torch.testing.assert_close(rows.times(v), torch.einsum("...mn,...n->...m", matrix, v))
    torch.testing.assert_close(
        rows.transposed_times(w), torch.einsum("...mn,...m->...n", matrix, w)
    )
    torch.testing.assert_close(rows.column_norms, matrix.square().sum(-2).sqrt())


@kinds
@drawn
def test_a_root_of_each_row_scales_the_row(
    kind: Callable[..., Rows], samples: int, k: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = kind(generator, samples, k)
    matrix = rows.dense()
    root = draw(generator, *matrix.shape[:-1])
    torch.testing.assert_close(rows.scaled(root).dense(), root[..., None] * matrix)


@pytest.mark.parametrize("kind", [dense, batched, outer])
@drawn
def test_a_root_of_each_sample_mixes_its_rows(
    kind: Callable[..., Rows], samples: int, k: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = kind(generator, samples, k)
    matrix = rows.dense()
    *batch, _, n = matrix.shape
    root = draw(generator, *batch, samples, k, k)
    by_sample = matrix.unflatten(-2, (samples, k))
    expected = torch.einsum("...sij,...sjn->...sin", root, by_sample).flatten(-3, -2)
    scaled = rows.scaled(root)
    torch.testing.assert_close(scaled.dense(), expected)
    if isinstance(scaled, OuterRows):  # what is known of the columns is still true
        torch.testing.assert_close(written(scaled.outer[0]), expected[:, 1:7])
    v = draw(generator, *batch, n)
    torch.testing.assert_close(scale_each(rows.times(v), root), scaled.times(v))


def test_the_richest_kind_that_both_know_is_asked_for() -> None:
    assert richest((DenseRows, OuterRows), (OuterRows, DenseRows)) is OuterRows
    assert richest((DenseRows,), (OuterRows, DenseRows)) is DenseRows
    assert richest((OuterRows, DenseRows), (DenseRows,)) is DenseRows


def test_kinds_that_do_not_meet_are_named() -> None:
    with pytest.raises(
        InputError, match="takes OwnRows, and the source of derivatives gives Dense"
    ):
        richest((DenseRows,), (OwnRows,))
