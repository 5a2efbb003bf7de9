"""Many small fits at once, which take another way than one: as accurate, and as sure of it."""

import gc
from typing import Any

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch import InputError, _memory
from lmtorch._triangles import Triangle
from lmtorch.arrays import last
from lmtorch.core import ending
from lmtorch.core.certificate import certify
from lmtorch.core.glance import glance
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.state import Begun, fresh
from lmtorch.core.termination import Status
from lmtorch.damping import More, TrustRegion
from lmtorch.jacobians import Forward
from lmtorch.losses.linear import Linear
from lmtorch.minimising import minimise, run
from lmtorch.minimising.minimise import LEFT
from lmtorch.residuals.function import FunctionResidual
from lmtorch.solvers import SVD, Cholesky
from tests.jacobians.test_memory import LiveBytes
from tests.nist import PROBLEMS, log_relative_error

COPIES = 16  # of both starts
HARD = ("Misra1a", "BoxBOD", "MGH09", "MGH10", "Eckerle4", "Thurber")


def peaks(
    count: int, dtype: torch.dtype = torch.float64, m: int = 30
) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy peaks on a background, their abscissae and one poor start."""
    draw = torch.Generator().manual_seed(1)
    t = torch.linspace(0, 1, m, dtype=dtype)
    height, center, width = torch.rand(3, count, 1, generator=draw, dtype=dtype).unbind()
    y = (1 + height) * torch.exp(-(((t - 0.3 - 0.4 * center) / (0.1 + 0.1 * width)) ** 2))
    y = y + 0.02 * torch.randn(y.shape, generator=draw, dtype=dtype)
    return t, y, torch.tensor([1.0, 0.5, 0.1, 0.1], dtype=dtype)


def misfit(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """Residuals of a peak."""
    return x[0] * torch.exp(-(((t - x[1]) / x[2]) ** 2)) + x[3] - y


@pytest.mark.parametrize("name", HARD)
def test_a_batch_has_the_digits_of_one_fit(name: str) -> None:
    problem = PROBLEMS[name]
    starts = torch.tensor(problem.starts, dtype=torch.float64).repeat(COPIES, 1)
    draw = torch.Generator().manual_seed(0)
    y = problem.y * (1 + 1e-3 * torch.randn(len(starts), len(problem.y), generator=draw))
    y[:2] = problem.y

    def fun(b: Tensor, y: Tensor) -> Tensor:
        return problem.model(b, problem.x) - y

    fit = lmtorch.least_squares(fun, starts, args=(y,), in_dims=(0, 0))
    assert all(log_relative_error(x, problem.certified) >= 9 for x in fit.x[:2])
    assert bool(fit.success.all())
    # both starts of each copy have the same data only in the first; by another solver all of them
    other = lmtorch.least_squares(fun, starts, args=(y,), in_dims=(0, 0), solver="svd")
    torch.testing.assert_close(fit.x, other.x, rtol=1e-8, atol=0.0)
    assert torch.equal(fit.success, other.success)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("bounds", [(-torch.inf, torch.inf), ([0.0, 0.4, 0.0, 0.01], 1.6)])
def test_a_glance_sees_what_the_full_look_sees(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, bounds: tuple[object, object]
) -> None:
    t, y, x0 = peaks(200, dtype)
    y[3] = 0.0  # nothing to be seen: a parameter is lost
    y[4] = misfit(x0, t, torch.zeros_like(t))  # met exactly

    def fit() -> lmtorch.Solution:
        return lmtorch.least_squares(
            misfit, x0, bounds=bounds, args=(t, y), in_dims=(None, None, 0), second_opinion=False
        )

    glanced = fit()
    monkeypatch.setattr(ending, "quick", lambda method, state: False)
    looked = fit()
    assert torch.equal(glanced.success, looked.success)
    assert torch.equal(glanced.lost, looked.lost)
    assert torch.equal(glanced.status < 0, looked.status < 0)
    eps = torch.finfo(dtype).eps
    sure = glanced.success
    torch.testing.assert_close(glanced.x[sure], looked.x[sure], rtol=eps**0.75, atol=eps**0.75)
    torch.testing.assert_close(
        glanced.promise, looked.promise, rtol=0.0, atol=2 * eps, equal_nan=True
    )


@pytest.mark.parametrize(
    "options",
    [
        {"bounds": ([0.0, 0.4, 0.0, 0.01], [1.6, 9.0, 9.0, 9.0])},
        {"bounds": ([-9.0, -9.0, 0.1, -9.0], [9.0, 9.0, 0.1, 9.0])},  # a width that is known
        {"loss": "soft_l1", "f_scale": 0.05},
        {"x_scale": [1.0, 0.1, 0.1, 1.0]},
        {"acceptable": 1e9, "second_opinion": 2},
    ],
)
def test_what_one_fit_has_many_have(options: dict[str, object]) -> None:
    t, y, x0 = peaks(64)
    y[:, ::7] += 0.5
    weights = torch.rand(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype) + 0.5

    def weighted(x: Tensor, t: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return w * misfit(x, t, y)

    def fit(solver: str) -> lmtorch.Solution:
        return lmtorch.least_squares(
            weighted, x0, args=(t, y, weights), in_dims=(None, None, 0, 0), solver=solver, **options
        )

    many, one = fit("auto"), fit("svd")
    found = one.success
    assert bool(many.success[found].all())  # "auto" asks for second opinions, which find one more
    assert int(found.sum()) >= 60
    torch.testing.assert_close(many.x[found], one.x[found], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(many.fun[found], one.fun[found], rtol=0.0, atol=1e-8)
    assert torch.equal(many.active_mask[found], one.active_mask[found])


def test_many_end_when_evaluations_do() -> None:
    t, y, x0 = peaks(64)
    found = lmtorch.least_squares(misfit, x0, args=(t, y), in_dims=(None, None, 0), max_nfev=3)
    assert int(found.nfev.max()) == 3
    assert set(found.status.tolist()) == {0}


# every operator is followed
@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.float64], ids=str
)
def test_memory_grows_by_what_the_result_is(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, m = 4, 100
    _memory.keep_freed()  # once for all, 32 MiB of which no page is touched
    monkeypatch.setattr(run, "block_size", lambda *_: 50)

    def held(count: int) -> tuple[int, int, lmtorch.Solution]:
        t, y, x0 = peaks(count, dtype, m)
        gc.collect()
        with LiveBytes(t, y, x0) as live:
            found = lmtorch.least_squares(
                misfit, x0, args=(t, y), in_dims=(None, None, 0), memory_limit=2**14
            )
            gc.collect()
            return live.peak, live.live, found

    (few, little, _), (many, kept, found) = held(100), held(400)
    size = dtype.itemsize
    # x, a copy that nobody writes into, and the gradient; costs in the dtypes of x and of the loop;
    # three counts, the cosine and the promise; two short counts; what is lost, and a success
    result = 3 * n * size + (size + 8) + 5 * 8 + 2 * 4 + (n + 1)
    result += size  # the optimality
    assert (kept - little) / 300 <= result
    # the data of the last ones of each block, which wait for each other, are there once more
    waiting = m * size // LEFT
    assert (many - few) / 300 <= result + 2 * n * size + 8 + n + 20 + waiting
    # what would be larger is made when somebody asks for it
    t, y, _ = peaks(400, dtype, m)
    expected = torch.vmap(misfit, (0, None, 0))(found.x, t, y)
    assert found.fun.shape == (400, m)
    torch.testing.assert_close(found.fun, expected)


def test_a_triangle_solves_and_tells_what_is_not_positive_definite() -> None:
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(7, 5, 5, generator=draw, dtype=torch.float64)
    matrix, vector = a @ a.mT, torch.randn(7, 5, generator=draw, dtype=torch.float64)
    matrix[0] -= 2 * torch.linalg.eigvalsh(matrix[0])[1] * torch.eye(5)
    entries = [list(row.unbind(-1)) for row in matrix.unbind(-2)]
    triangle = Triangle(entries, [entries[i][i] for i in range(5)])
    found = torch.stack(triangle.solve(vector.unbind(-1)), -1)
    expected = torch.linalg.solve(matrix, vector)
    torch.testing.assert_close(found[1:], expected[1:])
    torch.testing.assert_close(
        triangle.quadratic(vector.unbind(-1))[1:], (vector * expected).sum(-1)[1:]
    )
    assert bool(found[0].isnan().any())
    assert (torch.stack(triangle.pivots).amin(0) > 0).tolist() == [False] + [True] * 6


def hills(x: Tensor) -> Tensor:
    """Residuals with a minimum at (1, 0), a saddle at (0, 0), and none to be seen far out."""
    first, second = x.unbind(-1)
    return torch.stack(
        [first**2 - 1, second / (1 + second**2), torch.full_like(first, 0.5)], dim=-1
    )


def test_a_glance_is_sure_of_a_minimum_alone() -> None:
    places = [[1.0, 0.0], [0.0, 0.0], [1.1, 0.0], [1.0, 1e9]]  # the third still promises something
    x = torch.tensor(places, dtype=torch.float64)
    begun = torch.full_like(x, 0.5)
    problem = Problem(
        FunctionResidual(hills, x), Forward(), Cholesky().form, Linear(), torch.float64
    )
    method = Method(Cholesky(), TrustRegion(), More(), polish=60, certify=True, careful=SVD())
    start, model = problem.model(begun), problem.model(x)
    state = fresh(
        last(x),
        model.cost,
        torch.full((4,), int(lmtorch.Status.COST)),
        model.column_norms,
        None,
        Begun(begun, start.cost, start.column_norms),
    )
    found = glance(problem, method, state)
    seen, sure = found.state, found.sure
    assert sure.tolist() == [True, False, False, False]
    certified = certify(problem, method, state)
    assert seen.status[0] == certified.status[0] > 0
    # the third arrives by Newton's steps, and is a success by the full look
    assert (certified.status > 0).tolist() == [True, False, True, False]


# once all fits end in their block; once all are left to be asked about together
@pytest.mark.parametrize("options", [{}, {"acceptable": 0.0, "second_opinion": True}])
def test_fits_at_the_edges_of_blocks_are_those_of_one_beside_one_of_nan(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 17 = 2 · 8 + 1: the last block has a fit alone, which has its own t, start and bounds
    monkeypatch.setattr(minimise, "AT_ONCE", 8)
    t, y, x0 = peaks(17)
    t, starts = t + 0.002 * torch.arange(17.0)[:, None], x0 + 0.001 * torch.arange(17.0)[:, None]
    highest = torch.full_like(starts, torch.inf)
    highest[::3, 0] = 1.4
    y[12, 5] = torch.nan
    lowest = torch.full_like(highest, -torch.inf)
    found = lmtorch.least_squares(
        misfit, starts, args=(t, y), in_dims=(0, 0, 0), bounds=(lowest, highest), **options
    )
    assert not found.success[12]
    assert found.status[12] == Status.NOT_FINITE.value
    if not options:  # no fit is acceptable there
        assert found.success.sum() == 16
    for place in (0, 7, 8, 11, 13, 15, 16):
        alone = lmtorch.least_squares(
            misfit, starts[place], args=(t[place], y[place]), bounds=(lowest[0], highest[place]),
            **options,
        )  # fmt: skip
        torch.testing.assert_close(found.x[place], alone.x, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(found.fun[place], alone.fun, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("compile", [False, True])
def test_memory_for_less_than_one_fit_is_refused_in_words(compile: bool) -> None:
    t, y, x0 = peaks(5)
    with pytest.raises(InputError, match=r"takes .* GiB, and .* GiB may be used"):
        lmtorch.least_squares(
            misfit, x0, args=(t, y), in_dims=(None, None, 0), memory_limit=1, compile=compile
        )
