"""A batch as independent samples: its tensors, how many, and slices of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from .._errors import InputError


class Samples:
    """The tensors of a batch argument, all with the samples in the first dimension.

    Args:
        batch: tensors, or lists, tuples and dicts of them; anything else (flags, numbers, 0-d
            tensors) is the same for every sample.
        empty: whether there may be no samples, as other processes have them.

    Raises:
        InputError: no tensor with samples, or tensors that disagree on how many there are.
    """

    def __init__(self, batch: Sequence[Any], *, empty: bool = False) -> None:
        values, self.spec = _flatten(batch)
        for value in values:
            if not isinstance(value, Tensor) and hasattr(value, "__array__") and np.ndim(value):
                raise InputError(
                    f"the batch has a {type(value).__name__}, which would not be cut into samples. "
                    "Convert it: torch.as_tensor(array, dtype=..., device=...), in the dtype and "
                    "on the device of the model."
                )
        self.constants = [None if _has_samples(v) else v for v in values]
        self.places = [i for i, v in enumerate(values) if _has_samples(v)]
        self.tensors: tuple[Tensor, ...] = tuple(values[i] for i in self.places)
        if not self.tensors:
            raise InputError(
                "the batch has no tensor with a dimension for the samples. Pass the data as "
                "step(closure, x, y), tensors with the samples first; or call step(closure) with a "
                "closure that takes no argument."
            )
        lengths = [t.shape[0] for t in self.tensors]
        if len(set(lengths)) > 1:
            raise InputError(
                "the tensors of the batch disagree on the number of samples: first dimensions "
                f"{lengths}. Each needs one row for each sample; what is the same for all belongs "
                "into the closure."
            )
        self.count = lengths[0]
        self.empty = empty
        if self.count == 0 and not empty:
            raise InputError("the batch has no samples: first dimension 0.")

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        """The batch's structure around other tensors: a slice of the samples, or a single one."""
        values = list(self.constants)
        for place, tensor in zip(self.places, tensors, strict=True):
            values[place] = tensor
        rebuilt: tuple[Any, ...] = tree_unflatten(values, self.spec)
        return rebuilt

    def take(self, chosen: Any) -> tuple[Tensor, ...]:
        """The tensors at some of the samples."""
        return tuple(t[chosen] for t in self.tensors)

    def subset(self, chosen: Tensor) -> "Samples":
        """A batch of some of the samples."""
        return Samples(self.arguments(self.take(chosen)), empty=self.empty)

    def on(self, device: torch.device) -> "Samples":
        """The batch on a device; nothing waits for a copy from pinned memory."""
        if all(t.device == device for t in self.tensors):
            return self
        return Samples(self.arguments([t.to(device, non_blocking=True) for t in self.tensors]))

    def joins(self, other: "Samples") -> bool:
        """Whether the samples of another batch of this structure may stand behind these."""
        shapes = [[(t.shape[1:], t.dtype) for t in s.tensors] for s in (self, other)]
        pairs = zip(self.constants, other.constants, strict=True)
        return shapes[0] == shapes[1] and all(_same(a, b) for a, b in pairs)


def _flatten(batch: Sequence[Any]) -> tuple[list[Any], TreeSpec]:
    return tree_flatten(tuple(batch))


def _has_samples(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _same(one: Any, other: Any) -> bool:
    """Whether two constants of batches are known to be equal."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        both = isinstance(one, Tensor) and isinstance(other, Tensor)
        return both and torch.equal(one, other)
    return one is other or (type(one) is type(other) and bool(one == other))
