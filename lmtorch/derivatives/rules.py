"""What each operator does to a jet: the chain rule, found by the operator's name.

A rule is called with the operator's own arguments, jets among them:
`rule(setting, func, *args, **kwargs)`. An operator without a rule is no error, as another mode is
used then. Rules are here for what networks in the sciences are made of.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from .elementwise import (
    Rule,
    by_autograd,
    chain,
    cos,
    elementwise,
    exp,
    power,
    powered,
    reciprocal,
    root,
    sigmoid,
    silu,
    sin,
    tanh,
)
from .jets import Jet, Multiply, NoRuleError, Setting, aligned, values

# ---- linear: the operator itself acts on each derivative -----------------------------------------


def linear_operator(setting: Setting, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """y = A z, for one jet or several; the other arguments only say what A is.

    All derivatives go through the operator in one `vmap`.
    """
    leaves, spec = tree_flatten((args, kwargs))
    jets = [leaf for leaf in leaves if isinstance(leaf, Jet)]

    def call(*parts: Tensor) -> Any:
        given = iter(parts)
        arguments, keywords = tree_unflatten(
            [next(given) if isinstance(a, Jet) else a for a in leaves], spec
        )
        return func(*arguments, **keywords)

    def each(parts: list[Tensor]) -> Any:
        return torch.vmap(call)(*parts)

    value = call(*(jet.value for jet in jets))
    first = each([jet.first.expand(-1, *jet.value.shape) for jet in jets])
    counts = {jet.second.shape[0] for jet in jets if jet.second is not None}
    if setting.pairing is None or not counts:
        return tree_map(Jet, value, first)
    seconds = [jet.value.new_zeros(()) if jet.second is None else jet.second for jet in jets]
    second = each(
        [part.expand(*counts, *jet.value.shape) for part, jet in zip(seconds, jets, strict=True)]
    )
    return tree_map(Jet, value, first, second)


# The most usual linear operators have rules of their own, without vmap: in nested derivatives the
# outer mode can see what these do.


def reshaped(
    setting: Setting, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any
) -> Jet:
    """reshape, view, flatten, squeeze and the like: the same entries in another shape."""
    value = func(z.value, *args, **kwargs)
    if value.dtype != z.value.dtype:
        raise NoRuleError("the same bits in another dtype")

    def of(part: Tensor) -> Tensor:
        return part.expand(-1, *z.value.shape).reshape(part.shape[0], *value.shape)

    return Jet(value, of(z.first), None if z.second is None else of(z.second))


def broadcast(
    setting: Setting, func: Callable[..., Tensor], z: Any, *sizes: Any, **kwargs: Any
) -> Jet:
    """expand: the value is expanded, and its derivatives broadcast as they are."""
    value = func(z.value, *sizes, **kwargs)
    second = None if z.second is None else aligned(z.second, value.ndim)
    return Jet(value, aligned(z.first, value.ndim), second)


def permuted(
    setting: Setting, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any
) -> Jet:
    """movedim, permute, transpose: a probe whose sizes all differ shows the new order."""
    probe = torch.empty(tuple(range(2, 2 + z.value.ndim)), device="meta")
    order = [0, *(size - 1 for size in func(probe, *args, **kwargs).shape)]
    second = None if z.second is None else z.second.permute(order)
    return Jet(func(z.value, *args, **kwargs), z.first.permute(order), second)


def converted(
    setting: Setting, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any
) -> Jet:
    """clone, contiguous, another dtype: derivatives are converted as the value is."""
    second = None if z.second is None else func(z.second, *args, **kwargs)
    return Jet(func(z.value, *args, **kwargs), func(z.first, *args, **kwargs), second)


def reduced(setting: Setting, func: Callable[..., Any], z: Any, *args: Any, **kwargs: Any) -> Any:
    """sum and mean over given dimensions, counted from the last, as directions stand in front."""
    dim = kwargs.get("dim", args[0] if args else None)
    dims = (dim,) if isinstance(dim, int) else dim
    if not dims or kwargs.keys() - {"dim", "keepdim"}:
        return linear_operator(setting, func, z, *args, **kwargs)
    kept = bool(kwargs.get("keepdim", args[1] if len(args) > 1 else False))
    behind = tuple(d if d < 0 else d - z.value.ndim for d in dims)

    def of(part: Tensor) -> Tensor:
        result: Tensor = func(part.expand(-1, *z.value.shape), dim=behind, keepdim=kept)
        return result

    return Jet(
        func(z.value, dim=behind, keepdim=kept),
        of(z.first),
        None if z.second is None else of(z.second),
    )


def unbound(setting: Setting, func: Callable[..., Any], z: Any, dim: int = 0) -> tuple[Jet, ...]:
    """unbind along a dimension that is counted from the last, as directions stand in front."""
    behind = dim if dim < 0 else dim - z.value.ndim
    parts = [
        z.value,
        *(part.expand(-1, *z.value.shape) for part in (z.first, z.second) if part is not None),
    ]
    return tuple(
        Jet(*pieces) for pieces in zip(*(part.unbind(behind) for part in parts), strict=True)
    )


def join(
    setting: Setting, func: Callable[..., Any], members: Any, *args: Any, **kwargs: Any
) -> Any:
    """cat and stack; the derivatives of members that are constants are zero."""
    jets = [member for member in members if isinstance(member, Jet)]
    (count,) = {jet.first.shape[0] for jet in jets}
    if kwargs.keys() - {"dim", "axis"}:
        raise NoRuleError("a join into a given tensor")
    dim = kwargs.get("dim", kwargs.get("axis", args[0] if args else 0))
    value = func([values(member) for member in members], *args, **kwargs)
    behind = dim if dim < 0 else dim - value.ndim

    def of(parts: list[Tensor | None], count: int) -> Tensor:
        whole = [
            (values(member).new_zeros(()) if part is None else part).expand(
                count, *values(member).shape
            )
            for member, part in zip(members, parts, strict=True)
        ]
        result: Tensor = func(whole, behind)
        return result

    first = of([member.first if isinstance(member, Jet) else None for member in members], count)
    seconds = [member.second if isinstance(member, Jet) else None for member in members]
    counts = {second.shape[0] for second in seconds if second is not None}
    return Jet(value, first, of(seconds, *counts) if counts else None)


def stacked(setting: Setting, func: Callable[..., Any], members: Any) -> Any:
    """hstack and vstack; the derivatives of members that are constants are zero."""
    (count,) = {member.first.shape[0] for member in members if isinstance(member, Jet)}
    whole = [
        m if isinstance(m, Jet) else Jet(m, m.new_zeros(()).expand(count, *m.shape))
        for m in members
    ]
    return linear_operator(setting, func, whole)


def convolution(
    setting: Setting,
    func: Callable[..., Any],
    z: Any,
    weight: Any,
    bias: Any = None,
    *args: Any,
    **kwargs: Any,
) -> Jet:
    """A convolution, linear in z; the bias is added to the value alone."""
    if not isinstance(z, Jet) or isinstance(weight, Jet) or isinstance(bias, Jet):
        raise NoRuleError("a convolution whose weight is a function of x")
    result: Jet = linear_operator(setting, lambda v: func(v, weight, None, *args, **kwargs), z)
    if bias is None:
        return result
    return Jet(func(z.value, weight, bias, *args, **kwargs), result.first, result.second)


def index(setting: Setting, func: Callable[..., Any], z: Any, places: Any) -> Any:
    """z[places]: views if all of places are integers, slices, None or …, otherwise copies."""
    if not isinstance(z, Jet):
        raise NoRuleError("an index that is a function of x")
    chosen = places if isinstance(places, tuple) else (places,)
    if not all(part is None or part is ... or isinstance(part, int | slice) for part in chosen):
        return linear_operator(setting, func, z, places)

    def of(part: Tensor) -> Tensor:
        return part.expand(-1, *z.value.shape)[(slice(None), *chosen)]

    return Jet(z.value[places], of(z.first), None if z.second is None else of(z.second))


def dense(
    setting: Setting, func: Callable[..., Tensor], z: Any, weight: Any, bias: Any = None
) -> Jet:
    """z Wᵀ + b, which is nearly all of the work in most networks.

    One product computes all directions. Directions that are the same for all samples stay so, and
    elementwise operators after it run through long rows of memory (with 20 features 1.5 times as
    fast as with samples in front). But if another mode watches, samples are put in front, where the
    Jacobian by linear layers looks for them.

    Raises:
        NoRuleError: the weight is a function of x.
    """
    if not isinstance(z, Jet) or isinstance(weight, Jet) or isinstance(bias, Jet):
        raise NoRuleError("a linear layer whose weight is a function of x")
    place = min(setting.batch, z.value.ndim - 1)

    def of(part: Tensor) -> Tensor:
        if not setting.watched:
            return func(aligned(part, z.value.ndim), weight)
        return func(part.expand(-1, *z.value.shape).movedim(0, place), weight).movedim(place, 0)

    return Jet(func(z.value, weight, bias), of(z.first), None if z.second is None else of(z.second))


def selected(setting: Setting, func: Callable[..., Any], condition: Any, a: Any, b: Any) -> Any:
    """where(condition, a, b), with the same choice for derivatives as for values."""
    if func is torch.Tensor.where:  # a.where(condition, b)
        condition, a = a, condition
    if isinstance(condition, Jet):
        raise NoRuleError("a condition of floating dtype")
    value = torch.where(condition, values(a), values(b))
    jets = [jet for jet in (a, b) if isinstance(jet, Jet)]

    def of(pick: Callable[[Jet], Tensor | None]) -> Tensor | None:
        parts = [pick(x) if isinstance(x, Jet) else None for x in (a, b)]
        if all(part is None for part in parts):
            return None
        left, right = (
            value.new_zeros(()) if part is None else aligned(part, value.ndim) for part in parts
        )
        return torch.where(condition, left, right)

    first = of(lambda jet: jet.first)
    assert first is not None, jets
    return Jet(value, first, of(lambda jet: jet.second))


# ---- sums and products ---------------------------------------------------------------------------


def scaled(factor: Any, z: Jet) -> Jet:
    """z times a constant, a number or a tensor that broadcasts."""
    return product(torch.mul, Setting(0, None), factor, z)


def added(setting: Setting, func: Callable[..., Any], a: Any, b: Any, *, alpha: float = 1) -> Jet:
    """a + αb; one of the two may be a constant."""
    if alpha != 1:
        b = scaled(alpha, b) if isinstance(b, Jet) else alpha * b
    value = values(a) + values(b)
    jets = [jet for jet in (a, b) if isinstance(jet, Jet)]
    first = [aligned(jet.first, value.ndim) for jet in jets]
    second = [aligned(jet.second, value.ndim) for jet in jets if jet.second is not None]
    return Jet(value, _total(first), _total(second) if second else None)


def subtracted(
    setting: Setting, func: Callable[..., Any], a: Any, b: Any, *, alpha: float = 1
) -> Jet:
    """a − αb."""
    return added(setting, func, a, b, alpha=-alpha)


def negated(setting: Setting, func: Callable[..., Any], z: Jet) -> Jet:
    """−z."""
    return scaled(-1, z)


def product(multiply: Multiply, setting: Setting, a: Any, b: Any) -> Jet:
    """A bilinear operator of a and b; one of the two may be a constant."""
    value = multiply(values(a), values(b))
    ndim = max(factor.ndim for factor in (values(a), values(b)) if isinstance(factor, Tensor))
    first, second = [], []
    if isinstance(a, Jet):
        first.append(multiply(aligned(a.first, ndim), values(b)))
        if a.second is not None:
            second.append(multiply(aligned(a.second, ndim), values(b)))
    if isinstance(b, Jet):
        first.append(multiply(values(a), aligned(b.first, ndim)))
        if b.second is not None:
            second.append(multiply(values(a), aligned(b.second, ndim)))
    if setting.pairing is not None and isinstance(a, Jet) and isinstance(b, Jet):
        second.append(2 * setting.pairing(aligned(a.first, ndim), aligned(b.first, ndim), multiply))
    return Jet(value, _total(first), _total(second) if second else None)


def _total(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def multiplied(setting: Setting, func: Callable[..., Any], a: Any, b: Any) -> Jet:
    """a b, entry by entry."""
    return product(torch.mul, setting, a, b)


def divided(setting: Setting, func: Callable[..., Any], a: Any, b: Any) -> Jet:
    """a / b."""
    if not isinstance(b, Jet):
        return product(torch.div, setting, a, b)
    return product(torch.mul, setting, a, chain(setting, b, reciprocal(b.value)))


def added_product(
    setting: Setting, func: Callable[..., Any], c: Any, a: Any, b: Any, *, value: float = 1
) -> Jet:
    """addcmul, c + value · a b, which the rules of this package use and nested modes then meet."""
    if not (isinstance(a, Jet) or isinstance(b, Jet)):
        return added(setting, func, c, a * b, alpha=value)
    return added(setting, func, c, product(torch.mul, setting, a, b), alpha=value)


def matrix_product(setting: Setting, func: Callable[..., Any], a: Any, b: Any) -> Jet:
    """A B."""
    if values(a).ndim < 2 or values(b).ndim < 2:
        raise NoRuleError("a product with a vector")
    return product(torch.matmul, setting, a, b)


def contraction(setting: Setting, func: Callable[..., Any], equation: Any, *operands: Any) -> Any:
    """einsum with one factor that is a function of x."""
    if sum(isinstance(operand, Jet) for operand in operands) != 1:
        raise NoRuleError("einsum with several factors that are functions of x")
    return linear_operator(setting, func, equation, *operands)


def swapped(rule: Rule) -> Rule:
    """The rule of an operator whose operands come in the other order, such as `__rsub__`."""

    def turned(setting: Setting, func: Callable[..., Any], a: Any, b: Any, **kwargs: Any) -> Any:
        return rule(setting, func, b, a, **kwargs)

    return turned


# ---- what is made of the above -------------------------------------------------------------------


def dropout(
    setting: Setting,
    func: Callable[..., Any],
    z: Jet,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Jet:
    """dropout: a value and its derivatives are multiplied by the same mask."""
    if inplace:
        raise NoRuleError("dropout in place")
    return scaled(func(torch.ones_like(z.value), p, training), z) if training else z


def softmax(
    setting: Setting,
    func: Callable[..., Any],
    z: Jet,
    dim: int,
    _stacklevel: int = 3,
    dtype: Any = None,
) -> Jet:
    """softmax: exp(z − max) over its sum."""
    if dtype is not None:
        raise NoRuleError("softmax in another dtype")
    shifted = subtracted(setting, torch.sub, z, z.value.detach().amax(dim, keepdim=True))
    powers = chain(setting, shifted, exp(shifted.value))
    return divided(
        setting, torch.div, powers, reduced(setting, torch.sum, powers, dim, keepdim=True)
    )


def layer_norm(
    setting: Setting,
    func: Callable[..., Any],
    z: Jet,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Jet:
    """Layer norm: (z − mean) / √(variance + ε), scaled and shifted."""
    dims = tuple(range(-len(normalized_shape), 0))

    def mean(part: Jet) -> Jet:
        result: Jet = reduced(setting, torch.mean, part, dims, keepdim=True)
        return result

    centred = subtracted(setting, torch.sub, z, mean(z))
    variance = added(
        setting, torch.add, mean(multiplied(setting, torch.mul, centred, centred)), eps
    )
    normed = multiplied(
        setting, torch.mul, centred, chain(setting, variance, power(variance.value, -0.5))
    )
    normed = normed if weight is None else scaled(weight, normed)
    return normed if bias is None else added(setting, torch.add, normed, bias)


def euclidean(
    setting: Setting,
    func: Callable[..., Any],
    z: Jet,
    ord: Any = None,
    dim: Any = None,
    keepdim: bool = False,
    **kwargs: Any,
) -> Jet:
    """The length of vectors, √Σz²."""
    if (
        kwargs.pop("p", ord) not in (2, "fro", None)
        or dim is None
        or any(v is not None for v in kwargs.values())
    ):
        raise NoRuleError("another norm than that of vectors")
    if func is torch.linalg.norm and ord == 2 and not isinstance(dim, int) and len(dim) == 2:
        raise NoRuleError("the largest singular value")
    squares = multiplied(setting, torch.mul, z, z)
    total: Jet = reduced(setting, torch.sum, squares, dim, keepdim=keepdim)
    return chain(setting, total, root(total.value))


# ---- by name -------------------------------------------------------------------------------------

BY_AUTOGRAD = (
    "abs arctan asinh atan celu clamp cosh elu erf erfc expm1 gelu hardtanh leaky_relu log log10 "
    "log_sigmoid log1p log2 mish relu rsqrt selu sinc sinh softplus softsign sqrt tan tanhshrink"
)
LINEAR = "chunk cumsum flip narrow repeat roll select split tile"
RESHAPED = "flatten ravel reshape squeeze unflatten unsqueeze view"
PERMUTED = "T mT movedim permute swapaxes t transpose"
CONVERTED = "clone contiguous double float to"
WITHOUT_DERIVATIVE = (
    "ceil data detach empty_like floor full_like new_empty new_full new_ones new_tensor new_zeros "
    "ones_like rand_like randn_like round sign trunc zeros_like"
)
CONSTANT = frozenset(WITHOUT_DERIVATIVE.split())

RULES: dict[str, Rule] = {
    **dict.fromkeys(BY_AUTOGRAD.split(), by_autograd),
    **dict.fromkeys(LINEAR.split(), linear_operator),
    **dict.fromkeys(RESHAPED.split(), reshaped),
    **dict.fromkeys(PERMUTED.split(), permuted),
    **dict.fromkeys(CONVERTED.split(), converted),
    **dict.fromkeys(("sum", "mean"), reduced),
    "expand": broadcast,
    "unbind": unbound,
    "tanh": tanh,
    "sigmoid": elementwise(sigmoid),
    "silu": silu,
    "sin": elementwise(sin),
    "cos": elementwise(cos),
    "exp": elementwise(exp),
    "reciprocal": elementwise(reciprocal),
    "square": elementwise(lambda z: power(z, 2)),
    "pow": powered,
    "add": added,
    **dict.fromkeys(("sub", "subtract"), subtracted),
    **dict.fromkeys(("rsub", "__rsub__"), swapped(subtracted)),
    **dict.fromkeys(("neg", "negative"), negated),
    **dict.fromkeys(("mul", "multiply"), multiplied),
    **dict.fromkeys(("div", "divide", "true_divide"), divided),
    "__rdiv__": swapped(divided),
    "addcmul": added_product,
    **dict.fromkeys(("matmul", "mm", "bmm"), matrix_product),
    "__rmatmul__": swapped(matrix_product),
    "einsum": contraction,
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), join),
    **dict.fromkeys(("hstack", "vstack"), stacked),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(("norm", "linalg_norm", "linalg_vector_norm"), euclidean),
    "__getitem__": index,
    "where": selected,
    "linear": dense,
    "dropout": dropout,
    "softmax": softmax,
    "layer_norm": layer_norm,
}
