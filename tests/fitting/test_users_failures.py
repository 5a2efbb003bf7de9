"""What users of other packages have reported, tried here as they would.

Each test names the report. The numbers come from the reports, from scipy, or from certified values.
"""

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeWarning

from lmtorch import FallbackWarning, InputError, NotConvergedError, curve_fit, models, odr
from tests.nist import PROBLEMS

# https://github.com/scipy/scipy/issues/5980
STEP_X = np.arange(27.0)
STEP_Y = np.zeros(27)
STEP_Y[5] = 0.26899724779580747
STEP_Y[16:] = [
    0.7596293832300737, 1.2214165441700262, 1.044997340851686, 0.7705897033203687,
    1.280988851538506, 1.4403870545862594, 1.439644250890874, 1.280013863325763,
    0.9349706185969648, 0.7035165962457238, 0.914155421686925,
]  # fmt: skip


def decay(x: Any, a: Any, k: Any) -> Any:
    return a * torch.exp(-k * x)


def logistic(x: Any, b: Any, c: Any, d: Any) -> Any:
    return b / (1 + torch.exp(-(c + d * x)))


def lanczos() -> tuple[Any, Any]:
    problem = PROBLEMS["Lanczos3"]
    return np.asarray(problem.x), np.asarray(problem.y)


def test_a_step_that_is_infinitely_steep_is_told() -> None:
    """scipy 5980: pcov of 1e16 and no word about it."""
    with pytest.warns(OptimizeWarning, match=r"c \(from 0.5 to .*, d \(from .* ran away"):
        fit = curve_fit(logistic, STEP_X, STEP_Y, p0=[0.5, 0.5, 0.5])
    assert fit["b"] == pytest.approx(1.10306802, rel=1e-6)  # scipy's, in the report


def test_the_same_step_is_told_again_where_the_kind_of_fit_is_remembered() -> None:
    gentle = 1.1 / (1 + np.exp(-(STEP_X - 14) / 2)) + 0.02 * np.cos(7 * STEP_X)
    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            curve_fit(logistic, STEP_X, gentle, p0=[0.5, -0.5, 0.5])
    with pytest.warns(OptimizeWarning, match="ran away"):
        curve_fit(logistic, STEP_X, STEP_Y, p0=[0.5, -0.5, 0.5])


def test_a_decay_time_is_found_on_the_other_side_of_infinity() -> None:
    """From the guess a term grows: its decay went to -4e7, where the cost was 3.7 times as high."""
    fit = curve_fit(models.Biexponential("b") + models.Exponential("e"), *lanczos())
    certified = PROBLEMS["Lanczos3"].certified.reshape(3, 2)
    found = np.array([
        [fit["e_amplitude"], 1 / fit["e_decay"]],
        [fit["b_amplitude2"], 1 / fit["b_decay2"]],
        [fit["b_amplitude1"], 1 / fit["b_decay1"]],
    ])  # fmt: skip
    np.testing.assert_allclose(found, certified.numpy(), rtol=1e-6)
    assert fit.chisqr == pytest.approx(float(PROBLEMS["Lanczos3"].certified_rss), rel=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_growth_is_found_from_the_start_of_a_decay(seed: int) -> None:
    x = np.linspace(0, 1, 40)
    y = 2 * np.exp(x / 3) + 0.05 * np.random.default_rng(seed).standard_normal(40)
    fit = curve_fit(lambda x, a, t: a * torch.exp(-x / t), x, y, p0=[1, 1])
    assert abs(fit["t"] + 3) < 4 * fit.stderr[1]


def test_a_parameter_that_is_zero_within_its_error_has_not_run_away() -> None:
    """scipy 21995: where popt has zeros, pcov was wrong or missing."""
    x = np.linspace(-1, 1, 20)
    expected = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for a, b in ((1, 0), (0, 1), (1, 1)):
            y = a + b * x**2 + 0.01 * np.cos(40 * x)  # without a pattern
            fit = curve_fit(lambda x, a, b: a + b * x**2, x, y)
            expected = fit.pcov if expected is None else expected
            np.testing.assert_allclose(fit.pcov, expected, rtol=1e-8)


@pytest.mark.parametrize("model", [decay, models.Exponential()], ids=["own", "library"])
def test_times_since_1970_are_told_to_begin_at_zero(model: Any) -> None:
    t = 1.6e9 + 60.0 * np.arange(100)
    y = 2 * np.exp(-(t - t[0]) / 1000)
    p0 = [2.0, 1e-3] if model is decay else None
    with pytest.raises(NotConvergedError, match=r"x runs from 1600000000 to .*Fit x - x\[0\]"):
        curve_fit(model, t, y, p0)
    p0 = [1.0, 1e-3] if model is decay else None
    assert curve_fit(model, t - t[0], y, p0).success


@pytest.mark.parametrize("p0", [None, [1.0] * 4])
@pytest.mark.parametrize("begun", [1e8, 1.7e9])
def test_a_cubic_of_times_since_1970_is_round_off_and_told_so(begun: float, p0: Any) -> None:
    """https://stackoverflow.com/questions/73814378: x of 1.7e9. A success that was off by 1e11.

    A model that is linear was believed at any cost, as it has one minimum alone.
    """
    t = np.linspace(0, 4, 40)
    y = np.exp(-t) + 0.5 + 0.02 * np.random.default_rng(0).standard_normal(40)

    def cubic(x: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        return a + b * x + c * x**2 + d * x**3

    with pytest.warns(OptimizeWarning) as told:
        fit = curve_fit(cubic, begun + t, y, p0=p0)
    assert not fit.success or fit.rsquared > 0
    said = " ".join(str(one.message) for one in told)
    assert "made of terms that cancel to round-off" in said
    assert "Fit x - x[0]" in said
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert curve_fit(cubic, t, y, p0=p0).rsquared > 0.98  # and data that are met need nothing
        assert curve_fit(cubic, 2020 + t, cubic(t, 1, 2, 3, 4.0), p0=p0).success


def test_peaks_far_from_zero_need_nothing() -> None:
    t = 1.6e9 + 60.0 * np.arange(100)
    y = 2 * np.exp(-0.5 * ((t - t[0] - 3000) / 500) ** 2) + 1
    fit = curve_fit(models.Gaussian() + models.Constant(), t, y)
    assert fit["center"] - t[0] == pytest.approx(3000, abs=1e-3)
    assert fit["sigma"] == pytest.approx(500, rel=1e-5)


def test_tiny_units_are_no_hindrance() -> None:
    """astropy 6269: fluxes of 1e-44 were not fitted."""
    rng, unit, x = np.random.default_rng(0), 1e-44, np.linspace(1, 2, 100)
    y = 1.2 * np.exp(-0.5 * ((x - 1.4) / 0.11) ** 2) + 0.1 * rng.standard_normal(100)
    small, plain = (curve_fit(models.Gaussian(), x, y * u) for u in (unit, 1.0))
    np.testing.assert_allclose(small.popt / [unit, 1, 1], plain.popt, rtol=1e-6)
    np.testing.assert_allclose(small.stderr / [unit, 1, 1], plain.stderr, rtol=1e-6)


def test_one_number_serves_as_all_of_y() -> None:
    """scipy 7018: the covariance could not be estimated."""
    x = np.arange(10.0)
    target = torch.from_numpy(4.7 * x**2 + 3.5 * x + 0.1 * np.cos(5 * x))
    given = (0, np.zeros(10))
    one, other = (
        curve_fit(lambda x, a, b: a * x**2 + b * x - target, x, y, p0=[1, 1]) for y in given
    )
    np.testing.assert_array_equal(one.pcov, other.pcov)
    assert np.isfinite(one.pcov).all()


def test_one_point_with_its_covariance_determines_one_parameter() -> None:
    """scipy 22377: an error."""
    fit = curve_fit(
        lambda x, a: a * x, np.array([2.0]), np.array([3.0]), sigma=np.array([[0.25]]),
        absolute_sigma=True,
    )  # fmt: skip
    assert fit["a"] == pytest.approx(1.5)
    assert fit.pcov[0, 0] == pytest.approx(0.25 / 4)


@pytest.mark.parametrize("x_type", [np.float32, np.int32, np.float64])
@pytest.mark.parametrize("y_type", [np.float32, np.int32, np.float64])
def test_types_of_the_data_do_not_stop_a_fit(x_type: type, y_type: type) -> None:
    """scipy 9581 and 7117, lmfit 617: parameters stayed at their start."""
    x = np.arange(100).astype(x_type)
    y = (2 * np.arange(100) + 7).astype(y_type)
    fit = curve_fit(lambda x, a, b: a + b * x, x, y, p0=[3, 5])
    np.testing.assert_allclose(fit.popt, [7, 2], rtol=1e-5)


def test_zero_is_an_upper_bound() -> None:
    """lmfit 207: a division by zero."""
    x = np.linspace(0, 3, 40)
    fit = curve_fit(decay, x, -2 * np.exp(-x), p0=[-1, 1], bounds={"a": (-5, 0)})
    assert fit["a"] == pytest.approx(-2, rel=1e-8)


def test_an_error_at_a_bound_is_left_out_and_told() -> None:
    """lmfit 148 and 537, PAHFIT 149, kafe2 234: zero, NaN, or no errors at all."""
    rng, x = np.random.default_rng(0), np.linspace(0, 3, 40)
    y = 2 * np.exp(-x) + 0.02 * rng.standard_normal(40)
    fit = curve_fit(
        lambda x, a, k, c: a * torch.exp(-k * x) + c, x, y, p0=[1, 1, 0.1], bounds={"c": (0.05, 1)}
    )
    held = curve_fit(lambda x, a, k: a * torch.exp(-k * x) + 0.05, x, y, p0=[1, 1])
    assert "at its bound" in fit.report()
    np.testing.assert_allclose(fit.popt[:2], held.popt, rtol=1e-7)


def test_errors_in_another_unit_than_the_data_are_converted() -> None:
    units = pytest.importorskip("astropy.units")
    x = np.linspace(0, 3, 20)
    y = 2 * np.exp(-x) + 0.01 * np.cos(9 * x)
    plain = curve_fit(decay, x, y, sigma=np.full(20, 0.01), absolute_sigma=True)
    fit = curve_fit(
        decay, x * units.s, y * units.Jy, sigma=np.full(20, 10.0) * units.mJy, absolute_sigma=True
    )
    np.testing.assert_allclose(fit.stderr, plain.stderr, rtol=1e-12)
    with pytest.raises(InputError, match="sigma is in m and ydata in Jy"):
        curve_fit(decay, x, y * units.Jy, sigma=np.full(20, 10.0) * units.m)
    seconds, milliseconds = 0.05, 50.0 * units.ms
    one = odr(decay, x, y, sx=seconds, sy=0.01)
    other = odr(decay, x * units.s, y, sx=milliseconds, sy=0.01)
    np.testing.assert_allclose(other.stderr, one.stderr, rtol=1e-9)
    with pytest.raises(InputError, match="sx is in m and x in s"):
        odr(decay, x * units.s, y, sx=0.05 * units.m, sy=0.01)


def test_a_start_of_zeros_that_cancel_is_told() -> None:
    """At (0, 0) the gradient and all columns vanish: a saddle, from which a fit may go anywhere."""
    x = np.linspace(0, 5, 30)
    y = 2 * (1 - np.exp(-1.3 * x)) + 0.01 * np.cos(9 * x)
    with pytest.warns(OptimizeWarning, match="All parameters start at zero"):
        fit = curve_fit(lambda x, a, b: b * (1 - torch.exp(-a * x)), x, y, p0=[0, 0])
    assert not fit.success


def test_names_of_lmfit_are_answered() -> None:
    x = np.linspace(0, 3, 20)
    model = models.Exponential()
    fit = curve_fit(model, x, 2 * np.exp(-x))
    for thing, names in (
        (fit, ("best_values", "fit_report", "conf_interval", "covar", "eval", "perr", "x")),
        (fit, ("residuals", "cov", "correl", "chi2", "r2", "summary", "confint", "to_latex")),
        (model, ("fit", "make_params", "eval", "param_names", "set_param_hint")),
    ):
        for name in names:
            with pytest.raises(AttributeError, match=f"{name}.*: write "):
                getattr(thing, name)
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        _ = fit.nothing
    assert not hasattr(model, "fit")
    again = pickle.loads(pickle.dumps(fit))
    assert again["decay"] == fit["decay"]
    assert copy.copy(model).names == model.names


def test_a_fit_is_a_start_of_its_neighbour() -> None:
    x = np.linspace(0, 10, 80)
    noise = 0.02 * np.random.default_rng(0).normal(size=(3, 80))
    y = 2 * np.exp(-((x - [[4.0], [4.2], [4.4]]) ** 2)) + noise

    def peak(x: Any, height: Any, center: Any, width: Any) -> Any:
        return height * torch.exp(-(((x - center) / width) ** 2))

    before = curve_fit(peak, x, y[0], p0=[1, 5, 1])
    after = curve_fit(peak, x, y[1], p0=before)
    np.testing.assert_array_equal(after.popt, curve_fit(peak, x, y[1], p0=before.popt).popt)
    fits = curve_fit(peak, x, y, p0=before)
    again = curve_fit(peak, x, y, p0=fits)
    np.testing.assert_allclose(again.popt, fits.popt, rtol=1e-7)
    assert (again.nfev <= fits.nfev).all()


def test_an_attribute_error_within_a_property_is_heard() -> None:
    class Own(models.Model):
        parameters = ("a",)

        @property
        def fit(self) -> Any:
            return self.missing_thing

    with pytest.raises(AttributeError, match="missing_thing"):
        _ = Own().fit


def test_scipys_order_and_data_of_odr_are_answered() -> None:
    x = np.linspace(0, 3, 20)

    def curve(beta: Any, x: Any) -> Any:
        return beta[0] * torch.exp(-beta[1] * x)

    with pytest.raises(InputError, match=r"make lambda x, \*beta: f\(beta, x\)"):
        odr(curve, x, 2 * np.exp(-x), [1.0, 1.0])
    fit = odr(lambda x, *beta: curve(beta, x), x, 2 * np.exp(-x), [1.0, 1.0])
    np.testing.assert_allclose(fit.popt, [2, 1], rtol=1e-8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = pytest.importorskip("scipy.odr")
    with pytest.raises(InputError, match=r"a RealData of scipy\.odr: give its arrays"):
        odr(lambda x, a: a * x, theirs.RealData(x, x), None, [1.0])


def test_complex_data_are_fitted_as_real_and_imaginary_parts() -> None:
    w = np.logspace(0, 4, 40)
    z = 10 + 100 / (1 + 1j * w * 1e-3)

    def parts(w: Any, r: Any, s: Any, t: Any) -> Any:
        z = r + s / (1 + 1j * w * t)
        return torch.cat([z.real, z.imag])

    with pytest.raises(InputError, match=r"give numpy.concatenate\(\[z.real, z.imag\]\)"):
        curve_fit(parts, w, z, p0=[5, 50, 1e-2])
    with pytest.raises(InputError, match=r"return torch.cat\(\[z.real, z.imag\]\)"):
        curve_fit(lambda w, r, t: r / (1 + 1j * w * t), w, z.real, p0=[5, 1e-2])
    fit = curve_fit(parts, w, np.concatenate([z.real, z.imag]), p0=[8, 80, 1e-3])
    np.testing.assert_allclose(fit.popt, [10, 100, 1e-3], rtol=1e-8)


def test_an_image_of_a_star_is_fitted_through_a_function_without_a_derivative() -> None:
    """astropy 11946. Torch takes J₁ for a constant, and the share of 1/r alone was a gradient."""
    x, y = (part.ravel() for part in np.meshgrid(np.linspace(-5, 5, 20), np.linspace(-5, 5, 20)))

    def airy(at: Any, height: Any, x0: Any, y0: Any, radius: Any) -> Any:
        r = torch.sqrt((at[0] - x0) ** 2 + (at[1] - y0) ** 2) / (radius / 3.8317)
        return height * (2 * torch.special.bessel_j1(r) / r) ** 2

    true = [1.0, 0.3, -0.2, 2.0]
    z = airy(torch.from_numpy(np.stack([x, y])), *true).numpy()
    with pytest.warns(FallbackWarning, match=r"no derivative of torch.special.bessel_j1"):
        fit = curve_fit(airy, np.stack([x, y]), z, p0=[0.8, 0.05, 0.03, 1.5])
    np.testing.assert_allclose(fit.popt, true, rtol=1e-6)
