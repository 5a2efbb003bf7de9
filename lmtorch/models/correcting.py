"""A rough guess brought nearer to its data, so that it can be compared with another."""

from collections.abc import Callable

import torch
from torch import Tensor

from .rules import Rules

TURNS = 5  # corrections, which is enough to tell two guesses apart
DAMPED = (1e-4, 1e-2, 1.0)  # parts of the squares of each column, of which the best is taken
TINY = 1e-30  # keeps apart from zero what no parameter changes

Values = dict[str, Tensor]


def corrected(found: Values, at: Callable[[Values], Tensor], y: Tensor, rules: Rules) -> Values:
    """A guess after a few corrections in all of its parameters.

    Each is the solution of the linear problem about the guess, damped in a few ways, and is kept
    for those curves that it brings nearer to their data.

    Args:
        found: values by name, (...,).
        at: the curve (..., m) at values.
        y: the data (..., m).
        rules: of the whole; what is fixed at a value stays, what is tied follows.

    Returns:
        Values by name.
    """
    like = y[..., 0]
    free = [n for n in found if rules.fixed.get(n) is None and n not in rules.ties]
    best = rules.within(found, like)
    for _ in range(TURNS if free else 0):
        curve = at(best)
        rest = y - curve
        slopes = torch.stack([_slope(best, name, at, curve, rules) for name in free], -1)
        normal, right = slopes.mT @ slopes, slopes.mT @ rest[..., None]
        sizes = normal.diagonal(dim1=-2, dim2=-1).clamp(min=TINY)
        cost = rest.square().sum(-1)
        start = best
        for part in DAMPED:
            step = torch.linalg.solve_ex(normal + torch.diag_embed(part * sizes), right)[0]
            tried = {name: start[name] + step[..., i, 0] for i, name in enumerate(free)}
            tried = rules.within({**start, **tried}, like)
            new = (y - at(tried)).square().sum(-1)
            nearer = (new < cost) & _finite(tried)
            cost = torch.where(nearer, new, cost)
            best = {name: torch.where(nearer, tried[name], best[name]) for name in best}
    return best


def _slope(
    found: Values, name: str, at: Callable[[Values], Tensor], curve: Tensor, rules: Rules
) -> Tensor:
    """The derivative (..., m) of a curve in one parameter, by differences."""
    value = found[name]
    step = torch.finfo(value.dtype).eps ** 0.5 * torch.where(value == 0, 1.0, value.abs())
    moved = rules.within({**found, name: value + step}, value)
    return (at(moved) - curve) / step[..., None]


def _finite(values: Values) -> Tensor:
    """Whether all of the values of a curve are finite, (...,)."""
    return torch.stack([value.isfinite() for value in values.values()]).all(0)
