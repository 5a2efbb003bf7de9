"""Guesses for sums and products: each part on what the others leave, and heights solved for.

    1. backgrounds, from data in which what stands out of them is cut off again and again;
    2. the other terms, one after another, each on the remainder, or each on its share of it;
    3. all parameters in which the curve is linear, by linear least squares;
    4. each term once more on the data without the others, as long as the curve comes nearer;
    5. of guesses with peaks on both sides and on one, where only the first is near, that which is
       nearer when both are corrected (`correcting.py`);
    6. terms of one shape in the order of their places (`places.py`), or, where starts of places are
       given, as those say (`hints.py`).

Every step is kept for those curves of a batch alone that it brings nearer to their data.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from itertools import product as product_of
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .correcting import corrected
from .guessing import Points
from .hints import freed, hinted, meant
from .places import by_place
from .rules import Rules
from .sharing import shares_of

if TYPE_CHECKING:
    from .base import Model

SWEEPS = 3  # how often terms are guessed again
CUTS = 30  # how often what stands out of a background is cut off
OUT = 1.5  # how many standard deviations stand out
EDGE = 8  # a part of 1/8 of the points at each end is nearer to the background than the middle
NORMAL = 1.4826  # from the median of |r| to a standard deviation, for normal r
SECOND = 6**0.5  # from the noise of points to that of their second differences
ENOUGH = 4.0  # a guess with so many times the squares of noise needs no other beside it,
CERTAIN = 1.5  # or with so many, where unlike terms might have changed places
SETTLED = 1.2  # or with so many, where it has peaks and dips on both sides of the background, of
BOTH = 0.3  # which the smaller is at least this part of the larger
MANY = 3  # terms that are not backgrounds up to which all orders are tried, and not two
SMALL = 0.1  # nothing is divided by a factor below this part of its largest value
# what stands out of a background: what is on one side of it, on both, or all but the ends of data
WAYS = ("one side", "both", "ends")

Values = dict[str, Tensor]


def together(terms: "Sequence[Model]", points: Points, rules: Rules) -> Values:
    """Guess the terms of a sum.

    Args:
        terms: its terms; those that are subtracted are negative.
        points: data.
        rules: of the whole.

    Returns:
        Values by name, (...,); none for terms of which nothing is known.
    """
    terms = [term for term in terms if not term._blind]
    some = hinted(terms, rules)
    if not some:
        return by_place(terms, _together(terms, points, rules), rules)
    loose = freed(some, rules)
    free = by_place(terms, _together(terms, points, loose), loose)
    named, near = meant(terms, free, rules)
    squares = _cost(terms, free, points)
    if bool((near & (squares <= ENOUGH * _squares(points))).all()):
        return named
    held = by_place(terms, _together(terms, points, rules), rules)
    better = near & (squares < _cost(terms, held, points))
    return {name: torch.where(better, named[name], held[name]) for name in held}


def _together(terms: "Sequence[Model]", points: Points, rules: Rules) -> Values:
    """The guess that is nearest to the data, whichever of equal terms is which."""
    rules = rules.of([name for term in terms for name in term.names])
    over = [term for term in terms if not term.background] or list(terms)
    under = [term for term in terms if term not in over]
    orders = _orders(over)
    enough = _squares(points) * (ENOUGH if len(orders) == 1 else CERTAIN)
    splits = (False, True) if len(over) > 1 and points.lines else (False,)
    best: Values | None = None
    even: Values | None = None  # the nearest whose peaks are all on one side
    grounds: list[Values] = []
    settled = False
    for way in WAYS if under else WAYS[:1]:
        ground: Values = {}
        rest = points
        for term in under:
            ground.update(_under(term, rest, rules, way))
            rest = rest.remainder(curve([term], ground, rest))
        if any(_same(ground, other) for other in grounds):
            continue  # another way has come to the same
        grounds.append(ground)
        for order, split in product_of(orders, splits):
            found = {**ground, **_first(order, rest, rules, split)}
            found = _again([*under, *order], found, points, rules)
            best = found if best is None else _better(terms, best, found, points)
            even = found if even is None else _more_even(terms, over, even, found, points)
            squares = _cost(terms, best, points)
            odd = _odd(over, best)
            if not settled and bool((odd & (squares <= enough)).any()):
                settled = True  # is asked once: it costs as much as a guess
                best, clear = _settled(terms, over, best, points, rules)
                odd = odd & ~clear
            if bool(((squares <= enough) & ~odd).all()):
                return best
    return {} if best is None or even is None else _evened(terms, over, best, even, points, rules)


def _odd(over: "Sequence[Model]", values: Values) -> Tensor:
    """Whether some terms are peaks and others dips, (...,)."""
    heights = [values[name] for term in over for name in term._linear()]
    if not heights:
        return torch.zeros_like(next(iter(values.values())), dtype=torch.bool)
    signs = torch.stack(heights, -1).sign()
    return (signs > 0).any(-1) & (signs < 0).any(-1)


def _settled(
    terms: "Sequence[Model]", over: "Sequence[Model]", best: Values, points: Points, rules: Rules
) -> tuple[Values, Tensor]:
    """A guess with peaks and dips, corrected, and where it is clear that there are both, (...,).

    They are seen on both sides of the background, and nothing but noise is left: a guess with all
    of them on one side cannot come nearer.
    """
    near = corrected(best, lambda values: curve(terms, values, points), points.y, rules)
    found = curve(over, near, points)
    sides = torch.stack([found.amax(-1), -found.amin(-1)])
    clear = sides.amin(0) >= BOTH * sides.amax(0)
    clear = clear & (_cost(terms, near, points) <= SETTLED * _squares(points))
    return {name: torch.where(clear, near[name], best[name]) for name in best}, clear


def _more_even(
    terms: "Sequence[Model]",
    over: "Sequence[Model]",
    one: Values,
    other: Values,
    points: Points,
) -> Values:
    """Of two guesses that with all peaks on one side; of two such the nearer."""
    nearer = _cost(terms, other, points) < _cost(terms, one, points)
    first, second = _odd(over, one), _odd(over, other)
    chosen = ~second & (first | nearer)
    return {name: torch.where(chosen, other[name], one[name]) for name in one}


def _evened(
    terms: "Sequence[Model]",
    over: "Sequence[Model]",
    best: Values,
    even: Values,
    points: Points,
    rules: Rules,
) -> Values:
    """The nearest guess, or that with all peaks on one side if it comes nearer when corrected.

    A broad peak with a narrow dip on it looks like two peaks, and a fit does not come from the one
    to the other; which of them is meant is seen when neither is rough any more.
    """
    unsure = _odd(over, best) & ~_odd(over, even)
    if not bool(unsure.any()):
        return best

    def at(values: Values) -> Tensor:
        return curve(terms, values, points)

    odd, even = (corrected(one, at, points.y, rules) for one in (best, even))
    chosen = unsure & (_cost(terms, even, points) < _cost(terms, odd, points))
    return {name: torch.where(chosen, even[name], best[name]) for name in best}


def _orders(terms: "list[Model]") -> "list[tuple[Model, ...]]":
    """The orders in which terms are guessed; that of equal shapes makes no difference."""
    found: dict[tuple[Any, ...], tuple[Model, ...]] = {}
    for order in permutations(terms) if len(terms) <= MANY else (tuple(terms), tuple(terms[::-1])):
        found.setdefault(tuple(type(term) for term in order), order)
    return list(found.values())


def _noise(y: Tensor) -> Tensor:
    """The standard deviation of noise (...,), from second differences, which a curve has not."""
    if y.shape[-1] <= 2:  # of which there are none
        return torch.zeros_like(y[..., 0])
    return NORMAL / SECOND * y.diff(n=2).abs().median(-1).values


def _squares(points: Points) -> Tensor:
    """The sum of squares of the noise (...,)."""
    return _noise(points.y).square() * points.y.shape[-1]


def _first(order: "Sequence[Model]", rest: Points, rules: Rules, split: bool) -> Values:
    """Guess the terms on a background, one after another, or side by side."""
    found: Values = {}
    shares = shares_of(rest, len(order)) if split else [None] * len(order)
    for term, share in zip(order, shares, strict=True):
        part = rest if share is None else rest._replace(y=share * rest.y)
        found.update(_alone(term, part, rest, rules))
        if share is None:
            rest = rest.remainder(curve([term], found, rest))
    return found


def _again(terms: "Sequence[Model]", found: Values, points: Points, rules: Rules) -> Values:
    """Guess each term again on the data without the others, as long as that brings them nearer."""
    found = _solved(terms, found, points, rules)
    for _ in range(SWEEPS):
        again = dict(found)
        for term in terms:
            others = [other for other in terms if other is not term]
            rest = points.remainder(curve(others, again, points))
            again.update(_alone(term, rest, points, rules))
        again = _solved(terms, again, points, rules)
        if not bool((_cost(terms, again, points) < _cost(terms, found, points)).any()):
            break
        found = _better(terms, found, again, points)
    return found


def _under(term: "Model", points: Points, rules: Rules, way: str) -> Values:
    """Guess a background: what stands out of it is replaced by it, until nothing does.

    Reference: Lieber & Mahadevan-Jansen, Automated method for subtraction of fluorescence from
        biological Raman spectra (2003), for a polynomial and peaks.
    """
    y = points.y
    first = points._replace(y=_bridged(points)) if way == "ends" else points
    new = _alone(term, first, points, rules)
    noise = _noise(y)[..., None]
    rest = y - curve([term], new, points)
    up = rest.pow(3).sum(-1, keepdim=True) >= 0
    for _ in range(CUTS):
        level = curve([term], new, points)
        if way == "one side":
            cut = torch.where(up, y.minimum(level + noise), y.maximum(level - noise))
        else:
            rest = (y - level).abs()
            scale = OUT * NORMAL * rest.median(-1, keepdim=True).values
            cut = torch.where(rest > scale, level, y)
        last, new = new, _alone(term, points._replace(y=cut), points, rules)
        if _same(new, last):
            break
    return new


def _alone(term: "Model", points: Points, like: Points, rules: Rules) -> Values:
    """What a term guesses from points that are taken for its own, within its rules."""
    return _ruled(term, term._found(points, rules.of(term.names)), like, rules)


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
    y, best, terms = points.y, None, [whole]
    for first, second in ((left, right), (right, left)):
        target = points
        if sign == "/" and first is right:  # what the divisor would be alone
            target = points._replace(y=_divided(torch.ones_like(y), y))
        new = _alone(first, target, points, rules)
        known = curve([first], new, points)
        if sign == "*":
            rest = _divided(y, known)
        else:
            rest = _divided(known, y) if first is left else y * known
        found = {
            **new,
            **_alone(second, points._replace(y=rest), points, rules),
        }
        found = _solved(terms, found, points, rules)
        best = found if best is None else _better(terms, best, found, points)
    assert best is not None  # both orders were tried
    return best


def _divided(top: Tensor, bottom: Tensor) -> Tensor:
    """A quotient, with its mean where it is divided by nearly nothing."""
    size = bottom.abs()
    good = size > SMALL * size.amax(-1, keepdim=True)
    quotient = torch.where(good, top / torch.where(good, bottom, 1.0), 0.0)
    mean = quotient.sum(-1, keepdim=True) / good.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(good, quotient, mean)


def curve(terms: "Sequence[Model]", values: Mapping[str, Any], points: Points) -> Tensor:
    """The sum (..., m) of terms at values (...,) by name, without numbers that are not finite."""
    whole = torch.zeros_like(points.y)
    for term in terms:
        found = term._curve(points.x, [values[name][..., None] for name in term.names])
        whole = whole + torch.as_tensor(found, dtype=whole.dtype, device=whole.device)
    return whole.nan_to_num(0.0, 0.0, 0.0)


def _ruled(model: "Model", found: Values, points: Points, rules: Rules) -> Values:
    """What a model has found, complete and within the rules that are about it alone."""
    like = points.y[..., 0]
    full = {
        name: found.get(name, torch.ones_like(like)).to(like).nan_to_num(1.0, 1.0, 1.0)
        for name in model.names
    }
    return rules.of(model.names).within(full, like)


def _cost(terms: "Sequence[Model]", values: Values, points: Points) -> Tensor:
    """The sum of squares (...,) of the data less the curve."""
    return (points.y - curve(terms, values, points)).square().sum(-1)


def _same(one: Values, other: Values) -> bool:
    """Whether two guesses are equal, to the last digit."""
    return all(torch.equal(one[name], other[name]) for name in one)


def _better(terms: "Sequence[Model]", one: Values, other: Values, points: Points) -> Values:
    """Of two guesses for each curve that which is nearer to its data."""
    nearer = _cost(terms, other, points) < _cost(terms, one, points)
    return {name: torch.where(nearer, other[name], one[name]) for name in one}


def _solved(terms: "Sequence[Model]", found: Values, points: Points, rules: Rules) -> Values:
    """A guess with all parameters of which the curve is a linear function solved for.

    Heights that change their sign are not taken: of terms that look alike, least squares makes one
    large and the other negative.
    """
    like = points.y[..., 0]
    found = rules.within(found, like)
    free = [
        name
        for term in terms
        for name in term._linear()
        if name not in rules.fixed and name not in rules.ties
    ]
    if not free:
        return found
    base = {name: torch.zeros_like(v) if name in free else v for name, v in found.items()}
    without = curve(terms, base, points)
    columns = []
    for name in free:
        with_one = {**base, name: torch.ones_like(like)}
        columns.append(curve(terms, with_one, points) - without)
    matrix = torch.stack(columns, -1)
    size = matrix.norm(dim=-2, keepdim=True)
    matrix = matrix / torch.where(size > 0, size, 1.0)
    heights = torch.linalg.pinv(matrix, rtol=1e-6) @ (points.y - without)[..., None]
    heights = heights[..., 0] / torch.where(size > 0, size, 1.0)[..., 0, :]
    solved = {**found, **{name: heights[..., i] for i, name in enumerate(free)}}
    solved = rules.within(solved, like)
    peaks = [name for name in free if name not in _of_backgrounds(terms)]
    turned = torch.zeros_like(like, dtype=torch.bool)
    for name in peaks:
        turned |= solved[name] * found[name] < 0
    chosen = _better(terms, found, solved, points)
    return {name: torch.where(turned, found[name], chosen[name]) for name in found}


def _of_backgrounds(terms: "Sequence[Model]") -> set[str]:
    """The names of parameters of backgrounds, which may have any sign."""
    return {name for term in terms if term.background for name in term.names}
