"""Parameters of what is not there: of a peak without height, of a decay of nothing.

Where the data are met to the last digit, an amplitude that should be zero ends at 1e-16 of the
data. Its center, width or decay then has a column of J that is round-off, but not zero, and the
residuals beside it are zero: its error would be zero, and so of what the data say nothing about.
So J is looked at with such a parameter at zero: what has no influence there is not determined.
"""

from typing import Any

import torch
from torch import Tensor

from ..._arrays import tensor_of

ROUNDINGS = 8  # of the data: what is less of a curve than these is nothing
SINGLE = torch.finfo(torch.float32).eps  # the coarsest numbers that are fitted


def met(cost: float, size: float) -> bool:
    """Tell at a glance whether a single fit may have met its data to round-off.

    Args:
        cost: ½‖r‖².
        size: the norm of the data in the same units.

    Returns:
        False where it has not.
    """
    noise = ROUNDINGS * SINGLE * size
    return 2 * cost <= noise * noise  # a power of a large float is an error, a product infinite


def absent(inference: Any) -> Tensor | None:
    """Which variables belong to what is zero to round-off.

    Args:
        inference: of a fit, or of a batch.

    Returns:
        They, (..., n) bool; None: none does.
    """
    fitter, u = inference.fitter, inference.u.detach()
    if fitter.likelihood is not None or fitter.data.root is not None:
        return None  # of counts no end is exact, and correlated errors have no single size
    noise = ROUNDINGS * torch.finfo(u.dtype).eps * inference.size_of_data()
    exact = torch.linalg.vector_norm(inference.residual.double(), dim=-1) <= noise
    if not bool(exact.any()):
        return None
    jacobian = tensor_of(inference.solution.jac).detach().double()
    lengths = torch.linalg.vector_norm(jacobian, dim=-2).reshape(u.shape)
    nothing = exact[..., None] & (u != 0) & (lengths * u.abs() <= noise[..., None])
    found = torch.zeros_like(nothing)
    for place in nothing.reshape(-1, u.shape[-1]).any(0).nonzero()[:, 0].tolist():
        there = u.clone()
        there[..., place] = torch.where(nothing[..., place], 0.0, u[..., place])
        model = inference.model_at(there)
        if model is None:
            continue
        left, rows = model
        # zero must be as good as what was found, and a value that the model has an answer for
        same = torch.linalg.vector_norm(left, dim=-1) <= 2 * noise.reshape(-1)
        same &= rows.isfinite().all(-1).all(-1) & (rows[..., place] != 0).any(-1)
        gone = (rows == 0).all(-2) & same[:, None]
        found |= gone.reshape(u.shape) & nothing[..., place, None]
    return found if bool(found.any()) else None
