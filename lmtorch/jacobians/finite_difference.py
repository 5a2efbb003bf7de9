"""Finite differences, for residuals that cannot be differentiated: black boxes.

The step balances truncation against round-off: h = ε^½ max(1, |x|) for two points and ε^⅓ max(1, |x|) for three, with ε
of the parameters or of the residuals, whichever are coarser, and is made exact as (x + h) − x. It never leaves the box
in which the function is defined.

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
        step: h/|x| instead of the above, one number or one for each parameter, flat (n,); where x is zero, the above.
    """

    method: Literal["2-point", "3-point"] = "2-point"
    step: float | Tensor | None = None

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows of the part, in one block."""
        residual = part.function(params)
        jacobian = workspace(residual.shape[-1])
        column = 0
        for which, param in enumerate(params):
            for entry in range(param.shape[part.batch :].numel()):
                jacobian[..., column] = self._difference(part, params, which, entry, column, residual)
                column += 1
        yield residual, jacobian

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """Plain."""
        return part.function(params)

    def _difference(self, part: Part, params: Params, which: int, entry: int, column: int, residual: Tensor) -> Tensor:
        """One column (..., m)."""
        batch = part.batch
        param = params[which]
        value = param.flatten(batch)[..., entry]  # (...,)
        if part.box is None:
            lower, upper = torch.full_like(value, -torch.inf), torch.full_like(value, torch.inf)
        else:
            lower, upper = (side[which].expand(param.shape).flatten(batch)[..., entry] for side in part.box)
        below, above = value - lower, upper - value

        def at(distance: Tensor) -> tuple[Tensor, Tensor]:
            moved = param.clone().flatten(batch)
            # value + (upper - value) may round to a number above upper
            moved[..., entry] = torch.minimum(torch.maximum(value + distance, lower), upper)
            exact = moved[..., entry] - value
            function = part.function((*params[:which], moved.view_as(param), *params[which + 1 :]))
            return function, exact[..., None].to(residual.dtype)

        step = self._step(value, column, max(torch.finfo(t.dtype).eps for t in (value, residual)))
        if self.method == "2-point":
            # away from a wall, and where both are nearer than the step, as far as the farther one
            ahead = torch.where(step > 0, above, below)
            behind = torch.where(step > 0, below, above)
            turned = (step.abs() > ahead) & (behind > ahead)
            room = torch.maximum(ahead, behind)
            step = torch.where(turned, -step, step).clamp(min=-room, max=room)
            f, h = at(step)
            return torch.where(h == 0, 0.0, (f - residual) / h)
        size = step.abs()
        central = (size <= below) & (size <= above)
        outward = torch.where(above >= below, 1.0, -1.0).to(value)  # one-sided: to the wider side
        size = torch.where(central, size, torch.minimum(size, torch.maximum(below, above) / 2))
        first, h1 = at(torch.where(central, size, outward * size))
        second, h2 = at(torch.where(central, -size, 2 * outward * size))
        # the parabola through three points at 0, h₁, h₂
        slope = (h2.square() * (first - residual) - h1.square() * (second - residual)) / (h1 * h2 * (h2 - h1))
        plain = (first - second) / (h1 - h2)  # where h₂ = −h₁ it is the same, without the round-off
        return torch.where(h1 == 0, 0.0, torch.where(central[..., None], plain, slope))

    def _step(self, value: Tensor, column: int, eps: float) -> Tensor:
        """h (...,), away from zero."""
        power = 1 / 2 if self.method == "2-point" else 1 / 3
        size = eps**power * value.abs().clamp(min=1)
        if self.step is not None:
            relative = self.step[column].to(value) if isinstance(self.step, Tensor) and self.step.ndim else self.step
            given = (relative * value).abs()
            size = torch.where(given > 0, given, size)
        return torch.where(value < 0, -size, size)
