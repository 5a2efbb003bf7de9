"""What every damping promises, seen trial by trial."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lmtorch.core.linearizing import begin, linearize
from lmtorch.core.loop import attempt
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.state import Start, State
from lmtorch.core.termination import Status, Tolerances
from lmtorch.damping.base import Damping, LinearModel, Outcome, gain_ratio
from lmtorch.damping.geodesic import Geodesic
from lmtorch.damping.marquardt import Marquardt, MarquardtState
from lmtorch.damping.nielsen import Nielsen, NielsenState, bounded
from lmtorch.damping.scaling import CurrentNorms, Levenberg, More, Scaling
from lmtorch.damping.trust_region import TrustRegion, multiplier
from lmtorch.jacobians.forward import Forward
from lmtorch.jacobians.ladder import Ladder
from lmtorch.losses.linear import Linear
from lmtorch.residuals.function import FunctionResidual
from lmtorch.solvers.base import Solver
from lmtorch.solvers.cholesky import Cholesky
from lmtorch.solvers.qr import QR
from lmtorch.solvers.svd import SVD

from ..problems import CLASSICAL

DAMPINGS: list[Damping] = [
    TrustRegion(), Nielsen(), Marquardt(), Geodesic(TrustRegion()), Geodesic(Nielsen()), Geodesic(Marquardt()),
]  # fmt: skip
NAMES = ["rosenbrock", "kowalik_osborne", "bard", "freudenstein_roth", "wood", "meyer"]
dampings = pytest.mark.parametrize("damping", DAMPINGS, ids=repr)
names = pytest.mark.parametrize("name", NAMES)
solvers = pytest.mark.parametrize(
    "solver", [SVD(), QR(), Cholesky()], ids=lambda s: type(s).__name__
)


def problem_of(fun: Any, x: Tensor, solver: Solver) -> Problem:
    """Plain least squares."""
    return Problem(
        FunctionResidual(fun, x), Ladder([Forward()]), solver.form, Linear(), torch.float64
    )


def path(
    fun: Any,
    x: Tensor,
    damping: Damping,
    *,
    solver: Solver | None = None,
    scaling: Scaling | None = None,
    trials: int = 60,
) -> list[tuple[State, LinearModel, State]]:
    """(before, linear model, after) of every trial."""
    solver = solver or SVD()
    method = Method(solver, damping, scaling or More(), Tolerances(0, 0, 0))
    problem = problem_of(fun, x, solver)
    state, model = begin(problem, method, Start(x))
    history = []
    for _ in range(trials):
        after, _ = attempt(problem, method, state, model)
        history.append((state, model, after))
        if (after.status != Status.RUNNING).all():
            break
        state = after
        if after.trial.accepted.any():
            state, model = linearize(problem, method, after)
        if (state.status != Status.RUNNING).all():
            break
    return history


def start_of(name: str) -> Tensor:
    """In float64."""
    return torch.tensor(CLASSICAL[name].start, dtype=torch.float64)


def reach(state: State) -> Tensor:
    """How far the next trial may go, in whatever the strategy keeps: a radius, or 1/λ."""
    kept = state.damping
    return kept.radius if hasattr(kept, "radius") else 1 / kept.damping


@dampings
@names
def test_an_accepted_trial_lowers_the_cost_and_a_refused_one_changes_nothing(
    damping: Damping, name: str
) -> None:
    fun = CLASSICAL[name].residual
    for before, _, after in path(fun, start_of(name), damping):
        if after.trial.accepted:
            assert fun(after.x).square().sum() < fun(before.x).square().sum()
            assert after.cost < before.cost
        else:
            assert torch.equal(after.x, before.x)
            assert after.cost == before.cost


@dampings
@names
def test_a_refusal_shortens_the_reach(damping: Damping, name: str) -> None:
    for before, _, after in path(CLASSICAL[name].residual, start_of(name), damping):
        if not after.trial.accepted:
            assert reach(after) < reach(before)


@pytest.mark.parametrize("damping", [Nielsen(), Marquardt()], ids=repr)
@names
def test_a_good_gain_lowers_the_damping(damping: Damping, name: str) -> None:
    for before, _, after in path(CLASSICAL[name].residual, start_of(name), damping):
        if after.trial.ratio > 0.9:
            assert after.damping.damping < before.damping.damping


@solvers
@names
def test_a_trust_region_step_ends_near_the_radius_or_is_gauss_newtons_inside(
    solver: Solver, name: str
) -> None:
    seen = set()
    for before, model, after in path(
        CLASSICAL[name].residual, start_of(name), TrustRegion(), solver=solver
    ):
        if before.cost < 1e-15:
            break  # the radius is of the size of round-off in x
        radius = before.damping.radius
        step, state = TrustRegion().propose(model, before.damping)[:2]
        length = torch.linalg.vector_norm(model.scale * step)
        if state.damping == 0:
            seen.add("inside")
            assert length <= 1.1 * radius * (1 + 1e-12)
            torch.testing.assert_close(step, model.factor.step(torch.zeros_like(radius)))
        else:
            seen.add("edge")
            assert abs(length - radius) <= 0.1 * radius * (1 + 1e-12)
        assert torch.equal(after.trial.damping, state.damping)
    assert "inside" in seen
    assert "edge" in seen or name == "bard"  # whose first Gauss–Newton step is inside


@solvers
@pytest.mark.parametrize("radius", [1e-6, 1e-2, 1.0, 1e2], ids=str)
def test_a_batch_of_radii_is_met_problem_by_problem(solver: Solver, radius: float) -> None:
    def fun(x: Tensor) -> Tensor:
        A = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3).sin() + torch.eye(
            5, 3, dtype=torch.float64
        )
        return x @ A.mT - 1

    x = (
        torch.randn(4, 3, dtype=torch.float64)
        * torch.logspace(-2, 2, 4, dtype=torch.float64)[:, None]
    )
    _, model, _ = path(fun, x, TrustRegion(), solver=solver, trials=1)[0]
    state = TrustRegion().start(model.linearization, model.scale, x)
    state = state._replace(radius=torch.full_like(state.radius, radius))
    step, state = TrustRegion().propose(model, state)[:2]
    length = torch.linalg.vector_norm(model.scale * step, dim=-1)
    near = (length - radius).abs() <= 0.1 * radius * (1 + 1e-12)
    assert (near | (state.damping == 0) & (length <= radius)).all()


@dampings
@names
def test_rescaled_parameters_take_the_same_path_under_mores_scaling(
    damping: Damping, name: str
) -> None:
    # powers of two, so that rescaling is exact; what differs is the order of rounding in the factorisation
    fun, x = CLASSICAL[name].residual, start_of(name)
    units = 2.0 ** torch.arange(-8, 3 * x.shape[0] - 8, 3, dtype=torch.float64)
    plain = path(fun, x, damping, trials=12)
    rescaled = path(lambda z: fun(z / units), x * units, damping, trials=12)
    assert len(plain) == len(rescaled)
    for (_, _, mine), (_, _, theirs) in zip(plain, rescaled, strict=True):
        assert bool(mine.trial.accepted) == bool(theirs.trial.accepted)
        torch.testing.assert_close(theirs.x / units, mine.x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(theirs.cost, mine.cost, rtol=1e-7, atol=1e-15)


def test_without_it_they_do_not() -> None:
    fun, x = CLASSICAL["wood"].residual, start_of("wood")
    units = 2.0 ** torch.arange(4, dtype=torch.float64)
    mine = path(fun, x, Nielsen(), scaling=Levenberg(), trials=1)[0][2].x
    theirs = path(lambda z: fun(z / units), x * units, Nielsen(), scaling=Levenberg(), trials=1)[0][
        2
    ].x
    assert not torch.allclose(mine, theirs / units, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_accepted_steps_are_downhill(name: str) -> None:
    for damping in DAMPINGS[:3]:
        for _, model, after in path(CLASSICAL[name].residual, start_of(name), damping, trials=10):
            step, _ = damping.propose(model, after.damping)[:2]
            assert (model.linearization.gradient * step).sum() <= 0


@pytest.mark.parametrize("inner", [TrustRegion(), Nielsen(), Marquardt()], ids=repr)
def test_geodesic_acceleration_comes_to_the_end_of_a_curved_valley_as_well(inner: Damping) -> None:
    x = start_of("rosenbrock")
    for damping in (inner, Geodesic(inner)):
        *_, (_, _, last) = path(CLASSICAL["rosenbrock"].residual, x, damping, trials=300)
        assert last.cost < 1e-20


@pytest.mark.parametrize("inner", [TrustRegion(), Nielsen()], ids=repr)
def test_geodesic_acceleration_halves_the_trials_in_a_narrow_valley(inner: Damping) -> None:
    def valley(x: Tensor) -> Tensor:
        return torch.stack([1000 * (x[..., 1] - x[..., 0] ** 2), 1 - x[..., 0]], -1)

    x = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    trials = []
    for damping in (inner, Geodesic(inner)):
        costs = [float(after.cost) for _, _, after in path(valley, x, damping, trials=300)]
        trials.append(next(i for i, cost in enumerate(costs) if cost < 1e-12))
    assert 2 * trials[1] < trials[0]


@pytest.mark.parametrize("inner", [TrustRegion(), Nielsen(), Marquardt()], ids=repr)
def test_a_linear_problem_has_nothing_to_accelerate(inner: Damping) -> None:
    problem = CLASSICAL["linear_full_rank"]
    x = start_of("linear_full_rank")
    plain = path(problem.residual, x, inner, trials=3)
    bent = path(problem.residual, x, Geodesic(inner), trials=3)
    for (_, _, mine), (_, _, theirs) in zip(plain, bent, strict=True):
        assert torch.equal(mine.x, theirs.x)


class Straight:
    """A damping that always proposes the same, and a factor whose correction is given."""

    def __init__(self, velocity: Tensor, acceleration: Tensor) -> None:
        self.velocity, self.acceleration = velocity, acceleration

    def propose(self, model: LinearModel, state: Any) -> tuple[Tensor, Any]:
        return self.velocity, state

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        return -self.acceleration


def test_a_geodesic_correction_is_trusted_up_to_three_quarters_of_the_step_in_the_metric_of_d() -> (
    None
):
    # 2‖D a‖/‖D v‖ of the problems of a batch: in the metric of D, in which all of them are ten times what they seem
    shares = torch.tensor([0.0, 0.5, 0.749, 0.751, 2.0, torch.nan], dtype=torch.float64)
    velocity = torch.tensor([[10.0, 0.0]], dtype=torch.float64).expand(6, 2)
    acceleration = torch.stack([torch.zeros(6, dtype=torch.float64), shares / 20], -1)
    scale = torch.tensor([1.0, 100.0], dtype=torch.float64).expand(6, 2)
    straight: Any = Straight(velocity, acceleration)
    state = Nielsen().update(
        NielsenState(torch.ones(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64)),
        Outcome(*(torch.ones(6, dtype=torch.float64),) * 6)._replace(
            accepted=torch.ones(6, dtype=torch.bool)
        ),
    )
    model: Any = LinearModel(None, scale, straight, torch.zeros_like)
    step, _, linear = Geodesic(straight).propose(model, state)
    trusted = torch.tensor([True, True, True, False, False, False])
    torch.testing.assert_close(
        step, velocity + torch.where(trusted[:, None], acceleration / 2, 0.0)
    )
    assert torch.equal(linear, velocity)


def test_nielsens_damping_follows_the_formula() -> None:
    # Madsen & Nielsen (2010), algorithm 6.18: λ and ν after gains ρ, and after refusals in a row
    ones = torch.ones((), dtype=torch.float64)

    def after(state: NielsenState, ratio: float, accepted: bool) -> NielsenState:
        outcome = Outcome(*(ones,) * 6)._replace(
            ratio=ratio * ones, accepted=torch.tensor(accepted)
        )
        return Nielsen().update(state, outcome)

    start = NielsenState(3 * ones, 8 * ones)
    for ratio in (0.01, 0.3, 0.5, 0.9, 1.0, 5.0):
        state = after(start, ratio, True)
        assert state.damping.item() == pytest.approx(
            3 * max(1 / 3, 1 - (2 * ratio - 1) ** 3), rel=1e-14
        )
        assert state.growth == 2
    state, damping = NielsenState(3 * ones, 2 * ones), 3.0
    for growth in (2, 4, 8, 16, 32):
        assert state.growth == growth
        state, damping = after(state, -1.0, False), damping * growth
        assert state.damping.item() == damping


@pytest.mark.parametrize("damping", [Nielsen(), Marquardt()], ids=repr)
@pytest.mark.parametrize("accepted", [False, True], ids=["refused for ever", "accepted for ever"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_damping_can_always_come_back(damping: Any, accepted: bool, dtype: torch.dtype) -> None:
    ones = torch.ones((), dtype=dtype)
    outcome = Outcome(*(ones,) * 6)._replace(accepted=torch.tensor(accepted))
    state = NielsenState(ones, 2 * ones) if isinstance(damping, Nielsen) else MarquardtState(ones)
    for _ in range(2000):
        before, state = state, damping.update(state, outcome)
        assert (state.damping <= before.damping) if accepted else (state.damping >= before.damping)
    limits = torch.finfo(dtype)
    assert (
        limits.tiny < state.damping < limits.max
    )  # away from where a product would be zero or infinite
    assert (
        damping.update(state, outcome._replace(accepted=torch.tensor(not accepted))).damping
        != state.damping
    )


def test_a_damping_that_is_no_number_begins_again_at_one() -> None:
    assert bounded(torch.tensor([torch.nan, 2.0], dtype=torch.float64)).tolist() == [1.0, 2.0]


class Shaky:
    """JᵀJ = diag(1, 1) with D = I, whose factorisation fails below some λ: p = −g/(1 + λ)."""

    def __init__(self, gradient: Tensor, least: float) -> None:
        self.size, self.least = torch.linalg.vector_norm(gradient, dim=-1), least

    def length(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        failed = damping < self.least
        length = torch.where(failed, torch.nan, self.size / (1 + damping))
        return length, -length / (1 + damping)


@pytest.mark.parametrize("least", [0.0, 1e-9, 1e-3, 0.1, 1.0], ids=str)
@pytest.mark.parametrize("guess", [0.0, 1e-6, 5.0], ids=str)
def test_a_trust_region_is_met_also_where_the_first_factors_fail(
    least: float, guess: float
) -> None:
    gradient = torch.tensor([3.0, 4.0], dtype=torch.float64)
    radius = torch.tensor([0.5, 2.0], dtype=torch.float64)  # at λ = 9 and at λ = 1.5
    factor: Any = Shaky(gradient.expand(2, 2), least)
    found = multiplier(factor, factor.size, radius, torch.full_like(radius, guess))
    length, _ = factor.length(found)
    assert ((length - radius).abs() <= 0.1 * radius * (1 + 1e-12)).all()


@dampings
def test_a_trial_that_is_no_number_shortens_the_reach_and_leaves_a_usable_state(
    damping: Damping,
) -> None:
    x = start_of("kowalik_osborne")
    _, model, after = path(CLASSICAL["kowalik_osborne"].residual, x, damping, trials=1)[0]
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


@pytest.mark.parametrize(
    ("actual", "predicted", "expected"),
    [
        (1.0, 2.0, 0.5),
        (-1.0, 2.0, -0.5),
        (torch.nan, 1.0, -1.0),
        (1.0, 0.0, -1.0),
        (-torch.inf, 1.0, -1.0),
        (1.0, -1.0, -1.0),
    ],
)
def test_the_gain_ratio_is_minus_one_where_it_says_nothing(
    actual: float, predicted: float, expected: float
) -> None:
    assert gain_ratio(torch.tensor(actual), torch.tensor(predicted)) == expected


def test_scalings_are_the_running_maximum_ones_and_the_current_norms() -> None:
    first, second = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 3.0])
    for scaling, expected in (
        (More(), [2.0, 4.0]),
        (Levenberg(), [1.0, 1.0]),
        (CurrentNorms(), [2.0, 3.0]),
    ):
        assert scaling.update(scaling.update(None, first), second).tolist() == expected


@dampings
def test_a_problem_that_is_done_keeps_its_damping(damping: Damping) -> None:
    x = torch.tensor([[1.0, 1.0], [-1.2, 1.0]], dtype=torch.float64)

    def valley(x: Tensor) -> Tensor:
        return torch.stack([10 * (x[..., 1] - x[..., 0] ** 2), 1 - x[..., 0]], -1)

    before, _, after = path(valley, x, damping, trials=1)[0]
    assert before.status.tolist() == [Status.ZERO, Status.RUNNING]
    assert all(
        torch.equal(a[0], b[0])
        for a, b in zip(before.damping, after.damping, strict=True)
        if a is not b
    )
