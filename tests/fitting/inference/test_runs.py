"""The runs test of residuals: its distribution, its order, and what it leaves out."""

import math
import warnings
from itertools import combinations, groupby

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeWarning

import lmtorch
from lmtorch.fitting.inference.runs import exact, normal

RNG = np.random.default_rng(3)
X = np.linspace(0, 10, 60)
NOISE = 0.1 * RNG.standard_normal(60)


def decay(x, a, k):
    return a * torch.exp(-k * x)


def line(x, a, b):
    return a + b * x


@pytest.mark.parametrize(("few", "many"), [(0, 0), (0, 3), (1, 1), (1, 5), (3, 4), (4, 4)])
def test_the_distribution_is_that_of_all_orders_of_the_signs(few, many):
    found = []
    for places in combinations(range(few + many), few):
        signs = [i in places for i in range(few + many)]
        found.append(len(list(groupby(signs))))
    counted = [np.mean(np.array(found) <= r) for r in range(2 * few + 2)]
    np.testing.assert_allclose(exact(few, many), counted, rtol=1e-13)


def test_of_many_signs_the_distribution_is_nearly_normal():
    np.testing.assert_allclose(exact(100, 140), normal(100, 140), atol=2e-3)


def test_residuals_in_a_known_order():
    y = np.array([1, 1, 1, -1, -1, -1, 1, 1, -1, -1, -1.0, 1])
    fit = lmtorch.curve_fit(lambda x, a: a + 0 * x, np.arange(12), y)
    assert fit["a"] == pytest.approx(0, abs=1e-12)
    assert fit.runs == 5
    # P(R ≤ 5) = 2 (C(5,0)² + C(5,1)²) + 2 (C(5,1) C(5,0) + C(5,2) C(5,1)) over C(12, 6)
    assert fit.runs_pvalue == pytest.approx((2 * 26 + 2 * 55) / math.comb(12, 6), rel=1e-12)


def test_points_may_stand_in_any_order():
    y = 3 * np.exp(-0.5 * X) + NOISE
    fit = lmtorch.curve_fit(decay, X, y)
    order = np.random.default_rng(0).permutation(60)
    other = lmtorch.curve_fit(decay, X[order], y[order])
    assert (fit.runs, fit.runs_pvalue) == (other.runs, other.runs_pvalue)
    assert fit.runs_pvalue > 0.01


def test_points_that_are_left_out_do_not_count():
    y = np.where(np.arange(60) % 3 == 1, np.nan, 3 * np.exp(-0.5 * X) + NOISE)
    kept = np.isfinite(y)
    fit = lmtorch.curve_fit(decay, X, y, nan_policy="omit")
    other = lmtorch.curve_fit(decay, X[kept], y[kept])
    assert fit.runs == other.runs
    assert fit.runs_pvalue == pytest.approx(other.runs_pvalue, rel=1e-12)


def test_good_fits_have_few_small_probabilities():
    y = 3 * np.exp(-0.5 * X) + 0.1 * np.random.default_rng(1).standard_normal((2000, 60))
    fits = lmtorch.curve_fit(decay, X, y)
    # fitted parameters make residuals change their sign more often, never less
    assert 0.005 < np.mean(fits.runs_pvalue < 0.05) < 0.05
    assert np.mean(fits.runs_pvalue < 0.001) < 0.003
    assert "keep their sign" not in fits.report()


def test_each_fit_of_a_batch_is_told_of(monkeypatch):
    y = 3 * np.exp(-0.5 * X) + NOISE
    many = np.stack([y, y + 0.5 * (X > 5), y[::-1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # the second passes its data by
        fits = lmtorch.curve_fit(decay, X, many)
        alone = [lmtorch.curve_fit(decay, X, one) for one in many]
    np.testing.assert_array_equal(fits.runs, [fit.runs for fit in alone])
    np.testing.assert_allclose(fits.runs_pvalue, [fit.runs_pvalue for fit in alone], rtol=1e-12)
    assert fits.at(1).runs == fits.runs[1]
    assert "1 of the 3 fits that converged have residuals that keep their sign" in fits.report()


@pytest.mark.filterwarnings("ignore:of .* fits .* pass their data by")
def test_fits_of_a_batch_may_have_an_x_of_their_own_and_come_in_blocks(monkeypatch):
    y = 3 * np.exp(-0.5 * X) + NOISE
    many = np.stack([y, y + 0.5 * (X > 5), y[::-1]])
    fits = lmtorch.curve_fit(decay, X, many)
    order = np.stack([np.random.default_rng(i).permutation(60) for i in range(3)])
    moved = np.take_along_axis(many, order, 1)
    again = lmtorch.curve_fit(decay, X[order], moved, each_x=True)
    np.testing.assert_array_equal(again.runs, fits.runs)
    # of so many fits that their residuals are made in blocks
    monkeypatch.setattr("lmtorch._memory.CACHE_ROWS", 1)
    blocks = lmtorch.curve_fit(decay, X, np.repeat(many, 20, 0))
    np.testing.assert_array_equal(blocks.runs, np.repeat(fits.runs, 20))


def test_data_sets_follow_one_another():
    sets = [(X, 1 + 2 * X + NOISE), (X[::-1][:30], (3 + 2 * X + NOISE)[::-1][:30])]
    fit = lmtorch.curve_fit(line, [x for x, _ in sets], [y for _, y in sets], shared=["b"])
    residual = np.concatenate([fit.residual[:60], fit.residual[60:][::-1]])
    large = np.abs(residual) > 0.1 * np.sqrt(np.mean(residual**2))
    assert fit.runs == len(list(groupby(np.sign(residual[large]))))
    assert fit.runs_pvalue > 0.01


def test_data_that_are_met_have_no_runs():
    fit = lmtorch.curve_fit(line, X, 1 + 2 * X)
    assert (fit.runs, fit.runs_pvalue) == (0, 1)
    assert fit.notes == []


@pytest.mark.parametrize("kind", ["two coordinates", "table"])
def test_without_an_order_nothing_is_told(kind):
    y = X + NOISE
    if kind == "table":
        fit = lmtorch.curve_fit(lambda t, a, b: a + b * t["x"], {"x": torch.from_numpy(X)}, y)
    else:
        fit = lmtorch.curve_fit(lambda x, a, b: a * x[0] + b * x[1], np.stack([X, X**2]), y)
    assert math.isnan(fit.runs)
    assert math.isnan(fit.runs_pvalue)
    assert "runs" not in fit.report()


def test_counts_of_none_beside_a_peak_have_no_sign():
    # far from a peak of counts nothing is counted, and the curve is above it by next to nothing
    mean = 200 * np.exp(-((X - 5) ** 2))
    y = np.random.default_rng(2).poisson(mean).astype(float)
    fit = lmtorch.curve_fit(
        lambda x, h, c, w: h * torch.exp(-((x - c) ** 2) / w**2), X, y, p0=[150, 4.5, 1.2]
    )
    assert fit.runs_pvalue > 0.001


def test_in_float32_the_answer_is_the_same():
    y = 3 * np.exp(-0.5 * X) + NOISE
    fit = lmtorch.curve_fit(decay, X, y)
    single = lmtorch.curve_fit(decay, torch.from_numpy(X).float(), torch.from_numpy(y).float())
    assert single.runs == fit.runs
    assert single.runs_pvalue == pytest.approx(fit.runs_pvalue, rel=1e-12)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_rare_counts_are_no_pattern(likelihood):
    x = np.linspace(0, 6, 1000)
    y = np.random.default_rng(4).poisson(100 * np.exp(-0.8 * x))  # from 100 to 0.8
    total = {"total_count": 1e6} if likelihood == "negative_binomial" else {}
    fit = lmtorch.curve_fit(decay, x, y, p0=[80, 0.7], likelihood=likelihood, **total)
    assert fit.notes == []
    if likelihood == "poisson":
        assert 0.01 < fit.runs_pvalue <= 1
        wrong = lmtorch.curve_fit(
            lambda x, a, k: a / (1 + k * x), x, y, p0=[80, 0.7], likelihood=likelihood
        )
        assert wrong.runs_pvalue < 1e-6
    else:
        assert math.isnan(fit.runs_pvalue)


def test_in_float32_squares_may_be_more_than_any_number():
    y = 3 * np.exp(-0.5 * X) + NOISE
    fit = lmtorch.curve_fit(decay, X, y)
    huge = lmtorch.curve_fit(
        decay, torch.from_numpy(X).float(), torch.from_numpy(1e21 * y).float(), p0=[2e21, 0.6]
    )
    assert huge.runs == fit.runs
