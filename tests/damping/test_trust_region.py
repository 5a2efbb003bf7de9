"""The trust region: its radius is met."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lmtorch.arrays import last
from lmtorch.arrays.choosing import WORTH
from lmtorch.damping.trust_region import TrustRegion, multiplier
from lmtorch.solvers.base import Solver
from lmtorch.solvers.cholesky import Cholesky, UnrolledFactor
from lmtorch.solvers.qr import QR
from lmtorch.solvers.svd import SVD

from ..contracts.setting import NAMES, path, start_of
from ..problems import CLASSICAL

names = pytest.mark.parametrize("name", NAMES)

solvers = pytest.mark.parametrize(
    "solver", [SVD(), QR(), Cholesky()], ids=lambda s: type(s).__name__
)


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


def test_searches_for_a_multiplier_that_are_done_leave_the_others_as_they_are() -> None:
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(200, 12, 3, generator=g, dtype=torch.float64)
    rows *= 10 ** torch.linspace(-3, 3, 200, dtype=torch.float64)[:, None, None]
    gradient = last(torch.randn(200, 3, generator=g, dtype=torch.float64))
    normal = (rows.mT @ rows).movedim(0, -1).contiguous().movedim(-1, 0)
    scale = torch.ones_like(gradient)
    # from inside of which all steps lie to radii that need several iterations
    radius = 10 ** torch.linspace(4, -6, 200, dtype=torch.float64)
    size = torch.linalg.vector_norm(gradient, dim=-1)
    guess = torch.rand(200, generator=g, dtype=torch.float64)
    factor = UnrolledFactor(normal, gradient, scale)
    found = multiplier(factor, size, radius, guess)
    for i in range(200):
        one = UnrolledFactor(normal[i : i + 1], gradient[i : i + 1], scale[i : i + 1])
        alone = multiplier(one, size[i : i + 1], radius[i : i + 1], guess[i : i + 1])
        assert torch.allclose(found[i], alone[0], rtol=1e-9, atol=0)
    length, _ = factor.length(found)
    outside = found > 0
    assert 20 < outside.sum() < 180
    assert ((length - radius).abs() <= 0.1 * radius)[outside].all()
    assert (length <= 1.1 * radius)[~outside].all()


@pytest.mark.parametrize("steepest", [-6.0, -1.0], ids=["some need many", "most need none"])
def test_steps_that_a_search_has_made_on_its_way_are_those_of_the_multipliers_it_found(
    steepest: float,
) -> None:
    g = torch.Generator().manual_seed(0)
    many = 2 * WORTH
    rows = torch.randn(many, 12, 3, generator=g, dtype=torch.float64)
    gradient = last(torch.randn(many, 3, generator=g, dtype=torch.float64))
    equations = last(rows.mT @ rows), gradient, last(torch.ones_like(gradient))
    radius = 10 ** torch.linspace(4, steepest, many, dtype=torch.float64)
    factor, fresh = UnrolledFactor(*equations), UnrolledFactor(*equations)
    factor.step(torch.zeros(many, dtype=torch.float64))
    size = torch.linalg.vector_norm(gradient, dim=-1)
    for guess in (torch.zeros_like(radius), torch.rand(many, generator=g, dtype=torch.float64)):
        found = multiplier(factor, size, radius, guess)
        assert factor.step_of is not None
        assert factor.step_of[0] is found  # no step is made once more
        expected = fresh.step(found.clone())
        assert torch.allclose(factor.step(found), expected, rtol=1e-12, atol=0)
        length, slope = factor.length(found)
        other = UnrolledFactor(*equations).length(found)
        assert torch.allclose(length, other[0], rtol=1e-12, atol=0)
        assert torch.allclose(slope, other[1], rtol=1e-12, atol=0)
        again = factor.step(torch.zeros_like(radius))
        assert torch.equal(again, UnrolledFactor(*equations).step(torch.zeros_like(radius)))
        assert torch.allclose(factor.solve(gradient, found), -expected, rtol=1e-12, atol=0)
