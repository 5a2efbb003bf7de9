"""A function that changes from call to call is told of, one that does not is left alone."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeWarning

import lmtorch
from lmtorch import Status
from lmtorch.minimising import changing

from .setting import F64

X = torch.linspace(0, 3, 30, dtype=F64)
Y = 2 * torch.exp(-X) + 0.01 * torch.cos(40 * X)
START = torch.tensor([1.0, 0.5], dtype=F64)


def decay(p):
    return p[0] * torch.exp(-p[1] * X) - Y


def counting():
    made = []

    def function(p):
        made.append(p)
        return decay(p) + 0.01 * len(made)

    return function


def drawing(seed, size=1e-3):
    generator = torch.Generator().manual_seed(seed)
    return lambda p: decay(p) + size * torch.randn(30, dtype=F64, generator=generator)


def writing():
    y = Y.clone()

    def function(p):
        with torch.no_grad():
            y.mul_(1.01)
        return p[0] * torch.exp(-p[1] * X) - y.clone()

    return function


@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")  # of what is written to in place
@pytest.mark.parametrize("make", [counting, writing])
@pytest.mark.parametrize("arrays", [False, True], ids=["tensors", "arrays"])
def test_it_is_told(make, arrays):
    of_tensors = make()
    function = lambda p: of_tensors(torch.as_tensor(p)).numpy() if arrays else of_tensors(p)
    start = START.numpy() if arrays else START
    with pytest.warns(OptimizeWarning, match="other residuals when it was called again"):
        lmtorch.least_squares(function, start, jac="2-point" if arrays else "auto")


def test_no_success_of_what_is_drawn_at_random_goes_without_a_word():
    successes = 0
    for seed in range(8):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = lmtorch.least_squares(drawing(seed), START)
        told = any("other residuals" in str(one.message) for one in said)
        assert told or not found.success
        successes += found.success
    assert successes


@pytest.mark.filterwarnings("ignore:the curve passes the data by")
def test_a_curve_too():
    generator = np.random.default_rng(0)
    noisy = lambda x, a, k: a * np.exp(-k * x) + 1e-3 * generator.standard_normal(x.shape)
    with pytest.warns(OptimizeWarning, match="draws random numbers"):
        lmtorch.curve_fit(noisy, X.numpy(), Y.numpy(), [1.0, 0.5], jac="2-point")


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_ends_without_residuals_and_at_bounds_are_none(dtype):
    """There the cosine is as large as any, and round-off depends on how a value is computed."""
    x, start = X.to(dtype), START.to(dtype)
    exact = lambda p: p[0] * torch.exp(-p[1] * x) - 2 * torch.exp(-x)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OptimizeWarning)
        for bounds in (([0, 0], [9, 9]), ([0, 0], [1.5, 9])):
            for function in (exact, lambda p: exact(p) * 1e-200 if dtype == F64 else exact(p)):
                lmtorch.least_squares(function, start, bounds=bounds)


def test_a_look_that_fails_costs_no_fit(monkeypatch):
    def tired(*_):
        raise RuntimeError("tired")

    found = lmtorch.least_squares(decay, START, max_nfev=3)
    monkeypatch.setattr(changing, "_residual", tired)
    assert torch.equal(lmtorch.least_squares(decay, START, max_nfev=3).x, found.x)


@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
@pytest.mark.parametrize("arrays", [False, True], ids=["tensors", "arrays"])
def test_a_batch_too(arrays):
    """Every one of twenty batches of this kind had ended as a success without a word."""
    function = drawing(0)
    starts = START * torch.tensor([[1.0], [1.5], [2.0]], dtype=F64)
    given = function
    if arrays:
        starts, given = starts.numpy(), lambda p: function(torch.as_tensor(p)).numpy()
    with pytest.warns(OptimizeWarning, match="other residuals when it was called again"):
        lmtorch.least_squares(given, starts, in_dims=(0,))


def test_a_success_that_looks_strange_is_looked_at_before_a_failure():
    """Of those, the one whose gradient is farthest from zero."""
    minimum, lost, stopped = Status.MINIMUM, Status.VALLEY, Status.STOPPED

    def place(statuses, cosines):
        state = SimpleNamespace(status=torch.tensor(statuses), trials=torch.full((4,), 9))
        ending = SimpleNamespace(state=state, cosine=torch.tensor(cosines, dtype=F64))
        return changing._strangest(ending, 1e-6)

    nan = float("nan")
    assert place([minimum, minimum, minimum, lost], [1e-9, 1e-3, 1e-2, 0.5]) == 2
    assert place([minimum, lost, lost, stopped], [1e-9, 1e-3, nan, 0.9]) == 1
    assert place([minimum, minimum, minimum, stopped], [1e-9, 1e-9, 1e-9, 0.9]) is None


def test_a_failure_says_why():
    with pytest.warns(OptimizeWarning, match="other residuals when it was called again"):
        found = lmtorch.least_squares(drawing(1, 1e-2), START)
    assert not found.success


@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
@pytest.mark.parametrize("jac", [None, "2-point"])
def test_parameters_may_be_written_to(jac):
    """As in `a += 1`, which wrote into the point where the run stood."""

    def shifted(x, a, k):
        a += 1
        return a * torch.exp(-k * x)

    plain = lmtorch.curve_fit(lambda x, a, k: (a + 1) * torch.exp(-k * x), X, Y, [0.5, 0.5])
    fit = lmtorch.curve_fit(shifted, X, Y, [0.5, 0.5], jac=jac)
    torch.testing.assert_close(fit.popt, plain.popt, rtol=1e-7, atol=0)
    of_rows = lmtorch.curve_fit(shifted, X, torch.stack([Y, 2 * Y]), [0.5, 0.5], jac=jac)
    torch.testing.assert_close(of_rows.popt[0], plain.popt, rtol=1e-7, atol=0)
    solved = lmtorch.least_squares(lambda p: shifted(X, *p) - Y, START, "2-point")
    torch.testing.assert_close(solved.x, plain.popt, rtol=1e-7, atol=0)
