"""Every kind of rows answers as the matrix does that it stands for."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmtorch.rows.base import Rows, scale_each

from .cases import drawn, written
from .members import ROWS

F64 = torch.float64


kinds = pytest.mark.parametrize("kind", ROWS.values(), ids=ROWS)
sizes = given(samples=st.integers(1, 5), k=st.integers(1, 3), seed=st.integers(0, 2**16))


@kinds
@sizes
def test_products_and_norms_are_those_of_the_matrix(
    kind: Callable[..., Rows], samples: int, k: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = kind(generator, samples, k)
    matrix = rows.dense()
    assert rows.shape == matrix.shape
    *batch, m, n = matrix.shape
    v, w = drawn(generator, *batch, n), drawn(generator, *batch, m)
    torch.testing.assert_close(rows.times(v), torch.einsum("...mn,...n->...m", matrix, v))
    torch.testing.assert_close(
        rows.transposed_times(w), torch.einsum("...mn,...m->...n", matrix, w)
    )
    torch.testing.assert_close(rows.column_norms, matrix.square().sum(-2).sqrt())


@kinds
@sizes
def test_a_root_of_each_row_scales_the_row(
    kind: Callable[..., Rows], samples: int, k: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = kind(generator, samples, k)
    matrix = rows.dense()
    root = drawn(generator, *matrix.shape[:-1])
    torch.testing.assert_close(rows.scaled(root).dense(), root[..., None] * matrix)


@kinds
@sizes
def test_a_root_of_each_sample_mixes_its_rows(
    kind: Callable[..., Rows], samples: int, k: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = kind(generator, samples, k)
    matrix = rows.dense()
    *batch, m, n = matrix.shape
    k = m // samples  # points have one row each
    root = drawn(generator, *batch, samples, k, k)
    by_sample = matrix.unflatten(-2, (samples, k))
    expected = torch.einsum("...sij,...sjn->...sin", root, by_sample).flatten(-3, -2)
    scaled = rows.scaled(root)
    torch.testing.assert_close(scaled.dense(), expected)
    if hasattr(scaled, "outer"):  # what is known of the columns is still true
        torch.testing.assert_close(written(scaled.outer[0]), expected[:, 1:129])
    v = drawn(generator, *batch, n)
    torch.testing.assert_close(scale_each(rows.times(v), root), scaled.times(v))
