"""The parameters act where the step can see them, or it says so: nothing is trained in silence."""

import pytest
import torch
from torch import nn

from lmtorch import InputError, LevenbergMarquardt, Status, laplacian

F64 = torch.float64


class Adjoint(torch.autograd.Function):
    """A backward pass that calls the module again, as adjoints of differential equations do."""

    @staticmethod
    def forward(ctx, f, x, *p):
        ctx.f = f
        ctx.save_for_backward(x, *p)
        with torch.no_grad():
            return f(x)

    @staticmethod
    def backward(ctx, g):
        x, *p = ctx.saved_tensors
        with torch.enable_grad():
            y = ctx.f(x)
        found = torch.autograd.grad(y, p, g, allow_unused=True)
        return (
            None,
            None,
            *[torch.zeros_like(q) if v is None else v for q, v in zip(p, found, strict=True)],
        )


def data(device):
    x = torch.linspace(0, 1, 9, dtype=F64, device=device)[:, None]
    return x, 2 * x + 1


@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
@pytest.mark.parametrize(
    "options", [{}, {"acceleration": True}, {"solver": "cholesky", "damping": "nielsen"}], ids=str
)
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_a_backward_pass_that_calls_the_module_again_is_followed(options, batch, device):
    net = nn.Linear(1, 1).to(device, F64)
    x, y = data(device)
    opt = LevenbergMarquardt(net, **options)

    def closure(x, y):
        return Adjoint.apply(net, x, *net.parameters()) - y

    for _ in range(40):
        opt.step(closure, x, y) if batch else opt.step(lambda: closure(x, y))
        if opt.status.final:
            break
    torch.testing.assert_close([p.item() for p in net.parameters()], [2.0, 1.0])
    assert all(isinstance(p, nn.Parameter) and p.grad is None for p in net.parameters())


def test_a_backward_pass_that_fails_leaves_the_parameters_as_they_were(device):
    net = nn.Linear(1, 1).to(device, F64)
    x, y = data(device)
    before = [p.detach().clone() for p in net.parameters()]
    places = [p.data_ptr() for p in net.parameters()]
    calls = 0

    class Failing(Adjoint):
        @staticmethod
        def backward(ctx, g):
            nonlocal calls
            calls += 1
            if calls > 3:
                raise KeyboardInterrupt
            return Adjoint.backward(ctx, g)

    with pytest.raises(KeyboardInterrupt):
        LevenbergMarquardt(net).step(lambda: Failing.apply(net, x, *net.parameters()) - y)
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))
    assert [p.data_ptr() for p in net.parameters()] == places


@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
def test_another_model_than_the_optimizers_is_refused(batch, device):
    net, other = (nn.Linear(1, 1).to(device, F64) for _ in range(2))
    x, y = data(device)
    opt = LevenbergMarquardt(net)
    with pytest.raises(InputError, match="do not depend on any parameter"):
        opt.step(lambda x, y: other(x) - y, x, y) if batch else opt.step(lambda: other(x) - y)


@pytest.mark.filterwarnings("ignore::lmtorch.ZeroDerivativeWarning")  # the operator says it, too
def test_second_derivatives_of_what_does_not_bend_are_refused(device):
    net = nn.Sequential(nn.Linear(1, 5), nn.ReLU(), nn.Linear(5, 1)).to(device, F64)
    x, y = data(device)
    before = [p.detach().clone() for p in net.parameters()]
    opt = LevenbergMarquardt(net)
    with pytest.raises(InputError, match="of ReLU are zero everywhere: take tanh"):
        opt.step((lambda x, y: laplacian(net, x) - y, x, y), (net, x[:1]))
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize("size", [2, 100], ids=["few parameters", "many"])
@pytest.mark.parametrize("solver", ["auto", "dual"])
def test_a_jacobian_of_zeros_is_no_minimum(size, solver, device):
    theta = torch.ones(size, dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([theta], solver=solver)
    opt.step(lambda: (0 * theta.sum() + 1).expand(5))
    assert not opt.converged
    assert opt.status in (Status.FLAT, Status.LOST)


def test_at_a_vertex_of_the_box_that_descent_would_leave_the_end_is_a_minimum(device):
    theta = torch.zeros(2, dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([theta], lower=0.0)
    opt.step(lambda: torch.stack([theta[0] + 1, theta[1] + 2, theta.sum() + 1]))
    assert opt.converged


def test_a_closure_that_calls_backward_is_told_to_return_residuals(device):
    net = nn.Linear(1, 1).to(device, F64)
    x, y = data(device)

    def closure():
        residual = net(x) - y
        residual.square().mean().backward()
        return residual

    with pytest.raises(InputError, match=r"calls backward\(\)"):
        LevenbergMarquardt(net).step(closure)
    assert all(p.grad is None for p in net.parameters())
