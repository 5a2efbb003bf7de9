"""Activations of networks with three derivatives, on tensors and on NumPy's arrays.

The third is what a backward pass through second derivatives needs. What is not here has its first
two in `slopes.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

LARGE = 512  # numbers from which on torch's functions of float64 are the quicker ones on a CPU


class Bend(NamedTuple):
    """An elementwise function at z with its first two derivatives."""

    value: Any  # g(z)
    slope: Any  # g′(z)
    curvature: Any  # g″(z)
    third: Callable[[], Any]  # computes g‴(z)


Activation = Callable[[Any, Any], Bend]  # of `torch` or `numpy`, and z


def _of(library: Any, name: str, z: Any) -> Any:
    """An elementary function, by whichever library computes it sooner."""
    # in float64 and of arrays of some size NumPy takes two to three times as long as torch, whose
    # functions are vectorized (NumPy 2.4 and torch 2.13 on a processor without AVX-512)
    if library is np and z.size >= LARGE and z.dtype == np.float64:
        return getattr(torch, name)(torch.from_numpy(z)).numpy()
    return getattr(library, name)(z)


def tanh(library: Any, z: Any) -> Bend:
    """t = tanh z with g′ = 1 − t², g″ = −2t g′ and g‴ = g′ (4 − 6g′)."""
    t = _of(library, "tanh", z)
    slope = 1 - t * t
    curvature = t * slope
    curvature *= -2
    return Bend(t, slope, curvature, lambda: slope * (4 - 6 * slope))


def sin(library: Any, z: Any) -> Bend:
    """sin z with g′ = cos z, g″ = −sin z and g‴ = −cos z."""
    s, c = _of(library, "sin", z), _of(library, "cos", z)
    return Bend(s, c, -s, lambda: -c)


def cos(library: Any, z: Any) -> Bend:
    """cos z with g′ = −sin z, g″ = −cos z and g‴ = sin z."""
    c, s = library.cos(z), library.sin(z)
    return Bend(c, -s, -c, lambda: s)


def sigmoid(library: Any, z: Any) -> Bend:
    """s = 1 / (1 + e⁻ᶻ) with g′ = s (1 − s), g″ = g′ (1 − 2s) and g‴ = g′ (1 − 6g′)."""
    s = 1 / (1 + _of(library, "exp", -z))
    slope = s * (1 - s)
    return Bend(s, slope, slope * (1 - 2 * s), lambda: slope * (1 - 6 * slope))


def silu(library: Any, z: Any) -> Bend:
    """z s with the sigmoid s: by the rule of products, g⁽ⁿ⁾ = n s⁽ⁿ⁻¹⁾ + z s⁽ⁿ⁾."""
    s, first, second, third = sigmoid(library, z)
    return Bend(z * s, s + z * first, 2 * first + z * second, lambda: 3 * second + z * third())


ACTIVATIONS: dict[str, Activation] = {
    "tanh": tanh,
    "sin": sin,
    "cos": cos,
    "sigmoid": sigmoid,
    "silu": silu,
}
