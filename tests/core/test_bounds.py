"""Bounded problems, beside scipy's trust-region-reflective method."""

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

import lmtorch
from lmtorch.core.bounds import Bounds

from ..problems import CLASSICAL

INF = float("inf")
# boxes of which some are active at the minimum, some not; starts are brought inside
BOXES: list[tuple[str, tuple[float, ...], tuple[float, ...]]] = [
    ("rosenbrock", (-2.0, -2.0), (0.5, 2.0)),
    ("rosenbrock", (-INF, 1.5), (INF, INF)),
    ("rosenbrock", (-2.0, -2.0), (2.0, 2.0)),
    ("beale", (0.0, 0.0), (2.5, 10.0)),
    ("bard", (0.1, 0.5, 0.5), (5.0, 5.0, 2.0)),
    ("kowalik_osborne", (0.0, 0.0, 0.0, 0.0), (0.18, 1.0, 1.0, 1.0)),
    ("box_3d", (0.0, 5.0, 0.0), (2.0, 9.5, 20.0)),
    ("osborne_1", (0.3, 0.0, -3.0, 0.0, 0.0), (0.4, 1.9, 0.0, 0.1, 0.1)),
    ("wood", (-10.0, -10.0, -10.0, -10.0), (0.8, 10.0, 10.0, 10.0)),
]


@pytest.mark.parametrize(
    ("name", "lower", "upper"), BOXES, ids=[f"{i}-{box[0]}" for i, box in enumerate(BOXES)]
)
@pytest.mark.parametrize(
    "options", [{}, {"solver": "qr"}, {"solver": "cholesky", "damping": "nielsen"}], ids=str
)
def test_a_bounded_minimum_is_scipys(
    name: str, lower: tuple[float, ...], upper: tuple[float, ...], options: dict[str, str]
) -> None:
    problem = CLASSICAL[name]
    start = np.clip(problem.start, np.add(lower, 1e-3), np.subtract(upper, 1e-3))
    jacobian = torch.func.jacfwd(problem.residual)
    theirs = least_squares(
        lambda x: problem.residual(torch.from_numpy(x)).numpy(), start,
        jac=lambda x: jacobian(torch.from_numpy(x)).numpy(), bounds=(lower, upper),
        ftol=1e-15, xtol=1e-15, gtol=1e-15, max_nfev=5000,
    )  # fmt: skip
    x = torch.tensor(start, requires_grad=True)
    low, high = torch.tensor(lower, dtype=torch.float64), torch.tensor(upper, dtype=torch.float64)
    opt = lmtorch.LevenbergMarquardt([{"params": [x], "lower": low, "upper": high}], **options)
    for _ in range(1000):
        opt.step(lambda: problem.residual(x))
        assert ((x >= low) & (x <= high)).all()
        if opt.status.final:
            break
    cost = problem.residual(x.detach()).square().sum().item() / 2
    # scipy stays inside the box by its construction, and so a little above an active bound's
    # minimum
    assert cost <= theirs.cost * (1 + 1e-9) + 1e-18, (cost, theirs.cost, opt.status)
    assert cost >= theirs.cost * (1 - 1e-5) - 1e-15, (cost, theirs.cost)
    assert opt.status.final


def test_projection_is_the_nearest_point_and_free_are_those_that_descent_keeps_inside() -> None:
    bounds = Bounds(torch.tensor([0.0, 0.0, -INF, 0.0]), torch.tensor([1.0, 1.0, INF, 0.0]))
    x = torch.tensor([[-1.0, 2.0, 5.0, 3.0], [0.0, 0.5, -5.0, 0.0]])
    assert bounds.project(x).tolist() == [[0.0, 1.0, 5.0, 0.0], [0.0, 0.5, -5.0, 0.0]]
    inside = bounds.project(x)
    uphill = torch.tensor([1.0, -1.0, 1.0, 1.0])
    assert bounds.free(inside, uphill).tolist() == [
        [False, False, True, False],
        [False, True, True, False],
    ]
    assert bounds.free(inside, -uphill).tolist() == [
        [True, True, True, False],
        [True, True, True, False],
    ]


@pytest.mark.parametrize("solver", ["svd", "qr", "cholesky"])
def test_a_start_in_the_corner_of_the_minimum_stays_and_says_so(solver: str) -> None:
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    opt = lmtorch.LevenbergMarquardt([{"params": [x], "lower": 0.0}], solver=solver)
    opt.step(lambda: torch.stack([x[0] + 1, x[1] + 2, x[0] * x[1]]))
    assert x.tolist() == [0.0, 0.0]
    assert opt.status.final


@pytest.mark.parametrize("solver", ["svd", "qr", "cholesky"])
def test_acceleration_does_not_move_a_variable_that_is_held_at_its_bound(solver: str) -> None:
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    opt = lmtorch.LevenbergMarquardt(
        [x], lower=0.0, acceleration=True, solver=solver, damping="nielsen"
    )
    # along x₁ the first residual bends downwards: by itself that would draw x₀ inside
    opt.step(lambda: torch.stack([x[0] + 1 - 0.05 * x[1] ** 2, x[1] - 1]))
    assert x[0] == 0
    assert x[1] > 0.5
