"""Rows that follow the data: many residuals of few parameters, a block of rows at a time.

Where residual i is made of the i-th points of the data alone, some of the data give some of the
residuals. Then rows of J are made for as many points as stay in the cache, and J is never whole.
That residuals are so is not known from a function; it is seen where its blocks are compared with
all residuals, at the start and at points near it.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .. import choose
from .._autodiff import Params, ranges
from ..core.bounds import Bounds
from ..jacobians.learned_rows import FEW, LearnedRows
from ..residuals.probe import Probe
from .user_function import Calls, UserFunction

ROWS = 8192  # of a block; several times their columns fit the cache of a core
# on other devices, where a call costs as much as its work on so many: rows, and bytes of their J
FAR, FAR_BYTES = 2**18, 2**27
NEARBY = 2  # further points at which blocks are compared
SPREAD = 8  # blocks that are compared where not all are, about, from the first to the last
MOVE = 0.05  # share by which every parameter differs there
ROUNDINGS = 256  # of the largest residual: blocks may be summed in another order


class Tall(NamedTuple):
    """A function of many points, of which some tell what it is made of."""

    whole: Tensor  # all residuals, (m,)
    some: UserFunction  # those of a few points


def some_of_many(calling: UserFunction, params: Params) -> Tall | None:
    """All residuals without a graph, which would be larger than the fit, and a function of some.

    Args:
        calling: the function of all residuals.
        params: where it is evaluated.

    Returns:
        None where points are not many, or give other residuals among themselves.

    Raises:
        OutOfMemoryError: torch's own.
    """
    given = (*calling.leaves, *tree_leaves(calling.kwargs))
    most = max((t.numel() for t in given if isinstance(t, Tensor)), default=0)
    if most * calling.unknowns.layout.n <= choose.DENSE or calling.arrays:
        return None
    try:
        with torch.no_grad():
            whole = calling.residual(params)
            count = len(whole)
            rows = slice(0, count, -(-count // ROWS))
            some = calling.of_rows(rows, count) if count > ROWS else None
            if some is None or not _near(some.residual(params), whole[rows], _room(whole)):
                return None
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever the reason: it is met again where all points are taken together
        return None
    return Tall(whole, some)


def row_blocks(
    calling: UserFunction, probe: Probe, x: Tensor, box: Bounds | None
) -> tuple[Callable[[Params], Tensor], ...]:
    """The residuals of one problem in blocks of rows, in order; none where rows are not the data's.

    Args:
        calling: the function of all residuals.
        probe: what is known of it.
        x: (n,), where it starts.
        box: outside of which it is not evaluated.

    Returns:
        Functions of the parameters.
    """
    sliced = [calling.of_rows(rows, probe.rows) for rows in rows_of_blocks(probe.rows, x)]
    blocks = [one.residual for one in sliced if one is not None]
    if len(blocks) < max(2, len(sliced)):
        return ()
    known = probe.residual if torch.equal(x, calling.unknowns.start) else None
    every = range(len(blocks))
    spread = sorted({*range(0, len(blocks), -(-len(blocks) // SPREAD)), len(blocks) - 1})
    if not _same(calling, blocks, x, spread, known):
        return ()
    generator = torch.Generator("cpu").manual_seed(0)
    for which in range(NEARBY):
        drawn = torch.randn(x.shape, generator=generator, device="cpu").to(x)
        point = x + MOVE * drawn * torch.where(x == 0, 1.0, x.abs())
        if box is not None:
            point = torch.maximum(torch.minimum(point, box.upper), box.lower).to(x)
        # parameters that are equal at the start may hide there which of them a single block takes
        if not _same(calling, blocks, point, spread if which else every):
            return ()
    return tuple(blocks)


def learned_rows(
    calling: UserFunction, count: int, x: Tensor
) -> tuple[LearnedRows | None, tuple[tuple[Tensor, ...], ...]]:
    """How blocks of rows are evaluated by a record of a few rows, with the data of each block.

    Args:
        calling: the function of all residuals, whose blocks are known to be those of its data.
        count: the number of residuals.
        x: (n,), where it starts.

    Returns:
        Nothing, where data are given by name or have the points last.
    """
    few = calling.of_rows(slice(0, FEW), count)
    if few is None:
        return None, ()
    pairs = list(zip(few.leaves, calling.leaves, strict=True))
    places = [place for place, (some, whole) in enumerate(pairs) if some is not whole]
    named = zip(tree_leaves(few.kwargs), tree_leaves(calling.kwargs), strict=True)
    data = [calling.leaves[place] for place in places]
    if not data or any(a is not b for a, b in named) or any(len(one) != count for one in data):
        return None, ()
    few.calls = Calls()  # to record is no evaluation of the fit

    def residual(params: Params, rows: Sequence[Tensor]) -> Tensor:
        other = copy(few)
        other.leaves = list(few.leaves)
        for place, some in zip(places, rows, strict=True):
            other.leaves[place] = some
        return other.residual(params)

    blocks = tuple(tuple(one[rows] for one in data) for rows in rows_of_blocks(count, x))
    return LearnedRows(residual), blocks


def rows_of_blocks(count: int, x: Tensor) -> tuple[slice, ...]:
    """The rows of each block, of so many in all, for parameters (n,)."""
    if x.device.type == "cpu":
        return tuple(ranges(count, ROWS))
    most = FAR_BYTES // (x.element_size() * max(1, len(x)))
    return tuple(ranges(count, max(ROWS, min(FAR, most))))


def _same(
    calling: UserFunction,
    blocks: Sequence[Callable[[Params], Tensor]],
    x: Tensor,
    chosen: Iterable[int],
    known: Tensor | None = None,
) -> bool:
    """Whether the chosen blocks are the residuals at x, which may be known."""
    params = calling.unknowns.layout.split(x)
    with torch.no_grad():
        whole = calling.residual(params) if known is None else known
        room, places = _room(whole), rows_of_blocks(len(whole), x)
        for block in chosen:
            try:
                found = blocks[block](params)
            except torch.OutOfMemoryError:
                raise
            except Exception:  # whatever the reason: it does not take some of the data
                return False
            if not _near(found, whole[places[block]], room):
                return False
    return True


def _room(whole: Tensor) -> float:
    """What round-off may change in any of the residuals."""
    size = torch.where(whole.isfinite(), whole.abs(), 0.0).amax()
    return float(ROUNDINGS * torch.finfo(whole.dtype).eps * size)


def _near(found: Tensor, expected: Tensor, room: float) -> bool:
    """Whether some residuals are those expected."""
    same = found.shape == expected.shape
    return same and torch.allclose(found, expected, rtol=0, atol=room, equal_nan=True)
