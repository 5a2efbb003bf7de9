"""Networks of layers, and what is known of their derivatives without looking at each operator.

Many networks are linear layers and smooth activations in turns, and nothing else. Which, is read
from an `nn.Sequential` of such layers, and seen by a mode in any other function; it is looked at in
each call, and a function that is no such network is remembered. What follows is then done for the
whole network at once (`calculus/layered.py`, `calculus/sweeps.py`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.modules import module as modules

from .._autodiff import history
from .._modes import FunctionMode
from ..calculus.activations import ACTIVATIONS
from ..calculus.base import NoRuleError
from ..calculus.jets import Jet, Jets, trace
from ..calculus.layered import Layer, Layered, Wanted
from ..calculus.rules import RULES, name_of
from ..calculus.sweeps import swept
from .asked import unless_asked
from .calling import Call, within
from .draws import Draws
from .uncompiled import Uncompiled

BATCHED = torch._C._dispatch_key_parse("Batched")  # of `is_grads_batched`
MARK = "_lmtorch_layer"  # the attribute of tensors that depend on x
# attributes of a tensor that say nothing of its numbers
FORM = frozenset(
    ("shape", "size", "dim", "ndim", "dtype", "device", "layout", "__len__", "is_floating_point")
)
KINDS: dict[type[nn.Module], str] = {
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
}
OPERATORS: dict[str, Callable[..., Tensor]] = {
    name: functional.silu if name == "silu" else getattr(torch, name) for name in ACTIVATIONS
}
EXACT = (Tensor, nn.Parameter)  # a subclass may mean something else
DTYPES = (torch.float32, torch.float64)
# more directions than that, with a graph, would be held all at once
MOST = 16


def plain(x: Tensor) -> bool:
    """Whether x is a tensor on a CPU in whose calls torch does nothing but to compute."""
    return (
        type(x) in EXACT
        and x.dtype in DTYPES
        and x.device.type == "cpu"  # elsewhere nothing of networks of layers was timed
        and not within()
        and forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
    )


def layers_of(call: Call) -> list[Layer]:
    """Find the layers of which a function is made.

    Returns:
        Them, each of what the one before has made.

    Raises:
        NoRuleError: it is made of something else, or x is not of the form that is needed.
    """
    x = call.x
    if len(call.inputs) != 1 or call.batch < 1 or not plain(x):
        raise NoRuleError("no plain tensor of samples with features, on a CPU")
    function = call.asked
    layers = _read(function) if type(function) is nn.Sequential else _seen(function, x)
    if not any(name for *_, name in layers):
        raise NoRuleError("a linear function")
    size = call.size
    for weight, bias, _ in layers:
        for part, shape in ((weight, (weight.shape[0], size)), (bias, weight.shape[:1])):
            if part is not None and (
                type(part) not in EXACT
                or part.dtype != x.dtype
                or part.device != x.device
                or part.shape != shape
                or part.layout != torch.strided
            ):
                raise NoRuleError("a weight of another kind")
        size = weight.shape[0]
    return layers


def _read(network: nn.Sequential) -> list[Layer]:
    """The layers of modules in a row."""
    layers: list[Layer] = []
    if hooked(network) or any(hooks for hooks in GLOBAL_HOOKS):
        raise NoRuleError("hooks")
    for module in network._modules.values():
        kind = type(module)
        if hooked(module):
            raise NoRuleError("hooks")
        if kind is nn.Linear:
            parts = module._parameters
            weight = parts.get("weight")
            if weight is None:
                raise NoRuleError("a weight that is no parameter")
            layers.append(Layer(weight, parts.get("bias"), ""))
        elif kind in KINDS and layers and not layers[-1].activation:
            layers[-1] = layers[-1]._replace(activation=KINDS[kind])
        else:
            raise NoRuleError(f"{kind.__name__} is no layer of this kind")
    return layers


GLOBAL_HOOKS = (
    modules._global_forward_hooks,
    modules._global_forward_pre_hooks,
    modules._global_backward_hooks,
    modules._global_backward_pre_hooks,
)


def hooked(module: nn.Module) -> bool:
    """Whether a call of a module does more than its class says."""
    own = module.__dict__
    return bool(
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
        or "weight" in own
        or "bias" in own
        or own.get("_compiled_call_impl")
        or getattr(module, "inplace", False)
    )


def _seen(function: Any, x: Tensor) -> list[Layer]:
    """The layers of a function, by a mode that sees its operators; another function is kept."""
    remember = unless_asked(("layers",), function)
    if remember is None:
        raise NoRuleError("it was found to be something else")
    draws, mode = Draws(x), _Layering(x)
    try:
        with torch.enable_grad(), Uncompiled(), mode:
            mode.end(function(mode.current))
    except Exception:
        draws.again()  # what is drawn at random is drawn once
        remember()
        raise
    return mode.layers


class _Layering(FunctionMode):
    """A mode that notes layers, each of what the one before has made, and refuses all else."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self.current = self._shown(x)

    def _shown(self, value: Tensor) -> Tensor:
        """What the function sees: a leaf, so that autograd tells of uses that no mode sees."""
        seen = value.detach().requires_grad_()
        setattr(seen, MARK, self)
        return seen

    def _depends(self, tensor: Any) -> bool:
        return getattr(tensor, MARK, None) is self

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if name in FORM:
            return func(*args, **kwargs)
        parts = [*args, *kwargs.values()]
        if any(isinstance(part, tuple | list | dict) for part in parts):
            parts = torch.utils._pytree.tree_leaves(parts)
        if not any(self._depends(part) for part in parts):
            return func(*args, **kwargs)
        alone = args and args[0] is self.current and sum(map(self._depends, parts)) == 1
        if not alone or not torch.is_grad_enabled():
            raise NoRuleError(f"{name!r} of more than the layer before")
        if name == "linear":
            self.layers.append(self._linear(*args, **kwargs))
        elif (
            name in ACTIVATIONS
            and len(args) == 1
            and not any(kwargs.values())
            and self.layers
            and not self.layers[-1].activation
        ):
            self.layers[-1] = self.layers[-1]._replace(activation=name)
        else:
            raise NoRuleError(f"{name!r} is no layer")
        with torch.no_grad():
            self.current = self._shown(func(*args, **kwargs))
        return self.current

    def _linear(self, input: Tensor, weight: Any, bias: Any = None) -> Layer:
        for part in (weight, bias):
            for node in history(part) if part is not None and part.grad_fn is not None else ():
                if self._depends(getattr(node, "variable", None)):
                    raise NoRuleError("weights that are functions of x")
        return Layer(weight, bias, "")

    def end(self, result: Any) -> None:
        """Check that what the function returns is what the last layer has made."""
        if result is not self.current:
            raise NoRuleError("something follows the last layer")


# ---- with a graph --------------------------------------------------------------------------------


class _Derivatives(torch.autograd.Function):
    """Value, first and second derivatives, with gradients in x and in weights and biases."""

    @staticmethod
    def forward(
        ctx: Any, names: tuple[str, ...], wanted: Wanted, x: Tensor, *parts: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        layers = _joined(names, parts)
        ctx.layered = Layered(layers, x, wanted, keep=True)
        ctx.names, ctx.wanted = names, wanted
        ctx.save_for_backward(x, *parts)
        ctx.set_materialize_grads(False)
        return ctx.layered.forward()

    @staticmethod
    def backward(ctx: Any, *gradient: Any) -> Any:
        tensors = ctx.saved_tensors  # it is told here if one of them was written to
        needed = ctx.needs_input_grad[2:]
        batched = any(g is not None and _batched(g) for g in gradient)
        if torch.is_grad_enabled() or batched:
            return None, None, *_again(ctx, tensors, needed, gradient)
        return None, None, *ctx.layered.backward(gradient, needed)


def _batched(gradient: Tensor) -> bool:
    """Whether a gradient stands for several, of `vmap` or of `is_grads_batched`."""
    return torch._C._functorch.is_functorch_wrapped_tensor(gradient) or torch._C._dispatch_keys(
        gradient
    ).has(BATCHED)


def _joined(names: Sequence[str], parts: Sequence[Any]) -> list[Layer]:
    return [
        Layer(weight, bias, name)
        for weight, bias, name in zip(parts[::2], parts[1::2], names, strict=True)
    ]


def _again(
    ctx: Any, tensors: Sequence[Any], needed: Sequence[bool], gradient: Sequence[Any]
) -> list[Tensor | None]:
    """Gradients that can be differentiated further, through operators that torch records."""
    at = [t for t, need in zip(tensors, needed, strict=True) if need]
    record = torch.is_grad_enabled()
    with torch.enable_grad():
        found = by_operators(_joined(ctx.names, tensors[1:]), tensors[0], ctx.wanted)
    pairs = [(f, g) for f, g in zip(found, gradient, strict=True) if g is not None]
    pairs = [(f, g) for f, g in pairs if f.requires_grad]
    if not pairs:
        return [None] * len(tensors)
    outputs, weights = zip(*pairs, strict=True)
    made = iter(torch.autograd.grad(outputs, at, weights, create_graph=record, allow_unused=True))
    return [next(made) if need else None for need in needed]


def by_operators(
    layers: Sequence[Layer], x: Tensor, wanted: Wanted
) -> tuple[Tensor, Tensor, Tensor]:
    """Value (s, out), first (s, out, c) and second derivatives (s, out, q), by Taylor mode."""

    def chosen(left: Tensor, right: Tensor, multiply: Any) -> Tensor:
        return torch.stack([multiply(left[i], right[j]) for i, j in wanted.pairs])

    algebra = Jets(1, trace if wanted.summed else chosen, watched=False)
    units = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[list(wanted.first)]
    jet: Any = Jet(x, units[:, None])
    for weight, bias, name in layers:
        jet = algebra.dense(functional.linear, jet, weight, bias)
        if name:
            jet = RULES[name](algebra, OPERATORS[name], jet)
    shape = jet.value.shape
    first = jet.first.expand(-1, *shape).movedim(0, -1)
    return jet.value, first, jet.second.expand(-1, *shape).movedim(0, -1)


# ---- for the operators ---------------------------------------------------------------------------


def second_by_layers(call: Call, chosen: Sequence[int], kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """Value, Jacobian and second derivatives of a network of layers.

    Args:
        call: the function and the point.
        chosen: the inputs in which second derivatives are taken, c of them.
        kind: "every" pair, the "diagonal", or its sum, the "trace".

    Returns:
        (*batch, out), (*batch, out, d) and (*batch, out, c, c), (*batch, out, c) or (*batch, out).
        With a graph and for the last two kinds first derivatives are in the c inputs alone.

    Raises:
        NoRuleError: another way is faster, or the function is something else.
    """
    layers = layers_of(call)
    chosen = [i % call.size for i in chosen]
    if len(set(chosen)) < len(chosen):
        raise NoRuleError("an input that is chosen twice")
    c, outputs = len(chosen), layers[-1].weight.shape[0]
    x = call.x.reshape(-1, call.size)
    parts = [part for weight, bias, _ in layers for part in (weight, bias)]
    if not torch.is_grad_enabled() or not any(
        part.requires_grad for part in (x, *parts) if part is not None
    ):
        if outputs > max(1, c * (c + 1) // 2 if kind == "every" else c):
            raise NoRuleError("more outputs than second derivatives")
        found = swept(layers, x, chosen, kind)
    else:
        if c > MOST:
            raise NoRuleError("too many directions at once")
        found = _with_graph(layers, parts, x, chosen, kind)
    value, jacobian, second = found
    if call.batch == 1:
        return value, jacobian, second
    value, jacobian, second = (part.unflatten(0, call.samples) for part in found)
    return value, jacobian, second


def _with_graph(
    layers: Sequence[Layer], parts: Sequence[Any], x: Tensor, chosen: list[int], kind: str
) -> tuple[Tensor, Tensor, Tensor]:
    c = len(chosen)
    if kind == "every":  # the Jacobian is asked for with it, in all inputs
        first = tuple(range(x.shape[1]))
        pairs = tuple((chosen[i], chosen[j]) for i in range(c) for j in range(i, c))
    else:
        first, pairs = tuple(chosen), tuple((i, i) for i in range(c))
    wanted = Wanted(first, pairs, kind == "trace")
    names = tuple(name for *_, name in layers)
    # torch 2.13 has no types for it
    apply: Callable[..., Any] = _Derivatives.apply
    value, jacobian, second = apply(names, wanted, x, *parts)
    if kind == "diagonal":
        return value, jacobian, second
    if kind == "trace":
        return value, jacobian, second.squeeze(-1)
    if c == 1:
        return value, jacobian, second.unsqueeze(-1)
    starts = [i * c - i * (i + 1) // 2 for i in range(c)]
    places = [starts[min(i, j)] + max(i, j) for i in range(c) for j in range(c)]
    whole = second.index_select(-1, torch.tensor(places, device=x.device))
    return value, jacobian, whole.unflatten(-1, (c, c))
