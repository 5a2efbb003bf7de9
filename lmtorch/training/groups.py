"""What may be given as parameters, and what a param group may ask for: checked before any work."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .._arrays import tensor_of
from .._errors import InputError
from ..residuals.layout import real


def listed(params: nn.Module | Iterable[Any]) -> Any:
    """List the parameters for torch.optim.Optimizer, with the names of a module's.

    Args:
        params: as the optimizer was given them.

    Returns:
        A list; a single tensor as it is: torch says what is wrong with it.

    Raises:
        InputError: nothing was given.
    """
    if isinstance(params, Tensor):
        return params
    readable: Any = params  # whatever a caller without a type checker passes
    if not isinstance(readable, Iterable | nn.Module) or isinstance(readable, str):
        raise InputError(
            f"params={params!r} has no parameters: give a module, or tensors, pairs or param "
            "groups."
        )
    given = list(params.named_parameters() if isinstance(params, nn.Module) else params)
    if not given:
        raise InputError(
            f"there are no parameters: {type(params).__name__} gave an empty list. Give the "
            "optimizer a module with parameters, or the tensors themselves (a generator such as "
            "model.parameters() can be read only once)."
        )
    check_tensors(given)
    return given


def check_tensors(given: Iterable[Any]) -> None:
    """Check that there are only tensors, pairs (name, tensor), or param groups of them.

    Raises:
        InputError: something else.
    """
    for entry in given:
        if isinstance(entry, Mapping):
            inside = entry.get("params")
            if isinstance(inside, Tensor | nn.Module):
                continue
            if not isinstance(inside, Iterable) or isinstance(inside, str | Mapping):
                raise InputError(
                    "a param group is a dict with 'params', a tensor or several, and not "
                    f"{entry!r}."
                )
            if not isinstance(inside, Iterator):  # which can be read but once
                check_tensors(inside)
        elif not isinstance(
            entry[1] if isinstance(entry, tuple) and len(entry) == 2 else entry, Tensor
        ):
            raise InputError(
                f"params has {entry!r}: give tensors, pairs (name, tensor), or param groups."
            )


def named(group: dict[str, Any], place: int) -> dict[str, Any]:
    """Give a group names: torch wants them for every group or for none.

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


def check_names(group: Mapping[str, Any], whole: Collection[str]) -> None:
    """Check that a group asks for nothing that is one for all parameters.

    Args:
        group: as it was given; what else it holds is the user's own, as with torch's optimizers.
        whole: the options of the optimizer that no group has.

    Raises:
        InputError: it does; it would be without effect.
    """
    found = [name for name in group if name in whole]
    if found:
        raise InputError(
            f"a param group has {', '.join(found)}, which is one for all parameters: pass it to "
            "the optimizer itself. A group may have lr, weight_decay, lower and upper."
        )


def check_group(group: dict[str, Any]) -> None:
    """Check the rates, penalties and bounds of a group.

    Args:
        group: a param group as torch has completed it.

    Raises:
        InputError: one of them cannot be used.
    """
    values = {
        option: _numbers(group[option], option)
        for option in ("lr", "weight_decay", "lower", "upper")
    }
    for option in ("lr", "weight_decay"):
        value = values[option]
        if value is None or not bool((value.isfinite() & (value >= 0)).all()):
            raise InputError(f"{option}={group[option]} must be finite, and zero or positive.")
    names = group.get("param_names") or [f"parameter {i}" for i in range(len(group["params"]))]
    for name, parameter in zip(names, group["params"], strict=True):
        if not (parameter.is_floating_point() or parameter.is_complex()):
            raise InputError(
                f"{name} is {parameter.dtype}. Only floating-point and complex parameters can be "
                "fitted."
            )
        if not is_lazy(parameter):  # which has a shape and values when the first step is taken
            check_values(name, parameter)
        for option, value in values.items():
            if (
                value is not None
                and not is_lazy(parameter)
                and not _fits(value.shape, real(parameter).shape)
            ):
                shape = tuple(value.shape)
                raise InputError(
                    f"{option} of shape {shape} does not fit {name}, {tuple(parameter.shape)}."
                )
        if values["lower"] is None and values["upper"] is None:
            continue
        if is_lazy(parameter):
            raise InputError(
                f"{name} has no shape yet, and a bound: call the lazy module once on a batch "
                "beforehand."
            )
        if parameter.is_complex():
            raise InputError(
                f"{name} is complex, which has no order: lower and upper need real parameters."
            )
        low, high = (
            torch.full_like(parameter, edge) if value is None else value.to(parameter)
            for value, edge in ((values["lower"], -math.inf), (values["upper"], math.inf))
        )
        if not bool((low <= high).all()):
            raise InputError(
                f"the lower bound of {name} is above its upper bound (or one of them is NaN)."
            )
        value = parameter.detach()
        if bool(((value < low) | (value > high)).any()):
            raise InputError(
                f"{name} starts outside its bounds, lower to upper. Move it inside first, as by "
                "clamp_."
            )


def has_gradients(groups: Iterable[Mapping[str, Any]]) -> bool:
    """Whether some parameter has a gradient that is not zero, as after `loss.backward()`."""
    found = (p.grad for group in groups for p in group["params"])
    return any(bool((grad.to_dense() != 0).any()) for grad in found if grad is not None)


def _numbers(value: Any, option: str) -> Tensor | None:
    """Convert an option to a tensor of real numbers; None stays None.

    Raises:
        InputError: no real numbers.
    """
    if value is None:
        return None
    try:
        found = value if isinstance(value, Tensor) else tensor_of(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{option}={value!r} is not made of real numbers.") from error
    if found.is_complex():
        raise InputError(f"{option}={value!r} is complex, where real numbers are needed.")
    return found.detach()


def check_values(name: str, parameter: Tensor) -> None:
    """Check that a parameter has values, and that they can be flattened.

    Args:
        name: what to call it.
        parameter: to be fitted.

    Raises:
        InputError: it has none yet, or holds them in another way.
    """
    if is_lazy(parameter):
        raise InputError(
            f"{name} has no shape yet: call the lazy module once on a batch before the first step."
        )
    if parameter.layout != torch.strided:
        raise InputError(
            f"{name} is {parameter.layout}: only dense parameters can be fitted, "
            "parameter.to_dense()."
        )


def _fits(shape: torch.Size, onto: torch.Size) -> bool:
    try:
        return torch.broadcast_shapes(shape, onto) == onto
    except RuntimeError:
        return False
