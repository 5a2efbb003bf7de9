"""The optimizer with criteria of outputs and targets: the minimum is that of other minimisers."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import scipy.optimize
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lmtorch
from lmtorch.losses import Criterion

F64 = torch.float64


def flowers() -> tuple[Tensor, Tensor]:
    """Points and their classes, some on the wrong side, so that there is a minimum."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(90, 2, dtype=F64, generator=generator)
    centres = torch.tensor([[1.0, 0], [-1, 1], [-1, -1]], dtype=F64)
    y = (x @ centres.mT + torch.randn(90, 3, dtype=F64, generator=generator)).argmax(1)
    return x, y


X, Y = flowers()
COUNTS = torch.poisson((X @ torch.tensor([0.5, -1.0], dtype=F64)).exp(), torch.Generator())
NOISY = X[:, 0] + (0.3 * X[:, 1]).exp() * torch.randn(
    90, dtype=F64, generator=torch.Generator().manual_seed(5)
)
ONES = (Y == 0).to(F64)


def gaussian(f: Tensor, y: Tensor) -> Any:
    return lmtorch.GaussianNLLLoss()(f[..., 0], y, f[..., 1].exp())


def torchs_gaussian(f: Tensor, y: Tensor) -> Tensor:
    return F.gaussian_nll_loss(f[..., 0], y, f[..., 1].exp(), reduction="sum")


def negative_binomial(f: Tensor, y: Tensor) -> Tensor:
    density = torch.distributions.NegativeBinomial(2.0, logits=f - math.log(2))
    return -density.log_prob(y).sum()


# ours, the value by torch, outputs, target
Likelihood = tuple[Callable[..., Any], Callable[..., Tensor], int, Tensor]
LIKELIHOODS: dict[str, Likelihood] = {
    "classes": (
        lmtorch.CrossEntropyLoss(label_smoothing=0.1),
        lambda f, y: F.cross_entropy(f, y, label_smoothing=0.1, reduction="sum"),
        3,
        Y,
    ),
    "zero or one": (
        lmtorch.BCEWithLogitsLoss(),
        lambda f, y: F.binary_cross_entropy_with_logits(f, y, reduction="sum"),
        1,
        ONES[:, None],
    ),
    "counts": (
        lmtorch.PoissonNLLLoss(full=True),
        lambda f, y: F.poisson_nll_loss(f, y, full=True, reduction="sum"),
        1,
        COUNTS[:, None],
    ),
    "scattered counts": (
        lmtorch.NegativeBinomialNLLLoss(2.0, full=True),
        negative_binomial,
        1,
        COUNTS[:, None],
    ),
    "mean and variance": (gaussian, torchs_gaussian, 2, NOISY),
    "squares": (
        lmtorch.MSELoss(),
        lambda f, y: F.mse_loss(f, y, reduction="sum"),
        1,
        NOISY[:, None],
    ),
}


def model_of(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, outputs, dtype=F64)


def scipys_minimum(net: nn.Module, value: Callable[[Tensor], Tensor]) -> float:
    """The minimum by scipy's Newton with the exact Hessian."""
    names, shapes = zip(*((n, p.shape) for n, p in net.named_parameters()), strict=True)
    sizes = [shape.numel() for shape in shapes]

    def loss(vector: Tensor) -> Tensor:
        parts = [v.view(s) for v, s in zip(vector.split(sizes), shapes, strict=True)]
        return value(torch.func.functional_call(net, dict(zip(names, parts, strict=True)), X))

    def numbers(function: Callable[[Tensor], Tensor]) -> Callable[[Any], Any]:
        return lambda v: function(torch.as_tensor(v)).detach().numpy()

    start = torch.cat([p.detach().flatten() for p in net.parameters()]).numpy()
    found = scipy.optimize.minimize(
        numbers(loss), start, method="trust-exact", jac=numbers(torch.func.grad(loss)),
        hess=numbers(torch.func.hessian(loss)), options={"gtol": 1e-9, "maxiter": 1000},
    )  # fmt: skip
    return float(found.fun)


def fitted(net: nn.Module, step: Callable[[Any], Any], **options: Any) -> Any:
    opt = lmtorch.LevenbergMarquardt(net, **options)
    for _ in range(100):
        step(opt)
        if opt.status.final:
            break
    return opt


@cache
def minimum_of(name: str) -> float:
    """Scipy's for a likelihood, from the same start."""
    _, value, outputs, y = LIKELIHOODS[name]
    return scipys_minimum(model_of(outputs), lambda f: value(f, y))


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("batch", [True, False], ids=["batch", "closure"])
def test_the_minimum_is_scipys(name: str, batch: bool) -> None:
    criterion, value, outputs, y = LIKELIHOODS[name]
    net, expected = model_of(outputs), minimum_of(name)
    before = value(net(X), y).item()
    losses = []

    def step(opt: Any) -> None:
        if batch:
            losses.append(opt.step(lambda x, y: criterion(net(x), y), X, y))
        else:
            losses.append(opt.step(lambda: criterion(net(X), y)))

    opt = fitted(net, step)
    assert opt.converged
    assert float(losses[0]) == pytest.approx(before, rel=1e-12)
    assert opt.report.loss_after == pytest.approx(value(net(X), y).item(), rel=1e-12)
    assert opt.report.loss_after == pytest.approx(expected, rel=1e-10)
    gradient = torch.autograd.grad(value(net(X), y), list(net.parameters()))
    assert max(float(g.abs().max()) for g in gradient) < 1e-5


OPTIONS: list[dict[str, Any]] = [
    {"solver": "cholesky"},
    {"solver": "svd"},
    {"solver": "qr"},
    {"solver": "dual"},
    {"jacobian": "forward"},
    {"jacobian": "reverse"},
    {"jacobian": "per_sample"},
    {"jacobian": "autograd"},
    {"jacobian": "2-point"},
    {"acceleration": True},
    {"acceleration": True, "solver": "cholesky"},
    {"damping": "nielsen", "solver": "cholesky", "curvature": "sampled"},
    {"memory_limit": 3_000, "solver": "cholesky"},
    {"weight_decay": 1e-9},
]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(
            *(name, options),
            # a backward pass for each row
            marks=[pytest.mark.slow] * (options.get("jacobian") == "autograd" and name != "counts"),
        )
        for name in ("classes", "mean and variance", "counts")
        for options in OPTIONS
    ],
    ids=str,
)
def test_every_source_and_solver_comes_to_it(name: str, options: dict[str, Any]) -> None:
    criterion, value, outputs, y = LIKELIHOODS[name]
    net, expected = model_of(outputs), minimum_of(name)
    fitted(net, lambda o: o.step(lambda x, y: criterion(net(x), y), X, y), **options)
    # finite differences end where their derivatives do
    assert value(net(X), y).item() == pytest.approx(expected, rel=1e-8)


def test_networks_give_their_classes_layer_by_layer() -> None:
    ends = []
    for options in ({}, {"jacobian": "autograd", "solver": "qr"}):
        torch.manual_seed(2)
        net = nn.Sequential(nn.Linear(2, 14), nn.Tanh(), nn.Linear(14, 3)).double()
        opt = lmtorch.LevenbergMarquardt(
            net, **{"damping": "nielsen", "scaling": "levenberg", "solver": "cholesky", **options}
        )
        criterion = lmtorch.CrossEntropyLoss()
        for _ in range(3):
            opt.step(lambda x, y, n=net, c=criterion: c(n(x), y), X, Y)
        assert ("LayerWise" in opt.report.jacobian) == (not options)
        ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-7, atol=1e-7)


def test_terms_have_losses_of_their_own() -> None:
    net = model_of(3)
    criterion = lmtorch.CrossEntropyLoss()

    def value(f: Tensor) -> Tensor:
        others = F.poisson_nll_loss(f[:, 0], COUNTS, reduction="sum")
        squares = ((f[:20, 1] - NOISY[:20]) / 2).square().sum() / 2
        return F.cross_entropy(f, Y, reduction="sum") + 0.5 * others + squares

    expected = scipys_minimum(net, value)
    opt = fitted(
        net,
        lambda o: o.step(
            (lambda x, y: criterion(net(x), y), X, Y),
            (lambda: lmtorch.PoissonNLLLoss()(net(X)[:, 0], COUNTS) * 0.5,),
            (lambda x, y: (net(x)[:, 1] - y) / 2, X[:20], NOISY[:20]),
        ),
    )
    assert opt.report.loss_after == pytest.approx(expected, rel=1e-10)
    assert opt.report.loss_after == pytest.approx(value(net(X)).item(), rel=1e-12)


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "after another term"])
def test_data_that_a_closure_chooses_by_random_numbers_keep_their_targets(beside: bool) -> None:
    net = model_of(3)
    opt, chosen = lmtorch.LevenbergMarquardt(net), torch.empty(0)

    def noise() -> Tensor:
        return 1e-9 * torch.randn(3, dtype=F64) * net.weight[0, 0]

    def some() -> Any:
        nonlocal chosen
        chosen = torch.randint(len(X), (40,))
        return lmtorch.CrossEntropyLoss()(net(X[chosen]), Y[chosen])

    losses = set()
    for _ in range(3):
        found = opt.step((noise,), (some,)) if beside else opt.step(some)
        losses.add(float(found))
        after = F.cross_entropy(net(X[chosen]), Y[chosen], reduction="sum").item()
        assert opt.report.loss_after == pytest.approx(after, rel=1e-12)
    assert len(losses) == 3


def test_targets_may_change_from_step_to_step() -> None:
    net = model_of(3)
    opt = lmtorch.LevenbergMarquardt(net)
    for some in X.new_tensor(range(90)).long().split(30):
        criterion = lmtorch.CrossEntropyLoss()
        before = F.cross_entropy(net(X[some]), Y[some], reduction="sum").item()
        found = opt.step(lambda s=some, c=criterion: c(net(X[s]), Y[s]))
        assert float(found) == pytest.approx(before, rel=1e-12)
    # the same code gives residuals, then another criterion
    for criterion in (lmtorch.MSELoss(), lambda f, y: f - y, lmtorch.PoissonNLLLoss()):
        found = opt.step(lambda c=criterion: c(net(X)[:, 0], COUNTS))
        assert math.isfinite(float(found))
        assert opt.report.accepted


def test_a_separable_problem_ends_when_its_loss_is_zero_and_a_penalty_gives_it_a_minimum() -> None:
    y = (X[:, 0] > 0).long()
    for criterion, target, k in (
        (lmtorch.CrossEntropyLoss(), y, 2),
        (lmtorch.BCEWithLogitsLoss(), y[:, None].double(), 1),
    ):
        net = model_of(k)
        opt = fitted(net, lambda o, c=criterion, n=net, t=target: o.step(lambda: c(n(X), t)))
        assert opt.report.loss_after == 0
        assert opt.status is lmtorch.Status.ZERO
    net, criterion = model_of(2), lmtorch.CrossEntropyLoss()
    step = lambda o: o.step(lambda x, y: criterion(net(x), y), X, y)
    opt = fitted(net, step, weight_decay=0.01)
    assert opt.converged
    penalty = sum(p.square().sum() for p in net.parameters()) * 0.005
    value = F.cross_entropy(net(X), y, reduction="sum") + penalty
    gradient = torch.autograd.grad(value, list(net.parameters()))
    assert max(float(g.abs().max()) for g in gradient) < 1e-6


def test_a_start_that_is_wrong_by_far_is_no_end() -> None:
    net = model_of(3)
    with torch.no_grad():
        net.weight.mul_(300)
    start = F.cross_entropy(net(X), Y, reduction="sum").item()
    criterion = lmtorch.CrossEntropyLoss()
    opt = fitted(net, lambda o: o.step(lambda x, y: criterion(net(x), y), X, Y))
    expected = scipys_minimum(model_of(3), lambda f: F.cross_entropy(f, Y, reduction="sum"))
    assert start > 1e3
    assert opt.report.loss_after == pytest.approx(expected, rel=1e-9)


def test_float32_comes_as_near_as_it_resolves() -> None:
    net = model_of(3).float()
    criterion = lmtorch.CrossEntropyLoss()
    opt = fitted(net, lambda o: o.step(lambda x, y: criterion(net(x), y), X.float(), Y))
    expected = scipys_minimum(model_of(3), lambda f: F.cross_entropy(f, Y, reduction="sum"))
    assert opt.status.final
    assert opt.report.loss_after == pytest.approx(expected, rel=1e-6)


def test_a_parameter_may_be_the_output_itself() -> None:
    theta = torch.zeros(4, dtype=F64, requires_grad=True)
    counts = torch.tensor([1.0, 2, 5, 40], dtype=F64)
    opt = lmtorch.LevenbergMarquardt([theta])
    while not opt.status.final:
        opt.step(lambda: lmtorch.PoissonNLLLoss()(theta, counts))
    torch.testing.assert_close(theta.detach().exp(), counts, rtol=1e-6, atol=0)


class Apart(Criterion):
    """½‖f − y‖² of all outputs together, as they are returned."""

    def cost(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - y).square().sum(-1) / 2

    def slope(self, outputs: Tensor, y: Tensor) -> Tensor:
        return outputs - y

    def root(self, outputs: Tensor, y: Tensor) -> Tensor:
        return torch.eye(outputs.shape[-1], dtype=F64).expand(*outputs.shape, -1)


@pytest.mark.parametrize("module", [False, True])
def test_a_parameter_without_any_operator_is_replaced_as_well(module: bool) -> None:
    net = nn.Module()
    net.theta = nn.Parameter(torch.zeros(4, dtype=F64))
    y = torch.tensor([1.0, 2, 5, 40], dtype=F64)
    opt = lmtorch.LevenbergMarquardt(net if module else [net.theta])
    while not opt.status.final:
        opt.step(lambda: Apart()(net.theta, y))
    torch.testing.assert_close(net.theta.detach(), y)


@pytest.mark.slow
def test_compiled_steps_are_the_same() -> None:
    ends = []
    for compiled in (False, True):
        net = model_of(3)
        opt = lmtorch.LevenbergMarquardt(net, compile=compiled)
        criterion = lmtorch.CrossEntropyLoss(weight=torch.ones(3))
        for _ in range(4):
            opt.step(lambda x, y, n=net, c=criterion: c(n(x), y), X, Y)
        ends.append(net.weight.detach().clone())
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (lambda f: F.cross_entropy(f, Y), "CrossEntropyLoss"),
        (lambda f: 2 * F.cross_entropy(f, Y, label_smoothing=0.1), "CrossEntropyLoss"),
        (
            lambda f: F.binary_cross_entropy_with_logits(f[:, 0], ONES, reduction="sum") / 90,
            "BCEWithLogitsLoss",
        ),
        (lambda f: F.binary_cross_entropy(f[:, 0].sigmoid(), ONES), "BCEWithLogitsLoss"),
        (lambda f: F.mse_loss(f[:, 0], NOISY), "MSELoss"),
        (lambda f: F.huber_loss(f[:, 0], NOISY), "huber"),
        (lambda f: F.poisson_nll_loss(f[:, 0], COUNTS), r"loss of torch's.*PoissonNLLLoss"),
        (
            lambda f: F.poisson_nll_loss(f[:, 0].exp(), COUNTS, log_input=False, full=True) / 3,
            r"loss of torch's.*PoissonNLLLoss",
        ),
        (lambda f: torchs_gaussian(f, NOISY), r"loss of torch's.*GaussianNLLLoss"),
        (
            lambda f: F.gaussian_nll_loss(f[:, 0], NOISY, f[:, 1].exp(), full=True),
            r"loss of torch's.*GaussianNLLLoss",
        ),
        (lambda f: F.cross_entropy(f, f.detach().softmax(1)), r"loss of torch's.*CrossEntropyLoss"),
        (lambda f: F.nll_loss(f.log_softmax(1), Y), r"loss of torch's.*CrossEntropyLoss"),
        (
            lambda f: F.kl_div(f.log_softmax(1), f.detach().softmax(1), reduction="batchmean"),
            r"loss of torch's.*CrossEntropyLoss",
        ),
        (
            lambda f: F.multilabel_soft_margin_loss(f, F.one_hot(Y, 3).double()),
            r"loss of torch's.*BCEWithLogitsLoss",
        ),
        (lambda f: F.soft_margin_loss(f[:, 0], 2 * ONES - 1), r"loss of torch's.*BCEWithLogits"),
        (
            lambda f: F.cross_entropy(f[None].movedim(-1, 1)[..., None], Y[None, :, None]),
            r"loss of torch's.*CrossEntropyLoss",
        ),
        # nobody's likelihood
        (lambda f: (f[:, 0] - NOISY).square().mean(), "not their sum"),
        (lambda f: (f[:, 0].exp() - NOISY).square().sum(), "not their sum"),
    ],
)
def test_a_loss_of_torchs_is_told_which_to_use(loss: Callable[[Tensor], Tensor], name: str) -> None:
    net = model_of(3)
    with pytest.raises(lmtorch.InputError, match=name):
        lmtorch.LevenbergMarquardt(net).step(lambda: loss(net(X)))


def test_what_makes_no_sense_is_refused_before_any_step() -> None:
    net, criterion = model_of(3), lmtorch.CrossEntropyLoss()
    before = net.weight.detach().clone()
    with pytest.raises(lmtorch.InputError, match="term"):
        lmtorch.LevenbergMarquardt(net).step(lambda: (criterion(net(X), Y), net(X)))
    with pytest.raises(lmtorch.InputError, match="detach"):
        lmtorch.LevenbergMarquardt(net).step(
            lambda: lmtorch.CrossEntropyLoss()(net(X), net(X).softmax(1))
        )
    with pytest.raises(lmtorch.InputError, match="loss='huber'"):
        lmtorch.LevenbergMarquardt(net, loss="huber").step(lambda: criterion(net(X), Y))
    assert torch.equal(net.weight, before)


def test_dropout_and_batch_norm_work_as_with_residuals() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3)
    ).double()
    opt = lmtorch.LevenbergMarquardt(net)
    first, _ = [opt.step(lambda: lmtorch.CrossEntropyLoss()(net(X), Y)) for _ in range(2)]
    assert opt.report.loss_after < float(first)
    assert int(net[1].num_batches_tracked) == 2  # one forward pass a step


@pytest.mark.parametrize("solver", ["svd", "cholesky", "dual"])
def test_a_step_is_that_of_the_damped_hessian_of_the_loss(solver: str) -> None:
    net = model_of(3)
    start = torch.cat([p.detach().flatten() for p in net.parameters()])

    def value(vector: Tensor) -> Tensor:
        return F.cross_entropy(X @ vector[:6].view(3, 2).mT + vector[6:], Y, reduction="sum")

    # the outputs are linear in the parameters: the Gauss-Newton matrix is the Hessian
    hessian, gradient = torch.func.hessian(value)(start), torch.func.grad(value)(start)
    opt = lmtorch.LevenbergMarquardt(
        net, solver=solver, damping="nielsen", scaling="levenberg", acceleration=False
    )
    opt.step(lambda x, y: lmtorch.CrossEntropyLoss()(net(x), y), X, Y)
    found = torch.cat([p.detach().flatten() for p in net.parameters()]) - start
    assert opt.report.accepted
    assert opt.report.trials == 1
    assert opt.report.damping > 0
    damped = hessian + opt.report.damping * torch.eye(9, dtype=F64)
    torch.testing.assert_close(found, -torch.linalg.solve(damped, gradient))


def test_a_first_batch_of_ignored_targets_alone_leaves_the_damping_to_the_next() -> None:
    # λ from rows of zeros was 1e-292, and every step was refused until it had grown from there
    ends = []
    for first in ([Y], [torch.full_like(Y, -100), Y]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 3)).double()
        opt = lmtorch.LevenbergMarquardt(net)
        for y in first:
            opt.step(lambda x, y, net=net: lmtorch.CrossEntropyLoss()(net(x), y), X, y)
        assert opt.report is not None
        assert opt.report.accepted
        ends.append([p.detach().clone() for p in net.parameters()])
    torch.testing.assert_close(*ends, rtol=0, atol=0)
