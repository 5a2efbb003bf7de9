"""A Jacobian that the user computes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._arrays import tensor_of
from .._autodiff import Params
from .._errors import InputError
from ..residuals.base import Part
from .base import Workspace, push_by_rows


@dataclass(frozen=True)
class GivenJacobian:
    """The user's function.

    Args:
        function: called as the closure is, with the same batch if there is one, and at the same
            parameters. Returns the Jacobian (m, n) as a tensor, or one tensor (m, *param.shape) for
            each parameter in a tuple or list, in the order of the parameters.
    """

    function: Callable[..., Any]

    def blocks(
        self, part: Part, params: Params, workspace: Workspace
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows of the part, in one block."""
        residual = part.function(params)
        m, n = residual.shape[-1], sum(p.shape[part.batch :].numel() for p in params)
        result = part.run(self.function, params)
        if isinstance(result, tuple | list):
            result = torch.cat([tensor_of(block).reshape(m, -1) for block in result], 1)
        result = tensor_of(result)
        if result.ndim <= residual.ndim and result.numel() == residual.numel() * n and 1 in (m, n):
            result = result.reshape(*residual.shape, n)  # one parameter, or one residual
        if result.shape != (*residual.shape, n):
            raise InputError(
                f"the given Jacobian is {tuple(result.shape)}; {m} residuals and {n} parameters "
                f"need ({m}, {n}), rows in the order of the flattened residuals, columns in "
                "that of the parameters."
            )
        jacobian = workspace(m)
        jacobian.copy_(result)
        yield residual, jacobian

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals of the part, by a plain call."""
        return part.function(params)

    def push(self, part: Part, params: Params, direction: Params) -> Tensor:
        """J v, by the user's Jacobian."""
        return push_by_rows(self, part, params, direction)
