"""Reference solutions that are not of our making."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import OptimizeResult, least_squares
from torch import Tensor

TOLERANCE = 1e-15  # scipy ignores a tolerance below eps = 2.2e-16 and warns


def scipy_solution(
    residual: Callable[[Tensor], Tensor],
    start: Sequence[float] | np.ndarray | Tensor,
    **options: Any,
) -> OptimizeResult:
    """SciPy's `least_squares`, float64, exact J; by default as tight as it goes and scaled by J."""
    tight = {
        "ftol": TOLERANCE,
        "xtol": TOLERANCE,
        "gtol": TOLERANCE,
        "x_scale": "jac",
        "max_nfev": 10_000,
    }
    jacobian = torch.func.jacfwd(residual)
    with np.errstate(all="ignore"):  # scipy rejects a trial that overflows, but NumPy warns first
        return least_squares(
            lambda x: residual(torch.from_numpy(x)).numpy(),
            np.asarray(start, dtype=np.float64),
            jac=lambda x: jacobian(torch.from_numpy(x)).numpy(),
            **(tight | options),
        )
