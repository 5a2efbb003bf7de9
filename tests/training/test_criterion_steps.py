"""One damped step of each criterion is that of torch's own loss: −(JᵀHJ + λ)⁻¹ g in closed form.

J is that of the outputs by `jacfwd`, H the Hessian of torch's loss in the outputs, g the gradient
of torch's loss in the parameters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lmtorch
from lmtorch.damping import LinearModel, Outcome
from lmtorch.linearizations import Linearization

F64 = torch.float64
DAMPING = 30.0  # so large that every step is kept
DRAWN = torch.Generator().manual_seed(4)
X = torch.randn(40, 3, dtype=F64, generator=DRAWN)
IMAGES = torch.randn(12, 1, 4, 5, dtype=F64, generator=DRAWN)
CLASSES = torch.randint(4, (40,), generator=DRAWN)
SOME = torch.where(torch.arange(40) % 7 == 3, -100, CLASSES)
PIXELS = torch.randint(4, (12, 2, 3), generator=DRAWN)
WEIGHT = torch.tensor([0.3, 1.0, 2.0, 0.7], dtype=F64)
SHARES = torch.rand(40, 4, dtype=F64, generator=DRAWN).softmax(1)
COUNTS = torch.poisson(torch.full((40, 4), 2.0, dtype=F64), generator=DRAWN)


class Always(NamedTuple):
    damping: Tensor


@dataclass(frozen=True)
class Constant:
    """A damping that stays what it is."""

    def start(self, linearization: Linearization, scale: Tensor, x: Tensor) -> Any:
        return Always(torch.full_like(linearization.cost, DAMPING))

    def propose(self, model: LinearModel, state: Any) -> tuple[Tensor, Any]:
        return model.factor.step(state.damping), state

    def update(self, state: Any, outcome: Outcome) -> Any:
        return state


def dense() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4)).double()


def pictures() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Conv2d(2, 4, 2)).double()


# ours, torch's sum, inputs, targets, network
Case = tuple[Any, Callable[[Tensor, Tensor], Tensor], Tensor, Tensor, Callable[[], nn.Module]]
CASES: dict[str, Case] = {
    "classes, some ignored, weighted and smoothed": (
        lmtorch.CrossEntropyLoss(WEIGHT, label_smoothing=0.1),
        lambda f, y: F.cross_entropy(f, y, WEIGHT, label_smoothing=0.1, reduction="sum"),
        X, SOME, dense,
    ),
    "probabilities": (
        lmtorch.CrossEntropyLoss(),
        lambda f, y: F.cross_entropy(f, y, reduction="sum"),
        X, SHARES, dense,
    ),
    "pixels": (
        lmtorch.CrossEntropyLoss(WEIGHT),
        lambda f, y: F.cross_entropy(f, y, WEIGHT, reduction="sum"),
        IMAGES, PIXELS, pictures,
    ),
    "zeros and ones": (
        lmtorch.BCEWithLogitsLoss(pos_weight=WEIGHT),
        lambda f, y: F.binary_cross_entropy_with_logits(f, y, pos_weight=WEIGHT, reduction="sum"),
        X, (COUNTS > 1).double(), dense,
    ),
    "counts": (
        lmtorch.PoissonNLLLoss(),
        lambda f, y: F.poisson_nll_loss(f, y, reduction="sum"),
        X, COUNTS, dense,
    ),
    "counts in several dimensions": (
        lmtorch.PoissonNLLLoss(),
        lambda f, y: F.poisson_nll_loss(f, y, reduction="sum"),
        IMAGES, COUNTS.flatten()[: 12 * 6].view(12, 1, 2, 3).expand(12, 4, 2, 3), pictures,
    ),
    "squares": (
        lmtorch.MSELoss(),
        lambda f, y: F.mse_loss(f, y, reduction="sum"),
        X, SHARES, dense,
    ),
}  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {},
    {"jacobian": "forward"},
    {"jacobian": "reverse"},
    {"jacobian": "per_sample"},
    {"jacobian": "autograd"},
    {"jacobian": "2-point"},
    {"solver": "qr"},
    {"solver": "svd"},
    {"solver": "dual"},
    {"solver": lmtorch.solvers.ConjugateGradients(forcing=1e-13, iterations=500)},
    {"memory_limit": 20_000, "solver": "cholesky"},
    {"curvature": "sampled", "solver": "cholesky"},
]


@cache
def expected(name: str, places: tuple[int, ...]) -> Tensor:
    """The step of a network, whose curvature is that of the samples at these places."""
    _, loss, x, y, make = CASES[name]
    chosen = torch.tensor(places)
    net = make()
    names, shapes = zip(*((n, p.shape) for n, p in net.named_parameters()), strict=True)
    sizes = [shape.numel() for shape in shapes]
    start = torch.cat([p.detach().flatten() for p in net.parameters()])

    def outputs(vector: Tensor, some: Tensor) -> Tensor:
        parts = [v.view(s) for v, s in zip(vector.split(sizes), shapes, strict=True)]
        found: Tensor = torch.func.functional_call(net, dict(zip(names, parts, strict=True)), some)
        return found

    gradient = torch.func.grad(lambda v: loss(outputs(v, x), y))(start)
    total = torch.zeros(len(start), len(start), dtype=F64)
    for one, target in zip(x[chosen, None], y[chosen, None], strict=True):  # samples by themselves
        rows = torch.func.jacfwd(lambda v, one=one: outputs(v, one).flatten())(start)
        f = outputs(start, one)

        def of_outputs(values: Tensor, f: Tensor = f, target: Tensor = target) -> Tensor:
            return loss(values.view(f.shape), target)

        total += rows.mT @ torch.func.hessian(of_outputs)(f.flatten()) @ rows
    total *= len(x) / len(chosen)
    step: Tensor = -torch.linalg.solve(total + DAMPING * torch.eye(len(start)), gradient)
    return step


OF_SAMPLES = ("per_sample", "sampled")  # what a closure without a batch cannot have
COMBINATIONS = [
    *((name, True, options) for name in CASES for options in OPTIONS),
    *(
        (name, False, options)
        for name in ("classes, some ignored, weighted and smoothed", "pixels", "counts")
        for options in OPTIONS
        if not set(OF_SAMPLES).intersection(map(str, options.values()))
    ),
]


@pytest.mark.parametrize(
    ("name", "batch", "options"),
    COMBINATIONS,
    ids=[
        f"{name}, {'batch' if batch else 'closure'}, {opts}" for name, batch, opts in COMBINATIONS
    ],
)
def test_a_damped_step_is_that_of_torchs_loss(
    name: str, batch: bool, options: dict[str, Any]
) -> None:
    criterion, _, x, y, make = CASES[name]
    net = make()
    before = torch.cat([p.detach().flatten() for p in net.parameters()])
    options = {"acceleration": False, "scaling": "levenberg", **options}
    opt = lmtorch.LevenbergMarquardt(net, damping=Constant(), **options)
    if batch:
        opt.step(lambda x, y: criterion(net(x), y), x, y)
    else:
        opt.step(lambda: criterion(net(x), y))
    assert opt.report.accepted
    moved = torch.cat([p.detach().flatten() for p in net.parameters()]) - before
    chosen = torch.arange(len(x))
    if "curvature" in options:
        rows = math.prod(net(x[:1]).shape)
        share = min(1.0, max(0.1, 1.5 * len(before) / (rows * len(x))))
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        chosen = order[: math.ceil(share * len(x))]
        assert len(chosen) < len(x)
    # differences of outputs have half of the digits
    tolerance = 1e-5 if options.get("jacobian") == "2-point" else 1e-8
    torch.testing.assert_close(
        moved, expected(name, tuple(chosen.tolist())), rtol=tolerance, atol=tolerance * 0.1
    )


def test_targets_are_read_with_the_evaluations_of_a_step() -> None:
    """A pass for the linear model and one for each trial: none for the targets alone."""
    network, seen = dense(), []

    def closure(x: Tensor, y: Tensor) -> Any:
        seen.append(len(x))
        return lmtorch.CrossEntropyLoss()(network(x), y)

    opt = lmtorch.LevenbergMarquardt(network, solver="dual", damping=Constant())
    opt.step(closure, X, CLASSES)  # looks at the closure and checks derivatives
    for _ in range(2):
        seen.clear()
        before = F.cross_entropy(network(X), CLASSES, reduction="sum")
        torch.testing.assert_close(opt.step(closure, X, CLASSES), before.detach())
        assert sum(seen) == 2 * len(X)


def test_a_closure_that_returns_residuals_after_a_criterion_is_looked_at_anew() -> None:
    """It has no targets any more, and is found out in the middle of a step."""
    network, likelihood = dense(), [True]
    criterion = lmtorch.CrossEntropyLoss()

    def closure(x: Tensor, y: Tensor) -> Any:
        return criterion(network(x), y) if likelihood else network(x) - 0.25

    opt = lmtorch.LevenbergMarquardt(network, damping=Constant())
    opt.step(closure, X, CLASSES)
    likelihood.clear()
    half = (network(X) - 0.25).square().sum().detach() / 2
    torch.testing.assert_close(opt.step(closure, X, CLASSES), half)
