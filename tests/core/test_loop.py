"""The loop: one problem and many, masks, statuses, and what is carried from call to call."""

import pytest
import torch
from torch import Tensor

from lmtorch.core.termination import Status
from lmtorch.damping.base import Damping
from lmtorch.damping.geodesic import Geodesic
from lmtorch.damping.marquardt import Marquardt
from lmtorch.damping.nielsen import Nielsen
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.solvers.base import Solver
from lmtorch.solvers.cholesky import Cholesky
from lmtorch.solvers.qr import QR
from lmtorch.solvers.svd import SVD

from .setting import decay, minimise, rosenbrock

DAMPINGS = [TrustRegion(), Nielsen(), Marquardt(), Geodesic(TrustRegion())]
dampings = pytest.mark.parametrize("damping", DAMPINGS, ids=repr)
solvers = pytest.mark.parametrize("solver", [SVD(), QR(), Cholesky()], ids=lambda s: type(s).__name__)


def starts(*batch: int, seed: int = 0) -> Tensor:
    """Around (1, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return 1 + 0.5 * torch.randn(*batch, 2, dtype=torch.float64, generator=generator)


@dampings
@solvers
@pytest.mark.parametrize("fun", [rosenbrock, decay], ids=lambda fun: fun.__name__)
@pytest.mark.parametrize("batch", [(3,), (2, 3)], ids=str)
def test_a_batch_equals_its_problems_one_by_one(damping: Damping, solver: Solver, fun, batch: tuple[int, ...]) -> None:
    x = starts(*batch)
    together = minimise(fun, x, damping=damping, solver=solver, trials=6)
    for index in torch.cartesian_prod(*(torch.arange(size) for size in batch)).reshape(-1, len(batch)).tolist():
        place = tuple(index)
        alone = minimise(fun, x[place], damping=damping, solver=solver, trials=6)
        # a batched product may sum in another order: a few times ε, times the condition of two to three steps
        torch.testing.assert_close(together.x[place], alone.x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together.cost[place], alone.cost, rtol=1e-7, atol=1e-12)
        assert Status(int(together.status[place])).converged == Status(int(alone.status)).converged


@dampings
@solvers
def test_one_problem_that_is_not_finite_leaves_its_neighbours_digits_alone(damping: Damping, solver: Solver) -> None:
    x = starts(3)
    clean = minimise(decay, x, damping=damping, solver=solver)
    x = x.clone()
    x[1, 0] = torch.nan
    state = minimise(decay, x, damping=damping, solver=solver)
    assert state.status[1] == Status.NOT_FINITE
    assert (state.status[[0, 2]] == clean.status[[0, 2]]).all()
    assert torch.equal(state.x[[0, 2]], clean.x[[0, 2]])
    assert torch.equal(state.cost[[0, 2]], clean.cost[[0, 2]])
    torch.testing.assert_close(state.x[1], x[1], rtol=0, atol=0, equal_nan=True)


@dampings
def test_a_trial_that_is_not_finite_is_refused_and_another_tried(damping: Damping) -> None:
    def fun(x: Tensor) -> Tensor:  # the Gauss–Newton step from 1 leads to the logarithm of a negative number
        return torch.log(x) - torch.tensor([-3.0], dtype=torch.float64)

    state = minimise(fun, torch.ones(1, dtype=torch.float64), damping=damping)
    assert state.cost < 1e-18
    torch.testing.assert_close(state.x, torch.exp(torch.tensor([-3.0], dtype=torch.float64)))


@dampings
def test_the_users_function_never_sees_a_number_of_ours_that_is_not_finite(damping: Damping) -> None:
    def fun(x: Tensor) -> Tensor:
        seen.append(bool(x.isfinite().all()))
        return torch.stack([x[..., 0] + x[..., 1] - 1, x[..., 0] + x[..., 1] - 2, 0 * x[..., 0]], -1)

    seen: list[bool] = []
    minimise(fun, torch.ones(2, dtype=torch.float64), damping=damping, solver=QR())  # deficient: NaN undamped
    assert all(seen)


def test_a_single_call_stops_at_the_first_step_that_is_taken() -> None:
    x = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    state = minimise(rosenbrock, x, single=True)
    assert state.trial is not None
    assert state.trial.accepted
    assert state.linearizations == 1
    assert state.cost < rosenbrock(x).square().sum() / 2
    assert state.status == Status.RUNNING


def test_a_problem_that_is_done_is_not_moved_by_those_that_are_not() -> None:
    x = torch.tensor([[1.0, 1.0], [-1.2, 1.0]], dtype=torch.float64)
    state = minimise(rosenbrock, x)
    assert torch.equal(state.x[0], x[0])
    assert state.status[0] == Status.ZERO
    torch.testing.assert_close(state.x[1], x[0])


def test_too_few_trials_are_said_to_be_refused_not_converged() -> None:
    state = minimise(rosenbrock, torch.tensor([-1.2, 1.0], dtype=torch.float64), trials=1, single=True)
    assert state.status == Status.REFUSED  # the start: the first trial is refused


def test_costs_and_masks_of_one_problem_have_no_dimension() -> None:
    state = minimise(decay, starts())
    assert state.cost.shape == state.status.shape == state.trial.accepted.shape == state.damping.damping.shape == ()
    assert state.cost.dtype == torch.float64
    assert state.x.dtype == torch.float64


def test_parameters_in_float32_stay_so() -> None:
    state = minimise(decay, starts().float())
    assert state.x.dtype == torch.float32
    assert state.cost.dtype == torch.float64
