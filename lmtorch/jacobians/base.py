"""Where the Jacobian comes from: a source writes blocks of rows, and evaluates residuals alike."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from .._autodiff import Params, pulled, pushed, side_by_side
from ..residuals.base import Part
from ..rows.base import Rows
from ..rows.matrix import DenseRows

# a wrong formula is off by more than this share; half precision inside the closure costs less
GROSS = 0.03
NOISE = 0.75  # power of ε: share of the largest column to which the smallest ones are known


class Workspace(NamedTuple):
    """Where a source writes rows, and which kinds of them are wanted."""

    make: Callable[[int], Tensor]  # rows -> (..., rows, n), to be filled
    kinds: tuple[type[Any], ...] = (DenseRows,)  # the richest first
    together: int = 1  # so many rows in a row belong to one sample, and stay in one block

    def __call__(self, rows: int) -> Tensor:
        """Where the next dense rows are to be written, (..., rows, n)."""
        return self.make(rows)

    def whole(self, rows: int) -> int:
        """Rows of whole samples, as many as `rows` allows and those of one at least."""
        return max(1, rows // self.together) * self.together


class Block(NamedTuple):
    """Some residuals and their rows; a source may also yield a pair with a matrix of rows."""

    residual: Tensor  # (..., rows)
    rows: Rows


def as_block(found: tuple[Tensor, Any]) -> Block:
    """What a source has yielded, with a matrix of rows as rows."""
    residual, rows = found
    if type(found) is Block and not isinstance(rows, Tensor):
        return found
    return Block(residual, DenseRows(rows) if isinstance(rows, Tensor) else rows)


def disagrees(
    rows: Rows, weights: Tensor, expected: Tensor, eps: float, share: float = GROSS
) -> bool:
    """Whether Jᵀw is far from what a plain backward pass has found for it, where all is finite.

    With random normal weights an error E of a column shows as about ‖E‖₂, however smooth it is.

    Args:
        rows: of J, (..., m, n).
        weights: (m,), or (..., m).
        expected: (..., n).
        eps: round-off of the residuals, relative.
        share: of a column's norm up to which the two are not far apart.
    """
    size = rows.column_norms
    return far_apart(rows.transposed_times(weights.to(size.dtype)), expected, size, eps, share)


def far_apart(
    found: Tensor, expected: Tensor, size: Tensor, eps: float, share: float = GROSS
) -> bool:
    """Whether one Jᵀw is far from another, beside the column norms `size`, where all is finite.

    That is asked of each problem of a batch by itself.
    """
    allowed = share * size + eps**NOISE * size.amax(-1, keepdim=True)
    far = (found - expected.to(found.dtype)).abs() > allowed
    return bool((found.isfinite().all(-1, keepdim=True) & far).any())


class DescendedError(Exception):
    """The source gave up and another stands in its place: what was begun must begin again."""


Pull = Callable[[Tensor], Tensor]  # w (..., m) -> Jᵀw (..., n)


@runtime_checkable
class JacobianSource(Protocol):
    """One way to take derivatives.

    A source may have more than these two, where it has a better way than the default of the
    functions `push`, `pull` and `kinds_of` below: methods `push` and `pull` with the arguments of
    those functions but the source, and an attribute `kinds`.
    """

    def blocks(
        self, part: Part, params: Params, workspace: Workspace
    ) -> Iterator[Block | tuple[Tensor, Tensor]]:
        """Residuals (..., rows) and rows of J, block by block, together all of the part."""

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The part's residuals (..., m) alone, equal to those of `blocks` in random draws, too."""


@runtime_checkable
class Bending(Protocol):
    """A source that has second derivatives along a direction as well."""

    def bend(self, part: Part, params: Params, direction: Params) -> Tensor | None:
        """d²r(x + tv)/dt² at t = 0 of a part, (..., m); None where derivatives do not give it."""


class Bends(NamedTuple):
    """Residuals with their first and second derivatives in each of a few parameters."""

    residual: Tensor  # (..., m)
    rows: Rows  # of J
    second: dict[tuple[int, int], Tensor]  # ∂ᵢⱼr (..., m) for i ≤ j; one that is zero is not there


@runtime_checkable
class Curving(Protocol):
    """A source that has all second derivatives as well."""

    def second(self, part: Part, params: Params) -> Bends | None:
        """First and second derivatives of a part; None where it does not have them."""


def kinds_of(source: JacobianSource) -> tuple[type[Any], ...]:
    """The kinds of rows that a source can give."""
    return getattr(source, "kinds", (DenseRows,))


def push(source: JacobianSource, part: Part, params: Params, direction: Params) -> Tensor:
    """J v of a part, (..., m), for v in the shapes of the parameters.

    By the source's own `push`, otherwise by reverse mode twice.
    """
    own = getattr(source, "push", None)
    if own is not None:
        return own(part, params, direction)
    return pushed(lambda p: source.evaluate(part, p), params, direction)


def pull(source: JacobianSource, part: Part, params: Params) -> tuple[Tensor, Pull]:
    """Residuals of a part (..., m), and w ↦ Jᵀw (..., n), which may be called again and again.

    By the source's own `pull`, otherwise by a backward pass for each w through one evaluation; of
    residuals that have no graph, by rows.
    """
    own = getattr(source, "pull", None)
    if own is not None:
        return own(part, params)
    if part.black_box:
        return pull_by_rows(source, part, params)
    if part.through is not None:
        return source.evaluate(part, params), partial(_pulled_anew, source, part, params)
    residual, along = pulled(lambda p: source.evaluate(part, p), params, part.batch)
    return (residual, along) if along is not None else pull_by_rows(source, part, params)


def _pulled_anew(source: JacobianSource, part: Part, params: Params, weights: Tensor) -> Tensor:
    """Jᵀw of a part, from an evaluation of its own: a compiled form leaves no graph behind."""
    plain = replace(part, through=None)

    def pull_back(*tensors: Tensor) -> Tensor:
        point, weights = tensors[:-1], tensors[-1]
        values, along = pulled(lambda p: source.evaluate(plain, p), point, part.batch)
        if along is None:
            return torch.cat([torch.zeros_like(p).reshape(-1) for p in point])
        return along(weights.to(values.dtype))

    return part.pure("pull", pull_back, (*params, weights))


def push_by_rows(source: JacobianSource, part: Part, params: Params, direction: Params) -> Tensor:
    """J v of a part from all of its rows, for what only its rows are known of."""
    v = side_by_side(direction, part.batch)
    blocks = map(as_block, source.blocks(part, params, own_workspace(params, part.batch)))
    return torch.cat([block.rows.times(v.to(block.residual.dtype)) for block in blocks], -1)


def pull_by_rows(source: JacobianSource, part: Part, params: Params) -> tuple[Tensor, Pull]:
    """Residuals of a part and w ↦ Jᵀw from all of its rows."""
    workspace = own_workspace(params, part.batch)
    blocks = [as_block(found) for found in source.blocks(part, params, workspace)]

    def along(w: Tensor) -> Tensor:
        shares = w.split([block.residual.shape[-1] for block in blocks], -1)
        terms = [b.rows.transposed_times(share) for b, share in zip(blocks, shares, strict=True)]
        return terms[0] if len(terms) == 1 else torch.stack(terms).sum(0)

    return torch.cat([block.residual for block in blocks], -1), along


def own_workspace(params: Params, batch: int) -> Workspace:
    """A new matrix for every block, in the dtype of the parameters."""
    n = sum(p.shape[batch:].numel() for p in params)
    return Workspace(lambda rows: params[0].new_empty(*params[0].shape[:batch], rows, n))
