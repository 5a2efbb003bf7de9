"""Per sample, from what linear layers see: a row of J is the outer product of a layer's output gradient and its input.

Where every parameter is the weight or bias of a linear layer z = W a + b and samples are independent, one ordinary
backward pass of Σ r gives each sample's own gradients g in the layers' outputs, and

    ∂r/∂W = g aᵀ,   ∂r/∂b = g,

written straight into the rows of J: no vmap, no copies. The first block is checked against autograd's own sum of the
rows; whatever does not fit (other layers, parameters used elsewhere) is refused, and `PerSample` serves.

Reference: Goodfellow, Efficient per-example gradient computations (2015).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from .._autodiff import Params, ranges
from .._outer import Outer
from ..residuals.base import Part
from .base import GROSS, Block, Workspace


class NotLayerwiseError(Exception):
    """Some parameter is more than the weight or bias of linear layers."""


class LayerWise:
    """Rows of J from inputs and output gradients of linear layers.

    Args:
        chunk: samples whose rows are made at once. Default: by the cache in the optimizer, elsewhere all of a part.
    """

    def __init__(self, chunk: int | None = None) -> None:
        self.chunk = chunk
        self.checked = False

    def __repr__(self) -> str:
        """As the other sources, which are dataclasses."""
        return f"LayerWise(chunk={self.chunk})"

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[Block]:
        """One backward pass of the part for each residual of a sample, then rows in chunks that stay in cache."""
        if part.sample is None:
            raise NotLayerwiseError("no independent samples")
        count = part.samples[0].shape[0]
        twins = tuple(p.detach().requires_grad_() for p in params)
        with torch.enable_grad(), _Recorder(twins) as recorder:
            residual = part.function(twins)
        if not recorder.layers:
            raise NotLayerwiseError("no linear layer")
        if any(layer.input.ndim < 2 or layer.input.shape[0] != count for layer in recorder.layers):
            raise NotLayerwiseError("a linear layer without the samples in its first dimension")
        outputs = [layer.output for layer in recorder.layers]
        residuals = residual.detach().view(count, -1)  # (s, k)
        gradients = []
        for index in range(residuals.shape[1]):
            direction = torch.zeros_like(residuals)
            direction[:, index] = 1
            gradients.append(
                torch.autograd.grad(residual, outputs, direction.view(-1), retain_graph=True, allow_unused=True)
            )
        for chosen in ranges(count, self.chunk or count):
            values = residuals[chosen].reshape(-1)
            rows = workspace(values.shape[0])
            by_sample = rows.unflatten(0, (-1, len(gradients)))  # (s, k, n)
            for index, of_outputs in enumerate(gradients):
                _fill_(by_sample[:, index], of_outputs, recorder.layers, params, chosen)
            if not self.checked:
                _check(rows, residual, twins)
                self.checked = True
            yield Block(values, rows, _outer(recorder.layers, gradients, params, chosen))

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


def _fill_(
    rows: Tensor, gradients: Sequence[Tensor | None], layers: list[_Layer], params: Params, chosen: slice
) -> None:
    """Rows (s, n) of one residual of the chosen samples, from its gradients in the outputs of the layers."""
    columns = [
        view.unflatten(1, p.shape) for view, p in zip(rows.split([p.numel() for p in params], 1), params, strict=True)
    ]
    written = set()
    for layer, gradient in zip(layers, gradients, strict=True):
        if gradient is None:
            continue
        g, a = gradient[chosen], layer.input[chosen]  # (s, ..., out), (s, ..., in)
        for place, factor in ((layer.weight, a), (layer.bias, None)):
            if place < 0:
                continue
            if place in written:
                columns[place] += _share(g, factor)
            elif factor is not None and g.ndim == 2:
                torch.mul(g[:, :, None], factor[:, None, :], out=columns[place])
            else:
                columns[place].copy_(_share(g, factor))
            written.add(place)
    for place in set(range(len(params))) - written:
        columns[place].zero_()


def _outer(
    layers: list[_Layer], gradients: Sequence[Sequence[Tensor | None]], params: Params, chosen: slice
) -> tuple[Outer, ...]:
    """The columns of the weights that are used once, on one vector of each sample."""
    used = [layer.weight for layer in layers]
    starts = [0, *accumulate(p.numel() for p in params)]
    found = []
    for place, layer in enumerate(layers):
        shares = [g for of_outputs in gradients if (g := of_outputs[place]) is not None]
        if (
            layer.weight >= 0
            and used.count(layer.weight) == 1
            and layer.input.ndim == 2
            and len(shares) == len(gradients)
        ):
            left = torch.stack([share[chosen] for share in shares], 1)
            found.append(Outer(starts[layer.weight], left, layer.input[chosen]))
    return tuple(sorted(found, key=lambda outer: outer.start))


def _share(g: Tensor, a: Tensor | None) -> Tensor:
    """Of each sample, summed over the places t where the layer is applied: Σ_t g aᵀ for a weight, Σ_t g for a bias."""
    if g.ndim == 2:
        return g if a is None else g[:, :, None] * a[:, None, :]
    g = g.flatten(1, -2)  # (s, t, out)
    return g.sum(1) if a is None else g.mT @ a.flatten(1, -2)


def _check(rows: Tensor, residual: Tensor, twins: Params) -> None:
    """The sum of the rows is the gradient of Σ r, which autograd knows whatever the parameters are used for."""
    ones = torch.zeros_like(residual)
    ones[: rows.shape[0]] = 1
    gradients = torch.autograd.grad(residual, twins, ones, retain_graph=True, allow_unused=True, materialize_grads=True)
    expected = torch.cat([g.reshape(-1) for g in gradients]).to(rows.dtype)
    found = rows.sum(0)
    size = torch.linalg.vector_norm(rows, ord=1, dim=0) + expected.abs().amax()
    if bool(found.isfinite().all()) and not bool(((found - expected).abs() <= GROSS * size).all()):
        raise NotLayerwiseError("a parameter acts elsewhere than in a linear layer")
