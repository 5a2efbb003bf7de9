"""Reference solutions that are not of our making."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import OptimizeResult, least_squares
from torch import Tensor

from lmtorch.linearizations.arrow import Arrow

TOLERANCE = 1e-15  # scipy ignores a tolerance below eps = 2.2e-16 and warns


def jacobian(residual: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The exact J (m, n) of a function at (n,), all rows by one backward pass.

    A third to a tenth of what `torch.func.jacfwd` takes, which scipy would call thousands of times.
    """

    def at(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        r = residual(x)
        each = torch.eye(len(r), dtype=r.dtype)
        return torch.autograd.grad(r, x, each, is_grads_batched=True)[0]

    return at


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
    exact = jacobian(residual)
    with np.errstate(all="ignore"):  # scipy rejects a trial that overflows, but NumPy warns first
        return least_squares(
            lambda x: residual(torch.from_numpy(x)).numpy(),
            np.asarray(start, dtype=np.float64),
            jac=lambda x: exact(torch.from_numpy(x)).numpy(),
            **(tight | options),
        )


def written_out(matrix: Arrow) -> Tensor:
    """All entries of a matrix of points with variables of their own, (..., n + m·k, n + m·k)."""
    shared, border, own = matrix
    m, k = border.shape[-2:]
    points = border.flatten(-2)
    blocks = torch.zeros(*own.shape[:-3], m, k, m, k, dtype=own.dtype)
    for point in range(m):
        blocks[..., point, :, point, :] = own[..., point, :, :]
    below = blocks.flatten(-2).flatten(-3, -2)
    return torch.cat([torch.cat([shared, points], -1), torch.cat([points.mT, below], -1)], -2)
