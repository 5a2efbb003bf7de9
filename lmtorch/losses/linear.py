"""Plain least squares: ρ(z) = z."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..arrays import filled, squared
from .base import Expansion, wide


@dataclass(frozen=True)
class Linear:
    """½ Σ r²: the slope is r, the curvature one."""

    arrays: ClassVar[bool] = True
    plain: ClassVar[bool] = True  # rows are left as they are

    def cost(self, residual: Tensor) -> Tensor:
        """½‖r‖²."""
        return squared(wide(residual)) / 2

    def expand(self, residual: Tensor) -> Expansion:
        """½‖r‖², r, and no root: rows are left as they are."""
        return Expansion(self.cost(residual), residual, None)

    def curvature(self, residual: Tensor) -> Tensor:
        """One, the second derivative of ½ r², for every residual."""
        return filled(residual, 1)

    def take(self, places: Tensor) -> "Linear":
        """The loss itself, which is the same for every problem."""
        return self
