"""Running the loop in blocks of problems that fit the memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from .. import _memory
from .._autodiff import ranges
from ..arrays import join, last, places, put, take
from ..core.loop import Watch, descend
from ..core.method import Method
from ..core.problem import Problem
from ..core.state import Start, State, Told
from ..core.termination import RUNNING
from ..losses.robust import Robust
from .compiled import Compiling
from .effort import of_batch, of_doubts
from .ending import Ending, look_at_end, of_sure, without_unknowns
from .opinions import ENOUGH, BestRun, Opinion, Quick, ask, doubtful, unasked, usual
from .scale import with_estimated_scale
from .side_by_side import Room
from .singly import few, further, go_on_alone, here
from .watch import Watcher

T = TypeVar("T")
LEFT = 32  # the last of so many problems of a block wait for those of other blocks
# problems of a block where descents are compiled: on a CPU, and on a GPU, whose threads are many
COMPILED, ON_DEVICE = 2**16, 2**20
# share of a block that further runs side by side are at most, where not all fits are one block
SHARE = 4
# problems of a block on a CPU: their numbers, but for the residuals, stay in the cache
AT_ONCE = 2**14


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
    task = _Task(problem, method, x, trials, opinions, in_all, acceptable, watcher, limit, jacobian)
    if compiling and estimate:
        compiling.refuse('f_scale="mad" fits in turns')
    elif compiling:
        ending = _compiled(compiling, task, block)
        if ending is not None:
            return ending
    if method.careful is not None and not estimate:
        return _many(task, block, compiling)
    outcomes = []
    for part in task.blocks(block):
        if estimate:
            robust = part.problem.loss
            assert isinstance(robust, Robust)
            scaled, state = with_estimated_scale(
                part.problem, robust, part.method, part.x, trials, in_all, part.watch
            )
            part, best = replace(part, problem=scaled), unasked(state)
        else:
            first, _ = part.descend()
            best = part.ask(first, usual(first.trials, ~part.doubts(first)))
        outcomes.append(part.look(best, estimate))
        if watcher is not None:
            watcher.ended(outcomes[-1].state.status)
    return outcomes[0] if len(outcomes) == 1 else join(outcomes)


@dataclass(frozen=True)
class _Task:
    """Problems (b, n) or one (n,), how they are minimised, and what is done with the unsure."""

    problem: Problem
    method: Method
    x: Tensor
    trials: int
    opinions: Sequence[Opinion]
    in_all: int | None
    acceptable: Tensor | None
    watcher: Watcher | None
    limit: int | None
    jacobian: bool

    @property
    def watch(self) -> Watch | None:
        """Who sees iterates."""
        return None if self.watcher is None or self.watcher.idle else self.watcher

    def take(self, chosen: slice | Tensor) -> "_Task":
        """The task of some problems of a batch, by a slice or by their numbers (k,)."""
        numbers = _numbers(chosen, self.x) if isinstance(chosen, slice) else chosen
        return replace(
            self,
            problem=self.problem.take(chosen),
            method=self.method.take(numbers),
            x=self.x[chosen],
            opinions=[opinion.take(numbers) for opinion in self.opinions],
            acceptable=None if self.acceptable is None else self.acceptable[chosen],
        )

    def last(self) -> "_Task":
        """The same task with the problems last in memory."""
        residual: Any = self.problem.residual
        problem = replace(self.problem, residual=residual.last())
        return replace(self, problem=problem, x=last(self.x))

    def blocks(self, size: int) -> Iterator["_Task"]:
        """The tasks of so many problems at a time."""
        if self.x.ndim == 1 or len(self.x) <= size:
            yield self
            return
        for chosen in ranges(len(self.x), size):
            yield self.take(chosen)

    def descend(self, leave: int = 0) -> tuple[State, Told]:
        """The first run, see `core.loop.descend`."""
        return descend(
            self.problem, self.method, Start(self.x), trials=self.trials, leave=leave,
            watch=self.watch,
        )  # fmt: skip

    def doubts(self, state: State) -> Tensor:
        """The problems that are not sure of their minimum, (...,) bool."""
        return doubtful(state, self.acceptable)

    def ask(
        self, state: State, most: int | None, quick: Quick | None = None, room: Room = Room(0)
    ) -> BestRun:
        """The best of the first run, which ended in `state`, and of second opinions."""
        return ask(
            self.problem, self.opinions, self.x, state,
            trials=self.trials, in_all=self.in_all, usual=most, acceptable=self.acceptable,
            watch=self.watch, quick=quick, room=room,
        )  # fmt: skip

    def look(self, best: BestRun, estimated: bool = False, keep: bool = True) -> Ending:
        """What is to be seen at the ends; `keep` the residuals."""
        return look_at_end(
            self.problem, self.method, best, estimated, self.limit, self.jacobian, keep
        )


def _compiled(compiling: Compiling, task: _Task, block: int) -> Ending | None:
    """Minimise by a compiled descent, block by block; None: it is not compiled."""
    x, ending = task.x, None
    quick = compiling.quick if x.ndim > 1 else None
    left: list[_Left] = []
    begin = 0
    for part in task.blocks(min(block, COMPILED if x.device.type == "cpu" else ON_DEVICE)):
        first = compiling.descend(
            part.problem, part.method, Start(part.x), part.trials, later=not task.jacobian
        )
        if first is None:
            return None
        unsure = part.doubts(first.state)
        if task.jacobian:  # all ends are looked at
            most = usual(first.state.trials, ~unsure)
            found = part.look(part.ask(first.state, most, quick))
            unsure = torch.zeros_like(unsure)
        else:
            found = of_sure(part.problem, first)
            unsure[first.left] = True
        if not task.jacobian and len(some := places(unsure, int(unsure.sum()))):
            todo = torch.zeros_like(unsure)
            todo[first.later] = True
            left.append(_Left(some + begin, take(first.state, some), todo[some]))
        if task.watcher is not None:
            task.watcher.ended(found.state.status[~unsure])
        whole = len(part.x) == len(x)
        ending = found if whole else _into(ending, found, slice(begin, begin + len(part.x)), x)
        begin += len(part.x)
    if not left or ending is None:
        return ending
    return _asked(task, ending, left, block, compiling)


def _asked(
    task: _Task, ending: Ending, left: Sequence["_Left"], block: int, compiling: Compiling
) -> Ending:
    """The ending with what further runs make of the problems of all blocks that are not sure."""
    rest, x = join(left), task.x
    sure = torch.ones(len(x), dtype=torch.bool, device=x.device)
    sure[rest.places] = False
    most = usual(ending.state.trials, sure & (ending.state.status > 0))
    for chosen in ranges(len(rest.places), min(block, COMPILED)):
        some = rest.places[chosen]
        part = task.take(some)
        state = take(rest.state, _numbers(chosen, x))
        if count := int(rest.todo[chosen].sum()):
            todo = places(rest.todo[chosen], count)
            late, before = part.take(todo), take(state, todo)
            after = compiling.go_on(late.problem, late.method, late.x, before, late.trials)
            state = put(state, todo, after)
        best = part.ask(state, most, compiling.quick)
        found = part.look(best, keep=False)
        ending = _into(ending, found, some, x)
        if task.watcher is not None:
            task.watcher.ended(found.state.status)
    return ending


class _Left(NamedTuple):
    """Problems of a block that are not done."""

    places: Tensor  # (k,), among all
    state: State
    todo: Tensor  # (k,) bool: the loop has still to find their ends


def _many(task: _Task, block: int, compiling: Compiling | None = None) -> Ending:
    """Minimise many small problems block by block, and what is left of all blocks together.

    A call costs the same for two problems as for hundreds: the last of each block, which take many
    trials, and those whose end is not sure, wait for each other. Each block tells what the others,
    and further runs, are going to be: where to compile costs less, all is compiled after all.
    """
    _memory.keep_freed()
    x, watcher, whole = task.x, task.watcher, block
    every = watcher is not None and watcher.sees_all  # who sees iterates sees those of all problems
    if x.device.type == "cpu" and not every:
        block = min(block, AT_ONCE)
    # a result, and its copy
    size = 2 * task.problem.residual.rows * len(x) * x.dtype.itemsize
    keep = task.jacobian or _memory.fits(size, x.device, task.limit)
    ending: Ending | None = None
    left: list[_Left] = []
    for chosen in ranges(len(x), block):
        part = task.take(chosen)
        part = part.last()
        leave = 0 if every or task.trials < ENOUGH else len(part.x) // LEFT
        state, _ = part.descend(leave)
        asked = bool(task.opinions) or task.acceptable is not None
        unsure = part.doubts(state) if asked else state.status == RUNNING
        if count := int(unsure.sum()):
            where = places(unsure, count)
            todo = state.status[where] == RUNNING
            left.append(_Left(where + chosen.start, take(state, where), todo))
        found = part.look(unasked(state), keep=keep)
        ending = _into(ending, found, chosen, x)
        if watcher is not None:
            watcher.ended(found.state.status[~unsure])
        if compiling is None or compiling.effort is None:
            continue
        if _better_compiled(compiling, task, left, state.trials, chosen):
            if watcher is not None:
                watcher.again()
            after = _compiled(compiling, task, whole)
            assert after is not None
            return after
    assert ending is not None
    if not left:
        return ending
    rest = join(left)
    sure = torch.ones(len(x), dtype=torch.bool, device=x.device)
    sure[rest.places] = False
    most = usual(ending.state.trials, sure & (ending.state.status > 0))
    room = Room(block if len(x) <= block else block // SHARE, task.method)
    for chosen in ranges(len(rest.places), block):
        some = rest.places[chosen]
        part = task.take(some)
        part = part.last()
        before = take(rest.state, _numbers(chosen, x))
        state = _gone_on(part.problem, part.method, before, task.trials, task.watch)
        found = part.look(part.ask(state, most, room=room), keep=keep)
        _into(ending, found, some, x)
        if watcher is not None:
            watcher.ended(found.state.status)
    return ending


def _better_compiled(
    compiling: Compiling, task: _Task, left: Sequence["_Left"], trials: Tensor, chosen: slice
) -> bool:
    """Whether all problems are to be compiled after all, now that a block has been run: then do.

    Args:
        compiling: the wish to.
        task: of all problems.
        left: those of blocks so far that are not done.
        trials: of the problems of this block.
        chosen: which these are.
    """
    rows, n, share = task.problem.residual.rows, task.x.shape[-1], len(task.x) / chosen.stop
    doubts = sum(int((~one.todo).sum()) for one in left) if task.opinions else 0
    # the first runs of all, as if they were like those of this block; then of those in doubt
    first = of_batch(trials, None, rows, n).of(len(task.x) / len(trials))
    done = first / share
    ahead = first - done + of_doubts(doubts, rows, n).of(share)
    # what is nearly at its end is ended: the next call of the kind begins with a program
    pays = ahead >= done and compiling.worth(done + ahead, n, doubts > 0)
    return pays and compiling.ready(task.problem, task.method, task.x)


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
    alone = watch is None and limit >= ENOUGH
    leave = few(part, way, some.x) if alone else 0
    found, _ = descend(part, way, here(some), trials=limit, leave=leave, watch=watch)
    found = go_on_alone(part, way, further(some, found)._replace(damping=found.damping), trials)
    return put(state._replace(damping=None), chosen, found)


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
