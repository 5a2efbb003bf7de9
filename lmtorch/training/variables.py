"""The parameters that a step fits, with the options of their groups: those that are not frozen."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..core.bounds import Bounds
from ..residuals.layout import Layout
from .groups import check_values
from .swap import Swap, TensorSwap, combined


class Variables(NamedTuple):
    """Parameters as one vector x, and how a closure is called at other values of them."""

    layout: Layout
    groups: tuple[dict[str, Any], ...]  # the param group of each parameter
    swap: Swap
    strange: tuple[str, ...] = ()  # names of the module's parameters that no group has

    def option(self, name: str, neutral: float, like: Tensor) -> Tensor | None:
        """An option of the groups for each entry of x, (n,) as `like`; None: neutral everywhere."""
        values = [group[name] for group in self.groups]
        if all(v is None or (isinstance(v, int | float) and v == neutral) for v in values):
            return None
        return self.layout.vector(values, neutral, like)

    def bounds(self, x: Tensor, dtype: torch.dtype) -> Bounds | None:
        """The box of x, in a dtype; None: there is none."""
        # rounded to the parameters first, so that a parameter can lie on its bound
        sides = [
            (self.option(name, edge, x), edge)
            for name, edge in (("lower", -math.inf), ("upper", math.inf))
        ]
        if all(side is None for side, _ in sides):
            return None
        return Bounds(
            *(
                torch.full_like(x, edge, dtype=dtype) if side is None else side.to(dtype)
                for side, edge in sides
            )
        )


def variables_of(param_groups: Sequence[dict[str, Any]], module: nn.Module | None) -> Variables:
    """Gather what is not frozen.

    Args:
        param_groups: the optimizer's.
        module: whose parameters they may be: they are swapped in it.

    Raises:
        InputError: everything is frozen, or a parameter has no values yet.
    """
    tensors: list[Tensor] = []
    names, groups = [], []
    for place, group in enumerate(param_groups):
        called = group.get("param_names") or [
            f"group {place}, parameter {i}" for i in range(len(group["params"]))
        ]
        for name, tensor in zip(called, group["params"], strict=True):
            # torch allows a parameter twice
            if tensor.requires_grad and not any(tensor is known for known in tensors):
                check_values(name, tensor)
                tensors.append(tensor)
                names.append(name)
                groups.append(group)
    if not tensors:
        raise InputError(
            "every parameter is frozen. Call requires_grad_() on those that are to be fitted."
        )
    layout = Layout(tensors, names)
    if module is None:
        return Variables(layout, tuple(groups), TensorSwap(layout.tensors))
    own = {id(parameter): name for name, parameter in module.named_parameters()}
    swap = combined(module, own, layout.tensors)
    return Variables(layout, tuple(groups), swap, _strange(param_groups, module, own))


def _strange(
    param_groups: Sequence[dict[str, Any]], module: nn.Module, own: dict[int, str]
) -> tuple[str, ...]:
    """Names of the module's parameters, not frozen, that no group has: they came later."""
    listed = {id(tensor) for group in param_groups for tensor in group["params"]}
    later = own.keys() - listed
    if not later:
        return ()
    return tuple(
        name for name, p in module.named_parameters() if id(p) in later and p.requires_grad
    )
