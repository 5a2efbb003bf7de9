"""Distances to first order, from which an implicit fit begins, beside their formula by autograd."""

import numpy as np
import pytest
import torch

import lmtorch
from lmtorch.fitting.orthogonal import run, sampson


def ellipse(x, a, b, c, d):
    return ((x[0] - a) / c) ** 2 + ((x[1] - b) / d) ** 2 - 1


def line(x, a, b):  # whose slope in one parameter is one number: a column of J without a tensor
    return x[1] - b * x[0] - a


def ring(seed=0, count=12):
    angle = np.linspace(0, 5, count)
    points = np.stack([1 + 3 * np.cos(angle), 2 + 1.5 * np.sin(angle)])
    return points + 0.05 * np.random.default_rng(seed).standard_normal(points.shape)


@pytest.fixture
def seen(monkeypatch):
    """The arguments of each look for a start, and what came of it."""
    calls, plain = [], sampson.nearest

    def nearest(*arguments):
        found = plain(*arguments)
        calls.append((*arguments, found))
        return found

    monkeypatch.setattr(run, "nearest", nearest)
    return calls


def by_hand(f, points, spread, beta):
    """f / ‖Tᵀ∇f‖, with ‖Tᵀ∇f‖² raised by a millionth of its mean."""
    values = f(points, *beta)
    (slopes,) = torch.autograd.grad(values.sum(), points, create_graph=True)
    squares = (spread * slopes).square().sum(0)
    return values / (squares + 1e-6 * squares.mean()).sqrt()


@pytest.mark.parametrize(
    ("f", "p0"), [(ellipse, [0.7, 1.6, 2.5, 2.0]), (line, [0.3, 0.4])], ids=["ellipse", "line"]
)
def test_distances_have_the_derivatives_of_their_formula(f, p0, seen):
    errors = np.full((2, 12), 0.1)
    errors[1] = np.linspace(0.05, 0.2, 12)
    lmtorch.odr(f, ring(), None, p0=p0, sx=errors)
    raw, _, point, n, *_ = seen[0]
    beta = torch.tensor(p0, dtype=torch.float64)
    block = sampson.Distances(raw, point, n).at_once(None, (beta,))
    points = torch.from_numpy(ring()).requires_grad_()
    spread = torch.from_numpy(errors)
    expected = by_hand(f, points, spread, beta)
    jacobian = torch.autograd.functional.jacobian(lambda b: by_hand(f, points, spread, b), beta)
    torch.testing.assert_close(block.residual, expected.detach())
    torch.testing.assert_close(block.rows.dense(), jacobian, rtol=1e-10, atol=1e-12)


def test_a_start_is_where_the_distances_are_least(seen):
    """scipy's minimum of the same sum of squares; the start is wanted to some digits only."""
    from scipy.optimize import least_squares

    lmtorch.odr(ellipse, ring(), None, p0=[0.7, 1.6, 2.5, 2.0], sx=0.05)
    found, _ = seen[0][-1]
    points, spread = torch.from_numpy(ring()).requires_grad_(), torch.tensor(0.05)

    def fun(beta):
        return by_hand(ellipse, points, spread, torch.from_numpy(beta)).detach().numpy()

    best = least_squares(fun, [1.0, 2.0, 3.0, 1.5], x_scale="jac").x
    np.testing.assert_allclose(found[:4], best, rtol=1e-4)


@pytest.mark.parametrize("why", ["no second derivatives", "a long way"])
def test_what_has_no_quick_way_begins_there_as_well(why, seen, monkeypatch):
    quick = lmtorch.odr(ellipse, ring(), None, p0=[0.7, 1.6, 2.5, 2.0], sx=0.05)
    if why == "a long way":
        monkeypatch.setattr(sampson, "FEW", 2)
    else:
        monkeypatch.setattr(sampson.Distances, "_made", lambda self, beta: None)
    other = lmtorch.odr(ellipse, ring(1), None, p0=[0.7, 1.6, 2.5, 2.0], sx=0.05)
    assert other.success
    monkeypatch.undo()
    again = lmtorch.odr(ellipse, ring(1), None, p0=list(quick.popt), sx=0.05)
    np.testing.assert_allclose(other.popt, again.popt, rtol=1e-7)
    assert int(seen[1][-1][1]) > 3
