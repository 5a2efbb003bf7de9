"""Reverse mode: one VJP for each residual, m rows. For fewer residuals than parameters."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

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
        if part.through is None:
            residual, pullback = vjp(part.function, params)[:2]
            pull = partial(_pulled, pullback)
        else:  # a compiled form has no graph to be used again, and evaluates anew for each chunk
            residual = part.evaluate(params)
            pull = partial(_evaluated_and_pulled, part, params)
        chunk = workspace.whole(self.chunk or residual.shape[-1])
        for rows in ranges(residual.shape[-1], chunk):
            jacobian = workspace(rows.stop - rows.start)
            _fill(pull, residual, jacobian, rows)
            yield residual[..., rows], jacobian

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals of the part, by a plain call."""
        return part.evaluate(params)


def _pulled(pullback: Callable[[Tensor], tuple[Params]], cotangents: Tensor) -> Params:
    """Products of J with rows, (c, *param.shape) for each parameter."""
    gradients: Params = vmap(lambda w: pullback(w)[0], randomness="same")(cotangents)
    return gradients


def _evaluated_and_pulled(part: Part, params: Params, cotangents: Tensor) -> Params:
    def rows(*tensors: Tensor) -> Params:
        return _pulled(vjp(part.function, tensors[:-1])[1], tensors[-1])

    return part.pure("rows", rows, (*params, cotangents))


def _fill(
    pull: Callable[[Tensor], Params], residual: Tensor, jacobian: Tensor, rows: slice
) -> None:
    """Fill rows e_iᵀJ of the Jacobian (..., m, n), for all problems of a batch at once."""
    directions = unit_rows(residual.shape[-1], rows, residual)
    batch = residual.ndim - 1
    shape = (-1, *(1,) * batch, residual.shape[-1])
    cotangents = directions.reshape(shape).expand(-1, *residual.shape)
    fill_(jacobian if batch == 0 else jacobian.movedim(-2, 0), pull(cotangents), batch)
