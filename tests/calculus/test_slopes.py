"""Derivatives of single operators against those of forty digits."""

import mpmath
import pytest
import torch

from lmtorch.calculus import slopes

POINTS = [-3.7, -0.26, -0.2499, -0.1, -1e-4, -1e-9, 0.0, 1e-12, 1e-3, 0.2, 0.249999, 0.25, 0.8, 5.3]


@pytest.mark.parametrize("point", POINTS)
def test_sinc_has_all_digits_through_zero(point: float) -> None:
    with mpmath.workdps(40):
        exact = [float(mpmath.diff(mpmath.sincpi, point, order)) for order in range(3)]
    value, slope, curvature, _ = slopes.sinc(torch.tensor(point, dtype=torch.float64))
    assert callable(curvature)
    for found, expected in zip((value, slope, curvature()), exact, strict=True):
        assert float(found) == pytest.approx(expected, rel=2e-14, abs=1e-15)
