"""What follows from parameters: widths and heights of peaks, their errors, ties in the report."""

import math
from pathlib import Path
from typing import Any

import lmfit
import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize_scalar

from lmtorch import InputError, curve_fit, load, models

X = np.linspace(0, 10, 101)
PEAKS: list[tuple[Any, dict[str, float]]] = [
    (models.Gaussian(), {"sigma": 0.7}),
    (models.Lorentzian(), {"sigma": 0.7}),
    (models.Voigt(), {"sigma": 0.7, "gamma": 0.2}),
    (models.Voigt(), {"sigma": 0.1, "gamma": 0.9}),
    (models.Voigt(), {"sigma": 0.7, "gamma": 0.0}),
    (models.PseudoVoigt(), {"sigma": 0.7, "fraction": 0.3}),
    (models.Moffat(), {"sigma": 0.7, "beta": 1.7}),
    (models.Pearson7(), {"sigma": 0.7, "expon": 1.7}),
    (models.SplitGaussian(), {"sigma": 0.7, "sigma_r": 1.1}),
    (models.SplitLorentzian(), {"sigma": 0.7, "sigma_r": 1.1}),
]


def noisy(model: Any, **values: float) -> np.ndarray:
    return model(X, **values) + 0.05 * np.random.default_rng(1).standard_normal(101)


@pytest.mark.parametrize(
    ("model", "values"), PEAKS, ids=[f"{m!r} {list(v.values())}" for m, v in PEAKS]
)
def test_width_and_height_are_those_of_the_curve(model: Any, values: dict[str, float]) -> None:
    def curve(x: float) -> float:
        return float(model([x], amplitude=3.0, center=5.0, **values)[0])

    fixed = model.with_fixed(amplitude=3.0, center=5.0, **values)
    found = curve_fit(fixed + models.Constant(), X, fixed(X)).derived
    top = minimize_scalar(lambda x: -curve(x), bounds=(4.5, 5.5), options={"xatol": 1e-10})
    height = found["height"].value if "height" in found else 3.0
    assert height == pytest.approx(-top.fun, rel=1e-9)
    left, right = (brentq(lambda x: curve(x) + top.fun / 2, *side) for side in ((0, 5), (5, 10)))
    assert found["fwhm"].value == pytest.approx(right - left, rel=1e-7)


@pytest.mark.parametrize(
    "model",
    [m for m, v in PEAKS if "sigma" in v and "gamma" not in v],
    ids=repr,
)
def test_a_width_is_none_of_a_sign_where_bounds_of_sigma_were_opened(model: Any) -> None:
    values = next(v for m, v in PEAKS if m is model)
    turned = {name: -v if name.startswith("sigma") else v for name, v in values.items()}
    odd = "amplitude" if "beta" not in values else ""  # Moffat's is the height
    area = -3.0 if odd else 3.0
    there = model(X, amplitude=3.0, center=5.0, **values)
    np.testing.assert_allclose(model(X, amplitude=area, center=5.0, **turned), there, rtol=1e-12)
    opened = model.with_bounds({name: (None, None) for name in turned if name.startswith("sigma")})
    held = {
        which: opened.with_fixed(amplitude=size, center=5.0, **some) + models.Constant()
        for which, size, some in (("plain", 3.0, values), ("turned", area, turned))
    }
    found = {which: curve_fit(one, X, there).derived for which, one in held.items()}
    assert found["plain"]["fwhm"].value > 0
    for name, (value, _) in found["plain"].items():  # it is the same curve
        assert found["turned"][name].value == pytest.approx(value, rel=1e-12)


def test_a_spot_has_two_widths_and_a_height() -> None:
    points = np.stack([a.ravel() for a in np.meshgrid(np.arange(9.0), np.arange(9.0))])
    spot = models.Gaussian2D()
    values = {"amplitude": 3, "centerx": 4, "centery": 4, "sigmax": 1, "sigmay": 2}
    found = curve_fit(spot, points, spot(points, **values)).derived
    full = 2 * math.sqrt(2 * math.log(2))
    assert found["fwhmx"].value == pytest.approx(full)
    assert found["fwhmy"].value == pytest.approx(2 * full)
    assert found["height"].value == pytest.approx(float(spot([[4.0], [4.0]], **values)[0]))


def test_values_and_errors_are_those_that_lmfit_gives() -> None:
    y = noisy(models.Gaussian("g") + models.Linear(),
              g_amplitude=5, g_center=4, g_sigma=0.8, slope=0.1, intercept=1)  # fmt: skip
    fit = curve_fit(models.Gaussian("g") + models.Linear(), X, y)
    theirs = lmfit.models.GaussianModel(prefix="g_") + lmfit.models.LinearModel()
    result = theirs.fit(y, theirs.make_params(**fit.params), x=X)
    assert set(fit.derived) == {"g_fwhm", "g_height"}
    for name, (value, error) in fit.derived.items():
        assert value == pytest.approx(result.params[name].value, rel=1e-5)
        assert error == pytest.approx(result.params[name].stderr, rel=1e-3)


def test_a_batch_has_those_of_its_fits_and_data_sets_have_their_own() -> None:
    peak = models.Lorentzian()
    y = np.stack([noisy(peak, amplitude=a, center=5, sigma=1) for a in (2, 4, 6)])
    many = curve_fit(peak, X, y)
    for i in range(3):
        for name, pair in curve_fit(peak, X, y[i]).derived.items():
            np.testing.assert_allclose([side[i] for side in many.derived[name]], pair, rtol=1e-6)
    both = curve_fit(peak, [X, X], [y[0], y[2]], shared=["sigma"]).derived
    assert list(both) == ["fwhm[0]", "height[0]", "fwhm[1]", "height[1]"]
    assert both["height[1]"].value > 2 * both["height[0]"].value


def test_blocks_of_a_batch_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = models.Gaussian()
    y = np.stack([noisy(peak, amplitude=a, center=5, sigma=1) for a in (2, 4, 6)])
    whole = curve_fit(peak, X, y).derived
    monkeypatch.setattr("lmtorch._memory.CACHE_ROWS", {"cpu": 1})
    fit = curve_fit(peak, X, y)
    assert fit._inference.parts()
    for name, pair in fit.derived.items():
        np.testing.assert_allclose(pair, whole[name], rtol=1e-9)


@pytest.mark.filterwarnings("ignore:the curve passes the data by")
def test_errors_at_bounds_and_of_what_is_undetermined_are_told() -> None:
    peak = models.Gaussian()
    y = noisy(peak, amplitude=5, center=5, sigma=1)
    held = curve_fit(peak, X, y, bounds={"sigma": (1.5, 9)}).derived
    assert all(math.isnan(error) for _, error in held.values())
    with pytest.warns(Warning, match="infinite"):
        lost = curve_fit(2 * peak + models.Gaussian("b").with_fixed(b_sigma=1e-3, b_center=-50),
                         X, y).derived  # fmt: skip
    assert list(lost) == ["b_fwhm", "b_height"]  # of a product nothing is derived
    assert lost["b_height"].stderr == math.inf
    assert lost["b_fwhm"].stderr == 0


def test_a_model_of_ones_own_derives_what_it_says() -> None:
    class Decay(models.Model):
        parameters = ("size", "rate")

        @staticmethod
        def formula(x: Any, size: Any, rate: Any) -> Any:
            return size * (-rate * x).exp()

        @staticmethod
        def derived(size: Any, rate: Any) -> dict[str, Any]:
            return {"half_life": math.log(2) / rate, "size": size}

    y = np.exp(-0.3 * X) + 0.01 * np.random.default_rng(0).standard_normal(101)
    fit = curve_fit(Decay(), X, y)
    assert list(fit.derived) == ["half_life"]  # no parameter is hidden by it
    value, error = fit.derived["half_life"]
    assert error == pytest.approx(value * fit.errors["rate"] / fit["rate"])


LEVEL = 2 + 0.1 * np.random.default_rng(0).standard_normal(101)


class Level(models.Model):
    parameters = ("a",)

    @staticmethod
    def formula(x: Any, a: Any) -> Any:
        return a


@pytest.mark.parametrize(
    "derived",
    [lambda a: {"h": 2 * float(a)}, lambda a: {"h": math.sqrt(a)}, lambda a: {"h": np.sqrt(a)},
     lambda a: 2 * a, lambda a: {"h": a + None}],
    ids=["float", "math", "NumPy", "no dict", "TypeError"],
)  # fmt: skip
def test_what_is_not_derived_by_torch_is_refused_in_words(
    derived: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Level, "derived", staticmethod(derived), raising=False)
    fit = curve_fit(Level(), X, LEVEL)
    for call in (lambda: fit.derived, fit.report, fit.to_dict):
        with pytest.raises(InputError, match=r"derived of Level\(\)"):
            call()


def test_a_constant_is_derived_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    constant = staticmethod(lambda a: {"two": torch.tensor(2)})
    monkeypatch.setattr(Level, "derived", constant, raising=False)
    assert curve_fit(Level(), X, LEVEL).derived["two"] == (2, 0)
    value, error = curve_fit(Level(), X, np.stack([LEVEL, LEVEL])).derived["two"]
    assert value.tolist() == [2, 2]
    assert error.tolist() == [0, 0]


def test_reports_show_what_is_derived_and_the_equations_of_ties(tmp_path: Path) -> None:
    two = models.Gaussian("a") + models.Gaussian("b")
    tied = two.with_ties("b_sigma = 2 * a_sigma")
    y = noisy(tied, a_amplitude=3, a_center=3, a_sigma=0.4, b_amplitude=2, b_center=7)
    fit = curve_fit(tied, X, y, ties={"b_center": lambda p: p["a_center"] + 4})
    fit.save(tmp_path / "fit.json")
    with pytest.warns(UserWarning, match="refits need"):
        again = load(tmp_path / "fit.json")
    for one in (fit, again):
        value, error = one.derived["b_fwhm"]
        report = one.report()
        assert f"b_fwhm:   {value:.8g} +/- {error:.6g} (" in report
        assert "(tied: 2 * a_sigma)" in report
        assert "(tied)" in report  # a function has no equation
        assert "tied: 2 * a_sigma" in one._repr_html_()
        assert "b_fwhm" in one._repr_html_()
        record = one.to_dict()
        assert record["parameters"]["b_sigma"]["tie"] == "2 * a_sigma"
        assert "tie" not in record["parameters"]["b_center"]
        assert record["derived"]["b_fwhm"] == {"value": value, "stderr": error}


def test_equations_of_several_data_sets_name_the_parameters_of_the_fit() -> None:
    tied = (models.Gaussian("a") + models.Gaussian("b")).with_ties("b_sigma = pi * a_sigma")
    y = noisy(tied, a_amplitude=3, a_center=3, a_sigma=0.4, b_amplitude=2, b_center=7)
    report = curve_fit(tied, [X, X], [y, y], shared=["a_center"]).report()
    assert "(tied: pi * a_sigma[0])" in report
    assert "(tied: pi * a_sigma[1])" in report


def test_functions_derive_nothing() -> None:
    fit = curve_fit(lambda x, a, b: a * x + b, X, 2 * X + 1 + 0.1 * np.sin(X))
    assert fit.derived == {}
    assert "Derived" not in fit.report()
