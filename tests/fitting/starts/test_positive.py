"""Guesses from few counts: a rate that is guessed is positive."""

import warnings

import numpy as np
import pytest

from lmtorch import curve_fit, models

T = np.arange(60.0)


@pytest.mark.parametrize("seed", [3, 5, 12, 16, 18, 19, 22, 32])
def test_a_decay_with_empty_channels_starts_where_the_rate_is_positive(seed: int) -> None:
    """For these seeds the guess by squares dips below zero, and the fit was refused."""
    y = np.random.default_rng(seed).poisson(20 * np.exp(-T / 6) + 0.3)
    model = models.Exponential() + models.Constant()
    guess = model.guess(T, y)
    assert guess["amplitude"] * np.exp(-T[-1] / guess["decay"]) + guess["c"] < 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = curve_fit(model, T, y, likelihood="poisson")
        near = curve_fit(model, T, y, [20, 6, 0.3], likelihood="poisson")
    assert fit.success
    np.testing.assert_allclose(fit.popt, near.popt, rtol=1e-5)


def test_fits_of_a_batch_are_drawn_to_their_means_one_by_one() -> None:
    model = models.Exponential() + models.Constant()
    many = np.stack([
        np.random.default_rng(seed).poisson(20 * np.exp(-T / 6) + 0.3) for seed in range(6)
    ]).astype(float)  # fmt: skip
    fits = curve_fit(model, T, many, likelihood="poisson")
    assert fits.success.all()
    for i, y in enumerate(many):
        alone = curve_fit(model, T, y, likelihood="poisson")
        np.testing.assert_allclose(fits.popt[i], alone.popt, rtol=1e-5)


def test_a_share_of_trials_is_guessed_between_zero_and_one() -> None:
    x = np.linspace(-3, 3, 25)
    killed = np.random.default_rng(1).binomial(4, 1 / (1 + np.exp(-4 * x)))
    model = models.Linear().with_bounds(slope=(0.0, 0.1))
    guess = models.Linear().guess(x, killed / 4)
    assert guess["slope"] * 3 + guess["intercept"] > 1  # beyond which the likelihood is no number
    fit = curve_fit(model, x, killed, likelihood="binomial", total_count=np.full(25, 4.0))
    assert fit["slope"] == pytest.approx(0.1)  # at its bound
