"""What a preconditioner is for: fewer iterations where it fits, the same step everywhere."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmtorch
from lmtorch import InputError
from lmtorch.arrays import inner
from lmtorch.jacobians.base import Workspace
from lmtorch.jacobians.layerwise import LayerWise
from lmtorch.linearizations.base import Prior
from lmtorch.linearizations.products import ByProducts, ProductsForm
from lmtorch.residuals.base import Part
from lmtorch.rows.layers import LayerRows
from lmtorch.rows.matrix import DenseRows
from lmtorch.rows.products import ProductRows
from lmtorch.solvers.cholesky import Cholesky
from lmtorch.solvers.conjugate_gradients import ConjugateGradients
from lmtorch.solvers.preconditioners import (
    Jacobi,
    KroneckerFactors,
    Nystrom,
    Preconditioner,
    Scales,
)
from lmtorch.solvers.row_sample import RowSample, worth

from ..contracts.cases import MatrixMap

F64 = torch.float64
LAMBDA = torch.tensor(1e-4, dtype=F64)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


class CountedMap(MatrixMap):
    """A matrix that counts its products."""

    made = 0

    def around(self, v: Tensor, weigh: Any) -> Tensor:
        self.made += 1
        return super().around(v, weigh)


def model_of(rows: Any, residual: Tensor, prior: Prior | None = None) -> ByProducts:
    accumulator = ProductsForm().accumulator((rows.shape[-1],), len(residual), residual[:0])
    accumulator.add(residual, rows)
    found = accumulator.finish(residual.square().sum() / 2, prior)
    assert isinstance(found, ByProducts)
    return found


def iterations(J: Tensor, preconditioner: Preconditioner) -> int:
    """Products that a step to nine digits takes, which is that of a direct solution."""
    matrix, residual = CountedMap(J), drawn(len(J), seed=1)
    model = model_of(ProductRows(matrix), residual)
    ones = torch.ones(J.shape[1], dtype=F64)
    factor = ConjugateGradients(1e-10, 4000, preconditioner).factor(model, ones)
    step = factor.step(LAMBDA)
    expected = torch.linalg.solve(J.mT @ J + LAMBDA * torch.eye(len(ones)), -J.mT @ residual)
    assert (step - expected).norm() < 1e-5 * expected.norm()
    return matrix.made


def falling_spectrum() -> Tensor:
    """A few directions that rule all others."""
    left, right = torch.linalg.qr(drawn(300, 200)).Q, torch.linalg.qr(drawn(200, 200, seed=2)).Q
    return left * torch.cat([torch.logspace(4, 0, 60), 0.05 * torch.ones(140)]).to(F64) @ right


def unlike_columns() -> Tensor:
    """Parameters in units of which one is a million times the other."""
    return drawn(300, 40) * torch.logspace(-3, 3, 40, dtype=F64)


def test_jacobi_pays_for_parameters_of_unlike_influence() -> None:
    assert 3 * iterations(unlike_columns(), Jacobi()) < iterations(unlike_columns(), Scales())


def test_nystrom_pays_for_a_spectrum_that_falls() -> None:
    # its own products are counted
    assert 2 * iterations(falling_spectrum(), Nystrom(70)) < iterations(
        falling_spectrum(), Scales()
    )


def layers_of(widths: tuple[int, ...], samples: int) -> tuple[Tensor, LayerRows]:
    """Residuals of a network, and their rows by the factors of its layers."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for p, q in pairwise(widths):
        layers += [nn.Linear(p, q), nn.Tanh()]
    net = nn.Sequential(*layers[:-1]).to(F64)
    inputs = drawn(samples, widths[0]) * torch.logspace(-2, 1, widths[0], dtype=F64)
    names = [name for name, _ in net.named_parameters()]

    def function(params: tuple[Tensor, ...]) -> Tensor:
        found = torch.func.functional_call(net, dict(zip(names, params, strict=True)), (inputs,))
        return found.reshape(-1)

    part = Part(function, lambda other, params: other(params), leading=samples)
    params = tuple(p.detach() for p in net.parameters())
    (block,) = LayerWise().blocks(part, params, Workspace(inputs.new_empty, (LayerRows,)))
    assert isinstance(block.rows, LayerRows)
    return block.residual, block.rows


@pytest.mark.parametrize(
    "preconditioner", [None, RowSample(40), KroneckerFactors(), Nystrom(10), Jacobi()], ids=str
)
@pytest.mark.parametrize("penalized", [False, True], ids=["plain", "prior"])
@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
def test_the_step_of_a_network_is_the_direct_solution(
    preconditioner: Preconditioner | None, penalized: bool, held: bool
) -> None:
    residual, rows = layers_of((3, 6, 5, 2), 60)
    J, n = rows.dense(), rows.n
    x = drawn(n, seed=3)
    prior = Prior(0.3 + drawn(n, seed=4).abs(), x) if penalized else None
    model = model_of(rows, residual, prior)
    free = torch.arange(n) % 7 != 3 if held else torch.ones(n, dtype=torch.bool)
    scale = 1 + drawn(n, seed=5).abs()
    A = J.mT @ J + (LAMBDA * scale.square()).diag()
    if prior is not None:
        A = A + prior.root.square().diag()
    expected = torch.zeros(n, dtype=F64)
    expected[free] = torch.linalg.solve(A[free][:, free], -model.gradient[free])
    solver = ConjugateGradients(1e-12, 4000, preconditioner)
    step = solver.factor(model.freeze(free) if held else model, scale).step(LAMBDA)
    torch.testing.assert_close(step, expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()))
    assert (step[~free] == 0).all()


def gained(
    rows: Any, residual: Tensor, preconditioner: Preconditioner, limit: int, damping: Tensor
) -> float:
    """The share of the greatest decrease of the model that so many iterations find."""
    model = model_of(rows, residual)
    J, ones = rows.dense(), torch.ones(rows.shape[-1], dtype=F64)
    A, b = J.mT @ J + damping * torch.eye(len(ones)), -model.gradient
    exact = torch.linalg.solve(A, b)
    step = ConjugateGradients(1e-12, limit, preconditioner).factor(model, ones).step(damping)
    return float((inner(b, step) - step @ A @ step / 2) / (inner(b, exact) / 2))


@pytest.mark.parametrize("preconditioner", [RowSample(100), KroneckerFactors()], ids=str)
def test_what_layers_know_pays_in_a_network(preconditioner: Preconditioner) -> None:
    residual, rows = layers_of((4, 12, 10, 1), 400)
    damping = 1e-3 * rows.column_norms.square().max()
    known = gained(rows, residual, preconditioner, 3, damping)
    assert 1 - known < 0.5 * (1 - gained(rows, residual, Scales(), 3, damping))


def test_all_rows_are_the_exact_step_in_one_iteration() -> None:
    residual, rows = layers_of((3, 6, 5, 2), 20)
    for known in (rows, DenseRows(rows.dense())):
        assert gained(known, residual, RowSample(10**6), 1, LAMBDA) > 1 - 1e-6


def test_some_rows_stand_for_all_of_their_kind() -> None:
    J = drawn(1, 12).expand(200, -1).contiguous()
    model, ones = model_of(DenseRows(J), drawn(200, seed=1)), torch.ones(12, dtype=F64)
    divide = RowSample(rows=20).prepare(model, ones).at(LAMBDA)
    expected = torch.linalg.solve(J.mT @ J + LAMBDA * torch.eye(12), model.gradient)
    torch.testing.assert_close(divide(model.gradient), expected)


@pytest.mark.parametrize("decay", [None, 0.5, "unlike"], ids=["none", "one decay", "unlike decays"])
def test_all_rows_with_a_decay_are_the_inverse_at_every_damping(
    decay: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    residual, rows = layers_of((3, 6, 5, 2), 60)
    J, n = rows.dense(), rows.n
    square = None
    if decay is not None:
        square = torch.full((n,), 0.5, dtype=F64)
    if decay == "unlike":
        square = 0.2 + drawn(n, seed=4).abs()
    prior = None if square is None else Prior(square.sqrt(), torch.zeros(n, dtype=F64))
    made, gram = [], LayerRows.gram
    monkeypatch.setattr(LayerRows, "gram", lambda *given: made.append(1) or gram(*given))
    ones = torch.ones(n, dtype=F64)
    prepared = RowSample(10**6).prepare(model_of(rows, residual, prior), ones)
    w = drawn(n, seed=6)
    for damping in (1e-2, 1.0, 30.0):
        matrix = J.mT @ J + damping * torch.eye(n, dtype=F64)
        divided = prepared.at(torch.tensor(damping, dtype=F64))(w)
        if square is not None:
            matrix = matrix + square.diag()
        if decay != "unlike":  # of a layer all parameters are taken to have the same there
            torch.testing.assert_close(divided, torch.linalg.solve(matrix, w), rtol=1e-8, atol=1e-8)
        else:
            assert 0 < float(inner(w, divided)) < 2 * float(inner(w, torch.linalg.solve(matrix, w)))
    # JJᵀ is a tenth of a step: it is made once, whatever λ and one weight decay are
    assert len(made) == (4 if decay == "unlike" else 1)


def test_rows_that_are_taken_cost_as_much_as_was_said() -> None:
    for m, n in ((1000, 1000), (10**5, 10**4), (10**4, 10**6)):
        s = worth(2, m, n)
        assert s == m or s**3 / 3 + 4 * s**2 * n**0.5 <= 8 * m * n
        assert worth(12, m, n) >= s


@pytest.mark.parametrize("preconditioner", [RowSample(), KroneckerFactors()], ids=str)
def test_what_needs_factors_says_so(preconditioner: Preconditioner) -> None:
    t = torch.linspace(0, 1, 30, dtype=F64)
    x = torch.ones(70, dtype=F64)
    with pytest.raises(InputError, match=r"linear layers on samples"):
        lmtorch.least_squares(
            lambda x: torch.cat([x[:1] * t - 1, x]),
            x,
            solver=ConjugateGradients(preconditioner=preconditioner),
        )


@pytest.mark.parametrize("preconditioner", [None, KroneckerFactors(), Nystrom(), Jacobi()], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"loss": "huber"}, {"weight_decay": 0.1}, {"lower": -0.72, "upper": 0.71}],
    ids=str,
)
def test_a_step_of_the_optimizer_is_that_of_the_matrix(
    preconditioner: Preconditioner | None, options: dict[str, Any]
) -> None:
    found = []
    for solver in (ConjugateGradients(1e-13, 4000, preconditioner), Cholesky()):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))
        net = net.to(F64)
        opt = lmtorch.LevenbergMarquardt(
            net, solver=solver, damping="nielsen", scaling="marquardt", curvature="full",
            acceleration=False, **options,
        )  # fmt: skip
        opt.step(lambda x, y, net=net: net(x) - y, drawn(60, 2), drawn(60, 2, seed=1))
        assert opt.report is not None
        if isinstance(solver, ConjugateGradients):
            assert "LayerWise" in opt.report.jacobian  # the column norms are exact
        found.append(torch.cat([p.detach().reshape(-1) for p in net.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("wrong", ["jacobi", 3, Jacobi])
def test_what_is_no_preconditioner_is_refused_by_name(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"preconditioner=.*Nystrom"):
        ConjugateGradients(preconditioner=wrong)
