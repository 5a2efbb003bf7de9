"""Errors under a robust loss: the sandwich in NumPy, and against the scatter of many fits."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from lmtorch import Status, curve_fit

from .setting import T, decay, design, line, noisy

RNG = np.random.default_rng


def influence(name: str, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ψ(r) and ψ′(r) of scipy's losses with C = 1, by hand."""
    z = r**2
    if name == "huber":
        return np.clip(r, -1, 1), (np.abs(r) <= 1).astype(float)
    if name == "soft_l1":
        return r / np.sqrt(1 + z), (1 + z) ** -1.5
    if name == "cauchy":
        return r / (1 + z), (1 - z) / (1 + z) ** 2
    return r / (1 + z**2), (1 - 3 * z**2) / (1 + z**2) ** 2  # arctan


def written_out(name: str, jacobian: np.ndarray, residual: np.ndarray, scale: float) -> np.ndarray:
    """A⁻¹BA⁻¹: Huber & Ronchetti (2009), §7.6, with HC4m's B, Cribari-Neto & da Silva (2011)."""
    psi, bend = influence(name, residual / scale)
    m, n = jacobian.shape
    inverse = np.linalg.inv(jacobian.T @ (bend[:, None] * jacobian))
    if not np.all(np.linalg.eigvalsh(inverse) > 0):
        bend = psi / (residual / scale)
        inverse = np.linalg.inv(jacobian.T @ (bend[:, None] * jacobian))
    own = np.maximum(bend * np.einsum("ij,jk,ik->i", jacobian, inverse, jacobian), 0)
    power = np.minimum(1, own * m / n) + np.minimum(1.5, own * m / n)
    square = (scale * psi) ** 2 / (1 - own) ** power
    return inverse @ (jacobian.T @ (square[:, None] * jacobian)) @ inverse


def with_outliers(seed: int = 0) -> np.ndarray:
    y = noisy(seed=seed)
    y[::9] += 0.7
    return y


LOSSES = pytest.mark.parametrize("name", ["huber", "soft_l1", "cauchy", "arctan"])


@LOSSES
@pytest.mark.parametrize("scale", [0.05, 0.2])
def test_the_sandwich_is_that_of_the_textbook(name: str, scale: float) -> None:
    y = with_outliers()
    fit = curve_fit(decay, T, y, [2.5, 1.3, 0.5], loss=name, f_scale=scale)
    curve = lambda p: decay(torch.as_tensor(T), *p)
    p = torch.as_tensor(fit.popt)
    jacobian, residual = torch.func.jacfwd(curve)(p).numpy(), curve(p).numpy() - y
    np.testing.assert_allclose(fit.pcov, written_out(name, jacobian, residual, scale), rtol=1e-7)


@LOSSES
def test_a_robust_fit_is_scipys(name: str) -> None:
    y = with_outliers()
    fit = curve_fit(decay, T, y, [2.5, 1.3, 0.5], loss=name, f_scale=0.1)

    def curve(p: Any) -> Any:
        return decay(torch.as_tensor(T), *torch.as_tensor(p))

    tight: dict[str, Any] = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "x_scale": "jac"}
    theirs = least_squares(
        lambda p: curve(p).numpy() - y, [2.5, 1.3, 0.5],
        jac=lambda p: torch.func.jacfwd(curve)(torch.as_tensor(p)).numpy(), loss=name, f_scale=0.1,
        **tight,
    )  # fmt: skip
    # where the cost is flat to scipy's last digit
    np.testing.assert_allclose(fit.popt, theirs.x, rtol=1e-6)


def test_where_no_residual_is_large_the_sandwich_is_that_of_squares() -> None:
    x = np.linspace(0, 3, 50)
    y = 2 * x + 1 + 1e-6 * RNG(0).standard_normal(50)
    fit = curve_fit(line, x, y, loss="huber", f_scale=1.0)
    A, r = design(x), fit.residual
    inverse = np.linalg.inv(A.T @ A)
    own = np.diag(A @ inverse @ A.T)
    power = np.minimum(1, own * 25) + np.minimum(1.5, own * 25)
    uneven = inverse @ (A.T * r**2 / (1 - own) ** power) @ A @ inverse
    np.testing.assert_allclose(fit.pcov, uneven, rtol=1e-9)


def test_an_estimated_scale_is_in_the_sandwich() -> None:
    y = with_outliers()
    fit = curve_fit(decay, T, y, [2.5, 1.3, 0.5], loss="cauchy", f_scale="mad")
    given = curve_fit(
        decay, T, y, [2.5, 1.3, 0.5], loss="cauchy", f_scale=float(fit.solution.f_scale)
    )
    # the scale moves with the fit to that
    np.testing.assert_allclose(fit.pcov, given.pcov, rtol=1e-5)


def test_a_bound_leaves_the_sandwich_of_the_others() -> None:
    y = with_outliers()
    fit = curve_fit(
        decay, T, y, [2.5, 1.3, 0.7], loss="soft_l1", f_scale=0.1, bounds={"c": (0.65, 2.0)}
    )
    held = curve_fit(decay, T, y, [2.5, 1.3, 0.65], loss="soft_l1", f_scale=0.1, fixed=["c"])
    assert np.isnan(fit.stderr[2])
    np.testing.assert_allclose(fit.stderr[:2], held.stderr[:2], rtol=1e-7)


def contaminated(count: int, m: int) -> np.ndarray:
    """A tenth of the errors is ten times as large."""
    rng = RNG(20)
    return rng.standard_normal((count, m)) * np.where(rng.random((count, m)) < 0.1, 10.0, 1.0)


@pytest.mark.parametrize("name", ["huber", "soft_l1", "cauchy"])
def test_the_errors_are_as_wide_as_the_scatter_of_many_fits(name: str) -> None:
    count, m = 2000, 80
    x = np.linspace(-1, 1, m)
    fits = curve_fit(line, x, 2 * x + 1 + contaminated(count, m), loss=name, f_scale=1.5)
    assert (fits.status >= Status.STALLED).all()  # at a minimum, to the tolerances or to round-off
    ratio = fits.popt.std(0) / np.sqrt((fits.stderr**2).mean(0))
    # a deviation of N numbers is known to 1/√(2N); the sandwich of m points is biased by some 1/m
    np.testing.assert_allclose(ratio, 1, atol=4 / np.sqrt(2 * count) + 1 / m)


@pytest.mark.parametrize("name", ["huber", "soft_l1", "cauchy"])
@pytest.mark.parametrize("tails", [0.0, 0.1])
def test_what_few_points_determine_has_an_honest_error(name: str, tails: float) -> None:
    """The height of a decay lies within two errors as often as it should: it did in 84 to 88 %."""
    count, rng = 1000, RNG(5)
    truth, x = np.array([3.0, 1.1, 0.5]), np.linspace(0, 4, 30)
    noise = 0.05 * rng.standard_normal((count, 30))
    wrong = rng.random((count, 30)) < tails
    noise[wrong] += 0.8 * rng.standard_normal(wrong.sum())
    y = truth[0] * np.exp(-truth[1] * x) + truth[2] + noise
    fits = curve_fit(decay, x, y, [2.5, 1.0, 0.4], loss=name, f_scale=0.05)
    inside = (np.abs(fits.popt - truth) < 1.96 * fits.stderr).mean(0)
    # of a thousand fits a share of 0.95 is known to 0.007; 30 points are few, more so beside tails
    assert (inside > 0.915).all()
    assert (inside < 0.98).all()


def test_outliers_that_reject_themselves_widen_nothing() -> None:
    x = np.linspace(0, 1, 60)
    y = 2 * x + 1 + 0.1 * RNG(1).standard_normal(60)
    y[::10] += 1e4
    kept = np.arange(60) % 10 != 0
    rejected = curve_fit(line, x, y, [2, 1], loss="tukey", f_scale=1.0)
    dropped = curve_fit(line, x[kept], y[kept], [2, 1], loss="tukey", f_scale=1.0)
    np.testing.assert_allclose(rejected.popt, dropped.popt, rtol=1e-9)
    # the mean share of a point in its curve, n/m, is of all or of those that count
    np.testing.assert_allclose(rejected.pcov, dropped.pcov, rtol=0.02)


def test_masked_points_are_not_counted_by_the_sandwich() -> None:
    y, kept = with_outliers(), np.arange(40) % 4 != 0
    options: dict[str, Any] = {"loss": "huber", "f_scale": 0.1}
    masked = curve_fit(decay, T, y, [2.5, 1.3, 0.5], mask=kept, **options)
    shorter = curve_fit(decay, T[kept], y[kept], [2.5, 1.3, 0.5], **options)
    np.testing.assert_allclose(masked.pcov, shorter.pcov, rtol=1e-7)


def test_a_batch_of_robust_fits_has_the_sandwich_of_each() -> None:
    y = np.stack([with_outliers(seed) for seed in range(3)])
    options: dict[str, Any] = {"loss": "cauchy", "f_scale": 0.1}
    fits = curve_fit(decay, T, y, [2.5, 1.3, 0.5], **options)
    for i in range(3):
        one = curve_fit(decay, T, y[i], [2.5, 1.3, 0.5], **options)
        np.testing.assert_allclose(fits.pcov[i], one.pcov, rtol=1e-8)


def test_the_scatter_of_a_robust_prediction_ignores_outliers() -> None:
    x = np.linspace(0, 1, 400)
    y = 2 * x + 1 + 0.1 * RNG(2).standard_normal(400)
    y[::20] += 50
    fit = curve_fit(line, x, y, loss="cauchy", f_scale=0.1)
    band = fit.prediction_band(x, level=0.95)
    inside = ((y > band.lower) & (y < band.upper)).mean()
    # one in 20 is an outlier
    assert inside == pytest.approx(0.95 * 0.95, abs=4 * np.sqrt(0.95 * 0.05 / 400))
    assert band.upper.max() < 4


def test_masked_points_are_not_counted_by_the_scatter_of_a_prediction() -> None:
    y, kept = with_outliers(), np.arange(40) % 4 == 0
    options: dict[str, Any] = {"loss": "huber", "f_scale": 0.1}
    masked = curve_fit(decay, T, y, [2.5, 1.3, 0.5], mask=kept, **options).prediction_band(T)
    shorter = curve_fit(decay, T[kept], y[kept], [2.5, 1.3, 0.5], **options).prediction_band(T)
    np.testing.assert_allclose(masked.upper, shorter.upper, rtol=1e-7)


def test_points_that_are_left_out_have_no_say_in_the_scale() -> None:
    rng = np.random.default_rng(0)
    t = np.linspace(0, 4, 60)
    y = 2.5 * np.exp(-1.3 * t) + 0.05 * rng.standard_normal(60)
    y[::10] += 2
    kept = rng.random(60) < 0.5
    f = lambda t, a, k: a * torch.exp(-k * t)
    whole = curve_fit(f, t, y, mask=kept, loss="huber", f_scale="mad")
    short = curve_fit(f, t[kept], y[kept], loss="huber", f_scale="mad")
    # to which it is estimated
    np.testing.assert_allclose(whole.solution.f_scale, short.solution.f_scale, rtol=1e-5)
    np.testing.assert_allclose(whole.popt, short.popt, rtol=1e-5)
