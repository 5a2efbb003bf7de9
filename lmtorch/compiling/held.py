"""What a closure holds: its tensors, which a program is given anew, and all else as a key.

A program is the record of one run of a closure. It stands for the closure at another time only if
nothing has changed but the numbers in the tensors that the program is given. Everything that the
closure can reach is therefore read before each step, as `keys` does, but for those numbers.
"""

from collections.abc import Iterator
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from .keys import NoKeyError, Reader

PLAIN = (bool, int, str, bytes, type(None), type(...))
EMPTY = (dict, list, tuple, set)
# what recurrent layers of torch's keep of their parameters, and make anew where these are replaced
REPEATED = ("_flat_weights", "_flat_weight_refs")
TENSORS = (Tensor, nn.Parameter, nn.Buffer, nn.UninitializedParameter)


class Held:
    """What some values hold.

    Args:
        values: closures and whatever else a program depends on.

    Attributes:
        tensors: in the order in which they are found, each of them once.
        key: equal for equal code, numbers outside of tensors, shapes and kinds of tensors, and
            places at which the same tensor or object is found.

    Raises:
        NoKeyError: something cannot be read, so that nobody can say whether it has changed.
    """

    def __init__(self, *values: Any) -> None:
        reader = _Reader()
        found = tuple(reader.parts(values))
        self.tensors = reader.tensors
        self.key = (torch.get_default_dtype(), str(torch.get_default_device()), found)


def kind_of(tensor: Tensor) -> tuple[Any, ...]:
    """What a program was made for of a tensor that it is given: all but its numbers."""
    return tensor.shape, tensor.dtype, tensor.stride(), tensor.device, tensor.requires_grad


class _Reader(Reader):
    """Reads values, and of tensors all but their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def parts(self, value: Any) -> Iterator[Any]:
        """The parts of a key, which can be compared and hashed."""
        kind = type(value)
        if kind in PLAIN:
            yield kind, value
        elif kind is CodeType:  # which never changes, and is compared by what it says
            yield value
        elif kind in EMPTY and not value:
            yield kind
        else:
            yield from super().parts(value)

    def _of(self, value: Any) -> Iterator[Any]:
        if isinstance(value, Tensor):
            if type(value) not in TENSORS or value.layout != torch.strided:
                raise NoKeyError(f"it holds a {type(value).__name__} of layout {value.layout}")
            self.tensors.append(value)
            yield kind_of(value)
        elif isinstance(value, nn.Module) and type(value).__module__.startswith("torch.nn.modules"):
            yield from self._layer(value)
        else:
            yield from super()._of(value)

    def _layer(self, layer: nn.Module) -> Iterator[Any]:
        """A layer of torch's own: its class is what its name says, and most of its hooks none."""
        yield type(layer)
        repeated = REPEATED if isinstance(layer, nn.RNNBase) else ()
        for name, entry in vars(layer).items():
            if name in repeated:
                continue
            if type(entry) in PLAIN:
                yield name, type(entry), entry
            elif entry or not hasattr(entry, "__len__"):
                yield name
                yield from self.parts(entry)
