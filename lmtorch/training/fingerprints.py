"""Whether two passes over a loader have shown the same samples: a sum over samples that says so.

Each sample becomes one whole number, made of the bits of all of its entries. The sum of these over
a pass, modulo 2⁶⁴, is the same for the same samples in any order and in any batches, and for others
equal by chance only. A second sum also counts the places, and so knows the order.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .samples import Samples

BLOCK = 2**21  # entries that are taken together: their products are 16 MiB
# odd, with half of their bits set at random: those of splitmix64, Steele, Lea & Flood (2014)
PLACE, FIRST, SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Fingerprint:
    """Sums over the samples of a pass.

    Attributes:
        count: samples so far.
        batches: batches so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self.batches = 0
        self.sums: Tensor | None = None  # (2,) int64, of any order and of this one

    def add(self, samples: Samples) -> None:
        """Take a batch, on whatever device it is."""
        each = _constant(samples.constants) * torch.ones_like(_numbers(samples.tensors[0]))
        for tensor in samples.tensors:
            each = _mixed(each * FIRST + _numbers(tensor))
        places = torch.arange(self.count, self.count + samples.count, device=each.device)
        sums = torch.stack([each.sum(), _mixed(each + PLACE * places).sum()])
        self.sums = sums if self.sums is None else self.sums + sums.to(self.sums.device)
        self.count += samples.count
        self.batches += 1

    @property
    def numbers(self) -> tuple[int, int]:
        """The sums, of any order and of this one; on a device this waits for it."""
        if self.sums is None:
            return 0, 0
        any_order, this = self.sums.tolist()
        return any_order, this


def _numbers(tensor: Tensor) -> Tensor:
    """A whole number for each sample, (s,) int64, of the bits of its entries."""
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    flat = tensor.detach().reshape(len(tensor), -1)
    bits = flat.contiguous().view(INTEGERS[flat.element_size()])
    found = torch.zeros(len(bits), dtype=torch.int64, device=bits.device)
    width = max(1, BLOCK // len(bits))
    weights = _weights(bits.shape[1], str(bits.device))
    for part, weight in zip(bits.split(width, 1), weights.split(width), strict=True):
        found += (part * weight).sum(1)
    return found


def _mixed(number: Tensor) -> Tensor:
    """Whole numbers of which each bit depends on all bits: sums of them have no common part."""
    number = (number ^ (number >> 30)) * FIRST
    number = (number ^ (number >> 27)) * SECOND
    return number ^ (number >> 31)


def _constant(values: list[Any]) -> int:
    """A number for what is the same for all samples of a batch: flags, numbers, words."""
    known = [v.item() if isinstance(v, Tensor) and v.ndim == 0 else v for v in values]
    told = tuple(repr(v) for v in known if isinstance(v, bool | int | float | str | bytes))
    return hash(told) % 2**62


@lru_cache(maxsize=16)
def _weights(size: int, device: str) -> Tensor:
    """Odd numbers at random, (size,)."""
    generator = torch.Generator("cpu").manual_seed(0)
    limits = torch.iinfo(torch.int64)
    drawn = torch.randint(limits.min, limits.max, (size,), generator=generator, device="cpu")
    return (drawn | 1).to(device)
