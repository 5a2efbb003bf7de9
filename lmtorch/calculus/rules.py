"""What an operator does to a value with derivatives: the chain rule, found by the operator's name.

A rule is called with the operator's own arguments, carriers among them:
`rule(algebra, func, *args, **kwargs)`. It is made of what an algebra can do (`base.py`), so that
one table serves jets, which have all directions in one tensor, and dual numbers, which have a
tensor for each parameter. An operator without a rule is no error, as another mode is used then.
Rules are here for what models and networks in the sciences are made of.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import slopes as formulas
from .base import Algebra, Carrier, Multivariate, NoRuleError, Rule, Slopes, values


def primitive(name: str) -> Rule:
    """The rule of what each algebra has a way of its own for."""

    def rule(algebra: Algebra, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not isinstance(args[0], Carrier):
            raise NoRuleError(f"{name} by a number that is a function of x")
        return getattr(algebra, name)(func, *args, **kwargs)

    return rule


linear, moved, reshaped, broadcast, permuted, reduced, unbound = map(
    primitive, ["linear", "moved", "reshaped", "broadcast", "permuted", "reduced", "unbound"]
)


def converted(algebra: Algebra, func: Callable[..., Any], z: Any, *args: Any, **kwargs: Any) -> Any:
    """clone, contiguous, another dtype, perhaps that of another tensor."""
    others = tuple(map(values, args))
    if not isinstance(z, Carrier):
        return func(z, *others, **kwargs)
    return algebra.converted(func, z, *others, **kwargs)


def together(algebra: Algebra, func: Callable[..., Any], *tensors: Any) -> tuple[Any, ...]:
    """broadcast_tensors: all of them in one shape."""
    shape = torch.broadcast_shapes(*(getattr(t, "shape", values(t).shape) for t in tensors))
    return tuple(
        algebra.broadcast(torch.Tensor.expand, t, shape)
        if isinstance(t, Carrier)
        else t.expand(shape)
        for t in tensors
    )


# ---- elementwise ---------------------------------------------------------------------------------


def elementwise(slopes: Callable[..., Slopes]) -> Rule:
    """Make the rule of a function from its slopes at z."""

    def rule(
        algebra: Algebra, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if args or kwargs:
            _constants(func, *args, **kwargs)
        known = algebra.constant(func, z, *args, **kwargs)
        if known is not None:
            return known
        return algebra.chain(z, slopes(z.value, *args, **kwargs))

    return rule


def of_several(slopes: Callable[..., Multivariate]) -> Rule:
    """Make the rule of a function of several variables, some of which may be constant tensors."""

    def rule(algebra: Algebra, func: Callable[..., Tensor], *operands: Any) -> Any:
        if not all(isinstance(z, Carrier | Tensor) for z in operands):
            raise NoRuleError(f"{func.__name__} of a number")
        return algebra.multivariate(slopes, *operands)

    return rule


def by_autograd(
    algebra: Algebra, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any
) -> Any:
    """The rule of a function that torch differentiates."""
    _constants(func, *args, **kwargs)
    if not isinstance(z, Carrier) or z.value.is_complex():
        raise NoRuleError(f"{func.__name__} of complex numbers, or of several variables")
    return algebra.chain(z, algebra.differentiated(lambda v: func(v, *args, **kwargs), z))


def kinked(algebra: Algebra, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any) -> Any:
    """The rule of a piecewise linear function that torch differentiates."""
    _constants(func, *args, **kwargs)
    if not isinstance(z, Carrier) or z.value.is_complex():
        raise NoRuleError(f"{func.__name__} of complex numbers, or of several variables")
    slopes = algebra.differentiated(lambda v: func(v, *args, **kwargs), z)
    return algebra.chain(z, slopes._replace(curvature=None))


def _constants(func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Raise where a further argument is a function of x, or the operator writes over its input."""
    if kwargs.get("inplace") or any(isinstance(a, Carrier) for a in (*args, *kwargs.values())):
        raise NoRuleError(f"{func.__name__} in place, or of several variables")


def tanh(algebra: Algebra, func: Callable[..., Tensor], z: Any) -> Any:
    """The algebra's own tanh."""
    return algebra.tanh(z)


def powered(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any) -> Any:
    """a^b, where one of the two may be a constant."""
    known = algebra.constant(torch.pow, a, b)
    if known is not None:
        return known
    if isinstance(a, Carrier) and isinstance(b, Carrier):
        return algebra.multivariate(formulas.pow_of_both, a, b)
    if isinstance(b, Carrier):
        return algebra.chain(b, formulas.raised(a, b.value))
    if isinstance(b, Tensor):
        return algebra.multivariate(formulas.pow_of_both, a, b)
    if not isinstance(b, int | float) or b == 0:
        raise NoRuleError("a power whose exponent is no number, or zero")
    return algebra.chain(a, formulas.power(a.value, b))


# ---- sums and products ---------------------------------------------------------------------------


def added(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any, *, alpha: float = 1) -> Any:
    """a + αb; one of the two may be a constant."""
    if alpha != 1:
        b = algebra.product(torch.mul, alpha, b) if isinstance(b, Carrier) else alpha * b
    return algebra.added(a, b)


def subtracted(
    algebra: Algebra, func: Callable[..., Any], a: Any, b: Any, *, alpha: float = 1
) -> Any:
    """a − αb."""
    return added(algebra, func, a, b, alpha=-alpha)


def negated(algebra: Algebra, func: Callable[..., Any], z: Any) -> Any:
    """−z."""
    return algebra.product(torch.mul, -1, z)


def multiplied(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any) -> Any:
    """a b, entry by entry."""
    return algebra.product(torch.mul, a, b)


def divided(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any) -> Any:
    """a / b, entry by entry."""
    return algebra.quotient(a, b)


def added_product(
    algebra: Algebra, func: Callable[..., Any], c: Any, a: Any, b: Any, *, value: float = 1
) -> Any:
    """addcmul, c + value · a b, which the rules of this package use and nested modes then meet."""
    if not (isinstance(a, Carrier) or isinstance(b, Carrier)):
        return added(algebra, func, c, a * b, alpha=value)
    return added(algebra, func, c, multiplied(algebra, func, a, b), alpha=value)


def matrix_product(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any) -> Any:
    """A B, where the first or the second may be a vector."""
    return algebra.product(torch.matmul, a, b)


def multiplied_along(
    algebra: Algebra,
    func: Callable[..., Any],
    z: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Any:
    """prod: neighbours are multiplied, then their products; so zeros among the factors are fine."""
    shape = getattr(z, "shape", None) or values(z).shape
    if dtype is not None or not shape or not shape.numel():
        raise NoRuleError("a product in another dtype, of a number, or of no factors")
    if dim is None:
        z, shape, dim = algebra.reshaped(torch.Tensor.reshape, z, (-1,)), (shape.numel(),), 0
    behind = dim if dim < 0 else dim - len(shape)

    def part(z: Any, of: slice) -> Any:
        return algebra.indexed(torch.Tensor.__getitem__, z, (..., of, *[slice(None)] * ~behind))

    count, apart = shape[behind], []
    while count > 1:
        half = count // 2
        if count % 2:
            apart.append(part(z, slice(count - 1, count)))
        z = algebra.product(torch.mul, part(z, slice(half)), part(z, slice(half, 2 * half)))
        count = half
    for factor in apart:
        z = algebra.product(torch.mul, z, factor)
    return z if keepdim else algebra.reshaped(torch.Tensor.squeeze, z, behind)


def contraction(algebra: Algebra, func: Callable[..., Any], equation: Any, *operands: Any) -> Any:
    """einsum with one factor that is a function of x."""
    if sum(isinstance(operand, Carrier) for operand in operands) != 1:
        raise NoRuleError("einsum with several factors that are functions of x")
    return algebra.linear(func, equation, *operands)


def swapped(rule: Rule) -> Rule:
    """The rule of an operator whose operands come in the other order, such as `__rsub__`."""

    def turned(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any, **kwargs: Any) -> Any:
        return rule(algebra, func, b, a, **kwargs)

    return turned


# ---- which entries -------------------------------------------------------------------------------


def join(
    algebra: Algebra, func: Callable[..., Any], members: Any, *args: Any, **kwargs: Any
) -> Any:
    """cat and stack, hstack and vstack."""
    return algebra.join(func, members, *args, **kwargs)


def index(algebra: Algebra, func: Callable[..., Any], z: Any, places: Any) -> Any:
    """z[places]."""
    if not isinstance(z, Carrier):
        raise NoRuleError("an index that is a function of x")
    return algebra.indexed(func, z, places)


def selected(algebra: Algebra, func: Callable[..., Any], condition: Any, a: Any, b: Any) -> Any:
    """where(condition, a, b), with the same choice for derivatives as for values."""
    if func is torch.Tensor.where:  # a.where(condition, b)
        condition, a = a, condition
    if values(condition).dtype != torch.bool:
        raise NoRuleError("a condition that is no mask")
    return algebra.selected(condition, a, b)


def larger(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any) -> Any:
    """maximum(a, b); of two that are equal, half the derivative of each."""
    return _one_of(algebra, a, b, torch.le)


def smaller(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any) -> Any:
    """minimum(a, b); of two that are equal, half the derivative of each."""
    return _one_of(algebra, a, b, torch.ge)


def _one_of(algebra: Algebra, a: Any, b: Any, second: Callable[..., Tensor]) -> Any:
    """Where `second` holds of them b, elsewhere a, and the mean where they are equal."""
    half = algebra.added(
        algebra.product(torch.mul, 0.5, a) if isinstance(a, Carrier) else 0.5 * a,
        algebra.product(torch.mul, 0.5, b) if isinstance(b, Carrier) else 0.5 * b,
    )
    # NaN in a is kept as no comparison with it holds, and one in b is by the mean
    either = algebra.selected(algebra.compared(second, a, b), b, a)
    equal = algebra.compared(torch.eq, a, b)
    nan = algebra.compared(torch.ne, b, b)
    return algebra.selected(nan, half, algebra.selected(equal, half, either))


# ---- what is made of the above -------------------------------------------------------------------


def convolution(
    algebra: Algebra,
    func: Callable[..., Any],
    z: Any,
    weight: Any,
    bias: Any = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """A convolution, linear in z; the bias is added to the value alone."""
    if not isinstance(z, Carrier) or isinstance(weight, Carrier) or isinstance(bias, Carrier):
        raise NoRuleError("a convolution whose weight is a function of x")
    result = algebra.linear(lambda v: func(v, weight, None, *args, **kwargs), z)
    if bias is None:
        return result
    return algebra.added(result, bias.reshape(-1, *(1,) * (weight.ndim - 2)))


def dense(
    algebra: Algebra, func: Callable[..., Tensor], z: Any, weight: Any, bias: Any = None
) -> Any:
    """z Wᵀ + b."""
    return algebra.dense(func, z, weight, bias)


def dropout(
    algebra: Algebra,
    func: Callable[..., Any],
    z: Any,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Any:
    """dropout: a value and its derivatives are multiplied by the same mask."""
    if inplace:
        raise NoRuleError("dropout in place")
    if not training:
        return z
    return algebra.product(torch.mul, func(torch.ones_like(algebra.bare(z)), p, training), z)


def softmax(
    algebra: Algebra,
    func: Callable[..., Any],
    z: Any,
    dim: int,
    _stacklevel: int = 3,
    dtype: Any = None,
) -> Any:
    """softmax: exp(z − max) over its sum."""
    if dtype is not None or isinstance(_stacklevel, torch.dtype):
        raise NoRuleError("softmax in another dtype")
    shifted = algebra.added(z, -algebra.bare(z).detach().amax(dim, keepdim=True))
    powers = algebra.chain(shifted, formulas.exp(shifted.value))
    return divided(
        algebra, torch.div, powers, algebra.reduced(torch.sum, powers, dim, keepdim=True)
    )


def layer_norm(
    algebra: Algebra,
    func: Callable[..., Any],
    z: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Any:
    """Layer norm: (z − mean) / √(variance + ε), scaled and shifted."""
    dims = tuple(range(-len(normalized_shape), 0))
    centred = subtracted(algebra, torch.sub, z, algebra.reduced(torch.mean, z, dims, keepdim=True))
    squares = algebra.product(torch.mul, centred, centred)
    variance = algebra.added(algebra.reduced(torch.mean, squares, dims, keepdim=True), eps)
    normed = algebra.product(
        torch.mul, centred, algebra.chain(variance, formulas.power(variance.value, -0.5))
    )
    normed = normed if weight is None else algebra.product(torch.mul, weight, normed)
    return normed if bias is None else algebra.added(normed, bias)


def euclidean(
    algebra: Algebra,
    func: Callable[..., Any],
    z: Any,
    ord: Any = None,
    dim: Any = None,
    keepdim: bool = False,
    **kwargs: Any,
) -> Any:
    """The length of vectors, √Σz²."""
    if kwargs.pop("p", ord) not in (2, "fro", None) or any(v is not None for v in kwargs.values()):
        raise NoRuleError("another norm than that of vectors")
    if dim is None:  # of all entries
        dim = tuple(range(-values(z).ndim, 0))
    if func is torch.linalg.norm and ord == 2 and not isinstance(dim, int) and len(dim) == 2:
        raise NoRuleError("the largest singular value")
    squares = algebra.product(torch.mul, z, z)
    total = algebra.reduced(torch.sum, squares, dim, keepdim=keepdim)
    return algebra.chain(total, formulas.root(total.value))


def distances(
    algebra: Algebra, func: Callable[..., Any], a: Any, b: Any, p: float = 2.0, **kwargs: Any
) -> Any:
    """cdist: the length of each difference of a row of a and a row of b."""
    if p != 2:
        raise NoRuleError("another distance than the length of the difference")
    # torch declares no second derivatives of its own kernel (2.13)
    left, right = (
        algebra.reshaped(torch.unsqueeze, x, dim) if isinstance(x, Carrier) else x.unsqueeze(dim)
        for x, dim in ((a, -2), (b, -3))
    )
    return euclidean(algebra, func, subtracted(algebra, torch.sub, left, right), dim=-1)


# ---- by name -------------------------------------------------------------------------------------

BY_AUTOGRAD = "celu elu erfinv gelu lgamma logit mish selu softplus softsign tanhshrink"
KINKED = "clamp clip hardtanh"
ELEMENTWISE: dict[str, Callable[..., Slopes]] = {
    "sin": formulas.sin,
    "cos": formulas.cos,
    "tan": formulas.tan,
    **dict.fromkeys(("asin", "arcsin"), formulas.asin),
    **dict.fromkeys(("acos", "arccos"), formulas.acos),
    **dict.fromkeys(("atan", "arctan"), formulas.atan),
    "sinh": formulas.sinh,
    "cosh": formulas.cosh,
    **dict.fromkeys(("asinh", "arcsinh"), formulas.asinh),
    **dict.fromkeys(("acosh", "arccosh"), formulas.acosh),
    **dict.fromkeys(("atanh", "arctanh"), formulas.atanh),
    "exp": formulas.exp,
    **dict.fromkeys(("exp2", "special_exp2"), formulas.exp2),
    **dict.fromkeys(("expm1", "special_expm1"), formulas.expm1),
    "log": formulas.log,
    "log2": formulas.logarithm(torch.log2, 2),
    "log10": formulas.logarithm(torch.log10, 10),
    **dict.fromkeys(("log1p", "special_log1p"), formulas.log1p),
    "sqrt": formulas.sqrt,
    "rsqrt": formulas.rsqrt,
    **dict.fromkeys(("abs", "absolute"), formulas.absolute),
    "relu": formulas.relu,
    "leaky_relu": formulas.leaky_relu,
    "hardsigmoid": formulas.hardsigmoid,
    **dict.fromkeys(("sinc", "special_sinc"), formulas.sinc),
    **dict.fromkeys(("erf", "special_erf"), formulas.erf),
    **dict.fromkeys(("erfc", "special_erfc"), formulas.erfc),
    "special_erfcx": formulas.erfcx,
    **dict.fromkeys(("sigmoid", "special_expit"), formulas.sigmoid),
    "log_sigmoid": formulas.log_sigmoid,
    "silu": formulas.silu,
    "reciprocal": formulas.reciprocal,
    "square": formulas.square,
}
LINEAR = "cumsum imag real view_as_complex view_as_real"
MOVED = "chunk flip narrow repeat roll select split tile"
RESHAPED = "flatten ravel reshape squeeze unflatten unsqueeze view"
PERMUTED = "T mT movedim permute swapaxes t transpose"
CONVERTED = "clone contiguous double float to"
WITHOUT_DERIVATIVE = (
    "ceil data detach empty_like floor full_like new_empty new_full new_ones new_tensor new_zeros "
    "ones_like rand_like randn_like round sign trunc zeros_like"
)
CONSTANT = frozenset(WITHOUT_DERIVATIVE.split())

RULES: dict[str, Rule] = {
    **{name: elementwise(slopes) for name, slopes in ELEMENTWISE.items()},
    **dict.fromkeys(BY_AUTOGRAD.split(), by_autograd),
    **dict.fromkeys(KINKED.split(), kinked),
    **dict.fromkeys(LINEAR.split(), linear),
    **dict.fromkeys(MOVED.split(), moved),
    **dict.fromkeys(RESHAPED.split(), reshaped),
    **dict.fromkeys(PERMUTED.split(), permuted),
    **dict.fromkeys(CONVERTED.split(), converted),
    **dict.fromkeys(("sum", "mean"), reduced),
    **dict.fromkeys(("expand", "broadcast_to"), broadcast),
    "broadcast_tensors": together,
    "unbind": unbound,
    "tanh": tanh,
    "pow": powered,
    "__rpow__": swapped(powered),
    "atan2": of_several(formulas.atan2),
    "arctan2": of_several(formulas.atan2),
    "hypot": of_several(formulas.hypot),
    "logaddexp": of_several(formulas.logaddexp),
    "voigt_profile": of_several(formulas.voigt_profile),
    "add": added,
    **dict.fromkeys(("sub", "subtract"), subtracted),
    **dict.fromkeys(("rsub", "__rsub__"), swapped(subtracted)),
    **dict.fromkeys(("neg", "negative"), negated),
    **dict.fromkeys(("mul", "multiply"), multiplied),
    **dict.fromkeys(("div", "divide", "true_divide"), divided),
    "__rdiv__": swapped(divided),
    "addcmul": added_product,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), matrix_product),
    "__rmatmul__": swapped(matrix_product),
    "prod": multiplied_along,
    "einsum": contraction,
    **dict.fromkeys(("cat", "concat", "concatenate", "stack", "hstack", "vstack"), join),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(("norm", "linalg_norm", "linalg_vector_norm"), euclidean),
    "cdist": distances,
    "__getitem__": index,
    "where": selected,
    "maximum": larger,
    "minimum": smaller,
    "linear": dense,
    "dropout": dropout,
    "softmax": softmax,
    "layer_norm": layer_norm,
}


def name_of(func: Callable[..., Any]) -> str:
    """The name of a function as `RULES` has it; for a property such as `x.T` the attribute's."""
    name = getattr(func, "__name__", None) or repr(func)
    return getattr(getattr(func, "__self__", None), "__name__", name) if name == "__get__" else name
