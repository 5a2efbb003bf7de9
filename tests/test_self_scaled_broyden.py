"""The quasi-Newton method that the physics benchmark compares with is what it says."""

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der

from benchmarks.self_scaled_broyden import SelfScaledBroyden, updated


@pytest.mark.parametrize("length", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_matrix_keeps_the_secant_equation_and_stays_positive(length: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    hessian = np.diag(np.logspace(-2, 3, 12))
    root = generator.normal(size=(12, 12))
    inverse = root @ root.T + np.eye(12)
    s = length * generator.normal(size=12)
    y = hessian @ s
    found = updated(inverse, s, y, float(s @ np.linalg.solve(inverse, s)))
    np.testing.assert_allclose(found @ y, s, rtol=1e-8, atol=1e-10 * length)
    np.testing.assert_allclose(found, found.T, rtol=1e-8)
    assert np.linalg.eigvalsh(found).min() > 0


def test_it_comes_to_the_end_of_a_bent_valley() -> None:
    method, x = SelfScaledBroyden(6), np.full(6, -0.5)
    for _ in range(12):  # the matrix is kept from one call to the next
        x = method.iterate(x, rosen, rosen_der, count=10)
    assert rosen(x) < 1e-16
