"""Points that change from step to step: momentum, a trial judged on its own batch, one warning."""

import warnings

import pytest
import torch
from torch import nn

from lmtorch import InputError, LevenbergMarquardt, Status
from lmtorch.damping.marquardt import Marquardt
from lmtorch.solvers.conjugate_gradients import ConjugateGradients

F64 = torch.float64
DECAY = 0.3


class Linear:
    """Residuals A θ − b of several draws of A and b, of which every step is known."""

    def __init__(self, m, n, device, draws=3):
        generator = torch.Generator().manual_seed(0)
        self.A, self.b = (
            torch.randn(draws, m, *rest, dtype=F64, generator=generator).to(device)
            for rest in ((n,), ())
        )
        self.theta = torch.zeros(n, dtype=F64, device=device, requires_grad=True)

    def residuals(self, A, b):
        return A @ self.theta - b

    def step(self, opt, k, batch=True):
        """The step that draw k was answered with."""
        before = self.theta.detach().clone()
        if batch:
            opt.step(self.residuals, self.A[k], self.b[k])
        else:
            opt.step(lambda: self.residuals(self.A[k], self.b[k]))
        return self.theta.detach() - before

    def expected(self, opt, k, before, shift, decay=0.0):
        """(AᵀA + w + λ)⁻¹ (λv − g), by the damping that was reported, D being one."""
        J, n = self.A[k], len(before)
        eye = torch.eye(n, dtype=F64, device=J.device)
        gradient = J.mT @ (J @ before - self.b[k]) + decay * before
        damping = opt.report.damping
        return torch.linalg.solve(J.mT @ J + (damping + decay) * eye, damping * shift - gradient)


def optimizer(of, **options):
    """With D = 1 and a fixed first λ, so that steps are short of the solution."""
    options = {"scaling": "levenberg", "damping": Marquardt(0.1), "acceleration": False} | options
    return LevenbergMarquardt([of.theta], **options)


@pytest.mark.parametrize(
    "solver", ["svd", "cholesky", "dual", ConjugateGradients(1e-14, 2000)], ids=str
)
@pytest.mark.parametrize("shape", [(20, 9), (5, 9), (12, 70)], ids=str)
@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_a_step_with_momentum_is_that_of_the_equations(solver, shape, decay, device):
    of = Linear(*shape, device)
    opt = optimizer(of, solver=solver, momentum=0.5, weight_decay=decay)
    last = of.step(opt, 0)
    torch.testing.assert_close(last, of.expected(opt, 0, 0 * last, 0 * last, decay))
    for k in (1, 2):
        before = of.theta.detach().clone()
        step = of.step(opt, k)
        shift = 0.5 * last if opt.report.trials == 1 else 0 * last
        torch.testing.assert_close(step, of.expected(opt, k, before, shift, decay))
        last = step


@pytest.mark.parametrize("batch", [True, False])
def test_by_itself_there_is_momentum_where_data_change_and_leave_directions_open(batch, device):
    of = Linear(12, 70, device)
    opt, last, earlier = optimizer(of), torch.zeros_like(of.theta), 0
    for k in (0, 1, 1):
        before = of.theta.detach().clone()
        step = of.step(opt, k, batch)
        assert opt.report.trials == 1
        shift = 0.7 * last if k != earlier else 0 * step
        torch.testing.assert_close(step, of.expected(opt, k, before, shift))
        last, earlier = step, k


@pytest.mark.parametrize("rows", [70, 300])
def test_by_itself_there_is_none_where_no_direction_is_left_open(rows, capsys, device):
    of = Linear(rows, 70, device)
    opt = optimizer(of)
    for k in (0, 1):
        before = of.theta.detach().clone()
        step = of.step(opt, k)
        torch.testing.assert_close(step, of.expected(opt, k, before, 0 * step))
    opt.explain()
    assert "momentum" in capsys.readouterr().out


def test_a_region_with_momentum_is_the_same_by_every_solver(device):
    # to round-off; where J is deficient λ meets the radius to a tenth, from another first guess
    def trained(solver):
        of = Linear(20, 4, device, draws=6)
        opt = LevenbergMarquardt([of.theta], solver=solver, damping="trust_region", momentum=0.7)
        steps = [of.step(opt, k) for k in range(6)]
        assert opt.report.trials >= 1
        return torch.stack(steps), opt.report.damping

    expected, damping = trained("svd")
    for solver in ("qr", "cholesky"):
        steps, found = trained(solver)
        torch.testing.assert_close(steps, expected, rtol=1e-8, atol=1e-9)
        assert found == pytest.approx(damping, rel=1e-6)


def test_a_rate_and_a_bound_take_their_share_of_a_step_with_momentum(device):
    of = Linear(5, 9, device)
    opt = optimizer(of, momentum=0.5, lr=0.25, lower=-0.05, upper=0.05)
    of.step(opt, 0)
    last = torch.cat([opt.state[p]["last_step"] for p in opt.param_groups[0]["params"]])
    torch.testing.assert_close(0.25 * last, of.theta.detach())  # it began at zero
    before = of.theta.detach().clone()
    step = of.step(opt, 1)
    assert opt.report.trials == 1
    J = of.A[1]
    gradient = J.mT @ (J @ before - of.b[1])
    held = ((before <= -0.05) & (gradient > 0)) | ((before >= 0.05) & (gradient < 0))
    free = ~held
    whole = torch.zeros_like(before)
    J, damping = J[:, free], opt.report.damping
    eye = torch.eye(int(free.sum()), dtype=F64, device=device)
    right = damping * 0.5 * last[free] - gradient[free]
    whole[free] = torch.linalg.solve(J.mT @ J + damping * eye, right)
    torch.testing.assert_close(before + step, (before + 0.25 * whole).clamp(-0.05, 0.05))


def test_a_refused_step_with_momentum_is_tried_again_without(device):
    of = Linear(5, 9, device)
    opt = optimizer(of, momentum=0.99, damping=Marquardt(1e6, decrease=1.0))
    last = of.step(opt, 0)
    of.b[1] = of.A[1] @ (of.theta.detach() - 3e3 * last)  # the way back
    before = of.theta.detach().clone()
    step = of.step(opt, 1)
    assert opt.report.accepted
    assert opt.report.trials == 2
    torch.testing.assert_close(step, of.expected(opt, 1, before, 0 * last))


def test_a_trial_is_judged_on_its_own_batch(device):
    of = Linear(5, 9, device)
    opt = optimizer(of)
    for k in range(3):
        loss = of.residuals(of.A[k], of.b[k]).detach().square().sum() / 2
        assert opt.step(of.residuals, of.A[k], of.b[k]) == opt.report.loss
        assert opt.report.loss == pytest.approx(float(loss))
        after = of.residuals(of.A[k], of.b[k]).detach().square().sum() / 2
        assert opt.report.loss_after == pytest.approx(float(after))
        promised = opt.report.loss - opt.report.loss_after
        assert promised > 0
        assert opt.report.gain_ratio == pytest.approx(1)  # the residuals are linear


@pytest.mark.parametrize("shape", [(20, 3), (3, 20)], ids=str)
def test_a_minimum_of_one_batch_is_not_called_one(shape, device):
    of = Linear(*shape, device, draws=12)
    opt = LevenbergMarquardt([of.theta])
    for k in range(12):
        of.step(opt, k)
        if k:
            assert not opt.converged
            assert opt.status in (Status.RUNNING, Status.REFUSED)
    for _ in range(60):
        of.step(opt, 11)
        if opt.converged:
            break
    assert opt.converged


def test_to_begin_at_the_minimum_of_new_data_is_no_end(device):
    of = Linear(20, 3, device, draws=2)
    opt = LevenbergMarquardt([of.theta])
    of.step(opt, 0)
    with torch.no_grad():
        of.theta.copy_((torch.linalg.pinv(of.A[1]) @ of.b[1][:, None])[:, 0])
    of.step(opt, 1)
    assert opt.status is Status.RUNNING
    of.step(opt, 1)
    assert opt.converged


def test_a_minimum_of_every_batch_is_called_one():
    of = Linear(3, 5, torch.device("cpu"), draws=200)
    of.b = of.A @ torch.ones(5, dtype=F64)
    opt = LevenbergMarquardt([of.theta])
    one = torch.ones_like(of.theta)
    for k in range(200):
        of.step(opt, k)
        near = float((of.theta.detach() - one).abs().max()) < 1e-10
        if near and float(opt.report.loss) < 1e-20:
            break
    torch.testing.assert_close(of.theta.detach(), one)
    assert float(opt.report.loss) < 1e-20


def test_a_saved_training_goes_on_with_its_momentum(device):
    ways = []
    for saved in (False, True):
        of = Linear(12, 70, device)
        opt = optimizer(of)
        of.step(opt, 0)
        if saved:
            state = opt.state_dict()
            opt = optimizer(of)
            opt.load_state_dict(state)
        of.step(opt, 1)
        of.step(opt, 2)
        ways.append(of.theta.detach().clone())
    assert torch.equal(*ways)


@pytest.mark.parametrize("momentum", [1.0, -0.1, float("nan"), "much", [0.5]], ids=str)
def test_what_is_no_share_is_refused(momentum):
    with pytest.raises(InputError, match=r"momentum=.*from 0 to below 1"):
        LevenbergMarquardt(nn.Linear(2, 1), momentum=momentum)


# ---- the warning ---------------------------------------------------------------------------------


def told(rows, noise, steps=90, **options):
    """Messages of a training on fresh draws of a smooth function with noise."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)).to(F64)
    opt = LevenbergMarquardt(net, **options)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(steps):
            x = torch.rand(rows, 1, dtype=F64, generator=generator)
            y = (3 * x).sin() + noise * torch.randn(x.shape, dtype=F64, generator=generator)
            opt.step(lambda x, y: net(x) - y, x, y)
    return [str(warning.message) for warning in seen]


@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_batches_too_small_to_say_anything_are_told_once(noise):
    (message,) = told(5, noise)
    assert "5 residuals is too small to say where 19 parameters should go" in message


@pytest.mark.parametrize(
    ("rows", "noise", "steps"),
    [(12, 0.0, 45), (100, 0.0, 90), (100, 0.1, 90), (200, 1.0, 90)],  # the first still gains
    ids=str,
)
def test_healthy_trainings_are_left_alone(rows, noise, steps):
    assert told(rows, noise, steps) == []


def test_steps_on_the_same_batch_are_left_alone():
    of = Linear(5, 9, "cpu")
    opt = optimizer(of, damping=Marquardt(1e3, decrease=1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(90):
            of.step(opt, 0)
