"""Whether numbers of float32 lie so far from zero that little is left of what is fitted.

float32 has seven digits. Of data about 10⁴ it keeps steps of 0.001, and each evaluation of the
model adds such an error of its own. Beside residuals of a few hundredths these are no longer small:
parameters were off by up to 1.7 of their standard errors, and nothing else tells of it. An offset
that is subtracted before the data become float32 costs nothing.
"""

import torch
from torch import Tensor

from ..._errors import warn_of_fit
from .data import Data

OFFSET = 100.0  # data whose mean is so many times their scatter lie far from zero
NOISE = 20.0  # steps of the data type that residuals must be wide, lest they consist of them
SPAN = 1e-4  # share of the range of x that may lie between two numbers of its type
LOOKED_AT = 1024  # fits of a batch that are looked at, spread over it


def warn_if_coarse(data: Data, cost: Tensor) -> None:
    """Warn where the data type resolves the data, or x, no finer than a fit of them needs.

    Args:
        data: what was fitted; only tensors of a user's own are coarser than float64.
        cost: half the sum of squares in units of the errors, (...,).
    """
    y, x = data.y.detach(), data.x
    if torch.finfo(y.dtype).eps <= torch.finfo(torch.float64).eps:
        return
    name = str(y.dtype).removeprefix("torch.")
    advice = f"Give tensors of float64, or subtract the offset before they become {name}."
    if data.root is None and (found := _hidden(data, y, cost)):
        mean, step, residual = found
        warn_of_fit(
            f"ydata lie about {mean:.2g} from zero, where two numbers of {name} are {step:.1g} "
            f"apart, and the residuals are {residual:.1g}: digits of the parameters, and of their "
            f"errors, are lost. {advice}"
        )
    if isinstance(x, Tensor) and x.dtype == y.dtype and x.ndim == 1 and len(x) > 1:
        low, high = (float(end) for end in x.detach().aminmax())
        step = torch.finfo(x.dtype).eps * max(abs(low), abs(high))
        if step > SPAN * (high - low) > 0:
            warn_of_fit(
                f"xdata go from {low:.6g} to {high:.6g}, and two numbers of {name} are {step:.1g} "
                f"apart there: points have moved, or fallen together. {advice}"
            )


def _hidden(data: Data, y: Tensor, cost: Tensor) -> tuple[float, float, float] | None:
    """Offset, resolution and residual of the fit that suffers most; None: none does."""
    rows, costs = y.reshape(-1, y.shape[-1]), cost.detach().reshape(-1).double()
    every = max(1, len(rows) // LOOKED_AT)
    wide, weights = rows[::every].double(), data.weights
    count: Tensor | int = wide.shape[-1]
    error: Tensor | float = 1.0
    if weights is None:  # in half of the time
        mean = wide.sum(-1) / count
        scatter = torch.linalg.vector_norm(wide - mean[:, None], dim=-1) / count**0.5
    else:
        weights = weights.expand_as(y).reshape(rows.shape)[::every].double()
        kept = weights > 0
        count = kept.sum(-1).clamp(min=1)
        wide = torch.where(kept, wide, 0.0)  # what is left out may be NaN
        mean = wide.sum(-1) / count
        scatter = (torch.where(kept, wide - mean[:, None], 0.0).square().sum(-1) / count).sqrt()
        # in units of the errors, as the cost is
        error = weights.sum(-1) / count
    residual = (2 * costs[::every] / count).sqrt() / error
    step = torch.finfo(y.dtype).eps * mean.abs()
    # data without scatter determine a constant, which has the digits that they have
    far = (scatter > 0) & (mean.abs() > OFFSET * scatter)
    suffers = far & (NOISE * step > residual)
    worst = int(torch.where(suffers, step / residual, -1.0).argmax())
    if not bool(suffers[worst]):
        return None
    return float(mean[worst]), float(step[worst]), float(residual[worst])


def warn_if_beyond(covariance: Tensor, dtype: torch.dtype) -> None:
    """Warn where a data type has no room for variances, and changes them by more than a percent.

    Of errors of 10⁻²⁰ float32 keeps no digit of the square.

    Args:
        covariance: of parameters, (..., P, P), in float64.
        dtype: what it is handed over in.
    """
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    lost = (variance.to(dtype).to(variance) - variance).abs() > 0.01 * variance
    lost = lost & (variance > 0) & variance.isfinite()
    if bool(lost.any()):
        name = str(dtype).removeprefix("torch.")
        warn_of_fit(
            f"{name} has no room for squares of such errors, and pcov has lost them; stderr is "
            "right. Give ydata in units in which they are near one, or tensors of float64."
        )
