"""Activations of networks with three derivatives, on tensors and on NumPy's arrays.

The third is what a backward pass through second derivatives needs. What is not here has its first
two in `slopes.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple


class Bend(NamedTuple):
    """An elementwise function at z with its first two derivatives."""

    value: Any  # g(z)
    slope: Any  # g′(z)
    curvature: Any  # g″(z)
    third: Callable[[], Any]  # computes g‴(z)


Activation = Callable[[Any, Any], Bend]  # of `torch` or `numpy`, and z


def tanh(library: Any, z: Any) -> Bend:
    """t = tanh z with g′ = 1 − t², g″ = −2t g′ and g‴ = g′ (4 − 6g′)."""
    t = library.tanh(z)
    slope = 1 - t * t
    curvature = t * slope
    curvature *= -2
    return Bend(t, slope, curvature, lambda: slope * (4 - 6 * slope))


def sin(library: Any, z: Any) -> Bend:
    """sin z with g′ = cos z, g″ = −sin z and g‴ = −cos z."""
    s, c = library.sin(z), library.cos(z)
    return Bend(s, c, -s, lambda: -c)


def cos(library: Any, z: Any) -> Bend:
    """cos z with g′ = −sin z, g″ = −cos z and g‴ = sin z."""
    c, s = library.cos(z), library.sin(z)
    return Bend(c, -s, -c, lambda: s)


def sigmoid(library: Any, z: Any) -> Bend:
    """s = 1 / (1 + e⁻ᶻ) with g′ = s (1 − s), g″ = g′ (1 − 2s) and g‴ = g′ (1 − 6g′)."""
    s = 1 / (1 + library.exp(-z))
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
