"""A valley without an end: a sum of two exponentials of which one runs away along a single point.

The second exponential comes to meet the last point alone, for ever better as it grows faster, and
its share becomes so small that the column of the share is huge. A bound of round-off by norms would
have that column hide what is still to be gained: it did, and every start ended somewhere else, and
called it a minimum.
"""

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from lmtorch import Status, least_squares

from ..programs import compiler
from .setting import F64
from .test_singly import B, fitted, misfit, signals

STARTS = ([1.0, 0.2, 0.02, 0.001], [1.0, 0.1, 0.02, 0.001], [1.0, 0.9, 0.002, 0.001])
OF = 24  # of the signals


def floor(y: Tensor) -> float:
    """The cost that the valley falls to: one exponential for all points but the last."""

    def alone(p: Any) -> Any:
        return (p[0] * np.exp(-p[1] * B.numpy()) - y.numpy())[:-1]

    found = scipy.optimize.least_squares(alone, [1.0, 0.001], x_scale="jac", xtol=1e-15, ftol=1e-15)
    return float(found.cost)


def honest(status: int, cost: float, least: float) -> bool:
    """Whether an end is no success, or at the floor."""
    return status <= 0 or abs(cost - least) <= 1e-8 * least


@pytest.mark.parametrize("x0", STARTS)
def test_no_start_in_a_valley_without_an_end_is_called_a_minimum(x0: list[float]) -> None:
    y = signals(40)[OF]
    end = least_squares(misfit, torch.tensor(x0, dtype=F64), args=(B, y))
    least = floor(y)
    assert least < float(end.cost) < (1 + 1e-3) * least  # it is that valley
    assert honest(int(end.status), float(end.cost), least)


@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=[compiler, pytest.mark.slow])]
)
def test_nor_is_it_in_a_batch_and_what_has_a_minimum_stays_a_success(compiled: bool) -> None:
    y = signals(40)
    ends = fitted(y, compile=compiled)
    assert honest(int(ends.status[OF]), float(ends.cost[OF]), floor(y[OF]))
    assert int((ends.status > 0).sum()) > 15


def test_data_that_are_met_to_round_off_are_no_valley() -> None:
    """What the model promises there is round-off, as the rows say, and one does with it."""
    x = torch.tensor([1.0, 0.3, 0.05, 0.001], dtype=F64)
    y = misfit(x, B, torch.zeros(len(B), dtype=F64))
    for scale in (1.02, 1.3):
        end = least_squares(misfit, scale * x, args=(B, y))
        assert end.success
        assert Status(int(end.status)) is not Status.VALLEY
        torch.testing.assert_close(end.x, x, rtol=1e-9, atol=0)
