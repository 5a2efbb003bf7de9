"""The Faddeeva function w(z) = e^(−z²) erfc(−iz) with its derivatives, and profiles made of it.

    W(ζ, a) = w(ζ/a) / (a√π) = i/π^(3/2) ∫ e^(−t²) / (ζ − a t) dt        for Im ζ > 0

is a Lorentzian of half width Im ζ, convolved with a Gaussian of width a = √2 σ, and its Hilbert
transform. It stays regular at a = 0 and at Im ζ = 0, so that a Voigt profile does not need the
limits one by one. The trapezoidal rule converges for such integrals faster than any power of its
step h, once the residue of the pole at t = ζ/a is added: with 14 nodes, at kh or at (k + ½)h,
whichever are further from the pole, the error is some 1e-15 of |w|, everywhere in the plane. By
parts, the n-th derivative is an integral of the same kind, with t^n H_n(t) e^(−t²) in the place of
e^(−t²); it loses no digits where the recurrence of the derivatives does, at large |z|, and near the
origin the recurrence stands.

Matta & Reichel, Math. Comp. 25 (1971) 339; Al Azah & Chandler-Wilde, SIAM J. Numer. Anal. 59 (2021)
2346, equations (1.8) to (1.11); derivatives: Abramowitz & Stegun (1964), 7.1.20.
"""

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]  # real and imaginary part

NODES = 14
STEP = math.sqrt(math.pi / 14)  # the error of the rule is exp(−π²/STEP²) = exp(−14π) = 8e-20
FAR = math.pi / STEP  # above this imaginary part, and above the diagonal, the residue is nothing
UNDERFLOW = 760.0  # exp(−UNDERFLOW) is zero
FRONT = 2 / math.pi**1.5
POINTS = {"cpu": 2**15}  # that are evaluated at once: each takes NODES numbers a few times
ON_OTHERS = 2**22


@cache
def _tables(orders: int) -> Any:
    """Squares of the nodes (2, K), and weights (K, 2 · orders): nodes (k + ½)h, and kh."""
    nodes = (np.arange(NODES) + np.array([[0.5], [0.0]])) * STEP
    found = []
    for n in range(orders):
        hermite = np.polynomial.hermite.hermval(nodes, [0] * n + [1])
        weights = STEP * np.exp(-(nodes**2)) * nodes**n * hermite
        weights[1, 0] /= 2  # the node at zero is its own mirror image
        found.append(weights)
    return nodes**2, np.concatenate(found).T


@cache
def _tensors(orders: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """`_tables` as tensors."""
    squares, weights = _tables(orders)
    return (
        torch.tensor(squares, dtype=dtype, device=device),
        torch.tensor(np.ascontiguousarray(weights), dtype=dtype, device=device),
    )


def _times(a: Pair, b: Pair) -> Pair:
    """The product of complex numbers."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def profiles(x: Tensor, y: Tensor, width: Tensor, orders: int) -> list[Pair]:
    """Real and imaginary part of W and of its derivatives in ζ = x + iy, up to `orders` − 1.

    Args:
        x: real part.
        y: imaginary part; below the real axis the function is continued, and grows as e^(y²).
        width: a, of either sign, which says nothing. The three broadcast, in one real dtype.
        orders: how many derivatives, with the function itself.

    Returns:
        For each order a pair of tensors in the shape of all.
    """
    x, y, width = torch.broadcast_tensors(x, y, width)
    at_once = POINTS.get(x.device.type, ON_OTHERS)
    if x.numel() <= at_once:
        return _profiles(x, y, width, orders)
    pieces = (t.reshape(-1).split(at_once) for t in (x, y, width))
    parts = [_profiles(a, b, c, orders) for a, b, c in zip(*pieces, strict=True)]
    return [
        (
            torch.cat([part[n][0] for part in parts]).reshape(x.shape),
            torch.cat([part[n][1] for part in parts]).reshape(x.shape),
        )
        for n in range(orders)
    ]


def _profiles(x: Tensor, y: Tensor, width: Tensor, orders: int) -> list[Pair]:
    """`profiles` of tensors of one shape."""
    # squares of squares neither overflow nor vanish in these units
    unit = torch.maximum(torch.maximum(x.detach().abs(), y.detach().abs()), width.detach().abs())
    shrink = 1 / torch.where(unit > 0, unit, 1.0)
    positive = width != 0
    safe = torch.where(positive, width.abs(), 1.0)
    scale = 1 / safe
    real, imag = x / safe, y / safe
    near = real.detach() * (1 / STEP)
    near = near - near.floor()
    trapezoid = (near > 0.25) & (near < 0.75)  # the nodes kh are further from the pole
    sums = _sums((x * shrink, y * shrink), width * shrink, trapezoid, orders)
    poles = _residues(real, imag, positive, trapezoid, orders)
    inside = positive & (real * real + imag * imag < 1)  # |z| < 1
    found: list[Pair] = []
    factor, of_pole = shrink, scale * (1 / math.sqrt(math.pi))
    for n in range(orders):
        value = [factor * sums[n][i] + of_pole * poles[n][i] for i in (0, 1)]
        if n > 1:
            turned, rate = _times((x, y), found[n - 1]), -2 * scale * scale
            again = [rate * (turned[i] + (n - 1) * found[n - 2][i]) for i in (0, 1)]
            value = [torch.where(inside, again[i], value[i]) for i in (0, 1)]
        found.append((value[0], value[1]))
        factor, of_pole = factor * shrink, of_pole * scale
    return found


def _sums(z: Pair, a: Tensor, trapezoid: Tensor, orders: int) -> list[Pair]:
    """2i (−1)^n / π^(3/2) ζ^(1−n) Σ c t^n H_n(t) / (ζ² − a²t²) for each n."""
    x, y = z
    squares, weights = _tensors(orders, x.dtype, x.device)
    nodes = torch.where(trapezoid.unsqueeze(-1), squares[1], squares[0])
    apart = ((x - y) * (x + y)).unsqueeze(-1) - (a * a).unsqueeze(-1) * nodes
    both = 2 * x * y
    inverse = 1 / (apart * apart + (both * both).unsqueeze(-1))
    plain = torch.matmul(inverse, weights)
    turned = torch.matmul(apart * inverse, weights)
    power: Pair = z
    back = x * x + y * y
    inward = x / back, -y / back  # 1/ζ
    found = []
    for n in range(orders):
        imag = -both * torch.where(trapezoid, plain[..., 2 * n + 1], plain[..., 2 * n])
        real = torch.where(trapezoid, turned[..., 2 * n + 1], turned[..., 2 * n])
        if n != 1:
            real, imag = _times(power, (real, imag))
        front = FRONT if n % 2 == 0 else -FRONT
        found.append((-front * imag, front * real))
        power = inward if n == 1 else _times(power, inward) if n > 1 else power
    return found


def _residues(x: Tensor, y: Tensor, positive: Tensor, trapezoid: Tensor, orders: int) -> list[Pair]:
    """Derivatives in z of the residue 2 e^(−z²) / (1 ± e^(−2πiz/h)), the rest held as it is."""
    there = positive & (y < x.abs().clamp(min=FAR)) & ((x - y) * (x + y) < UNDERFLOW)
    x, y = torch.where(there, x, 0.0), torch.where(there, y, 1.0)
    sign = torch.where(trapezoid, -1.0, 1.0).to(x.dtype)
    angle = x * (2 * math.pi / STEP)
    below = y < 0
    height = torch.where(below, -y, y)  # |y|, with a derivative on the real axis
    small = torch.exp(height * (-2 * math.pi / STEP))
    cosine = sign * small * torch.cos(angle)
    denominator = 1 + 2 * cosine + small * small
    lead = torch.where(below, 1.0, small * small)
    share = (lead + cosine) / denominator, sign * small * torch.sin(angle) / denominator
    size = torch.where(there, 2 * torch.exp((y - x) * (y + x)), 0.0)
    turn = -2 * x * y
    imag = torch.where((turn == 0) & (size == math.inf), 0.0, size * torch.sin(turn))
    gauss = size * torch.cos(turn), imag
    found = [_times(gauss, share)]
    for n in range(1, orders):
        turned = _times((x, y), found[n - 1])
        last = found[n - 2] if n > 1 else turned
        found.append(
            (
                -2 * (turned[0] + (n - 1) * last[0]),
                -2 * (turned[1] + (n - 1) * last[1]),
            )
        )
    return found
