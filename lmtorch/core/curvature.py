"""Second derivatives of the cost at a point, where the end of a run is looked at."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._autodiff import Curved, Params, hessian, ranges
from .._denormals import denormals_are_zero
from .._symmetric import products_of_last, sums_with, vectors_last
from ..arrays import (
    apply,
    arrays_of,
    diagonal_matrix,
    finite,
    heard,
    inner,
    join,
    joined,
    norm,
    on_numpy,
    quiet,
    sqrt,
    tensor_from,
    to_type,
    transposed,
    where,
    with_type_of,
    zeros,
)
from ..jacobians.base import Bends
from ..losses.base import Loss
from ..recording.outside import outside
from ..residuals.base import Part
from ..rows.base import scale
from .problem import Problem
from .sums import total

FEW = 4  # units of the last digit by which parameters are moved to see how far round-off moves r


@outside
def exact_hessian(problem: Problem, x: Tensor) -> Curved | None:
    """The exact Hessian of F, curvature of the residuals included, and its gradient.

    None where it cannot be had: a black box has none, nor has an operator whose backward pass torch
    cannot differentiate.

    Raises:
        OutOfMemoryError: the memory does not hold it.
    """
    if problem.apart(x):
        found = [
            exact_hessian(problem.take(some), x[some])
            for some in ranges(len(x), problem.together or len(x))
        ]
        known = [one for one in found if one is not None]
        return join(known) if len(known) == len(found) else None
    if problem.across is None:
        return _with_prior(problem, x, _own_hessian(problem, x))

    def own() -> Curved | None:
        return _own_hessian(problem, x)

    def has(mine: Curved | None) -> list[float]:
        return [float(mine is not None)]

    mine, there = problem.across.telling("Hessian", own, has, 1)
    if mine is None or not bool(there.all()):
        return None
    return _with_prior(problem, x, Curved(*problem.across.added(mine)))


def exact_blocks(problem: Problem, x: Tensor, model: Any) -> Any:
    """The exact Hessian and the gradient where points have variables of their own, block by block.

    None where it cannot be had: its source does not give it, or the loss is not that of squares.

    Raises:
        OutOfMemoryError: the memory does not hold it.
    """
    (part,) = problem.residual.parts()
    make = getattr(problem.source, "curvature", None)
    if make is None or part.black_box or problem.loss.expand(model.residual).root is not None:
        return None
    try:
        with problem.residual.replay(), heard(problem.noises):
            found = make(part, problem.residual.params(tensor_from(x)), on_numpy(x))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # torch's word for a derivative that is not implemented
        return None
    prior = model.prior
    gradient = found.gradient + prior.root * prior.residual
    return found._replace(matrix=found.matrix.plus(prior.root), gradient=gradient)


def _own_hessian(problem: Problem, x: Tensor) -> Curved | None:
    """What the rows of this process add to the Hessian and the gradient."""
    params, shares = problem.residual.params(tensor_from(x)), []
    try:
        with problem.residual.replay(), heard(problem.noises):
            for part in problem.residual.parts():
                curved = hasattr(problem.loss_of(part), "curvature")  # a user's own may have none
                share = (
                    _hessian_of(problem, part, params) if curved and not part.black_box else None
                )
                if share is None:
                    return None
                shares.append(share)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # torch's word for a derivative that is not implemented
        return None
    if not shares:  # another process has them
        gradient = to_type(zeros(x), problem.dtype)
        return Curved(diagonal_matrix(gradient), gradient)
    matrices, gradients = zip(*shares, strict=True)
    return Curved(
        *(to_type(with_type_of(total(found), x), problem.dtype) for found in (matrices, gradients))
    )


def _with_prior(problem: Problem, x: Tensor, found: Curved | None) -> Curved | None:
    """The Hessian and the gradient with the prior's share."""
    prior = problem.prior(x)
    if prior is None or found is None:
        return found
    matrix, gradient = found
    return Curved(matrix + diagonal_matrix(prior.root**2), gradient + prior.root * prior.residual)


def _hessian_of(problem: Problem, part: Part, params: Params) -> Curved | None:
    """What the rows of one part add to the Hessian and the gradient."""
    loss = problem.loss_of(part)
    second = getattr(problem.source, "second", None)
    if second is not None:
        found = second(part, params)
        if found is not None:
            return _of_bends(problem, loss, found)

    def residual(point: Params) -> Tensor:
        return problem.source.evaluate(part, point)

    return hessian(residual, params, part.batch, lambda r: loss.expand(r).slope, loss.curvature)


def _of_bends(problem: Problem, loss: Loss, bends: Bends) -> Curved:
    """JᵀWJ + Σ w ∇²r and Jᵀw from the derivatives themselves, w = ℓ′(r) and W = ℓ″(r)."""
    residual, rows, second = bends
    columns = getattr(rows, "columns", None)
    if columns is not None and getattr(loss, "plain", False) and vectors_last(residual):
        return _of_last(residual, columns, second)
    dense: Tensor = rows.dense()
    curved = list(second.values())
    if problem.noises is not None:
        residual, dense = arrays_of((residual, dense))
    # squares of what single precision holds may overflow it
    with quiet(), denormals_are_zero(dense):
        plain = getattr(loss, "plain", False)  # of squares weights are the residuals, and W is one
        weights = residual if plain else to_type(loss.expand(residual).slope, residual.dtype)
        weighed = dense if plain else scale(dense, loss.curvature(residual))
        matrix = transposed(dense) @ weighed
        if on_numpy(residual):  # all of them in one product
            bends_as_rows = [bend[None] for bend in arrays_of(tuple(curved))]
            entries = list(apply(joined(bends_as_rows, 0), weights)) if curved else []
        else:
            entries = [torch.linalg.vecdot(weights, bend) for bend in curved]
        for (i, j), entry in zip(second, entries, strict=True):
            matrix[..., i, j] += entry
            if i != j:
                matrix[..., j, i] += entry
        return Curved((matrix + transposed(matrix)) / 2, apply(transposed(dense), weights))


def _of_last(
    residual: Tensor, columns: Sequence[Tensor | None], second: dict[tuple[int, int], Tensor]
) -> Curved:
    """JᵀJ + Σ r ∇²r and Jᵀr of plain least squares, of many problems that are last in memory.

    Products of whole vectors need no copy of J, nor a kernel's call for each small matrix.
    """
    n = len(columns)
    residual = residual.to(torch.promote_types(residual.dtype, torch.float32))
    products = products_of_last([*columns, residual], residual.dtype)
    matrix, gradient = products[:, :n, :n], products[:, n, :n]
    for (i, j), entry in zip(second, sums_with(residual, list(second.values())), strict=True):
        matrix[:, i, j] += entry
        if i != j:
            matrix[:, j, i] += entry
    return Curved(matrix, gradient)


def residual_curvature(problem: Problem, x: Tensor, size: Tensor) -> Tensor | None:
    """Σ ℓ′ ∇²r, what JᵀWJ leaves out of the Hessian, by differences of the residuals, (..., n, n).

    None where they would leave the box. Steps of ε^¼ times the size (..., n) of the parameters,
    positive, balance truncation and round-off.

    Reference: Nocedal & Wright (2006), §8.1, eq. 8.21.
    """
    step = problem.eps(x) ** 0.25 * size
    if problem.bounds is not None:
        lower, upper = problem.bounds
        if bool(((x - step < lower) | (x + step > upper)).any()):
            return None
    (found,) = problem.summed(
        "curvature of the residuals", lambda: (_second_differences(problem, x, step),)
    )
    return found


def _second_differences(problem: Problem, x: Tensor, step: Tensor) -> Tensor:
    """The same of the rows of this process, by steps (..., n)."""
    n, moves = x.shape[-1], diagonal_matrix(step)
    values = problem.values(x)
    middle = to_type(joined(values, -1), problem.dtype)
    ahead = [_residuals(problem, x + moves[..., i, :]) for i in range(n)]
    weights = to_type(problem.slope(values), problem.dtype)
    found = zeros(to_type(moves, problem.dtype))
    for i in range(n):
        for j in range(i + 1):
            both = -moves[..., i, :] if i == j else moves[..., i, :] + moves[..., j, :]
            far = _residuals(problem, x + both)
            bend = ahead[i] + far - 2 * middle if i == j else far - ahead[i] - ahead[j] + middle
            entry = inner(weights, bend) / to_type(step[..., i] * step[..., j], problem.dtype)
            found[..., i, j] = found[..., j, i] = entry
    return found


def trembling(problem: Problem, x: Tensor) -> Tensor:
    """How far r moves, ‖Δr‖ (...,), when parameters move by a few units of the last digit.

    A black box may be noisier than round-off alone would have it.

    Reference: Moré & Wild, Estimating computational noise (2011).
    """
    moved = x * (1 + FEW * problem.eps(x))
    if problem.bounds is not None:
        moved = to_type(problem.bounds.project(to_type(moved, problem.dtype)), x.dtype)
    if problem.across is None:
        return norm(_apart(problem, x, moved))
    (squares,) = problem.summed(
        "round-off of the residuals", lambda: (norm(_apart(problem, x, moved)) ** 2,)
    )
    return sqrt(squares)


def _apart(problem: Problem, x: Tensor, moved: Tensor) -> Tensor:
    """Differences of the residuals, where they are finite."""
    apart = _residuals(problem, moved) - _residuals(problem, x)
    return where(finite(apart), apart, 0.0)


def _residuals(problem: Problem, x: Tensor) -> Tensor:
    """r(x) of all parts side by side, (..., m)."""
    return to_type(joined(problem.values(x), -1), problem.dtype)
