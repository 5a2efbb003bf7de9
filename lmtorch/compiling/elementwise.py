"""Operators that act on each entry: arithmetic, comparisons, choices, functions of C."""

import math
from typing import Any

import torch

from .expressions import TRUTH
from .grids import Grid, UnsupportedError
from .rules import Call, Rule, common, entering

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

RULES: dict[str, Rule] = {}
rule = entering(RULES)


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
