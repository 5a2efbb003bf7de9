"""Products of double precision take denormal numbers for zero, and leave the thread as it was."""

from collections.abc import Iterator

import pytest
import torch

from lmtorch._denormals import denormals_are_zero
from lmtorch._symmetric import add_gram_

LEAST = torch.tensor([5e-324], dtype=torch.float64)
DOUBLE = torch.ones(1, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot take denormal numbers for zero")
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(False)


def flushed() -> bool:
    """Whether this thread takes a denormal number for zero."""
    return bool(LEAST * 2 == 0)


def test_they_are_zero_within_and_numbers_again_behind_it() -> None:
    with denormals_are_zero(DOUBLE):
        assert flushed()
        with denormals_are_zero(DOUBLE):
            assert flushed()
        assert flushed()  # the inner one leaves what the outer one has made
    assert not flushed()


def test_a_thread_that_had_them_for_zero_keeps_it() -> None:
    torch.set_flush_denormal(True)
    with denormals_are_zero(DOUBLE):
        pass
    assert flushed()


def test_an_error_leaves_the_thread_as_it_was() -> None:
    with pytest.raises(KeyError), denormals_are_zero(DOUBLE):
        raise KeyError
    assert not flushed()


def test_single_precision_keeps_them() -> None:
    """Where J is 1e-20 everywhere, all of JᵀJ would be zero."""
    with denormals_are_zero(DOUBLE.float()):
        assert not flushed()
    normal = torch.zeros(2, 2)
    add_gram_(normal, torch.full((100, 2), 1e-20))
    torch.testing.assert_close(normal, torch.full((2, 2), 1e-38), rtol=1e-4, atol=0)


def test_sums_of_products_in_double_precision_lose_nothing_but_them() -> None:
    """Entries of 1e-160 have squares of 1e-320; beside those of 1 they never counted."""
    rows = torch.full((100, 2), 1e-160, dtype=torch.float64)
    normal = torch.zeros(2, 2, dtype=torch.float64)
    add_gram_(normal, rows)
    assert torch.equal(normal, torch.zeros_like(normal))
    rows[50] = 1
    add_gram_(normal, rows)
    assert torch.equal(normal, torch.ones_like(normal))
    assert not flushed()
