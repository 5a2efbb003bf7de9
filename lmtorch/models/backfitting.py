"""Guesses for sums and products: each part on what the others leave, and heights solved for.

    1. backgrounds, from data in which what stands out of them is cut off again and again;
    2. the other terms, one after another, each on the remainder;
    3. all parameters in which the curve is linear, by linear least squares;
    4. each term once more on the data without the others, as long as the curve comes nearer.

Every step is kept for those curves of a batch alone that it brings nearer to their data.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .guessing import Points
from .rules import Rules

if TYPE_CHECKING:
    from .base import Model

SWEEPS = 3  # how often terms are guessed again
CUTS = 12  # how often what stands out of a background is cut off
OUT = 1.5  # how many standard deviations stand out
EDGE = 8  # a part of 1/8 of the points at each end is nearer to the background than the middle
NORMAL = 1.4826  # from the median of |r| to a standard deviation, for normal r
SMALL = (
    0.1  # where a factor is smaller than this part of its largest value nothing is divided by it
)

Values = dict[str, Tensor]


def together(whole: "Model", terms: "Sequence[Model]", points: Points, rules: Rules) -> Values:
    """Guess the terms of a sum.

    Args:
        whole: the sum.
        terms: its terms; those that are subtracted are negative.
        points: data.
        rules: of the whole.

    Returns:
        Values by name, (...,).
    """
    best: Values | None = None
    for edges in (False, True) if any(term.background for term in terms) else (False,):
        found = _swept(whole, terms, points, rules, edges)
        best = found if best is None else _better(whole, best, found, points)
    assert best is not None  # there is one way at least
    return best


def _swept(
    whole: "Model", terms: "Sequence[Model]", points: Points, rules: Rules, edges: bool
) -> Values:
    """Guess the terms once, and then again on the data without the others."""
    order = [term for term in terms if term.background]
    order += [term for term in terms if not term.background]
    found: Values = {}
    rest = points
    for term in order:
        if term.background:
            new = _under(term, rest, rules, edges)
        else:
            new = _ruled(term, term._found(rest, rules.of(term.names)), rest, rules)
        found.update(new)
        if not term._blind:  # nothing is known of it, and nothing is left out for it
            rest = rest.remainder(curve(term, new, rest))
    found = _solved(whole, found, points, rules)
    for _ in range(SWEEPS):
        again = dict(found)
        for term in order:
            others = [other for other in terms if other is not term]
            rest = points
            for other in others:
                rest = rest.remainder(curve(other, again, points))
            again.update(_ruled(term, term._found(rest, rules.of(term.names)), rest, rules))
        again = _solved(whole, again, points, rules)
        found = _better(whole, found, again, points)
    return found


def _under(term: "Model", points: Points, rules: Rules, edges: bool) -> Values:
    """Guess a background: what stands out of it is replaced by it, until nothing does."""
    part = points
    if edges:
        part = points._replace(y=_bridged(points))
    new = _ruled(term, term._found(part, rules.of(term.names)), points, rules)
    for _ in range(CUTS):
        level = curve(term, new, points)
        rest = (points.y - level).abs()
        scale = OUT * NORMAL * rest.median(-1, keepdim=True).values
        cut = points._replace(y=torch.where(rest > scale, level, points.y))
        new = _ruled(term, term._found(cut, rules.of(term.names)), points, rules)
    return new


def _bridged(points: Points) -> Tensor:
    """The data with a straight line from one end to the other in the place of the middle."""
    y = points.y
    m = y.shape[-1]
    few = max(1, m // EDGE)
    place = torch.linspace(0, 1, m, dtype=y.dtype, device=y.device)
    first, last = y[..., :few].mean(-1, keepdim=True), y[..., -few:].mean(-1, keepdim=True)
    middle = first + (last - first) * place
    inner = torch.arange(m, device=y.device)
    return torch.where((inner >= few) & (inner < m - few), middle, y)


def product(
    whole: "Model", left: "Model", right: "Model", sign: str, points: Points, rules: Rules
) -> Values:
    """Guess the factors of a product or quotient: one on the data, the other on what that leaves.

    Args:
        whole: the product.
        left: factor.
        right: factor, or divisor.
        sign: * or /.
        points: data.
        rules: of the whole.

    Returns:
        Values by name, (...,).
    """
    y, best = points.y, None
    for first, second in ((left, right), (right, left)):
        target = points
        if sign == "/" and first is right:  # what the divisor would be alone
            target = points._replace(y=_divided(torch.ones_like(y), y))
        new = _ruled(first, first._found(target, rules.of(first.names)), points, rules)
        known = curve(first, new, points)
        if sign == "*":
            rest = _divided(y, known)
        else:
            rest = _divided(known, y) if first is left else y * known
        found = {
            **new,
            **_ruled(
                second,
                second._found(points._replace(y=rest), rules.of(second.names)),
                points,
                rules,
            ),
        }
        found = _solved(whole, found, points, rules)
        best = found if best is None else _better(whole, best, found, points)
    assert best is not None  # both orders were tried
    return best


def _divided(top: Tensor, bottom: Tensor) -> Tensor:
    """A quotient, with its mean where it is divided by nearly nothing."""
    size = bottom.abs()
    good = size > SMALL * size.amax(-1, keepdim=True)
    quotient = torch.where(good, top / torch.where(good, bottom, 1.0), 0.0)
    mean = quotient.sum(-1, keepdim=True) / good.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(good, quotient, mean)


def curve(model: "Model", values: Mapping[str, Any], points: Points) -> Tensor:
    """The curve (..., m) of a model at values (...,) by name, without those that are not finite."""
    found = model._curve(points.x, [values[name][..., None] for name in model.names])
    found = torch.as_tensor(found, dtype=points.y.dtype, device=points.y.device)
    return found.expand(points.y.shape).nan_to_num(0.0, 0.0, 0.0)


def _ruled(model: "Model", found: Values, points: Points, rules: Rules) -> Values:
    """What a model has found, complete and within the rules that are about it alone."""
    like = points.y[..., 0]
    full = {
        name: found.get(name, torch.ones_like(like)).to(like).nan_to_num(1.0, 1.0, 1.0)
        for name in model.names
    }
    return rules.of(model.names).within(full, like)


def _cost(whole: "Model", values: Values, points: Points) -> Tensor:
    """The sum of squares (...,) of the data less the curve."""
    return (points.y - curve(whole, values, points)).square().sum(-1)


def _better(whole: "Model", one: Values, other: Values, points: Points) -> Values:
    """Of two guesses for each curve that which is nearer to its data."""
    nearer = _cost(whole, other, points) < _cost(whole, one, points)
    return {name: torch.where(nearer, other[name], one[name]) for name in one}


def _solved(whole: "Model", found: Values, points: Points, rules: Rules) -> Values:
    """A guess with all parameters of which the curve is a linear function solved for.

    Heights that change their sign are not taken: of terms that look alike, least squares makes one
    large and the other negative.
    """
    like = points.y[..., 0]
    found = rules.within(found, like)
    free = [name for name in whole._linear() if name not in rules.fixed and name not in rules.ties]
    if not free:
        return found
    base = {name: torch.zeros_like(v) if name in free else v for name, v in found.items()}
    without = curve(whole, base, points)
    columns = []
    for name in free:
        with_one = {**base, name: torch.ones_like(like)}
        columns.append(curve(whole, with_one, points) - without)
    matrix = torch.stack(columns, -1)
    size = matrix.norm(dim=-2, keepdim=True)
    matrix = matrix / torch.where(size > 0, size, 1.0)
    heights = torch.linalg.pinv(matrix, rtol=1e-6) @ (points.y - without)[..., None]
    heights = heights[..., 0] / torch.where(size > 0, size, 1.0)[..., 0, :]
    solved = {**found, **{name: heights[..., i] for i, name in enumerate(free)}}
    solved = rules.within(solved, like)
    peaks = [name for name in free if name not in _of_backgrounds(whole)]
    turned = torch.zeros_like(like, dtype=torch.bool)
    for name in peaks:
        turned |= solved[name] * found[name] < 0
    chosen = _better(whole, found, solved, points)
    return {name: torch.where(turned, found[name], chosen[name]) for name in found}


def _of_backgrounds(whole: "Model") -> set[str]:
    """The names of parameters of backgrounds, which may have any sign."""
    return {name for term in whole.terms.values() if term.background for name in term.names}
