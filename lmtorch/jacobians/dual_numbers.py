"""Dual numbers: the residuals and all columns of J from one evaluation, for few parameters.

It knows only operators that have a rule (`calculus/rules.py`), and refuses others, so that a
ladder takes its next source. What it gives for the others are a few plain operations on tensors:
no transform of torch.func stands in their way, which would cost a small problem nine tenths of its
time.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._autodiff import Function, Params
from ..calculus.base import NoRuleError
from ..calculus.duals import Dual, full, variables
from ..calculus.many import Many, constant_of_many, variables_of_many
from ..residuals.base import Part
from ..rows.columns import Columns
from ..rows.matrix import DenseRows
from .base import Bends, Block, Workspace, push_by_rows
from .learned_many import Taken

_NOTHING = nullcontext()


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
        residual, rows = self.block(part, params)
        if Columns in workspace.kinds:
            yield Block(residual, rows)
        else:
            matrix = workspace(residual.shape[-1])
            yield Block(residual, DenseRows(matrix.copy_(rows.dense())))

    def block(self, part: Part, params: Params) -> Block:
        """All rows of the part, as columns."""
        if part.by_rows is not None:
            found: Block | None = part.by_rows.block(
                _taken_of, part.function, params, part.row_data
            )
            if found is not None:
                return found
        residual, columns = derivatives(part, params)
        return Block(residual, Columns(columns))

    def second(self, part: Part, params: Params) -> Bends:
        """First and second derivatives of a part, from one evaluation."""
        residual, first, second = _taken(part, params, curved=True)
        return Bends(residual, Columns(_columns(residual, first, _count(part, params))), second)

    def push(self, part: Part, params: Params, direction: Params) -> Tensor:
        """J v, from the columns."""
        return push_by_rows(self, part, params, direction)

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals of the part, by a plain call; of a batch as one, if it can be."""
        if part.by_rows is not None:
            found: Tensor | None = part.by_rows.values(
                _taken_of, part.function, params, part.row_data
            )
            if found is not None:
                return found
        return _values_as_one(part, params) if part.problem is not None else part.function(params)


def derivatives(part: Part, params: Params) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Residuals of a part (..., m), and their derivatives (..., m) in each parameter."""
    value, first, _ = _taken(part, params, curved=False)
    return value, _columns(value, first, _count(part, params))


def vectors(part: Part, params: Params) -> list[Tensor | None]:
    """Derivatives of a part in each parameter, and below them its residuals, (m,) each."""
    residual, columns = derivatives(part, params)
    return [*columns, residual]


def bent_vectors(part: Part, params: Params) -> list[Tensor | None]:
    """The same, and below them the second derivatives that are not zero."""
    residual, first, second = _taken(part, params, curved=True)
    return [*_columns(residual, first, _count(part, params)), residual, *second.values()]


def seeded(params: Params, *, curved: bool = False) -> Any:
    """The parameters as dual numbers, numbered in their order."""
    if len(params) == 1:
        (p,) = params
        return (variables(_without_graph(p), 0, p.ndim, curved),)
    start, found = 0, []
    for p in params:
        found.append(variables(_without_graph(p), start, p.ndim, curved))
        start += p.numel()
    return tuple(found)


def taken(result: Any) -> Taken:
    """The value of what a function returned, and its derivatives written out."""
    if not isinstance(result, Dual):
        # it does not depend on the parameters, and may be what the function writes to
        return result.detach().clone(), {}, {}
    value = _without_graph(result.value)
    first = {i: _without_graph(full(t, value)) for i, t in result.first.items()}
    if not result.second:
        return value, first, {}
    second = {key: _without_graph(full(t, value)) for key, t in result.second.items()}
    return value, first, second


def _without_graph(found: Tensor) -> Tensor:
    """The tensor without its graph, if it has one: to make a view takes a microsecond."""
    return found.detach() if found.requires_grad else found


def _taken_of(function: Function, params: Params) -> Taken:
    """Residuals of a function with the derivatives that are not zero."""
    with _NOTHING if torch.is_grad_enabled() else torch.enable_grad():
        return taken(function(seeded(params)))


def _taken(part: Part, params: Params, *, curved: bool) -> Taken:
    """Residuals of a part with the derivatives that are not zero."""
    with _NOTHING if torch.is_grad_enabled() else torch.enable_grad():
        if not part.batch:
            return taken(part.function(seeded(params, curved=curved)))
        if part.problem is None:
            raise NoRuleError("a batch whose problems are not known one by one")
        return _as_one(part, params, curved) or _mapped(part, params, curved)


def _as_one(part: Part, params: Params, curved: bool) -> Taken | None:
    """Residuals (b, m) of all problems of a batch by one call; None where it is refused."""
    problem = part.problem
    assert problem is not None
    if part.refused:
        return None

    def evaluate(params: Sequence[Tensor], shares: Sequence[Tensor]) -> Taken:
        start, seeds = 0, []
        for p in params:
            seeds.append(variables_of_many(p.detach(), start, curved))
            start += p[0].numel()
        constants = [constant_of_many(share.detach(), curved) for share in shares]
        result = problem(tuple(seeds), *constants)
        if not isinstance(result, Many) or result.ndim != 1:
            raise NoRuleError("residuals that are the same for all problems")
        return taken(result)

    try:
        if part.learned is not None:
            found = part.learned.taken(evaluate, params, part.shares, curved)
            if found is not None:
                return found
        return evaluate(params, part.shares)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever the reason: `torch.vmap` is another way, and says what is wrong
        part.refused.append(True)
        return None


def _values_as_one(part: Part, params: Params) -> Tensor:
    """Residuals (b, m) of all problems by one call, otherwise by `torch.vmap`."""
    assert part.problem is not None
    if not part.refused:
        with suppress(Exception), torch.enable_grad():
            points = [variables_of_many(p, None) for p in params]
            result = part.problem(tuple(points), *map(constant_of_many, part.shares))
            if isinstance(result, Many) and result.ndim == 1:
                return result.value
    return part.function(params)


def _mapped(part: Part, params: Params, curved: bool) -> Taken:
    """Residuals (b, m) of all problems of a batch, with their derivatives, under `torch.vmap`."""
    keys: list[list[Any]] = [[], []]

    def single(params: Params, *shares: Tensor) -> tuple[Tensor, ...]:
        assert part.problem is not None
        value, first, second = taken(part.problem(seeded(params, curved=curved), *shares))
        keys[:] = [list(first), list(second)]
        return value, *first.values(), *second.values()

    value, *found = part.run(single, params)
    count = len(keys[0])
    first, second = found[:count], found[count:]
    return (
        value,
        dict(zip(keys[0], first, strict=True)),
        dict(zip(keys[1], second, strict=True)),
    )


def _columns(value: Tensor, first: dict[int, Tensor], count: int) -> tuple[Tensor | None, ...]:
    """A derivative for each parameter, None where it is zero, but not for all of them."""
    if not first:
        first = {0: torch.zeros_like(value)}
    return tuple(map(first.get, range(count)))


def _count(part: Part, params: Params) -> int:
    """The number of parameters of one problem."""
    if part.batch:
        return sum(p.shape[part.batch :].numel() for p in params)
    return params[0].numel() if len(params) == 1 else sum(p.numel() for p in params)
