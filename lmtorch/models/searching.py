"""How shapes are found in data: a few tries, heights by linear least squares, the nearest is kept.

Of a curve h₁ s₁(x) + h₂ s₂(x) whose columns s depend on the other parameters, the heights are the
solution of a linear problem, so that only the others are searched. All curves of a batch are tried
at once, and each keeps its own best. Golub & Pereyra, SIAM J. Numer. Anal. 10 (1973) 413.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

Found = dict[str, Tensor]
Try = tuple[Mapping[str, Any], Mapping[str, Tensor]]  # values (...,), columns (..., m) by name
TOGETHER = 2**17  # numbers of curves and tries that are evaluated as one
SINGULAR = 1e-10  # the part of two columns that is not common to both, below which they are one


def nearest(y: Tensor, tries: Iterable[Try]) -> Found:
    """Of some tries, for each curve that which comes nearest to the data.

    Args:
        y: curves (..., m).
        tries: each the values of some parameters (...,), and one or two columns (..., m), each by
            the name of the parameter that it is multiplied by.

    Returns:
        Values and heights by name, (...,).
    """
    lead = y.shape[:-1]
    best: Found = {}
    least = y.new_full(lead, math.inf)
    some, tries = max(1, TOGETHER // max(1, y.numel())), iter(tries)
    while part := list(islice(tries, some)):
        found, cost = _nearest(y, part)
        better = cost < least
        best = {name: torch.where(better, v, best.get(name, v)) for name, v in found.items()}
        least = torch.where(better, cost, least)
    return best


def _nearest(y: Tensor, tries: Sequence[Try]) -> tuple[Found, Tensor]:
    """The nearest of some tries, evaluated as one, and their sums of squares (...,)."""
    lead = y.shape[:-1]
    names = list(tries[0][1])
    columns = [torch.stack([columns[name] for _, columns in tries]) for name in names]
    heights = solved(y, columns)
    curve = heights[0][..., None] * columns[0]
    if len(names) == 2:
        curve = curve + heights[1][..., None] * columns[1]
    cost = (y - curve).square().sum(-1).nan_to_num(math.inf, math.inf)
    place = cost.argmin(0, keepdim=True)
    found = dict(zip(names, heights, strict=True))
    for name in tries[0][0]:
        values = [torch.as_tensor(v[name], dtype=y.dtype, device=y.device) for v, _ in tries]
        found[name] = torch.stack([v.expand(lead) for v in values])
    return (
        {name: v.take_along_dim(place, 0)[0] for name, v in found.items()},
        cost.take_along_dim(place, 0)[0],
    )


def solved(y: Tensor, columns: Sequence[Tensor]) -> list[Tensor]:
    """The heights (...,) of one or two columns (..., m) by least squares; zero of one too many."""
    first = columns[0]
    size = first.square().sum(-1)
    one = (y * first).sum(-1) / torch.where(size > 0, size, 1.0)
    if len(columns) == 1:
        return [one]
    share = (first * columns[1]).sum(-1) / torch.where(size > 0, size, 1.0)
    apart = columns[1] - share[..., None] * first
    left, whole = apart.square().sum(-1), columns[1].square().sum(-1)
    other = (y * apart).sum(-1) / torch.where(left > SINGULAR * whole, left, math.inf)
    return [one - share * other, other]


def ladder(low: Any, high: Any, count: int) -> Iterator[Any]:
    """Numbers from one to another, in equal ratios."""
    for k in range(count):
        yield low * (high / low) ** (k / (count - 1))


def extent(x: Tensor) -> Tensor:
    """The largest less the smallest, (...,); 1 where all are equal."""
    span = x.amax(-1) - x.amin(-1)
    return torch.where(span > 0, span, 1.0)


def quantiles(x: Tensor, count: int) -> Iterator[Tensor]:
    """Entries (...,) of ascending x, evenly spread over their numbers, without the ends."""
    m = x.shape[-1]
    for k in range(1, count + 1):
        yield x[..., round((m - 1) * k / (count + 1))]


# ---- peaks ---------------------------------------------------------------------------------------


def peak(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Center and half width at half height (...,) of the peak, or the dip, that is most of y."""
    found = nearest(y, _peaks(x, y))
    return found["center"], found["width"]


def _peaks(x: Tensor, y: Tensor) -> Iterator[Try]:
    """Gaussians where the data, smoothed more and more, are highest or lowest."""
    m = y.shape[-1]
    x = x.expand(y.shape)
    away = y - y.median(-1, keepdim=True).values
    for base in (y, away):
        at = base.abs().argmax(-1, keepdim=True)
        center = x.take_along_dim(at, -1)
        yield _bell(x, center, _half_width(x, base, at))
    span, window = extent(x)[..., None], 3
    while window < m:
        for base in (y, away):
            at = smoothed(base, window).abs().argmax(-1, keepdim=True)
            center = x.take_along_dim(at, -1)
            width = span * (window / m)
            for part in (0.25, 0.5, 1.0):
                yield _bell(x, center, part * width)
        window = 2 * window + 1
    # it may be wider than the data, or have its top outside
    for place in (x[..., :1], x[..., m // 2, None], x[..., -1:]):
        yield _bell(x, place, span / 2)


def _bell(x: Tensor, center: Tensor, width: Tensor) -> Try:
    """A Gaussian of a half width."""
    column = torch.exp2(-(((x - center) / width) ** 2))
    return {"center": center[..., 0], "width": width[..., 0]}, {"height": column}


def smoothed(y: Tensor, window: int) -> Tensor:
    """Means over a window of points, of those that there are at the ends."""
    half = window // 2
    m = y.shape[-1]
    sums = torch.cat([torch.zeros_like(y[..., :1]), y.cumsum(-1)], -1)
    place = torch.arange(m, device=y.device)
    last, first = (place + half + 1).clamp(max=m), (place - half).clamp(min=0)
    return (sums[..., last] - sums[..., first]) / (last - first)


def _half_width(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """How far it is from the top, at a place (..., 1), to half its height, on the nearer side."""
    height, center = y.take_along_dim(at, -1), x.take_along_dim(at, -1)
    below = y / torch.where(height == 0, 1.0, height) < 0.5
    place = torch.arange(y.shape[-1], device=y.device)
    infinity = torch.full_like(x, math.inf)
    left = center - torch.where(below & (place < at), x, -infinity).amax(-1, keepdim=True)
    right = torch.where(below & (place > at), x, infinity).amin(-1, keepdim=True) - center
    width = torch.minimum(left, right)
    return torch.where(width.isfinite() & (width > 0), width, extent(x)[..., None] / 2)
