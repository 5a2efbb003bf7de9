"""Second derivatives of networks of layers by one sweep forward and one back, without a graph.

Second derivatives are sums over the layers, z = W a + b and a = g(z), of what each bends:

    ∂ᵢⱼy = Σ λ g″(z) ∂ᵢz ∂ⱼz,    λ = ∂y/∂a

First derivatives ∂ᵢz come forward, as in Taylor mode, and λ back, one for each output. Products
with the weights are d + 1 + k for d inputs and k outputs, where Taylor mode has 1 + d + d (d + 1)/2
and reverse mode twice 2 d + 2. Forward through the first layer go no products with the derivatives
at all: they are those of W, and W₂ (g′ ∂ᵢz) is a product with g′ alone.

Reference: Bishop, Exact calculation of the Hessian matrix for the multilayer perceptron, Neural
Computation 4 (1992), for derivatives in weights; this is the same in inputs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arrays.border import quiet
from .activations import ACTIVATIONS, Bend
from .layered import Layer, blocks, library_for, plain


def swept(
    layers: Sequence[Layer], x: Tensor, chosen: Sequence[int], kind: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, Jacobian and second derivatives of a network of layers, of which no graph is made.

    Args:
        layers: of the network.
        x: (s, d).
        chosen: the inputs in which second derivatives are taken, c of them.
        kind: "every" pair, the "diagonal", or its sum, the "trace".

    Returns:
        (s, k), (s, k, d) and (s, k, c, c), (s, k, c) or (s, k).
    """
    widest = max(layer.weight.shape[0] for layer in layers)
    outputs = layers[-1].weight.shape[0]
    each = (len(chosen) + outputs + 1) * widest
    library = library_for(x, each * len(x))
    points = plain(library, x)
    own = [(plain(library, w), plain(library, b), name) for w, b, name in layers]
    sweep = _Sweep(library, own, list(chosen), kind)
    with quiet():
        parts = [sweep.through(points[some]) for some in blocks(library, points, each)]
    if library is not np:
        ((value, jacobian, second),) = parts
        return value, jacobian, second
    whole = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
    value, jacobian, second = map(torch.from_numpy, whole)
    return value, jacobian, second


class _Sweep:
    """One block of samples after the other."""

    def __init__(self, library: Any, layers: Any, chosen: list[int], kind: str) -> None:
        self.library, self.layers, self.chosen, self.kind = library, layers, chosen, kind
        self.slopes = layers[0][0][:, chosen]  # (h, c), of the first layer
        self.second: Any = None  # (h, c · out): the second layer behind them

    def through(self, x: Any) -> tuple[Any, Any, Any]:
        """Value, Jacobian and second derivatives of some samples."""
        library = self.library
        a = x
        bends: list[Bend | None] = []
        tangents: list[Any] = []
        tangent: Any = None  # ∂z, (s, c, h); of the first layer as it is for all samples
        for place, (weight, bias, name) in enumerate(self.layers):
            z = a @ weight.T
            if bias is not None:
                z += bias
            if place:
                tangent = self._onward(place, tangent, bends[-1], len(x))
            bend = ACTIVATIONS[name](library, z) if name else None
            a = z if bend is None else bend.value
            bends.append(bend)
            tangents.append(tangent)
        adjoint: Any = None  # λ, (k, s, h); None: a one for each output
        second: Any = None
        for place in reversed(range(len(self.layers))):
            weight, bend = self.layers[place][0], bends[place]
            if bend is not None:
                if adjoint is None:
                    adjoint = self._unit(weight)
                part = self._curvature(adjoint * bend.curvature, tangents[place], place)
                second = part if second is None else second + part
                adjoint = adjoint * bend.slope
            if adjoint is None:
                adjoint = weight[:, None]
            elif adjoint.shape[1] == 1:
                adjoint = adjoint @ weight
            else:
                flat = adjoint.reshape(-1, weight.shape[0]) @ weight
                adjoint = flat.reshape(len(adjoint), -1, weight.shape[1])
        return a, adjoint.swapaxes(0, 1), second.swapaxes(0, 1)

    def _unit(self, weight: Any) -> Any:
        k = len(weight)
        if self.library is np:
            return np.eye(k, dtype=weight.dtype)[:, None]
        return torch.eye(k, dtype=weight.dtype, device=weight.device)[:, None]

    def _onward(self, place: int, tangent: Any, bend: Bend | None, count: int) -> Any:
        """∂z of a layer from that of the one before."""
        weight, c = self.layers[place][0], len(self.chosen)
        if tangent is None:  # the first layer is before
            if bend is None:
                made = (weight @ self.slopes).T[None]
                return self.library.broadcast_to(made, (count, *made.shape[1:]))
            if count < len(weight):
                flat = (self.slopes.T * bend.slope[:, None]).reshape(-1, len(self.slopes))
                return (flat @ weight.T).reshape(-1, c, len(weight))
            if self.second is None:
                products = self.slopes[:, :, None] * weight.T[:, None]
                self.second = products.reshape(len(self.slopes), -1)
            return (bend.slope @ self.second).reshape(-1, c, len(weight))
        if bend is not None:
            tangent = tangent * bend.slope[:, None]
        flat = tangent.reshape(-1, tangent.shape[2]) @ weight.T
        return flat.reshape(-1, c, len(weight))

    def _curvature(self, weights: Any, tangent: Any, place: int) -> Any:
        """Σ w ∂ᵢz ∂ⱼz over the outputs of a layer, for weights (k, s, h)."""
        if place == 0:
            slopes = self.slopes
            if self.kind == "every":
                pairs = (slopes[:, :, None] * slopes[:, None]).reshape(len(slopes), -1)
                c = len(self.chosen)
                return (weights @ pairs).reshape(len(weights), -1, c, c)
            squares = slopes * slopes
            return weights @ (squares.sum(1) if self.kind == "trace" else squares)
        if self.kind == "every":
            turned = tangent.swapaxes(1, 2)
            return self.library.stack([(w[:, None] * tangent) @ turned for w in weights])
        if self.kind == "diagonal":
            squares = tangent * tangent
            return (squares @ weights[..., None])[..., 0]
        squares = tangent[:, 0] * tangent[:, 0]
        for i in range(1, tangent.shape[1]):
            squares += tangent[:, i] * tangent[:, i]
        return (squares * weights).sum(-1)
