"""What the optimizer may be given, and what a closure may return."""

import math

import pytest
import torch
from torch import nn

from lmtorch import InputError, LevenbergMarquardt, Status

F64 = torch.float64


def network(device, dtype=F64):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).to(device, dtype)


def data(device, dtype=F64, rows=40):
    x = torch.linspace(-2, 2, rows, dtype=dtype, device=device)[:, None]
    return x, torch.sin(2 * x)


GIVEN = {
    "module": lambda m: m,
    "generator": lambda m: m.parameters(),
    "list": lambda m: list(m.parameters()),
    "named": lambda m: m.named_parameters(),
    "groups": lambda m: [
        {"params": m[0].parameters()},
        {"params": list(m[2].parameters()), "lr": 1.0},
    ],
    "named groups": lambda m: [
        {"params": m[0].named_parameters()},
        {"params": m[2].named_parameters()},
    ],
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_every_way_to_give_the_parameters_takes_the_same_steps(given, device):
    x, y = data(device)
    reference, model = network(device), network(device)
    expected, opt = LevenbergMarquardt(reference), LevenbergMarquardt(given(model))
    for _ in range(5):
        want, got = expected.step(lambda: reference(x) - y), opt.step(lambda: model(x) - y)
        # another order of the same sums, five steps on
        torch.testing.assert_close(got, want, rtol=1e-7, atol=0)
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
def test_a_coefficient_beside_a_module_is_fitted_with_it(batch, device):
    model = nn.Linear(2, 1, device=device, dtype=F64)
    k = torch.zeros(1, dtype=F64, device=device, requires_grad=True)
    x = torch.randn(30, 2, dtype=F64, device=device)
    y = x @ x.new_tensor([[1.0], [2.0]]) + 3 * x[:, :1] ** 2 - 1
    opt = LevenbergMarquardt(model)
    opt.add_param_group({"params": [k]})
    for _ in range(5):
        if batch:
            opt.step(lambda x, y: model(x) + k * x[:, :1] ** 2 - y, x, y)
        else:
            opt.step(lambda: model(x) + k * x[:, :1] ** 2 - y)
    torch.testing.assert_close(k.detach(), x.new_tensor([3.0]))
    torch.testing.assert_close(model.bias.detach(), x.new_tensor([-1.0]))


def test_frozen_parameters_stay_and_the_others_are_fitted(device):
    x, y = data(device)
    model = network(device)
    model[0].requires_grad_(False)
    before = [p.clone() for p in model.parameters()]
    opt = LevenbergMarquardt(model)
    loss = opt.step(lambda: model(x) - y)
    assert opt.report.loss_after < loss
    assert torch.equal(before[0], model[0].weight)
    assert torch.equal(before[1], model[0].bias)
    assert not torch.equal(before[2], model[2].weight)


def test_parameters_may_be_frozen_and_freed_between_steps(device):
    x, y = data(device)
    model = network(device)
    opt = LevenbergMarquardt(model)
    opt.step(lambda: model(x) - y)
    model[0].requires_grad_(False)
    held = model[0].weight.clone()
    first = opt.step(lambda: model(x) - y)
    assert torch.equal(held, model[0].weight)
    model[0].requires_grad_(True)
    assert opt.step(lambda: model(x) - y) < first
    assert not torch.equal(held, model[0].weight)


def test_all_parameters_frozen_is_an_error():
    model = network("cpu").requires_grad_(False)
    with pytest.raises(InputError, match="frozen"):
        LevenbergMarquardt(model).step(lambda: model(torch.ones(3, 1, dtype=F64)))


@pytest.mark.parametrize("by", ["module", "parameters"])
def test_tied_weights_stay_tied_and_count_once(by, device):
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)).to(device, F64)
    model[2].weight = model[0].weight
    x = torch.randn(20, 2, dtype=F64, device=device)
    opt = LevenbergMarquardt(model if by == "module" else model.parameters())
    for _ in range(3):
        opt.step(lambda: model(x) - x)
    assert model[2].weight is model[0].weight
    assert sum(len(g["params"]) for g in opt.param_groups) == 3
    start, state = model(x), torch.func.functional_call(model, dict(model.named_parameters()), (x,))
    torch.testing.assert_close(start, state)


@pytest.mark.parametrize(
    ("damping", "solver"),
    [
        # every other pair; the others run apart
        pytest.param(
            *(damping, solver), marks=[] if (place + number) % 2 == 0 else [pytest.mark.slow]
        )
        for place, damping in enumerate(["trust_region", "nielsen", "marquardt"])
        for number, solver in enumerate(["auto", "cholesky", "qr", "svd", "dual"])
    ],
)
def test_unused_parameters_stay_and_no_nan_appears(solver, damping, device):
    used = torch.ones(2, dtype=F64, device=device, requires_grad=True)
    unused = torch.full((3,), 7.0, dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([used, unused], solver=solver, damping=damping)
    t = torch.linspace(0, 1, 12, dtype=F64, device=device)
    for _ in range(8):
        opt.step(lambda: used[0] * t + used[1] - (2 * t - 3))
    assert unused.tolist() == [7.0, 7.0, 7.0]
    torch.testing.assert_close(used.detach(), used.new_tensor([2.0, -3.0]), rtol=1e-4, atol=1e-4)


def test_several_dtypes_are_refused_by_name():
    a = torch.ones(1, requires_grad=True)
    b = torch.ones(1, dtype=F64, requires_grad=True)
    opt = LevenbergMarquardt([("alpha", a), ("beta", b)])
    with pytest.raises(InputError, match=r"several dtypes.*'alpha'.*float32.*'beta'.*float64"):
        opt.step(lambda: a + b)
    assert (a.item(), b.item()) == (1.0, 1.0)


def test_several_devices_are_refused_by_name():
    a = torch.ones(1, requires_grad=True)
    b = torch.ones(1, device="meta", requires_grad=True)
    opt = LevenbergMarquardt([("alpha", a), ("beta", b)])
    with pytest.raises(InputError, match=r"several devices.*'alpha'.*cpu.*'beta'.*meta"):
        opt.step(lambda: a * 1)


def test_batch_statistics_are_updated_once_a_step_as_in_any_training_loop(device):
    torch.manual_seed(3)
    x = torch.randn(32, 3, dtype=F64, device=device)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).to(
        device, F64
    )
    opt = LevenbergMarquardt(model)
    for step in range(3):
        twin = nn.BatchNorm1d(4).to(device, F64)
        twin.load_state_dict(model[1].state_dict())
        twin(model[0](x))  # one forward pass in training mode, at the parameters before the step
        opt.step(lambda: model(x) - x.sum(1, keepdim=True))
        torch.testing.assert_close(model[1].running_mean, twin.running_mean)
        torch.testing.assert_close(model[1].running_var, twin.running_var)
        assert model[1].num_batches_tracked == step + 1


def test_buffers_are_left_alone_in_evaluation_mode(device):
    x = torch.randn(32, 3, dtype=F64, device=device)
    model = (
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).to(device, F64).eval()
    )
    opt = LevenbergMarquardt(model)
    opt.step(lambda x: model(x) - x.sum(1, keepdim=True), x)
    assert opt.report.accepted
    assert model[1].num_batches_tracked == 0


SHAPES = {
    "matrix": lambda r: r.reshape(4, 10),
    "tuple": lambda r: (r[:10], r[10:].reshape(5, 6)),
    "list": lambda r: [r[:1], r[1:]],
    "dict": lambda r: {"pde": r[:30], "boundary": r[30:]},
    "nested": lambda r: {"a": (r[:5], r[5:6].reshape(())), "b": r[6:]},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_residuals_may_have_any_shape(shape, device):
    x, y = data(device)
    reference, model = network(device), network(device)
    expected, opt = LevenbergMarquardt(reference), LevenbergMarquardt(model)
    for _ in range(3):
        want = expected.step(lambda: (reference(x) - y)[:, 0])
        torch.testing.assert_close(
            opt.step(lambda: shape((model(x) - y)[:, 0])), want, rtol=1e-9, atol=0
        )


@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
def test_the_loss_before_the_step_comes_back(batch, device):
    x, y = data(device)
    model = network(device)
    before = ((model(x) - y) ** 2).sum().item() / 2
    opt = LevenbergMarquardt(model)
    loss = opt.step(lambda x, y: model(x) - y, x, y) if batch else opt.step(lambda: model(x) - y)
    assert loss.shape == ()
    assert loss.dtype == F64
    assert loss.device == x.device
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(before, rel=1e-14)
    after = ((model(x) - y) ** 2).sum().item() / 2
    assert opt.report.loss == pytest.approx(before, rel=1e-14)
    assert opt.report.loss_after == pytest.approx(after, rel=1e-12)


def test_the_returned_loss_includes_prior_and_robust_loss(device):
    theta = torch.tensor([3.0, -1.0], dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([theta], weight_decay=0.3, loss="huber", loss_scale=0.5)
    huber = nn.functional.huber_loss(theta, torch.zeros_like(theta), reduction="sum", delta=0.5)
    expected = huber + 0.15 * theta.square().sum()
    assert opt.step(lambda: theta * 1.0).item() == pytest.approx(expected.item(), rel=1e-14)


def test_the_report_says_what_the_step_did(device):
    x, y = data(device)
    model = network(device)
    opt = LevenbergMarquardt(model)
    assert opt.report is None
    assert opt.status is Status.RUNNING
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    opt.step(lambda: model(x) - y)
    report = opt.report
    moved = torch.cat([p.detach().flatten() for p in model.parameters()]) - before
    assert report.accepted
    assert report.loss_after < report.loss
    assert report.trials >= 1
    assert report.damping >= 0
    assert 0 < report.gain_ratio < 10
    assert report.step_norm == pytest.approx(moved.norm().item(), rel=1e-12)
    assert 0 < report.gradient <= 1
    assert set(report.seconds) == {"linearize", "solve", "trial", "total"}
    assert all(s >= 0 for s in report.seconds.values())
    assert report.status is opt.status
    assert "accepted" in repr(report)


def test_a_loop_can_run_until_the_status_is_final(device):
    theta = torch.tensor([-1.2, 1.0], dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([theta])
    steps = 0
    while not opt.status.final and steps < 200:
        opt.step(lambda: torch.stack([10 * (theta[1] - theta[0] ** 2), 1 - theta[0]]))
        steps += 1
    assert opt.converged
    assert opt.status.converged
    assert opt.status.message.startswith("converged")
    torch.testing.assert_close(theta.detach(), torch.ones_like(theta))
    assert math.isfinite(opt.report.loss_after)


def test_complex_parameters_and_residuals_are_fitted(device):
    torch.manual_seed(5)
    A = torch.randn(12, 3, dtype=torch.complex128, device=device)
    b = torch.randn(12, dtype=torch.complex128, device=device)
    z = torch.zeros(3, dtype=torch.complex128, device=device, requires_grad=True)
    opt = LevenbergMarquardt([z])
    first = opt.step(lambda: A @ z - b)
    assert first.item() == pytest.approx(b.abs().square().sum().item() / 2)
    for _ in range(3):
        opt.step(lambda: A @ z - b)
    torch.testing.assert_close(z.detach(), torch.linalg.lstsq(A, b[:, None]).solution[:, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_parameters_are_fitted_to_their_own_precision(dtype, device):
    theta = torch.tensor([1.0, 0.5], dtype=dtype, device=device, requires_grad=True)
    t = torch.linspace(0, 1, 16, dtype=dtype, device=device)
    opt = LevenbergMarquardt([theta])
    for _ in range(6):
        opt.step(lambda: theta[0] * t + theta[1] - (2 * t - 1))
    assert theta.dtype == dtype
    wrong = (theta.detach().double() - torch.tensor([2.0, -1.0], device=device)).abs().max()
    assert wrong < 16 * torch.finfo(dtype).eps


def test_half_precision_parameters_may_be_large_beside_their_penalty(device):
    # 400² overflows float16
    theta = torch.full((2,), 400.0, dtype=torch.float16, device=device, requires_grad=True)
    opt = LevenbergMarquardt([theta], weight_decay=1e-3)
    assert opt.step(lambda: theta - 1).isfinite()
    assert opt.report.accepted


def test_a_lazy_module_is_fitted_once_it_has_seen_a_batch():
    model = nn.LazyLinear(1)
    opt = LevenbergMarquardt(model)
    x = torch.randn(9, 2)
    with pytest.raises(InputError, match="call the lazy module once"):
        opt.step(lambda: model(x))
    model(x)
    opt.step(lambda: model(x) - 1)
    assert opt.report.accepted


def test_sparse_and_meta_parameters_are_refused_by_name():
    with pytest.raises(InputError, match=r"only dense parameters.*to_dense"):
        LevenbergMarquardt([torch.eye(3).to_sparse().requires_grad_()])
    model = nn.Linear(2, 1, device="meta")
    with pytest.raises(InputError, match="meta device"):
        LevenbergMarquardt(model).step(lambda: model(torch.ones(3, 2, device="meta")))


class Twice(nn.Module):
    """The same child at two places, and the same parameter in two children."""

    def __init__(self):
        super().__init__()
        shared = nn.Linear(3, 3)
        self.body = nn.Sequential(
            nn.Linear(2, 3), nn.Tanh(), shared, nn.Tanh(), shared, nn.BatchNorm1d(3)
        )
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.again = self.body[-1]
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.second(self.again(self.first(self.body(x)).tanh())))


@pytest.mark.parametrize("by", ["module", "tensors"])
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_a_child_at_two_places_stays_what_it_is_and_is_trained(by):
    torch.manual_seed(0)
    model = Twice().double()
    x = torch.randn(40, 2, dtype=F64)
    y = (x[:, :1] * x[:, 1:]).sin()
    held = dict((*model.named_parameters(), *model.named_buffers()))
    start = {name: t.detach().clone() for name, t in held.items()}
    opt = LevenbergMarquardt(model if by == "module" else list(model.parameters()))
    losses = [opt.step(lambda: model(x) - y).item() for _ in range(8)]
    assert losses[-1] < 0.2 * losses[0]
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        assert tensor is held[name]
        assert not torch.equal(tensor, start[name])
    model.eval()
    with torch.no_grad():
        assert (model(x) - y).isfinite().all()
