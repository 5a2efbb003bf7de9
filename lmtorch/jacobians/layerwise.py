"""Per sample, from what linear layers see: a row of J is the outer product of a layer's output gradient and its input.

Where every parameter is the weight or bias of a linear layer z = W a + b and samples are independent, one ordinary
backward pass of Σ r gives each sample's own gradients g in the layers' outputs, and

    ∂r/∂W = g aᵀ,   ∂r/∂b = g,

written straight into the rows of J: no vmap, no copies. The first block is checked against autograd's own sum of the
rows; whatever does not fit (other layers, parameters used elsewhere) is refused, and `PerSample` serves.

Reference: Goodfellow, Efficient per-example gradient computations (2015).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from .._autodiff import Params
from ..residuals.base import Part
from .base import GROSS, Workspace


class NotLayerwiseError(Exception):
    """Some parameter is more than the weight or bias of linear layers."""


class LayerWise:
    """Rows of J from inputs and output gradients of linear layers."""

    def __init__(self) -> None:
        self.checked = False

    def __repr__(self) -> str:
        """As the other sources, which are dataclasses."""
        return "LayerWise()"

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[tuple[Tensor, Tensor]]:
        """One block for the part."""
        if part.sample is None:
            raise NotLayerwiseError("no independent samples")
        count = part.samples[0].shape[0]
        twins = tuple(p.detach().requires_grad_() for p in params)
        with torch.enable_grad(), _Recorder(twins) as recorder:
            residual = part.function(twins)
        if not recorder.layers:
            raise NotLayerwiseError("no linear layer")
        rows = workspace(residual.shape[0])
        by_sample = rows.unflatten(0, (count, -1))  # (s, k, n)
        for index in range(by_sample.shape[1]):
            direction = torch.zeros_like(residual)
            direction.view(count, -1)[:, index] = 1
            outputs = [layer.output for layer in recorder.layers]
            gradients = torch.autograd.grad(residual, outputs, direction, retain_graph=True, allow_unused=True)
            _fill_(by_sample[:, index], gradients, recorder.layers, params)
        if not self.checked:
            _check(rows, residual, twins)
            self.checked = True
        yield residual.detach(), rows

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """Plain."""
        return part.function(params)


class _Layer(NamedTuple):
    weight: int  # place among the parameters; −1: not one of them
    bias: int
    input: Tensor  # (s, ..., in)
    output: Tensor  # (s, ..., out)


class _Recorder(TorchFunctionMode):
    """Keeps inputs and outputs of the linear layers whose weight or bias is a parameter."""

    def __init__(self, twins: Params) -> None:
        super().__init__()
        self.places = {id(twin): place for place, twin in enumerate(twins)}
        self.layers: list[_Layer] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is linear and not kwargs:
            weight, bias = (self.places.get(id(a), -1) for a in (args[1], args[2] if len(args) > 2 else None))
            if weight >= 0 or bias >= 0:
                self.layers.append(_Layer(weight, bias, args[0].detach(), result))
        return result


def _fill_(rows: Tensor, gradients: Sequence[Tensor | None], layers: list[_Layer], params: Params) -> None:
    """Rows (s, n) of one residual of each sample, from its gradients in the outputs of the layers."""
    columns = [
        view.unflatten(1, p.shape) for view, p in zip(rows.split([p.numel() for p in params], 1), params, strict=True)
    ]
    written = set()
    for layer, gradient in zip(layers, gradients, strict=True):
        if gradient is None:
            continue
        if layer.input.ndim < 2 or layer.input.shape[0] != rows.shape[0]:
            raise NotLayerwiseError("a linear layer without the samples in its first dimension")
        g = gradient.flatten(1, -2) if gradient.ndim > 2 else gradient[:, None]  # (s, t, out)
        a = layer.input.flatten(1, -2) if layer.input.ndim > 2 else layer.input[:, None]  # (s, t, in)
        for place, shares in ((layer.weight, (g, a)), (layer.bias, (g,))):
            if place < 0:
                continue
            if place in written:
                columns[place] += _outer(*shares)
            elif len(shares) == 2 and g.shape[1] == 1:
                torch.mul(g[:, 0, :, None], a[:, 0, None, :], out=columns[place])
            else:
                columns[place].copy_(_outer(*shares))
            written.add(place)
    for place in set(range(len(params))) - written:
        columns[place].zero_()


def _outer(g: Tensor, a: Tensor | None = None) -> Tensor:
    """Σ_t g aᵀ, or Σ_t g, of each sample."""
    return g.sum(1) if a is None else g.mT @ a


def _check(rows: Tensor, residual: Tensor, twins: Params) -> None:
    """The sum of the rows is the gradient of Σ r, which autograd knows whatever the parameters are used for."""
    gradients = torch.autograd.grad(
        residual, twins, torch.ones_like(residual), allow_unused=True, materialize_grads=True
    )
    expected = torch.cat([g.reshape(-1) for g in gradients]).to(rows.dtype)
    found = rows.sum(0)
    size = rows.abs().sum(0) + expected.abs().amax()
    finite = rows.isfinite().all()
    if bool(finite) and not bool(((found - expected).abs() <= GROSS * size).all()):
        raise NotLayerwiseError("a parameter acts elsewhere than in a linear layer")
