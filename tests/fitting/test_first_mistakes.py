"""The first mistakes that anybody makes with models, each answered in words that help."""

import math
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import lmfit
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import OptimizeWarning

import lmtorch
from lmtorch import InputError, NotConvergedError, curve_fit, least_squares, models, odr

from .setting import decay

X = np.linspace(0, 10, 60)
PEAKS = models.Gaussian("a") + models.Gaussian("b") + models.Linear("bg")
TRUTH = (6.0, 3.0, 0.4, 4.0, 7.0, 0.6, 0.3, 1.0)
Y = PEAKS(X, *TRUTH)
TABLE = pd.DataFrame({"energy": X, "counts": Y})
T = np.linspace(0, 4, 20)
Z = 2.0 * np.exp(-T)


class Rise(models.Model):
    parameters = ("slope",)

    @staticmethod
    def formula(x: Any, slope: Any) -> Any:
        return slope * x


EITHER = "Is 'a_center' or 'b_center' meant?"
MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    # a name without its prefix, or with a typing error
    "p0": (lambda: curve_fit(PEAKS, X, Y, p0={"center": 3}), EITHER),
    "bounds": (lambda: curve_fit(PEAKS, X, Y, bounds={"center": (1, 5)}), EITHER),
    "fixed": (lambda: curve_fit(PEAKS, X, Y, fixed={"center": 3}), EITHER),
    "ties": (lambda: curve_fit(PEAKS, X, Y, ties={"b_sigm": "a_sigma"}), "Is 'b_sigma' meant?"),
    "tie": (lambda: curve_fit(PEAKS, X, Y, ties=["b_sigma = a_sgma"]), "Is 'a_sigma' meant?"),
    "shared": (lambda: curve_fit(PEAKS, [X, X], [Y, Y], shared=["center"]), EITHER),
    "p0 of sets": (
        lambda: curve_fit(PEAKS, [X, X], [Y, Y], shared=["bg_slope"], p0={"a_centr": 3}),
        "Is 'a_center' meant?",
    ),
    "p0 of a module": (
        lambda: curve_fit(torch.nn.Linear(1, 1), X[:, None], Y, p0={"weigth": [[1.0]]}),
        "Is 'weight' meant?",
    ),
    "with_bounds": (lambda: PEAKS.with_bounds(center=(1, 5)), EITHER),
    "call": (lambda: PEAKS(X, center=3), EITHER),
    "item": (lambda: curve_fit(PEAKS, X, Y)["center"], EITHER),
    "profile": (lambda: curve_fit(PEAKS, X, Y).profile(["center"]), EITHER),
    "nothing near": (lambda: curve_fit(decay, T, Z, p0={"wxyz": 3}), r"\['a', 'b', 'c'\]\.$"),
    # arguments
    "option": (
        lambda: curve_fit(PEAKS, X, Y, absolutesigma=True),
        "curve_fit has no option 'absolutesigma'. Is 'absolute_sigma' meant?",
    ),
    "option of least_squares": (lambda: curve_fit(PEAKS, X, Y, max_nfevs=9), "Is 'max_nfev' meant"),
    "yerr": (lambda: curve_fit(PEAKS, X, Y, yerr=0.1), "Is 'sigma' meant?"),
    "lb": (lambda: curve_fit(PEAKS, X, Y, lb=[0] * 8), "Is 'bounds' meant?"),
    "maxiter": (lambda: curve_fit(PEAKS, X, Y, maxiter=9), "Is 'max_nfev' meant?"),
    "robust": (lambda: curve_fit(PEAKS, X, Y, robust=True), "Is 'loss' meant?"),
    "device": (lambda: curve_fit(PEAKS, X, Y, device="cuda"), "tensors of that device"),
    "options": (lambda: curve_fit(PEAKS, X, Y, options={}), "each option by its name"),
    "bisquare": (lambda: curve_fit(PEAKS, X, Y, loss="bisquare"), "bisquare is 'tukey'"),
    "loss of counts": (lambda: curve_fit(PEAKS, X, Y, loss="poisson"), "likelihood='poisson'"),
    "a vector": (
        lambda: curve_fit(lambda x, p: p[0] * torch.exp(-p[1] * x), T, Z, [1, 1]),
        "write f(x, *p)",
    ),
    "derived": (
        lambda: curve_fit(PEAKS, X, Y)["a_fwhm"],
        "It is derived: fit.derived['a_fwhm']",
    ),
    "turned": (lambda: curve_fit(PEAKS, X, np.stack([Y, Y], 1)), "Turn y about, y.T."),
    "start as an option": (
        lambda: curve_fit(PEAKS, X, Y, a_center=3),
        "A start goes into a dict, p0={'a_center': ...}",
    ),
    "f last": (lambda: curve_fit(X, Y, PEAKS), "It comes first, curve_fit(f, xdata, ydata)"),
    "two names": (
        lambda: curve_fit(PEAKS, X, Y).confidence_region("a_center", "a_sigma"),
        'in brackets, as in confidence_region(("a", "b"))',
    ),
    "lengths": (lambda: curve_fit(decay, T, Z[1:]), "Have xdata and ydata one length?"),
    "errors in x": (lambda: curve_fit(PEAKS, X, Y, sx=0.1), "Errors in x are for odr"),
    "data=": (lambda: curve_fit(PEAKS, X, Y, data=TABLE), "Give columns of a table"),
    "xerr of odr": (lambda: odr(decay, T, Z, xerr=0.1), "odr has no option 'xerr'. Is 'sx' meant?"),
    "yerr of odr": (lambda: odr(decay, T, Z, yerr=0.1), "Is 'sy' meant?"),
    "maxit of odr": (lambda: odr(decay, T, Z, maxit=10), "Is 'max_nfev' meant?"),
    "typing error in odr": (lambda: odr(decay, T, Z, bound=1), "Is 'bounds' meant?"),
    "nan_policy of odr": (lambda: odr(decay, T, Z, nan_policy="omit"), "numpy.ma.masked_invalid"),
    "sides": (
        lambda: curve_fit(decay, T, Z, [1, 1, 1], [0, 0, 0], [9, 9, 9]),
        "give bounds=([0, 0, 0], [9, 9, 9])",
    ),
    "curve and Jacobian": (
        lambda: curve_fit(lambda x, a: (a * x, torch.ones(20, 1)), T, Z),
        "it must return the curve alone",
    ),
    "parameters of lmfit": (
        lambda: curve_fit(decay, T, Z, lmfit.create_params(a=1, b=1, c=0)),
        "Give p0=params.valuesdict()",
    ),
    "model of lmfit": (
        lambda: curve_fit(lmfit.models.GaussianModel(), T, Z),
        "write lmtorch.models.Gaussian()",
    ),
    "errors of one": (
        lambda: curve_fit(decay, T, Z, sigma=[0.1] * 19 + [np.nan]),
        "1 of them, first at (19,)",
    ),
    # a class in place of a model
    "class": (lambda: curve_fit(models.Gaussian, X, Y), "write Gaussian(), or with a prefix"),
    "class with p0": (
        lambda: curve_fit(models.Gaussian, X, Y, p0=[1, 2, 3]),
        "write Gaussian(), or with a prefix",
    ),
    "class in a sum": (lambda: models.Gaussian("a") + models.Linear, "Linear is a class of models"),
    # data
    "table": (lambda: curve_fit(PEAKS, TABLE[["energy"]], TABLE["counts"]), "give a column"),
    "table for a function": (
        lambda: curve_fit(lambda x, a: a * torch.exp(-x), TABLE[["energy"]], TABLE["counts"]),
        "a column of a table",
    ),
    "dates": (
        lambda: curve_fit(PEAKS, pd.date_range("2020", periods=60), Y),
        "datetime64.*of dates numbers",
    ),
    "one coordinate": (lambda: curve_fit(models.Gaussian2D(), X, Y), "no points of two coord"),
    "one coordinate and p0": (
        lambda: curve_fit(models.Gaussian2D(), X, Y, p0=[1, 1, 1, 1, 1]),
        "no points of two coord",
    ),
    "rule": (lambda: PEAKS.with_bounds((1, 5)), "give them by name"),
    "degree": (lambda: models.Polynomial(2), "as in Polynomial(degree=2)"),
    "value": (lambda: Rise("a", slope=2.0), "['slope'] are parameters of Rise"),
    "array": (lambda: models.voigt_profile(X, 1.0, 0.5), "of an array make one"),
}


def _pattern(words: str) -> str:
    """The words as they are, unless they are a pattern already."""
    return words if "\\" in words or ".*" in words else re.escape(words)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_first_mistake_is_answered(mistake: str) -> None:
    make, words = MISTAKES[mistake]
    with pytest.raises(InputError, match=_pattern(words)):
        make()


def test_a_name_of_no_option_is_a_type_error_as_python_has_it() -> None:
    with pytest.raises(TypeError, match="no option 'tolerance'"):
        curve_fit(decay, T, Z, tolerance=1e-3)


def test_names_of_lmfits_models_are_answered() -> None:
    with pytest.raises(AttributeError, match=r"write models\.Gaussian"):
        _ = models.GaussianModel  # type: ignore[attr-defined] # it is not there
    with pytest.raises(AttributeError, match=r"no attribute 'Gausian'$"):
        _ = models.Gausian  # type: ignore[attr-defined] # it is not there


@pytest.mark.slow  # a search among many starts
def test_a_response_without_its_upper_level_is_answered() -> None:
    with pytest.raises(NotConvergedError, match=r"top \(from .*ec50 \(from .*still grew"):
        curve_fit(models.Hill(), [0.01, 0.03, 0.1, 0.3, 1.0], [5, 6, 9, 16, 40.0])


def test_functions_of_math_are_named_beside_their_error() -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        curve_fit(lambda x, a, b: a * math.exp(-b * x), T, Z)
    assert "torch.exp in place of math.exp" in "".join(caught.value.__notes__)


def test_an_error_of_the_function_itself_comes_out_as_it_was() -> None:
    def broken(x: Any, a: Any) -> Any:
        return x.nothing * a

    with pytest.raises(AttributeError, match="nothing") as caught:
        curve_fit(broken, T, Z)
    assert not isinstance(caught.value, InputError)


def test_none_is_an_open_end_of_bounds() -> None:
    fit = curve_fit(PEAKS, X, Y, bounds={"a_center": (None, 5), "b_center": (5, None)})
    assert np.allclose(fit.popt, TRUTH)
    closed = curve_fit(decay, T, Z, bounds={"a": (None, 1.5)})
    assert closed["a"] == pytest.approx(1.5)


def test_rules_are_taken_from_dicts_as_in_the_call() -> None:
    by_dict = (
        PEAKS.with_bounds({"a_center": (1, 5)})
        .with_fixed({"bg_slope": 0.3}, "bg_intercept")
        .with_ties({"b_sigma": "1.5 * a_sigma"})
        .with_start({"a_sigma": 0.5})
    )
    by_name = (
        PEAKS.with_bounds(a_center=(1, 5))
        .with_fixed("bg_intercept", bg_slope=0.3)
        .with_ties(b_sigma="1.5 * a_sigma")
        .with_start(a_sigma=0.5)
    )
    assert by_dict.to_spec() == by_name.to_spec()


@pytest.fixture
def warnings_each_time() -> Iterator[None]:
    """Torch warns of some things once in a process; here each time."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.mark.usefixtures("warnings_each_time")
def test_columns_of_a_table_are_taken_without_a_warning() -> None:
    x, y = TABLE["energy"].to_numpy().view(), TABLE["counts"].to_numpy().view()
    x.flags.writeable = y.flags.writeable = False  # as pandas gives them from version 3 on
    assert np.array_equal(PEAKS(x, *TRUTH), Y)
    assert set(PEAKS.components(x, *TRUTH)) == {"a", "b", "bg"}
    decaying = models.Gaussian("a") + (lambda x, k: torch.exp(-k * x))
    assert decaying(x, *TRUTH[:3], 1.0).shape == x.shape
    assert curve_fit(PEAKS, x, y).success


def test_a_folder_that_is_not_there_is_named(tmp_path: Any) -> None:
    fit = curve_fit(decay, T, Z, p0=[1, 1, 1])
    with pytest.raises(FileNotFoundError, match="there is no folder to save in") as caught:
        fit.save(tmp_path / "missing" / "fit.json")
    assert caught.value.filename == str(tmp_path / "missing")
    fit.save(tmp_path / "fit.json")
    assert lmtorch.load(tmp_path / "fit.json", f=decay)["a"] == fit["a"]


def test_absolute_errors_without_sigma_are_told_what_they_are_of() -> None:
    """scipy 12584: absolute_sigma=True with no sigma takes it for one, and says nothing."""
    x = np.arange(6.0)
    y = np.array([1.0, 2.0, 2.9, 4.0, 5.2, 5.9])
    for _ in range(3):  # a fit that is remembered tells as well
        with pytest.warns(OptimizeWarning, match="standard deviation is 1"):
            told = curve_fit(lambda x, a, b: a * x + b, x, y, absolute_sigma=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = curve_fit(lambda x, a, b: a * x + b, x, y, sigma=1, absolute_sigma=True)
        curve_fit(lambda x, a, b: a * x + b, x, y, absolute_sigma=False)
        counts = curve_fit(
            lambda x, a, b: a * x + b, x, np.round(y), likelihood="poisson", absolute_sigma=True
        )
    np.testing.assert_allclose(told.pcov, said.pcov, rtol=1e-12)
    assert np.isfinite(counts.pcov).all()


def test_bounds_in_the_order_of_lsqnonlin_are_told_how_to_be_given() -> None:
    def apart(x: Any) -> Any:
        return torch.stack([x[0] - 1, x[1] - 2])

    low, high = [-1.0, -1.0], [5.0, 5.0]
    for sides in ((low, high), (np.array(low), np.array(high)), (torch.tensor(low), high)):
        with pytest.raises(InputError, match=r"lsqnonlin has there, write bounds=\("):
            least_squares(apart, [0.0, 0.0], *sides)
    with pytest.raises(InputError, match=r"bounds=\(\[-1.0, -1.0\], upper\)"):
        least_squares(apart, [0.0, 0.0], low)
    with pytest.raises(InputError, match="there are no bounds without"):
        least_squares(apart, [0.0, 0.0], [], [])
    with pytest.raises(InputError, match=r"write bounds=\(0, 5\)"):
        least_squares(apart, [1.0, 1.0], 0, 5)
