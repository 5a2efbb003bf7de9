"""The chain rule of elementwise operators, y = g(z): ∂ᵢy = g′ ∂ᵢz, ∂ᵢⱼy = g′ ∂ᵢⱼz + g″ ∂ᵢz ∂ⱼz."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .jets import Jet, NoRuleError, Setting

Rule = Callable[..., Any]
_times_slope_of_tanh = torch.ops.aten.tanh_backward.default  # (g, t) -> g (1 − t²)


class Slopes(NamedTuple):
    """The value of an elementwise function at z, with its derivatives."""

    value: Tensor  # g(z)
    slope: Tensor  # g′(z)
    curvature: Callable[[], Tensor] | None  # computes g″(z), or g″/g′; None: it is zero
    relative: bool = False  # whether `curvature` is g″/g′


def chain(setting: Setting, z: Jet, slopes: Slopes) -> Jet:
    """The jet of g(z): ∂ᵢy = g′ ∂ᵢz and ∂ᵢⱼy = g′ ∂ᵢⱼz + g″ ∂ᵢz ∂ⱼz."""
    value, slope, curvature, relative = slopes
    first = slope * z.first
    if setting.pairing is None:
        return Jet(value, first)
    if curvature is None:
        return Jet(value, first, None if z.second is None else slope * z.second)
    bend, pairs = curvature(), setting.pairing(z.first, z.first, torch.mul)
    if relative:  # g′ (∂ᵢⱼz + g″/g′ ∂ᵢz ∂ⱼz)
        return Jet(
            value,
            first,
            slope * (bend * pairs if z.second is None else torch.addcmul(z.second, bend, pairs)),
        )
    return Jet(
        value,
        first,
        bend * pairs if z.second is None else torch.addcmul(slope * z.second, bend, pairs),
    )


def elementwise(slopes: Callable[[Tensor], Slopes]) -> Rule:
    """Make the rule of a function from its slopes at z."""

    def rule(setting: Setting, func: Callable[..., Tensor], z: Jet) -> Jet:
        return chain(setting, z, slopes(z.value))

    return rule


def by_autograd(
    setting: Setting, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any
) -> Jet:
    """The rule of a function that torch differentiates: g′ is the gradient of the sum of g."""
    if (
        kwargs.get("inplace")
        or not isinstance(z, Jet)
        or any(isinstance(a, Jet) for a in (*args, *kwargs.values()))
    ):
        raise NoRuleError(f"{func.__name__} in place, or of several variables")

    def slope(value: Tensor) -> tuple[Tensor, Tensor]:
        result, pullback = torch.func.vjp(lambda v: func(v, *args, **kwargs), value)[:2]
        return pullback(torch.ones_like(result))[0], result

    if setting.pairing is None:
        first, value = slope(z.value)
        return chain(setting, z, Slopes(value, first, None))
    # torch declares the result as a pair, and with has_aux it is three
    first, pullback, value = torch.func.vjp(slope, z.value, has_aux=True)  # type: ignore[misc]
    return chain(setting, z, Slopes(value, first, lambda: pullback(torch.ones_like(first))[0]))


def tanh(setting: Setting, func: Callable[..., Tensor], z: Jet) -> Jet:
    """t = tanh z with g′ = 1 − t² and g″ = −2t (1 − t²)."""
    t = torch.tanh(z.value)
    # torch has a kernel for g (1 − t²), but differentiating it costs more than the parts do
    if not setting.fresh:
        return chain(setting, z, Slopes(t, 1 - t * t, lambda: -2 * t, relative=True))
    first = _times_slope_of_tanh(z.first, t)
    if setting.pairing is None:
        return Jet(t, first)
    pairs = setting.pairing(z.first, z.first, torch.mul)
    if z.second is None:
        return Jet(t, first, _times_slope_of_tanh(pairs * t * -2, t))
    bent = torch.addcmul(z.second, pairs, t, value=-2)
    return Jet(t, first, _times_slope_of_tanh(bent, t))


def sigmoid(z: Tensor) -> Slopes:
    """The sigmoid s with s′ = s (1 − s) and s″/s′ = 1 − 2s."""
    s = torch.sigmoid(z)
    return Slopes(s, s * (1 - s), lambda: 1 - 2 * s, relative=True)


def silu(setting: Setting, func: Callable[..., Tensor], z: Jet, inplace: bool = False) -> Jet:
    """z s, s the sigmoid, with g′ = s (1 + z (1 − s)) and g″ = s (1 − s) (2 + z (1 − 2s))."""
    if inplace:
        raise NoRuleError("silu in place")
    s = torch.sigmoid(z.value)
    rest = 1 - s
    slope = s * (1 + z.value * rest)
    return chain(
        setting, z, Slopes(z.value * s, slope, lambda: s * rest * (2 + z.value * (1 - 2 * s)))
    )


def sin(z: Tensor) -> Slopes:
    """sin z with g′ = cos z and g″ = −sin z."""
    s = torch.sin(z)
    return Slopes(s, torch.cos(z), lambda: -s)


def cos(z: Tensor) -> Slopes:
    """cos z with g′ = −sin z and g″ = −cos z."""
    c = torch.cos(z)
    return Slopes(c, -torch.sin(z), lambda: -c)


def exp(z: Tensor) -> Slopes:
    """exp z, which is its own first and second derivative."""
    e = torch.exp(z)
    return Slopes(e, e, lambda: e)


def reciprocal(z: Tensor) -> Slopes:
    """1/z with g′ = −1/z² and g″ = 2/z³."""
    y = 1 / z
    slope = -y * y
    return Slopes(y, slope, lambda: -2 * y * slope)


def power(z: Tensor, p: float) -> Slopes:
    """z^p; p = 1 and p = 2 are treated apart, as 0 · z^(p − 2) would be NaN at zero."""
    if p == 1:
        return Slopes(z, torch.ones_like(z), None)
    if p == 2:
        return Slopes(z * z, 2 * z, lambda: torch.full_like(z, 2.0))
    return Slopes(z**p, p * z ** (p - 1), lambda: p * (p - 1) * z ** (p - 2))


def root(z: Tensor) -> Slopes:
    """√z with derivatives of zero at z = 0, as torch has them for the length of a vector."""
    zero = z == 0
    safe = torch.where(zero, 1.0, z)
    root = safe.sqrt()
    slope = torch.where(zero, 0.0, 0.5 / root)
    return Slopes(torch.where(zero, 0.0, root), slope, lambda: -0.5 * slope / safe)


def powered(setting: Setting, func: Callable[..., Any], z: Any, exponent: Any) -> Jet:
    """The rule of z to the power of a number."""
    if not isinstance(z, Jet) or not isinstance(exponent, int | float) or exponent == 0:
        raise NoRuleError("a power whose exponent is no number, or zero")
    return chain(setting, z, power(z.value, exponent))
