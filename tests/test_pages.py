"""Large results are the same wherever their memory comes from."""

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import vmap

import lmtorch
from lmtorch import _pages
from lmtorch._pages import room


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What the system was asked for, where a few mebibytes are large."""
    found: list[tuple[int, int]] = []
    plain = _pages._advise()
    if plain is None:
        pytest.skip("this system has no madvise")

    def advise(start: int, size: int, what: int) -> int:
        found.append((start, size))
        return int(plain(start, size, what))

    monkeypatch.setattr(_pages, "LARGE", 2**23)
    monkeypatch.setattr(_pages, "_advise", lambda: advise)
    return found


def factors(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(300, 5, 64, 1, generator=generator)
    return left.to(dtype), torch.randn(300, 1, 1, 40, generator=generator).to(dtype)


def test_products_are_written_into_whole_pages_of_their_own(asked) -> None:
    left, right = factors()
    out = room(left, right)
    assert out is not None
    assert torch.equal(torch.mul(left, right, out=out), left * right)
    ((start, size),) = asked
    assert start % _pages.PAGE == size % _pages.PAGE == 0
    assert size > 0
    assert out.data_ptr() <= start
    assert start + size <= out.data_ptr() + out.nbytes


def test_torch_finds_memory_where_it_records_or_follows(asked) -> None:
    left, right = factors()
    assert room(left.requires_grad_(), right) is None
    with torch.no_grad():
        assert room(left, right) is not None
    left = left.detach()
    assert room(left[:1], right[:1]) is None  # small
    assert room(left, right.double()) is None
    assert room(torch.nn.Parameter(left, requires_grad=False), right) is None
    with forward_ad.dual_level():
        assert room(left, right) is None
    seen = []
    vmap(lambda one: seen.append(room(left, right)) or one)(torch.ones(2))
    assert seen == [None]


def test_jacobians_in_all_parameters_are_those_of_small_batches(asked) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.Tanh(), torch.nn.Linear(64, 40))
    x = torch.randn(60, 3)
    with torch.no_grad():
        whole = lmtorch.parameter_jacobian(net, x)
        assert asked
        some = lmtorch.parameter_jacobian(net, x[:7])
    for name, rows in whole.items():
        torch.testing.assert_close(rows[:7], some[name], rtol=1e-5, atol=1e-7)
