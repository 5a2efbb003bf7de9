"""What a step with geodesic acceleration costs: the residuals at x are not evaluated again."""

import pytest
import torch
from torch import Tensor, nn

import lmtorch


@pytest.mark.parametrize(
    ("rows", "solver", "each"),
    # a trial takes the residuals there, and ahead and behind for the bend; J, where it is kept,
    # pulls the bend back without another evaluation
    [(200, "cholesky", 4), (200, "qr", 3), (20, "dual", 3)],
)
def test_a_trial_evaluates_the_residuals_as_often_as_it_must(
    rows: int, solver: str, each: int
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 30), nn.Tanh(), nn.Linear(30, 1))
    x = torch.linspace(-1, 1, rows)[:, None]
    y = torch.sin(5 * x)
    calls, counts = 0, []

    def closure(x: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return net(x) - y

    opt = lmtorch.LevenbergMarquardt(net, solver=solver, curvature="full", acceleration=True)
    opt.step(closure, x, y)  # finds out what serves
    for _ in range(4):
        calls = 0
        opt.step(closure, x, y)
        counts.append((calls, opt.report.trials))
    assert [calls - each * trials for calls, trials in counts] == [1] * 4  # the linear model


def test_samples_that_stream_do_not_leave_their_residuals() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 30), nn.Tanh(), nn.Linear(30, 1))
    x = torch.linspace(-1, 1, 4000)[:, None]
    opt = lmtorch.LevenbergMarquardt(
        net, solver="cholesky", curvature="full", acceleration=True, memory_limit=2**18
    )
    opt.step(lambda x: net(x) - x**2, x)
    assert not opt._last.plan.keep
    assert opt._last.plan.terms[0].chunk < 4000
