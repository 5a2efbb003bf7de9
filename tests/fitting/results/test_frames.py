"""Fits as data frames, and as numbers with errors."""

import pickle
import sys
from typing import Any

import numpy as np
import pytest
import torch

from lmtorch import CurveFit, InputError, curve_fit, odr

from ..setting import UNDETERMINED, T, decay, line, noise, noisy

pandas = pytest.importorskip("pandas")
uncertainties = pytest.importorskip("uncertainties")
Y = noisy()


def stack() -> CurveFit:
    return curve_fit(decay, T, Y + noise((2, 3, 40), 0.02))


def test_a_row_for_each_parameter_has_its_value_error_start_bounds_and_role() -> None:
    fit = curve_fit(decay, T, Y, [2, 1, 0.6], bounds={"b": (0, 5)}, fixed=["c"])
    frame = fit.to_dataframe()
    assert frame.index.name == "parameter"
    assert list(frame.index) == fit.names
    np.testing.assert_array_equal(frame["value"], fit.popt)
    np.testing.assert_array_equal(frame["stderr"], fit.stderr)
    assert list(frame["start"]) == [2, 1, 0.6]
    assert list(frame["lower"]) == [-np.inf, 0, -np.inf]
    assert list(frame["upper"]) == [np.inf, 5, np.inf]
    assert list(frame["role"]) == ["free", "free", "fixed"]


def test_of_a_stack_a_row_is_a_fit_and_a_parameter() -> None:
    fits = stack()
    frame = fits.to_dataframe()
    assert frame.index.names == ["fit_0", "fit_1", "parameter"]
    assert len(frame) == 18
    assert frame.loc[(1, 2, "b"), "value"] == fits.at(1, 2)["b"]
    np.testing.assert_array_equal(frame["stderr"].unstack().to_numpy(), fits.stderr.reshape(6, 3))
    assert curve_fit(line, T, Y + noise((2, 40))).to_dataframe().index.names[0] == "fit"


@pytest.mark.parametrize("labels", [["A1", "B7", "H12"], [5, 3, 5], pandas.to_datetime([1, 2, 3])])
@pytest.mark.parametrize("name", ["well", None])
def test_fits_of_a_table_have_the_labels_of_its_rows(labels: Any, name: str | None) -> None:
    curves = Y + noise((3, 40), 0.02)
    curves[1, 30:] = np.nan
    table = pandas.DataFrame(curves, index=pandas.Index(labels, name=name), columns=T)
    fits = curve_fit(decay, table.columns, table, nan_policy="omit")
    wide = fits.to_dataframe(per="fit")
    assert wide.index.equals(table.index)
    assert wide.index.name == (name or "fit")
    np.testing.assert_array_equal(wide["b"], fits.popt[:, 1])
    long = fits.to_dataframe()
    assert long.index.names == [name or "fit", "parameter"]
    assert list(long.index.get_level_values(0)[::3]) == list(table.index)
    np.testing.assert_array_equal(long["value"], fits.popt.ravel())
    again = pickle.loads(pickle.dumps(fits)).to_dataframe(per="fit")
    pandas.testing.assert_frame_equal(again, wide)
    one = fits.at(1)
    assert list(one.to_dataframe().index) == one.names
    assert len(one.to_dataframe(per="fit")) == 1


def test_a_table_with_labels_of_several_levels_or_of_one_curve_counts_its_fits() -> None:
    pairs = pandas.MultiIndex.from_product([[0, 1], ["a", "b"]])
    table = pandas.DataFrame(Y + noise((4, 40), 0.02), index=pairs)
    assert list(curve_fit(decay, T, table).to_dataframe(per="fit").index) == [0, 1, 2, 3]
    column = pandas.DataFrame({"y": Y}, index=T)  # one curve, whose index is x
    fit = curve_fit(decay, T, column)
    assert list(fit.to_dataframe().index) == fit.names
    assert len(fit.to_dataframe(per="fit")) == 1


def test_a_row_for_each_fit_has_all_that_is_known_of_it() -> None:
    fits = stack()
    frame = fits.to_dataframe(per="fit")
    assert frame.shape[0] == 6
    np.testing.assert_array_equal(frame["b"], fits.popt[..., 1].ravel())
    np.testing.assert_array_equal(frame["b_stderr"], fits.stderr[..., 1].ravel())
    for name in ("chisqr", "redchi", "rsquared", "aic", "bic", "nfev", "success"):
        np.testing.assert_array_equal(frame[name], getattr(fits, name).ravel())
    one = frame.loc[(1, 2)]
    assert one["status"] == fits.at(1, 2).status.name
    single = fits.at(1, 2).to_dataframe("fit")
    assert single.shape[0] == 1
    assert single["a"].item() == fits.at(1, 2)["a"]
    with pytest.raises(InputError, match="per='row' must be 'parameter' or 'fit'"):
        fits.to_dataframe("row")


def test_tensors_with_gradients_and_data_sets_have_tables() -> None:
    fit = curve_fit(decay, torch.as_tensor(T), torch.as_tensor(Y).requires_grad_())
    np.testing.assert_array_equal(fit.to_dataframe()["value"], fit.popt.detach())
    both = curve_fit(line, [T, T[:9]], [T + noise(40), 3 + T[:9] + noise(9)], shared=["slope"])
    assert list(both.to_dataframe().index) == ["slope", "intercept[0]", "intercept[1]"]


# ---- uncertainties -------------------------------------------------------------------------------


@pytest.mark.parametrize("face", ["curve_fit", "odr"])
def test_values_with_errors_have_the_covariance_of_the_fit(face: str) -> None:
    fit = curve_fit(decay, T, Y) if face == "curve_fit" else odr(decay, T, Y, sx=0.05, sy=0.05)
    numbers = fit.to_uncertainties()
    assert list(numbers) == fit.names
    found = uncertainties.covariance_matrix(list(numbers.values()))
    np.testing.assert_allclose(found, fit.pcov, rtol=1e-10)
    np.testing.assert_array_equal([one.nominal_value for one in numbers.values()], fit.popt)


def test_what_is_computed_from_them_has_the_error_of_the_delta_method() -> None:
    from uncertainties import umath

    fit = curve_fit(decay, T, Y, sigma=0.05, absolute_sigma=True)
    n = fit.to_uncertainties()
    height = n["a"] * umath.exp(-n["b"] * 0.7) + n["c"]
    curve, _, upper = fit.confidence_band([0.7], level=0.6826894921370859)  # one standard deviation
    assert height.nominal_value == pytest.approx(curve[0], rel=1e-12)
    assert height.std_dev == pytest.approx(upper[0] - curve[0], rel=1e-8)


@UNDETERMINED
def test_what_has_no_error_says_so() -> None:
    fit = curve_fit(lambda t, a, b, k: (a + b) * torch.exp(-k * t) + 0.5, T, Y)
    numbers = fit.to_uncertainties()
    assert numbers["a"].std_dev == numbers["b"].std_dev == np.inf
    assert numbers["k"].std_dev == pytest.approx(fit.errors["k"], rel=1e-12)
    held = curve_fit(decay, T, Y, [2, 1, 1], bounds={"c": (0.7, 2)}, fixed=["a"])
    numbers = held.to_uncertainties()
    assert numbers["a"].std_dev == 0
    assert np.isnan(numbers["c"].std_dev)
    assert numbers["b"].std_dev == pytest.approx(held.errors["b"], rel=1e-12)


@UNDETERMINED
def test_as_many_parameters_as_points_have_no_errors() -> None:
    numbers = curve_fit(line, T[:2], Y[:2]).to_uncertainties()
    assert [one.std_dev for one in numbers.values()] == [np.inf, np.inf]


def test_of_many_fits_one_is_to_be_chosen() -> None:
    with pytest.raises(InputError, match=r"fit.at\(index\).to_uncertainties"):
        stack().to_uncertainties()


@pytest.mark.parametrize(
    ("package", "method"), [("pandas", "to_dataframe"), ("uncertainties", "to_uncertainties")]
)
def test_what_is_missing_is_named(package: str, method: str, monkeypatch: Any) -> None:
    fit = curve_fit(decay, T, Y)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{method}\(\) needs {package}: pip install {package}"):
        getattr(fit, method)()
