"""Rows of the Jacobian in the weights of linear layers, a block for each parameter: outer products, as `LayerWise`.

A row in the weight of z = W a + b is g aᵀ with g the gradient of one output in z, and g itself in b. Here the
products of all outputs of a sample are one operation, straight into the block that is returned.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .._autodiff import Params, random_weights
from ..jacobians.layerwise import NotLayerwiseError, Recorder, hold

FIRST = 4  # samples whose rows are held against autograd's


def blocks_of_layers(function: Callable[[Params], Tensor], params: Params) -> list[Tensor]:
    """Rows in each parameter, not recorded.

    Args:
        function: the tensors of the parameters to outputs (s, k), samples first.
        params: of weights and biases.

    Returns:
        Blocks (s, k, *param.shape).

    Raises:
        NotLayerwiseError: a parameter is something else than the weight or bias of linear layers.
    """
    twins = tuple(p.detach().requires_grad_() for p in params)
    with torch.enable_grad(), Recorder(twins) as recorder:
        outputs = function(twins)
        columns = outputs.unbind(1)
    layers = recorder.layers
    if any(layer.input.ndim < 2 or layer.input.shape[0] != len(outputs) for layer in layers):
        raise NotLayerwiseError("a linear layer without the samples in its first dimension")
    if {place for layer in layers for place in (layer.weight, layer.bias)} - {-1} != set(
        range(len(params))
    ):
        raise NotLayerwiseError("a parameter beside the linear layers")
    if recorder.elsewhere:
        raise NotLayerwiseError("a parameter acts elsewhere than in a linear layer")
    made = [layer.output for layer in layers]
    ones = torch.ones_like(outputs[:, 0])
    found = [
        torch.autograd.grad(y, made, ones, retain_graph=True, materialize_grads=True)
        for y in columns
    ]
    gradients = [
        torch.stack(of_layer, 1) for of_layer in zip(*found, strict=True)
    ]  # (s, k, ..., out) each
    blocks = []
    for place, param in enumerate(params):
        uses = [
            (g, layer.input)
            for layer, g in zip(layers, gradients, strict=True)
            if place in (layer.weight, layer.bias)
        ]
        blocks.append(_bias(uses) if param.ndim == 1 else _weight(uses))
    _check(blocks, outputs, twins)
    return blocks


def _bias(uses: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    total, *more = [g if g.ndim == 3 else g.flatten(2, -2).sum(2) for g, _ in uses]
    for g in more:
        total = total + g
    return total


def _weight(uses: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    g, a = uses[0]
    if len(uses) == 1 and a.ndim == 2:
        return g[..., None] * a[:, None, None, :]
    g, a = (
        torch.cat(
            [part.unsqueeze(d) if part.ndim == d + 1 else part.flatten(d, -2) for part in parts], d
        )
        for d, parts in ((2, [g for g, _ in uses]), (1, [a for _, a in uses]))
    )  # (s, k, t, out), (s, t, in)
    return g.mT @ a[:, None]  # Σ_t g aᵀ


def _check(blocks: Sequence[Tensor], outputs: Tensor, twins: Params) -> None:
    """A sum of some rows is what autograd knows it to be, whatever the parameters are used for."""
    weights = random_weights(outputs.detach()[:FIRST])
    direction = torch.zeros_like(outputs)
    direction[:FIRST] = weights
    gradients = torch.autograd.grad(outputs, twins, direction, materialize_grads=True)
    rows = torch.cat([block[:FIRST].flatten(0, 1).flatten(1) for block in blocks], 1)
    hold(
        rows.detach(),
        weights.reshape(-1),
        torch.cat([g.reshape(-1) for g in gradients]),
        torch.finfo(rows.dtype).eps,
    )
