"""The bootstrap beside closed forms, within the error of a finite number of samples."""

from typing import Any

import numpy as np
import pytest
import torch

from lmtorch import InputError, curve_fit

from ..setting import T, decay, design, line, noise, noisy, solved

SAMPLES = 2000
# a deviation estimated from N samples is known to 1/√(2N); four of those
WITHIN = 4 / np.sqrt(2 * SAMPLES)
X = np.linspace(-1, 1, 200)
KINDS = pytest.mark.parametrize("kind", ["residuals", "cases", "normal"])


def uneven(m: int = 200) -> np.ndarray:
    """A line with errors that grow."""
    return 2 * X[:m] + 1 + noise(m, 0.1 + 0.4 * np.abs(X[:m]))


@pytest.mark.parametrize("kind", ["residuals", "normal"])
def test_equal_errors_of_a_linear_model_are_the_closed_form(kind: str) -> None:
    y = uneven()
    _, inverse, chisqr = solved(design(X), y)
    found = curve_fit(line, X, y).bootstrap(SAMPLES, kind)
    np.testing.assert_allclose(found.stderr, np.sqrt(chisqr / 198 * np.diag(inverse)), rtol=WITHIN)


def test_cases_know_that_errors_are_uneven() -> None:
    y = uneven()
    A = design(X)
    solution, inverse, _ = solved(A, y)
    white = inverse @ (A.T * (A @ solution - y) ** 2) @ A @ inverse
    found = curve_fit(line, X, y).bootstrap(SAMPLES, "cases")
    # to the order of 1/m
    np.testing.assert_allclose(found.stderr, np.sqrt(np.diag(white)), rtol=WITHIN + 2 / 200)


@KINDS
def test_of_a_nonlinear_model_with_normal_errors_it_is_the_covariance(kind: str) -> None:
    t = np.linspace(0, 4, 200)
    fit = curve_fit(decay, t, noisy(t=t, deviation=0.02))
    found = fit.bootstrap(SAMPLES, kind)
    # cases estimate the middle of the sandwich from 200 squares, of which few are large
    np.testing.assert_allclose(
        found.stderr, fit.stderr, rtol=WITHIN + (0.15 if kind == "cases" else 0)
    )
    correlation = found.pcov / np.outer(found.stderr, found.stderr)
    np.testing.assert_allclose(
        correlation, fit.correlation, atol=WITHIN + (0.15 if kind == "cases" else 0)
    )


@KINDS
def test_the_mean_of_the_samples_is_the_fit(kind: str) -> None:
    y = uneven()
    fit = curve_fit(line, X, y)
    found = fit.bootstrap(SAMPLES, kind)
    assert np.all(np.abs(found.samples.mean(0) - fit.popt) < 4 * found.stderr / np.sqrt(SAMPLES))


def test_exchanged_residuals_are_as_large_as_the_errors_were() -> None:
    # those of six points about a line are 1.2 times too small
    x = np.arange(6.0)
    y = 2 * x + 1 + noise(6)
    _, inverse, chisqr = solved(design(x), y)
    found = curve_fit(line, x, y).bootstrap(SAMPLES)
    np.testing.assert_allclose(found.stderr, np.sqrt(chisqr / 4 * np.diag(inverse)), rtol=WITHIN)


@pytest.mark.filterwarnings("ignore:the curve passes the data by")
def test_exchanged_residuals_have_no_mean_that_would_move_the_fit() -> None:
    x = np.linspace(1, 2, 50)
    # without the intercept that is needed
    fit = curve_fit(lambda x, slope: slope * x, x, x + 1 + noise(50, 0.1))
    assert abs(fit.residual.mean()) > 0.01
    found = fit.bootstrap(SAMPLES)
    assert abs(found.samples.mean() - fit["slope"]) < 4 * found.stderr[0] / np.sqrt(SAMPLES)


def test_normal_noise_is_that_of_absolute_errors() -> None:
    x = X[::5]
    sigma = 0.1 + 0.2 * np.abs(x)
    y = 2 * x + 1 + noise(40, 3 * sigma)  # three times larger than said
    fit = curve_fit(line, x, y, sigma=sigma, absolute_sigma=True)
    _, inverse, _ = solved(design(x), y, 1 / sigma)
    np.testing.assert_allclose(
        fit.bootstrap(SAMPLES, "normal").stderr, np.sqrt(np.diag(inverse)), rtol=WITHIN
    )


@pytest.mark.parametrize("kind", ["residuals", "normal"])
def test_correlated_errors_stay_correlated(kind: str) -> None:
    x = X[::4]
    sigma = 0.3 ** np.abs(np.arange(50)[:, None] - np.arange(50))  # each point with its neighbours
    y = 2 * x + 1 + np.linalg.cholesky(sigma) @ noise(50)
    fit = curve_fit(line, x, y, sigma=sigma)
    found = fit.bootstrap(SAMPLES, kind)
    # whitened residuals have no mean of zero, which their exchange removes
    np.testing.assert_allclose(
        found.stderr, fit.stderr, rtol=WITHIN + (1 / 50 if kind == "residuals" else 0)
    )


def test_points_with_correlated_errors_are_not_drawn_one_by_one() -> None:
    fit = curve_fit(line, X[:5], X[:5] + noise(5), sigma=np.eye(5) + 0.1)
    with pytest.raises(InputError, match="correlated errors cannot be drawn one by one"):
        fit.bootstrap(10, "cases")


@KINDS
def test_masked_points_stay_out(kind: str) -> None:
    y, kept = uneven(), np.arange(200) % 3 != 0
    other = np.where(kept, y, 1e6)
    one, two = (curve_fit(line, X, data, mask=kept).bootstrap(20, kind) for data in (y, other))
    np.testing.assert_array_equal(one.samples, two.samples)


def test_cases_of_masked_data_are_those_of_the_shorter() -> None:
    y, kept = uneven(), np.arange(200) % 3 != 0
    one = curve_fit(line, X, y, mask=kept).bootstrap(20, "cases")
    two = curve_fit(line, X[kept], y[kept]).bootstrap(20, "cases")
    np.testing.assert_allclose(one.samples, two.samples, rtol=1e-9)


@KINDS
def test_a_seed_gives_the_same_samples_again(kind: str) -> None:
    fit = curve_fit(line, X, uneven())
    np.testing.assert_array_equal(fit.bootstrap(10, kind).samples, fit.bootstrap(10, kind).samples)
    assert not np.array_equal(
        fit.bootstrap(10, kind).samples, fit.bootstrap(10, kind, seed=1).samples
    )


def test_an_interval_is_between_percentiles_of_the_samples() -> None:
    found = curve_fit(line, X, uneven()).bootstrap(500)
    for level in (0.5, 0.95):
        ends = np.percentile(found.samples, [50 - 50 * level, 50 + 50 * level], axis=0).T
        np.testing.assert_allclose(
            [found.interval(level)[name] for name in found.names], ends, rtol=1e-13
        )


def test_stderr_and_pcov_are_those_of_the_samples() -> None:
    found = curve_fit(line, X, uneven()).bootstrap(50)
    np.testing.assert_allclose(found.pcov, np.cov(found.samples.T), rtol=1e-13)
    np.testing.assert_allclose(found.stderr, np.sqrt(np.diag(found.pcov)), rtol=1e-13)
    assert found.failed == 0
    assert found.samples.shape == (50, 2)


def test_what_is_fixed_or_tied_stays_so() -> None:
    fit = curve_fit(decay, T, noisy(), fixed={"a": 2.5}, ties={"c": lambda p: p["b"] / 2.6})
    samples = fit.bootstrap(30).samples
    assert np.all(samples[:, 0] == 2.5)
    np.testing.assert_allclose(samples[:, 2], samples[:, 1] / 2.6, rtol=1e-14)
    assert samples[:, 1].std() > 0


def test_samples_stay_inside_bounds_and_transforms() -> None:
    fit = curve_fit(
        decay, T, noisy(), [2, 1.35, 0.51], bounds={"c": (0.5, 2.0)}, transforms={"b": (1.3, 1.4)}
    )
    samples = fit.bootstrap(50).samples
    assert np.all(samples[:, 2] >= 0.5)
    assert np.all((samples[:, 1] >= 1.3) & (samples[:, 1] <= 1.4))
    assert np.any(samples[:, 2] == 0.5)


def test_a_global_fit_is_resampled_as_a_whole() -> None:
    t = T[:20]
    fit = curve_fit(
        line, [T, t], [2 * T + noise(40, 0.2), 2 * t + 3 + noise(20, 0.2, seed=1)], shared=["slope"]
    )
    found = fit.bootstrap(SAMPLES, "normal")
    np.testing.assert_allclose(found.stderr, fit.stderr, rtol=WITHIN)


def test_a_robust_fit_is_resampled_with_its_loss() -> None:
    y = 2 * X + 1 + noise(200, 0.1)
    y[::20] += 30
    fit = curve_fit(line, X, y, loss="soft_l1", f_scale=0.1)
    found = fit.bootstrap(500, "cases")
    # 10 outliers of 200
    np.testing.assert_allclose(found.stderr, fit.stderr, rtol=4 / np.sqrt(2 * 500) + 0.1)


def test_tensors_are_resampled_as_arrays() -> None:
    y = uneven()
    arrays = curve_fit(line, X, y).bootstrap(10)
    tensors = curve_fit(line, torch.as_tensor(X), torch.as_tensor(y)).bootstrap(10)
    np.testing.assert_allclose(tensors.samples, arrays.samples, rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "jackknife"}, "kind='jackknife' is not known"),
        ({"samples": 1}, "samples=1 must be at least 2"),
    ],
    ids=str,
)
def test_what_cannot_be_resampled_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        curve_fit(line, X, uneven()).bootstrap(**options)


def test_a_batch_has_no_bootstrap_but_its_fits_have() -> None:
    y = np.stack([uneven(), uneven() + X])
    fits = curve_fit(line, X, y)
    with pytest.raises(InputError, match=r"fit.at\(index\).bootstrap"):
        fits.bootstrap(10)
    np.testing.assert_allclose(
        fits.at(1).bootstrap(10).samples, curve_fit(line, X, y[1]).bootstrap(10).samples, rtol=1e-9
    )
