"""exp of numbers far below zero is torch's own, to the last bit."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lmtorch import _exponential
from lmtorch._exponential import LIMITS, exp

INTEGERS = {torch.float64: torch.int64, torch.float32: torch.int32}


def bits(values: Tensor) -> Tensor:
    return values.view(INTEGERS[values.dtype])


@pytest.fixture(autouse=True)
def _with_the_slow_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_exponential, "SLOW", True)  # also where torch is built without it


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("span", [(-1, 1), (-90, 1), (-110, -80), (-750, -700), (-2000, 800)])
def test_every_result_is_that_of_torch(dtype, span) -> None:
    for count in (1, 7, 1000):
        z = torch.linspace(*span, count, dtype=torch.float64).to(dtype)
        z = z[torch.randperm(count, generator=torch.Generator().manual_seed(count))]
        expected = torch.exp(z)
        assert torch.equal(bits(exp(z, out=torch.empty_like(z))), bits(expected))
        assert torch.equal(bits(exp(z, out=z)), bits(expected))  # in the memory of its argument


@pytest.mark.parametrize("dtype", LIMITS)
def test_what_is_zero_or_denormal_is_so_up_to_the_last_number(dtype) -> None:
    low, nothing = LIMITS[dtype]
    ends = torch.tensor([low, nothing], dtype=dtype).numpy()
    z = torch.from_numpy(np.concatenate([
        ends, np.nextafter(ends, -np.inf), np.nextafter(ends, np.inf), [-1e5]
    ]).astype(ends.dtype))  # fmt: skip
    assert torch.equal(bits(exp(z, out=torch.empty_like(z))), bits(torch.exp(z)))
    assert exp(z[1:2], out=torch.empty_like(z[1:2])).item() == 0
    # the largest number whose exponential rounds to zero lies above the one taken for it
    facts = torch.finfo(dtype)
    assert math.log(facts.smallest_normal) + math.log(facts.eps / 2) > nothing


@pytest.mark.parametrize("dtype", LIMITS)
def test_what_is_no_number_or_infinite_stays_so(dtype) -> None:
    z = torch.tensor([math.nan, -math.inf, math.inf, -1e4, 1.0, -720.0], dtype=dtype)
    found = exp(z, out=torch.empty_like(z))
    torch.testing.assert_close(found, torch.exp(z), rtol=0, atol=0, equal_nan=True)
    far = torch.tensor([-math.inf, -1e4], dtype=dtype)
    assert not exp(far, out=torch.empty_like(far)).any()
    assert exp(z[:0], out=torch.empty_like(z[:0])).shape == (0,)


def test_other_types_are_left_to_torch() -> None:
    z = torch.tensor([-1e4, -3.0], dtype=torch.bfloat16)
    assert torch.equal(exp(z, out=torch.empty_like(z)), torch.exp(z))
