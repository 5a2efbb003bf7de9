"""Second opinions side by side: a run among many others is the run that it is by itself."""

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch.core.linearizing import largest_norms
from lmtorch.core.loop import descend
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.state import Start, State
from lmtorch.core.termination import Status
from lmtorch.damping.nielsen import Nielsen
from lmtorch.damping.scaling import CurrentNorms, FixedScale, Levenberg, More
from lmtorch.damping.several import SeveralScalings
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.minimising import opinions
from lmtorch.minimising.opinions import BEYOND, LEAST, MANY, Opinion, _Doubt, _rounds
from lmtorch.minimising.side_by_side import Room, Voice, run_together, together
from lmtorch.solvers.qr import QR
from lmtorch.solvers.svd import SVD

from .test_singly import X0, fitted, signals

METHOD = Method(SVD(), TrustRegion(), More(), polish=20, certify=True, patience=1e-3, windows=2)
WAYS = [
    METHOD,
    replace(METHOD, damping=Nielsen(), scaling=CurrentNorms()),
    replace(METHOD, damping=TrustRegion(10.0), windows=1),
    replace(METHOD, damping=Nielsen(), scaling=Levenberg()),
]


class Asked(NamedTuple):
    """What was run side by side."""

    problem: Problem
    voices: list[Voice]
    trials: int
    room: Room
    ends: list[State]


@cache
def asked() -> tuple[lmtorch.Solution, list[Asked]]:
    """A fit of many signals, and what it has run side by side."""
    found: list[Asked] = []

    def noted(problem: Problem, voices: Any, trials: int, room: Room) -> list[State]:
        ends = run_together(problem, voices, trials, room)
        found.append(Asked(problem, list(voices), trials, room, ends))
        return ends

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opinions, "run_together", noted)
        solution = fitted(signals(64))
    assert found
    return solution, found


def alone(problem: Problem, voice: Voice, trials: int) -> State:
    """Where the runs of one opinion end when nobody else is there."""
    part = replace(problem.take(voice.places), form=voice.method.solver.form)
    return descend(part, voice.method.take(voice.places), voice.start, trials=trials)[0]


def took_the_same_way(mine: State, other: State) -> None:
    # a trial is kept or refused by a margin of round-off, which differs with the size of a batch
    for name in ("x", "cost"):
        torch.testing.assert_close(getattr(mine, name), getattr(other, name), rtol=1e-8, atol=0)
    torch.testing.assert_close(mine.begun.norms, other.begun.norms, rtol=1e-8, atol=0)
    torch.testing.assert_close(mine.begun.x, other.begun.x, rtol=0, atol=0)
    assert torch.equal(mine.trials, other.trials)
    assert torch.equal(mine.status, other.status)


def starts(problems: Tensor) -> Start:
    """All from one point."""
    return Start(X0.expand(len(problems), -1).clone())


def test_every_run_is_what_it_is_alone() -> None:
    problem = asked()[1][0].problem
    some = torch.arange(12)
    voices = [Voice(way, some[number:], starts(some[number:])) for number, way in enumerate(WAYS)]
    found = run_together(problem, voices, 12, Room(1000))
    for voice, mine in zip(voices, found, strict=True):
        took_the_same_way(mine, alone(problem, voice, 12))
    costs = torch.stack([end.cost[-8:] for end in found])
    assert (costs.amax(0) > costs.amin(0)).all()  # no two strategies are the same


def test_runs_are_given_up_after_five_times_the_usual_trials() -> None:
    found, calls = asked()
    usual = int(found.nfev[found.success].median())
    for call in calls:
        assert call.trials == max(LEAST, BEYOND * usual)
        assert all(int(end.trials.max()) <= call.trials for end in call.ends)


def test_a_restart_remembers_where_the_first_run_began() -> None:
    restarts = [
        (voice, end)
        for call in asked()[1][:1]
        for voice, end in zip(call.voices, call.ends, strict=True)
        if voice.start.begun is not None
    ]
    assert restarts
    for voice, end in restarts:
        assert voice.start.begun is not None
        assert torch.equal(end.begun.x, voice.start.begun.x)
        assert (end.begun.x == X0).all()
        assert not torch.equal(voice.start.x, end.begun.x)


def test_a_run_with_patience_is_not_given_up_beside_others_that_are() -> None:
    problem = asked()[1][0].problem
    some = torch.arange(8)
    hasty = replace(METHOD, patience=0.9, windows=1)  # nothing gains so much for ever
    voices = [Voice(way, some, starts(some)) for way in (hasty, replace(hasty, patience=0.0))]
    hurried, patient = run_together(problem, voices, 70, Room(1000))
    slow = hurried.status == int(Status.SLOW)
    assert slow.any()
    assert (hurried.trials[slow] < 70).all()
    assert (patient.trials[slow] >= 70).any()
    assert (patient.status != int(Status.SLOW)).all()


def test_runs_that_are_never_given_up_need_no_others_beside_them() -> None:
    """Where no problem was in doubt for the others, a batch of fits ended in StopIteration."""
    problem = asked()[1][0].problem
    some = torch.arange(8)
    voice = Voice(replace(METHOD, patience=0.0), some, starts(some))
    (mine,) = run_together(problem, [voice], 12, Room(1000))
    took_the_same_way(mine, alone(problem, voice, 12))


def test_a_quicker_solver_is_taken_for_many_runs_and_comes_to_the_same_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = asked()[1][0].problem
    some = torch.arange(8)
    voices = [Voice(way, some, starts(some)) for way in WAYS]
    quick = replace(METHOD, solver=QR(), careful=SVD())
    careful = run_together(problem, voices, 12, Room(1000, quick))
    factored: list[int] = []
    real = QR.factor

    def noted(self: QR, *given: Any) -> Any:
        factored.append(1)
        return real(self, *given)

    monkeypatch.setattr(QR, "factor", noted)
    assert not factored
    monkeypatch.setattr("lmtorch.minimising.side_by_side.SWIFT", 31)
    swift = run_together(problem, voices, 12, Room(1000, quick))
    assert factored
    for mine, other in zip(swift, careful, strict=True):
        torch.testing.assert_close(mine.cost, other.cost, rtol=1e-6, atol=0)


ONE = Opinion("", METHOD, restart=True)
KINDS = [
    ONE,
    Opinion("", WAYS[1], False),
    Opinion("", WAYS[2], False),
    Opinion("", replace(METHOD, patience=0.0), True),
    Opinion("", METHOD, False, 0.1, of_lost=True),
    Opinion("", METHOD, False, 0.01, of_lost=True),
]


@pytest.mark.parametrize(
    ("counts", "room", "rounds"),
    [
        ([5, 5, 5, 5, 5, 5], 15, [[1, 2, 5], [3, 4, 6]]),
        ([5, 5, 5, 5, 5, 5], 14, []),  # they do not fit the memory
        ([5, 5, 5, 5, 6, 5], 15, []),
        ([5, 5, 5, 5, 5, 6], 15, []),
        ([5, MANY, 5, 5, 5, 5], 10 * MANY, [[1, 2, 5], [3, 4, 6]]),
        ([5, MANY + 1, 5, 5, 5, 5], 10 * MANY, []),  # of so many a sample is asked first
    ],
)
def test_one_of_each_kind_is_asked_first_where_there_is_room(
    counts: list[int], room: int, rounds: list[list[int]]
) -> None:
    doubts = [_Doubt(torch.ones(1, dtype=torch.bool), count, 0) for count in counts]
    assert _rounds(KINDS, doubts, room) == rounds


def test_methods_that_differ_in_more_than_the_strategy_run_apart() -> None:
    assert together(WAYS)
    assert together([METHOD, replace(METHOD, patience=0.0)])
    assert not together([])
    assert not together([replace(METHOD, patience=0.0)])  # nobody would look at the pace
    for other in ({"solver": QR()}, {"polish": 3}, {"frugal": True}, {"slopes": 1e-8}):
        assert not together([METHOD, replace(METHOD, **other)])


@pytest.mark.parametrize("options", [{"max_nfev": 500}, {"callback": lambda iterate: None}])
def test_who_counts_or_sees_all_trials_has_one_opinion_after_the_other(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    beside: list[int] = []
    monkeypatch.setattr(opinions, "run_together", lambda *given: beside.append(1))
    fitted(signals(40), **options)
    assert not beside


def test_only_of_those_that_remember_is_d_the_largest_norm() -> None:
    which = torch.tensor([1, 0, 2])
    scaling = SeveralScalings((More(), CurrentNorms(), FixedScale(torch.ones(3, 2))), which)
    before, norms = torch.full((3, 2), 5.0), torch.full((3, 2), 2.0)
    assert scaling.update(before, norms)[:, 0].tolist() == [2.0, 5.0, 1.0]
    largest = largest_norms(replace(METHOD, scaling=scaling), before, norms)
    assert largest[:, 0].tolist() == [2.0, 5.0, 2.0]
    part = replace(METHOD, scaling=scaling, windows=torch.tensor([1, 2, 3])).take(
        torch.tensor([2, 1])
    )
    assert part.scaling.update(before[:2], norms[:2])[:, 0].tolist() == [1.0, 5.0]
    assert torch.equal(torch.as_tensor(part.windows), torch.tensor([3, 2]))
