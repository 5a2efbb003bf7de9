"""Fits that pass their data by are told of; a shape that is slightly wrong is a note."""

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeWarning

import lmtorch

RNG = np.random.default_rng(0)
X = np.linspace(0, 10, 80)
# a high peak and a low one
Y = 3 * np.exp(-((X - 3) ** 2)) + np.exp(-((X - 7.5) ** 2)) + 0.05 * RNG.standard_normal(80)


def peak(x, height, center, width, base):
    return height * torch.exp(-(((x - center) / width) ** 2)) + base


def test_a_minimum_at_the_lower_peak_is_told_of_each_time():
    for _ in range(5):  # later ones by what is remembered of the first
        with pytest.warns(
            OptimizeWarning, match=r"passes the data by: .* change their sign .* n_st"
        ):
            fit = lmtorch.curve_fit(peak, X, Y, p0=[1, 7.2, 1, 0])
        assert fit.success
        assert fit["center"] == pytest.approx(7.5, abs=0.1)
        assert any("beside a lower one" in note for note in fit.notes)


def test_the_higher_peak_is_no_warning_but_a_note():
    one = 3 * np.exp(-((X - 3) ** 2)) + 0.3 * np.exp(-((X - 7.5) ** 2)) + 0.02 * RNG.normal(size=80)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = lmtorch.curve_fit(peak, X, one, p0=[2, 3.5, 1, 0])
    assert fit.rsquared > 0.95
    assert [note for note in fit.notes if "change their sign" in note]
    assert "change their sign" in fit.report()
    assert f"residual runs      = {fit.runs:.0f} (" in fit.report()


def test_noise_alone_is_no_pattern():
    y = 0.2 * np.exp(-((X - 3) ** 2)) + RNG.standard_normal(80)  # R² is next to nothing
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = lmtorch.curve_fit(lambda x, a, b: a + b * x, X, y)
    assert fit.rsquared < 0.1
    assert fit.notes == []


def test_a_robust_fit_is_left_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = lmtorch.curve_fit(peak, X, Y, p0=[1, 7.2, 1, 0], loss="soft_l1", f_scale=0.1)
    assert fit.runs_pvalue < 1e-3


def test_what_is_told_is_kept_in_files(tmp_path):
    with pytest.warns(OptimizeWarning, match="passes the data by"):
        fit = lmtorch.curve_fit(peak, X, Y, p0=[1, 7.2, 1, 0])
    fit.save(tmp_path / "fit.json")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the function of a test cannot be imported
        back = lmtorch.load(tmp_path / "fit.json")
    assert (back.runs, back.runs_pvalue) == (fit.runs, fit.runs_pvalue)
    assert fit.to_dict()["runs_pvalue"] == fit.runs_pvalue


def test_a_batch_says_how_many_pass_their_data_by():
    noise = 0.05 * np.random.default_rng(5).standard_normal((100, 80))
    many = 3 * np.exp(-((X - 3) ** 2)) + 0.8 * np.exp(-((X - 7.5) ** 2)) + noise
    start = np.tile([3, 3.2, 1, 0], (100, 1)).astype(float)
    start[7:90:20] = 1, 7.2, 1, 0
    with pytest.warns(OptimizeWarning, match=r"^of 100 fits 5 pass .*fits\.at\(7\) is one"):
        fits = lmtorch.curve_fit(peak, X, many, p0=start)
    assert fits.success.all()
    assert (fits.params["center"][7:90:20] > 7).all()


def test_a_batch_of_noise_says_nothing():
    noise = np.random.default_rng(6).standard_normal((1000, 80))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = lmtorch.curve_fit(lambda x, a, b: a + b * x, X, noise)
    assert (fits.rsquared < 0.2).mean() > 0.99
    assert (fits.runs_pvalue < 1e-3).mean() < 0.003


def test_of_a_large_batch_some_are_looked_at():
    noise = 0.05 * np.random.default_rng(7).standard_normal((1000, 80))
    many = 3 * np.exp(-((X - 3) ** 2)) + 0.8 * np.exp(-((X - 7.5) ** 2)) + noise
    with pytest.warns(OptimizeWarning, match=r"^of 250 fits that were looked at 250 pass"):
        lmtorch.curve_fit(peak, X, many, p0=[1, 7.2, 1, 0])


def test_what_a_user_accepts_is_no_constant_to_compare_with():
    noise = 0.05 * np.random.default_rng(7).standard_normal((20, 80))
    many = 3 * np.exp(-((X - 3) ** 2)) + 0.8 * np.exp(-((X - 7.5) ** 2)) + noise
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = lmtorch.curve_fit(peak, X, many, p0=[1, 7.2, 1, 0], acceptable=100.0)
    assert (fits.runs_pvalue < 1e-3).all()


def test_a_pattern_that_is_small_beside_the_noise_is_a_note_alone():
    x = np.linspace(0, 10, 20_000)
    y = 0.1 * x + 0.25 * np.sin(2 * x) + 0.5 * np.random.default_rng(8).standard_normal(20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = lmtorch.curve_fit(lambda x, a, b: a + b * x, x, y)
    assert fit.rsquared < 0.5
    assert fit.runs_pvalue < 1e-3
    assert len(fit.notes) == 1


def test_one_fit_in_a_hundred_is_not_told_of():
    noise = np.random.default_rng(9).standard_normal((100, 80))
    noise[17] = np.sin(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = lmtorch.curve_fit(lambda x, a, b: a + b * x, X, noise)
    assert fits.runs_pvalue[17] < 1e-6


def test_errors_that_carry_gradients_are_read_without_a_word():
    sigma = torch.full((80,), 0.05, dtype=torch.float64, requires_grad=True)
    many = torch.from_numpy(np.stack([Y, Y]))
    with pytest.warns(OptimizeWarning, match=r"^of 2 fits 2 pass") as said:
        lmtorch.curve_fit(peak, torch.from_numpy(X), many, p0=[1, 7.2, 1, 0], sigma=sigma)
    assert len(said) == 1
