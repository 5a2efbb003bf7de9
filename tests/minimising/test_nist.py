"""Six of NIST's problems at default options, and all at tight tolerances beside lmder."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from scipy.optimize import leastsq
from torch import Tensor

from lmtorch import Solution, least_squares

from ..nist import PROBLEMS, SIX, log_relative_error
from ..references import jacobian
from .setting import F64

STARTS = [(name, start) for name in SIX for start in (0, 1)]
TIGHT = 1e-15


def begin(name: str, start: int) -> Tensor:
    return torch.tensor(PROBLEMS[name].starts[start], dtype=F64)


@cache
def default(name: str, start: int) -> Solution:
    return least_squares(PROBLEMS[name].residual, begin(name, start))


def digits(name: str, start: int) -> float:
    return log_relative_error(default(name, start).x, PROBLEMS[name].certified)


@pytest.mark.parametrize(("name", "start"), STARTS)
def test_at_least_six_digits_are_right_and_it_is_called_a_success(name: str, start: int) -> None:
    assert digits(name, start) >= 6
    assert default(name, start).success, default(name, start).message


def test_the_mean_is_within_a_quarter_digit_of_what_is_printed() -> None:
    # eleven printed digits allow a mean of 10.74; the certified values themselves are rounded
    found = [digits(name, start) for name, start in STARTS]
    assert sum(found) / len(found) >= 10.5, found


@pytest.mark.parametrize("start", [0, 1])
def test_digits_that_round_off_hides_from_newtons_steps_are_polished_for(start: int) -> None:
    # the data are met to five digits, and the exponentials are as good as dependent
    assert digits("Lanczos3", start) >= 9


@pytest.mark.parametrize("name", SIX)
def test_the_residual_sum_of_squares_is_the_certified_one(name: str) -> None:
    # Lanczos1's, 1.4e-25, is the square of the round-off of its data
    certified = PROBLEMS[name].certified_rss
    assert 2 * float(default(name, 0).cost) == pytest.approx(certified, rel=1e-9, abs=1e-20)


@pytest.mark.slow
def test_no_more_evaluations_are_spent_than_by_minpack_at_the_same_tolerances() -> None:
    mine = theirs = 0
    for name, start in itertools.product(PROBLEMS, (0, 1)):
        residual = PROBLEMS[name].residual
        exact = jacobian(residual)
        solution = least_squares(residual, begin(name, start), ftol=TIGHT, xtol=TIGHT, gtol=TIGHT)
        mine += solution.nfev
        with np.errstate(all="ignore"):  # trials that overflow are refused, but NumPy warns first
            *_, info, _, _ = leastsq(
                lambda x, f=residual: f(torch.from_numpy(x)).numpy(), begin(name, start).numpy(),
                Dfun=lambda x, j=exact: j(torch.from_numpy(x)).numpy(), ftol=TIGHT, xtol=TIGHT,
                gtol=TIGHT,
                full_output=True, maxfev=10_000,
            )  # fmt: skip
        theirs += info["nfev"]
    assert mine <= theirs, (mine, theirs)
