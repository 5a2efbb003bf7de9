"""Terms of one shape are named by their places, unless something tells them apart."""

from typing import Any

import numpy as np
import pytest
import torch

from lmtorch import curve_fit, models
from lmtorch.models.places import by_place
from lmtorch.models.rules import Rules

X = np.linspace(0, 10, 101)
TWO = models.Gaussian("a") + models.Gaussian("b") + models.Linear()
RNG = np.random.default_rng(0)
LEFT = {"a_center": 3.0, "a_sigma": 0.5, "b_center": 7.0, "b_sigma": 0.6}
LINE = {"slope": 0.1, "intercept": 1.0}


def test_the_names_are_the_same_in_all_curves_of_a_batch_whichever_peak_is_higher() -> None:
    heights = RNG.uniform(2, 6, (2, 100))
    y = TWO(X, a_amplitude=heights[0], b_amplitude=heights[1], **LEFT, **LINE)
    fits = curve_fit(TWO, X, y + 0.03 * RNG.standard_normal(y.shape))
    assert fits.success.all()
    assert np.abs(fits.params["a_center"] - 3).max() < 0.2
    assert np.abs(fits.params["b_center"] - 7).max() < 0.2
    assert np.abs(fits.params["b_amplitude"] - heights[1]).max() < 0.5


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 3, 0, 1), (3, 1, 0, 2)])
def test_peaks_count_from_left_to_right(order: tuple[int, ...]) -> None:
    many = sum(models.Lorentzian(prefix) for prefix in "abcd")
    areas = np.array([4.0, 3.0, 2.0, 1.0])[list(order)]
    truth: dict[str, Any] = {}
    for prefix, area, center in zip("abcd", areas, (1.5, 3.5, 6.0, 8.0), strict=True):
        truth |= {f"{prefix}_amplitude": area, f"{prefix}_center": center, f"{prefix}_sigma": 0.2}
    fit = curve_fit(many, X, many(X, **truth))
    np.testing.assert_allclose(fit.popt, [truth[name] for name in many.names], rtol=1e-6)


def test_the_curve_of_a_guess_is_the_same_in_any_order() -> None:
    y = TWO(X, a_amplitude=2.0, b_amplitude=6.0, **LEFT, **LINE)
    renamed = models.Gaussian("b") + models.Gaussian("a") + models.Linear()
    one, other = TWO.guess(X, y), renamed.guess(X, y)
    np.testing.assert_allclose(TWO(X, **one), renamed(X, **other), rtol=1e-12)
    assert one["a_center"] < one["b_center"]
    assert other["b_center"] < other["a_center"]


RULES = {
    "bounds": lambda m: m.with_bounds(a_center=(5, 9)),
    "start": lambda m: m.with_start(a_center=6.8),
    "fixed": lambda m: m.with_fixed(a_center=7.0),
    "tie": lambda m: m.with_ties("b_center = a_center - 4"),
}


@pytest.mark.parametrize("rule", ["bounds", "tie"])
def test_what_a_rule_tells_apart_stays(rule: str) -> None:
    y = TWO(X, a_amplitude=2.0, b_amplitude=6.0, **LEFT, **LINE)
    fit = curve_fit(RULES[rule](TWO), X, y)
    assert fit["a_center"] == pytest.approx(7.0)
    assert fit["b_center"] == pytest.approx(3.0)
    assert fit["b_amplitude"] == pytest.approx(2.0)


@pytest.mark.parametrize("rule", RULES)
def test_a_guess_keeps_its_rules(rule: str) -> None:
    y = TWO(X, a_amplitude=2.0, b_amplitude=6.0, **LEFT, **LINE)
    model = RULES[rule](TWO)
    guess = model.guess(X, y)
    assert all(low <= guess[name] <= high for name, (low, high) in model.bounds.items())
    assert guess.items() >= model.starts.items()
    assert all(guess[name] == value for name, value in model.fixed.items())
    if rule == "tie":
        assert guess["b_center"] == guess["a_center"] - 4


def test_a_tie_that_is_code_may_tell_any_terms_apart() -> None:
    y = TWO(X, a_amplitude=2.0, b_amplitude=6.0, **LEFT, **LINE)
    model = TWO.with_ties(intercept=lambda p: 0.2 * p["a_amplitude"])
    guess = model.guess(X, y)
    assert guess["intercept"] == pytest.approx(0.2 * guess["a_amplitude"])


def test_unlike_shapes_keep_their_own_peaks() -> None:
    unlike = models.Gaussian("a") + models.Lorentzian("b")
    truth = (3.0, 7.0, 0.4, 3.0, 3.0, 0.4)
    fit = curve_fit(unlike, X, unlike(X, *truth))
    np.testing.assert_allclose(fit.popt, truth, rtol=1e-6)


def test_what_is_alike_is_put_in_order_and_nothing_else() -> None:
    def put(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        values = {name: torch.tensor(float(-i)) for i, name in enumerate(model.names)}
        found = by_place(list(model.terms.values()), values, Rules())
        return values, found

    values, found = put(models.Exponential("a") + models.Exponential("b"))  # fast decays first
    assert found == {
        f"{one}_{name}": values[f"{other}_{name}"]
        for one, other in ("ab", "ba")
        for name in ("amplitude", "decay")
    }
    for model in (
        models.Step("a", form="erf") + models.Step("b", form="arctan"),
        models.Gaussian("a") + models.Lorentzian("b"),
        models.Gaussian("a") - models.Gaussian("b"),
        models.from_function(lambda x, center: x - center, prefix="a")
        + models.from_function(lambda x, center: x + center, prefix="b"),
    ):
        values, found = put(model)
        assert found == values, model
