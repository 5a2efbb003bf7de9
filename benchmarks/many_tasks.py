"""Models and data of small fits and of many: in torch, in NumPy, and their exact Jacobians.

A model takes x and the parameters apart, as `curve_fit` wants it. The Jacobian in NumPy is
transposed, a row for each parameter, which MINPACK takes without a copy (`col_deriv`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

IVIM = Path(__file__).parents[1] / "examples" / "data" / "ivim_mri.npz"


class Task(NamedTuple):
    """Many curves y over the same x, and one start for all of them."""

    name: str
    model: Callable[..., Tensor]  # f(x, *parameters) in torch
    model_numpy: Callable[..., Any]
    jacobian_numpy: Callable[..., Any]  # (parameters, points)
    x: Any  # float64, the last dimension counts points
    start: tuple[float, ...]
    data: Callable[[int], tuple[Any, Any]]  # a number of fits → true parameters, y (fits, points)
    even: tuple[int, ...] = ()  # parameters whose sign makes no difference

    def residual(self, p: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Model − data, of one fit."""
        return self.model(x, *p.unbind(-1)) - y


def _simulated(
    model: Callable[..., Any], x: Any, low: tuple[float, ...], high: tuple[float, ...], noise: float
) -> Callable[[int], tuple[Any, Any]]:
    """Parameters drawn from a box, and normal noise on the curves."""

    def data(count: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        true = rng.uniform(low, high, (count, len(low)))
        y = model(x, *(column[:, None] for column in true.T))
        return true, y + noise * rng.standard_normal(y.shape)

    return data


# ---- peaks ---------------------------------------------------------------------------------------


def peak(t: Tensor, height: Tensor, center: Tensor, width: Tensor, background: Tensor) -> Tensor:
    """A Gaussian on a background."""
    return height * torch.exp(-0.5 * ((t - center) / width) ** 2) + background


def peak_numpy(t: Any, height: Any, center: Any, width: Any, background: Any) -> Any:
    """The same."""
    return height * np.exp(-0.5 * ((t - center) / width) ** 2) + background


def peak_jacobian(t: Any, height: Any, center: Any, width: Any, background: Any) -> Any:
    """Its derivatives."""
    z = (t - center) / width
    bell = np.exp(-0.5 * z**2)
    slope = height * bell * z / width
    return np.stack([bell, slope, slope * z, np.ones_like(bell)])


# ---- spots ---------------------------------------------------------------------------------------


def spot(
    at: Tensor, height: Tensor, x: Tensor, y: Tensor, width: Tensor, background: Tensor
) -> Tensor:
    """A round Gaussian on a background: a molecule in a camera's window."""
    squared = (at[0] - x) ** 2 + (at[1] - y) ** 2
    return height * torch.exp(-0.5 * squared / width**2) + background


def spot_numpy(at: Any, height: Any, x: Any, y: Any, width: Any, background: Any) -> Any:
    """The same."""
    squared = (at[0] - x) ** 2 + (at[1] - y) ** 2
    return height * np.exp(-0.5 * squared / width**2) + background


def spot_jacobian(at: Any, height: Any, x: Any, y: Any, width: Any, background: Any) -> Any:
    """Its derivatives."""
    right, up = (at[0] - x) / width, (at[1] - y) / width
    squared = right**2 + up**2
    bell = np.exp(-0.5 * squared)
    slope = height * bell / width
    return np.stack([bell, slope * right, slope * up, slope * squared, np.ones_like(bell)])


# ---- decays --------------------------------------------------------------------------------------


def decay(t: Tensor, height: Tensor, rate: Tensor, background: Tensor) -> Tensor:
    """An exponential on a background."""
    return height * torch.exp(-rate * t) + background


def decay_numpy(t: Any, height: Any, rate: Any, background: Any) -> Any:
    """The same."""
    return height * np.exp(-rate * t) + background


def decay_jacobian(t: Any, height: Any, rate: Any, background: Any) -> Any:
    """Its derivatives."""
    falling = np.exp(-rate * t)
    return np.stack([falling, -height * t * falling, np.ones_like(falling)])


# ---- diffusion and perfusion ---------------------------------------------------------------------


def ivim(b: Tensor, signal: Tensor, share: Tensor, fast: Tensor, slow: Tensor) -> Tensor:
    """Intravoxel incoherent motion: a share of blood, which is fast, and tissue, which is slow."""
    return signal * (share * torch.exp(-b * fast) + (1 - share) * torch.exp(-b * slow))


def ivim_numpy(b: Any, signal: Any, share: Any, fast: Any, slow: Any) -> Any:
    """The same."""
    return signal * (share * np.exp(-b * fast) + (1 - share) * np.exp(-b * slow))


def ivim_jacobian(b: Any, signal: Any, share: Any, fast: Any, slow: Any) -> Any:
    """Its derivatives."""
    blood, tissue = np.exp(-b * fast), np.exp(-b * slow)
    mixed = share * blood + (1 - share) * tissue
    return np.stack([
        mixed,
        signal * (blood - tissue),
        -signal * share * b * blood,
        -signal * (1 - share) * b * tissue,
    ])  # fmt: skip


def pixels(path: Path = IVIM) -> Task:
    """Pixels of a brain, over the signal of each without a gradient; more are noisy copies.

    The noise of copies is normal, with the standard deviation of what a fit of the median leaves.
    """
    with np.load(path) as file:
        b = file["bval"].astype(float)
        signal = file["signal"].reshape(-1, len(b)).astype(float)
    measured = signal / signal[:, :1]

    def data(count: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        copies = np.resize(measured, (count, len(b)))
        noise = 0.02 * rng.standard_normal(copies.shape)
        noise[: len(measured)] = 0
        return np.broadcast_to(np.nan, (count, 4)), copies + noise

    return Task(
        "IVIM pixels, 4 × 21", ivim, ivim_numpy, ivim_jacobian, b, (1.0, 0.2, 0.02, 0.001), data
    )


# ---- one curve of NIST's -------------------------------------------------------------------------


def saturation_jacobian(x: Any, b: Any) -> Any:
    """Of b₀ (1 − exp(−b₁ x)): Misra1a."""
    falling = np.exp(-b[1] * x)
    return np.stack([1 - falling, b[0] * x * falling])


def cubics_jacobian(x: Any, b: Any) -> Any:
    """Of a cubic over another: Thurber."""
    squared = x * x
    cubed = squared * x
    below = 1 / (1 + b[4] * x + b[5] * squared + b[6] * cubed)
    curve = (b[0] + b[1] * x + b[2] * squared + b[3] * cubed) * below
    slope = -curve * below
    return np.stack(
        [
            below,
            x * below,
            squared * below,
            cubed * below,
            x * slope,
            squared * slope,
            cubed * slope,
        ]
    )


def gaussians_jacobian(x: Any, b: Any) -> Any:
    """Of two Gaussians on an exponential: Gauss1."""
    falling = np.exp(-b[1] * x)
    rows = [falling, -b[0] * x * falling]
    for height, center, width in (b[2:5], b[5:8]):
        z = (x - center) / width
        bell = np.exp(-(z**2))
        slope = 2 * height * bell * z / width
        rows += [bell, slope, slope * z]
    return np.stack(rows)


ONE: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "Misra1a": (lambda x, b: b[0] * (1 - np.exp(-b[1] * x)), saturation_jacobian),
    "Thurber": (
        lambda x, b: (
            (b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3)
            / (1 + b[4] * x + b[5] * x**2 + b[6] * x**3)
        ),
        cubics_jacobian,
    ),
    "Gauss1": (
        lambda x, b: (
            b[0] * np.exp(-b[1] * x)
            + b[2] * np.exp(-((x - b[3]) ** 2) / b[4] ** 2)
            + b[5] * np.exp(-((x - b[6]) ** 2) / b[7] ** 2)
        ),
        gaussians_jacobian,
    ),
}

_T = np.linspace(0, 1, 50)
_WINDOW = np.stack(np.meshgrid(np.arange(11.0), np.arange(11.0), indexing="ij")).reshape(2, -1)
_TIMES = np.linspace(0, 4, 20)
PEAKS = Task(
    "peaks, 4 × 50",
    peak,
    peak_numpy,
    peak_jacobian,
    _T,
    (1.0, 0.5, 0.1, 0.0),
    _simulated(peak_numpy, _T, (1, 0.3, 0.05, 0), (3, 0.7, 0.15, 0.5), 0.02),
    (2,),
)
SPOTS = Task(
    "2-D spots, 5 × 121",
    spot,
    spot_numpy,
    spot_jacobian,
    _WINDOW,
    (8.0, 5.0, 5.0, 1.5, 1.0),
    _simulated(spot_numpy, _WINDOW, (5, 4, 4, 1, 0.5), (15, 6, 6, 2, 2), 0.5),
    (3,),
)
DECAYS = Task(
    "decays, 3 × 20",
    decay,
    decay_numpy,
    decay_jacobian,
    _TIMES,
    (1.5, 1.0, 0.0),
    _simulated(decay_numpy, _TIMES, (1, 0.5, 0), (3, 2, 0.5), 0.02),
)
