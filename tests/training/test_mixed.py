"""Rows that mix the k outputs of a sample by random signs, beside all k rows."""

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacrev
from torch.nn import functional as F

import lmtorch
from lmtorch.training.mixed import MixedResidual

CLASSES = 4


def images(count: int = 90) -> tuple[Tensor, Tensor]:
    """Pictures of 6 x 6 with a class that can partly be seen in them."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, 1, 6, 6, generator=generator)
    seen = x[:, 0, 1:3, 1:3].flatten(1) + 0.5 * torch.randn(count, CLASSES, generator=generator)
    return x, seen.argmax(1)


def network() -> nn.Module:
    """A convolution and a linear layer."""
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, CLASSES)
    )


def every_sign(k: int) -> Tensor:
    """All 2ᵏ vectors of signs, whose v vᵀ are on average exactly the identity."""
    return torch.tensor(list(product((-1, 1), repeat=k)), dtype=torch.int8)


def of_step(opt: lmtorch.LevenbergMarquardt, closure: Any, *batch: Any) -> Any:
    """The problem of a step, which is not taken."""
    from lmtorch.training.terms import terms_of

    with torch.no_grad():
        return opt._task(terms_of(closure, batch)).problem


@pytest.mark.parametrize("weighted", [False, True])
def test_all_signs_together_have_the_curvature_of_all_rows(weighted: bool) -> None:
    x, y = (t.double() if t.is_floating_point() else t for t in images(12))
    net = network().double()
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64) if weighted else None
    criterion = lmtorch.CrossEntropyLoss(weight=weight)
    opt = lmtorch.LevenbergMarquardt(net, solver="cg", curvature="sampled")
    problem = of_step(opt, lambda x, y: criterion(net(x), y), x, y)
    signs = every_sign(CLASSES).expand(12, -1, -1)
    all_signs = MixedResidual(problem.residual, signs)
    point = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    (part,) = all_signs.parts()
    rows = jacrev(lambda flat: part.function(all_signs.params(flat)))(point)
    found = CLASSES / len(every_sign(CLASSES)) * rows.T @ rows

    names, parameters = zip(*net.named_parameters(), strict=True)

    def outputs(flat: Tensor, image: Tensor) -> Tensor:
        pieces = flat.split([p.numel() for p in parameters])
        values = {n: v.view_as(p) for n, v, p in zip(names, pieces, parameters, strict=True)}
        return functional_call(net, values, (image[None],))[0]

    expected = torch.zeros_like(found)
    for image, label in zip(x, y, strict=True):
        slope = jacrev(outputs)(point, image)
        bend = hessian(
            lambda f, label=label: F.cross_entropy(f, label, weight=weight, reduction="sum")
        )(outputs(point, image))
        expected += slope.T @ bend @ slope
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_a_model_of_mixed_rows_has_the_cost_and_slope_of_all_samples() -> None:
    x, y = images()
    net, criterion = network(), lmtorch.CrossEntropyLoss()
    opt = lmtorch.LevenbergMarquardt(net, solver="cg", curvature="sampled")
    problem = of_step(opt, lambda x, y: criterion(net(x), y), x, y)
    assert isinstance(problem.sample, MixedResidual)
    assert problem.sample.rows < problem.residual.rows
    point = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    with torch.no_grad():
        model = problem.model(point)
    loss = F.cross_entropy(net(x), y, reduction="sum")
    slope = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(net.parameters()))])
    assert float(model.cost) == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(model.gradient, slope, rtol=1e-4, atol=1e-4)


def test_on_the_same_data_a_training_ends_at_the_minimum() -> None:
    x, y = images()
    x, net, criterion = x.double(), network().double(), lmtorch.CrossEntropyLoss()
    opt = lmtorch.LevenbergMarquardt(net, solver="cg", curvature="sampled", weight_decay=1.0)
    # steps of all rows take 120 to 140
    losses = [float(opt.step(lambda x, y: criterion(net(x), y), x, y)) for _ in range(160)]
    assert all(after <= before for before, after in pairwise(losses))
    loss = F.cross_entropy(net(x), y, reduction="sum")
    loss = loss + sum(p.square().sum() for p in net.parameters()) / 2
    slope = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(net.parameters()))])
    assert float(slope.norm()) < 1e-3 * float(loss.detach())


@pytest.mark.parametrize("fresh", [False, True])
def test_more_rows_are_mixed_only_where_the_same_data_show_that_they_are_too_few(
    fresh: bool,
) -> None:
    x, y = images()
    net, criterion = network(), lmtorch.CrossEntropyLoss()
    damping = lmtorch.damping.Nielsen(initial=1e-9)  # steps of which hardly anything comes
    opt = lmtorch.LevenbergMarquardt(net, damping=damping, solver="cg", curvature="sampled")
    for turn in range(8):
        some = torch.randperm(90, generator=torch.Generator().manual_seed(turn))[:80]
        batch = (x[some], y[some]) if fresh else (x, y)
        opt.step(lambda x, y: criterion(net(x), y), *batch)
    share = opt._kept.common["share"]  # zero: as at first
    assert share == 0 if fresh else share > 0


def test_of_samples_that_do_not_count_nothing_moves() -> None:
    x, y = images()
    net, criterion = network(), lmtorch.CrossEntropyLoss()
    before = [p.detach().clone() for p in net.parameters()]
    opt = lmtorch.LevenbergMarquardt(net, solver="cg", curvature="sampled")
    loss = opt.step(lambda x, y: criterion(net(x), y), x, torch.full_like(y, -100))
    assert loss == 0
    for p, q in zip(net.parameters(), before, strict=True):
        assert torch.equal(p, q)


def recurrent() -> nn.Module:
    """A network whose rows no layers show."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRU(6, 8, batch_first=True)
            self.out = nn.Linear(8, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.out(self.cell(x[:, 0])[0][:, -1])
            return found

    torch.manual_seed(5)
    return Last()


def with_dropout() -> nn.Module:
    """The network, which draws random numbers in each evaluation."""
    return nn.Sequential(*list(network())[:4], nn.Dropout(0.3), nn.Linear(24, CLASSES))


@pytest.mark.parametrize("chunk", [90, 32])
@pytest.mark.parametrize("make", [network, with_dropout, recurrent])
def test_where_all_samples_are_mixed_their_cost_and_slope_come_with_the_rows(
    make: Any, chunk: int
) -> None:
    x, y = images()
    torch.manual_seed(1)
    net, criterion = make(), lmtorch.CrossEntropyLoss(label_smoothing=0.1)
    opt = lmtorch.LevenbergMarquardt(net, solver="cg", curvature="sampled")
    problem = of_step(opt, lambda x, y: 2.0 * criterion(net(x), y), x, y)
    assert isinstance(problem.sample, MixedResidual)
    assert problem.sample.whole
    problem.residual.chunk = chunk
    point = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    with torch.no_grad():
        model = problem.model(point)
        model = problem.model(point + 0.01 * torch.ones_like(point))
        shown = problem.sample.of_all()
        cost, slope, _ = problem._value_and_gradient(point + 0.01 * torch.ones_like(point))
        trial = problem.cost(point + 0.01 * torch.ones_like(point))
    assert shown is not None
    torch.testing.assert_close(model.cost, cost, rtol=1e-6, atol=0)
    torch.testing.assert_close(model.cost, trial, rtol=1e-6, atol=0)
    largest = float(slope.abs().max())
    torch.testing.assert_close(model.gradient, slope, rtol=1e-5, atol=1e-5 * largest)


def test_of_few_of_many_samples_the_others_are_evaluated_for_the_slope() -> None:
    x, y = images(4000)
    net, criterion = network(), lmtorch.CrossEntropyLoss()
    opt = lmtorch.LevenbergMarquardt(net, solver="cg", curvature="sampled")
    problem = of_step(opt, lambda x, y: criterion(net(x), y), x, y)
    signs = every_sign(CLASSES)[:1].expand(400, -1, -1)
    some = MixedResidual(problem.residual.subset(torch.arange(400)), signs)
    problem = replace(problem, sample=some)
    point = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    with torch.no_grad():
        model = problem.model(point)
    assert some.of_all() is None
    loss = F.cross_entropy(net(x), y, reduction="sum")
    slope = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(net.parameters()))])
    torch.testing.assert_close(model.gradient, slope, rtol=1e-4, atol=1e-3)


def test_a_step_on_mixed_rows_of_all_samples_evaluates_each_twice() -> None:
    x, y = images(512)
    net, criterion = network(), lmtorch.CrossEntropyLoss()
    opt = lmtorch.LevenbergMarquardt(net, solver="cg", curvature="sampled")
    seen: list[int] = []

    def closure(x: Tensor, y: Tensor) -> Any:
        seen.append(len(x))
        return criterion(net(x), y)

    for _ in range(3):
        seen.clear()
        opt.step(closure, x, y)
        assert opt.report is not None
    assert sum(seen) == 512 * (1 + int(opt.report.trials))
