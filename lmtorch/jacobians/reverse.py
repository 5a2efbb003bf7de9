"""Reverse mode: one VJP for each residual, m rows. For fewer residuals than parameters."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.func import vjp, vmap

from .._autodiff import Params, fill_, ranges, unit_rows
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
        chunk = workspace.whole(self.chunk or residual.shape[-1])
        for rows in ranges(residual.shape[-1], chunk):
            jacobian = workspace(rows.stop - rows.start)
            _fill(pullback, residual, jacobian, rows)
            yield residual[..., rows], jacobian

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals of the part, by a plain call."""
        return part.function(params)


def _fill(
    pullback: Callable[[Tensor], tuple[Params]], residual: Tensor, jacobian: Tensor, rows: slice
) -> None:
    """Fill rows e_iᵀJ of the Jacobian (..., m, n), for all problems of a batch at once."""
    directions = unit_rows(residual.shape[-1], rows, residual)
    batch = residual.ndim - 1
    shape = (-1, *(1,) * batch, residual.shape[-1])
    cotangents = directions.reshape(shape).expand(-1, *residual.shape)
    gradients = vmap(lambda w: pullback(w)[0], randomness="same")(cotangents)
    fill_(jacobian if batch == 0 else jacobian.movedim(-2, 0), gradients, batch)
