"""Functions of users' fields without p0: parameters of the size of their data are found.

From ones each of these fits ended at a minimum beside its data, or was refused.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeWarning

from lmtorch import InputError, curve_fit
from lmtorch.fitting.starts import unguessed

Case = tuple[Callable[..., Any], np.ndarray, list[float], float]


def randles(w: Any, solution: Any, transfer: Any, capacity: Any) -> Any:
    z = solution + transfer / (1 + 1j * w * transfer * capacity)
    return torch.cat([z.real, z.imag])


def bateman(t: Any, absorption: Any, elimination: Any, volume: Any) -> Any:
    left = torch.exp(-elimination * t) - torch.exp(-absorption * t)
    return 100 * absorption / (volume * (absorption - elimination)) * left


def gaussian(x: Any, height: Any, center: Any, sigma: Any, level: Any) -> Any:
    return height * torch.exp(-0.5 * ((x - center) / sigma) ** 2) + level


def step(t: Any, mass: Any, loss: Any, middle: Any, width: Any) -> Any:
    return mass - loss * torch.sigmoid((t - middle) / width)


def effect(x: Any, middle: Any, slope: Any, least: Any) -> Any:
    return least + (1 - least) / (1 + 10 ** ((x - middle) * slope))


CASES: dict[str, Case] = {
    "adsorption, pressures in Pa": (
        lambda p, q, k: q * k * p / (1 + k * p), np.linspace(0, 1e5, 20), [3.2, 4e-5], 0.01,
    ),
    "impedance, microfarads": (
        randles, 2 * np.pi * np.logspace(-1, 5, 50), [10, 100, 1e-5], 0.3,
    ),
    "absorption and elimination, equal at the start": (
        bateman, np.array([0.0, 0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 24]), [1.4, 0.15, 20], 0.03,
    ),
    "a line of a spectrum in angstroms": (
        gaussian, np.linspace(4000, 7000, 120), [50, 5900, 80, 10], 1.0,
    ),
    "a loss of mass": (step, np.linspace(300, 900, 100), [100, 30, 450, 12], 0.2),
    "doses as negative logarithms": (effect, np.linspace(4, 8, 9), [6.2, -1, 0.1], 0.02),
}  # fmt: skip


def drawn(case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
    f, x, true, noise = case
    curve = f(torch.from_numpy(x), *true).numpy()
    return curve, curve + noise * np.random.default_rng(seed).standard_normal(len(curve))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", CASES)
def test_a_curve_without_a_start_is_found(name: str, seed: int) -> None:
    f, x, _, noise = CASES[name]
    curve, y = drawn(CASES[name], seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = curve_fit(f, x, y)
    assert fit.success
    # the noise moves a fit of n parameters by σ√(n/m) on average; by three times that, hardly ever
    allowed = 3 * noise * np.sqrt(len(fit.popt) / len(y))
    assert np.sqrt(np.mean((fit.best_fit - curve) ** 2)) < allowed


def test_the_answer_does_not_depend_on_how_often_it_is_asked() -> None:
    f, x, *_ = CASES["adsorption, pressures in Pa"]
    _, y = drawn(CASES["adsorption, pressures in Pa"], 0)
    found = [curve_fit(f, x, y).popt for _ in range(12)]  # remembered from the third or ninth on
    for one in found[1:]:
        np.testing.assert_allclose(one, found[0], rtol=1e-9)


def test_a_remembered_fit_without_a_start_is_looked_at_as_well() -> None:
    def saturating(p: Any, q: Any, k: Any) -> Any:
        return q * k * p / (1 + k * p)

    x = np.linspace(0, 5, 20)
    for _ in range(10):
        curve_fit(saturating, x, 2 * x / (1 + x))
    y = 3e5 * 4e5 * x / (1 + 4e5 * x) + 1e-3 * np.cos(9 * x)  # from x = 0 on it is a step
    fit = curve_fit(saturating, x, y)
    assert fit["q"] == pytest.approx(3e5, rel=1e-5)


def test_a_wave_that_was_not_found_is_told_and_a_start_is_taken_at_its_word() -> None:
    x = np.linspace(0, 10, 200)
    noise = 0.2 * np.random.default_rng(0).standard_normal(200)
    y = 3 * np.sin(2 * np.pi * 2.3 * x + 0.4) + 1 + noise

    def wave(x: Any, a: Any, f: Any, p: Any, c: Any) -> Any:
        return a * torch.sin(2 * torch.pi * f * x + p) + c

    with pytest.warns(OptimizeWarning, match="No start was given, and another one may end at a"):
        curve_fit(wave, x, y)
    with pytest.warns(OptimizeWarning, match="the curve passes the data by"):
        given = curve_fit(wave, x, y, p0=[1, 1, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert curve_fit(wave, x, y, p0=[1, 2.31, 0.2, 1]).rsquared > 0.95
    assert given.rsquared < 0.1


def test_a_linear_model_that_misses_the_data_has_one_minimum_alone() -> None:
    asked = []

    def line(x: Any, a: Any, b: Any) -> Any:
        asked.append(1)
        return a + b * x

    x = np.linspace(0, 1, 50)
    with pytest.warns(OptimizeWarning, match="the curve passes the data by"):
        fit = curve_fit(line, x, np.sin(2 * np.pi * x) ** 2 + 3)
    assert fit.success
    assert fit.rsquared < 0.01
    assert len(asked) < 100  # 512 where starts are compared


def test_bounds_and_defaults_hold_for_other_starts() -> None:
    f, x, *_ = CASES["a line of a spectrum in angstroms"]
    _, y = drawn(CASES["a line of a spectrum in angstroms"], 0)
    seen: list[tuple[float, float]] = []

    def watched(x: Any, height: Any, center: Any, sigma: Any, level: Any = 9.0) -> Any:
        value = [getattr(v, "value", v) for v in (center, sigma)]
        seen.append(
            (float(torch.as_tensor(value[0]).detach()), float(torch.as_tensor(value[1]).detach()))
        )
        return f(x, height, center, sigma, level)

    fit = curve_fit(watched, x, y, bounds={"center": (5000, 6500), "sigma": (1, 500)})
    assert fit["center"] == pytest.approx(5900, abs=10)
    assert all(5000 <= c <= 6500 and 1 <= s <= 500 for c, s in seen)


def test_a_function_that_is_a_number_nowhere_is_refused_as_before() -> None:
    x = np.linspace(0, 1, 20)
    with pytest.raises(InputError, match="not finite at the start"):
        curve_fit(lambda x, a: torch.log(-(a**2) - x), x, x)
    with pytest.raises(InputError, match="not finite at the start"):
        curve_fit(bateman, x, x, p0=[1, 1, 1])  # a start that was given is not replaced


class RefusedError(Exception):
    """A user's own."""


@pytest.mark.parametrize("refusing", [False, True])
def test_whatever_a_function_is_refused_by_at_starts_of_ours_is_not_the_users(
    refusing: bool,
) -> None:
    """As of https://stackoverflow.com/questions/29382903: numpy.piecewise of tensors fails."""
    x = np.arange(7000.0, 11000.0, 200.0)

    def broken(x: Any, place: Any, level: Any, before: Any, after: Any) -> Any:
        if refusing and float(level) > 1e4:
            raise RefusedError
        return np.piecewise(
            x,
            [x < place],
            [lambda x: before * (x - place) + level, lambda x: after * (x - place) + level],
        )

    y = broken(x, 9100.0, 0.9, 3e-5, 6e-5) + 0.003 * np.cos(x)
    if refusing:
        y = 1e3 * y
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = curve_fit(broken, x, y)
    assert fit.rsquared > 0.9


@pytest.mark.parametrize("unit", [1e-200, 1.0, 1e200])
def test_points_whose_squares_are_no_numbers_have_a_size(unit: float) -> None:
    """Their product was zero, and its inverse an error that nobody understood."""
    x = unit * torch.tensor([0.0, 1.0, -4.0, 9.0, torch.nan], dtype=torch.float64)
    assert unguessed._size(x) == pytest.approx(6 * unit, rel=1e-12)
