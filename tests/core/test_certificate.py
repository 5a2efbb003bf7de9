"""The verdict on a point from given numbers: each line of the table is a rule of its own."""

import math
from typing import Any

import pytest
import torch

from lmtorch.core.allowance import allowance
from lmtorch.core.certificate import certified_status
from lmtorch.core.termination import Status, Tolerances
from lmtorch.core.undamped import Undamped

F32, F64 = torch.float32, torch.float64


def evidence(**seen: Any) -> Undamped:
    """A minimum of cost one with two parameters, but for what is given."""
    two = torch.ones(2, dtype=F64)
    no = torch.zeros((), dtype=torch.bool)
    not_asked: Any = None
    minimum = Undamped(
        cost=two[0], gradient=0 * two, units=two, noise=1e-16 * two[0], excused=0 * two[0],
        decrement=0 * two[0], lowest=0.5 * two[0],
        downward=two, newton=0 * two, blind=no, flat=no, exact=~no, norms=two, looked=not_asked,
        curvature=torch.eye(2, dtype=F64), hidden=0 * two[0], beyond=0 * two[0],
        aside=0 * two,
    )  # fmt: skip
    return minimum._replace(**{name: torch.tensor(value) for name, value in seen.items()})


RULES: list[tuple[Status, dict[str, Any], Status]] = [
    (Status.COST, {}, Status.COST),
    # it ended for want of progress, and turns out to be a minimum
    (Status.STALLED, {}, Status.MINIMUM),
    (Status.SLOW, {}, Status.MINIMUM),
    (Status.COST, {"decrement": 0.9e-8}, Status.COST),
    (Status.COST, {"decrement": 1.1e-8}, Status.VALLEY),  # the allowance is a share of the cost
    (Status.COST, {"decrement": 1.1e-8, "cost": 10.0}, Status.COST),
    (Status.COST, {"decrement": math.inf}, Status.VALLEY),
    (Status.STALLED, {"decrement": 1e-7}, Status.VALLEY),
    (Status.SLOW, {"decrement": 1e-7}, Status.SLOW),
    # what round-off may have promised
    (Status.COST, {"decrement": 1.5e-7, "excused": 1.6e-7}, Status.COST),
    (Status.COST, {"decrement": 1.7e-7, "excused": 1.6e-7}, Status.VALLEY),
    # along directions that are blurred more may be promised, but not without end
    (Status.COST, {"decrement": 0.9e-6, "beyond": 0.9e-6}, Status.COST),
    (Status.COST, {"decrement": 0.9e-6, "beyond": 0.8e-6}, Status.VALLEY),
    (Status.COST, {"decrement": 1.1e-6, "beyond": 1.1e-6}, Status.VALLEY),
    # that of the cost alone is no excuse: the gradient may be clear
    (Status.COST, {"decrement": 1.5e-7, "noise": 1e-8}, Status.VALLEY),
    (Status.COST, {"decrement": 0.0, "cost": 0.0}, Status.COST),  # a root promises nothing, not 0/0
    (Status.COST, {"lowest": -2e-6}, Status.SADDLE),
    (Status.COST, {"lowest": -0.5e-6}, Status.COST),
    (Status.STALLED, {"lowest": -2e-6}, Status.SADDLE),
    (Status.COST, {"lowest": -2e-6, "decrement": 1e-7}, Status.VALLEY),  # not stationary yet
    (Status.GRADIENT, {"norms": [0.0, 0.0]}, Status.MINIMUM),  # a cosine with nothing says nothing
    (Status.GRADIENT, {"norms": [0.0, 1.0]}, Status.GRADIENT),
    (Status.GRADIENT, {"norms": [0.0, 0.0], "lowest": -1.0}, Status.SADDLE),
    (Status.COST, {"lost": [False, True]}, Status.LOST),
    (Status.SLOW, {"lost": [True, True], "decrement": 1.0}, Status.LOST),
    (Status.GRADIENT, {"flat": True, "norms": [0.0, 0.0]}, Status.FLAT),
    (Status.GRADIENT, {"flat": True, "norms": [0.0, 0.0], "lost": [True, False]}, Status.FLAT),
    # nothing to explain
    (Status.GRADIENT, {"flat": True, "norms": [0.0, 0.0], "cost": 0.0}, Status.MINIMUM),
]


@pytest.mark.parametrize(("ended", "seen", "expected"), RULES, ids=str)
def test_the_verdict_follows_the_rules(
    ended: Status, seen: dict[str, Any], expected: Status
) -> None:
    gone = torch.tensor(seen.get("lost", [False, False]))
    point = evidence(**{name: value for name, value in seen.items() if name != "lost"})
    status = certified_status(torch.tensor(int(ended)), point, gone, 1e-8, 1e-6)
    assert Status(int(status)) is expected


@pytest.mark.parametrize(
    ("decrement", "cost", "share"), [(0.0, 0.0, 0.0), (0.0, 3.0, 0.0), (1.5, 3.0, 0.5)]
)
def test_a_promise_is_a_share_of_the_cost_and_that_of_a_root_is_nothing(
    decrement: float, cost: float, share: float
) -> None:
    assert evidence(decrement=decrement, cost=cost).promise == share


@pytest.mark.parametrize(
    ("tolerances", "dtype", "expected"),
    [
        (Tolerances(), F64, 1e-8),
        (Tolerances(0, 0, 0), F64, 1e-8),
        (Tolerances(1e-6, 0, 0), F64, 1e-5),  # who asks for less than that is told no more
        (Tolerances(0, 1e-2, 0), F64, 1e-3),  # a length counts by its square, as a cosine does
        (Tolerances(0, 0, 1e-2), F64, 1e-3),
        (Tolerances(1e-6, 1e-6, 1e-6), F32, 1e-5),
        (Tolerances(1e-5, 0, 0), F32, 1e-4),
        (Tolerances(), torch.bfloat16, 1e-5),
    ],
    ids=str,
)
def test_a_certified_point_may_promise_what_the_dtype_or_the_user_allow(
    tolerances: Tolerances, dtype: torch.dtype, expected: float
) -> None:
    assert allowance(tolerances, dtype) == pytest.approx(expected)
