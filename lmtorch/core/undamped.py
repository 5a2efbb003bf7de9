"""What is seen at a point without damping: curvature, and what the quadratic model still promises.

Parameters are measured in units in which every curvature is at most about one. The curvature is
that of the exact Hessian of the cost, by reverse mode twice, where it can be had and agrees with J;
elsewhere JᵀJ, and where that leaves a doubt about a black box, with differences of second order.

Reference: Boyd & Vandenberghe, Convex optimization (2004), §9.5.1, on the Newton decrement.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..jacobians.base import GROSS
from ..linearizations.base import Linearization
from .curvature import exact_hessian, residual_curvature, trembling
from .influence import FINE_ENOUGH, ROUNDINGS, Looked
from .method import Method
from .problem import Problem
from .state import State

# parameters up to which the Hessian is made: each takes a reverse pass through the gradient
EXACT = 64
ENTRIES = 2**24  # entries of the Jacobian up to which the Hessian is made
# parameters up to which a black box is asked for second differences: (n + 1)(n + 2)/2 evaluations
DIFFERENCED = 8


class Undamped(NamedTuple):
    """What is seen at a point, without damping."""

    cost: Tensor  # (...,)
    gradient: Tensor  # (..., n), of the variables that may move
    units: Tensor  # (..., n): in them every curvature is at most about one
    noise: Tensor  # (...,), rounding error of the cost
    decrement: Tensor  # (...,), in units of the cost; infinite where nothing can be said
    lowest: Tensor  # (...,), smallest curvature
    downward: Tensor  # (..., n), the direction of it, of length one in the units
    newton: Tensor  # (..., n), step to the minimum of the quadratic model
    blind: Tensor  # (...,) bool: a curvature is below the round-off of single precision
    flat: Tensor  # (...,) bool: gradient and curvature are zero
    exact: Tensor  # (...,) bool: the curvature is that of the exact Hessian
    norms: Tensor  # (..., n), ‖J e_j‖ of all variables
    looked: Looked  # what influence is judged by

    @property
    def promise(self) -> Tensor:
        """The decrement as a share of the cost, (...,); zero where both are."""
        return torch.where(self.decrement > 0, self.decrement / self.cost, 0.0)


def examine(problem: Problem, method: Method, state: State, *, doubted: bool = False) -> Undamped:
    """Look at the point where a run has ended; more closely if a first look has left a doubt."""
    x = state.x
    whole = problem.model(x)
    free = problem.free(x, whole.gradient)
    model = whole.freeze(free)
    wide = x.to(problem.dtype)
    length = (2 * model.cost).sqrt().to(problem.dtype)[..., None]  # ‖r‖, (..., 1)
    size = torch.maximum(x.abs(), state.begun.x.abs())
    size = torch.where(size > 0, size, 1.0)
    matrix, exact = _curvature(problem, x, whole, length, size, doubted)
    matrix = torch.where(free[..., :, None] & free[..., None, :], matrix, 0.0)

    diagonal = matrix.diagonal(dim1=-2, dim2=-1).abs()
    units = torch.maximum(model.column_norms, diagonal.sqrt())
    units = torch.where(units > 0, units, 1.0)
    scaled = matrix / units[..., :, None] / units[..., None, :]
    slope = model.gradient / units
    finite = scaled.isfinite().all(-1).all(-1) & slope.isfinite().all(-1)
    identity = torch.eye(x.shape[-1], dtype=scaled.dtype, device=x.device)
    values, vectors = torch.linalg.eigh(torch.where(finite[..., None, None], scaled, identity))

    eps = problem.eps(x)
    along = (vectors.mT @ slope[..., None])[..., 0]
    error = _column_error(problem, method, model, wide)
    unclear = ROUNDINGS * eps * carried(model, wide)[..., None] + length * (
        ROUNDINGS * method.slopes + error / units
    )
    unclear = (vectors.square().mT @ unclear.square()[..., None])[..., 0].sqrt()
    along = torch.where(along.abs() > unclear, along, 0.0)
    floor = ROUNDINGS * x.shape[-1] * max(eps, torch.finfo(problem.dtype).eps)
    # a curvature within round-off has no sign
    lowest = torch.where(values[..., 0].abs() <= floor, 0.0, values[..., 0])
    decrement = (along.square() / values.abs().clamp(min=floor)).sum(-1).to(model.cost.dtype) / 2
    newton = (
        -(vectors @ torch.where(values > floor, along / values, 0.0)[..., None])[..., 0] / units
    )
    noise = model.rounding(wide, eps)
    if doubted:
        noise = torch.maximum(noise, length[..., 0] * trembling(problem, x))
    remains = finite & (model.cost > ROUNDINGS * noise)
    looked = Looked(
        model.cost,
        noise,
        length,
        model.column_norms,
        error,
        diagonal,
        values,
        vectors,
        floor,
        free,
        remains,
    )
    return Undamped(
        cost=model.cost,
        gradient=model.gradient,
        norms=whole.column_norms,
        units=units,
        noise=noise,
        decrement=torch.where(finite, decrement, torch.inf),
        lowest=torch.where(finite, lowest, -torch.inf).to(model.cost.dtype),
        downward=(vectors[..., 0] / units).to(x.dtype),
        newton=torch.where(finite[..., None], newton, 0.0),
        blind=remains & ((values <= floor).sum(-1) > (~free).sum(-1)) & (eps > FINE_ENOUGH),
        flat=(matrix == 0).all(-1).all(-1) & (model.gradient == 0).all(-1) & free.any(-1),
        exact=exact,
        looked=looked,
    )


def carried(model: Linearization, x: Tensor) -> Tensor:
    """‖r‖ + ‖J∘x‖, (...,): rounding x and r costs an entry of the scaled gradient ε times that."""
    length = (2 * model.cost).sqrt().to(x.dtype)
    return length + torch.linalg.vector_norm(model.column_norms * x, dim=-1)


def _column_error(problem: Problem, method: Method, model: Linearization, x: Tensor) -> Tensor:
    """How large the error of a column is, (..., n): zero but for finite differences.

    A column that ought to vanish consists of this error alone.
    """
    if not method.slopes:
        return torch.zeros_like(x)
    return ROUNDINGS * method.slopes * carried(model, x)[..., None] / problem.sizes(x)


def _curvature(
    problem: Problem, x: Tensor, model: Linearization, length: Tensor, size: Tensor, doubted: bool
) -> tuple[Tensor, Tensor]:
    """The exact Hessian (..., n, n) if it can be had and agrees with J, else JᵀJ; and which it is.

    For a black box JᵀJ is all there is at first; where it leaves a doubt, differences of second
    order are added.
    """
    normal = model.normal
    n = x.shape[-1]
    found = (
        exact_hessian(problem, x) if n <= EXACT and n * problem.residual.rows <= ENTRIES else None
    )
    if found is None:
        second = residual_curvature(problem, x, size) if doubted and n <= DIFFERENCED else None
        if second is not None:
            # an entry that may be no more than the round-off of its differences is left out
            effect = second.abs() * size[..., :, None] * size[..., None, :]
            noise = ROUNDINGS * problem.eps(x) ** 0.5 * length
            noise = noise * carried(model, x.to(problem.dtype))[..., None]
            normal = normal + torch.where(effect > noise[..., None], second, 0.0)
        return normal, torch.zeros_like(model.cost, dtype=torch.bool)
    # a source of derivatives that is not torch's own may see what torch does not
    norms = torch.where(model.column_norms > 0, model.column_norms, 1.0)
    apart = ((found.gradient - model.gradient) / norms).abs().amax(-1, keepdim=True)
    exact = (found.matrix.isfinite().all(-1).all(-1)) & (apart <= GROSS * length)[..., 0]
    return torch.where(exact[..., None, None], found.matrix, normal), exact
