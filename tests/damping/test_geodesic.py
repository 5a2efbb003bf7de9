"""Geodesic acceleration: what it gains, and when it is trusted."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lmtorch.damping.base import Damping, LinearModel, Outcome
from lmtorch.damping.geodesic import Geodesic
from lmtorch.damping.marquardt import Marquardt
from lmtorch.damping.nielsen import Nielsen, NielsenState
from lmtorch.damping.trust_region import TrustRegion

from ..contracts.setting import path, start_of
from ..problems import CLASSICAL


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
    # 2‖D a‖/‖D v‖ of the problems of a batch: in the metric of D, in which all of them are
    # ten times what they seem
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
