"""Statuses: what may be said of a point, and what may not."""

from typing import Any

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch.core.termination import Evidence, Status, Tolerances, verdict
from lmtorch.damping.marquardt import Marquardt
from lmtorch.damping.nielsen import Nielsen
from lmtorch.damping.trust_region import TrustRegion

from ..nist import PROBLEMS
from .setting import decay, minimise, rosenbrock

dampings = pytest.mark.parametrize("damping", [TrustRegion(), Nielsen(), Marquardt()], ids=repr)


@dampings
def test_a_rejected_step_at_the_rosenbrock_start_is_not_called_converged(
    damping: TrustRegion,
) -> None:
    x = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    for trials in range(1, 12):
        state = minimise(rosenbrock, x, damping=damping, trials=trials)
        assert not Status(int(state.status)).converged, (trials, state)
    assert minimise(rosenbrock, x, damping=damping).cost < 1e-20


def test_a_row_rejected_while_another_is_accepted_is_not_called_converged() -> None:
    x = torch.tensor([[-1.2, 1.0], [0.9, 0.9]], dtype=torch.float64)
    state = minimise(rosenbrock, x, trials=1)
    assert state.trial.accepted.tolist() == [False, True]
    assert not Status(int(state.status[0])).converged


@pytest.mark.parametrize("polish", [0, 20])
def test_float32_says_stalled_when_asked_for_tolerances_below_its_resolution(polish: int) -> None:
    x = torch.tensor([2.0, 2.0], dtype=torch.float32)
    state = minimise(decay, x, tolerances=Tolerances(1e-14, 1e-14, 1e-14), polish=polish)
    assert state.status == Status.STALLED
    reasonable = minimise(decay, x, tolerances=Tolerances(1e-4, 1e-4, 1e-4))
    assert Status(int(reasonable.status)).converged
    # half of the digits of the cost
    torch.testing.assert_close(state.x, reasonable.x, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["Misra1a", "Thurber", "Rat43", "Gauss1"])
def test_zero_tolerances_end_stalled_on_real_data(name: str) -> None:
    problem = PROBLEMS[name]
    b = torch.tensor(problem.starts[1], dtype=torch.float64)
    state = minimise(problem.residual, b, tolerances=Tolerances(0, 0, 0))
    assert state.status == Status.STALLED, Status(int(state.status)).message


@pytest.mark.parametrize("bad", [torch.nan, torch.inf], ids=str)
def test_a_start_that_is_not_finite_is_never_called_converged(bad: float) -> None:
    x = torch.tensor([1.0, bad], dtype=torch.float64)
    state = minimise(decay, x, polish=5)
    assert state.status == Status.NOT_FINITE
    assert not Status.NOT_FINITE.converged
    torch.testing.assert_close(state.x, x, rtol=0, atol=0, equal_nan=True)


def test_a_derivative_that_is_not_finite_is_never_called_converged() -> None:
    def fun(x: Tensor) -> Tensor:  # d√|x| at 0
        return torch.stack([x[..., 0].abs().sqrt() + 1, x[..., 1] - 3], -1)

    state = minimise(fun, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert state.status == Status.NOT_FINITE


def test_a_wall_of_nan_round_the_start_is_refused() -> None:
    def fun(x: Tensor) -> Tensor:
        return torch.where((x - 1).abs() < 1e-300, x + 5, torch.nan * x)

    state = minimise(fun, torch.ones(1, dtype=torch.float64), trials=30)
    assert not Status(int(state.status)).converged
    assert state.x == 1


def test_zero_residuals_and_a_vanishing_gradient_are_told_from_each_other() -> None:
    one = torch.ones(2, dtype=torch.float64)
    assert minimise(lambda x: x - 1, one).status == Status.ZERO
    state = minimise(lambda x: torch.cat([x - 1, torch.ones_like(x)], -1), one)
    assert state.status == Status.GRADIENT


@dampings
def test_a_minimum_is_called_converged(damping: TrustRegion) -> None:
    state = minimise(decay, torch.tensor([2.0, 2.0], dtype=torch.float64), damping=damping)
    assert Status(int(state.status)).converged
    J = torch.func.jacfwd(decay)(state.x)
    r = decay(state.x)
    assert ((J.T @ r).abs() / (J.norm(dim=0) * r.norm())).max() < 1e-6


def test_every_status_has_words_and_only_minima_are_converged() -> None:
    converged = {status for status in Status if status.converged}
    found = {Status.GRADIENT, Status.COST, Status.STEP, Status.ZERO, Status.MINIMUM}
    assert converged == found | {Status.RUNAWAY}
    assert all(status.final for status in Status if status is not Status.RUNNING)
    assert all(status.message.startswith("converged") == status.converged for status in Status)


def test_the_optimizer_says_what_the_loop_says() -> None:
    x = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
    opt = lmtorch.LevenbergMarquardt([x], max_trials=1)
    opt.step(lambda: rosenbrock(x))
    assert not opt.converged
    assert x.tolist() == [-1.2, 1.0]


def test_a_step_that_a_tiny_region_cut_short_is_not_called_converged() -> None:
    x = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    state = minimise(rosenbrock, x, damping=TrustRegion(initial=1e-13), trials=1)
    assert state.trial.accepted
    assert state.trial.ratio > 0.9
    assert not Status(int(state.status)).converged
    # the region grows
    assert minimise(rosenbrock, x, damping=TrustRegion(initial=1e-6)).cost < 1e-20


def trial(**seen: Any) -> Evidence:
    """A kept trial of cost one that gained a tenth, but for what is given; ε is 1e-16."""
    going: dict[str, Any] = {
        "cost": 1.0, "actual": 0.1, "promised": 0.1, "accepted": True, "length": 0.1,
        "noise": 1e-16,
        "optimality": 0.5, "single_move": 0.5, "trusting": False, "at_wall": False,
    }  # fmt: skip
    numbers = {
        name: torch.tensor(value, dtype=None if isinstance(value, bool) else torch.float64)
        for name, value in (going | seen).items()
    }
    return Evidence(**numbers, eps=1e-16)


REFUSED = {"accepted": False, "actual": -1.0}
TINY = {"actual": 1e-11, "promised": 1e-11}
RULES: list[tuple[dict[str, Any], Status]] = [
    ({}, Status.RUNNING),
    # the cost: found and promised are small, and no single parameter could do much better
    ({**TINY, "optimality": 1e-4}, Status.COST),
    ({**TINY, "single_move": 1e-8}, Status.COST),
    (TINY, Status.RUNNING),  # a single move promises a quarter of the cost: λ was large
    ({**TINY, "optimality": 4e-4}, Status.RUNNING),  # up to 1000 tolerances, of cos² F
    ({**TINY, "optimality": 1e-4, "actual": 1e-9}, Status.RUNNING),  # both must be small
    ({**TINY, "optimality": 1e-4, "promised": 1e-9}, Status.RUNNING),
    ({**TINY, "optimality": 1e-4, "cost": 0.05}, Status.RUNNING),  # they are shares of the cost
    ({**TINY, "optimality": 1e-4, "accepted": False}, Status.RUNNING),
    # the step
    ({"length": 1e-11, "optimality": 1e-4}, Status.STEP),
    ({"length": 1e-11, "single_move": 0.9e-7}, Status.STEP),
    ({"length": 1e-11, "single_move": 1.1e-7}, Status.RUNNING),
    ({"length": 1e-11, "optimality": 1e-4, "accepted": False}, Status.RUNNING),
    ({**TINY, "length": 1e-11, "optimality": 1e-4}, Status.COST),
    # below what the dtype resolves nothing can be called converged, unless the
    # tolerance asked for more
    ({"length": 1e-17}, Status.STALLED),
    ({"actual": 1e-17, "promised": 1e-17}, Status.STALLED),
    ({"length": 1e-17, "optimality": 1e-4}, Status.STEP),
    # all of the cost was round-off, of which a step makes another one; a cost of zero is none
    ({"cost": 1e-17, "actual": 0.5e-17, "promised": 0.5e-17}, Status.STALLED),
    ({"cost": 1e-17, "actual": 1e-17, "promised": 1e-17}, Status.RUNNING),
    # refused
    (REFUSED, Status.RUNNING),
    # the region is small: a single move promises more
    ({**REFUSED, "promised": 1e-17}, Status.RUNNING),
    ({**REFUSED, "promised": 1e-17, "optimality": 1e-7}, Status.STALLED),
    ({**REFUSED, "promised": 1e-17, "trusting": True}, Status.STALLED),
    ({**REFUSED, "promised": -1.0, "trusting": True}, Status.RUNNING),  # badly solved for
    ({**REFUSED, "promised": torch.inf, "trusting": True}, Status.RUNNING),  # not solved for
    # at a wall that has just been met derivatives may be of another kind
    ({**TINY, "optimality": 1e-4, "at_wall": True}, Status.RUNNING),
    ({**REFUSED, "promised": 0.0, "trusting": True, "at_wall": True}, Status.STALLED),
]


@pytest.mark.parametrize(("seen", "expected"), RULES, ids=str)
def test_the_verdict_on_a_trial_follows_the_rules(seen: dict[str, Any], expected: Status) -> None:
    assert Status(int(verdict(Tolerances(), trial(**seen)))) is expected


def test_tolerances_of_zero_never_converge() -> None:
    seen = trial(actual=1e-13, promised=1e-13, length=1e-13, optimality=0.0, single_move=0.0)
    assert verdict(Tolerances(), seen) == Status.COST
    assert verdict(Tolerances(0, 0, 0), seen) == Status.RUNNING
