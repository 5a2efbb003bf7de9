"""What every damping promises, seen trial by trial."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from lmtorch.core.termination import Status
from lmtorch.damping.base import Damping, LinearModel, Outcome, gain_ratio
from lmtorch.linearizations.base import predicted_decrease

from ..problems import CLASSICAL
from .members import DAMPINGS
from .on_numpy import on_both
from .setting import NAMES, path, start_of

both = on_both(DAMPINGS)
dampings = pytest.mark.parametrize("damping", both.values(), ids=both)
names = pytest.mark.parametrize("name", NAMES)


@cache
def walked(damping: Damping, name: str) -> list[Any]:
    """The path from the start of a problem: the laws look at the same one."""
    return path(CLASSICAL[name].residual, start_of(name), damping)


def valley(x: Tensor) -> Tensor:
    """Rosenbrock's, of a batch."""
    return torch.stack([10 * (x[..., 1] - x[..., 0] ** 2), 1 - x[..., 0]], -1)


def promised(damping: Damping, model: LinearModel, state: Any) -> Tensor:
    """The part of a proposed step for which the linear model speaks, (..., n)."""
    step, _, *linear = damping.propose(model, state)
    return step if not linear or linear[0] is None else linear[0]


def reach(damping: Damping, model: LinearModel, state: Any) -> Tensor:
    """Its length in the metric of D, (...,)."""
    return torch.linalg.vector_norm(model.scale * promised(damping, model, state), dim=-1)


def after_trial(damping: Damping, model: LinearModel, state: Any, gained: bool) -> Any:
    """The state after a trial that went as the linear model had promised, or the other way."""
    step, proposed = damping.propose(model, state)[:2]
    slope = (model.linearization.gradient * step).sum(-1)
    predicted = predicted_decrease(model.linearization, step)
    actual = predicted if gained else -predicted
    length = torch.linalg.vector_norm(model.scale * step, dim=-1)
    ratio = torch.ones_like(length) if gained else -torch.ones_like(length)
    outcome = Outcome(ratio, torch.tensor(gained), length, slope, actual, predicted)
    return damping.update(proposed, outcome)


@dampings
@names
def test_an_accepted_trial_lowers_the_cost_and_a_refused_one_changes_nothing(
    damping: Damping, name: str
) -> None:
    fun = CLASSICAL[name].residual
    for before, _, after in walked(damping, name):
        if after.trial.accepted:
            assert fun(after.x).square().sum() < fun(before.x).square().sum()
            assert after.cost < before.cost
        else:
            assert torch.equal(after.x, before.x)
            assert after.cost == before.cost


@dampings
@names
def test_a_refusal_allows_no_longer_a_step(damping: Damping, name: str) -> None:
    # the same one where λ is still below round-off, or the radius no shorter than the step
    for before, model, after in walked(damping, name)[:30]:
        if not after.trial.accepted:
            assert reach(damping, model, after.damping) <= reach(damping, model, before.damping)


@dampings
def test_refusals_in_a_row_make_the_step_as_short_as_it_must_be_and_a_gain_longer_again(
    damping: Damping,
) -> None:
    _, model, after = walked(damping, "kowalik_osborne")[0]
    state = after.damping
    first = reach(damping, model, state)
    for _ in range(30):
        state = after_trial(damping, model, state, gained=False)
    shortest = reach(damping, model, state)
    assert shortest < 1e-6 * first
    for _ in range(30):
        state = after_trial(damping, model, state, gained=True)
    assert reach(damping, model, state) > shortest


@dampings
@names
def test_a_good_gain_allows_no_shorter_a_step(damping: Damping, name: str) -> None:
    # a trust region may meet its radius a tenth short at one time, and a tenth beyond at another
    for before, model, after in walked(damping, name)[:30]:
        if after.trial.ratio > 0.9:
            allowed = reach(damping, model, after.damping)
            assert allowed >= 0.99 * reach(damping, model, before.damping)


@dampings
@names
def test_rescaled_parameters_take_the_same_path_under_mores_scaling(
    damping: Damping, name: str
) -> None:
    # powers of two, so that rescaling is exact; what differs is the order of
    # rounding in the factorisation
    fun, x = CLASSICAL[name].residual, start_of(name)
    units = 2.0 ** torch.arange(-8, 3 * x.shape[0] - 8, 3, dtype=torch.float64)
    plain = walked(damping, name)[:12]
    rescaled = path(lambda z: fun(z / units), x * units, damping, trials=12)
    assert len(plain) == len(rescaled)
    for (_, _, mine), (_, _, theirs) in zip(plain, rescaled, strict=True):
        assert bool(mine.trial.accepted) == bool(theirs.trial.accepted)
        torch.testing.assert_close(theirs.x / units, mine.x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(theirs.cost, mine.cost, rtol=1e-7, atol=1e-15)


@dampings
@names
def test_what_the_linear_model_promises_for_is_downhill(damping: Damping, name: str) -> None:
    for _, model, after in walked(damping, name)[:10]:
        gradient = model.linearization.gradient
        assert (gradient * promised(damping, model, after.damping)).sum() <= 0


@dampings
def test_the_state_has_numbers_of_each_problem_and_a_damping(damping: Damping) -> None:
    fun, x = valley, torch.tensor([[-1.2, 1.0], [0.5, 2.0], [3.0, -1.0]], dtype=torch.float64)
    for before, model, after in path(fun, x, damping, trials=5):
        _, proposed = damping.propose(model, before.damping)[:2]
        for state in (before.damping, proposed, after.damping):
            assert all(field.shape == (3,) for field in state)
            assert (state.damping >= 0).all()


@dampings
def test_a_batch_takes_the_paths_of_its_problems(damping: Damping) -> None:
    x = torch.tensor([[-1.2, 1.0], [0.5, 2.0], [3.0, -1.0]], dtype=torch.float64)
    together = path(valley, x, damping, trials=12)
    for place, start in enumerate(x):
        alone = path(valley, start, damping, trials=12)
        for (_, _, ours), (_, _, mine) in zip(together, alone, strict=False):
            # factorisations of a batch may sum in another order, and trials carry the difference on
            torch.testing.assert_close(ours.x[place], mine.x, rtol=1e-9, atol=1e-9)
            assert ours.trial.accepted[place] == mine.trial.accepted


@dampings
def test_a_trial_that_is_no_number_shortens_the_reach_and_leaves_a_usable_state(
    damping: Damping,
) -> None:
    _, model, after = walked(damping, "kowalik_osborne")[0]
    nan = torch.tensor(torch.nan, dtype=torch.float64)
    outcome = Outcome(
        gain_ratio(nan, nan), torch.tensor(False), length=nan, slope=nan, actual=nan, predicted=nan,
    )  # fmt: skip
    _, state = damping.propose(model, after.damping)[:2]
    for _ in range(100):
        state = damping.update(state, outcome)
    assert all(bool(field.isfinite().all()) for field in state)
    step, _ = damping.propose(model, state)[:2]
    assert step.isfinite().all()
    assert torch.linalg.vector_norm(step) < 1e-6


@dampings
def test_a_problem_that_is_done_keeps_its_damping(damping: Damping) -> None:
    x = torch.tensor([[1.0, 1.0], [-1.2, 1.0]], dtype=torch.float64)

    before, _, after = path(valley, x, damping, trials=1)[0]
    assert before.status.tolist() == [Status.ZERO, Status.RUNNING]
    assert all(
        torch.equal(a[0], b[0])
        for a, b in zip(before.damping, after.damping, strict=True)
        if a is not b
    )
