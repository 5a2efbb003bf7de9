"""What users of lmfit and astropy do next, by the code of the recipes and by the packages' own."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RECIPES = Path(__file__).parents[1] / "docs" / "recipes"
SEEN = np.arange(200) % 17 != 0


def recipe(page: str) -> dict[str, Any]:
    """The names of the first block of a page, without its example."""
    text = (RECIPES / page).read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0].split("rng = np")[0]
    names: dict[str, Any] = {}
    exec(compile(code, page, "exec"), names)
    return names


def test_intervals_of_lmfit_are_the_same_on_this_loop() -> None:
    """A constraint, a bound, and `conf_interval`, which fits again and again."""
    names = recipe("lmfit.md")
    lmfit = names["lmfit"]
    x = np.linspace(0, 10, 60)
    noise = 0.05 * np.random.default_rng(0).standard_normal(60)
    y = 3 * np.exp(-x / 2) - 5 * np.exp(-x / 10) + noise

    def residuals(params: Any) -> Any:
        v = params.valuesdict()
        return v["a"] * np.exp(-x / v["t"]) + v["b"] * np.exp(-x / v["u"]) - y

    def fitted() -> tuple[Any, Any]:
        params = lmfit.create_params(
            a={"value": 2.5}, t={"value": 1.5, "min": 0.1}, b={"value": -4.0}, u={"expr": "5 * t"}
        )
        fitter = lmfit.Minimizer(residuals, params)
        result = fitter.minimize()
        return result, lmfit.conf_interval(fitter, result, sigmas=[1])

    theirs, intervals = fitted()
    with names["lmtorch_in_lmfit"]():
        ours, found = fitted()
    for name, value in theirs.params.items():
        assert ours.params[name].value == pytest.approx(value.value, abs=1e-4 * value.stderr)
        assert ours.params[name].stderr == pytest.approx(value.stderr, rel=1e-4)
    for name, pairs in intervals.items():
        room = 1e-3 * theirs.params[name].stderr
        np.testing.assert_allclose(np.array(found[name]), np.array(pairs), rtol=0, atol=room)


def peaks(astropy_models: Any) -> Any:
    """Two peaks of one width, of which one has bounds and the other a fixed place."""
    both = astropy_models.Gaussian1D(8, 4.5, 1.0) + astropy_models.Gaussian1D(2, 7.0, 1.0)
    both.stddev_1.tied = lambda model: model.stddev_0
    both.mean_0.bounds = (3, 5)
    both.mean_1.fixed = True
    return both


# one who differentiates by astropy's own step is told where the end is unclear
@pytest.mark.filterwarnings("ignore:valley", "ignore:Non-Finite input data")
@pytest.mark.parametrize("how", ["plain", "weights", "masked", "not finite"])
def test_what_astropy_s_users_ask_of_a_fitter(how: str) -> None:
    """Ties, bounds, fixed values, weights; and a mask leaves points out, as it says."""
    names = recipe("astropy.md")
    models = names["models"]
    x = np.linspace(0, 10, 200)
    y = peaks(models)(x) + 0.1 * np.random.default_rng(0).standard_normal(200)
    y, options, kept = np.array(y), dict[str, Any](), np.ones(200, dtype=bool)
    if how == "weights":
        options = {"weights": 1 / (0.1 + 0.01 * x)}
    elif how == "masked":
        given, kept = np.ma.array(np.where(SEEN, y, 50.0), mask=~SEEN), SEEN
    elif how == "not finite":
        options, kept = {"filter_non_finite": True}, SEEN
        y[~SEEN] = np.nan
    given = given if how == "masked" else y
    ours = names["LMTorchFitter"]()(peaks(models), x, given, **options)
    options = options if how == "weights" else {}
    theirs = names["TRFLSQFitter"]()(peaks(models), x[kept], y[kept], **options)
    np.testing.assert_allclose(ours.parameters, theirs.parameters, rtol=2e-4)
    assert ours.stddev_1.value == ours.stddev_0.value
    assert ours.mean_1.value == 7.0
