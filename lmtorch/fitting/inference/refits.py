"""Refits with some variables held: by how much the best fit rises when they are moved.

All points are one batch, each with its held variables between equal bounds, and started where the
linear model has its least with these variables held.
"""

import numpy as np
import torch
from torch import Tensor

from ..._arrays import tensor_of, to_array
from ...core.termination import Status
from .inference import Inference


def rises(
    fit: Inference,
    places: np.ndarray,  # (k, h), of the variables that are held in each refit; or (h,)
    values: np.ndarray,  # (k, h), what they are held at
) -> np.ndarray:
    """χ² (or −2 log L) of refits above that of the fit, in units of the variance of a residual.

    Args:
        fit: a single fit.
        places: of the variables.
        values: of the variables, a row for each refit.

    Returns:
        (k,), no less than zero; NaN where a refit came to nothing.
    """
    fitter, wanted = fit.fitter, tensor_of(values).to(fit.u)
    chosen = tensor_of(np.broadcast_to(places, values.shape).copy()).to(wanted.device)
    lower, upper = (side.expand(len(wanted), -1).clone() for side in fitter.bounds)
    start = torch.minimum(torch.maximum(_least(fit, chosen, wanted), lower), upper)
    for sides in (start, lower, upper):
        sides.scatter_(1, chosen, wanted)
    solution = fitter.solve(start, bounds=(lower, upper), verbose=0, callback=None, history=False)
    twice = 2 * to_array(tensor_of(solution.cost)).astype(float)
    came = to_array(tensor_of(solution.status)) != Status.NOT_FINITE.value
    rise = np.maximum(0.0, (twice - float(fit.twice_cost)) / float(fit.variance))
    return np.where(came & np.isfinite(twice), rise, np.nan)


def _least(fit: Inference, chosen: Tensor, values: Tensor) -> Tensor:
    """Where the linear model has its least with these variables held, (k, n)."""
    center, covariance = fit.u.detach(), fit.ucov.to(fit.u).nan_to_num(0.0, 0.0, 0.0)
    block = covariance[chosen[:, :, None], chosen[:, None, :]]
    moved = (values - center[chosen])[..., None]
    return center + (covariance[chosen].mT @ (torch.linalg.pinv(block) @ moved))[..., 0]
