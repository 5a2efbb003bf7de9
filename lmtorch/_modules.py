"""Calling a module with other tensors in place of its parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def call_with(module: nn.Module, values: Mapping[str, Tensor], args: Sequence[Any]) -> Any:
    """module(*args) with other tensors in place of its parameters, by name, wherever the module holds them."""
    everywhere, own = names_of(module), dict(module.named_parameters(remove_duplicate=False))
    expanded = {
        place: value for name, value in values.items() for place in everywhere[id(own[name])]
    }
    return functional_call(module, expanded, tuple(args), tie_weights=False)


def names_of(module: nn.Module) -> dict[int, list[str]]:
    """Under which names each parameter and buffer, by id, is held; once for a child that appears at several places.

    `functional_call` itself ties weights by all their names, and leaves the replacement behind in a
    child that has several (torch 2.13).
    """
    found: dict[int, list[str]] = {}
    for prefix, child in module.named_modules():
        for name, tensor in (*child._parameters.items(), *child._buffers.items()):
            if tensor is not None:
                found.setdefault(id(tensor), []).append(f"{prefix}.{name}" if prefix else name)
    return found


def batch_statistics(module: nn.Module) -> str | None:
    """The layer that couples samples, in words; None where there is none."""
    for name, child in module.named_modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.training:
            return f"{name!r}, {type(child).__name__} in training mode"
    return None
