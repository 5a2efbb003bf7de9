"""Float32 data with sums and factors in float64: what is gained, and what is refused."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmtorch import BCEWithLogitsLoss, CrossEntropyLoss, InputError, LevenbergMarquardt
from lmtorch.core.last_step import resolved
from lmtorch.core.loop import descend
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.state import Start
from lmtorch.core.sums import total
from lmtorch.core.termination import Status, Tolerances
from lmtorch.damping.nielsen import Nielsen
from lmtorch.damping.scaling import Levenberg
from lmtorch.jacobians.forward import Forward
from lmtorch.linearizations import normal as normals
from lmtorch.linearizations.normal import NormalForm
from lmtorch.losses.linear import Linear
from lmtorch.residuals.function import FunctionResidual
from lmtorch.rows.matrix import DenseRows
from lmtorch.rows.outer import Outer, OuterRows
from lmtorch.solvers.cholesky import Cholesky
from lmtorch.solvers.conjugate_gradients import ConjugateGradients
from lmtorch.solvers.preconditioners import Jacobi, KroneckerFactors, Nystrom, Scales
from lmtorch.solvers.row_sample import RowSample

N = 80  # more than are small


def rows(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of two nearly equal halves of columns, and residuals."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(count, N // 2, generator=generator)
    other = half + 3e-3 * torch.randn(count, N // 2, generator=generator)
    return torch.cat([half, other], 1), torch.randn(count, generator=generator)


def summed(form: NormalForm, dtype: torch.dtype, block: int = 100) -> tuple[Tensor, Tensor]:
    x, r = rows(4000)
    sums = form.accumulator((N,), len(r), torch.empty(0, dtype=dtype))
    for some, residual in zip(x.split(block), r.split(block), strict=True):
        place = sums.workspace(len(residual))
        sums.add(residual, DenseRows(place.copy_(some)))
    sums.sums = total([sums.sums])
    found = sums.finish(r.new_ones((), dtype=torch.float64), None)
    return found.normal.double(), found.gradient.double()


@pytest.mark.parametrize("what", [0, 1])
def test_each_precision_is_nearer_to_the_exact_sums(
    what: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normals, "TOGETHER", 100)
    x, r = (t.double() for t in rows(4000))
    exact = (x.mT @ x, x.mT @ r)[what]
    forms = (
        summed(NormalForm(), torch.float32),
        summed(NormalForm(torch.float32), torch.float64),
        summed(NormalForm(), torch.float64),
    )
    single, mixed, double = (float((found[what] - exact).norm()) for found in forms)
    assert mixed < single / (2, 1)[what]
    assert double < 1e-6 * mixed


def test_pieces_of_outer_products_add_up_to_those_of_the_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(normals, "TOGETHER", 12)
    form, p, q = NormalForm(torch.float32), 16, 16
    like = torch.empty(0, dtype=torch.float64)
    sums = form.accumulator((p * q,), 40, like)
    written = []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        # whole numbers, of which products and sums are exact in float32
        left = torch.randint(-9, 9, (5, 1, p), generator=generator).float()
        right = torch.randint(-9, 9, (5, q), generator=generator).float()
        matrix = (left[:, 0, :, None] * right[:, None, :]).flatten(1)
        sums.add(torch.ones(5), OuterRows(matrix, (Outer(0, left, right),)))
        written.append(matrix.double())
    found = sums.finish(like.new_ones(()), None)
    J = torch.cat(written)
    assert torch.equal(found.normal, J.mT @ J)
    assert torch.equal(found.gradient, J.sum(0))


def fitted(precision: str, steps: int = 12) -> float:
    """How far the loss of a linear fit in float32 stays above the least, relative to it."""
    x, r = rows(2000)
    r = x @ torch.linspace(-1, 1, N) + 0.01 * r
    w = torch.zeros(N, requires_grad=True)
    opt = LevenbergMarquardt(
        [w], precision=precision, curvature="full", acceleration=False, ftol=0, xtol=0, gtol=0
    )
    for _ in range(steps):
        opt.step(lambda x, r: (x @ w - r)[:, None], x, r)
    assert opt.report is not None
    best = torch.linalg.lstsq(x.double(), r.double()[:, None]).solution[:, 0]
    least = float((x.double() @ best - r.double()).square().sum() / 2)
    return float(opt.report.loss_after) / least - 1


def test_a_fit_in_float32_comes_nearer_to_its_minimum_by_double_sums() -> None:
    single, double = fitted("single"), fitted("double")
    assert double < 1e-3
    assert double < single / 10


def test_float32_is_solved_in_float32_unless_asked() -> None:
    single = fitted("single", 3)
    assert fitted("auto", 3) == pytest.approx(single, rel=1e-10)  # of the least itself
    assert fitted("mixed", 3) != pytest.approx(single, rel=1e-10)


PRECONDITIONERS = (Scales(), Jacobi(), Nystrom(), KroneckerFactors(), RowSample())


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize(
    "solver", ["dual", *(ConjugateGradients(1e-10, 400, kind) for kind in PRECONDITIONERS)]
)
def test_steps_by_layers_in_double_are_those_of_the_matrix(solver: Any, momentum: float) -> None:
    def stepped(solver: Any, hidden: int) -> Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        x = torch.randn(150, 2)
        y = x[:, :1].sin() * x[:, 1:]
        opt = LevenbergMarquardt(
            model, solver=solver, precision="double", scaling="levenberg", damping="nielsen",
            momentum=momentum, curvature="full", acceleration=False,
        )  # fmt: skip
        for some in (slice(100), slice(50, 150)):
            opt.step(lambda x, y: model(x) - y, x[some], y[some])
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    for hidden in (8, 40):  # fewer parameters than residuals, and more
        found, expected = stepped(solver, hidden), stepped("cholesky", hidden)
        assert torch.allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "dtype", "words"),
    [
        ({"precision": "half"}, torch.float32, "precision"),
        ({"precision": "single"}, torch.float64, "float64"),
        ({"precision": "mixed"}, torch.float64, "float64"),
        ({"precision": "mixed", "solver": "svd"}, torch.float32, "solver='cholesky'"),
        ({"precision": "mixed", "solver": "cg"}, torch.float32, "precision='double'"),
    ],
)
def test_what_cannot_be_is_refused(options: Any, dtype: torch.dtype, words: str) -> None:
    model = nn.Linear(3, 1).to(dtype)
    x = torch.randn(9, 3, dtype=dtype)
    with pytest.raises(InputError, match=words):
        LevenbergMarquardt(model, **options).step(model, x)


def classes(kinds: int) -> tuple[nn.Module, Any, Tensor, Tensor]:
    """A classification of which the losses fall slowly at first, with a network for it."""
    seed = 1 if kinds > 1 else 3
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (400,), generator=generator)
    x = torch.randn(400, 6, generator=generator)
    x = x + torch.randn(4, 6, generator=generator)[labels]
    torch.manual_seed(seed)
    wide = 12 if kinds > 1 else 14
    net = nn.Sequential(nn.Linear(6, wide), nn.Tanh(), nn.Linear(wide, kinds))
    if kinds > 1:
        return net, CrossEntropyLoss(), x, labels
    return net, BCEWithLogitsLoss(), x, (labels > 1).float()[:, None]


@pytest.mark.parametrize("kinds", [4, 1], ids=["classes", "yes or no"])
def test_a_success_in_float32_leaves_float64_next_to_nothing(kinds: int) -> None:
    """The loss of either falls by less than 1e-6 in steps that have parts in a thousand to go."""
    net, criterion, x, y = classes(kinds)
    # a start from which both end as converged: other ones may end as stalled at round-off
    opt = LevenbergMarquardt(net, weight_decay=1.0, damping=Nielsen(initial=1e-3))
    for _ in range(400):
        opt.step(lambda x, y: criterion(net(x), y), x, y)
        if opt.status.final:
            break
    assert opt.converged, opt.status.message
    finer = copy.deepcopy(net).double()
    x, y = x.double(), y if kinds > 1 else y.double()
    opt = LevenbergMarquardt(finer, weight_decay=1.0)
    losses = [float(opt.step(lambda: criterion(finer(x), y))) for _ in range(25)]
    assert losses[0] - losses[-1] < 1e-5 * losses[-1]


@pytest.mark.parametrize(("left", "expected"), [(1e-8, Status.COST), (1e-5, Status.STALLED)])
def test_what_round_off_has_ended_is_converged_if_an_undamped_step_promises_nothing(
    left: float, expected: Status
) -> None:
    """At the known solution of linear equations, moved by what costs a share of the least cost."""
    a, b = (part.double() for part in rows(400))
    a = torch.cat([a, a[:, :1]], 1)  # JᵀJ is singular
    best = torch.linalg.lstsq(a, b[:, None], driver="gelsd").solution[:, 0]
    least = (a @ best - b).square().sum() / 2
    away = torch.ones_like(best)
    away = away * (left * least / ((a @ away).square().sum() / 2)).sqrt()
    solver = Cholesky()
    x = best + away
    residual = FunctionResidual(lambda x: a.float() @ x - b.float(), x.float())
    problem = Problem(residual, Forward(), solver.form, Linear(), torch.float32)
    epsilon = torch.finfo(torch.float32).eps
    method = Method(solver, Nielsen(), Levenberg(), Tolerances(epsilon, 1e-6, 1e-6))
    state, _ = descend(problem, method, Start(x.float()), trials=0)
    stalled = state._replace(status=torch.full_like(state.status, int(Status.STALLED)))
    assert resolved(problem, method, stalled).status == expected
