"""Who solves (JᵀJ + λD²) p = −Jᵀr: factor once per point, then a step for any λ.

A solver names the form of linearization that it needs. A factorisation that fails gives NaN, never
an exception: the loop takes a step that is not finite as a failed trial and raises the damping.
"""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from ..arrays import inner, norm
from ..linearizations.base import Form


class Factor(Protocol):
    """The damped equations at one point, ready for any λ (...,).

    A parameter whose column of J is zero is unused, or is held at its bound, and does not move.
    Where a column of J and the entry of the right-hand side are zero, that entry of `step` and of
    `solve` is zero exactly; round-off would let the parameter creep.
    """

    def step(self, damping: Tensor) -> Tensor:
        """p(λ) = −(JᵀJ + λD²)⁻¹ Jᵀr, (..., n); at λ = 0 the shortest Gauss–Newton step."""

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + λD²)⁻¹ rhs for another right-hand side (..., n)."""

    def length(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """‖D p(λ)‖ and its derivative in λ, both (...,)."""


class Solver(Protocol):
    """A choice of factorisation."""

    @property
    def form(self) -> Form:
        """The form of linearization that `factor` takes."""

    @property
    def exact_at_zero(self) -> bool:
        """Whether the step at λ = 0 is good to the digits of J: then a minimum is polished with it.

        Normal equations lose them, as their condition is that of J squared. May be left out: False.
        """

    def factor(self, linearization: Any, scale: Tensor) -> Factor:
        """Prepare the equations at one point, with D = `scale` (..., n), positive."""


def length_by_solving(factor: Factor, scale: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """‖D p‖ and d‖D p‖/dλ = −(D²p)ᵀ (JᵀJ + λD²)⁻¹ (D²p) / ‖D p‖, with one more solve."""
    length, slope = measured_by_solving(factor, scale, damping)
    return length, slope()


def measured_by_solving(
    factor: Factor, scale: Tensor, damping: Tensor
) -> tuple[Tensor, Callable[[], Tensor]]:
    """‖D p‖, and what gives its derivative: a step that is short enough asks for no derivative."""
    step = factor.step(damping)
    length = norm(scale * step)

    def slope() -> Tensor:
        force = scale * scale * step
        return -inner(force, factor.solve(force, damping)) / length

    return length, slope
