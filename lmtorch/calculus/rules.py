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

from . import slopes as formulas
from .base import Rule, Slopes
from .composed_rules import convolution, dense, distances, dropout, euclidean, layer_norm, softmax
from .primitive_rules import (
    added,
    added_product,
    broadcast,
    by_autograd,
    contraction,
    converted,
    divided,
    elementwise,
    index,
    join,
    kinked,
    larger,
    linear,
    matrix_product,
    moved,
    multiplied,
    multiplied_along,
    negated,
    of_several,
    permuted,
    powered,
    reduced,
    reshaped,
    selected,
    smaller,
    subtracted,
    swapped,
    tanh,
    together,
    unbound,
)

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
