"""Forward mode: one JVP for each parameter, n columns. For more residuals than parameters.

It works on the rows of a part together, whether or not they are independent, and on a batch of
problems.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torch.func import jvp, vmap

from .._autodiff import Params, basis, ranges
from .._tangents import constants_apart
from .._threads import forward_mode
from ..residuals.base import Part
from .base import Workspace


@dataclass(frozen=True)
class Forward:
    """Columns of J by Jacobian-vector products.

    Args:
        chunk: columns at once. Default: by the memory budget in the optimizer, elsewhere all.
    """

    chunk: int | None = None

    def blocks(
        self, part: Part, params: Params, workspace: Workspace
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows of the part, in one block, filled by columns J e_j."""
        n = sum(p.shape[part.batch :].numel() for p in params)
        # what compiles a function finds the zeros of constants by itself
        function = constants_apart(part.function) if part.through is None else part.function
        # torch declares integers; None, which it documents, leaves the value without a batch
        out_dims: Any = (None, 0)

        def along(*tensors: Tensor) -> tuple[Tensor, Tensor]:
            point, directions = tensors[: len(params)], tensors[len(params) :]
            push = vmap(partial(jvp, function, (point,)), out_dims=out_dims, randomness="same")
            residual, derivatives = push((directions,))[:2]
            return residual, derivatives

        residual, jacobian = params[0], params[0]  # both are set by the first chunk of columns
        with forward_mode():
            for columns in ranges(n, self.chunk or n):
                directions = basis(params, part.batch, columns)
                residual, derivatives = part.pure("columns", along, (*params, *directions))
                if columns.start == 0:
                    jacobian = workspace(residual.shape[-1])
                jacobian[..., columns] = derivatives.movedim(0, -1)
        yield residual, jacobian

    def push(self, part: Part, params: Params, direction: Params) -> Tensor:
        """J v, by one Jacobian-vector product."""
        with forward_mode():
            derivative: Tensor = jvp(constants_apart(part.function), (params,), (direction,))[1]
        return derivative

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals of the part, by a plain call."""
        return part.evaluate(params)
