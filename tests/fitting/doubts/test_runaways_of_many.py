"""A fit of a batch whose parameter has run away says so, as a single fit does."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.optimize import OptimizeWarning

from lmtorch import CurveFit, Status, curve_fit
from lmtorch.fitting.doubts import runaways_of_many as many
from lmtorch.xarray import curvefit

X = np.arange(27.0)
START = [0.5, -0.5, 0.5]
AWAY = "a parameter ran away"


def logistic(x: Any, b: Any, c: Any, d: Any) -> Any:
    return b / (1 + torch.exp(-(c + d * x)))


def saturation(x: Any, most: Any, half: Any) -> Any:
    return most * x / (half + x)


def curves(steps: tuple[int, ...], count: int) -> np.ndarray:
    """Sigmoids of known width, and steps, which are sigmoids of no width at all."""
    rng = np.random.default_rng(0)
    middle = rng.uniform(10, 16, (count, 1))
    y = 1.1 / (1 + np.exp(-(X - middle) / 2)) + 0.02 * rng.standard_normal((count, 27))
    for place in steps:
        y[place] = 1.1 * (X > 15.5) + 0.02 * rng.standard_normal(27)
    return y


def told(y: Any, *given: Any, **options: Any) -> tuple[CurveFit, list[str]]:
    """The fits, and what was said of them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fits = curve_fit(*given, y, **options)
    return fits, [str(one.message) for one in caught if one.category is OptimizeWarning]


def test_steps_among_sigmoids_have_run_away() -> None:
    """The oracle is the single fit, which has its own test in `test_users_failures.py`."""
    y = curves((3, 8, 11, 12, 20), 30)
    rows = [0, 3, 8, 12]
    alone = [told(y[place], logistic, X, p0=START) for place in rows]
    away = [any("ran away" in text for text in words) for _, words in alone]
    assert sum(away) == 2
    for _ in range(2):
        fits, said = told(y[rows], logistic, X, p0=START)
        assert (fits.status == Status.RUNAWAY).tolist() == away
        assert fits.success.all()
        assert len(said) == 1
        assert "in 2 of 4 fits a parameter ran away (c, d; fits 2, 3; " in said[0]
    for place, (fit, _) in enumerate(alone):
        assert (fit.status is Status.RUNAWAY) == away[place]
        assert fits.message[place].startswith(Status.RUNAWAY.message) == away[place]
        assert fits.at(place).message == fits.message[place]
        assert fits.at(place).status is (Status.RUNAWAY if away[place] else fit.status)
    assert Status.RUNAWAY.message in fits.report()


def test_steps_have_run_away_in_a_compiled_fit_too() -> None:
    y = curves((3, 8, 11, 12, 20), 30)
    eager, _ = told(y, logistic, X, p0=START)
    compiled, said = told(y, logistic, X, p0=START, compile=True)
    assert {8, 12, 20} <= set(np.flatnonzero(eager.status == Status.RUNAWAY))
    np.testing.assert_array_equal(compiled.status == Status.RUNAWAY, eager.status == Status.RUNAWAY)
    assert any(AWAY in text for text in said)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_places_of_an_image_are_told_by_row_and_column(kind: Any) -> None:
    y = curves((3, 8), 12)
    y[[7, 8]] = y[[8, 7]]
    fits, said = told(kind(y.reshape(3, 4, 27)), logistic, X, p0=START)
    assert int(fits.status[1, 3]) == Status.RUNAWAY
    assert int((fits.status == int(Status.RUNAWAY)).sum()) == 1
    assert "in 1 of 12 fits" in said[0]
    assert "fits (1, 3);" in said[0]


def saturations(count: int, straight: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Curves of a half between 20 and 30, and straight lines, whose half is infinite."""
    rng = np.random.default_rng(1)
    x = np.linspace(0.5, 100, 40)
    half = rng.uniform(20, 30, (count, 1))
    y = 50 * x / (half + x) + 0.1 * rng.standard_normal((count, 40))
    y[list(straight)] = 0.5 * x + 0.1 * rng.standard_normal((len(straight), 40))
    return x, y


@pytest.mark.parametrize("share", ["few", "all"])
def test_from_a_start_that_is_far_from_all_fits_the_same_are_told(share: str) -> None:
    """All fits go far, so that J is made of a sample: the oracle is J of every fit."""
    count = 72  # more than a sample
    straight = tuple(range(0, count, 8 if share == "few" else 1))
    x, y = saturations(count, straight)
    fits, said = told(y, saturation, x, p0=[1.0, 1.0])
    expected = (fits.stderr > 1e3 * abs(fits.popt)).any(-1) & fits.success
    assert 0 < expected.sum() <= len(straight)
    np.testing.assert_array_equal(fits.status == Status.RUNAWAY, expected)
    assert f"in {expected.sum()} of 72 fits" in said[0]


def test_of_fits_that_stay_near_their_start_no_jacobian_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*given: Any) -> Any:
        raise AssertionError("J was made")

    monkeypatch.setattr(many, "_looked", never)
    fits, said = told(curves((), 30), logistic, X, p0=[1.0, -5.0, 0.5])
    assert not said
    assert (fits.status != Status.RUNAWAY).all()
    assert fits.success.all()


def test_of_many_fits_far_from_their_start_a_sample_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked, asked = many._looked, []

    def counting(fitter: Any, solution: Any, far: Any, rows: Any) -> Any:
        asked.append(len(rows))
        return looked(fitter, solution, far, rows)

    monkeypatch.setattr(many, "_looked", counting)
    x, y = saturations(1000, ())
    fits, said = told(y, saturation, x, p0=[1.0, 1.0])
    assert not said
    assert fits.success.all()
    assert 0 < sum(asked) <= many.SAMPLE


def test_a_variable_at_its_bound_has_not_run_away() -> None:
    x, y = saturations(6, (3,))
    fits, said = told(y, saturation, x, p0=[1.0, 1.0], bounds=(0, [1e9, 1e3]))
    assert fits.solution.active_mask[3, 1] == 1
    assert not said
    assert (fits.status != Status.RUNAWAY).all()


def test_pixels_that_have_run_away_have_a_status_and_no_warning() -> None:
    y = curves((3, 8), 12)
    x, start = X, {"b": 0.5, "c": -0.5, "d": 0.5}
    da = xr.DataArray(y.reshape(3, 4, len(x)), dims=("y", "x", "t"), coords={"t": x})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = curvefit(da, "t", logistic, p0=start)
    status = fit.curvefit_status
    gone = status.values.reshape(-1) == Status.RUNAWAY
    plain, said = told(y, logistic, x, p0=START)
    np.testing.assert_array_equal(gone, plain.status == Status.RUNAWAY)
    assert gone.any()
    assert any(AWAY in text for text in said)
    meanings = status.attrs["flag_meanings"].split()
    number = status.attrs["flag_values"].tolist().index(Status.RUNAWAY)
    assert meanings[number] == "converged_runaway"


@pytest.mark.filterwarnings("ignore:top .* ran away")
def test_beyond_infinity_where_a_curve_is_undefined_nothing_is_looked_for() -> None:
    """A Hill curve whose data are a straight line: k goes to infinity, and (−k)^n is no number."""
    x = np.linspace(0.1, 5.1, 60)

    def hill(x: Any, top: Any, k: Any, n: Any) -> Any:
        return top * x**n / (k**n + x**n)

    y = 0.1 * x + 0.02 * np.random.default_rng(1).standard_normal(60)
    assert curve_fit(hill, x, y, p0=[1, 1, 1.5]).status is Status.RUNAWAY
