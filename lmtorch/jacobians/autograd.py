"""Row by row with plain autograd, the last source tried: for models that torch.func refuses.

Slow, one backward pass for each row (batched where autograd can), but it asks of the model only
what ordinary training asks of it. Independent samples are evaluated one at a time, so that a row
costs the backward pass of one sample.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .._autodiff import Params, fill_, ranges, unit_rows
from ..residuals.base import Part
from .base import Workspace


@dataclass(frozen=True)
class Autograd:
    """Rows of J by `torch.autograd.grad`.

    Args:
        chunk: rows at once, where autograd can batch them. Default: all.
        batched: let autograd batch rows where it can. Default: True.
    """

    chunk: int | None = None
    batched: bool = True

    def blocks(
        self, part: Part, params: Params, workspace: Workspace
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Sample by sample if there are samples, otherwise all rows of the part from one graph."""
        for function in _functions(part):
            twins = tuple(p.detach().clone().requires_grad_() for p in params)
            with torch.enable_grad():
                residual = function(twins)
            chunk = workspace.whole(self.chunk or residual.shape[-1])
            for rows in ranges(residual.shape[-1], chunk):
                jacobian = workspace(rows.stop - rows.start)
                _rows_(
                    jacobian if part.batch == 0 else jacobian.movedim(-2, 0),
                    residual,
                    twins,
                    rows,
                    self.batched,
                )
                yield residual[..., rows].detach(), jacobian

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals; sample by sample where random numbers are drawn, as in `blocks`."""
        if not part.random:
            return part.evaluate(params)
        return torch.cat([function(params) for function in _functions(part)])


def _functions(part: Part) -> list[Callable[[Params], Tensor]]:
    if part.sample is None:
        return [part.function]
    sample = part.sample
    singles = zip(*(t.unbind(0) for t in part.samples), strict=True)
    return [partial(_at, sample, single) for single in singles]


def _at(sample: Callable[..., Tensor], single: tuple[Tensor, ...], params: Params) -> Tensor:
    return sample(params, *single)


def _rows_(jacobian: Tensor, residual: Tensor, twins: Params, rows: slice, batched: bool) -> None:
    """Fill rows e_iᵀJ, (r, ..., n), of all problems of a batch, at once if the graph allows it."""
    batch = residual.ndim - 1
    if not residual.requires_grad:
        jacobian.zero_()
        return
    if batched and residual.shape[-1] > 1:
        directions = unit_rows(residual.shape[-1], rows, residual)
        directions = directions.reshape(-1, *(1,) * batch, residual.shape[-1])
        directions = directions.expand(-1, *residual.shape)
        try:
            gradients = torch.autograd.grad(
                residual,
                twins,
                directions,
                is_grads_batched=True,
                retain_graph=True,
                allow_unused=True,
            )
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError):
            pass  # an operator without a batching rule: one row after the other
        else:
            fill_(jacobian, _zeros_for_unused(gradients, twins, (jacobian.shape[0],)), batch)
            return
    for place, row in enumerate(range(rows.start, rows.stop)):
        with torch.enable_grad():  # without it the row has no graph
            # problems are independent: the gradient of their sum is each one's own
            value = residual[..., row].sum()
        gradients = torch.autograd.grad(value, twins, retain_graph=True, allow_unused=True)
        fill_(
            jacobian[place : place + 1],
            [g[None] for g in _zeros_for_unused(gradients, twins, ())],
            batch,
        )


def _zeros_for_unused(
    gradients: tuple[Tensor | None, ...], twins: Params, batch: tuple[int, ...]
) -> tuple[Tensor, ...]:
    return tuple(
        twin.new_zeros(*batch, *twin.shape) if g is None else g
        for g, twin in zip(gradients, twins, strict=True)
    )
