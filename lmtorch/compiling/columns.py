"""Derivatives for a trace: a Jacobian-vector product for each parameter, as torch has them."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import jvp

from .._autodiff import Params
from .._threads import forward_mode
from ..jacobians.base import Block, Workspace
from ..residuals.base import Part
from ..rows.columns import Columns


class ByColumns:
    """Columns J e_j one after the other: what they share is found again when they are written."""

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[Block]:
        """All rows of the part, in one block."""
        residual, columns = params[0], []
        for which, param in enumerate(params):
            size = param.shape[part.batch :].numel()
            for place in range(size):
                unit = torch.zeros(size, dtype=param.dtype, device=param.device)
                unit[place] = 1
                tangents = tuple(
                    unit.reshape(p.shape[part.batch :]).expand(p.shape).clone()
                    if other == which
                    else torch.zeros_like(p)
                    for other, p in enumerate(params)
                )
                with forward_mode():
                    residual, column = jvp(part.function, (params,), (tangents,))[:2]
                columns.append(column)
        yield Block(residual, Columns(tuple(columns)))

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals of the part, by a plain call."""
        return part.function(params)
