"""Guesses from counts whose curve is a rate: positive, or a share between zero and one.

What a model guesses by squares of few counts may dip below zero, as the background of a decay does
whose last channels are empty; the likelihood is no number there. Data that are drawn towards their
mean have flatter guesses, and in the end that of a constant, which is positive.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...models.backfitting import curve
from ..likelihoods import Likelihood

if TYPE_CHECKING:
    from ...models.base import Model
    from ...models.guessing import Points
    from ...models.rules import Rules

SHARES = (0.125, 0.25, 0.5, 0.75, 0.9375)  # of the way to the mean, one after the other


def guessed(
    model: "Model", points: "Points", rules: "Rules", likelihood: Likelihood | None
) -> dict[str, Tensor]:
    """What a model guesses, (...,) by name, within the range of the likelihood where it can be."""
    found = model.guessed(points, rules)
    if likelihood is None or likelihood.given is not None:
        return found
    most = 1.0 if likelihood.name == "binomial" else torch.inf
    mean = points.y.mean(-1, keepdim=True)
    for share in SHARES:
        rate = curve([model], found, points)
        # nothing may be counted where the rate is zero, and all where the share is one
        beyond = (rate < 0) | (rate > most)
        beyond |= ((rate == 0) & (points.y > 0)) | ((rate == most) & (points.y < most))
        outside = beyond.any(-1)
        if not bool(outside.any()):
            break
        drawn = points._replace(y=points.y + share * (mean - points.y))
        flatter = model.guessed(drawn, rules)
        found = {name: torch.where(outside, flatter[name], value) for name, value in found.items()}
    return found
