"""Curves for `benchmarks.honesty`: models for NumPy or torch, random data, starts and truths."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
# model(module, x, *parameters): one formula for NumPy and torch, the module that is given
Model = Callable[..., Any]
Draw = tuple[Array, Array, Array | None, Array, Array]  # x, y, sigma, start, truth
Rng = np.random.Generator

# the real case, problem 0 of its family
OBSERVED = (2938.0, 7354.0, 11900.0, 17000.0, 47200.0, 79100.0, 119600.0)


def exponential(xp: Any, x: Any, a: Any, b: Any) -> Any:
    """Growth."""
    return a * xp.exp(b * x)


def diode(xp: Any, v: Any, a: Any, n: Any) -> Any:
    """Shockley's current, at a thermal voltage of 25.85 mV."""
    return a * (xp.exp(v / (n * 0.02585)) - 1)


def michaelis_menten(xp: Any, c: Any, v_max: Any, k: Any) -> Any:
    """The rate of an enzyme."""
    return v_max * c / (k + c)


def peak(xp: Any, x: Any, height: Any, center: Any, width: Any) -> Any:
    """A Gaussian."""
    return height * xp.exp(-0.5 * ((x - center) / width) ** 2)


def peak_on_constant(xp: Any, x: Any, height: Any, center: Any, width: Any, constant: Any) -> Any:
    """A Gaussian with a background."""
    return peak(xp, x, height, center, width) + constant


def biexponential(xp: Any, t: Any, a1: Any, k1: Any, a2: Any, k2: Any) -> Any:
    """Two decays."""
    return a1 * xp.exp(-k1 * t) + a2 * xp.exp(-k2 * t)


def hill(xp: Any, c: Any, bottom: Any, top: Any, k: Any, h: Any) -> Any:
    """A dose and its response."""
    return bottom + (top - bottom) / (1 + (k / c) ** h)


def logistic(xp: Any, x: Any, height: Any, rate: Any, middle: Any, base: Any) -> Any:
    """Growth with a limit."""
    return base + height / (1 + xp.exp(-rate * (x - middle)))


# ---- data ----------------------------------------------------------------------------------------


def between(rng: Rng, low: float, high: float) -> float:
    """Uniform in the logarithm."""
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def draw_exponential(rng: Rng, i: int) -> Draw:
    """Growth with 10 % noise, from (1, 1)."""
    x = np.arange(0.0, 61.0, 10.0)
    truth = np.array([between(rng, 500, 5000), rng.uniform(0.02, 0.08)])
    y = exponential(np, x, *truth) * (1 + 0.1 * rng.standard_normal(len(x)))
    if i == 0:
        slope, level = np.polyfit(x, np.log(OBSERVED), 1)
        truth, y = np.array([math.exp(level), slope]), np.array(OBSERVED)
    return x, y, None, np.ones(2), truth


def draw_diode(rng: Rng, i: int, noise: float = 0.02) -> Draw:
    """A diode's characteristic with errors of 2 %, from (1, 1)."""
    v = np.linspace(0.3, 0.75, 30)
    truth = np.array([between(rng, 1e-16, 1e-12), rng.uniform(1, 2)])
    current = diode(np, v, *truth)
    return v, current * (1 + noise * rng.standard_normal(30)), 0.02 * current, np.ones(2), truth


def draw_noiseless_diode(rng: Rng, i: int) -> Draw:
    """The same without noise."""
    return draw_diode(rng, i, 0.0)


def draw_michaelis_menten(rng: Rng, i: int) -> Draw:
    """Rates at the concentrations of Puromycin's data, 5 % noise, from (1, 1)."""
    c = np.repeat([0.02, 0.06, 0.11, 0.22, 0.56, 1.10], 2)
    truth = np.array([rng.uniform(50, 300), between(rng, 0.02, 1)])
    y = michaelis_menten(np, c, *truth) * (1 + 0.05 * rng.standard_normal(12))
    return c, y, None, np.ones(2), truth


def draw_counts(rng: Rng, i: int) -> Draw:
    """Counts in a peak with sigma = √N + 1e-6: bins without counts have a millionth."""
    x = np.arange(100.0)
    truth = np.array([between(rng, 20, 2000), rng.uniform(35, 65), rng.uniform(4, 12)])
    counts = rng.poisson(peak(np, x, *truth)).astype(float)
    start = truth * [between(rng, 0.5, 2), 1, between(rng, 0.5, 2)] + [
        0,
        rng.uniform(-1, 1) * truth[2],
        0,
    ]
    return x, counts, np.sqrt(counts) + 1e-6, start, truth


def draw_off_by_ten(rng: Rng, i: int) -> Draw:
    """A peak on a constant; by turns width or height start ten times too large or too small."""
    x, y, _, _, truth = draw_peak_on_constant(rng, i)
    start = truth.copy()
    start[(2, 2, 0, 0)[i % 4]] *= (10, 0.1, 10, 0.1)[i % 4]
    return x, y, None, start, truth


def draw_peak_on_constant(rng: Rng, i: int) -> Draw:
    """A peak on a constant, 2 % noise."""
    x = np.arange(100.0)
    height = between(rng, 1, 1000)
    truth = np.array(
        [height, rng.uniform(30, 70), rng.uniform(4, 12), height * rng.uniform(0.05, 0.5)]
    )
    return (
        x,
        peak_on_constant(np, x, *truth) + 0.02 * height * rng.standard_normal(100),
        None,
        truth,
        truth,
    )


def draw_biexponential(rng: Rng, i: int) -> Draw:
    """Two decays with 1 % noise, each parameter within a factor of 2."""
    t = np.linspace(0, 5, 60)
    slow = between(rng, 0.2, 1)
    truth = np.array([between(rng, 1, 10), slow * rng.uniform(3, 10), between(rng, 1, 10), slow])
    y = biexponential(np, t, *truth)
    return (
        t,
        y + 0.01 * y[0] * rng.standard_normal(60),
        None,
        truth * [between(rng, 0.5, 2) for _ in truth],
        truth,
    )


def draw_equal_decays(rng: Rng, i: int) -> Draw:
    """Two decays from four ones, which is a saddle."""
    x, y, sigma, _, truth = draw_biexponential(rng, i)
    return x, y, sigma, np.ones(4), truth


def draw_hill(rng: Rng, i: int) -> Draw:
    """A dose-response curve in triplicate, with 3 % noise.

    The start is made of the extremes of the data, the middle dose and 1.
    """
    c = np.repeat(np.logspace(-3, 2, 11), 3)
    top = between(rng, 1, 1000)
    truth = np.array([top * rng.uniform(0, 0.3), top, between(rng, 0.01, 10), rng.uniform(0.5, 3)])
    y = hill(np, c, *truth) + 0.03 * top * rng.standard_normal(33)
    return c, y, None, np.array([y.min(), y.max(), 10**-0.5, 1.0]), truth


def draw_logistic(rng: Rng, i: int) -> Draw:
    """Logistic growth, 2 % noise, from four ones."""
    x = np.linspace(0, 20, 40)
    height = between(rng, 1, 100)
    truth = np.array(
        [height, between(rng, 0.3, 3), rng.uniform(5, 15), height * rng.uniform(-1, 1)]
    )
    return (
        x,
        logistic(np, x, *truth) + 0.02 * height * rng.standard_normal(40),
        None,
        np.ones(4),
        truth,
    )


# ---- families ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A model, its random data, and the words for its row."""

    row: str
    model: Model
    draw: Callable[[Rng, int], Draw]
    seed: int
    factor: float | None = None  # starts anew, each parameter of the truth off by up to this factor


BASES = {
    "michaelis": Family("Michaelis–Menten", michaelis_menten, draw_michaelis_menten, 3),
    "biexponential": Family("biexponential", biexponential, draw_biexponential, 5),
    "peak": Family("Gaussian on a constant", peak_on_constant, draw_peak_on_constant, 4),
    "logistic": Family("logistic", logistic, draw_logistic, 7),
    "diode": Family("diode", diode, draw_diode, 2),
}
FACTORS = (3, 10, 30)
FAMILIES = {
    "exponential": Family("exponential growth, from (1, 1)", exponential, draw_exponential, 1),
    "diode": Family("diode, from (1, 1)", diode, draw_diode, 2),
    "diode-noiseless": Family("diode without noise, from (1, 1)", diode, draw_noiseless_diode, 2),
    "michaelis": Family(
        "Michaelis–Menten, from (1, 1)", michaelis_menten, draw_michaelis_menten, 3
    ),
    "counts": Family("Gaussian, counts, σ = √N + 1e-6", peak, draw_counts, 6),
    "peak": Family(
        "Gaussian on a constant, width or height off by 10", peak_on_constant, draw_off_by_ten, 4
    ),
    "biexponential": Family("biexponential, off by up to 2", biexponential, draw_biexponential, 5),
    "biexponential-equal": Family(
        "biexponential, from equal parameters", biexponential, draw_equal_decays, 5
    ),
    "hill": Family("Hill, from the data's extremes", hill, draw_hill, 8),
    "logistic": Family("logistic, from four ones", logistic, draw_logistic, 7),
} | {
    f"{name}-x{factor}": Family(
        f"{base.row}, off by up to {factor}", base.model, base.draw, base.seed, factor
    )
    for name, base in BASES.items()
    for factor in FACTORS
}
