"""Elementwise functions with their derivatives: y = g(z), g′(z), and g″(z) if it is asked for.

What torch takes for a derivative where there is none (a kink, the end of a domain) is taken here.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import faddeeva
from .base import Multivariate, NoRuleError, Slopes


def sin(z: Tensor) -> Slopes:
    """sin z with g′ = cos z and g″ = −sin z."""
    s = torch.sin(z)
    return Slopes(s, torch.cos(z), lambda: -s)


def cos(z: Tensor) -> Slopes:
    """cos z with g′ = −sin z and g″ = −cos z."""
    c = torch.cos(z)
    return Slopes(c, -torch.sin(z), lambda: -c)


def tan(z: Tensor) -> Slopes:
    """t = tan z with g′ = 1 + t² and g″/g′ = 2t."""
    t = torch.tan(z)
    return Slopes(t, 1 + t * t, lambda: 2 * t, relative=True)


def asin(z: Tensor) -> Slopes:
    """asin z with g′ = (1 − z²)^−½ and g″/g′ = z/(1 − z²)."""
    rest = 1 - z * z
    return Slopes(torch.asin(z), rest.rsqrt(), lambda: z / rest, relative=True)


def acos(z: Tensor) -> Slopes:
    """acos z with g′ = −(1 − z²)^−½ and g″/g′ = z/(1 − z²)."""
    rest = 1 - z * z
    return Slopes(torch.acos(z), -rest.rsqrt(), lambda: z / rest, relative=True)


def atan(z: Tensor) -> Slopes:
    """atan z with g′ = 1/(1 + z²) and g″/g′ = −2z/(1 + z²)."""
    slope = 1 / (1 + z * z)
    return Slopes(torch.atan(z), slope, lambda: -2 * z * slope, relative=True)


def sinh(z: Tensor) -> Slopes:
    """sinh z with g′ = cosh z and g″ = sinh z."""
    s = torch.sinh(z)
    return Slopes(s, torch.cosh(z), lambda: s)


def cosh(z: Tensor) -> Slopes:
    """cosh z with g′ = sinh z and g″ = cosh z."""
    c = torch.cosh(z)
    return Slopes(c, torch.sinh(z), lambda: c)


def tanh(z: Tensor) -> Slopes:
    """t = tanh z with g′ = 1 − t² and g″/g′ = −2t."""
    t = torch.tanh(z)
    return Slopes(t, 1 - t * t, lambda: -2 * t, relative=True)


def asinh(z: Tensor) -> Slopes:
    """asinh z with g′ = (z² + 1)^−½ and g″/g′ = −z/(z² + 1)."""
    rest = z * z + 1
    return Slopes(torch.asinh(z), rest.rsqrt(), lambda: -z / rest, relative=True)


def acosh(z: Tensor) -> Slopes:
    """acosh z with g′ = (z² − 1)^−½ and g″/g′ = −z/(z² − 1)."""
    rest = z * z - 1
    return Slopes(torch.acosh(z), rest.rsqrt(), lambda: -z / rest, relative=True)


def atanh(z: Tensor) -> Slopes:
    """atanh z with g′ = 1/(1 − z²) and g″/g′ = 2z/(1 − z²)."""
    slope = 1 / (1 - z * z)
    return Slopes(torch.atanh(z), slope, lambda: 2 * z * slope, relative=True)


def exp(z: Tensor) -> Slopes:
    """exp z, which is its own first and second derivative."""
    e = torch.exp(z)
    return Slopes(e, e, lambda: e)


def exp2(z: Tensor) -> Slopes:
    """2^z with g′ = ln 2 · 2^z and g″ = ln² 2 · 2^z."""
    e = torch.exp2(z)
    slope = e * math.log(2)
    return Slopes(e, slope, lambda: slope * math.log(2))


def expm1(z: Tensor) -> Slopes:
    """exp(z) − 1 with g′ = g″ = exp z, from the value, as torch has it."""
    e = torch.expm1(z)
    slope = e + 1
    return Slopes(e, slope, lambda: slope)


def log(z: Tensor) -> Slopes:
    """log z with g′ = 1/z and g″ = −1/z²."""
    slope = 1 / z
    return Slopes(torch.log(z), slope, lambda: -slope * slope)


def logarithm(of: Callable[[Tensor], Tensor], base: float) -> Callable[[Tensor], Slopes]:
    """The logarithm to another base, log z / log base."""

    def slopes(z: Tensor) -> Slopes:
        slope = 1 / (z * math.log(base))
        return Slopes(of(z), slope, lambda: -slope / z)

    return slopes


def log1p(z: Tensor) -> Slopes:
    """log(1 + z) with g′ = 1/(1 + z) and g″ = −1/(1 + z)²."""
    slope = 1 / (z + 1)
    return Slopes(torch.log1p(z), slope, lambda: -slope * slope)


def sqrt(z: Tensor) -> Slopes:
    """y = √z with g′ = 1/(2y) and g″ = −g′/(2z)."""
    y = torch.sqrt(z)
    slope = 0.5 / y
    return Slopes(y, slope, lambda: -0.5 * slope / z)


def rsqrt(z: Tensor) -> Slopes:
    """y = 1/√z with g′ = −y³/2 and g″/g′ = −3/(2z)."""
    y = torch.rsqrt(z)
    return Slopes(y, -0.5 * y * y * y, lambda: -1.5 / z, relative=True)


def absolute(z: Tensor) -> Slopes:
    """|z| with g′ = sign z, zero at zero, and g″ = 0."""
    if z.is_complex():
        raise NoRuleError("the modulus of complex numbers")
    return Slopes(torch.abs(z), torch.sign(z), None)


def relu(z: Tensor, inplace: bool = False) -> Slopes:
    """max(z, 0) with g′ = 1 where z > 0."""
    if inplace:
        raise NoRuleError("relu in place")
    return Slopes(torch.relu(z), (z > 0).to(z.dtype), None)


def leaky_relu(z: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Slopes:
    """max(z, 0) + s min(z, 0) with g′ = 1 where z > 0, elsewhere s."""
    if inplace:
        raise NoRuleError("leaky_relu in place")
    slope = torch.where(z > 0, torch.ones_like(z), negative_slope)
    return Slopes(torch.nn.functional.leaky_relu(z, negative_slope), slope, None)


def hardsigmoid(z: Tensor, inplace: bool = False) -> Slopes:
    """The line z/6 + 1/2 between 0 and 1. Torch's own has no second derivative, not even zero."""
    if inplace:
        raise NoRuleError("hardsigmoid in place")
    slope = ((z > -3) & (z < 3)).to(z.dtype) / 6
    return Slopes((z / 6 + 0.5).clamp(0, 1), slope, None)


def sinc(z: Tensor) -> Slopes:
    """sin πz / πz. Near zero by its series: the quotients lose all digits there, and torch NaN."""
    near = z.abs() < 0.25
    u = (torch.pi * torch.where(near, z, 0.0)) ** 2
    rising, bent = torch.zeros_like(z), torch.zeros_like(z)
    for k in range(9, 0, -1):  # Σ (−u)ᵏ / (2k + 1)!, differentiated; the next term is below 1e-20
        term = (-1) ** k * 2 * k / math.factorial(2 * k + 1)
        rising, bent = rising * u + term, bent * u + term * (2 * k - 1)
    far = torch.where(near, 1.0, z)
    value = torch.sinc(far)
    slope = (torch.cos(torch.pi * far) - value) / far
    curvature = -(torch.pi**2) * value - 2 * slope / far
    return Slopes(
        torch.where(near, _even(u), value),
        torch.where(near, torch.pi**2 * z * rising, slope),
        lambda: torch.where(near, torch.pi**2 * bent, curvature),
    )


def _even(u: Tensor) -> Tensor:
    """sin √u / √u for small u."""
    total = torch.zeros_like(u)
    for k in range(9, -1, -1):
        total = total * u + (-1) ** k / math.factorial(2 * k + 1)
    return total


def erf(z: Tensor) -> Slopes:
    """erf z with g′ = 2/√π exp(−z²) and g″/g′ = −2z."""
    slope = torch.exp(-z * z) * (2 / math.sqrt(math.pi))
    return Slopes(torch.erf(z), slope, lambda: -2 * z, relative=True)


def erfc(z: Tensor) -> Slopes:
    """erfc z with g′ = −2/√π exp(−z²) and g″/g′ = −2z."""
    slope = torch.exp(-z * z) * (-2 / math.sqrt(math.pi))
    return Slopes(torch.erfc(z), slope, lambda: -2 * z, relative=True)


def erfcx(z: Tensor) -> Slopes:
    """y = erfcx z with g′ = 2zy − 2/√π and g″ = 2y + 2zg′; a series in 1/z² where these cancel."""
    y = torch.special.erfcx(z)
    far = z > 20
    square = torch.where(far, z, 20.0).square().reciprocal()
    front = square * (-1 / math.sqrt(math.pi))
    # Abramowitz & Stegun 7.1.23, differentiated: Σ (−1)ⁿ (2n + 1)!! / (2z²)ⁿ
    series = torch.ones_like(z)
    for n in range(6, -1, -1):
        series = 1 - (n + 1.5) * square * series
    slope = torch.where(far, front * series, 2 * z * y - 2 / math.sqrt(math.pi))
    return Slopes(y, slope, lambda: 2 * (y + z * slope))


def sigmoid(z: Tensor) -> Slopes:
    """The sigmoid s with s′ = s (1 − s) and s″/s′ = 1 − 2s."""
    s = torch.sigmoid(z)
    return Slopes(s, s * (1 - s), lambda: 1 - 2 * s, relative=True)


def log_sigmoid(z: Tensor) -> Slopes:
    """The logarithm of the sigmoid with g′ = s(−z) and g″ = −s(z) s(−z)."""
    slope = torch.sigmoid(-z)
    return Slopes(torch.nn.functional.logsigmoid(z), slope, lambda: slope * (slope - 1))


def silu(z: Tensor, inplace: bool = False) -> Slopes:
    """z s, s the sigmoid, with g′ = s (1 + z (1 − s)) and g″ = s (1 − s) (2 + z (1 − 2s))."""
    if inplace:
        raise NoRuleError("silu in place")
    s = torch.sigmoid(z)
    rest = 1 - s
    return Slopes(z * s, s * (1 + z * rest), lambda: s * rest * (2 + z * (1 - 2 * s)))


def reciprocal(z: Tensor) -> Slopes:
    """1/z with g′ = −1/z² and g″ = 2/z³."""
    y = torch.reciprocal(z)
    slope = -y * y
    return Slopes(y, slope, lambda: -2 * y * slope)


def square(z: Tensor) -> Slopes:
    """z² with g′ = 2z and g″ = 2."""
    return Slopes(z * z, z + z, lambda: torch.full_like(z, 2.0))


def power(z: Tensor, p: float) -> Slopes:
    """z^p; p = 1 and p = 2 are treated apart, as 0 · z^(p − 2) would be NaN at zero."""
    if p == 1:
        return Slopes(z, torch.ones_like(z), None)
    if p == 2:
        return square(z)
    return Slopes(z**p, p * z ** (p - 1), lambda: p * (p - 1) * z ** (p - 2))


def raised(base: Any, z: Tensor) -> Slopes:
    """base^z with g′ = log(base) base^z, zero where base = 0 ≤ z, and g″ = log²(base) base^z."""
    if not isinstance(base, Tensor):
        value = torch.pow(base, z)
        rate = torch.full_like(z, base).log()
    else:
        value, rate = torch.pow(base, z), base.log()
    none = (base == 0) & (z >= 0)
    slope = torch.where(none, 0.0, value * rate)
    return Slopes(value, slope, lambda: torch.where(none, 0.0, slope * rate))


def root(z: Tensor) -> Slopes:
    """√z for the length of a vector: at z = 0 a slope of zero, as torch has it, and then NaN."""
    # the length squared has a second derivative there, but the chain rule through a slope of zero
    # does not give it: NaN is what a backward pass of a backward pass makes of it
    zero = z == 0
    safe = torch.where(zero, 1.0, z)
    root = safe.sqrt()
    slope = torch.where(zero, 0.0, 0.5 / root)
    return Slopes(
        torch.where(zero, 0.0, root),
        slope,
        lambda: torch.where(zero, torch.nan, -0.5 * slope / safe),
    )


# ---- of several variables ------------------------------------------------------------------------


def pow_of_both(a: Tensor, b: Tensor) -> Multivariate:
    """a^b with g_a = b a^(b − 1) and g_b = log(a) a^b, each zero where torch has it so."""
    value = torch.pow(a, b)
    down = torch.where(b == 0, 0.0, b * a ** (b - 1))
    rate = torch.where((a == 0) & (b >= 0), 0.0, a.log())
    up = torch.where((a == 0) & (b >= 0), 0.0, value * rate)

    def curvatures() -> tuple[Tensor, Tensor, Tensor]:
        return b * (b - 1) * a ** (b - 2), a ** (b - 1) * (1 + b * rate), up * rate

    return Multivariate(value, (down, up), curvatures)


def atan2(a: Tensor, b: Tensor) -> Multivariate:
    """The angle of (b, a) with g_a = b/(a² + b²) and g_b = −a/(a² + b²), zero at the origin."""
    square = a * a + b * b
    inverse = torch.where(square == 0, 0.0, 1 / square)
    of_a, of_b = b * inverse, -a * inverse

    def curvatures() -> tuple[Tensor, Tensor, Tensor]:
        both = 2 * of_a * of_b
        return both, (a * a - b * b) * inverse * inverse, -both

    return Multivariate(torch.atan2(a, b), (of_a, of_b), curvatures)


def hypot(a: Tensor, b: Tensor) -> Multivariate:
    """h = √(a² + b²) with g_a = a/h and g_b = b/h."""
    h = torch.hypot(a, b)
    of_a, of_b = a / h, b / h

    def curvatures() -> tuple[Tensor, Tensor, Tensor]:
        return of_b * of_b / h, -of_a * of_b / h, of_a * of_a / h

    return Multivariate(h, (of_a, of_b), curvatures)


def logaddexp(a: Tensor, b: Tensor) -> Multivariate:
    """log(eᵃ + eᵇ) with g_a = s, the sigmoid of a − b, and g_b = 1 − s."""
    share = torch.sigmoid(a - b)
    rest = torch.sigmoid(b - a)

    def curvatures() -> tuple[Tensor, Tensor, Tensor]:
        bend = share * rest
        return bend, -bend, bend

    return Multivariate(torch.logaddexp(a, b), (share, rest), curvatures)


def voigt_profile(x: Tensor, sigma: Tensor, gamma: Tensor) -> Multivariate:
    """V = Re W of `faddeeva.py`, with V_x = Re W′, V_σ = σ Re W″ and V_γ = −Im W′."""
    width = math.sqrt(2) * sigma.abs()
    (value, _), (across, along), (bend, _) = faddeeva.profiles(x, gamma, width, 3)

    def curvatures() -> tuple[Tensor, ...]:
        found = faddeeva.profiles(x, gamma, width, 5)
        (_, _), (_, _), (second, other), (third, turned), (fourth, _) = found
        return (
            second,
            sigma * third,
            -other,
            second + sigma * sigma * fourth,
            -sigma * turned,
            -second,
        )

    return Multivariate(value, (across, sigma * bend, -along), curvatures)
