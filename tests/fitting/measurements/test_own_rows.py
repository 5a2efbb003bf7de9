"""xdata of the shape of ydata: rows of their own, or the variables of a function of several."""

import numpy as np
import pytest
import torch

import lmtorch
from lmtorch import InputError

RNG = np.random.default_rng(0)
X = RNG.uniform(0, 2, (2, 40))
PLANES = np.array([[2.0, 3.0], [2.0, -3.0]])
Y = PLANES @ X


def plane(x, a, b):
    return a * x[0] + b * x[1]


def plane_of_arrays(x, a, b):
    return np.add(np.multiply(a, x[0]), np.multiply(b, x[1]))


@pytest.mark.parametrize("f", [plane, plane_of_arrays], ids=["tensors", "arrays"])
@pytest.mark.parametrize("p0", [None, [1.0, 1.0], np.ones((2, 2))], ids=["none", "one", "each"])
def test_a_function_of_all_rows_is_not_fitted_along_each(f, p0):
    with pytest.raises(InputError, match="each_x=False"):
        lmtorch.curve_fit(f, X, Y, p0)


def test_what_the_message_says_works():
    fits = lmtorch.curve_fit(plane, X, Y, each_x=False)
    np.testing.assert_allclose(fits.popt, PLANES)
    functions = [lambda x, a, b: a * x[0] + b * x[1], lambda x, a, b: a * x[0] - b * x[1]]
    fit = lmtorch.curve_fit(functions, [X, X], list(Y), shared=["a", "b"])
    np.testing.assert_allclose(fit.popt, [2, 3])


def unpacked(x, a, b):
    u, v = x
    return a * u + b * v


def responses(x, a, b):
    return torch.stack([a * x[0] + b * x[1], a * x[0] - b * x[1]])


@pytest.mark.parametrize("f", [unpacked, responses])
def test_an_error_of_such_a_function_says_what_it_was_given(f):
    with pytest.raises(ValueError, match=r"unpack|f returned 2 values") as caught:
        lmtorch.curve_fit(f, X, Y)
    assert any("own row of xdata" in note for note in caught.value.__notes__)


def line(x, a, b):
    return a + b * (x - x[0])


def level(x, a):
    return a


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("f", [line, level])
def test_curves_with_points_of_their_own_are_fitted_as_before(f, dtype):
    x, y = torch.tensor(X, dtype=dtype), torch.tensor(1 + 2 * (X - X[:, :1]), dtype=dtype)
    y = y if f is line else torch.full_like(x, 3.0) + 0.1 * torch.sin(40 * x)
    fits = lmtorch.curve_fit(f, x, y)
    for one, row_x, row_y in zip(fits.popt, x, y, strict=True):
        alone = lmtorch.curve_fit(f, row_x, row_y)
        torch.testing.assert_close(one, alone.popt, rtol=1e-4, atol=1e-4)
