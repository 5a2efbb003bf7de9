"""The operators of torch that can be written as expressions, by name."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .expressions import REAL, SINGLE, TRUTH, WHOLE
from .grids import Grid, Grids, UnsupportedError, kind_of

Rule = Callable[..., Grid]
RULES: dict[str, Rule] = {}
# functions of C's mathematics, by the name of torch's operator
FUNCTIONS = {
    "exp": "exp", "log": "log", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "asin",
    "acos": "acos", "atan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh",
    "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "erf": "erf", "erfc": "erfc",
    "log1p": "log1p", "expm1": "expm1", "log2": "log2", "log10": "log10", "exp2": "exp2",
    "sqrt": "sqrt", "abs": "fabs", "floor": "floor", "ceil": "ceil", "trunc": "trunc",
    "lgamma": "lgamma", "atan2": "atan2", "hypot": "hypot",
}  # fmt: skip
COMPARISONS = {"lt": ("lt", 0), "le": ("le", 0), "gt": ("lt", 1), "ge": ("le", 1), "eq": ("eq", 0)}
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


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule for operators of these names."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


class Call:
    """One operator of the graph: its arguments as grids, and what its result looks like.

    Args:
        grids: makes grids.
        value: torch's own idea of the result: its shape and dtype.
    """

    def __init__(self, grids: Grids, value: Any) -> None:
        self.grids = grids
        self.make = grids.make
        self.value = value
        if isinstance(value, Tensor):
            self.dtype, self.shape = value.dtype, tuple(value.shape)

    @property
    def kind(self) -> str:
        """The kind of number of the result."""
        return kind_of(self.dtype)

    def grid(self, value: Any, kind: str) -> Grid:
        """An argument, a grid or a number, as a grid of numbers of a kind."""
        if not isinstance(value, Grid):
            entry = np.empty((), dtype=object)
            entry[()] = self.make.constant(value, kind)
            return Grid(entry)
        return self.grids.each(lambda e: self.make.convert(e, kind), value)

    def apply(self, operator: str, *values: Any, kind: str | None = None, to: str = "") -> Grid:
        """An operator of expressions, entry by entry."""
        of, made = kind or self.kind, to or kind or self.kind
        return self.grids.each(
            lambda *e: self.make.apply(operator, *e, kind=made),
            *(
                # a copy is for those who return it
                value if isinstance(value, Grid) and _all_are(value, of) else self.grid(value, of)
                for value in values
            ),
        )


def _all_are(grid: Grid, kind: str) -> bool:
    """Whether all entries are numbers of this kind."""
    return all(entry.kind == kind for entry in grid.entries.flat)


def common(*values: Any) -> str:
    """The kind of number in which values are compared."""
    kinds = [v.entries.flat[0].kind for v in values if isinstance(v, Grid) and v.entries.size]
    for kind in (REAL, SINGLE, WHOLE):
        if kind in kinds:
            if kind == WHOLE and any(isinstance(v, float) for v in values):
                return SINGLE
            return kind
    return TRUTH if all(isinstance(v, Grid | bool) for v in values) else WHOLE


@rule("add", "sub", "rsub")
def _add(call: Call, a: Any, b: Any, alpha: Any = 1, *, name: str = "add") -> Grid:
    if call.kind == TRUTH:
        return call.apply("or", a, b)
    if name == "rsub":
        a, b = b, a
    b = b if alpha == 1 else call.apply("mul", b, alpha)
    return call.apply("add" if name == "add" else "sub", a, b)


@rule("mul")
def _mul(call: Call, a: Any, b: Any) -> Grid:
    return call.apply("and" if call.kind == TRUTH else "mul", a, b)


@rule("div", "true_divide")
def _div(call: Call, a: Any, b: Any, rounding_mode: Any = None) -> Grid:
    if rounding_mode is not None:
        raise UnsupportedError("a division that rounds")
    return call.apply("div", a, b)


@rule("reciprocal")
def _reciprocal(call: Call, a: Any) -> Grid:
    return call.apply("div", 1, a)


@rule("neg", "negative")
def _neg(call: Call, a: Any) -> Grid:
    return call.apply("neg", a)


@rule("rsqrt")
def _rsqrt(call: Call, a: Any) -> Grid:
    return call.apply("div", 1, call.apply("sqrt", a))


@rule("square")
def _square(call: Call, a: Any) -> Grid:
    return call.apply("mul", a, a)


@rule("sigmoid")
def _sigmoid(call: Call, a: Any) -> Grid:
    return call.apply("div", 1, call.apply("add", 1, call.apply("exp", call.apply("neg", a))))


@rule("sign", "sgn")
def _sign(call: Call, a: Any) -> Grid:
    positive = call.apply("lt", 0, a, kind=call.kind, to=TRUTH)
    negative = call.apply("lt", a, 0, kind=call.kind, to=TRUTH)
    return _choose(call, positive, 1, _choose(call, negative, -1, 0))


@rule("relu")
def _relu(call: Call, a: Any) -> Grid:
    return call.apply("maximum", a, 0)


@rule("addcmul")
def _addcmul(call: Call, a: Any, b: Any, c: Any, value: Any = 1) -> Grid:
    product = call.apply("mul", b, c)
    if value == -1:
        return call.apply("sub", a, product)
    return call.apply("add", a, product if value == 1 else call.apply("mul", product, value))


@rule("addcdiv")
def _addcdiv(call: Call, a: Any, b: Any, c: Any, value: Any = 1) -> Grid:
    return call.apply("add", a, call.apply("mul", call.apply("div", b, c), value))


@rule("pow")
def _pow(call: Call, a: Any, b: Any) -> Grid:
    if isinstance(b, float | int) and float(b) == int(b) and abs(b) <= 8:
        power = None
        for _ in range(abs(int(b))):
            power = a if power is None else call.apply("mul", power, a)
        if power is None:
            return call.grids.filled(call.shape, 1, call.dtype)
        return call.apply("div", 1, power) if b < 0 else call.grid(power, call.kind)
    if isinstance(b, float) and b in (0.5, -0.5):
        root = call.apply("sqrt", a)
        return root if b > 0 else call.apply("div", 1, root)
    return call.apply("pow", a, b)


@rule(*COMPARISONS, "ne")
def _compare(call: Call, a: Any, b: Any, *, name: str) -> Grid:
    kind = common(a, b)
    if kind == TRUTH:
        differ = call.apply("xor", a, b, kind=TRUTH)
        if name not in ("eq", "ne"):
            raise UnsupportedError("truth values in an order")
        return differ if name == "ne" else call.apply("not", differ, kind=TRUTH)
    if name == "ne":
        return call.apply("ne", a, b, kind=kind, to=TRUTH)
    operator, swapped = COMPARISONS[name]
    first, second = (b, a) if swapped else (a, b)
    return call.apply(operator, first, second, kind=kind, to=TRUTH)


@rule("logical_and", "bitwise_and", "__and__")
def _and(call: Call, a: Any, b: Any) -> Grid:
    return call.apply("and", a, b, kind=TRUTH)


@rule("logical_or", "bitwise_or", "__or__")
def _or(call: Call, a: Any, b: Any) -> Grid:
    return call.apply("or", a, b, kind=TRUTH)


@rule("logical_xor", "bitwise_xor")
def _xor(call: Call, a: Any, b: Any) -> Grid:
    return call.apply("xor", a, b, kind=TRUTH)


@rule("logical_not", "bitwise_not")
def _not(call: Call, a: Any) -> Grid:
    return call.apply("not", a, kind=TRUTH)


@rule("isfinite")
def _isfinite(call: Call, a: Grid) -> Grid:
    return call.apply("finite", a, kind=common(a), to=TRUTH)


@rule("isnan")
def _isnan(call: Call, a: Grid) -> Grid:
    return call.apply("ne", a, a, kind=common(a), to=TRUTH)


@rule("isinf")
def _isinf(call: Call, a: Grid) -> Grid:
    kind = common(a)
    return call.apply("eq", call.apply("fabs", a, kind=kind), math.inf, kind=kind, to=TRUTH)


def _choose(call: Call, mask: Any, a: Any, b: Any) -> Grid:
    return call.grids.each(
        lambda m, x, y: call.make.apply("where", m, x, y, kind=call.kind),
        call.grid(mask, TRUTH),
        call.grid(a, call.kind),
        call.grid(b, call.kind),
    )


@rule("where")
def _where(call: Call, mask: Any, a: Any, b: Any) -> Grid:
    return _choose(call, mask, a, b)


@rule("masked_fill")
def _masked_fill(call: Call, a: Any, mask: Any, value: Any) -> Grid:
    return _choose(call, mask, value, a)


@rule("nan_to_num")
def _nan_to_num(
    call: Call, a: Any, nan: Any = None, posinf: Any = None, neginf: Any = None
) -> Grid:
    kind, limits = call.kind, torch.finfo(call.dtype)
    found = _choose(call, call.apply("ne", a, a, kind=kind, to=TRUTH), nan or 0.0, a)
    for bad, good, best in ((math.inf, posinf, limits.max), (-math.inf, neginf, limits.min)):
        there = call.apply("eq", a, bad, kind=kind, to=TRUTH)
        found = _choose(call, there, best if good is None else good, found)
    return found


@rule("maximum", "max", "minimum", "min", "clamp_min", "clamp_max")
def _extreme(call: Call, a: Any, b: Any = None, *, name: str) -> Grid:
    if b is None:
        return call.grids.reduced("amax" if name == "max" else "amin", a, [], False)
    return call.apply("maximum" if name in ("maximum", "max", "clamp_min") else "minimum", a, b)


@rule("clamp")
def _clamp(call: Call, a: Any, min: Any = None, max: Any = None) -> Grid:
    a = a if min is None else call.apply("maximum", a, min)
    return call.grid(a, call.kind) if max is None else call.apply("minimum", a, max)


def _function(call: Call, *values: Any, name: str) -> Grid:
    return call.apply(FUNCTIONS[name], *values)


RULES.update(dict.fromkeys(FUNCTIONS, _function))


# ---- shapes ------------------------------------------------------------------------------------


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


# ---- sums --------------------------------------------------------------------------------------


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
