"""The curves of fits at new points, a block of fits at a time."""

import math
from typing import Any

import torch
from torch import Tensor

from ... import _memory
from ..._autodiff import ranges
from .inference import Inference


def curve_at(fit: Inference, x: Any, dataset: int | None) -> Tensor:
    """The fitted curves at new points, (..., k), without their errors.

    Args:
        fit: of one fit or many.
        x: new points, the same for all fits.
        dataset: of a global fit, the number of the data set.

    Returns:
        The curves, detached.
    """
    points, count = fit.points(x, dataset)
    fitter, u = fit.evaluated
    start = fitter.start
    if not fit.lead:
        return fitter.sensitivity(u, points, count, dataset)[0]
    total = math.prod(fit.lead)
    # derivatives come along, so that a block holds them too
    each = (2 + u.shape[-1]) * count * torch.float64.itemsize
    block = _memory.stream_rows(each, u.device, cache=_memory.CACHE_ROWS)
    many = u.reshape(total, -1)
    starts = start if start.ndim == 1 else start.reshape(total, -1)
    curves = [
        fitter.sensitivity(
            many[some],
            points,
            count,
            dataset,
            start=starts if starts.ndim == 1 else starts[some],
        )[0]
        for some in ranges(total, block)
    ]
    return torch.cat(curves).reshape(*fit.lead, count)
