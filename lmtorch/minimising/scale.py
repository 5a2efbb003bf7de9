"""The scale of a robust loss from the data: C = c · 1.4826 · median |r|, in turn with the fit.

The median absolute residual tells the width of the noise however wild half of the data are. It is
the median of the m − n + 1 largest, because a fit of n parameters makes n residuals small. c makes
the loss 95 % as efficient as least squares on normal noise.

Reference: Huber & Ronchetti, Robust statistics (2009), §6.4 and §7.8; Holland & Welsch, Robust
regression using iteratively reweighted least-squares (1977), for the constants of huber, cauchy and
tukey.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..arrays import places, put, settled, take
from ..core.ending import look
from ..core.loop import Watch, descend
from ..core.method import Method
from ..core.problem import Problem
from ..core.state import Start, State
from ..core.termination import Status
from ..linearizations.dense import Dense, DenseForm
from ..losses.base import Rho
from ..losses.linear import Linear
from ..losses.robust import Robust, soft_l1

# the standard deviation of a normal variable over its median absolute value
NORMAL = 1.482602218505602
EFFICIENCY = 0.95  # against least squares, where the noise is normal
WIDEST = 100.0  # the largest c: beyond it every loss is least squares
ROUNDS = 50  # rounds of estimate and fit at most
SETTLED = 1e-6  # relative change of C up to which it is settled


def with_estimated_scale(
    problem: Problem,
    robust: Robust,
    method: Method,
    x: Tensor,
    trials: int,
    in_all: int | None,
    watch: Watch | None,
) -> tuple[Problem, State]:
    """The problem with its C (...,), and where the fit ended.

    Args:
        problem: what is minimised.
        robust: its loss, of which C is estimated.
        method: how.
        x: the start.
        trials: evaluations at trial points at most, for each fit.
        in_all: of all fits together; None: any.
        watch: sees iterates.
    """
    tuning, rough = efficient(robust.rho), replace(method, polish=0, certify=False, patience=0.0)
    # a convex loss first, at a scale where it is nearly the absolute value: outliers must not set
    # the first C
    residual, n = _residual(problem, x), x.shape[-1]
    counted = _counted(problem, residual, x)
    scale = tuning * deviation(residual, n, counted)
    state, told = descend(
        replace(problem, loss=Robust(soft_l1, 0.1 * scale)),
        rough,
        Start(x),
        trials=trials,
        watch=watch,
    )
    begun = state.begun
    scale = torch.full_like(scale, torch.inf)  # none yet of the loss itself
    # problems whose C is not settled
    going = torch.arange(len(x), device=x.device) if x.ndim > 1 else None
    for _ in range(ROUNDS):
        part, way = (problem, rough) if going is None else (problem.take(going), rough.take(going))
        spent = state if going is None else take(state, going)
        before, left = (scale, counted) if going is None else (scale[going], counted[going])
        now = tuning * deviation(_residual(part, spent.x), n, left)
        moving = ~((now - before).abs() <= SETTLED * now)
        if in_all is not None:
            out = moving & (spent.trials + 1 >= in_all)
            here = torch.where(out, now, before)
            ended = _out_of_trials(part, robust, spent, here, out)
            state, scale = (
                (ended, here)
                if going is None
                else (put(state, going, ended), put(scale, going, here))
            )
            moving = moving & ~out
            trials = in_all - 1 - int(torch.where(moving, spent.trials, 0).amax())
        count = int(moving.sum())
        if not count:
            break
        if going is not None:
            chosen = places(moving, count)
            going, now, spent = going[chosen], now[chosen], take(spent, chosen)
            part, way = problem.take(going), rough.take(going)
        found, told = descend(
            replace(part, loss=Robust(robust.rho, now)),
            way,
            Start(spent.x),
            trials=trials,
            watch=watch,
        )
        found = _together(spent, found)
        state, scale = (
            (found, now) if going is None else (put(state, going, found), put(scale, going, now))
        )
    problem, state = replace(problem, loss=Robust(robust.rho, scale)), state._replace(begun=begun)
    known = None if in_all is not None else told.ended  # which may have run out of trials since
    return problem, look(problem, method, state, known, in_all)


def _out_of_trials(
    problem: Problem, robust: Robust, state: State, scale: Tensor, out: Tensor
) -> State:
    """The state with the problems `out` (...,) of trials ended for that, at the cost of their C."""
    if settled(~out):
        return state
    cost = replace(problem, loss=Robust(robust.rho, scale)).cost(state.x)
    return state._replace(
        cost=torch.where(out, cost, state.cost),
        status=torch.where(out, Status.EVALUATIONS.value, state.status),
    )


def scale_of(robust: Robust, residual: Tensor) -> Tensor:
    """C (...,) of residuals (..., m) that no parameter has made smaller."""
    return efficient(robust.rho) * deviation(residual, 1, residual != 0)


def _counted(problem: Problem, residual: Tensor, x: Tensor) -> Tensor:
    """Points that take part, (..., m) bool: one of weight zero has neither residual nor row.

    A residual alone may vanish because the start meets the point exactly.
    """
    if bool((residual != 0).all()):
        return residual != 0
    model = replace(problem, form=DenseForm(), loss=Linear()).model(x)
    assert isinstance(model, Dense)
    return (residual != 0) | (model.jacobian != 0).any(-1)


def _together(before: State, after: State) -> State:
    """The later state, with what both have cost."""
    return after._replace(
        trials=before.trials + after.trials + 1,
        linearizations=before.linearizations + after.linearizations,
    )


def efficient(rho: Callable[[Tensor], Rho]) -> float:
    """The c at which the estimate, ψ = ρ′ r, has 95 % efficiency: (E ψ′)² / E ψ² = 0.95.

    E ψ′ = E rψ by parts: where ψ has a corner, ψ′ jumps, and a sum over a grid would see the jump
    at its points.

    Reference: Huber & Ronchetti (2009), §3.2.
    """
    from scipy.optimize import brentq  # a quarter of a second, which only a robust scale needs

    r = torch.linspace(0, 12, 12_001, dtype=torch.float64, device="cpu")
    density = torch.exp(-(r**2) / 2)
    density[0] /= 2  # the trapezoidal rule, of which the other end vanishes
    density = density / density.sum()

    def excess(c: float) -> float:
        psi = rho((r / c) ** 2)[1] * r
        return float((psi * r * density).sum() ** 2 / (psi**2 * density).sum()) - EFFICIENCY

    low = 0.1
    while excess(low) > 0 and low > 1e-3:  # nearly least squares at any c
        low /= 2
    return 1.0 if excess(low) > 0 else float(brentq(excess, low, WIDEST, xtol=1e-6))


def deviation(residual: Tensor, n: int, counted: Tensor) -> Tensor:
    """The deviation 1.4826 · median |r|, (...,), positive, of the points that count, (..., m)."""
    counted = counted & residual.isfinite()
    ordered, count = (
        torch.where(counted, residual.abs(), torch.inf).sort(-1).values,
        counted.sum(-1),
    )
    skipped = torch.minimum(torch.full_like(count, n - 1), count // 2)
    middle = (skipped + count - 1).clamp(min=0)  # twice the place of the median
    pair = ordered.gather(-1, torch.stack([middle // 2, (middle + 1) // 2], -1))
    estimate = torch.where(count > 0, NORMAL * pair.mean(-1), 0.0)
    # data that more than half of are met exactly have no width: all that differ count as outliers
    tiny = torch.finfo(residual.dtype).eps * torch.where(ordered.isfinite(), ordered, 0.0).amax(-1)
    return torch.maximum(estimate, tiny).clamp(min=torch.finfo(torch.float32).tiny)


def _residual(problem: Problem, x: Tensor) -> Tensor:
    (part,) = problem.residual.parts()
    return problem.source.evaluate(part, problem.residual.params(x)).to(problem.dtype)
