"""Operators that add entries up: sums, means, products of matrices, eigenvalues."""

import math
from typing import Any

import numpy as np

from .expressions import TRUTH
from .grids import Grid, UnsupportedError
from .rules import Call, Rule, entering

RULES: dict[str, Rule] = {}
rule = entering(RULES)


@rule("sum", "amax", "amin", "any", "all", "mean")
def _reduce(
    call: Call, a: Grid, dim: Any = (), keepdim: bool = False, *, name: str, **_: Any
) -> Grid:
    dims = [dim] if isinstance(dim, int) else list(dim or ())
    kind = TRUTH if name in ("any", "all") else call.kind
    found = call.grids.reduced("sum" if name == "mean" else name, call.grid(a, kind), dims, keepdim)
    if name != "mean":
        return found
    size = math.prod(a.entries.shape[d] for d in (dims or range(a.entries.ndim)))
    over = a.points is not None and (not dims or a.points in [d % a.entries.ndim for d in dims])
    return call.apply("div", found, size * (call.grids.points if over else 1))


@rule("linalg_vector_norm")
def _norm(
    call: Call, a: Grid, ord: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any
) -> Grid:
    if ord != 2:
        raise UnsupportedError("a norm that is not the second")
    dims = [dim] if isinstance(dim, int) else list(dim or ())
    return call.apply("sqrt", call.grids.reduced("sum", call.apply("mul", a, a), dims, keepdim))


@rule("mm", "bmm", "matmul")
def _mm(call: Call, a: Grid, b: Grid) -> Grid:
    return call.grids.product(call.grid(a, call.kind), call.grid(b, call.kind))


@rule("mv")
def _mv(call: Call, a: Grid, b: Grid) -> Grid:
    column = call.grids.inserted(b, 1)
    return call.grids.sliced(call.grids.product(a, column), 1, 0)


@rule("dot", "vdot", "linalg_vecdot")
def _dot(call: Call, a: Grid, b: Grid, dim: int = -1) -> Grid:
    return call.grids.reduced("sum", call.apply("mul", a, b), [dim], False)


@rule("addmm", "baddbmm")
def _addmm(call: Call, c: Grid, a: Grid, b: Grid, beta: Any = 1, alpha: Any = 1) -> Grid:
    product = call.apply("mul", call.grids.product(a, b), alpha)
    return call.apply("add", call.apply("mul", c, beta), product)


@rule("_linalg_eigh")
def _eigh(call: Call, a: Grid, *_: Any, **__: Any) -> Any:
    if a.points is not None or a.entries.ndim < 2:
        raise UnsupportedError("eigenvalues of matrices that grow with the points")
    lead, n = a.entries.shape[:-2], a.entries.shape[-1]
    values = np.empty((*lead, n), dtype=object)
    vectors = np.empty((*lead, n, n), dtype=object)
    for place in np.ndindex(*lead):
        lower = [a.entries[(*place, i, j)] for i in range(n) for j in range(i + 1)]
        found = call.make.eigen(lower, n)
        values[place], vectors[place] = found.values, found.vectors
    if not call.value[1].numel():  # only the values are asked for
        vectors = np.empty(call.value[1].shape, dtype=object)
    return [Grid(values), Grid(vectors)]
