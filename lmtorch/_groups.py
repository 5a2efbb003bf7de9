"""What may be given as parameters, and what a param group may ask for: checked before any work."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ._errors import InputError


def listed(params: nn.Module | Iterable[Any]) -> Any:
    """What torch.optim.Optimizer takes, with the names of a module's parameters.

    Args:
        params: as the optimizer was given them.

    Returns:
        A list; a single tensor as it is: torch says what is wrong with it.

    Raises:
        InputError: nothing was given.
    """
    if isinstance(params, Tensor):
        return params
    given = list(params.named_parameters() if isinstance(params, nn.Module) else params)
    if not given:
        raise InputError(
            f"there are no parameters: {type(params).__name__} gave an empty list. Give the optimizer a module with "
            "parameters, or the tensors themselves (a generator such as model.parameters() can be read only once)."
        )
    return given


def named(group: dict[str, Any], place: int) -> dict[str, Any]:
    """With names, which torch wants for every group or for none: a coefficient can be added to a module's.

    Args:
        group: a param group, with names or without.
        place: its number, for names.

    Returns:
        The group with a name for each parameter.
    """
    given = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
    named = [
        (f"group {place}, parameter {i}", entry) if isinstance(entry, Tensor) else entry
        for i, entry in enumerate(given)
    ]
    return {**group, "params": named}


def check_group(group: dict[str, Any]) -> None:
    """Rates, penalties and bounds that can serve.

    Args:
        group: a param group as torch has completed it.

    Raises:
        InputError: one that cannot.
    """
    for option in ("lr", "weight_decay"):
        value = group[option]
        if value is None or not bool(((number := torch.as_tensor(value)).isfinite() & (number >= 0)).all()):
            raise InputError(f"{option}={value} must be finite, and zero or positive.")
    names = group.get("param_names") or [f"parameter {i}" for i in range(len(group["params"]))]
    for name, parameter in zip(names, group["params"], strict=True):
        if not (parameter.is_floating_point() or parameter.is_complex()):
            raise InputError(f"{name} is {parameter.dtype}. Only floating-point and complex parameters can be fitted.")
        lower, upper = group["lower"], group["upper"]
        if not is_lazy(parameter):  # which has a shape and values when the first step is taken
            check_values(name, parameter)
        if lower is None and upper is None:
            continue
        if is_lazy(parameter):
            raise InputError(f"{name} has no shape yet, and a bound: call the lazy module once on a batch beforehand.")
        if parameter.is_complex():
            raise InputError(f"{name} is complex, which has no order: bounds need real parameters.")
        low, high = (
            torch.as_tensor(value, dtype=parameter.dtype, device=parameter.device)
            for value in (-math.inf if lower is None else lower, math.inf if upper is None else upper)
        )
        for side, bound in (("lower", low), ("upper", high)):
            if not _fits(bound.shape, parameter.shape):
                raise InputError(
                    f"{side} bound of shape {tuple(bound.shape)} does not fit {name}, {tuple(parameter.shape)}."
                )
        if not bool((low <= high).all()):
            raise InputError(f"the lower bound of {name} is above its upper bound (or one of them is NaN).")
        value = parameter.detach()
        if bool(((value < low) | (value > high)).any()):
            raise InputError(f"{name} starts outside its bounds. Move it inside first, for example with clamp_.")


def check_values(name: str, parameter: Tensor) -> None:
    """A parameter that has values which can be flattened.

    Args:
        name: what to call it.
        parameter: to be fitted.

    Raises:
        InputError: it has none yet, or holds them in another way.
    """
    if is_lazy(parameter):
        raise InputError(f"{name} has no shape yet: call the lazy module once on a batch before the first step.")
    if parameter.layout != torch.strided:
        raise InputError(f"{name} is {parameter.layout}: only dense parameters can be fitted, parameter.to_dense().")


def _fits(shape: torch.Size, onto: torch.Size) -> bool:
    try:
        return torch.broadcast_shapes(shape, onto) == onto
    except RuntimeError:
        return False
