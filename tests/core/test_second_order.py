"""The second derivative of the residuals along a step, pulled back: Jᵀ r_vv, by two modes.

The reference is dense: Jacobian and Hessians of the residuals by `torch.func`, one problem at a
time.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import hessian, jacrev

import lmtorch
from lmtorch.core.bend import second_order
from lmtorch.core.bounds import Bounds
from lmtorch.core.linearizing import begin
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.state import Start
from lmtorch.core.termination import Tolerances
from lmtorch.damping.nielsen import Nielsen
from lmtorch.damping.scaling import Levenberg
from lmtorch.jacobians.base import JacobianSource
from lmtorch.jacobians.finite_difference import FiniteDifference
from lmtorch.jacobians.forward import Forward
from lmtorch.jacobians.given import GivenJacobian
from lmtorch.jacobians.ladder import Ladder
from lmtorch.jacobians.reverse import Reverse
from lmtorch.linearizations.dense import DenseForm
from lmtorch.losses.base import Loss
from lmtorch.losses.linear import Linear
from lmtorch.losses.robust import Robust, cauchy, soft_l1
from lmtorch.residuals.base import Part
from lmtorch.residuals.function import FunctionResidual
from lmtorch.rows.matrix import DenseRows
from lmtorch.solvers.dual import Dual
from lmtorch.training.terms import terms_of

F32, F64 = torch.float32, torch.float64
TIMES = torch.linspace(0, 2, 7, dtype=F64)


def decay(x: Tensor) -> Tensor:
    """(..., 3) -> (..., 7)."""
    return (
        x[..., :1] * torch.exp(-x[..., 1:2] * TIMES.to(x))
        + torch.sin(x[..., 2:] * TIMES.to(x))
        - 0.4
    )


class OldExp(torch.autograd.Function):
    """No forward-mode formula."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.exp())
        return x.exp()

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return y * w


def without_forward(x: Tensor) -> Tensor:
    return (
        x[..., :1] * OldExp.apply(-x[..., 1:2] * TIMES.to(x))
        + torch.sin(x[..., 2:] * TIMES.to(x))
        - 0.4
    )


class BlackBox(FunctionResidual):
    def parts(self) -> Any:
        for part in super().parts():
            yield Part(
                lambda params, f=part.function: f(params).detach(),
                part.run,
                part.batch,
                black_box=True,
            )


def problem(
    fun: Any,
    x: Tensor,
    source: JacobianSource | None = None,
    kind: Any = FunctionResidual,
    **of: Any,
) -> Any:
    return Problem(
        kind(fun, x),
        Ladder([source or Forward()]),
        DenseForm(),
        of.pop("loss", Linear()),
        of.pop("dtype", F64),
        **of,
    )


def points(*batch: int, dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = 0.5 + torch.rand(*batch, 3, generator=generator, dtype=F64)
    return x.to(dtype), 0.3 * torch.randn(*batch, 3, generator=generator, dtype=F64)


def exact(fun: Callable[[Tensor], Tensor], x: Tensor, v: Tensor, loss: Loss) -> Tensor:
    """Jᵀ W r_vv, with W the squares of the factors of the rows."""
    found = []
    for point, along in zip(x.reshape(-1, 3), v.reshape(-1, 3), strict=True):
        bend = torch.einsum("mij,i,j->m", hessian(fun)(point), along, along)
        rows = DenseRows(torch.ones(len(bend), 1, dtype=x.dtype))
        root = loss.expand(fun(point)).root
        rows = (rows if root is None else rows.scaled(root)).matrix[:, 0] ** 2
        found.append(jacrev(fun)(point).mT @ (rows * bend))
    return torch.stack(found).reshape(x.shape)


# h²/12 r_vvvv for h = 0.1, whose ratio to r_vv is (2 |v|)² for times up to 2, and |v| is
# near 1; J makes some cancel
SHARE = 0.02
LOSSES = [Linear(), Robust(cauchy, 0.5), Robust(soft_l1, torch.tensor(0.3, dtype=F64))]
batches = pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
losses = pytest.mark.parametrize("loss", LOSSES, ids=["linear", "cauchy", "soft_l1"])


@batches
@losses
def test_forward_mode_twice_gives_the_dense_one(batch: tuple[int, ...], loss: Loss) -> None:
    x, v = points(*batch)
    torch.testing.assert_close(
        second_order(problem(decay, x, loss=loss), x, v), exact(decay, x, v, loss)
    )


def fewer(x: Tensor) -> Tensor:
    """(..., 3) -> (..., 2)."""
    return decay(x)[..., 2:4]


@batches
@losses
@pytest.mark.parametrize("source", [Forward(), Reverse()], ids=repr)
def test_fewer_residuals_than_parameters_are_corrected_in_their_own_space(
    batch: tuple[int, ...], loss: Loss, source: JacobianSource
) -> None:
    x, v = points(*batch)
    made = problem(fewer, x, source, loss=loss, keep=True)
    method = Method(Dual(), Nielsen(), Levenberg(), Tolerances(0, 0, 0))
    _, model = begin(made, method, Start(x))
    assert model.row_bends is not None
    damping = torch.full(batch, 1e-3, dtype=F64)
    found: Any = model.factor
    found = found.solve_rows(model.row_bends(v), damping)
    jacobian = model.linearization.rows.dense()  # with the roots of the loss
    normal = jacobian.mT @ jacobian + 1e-3 * torch.eye(3, dtype=F64)
    expected = torch.linalg.solve(normal, exact(fewer, x, v, loss)[..., None])[..., 0]
    room = SHARE if isinstance(source, Reverse) else 1e-9
    assert bool(((found - expected).norm(dim=-1) < room * expected.norm(dim=-1)).all())


@batches
@losses
@pytest.mark.parametrize(
    "kind", ["asked", "no forward mode", "black box", "given", "given black box", "3-point"]
)
def test_differences_come_as_near_as_their_step_allows(
    batch: tuple[int, ...], loss: Loss, kind: str
) -> None:
    x, v = points(*batch)
    given = GivenJacobian(
        lambda y: torch.stack([jacrev(decay)(p) for p in y.reshape(-1, 3)]).reshape(
            *y.shape[:-1], 7, 3
        )
    )
    made = {
        "asked": lambda: problem(decay, x, loss=loss, differences=True),
        "no forward mode": lambda: problem(without_forward, x, Reverse(), loss=loss),
        "black box": lambda: problem(decay, x, FiniteDifference("3-point"), BlackBox, loss=loss),
        "given": lambda: problem(decay, x, given, loss=loss, differences=True),
        "given black box": lambda: problem(decay, x, given, BlackBox, loss=loss),
        "3-point": lambda: problem(
            decay, x, FiniteDifference("3-point"), loss=loss, differences=True
        ),
    }[kind]()
    found, expected = second_order(made, x, v), exact(decay, x, v, loss)
    assert found.shape == x.shape
    assert found.dtype == F64
    assert bool(((found - expected).abs() < SHARE * expected.abs().amax(-1, keepdim=True)).all())


def test_differences_are_of_second_order_in_the_length() -> None:
    x, v = points()
    direct = problem(decay, x, differences=True)
    errors = [
        float((second_order(direct, x, s * v) / s**2 - exact(decay, x, v, Linear())).norm())
        for s in (4.0, 2.0, 1.0)
    ]
    assert 3.5 < errors[0] / errors[1] < 4.5
    assert 3.5 < errors[1] / errors[2] < 4.5


@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4, 1e-8], ids=str)
def test_a_short_step_is_lengthened_to_where_differences_resolve(
    scale: float, dtype: torch.dtype
) -> None:
    x, v = points(dtype=dtype)
    found = second_order(problem(decay, x, differences=True), x, scale * v) / scale**2
    # of a difference over ε^¼ |x| the error is √ε both by truncation and rounding, relative
    # to r_vv, but for factors
    expected = exact(decay, x.double(), v, Linear())
    room = 30 * torch.finfo(dtype).eps ** 0.5 + SHARE * scale**2 * float(expected.abs().max())
    assert float((found - expected).abs().max()) < room


def test_a_batch_of_problems_has_a_length_for_each() -> None:
    x, v = points(3)
    v = v * torch.tensor([[1.0], [1e-4], [1e-9]], dtype=F64)
    together = second_order(problem(decay, x, differences=True), x, v)
    for place in range(3):
        alone = second_order(problem(decay, x[place], differences=True), x[place], v[place])
        # ε/h², whose sums differ in order
        torch.testing.assert_close(together[place], alone, rtol=1e-6, atol=0)


def test_a_direction_of_zero_asks_nothing_that_is_not_finite() -> None:
    x, v = points(2)
    v[0] = 0

    def fun(y: Tensor) -> Tensor:
        assert bool(y.isfinite().all())
        return decay(y)

    found = second_order(problem(fun, x, differences=True), x, v)
    assert (found[0] == 0).all()
    assert (found[1] != 0).all()


def test_differences_do_not_leave_the_box() -> None:
    x, v = points(3)
    lower, upper = x[:, :] - 1.0, x[:, :] + 1.0
    lower = lower.amin(0)
    x[1] = lower + 1e-6  # the second problem would leave
    v[2, 1] = 0.0
    x[2, 1] = lower[1]  # on the bound, along which it may move
    bounds = Bounds(lower, upper.amax(0))

    def fun(y: Tensor) -> Tensor:
        assert bool(((y >= bounds.lower) & (y <= bounds.upper)).all())
        return decay(y)

    found = second_order(problem(fun, x, differences=True, bounds=bounds), x, v)
    expected = second_order(problem(decay, x, differences=True), x, v)
    assert (found[1] == 0).all()
    assert torch.equal(found[[0, 2]], expected[[0, 2]])
    assert (found[[0, 2]] != 0).any(-1).all()


# ---- of the optimizer's residuals ----------------------------------------------------------------


def of_step(opt: Any, *terms: Any) -> tuple[Any, Tensor]:
    """The problem that a step would solve, and where."""
    with torch.no_grad():
        task = opt._task(terms_of(terms[0], terms[1:]))
        return task.problem, task.start.x


@pytest.mark.parametrize(
    "options", [{}, {"memory_limit": 60_000, "solver": "cholesky"}, {"jacobian": "autograd"}]
)
def test_with_terms_and_chunks_it_is_that_of_all_rows(options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 1)).double()
    a, b = torch.randn(60, 2, dtype=F64), torch.randn(5, 2, dtype=F64)
    opt = lmtorch.LevenbergMarquardt(model, loss="cauchy", **options)
    found, x = of_step(opt, (lambda a: model(a) - 1, a), (lambda: model(b).sinh(),))
    assert found.differences
    v = 0.1 * torch.randn_like(x)
    whole, _ = of_step(opt, lambda: (model(a) - 1, model(b).sinh()))
    with torch.no_grad():
        bend = second_order(found, x, v)
        torch.testing.assert_close(bend, second_order(whole, x, v), rtol=1e-9, atol=1e-9)  # ε/h²
        twice = second_order(replace(whole, differences=False), x, v)
    # h = 0.1, |v| near 1: h²/12 r_vvvv of a tenth of r_vv
    assert float((bend - twice).norm() / twice.norm()) < 1e-2


@pytest.mark.parametrize("sampled", [False, True])
def test_differences_draw_the_same_masks(sampled: bool) -> None:
    # for one mask residuals are linear in the weights and do not bend; for another they are others
    torch.manual_seed(6)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(70, 1)).double()
    x = torch.randn(30, 70, dtype=F64)
    opt = lmtorch.LevenbergMarquardt(model)
    closure = (lambda x: model(x) - 1, x) if sampled else (lambda: model(x) - 1,)
    made, at = of_step(opt, *closure)
    with torch.no_grad():
        bend = second_order(made, at, torch.ones_like(at))
    assert made.differences
    assert float(bend.abs().max()) < 1e-9  # ε |r| |J|/h²


# ---- when it is used -----------------------------------------------------------------------------


class Linears(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight)[:, None]


@pytest.mark.parametrize(
    ("size", "options", "on"),
    [
        (64, {}, False),
        (65, {}, True),
        (64, {"acceleration": True}, True),
        (65, {"acceleration": False}, False),
        (65, {"damping": "nielsen"}, False),
        (65, {"damping": "marquardt"}, False),
        (65, {"damping": "nielsen", "acceleration": True}, True),
        (65, {"curvature": "full", "solver": "cholesky"}, True),
        (65, {"curvature": "sampled"}, False),
        (65, {"curvature": "sampled", "acceleration": True}, True),
    ],
    ids=str,
)
def test_it_is_on_for_many_parameters_whose_damping_is_not_given_and_all_rows(
    size: int, options: dict[str, Any], on: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Linears(size)
    x = torch.randn(100, size, dtype=F64) / size
    opt = lmtorch.LevenbergMarquardt(model, **options)
    opt.step(lambda x: model(x) - 0.1, x)
    opt.explain()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("damping")]
    assert ("Geodesic(" in line) == on


def test_it_is_off_for_a_sample_of_many_rows() -> None:
    model = Linears(65)
    x = torch.randn(4000, 65, dtype=F64) / 65
    opt = lmtorch.LevenbergMarquardt(model)
    opt.step(lambda x: model(x) - 0.1, x)
    assert opt._last.plan.share is not None
    assert "Geodesic" not in repr(opt._last.plan.method.damping)


@pytest.mark.parametrize("value", ["on", "True", None, 1, 0.5, "geodesic"], ids=repr)
def test_other_values_are_refused(value: Any) -> None:
    theta = torch.ones(1, requires_grad=True)
    with pytest.raises(lmtorch.InputError, match=r"acceleration=.* must be True, False or 'auto'"):
        lmtorch.LevenbergMarquardt([theta], acceleration=value)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.Softplus], ids=lambda a: a.__name__)
@pytest.mark.parametrize(
    "options", [{}, {"loss": "huber"}, {"lower": -1.0, "upper": 1.0}, {"lr": 0.5}], ids=str
)
@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
def test_a_step_never_raises_the_loss(
    activation: Any, options: dict[str, Any], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(2, 16), activation(), nn.Linear(16, 16), activation(), nn.Linear(16, 1)
    ).to(dtype)
    x = torch.randn(200, 2, dtype=dtype)
    y = torch.sin(2 * x[:, :1]) * x[:, 1:]
    opt = lmtorch.LevenbergMarquardt(model, **options)
    losses = []
    for _ in range(25):
        losses.append(float(opt.step(lambda x, y: model(x) - y, x, y)))
        assert opt.report.loss_after <= opt.report.loss
    assert "Geodesic" in repr(opt._last.plan.method.damping)
    assert losses[-1] < losses[0] / 2


def poisson(seed: int, acceleration: bool) -> float:
    """The loss after 60 steps on u″ = −(2π)² sin 2πx, u(0) = u(1) = 0."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 1)
    ).double()
    x, edge = torch.linspace(0, 1, 50, dtype=F64)[:, None], torch.tensor([[0.0], [1.0]], dtype=F64)
    force = (2 * torch.pi) ** 2 * torch.sin(2 * torch.pi * x)
    opt = lmtorch.LevenbergMarquardt(model, acceleration=acceleration)
    for _ in range(60):
        opt.step(
            (lambda x, f: lmtorch.laplacian(model, x) + f, x, force),
            (lambda e: 10 * model(e), edge),
        )
    assert opt.report is not None
    return opt.report.loss_after


@pytest.mark.slow
def test_a_differential_equation_is_solved_a_hundred_times_more_closely() -> None:
    # 700, 2000 and 300,000 times (and 170 and 240 for other seeds): the middle one,
    # for paths part by rounding
    gains = [poisson(seed, False) / poisson(seed, True) for seed in (0, 2, 3)]
    assert sorted(gains)[1] > 100


class JvpExp(torch.autograd.Function):
    """exp with a formula for forward mode, which torch runs with forward mode switched off."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Tensor:
        return ctx.saved_tensors[0] * w

    @staticmethod
    def jvp(ctx: Any, v: Tensor) -> Tensor:
        return ctx.saved_tensors[0] * v


def by_function(x: Tensor) -> Tensor:
    return (
        x[..., :1] * JvpExp.apply(-x[..., 1:2] * TIMES.to(x))
        + torch.sin(x[..., 2:] * TIMES.to(x))
        - 0.4
    )


def by_solving(x: Tensor) -> Tensor:
    """Two equations for each of the times."""
    a, b, c = (x[..., i, None] * TIMES.to(x) for i in range(3))
    matrices = torch.stack([torch.stack([2 + a, b], -1), torch.stack([c, 3 + b * a], -1)], -2)
    return torch.linalg.solve(matrices, torch.stack([1 + b, c], -1)[..., None])[..., 0, 0]


def by_norm(x: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(decay(x), (7,))


@batches
@pytest.mark.parametrize("fun", [by_function, by_solving, by_norm], ids=lambda fun: fun.__name__)
def test_differences_stand_in_where_forward_mode_twice_is_wrong(
    fun: Any, batch: tuple[int, ...]
) -> None:
    x, v = points(*batch)
    v = v / 8  # differences err by the square of the length
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            found = second_order(problem(fun, x), x, v)
        expected = exact(fun, x, v, Linear())
        assert bool(
            ((found - expected).abs() < SHARE * expected.abs().amax(-1, keepdim=True)).all()
        )


def test_whether_forward_mode_twice_is_right_is_found_out_once() -> None:
    calls = 0

    def counted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return decay(x)

    x, v = points()
    made = problem(counted, x)
    counts = []
    for _ in range(3):
        calls = 0
        second_order(made, x, v)
        counts.append(calls)
    assert counts[0] == counts[1] + 2 == counts[2] + 2  # two sums, each with a reverse pass twice
