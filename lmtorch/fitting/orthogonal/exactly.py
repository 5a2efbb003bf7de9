"""The last digits of an implicit fit: steps on f = 0 itself, after runs with weighed equations.

Equations with weights κ (V Vᵀ)⁻¹ have gradients κ times as large as those of the displacements, and
their round-off hides digits of the parameters. Without weights a step solves

    min ‖η + dη‖²    where    f + G dβ + V dη = 0,

the limit κ → ∞ of Gauss–Newton's, in which nothing is large. The gradient of the distances in β
alone, Gᵀ (V Vᵀ)⁻¹ (f − V η), says whether a step has come nearer.

Reference: Nocedal & Wright, Numerical optimization (2006), §17.1 on the condition of penalties.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ...arrays import apply, joined, norm, select, zeros
from ...damping.scaling import positive
from ...linearizations.blocks import Blocks, Reduced
from ...rows.own import flat
from ...solvers.base import Solver

STEPS = 3  # at most
FALL = 0.5  # a step must leave no more of the gradient


class Place(NamedTuple):
    """Where fits stand."""

    x: Tensor  # (..., n + m·k)
    model: Blocks  # of f there
    apart: Tensor  # (...,), how far f is from zero; one is as good as zero


def nearer(
    place: Place,
    able: Tensor,
    solver: Solver,
    floor: Tensor,
    look: Callable[[Tensor], Place],
) -> tuple[Place, Tensor]:
    """Take such steps while the gradient falls by a half and f stays zero: one host read each.

    Args:
        place: where the runs have ended.
        able: the fits that may move, (...,) bool.
        solver: of the equations of the parameters alone.
        floor: one for rows that do not count, else zero, (..., q, m).
        look: gives the place at another x.

    Returns:
        The last place, and how many points were looked at, (...,).
    """
    looked = torch.zeros_like(able, dtype=torch.int64)
    reduced = place.model.reduced(floor=floor)
    for _ in range(STEPS):
        if not bool(able.any()):
            break
        step = _step(place.model, reduced, solver)
        able = able & step.isfinite().all(-1)
        there = look(place.x + torch.where(able[..., None], step, 0.0))
        ahead, looked = there.model.reduced(floor=floor), looked + able
        able = able & (_length(ahead) <= FALL * _length(reduced))
        able = able & (there.apart <= place.apart.clamp(min=1.0))
        place, reduced = select(able, there, place), ahead  # of what goes on
    return place, looked


def _step(model: Blocks, reduced: Reduced, solver: Solver) -> Tensor:
    """dβ and dη, (..., n + m·k)."""
    dense, rows, prior = reduced.dense, model.rows, model.prior
    factor = solver.factor(dense, positive(dense.column_norms))
    of_shared = factor.step(zeros(dense.cost))
    left = reduced.weighed(apply(rows.shared, of_shared) + reduced.shifted)
    penalty = rows.parts(prior.root * prior.residual)[1]
    return joined([of_shared, flat(-reduced.inverse * (penalty + rows.back(left)))], -1)


def _length(reduced: Reduced) -> Tensor:
    """The gradient in β, in units of the columns, (...,)."""
    dense = reduced.dense
    return norm(dense.gradient / positive(dense.column_norms))
