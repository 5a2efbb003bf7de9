"""Forward mode: one JVP for each parameter, n columns. For more residuals than parameters.

It works on the rows of a part together, whether or not they are independent, and on a batch of problems.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from .._autodiff import Params, push
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
        """All rows of the part, in one block."""
        yield push(part.function, params, part.batch, workspace, self.chunk)

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """Plain."""
        return part.function(params)
