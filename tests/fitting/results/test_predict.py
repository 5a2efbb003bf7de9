"""Curves at new points, and one fit of many."""

import numpy as np
import pytest
import torch

from lmtorch import InputError, curve_fit
from lmtorch.fitting.inference import evaluating

from ..setting import T, decay, line, noise, noisy

NEW = np.linspace(-1, 6, 13)


def test_the_curve_at_new_points_is_the_formula_with_the_values() -> None:
    fit = curve_fit(decay, T, noisy())
    a, b, c = fit.popt
    np.testing.assert_allclose(fit.predict(NEW), a * np.exp(-b * NEW) + c, rtol=1e-13)
    np.testing.assert_array_equal(fit(NEW), fit.predict(NEW))


@pytest.mark.parametrize("block", [1, 4, 100])
def test_the_curves_of_many_fits_are_made_in_blocks(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = curve_fit(decay, T, noisy() + noise((2, 3, 40), 0.02), fixed=["c"], p0=(2, 1, 0.5))
    monkeypatch.setattr(evaluating._memory, "stream_rows", lambda *_, **__: block)
    a, b, c = (fits.popt[..., i, None] for i in range(3))
    np.testing.assert_allclose(fits.predict(NEW), a * np.exp(-b * NEW) + c, rtol=1e-13)


@pytest.mark.parametrize("block", [1, 100])
def test_fits_with_starts_of_their_own_keep_what_is_fixed_there(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = np.array([[2, 1, 0.5], [2, 1, 0.4]])
    fits = curve_fit(decay, T, np.stack([noisy(), noisy()]), p0=start, fixed=["c"])
    monkeypatch.setattr(evaluating._memory, "stream_rows", lambda *_, **__: block)
    far = fits.predict([1e3])
    np.testing.assert_allclose(far[:, 0], [0.5, 0.4], rtol=1e-12)


def test_of_a_global_fit_the_data_set_is_named() -> None:
    fit = curve_fit(line, [T, T[:9]], [T + noise(40), 3 + T[:9] + noise(9)], shared=["slope"])
    expected = fit["slope"] * NEW + fit["intercept[1]"]
    np.testing.assert_allclose(fit.predict(NEW, dataset=1), expected, rtol=1e-12)
    with pytest.raises(InputError, match="name one with dataset="):
        fit.predict(NEW)


def test_tensors_give_tensors_of_their_dtype() -> None:
    fit = curve_fit(line, torch.as_tensor(T).float(), torch.as_tensor(T + noise(40)).float())
    assert fit.predict(torch.zeros(2)).dtype == torch.float32


def test_a_fit_of_a_stack_is_named_by_its_row_and_column() -> None:
    fits = curve_fit(line, T, T + noise((3, 5, 40)))
    np.testing.assert_array_equal(fits.at(2, 4).popt, fits.popt[2, 4])
    np.testing.assert_array_equal(fits.at((2, 4)).popt, fits.popt[2, 4])
    np.testing.assert_array_equal(fits.at(-1, 0).popt, fits.popt[2, 0])
    for wrong in ((3, 0), (1,), (0, 0, 0)):
        with pytest.raises(InputError, match=r"does not name one of \(3, 5\) fits"):
            fits.at(*wrong)


@pytest.mark.parametrize("use", ["predict", "confidence_band", "prediction_band"])
def test_new_points_of_another_layout_and_none_at_all_are_refused_in_words(use: str) -> None:
    x = np.linspace(0, 3, 20)
    fit = curve_fit(lambda x, a, b: a * torch.exp(-b * x), x, 2 * np.exp(-x) + 0.01 * np.cos(9 * x))
    with pytest.raises(InputError, match=r"shape \(4, 5\), and xdata \(20,\): .*x\.ravel\(\)"):
        getattr(fit, use)(x.reshape(4, 5))
    with pytest.raises(InputError, match="no new points"):
        getattr(fit, use)([])
