"""Running the loop in blocks of problems that fit the memory."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from .. import _memory
from .._autodiff import ranges
from ..arrays import (
    join,
    last,
    places,
    put,
    stacked,
    take,
    unbatched,
)
from ..core.loop import Watch, descend
from ..core.method import Method
from ..core.problem import Problem
from ..core.state import Start, State
from ..core.termination import Status
from ..losses.robust import Robust
from .compiled import Compiling
from .ending import Ending, look_at_end, of_sure, without_unknowns
from .opinions import ALONE, Opinion, alone, ask, doubtful, separable, unasked, usual
from .scale import with_estimated_scale
from .watch import Watcher

T = TypeVar("T")
RUNNING = int(Status.RUNNING)
LEFT = 32  # the last of so many problems of a block wait for those of other blocks
COMPILED = 2**16  # problems of a block where descents are compiled
# problems of a block on a CPU: their numbers, but for the residuals, stay in the cache
AT_ONCE = 2**14
ENOUGH = 200  # trials from which on it does not matter that they are those of two runs


def minimise(
    problem: Problem,
    method: Method,
    x: Tensor,  # (n,) or (b, n)
    trials: int,
    *,
    block: int,  # problems at once
    estimate: bool = False,  # C of the robust loss
    opinions: Sequence[Opinion] = (),
    in_all: int | None = None,  # trials of all runs together
    acceptable: Tensor | None = None,  # (...,), the largest cost that is believed
    watcher: Watcher | None = None,
    limit: int | None = None,  # bytes of one allocation
    jacobian: bool = True,  # J is kept with the ending, where it fits the memory
    compiling: Compiling | None = None,
) -> Ending:
    """Descend, and look at the end."""
    if x.shape[-1] == 0:
        return without_unknowns(problem, x, estimate)
    if compiling and estimate:
        compiling.refuse('f_scale="mad" fits in turns')
    elif compiling:
        ending = _compiled(
            compiling, problem, method, x, trials, block, opinions, in_all, acceptable, watcher,
            limit, jacobian,
        )  # fmt: skip
        if ending is not None:
            return ending
    if method.careful is not None and not estimate:
        return _many(
            problem, method, x, trials, block, opinions, in_all, acceptable, watcher, limit,
            jacobian,
        )  # fmt: skip
    outcomes = []
    for some, start, bar in _blocks(x, acceptable, block):
        watch = None if watcher is None or watcher.idle else watcher
        part, way, others = problem, method, opinions
        if some is not None:
            part, way, others = (
                problem.take(some),
                method.take(some),
                [other.take(some) for other in opinions],
            )
        if estimate:
            robust = part.loss
            assert isinstance(robust, Robust)
            part, state = with_estimated_scale(part, robust, way, start, trials, watch)
            best = unasked(state)
        else:
            first, _ = descend(part, way, Start(start), trials=trials, watch=watch)
            best = ask(
                part, others, start, first,
                trials=trials, in_all=in_all, usual=usual(first.trials, ~doubtful(first, bar)),
                acceptable=bar, watch=watch,
            )  # fmt: skip
        outcomes.append(look_at_end(part, way, best, estimate, limit, jacobian))
        if watcher is not None:
            watcher.ended(outcomes[-1].state.status)
    return outcomes[0] if len(outcomes) == 1 else join(outcomes)


def _compiled(
    compiling: Compiling,
    problem: Problem,
    method: Method,
    x: Tensor,  # (n,) or (b, n)
    trials: int,
    block: int,
    opinions: Sequence[Opinion],
    in_all: int | None,
    acceptable: Tensor | None,
    watcher: Watcher | None,
    limit: int | None,
    jacobian: bool,
) -> Ending | None:
    """Minimise by a compiled descent, block by block; None: it is not compiled."""
    watch = None if watcher is None or watcher.idle else watcher
    ending: Ending | None = None
    count = x.shape[:-1].numel()
    for chosen in ranges(count, min(block, COMPILED)):
        part, way, others = problem, method, opinions
        start, bar = x, acceptable
        if chosen != slice(0, count):
            numbers = _numbers(chosen, x)
            part, way = problem.take(chosen), method.take(numbers)
            others = [other.take(numbers) for other in opinions]
            start, bar = x[chosen], None if acceptable is None else acceptable[chosen]
        first = compiling.descend(part, way, Start(start), trials)
        if first is None:
            return None
        most = usual(first.state.trials, ~doubtful(first.state, bar))
        shared: dict[str, Any] = {
            "trials": trials, "in_all": in_all, "usual": most, "watch": watch,
            "quick": compiling.quick if x.ndim > 1 else None,
        }  # fmt: skip
        if jacobian:  # all ends are looked at
            best = ask(part, others, start, first.state, acceptable=bar, **shared)
            found = look_at_end(part, way, best, False, limit, jacobian, keep=jacobian)
        else:
            found = of_sure(part, first)
            unsure = doubtful(first.state, bar)
            unsure[first.left] = True
            if len(some := places(unsure, int(unsure.sum()))):
                bar = None if bar is None else bar[some]
                others = [other.take(some) for other in others]
                part, way, few = part.take(some), way.take(some), take(first.state, some)
                best = ask(part, others, start[some], few, acceptable=bar, **shared)
                rest = look_at_end(part, way, best, False, limit, jacobian, keep=False)
                found = _into(found, rest, some, start)
        if watcher is not None:
            watcher.ended(found.state.status)
        if len(start) == count or x.ndim == 1:
            return found
        ending = _into(ending, found, chosen, x)
    return ending


class _Left(NamedTuple):
    """Problems of a block that are not done."""

    places: Tensor  # (k,), among all
    state: State


def _many(
    problem: Problem,
    method: Method,
    x: Tensor,  # (b, n)
    trials: int,
    block: int,
    opinions: Sequence[Opinion],
    in_all: int | None,
    acceptable: Tensor | None,
    watcher: Watcher | None,
    limit: int | None,
    jacobian: bool,
) -> Ending:
    """Minimise many small problems block by block, and what is left of all blocks together.

    A call costs the same for two problems as for hundreds: the last of each block, which take many
    trials, and those whose end is not sure, wait for each other.
    """
    _memory.keep_freed()
    watch = None if watcher is None or watcher.idle else watcher
    every = watcher is not None and watcher.sees_all  # who sees iterates sees those of all problems
    if x.device.type == "cpu" and not every:
        block = min(block, AT_ONCE)
    size = 2 * problem.residual.rows * len(x) * x.dtype.itemsize  # a result, and its copy
    keep = jacobian or _memory.fits(size, x.device, limit)
    ending: Ending | None = None
    left: list[_Left] = []
    for chosen in ranges(len(x), block):
        part, start = problem.take(chosen), last(x[chosen])
        leave = 0 if every or trials < ENOUGH else len(start) // LEFT
        way = method.take(_numbers(chosen, x))
        state, _ = descend(part, way, Start(start), trials=trials, leave=leave, watch=watch)
        bar = None if acceptable is None else acceptable[chosen]
        unsure = doubtful(state, bar) if opinions or bar is not None else state.status == RUNNING
        if count := int(unsure.sum()):
            where = places(unsure, count)
            left.append(_Left(where + chosen.start, take(state, where)))
        found = look_at_end(part, way, unasked(state), False, limit, jacobian, keep)
        ending = _into(ending, found, chosen, x)
        if watcher is not None:
            watcher.ended(found.state.status[~unsure])
    assert ending is not None
    if not left:
        return ending
    rest = join(left)
    sure = torch.ones(len(x), dtype=torch.bool, device=x.device)
    sure[rest.places] = False
    most = usual(ending.state.trials, sure & (ending.state.status > 0))
    for chosen in ranges(len(rest.places), block):
        some = rest.places[chosen]
        part, way = problem.take(some), method.take(some)
        state = _gone_on(part, way, take(rest.state, _numbers(chosen, x)), trials, watch)
        best = ask(
            part,
            [other.take(some) for other in opinions],
            last(x[some]),
            state,
            trials=trials,
            in_all=in_all,
            usual=most,
            acceptable=None if acceptable is None else acceptable[some],
            watch=watch,
        )
        found = look_at_end(part, way, best, False, limit, jacobian, keep)
        _into(ending, found, some, x)
        if watcher is not None:
            watcher.ended(found.state.status)
    return ending


def _gone_on(
    problem: Problem, method: Method, state: State, trials: int, watch: Watch | None
) -> State:
    """The state after those that still run have gone on from where they stand, to their end."""
    running = state.status == RUNNING
    count = int(running.sum())
    if not count:
        return state
    chosen = places(running, count)
    some = take(state, chosen)
    part, way, limit = problem.take(chosen), method.take(chosen), trials - int(some.trials.max())
    leave = ALONE if watch is None and separable(problem, state.x) and limit >= ENOUGH else 0
    found, _ = descend(part, way, _here(some), trials=limit, leave=leave, watch=watch)
    found, strategy = _further(some, found), found.damping
    left = places(found.status == RUNNING, int((found.status == RUNNING).sum())).tolist()
    if left and method.careful is not None:
        way = replace(way, solver=method.careful, careful=None)
        part = replace(part, form=method.careful.form)
        ends = []
        for place in left:
            one = unbatched(found._replace(damping=strategy), place)
            last_trials = trials - int(one.trials)
            end, _ = descend(alone(part, place), way.take(place), _here(one), trials=last_trials)
            ends.append(_further(one, end))
        found = put(found, torch.tensor(left, device=state.x.device), stacked(ends))
    return put(state._replace(damping=None), chosen, found)


def _here(state: State) -> Start:
    """Where a run goes on that was left."""
    return Start(state.x, state.scale, state.damping, state.begun)


def _further(before: State, after: State) -> State:
    """Where a run has got to that was left, with the effort of both parts."""
    return after._replace(
        damping=None,
        trials=before.trials + after.trials,
        # where it was left the model had been made
        linearizations=before.linearizations + after.linearizations - 1,
    )


def _numbers(chosen: slice, like: Tensor) -> Tensor:
    """The numbers of a slice."""
    return torch.arange(chosen.start, chosen.stop, device=like.device)


def _into(whole: T | None, part: T, places: Tensor | slice, x: Tensor) -> T:
    """Write what is known of some problems into the place of all of them, made when first asked."""
    if isinstance(part, tuple):
        made: Any = part
        old: Any = [None] * len(made) if whole is None else whole
        found: Any = [_into(a, b, places, x) for a, b in zip(old, made, strict=True)]
        kind: Any = type(made)
        return kind._make(found) if hasattr(kind, "_make") else kind(found)
    if isinstance(part, Tensor):
        room: Any = part.new_empty(len(x), *part.shape[1:]) if whole is None else whole
        room[places] = part
        return room
    return part


def block_size(rows: int, n: int, activations: int, x: Tensor, limit: int | None) -> int:
    """How many problems to solve at once, so that Jacobians and intermediate results fit."""
    each = 4 * 8 * rows * n + 2 * activations * (1 + n)
    return _memory.most(each, x.shape[:-1].numel(), x.device, limit)


def together(rows: int, x: Tensor) -> int | None:
    """How many problems (b, n) of so many residuals are evaluated together; None: all.

    What operations on the residuals of all of them leave is read by the next, and stays in the
    cache of a CPU.
    """
    plane = _memory.PLANE.get(x.device.type)
    return None if plane is None else max(1, plane // (max(1, rows) * x.dtype.itemsize))


def _blocks(
    x: Tensor, acceptable: Tensor | None, block: int
) -> Iterator[tuple[Tensor | None, Tensor, Tensor | None]]:
    """The problems that fit the memory together (None: all), their starts, what is believed."""
    if x.ndim == 1 or len(x) <= block:
        yield None, x, acceptable
        return
    for chosen in ranges(len(x), block):
        places = torch.arange(chosen.start, chosen.stop, device=x.device)
        yield places, x[chosen], None if acceptable is None else acceptable[chosen]
