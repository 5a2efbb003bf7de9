"""Jacobians of small networks of convolutions and linear layers, by products of matrices.

A convolution is a matrix of which most entries are zero. For few channels it is small, and the
product of many rows with all of it takes a fraction of the time of a convolution, whose loops over
few numbers keep a processor waiting: rows of J go back through z = W a + b and a = g(z) as

    λ W,   λ ∘ g′(z)

for a block of samples at a time, which stays in the cache. Values go through the layers themselves.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..calculus import slopes
from ..calculus.base import NoRuleError, Slopes
from ..calculus.layered import CACHE
from .calling import Call
from .layers import EXACT, GLOBAL_HOOKS, hooked, plain

CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
}
KINDS: dict[type[nn.Module], Callable[[Tensor], Slopes]] = {
    nn.Tanh: slopes.tanh,
    nn.Sigmoid: slopes.sigmoid,
    nn.SiLU: slopes.silu,
    nn.ReLU: slopes.relu,
}
MOST = 2**17  # entries of a matrix
ZEROS = 8  # times the entries that a convolution multiplies: of 5 a third of its time is left


class _Step(NamedTuple):
    """A layer: a linear map, or an activation."""

    module: Any
    matrix: Tensor | None  # (in, out)
    slopes: Callable[[Tensor], Slopes] | None


def by_matrices(call: Call) -> Tensor:
    """The Jacobian of each sample, of which no graph is made.

    Returns:
        (s, *out, *in).

    Raises:
        NoRuleError: the function is no such network, or another way is faster.
    """
    x, network = call.x, call.asked
    if type(network) is not nn.Sequential or call.batch != 1 or not plain(x):
        raise NoRuleError("no network of layers on a CPU")
    modules = list(network._modules.values())
    rows = modules[-1].out_features if modules and type(modules[-1]) is nn.Linear else call.size
    if not any(type(one) in CONVOLUTIONS for one in modules) or 4 * len(x) * rows < call.size:
        raise NoRuleError("no convolutions, or few rows")
    if torch.is_grad_enabled() and any(one.requires_grad for one in (x, *network.parameters())):
        raise NoRuleError("a graph is wanted")
    with torch.no_grad():
        steps, out = _steps(network, x.detach())
        return _swept(steps, x.detach(), out).unflatten(1, out).unflatten(-1, call.inputs)


def _steps(network: nn.Sequential, x: Tensor) -> tuple[list[_Step], torch.Size]:
    """The layers, and the shape of what the last one makes of a sample."""
    if hooked(network) or any(hooks for hooks in GLOBAL_HOOKS):
        raise NoRuleError("hooks")
    one, steps, unrolled = x[:1], list[_Step](), list[tuple[int, torch.Size]]()
    entries = multiplied = width = 0
    modules: Any = network._modules.values()  # of which torch 2.13 says that none is None
    for place, module in enumerate(modules):
        kind, shape = type(module), one.shape[1:]
        if module is None or hooked(module):
            raise NoRuleError("hooks")
        if kind in KINDS:
            steps.append(_Step(module, None, KINDS[kind]))
            one = module(one)
            continue
        if kind is nn.Flatten:
            if (module.start_dim, module.end_dim) != (1, -1):
                raise NoRuleError("features that stay apart")
            steps.append(_Step(module, None, None))
            one = module(one)
            continue
        weight = _weight(module, x, len(shape))
        one = module(one)
        number = shape.numel() * one[0].numel()
        if number > MOST:
            raise NoRuleError("a large matrix")
        entries, multiplied = entries + number, multiplied + one[0].numel() * weight[0].numel()
        if kind is nn.Linear:
            steps.append(_Step(module, weight.t(), None))
        else:
            unrolled.append((place, shape))
            width += shape.numel()
            steps.append(_Step(module, None, None))
    rows = one[0].numel()
    if not unrolled or rows > x[0].numel() or entries > ZEROS * multiplied:
        raise NoRuleError("many zeros, or none")
    if 8 * len(x) * rows < width:
        raise NoRuleError("fewer rows than it takes to make the matrices")
    for place, shape in unrolled:
        steps[place] = steps[place]._replace(matrix=_unrolled(steps[place].module, shape, x))
    return steps, one.shape[1:]


def _weight(module: Any, x: Tensor, ndim: int) -> Tensor:
    """The weight of a layer that is linear, for samples of so many dimensions."""
    kind = type(module)
    if kind is not nn.Linear and (kind not in CONVOLUTIONS or module.padding_mode != "zeros"):
        raise NoRuleError(f"{kind.__name__} is no layer of this kind")
    parts = module._parameters
    weight, bias = parts.get("weight"), parts.get("bias")
    if weight is None or ndim != max(1, weight.ndim - 1):
        raise NoRuleError("a weight that is no parameter, or samples of other dimensions")
    for part in (weight, bias):
        if part is not None and (
            type(part) not in EXACT
            or part.dtype != x.dtype
            or part.device != x.device
            or part.layout != torch.strided
            or not bool(part.isfinite().all())  # times zero it would be NaN everywhere
        ):
            raise NoRuleError("a weight of another kind")
    found: Tensor = weight
    return found


def _unrolled(module: Any, shape: torch.Size, like: Tensor) -> Tensor:
    """A convolution as a matrix, (in, out)."""
    units = torch.eye(shape.numel(), dtype=like.dtype).view(-1, *shape)
    found = CONVOLUTIONS[type(module)](
        units, module.weight, None, module.stride, module.padding, module.dilation, module.groups
    )
    return found.flatten(1)


def _swept(steps: Sequence[_Step], x: Tensor, out: torch.Size) -> Tensor:
    """Rows of J, (s, k, d), a block of samples after the other."""
    k = out.numel()
    found = x.new_empty(len(x), k, x[0].numel())
    matrices = [step.matrix for step in steps if step.matrix is not None]
    widest = max(max(matrix.shape) for matrix in matrices)
    size = max(1, 2 * CACHE // (x.element_size() * k * widest))
    sweep = partial(_through, steps, torch.eye(k, dtype=x.dtype))
    for some, rows in zip(x.split(size), found.split(size), strict=True):
        sweep(some, rows)
    return found


def _through(steps: Sequence[_Step], adjoint: Tensor, a: Tensor, rows: Tensor) -> None:
    """Write the rows of J of a block of samples, from those of the outputs themselves (k, k)."""
    bends: list[Tensor | None] = []
    for step in steps:
        bend = None if step.slopes is None else step.slopes(a)
        a = step.module(a) if bend is None else bend.value
        bends.append(None if bend is None else bend.slope.flatten(1))
    if not all(bool(bend.isfinite().all()) for bend in bends if bend is not None):
        raise NoRuleError("slopes that are no numbers")  # times zero they would spread
    for step, slope in zip(reversed(steps), reversed(bends), strict=True):
        if slope is not None:
            adjoint = adjoint * slope[:, None]
        elif step.matrix is not None:
            # of the first activations on each sample has rows of its own
            adjoint = (adjoint.flatten(0, -2) @ step.matrix.t()).unflatten(0, adjoint.shape[:-1])
    rows.copy_(adjoint)
