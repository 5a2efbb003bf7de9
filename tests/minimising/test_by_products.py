"""Large problems of one function: no matrix is made, and converged is what the gradient says."""

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import torch
from torch import Tensor

from lmtorch import Status, least_squares
from lmtorch.damping import Nielsen
from lmtorch.rows.products import ProductRows

SIDE = 66  # of a grid of 4,356 unknowns
STIFF = 0.8


def data() -> Tensor:
    along = torch.linspace(0, 3, SIDE, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(SIDE, SIDE, dtype=torch.float64, generator=generator)
    return torch.sin(along)[:, None] * torch.cos(along) + 0.3 * noise


def smoothed(x: Tensor) -> Tensor:
    """The residuals of a picture that is bent and drawn towards its neighbours."""
    u = x.view(SIDE, SIDE)
    parts = (u + 0.2 * u**3 - data(), STIFF * (u[1:] - u[:-1]), STIFF * (u[:, 1:] - u[:, :-1]))
    return torch.cat([part.reshape(-1) for part in parts])


def jacobian(x: np.ndarray) -> Any:
    """The same in closed form."""
    one = scipy.sparse.eye(SIDE)
    pair = np.ones(SIDE - 1)
    steps = scipy.sparse.diags([-pair, pair], [0, 1], shape=(SIDE - 1, SIDE))
    bent = scipy.sparse.diags(1 + 0.6 * x**2)
    across, down = scipy.sparse.kron(steps, one), scipy.sparse.kron(one, steps)
    return scipy.sparse.vstack([bent, STIFF * across, STIFF * down]).tocsr()


START = np.zeros(SIDE * SIDE)


def test_a_grid_is_solved_as_by_scipys_trust_region_with_lsmr() -> None:
    other = scipy.optimize.least_squares(
        lambda x: smoothed(torch.as_tensor(x)).numpy(), START, jacobian,
        tr_solver="lsmr", ftol=1e-12, xtol=1e-12, gtol=1e-10,
    )  # fmt: skip
    solution = least_squares(smoothed, START)
    assert solution.success
    assert solution.promise < 1e-10
    np.testing.assert_allclose(solution.cost, other.cost, rtol=1e-11)
    np.testing.assert_allclose(solution.x, other.x, atol=1e-5)
    assert solution.optimality < 1e-7 * solution.cost


def test_what_was_not_looked_at_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    least_squares(smoothed, START, max_nfev=2).explain()
    told = capsys.readouterr().out
    assert "ConjugateGradients" in told
    assert "a step without damping" in told
    assert "not whether the cost curves downward" in told


@pytest.mark.parametrize("box", [False, True])
def test_steps_that_are_short_because_of_their_damping_are_no_minimum(box: bool) -> None:
    bounds: Any = (-2.0, 2.0) if box else (-np.inf, np.inf)
    early = least_squares(smoothed, START, bounds=bounds, ftol=1e-2, damping=Nielsen(1e4))
    whole = least_squares(smoothed, START, bounds=bounds)
    assert early.cost > 2 * whole.cost
    assert early.status == Status.VALLEY
    assert not early.success
    # the linear model's own minimum is not that of the cost, but of its size
    np.testing.assert_allclose(early.promise, 1 - whole.cost / early.cost, rtol=0.2)


def test_a_minimum_on_bounds_promises_nothing() -> None:
    solution = least_squares(smoothed, START, bounds=(-0.3, 0.4))
    assert solution.success
    assert solution.promise < 1e-8
    assert np.count_nonzero(solution.active_mask) > 500


def chain(x: Tensor) -> Tensor:
    return torch.cat([x**2 - torch.arange(1, len(x) + 1), 0.1 * (x[1:] - x[:-1])])


def test_lsmr_means_conjugate_gradients_for_more_than_a_few_parameters() -> None:
    start = torch.ones(600, dtype=torch.float64)
    asked = least_squares(chain, start, tr_solver="lsmr")
    by_name = least_squares(chain, start, solver="cg")
    assert torch.equal(asked.x, by_name.x)
    exact = least_squares(chain, start)
    torch.testing.assert_close(asked.x, exact.x, rtol=1e-5, atol=0)
    assert asked.success
    with pytest.warns(UserWarning, match="tr_solver is ignored"):
        given = least_squares(chain, start, tr_solver="lsmr", solver="cholesky")
    assert torch.equal(given.x, least_squares(chain, start, solver="cholesky").x)


def test_the_jacobian_is_made_where_somebody_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    start = torch.ones(600, dtype=torch.float64)
    made: list[ProductRows] = []
    whole = ProductRows.dense

    def counted(rows: ProductRows) -> Tensor:
        made.append(rows)
        return whole(rows)

    monkeypatch.setattr(ProductRows, "dense", counted)
    solution = least_squares(chain, start, solver="cg")
    assert not made
    x = solution.x
    rows = torch.func.jacrev(chain)(x)
    torch.testing.assert_close(solution.jac, rows)
    assert made
    torch.testing.assert_close(solution.grad, rows.T @ chain(x), rtol=1e-6, atol=1e-9)
