"""Whether residuals keep their sign along x for longer than chance has it: the runs test.

A run is a stretch of residuals of one sign. Of n₊ and n₋ signs in an order that is left to chance,
with n = n₊ + n₋, the number R of runs has the probabilities

    P(R = 2k)     = 2 C(n₊ − 1, k − 1) C(n₋ − 1, k − 1) / C(n, n₊)
    P(R = 2k + 1) = [C(n₊ − 1, k) C(n₋ − 1, k − 1) + C(n₊ − 1, k − 1) C(n₋ − 1, k)] / C(n, n₊)

and for many of both signs it is normal, with the mean μ = 1 + 2 n₊ n₋/n and the variance
(μ − 1)(μ − 2)/(n − 1). A curve that passes its data by has few and long runs, however small χ² is.

Reference: Wald & Wolfowitz, On a test whether two samples are from the same population (1940).
"""

import math
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..._arrays import tensor_of, to_array
from ..measurements.data import Data

EXACT = 100  # up to so many of the rarer sign the probability is counted, beyond it is normal
SMALL = 0.1  # of the residuals' root mean square: what is less has no sign, as where few is counted
PATTERN = 1e-3  # chances below this are told as a pattern


class Runs(NamedTuple):
    """The runs of residuals, (...,) each; NaN where x has no order."""

    number: Tensor
    expected: Tensor  # on average, of as many signs in an order that is left to chance
    pvalue: Tensor  # the probability of so few
    smooth: Tensor  # share of Σ r² that does not change from point to point

    @property
    def patterned(self) -> Tensor:
        """Whether so few are no chance, (...,) bool."""
        return self.pvalue < PATTERN


def runs_of(data: Data, residual: Tensor) -> Runs:
    """Count the runs of residuals in the order of x.

    Points that are left out, and residuals that are zero to round-off, have no sign.

    Args:
        data: with x, whose order counts.
        residual: in units of the errors, (..., m).

    Returns:
        The runs, and how probable so few of them are.
    """
    order = _order(data)
    if order is None or residual.shape != data.y.shape:
        return without_order(data)
    size = data.y.detach().abs()
    if data.weights is not None:
        size = torch.where(data.weights > 0, size * data.weights, 0.0)
    met = math.sqrt(torch.finfo(size.dtype).eps) * size.nan_to_num().amax(-1, keepdim=True)
    mean = residual.double().square().sum(-1) / data.count.clamp(min=1)
    floor = torch.maximum(met.double(), SMALL * mean.sqrt()[..., None])
    residual = residual.gather(-1, order.expand(residual.shape))
    # those without a sign go behind the others, which stay in their order
    signless = residual.abs() <= floor
    residual = torch.where(signless, 0.0, residual)
    residual = residual.gather(-1, signless.to(torch.int8).argsort(stable=True))
    positive, negative = (residual > 0).sum(-1), (residual < 0).sum(-1)
    n = (positive + negative).double()
    both = residual[..., 1:].sign() * residual[..., :-1].sign()
    count = (both < 0).sum(-1) + (n > 0)
    expected = 1 + 2 * positive * negative / n.clamp(min=1)
    # half of the ratio of Durbin and Watson is the share of what is without any order
    apart = torch.where(both == 0, 0.0, residual.diff()).double().square().sum(-1)
    smooth = 1 - apart / (2 * residual.double().square().sum(-1))
    return Runs(count.double(), expected, _chance(positive, negative, count), smooth)


def without_order(data: Data) -> Runs:
    """What is told of residuals whose signs are in no order, or not left to chance: nothing."""
    none = data.y.new_full(data.lead, torch.nan, dtype=torch.float64)
    return Runs(none, none, none, none)


def _order(data: Data) -> Tensor | None:
    """Places of the points along x, (m,) or (..., m); None where x is not one number a point."""
    if not data.sizes:
        return _along(data.x, data)
    # of several data sets one after the other
    parts = [_along(x, data, m) for x, m in zip(data.x, data.sizes, strict=True)]
    begins = accumulate(data.sizes[:-1], initial=0)
    places = [b + part for b, part in zip(begins, parts, strict=True) if part is not None]
    return torch.cat(places) if len(places) == len(parts) else None


def _along(x: object, data: Data, m: int | None = None) -> Tensor | None:
    if not isinstance(x, Tensor) or x.is_complex():
        return None
    shapes = ((m or data.m,), (m or data.m, 1), *((tuple(data.y.shape),) if data.each_x else ()))
    if tuple(x.shape) not in shapes:
        return None
    flat = x.detach() if x.shape == data.y.shape else x.detach().reshape(-1)
    return flat.to(data.y.device).argsort(stable=True)


def _chance(positive: Tensor, negative: Tensor, count: Tensor) -> Tensor:
    """The probability of at most so many runs, (...,); each pair of numbers is looked up once."""
    signs = np.stack([to_array(part).reshape(-1) for part in (positive, negative)])
    pairs, which = np.unique(np.sort(signs, axis=0), axis=1, return_inverse=True)
    runs, found = to_array(count).reshape(-1), np.ones(count.numel())
    for place, (few, many) in enumerate(pairs.T.tolist()):
        fits = which.reshape(-1) == place
        chances = exact(few, many) if few <= EXACT else normal(few, many)
        found[fits] = chances[runs[fits]]
    return tensor_of(found).reshape(count.shape).to(count.device)


def exact(few: int, many: int) -> NDArray[np.float64]:
    """P(R ≤ r) for r = 0, 1, ... of so many signs of either kind, counted in whole numbers."""
    ways = [0] * (2 * few + 2)
    ways[min(1, many)] = int(few == 0)
    for k in range(1, few + 1):
        here, there = math.comb(few - 1, k - 1), math.comb(many - 1, k - 1)
        ways[2 * k] = 2 * here * there
        ways[2 * k + 1] = math.comb(few - 1, k) * there + here * math.comb(many - 1, k)
    total = math.comb(few + many, few)
    return np.array([below / total for below in accumulate(ways)])


def normal(few: int, many: int) -> NDArray[np.float64]:
    """P(R ≤ r) for r = 0, 1, ... of many signs of both kinds, with a correction of continuity."""
    from scipy.special import ndtr  # a tenth of a second, for this alone

    mean = 1 + 2 * few * many / (few + many)
    deviation = math.sqrt((mean - 1) * (mean - 2) / (few + many - 1))
    return np.asarray(ndtr((np.arange(2 * few + 2) + 0.5 - mean) / deviation))
