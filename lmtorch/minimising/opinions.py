"""Second opinions where a run did not end at a certified minimum; the best end is kept.

No single strategy finds every minimum; each fails elsewhere. So what is asked next is of another
kind than what has failed. Problems of a batch that are sure of their minimum are not asked again,
and what the others have needed tells what is usual: a run far beyond it is given up, and a way that
has helped none of a sample is not asked about the rest. What is not asked keeps its word of doubt.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..arrays import never, places, put, read, select, settled, stacked, statuses, take, unbatched
from ..core.bounds import Bounds
from ..core.loop import Watch, descend
from ..core.method import Method
from ..core.pace import WINDOW
from ..core.problem import Problem
from ..core.state import Start, State
from ..core.termination import Status, among
from .believing import believable
from .side_by_side import Room, Voice, run_together, together
from .singly import alone, descend_alone, few, go_on_alone

AGREE = 1e-6  # relative difference of two costs up to which both runs have ended at the same place
BEYOND_HELP = (Status.STOPPED, Status.NOT_FINITE)  # ends that another strategy would not change
# ends from which a run may go on once its strategy has forgotten what made the steps short
GOES_ON = (Status.VALLEY, Status.STALLED, Status.SADDLE)
# beside where it has ended: there the cost is lower, or what is lost has an influence
BESIDE = (Status.SADDLE, Status.LOST)
# ends that may say that the start was too far off
TOO_FAR = (Status.LOST, Status.FLAT, Status.SLOW)
ENOUGH = 200  # trials from which on it does not matter that they are those of two runs
NEAR = 1e-5  # share of the cost that is promised where a slow run is near its end
SAMPLE = 64  # problems that ended alike of which a way must help one before it is asked of the rest
MANY = 32 * SAMPLE  # problems up to which a run of all takes about as long as that of a sample
BEYOND = 5  # times the usual trials, after which another run is given up
LEAST = 4 * WINDOW  # but never before, as another run may well be slow where the first was quick
USUAL = 32  # problems of a batch, and half of it, that must be sure to tell what is usual


class Opinion(NamedTuple):
    """Another way to run."""

    name: str  # in a sentence: "Nielsen's damping with Levenberg's scaling"
    method: Method
    restart: bool  # begin where the best run has ended, not where the first began
    factors: Tensor | float | None = None  # one or (n,), by which the start is multiplied
    of_lost: bool = False  # asked only where runs end too far off: without influence, or slowly

    @property
    def same_start(self) -> bool:
        """Whether it is another strategy from where the first run began."""
        return not self.restart and self.factors is None

    def take(self, places: Tensor) -> "Opinion":
        """The opinion on some problems of a batch (b,)."""
        return self._replace(method=self.method.take(places))


# runs problems (b,) of a method from a start, until so many trials, and within so many that are
# allowed; None: it cannot
Quick = Callable[[Problem, Method, Start, int, int], State | None]


class BestRun(NamedTuple):
    """The best of all runs."""

    state: State
    runs: Tensor  # (...,) int, how many there were
    kept: Tensor  # (...,) int, the number of the opinion that was kept; 0: the first run
    # (...,) bool: another strategy from the same start has ended at the same place, too far off
    agreed: Tensor
    elsewhere: Tensor  # (...,) bool: so has a run from a smaller start


class _Listening:
    """A watch that remembers whether the user has asked to stop."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.stop = False

    def __call__(self, state: State) -> bool:
        """Pass on what the watch says."""
        self.stop = self.watch(state)
        return self.stop


def beginning(opinion: Opinion, x: Tensor, state: State, bounds: Bounds | None) -> Start:
    """Where an opinion begins: at or near x0, or where the best run ended, or beside that."""
    if opinion.factors is not None:
        by = opinion.factors
        moved = x * (by.to(x) if isinstance(by, Tensor) else by)
        return Start(
            moved if bounds is None else bounds.project(moved.to(bounds.lower.dtype)).to(x.dtype)
        )
    if not opinion.restart:
        return Start(x)
    # a step of this length changes the residuals by about as much as they are
    length = (2 * state.cost).sqrt()[..., None]
    aside = state.x + (length * state.certificate.downward).to(state.x.dtype)
    beside = among(state.status, BESIDE)[..., None] & aside.isfinite()
    return Start(torch.where(beside, aside, state.x), begun=state.begun)


def unasked(state: State) -> BestRun:
    """The best of one run alone: that run."""
    none, nobody = statuses(state.cost, 0), never(state.cost)
    return BestRun(state, none + 1, none, nobody, nobody)


def usual(trials: Tensor, sure: Tensor) -> int | None:
    """The trials (b,) that half of the sure problems of a batch have needed, if they are many."""
    if trials.ndim == 0 or len(trials) < USUAL:
        return None
    needed = trials[sure]
    return int(needed.median()) if len(needed) >= max(USUAL, len(trials) / 2) else None


def ask(
    problem: Problem,
    opinions: Sequence[Opinion],
    x: Tensor,  # (n,) or (b, n), where the first run began
    state: State,  # where it ended
    *,
    trials: int,
    in_all: int | None = None,  # trials of all runs together; None: each run has its own
    usual: int | None = None,  # trials that most problems of the batch have needed
    acceptable: Tensor | None = None,  # (...,), the largest cost that is believed
    watch: Watch | None = None,
    quick: Quick | None = None,
    room: Room = Room(0),
) -> BestRun:
    """Run again in other ways what the first run has left unsure of its minimum.

    Where a run is `quick`, problems are not sampled.
    """
    best = unasked(_without_strategy(state))
    if settled(~doubtful(state, acceptable)):
        return best
    if acceptable is not None and bool(doubtful(state, acceptable).any()):
        acceptable = believable(problem, x, state.x, acceptable)
    enough = None if usual is None else max(LEAST, BEYOND * usual)
    doubts = _doubts(opinions, best, acceptable)
    if enough is not None and in_all is None and watch is None and quick is None:
        rounds = _rounds(opinions, doubts, room.runs)
        for numbers in rounds:
            best = _at_once(problem, opinions, numbers, x, best, trials, enough, acceptable, room)
        if rounds:
            return _poor(problem, best, acceptable)
    for number, opinion in enumerate(opinions, 1):
        doubt = doubts[number - 1]
        if not doubt.number:
            continue
        # a run with more patience gets only what the others have left, lest nothing ever end
        patient = not opinion.method.patience
        shared = trials if patient and in_all is None else in_all
        left = trials if shared is None else shared - doubt.spent - 1  # its start counts, too
        if left <= 0:
            continue
        listening = watch and _Listening(watch)
        problem = replace(problem, form=opinion.method.solver.form)
        hear = partial(
            _hear, problem, opinion, number, x,
            trials=left, enough=enough, acceptable=acceptable, watch=listening, quick=quick,
        )  # fmt: skip
        best = (
            _sampled(hear, number, best, doubt, listening) if quick is None else hear(best, doubt)
        )
        doubts = _doubts(opinions, best, acceptable)
        # the user's word ends all runs, not this one alone
        if listening is not None and listening.stop:
            status = torch.where(
                doubtful(best.state, acceptable), Status.STOPPED.value, best.state.status
            )
            return best._replace(state=best.state._replace(status=status))
    return _poor(problem, best, acceptable)


def _poor(problem: Problem, best: BestRun, acceptable: Tensor | None) -> BestRun:
    """The best of all runs, and no success where that is too poor to be believed."""
    if acceptable is None:
        return best
    poor = (best.state.status > 0) & (best.state.cost > acceptable)
    # a wall may be what keeps the fit from a better one: it was the user's wish
    if problem.bounds is not None:
        poor = poor & ~problem.bounds.touched(best.state.x).any(-1)
    status = torch.where(poor, Status.POOR.value, best.state.status)
    return best._replace(state=best.state._replace(status=status))


def doubtful(state: State, acceptable: Tensor | None) -> Tensor:
    """Problems without a certified minimum, or with one too poor to believe, (...,) bool."""
    doubt = (state.status <= 0) | state.certificate.blind
    if acceptable is not None:
        doubt = doubt | (state.cost > acceptable)
    return doubt & ~among(state.status, BEYOND_HELP)


class _Doubt(NamedTuple):
    """The problems that an opinion is to be asked about."""

    where: Tensor  # (...,) bool
    number: int
    spent: int  # trials that one of them has cost, at most


def _doubts(opinions: Sequence[Opinion], best: BestRun, acceptable: Tensor | None) -> list[_Doubt]:
    """What each opinion would be asked about as things stand: one host read for all.

    In a batch, where two strategies from one start, or runs from two, have ended at the same place
    too far off, no further one of the kind is asked. A single fit asks them all: otherwise it would
    miss three of the minima of the classical problems.
    """
    if not opinions:
        return []
    state = best.state
    every, numbers = [], []
    doubt = doubtful(state, acceptable)
    for opinion in opinions:
        own = doubt
        if opinion.restart:
            own = own & _goes_on(state, opinion)
        if opinion.of_lost:
            own = own & among(state.status, TOO_FAR)
        if state.cost.ndim and (opinion.of_lost or opinion.same_start):
            own = own & ~(best.elsewhere if opinion.of_lost else best.agreed)
        every.append(own)
        numbers += [own.sum(), torch.where(own, state.trials, 0).amax()]
    found = read(*numbers)
    return [_Doubt(*of) for of in zip(every, found[::2], found[1::2], strict=True)]


def _goes_on(state: State, opinion: Opinion) -> Tensor:
    """Problems to continue from where they ended, (...,) bool; a slow one if near, or at last."""
    slow = state.status == Status.SLOW.value
    if opinion.method.patience:
        slow = slow & (state.certificate.promise < NEAR)
    lost = torch.eq(state.status, Status.LOST.value) & (state.certificate.downward != 0).any(-1)
    return slow | lost | among(state.status, GOES_ON)


def _rounds(opinions: Sequence[Opinion], doubts: Sequence[_Doubt], room: int) -> list[list[int]]:
    """The opinions by their numbers, those together that are asked side by side; none: each alone.

    The first round has one of each kind, whose ends tell whom a further one of the kind is asked
    about, and from where one with more patience begins.
    """
    kinds = set()
    first, then = list[int](), list[int]()
    for number, opinion in enumerate(opinions, 1):
        kind = opinion.restart, opinion.same_start, opinion.of_lost
        patient = opinion.restart and not opinion.method.patience
        (then if kind in kinds or patient else first).append(number)
        kinds.add(kind)
    rounds = [numbers for numbers in (first, then) if numbers]
    for numbers in rounds:
        runs = [doubts[number - 1].number for number in numbers]
        if sum(runs) > room or max(runs) > MANY:
            return []
    return rounds if together([opinion.method for opinion in opinions]) else []


def _at_once(
    problem: Problem,
    opinions: Sequence[Opinion],
    numbers: Sequence[int],  # of those that are asked
    x: Tensor,  # (b, n)
    best: BestRun,
    trials: int,
    enough: int,
    acceptable: Tensor | None,
    room: Room,
) -> BestRun:
    """Some opinions, side by side, on the problems in doubt."""
    doubts = _doubts(opinions, best, acceptable)
    asked, voices = [], []
    for number in numbers:
        opinion, doubt = opinions[number - 1], doubts[number - 1]
        # a run with more patience gets only what the others have left, lest nothing ever end
        if not doubt.number or (not opinion.method.patience and doubt.spent + 1 >= trials):
            continue
        chosen = places(doubt.where, doubt.number)
        bounds = problem.bounds and problem.bounds.take(chosen)
        way = opinion.take(chosen)
        start = beginning(way, x[chosen], take(best.state, chosen), bounds)
        asked.append(number)
        voices.append(Voice(opinion.method, chosen, start))
    if not voices:
        return best
    limit = min(trials, enough)
    ends = run_together(problem, voices, limit, room)
    for number, voice, other in zip(asked, voices, ends, strict=True):
        end = _slow(other) if limit < trials else other
        bar = None if acceptable is None else acceptable[voice.places]
        before = take(best, voice.places)
        better = _better(before, end, number, opinions[number - 1], bar)
        best = put(best, voice.places, better)
    return best


def _slow(state: State) -> State:
    """The ends of runs that were given up before all trials that the user allows were used."""
    out = state.status == Status.EVALUATIONS.value
    return state._replace(status=torch.where(out, Status.SLOW.value, state.status))


def _sampled(
    hear: Callable[[BestRun, _Doubt], BestRun],
    number: int,
    best: BestRun,
    doubt: _Doubt,
    listening: _Listening | None,
) -> BestRun:
    """One opinion on a sample of many problems in doubt, and on all that ended as one it helped."""
    if doubt.number <= MANY:
        return hear(best, doubt)
    ended = best.state.status
    some = torch.zeros_like(doubt.where)
    for status in ended[doubt.where].unique():
        alike = doubt.where & (ended == status)
        rank, count = alike.cumsum(0) - 1, int(alike.sum())
        # spread by the golden ratio, so that no pattern among the problems meets one of the sample
        chosen = rank * 40503 % 65536 < SAMPLE * 65536 // count
        some |= alike & (chosen if count > 2 * SAMPLE else True)
    heard = hear(best, doubt._replace(where=some, number=int(some.sum())))
    helped = ended[some & (heard.kept == number)].unique()
    rest = doubt.where & ~some & torch.isin(ended, helped)
    count = int(rest.sum())
    if not count or (listening is not None and listening.stop):
        return heard
    return hear(heard, doubt._replace(where=rest, number=count))


def _hear(
    problem: Problem,
    opinion: Opinion,
    number: int,
    x: Tensor,
    best: BestRun,
    doubt: _Doubt,
    *,
    trials: int,
    enough: int | None,  # trials after which the run is called slow
    acceptable: Tensor | None,
    watch: Watch | None,
    quick: Quick | None = None,
) -> BestRun:
    """One opinion on the problems in doubt."""
    allowed = trials
    if enough is not None:
        trials = min(trials, enough)
    hurried = trials < allowed
    if x.ndim == 1:
        start = beginning(opinion, x, best.state, problem.bounds)
        other, _ = descend(problem, opinion.method, start, trials=trials, watch=watch)
        return _better(best, other, number, opinion, acceptable)
    chosen = places(doubt.where, doubt.number)
    before = take(best, chosen)
    whole = best.state

    def show(state: State) -> bool:
        return watch is not None and watch(put(whole, chosen, state))

    part, way = problem.take(chosen), opinion.take(chosen)
    start = beginning(way, x[chosen], before.state, part.bounds)
    found = None if quick is None else quick(part, way.method, start, trials, allowed)
    if found is not None:
        other = found
    elif watch is not None:
        other, _ = descend(part, way.method, start, trials=trials, watch=show)
    elif doubt.number <= (alone_up_to := few(part, way.method, start.x)):
        other = _each(part, way, x[chosen], before.state, trials)
    else:
        leave = alone_up_to if trials >= ENOUGH else 0
        other, _ = descend(part, way.method, start, trials=trials, leave=leave)
        other = go_on_alone(part, way.method, other, trials)
    if hurried:
        other = _slow(other)
    bar = None if acceptable is None else acceptable[chosen]
    return put(best, chosen, _better(before, other, number, opinion, bar))


def _each(problem: Problem, opinion: Opinion, x: Tensor, state: State, trials: int) -> State:
    """The ends of a few problems (k,), one after the other."""
    ends = []
    for place in range(len(x)):
        one = alone(problem, place)
        start = beginning(opinion, x[place].contiguous(), unbatched(state, place), one.bounds)
        end = descend_alone(one, opinion.method.take(place), start, trials)
        ends.append(_without_strategy(end))
    return stacked(ends)


def _better(
    best: BestRun, other: State, number: int, opinion: Opinion, acceptable: Tensor | None
) -> BestRun:
    """The better of two ends, with the effort of both: lower cost, and if equal the surer."""
    state = best.state
    # a cost that is not finite is above every other
    cost, rival = (torch.where(c.isfinite(), c, torch.inf) for c in (state.cost, other.cost))
    equal = (cost - rival).abs() <= AGREE * torch.minimum(cost, rival)
    surer = doubtful(state, acceptable) & ~doubtful(other, acceptable)
    better = torch.where(equal, surer, rival < cost)
    merged = select(better, _without_strategy(other), _without_strategy(state))._replace(
        trials=state.trials + other.trials + 1,  # and the residuals at the other start
        linearizations=state.linearizations + other.linearizations,
    )
    agreed, elsewhere = best.agreed, best.elsewhere
    equal = equal & among(state.status, TOO_FAR) & among(other.status, TOO_FAR)
    if opinion.same_start:
        agreed = agreed | equal
    elif opinion.of_lost:
        elsewhere = elsewhere | equal
    return BestRun(merged, best.runs + 1, torch.where(better, number, best.kept), agreed, elsewhere)


def _without_strategy(state: State) -> State:
    """The state without what its damping knows, so that runs with several can be merged."""
    return state._replace(damping=None)
