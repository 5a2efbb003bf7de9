"""What other Levenberg–Marquardt packages were found to get wrong, one test each."""

import pytest
import torch
from torch import nn

from lmtorch import LevenbergMarquardt, Status

F64 = torch.float64
DAMPINGS = ["trust_region", "nielsen", "marquardt"]


def rosenbrock(x):
    return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def vector(values, device, dtype=F64):
    return torch.tensor(values, dtype=dtype, device=device, requires_grad=True)


@pytest.mark.parametrize("damping", DAMPINGS)
def test_a_rejected_step_is_not_convergence(damping, device):
    # at this start the first Gauss–Newton step raises the cost from 12.1 to 11,700
    x = vector([-1.2, 1.0], device)
    opt = LevenbergMarquardt([x], damping=damping, max_trials=1)
    for _ in range(400):
        before = x.detach().clone()
        opt.step(lambda: rosenbrock(x))
        if not opt.report.accepted and opt.report.gradient > 1e-6:
            assert not opt.converged
            assert torch.equal(x, before)
        if opt.converged:
            break
    torch.testing.assert_close(x.detach(), torch.ones_like(x), rtol=1e-6, atol=1e-6)


def test_the_loss_of_the_last_batch_does_not_judge_the_next(device):
    x = vector([1.0], device)
    opt = LevenbergMarquardt([x])
    t = torch.linspace(0, 1, 8, dtype=F64, device=device)
    # the loss of the second is far above the first's
    easy, hard = (torch.exp(x.detach() * t), 100 + torch.exp(3 * t))
    opt.step(lambda t, y: torch.exp(x * t) - y, t, easy + 1e-3)
    low = opt.report.loss_after
    opt.step(lambda t, y: torch.exp(x * t) - y, t, hard)
    assert opt.report.loss_after > low
    assert opt.report.accepted


@pytest.mark.parametrize(
    ("damping", "trials"),
    [
        # every other pair; the others run apart
        pytest.param(
            *(damping, trials), marks=[] if (place + number) % 2 == 0 else [pytest.mark.slow]
        )
        for place, damping in enumerate(DAMPINGS)
        for number, trials in enumerate([1, 2, 3, 20])
    ],
)
def test_a_trial_that_is_worse_is_never_kept(damping, trials, device):
    x = vector([-1.2, 1.0], device)
    opt = LevenbergMarquardt([x], damping=damping, max_trials=trials, lr=1.0)
    for _ in range(20):
        before = rosenbrock(x.detach()).square().sum() / 2
        opt.step(lambda: rosenbrock(x))
        assert rosenbrock(x.detach()).square().sum() / 2 <= before


def test_a_retry_damps_the_undamped_matrix(device):
    # refused trials at λ₀, 10 λ₀, 100 λ₀: a matrix damped again and again would carry their sum
    A = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 1.0]], dtype=F64, device=device)
    b = torch.tensor([1.0, -2.0, 0.5], dtype=F64, device=device)
    x = vector([0.0, 0.0], device)
    tried = []

    def closure():
        residual = A @ x - b
        tried.append(1)
        # the probe and the linear model see the true residuals, the first two trials a wall
        return residual + (1e3 if 3 <= len(tried) <= 4 else 0.0)

    opt = LevenbergMarquardt(
        [x], damping="marquardt", scaling="levenberg", solver="cholesky", jacobian=lambda: A
    )
    opt.step(closure)
    assert opt.report.trials == 3
    damped = A.T @ A + opt.report.damping * torch.eye(2, dtype=F64, device=device)
    torch.testing.assert_close(x.detach(), torch.linalg.solve(damped, A.T @ b), rtol=1e-12, atol=0)
    start = 1e-2 * (A.T @ A).diagonal().max().item()
    assert opt.report.damping == pytest.approx(100 * start)


def test_the_accept_test_counts_what_the_solve_counts(device):
    # a step that lowers Σr² but raises Σr² + w‖θ‖² must be refused, and the other way round
    # accepted
    x = vector([1.0], device)
    opt = LevenbergMarquardt([x], weight_decay=100.0)
    before = (x.detach() - 2).square().item() / 2
    opt.step(lambda: x - 2)
    assert opt.report.accepted
    assert abs(x.item()) < 1
    assert (x.detach() - 2).square().item() / 2 > before
    assert opt.report.gain_ratio == pytest.approx(1)


@pytest.mark.parametrize("loss", ["soft_l1", "huber", "cauchy", "arctan"])
def test_the_step_descends_on_the_robust_loss_itself(loss, device):
    # a tiny damped step is −g/λ: it shows the gradient that the solver was given
    t = torch.linspace(0, 1, 12, dtype=F64, device=device)
    y = 2 * t
    y[3], y[9] = 30.0, -20.0
    x = vector([0.3, 0.1], device)
    options = {"loss": loss, "damping": "marquardt", "scaling": "levenberg"}
    opt = LevenbergMarquardt([x], lr=torch.tensor(1e-6), **options)
    opt.step(lambda: x[0] * t + x[1] - y)
    # the loss fell by what its own slope says
    assert opt.report.gain_ratio == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 0.2])
@pytest.mark.parametrize("scaling", ["levenberg", "more", "marquardt"])
def test_the_wide_problem_is_damped_as_the_tall_one(scaling, penalty, device):
    torch.manual_seed(1)
    A = torch.randn(3, 7, dtype=F64, device=device) * torch.logspace(
        -1, 1, 7, dtype=F64, device=device
    )
    b = torch.randn(3, dtype=F64, device=device)
    steps = []
    for solver in ("dual", "cholesky", "qr", "svd"):
        x = vector([0.5] * 7, device)
        opt = LevenbergMarquardt(
            [x], solver=solver, scaling=scaling, damping="nielsen", weight_decay=penalty, polish=0
        )
        opt.step(lambda x=x: torch.tanh(A @ x) - b)
        steps.append((opt.report.damping, x.detach()))
    for damping, x in steps[1:]:
        assert damping == pytest.approx(steps[0][0], rel=1e-9)
        torch.testing.assert_close(x, steps[0][1], rtol=1e-8, atol=1e-10)


def test_one_bad_row_is_said_and_does_no_harm(device):
    x = vector([1.0, 1.0], device)
    opt = LevenbergMarquardt([x])
    t = torch.linspace(0, 1, 10, dtype=F64, device=device)
    y = 2 * t - 1
    bad = y.clone()
    bad[4] = torch.nan
    with pytest.warns(UserWarning, match="of 1 of 10 samples, the first of them number 4"):
        opt.step(lambda t, y: x[0] * t + x[1] - y, t, bad)
    assert opt.status is Status.NOT_FINITE
    assert x.tolist() == [1.0, 1.0]
    for _ in range(5):
        opt.step(lambda t, y: x[0] * t + x[1] - y, t, y)
    torch.testing.assert_close(x.detach(), x.new_tensor([2.0, -1.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_a_small_damping_survives_a_checkpoint_of_half_precision_parameters(dtype, device):
    model = nn.Linear(2, 1).to(device, dtype)
    x = torch.randn(16, 2, device=device).to(dtype)
    opt = LevenbergMarquardt(model, damping="nielsen")
    for _ in range(4):
        opt.step(lambda: model(x) - x.sum(1, keepdim=True))
    kept = opt.state[model.weight]["damping"]
    kept["damping"].fill_(3e-11)
    fresh = LevenbergMarquardt(model, damping="nielsen")
    fresh.load_state_dict(opt.state_dict())
    assert fresh.state[model.weight]["damping"]["damping"].item() == 3e-11
