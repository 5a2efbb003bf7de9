"""A first look at where many small fits have ended, that most of them pass.

It asks what the certificate asks (core/certificate.py), and proves the answers without an
eigendecomposition of each Hessian: L D Lᵀ of the scaled Hessian less a margin has positive pivots
only if all curvatures exceed the margin; it gives the decrement and Newton's steps, too; and a
parameter whose column moves the residuals by more than a small share has not lost its influence.
What does not pass is looked at in full.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .._triangles import LARGEST, Triangle, dot, side_by_side
from ..arrays import nowhere, select
from ..jacobians.base import GROSS
from ..linearizations.base import Linearization, rounding_of_cost
from .allowance import allowance
from .certificate import CHANGE, FALL, JUDGED, LOWEST, MINIMUM, NEWTON
from .columns_of_roundoff import below, short
from .curvature import exact_hessian
from .influence import DEAD, ROUNDINGS
from .method import Method
from .polish import fine
from .problem import Problem
from .state import State, blank
from .termination import at_rest
from .undamped import carried
from .working_set import WorkingSet


class Glance(NamedTuple):
    """What a glance has found."""

    state: State
    sure: Tensor  # (b,) bool: certified as the full look would have it
    model: Linearization | None = None  # at the end, without what may not move; None: not made


class Point(NamedTuple):
    """The linear model at a point, as the certificate measures it."""

    model: Linearization
    decrement: Tensor  # (b,), in units of the cost; zero where it may be round-off
    promised: Tensor  # (b,), the same with what may be round-off
    length: Tensor  # (b,), ‖g‖ in the units
    noise: Tensor  # (b,), rounding error of the cost


def quick(method: Method, state: State) -> bool:
    """Whether a glance is of use: many small problems, with derivatives of torch's own."""
    x = state.x
    return method.careful is not None and x.ndim == 2 and x.shape[-1] <= LARGEST


def glance(problem: Problem, method: Method, state: State, trials: int | None = None) -> Glance:
    """Certify the problems of a batch that are at a minimum beyond doubt, after Newton steps.

    No problem makes more than `trials`, with those of its run; None: any.
    """
    judged, count = at_rest(state.status, JUDGED, None)
    state = state._replace(certificate=blank(state.x))
    nobody = Glance(state, torch.zeros_like(judged))
    if count == 0:
        return nobody
    working = WorkingSet(state)
    whole = nobody.sure
    problem, method, state, (judged, whole) = working.thin(
        problem, method, state, judged, count, (judged, whole)
    )
    found = view(problem, method, state, judged, trials)
    if found is None:
        return nobody
    state, sure, _ = found
    places = working.places
    if places is None:
        return Glance(working.all(state), sure)
    return Glance(working.all(state), nobody.sure.index_copy(0, places, sure))


def view(
    problem: Problem, method: Method, state: State, judged: Tensor, trials: int | None = None
) -> Glance | None:
    """The problems that are `judged` (b,) certified, if they are at a minimum beyond doubt.

    None where there is no exact Hessian.
    """
    found = exact_hessian(problem, state.x)
    if found is None:
        return None
    seen = _View(problem, method, state, found.matrix, found.gradient)
    state, point = seen.newton(state, judged, trials)
    sure = judged & seen.sure & seen.nothing(point)
    promise = torch.where(point.promised > 0, point.promised / point.model.cost, 0.0)
    certificate = state.certificate._replace(
        promise=torch.where(sure, promise, torch.nan),
        lowest=torch.where(sure, seen.margin.to(promise.dtype), torch.nan),
    )
    status = torch.where(sure & (state.status <= 0), MINIMUM, state.status)
    return Glance(state._replace(status=status, certificate=certificate), sure, point.model)


class _View:
    """The scaled Hessian of each problem, and what can be proved with it.

    Args:
        problem: what is minimised.
        method: how.
        state: where its runs have ended.
        matrix: the exact Hessians (b, n, n) there.
        gradient: the gradients (b, n) that come with them.
    """

    def __init__(
        self, problem: Problem, method: Method, state: State, matrix: Tensor, gradient: Tensor
    ) -> None:
        self.problem, self.method = problem, method
        x = state.x
        whole = problem.model(x)
        self.free = problem.free(x, whole.gradient)
        self.bounded = problem.bounds is not None
        model = whole.freeze(self.free) if self.bounded else whole
        self.eps = problem.eps(x)
        self.precision = problem.precision or x.dtype
        reach = torch.maximum(x.abs(), state.begun.x.abs())
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        units = torch.maximum(model.column_norms, diagonal.abs().sqrt())
        self.units = torch.where(units > 0, units, 1.0)
        inverse = self.units.reciprocal()
        self.inverse = inverse
        n = x.shape[-1]
        scaled = [
            [matrix[..., i, j] * inverse[..., i] * inverse[..., j] for j in range(i + 1)]
            for i in range(n)
        ]
        if self.bounded:  # what may not move takes no part
            for i in range(n):
                for j in range(i + 1):
                    both = self.free[..., i] & self.free[..., j]
                    scaled[i][j] = torch.where(both, scaled[i][j], 1.0 if i == j else 0.0)
        self.triangle = Triangle(scaled, [row[-1] for row in scaled])
        self.first = self.measure(model, x)
        promised = (self.first.decrement / model.cost).clamp(min=0).sqrt()
        least = max(LOWEST, 2 * ROUNDINGS * n * self.eps)
        self.margin = torch.clamp(CHANGE * promised, min=least).nan_to_num(nan=1.0)
        less = Triangle(scaled, [row[-1] - self.margin for row in scaled])
        length = (2 * model.cost).sqrt().to(units.dtype)[..., None]
        norms = torch.where(whole.column_norms > 0, whole.column_norms, 1.0)
        agree = ((gradient - whole.gradient).abs() <= GROSS * length * norms).all(-1)
        heard = model.column_norms * reach > DEAD * length
        if not nowhere(below(problem, x, model)):
            heard = heard & ~short(problem, x, model, state.begun)
        heard = heard | ~self.free
        self.sure = agree & heard.all(-1)
        for pivot in less.pivots:
            self.sure = self.sure & (pivot > 0)

    def measure(self, model: Linearization, x: Tensor) -> Point:
        """The decrement at a point from its gradient; zero where that is within round-off."""
        wide = x.to(self.problem.dtype)
        slope = (model.gradient * self.inverse).unbind(-1)
        squared = dot(slope, slope)
        unclear = ROUNDINGS * self.eps * carried(model, wide)
        promised = self.triangle.quadratic(slope).to(model.cost.dtype) / 2
        decrement = torch.where(squared <= unclear.square(), 0.0, promised)
        noise = rounding_of_cost(model, wide, self.eps)
        return Point(model, decrement, promised, squared.sqrt(), noise)

    def newton(self, state: State, judged: Tensor, trials: int | None) -> tuple[State, Point]:
        """The state after steps with the Hessian of the first point, while the gradient falls."""
        point, problem = self.first, self.problem
        least = fine(torch.finfo(state.x.dtype).eps)
        moving = judged & self.sure
        for _ in range(min(NEWTON, self.method.polish)):
            moving = moving & (point.decrement > least * point.model.cost)
            if trials is not None:
                moving = moving & (state.trials < trials)
            # while a trace is made there is nothing to read
            if not (torch.compiler.is_compiling() or bool(moving.any())):
                break
            slope = (point.model.gradient * self.inverse).unbind(-1)
            step = side_by_side(self.triangle.solve(slope)) * -self.inverse
            trial = problem.move(state.x, torch.where(moving[..., None], step, 0.0))
            ahead = problem.model(trial)
            if self.bounded:  # with others free, it would be another Hessian
                moving = moving & (problem.free(trial, ahead.gradient) == self.free).all(-1)
                ahead = ahead.freeze(self.free)
            after = self.measure(ahead, trial)
            better = moving & (after.length <= FALL * point.length)
            better = better & (ahead.cost <= point.model.cost + ROUNDINGS * point.noise)
            state = state._replace(
                x=select(better, trial, state.x),
                cost=torch.where(better, ahead.cost, state.cost),
                trials=state.trials + moving,
                linearizations=state.linearizations + moving,
            )
            point = select(better, after, point)
            moving = better
        return state, point

    def nothing(self, point: Point) -> Tensor:
        """Whether the model of second order promises nothing worth the while, (b,) bool.

        What may be round-off is for the full look to tell: it asks the rows of J.
        """
        return (
            point.promised <= allowance(self.method.tolerances, self.precision) * point.model.cost
        )
