"""What scipy's own tests of `least_squares` minimise."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

F64 = torch.float64
INF = float("inf")


def lifted(x: Any, a: Any = 0.0) -> Any:
    """A parabola that is nowhere zero: J vanishes at its minimum, and residuals remain."""
    return (x - a) ** 2 + 5.0


def lifted_jacobian(x: Any, a: Any = 0.0) -> Any:
    return 2 * (x - a)


def rosenbrock(x: Any) -> Any:
    """For NumPy arrays."""
    return np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def rosenbrock_jacobian(x: Any) -> Any:
    return np.array([[-20 * x[0], 10], [-1, 0]])


class Counted:
    """A function, and how often and where it was called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.points: list[Any] = []

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        self.points.append(x.detach().clone() if isinstance(x, Tensor) else np.copy(x))
        return self.function(x, *args, **kwargs)


T = torch.linspace(0, 4, 40, dtype=F64)


def decay(x: Tensor, t: Tensor = T) -> Tensor:
    """a exp(−b t) + c."""
    return x[0] * torch.exp(-x[1] * t) + x[2]


def noisy(
    truth: Any = (2.5, 1.3, 0.3), noise: float = 0.05, seed: int = 0, t: Tensor = T
) -> Tensor:
    """Data of `decay`."""
    generator = torch.Generator().manual_seed(seed)
    return decay(torch.tensor(truth, dtype=F64), t) + noise * torch.randn(
        len(t), dtype=F64, generator=generator
    )
