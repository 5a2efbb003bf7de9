"""The loop: one problem and many, masks, statuses, and what is carried from call to call."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from lmtorch.core.bounds import Bounds
from lmtorch.core.linearizing import begin, dead_end, withdraw
from lmtorch.core.loop import attempt
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.state import Start
from lmtorch.core.termination import Status
from lmtorch.damping.base import Damping
from lmtorch.damping.geodesic import Geodesic
from lmtorch.damping.marquardt import Marquardt
from lmtorch.damping.nielsen import Nielsen
from lmtorch.damping.scaling import FixedScale, More
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.jacobians.forward import Forward
from lmtorch.losses.linear import Linear
from lmtorch.residuals.function import FunctionResidual
from lmtorch.solvers.base import Solver
from lmtorch.solvers.cholesky import Cholesky
from lmtorch.solvers.qr import QR
from lmtorch.solvers.svd import SVD

from .setting import decay, minimise, rosenbrock

DAMPINGS = [TrustRegion(), Nielsen(), Marquardt(), Geodesic(TrustRegion())]
dampings = pytest.mark.parametrize("damping", DAMPINGS, ids=repr)
solvers = pytest.mark.parametrize(
    "solver", [SVD(), QR(), Cholesky()], ids=lambda s: type(s).__name__
)


def starts(*batch: int, seed: int = 0) -> Tensor:
    """Around (1, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return 1 + 0.5 * torch.randn(*batch, 2, dtype=torch.float64, generator=generator)


@dampings
@solvers
@pytest.mark.parametrize("fun", [rosenbrock, decay], ids=lambda fun: fun.__name__)
@pytest.mark.parametrize("batch", [(3,), (2, 3)], ids=str)
def test_a_batch_equals_its_problems_one_by_one(
    damping: Damping, solver: Solver, fun, batch: tuple[int, ...]
) -> None:
    x = starts(*batch)
    together = minimise(fun, x, damping=damping, solver=solver, trials=6)
    for index in (
        torch.cartesian_prod(*(torch.arange(size) for size in batch))
        .reshape(-1, len(batch))
        .tolist()
    ):
        place = tuple(index)
        alone = minimise(fun, x[place], damping=damping, solver=solver, trials=6)
        # a batched product may sum in another order: a few times ε, times the
        # condition of two to three steps
        torch.testing.assert_close(together.x[place], alone.x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together.cost[place], alone.cost, rtol=1e-7, atol=1e-12)
        assert Status(int(together.status[place])).converged == Status(int(alone.status)).converged
        # whoever is done, or was refused, needs no linear model, though the others do
        assert together.linearizations[place] == alone.linearizations
        assert together.trials[place] == alone.trials


@dampings
@solvers
def test_one_problem_that_is_not_finite_leaves_its_neighbours_digits_alone(
    damping: Damping, solver: Solver
) -> None:
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
    # the Gauss–Newton step from 1 leads to the logarithm of a negative number
    def fun(x: Tensor) -> Tensor:
        return torch.log(x) - torch.tensor([-3.0], dtype=torch.float64)

    state = minimise(fun, torch.ones(1, dtype=torch.float64), damping=damping)
    assert state.cost < 1e-18
    torch.testing.assert_close(state.x, torch.exp(torch.tensor([-3.0], dtype=torch.float64)))


@dampings
def test_the_users_function_never_sees_a_number_of_ours_that_is_not_finite(
    damping: Damping,
) -> None:
    def fun(x: Tensor) -> Tensor:
        seen.append(bool(x.isfinite().all()))
        return torch.stack(
            [x[..., 0] + x[..., 1] - 1, x[..., 0] + x[..., 1] - 2, 0 * x[..., 0]], -1
        )

    seen: list[bool] = []
    # deficient: NaN undamped
    minimise(fun, torch.ones(2, dtype=torch.float64), damping=damping, solver=QR())
    assert all(seen)


def test_a_single_call_stops_at_the_first_step_that_is_taken() -> None:
    x = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    state = minimise(rosenbrock, x, single=True)
    assert state.trial.accepted
    assert state.linearizations == 1
    assert state.cost < rosenbrock(x).square().sum() / 2
    assert state.status == Status.RUNNING


@pytest.mark.parametrize("many", [(), (3,)], ids=["one", "three"])
def test_the_last_step_that_was_kept_is_known_where_it_is_asked_for(many: tuple[int, ...]) -> None:
    x = torch.tensor([-1.2, 1.0], dtype=torch.float64).expand(*many, 2).clone()
    ways = [minimise(rosenbrock, x, trials=trials, before=torch.zeros_like(x)) for trials in (1, 4)]
    for state, trials in zip(ways, (1, 4), strict=True):
        before = minimise(rosenbrock, x, trials=trials - 1) if trials > 1 else None
        assert state.step is not None
        if before is None:  # the first trial is refused
            assert not state.trial.accepted.any()
            assert not state.step.any()
        else:
            assert state.trial.accepted.all()
            torch.testing.assert_close(state.step, state.x - before.x)
    assert minimise(rosenbrock, x, trials=2).step is None


def test_the_last_step_is_that_of_a_rate_of_one() -> None:
    x = torch.tensor([1.0, 1.0], dtype=torch.float64)
    whole, reduced = (
        minimise(decay, x, single=True, before=torch.zeros_like(x), rate=rate)
        for rate in (None, torch.tensor([0.25, 0.0], dtype=torch.float64))
    )
    assert whole.step is not None
    assert reduced.step is not None
    torch.testing.assert_close(reduced.step[0], whole.step[0])
    assert reduced.step[1] == 0 != whole.step[1]


def test_a_problem_that_is_done_is_not_moved_by_those_that_are_not() -> None:
    x = torch.tensor([[1.0, 1.0], [-1.2, 1.0]], dtype=torch.float64)
    state = minimise(rosenbrock, x)
    assert torch.equal(state.x[0], x[0])
    assert state.status[0] == Status.ZERO
    assert state.trials[0] == 1  # the first trial is of all problems
    torch.testing.assert_close(state.x[1], x[0])


NAN = torch.nan
# norms before and now, x before (now it is 0, 5), cost
DEAD_ENDS: dict[str, tuple[Any, Any, Any, float, bool]] = {
    "alive": ([1.0, 1.0], [1.0, 1.0], [1.0, 4.0], 1.0, False),
    "a slope that is infinite": ([1.0, 1.0], [torch.inf, 1.0], [1.0, 4.0], 1.0, True),
    "a slope that is no number": ([1.0, 1.0], [NAN, 1.0], [1.0, 4.0], 1.0, True),
    "all influence has gone": ([1.0, 1.0], [0.0, 0.0], [1.0, 4.0], 1.0, True),
    "all influence has gone from a root": ([1.0, 1.0], [0.0, 0.0], [1.0, 4.0], 0.0, False),
    "there never was any": ([0.0, 0.0], [0.0, 0.0], [1.0, 4.0], 1.0, False),
    "gone at the bound that it has met": ([1.0, 1.0], [0.0, 1.0], [1.0, 4.0], 1.0, True),
    "gone at the bound where it was before": ([1.0, 1.0], [0.0, 1.0], [0.0, 4.0], 1.0, False),
    "never there at the bound that it has met": ([0.0, 1.0], [0.0, 1.0], [1.0, 4.0], 1.0, False),
    "gone inside the box": ([1.0, 1.0], [1.0, 0.0], [1.0, 4.0], 1.0, False),
}


@pytest.mark.parametrize("case", DEAD_ENDS)
def test_a_trial_is_a_dead_end_where(case: str) -> None:
    before, now, was, cost, expected = DEAD_ENDS[case]
    norms, x = torch.tensor(now, dtype=torch.float64), torch.tensor([0.0, 5.0], dtype=torch.float64)
    box = Bounds(
        torch.zeros(2, dtype=torch.float64), torch.full((2,), torch.inf, dtype=torch.float64)
    )
    problem = Problem(
        FunctionResidual(decay, x), Forward(), SVD().form, Linear(), torch.float64, bounds=box,
    )  # fmt: skip
    model: Any = SimpleNamespace(
        gradient=norms * cost, column_norms=norms, cost=torch.tensor(cost, dtype=torch.float64)
    )
    last: Any = SimpleNamespace(
        x=torch.tensor(was, dtype=torch.float64), norms=torch.tensor(before)
    )
    assert bool(dead_end(problem, x, model, last)) is expected
    unbounded = replace(problem, bounds=None)
    assert bool(dead_end(unbounded, x, model, last)) is (expected and "bound" not in case)


@dampings
def test_a_withdrawn_trial_is_one_that_was_refused(damping: Damping) -> None:
    x = torch.tensor([[0.8, 0.9], [1.1, 1.2]], dtype=torch.float64)
    problem = Problem(FunctionResidual(decay, x), Forward(), SVD().form, Linear(), torch.float64)
    method = Method(SVD(), damping, More())
    before, model = begin(problem, method, Start(x, step=torch.full_like(x, 7.0)))
    after, tried = attempt(problem, method, before, model)
    assert after.trial.accepted.all()
    last: Any = SimpleNamespace(x=x, cost=before.cost, tried=tried, step=before.step)
    state = withdraw(method, after, last, torch.tensor([True, False]))
    assert state.trial.accepted.tolist() == [False, True]
    assert torch.equal(state.x, torch.stack([x[0], after.x[1]]))
    assert state.step is not None
    assert state.step[0].tolist() == [7.0, 7.0]
    torch.testing.assert_close(state.step[1], after.x[1] - x[1])
    # the first has learnt that the step was too long, the second goes on as it was
    reach = lambda of: (
        of.damping.radius if hasattr(of.damping, "radius") else 1 / of.damping.damping
    )
    radius = reach(tried)
    assert reach(state)[0] < radius[0]
    assert reach(state)[1] == reach(after)[1]


def test_a_dead_end_of_one_problem_costs_its_neighbours_no_linearization() -> None:
    def fun(x: Tensor) -> Tensor:  # √a ± 1: the first step of the first leads to the wall, d√a at 0
        a, sign = x[..., 0], x[..., 1]
        return torch.stack([a.sqrt() + sign, 100 * (sign.square() - 1)], -1)

    side = torch.tensor([0.0, -torch.inf], dtype=torch.float64)
    of_problem = {"bounds": Bounds(side, torch.full_like(side, torch.inf))}
    x = torch.tensor([[1.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    damping = Nielsen(initial=1e-9)
    together = minimise(fun, x, damping=damping, trials=2, **of_problem)
    assert not together.trial.accepted[0]
    for i in range(2):
        alone = minimise(fun, x[i], damping=damping, trials=2, **of_problem)
        torch.testing.assert_close(together.x[i], alone.x)
        assert together.trials[i] == alone.trials
        assert together.linearizations[i] == alone.linearizations


def test_a_state_is_tensors_and_nothing_is_missing() -> None:
    start = minimise(rosenbrock, torch.ones(2, dtype=torch.float64))  # which is the minimum
    assert start.step is None  # nobody has asked for it
    for x in (torch.ones(2, dtype=torch.float64), starts(), starts(3)):
        state = minimise(rosenbrock, x, before=torch.zeros_like(x))
        assert state.changed is None  # nobody has asked here either
        leaves, _ = tree_flatten(state._replace(changed=state.trial.accepted))
        assert len(leaves) > 20
        assert all(isinstance(leaf, Tensor) for leaf in leaves)
    assert (start.trials, start.linearizations) == (0, 1)
    assert not start.trial.accepted
    assert start.trial.cost == start.cost == 0


def test_too_few_trials_are_said_to_be_refused_not_converged() -> None:
    state = minimise(
        rosenbrock, torch.tensor([-1.2, 1.0], dtype=torch.float64), trials=1, single=True
    )
    assert state.status == Status.REFUSED  # the start: the first trial is refused


def test_costs_and_masks_of_one_problem_have_no_dimension() -> None:
    state = minimise(decay, starts())
    assert (
        state.cost.shape
        == state.status.shape
        == state.trial.accepted.shape
        == state.damping.damping.shape
        == ()
    )
    assert state.cost.dtype == torch.float64
    assert state.x.dtype == torch.float64


def test_parameters_in_float32_stay_so() -> None:
    state = minimise(decay, starts().float())
    assert state.x.dtype == torch.float32
    assert state.cost.dtype == torch.float64


def test_members_that_know_the_problems_apart_are_taken_with_them() -> None:
    @dataclass(frozen=True)
    class Each(Nielsen):
        numbers: tuple[int, ...] = (0, 1, 2)

        def take(self, places: Tensor) -> "Each":
            return Each(numbers=tuple(self.numbers[place] for place in places.tolist()))

    method = Method(SVD(), Each(), FixedScale(torch.arange(1.0, 7).view(3, 2)))
    some = method.take(torch.tensor([2, 0]))
    assert some.damping.numbers == (2, 0)
    assert some.scaling.scale.tolist() == [[5, 6], [1, 2]]
    assert some.solver is method.solver
