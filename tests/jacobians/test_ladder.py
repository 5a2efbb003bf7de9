"""A source whose J is wrong is noticed by one plain backward pass, however smooth the error is."""

import pytest
import torch
from torch import nn

import lmtorch
from lmtorch import FallbackWarning, LevenbergMarquardt
from lmtorch._threads import quiet
from lmtorch.jacobians.base import disagrees
from lmtorch.rows.matrix import DenseRows

F64 = torch.float64


def scaled(t):
    """Residuals over their size, which the user holds constant and forward mode does not."""

    def f(p):
        u = p[0] * torch.exp(-p[1] * t) + p[2]
        with torch.no_grad():
            size = u.abs().mean()
        return u / size - torch.exp(-2 * t)

    return f


@pytest.mark.parametrize("m", [10, 100, 300, 1000, 4000])
def test_a_scale_that_is_held_constant_is_held_constant_in_j(m):
    f = scaled(torch.linspace(0, 2, m, dtype=F64))
    x = torch.tensor([1.0, 1.0, 0.3], dtype=F64)
    with pytest.warns(FallbackWarning, match="disagrees with a plain backward pass"):
        found = lmtorch.least_squares(f, x, max_nfev=1).jac
    p = x.clone().requires_grad_()
    r = f(p)
    chosen = range(0, m, max(1, m // 20))
    exact = torch.stack([torch.autograd.grad(r[i], p, retain_graph=True)[0] for i in chosen])
    torch.testing.assert_close(found[list(chosen)], exact)


def cole(t, p):
    """An arc of an impedance, whose exponent is real and whose base complex."""
    z = p[0] + p[1] / (1 + (1j * t * p[2]) ** p[3])
    return torch.cat([z.real, z.imag])


def test_a_wrong_formula_is_noticed_wherever_a_fit_starts():
    # Forward mode of torch 2.13 has the derivative in such an exponent wrong by a half of its norm
    # and more. One sum of all rows said nothing of that in one of these thirty.
    t = 2 * torch.pi * torch.logspace(0, 4, 30, dtype=F64)
    drawn = torch.Generator().manual_seed(0)
    for _ in range(30):
        factors = 2 ** (2 * torch.rand(4, generator=drawn, dtype=F64) - 1)
        x = torch.tensor([10, 100, 1e-3, 0.8], dtype=F64) * factors
        with quiet(FallbackWarning):
            found = lmtorch.least_squares(lambda p: cole(t, p), x, "forward", max_nfev=1).jac
        exact = torch.autograd.functional.jacobian(lambda p: cole(t, p), x)
        torch.testing.assert_close(found, exact)


def test_a_problem_of_a_batch_that_is_no_number_hides_no_wrong_formula():
    t = torch.linspace(0, 2, 100, dtype=F64)

    def f(p):
        with torch.no_grad():
            size = torch.exp(-p[1] * t).mean()
        return torch.sqrt(p[0]) * torch.exp(-p[1] * t) / size - 1

    x = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=F64)
    with pytest.warns(FallbackWarning, match="disagrees with a plain backward pass"):
        lmtorch.least_squares(f, x, in_dims=0, max_nfev=1)


@pytest.mark.parametrize("m", [300, 3000])
def test_the_same_in_the_optimizer(m):
    f = scaled(torch.linspace(0, 2, m, dtype=F64))
    p = nn.Parameter(torch.tensor([1.0, 1.0, 0.3], dtype=F64))
    with pytest.warns(FallbackWarning, match="disagrees with a plain backward pass"):
        LevenbergMarquardt([p]).step(lambda: f(p))


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
@pytest.mark.parametrize(
    "error", ["smooth", "constant", "one row", "a column of zeros", "a small column"]
)
def test_what_is_wrong_by_more_than_a_share_disagrees(error, scale):
    m = 2000
    t = torch.linspace(0, 1, m, dtype=F64)
    exact = torch.stack([(-t).exp(), 1 - t.square(), torch.ones_like(t)], 1) * torch.tensor(
        [1.0, 1e-6, 1.0], dtype=F64
    )
    wrong = exact.clone()
    if error == "smooth":
        wrong[:, 0] *= 1 + 0.3 * t
    elif error == "constant":
        wrong[:, 2] *= 0.5
    elif error == "one row":
        wrong[7, 0] += 10
    elif error == "a column of zeros":
        wrong[:, 0] = 0
    else:
        wrong[:, 1] *= 2
    weights = 2.0 * (torch.rand(m, generator=torch.Generator().manual_seed(0)) > 0.5).to(F64) - 1
    eps = torch.finfo(F64).eps
    assert disagrees(DenseRows(scale * wrong), weights, scale * exact.T @ weights, eps)
    assert not disagrees(DenseRows(scale * exact), weights, scale * exact.T @ weights, eps)
    rounded = (scale * exact).bfloat16().to(F64)  # what half precision inside the closure costs
    assert not disagrees(DenseRows(rounded), weights, scale * exact.T @ weights, eps)


@pytest.mark.parametrize("jac", ["forward", "reverse", "autograd"])
def test_rows_that_are_remembered_are_not_those_that_a_loss_has_scaled(jac):
    t = torch.linspace(0, 2, 50, dtype=F64)
    y = 2 * torch.exp(-1.5 * t) + 0.2 + 0.01 * torch.sin(40 * t)

    def f(x):
        return x[0] * torch.exp(-x[1] * t) + x[2] - y

    x = torch.tensor([1.0, 1.0, 0.0], dtype=F64)
    found = lmtorch.least_squares(f, x, jac=jac, loss="cauchy", f_scale=0.1)
    assert found.success
    z = f(found.x) / 0.1
    slope = torch.func.jacfwd(f)(found.x).T @ (f(found.x) / (1 + z * z))
    torch.testing.assert_close(slope, torch.zeros(3, dtype=F64), atol=1e-9, rtol=0)
