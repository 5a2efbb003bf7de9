"""Which part of data belongs to which of several peaks that lie side by side, or over each other.

The heights of a curve above its background are taken for a density, and the density for a sum of
normal ones, whose weights, centers and widths are found by expectation and maximisation in turn.

Reference: Dempster, Laird & Rubin, Maximum likelihood from incomplete data via the EM algorithm
    (1977), section 4.3.
"""

import torch
from torch import Tensor

from .guessing import Points

TURNS = 60
FOOT = 0.15  # the part of the largest height that is taken for no peak
LEAST = 1e-3  # of the range of x: a narrower peak is a single point
TINY = 1e-300


def shares_of(points: Points, count: int) -> list[Tensor]:
    """The shares (..., m), between 0 and 1 and together 1, of so many peaks from left to right."""
    y = points.y.double()
    x = points.x.double().expand(y.shape)
    up = y.amax(-1, keepdim=True) >= -y.amin(-1, keepdim=True)
    height = torch.where(up, y, -y)
    # what a background leaves at the foot of the peaks is no peak
    height = (height - FOOT * height.amax(-1, keepdim=True)).clamp(min=0)
    gaps = x.diff(dim=-1)
    width = torch.cat([gaps[..., :1], gaps], -1) + torch.cat([gaps, gaps[..., -1:]], -1)
    mass = height * width
    mass = mass / mass.sum(-1, keepdim=True).clamp(min=TINY)
    span = (x[..., -1:] - x[..., :1]).clamp(min=TINY)
    risen = mass.cumsum(-1)
    parts = [(risen < (part + 0.5) / count).sum(-1, keepdim=True) for part in range(count)]
    places = torch.stack([part.clamp(max=y.shape[-1] - 1) for part in parts])  # (k, ..., 1)
    center = x.expand(count, *x.shape).take_along_dim(places, -1)
    mean = (mass * x).sum(-1, keepdim=True)
    spread = (mass * (x - mean).square()).sum(-1, keepdim=True).sqrt() / count
    sigma = spread.clamp(min=LEAST * span).expand(center.shape)
    weight = torch.full_like(center, 1 / count)
    share = torch.zeros_like(x.expand(count, *x.shape))
    for _ in range(TURNS):
        log = weight.clamp(min=TINY).log() - sigma.log() - ((x - center) / sigma).square() / 2
        share = log.softmax(0)
        own = share * mass
        weight = own.sum(-1, keepdim=True)
        safe = weight.clamp(min=TINY)
        center = (own * x).sum(-1, keepdim=True) / safe
        sigma = ((own * (x - center).square()).sum(-1, keepdim=True) / safe).sqrt()
        sigma = torch.maximum(sigma, LEAST * span)
    return list(share.to(points.y))
