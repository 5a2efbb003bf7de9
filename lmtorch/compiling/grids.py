"""Tensors of expressions: a traced graph of operators becomes expressions of single numbers."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .expressions import REAL, SINGLE, TRUTH, WHOLE, Expression, Expressions

KINDS = {
    torch.float64: REAL,
    torch.float32: SINGLE,
    torch.int64: WHOLE,
    torch.int32: WHOLE,
    torch.bool: TRUTH,
}


class UnsupportedError(Exception):
    """What was traced cannot be written as machine code."""


class Grid(NamedTuple):
    """A tensor: its entries, and which of its dimensions counts points, which is of size 1 here."""

    entries: Any  # np.ndarray of Expression
    points: int | None = None

    def at(self, ndim: int) -> int | None:
        """The dimension of the points, counted from the last, among so many."""
        return None if self.points is None else self.points - self.entries.ndim


def kind_of(dtype: torch.dtype) -> str:
    """The kind of number of a dtype."""
    if dtype not in KINDS:
        raise UnsupportedError(f"numbers of {dtype}")
    return KINDS[dtype]


class Grids:
    """Operators of torch on grids.

    Args:
        expressions: makes the expressions.
        points: how many points a fit has.
    """

    def __init__(self, expressions: Expressions, points: int) -> None:
        self.make = expressions
        self.points = points

    # ---- beginnings ----------------------------------------------------------------------------

    def filled(self, shape: Sequence[int], value: Any, dtype: torch.dtype) -> Grid:
        """A constant everywhere."""
        one = self.make.constant(value, kind_of(dtype))
        points = self.axis(shape)
        sizes = [1 if i == points else size for i, size in enumerate(shape)]
        entries = np.empty(sizes, dtype=object)
        entries.fill(one)
        return Grid(entries, points)

    def known(self, tensor: Tensor) -> Grid | None:
        """A tensor whose numbers are known; None where points differ, which has to be read."""
        points = self.axis(tensor.shape)
        if tensor._is_zerotensor():  # which forward mode makes, and which has no memory
            return self.filled(tuple(tensor.shape), 0, tensor.dtype)
        if points is not None:
            first = tensor.narrow(points, 0, 1)
            if not torch.equal(first.expand_as(tensor), tensor):
                return None
            tensor = first
        kind = kind_of(tensor.dtype)
        entries = np.empty(tuple(tensor.shape), dtype=object)
        for place in np.ndindex(*tensor.shape):
            entries[place] = self.make.constant(tensor[place].item(), kind)
        return Grid(entries, points)

    def read(self, name: int, shape: Sequence[int], dtype: torch.dtype) -> Grid:
        """An argument: entry e of it at point k is read where the code says."""
        points, kind = self.axis(shape), kind_of(dtype)
        sizes = [1 if i == points else size for i, size in enumerate(shape)]
        entries = np.empty(sizes, dtype=object)
        strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
        for place in np.ndindex(*sizes):
            offset = sum(i * s for i, s in zip(place, strides, strict=True))
            step = 0 if points is None else strides[points]
            entries[place] = self.make.input((name, offset, step), kind, points is not None)
        return Grid(entries, points)

    def axis(self, shape: Sequence[int]) -> int | None:
        """Which dimension counts points."""
        found = [i for i, size in enumerate(shape) if size == self.points]
        if len(found) > 1:
            raise UnsupportedError("a tensor with two dimensions of as many entries as points")
        return found[0] if found else None

    # ---- operators -----------------------------------------------------------------------------

    def each(self, function: Callable[..., Expression], *grids: Grid) -> Grid:
        """An operator entry by entry, after broadcasting."""
        ndim = max(grid.entries.ndim for grid in grids)
        axes = {at for grid in grids if (at := grid.at(ndim)) is not None}
        if len(axes) > 1:
            raise UnsupportedError("points along two dimensions")
        for at in axes:
            for grid in grids:
                if (
                    grid.at(ndim) is None
                    and grid.entries.ndim >= -at
                    and grid.entries.shape[at] != 1
                ):
                    raise UnsupportedError("points beside something else")
        arrays: Sequence[Any] = [grid.entries for grid in grids]
        if any(array.shape != arrays[0].shape for array in arrays):
            arrays = np.broadcast_arrays(*arrays)
        result = np.empty(arrays[0].shape, dtype=object)
        entries = result.reshape(-1)  # which is the same memory
        for place, operands in enumerate(zip(*(array.flat for array in arrays), strict=True)):
            entries[place] = function(*operands)
        return Grid(result, axes.pop() + ndim if axes else None)

    def reduced(self, operator: str, grid: Grid, dims: Sequence[int], keep: bool) -> Grid:
        """A sum, maximum, minimum, any or all over dimensions."""
        entries, points = grid
        dims = sorted({d % max(entries.ndim, 1) for d in dims} if dims else range(entries.ndim))
        names = {"sum": "add", "amax": "maximum", "amin": "minimum", "any": "or", "all": "and"}

        def both(a: Expression, b: Expression) -> Expression:
            return self.make.apply(names[operator], a, b, kind=a.kind)

        for dim in reversed(dims if entries.ndim else []):
            if dim == points:
                entries, points = self._over_points(operator, entries), None
            total, *others = (Grid(entries.take([i], dim)) for i in range(entries.shape[dim]))
            for other in others:
                total = self.each(both, total, other)
            entries = total.entries if keep else total.entries.squeeze(dim)
            if not keep and points is not None and dim < points:
                points -= 1
        return Grid(np.asarray(entries, dtype=object), points)

    def _over_points(self, operator: str, entries: Any) -> Any:
        result = np.empty(entries.shape, dtype=object)
        for place in np.ndindex(*entries.shape):
            one = entries[place]
            if one.point:
                result[place] = self.make.reduce(operator, one)
            elif operator == "sum":
                count = self.make.constant(self.points, one.kind)
                result[place] = self.make.apply("mul", one, count, kind=one.kind)
            else:
                result[place] = one
        return result

    def reshaped(self, grid: Grid, shape: Sequence[int]) -> Grid:
        """The entries in another shape; the points stay a dimension of their own."""
        if grid.points is None:
            return Grid(grid.entries.reshape(shape))
        points = self.axis(shape)
        if points is None:
            raise UnsupportedError("points in one dimension with something else")
        sizes = [1 if i == points else size for i, size in enumerate(shape)]
        before = int(np.prod(grid.entries.shape[: grid.points], dtype=int))
        if before != int(np.prod(sizes[:points], dtype=int)):
            raise UnsupportedError("points in another order")
        return Grid(grid.entries.reshape(sizes), points)

    def expanded(self, grid: Grid, shape: Sequence[int]) -> Grid:
        """Broadcast to a shape, in which -1 stands for what is there."""
        entries, lead = grid.entries, len(shape) - grid.entries.ndim
        points = None if grid.points is None else grid.points + lead
        entries = entries.reshape((1,) * lead + entries.shape)
        sizes = []
        for i, size in enumerate(shape):
            if i == points:
                sizes.append(1)
            elif size == self.points and entries.shape[i] == 1:
                if points is not None:
                    raise UnsupportedError("points along two dimensions")
                points = i
                sizes.append(1)
            else:
                sizes.append(entries.shape[i] if size == -1 else size)
        return Grid(np.broadcast_to(entries, sizes), points)

    def permuted(self, grid: Grid, dims: Sequence[int]) -> Grid:
        """Dimensions in another order."""
        dims = [d % grid.entries.ndim for d in dims]
        points = None if grid.points is None else dims.index(grid.points)
        return Grid(grid.entries.transpose(dims), points)

    def sliced(self, grid: Grid, dim: int, chosen: slice | int | list[int]) -> Grid:
        """Some entries along a dimension, or one, without the dimension."""
        dim %= grid.entries.ndim
        points = grid.points
        if dim == points:
            whole = isinstance(chosen, slice) and range(self.points)[chosen] == range(self.points)
            if not whole:
                raise UnsupportedError("some of the points")
            return grid
        one = isinstance(chosen, int)
        some: Any = chosen
        if isinstance(chosen, int):  # a view of one, which can be written to
            place = chosen % grid.entries.shape[dim]
            some = slice(place, place + 1)
        index: Any = (slice(None),) * dim + (some,)
        entries = grid.entries[index].squeeze(dim) if one else grid.entries[index]
        if one and points is not None and dim < points:
            points -= 1
        return Grid(entries, points)

    def joined(self, grids: Sequence[Grid], dim: int) -> Grid:
        """Side by side along a dimension."""
        axes = {grid.points for grid in grids}
        if len(axes) > 1 or dim % grids[0].entries.ndim in axes:
            raise UnsupportedError("points side by side with something else")
        return Grid(np.concatenate([grid.entries for grid in grids], dim), axes.pop())

    def inserted(self, grid: Grid, dim: int) -> Grid:
        """A dimension of one entry more."""
        dim %= grid.entries.ndim + 1
        points = grid.points
        if points is not None and dim <= points:
            points += 1
        return Grid(np.expand_dims(grid.entries, dim), points)

    def product(self, a: Grid, b: Grid) -> Grid:
        """A matrix product (..., i, j) @ (..., j, k)."""
        left, right = self.inserted(a, a.entries.ndim), self.inserted(b, b.entries.ndim - 2)

        def times(p: Expression, q: Expression) -> Expression:
            return self.make.apply("mul", p, q, kind=p.kind)

        return self.reduced("sum", self.each(times, left, right), [-2], False)
