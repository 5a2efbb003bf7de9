"""Bounds as a projection and an active set.

A variable at a bound whose gradient points outward is frozen in the solve; the trial is projected
onto the box. The gain ratio uses the projected step, so that what is judged is what was done.

Reference: Kanzow, Yamashita & Fukushima, Levenberg–Marquardt methods with strong local convergence
properties for solving nonlinear equations with convex constraints (2004).
"""

from typing import Any, NamedTuple

from torch import Tensor

from ..arrays import maximum, minimum


class Bounds(NamedTuple):
    """A box, with infinite sides where there is no bound."""

    lower: Tensor  # (n,) or (..., n)
    upper: Tensor

    def take(self, places: Any) -> "Bounds":
        """The boxes of the problems at `places` (k,) of a batch (b,)."""
        return Bounds(*(side[places] if side.ndim > 1 else side for side in self))

    def project(self, x: Tensor) -> Tensor:
        """The nearest point of the box."""
        return minimum(maximum(x, self.lower), self.upper)

    def contains(self, x: Tensor) -> bool:
        """Whether a single point lies in the box, on its sides or within."""
        sides = zip(self.lower.tolist(), x.tolist(), self.upper.tolist(), strict=True)
        return all(low <= value <= high for low, value, high in sides)

    def touched(self, x: Tensor) -> Tensor:
        """Which variables lie on a side of the box, (..., n) bool."""
        return (x <= self.lower) | (x >= self.upper)

    def free(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Which variables may move, (..., n) bool: not those whose bound descent would cross."""
        below = (x <= self.lower) & (gradient > 0)
        above = (x >= self.upper) & (gradient < 0)
        return ~(below | above)
