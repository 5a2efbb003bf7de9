"""Reverse mode: one VJP for each residual, m rows. For fewer residuals than parameters."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.func import vjp

from .._autodiff import Params, pull, ranges
from ..residuals.base import Part
from .base import Workspace


@dataclass(frozen=True)
class Reverse:
    """Rows of J by vector-Jacobian products of one evaluation.

    Args:
        chunk: rows at once. Default: by the memory budget in the optimizer, elsewhere all.
    """

    chunk: int | None = None

    def blocks(
        self, part: Part, params: Params, workspace: Workspace
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of rows: they stream even where the samples are not known to be independent."""
        residual, pullback = vjp(part.function, params)[:2]
        for rows in ranges(residual.shape[-1], self.chunk or residual.shape[-1]):
            jacobian = workspace(rows.stop - rows.start)
            pull(pullback, residual, jacobian, rows)
            yield residual[..., rows], jacobian

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """Plain."""
        return part.function(params)
