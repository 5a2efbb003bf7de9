"""Which of two runs is kept, who is asked again, and what all of it has cost: from given ends."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lmtorch.core.bounds import Bounds
from lmtorch.core.method import Method
from lmtorch.core.state import Begun, State, fresh
from lmtorch.core.termination import Status
from lmtorch.damping.scaling import More
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.minimising import opinions
from lmtorch.minimising.opinions import (
    MANY,
    SAMPLE,
    BestRun,
    Opinion,
    _better,
    _Doubt,
    _doubts,
    _hear,
    _sampled,
    beginning,
    doubtful,
    unasked,
    usual,
)
from lmtorch.solvers.svd import SVD

from .setting import F64

METHOD = Method(SVD(), TrustRegion(), More())
OTHER = Opinion("another strategy", METHOD, restart=False)
SMALLER = Opinion("a smaller start", METHOD, False, 0.1, of_lost=True)
ONWARD = Opinion("from where it had ended", METHOD, restart=True)


def end(cost: Any, status: Any, trials: int = 5, made: int = 3) -> State:
    """Of one problem, or of several."""
    costs = torch.as_tensor(cost, dtype=F64)
    ones = torch.ones_like(costs, dtype=torch.int64)
    x = costs[..., None] * torch.ones(2, dtype=F64)
    state = fresh(x, costs, torch.as_tensor(status), x, None, Begun(x, costs, x))
    return state._replace(trials=trials * ones, linearizations=made * ones)


SURE, UNSURE = Status.COST, Status.VALLEY
BETTER = [
    ((2.0, SURE), (1.0, SURE), 7),
    ((1.0, SURE), (2.0, SURE), 0),
    ((1.0, UNSURE), (1.0 + 1e-7, SURE), 7),  # the same place, and the second is sure of it
    ((1.0, UNSURE), (1.0 + 1e-5, SURE), 0),
    ((1.0, SURE), (1.0 - 1e-7, SURE), 0),  # no reason to change
    ((1.0, SURE), (1.0 - 1e-7, UNSURE), 0),
    ((1.0, UNSURE), (1.0, UNSURE), 0),
    ((1.0, SURE), (0.5, UNSURE), 7),  # the lower cost, even if there is more to be had
    ((math.nan, Status.NOT_FINITE), (3.0, UNSURE), 7),
    ((3.0, UNSURE), (math.nan, Status.NOT_FINITE), 0),
    ((math.inf, Status.NOT_FINITE), (math.inf, Status.NOT_FINITE), 0),
    ((0.0, SURE), (0.0, SURE), 0),
]


@pytest.mark.parametrize(("first", "second", "kept"), BETTER, ids=str)
@pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
def test_the_lower_cost_is_kept_and_of_equal_ones_the_sure(
    first: tuple[float, Status], second: tuple[float, Status], kept: int, batch: bool
) -> None:
    mine, theirs = ([[v] for v in run] if batch else list(run) for run in (first, second))
    best = _better(unasked(end(*mine)), end(*theirs, trials=11, made=4), 7, OTHER, None)
    assert best.kept.reshape(()) == kept
    chosen = torch.tensor(second[0] if kept else first[0], dtype=F64)
    torch.testing.assert_close(best.state.cost.reshape(()), chosen, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(best.state.x.reshape(2)[0], chosen, rtol=0, atol=0, equal_nan=True)
    # 5 and 11 trials, and the residuals at the start of the second run, which is no trial
    assert best.state.trials.reshape(()) == 5 + 11 + 1
    assert best.state.linearizations.reshape(()) == 3 + 4
    assert best.runs.reshape(()) == 2


def test_a_number_is_kept_through_further_runs_that_are_worse() -> None:
    best: BestRun = unasked(end(3.0, UNSURE))
    for number, cost in ((1, 2.0), (2, 2.5), (3, 1.0), (4, 4.0)):
        best = _better(best, end(cost, UNSURE), number, OTHER, None)
    assert (int(best.kept), int(best.runs), float(best.state.cost)) == (3, 5, 1.0)


WORSE, LOWER = 1.0 + 1e-5, 1.0 - 1e-5
PLACES = [
    (OTHER, 1.0 + 1e-7, [False, True, True]),  # from one start it is the same place for the third
    (OTHER, WORSE, [True, True, True]),
    (OTHER, LOWER, [True, True, True]),
    (OTHER, math.nan, [True, True, True]),
    (SMALLER, 1.0, [True, False, True]),  # of two starts
    (SMALLER, WORSE, [True, True, True]),
    (ONWARD, 1.0, [True, True, True]),  # which had not far to go
]


@pytest.mark.parametrize(("asked", "cost", "further"), PLACES, ids=str)
def test_where_two_strategies_from_a_start_end_at_one_place_no_third_is_asked(
    asked: Opinion, cost: float, further: list[bool]
) -> None:
    lost = [Status.LOST, Status.LOST]
    best = _better(unasked(end([1.0, 1.0], lost)), end([cost, 2.0], lost), 1, asked, None)
    every = [doubt.where for doubt in _doubts([OTHER, SMALLER, Opinion("", METHOD, False, 3.0)],
                                              best, None)]  # fmt: skip
    assert [bool(where[0]) for where in every] == further
    assert all(where[1] for where in every)  # each problem for itself


@pytest.mark.parametrize("asked", [OTHER, SMALLER], ids=str)
def test_a_single_fit_asks_all_the_same(asked: Opinion) -> None:
    best = _better(unasked(end(1.0, Status.LOST)), end(1.0, Status.LOST), 1, asked, None)
    assert all(bool(doubt.where) for doubt in _doubts([OTHER, SMALLER], best, None))


@pytest.mark.parametrize("status", [Status.SADDLE, Status.COST, Status.VALLEY])
def test_two_strategies_at_one_saddle_or_poor_minimum_say_nothing_of_a_third(
    status: Status,
) -> None:
    best = _better(unasked(end([1.0], [status])), end([1.0], [status]), 1, OTHER, None)
    (doubt,) = _doubts([OTHER], best, torch.tensor([0.5], dtype=F64))  # more than is believed
    assert bool(doubt.where)


def test_a_slow_run_is_asked_again_from_smaller_starts() -> None:
    ended = [Status.SLOW, Status.LOST, Status.FLAT, Status.SADDLE, Status.COST]
    (doubt,) = _doubts([SMALLER], unasked(end([1.0] * 5, ended)), None)
    assert doubt.where.tolist() == [True, True, True, False, False]


DOUBTS = [
    (1.0, Status.COST, False, None, False),
    (1.0, Status.COST, True, None, True),  # the certificate could not see
    (1.0, Status.COST, False, 2.0, False),
    (3.0, Status.COST, False, 2.0, True),  # more than is believed
    (1.0, Status.EVALUATIONS, False, None, True),
    (1.0, Status.SADDLE, False, 2.0, True),
    (1.0, Status.LOST, False, None, True),
    (3.0, Status.STOPPED, True, 2.0, False),  # the user's word
    (math.nan, Status.NOT_FINITE, True, 2.0, False),  # no other strategy helps
]


@pytest.mark.parametrize(("cost", "status", "blind", "bar", "expected"), DOUBTS, ids=str)
def test_who_is_asked_again(
    cost: float, status: Status, blind: bool, bar: float | None, expected: bool
) -> None:
    state = end(cost, status)
    state = state._replace(certificate=state.certificate._replace(blind=torch.tensor(blind)))
    believed = None if bar is None else torch.tensor(bar, dtype=F64)
    assert bool(doubtful(state, believed)) is expected


def test_a_restart_begins_beside_a_saddle_and_at_the_end_of_any_other_run() -> None:
    state = end([2.0, 2.0], [Status.SADDLE, Status.VALLEY])
    downward = torch.tensor([[0.0, 0.5], [0.0, 0.5]], dtype=F64)
    begun: Any = "where the first run began"
    state = state._replace(certificate=state.certificate._replace(downward=downward), begun=begun)
    start = beginning(Opinion("", METHOD, restart=True), torch.zeros(2, 2, dtype=F64), state, None)
    # the residuals have length √(2 F) = 2, by which they change about as much as they are
    assert start.x.tolist() == [[2.0, 3.0], [2.0, 2.0]]
    assert start.begun is begun


@pytest.mark.parametrize(
    ("lower", "expected"), [(-math.inf, [[0.2, -0.4]]), (0.3, [[0.3, 0.3]])], ids=str
)
def test_a_start_of_another_size_stays_in_the_box(
    lower: float, expected: list[list[float]]
) -> None:
    x = torch.tensor([[2.0, -4.0]], dtype=F64).clamp(min=lower)
    side = torch.full((2,), lower, dtype=F64)
    box = Bounds(side, torch.full_like(side, math.inf))
    other = Opinion("", METHOD, False, torch.tensor(0.1, dtype=F64))
    start: Tensor = beginning(other, x, end([1.0], [UNSURE]), box).x
    torch.testing.assert_close(start, torch.tensor(expected, dtype=F64))
    assert beginning(Opinion("", METHOD, False), x, end([1.0], [UNSURE]), box).x is x


def test_what_is_usual_is_told_by_many_sure_problems_only() -> None:
    trials, sure = torch.arange(100), torch.arange(100) < 61
    assert usual(trials, sure) == 30  # the median of 0 … 60
    assert usual(trials, torch.arange(100) < 49) is None
    assert usual(trials[:30], sure[:30]) is None
    assert usual(trials[0], sure[0]) is None


def test_a_way_is_asked_of_the_rest_that_ended_as_one_it_helped() -> None:
    count = 3000
    status = torch.full((count,), int(Status.LOST))
    assert count > MANY  # up to which all are asked at once
    status[::10], status[1::30] = int(Status.SLOW), int(Status.SADDLE)
    best = unasked(end(torch.ones(count), status))
    asked = []

    def hear(best: BestRun, doubt: _Doubt) -> BestRun:
        asked.append(doubt.where)
        assert int(doubt.where.sum()) == doubt.number
        helped = doubt.where & (status == int(Status.SLOW))
        return best._replace(kept=torch.where(helped, 7, best.kept))

    doubt = torch.ones(count, dtype=torch.bool)
    doubt[:50] = False
    _sampled(hear, 7, best, _Doubt(doubt, int(doubt.sum()), 0), None)
    slow, few = status == int(Status.SLOW), status == int(Status.SADDLE)
    first, second = asked
    assert abs(int((first & (status == int(Status.LOST))).sum()) - SAMPLE) <= 3
    assert (first | ~(few & doubt)).all()  # a hundred that ended alike are asked at once
    assert torch.equal((first | second) & slow, slow & doubt)  # nobody twice, nobody left out
    assert torch.equal(second, slow & doubt & ~first)


@pytest.mark.parametrize(("enough", "trials", "ended"), [(50, 50, Status.SLOW), (None, 900, 0)])
def test_a_run_far_beyond_what_is_usual_is_slow_and_not_out_of_evaluations(
    monkeypatch: pytest.MonkeyPatch, enough: int | None, trials: int, ended: int
) -> None:
    allowed = []

    def descend(problem: Any, method: Any, start: Any, *, trials: int, **_: Any) -> Any:
        allowed.append(trials)
        return end([0.5], [Status.EVALUATIONS], trials), None

    monkeypatch.setattr(opinions, "descend", descend)
    problem: Any = SimpleNamespace(bounds=None, residual=None)
    problem.take = lambda chosen: problem
    where = torch.tensor([False, True])
    best = _hear(
        problem, Opinion("", METHOD, False), 1, torch.zeros(2, 2, dtype=F64),
        unasked(end([1.0, 1.0], [SURE, Status.LOST])), _Doubt(where, 1, 5),
        trials=900, enough=enough, acceptable=None, watch=None,
    )  # fmt: skip
    assert allowed == [trials]
    assert best.state.status.tolist() == [SURE, ended]
