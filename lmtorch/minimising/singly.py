"""The last few problems of a batch, one after the other: a trial of one costs less than of many.

It is made on NumPy's arrays, see `core/small.py`. What the loop does with them and what the
function computes is recorded once the same has been done some times, and then a trial of a batch
costs as much as those of a dozen problems and more. Where a run has ended the function itself is
asked once more, and if it gives other residuals than the record, the run is made without.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..arrays import places, put, stacked, tensor_from, unbatched
from ..core.loop import descend
from ..core.method import Method
from ..core.problem import Problem
from ..core.small import small
from ..core.state import Start, State
from ..core.termination import RUNNING
from ..jacobians.base import NOISE
from ..jacobians.dual_numbers import DualNumbers
from ..jacobians.ladder import Ladder
from ..jacobians.latest import Latest
from ..jacobians.learned import OfFit
from ..recording.steps import recordable

FEW = 4  # problems up to which each is run by itself
RECORDED = 16  # the same where what is done with them can be recorded


def few(problem: Problem, method: Method, x: Tensor) -> int:
    """Up to how many problems of a batch (b, n) are better run one by one; none on a GPU."""
    residual: Any = problem.residual
    if x.device.type != "cpu" or not hasattr(residual, "alone"):
        return 0
    careful = method if method.careful is None else _carefully(method)
    one = alone(replace(problem, form=careful.solver.form), 0)
    return RECORDED if _recorded(one, careful.take(0), x[0]) else FEW


def _recorded(one: Problem, method: Method, x: Tensor) -> bool:
    """Whether runs of such a problem can be recorded."""
    source = one.source
    return (
        x.dtype == torch.float64
        and type(source) is Ladder
        and source.verified
        and type(source.current) is DualNumbers
        and small(one, method, x)
        and recordable(one, method, len(x))
    )


def alone(problem: Problem, place: int) -> Problem:
    """One problem of a batch by itself, whose x has no batch dimension."""
    residual: Any = problem.residual
    loss: Any = problem.loss
    return replace(
        problem,
        residual=residual.alone(place),
        loss=loss.take(place) if hasattr(loss, "take") else loss,
        bounds=problem.bounds and problem.bounds.take(place),
        together=None,
    )


def descend_alone(one: Problem, method: Method, start: Start, trials: int) -> State:
    """The end of a run of one problem that was taken out of a batch, see `alone`."""
    if not _recorded(one, method, start.x):
        return descend(one, method, start, trials=trials)[0]
    residual: Any = one.residual
    ladder = one.source
    assert isinstance(ladder, Ladder)
    evaluations = residual.learned.single
    source = Latest(ladder.rungs)
    source.verified, source.count = True, len(start.x)
    learned = source.learned = evaluations.of_fit(residual.own)
    try:
        state, _ = descend(replace(one, source=source), method, start, trials=trials)
        if not learned.replayed or _confirmed(residual, state.x, learned):
            return state
    finally:
        learned.close()
    evaluations.refuse()
    return descend(one, method, start, trials=trials)[0]


def _confirmed(residual: Any, x: Tensor, learned: OfFit) -> bool:
    """Whether the function gives the residuals at the end that are replayed."""
    rows = learned.at(x.numpy())
    if rows is None:  # another run has found that it does not
        return False
    replayed = tensor_from(rows[-1])
    try:
        found = residual.call(residual.params(x)).detach()
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever it is: without a record it is raised again
        return False
    if found.dtype != replayed.dtype or found.shape != replayed.shape:
        return False
    noise = torch.finfo(found.dtype).eps ** NOISE * float(found.abs().nan_to_num(posinf=0).amax())
    return torch.allclose(found, replayed, rtol=0, atol=noise, equal_nan=True)


def go_on_alone(problem: Problem, method: Method, state: State, trials: int) -> State:
    """The state after each of those that still run has gone on from where it stands, to its end."""
    running = state.status == RUNNING
    left = places(running, int(running.sum())).tolist()
    strategy, state = state.damping, state._replace(damping=None)
    if not left:
        return state
    if method.careful is not None:
        method = _carefully(method)
        problem = replace(problem, form=method.solver.form)
    ends = []
    for place in left:
        one = unbatched(state._replace(damping=strategy), place)
        rest = trials - int(one.trials)
        end = descend_alone(alone(problem, place), method.take(place), here(one), rest)
        ends.append(further(one, end))
    return put(state, torch.tensor(left, device=state.x.device), stacked(ends))


def _carefully(method: Method) -> Method:
    """The method with the solver that has all digits, which costs one problem nothing."""
    assert method.careful is not None
    return replace(method, solver=method.careful, careful=None)


def here(state: State) -> Start:
    """Where a run goes on that was left."""
    return Start(state.x, state.scale, state.damping, state.begun)


def further(before: State, after: State) -> State:
    """Where a run has got to that was left, with the effort of both parts."""
    return after._replace(
        damping=None,
        trials=before.trials + after.trials,
        # where it was left the model had been made
        linearizations=before.linearizations + after.linearizations - 1,
    )
