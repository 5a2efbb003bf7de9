"""Many starts: points of a box or about x0, and which of them led to the least cost."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._arrays import tensor_of
from .._errors import InputError

Sampler = Callable[[int, np.random.Generator], Any]


class Starts(NamedTuple):
    """How many starts each problem has, and where the further ones come from."""

    number: int  # x0 among them
    sampler: Sampler | None  # None: a Latin hypercube
    seed: int


def sample(
    start: Tensor,  # (n,) or (b, n)
    lower: Tensor,
    upper: Tensor,
    starts: Starts,
) -> Tensor:
    """Starts (count, ..., n): x0 itself, then points of a Latin hypercube, or the sampler's.

    Variables bounded on both sides spread over their interval; others are normal about x0 with a
    deviation of max(1, |x0|), kept within the bound that there is.

    Raises:
        InputError: the sampler's points do not fit.

    Reference: McKay, Beckman & Conover (1979), for the hypercube.
    """
    count, sampler, seed = starts
    n = start.shape[-1]
    rng = np.random.default_rng(seed)
    if sampler is not None:
        points = tensor_of(np.asarray(sampler(count - 1, rng)), dtype=start.dtype).to(start.device)
        if tuple(points.shape) != (count - 1, n):
            raise InputError(
                f"the sampler returned {tuple(points.shape)}; {count - 1} further starts of {n} "
                f"parameters need ({count - 1}, {n}), rows in the order of the flattened x0."
            )
        spread = points.view(count - 1, *(1,) * (start.ndim - 1), n).expand(count - 1, *start.shape)
        if not bool(((spread >= lower) & (spread <= upper)).all()):
            raise InputError("the sampler returned points outside the bounds.")
    else:
        # half a second, which only several starts need
        from scipy.special import ndtri
        from scipy.stats import qmc

        shares = qmc.LatinHypercube(d=n, rng=rng).random(count - 1)  # in (0, 1)
        uniform, normal = (
            tensor_of(v, dtype=start.dtype)
            .to(start.device)
            .view(count - 1, *(1,) * (start.ndim - 1), n)
            for v in (shares, ndtri(shares))
        )
        boxed = lower.isfinite() & upper.isfinite()
        inside = torch.where(boxed, lower, 0.0) + torch.where(boxed, upper - lower, 0.0) * uniform
        about = torch.minimum(
            torch.maximum(start + start.abs().clamp(min=1) * normal, lower), upper
        )
        spread = torch.where(boxed, inside, about)
    return torch.cat([start[None], spread])


def best(cost: Tensor) -> Tensor:
    """The number of the start of least cost (...,), from costs (starts, ...): finite ones first."""
    return torch.where(cost.isfinite(), cost, torch.inf).argmin(0)
