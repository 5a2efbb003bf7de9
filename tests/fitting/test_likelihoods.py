"""Counts fitted by maximum likelihood, with errors from the Fisher information."""

import json
import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

import lmtorch
from lmtorch import curve_fit

from ..programs import compiler

T = np.linspace(0, 5, 60)
P0 = [30.0, 1.0, 1.0]


def decay(t: Any, a: Any, k: Any, c: Any) -> Any:
    return a * torch.exp(-k * t) + c


def rates(p: Any = (40.0, 1.2, 3.0)) -> Any:
    return p[0] * np.exp(-p[1] * T) + p[2]


COUNTS = np.random.default_rng(0).poisson(rates(), (8, len(T))).astype(float)


def scipys(y: Any, logpmf: Any, start: Any = P0) -> Any:
    """Maximum likelihood by scipy's simplex, to about seven digits."""
    return scipy.optimize.minimize(
        lambda p: -logpmf(y, rates(p)).sum(),
        start,
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-11, "maxiter": 10_000, "maxfev": 10_000},
    )


def test_dobsons_trial_is_as_in_the_help_of_r() -> None:
    # Dobson, An introduction to generalized linear models (1990), 93; the output of R's ?glm
    counts = [18, 17, 15, 20, 10, 20, 25, 13, 12]
    outcome, treatment = np.tile([1, 2, 3], 3), np.repeat([1, 2, 3], 3)
    x = np.stack([outcome == 2, outcome == 3, treatment == 2, treatment == 3]).astype(float)
    fit = curve_fit(
        lambda x, a, b, c, d, e: torch.exp(a + b * x[0] + c * x[1] + d * x[2] + e * x[3]),
        x, counts, p0=[3, 0, 0, 0, 0], likelihood="poisson",
    )  # fmt: skip
    np.testing.assert_allclose(fit.popt, [3.045, -0.4543, -0.2930, 0, 0], atol=5e-4)
    np.testing.assert_allclose(fit.stderr, [0.1709, 0.2022, 0.1927, 0.2, 0.2], atol=5e-5)
    assert fit.deviance == pytest.approx(5.1291, abs=5e-5)
    assert fit.nfree == 4
    assert fit.aic == pytest.approx(56.76, abs=5e-3)
    null = fit.deviance / (1 - fit.rsquared)
    assert null == pytest.approx(10.5814, abs=5e-5)


def test_beetles_are_as_in_dobsons_book() -> None:
    # Bliss (1935); Dobson & Barnett, An introduction to generalized linear models (2008), §7.3
    dose = np.array([1.6907, 1.7242, 1.7552, 1.7842, 1.8113, 1.8369, 1.8610, 1.8839])
    beetles = np.array([59, 60, 62, 56, 63, 59, 62, 60])
    killed = np.array([6, 13, 18, 28, 52, 53, 61, 60])
    fit = curve_fit(
        lambda x, a, b: torch.sigmoid(a + b * x), dose, killed, p0=[-60, 34],
        likelihood="binomial", total_count=beetles,
    )  # fmt: skip
    np.testing.assert_allclose(fit.popt, [-60.72, 34.27], atol=5e-3)
    np.testing.assert_allclose(fit.stderr, [5.18, 2.91], atol=5e-3)
    assert fit.deviance == pytest.approx(11.23, abs=5e-3)
    expected = scipy.stats.binom.logpmf(killed, beetles, fit.best_fit).sum()
    assert fit.loglikelihood == pytest.approx(expected, rel=1e-12)


def test_rates_are_fitted_as_they_are_written() -> None:
    fit = curve_fit(decay, T, COUNTS[0], P0, likelihood="poisson")
    found = scipys(COUNTS[0], scipy.stats.poisson.logpmf)
    np.testing.assert_allclose(fit.popt, found.x, rtol=1e-5)
    assert fit.loglikelihood == pytest.approx(-found.fun, rel=1e-12)
    mean = rates(fit.popt)
    np.testing.assert_allclose(fit.best_fit, mean, rtol=1e-12)
    slopes = np.stack(
        [np.exp(-fit["k"] * T), -fit["a"] * T * np.exp(-fit["k"] * T), np.ones_like(T)], 1
    )
    covariance = np.linalg.inv(slopes.T @ (slopes / mean[:, None]))
    np.testing.assert_allclose(fit.pcov, covariance, rtol=1e-8)
    y = COUNTS[0]
    deviance = 2 * (scipy.special.xlogy(y, y / mean) - y + mean)
    assert fit.deviance == pytest.approx(deviance.sum(), rel=1e-10)
    np.testing.assert_allclose(fit.deviance_residual, np.sign(mean - y) * np.sqrt(deviance))
    assert fit.chisqr == pytest.approx(((y - mean) ** 2 / mean).sum(), rel=1e-12)
    np.testing.assert_allclose(fit.residual, (mean - y) / np.sqrt(mean))
    assert fit.pvalue == pytest.approx(scipy.stats.chi2.sf(fit.chisqr, 57), rel=1e-9)
    assert fit.aic == pytest.approx(6 - 2 * fit.loglikelihood)
    assert fit.bic == pytest.approx(3 * math.log(60) - 2 * fit.loglikelihood)


def test_scattered_counts_have_the_errors_of_their_information() -> None:
    y = np.random.default_rng(3).negative_binomial(4, 4 / (4 + rates())).astype(float)
    fit = curve_fit(decay, T, y, P0, likelihood="negative_binomial", total_count=4)

    def logpmf(y: Any, mean: Any) -> Any:
        return scipy.stats.nbinom.logpmf(y, 4, 4 / (4 + np.maximum(mean, 1e-9)))

    found = scipys(y, logpmf)
    np.testing.assert_allclose(fit.popt, found.x, rtol=1e-5)
    assert fit.loglikelihood == pytest.approx(-found.fun, rel=1e-12)
    mean = fit.best_fit
    variance = mean + mean**2 / 4
    slopes = np.stack(
        [np.exp(-fit["k"] * T), -fit["a"] * T * np.exp(-fit["k"] * T), np.ones_like(T)], 1
    )
    covariance = np.linalg.inv(slopes.T @ (slopes / variance[:, None]))
    np.testing.assert_allclose(fit.pcov, covariance, rtol=1e-8)
    assert fit.chisqr == pytest.approx(((y - mean) ** 2 / variance).sum(), rel=1e-10)
    assert fit.deviance > 0


def test_a_constant_has_its_closed_forms() -> None:
    y = np.array([3.0, 5, 0, 2, 7, 1])
    fit = curve_fit(lambda x, a: a + 0 * x, np.arange(6.0), y, likelihood="poisson")
    assert fit["a"] == pytest.approx(3, rel=1e-9)
    assert fit.stderr[0] == pytest.approx(math.sqrt(3 / 6), rel=1e-9)

    def rise(mean: float) -> float:  # of −2 log L, less the quantile of χ² with one freedom
        return 12 * (mean - 3 - 3 * math.log(mean / 3)) - scipy.stats.chi2.ppf(0.95, 1)

    low, high = fit.profile().intervals["a"]
    assert low == pytest.approx(scipy.optimize.brentq(rise, 0.1, 3), rel=1e-4)
    assert high == pytest.approx(scipy.optimize.brentq(rise, 3, 10), rel=1e-4)
    band = fit.confidence_band([0.0])
    assert band.upper[0] - 3 == pytest.approx(1.959964 * math.sqrt(0.5), rel=1e-6)
    band = fit.prediction_band([0.0])
    assert band.upper[0] - 3 == pytest.approx(1.959964 * math.sqrt(3.5), rel=1e-6)
    assert fit.rsquared == pytest.approx(0, abs=1e-9)


def test_errors_are_those_of_repeated_measurements() -> None:
    y = np.random.default_rng(5).poisson(rates((9.0, 1.2, 2.0)), (4000, len(T)))
    fits = curve_fit(decay, T, y, [9, 1.2, 2], likelihood="poisson")
    good = fits.success & np.isfinite(fits.stderr).all(1)
    assert good.mean() > 0.99
    pulls = (fits.popt - [9, 1.2, 2]) / fits.stderr
    # a robust deviation, as some decays are lost in the background: ±2 % from 4,000, and the bias
    # of maximum likelihood from a hundred counts
    width = (np.quantile(pulls[good], 0.84, 0) - np.quantile(pulls[good], 0.16, 0)) / 1.989
    np.testing.assert_allclose(width, 1, atol=0.08)
    assert np.median(fits.pvalue) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("many", [3, 40])
def test_batches_are_the_fits_one_by_one(many: int) -> None:
    y = np.resize(COUNTS, (many, len(T)))
    fits = curve_fit(decay, T, y, P0, likelihood="poisson")
    for place in (0, many - 1):
        alone = curve_fit(decay, T, y[place], P0, likelihood="poisson")
        for name in ("popt", "pcov", "residual", "best_fit"):
            np.testing.assert_allclose(
                getattr(fits, name)[place], getattr(alone, name), rtol=1e-5, atol=1e-5
            )
        for name in ("deviance", "chisqr", "loglikelihood", "aic", "rsquared", "pvalue"):
            assert getattr(fits, name)[place] == pytest.approx(getattr(alone, name), rel=1e-7)
            assert getattr(fits.at(place), name) == pytest.approx(getattr(alone, name), rel=1e-7)


def test_large_batches_are_looked_at_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.resize(COUNTS, (40, len(T)))
    whole = curve_fit(decay, T, y, P0, likelihood="poisson")
    expected = whole.stderr, whole.deviance, whole.loglikelihood, whole.chisqr
    monkeypatch.setattr(lmtorch._memory, "stream_rows", lambda *_, **__: 7)
    fits = curve_fit(decay, T, y, P0, likelihood="poisson")
    found = fits.stderr, fits.deviance, fits.loglikelihood, fits.chisqr
    for got, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, other, rtol=1e-10)


@compiler
@pytest.mark.slow
@pytest.mark.usefixtures("as_users_have_them")
def test_fits_can_be_compiled() -> None:
    trials = np.full(len(T), 50.0)
    share = 1 / (1 + np.exp(-(T - 2)))
    died = np.random.default_rng(2).binomial(50, share, (5, len(T))).astype(float)

    def response(t: Any, middle: Any, slope: Any) -> Any:
        return 1 / (1 + torch.exp(-slope * (t - middle)))

    for f, y, p0, options in (
        (decay, COUNTS, P0, {"likelihood": "poisson"}),
        (response, died, [1.5, 1.0], {"likelihood": "binomial", "total_count": trials}),
    ):
        plain = curve_fit(f, T, y, p0, **options)
        for _ in range(2):
            fits = curve_fit(f, T, y, p0, compile=True, **options)
            np.testing.assert_allclose(fits.popt, plain.popt, rtol=1e-6)
            np.testing.assert_allclose(fits.stderr, plain.stderr, rtol=1e-6)
        one = curve_fit(f, T, y[1], p0, compile=True, **options)
        np.testing.assert_allclose(one.popt, plain.popt[1], rtol=1e-6)


def test_points_that_are_left_out_change_nothing() -> None:
    kept = np.arange(len(T)) % 5 != 2
    expected = curve_fit(decay, T[kept], COUNTS[0][kept], P0, likelihood="poisson")
    spoiled = np.where(kept, COUNTS[0], np.nan)
    wild = np.where(kept, COUNTS[0], -7.5)  # no count at all, but not looked at
    for fit in (
        curve_fit(decay, T, spoiled, P0, likelihood="poisson", nan_policy="omit"),
        curve_fit(decay, T, wild, P0, likelihood="poisson", mask=kept),
        curve_fit(decay, T, np.ma.array(wild, mask=~kept), P0, likelihood="poisson"),
        curve_fit(
            decay, T, np.stack([spoiled, COUNTS[1]]), P0, likelihood="poisson", nan_policy="omit"
        ).at(0),
    ):
        np.testing.assert_allclose(fit.popt, expected.popt, rtol=1e-7)
        np.testing.assert_allclose(fit.pcov, expected.pcov, rtol=1e-6)
        for name in ("deviance", "chisqr", "loglikelihood", "aic", "bic", "ndata", "rsquared"):
            assert getattr(fit, name) == pytest.approx(getattr(expected, name), rel=1e-9)
        assert np.isnan(fit.best_fit[~kept]).all()
    with pytest.raises(lmtorch.InputError, match="NaN"):
        curve_fit(decay, T, spoiled, P0, likelihood="poisson")


def test_far_from_a_peak_nothing_is_expected_and_nothing_counted() -> None:
    x = np.linspace(-400, 400, 161)

    def peak(x: Any, height: Any, centre: Any, width: Any) -> Any:
        return height * torch.exp(-(((x - centre) / width) ** 2) / 2)

    mean = 50 * np.exp(-((x - 3) ** 2) / 2 / 8**2)
    y = np.random.default_rng(1).poisson(mean)
    fit = curve_fit(peak, x, y, [30, 0, 5], likelihood="poisson")
    assert (fit.best_fit == 0).any()  # below the smallest number
    near = np.abs(x) < 100
    other = curve_fit(peak, x[near], y[near], [30, 0, 5], likelihood="poisson")
    np.testing.assert_allclose(fit.popt, other.popt, rtol=1e-6)
    np.testing.assert_allclose(fit.pcov, other.pcov, rtol=1e-5, atol=1e-12)
    assert np.isfinite(fit.residual).all()
    assert fit.deviance == pytest.approx(other.deviance, rel=1e-9)


def test_a_background_that_ends_at_its_bound_is_as_if_it_were_not_there() -> None:
    y = np.random.default_rng(3).poisson(40 * np.exp(-1.2 * T))
    fit = curve_fit(decay, T, y, P0, likelihood="poisson", bounds={"c": (0, np.inf)})
    assert fit["c"] == 0  # these counts would have less than none
    fixed = curve_fit(decay, T, y, P0, likelihood="poisson", fixed={"c": 0.0})
    np.testing.assert_allclose(fit.popt, fixed.popt, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(fit.stderr[:2], fixed.stderr[:2], rtol=1e-6)
    assert np.isnan(fit.stderr[2])
    assert "bound" in fit.notes[0]
    none = curve_fit(
        lambda x, a: a + 0 * x, T, np.zeros(60), 1.0, likelihood="poisson", bounds=(0, np.inf)
    )
    assert none["a"] == 0
    assert none.deviance == 0


def test_ties_transforms_data_sets_and_functions_of_numpy() -> None:
    y = COUNTS[0]
    expected = curve_fit(decay, T, y, P0, likelihood="poisson")
    kept = curve_fit(
        decay, T, y, P0, likelihood="poisson", transforms={"c": "positive", "k": (0, 9)}
    )
    np.testing.assert_allclose(kept.popt, expected.popt, rtol=1e-6)
    np.testing.assert_allclose(kept.pcov, expected.pcov, rtol=1e-5)

    with pytest.warns(lmtorch.FallbackWarning):
        numpys = curve_fit(
            lambda t, a, k, c: a * np.exp(-k * t) + c, T, y, P0, likelihood="poisson"
        )
    np.testing.assert_allclose(numpys.popt, expected.popt, rtol=1e-5)
    np.testing.assert_allclose(numpys.pcov, expected.pcov, rtol=1e-4)

    def jac(t: Any, a: Any, k: Any, c: Any) -> Any:
        return torch.stack([torch.exp(-k * t), -a * t * torch.exp(-k * t), torch.ones_like(t)], 1)

    given = curve_fit(decay, T, y, P0, likelihood="poisson", jac=jac)
    np.testing.assert_allclose(given.pcov, expected.pcov, rtol=1e-6)

    both = curve_fit(decay, [T, T], [y, COUNTS[1]], P0, likelihood="poisson", shared=["k"])
    assert both.nfree == 120 - 5
    assert len(both.names) == 5
    separate = expected.deviance + curve_fit(decay, T, COUNTS[1], likelihood="poisson").deviance
    assert separate < both.deviance < separate + 12  # one parameter less: χ² with one freedom


def test_trials_may_differ_from_fit_to_fit_and_from_set_to_set() -> None:
    def response(t: Any, middle: Any) -> Any:
        return 1 / (1 + torch.exp(middle - t))

    share = 1 / (1 + np.exp(2 - T))
    rng = np.random.default_rng(4)
    trials = np.stack([np.full(60, 10.0), np.arange(60) % 7])
    y = rng.binomial(trials.astype(int), share).astype(float)
    options: dict[str, Any] = {"likelihood": "binomial"}
    fits = curve_fit(response, T, y, 1.5, total_count=trials, **options)
    for place in (0, 1):
        alone = curve_fit(response, T, y[place], 1.5, total_count=trials[place], **options)
        np.testing.assert_allclose(fits.popt[place], alone.popt, rtol=1e-6)
        np.testing.assert_allclose(fits.stderr[place], alone.stderr, rtol=1e-6)
        assert fits.at(place).loglikelihood == pytest.approx(alone.loglikelihood, rel=1e-9)
    same = curve_fit(response, T, y[:1].repeat(2, 0), 1.5, total_count=10, **options)
    np.testing.assert_allclose(same.popt[:, 0], fits.popt[0, 0], rtol=1e-6)
    sets = curve_fit(
        response, [T, T], list(y), 1.5, total_count=[10, trials[1]], shared=["middle"], **options
    )
    joined = curve_fit(
        response, np.tile(T, 2), y.ravel(), 1.5, total_count=trials.ravel(), **options
    )
    np.testing.assert_allclose(sets.popt, joined.popt, rtol=1e-7)


def test_a_criterion_takes_what_it_takes() -> None:
    expected = curve_fit(
        lambda t, a, b: torch.exp(a + b * t), T, COUNTS[0], [3, -0.5], likelihood="poisson"
    )
    fit = curve_fit(
        lambda t, a, b: a + b * t, T, COUNTS[0], [3, -0.5], likelihood=lmtorch.PoissonNLLLoss()
    )
    np.testing.assert_allclose(fit.popt, expected.popt, rtol=1e-6)
    np.testing.assert_allclose(fit.pcov, expected.pcov, rtol=1e-6)
    assert fit.deviance == pytest.approx(expected.deviance, rel=1e-9)
    assert fit.chisqr == pytest.approx(expected.chisqr, rel=1e-6)
    assert math.isnan(fit.rsquared)
    scaled = curve_fit(  # no counts, but who says so knows it
        decay, T, COUNTS[0] / 2, P0, likelihood=lmtorch.PoissonNLLLoss(log_input=False)
    )
    assert scaled.success
    with pytest.raises(lmtorch.InputError, match="not known"):
        fit.prediction_band(T)
    with pytest.raises(lmtorch.InputError, match="cases"):
        fit.bootstrap(10)


def test_the_bootstrap_draws_counts() -> None:
    fit = curve_fit(decay, T, COUNTS[0], P0, likelihood="poisson")
    # the error of an error from 400 is 4 %, and a few counts of a peak weigh more in cases
    for kind, room in ((None, 0.15), ("cases", 0.5)):
        drawn = fit.bootstrap(400, kind, seed=1)
        assert drawn.failed < 8
        np.testing.assert_allclose(drawn.stderr, fit.stderr, rtol=room)
    with pytest.raises(lmtorch.InputError, match="parametric"):
        fit.bootstrap(10, "normal")
    trials = np.full(60, 30.0)
    share = 1 / (1 + np.exp(2 - T))
    y = np.random.default_rng(4).binomial(30, share).astype(float)
    for name, total, data, f in (
        ("binomial", trials, y, lambda t, m: 1 / (1 + torch.exp(m - t))),
        ("negative_binomial", 5.0, COUNTS[1], lambda t, a: a * torch.exp(-t)),
    ):
        fit = curve_fit(f, T, data, 2.0, likelihood=name, total_count=total)
        drawn = fit.bootstrap(300, seed=2)
        np.testing.assert_allclose(drawn.stderr, fit.stderr, rtol=0.2)


def test_sparse_histograms_have_the_errors_of_their_counts() -> None:
    y = np.zeros(200_000)
    y[[5, 77, 1234, 150_000]] = 1  # 2e-5 a bin
    for scale in (1.0, 10.0, 1000.0):  # of the expected rate
        fit = curve_fit(
            lambda x, a: a * 1e-5 + 0 * x, np.arange(200_000.0), y, scale, likelihood="poisson"
        )
        assert fit["a"] == pytest.approx(2, rel=1e-6)
        assert fit.stderr[0] == pytest.approx(1, rel=1e-6)  # 2/√4
    y[77:] = 0  # and of 5e-6, where nothing is expected to be counted
    one = curve_fit(
        lambda x, a: a * 1e-5 + 0 * x, np.arange(200_000.0), y, 1.0, likelihood="poisson"
    )
    assert one["a"] == pytest.approx(0.5, rel=1e-6)
    assert one.stderr[0] == pytest.approx(0.5, rel=1e-6)


def test_lines_leave_the_edge_at_which_nothing_is_expected() -> None:
    x = np.linspace(0, 5, 60)
    y = np.random.default_rng(0).poisson(0.3 * x, (200, 60))
    fits = curve_fit(
        lambda x, a, b: a + b * x, x, y, [1, 1], likelihood="poisson", bounds=(0, np.inf)
    )
    assert fits.success.all()
    at_zero = fits.popt[:, 0] == 0
    assert 0.2 < at_zero.mean() < 0.8
    np.testing.assert_allclose(fits.popt[at_zero, 1], y[at_zero].sum(1) / x.sum(), rtol=1e-5)
    # elsewhere the constant's gradient vanishes: Σ (1 − y/μ) = 0
    rest = fits.popt[~at_zero]
    mean = rest[:, :1] + rest[:, 1:] * x
    np.testing.assert_allclose((1 - y[~at_zero] / mean).sum(1), 0, atol=1e-2)


def test_cases_count_as_often_as_they_were_drawn() -> None:
    y = COUNTS[0]
    fit = curve_fit(lambda t, a: a + 0 * t, T, y, 3.0, likelihood="poisson")
    drawn = fit.bootstrap(3000, "cases")
    # the mean of a resample: the error of an error from 3,000 is 1.3 %
    assert drawn.stderr[0] == pytest.approx(y.std() / math.sqrt(60), rel=0.05)
    given = curve_fit(
        lambda t, a: a + 0 * t, T, y, 3.0, likelihood="poisson",
        jac=lambda t, a: torch.ones(len(t), 1, dtype=torch.float64),
    )  # fmt: skip
    np.testing.assert_allclose(
        given.bootstrap(50, "cases").samples, fit.bootstrap(50, "cases").samples, rtol=1e-6
    )


def test_solutions_carry_gradients_to_the_counts() -> None:
    t, y = torch.as_tensor(T), torch.as_tensor(COUNTS[0]).requires_grad_()
    fit = curve_fit(decay, t, y, P0, likelihood="poisson")
    (got,) = torch.autograd.grad(fit.popt[1], y)
    ends = []
    for step in (-1.0, 1.0):  # counts are whole numbers
        moved = COUNTS[0].copy()
        moved[3] += step
        ends.append(curve_fit(decay, T, moved, P0, likelihood="poisson")["k"])
    assert float(got[3]) == pytest.approx((ends[1] - ends[0]) / 2, rel=1e-3)


def test_float32_and_several_starts() -> None:
    expected = curve_fit(decay, T, COUNTS[0], P0, likelihood="poisson")
    coarse = curve_fit(
        decay, torch.as_tensor(T, dtype=torch.float32), torch.as_tensor(COUNTS[0]).float(), P0,
        likelihood="poisson",
    )  # fmt: skip
    assert coarse.popt.dtype == torch.float32
    np.testing.assert_allclose(coarse.popt, expected.popt, rtol=1e-3)
    np.testing.assert_allclose(coarse.stderr, expected.stderr, rtol=1e-3)
    starts = curve_fit(
        decay, T, COUNTS[0], P0, likelihood="poisson", n_starts=4, bounds=([0, 0, 0], [99, 9, 9])
    )
    np.testing.assert_allclose(starts.popt, expected.popt, rtol=1e-6)


def test_the_likelihood_of_squares_is_that_of_normal_data() -> None:
    y, sigma = COUNTS[0], np.sqrt(COUNTS[0] + 1)
    fit = curve_fit(decay, T, y, P0, sigma, absolute_sigma=True)
    expected = scipy.stats.norm.logpdf(y, fit.best_fit, sigma).sum()
    assert fit.loglikelihood == pytest.approx(expected, rel=1e-10)
    assert fit.pvalue == pytest.approx(scipy.stats.chi2.sf(fit.chisqr, 57), rel=1e-9)
    full = curve_fit(decay, T, y, P0, np.diag(sigma**2), absolute_sigma=True)
    assert full.loglikelihood == pytest.approx(expected, rel=1e-10)
    plain = curve_fit(decay, T, y, P0, likelihood="gaussian")
    scale = math.sqrt(plain.chisqr / 60)
    expected = scipy.stats.norm.logpdf(y, plain.best_fit, scale).sum()
    assert plain.loglikelihood == pytest.approx(expected, rel=1e-10)
    assert plain.deviance == plain.chisqr
    assert math.isnan(plain.pvalue)
    assert math.isnan(curve_fit(decay, T, y, P0, loss="huber").loglikelihood)


def test_reports_and_pictures_say_what_it_is() -> None:
    fit = curve_fit(decay, T, COUNTS[0], P0, likelihood="poisson")
    text = fit.report()
    assert "likelihood         = poisson" in text
    assert f"{fit.deviance:.8g}" in text
    known = json.loads(fit.to_json())
    assert known["likelihood"] == "poisson"
    assert known["loglikelihood"] == pytest.approx(fit.loglikelihood)
    plt = pytest.importorskip("matplotlib.pyplot")
    figure = fit.plot()
    below = figure.axes[1]
    np.testing.assert_allclose(below.lines[0].get_ydata(), -fit.deviance_residual)
    assert below.get_ylabel() == "deviance residuals"
    plt.close(figure)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"sigma": np.ones(60)}, "sigma"),
        ({"loss": "huber"}, "loss"),
        ({"f_scale": 2.0}, "f_scale"),
        ({"likelihood": "poison"}, "not known"),
        ({"likelihood": 3}, "not known"),
        ({"likelihood": "binomial"}, "number of trials"),
        ({"likelihood": "negative_binomial"}, "dispersion"),
        ({"likelihood": "negative_binomial", "total_count": -1}, "positive"),
        ({"likelihood": "binomial", "total_count": 3}, "no smaller than ydata"),
        ({"likelihood": "binomial", "total_count": np.ones(7)}, "does not fit"),
        ({"total_count": 3}, "does not go with"),
        ({"likelihood": "gaussian", "total_count": 3}, "least squares"),
        ({"likelihood": lmtorch.CrossEntropyLoss()}, "least_squares"),
        ({"likelihood": lmtorch.GaussianNLLLoss()}, "least_squares"),
        ({"ydata": COUNTS[0] - 30}, "negative"),
        ({"ydata": COUNTS[0] / 2}, "whole numbers"),
        ({"p0": [-30, 1, 1]}, "not finite at the start"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], word: str) -> None:
    given = {"ydata": COUNTS[0], "p0": P0, "likelihood": "poisson", **options}
    with pytest.raises(lmtorch.InputError, match=word):
        curve_fit(decay, T, **given)


def test_a_rate_that_is_negative_at_a_trial_is_a_refused_trial() -> None:
    tried = []

    def line(x: Any, a: Any, b: Any) -> Any:
        found = a + b * x
        tried.append(bool(np.any(np.asarray(found) < 0)))
        return found

    x, y = np.arange(9.0), np.array([0.0, 0, 1, 0, 3, 2, 4, 3, 6])
    options: dict[str, Any] = {"likelihood": "poisson", "jac": "2-point"}
    # the most likely line has no counts at zero, and would have less than none if it could
    with pytest.warns(scipy.optimize.OptimizeWarning, match="rate is zero"):
        fit = curve_fit(line, x, y, [60, 40], **options)
    assert any(tried)
    assert (fit.best_fit >= 0).all()
    assert not fit.success
    bounded = curve_fit(line, x, y, [60, 40], bounds={"a": (0, np.inf)}, **options)
    assert bounded.success
    assert bounded["a"] == 0
    assert bounded["b"] == pytest.approx(y.sum() / x.sum(), rel=1e-6)  # in closed form
    assert fit.deviance == pytest.approx(bounded.deviance, rel=1e-4)
