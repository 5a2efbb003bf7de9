"""What is to be seen where a run has ended, and kept of it."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .. import _memory
from .._arrays import tensor_of
from ..arrays import arrays_of, every, joined, never, on_numpy, quiet, tensors_of, where
from ..core.columns_of_roundoff import without_roundoff
from ..core.method import Method
from ..core.problem import Problem
from ..core.small import of_arrays, small
from ..core.state import Begun, State, fresh
from ..core.termination import Status
from ..linearizations.base import Values, optimality
from ..linearizations.dense import Dense, DenseForm
from ..losses.robust import Robust
from .opinions import BestRun
from .scale import scale_of

if TYPE_CHECKING:
    from ..compiling.descent import Compiled


class Ended(NamedTuple):
    """Of the state at the end, what a solution is made of; (...,) where nothing else is said."""

    x: Tensor  # (..., n)
    cost: Tensor
    status: Tensor
    trials: Tensor
    linearizations: Tensor
    lost: Tensor  # (..., n) bool, parameters that have no influence any more


class Ending(NamedTuple):
    """Where the loop ended, and what is to be seen there; all (...,) in front."""

    state: Ended
    residual: Tensor | None  # (..., m), as the function gives it; None: too large, made again
    gradient: Tensor  # (..., n), of the cost
    cosine: Tensor  # (...,), the largest between the residuals and a column of J that is free
    free: Tensor  # (..., n) bool
    jacobian: Tensor | None  # (..., m, n), rescaled by the loss; None: too large, or not asked for
    scale: Tensor | None  # (...,), C where it was estimated
    # (...,), share of the cost that the undamped model still promises; NaN where nobody looked
    promise: Tensor
    runs: Tensor  # (...,) int, how many there were
    kept: Tensor  # (...,) int, the number of the opinion that was kept; 0: the first run

    def small(self) -> "Ending":
        """The same of many problems in fewer bytes: no more digits than its user is shown."""
        if self.state.x.ndim == 1:
            return self
        return self._replace(
            gradient=self.gradient.to(self.state.x.dtype),
            runs=self.runs.to(torch.int32),
            kept=self.kept.to(torch.int32),
        )


def look_at_end(
    problem: Problem,
    method: Method,
    best: BestRun,
    estimated: bool,
    limit: int | None,
    jacobian: bool,
    keep: bool = True,  # the residuals
) -> Ending:
    """Residuals, J and gradient at the end, without the frozen columns of the loop."""
    state = best.state
    point = state.x, state.status, state.cost
    tolerance = method.tolerances.gradient
    if not on_numpy(state.x) and small(problem, method, state.x):
        with quiet():
            seen = _seen(of_arrays(problem), *arrays_of(point), tolerance, limit, jacobian)
        seen = tensors_of(seen)
    else:
        seen = _seen(problem, *point, tolerance, limit, jacobian)
    return Ending(
        _ended(state._replace(status=seen.status)),
        seen.residual if keep else None,
        seen.gradient,
        seen.cosine,
        seen.free,
        seen.jacobian,
        _each_scale(problem, state.x) if estimated else None,
        state.certificate.promise,
        best.runs,
        best.kept,
    ).small()


def of_sure(problem: Problem, found: "Compiled") -> Ending:
    """The ending of compiled fits, which need no further look."""
    state, none = found.state, torch.zeros_like(found.state.status)
    return Ending(
        _ended(state), None, found.gradient, found.cosine,
        problem.free(state.x, found.gradient), None, None, state.certificate.promise,
        runs=none + 1, kept=none,
    ).small()  # fmt: skip


def _ended(state: State) -> Ended:
    """What is kept of where a run has ended."""
    lost = state.certificate.lost
    return Ended(state.x, state.cost, state.status, state.trials, state.linearizations, lost)


class _Seen(NamedTuple):
    """What is seen at the end, (...,) in front."""

    status: Tensor
    residual: Tensor  # (..., m)
    gradient: Tensor  # (..., n)
    cosine: Tensor
    free: Tensor  # (..., n) bool
    jacobian: Tensor | None  # (..., m, n)


def _seen(
    problem: Problem,
    x: Tensor,
    status: Tensor,
    cost: Tensor,
    tolerance: float,  # of the cosine
    limit: int | None,
    jacobian: bool,
) -> _Seen:
    """Look at where a run has ended, on tensors or arrays."""
    rows = problem.residual.rows
    size = rows * math.prod(x.shape) * problem.dtype.itemsize
    fits = on_numpy(x) or _memory.fits(size, x.device, limit)
    form = DenseForm() if fits and jacobian else problem.form
    many = problem.together is not None  # of these, too, an evaluation is what costs
    keep = many or problem.keep
    if form != problem.form or keep != problem.keep:
        problem = replace(problem, form=form, keep=keep)
    model = problem.model_at_end(x)
    residual, rejected = _residuals(problem, x, model.values, status)
    free = problem.free(x, model.gradient)
    # where nothing has any influence, or a loss rejects every residual, the gradient vanishes and
    # says nothing
    flat = (every(model.column_norms == 0) | rejected) & (status > 0) & (cost > 0)
    flat = flat & (status != Status.ZERO.value) & (status != Status.MINIMUM.value)
    held = model if problem.bounds is None else model.freeze(free)
    cosine = optimality(without_roundoff(problem, x, held))
    # polishing may have reached what the last trial could not: the gradient is evidence of its own
    reached = (status == Status.STALLED.value) & (cosine <= tolerance)
    status = where(flat, Status.FLAT.value, where(reached, Status.GRADIENT.value, status))
    kept = model.jacobian if jacobian and isinstance(model, Dense) else None
    return _Seen(status, residual, model.gradient, cosine, free, kept)


def _residuals(problem: Problem, x: Tensor, known: Values, status: Tensor) -> tuple[Tensor, Tensor]:
    """Look at the residuals at the end.

    Returns:
        r(x) of this process, (..., m), and whether the loss rejects all residuals, (...,) bool. A
        residual of zero is not rejected, though a compiled program may have rounded otherwise, and
        found a cost.
    """

    def own() -> Tensor:
        values = known or problem.values(x)
        return joined(values, -1) if values else x.new_zeros(0)

    def silent(residual: Tensor) -> tuple[Tensor, Tensor]:
        return every(problem.loss.expand(residual).slope == 0), every(residual == 0)

    across = problem.across
    if across is None:
        residual = own()
        if getattr(problem.loss, "plain", False):  # squares reject no residual but zero
            return residual, never(status)
        slopes, zeros = silent(residual)
        return residual, slopes & ~zeros
    residual, told = across.telling("end", own, lambda r: [float(one) for one in silent(r)], 2)
    slopes, zeros = told.bool().all(0).to(x.device)
    return residual, slopes & ~zeros


def without_unknowns(problem: Problem, x: Tensor, estimate: bool) -> Ending:
    """The ending where there is nothing to fit: the cost as it is, a gradient without entries."""
    residual = joined(problem.values(x), -1)
    scale, loss = None, problem.loss
    if estimate:
        assert isinstance(loss, Robust)
        scale = scale_of(loss, residual)
        loss = Robust(loss.rho, scale)
    cost = loss.cost(residual)
    count = torch.zeros_like(cost, dtype=torch.int64)
    status = torch.where(cost.isfinite(), Status.GRADIENT.value, Status.NOT_FINITE.value)
    zero, none = torch.zeros_like(cost), torch.zeros_like(x, dtype=torch.bool)
    nothing = torch.zeros_like(x, dtype=problem.dtype)
    begun = Begun(x, cost, nothing)
    return Ending(
        _ended(fresh(x, cost, status, scale=nothing, damping=None, begun=begun)),
        residual,
        gradient=nothing,
        cosine=zero,
        free=none,
        jacobian=torch.zeros(*residual.shape, 0, dtype=problem.dtype, device=x.device),
        scale=scale,
        promise=zero,
        runs=count + 1,
        kept=count,
    )


def _each_scale(problem: Problem, x: Tensor) -> Tensor:
    assert isinstance(problem.loss, Robust)
    return tensor_of(problem.loss.scale, dtype=x.dtype).expand(x.shape[:-1])
