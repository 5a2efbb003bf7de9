"""Calling a module with other tensors in place of its parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def call_with(module: nn.Module, values: Mapping[str, Tensor], args: Sequence[Any]) -> Any:
    """Call module(*args) with other tensors in all places that hold these parameters."""
    everywhere, own = names_of(module), dict(module.named_parameters(remove_duplicate=False))
    expanded = {
        place: value for name, value in values.items() for place in everywhere[id(own[name])]
    }
    return functional_call(module, expanded, tuple(args), tie_weights=False)


def names_of(module: nn.Module) -> dict[int, list[str]]:
    """All names under which each parameter and buffer (by its id) is held.

    A child module that appears at several places is named once.

    `functional_call` would find all names of a tied weight by itself, but in a child module with
    several names it leaves the replacement behind (torch 2.13).
    """
    found: dict[int, list[str]] = {}
    for prefix, child in module.named_modules():
        for name, tensor in (*child._parameters.items(), *child._buffers.items()):
            if tensor is not None:
                found.setdefault(id(tensor), []).append(f"{prefix}.{name}" if prefix else name)
    return found


def _parts(module: nn.Module) -> list[nn.Module]:
    """A module and all within it; one that is at several places may be there as often."""
    found = [module]
    for part in found:  # which grows
        found.extend(child for child in part._modules.values() if child is not None)
    return found


def batch_statistics(module: nn.Module) -> str | None:
    """Name and type of a layer that couples the samples of a batch; None if there is none."""
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in _parts(module)):
        return None  # no names are made for the most usual answer
    for name, child in module.named_modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.training:
            return f"{name!r}, {type(child).__name__} in training mode"
    return None


def in_training(module: nn.Module) -> str | None:
    """Name and type of a layer in training mode that does not do the same in each call, if any."""
    kinds = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd, nn.RReLU)
    for name, child in module.named_modules():
        draws = isinstance(child, kinds) and not (
            isinstance(child, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d)
            and not child.track_running_stats
        )
        if draws and child.training:
            return f"{name!r}, {type(child).__name__},"
    return None
