"""What the optimizer says where it comes to rest: the certificate is that of the functions."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmtorch import LevenbergMarquardt, Status

F64 = torch.float64
T = torch.linspace(0, 5, 40, dtype=F64)
Y = 2 * torch.exp(-0.5 * T) + torch.exp(-3 * T) + 0.01 * torch.cos(37 * T)


def run(opt: LevenbergMarquardt, closure: Any, *batch: Any) -> Status:
    for _ in range(200):
        opt.step(closure, *batch)
        if opt.status.final:
            break
    return opt.status


def test_a_saddle_is_not_called_converged() -> None:
    p = torch.ones(4, dtype=F64, requires_grad=True)  # equal exponentials stay equal by symmetry
    opt = LevenbergMarquardt([p])
    status = run(opt, lambda: p[0] * torch.exp(-p[1] * T) + p[2] * torch.exp(-p[3] * T) - Y)
    assert status is Status.SADDLE
    assert not opt.converged


def test_a_minimum_where_the_jacobian_vanishes_is_converged() -> None:
    x = torch.tensor([2.0], dtype=F64, requires_grad=True)
    opt = LevenbergMarquardt([x])
    assert run(opt, lambda: x**2 + 5) is Status.MINIMUM
    assert abs(float(x.detach())) < 1e-8


@pytest.mark.parametrize("batched", [False, True], ids=["closure", "batch"])
def test_a_small_module_comes_to_a_certified_minimum(batched: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    x, y = T[:, None] / 5, Y[:, None]

    def residual(x: Tensor, y: Tensor) -> Tensor:
        return net(x) - y

    opt = LevenbergMarquardt(net)
    status = run(opt, residual, x, y) if batched else run(opt, lambda: residual(x, y))
    if status.converged:
        parameters = [p.detach() for p in net.parameters()]
        flat = torch.cat([p.flatten() for p in parameters])

        def cost(v: Tensor) -> Tensor:
            parts = v.split([p.numel() for p in parameters])
            named = dict(
                zip(
                    dict(net.named_parameters()),
                    map(torch.Tensor.view_as, parts, parameters),
                    strict=True,
                )
            )
            return (torch.func.functional_call(net, named, x) - y).square().sum() / 2

        values = torch.linalg.eigvalsh(torch.func.hessian(cost)(flat))
        assert values[0] > -1e-6 * values[-1]
        assert torch.func.grad(cost)(flat).abs().max() < 1e-5


def test_the_certificate_leaves_the_parameters_of_a_running_fit_alone() -> None:
    p = torch.tensor([1.0, 1.0], dtype=F64, requires_grad=True)
    opt = LevenbergMarquardt([p])
    opt.step(lambda: p[0] * torch.exp(-p[1] * T) - Y)
    assert opt.status is Status.RUNNING
    assert opt.report is not None
    assert opt.report.trials >= 1
