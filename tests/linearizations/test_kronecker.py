"""JᵀJ of outer products: the same as that of the rows written out."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import lmtorch
from lmtorch.core.sums import total
from lmtorch.jacobians.layerwise import LayerWise
from lmtorch.linearizations import kronecker
from lmtorch.linearizations.kronecker import KroneckerSum, worth_it
from lmtorch.linearizations.normal import NormalForm
from lmtorch.rows.matrix import DenseRows
from lmtorch.rows.outer import Outer, OuterRows
from lmtorch.training.terms import terms_of


def written_out(outer: Outer) -> Tensor:
    """Rows (s·k, p·q)."""
    return (outer.left[..., :, None] * outer.right[:, None, None, :]).flatten(2).flatten(0, 1)


def block(p: int, q: int, k: int, samples: int, seed: int = 0, start: int = 0) -> Outer:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(samples, k, p, dtype=torch.float64, generator=generator)
    return Outer(start, left, torch.randn(samples, q, dtype=torch.float64, generator=generator))


@given(
    p=st.integers(1, 30),
    q=st.integers(1, 30),
    k=st.integers(1, 3),
    samples=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_the_sum_is_the_product_of_the_rows(
    p: int, q: int, k: int, samples: int, seed: int
) -> None:
    outer = block(p, q, k, samples, seed)
    rows = written_out(outer)
    total = KroneckerSum(p, q, rows)
    for part in (slice(0, samples // 2), slice(samples // 2, samples)):  # the first may be empty
        total.add(outer._replace(left=outer.left[part], right=outer.right[part]))
    torch.testing.assert_close(total.whole(), rows.mT @ rows, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("p", "q", "k", "expected"), [(20, 20, 1, True), (32, 32, 1, True), (1, 20, 1, False)]
)
def test_it_serves_where_it_takes_fewer_products(p: int, q: int, k: int, expected: bool) -> None:
    assert worth_it(p, q, k) is expected
    if expected:
        assert kronecker.pairs(p) * kronecker.pairs(q) < k * (p * q) * (p * q + 1) / 2


def test_more_residuals_of_a_sample_cost_no_more_products() -> None:
    assert not worth_it(10, 12, 1)
    assert worth_it(12, 12, 10)


@pytest.mark.parametrize("k", [1, 3])
def test_the_normal_equations_are_the_same_with_and_without_what_is_known(k: int) -> None:
    first, second = block(12, 16, k, 40, start=5), block(20, 8, k, 40, seed=1, start=200)
    n = 5 + 12 * 16 + 3 + 20 * 8
    rows = torch.randn(40 * k, n, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for outer in (first, second):
        columns = written_out(outer)
        rows[:, outer.start : outer.start + columns.shape[1]] = columns
    residual = rows[:, 0] + 1
    sums = []
    for known in ((), (first, second)):
        accumulator = NormalForm().accumulator((n,), 40 * k, rows)
        written = accumulator.workspace(40 * k).copy_(rows)
        accumulator.add(residual, OuterRows(written, known) if known else DenseRows(written))
        assert bool(accumulator.kronecker) == bool(known)
        sums.append(accumulator.finish(residual.square().sum() / 2, None))
    for plain, structured in zip(*(made[:3] for made in sums), strict=True):
        torch.testing.assert_close(structured, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        plain, structured.mT if structured.ndim == 2 else structured, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("k", [1, 3])
def test_sums_over_some_rows_add_up_to_those_of_all(k: int) -> None:
    n, generator = 3 + 12 * 16, torch.Generator().manual_seed(3)
    known = block(12, 16, k, 40, start=3)
    rows = torch.randn(40 * k, n, dtype=torch.float64, generator=generator)
    rows[:, 3:] = written_out(known)
    residual = torch.randn(40 * k, dtype=torch.float64, generator=generator)
    cost = residual.square().sum() / 2

    def summed(samples: slice) -> Any:
        accumulator = NormalForm().accumulator((n,), 40 * k, rows)
        some = slice(samples.start * k, samples.stop * k)
        outer = known._replace(left=known.left[samples], right=known.right[samples])
        accumulator.add(residual[some], OuterRows(rows[some], (outer,)))
        return accumulator

    whole, first, second = summed(slice(0, 40)), summed(slice(0, 15)), summed(slice(15, 40))
    first.sums = total([first.sums, second.sums])
    for mine, theirs in zip(first.finish(cost, None), whole.finish(cost, None), strict=True):
        if mine is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", ["linear", "soft_l1"])
@pytest.mark.parametrize("outputs", [1, 4])
def test_a_network_takes_the_step_that_its_whole_jacobian_gives(loss: str, outputs: int) -> None:
    ends = []
    for solver in ("cholesky", "qr"):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(3, 14), nn.Tanh(), nn.Linear(14, 12), nn.Tanh(), nn.Linear(12, outputs)
        ).double()
        x, y = (
            torch.randn(400, 3, dtype=torch.float64),
            torch.randn(400, outputs, dtype=torch.float64),
        )
        opt = lmtorch.LevenbergMarquardt(
            net,
            solver=solver,
            damping="nielsen",
            scaling="levenberg",
            curvature="full",
            loss=loss,
            loss_scale=0.5,
        )
        for _ in range(3):
            opt.step(lambda x, y, net=net: net(x) - y, x, y)
        ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("points", ["twice in the network", "two points", "many points"])
def test_a_weight_that_is_used_twice_is_no_kronecker_product(points: str) -> None:
    # the sum over its uses is squared, and the products of one use with another are no
    # outer products of a sample
    matrices = []
    for solver in ("cholesky", "qr"):
        torch.manual_seed(0)
        shared = nn.Linear(12, 12)
        net = nn.Sequential(
            nn.Linear(3, 12), nn.Tanh(), shared, nn.Tanh(), nn.Linear(12, 8)
        ).double()
        if points == "twice in the network":
            net = nn.Sequential(*net[:4], shared, nn.Tanh(), net[4])
        x = torch.randn(50, 3, dtype=torch.float64)
        assert worth_it(12, 12, 8)

        def closure(x: Tensor, net: nn.Module = net) -> Tensor:
            if points == "two points":
                return net(x) * net(x.flip(1))
            return (
                net(x)
                if points != "many points"
                else net(x[:, None] * torch.ones(3, 1, dtype=x.dtype)).sum(1)
            )

        opt = lmtorch.LevenbergMarquardt(net, solver=solver, curvature="full")
        with torch.no_grad():
            task = opt._task(terms_of(closure, (x,)))
            assert isinstance(task.prepared.ladders[0].current, LayerWise)
            matrices.append(task.problem.model(task.start.x).normal)
    torch.testing.assert_close(*matrices, rtol=1e-10, atol=1e-10)
