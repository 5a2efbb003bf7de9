"""How the residuals bend along a step: the second derivative that geodesic acceleration asks for.

Along v the residuals are r + J v t + ½ r_vv t², and what the acceleration needs is Jᵀ W r_vv, with
the curvature W = RᵀR of the loss; or R r_vv, where the equations are solved in the space of
residuals.

Reference: Transtrum & Sethna, Improvements to the Levenberg–Marquardt algorithm (2012), §III.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._autodiff import Params
from ..jacobians.base import Bending, pull
from ..linearizations.base import Linearization
from ..residuals.base import Part
from ..rows.base import scale_each
from .problem import Problem
from .sums import total

SHORTEST = 0.1  # a difference is taken over this share of the step at least


def second_order(
    problem: Problem,
    x: Tensor,  # (..., n)
    direction: Tensor,  # (..., n), v
    known: Linearization | None = None,  # at x: its residuals and rows are not asked for again
) -> Tensor:
    """Jᵀ W r_vv, (..., n)."""
    if problem.across is None:
        return _second_order(problem, x, direction, known)
    # the rows that the linear model knows, if any, are those of all processes
    (found,) = problem.summed("bend", lambda: (_second_order(problem, x, direction, None),))
    return found


def of_rows(problem: Problem, known: Linearization) -> bool:
    """Whether a linearization knows all rows that a bend has entries for, and their residuals."""
    return problem.across is None and known.rows is not None and known.values is not None


def row_bends(
    problem: Problem,
    x: Tensor,  # (..., n)
    direction: Tensor,  # (..., n), v
    known: Linearization,  # at x, with rows and values
) -> Tensor:
    """R r_vv, (..., m), as the rows of the linear model come."""
    assert known.values is not None
    bends = _bends(problem, x, direction, known)
    return _weighted(problem, known.values, bends)


def _bends(
    problem: Problem, x: Tensor, direction: Tensor, known: Linearization | None
) -> list[Tensor]:
    """r_vv of each part."""
    along = direction.to(x.dtype)
    bends = None if problem.differences else _by_forward_mode(problem, x, along)
    if bends is None:
        bends = _by_differences(problem, x, along, None if known is None else known.values)
    return bends


def _second_order(
    problem: Problem, x: Tensor, direction: Tensor, known: Linearization | None
) -> Tensor:
    """Jᵀ W r_vv of the rows of this process."""
    if known is not None and known.rows is not None and known.values is not None:
        return known.rows.transposed_times(row_bends(problem, x, direction, known))
    bends = _bends(problem, x, direction, known)
    params = problem.residual.params(x)
    with problem.residual.replay():
        pairs = zip(problem.residual.parts(), bends, strict=True)
        shares = [_pulled_back(problem, part, params, bend) for part, bend in pairs]
    return total(shares) if shares else torch.zeros_like(direction)


def _pulled_back(problem: Problem, part: Part, params: Params, bend: Tensor) -> Tensor:
    """Jᵀ W r_vv of one part, (..., n), by one more evaluation, whose graph is left behind."""
    values, along = pull(problem.source, part, params)
    if part.weight != 1:
        bend = part.weight * bend
    root = problem.loss_of(part).expand(values).root
    return along(bend if root is None else _twice(bend, root)).to(problem.dtype)


def _weighted(problem: Problem, values: Sequence[Tensor], bends: Sequence[Tensor]) -> Tensor:
    """R r_vv of all parts, (..., m), in the dtype of the linear algebra."""
    parts = list(problem.residual.parts())
    roots = [
        problem.loss_of(part).expand(value).root for part, value in zip(parts, values, strict=True)
    ]
    # the rows are scaled by the root of what they stand for already
    bends = [
        b if part.weight == 1 else b * part.weight**0.5
        for part, b in zip(parts, bends, strict=True)
    ]
    pairs = zip(bends, roots, strict=True)
    scaled = [
        b.to(problem.dtype) if r is None else scale_each(b.to(problem.dtype), r.to(problem.dtype))
        for b, r in pairs
    ]
    return torch.cat(scaled, -1)


def _twice(bend: Tensor, root: Tensor) -> Tensor:
    """W r_vv = RᵀR r_vv, (..., m)."""
    root = root.to(bend.dtype)
    if root.ndim <= bend.ndim:
        return bend * root.square()
    return scale_each(scale_each(bend, root), root.mT)


def _by_forward_mode(problem: Problem, x: Tensor, along: Tensor) -> list[Tensor] | None:
    """r_vv of each part by forward mode twice; None if forward mode is missing or wrong."""
    if not isinstance(problem.source, Bending):
        return None
    params, tangents = problem.residual.params(x), problem.residual.params(along)
    bends = []
    with problem.residual.replay():
        for part in problem.residual.parts():
            bend = None if part.black_box else problem.source.bend(part, params, tangents)
            if bend is None:
                return None
            bends.append(bend)
    return bends


def _by_differences(
    problem: Problem, x: Tensor, along: Tensor, known: Sequence[Tensor] | None
) -> list[Tensor]:
    """r_vv of each part by a central difference; zero where it would leave the box.

    It is taken over a tenth of the step, whose bend is wanted, but over no less than what still
    resolves: ε^¼ of the size of the parameters, whose square is ε^½.
    """
    middle = problem.values(x) if known is None else known
    eps = max(torch.finfo(t.dtype).eps for t in (x, *middle))
    size, length = (torch.linalg.vector_norm(t, dim=-1) for t in (x, along))
    inside = length > 0
    share = eps**0.25 * size.clamp(min=1) / torch.where(inside, length, 1)
    h = share.clamp(min=SHORTEST)  # (...,)
    if problem.bounds is not None:
        reach = h[..., None] * along.abs()
        lower, upper = problem.bounds
        inside &= ((x - reach >= lower) & (x + reach <= upper) | (reach == 0)).all(-1)
    step = torch.where(inside, h, 0.0)[..., None] * along
    ahead, behind = problem.values(x + step), problem.values(x - step)
    square = h[..., None].square()
    triples = zip(ahead, middle, behind, strict=True)
    return [(a - 2 * r + b) / square.to(r.dtype) for a, r, b in triples]
