"""Six of NIST's reference problems through the optimizer with default options, from both starts."""

from functools import cache
from typing import NamedTuple

import pytest
import torch

import lmtorch

from .nist import PROBLEMS, SIX, log_relative_error

CAP = 3000  # steps; the longest run takes a few hundred
STARTS = [(name, start) for name in SIX for start in (0, 1)]


class Run(NamedTuple):
    """Where a run ended."""

    digits: float
    status: lmtorch.Status
    steps: int


@cache
def run(name: str, start: int) -> Run:
    """One run, shared by the tests."""
    problem = PROBLEMS[name]
    b = torch.tensor(problem.starts[start], dtype=torch.float64, requires_grad=True)
    opt = lmtorch.LevenbergMarquardt([b])
    steps = 0
    while not opt.status.final and steps < CAP:
        opt.step(lambda: problem.residual(b))
        steps += 1
    return Run(log_relative_error(b.detach(), problem.certified), opt.status, steps)


@pytest.mark.parametrize(("name", "start"), STARTS)
def test_at_least_six_digits_are_right(name: str, start: int) -> None:
    result = run(name, start)
    assert result.digits >= 6, result


@pytest.mark.parametrize(("name", "start"), STARTS)
def test_no_run_says_converged_with_fewer_than_four_digits(name: str, start: int) -> None:
    result = run(name, start)
    assert result.status.final
    assert result.digits >= 4 or not result.status.converged


def test_the_mean_is_within_a_quarter_digit_of_what_is_printed() -> None:
    # eleven printed digits allow a mean of 10.74; the certified values themselves are rounded
    digits = [run(name, start).digits for name, start in STARTS]
    assert sum(digits) / len(digits) >= 10.5, digits
