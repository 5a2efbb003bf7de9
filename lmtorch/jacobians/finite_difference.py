"""Finite differences, for residuals that cannot be differentiated: black boxes.

The step balances truncation against round-off: h = ε^½ max(1, |x|) for two points and ε^⅓ max(1, |x|) for three, in the
dtype of the parameters, and is made exact as (x + h) − x.

Reference: Dennis & Schnabel, Numerical Methods for Unconstrained Optimization (1996), §5.4; Nocedal & Wright (2006),
§8.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .._autodiff import Params
from ..residuals.base import Part
from .base import Workspace


@dataclass(frozen=True)
class FiniteDifference:
    """Columns of J from differences of residuals.

    Args:
        method: "2-point" (n more evaluations, error of order ε^½) or "3-point" (2n, of order ε^⅔). Default: "2-point".
        step: relative step instead of ε^½ or ε^⅓.
    """

    method: Literal["2-point", "3-point"] = "2-point"
    step: float | None = None

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows of the part, in one block."""
        residual = part.function(params)
        jacobian = workspace(residual.shape[-1])
        column = 0
        for which, param in enumerate(params):
            for entry in range(param.shape[part.batch :].numel()):
                jacobian[..., column] = self._difference(part, params, which, entry, residual)
                column += 1
        yield residual, jacobian

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """Plain."""
        return part.function(params)

    def _difference(self, part: Part, params: Params, which: int, entry: int, residual: Tensor) -> Tensor:
        """One column (..., m)."""
        batch = part.batch
        power = 1 / 2 if self.method == "2-point" else 1 / 3
        param = params[which]
        value = param.flatten(batch)[..., entry]  # (...,)
        relative = self.step if self.step is not None else torch.finfo(param.dtype).eps ** power
        step = relative * torch.where(value < 0, -1.0, 1.0).to(value) * value.abs().clamp(min=1)

        def at(distance: Tensor) -> tuple[Tensor, Tensor]:
            moved = param.clone().flatten(batch)
            moved[..., entry] += distance
            exact = moved[..., entry] - value
            return part.function((*params[:which], moved.view_as(param), *params[which + 1 :])), exact

        ahead, forth = at(step)
        if self.method == "2-point":
            return (ahead - residual) / forth[..., None].to(residual.dtype)
        behind, back = at(-step)
        return (ahead - behind) / (forth - back)[..., None].to(residual.dtype)
