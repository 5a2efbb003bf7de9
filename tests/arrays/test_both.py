"""Every function gives on NumPy's arrays and numbers what it gives on tensors."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmtorch import arrays
from lmtorch.arrays import arrays_of, on_numpy, quiet, tensors_of
from lmtorch.arrays.choosing import WORTH

F64 = torch.float64
numbers = st.floats(allow_subnormal=False, width=32) | st.sampled_from([0.0, -0.0, 1.0, -2.5])
Pair = tuple[torch.Tensor, torch.Tensor]
pairs = st.integers(1, 6).flatmap(
    lambda n: st.tuples(*[st.lists(numbers, min_size=n, max_size=n)] * 2)
)


def inner_of_finite(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return arrays.inner(arrays.where(arrays.finite(x), x, 1.0), arrays.where(y < 0, 0.5, 2.0))


# of two vectors (n,); of numbers too, where that is marked
ENTRIES: dict[str, Callable[..., Any]] = {
    "where": lambda x, y: arrays.where(x > y, x, y),
    "where, a number": lambda x, y: arrays.where(x > 0, x, -1.0),
    "where, another": lambda x, y: arrays.where(x > 0, 0.5, y),
    "maximum": arrays.maximum,
    "minimum": arrays.minimum,
    "at_least": lambda x, y: arrays.at_least(x, 0.5),
    "at_most": lambda x, y: arrays.at_most(x, 0.5),
    "finite": lambda x, y: arrays.finite(x),
    "is_nan": lambda x, y: arrays.is_nan(x),
    "sqrt": lambda x, y: arrays.sqrt(x),
    "zeros": lambda x, y: arrays.zeros(x),
    "filled": lambda x, y: arrays.filled(x, -1.0),
    "never": lambda x, y: arrays.never(x),
    "always": lambda x, y: arrays.always(x),
    "to_type": lambda x, y: arrays.to_type(x, torch.float32),
    "a mask and its opposite": lambda x, y: ~(x > y) | (x < y),
    "a division by zero": lambda x, y: x / arrays.zeros(x),
}
NUMBERS = {"statuses": lambda x, y: arrays.statuses(x, -7)}
VECTORS: dict[str, Callable[..., Any]] = {
    "total": lambda x, y: arrays.total(arrays.where(arrays.finite(x), x, 1.0)),
    "inner": inner_of_finite,
    "squared": lambda x, y: arrays.squared(x),
    "norm": lambda x, y: arrays.norm(x),
    "largest": lambda x, y: arrays.largest(x),
    "every": lambda x, y: arrays.every(x > y),
    "some": lambda x, y: arrays.some(x > y),
    "count": lambda x, y: arrays.count(x > y),
    "all_finite": lambda x, y: arrays.all_finite(x),
    "unseen": lambda x, y: arrays.unseen(x),
    "spread": lambda x, y: arrays.spread(arrays.norm(y)) * x,
    "select": lambda x, y: arrays.select(arrays.some(x > y), (x, (y, x)), (y, (x, y))),
    "diagonal_matrix": lambda x, y: arrays.diagonal_matrix(x),
    "joined": lambda x, y: arrays.joined([x, y], -1),
    "beside": lambda x, y: arrays.beside([x, None, y]),
    "with_shape_of": lambda x, y: arrays.with_shape_of(arrays.norm(x), y),
}


def same(function: Callable[..., Any], *args: Any) -> None:
    """The function gives the same on both."""
    with quiet():
        found = function(*(arrays_of(arg) for arg in args))
    parts = found if isinstance(found, tuple) else (found,)
    assert all(on_numpy(part) for part in parts if not isinstance(part, tuple))  # not Python's own
    torch.testing.assert_close(
        tensors_of(found), function(*args), rtol=1e-12, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("name", [*ENTRIES, *VECTORS])
@given(values=pairs)
def test_of_vectors(name: str, values: tuple[list[float], list[float]]) -> None:
    same((ENTRIES | VECTORS)[name], *(torch.tensor(v, dtype=F64) for v in values))


@pytest.mark.parametrize("name", [*ENTRIES, *NUMBERS])
@given(x=numbers, y=numbers)
def test_of_numbers(name: str, x: float, y: float) -> None:
    same((ENTRIES | NUMBERS)[name], torch.tensor(x, dtype=F64), torch.tensor(y, dtype=F64))


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_what_a_dtype_can_hold(dtype: torch.dtype) -> None:
    limits, other = torch.finfo(dtype), arrays_of(torch.zeros(1, dtype=dtype)).dtype
    for function, limit in (
        (arrays.resolution, limits.eps),
        (arrays.smallest, limits.tiny),
        (arrays.highest, limits.max),
    ):
        assert function(dtype) == function(other) == limit


@given(m=st.integers(1, 9), n=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_products_and_factorisations(m: int, n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix, v, w = (
        torch.randn(*shape, dtype=F64, generator=generator) for shape in ((m, n), (n,), (m,))
    )
    square = matrix.mT @ matrix
    same(arrays.apply, matrix, v)
    same(lambda a, b: arrays.apply(arrays.transposed(a), b), matrix, w)
    same(arrays.column_norms, matrix)
    same(arrays.all_entries_finite, matrix)
    same(arrays.all_entries_finite, matrix / 0)
    same(lambda a: arrays.every_entry(a > 0), matrix)
    same(lambda a: arrays.diagonal(a) + 0, square)
    same(arrays.identity, square)
    values, vectors = arrays.eigh(arrays_of(square))
    np.testing.assert_allclose(vectors * values @ vectors.T, square, atol=1e-12 * m)
    np.testing.assert_allclose(arrays.eigvalsh(arrays_of(square)), values, atol=1e-12 * m)
    u, singular, vh = arrays.svd(arrays_of(matrix))
    assert u.shape[-1] == len(singular) == min(m, n)
    np.testing.assert_allclose(u * singular @ vh, matrix, atol=1e-12)
    if m >= n:
        r, projected = arrays.reduced(arrays_of(matrix), arrays_of(w))
        assert (np.tril(r, -1) == 0).all()
        np.testing.assert_allclose(r.T @ r, square, atol=1e-12 * m)
        np.testing.assert_allclose(r.T @ projected, matrix.mT @ w, atol=1e-12 * m)


def test_tensors_and_arrays_share_their_memory() -> None:
    x = torch.zeros(2, dtype=F64)
    there = arrays_of(x)
    there[0] = 1
    assert x[0] == 1
    assert arrays.tensor_from(there).data_ptr() == x.data_ptr()
    assert isinstance(arrays_of(x[0]), np.float64)


def test_every_number_of_bfloat16_is_kept() -> None:
    x = torch.tensor([1 / 3, -1e30], dtype=torch.bfloat16)
    assert torch.equal(tensors_of(arrays_of(x)).to(x.dtype), x)


def test_a_mask_is_read_where_nobody_waits_for_it() -> None:
    for mask in (torch.tensor(False), torch.tensor([False, False])):
        assert arrays.nowhere(mask)
        assert not arrays.nowhere(~mask)
        assert not arrays.nowhere(mask.to("meta"))  # a device: what it holds is not known
    assert arrays.nowhere(arrays_of(torch.tensor(False)))
    assert math.isnan(arrays.unseen(arrays_of(torch.zeros(2))))


@pytest.mark.parametrize("n", [1, 4, 20])
def test_reductions_do_not_depend_on_where_problems_lie_in_memory(n: int) -> None:
    x = torch.randn(50, n, dtype=F64)
    x[3, -1], x[4, 0], x[5, n // 2] = torch.inf, -torch.inf, torch.nan
    x[9] = 1.0
    mask = x > 0.5
    for of, value in ((arrays.all_finite, x), (arrays.every, mask), (arrays.some, mask)):
        found = of(arrays.last(value))
        assert found.tolist() == [bool(of(row)) for row in value]
        assert found.any()
        assert not found.all() or n == 20


def test_a_minority_is_where_a_mask_holds_at_a_quarter_of_many_places_at_most() -> None:
    mask = torch.tensor([False, True, False, False]).repeat(WORTH // 4)
    found = arrays.minority(mask)
    assert found is not None
    assert found.tolist() == list(range(1, WORTH, 4))
    assert arrays.minority(mask | (torch.arange(WORTH) == 0)) is None
    assert arrays.minority(mask[:-4]) is None
    assert arrays.minority(mask[:-4].to("meta")) is None  # a device is not asked for few
    assert arrays.minority(torch.tensor(True)) is None
