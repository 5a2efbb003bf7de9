"""Momentum: of the steps that solve the rows, the one nearest to a share of the last step.

With p the last step that was kept and v = μp,

    s = v + δ,   (JᵀJ + λD²) δ = −Jᵀ(r + Jv)   minimises   ½‖r + Js‖² + ½λ‖D(s − v)‖².

Where points are drawn anew for each step, the rows of one draw leave most directions open, or known
with much noise; there the step keeps what the draws before have found. One shift of the linear
model by v gives δ with any solver.

Reference: Goldshlager, Abrahamsen & Lin, A Kaczmarz-inspired approach to accelerate the
optimization of neural network wavefunctions (2024), §3: SPRING.
"""

from typing import Any, NamedTuple

from torch import Tensor

from ..arrays import norm, where
from ..damping.base import LinearModel
from ..linearizations.base import Linearization
from ..solvers.base import Factor, Solver


class Onward(NamedTuple):
    """What momentum adds to a linear model."""

    linearization: Linearization  # as seen from v
    shift: Tensor  # (..., n), v
    plain: Factor  # of the equations without momentum


class From:
    """The damped equations seen from v: a factor whose steps begin with v.

    Args:
        inner: of the equations for δ.
        shift: v, (..., n).
    """

    def __init__(self, inner: Factor, shift: Tensor) -> None:
        self.inner, self.shift = inner, shift

    def step(self, damping: Tensor) -> Tensor:
        """s = v + δ(λ), (..., n)."""
        return self.shift + self.inner.step(damping)

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + λD²)⁻¹ rhs."""
        return self.inner.solve(rhs, damping)

    def solve_rows(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + λD²)⁻¹ Jᵀrhs, where the factor has it."""
        factor: Any = self.inner
        found: Tensor = factor.solve_rows(rhs, damping)
        return found

    def length(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """‖D δ‖ and its derivative: a region is one around v."""
        return self.inner.length(damping)


def with_momentum(model: LinearModel, solver: Solver, shift: Tensor) -> LinearModel:
    """The model with its steps begun with v = `shift` (..., n).

    What has no influence, or is held at a bound, does not move by momentum either.
    """
    shift = where(model.linearization.column_norms > 0, shift, 0.0)
    ahead = model.linearization.shifted(shift)
    known: Any = getattr(model.factor, "seen_from", None)
    factor = solver.factor(ahead, model.scale) if known is None else known(ahead)
    return model._replace(factor=From(factor, shift), onward=Onward(ahead, shift, model.factor))


def without_momentum(model: LinearModel) -> LinearModel:
    """The model as it was before."""
    return model if model.onward is None else model._replace(factor=model.onward.plain, onward=None)


def corrected(model: LinearModel, step: Tensor) -> Tensor:
    """‖D(s − v)‖ of a step (..., n), (...,)."""
    return norm(model.scale * (step if model.onward is None else step - model.onward.shift))
