"""Steps by products: those of a matrix, whatever the residuals are made of, and far beyond one."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import lmtorch
from lmtorch import InputError, choose
from lmtorch.damping.nielsen import Nielsen, NielsenState
from lmtorch.jacobians.base import Workspace, as_block
from lmtorch.jacobians.products import Products
from lmtorch.linearizations.base import Linearization
from lmtorch.rows.products import ProductRows
from lmtorch.solvers.base import Solver
from lmtorch.solvers.cholesky import Cholesky
from lmtorch.solvers.conjugate_gradients import ConjugateGradients, solved
from lmtorch.solvers.dual import Dual

from ..contracts.cases import Failing, MatrixMap, samples_with_dropout
from ..contracts.setting import System

F64 = torch.float64
TIGHT = ConjugateGradients(1e-14, 2000)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Given(Nielsen):
    """Nielsen's damping from a given λ: the usual start asks for column norms."""

    def start(self, linearization: Linearization, scale: Tensor, x: Tensor) -> NielsenState:
        return NielsenState(torch.full_like(linearization.cost, 0.05), torch.tensor(2.0))


def after_a_step(solver: Solver, terms: int = 1, **options: Any) -> Tensor:
    """The 89 parameters of a small network after one step."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))
    net = net.to(F64)
    inputs, targets = drawn(60, 2), drawn(60, 2, seed=1)
    opt = lmtorch.LevenbergMarquardt(
        net, solver=solver, damping=Given(), scaling="levenberg", curvature="full", **options
    )
    if terms == 1:
        opt.step(lambda x, y: net(x) - y, inputs, targets)
    else:
        opt.step(
            (lambda x, y: net(x) - y, inputs[:40], targets[:40]),
            (lambda: net(inputs[40:]).sinh(),),
        )
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "huber", "loss_scale": 0.3},
        {"weight_decay": 0.1},
        {"lower": -0.72, "upper": 0.71},
        {"terms": 2},
        {"memory_limit": 40_000},  # parts, each evaluated anew for a product
        {"acceleration": True},
        {"lr": 0.3},
        {"jacobian": "reverse"},  # rows that are written out are kept
    ],
    ids=str,
)
def test_a_step_is_that_of_the_matrix(options: dict[str, Any]) -> None:
    limit = {} if "memory_limit" not in options else {"memory_limit": 100_000}
    matrix = after_a_step(Cholesky(), **{**options, **limit})
    products = after_a_step(TIGHT, **options)
    assert (products - after_a_step(TIGHT, **{**options, "lr": 0.0})).abs().max() > 1e-3
    torch.testing.assert_close(products, matrix, rtol=1e-7, atol=1e-9)


@given(
    m=st.integers(1, 30),
    n=st.integers(1, 30),
    decades=st.floats(0, 4),
    forcing=st.floats(1e-6, 0.5),
    limit=st.integers(1, 40),
    warm=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_a_step_that_ends_early_still_lowers_the_model(
    m: int, n: int, decades: float, forcing: float, limit: int, warm: bool, seed: int
) -> None:
    system = System((m, n), condition=10**decades, seed=seed)
    solver = ConjugateGradients(forcing, limit)
    factor = solver.factor(system.linearization(solver), system.scale)
    A, b = system.matrix(system.damping), -system.gradient
    exact = torch.linalg.solve(A, b)

    def energy(x: Tensor) -> float:
        return float(x @ A @ x / 2 - b @ x)

    if warm:  # from the step of another λ
        factor.step(2 * system.damping)
    found = energy(factor.step(system.damping))
    # at least what the best multiple of the first direction gains
    first = b / system.scale.square()
    cauchy = energy((b @ first) / (first @ A @ first) * first)
    room = 1e-9 * abs(energy(exact))
    assert energy(exact) - room <= found
    assert found <= (0.5 if warm else 1) * cauchy + room


def test_a_smaller_forcing_term_leaves_less() -> None:
    system = System((60, 40), condition=1e3)
    left = []
    for forcing in (0.1, 1e-3, 1e-6, 1e-9):
        solver = ConjugateGradients(forcing)
        step = solver.factor(system.linearization(solver), system.scale).step(system.damping)
        rest = system.matrix(system.damping) @ step + system.gradient
        left.append(float((rest / system.scale).norm() / (system.gradient / system.scale).norm()))
    assert left == sorted(left, reverse=True)
    assert left[-1] < 1e-6


def test_a_matrix_that_is_not_definite_ends_with_what_there_is() -> None:
    A = torch.diag(torch.tensor([1.0, 2.0, -1e-9, 0.0], dtype=F64))
    ones = torch.ones(4, dtype=F64)
    for rhs in (ones, ones[2:].new_tensor([0, 0, 1, 0])):
        x = solved(lambda v: v @ A, rhs, lambda w: w, torch.tensor(1e-12, dtype=F64), 50)
        assert x.isfinite().all()


def test_what_is_not_finite_gives_no_step() -> None:
    ones, tight = torch.ones(3, dtype=F64), torch.tensor(1e-12, dtype=F64)
    assert solved(lambda v: v * torch.nan, ones, lambda w: w, tight, 50).isnan().any()
    assert solved(lambda v: v, ones * torch.inf, lambda w: w, tight, 50).isnan().all()


@pytest.mark.parametrize("keep", [True, False], ids=["graphs kept", "evaluated anew"])
def test_products_draw_the_numbers_of_the_evaluation(keep: bool) -> None:
    case = samples_with_dropout(Failing())
    source, x = Products(keep), case.x
    asked = Workspace(x.new_empty, (ProductRows,))
    params = case.residual.params(x)
    with case.residual.replay():
        case.rows(x)  # the draws of a step begin with its first evaluation
    with case.residual.replay():
        J = torch.func.jacfwd(case.rows, randomness="same")(x)
    rows = []
    with case.residual.replay():
        for part in case.residual.parts():
            rows += [as_block(b) for b in source.blocks(part, params, asked)]
    v, w = drawn(len(x)), drawn(len(J), seed=1)
    for _ in range(2):
        torch.rand(3)  # whatever is drawn between
        moved = torch.cat([block.rows.times(v) for block in rows])
        shares = w.split([len(block.residual) for block in rows])
        back = sum(b.rows.transposed_times(s) for b, s in zip(rows, shares, strict=True))
        torch.testing.assert_close(moved, J @ v)
        torch.testing.assert_close(back, J.mT @ w)


def test_entries_that_are_alike_do_not_cancel_in_all_products() -> None:
    n = 3000  # of which signs alone take a dozen for columns of zeros
    J = torch.eye(n, dtype=F64) - torch.eye(n, dtype=F64).roll(1, 0)
    norms = ProductRows(MatrixMap(J)).column_norms
    assert bool((norms > 0.1 * 2**0.5).all())
    assert bool((norms < 2 * 2**0.5).all())


def test_column_norms_are_estimated_to_a_factor_and_zeros_are_zeros() -> None:
    J = drawn(50, 200) * torch.logspace(-3, 3, 200, dtype=F64)
    J[:, 7] = 0
    norms = ProductRows(MatrixMap(J)).column_norms
    assert norms[7] == 0
    ratio = (norms / J.norm(dim=0))[J.norm(dim=0) > 0]
    assert 0.2 < ratio.min() < ratio.max() < 2.5
    assert abs(float(ratio.square().mean()) - 1) < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_a_network_comes_to_the_minimum_of_the_matrix(dtype: torch.dtype) -> None:
    inputs = drawn(200, 5).to(dtype)
    targets = torch.tanh(inputs @ drawn(5, 20, seed=1).to(dtype)) + 0.1 * drawn(200, 20).to(dtype)
    found = []
    for solver in ("cg", "cholesky"):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 20), nn.Tanh()).to(dtype)
        opt = lmtorch.LevenbergMarquardt(net, solver=solver, curvature="full")
        for _ in range(60):
            opt.step(lambda x, y, net=net: net(x) - y, inputs, targets)
            if opt.status.final:
                break
        assert opt.converged
        found.append(torch.cat([p.detach().reshape(-1) for p in net.parameters()]))
    # a cost that is known to its tolerance is flat to the root of it
    room = 1e-4 if dtype == F64 else 2e-2
    torch.testing.assert_close(*found, rtol=room, atol=room)


def chain(x: Tensor) -> Tensor:
    """(10 n,) of a chain of decays, neighbours alike."""
    amplitude, rate = x.view(-1, 2).unbind(1)
    t = torch.linspace(0, 1, 19, dtype=x.dtype)
    decays = amplitude[:, None] * torch.exp(-rate[:, None] * t)
    truth = 1 + 0.5 * torch.sin(torch.arange(len(x) // 2, dtype=x.dtype))
    misfit = decays - truth[:, None] * torch.exp(-truth[:, None] * t)
    return torch.cat([misfit.reshape(-1), 0.1 * (amplitude - rate)])


def test_what_no_matrix_fits_is_solved() -> None:
    x0 = torch.ones(10_000, dtype=F64)
    assert chain(x0).shape == (100_000,)
    solution = lmtorch.least_squares(chain, x0, memory_limit=2**26, max_nfev=40)
    assert solution.success
    truth = 1 + 0.5 * torch.sin(torch.arange(5000, dtype=F64))
    expected = truth[:, None].expand(-1, 2)
    torch.testing.assert_close(solution.x.view(-1, 2), expected, rtol=1e-3, atol=0)


NETWORK = choose.Facts(10_000, 100_000, 100_000, 2000, torch.float32, torch.device("cpu"))
LAYERS = NETWORK._replace(parameters=1000, residuals=7000, layers=True)
FUNCTION = NETWORK._replace(samples=None, activations=2000 * 100_000)


def chosen(facts: choose.Facts, **options: Any) -> choose.Plan:
    return choose.plan([facts], choose.Options(**options))


def test_products_are_chosen_where_no_matrix_fits() -> None:
    assert isinstance(chosen(FUNCTION, memory_limit=2**30).method.solver, Cholesky)
    plan = chosen(FUNCTION, memory_limit=2**28)
    assert isinstance(plan.method.solver, ConjugateGradients)
    assert plan.terms[0].rungs == (Products(keep=False),)
    assert "does not fit" in choose.explanation(plan)
    asked = chosen(FUNCTION, solver="cg", memory_limit=2**40)
    assert asked.terms[0].rungs == (Products(keep=True),)
    # rows that somebody else makes are a matrix, which has to fit
    for refused in ({"jacobian": "2-point"}, {"jacobian": "reverse", "solver": "cg"}):
        with pytest.raises(InputError, match="holds no matrix"):
            chosen(FUNCTION, memory_limit=2**28, **refused)


def test_products_are_chosen_for_a_function_of_many_parameters() -> None:
    called, room = FUNCTION._replace(functional=True), {"memory_limit": 2**40}
    plan = chosen(called, **room)
    assert isinstance(plan.method.solver, ConjugateGradients)
    assert plan.method.asks
    for other in (
        chosen(called._replace(parameters=4096), **room),
        chosen(called._replace(residuals=10_000, problems=2), **room),
        chosen(called, jacobian="reverse", **room),
    ):
        assert isinstance(other.method.solver, Cholesky)
        assert not other.method.asks
    assert isinstance(chosen(called._replace(residuals=4096), **room).method.solver, Dual)


def test_products_are_chosen_for_large_networks_of_many_samples() -> None:
    room = {"memory_limit": 2**40}
    plan = chosen(NETWORK, **room)
    assert isinstance(plan.method.solver, ConjugateGradients)
    assert plan.share == pytest.approx(0.1)
    assert plan.terms[0].rungs[1:] == (Products(keep=True),)
    assert repr(plan.terms[0].rungs[0]) == "LayerWise(chunk=None)"
    for other in (
        chosen(NETWORK._replace(parameters=4096), **room),
        chosen(NETWORK, jacobian="reverse", **room),
        chosen(FUNCTION, **room),
        # the last digits, which float64 is there for, and few parameters are for exact steps
        chosen(LAYERS._replace(dtype=torch.float64), **room),
        chosen(LAYERS._replace(parameters=512, residuals=4000), **room),
    ):
        assert isinstance(other.method.solver, Cholesky)
    assert isinstance(chosen(LAYERS, **room).method.solver, ConjugateGradients)
    layers = chosen(NETWORK._replace(parameters=1000, layers=True), **room)
    assert isinstance(layers.method.solver, ConjugateGradients)
    # as many equations as there are residuals, as long as these are few
    wide = NETWORK._replace(parameters=10**6, residuals=9568, samples=9568)
    assert isinstance(chosen(wide, **room).method.solver, ConjugateGradients)
    assert chosen(wide, **room).share == pytest.approx(1000 / 9568)
    few = wide._replace(residuals=1000, samples=1000)
    assert isinstance(chosen(few, **room).method.solver, Dual)
