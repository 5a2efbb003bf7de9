"""Models and data of the tests of `curve_fit`, and fits that are not of our making."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from numpy.typing import ArrayLike
from torch import Tensor

F64 = torch.float64
INF = float("inf")
# NumPy code, which is the point
DIFFERENCED = pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
# told by another test
UNDETERMINED = pytest.mark.filterwarnings("ignore::scipy.optimize.OptimizeWarning")

T = np.linspace(0, 4, 40)
TRUTH = (2.5, 1.3, 0.5)

# reaction rates of an enzyme treated with puromycin: Bates & Watts, Nonlinear regression
# analysis (1988), table A1.3
CONCENTRATION = np.repeat([0.02, 0.06, 0.11, 0.22, 0.56, 1.10], 2)
RATE = np.array([76, 47, 97, 107, 123, 139, 159, 152, 191, 201, 207, 200], dtype=float)


def line(x: Any, slope: Any, intercept: Any) -> Any:
    return slope * x + intercept


def decay(t: Any, a: Any, b: Any, c: Any) -> Any:
    return a * torch.exp(-b * t) + c


def michaelis_menten(x: Any, v_max: Any, k: Any) -> Any:
    return v_max * x / (k + x)


def noise(size: int | tuple[int, ...], deviation: Any = 1.0, seed: int = 0) -> np.ndarray:
    return deviation * np.random.default_rng(seed).standard_normal(size)


def noisy(
    truth: Any = TRUTH, deviation: Any = 0.05, seed: int = 0, t: np.ndarray = T
) -> np.ndarray:
    """Data of `decay`."""
    a, b, c = truth
    return a * np.exp(-b * t) + c + noise(t.shape, deviation, seed)


def scipys(
    f: Callable[..., Tensor], x: ArrayLike, y: ArrayLike, p0: Any, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """popt, pcov of scipy, with the exact Jacobian of a torch function and as tight as it goes."""
    x = torch.as_tensor(np.asarray(x, dtype=float))

    def values(_: Any, *p: float) -> np.ndarray:
        return f(x, *torch.tensor(p, dtype=F64)).numpy()

    def jacobian(_: Any, *p: float) -> np.ndarray:
        return torch.func.jacfwd(lambda p: f(x, *p))(torch.tensor(p, dtype=F64)).numpy()

    tight = {
        "method": "trf",
        "x_scale": "jac",
        "ftol": 1e-15,
        "xtol": 1e-15,
        "gtol": 1e-15,
        "max_nfev": 10_000,
    }
    return scipy.optimize.curve_fit(values, x.numpy(), y, p0=p0, jac=jacobian, **(tight | options))


def design(x: np.ndarray, degree: int = 1) -> np.ndarray:
    """Columns x^degree, ..., x, 1: a polynomial is a linear model."""
    return np.vander(x, degree + 1)


def solved(
    columns: np.ndarray, y: np.ndarray, weight: Any = 1.0
) -> tuple[np.ndarray, np.ndarray, float]:
    """Weighted linear least squares in closed form: the solution, (AᵀWA)⁻¹ and χ²."""
    weight = np.broadcast_to(weight, y.shape)
    inverse = np.linalg.inv(columns.T @ (weight[:, None] ** 2 * columns))
    solution = inverse @ columns.T @ (weight**2 * y)
    return solution, inverse, float(np.sum((weight * (columns @ solution - y)) ** 2))
