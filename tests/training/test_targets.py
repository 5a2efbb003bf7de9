"""Targets stay with their outputs: in blocks, samples of the rows and second derivatives."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lmtorch
from lmtorch.core.bend import second_order
from lmtorch.core.curvature import exact_hessian
from lmtorch.training.terms import terms_of

F64 = torch.float64
X = torch.randn(30, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
Y = torch.randint(3, (30,), generator=torch.Generator().manual_seed(2))
CRITERION = lmtorch.CrossEntropyLoss(torch.tensor([1.0, 3.0, 0.5]), label_smoothing=0.1)


def made() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3)).double()


def outputs(net: nn.Module, vector: Tensor) -> Tensor:
    """Of the net with other parameters, flattened."""
    shapes = {name: p.shape for name, p in net.named_parameters()}
    parts = vector.split([shape.numel() for shape in shapes.values()])
    values = {n: v.view(s) for (n, s), v in zip(shapes.items(), parts, strict=True)}
    found: Tensor = torch.func.functional_call(net, values, X)
    return found


def value(f: Tensor) -> Tensor:
    weight = CRITERION.weight
    assert weight is not None
    return F.cross_entropy(f, Y, weight.double(), label_smoothing=0.1, reduction="sum")


def task_of(net: nn.Module, **options: Any) -> Any:
    """The problem of a step, with the batch."""
    opt = lmtorch.LevenbergMarquardt(net, **options)
    return opt._task(terms_of(lambda x, y: CRITERION(net(x), y), (X, Y)))


def flat(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("jacobian", ["reverse", "autograd"])
def test_each_block_of_rows_has_its_own(jacobian: str) -> None:
    ends = []
    for limit in (None, 6_000):
        net = made()
        opt = lmtorch.LevenbergMarquardt(
            net, jacobian=jacobian, solver="cholesky", memory_limit=limit
        )
        for _ in range(3):
            opt.step(lambda n=net: CRITERION(n(X), Y))
        ends.append(opt.report.loss_after)
    assert ends[1] == pytest.approx(ends[0], rel=1e-9)


def test_some_of_the_samples_have_theirs() -> None:
    net, chosen = made(), torch.tensor([3, 7, 28])
    residual = task_of(net).residual.subset(chosen)
    (part,) = residual.parts()
    cost = part.loss.cost(part.evaluate(residual.params(flat(net)))) + part.loss.least()
    expected = CRITERION(net(X[chosen]).detach(), Y[chosen]).bound()
    values = net(X[chosen]).detach().flatten()
    torch.testing.assert_close(cost, expected.cost(values) + expected.least())


def test_the_exact_hessian_of_a_step_is_that_of_torchs_loss() -> None:
    net = made()
    found = exact_hessian(task_of(net).problem, flat(net))
    assert found is not None
    expected = torch.func.hessian(lambda v: value(outputs(net, v)))(flat(net))
    torch.testing.assert_close(found.matrix, expected)
    torch.testing.assert_close(
        found.gradient, torch.func.grad(lambda v: value(outputs(net, v)))(flat(net))
    )


@pytest.mark.parametrize("solver", ["svd", "cholesky"])
def test_the_bend_along_a_step_is_weighted_by_the_curvature_of_the_loss(solver: str) -> None:
    net = made()
    problem = task_of(net, solver=solver, acceleration=True).problem
    x, v = flat(net), torch.linspace(-1, 1, len(flat(net)), dtype=F64)

    def along(t: Tensor) -> Tensor:
        return outputs(net, x + t * v).flatten()

    bend = torch.func.jacfwd(torch.func.jacfwd(along))(torch.zeros((), dtype=F64))
    jacobian = torch.func.jacfwd(lambda p: outputs(net, p).flatten())(x)
    weight = torch.func.hessian(lambda f: value(f.view(-1, 3)))(outputs(net, x).flatten())
    expected = jacobian.mT @ weight @ bend
    for known in (None, problem.model(x)):
        torch.testing.assert_close(second_order(problem, x, v, known), expected)
