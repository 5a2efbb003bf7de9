"""Sums of products in one pass, against sums of exact products in Python's `math.fsum`."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad

from lmtorch import _one_pass

ROWS = (1, 64, 128, 129, 192, 257, 1000)  # pieces of rows, and what is left of them
DTYPES = (torch.float64, torch.float32)


def drawn(rows: int, dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed)).to(dtype)


def exact(one: Tensor, other: Tensor) -> Tensor:
    """Σ one · other over the rows, and the same of absolute values: (2, b)."""
    pairs = list(zip(one.double().T.tolist(), other.double().T.tolist(), strict=True))
    sums = [math.fsum(a * b for a, b in zip(*pair, strict=True)) for pair in pairs]
    sizes = [math.fsum(abs(a * b) for a, b in zip(*pair, strict=True)) for pair in pairs]
    return torch.tensor([sums, sizes], dtype=torch.float64)


def close(found: Tensor, one: Tensor, other: Tensor) -> bool:
    """Whether a sum is right to the rounding of pieces of 128 that are added in pairs."""
    sums, sizes = exact(one, other)
    return bool(((found.double() - sums).abs() <= 150 * torch.finfo(found.dtype).eps * sizes).all())


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_products_are_summed_over_all_rows(rows: int, dtype: torch.dtype) -> None:
    one, other, same = drawn(rows, dtype, 1), drawn(rows, dtype, 2), drawn(1, dtype, 3)[0, :1]
    vectors = [one, None, same, other]
    sums = torch.zeros(4, 4, 5, dtype=dtype)
    _one_pass.products(vectors, rows, sums)
    for i, left in enumerate(vectors):
        for j, right in enumerate(vectors):
            if left is None or right is None:
                assert not sums[i, j].any()
            else:
                assert close(sums[i, j], left.expand(rows, 5), right.expand(rows, 5))
    weighted = _one_pass.products_with(other, [one, None, same])
    for found, vector in zip(weighted, [one, None, same], strict=True):
        whole = torch.zeros(rows, 5, dtype=dtype) if vector is None else vector.expand(rows, 5)
        assert close(found, other, whole)
    inner = _one_pass.inner_of_last(one.mT, other.mT)
    assert inner is not None
    assert close(inner, one, other)


def test_the_sum_of_a_problem_does_not_depend_on_the_others() -> None:
    one, other = drawn(300, torch.float64, 1), drawn(300, torch.float64, 2)
    whole = _one_pass.inner_of_last(one.mT, other.mT)
    part = _one_pass.inner_of_last(one[:, 1:3].contiguous().mT, other[:, 1:3].contiguous().mT)
    assert whole is not None
    assert part is not None
    assert torch.equal(whole[1:3], part)


def test_nobody_who_follows_the_numbers_loses_sight_of_them() -> None:
    x = drawn(30, torch.float64, 1)
    assert _one_pass.in_one_pass(x, x)
    assert not _one_pass.in_one_pass(x, x.clone().requires_grad_())
    assert not _one_pass.in_one_pass(x, x.float())
    with forward_ad.dual_level():  # NumPy would be given the value without the tangent
        assert not _one_pass.in_one_pass(forward_ad.make_dual(x, x))

    def asked(y: Tensor) -> Tensor:
        assert not _one_pass.in_one_pass(y.detach())
        return y.sum()

    grad(asked)(x)
