"""Half precision of both kinds is fitted, though NumPy has no bfloat16."""

import pytest
import torch

import lmtorch

X = torch.linspace(0, 1, 50, dtype=torch.float64)
Y = 2 * torch.exp(-3 * X)
COARSE = (torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", COARSE, ids=str)
@pytest.mark.parametrize("repeats", [1, 3])
def test_parameters_in_half_precision_are_fitted_to_their_digits(dtype, repeats):
    x0 = torch.tensor([1.0, 1.0], dtype=dtype)
    for _ in range(repeats):  # what is remembered of the first call serves the next
        found = lmtorch.least_squares(lambda p: p[0] * torch.exp(-p[1] * X) - Y, x0)
    assert found.success
    assert found.x.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found.x.double(), X.new_tensor([2.0, 3.0]), rtol=2 * eps, atol=0)


@pytest.mark.parametrize("dtype", COARSE, ids=str)
@pytest.mark.parametrize("count", [(), (3,), (40,)], ids=str)
@pytest.mark.filterwarnings("ignore:xdata go from")
def test_data_in_half_precision_are_fitted_alone_and_in_batches(dtype, count):
    y = Y.to(dtype).expand(*count, -1)
    fit = lmtorch.curve_fit(lambda x, a, b: a * torch.exp(-b * x), X.to(dtype), y, [1.0, 1.0])
    expected = X.new_tensor([2.0, 3.0]).expand(*count, 2)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(fit.popt.double(), expected, rtol=2 * eps, atol=0)
    assert bool(torch.isfinite(fit.stderr).all())
