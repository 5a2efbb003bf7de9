"""Conjugate gradients on JᵀJ + λD²: no matrix, two products an iteration, steps as good as needed.

How far a step is solved for follows from how far the point is from a stationary one: far away a
rough step is as good as an exact one, near the end the rate of convergence depends on it. With D²
as the preconditioner the step at λ = 0 is the shortest in D, as for the other solvers.

References: Hestenes & Stiefel, Methods of conjugate gradients for solving linear systems (1952);
Dembo, Eisenstat & Steihaug, Inexact Newton methods (1982), for the forcing term; Nocedal & Wright
(2006), §7.1; Nash & Sofer, Assessing a search direction within a truncated-Newton method (1990),
for the gain of an iteration beside the average.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from .._errors import InputError
from ..arrays import inner, where
from ..linearizations.base import optimality
from ..linearizations.products import ByProducts, ProductsForm
from .base import length_by_solving
from .preconditioners import Divide, Preconditioner, Prepared, Scales
from .row_sample import RowSample, known

LOOSEST = 0.1  # share of the right-hand side that may be left, far from a stationary point
DRIFT = 20  # iterations from which the remainder of the recursion is looked at anew
RENEWED = 2  # times that the remainder is computed anew, and the search begun again if it must be
PATIENCE = 10  # iterations after which a better preconditioner is asked for
WINDOW = 10  # part of the iterations, the last ones, whose gain is held against the average
LOOK = 10  # iterations between looks at whether all is done, where to look waits for the device


@dataclass(frozen=True)
class ConjugateGradients:
    """The damped equations by products, for what is too large for a matrix.

    Args:
        forcing: η, the share of the right-hand side that may be left, in the norm of D⁻¹. An
            iteration that gains less than 10 η² of the average one is the last as well. Default:
            the square root of the largest cosine between residuals and columns, 0.1 at most.
        iterations: of one solution at most. What has been found until then is the step, which
            lowers the linear model as every iterate does.
        preconditioner: what is divided by, see `preconditioners` and `row_sample`. Default: some of
            the rows, where rows or their factors are known, otherwise D².

    Raises:
        InputError: a preconditioner that is none.
    """

    forcing: float | None = None
    iterations: int = 250
    preconditioner: Preconditioner | None = None
    form: ProductsForm = ProductsForm()
    exact_at_zero: ClassVar[bool] = False

    def __post_init__(self) -> None:
        given: Any = self.preconditioner
        if isinstance(given, type) or not (given is None or hasattr(given, "prepare")):
            raise InputError(
                f"preconditioner={given!r} is none: pass an object with `prepare`, "
                "such as Jacobi(), Nystrom(), RowSample() or KroneckerFactors() of lmtorch.solvers."
            )

    def factor(self, linearization: ByProducts, scale: Tensor) -> "Iteration":
        """Nothing is factored: only the forcing term belongs to the point."""
        if self.forcing is None:
            cosine = optimality(linearization).to(scale.dtype)
            forcing = cosine.sqrt().clamp(torch.finfo(scale.dtype).eps, LOOSEST)
        else:
            forcing = torch.full_like(linearization.cost, self.forcing, dtype=scale.dtype)
        chosen = self.preconditioner
        if chosen is None:
            chosen = RowSample() if known(linearization) else Scales()
        prepared = chosen.prepare(linearization, scale)
        return Iteration(linearization, scale, prepared, forcing, self.iterations)


class Enough(NamedTuple):
    """When to stop, (...,) each."""

    size: Tensor  # ‖remainder‖² in the norm of 1/weight
    share: Tensor  # gain of an iteration over the average of all so far


class Iteration:
    """The equations at one point, and the step of the last λ, from which that of the next begins.

    Args:
        model: the linear model.
        scale: D, (..., n).
        forcing: (...,), see `ConjugateGradients`.
        limit: iterations at most.
    """

    def __init__(
        self, model: ByProducts, scale: Tensor, prepared: Prepared, forcing: Tensor, limit: int
    ) -> None:
        self.model, self.scale, self.prepared = model, scale, prepared
        self.forcing, self.limit = forcing, limit
        self.last: tuple[Tensor, Tensor] | None = None

    def step(self, damping: Tensor) -> Tensor:
        """p(λ), (..., n)."""
        if self.last is None or self.last[0] is not damping:
            start = None if self.last is None else self.last[1]
            self.last = damping, self._solved(-self.model.gradient, damping, start)
        return self.last[1]

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + λD²)⁻¹ rhs, to the same share."""
        return self._solved(rhs, damping, None)

    def length(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """‖D p‖ and its derivative, by one more solution."""
        return length_by_solving(self, self.scale, damping)

    def _solved(self, rhs: Tensor, damping: Tensor, start: Tensor | None) -> Tensor:
        weight = self.scale.square()
        added = damping[..., None].to(weight.dtype) * weight

        def product(v: Tensor) -> Tensor:
            return self.model.normal_times(v) + added * v

        def divide_at(prepared: Prepared) -> Divide:
            by = prepared.at(damping)
            # without damping the step is to be the shortest in D, whatever else is divided by
            return lambda w: where(damping[..., None] > 0, by(w), w / weight)

        def better(iterations: int) -> Divide | None:
            grown = getattr(self.prepared, "grown", None)
            larger = None if grown is None else grown(iterations)
            if larger is None:
                return None
            self.prepared = larger
            return divide_at(larger)

        divide = divide_at(self.prepared)
        return solved(product, rhs, divide, self.forcing, self.limit, start, better)


def solved(
    product: Callable[[Tensor], Tensor],
    rhs: Tensor,
    divide: Divide,
    forcing: Tensor,
    limit: int,
    start: Tensor | None = None,
    better: Callable[[int], Divide | None] = lambda iterations: None,
) -> Tensor:
    """x with A x ≈ rhs by preconditioned conjugate gradients, (..., n).

    Args:
        product: v ↦ A v of (..., n), A symmetric and positive semi-definite.
        rhs: (..., n).
        divide: w ↦ M⁻¹ w of the preconditioner.
        forcing: ‖remainder‖ over ‖rhs‖ that is small enough, (...,), in the norm of M⁻¹.
        limit: iterations at most.
        start: where to begin, scaled to where A's energy is least along it. Default: zero.
        better: another preconditioner that is worth making after so many iterations, or None.

    Returns:
        The last iterate. NaN for problems of a batch whose right-hand side or products are not
        finite.
    """
    x, rest, left, renewals = torch.zeros_like(rhs), rhs, limit, RENEWED
    if start is not None:
        x, rest = _along(product, rhs, start)
    before = target = inner(rhs, divide(rhs))
    while left > 0:
        # the gain goes with the square of the remainder
        enough = Enough(forcing.square() * target, forcing.square() / LOOSEST)
        found = iterated(product, rest, divide, enough, left, better)
        x, left = x + found.step, left - found.made
        if found.another is not None:
            divide, rest = found.another, found.rest
            before = target = inner(rhs, divide(rhs))
            continue
        if renewals == 0 or found.made < DRIFT or not bool(found.reached.any()):
            break
        # what the recursion calls the remainder drifts away from it by round-off
        renewals -= 1
        rest = rhs - product(x)
        size = inner(rest, divide(rest))
        if not bool((found.reached & (size > 2 * enough.size) & (size < before / 4)).any()):
            break
        before = size
    return torch.where(torch.isfinite(target)[..., None], x, torch.nan)


def _along(
    product: Callable[[Tensor], Tensor], rhs: Tensor, start: Tensor
) -> tuple[Tensor, Tensor]:
    """The best multiple of a start, (..., n), and what remains of the right-hand side."""
    image = product(start)
    share = inner(rhs, start) / inner(start, image)
    share = torch.where(torch.isfinite(share) & (share > 0), share, 0.0)[..., None]
    useful = share > 0
    return torch.where(useful, share * start, 0.0), torch.where(useful, rhs - share * image, rhs)


class Iterated(NamedTuple):
    """How conjugate gradients have ended."""

    step: Tensor  # (..., n)
    rest: Tensor  # (..., n), the remainder, as the recursion has it
    made: int  # iterations
    reached: Tensor  # (...,) bool, whether the remainder is small enough
    another: Divide | None  # a better preconditioner, for what remains


def iterated(
    product: Callable[[Tensor], Tensor],
    rhs: Tensor,
    divide: Divide,
    enough: Enough,
    limit: int,
    better: Callable[[int], Divide | None] = lambda iterations: None,
) -> Iterated:
    """Conjugate gradients from zero.

    A problem whose curvature along a direction is not positive, which only round-off can make of
    JᵀJ + λD², keeps what it has.
    """
    x, rest = torch.zeros_like(rhs), rhs
    scaled = divide(rest)
    size, direction = inner(rest, scaled), scaled
    made, another = 0, None
    active, gained = size > enough.size, torch.zeros_like(size)
    gains: list[Tensor] = []
    for number in range(limit):
        if (rhs.device.type == "cpu" or number % LOOK == LOOK - 1) and not bool(active.any()):
            break
        if made and made % PATIENCE == 0 and (another := better(made)) is not None:
            break
        made = number + 1
        image = product(direction)
        curvature = inner(direction, image)
        broken = active & ~torch.isfinite(curvature)
        active = active & (curvature > 0)
        length = torch.where(active, size / curvature, 0.0)[..., None]
        x = torch.where(broken[..., None], torch.nan, x + length * direction)
        rest = torch.where(active[..., None], rest - length * image, rest)
        scaled = divide(rest)
        before, size = size, inner(rest, scaled)
        turn = torch.where(active, size / before, 0.0)[..., None]
        direction = torch.where(active[..., None], scaled + turn * direction, 0.0)
        gains.append(torch.where(active, length[..., 0] * before, 0.0))
        gained = gained + gains[-1]
        window = gains[-1 - made // WINDOW :]  # a single iteration may gain little among others
        slow = made * sum(window) <= len(window) * enough.share * gained
        active = active & (size > enough.size) & ~slow
    return Iterated(x, rest, made, size <= enough.size, another)
