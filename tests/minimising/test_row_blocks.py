"""Many residuals of few parameters are taken in blocks of rows, where rows follow the data."""

import weakref
from typing import Any

import pytest
import torch

import lmtorch
from lmtorch import choose, least_squares
from lmtorch.core.problem import Problem
from lmtorch.jacobians import dual_numbers
from lmtorch.minimising import row_blocks, run
from tests.jacobians.test_memory import LiveBytes

F64 = torch.float64
T = torch.linspace(0, 2, 50, dtype=F64)
Y = 2 * torch.exp(-1.5 * T) + 0.2 + 0.01 * torch.sin(40 * T)
X = torch.tensor([1.0, 1.0, 0.0], dtype=F64)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many blocks were made in each fit, where even small problems count as tall."""
    counts: list[int] = []

    def spied(*args: Any) -> Any:
        found = row_blocks.row_blocks(*args)
        counts.append(len(found))
        return found

    monkeypatch.setattr(choose, "DENSE", 10)
    monkeypatch.setattr(row_blocks, "ROWS", 16)
    monkeypatch.setattr(run, "row_blocks", spied)
    return counts


def decay(x, t, y):
    return x[0] * torch.exp(-x[1] * t) + x[2] - y


@pytest.mark.parametrize(
    "options", [{}, {"solver": "cholesky"}, {"loss": "cauchy", "f_scale": 0.1}]
)
@pytest.mark.parametrize(
    "bounds", [None, (torch.zeros(3, dtype=F64), torch.full((3,), 1.7, dtype=F64))]
)
def test_blocks_have_the_solution_of_all_rows(made, options, bounds) -> None:
    options = options if bounds is None else {**options, "bounds": bounds}
    found = least_squares(decay, X, args=(T, Y), **options)
    plain = least_squares(lambda x: decay(x, T, Y), X, **options)
    assert made == [4, 0]
    # the other source of derivatives may need a step more along a bound, where convergence is slow
    torch.testing.assert_close(found.x, plain.x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.fun, plain.fun, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.cost, plain.cost, rtol=1e-6, atol=0)
    assert found.status == plain.status


def test_keywords_and_rows_in_the_last_dimension_are_data_as_well(made) -> None:
    def f(x, *, both):
        return decay(x, both[0], both[1])

    found = least_squares(f, X, kwargs={"both": torch.stack([T, Y])})
    assert made == [4]
    torch.testing.assert_close(found.x, least_squares(decay, X, args=(T, Y)).x)


def test_curve_fit_has_blocks_with_weights(made) -> None:
    def f(x, a, b, c):
        return a * torch.exp(-b * x) + c

    fit = lmtorch.curve_fit(f, T, Y, X, sigma=0.01 + 0.01 * T)
    plain = lmtorch.curve_fit(f, T, Y, X, sigma=0.01 + 0.01 * T, jac="reverse")
    assert made
    assert made[0] == 4
    torch.testing.assert_close(fit.popt, plain.popt)
    torch.testing.assert_close(fit.pcov, plain.pcov)


COUPLED = {
    "a mean": lambda x, t, y: decay(x, t, y) - 0.5 * decay(x, t, y).mean(),
    "a sum that vanishes at the start": lambda x, t, y: decay(x, t, y) + x[2] * (t * x[0]).sum(),
    "differences": lambda x, t, y: torch.cat(
        [decay(x, t, y)[1:] - 0.5 * decay(x, t, y)[:-1], x[:1]]
    ),
    "another order": lambda x, t, y: decay(x, t, y).flip(0),
    "numbers drawn": lambda x, t, y: decay(x, t, y) + 1e-3 * torch.rand(len(t), dtype=F64),
    "data that are not arguments": lambda x, t, y: decay(x, T, Y),
}


@pytest.mark.parametrize("case", COUPLED)
def test_rows_that_do_not_follow_the_data_are_taken_together(made, case: str) -> None:
    least_squares(COUPLED[case], X, args=(T, Y), max_nfev=2)
    assert made == [0]


def test_a_single_block_that_numbers_its_groups_anew_is_seen(made) -> None:
    """Levels of groups that begin equal do not show that one block of many lacks a group."""
    t = torch.linspace(0, 2, 16 * 40, dtype=F64)
    group = torch.arange(len(t)) % 3
    group[16:32] = 1 + group[16:32] % 2
    levels = torch.tensor([1.0, -1.0, 3.0], dtype=F64)
    y = 2 * t + levels[group]

    def f(x, t, y, group):
        _, number = torch.unique(group, return_inverse=True)
        return x[0] * t + x[1:][number] - y

    found = least_squares(f, torch.tensor([1.0, 0, 0, 0], dtype=F64), args=(t, y, group))
    assert made == [0]
    torch.testing.assert_close(found.x, torch.tensor([2.0, 1.0, -1.0, 3.0], dtype=F64))


def test_a_tall_fit_never_holds_a_graph_or_a_jacobian_of_all_rows(monkeypatch) -> None:
    monkeypatch.setattr(choose, "DENSE", 10)
    monkeypatch.setattr(row_blocks, "ROWS", 1024)
    many, n = 30_000, 30
    t = torch.linspace(0, 3, many, dtype=F64)
    y = torch.exp(-t)

    def cosines(x, t, y):
        return sum(x[i] * torch.cos(i * t) for i in range(n)) - y

    start, options = torch.ones(n, dtype=F64), {"max_nfev": 3, "solver": "cholesky"}
    with LiveBytes(t, y) as meter:
        found = least_squares(cosines, start, args=(t, y), **options)
    # in columns: J has 30, and so has the graph
    assert meter.peak < n / 2 * 8 * many, meter.peak / (8 * many)
    assert found.jac.shape == (many, n)


def test_the_jacobian_of_a_tall_fit_is_made_when_it_is_asked_for(made) -> None:
    t, y = T.clone(), Y.clone()
    found, other = (least_squares(decay, X, args=(t, y), loss="cauchy") for _ in range(2))
    plain = least_squares(lambda x: decay(x, T, Y), X, loss="cauchy")
    torch.testing.assert_close(found.jac, plain.jac)
    t += 1
    torch.testing.assert_close(found.jac, plain.jac)
    with pytest.raises(lmtorch.InputError, match="changed in place"):
        _ = other.jac


def test_a_parameter_without_a_derivative_is_seen_in_some_of_many_points(made) -> None:
    def f(x, t, y):
        return decay(x, t, y) + torch.where(t > 1.9, float(x[3]), 0.0)

    with pytest.raises(lmtorch.InputError, match=r"x0\[3\].* no derivative"):
        least_squares(f, torch.cat([X, X[:1]]), "auto", args=(T, Y))


def test_no_point_is_linearized_twice_though_an_end_is_looked_at_twice(
    made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    points: list[tuple[float, ...]] = []
    model = Problem.model

    def spied(problem: Problem, x: torch.Tensor) -> Any:
        points.append(tuple(x.tolist()))
        return model(problem, x)

    monkeypatch.setattr(Problem, "model", spied)
    found = least_squares(decay, X, args=(T, Y), solver="cholesky")
    assert made == [4]
    assert found.success
    assert len(points) > 3
    assert len(set(points)) == len(points)


def test_the_rows_of_a_block_are_gone_when_the_next_ones_are_made(
    made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    derivatives, before = dual_numbers.derivatives, list[Any]()
    alive = list[bool]()

    def spied(*args: Any) -> Any:
        alive.extend(column() is not None for column in before)
        values, columns = derivatives(*args)
        before[:] = [weakref.ref(column) for column in columns]
        return values, columns

    monkeypatch.setattr(dual_numbers, "derivatives", spied)
    least_squares(decay, X, args=(T, Y), solver="cholesky")
    assert made == [4]
    # but for the first block of all, which waits for its comparison with a backward pass
    assert len(alive) > 30
    assert not any(alive[3:])


@pytest.mark.parametrize("start", [[1.0, 1.0, 0.0], [30.0, 25.0, -4.0]])
def test_a_trial_is_kept_with_the_linear_model_that_was_made_with_it(
    made, monkeypatch, start
) -> None:
    """Rows cost little more than residuals; after a refused trial the cost is asked for alone."""
    asked = {"model": 0, "_cost": 0}
    for name in asked:
        monkeypatch.setattr(Problem, name, _counted(asked, name, getattr(Problem, name)))
    x = torch.tensor(start, dtype=F64)
    found = least_squares(decay, x, args=(T, Y), solver="cholesky", max_nfev=40)
    counted = dict(asked)
    plain = least_squares(lambda x: decay(x, T, Y), x, solver="cholesky", max_nfev=40)
    assert made[0] == 4
    refused = found.nfev - found.njev
    assert counted["_cost"] <= 1 + refused
    assert counted["model"] <= found.nfev + 1
    assert 0 < refused < found.njev
    assert (found.nfev, found.njev, found.status) == (plain.nfev, plain.njev, plain.status)
    torch.testing.assert_close(found.x, plain.x, rtol=1e-7, atol=1e-9)


def _counted(asked, name, method):
    def counting(self, x):
        asked[name] += 1
        return method(self, x)

    return counting
