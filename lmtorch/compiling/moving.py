"""Operators that move entries: views, slices, joins, and tensors that are filled."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .grids import Grid, UnsupportedError
from .rules import Call, Rule, entering

SAME = (
    "real",
    "_conj",
    "conj",
    "resolve_conj",
    "resolve_neg",
    "positive",
    "alias",
    "detach",
    "lift_fresh_copy",
    "contiguous",
    "lift_fresh",
    "lift",
)

RULES: dict[str, Rule] = {}
rule = entering(RULES)


@rule(*SAME)
def _same(call: Call, a: Grid, *_: Any, **__: Any) -> Grid:
    return a


@rule("clone")
def _clone(call: Call, a: Grid, **_: Any) -> Grid:
    return Grid(a.entries.copy(), a.points)


@rule("_to_copy", "to", "convert_element_type")
def _to(call: Call, a: Grid, *_: Any, **__: Any) -> Grid:
    return call.grid(a, call.kind)


@rule("view", "reshape", "_unsafe_view", "view_copy", "_reshape_alias")
def _view(call: Call, a: Grid, *_: Any) -> Grid:
    return call.grids.reshaped(a, call.shape)


@rule("squeeze", "unsqueeze")
def _squeeze(call: Call, a: Grid, *_: Any, name: str) -> Grid:
    return call.grids.reshaped(a, call.shape)


@rule("expand", "expand_copy")
def _expand(call: Call, a: Grid, shape: Sequence[int], **_: Any) -> Grid:
    return call.grids.expanded(a, shape)


@rule("permute")
def _permute(call: Call, a: Grid, dims: Sequence[int]) -> Grid:
    return call.grids.permuted(a, dims)


@rule("transpose", "t")
def _transpose(call: Call, a: Grid, first: int = 0, second: int = 1) -> Grid:
    dims = list(range(a.entries.ndim))
    if dims:
        dims[first], dims[second] = dims[second], dims[first]
    return call.grids.permuted(a, dims)


@rule("select", "select_copy")
def _select(call: Call, a: Grid, dim: int, index: int) -> Grid:
    return call.grids.sliced(a, dim, index)


@rule("slice", "slice_copy")
def _slice(
    call: Call, a: Grid, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Grid:
    return call.grids.sliced(a, dim, slice(start, end, step))


@rule("flip")
def _flip(call: Call, a: Grid, dims: Sequence[int]) -> Grid:
    for dim in dims:
        if dim % a.entries.ndim == a.points:
            raise UnsupportedError("points in another order")
        a = call.grids.sliced(a, dim, slice(None, None, -1))
    return a


@rule("diagonal")
def _diagonal(call: Call, a: Grid, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Grid:
    if a.points is not None:
        raise UnsupportedError("a diagonal along points")
    return Grid(np.diagonal(a.entries, offset, dim1, dim2))


@rule("cat", "concat")
def _cat(call: Call, parts: Sequence[Grid], dim: int = 0) -> Grid:
    kept = [call.grid(part, call.kind) for part in parts if part.entries.shape != (0,)]
    return call.grids.joined(kept, dim)


@rule("stack")
def _stack(call: Call, parts: Sequence[Grid], dim: int = 0) -> Grid:
    return call.grids.joined(
        [call.grids.inserted(call.grid(part, call.kind), dim) for part in parts], dim
    )


@rule("unbind", "unbind_copy")
def _unbind(call: Call, a: Grid, dim: int = 0) -> Any:
    return [call.grids.sliced(a, dim, i) for i in range(a.entries.shape[dim])]


@rule("split", "split_with_sizes", "split_copy", "split_with_sizes_copy")
def _split(call: Call, a: Grid, sizes: Any, dim: int = 0) -> Any:
    found, begin = [], 0
    for value in call.value:
        size = value.shape[dim]
        found.append(call.grids.sliced(a, dim, slice(begin, begin + size)))
        begin += size
    return found


@rule("index")
def _index(call: Call, a: Grid, indices: Sequence[Any]) -> Grid:
    chosen = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if len(chosen) != 1 or not isinstance(chosen[0][1], Grid):
        raise UnsupportedError("indices along several dimensions")
    dim, index = chosen[0]
    if index.entries.ndim != 1 or any(e.operator != "constant" for e in index.entries.flat):
        raise UnsupportedError("indices that depend on numbers")
    return call.grids.sliced(a, dim, [e.value for e in index.entries.flat])


@rule("full", "zeros", "ones", "empty", "new_empty", "new_zeros", "new_ones", "new_full",
      "zeros_like", "ones_like", "empty_like", "full_like", "scalar_tensor", "empty_strided",
      "new_empty_strided")  # fmt: skip
def _filled(call: Call, *args: Any, name: str, **_: Any) -> Grid:
    value: Any = 1 if "ones" in name else 0
    if "full" in name:
        value = args[-1]
    elif name == "scalar_tensor":
        value = args[0]
    if isinstance(value, Grid):
        raise UnsupportedError("a tensor filled with a number that is not known")
    return call.grids.filled(call.shape, value, call.dtype)


@rule("fill", "zero")
def _fill(call: Call, a: Grid, value: Any = 0, *, name: str) -> Grid:
    if isinstance(value, Grid):
        return call.grids.expanded(call.grid(value, call.kind), call.shape)
    return call.grids.filled(call.shape, value, call.dtype)


@rule("copy")
def _copy(call: Call, a: Grid, source: Any, *_: Any) -> Grid:
    return call.grids.expanded(call.grid(source, call.kind), call.shape)
