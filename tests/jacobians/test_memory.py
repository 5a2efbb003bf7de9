"""The memory of a step whose rows stream."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import lmtorch


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operators return while they live, and the most at any time."""

    def __init__(self, *arguments: Tensor) -> None:
        super().__init__()
        self.live = self.peak = 0
        # views of them hold nothing new
        self.known = {tensor.untyped_storage()._cdata for tensor in arguments}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.known:
                self.known.add(key)
                self.live += size
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._gone, key, size)
        return result

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, tuple | list):
        for item in result:
            yield from _tensors(item)


def peak_of_a_step(samples: int, jacobian: str) -> int:
    """Bytes that a step of the optimizer holds at most, beyond its arguments."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.randn(samples, 4)
    y = torch.sin(x.sum(1, keepdim=True))
    opt = lmtorch.LevenbergMarquardt(
        net, solver="cholesky", curvature="full", jacobian=jacobian, memory_limit=2**20
    )
    opt.step(lambda x, y: net(x) - y, x, y)  # plans, caches
    gc.collect()
    with LiveBytes(x, y) as meter:
        opt.step(lambda x, y: net(x) - y, x, y)
    return meter.peak


@pytest.mark.slow
@pytest.mark.parametrize("jacobian", ["auto", "per_sample"])
def test_the_peak_memory_of_streamed_rows_does_not_grow_with_the_samples(jacobian: str) -> None:
    small, large = 8_000, 64_000
    first, second = peak_of_a_step(small, jacobian), peak_of_a_step(large, jacobian)
    # parts of equal size are not all of the same size
    assert second <= 1.05 * first, (first, second)


def test_the_meter_sees_what_is_held() -> None:
    with LiveBytes() as meter:
        held = torch.zeros(1000, dtype=torch.float64)
        for _ in range(3):
            torch.ones(500, dtype=torch.float64)
        assert meter.live == held.numel() * 8
        assert meter.peak == 12_000
