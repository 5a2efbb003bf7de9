"""Derivatives that are zero although the function is not constant, and who is to be told of it.

A network of linear layers and ReLU is piecewise linear in its inputs: its second derivatives are
zero wherever they exist, and a training on its Laplacian goes on with a residual that does not
depend on the network. So is each of its first derivatives a step function, whose derivatives are
zero. And what `detach` has cut off does not count as a function of x. All of these zeros are the
right answer, as torch gives it, and nearly never what was meant.

What a function is is told from its operators, not from the zeros: those of Taylor mode are seen
while they are carried out (`taylor.py`), and those of autograd stand in its graph. There each
result is of one of five kinds, and what operators make of these is as in

    sums       linear + step = bent; otherwise the higher of the two
    products   step · linear = bent; two that are no steps are curved
    kinks      linear becomes bent

An operator that is not known here makes its result curved, of which nothing is said. A choice
between branches, by a mask or `torch.where`, leaves no trace in the graph: what seems linear there
is evaluated between two points (`branches.py`).
"""

import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError, ZeroDerivativeWarning, level
from . import asked

CONSTANT, STEP, LINEAR, BENT, CURVED = range(5)
FUSED, KINK, BATCH, CURVE = 1, 2, 4, 8  # bits of what the graph of a result holds
# how norms with a kernel of their own, and fused attention, are called in the names of nodes
KERNELS = ("LayerNorm", "BatchNorm", "ScaledDotProduct")


def _words(names: str) -> frozenset[str]:
    return frozenset(names.split())


COUPLED = (
    "{} makes every output depend on all samples of the batch: there are no derivatives per "
    "sample. Use model.eval(), a norm without batch statistics (GroupNorm, LayerNorm), or "
    "batch_dims=0 for the derivatives across the whole batch."
)

# names as torch functions have them
KINKS = _words("relu leaky_relu hardtanh clamp clip abs absolute maximum minimum hardsigmoid")
MODULUS = frozenset(("abs", "absolute"))
COMPARISONS = _words("gt ge lt le greater less greater_equal less_equal")
ROUNDINGS = _words("sign round floor ceil trunc")
CUTS = _words("detach data item tolist __float__")

# names as nodes of autograd have them, without their numbers
_SUMS = _words(
    "Add Sub Rsub Neg T Transpose Permute View UnsafeView ReshapeAlias Expand Sum Mean "
    "Squeeze Unsqueeze Select Slice Index IndexSelect Gather Cat Stack Split SplitWithSizes "
    "Unbind Clone ToCopy Alias Cumsum Where MaskedFill Lerp AvgPool2D AvgPool3D "
    "AdaptiveAvgPool2D Unfold ConstantPadNd Roll Flip Repeat Diagonal Tril Triu "
    "UpsampleNearest1D UpsampleNearest2D UpsampleBilinear2D NativeDropout IndexPut"
)
_PRODUCTS = _words("Mul Mm Bmm Mv Dot")
_SUMS_WITH_PRODUCTS = _words("Addmm Addmv Baddbmm Addbmm Addcmul Addr")
_KINKS = _words(
    "Relu LeakyRelu Hardtanh Clamp ClampMin ClampMax Threshold Abs Maximum Minimum Amax Amin "
    "Max Min Sort Topk Median Hardshrink Softshrink Hardsigmoid RreluWithNoise "
    "MaxPool2DWithIndices MaxPool3DWithIndices AdaptiveMaxPool2D AdaptiveMaxPool3D Cummax "
    "Cummin"
)
_STEPS = _words("Sign Sgn Round Floor Ceil Trunc")
# of a backward pass: (slope, z) -> slope · step(z)
_SLOPES = _words(
    "ThresholdBackward LeakyReluBackward HardtanhBackward HardshrinkBackward SoftshrinkBackward"
)
_STRAIGHT = (
    _SUMS
    | _PRODUCTS
    | _SUMS_WITH_PRODUCTS
    | _words("Div Convolution NativeBatchNorm")
    | {"torch::autograd::AccumulateGrad"}
)
_LAYERS: dict[str, tuple[type[nn.Module], ...]] = {
    "relu": (nn.ReLU,),
    "leaky_relu": (nn.LeakyReLU,),
    "hardtanh": (nn.Hardtanh,),
    "threshold": (nn.Threshold,),
    "hardshrink": (nn.Hardshrink,),
    "softshrink": (nn.Softshrink,),
    "hardsigmoid": (nn.Hardsigmoid,),
    "prelu": (nn.PReLU,),
    "rrelu": (nn.RReLU,),
    "max_pool2d": (nn.MaxPool1d, nn.MaxPool2d),
    "max_pool3d": (nn.MaxPool3d,),
}


@dataclass
class Noted:
    """What was met while a function was differentiated."""

    bends: dict[str, None] = field(default_factory=dict)  # operators; f is piecewise linear by them
    steps: dict[str, None] = field(default_factory=dict)  # f is piecewise constant by these
    cuts: dict[str, None] = field(default_factory=dict)  # f does not depend on x but through these
    linear: bool = False  # whether f is linear in x, as far as its graph tells
    constant: bool = False  # whether f does not depend on x, as far as its graph tells


def contents(y: Tensor) -> int:
    """Which of `FUSED`, `KINK`, `BATCH` and `CURVE` the graph of a result holds, as bits."""
    # every differentiable evaluation waits for this: it is a loop without calls
    nodes = [y.grad_fn]
    known = set(nodes)
    found = 0
    for node in nodes:  # which grows
        if node is None:
            continue
        bits = _bits.get(type(node))
        found |= _content(node) if bits is None else bits
        for following, _ in node.next_functions:
            if following not in known:
                known.add(following)
                nodes.append(following)
    return found


_bits: dict[type, int] = {}  # by the types of nodes: to ask one for its name takes longer


def _content(node: Any) -> int:
    """What a node says of its graph."""
    kind, name = type(node), node.name()
    found = FUSED if any(kernel in name for kernel in KERNELS) else 0
    if "BatchNorm" in name:
        found |= BATCH
    plain = _plain(name)
    if plain in _KINKS or plain in _STEPS or plain in _SLOPES or plain == "PreluKernel":
        found |= KINK
    elif plain not in _STRAIGHT:
        found |= CURVE
    if kind.__name__ == name.rpartition("::")[2]:  # nodes that torch has no type for share one
        _bits[kind] = found
    return found


@cache
def _plain(name: str) -> str:
    """A node's name without what all of them end with."""
    return re.sub(r"Backward\d+$", "", name)


def nodes_of(y: Tensor) -> Iterator[Any]:
    """The nodes from which y comes, each behind those that it comes from."""
    pending: list[tuple[Any, bool]] = [(y.grad_fn, False)]
    known = {None}
    while pending:
        node, ready = pending.pop()
        if ready:
            yield node
        elif node not in known:
            known.add(node)
            pending.append((node, True))
            pending.extend((following, False) for following, _ in node.next_functions)


def coupled(y: Tensor) -> bool:
    """Whether a batch norm in y takes its statistics from several samples."""
    return any(
        "BatchNorm" in node.name()
        and getattr(node, "_saved_training", False)
        # an instance norm is a batch norm of a single sample with more channels
        and node._saved_input.shape[0] > 1
        for node in nodes_of(y)
    )


def refuse_batch_norm(
    input: Tensor,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    *options: Any,
    **named: Any,
) -> None:
    """Check that a batch norm, by its arguments, does not take statistics from several samples.

    Raises:
        InputError: it does.
    """
    if training and input.shape[0] > 1:
        raise InputError(COUPLED.format("a batch norm in training mode, within the function,"))


def note(noted: Noted, y: Tensor, x: Tensor, loss: bool) -> None:
    """Note by which operators y is piecewise linear or piecewise constant in x.

    Args:
        noted: where.
        y: the result.
        x: from which it was computed.
        loss: y is one number of the whole of x. |f| is then what a loss is made of, whose Hessian
            may well be zero, and is not noted.
    """
    kinds: dict[Any, int] = {None: CONSTANT}
    met: dict[str, None] = {}
    for node in nodes_of(y):
        inputs = [kinds.get(following, CONSTANT) for following, _ in node.next_functions]
        name = _plain(node.name())
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            # inside torch.func no other tensor is a variable of this level
            kinds[node] = LINEAR if leaf is x or torch._C._functorch.is_gradtrackingtensor(x) else 0
        elif node is x.grad_fn:
            kinds[node] = LINEAR
        else:
            kinds[node] = _kind(node, name, inputs)
            if _content(node) & KINK and max(inputs, default=CONSTANT) > CONSTANT:
                met[_operator(name)] = None
    if kinds.get(y.grad_fn) == BENT:
        if loss:
            met.pop("abs", None)
        noted.bends.update(met)
    elif kinds.get(y.grad_fn) == STEP:
        noted.steps.update(met)
    elif kinds.get(y.grad_fn) == LINEAR and not loss:
        noted.linear = True
    elif not y.requires_grad and x.requires_grad and torch.is_grad_enabled():
        noted.constant = True


def _kind(node: Any, name: str, inputs: list[int]) -> int:
    """Of which kind an operator's result is, by those of its inputs."""
    highest = max(inputs, default=CONSTANT)
    if highest <= STEP:  # any function of step functions is one
        return highest
    if name in _SUMS:
        return _sum(inputs)
    if name in _PRODUCTS:
        return _product(*inputs)
    if name in _SUMS_WITH_PRODUCTS:
        return _sum([inputs[0], _product(*inputs[1:3])])
    if name == "Div":
        return inputs[0] if len(inputs) == 1 or inputs[1] == CONSTANT else CURVED
    if name in ("Convolution", "NativeBatchNorm"):
        if name == "NativeBatchNorm" and node._saved_training:
            return CURVED
        return _sum([_product(inputs[0], inputs[1]), inputs[2]])
    if name in _KINKS or name == "PreluKernel":
        kinked = BENT if inputs[0] == LINEAR else inputs[0]
        return _product(kinked, inputs[1]) if name == "PreluKernel" else _sum([kinked, *inputs[1:]])
    if name in _STEPS:
        return STEP
    if name in _SLOPES:
        return _product(inputs[0], min(inputs[1], STEP)) if len(inputs) > 1 else inputs[0]
    return CURVED


def _sum(inputs: list[int]) -> int:
    highest = max(inputs)
    return BENT if highest == LINEAR and STEP in inputs else highest


def _product(a: int, b: int = CONSTANT) -> int:
    low, high = sorted((a, b))
    if low == CONSTANT:
        return high
    if low == STEP:
        return BENT if high == LINEAR else high
    return CURVED


def _operator(name: str) -> str:
    """A node's name as an operator is called: LeakyRelu is leaky_relu."""
    for end in ("WithIndices", "WithNoise", "Kernel", "Backward"):
        name = name.removesuffix(end)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name).lower()


# ---- words ---------------------------------------------------------------------------------------


def tell(noted: Noted, order: int, function: Callable[..., Any]) -> None:
    """Warn of derivatives that are zero by kinks, steps or cuts.

    Args:
        noted: what was met.
        order: of the derivatives that were asked for.
        function: the user's.
    """
    if asked.looking():
        return
    if noted.steps:
        text = (
            "all of these derivatives are zero, as what the function returns is constant between "
            f"kinks or jumps, by {_named(noted.steps, function)}. The derivative of a piecewise "
            f"linear function, such as a network with ReLU, is such a function. {_SMOOTH}"
        )
    elif noted.bends and order == 2:
        text = (
            "all of these second derivatives are zero, as the function is piecewise linear in x, "
            f"by {_named(noted.bends, function)}. An equation with second derivatives cannot be "
            f"learned so. {_SMOOTH}"
        )
    elif noted.cuts:
        text = (
            "all of these derivatives are zero, as autograd cannot follow how the function "
            f"depends on x: it was cut off by {', '.join(noted.cuts)}. Leave that out, or use "
            "finite_difference_jacobian."
        )
    else:
        return
    warnings.warn(text, ZeroDerivativeWarning, stacklevel=level())


_SMOOTH = "Smooth activations are tanh, SiLU, GELU, Softplus and sin."


def _named(operators: dict[str, None], function: Callable[..., Any]) -> str:
    """Name operators, and the layers of the function's modules that use them."""
    layers = list(_layers(function))
    words = []
    for operator in operators:
        kinds = _LAYERS.get(operator, ())
        places = [
            f"{name!r}, {type(layer).__name__}"
            for name, layer in layers
            if isinstance(layer, kinds)
        ]
        shown = "; ".join(places[:3]) + ("; ..." if len(places) > 3 else "")
        words.append(f"{operator} (layer {shown})" if places else operator)
    return ", ".join(words)


def _layers(function: Callable[..., Any]) -> Iterator[tuple[str, nn.Module]]:
    """The modules that a function is, or that it has in its closure or among its globals."""
    if isinstance(function, nn.Module):
        yield from function.named_modules()
        return
    try:
        held = inspect.getclosurevars(function)
    except (TypeError, ValueError):  # no Python function
        return
    for name, thing in {**held.nonlocals, **held.globals}.items():
        if isinstance(thing, nn.Module):
            for place, layer in thing.named_modules():
                yield (f"{name}.{place}" if place else name), layer
