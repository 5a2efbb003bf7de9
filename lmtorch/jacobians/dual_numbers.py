"""Dual numbers: the residuals and all columns of J from one evaluation, for few parameters.

It knows only operators that have a rule (`calculus/rules.py`), and refuses others, so that a
ladder takes its next source. What it gives for the others are a few plain operations on tensors:
no transform of torch.func stands in their way, which would cost a small problem nine tenths of its
time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._autodiff import Params
from ..calculus.base import NoRuleError
from ..calculus.duals import Dual, full, variables
from ..residuals.base import Part
from ..rows.columns import Columns
from ..rows.matrix import DenseRows
from .base import Block, Workspace, push_by_rows


@dataclass(frozen=True)
class DualNumbers:
    """Columns of J by dual numbers.

    Raises:
        NoRuleError: an operator of the function has no rule. Other exceptions may come from the
            function, which is called with what is no tensor.
    """

    kinds: ClassVar[tuple[type[Any], ...]] = (Columns, DenseRows)

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[Block]:
        """All rows of the part, in one block."""
        residual, columns = derivatives(part, params)
        rows = Columns(columns)
        if Columns in workspace.kinds:
            yield Block(residual, rows)
        else:
            matrix = workspace(residual.shape[-1])
            yield Block(residual, DenseRows(matrix.copy_(rows.dense())))

    def push(self, part: Part, params: Params, direction: Params) -> Tensor:
        """J v, from the columns."""
        return push_by_rows(self, part, params, direction)

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals of the part, by a plain call."""
        return part.function(params)


def derivatives(part: Part, params: Params) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Residuals of a part (..., m), and their derivatives (..., m) in each parameter."""
    n = sum(p.shape[part.batch :].numel() for p in params)
    with torch.enable_grad():
        if not part.batch:
            value, first = taken(part.function(seeded(params)))
        elif part.problem is None:
            raise NoRuleError("a batch whose problems are not known one by one")
        else:
            value, first = _together(part, params)
    columns: list[Tensor | None] = [None if i not in first else first[i].detach() for i in range(n)]
    value = value.detach()
    if not first:
        columns[0] = torch.zeros_like(value)
    return value, tuple(columns)


def seeded(params: Params, *, curved: bool = False) -> Any:
    """The parameters as dual numbers, numbered in their order."""
    start, found = 0, []
    for p in params:
        found.append(variables(p.detach(), start, p.ndim, curved))
        start += p.numel()
    return tuple(found)


def taken(result: Any) -> tuple[Tensor, dict[int, Tensor]]:
    """The value of what a function returned, and its derivatives written out."""
    if not isinstance(result, Dual):
        return result, {}  # it does not depend on the parameters
    return result.value, {i: full(t, result.value) for i, t in result.first.items()}


def _together(part: Part, params: Params) -> tuple[Tensor, dict[int, Tensor]]:
    """Residuals (b, m) of all problems of a batch, and their derivatives."""
    order: list[int] = []

    def single(params: Params, *shares: Tensor) -> tuple[Tensor, ...]:
        assert part.problem is not None
        value, first = taken(part.problem(seeded(params), *shares))
        order[:] = first
        return value, *first.values()

    value, *columns = part.run(single, params)
    return value, dict(zip(order, columns, strict=True))
