"""What a fit says of its data is of the data as they were, whatever is written into them later."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmtorch import InputError, curve_fit, models
from lmtorch.fitting import fronts
from lmtorch.fitting.measurements import owned

from ...programs import compiler
from ..setting import F64, T, decay, noisy

pytestmark = pytest.mark.usefixtures("own_programs")

ONE = noisy()
MANY = np.stack([noisy(seed=i) for i in range(6)])
RATES = np.random.default_rng(0).poisson(20 * np.exp(-T) + 5).astype(float)
STATISTICS: dict[str, Callable[[Any], Any]] = {
    "best_fit": lambda fit: fit.best_fit,
    "rsquared": lambda fit: fit.rsquared,
    "chisqr": lambda fit: fit.chisqr,
    "aic": lambda fit: fit.aic,
    "pcov": lambda fit: fit.pcov,
    "jac": lambda fit: fit.solution.jac,
}
OF_ONE: dict[str, Callable[[Any], Any]] = {
    **STATISTICS,
    "bootstrap": lambda fit: fit.bootstrap(10).samples,
    "profile": lambda fit: fit.profile("b").values["b"],
    "report": lambda fit: fit.report(),
}
COMPILED = [False, pytest.param(True, marks=compiler)]


def write(x: Tensor, y: Tensor) -> None:
    x.mul_(3)
    y.mul_(torch.linspace(1, 3, len(T), dtype=F64))


def write_by_numpy(x: Tensor, y: Tensor) -> None:
    # torch counts no version for what is written into the same memory by another
    x.numpy()[...] *= 3
    y.numpy()[...] *= np.linspace(1, 3, len(T))


def same(mine: Any, others: Any) -> None:
    if isinstance(mine, str):
        assert mine == others
    else:
        # the first fit of a program rounds otherwise; what was written makes twice as much of it
        np.testing.assert_allclose(np.asarray(mine), np.asarray(others), rtol=1e-9)


def fits(y: np.ndarray, times: int, **options: Any) -> tuple[Any, Tensor, Tensor]:
    """The last of some fits, and its tensors."""
    for _ in range(times):
        given = torch.tensor(T), torch.tensor(y)
        found = curve_fit(decay, *given, (1.0, 1.0, 1.0), **options)
    return found, *given


@pytest.mark.parametrize("compiled", COMPILED, ids=["eager", "compiled"])
@pytest.mark.parametrize("times", [1, 12], ids=["first", "remembered"])
@pytest.mark.parametrize("change", [write, write_by_numpy])
def test_one_fit_answers_for_the_data_that_it_was_given(
    change: Callable[..., None], times: int, compiled: bool
) -> None:
    before, *_ = fits(ONE, times, compile=compiled)
    after, x, y = fits(ONE, times, compile=compiled)
    change(x, y)
    for ask in OF_ONE.values():
        same(ask(after), ask(before))


@pytest.mark.parametrize("compiled", COMPILED, ids=["eager", "compiled"])
@pytest.mark.parametrize("change", [write, write_by_numpy])
def test_a_batch_answers_for_the_data_that_it_was_given(
    change: Callable[..., None], compiled: bool
) -> None:
    before, *_ = fits(MANY, 1, compile=compiled)
    after, x, y = fits(MANY, 1, compile=compiled)
    change(x, y)
    for ask in STATISTICS.values():
        same(ask(after), ask(before))
    same(after.at(3).rsquared, before.at(3).rsquared)


def test_counts_and_their_totals_are_kept() -> None:
    def rate(t: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.sigmoid(a - b * t)

    x, y, total = torch.tensor(T), torch.tensor(RATES), torch.full((len(T),), 50.0, dtype=F64)
    fit = curve_fit(rate, x, y, (1.0, 1.0), likelihood="binomial", total_count=total)
    expected = curve_fit(rate, T, RATES, (1.0, 1.0), likelihood="binomial", total_count=50)
    write(x, y)
    total.fill_(1000.0)
    np.testing.assert_allclose(fit.rsquared, expected.rsquared, rtol=1e-9)
    np.testing.assert_allclose(fit.deviance, expected.deviance, rtol=1e-9)


def test_the_terms_of_a_sum_are_drawn_where_the_data_were() -> None:
    model = models.Gaussian() + models.Constant()
    x, y = torch.tensor(T), torch.tensor(3 * np.exp(-((T - 2) ** 2)) + 0.5)
    fit = curve_fit(model, x, y)
    expected = {name: curve.clone() for name, curve in fit.components().items()}
    write(x, y)
    for name, curve in fit.components().items():
        same(curve, expected[name])


def test_gradients_pass_to_the_tensors_of_the_user() -> None:
    y = torch.tensor(ONE, requires_grad=True)
    curve_fit(decay, torch.tensor(T), y).popt.sum().backward()
    assert y.grad is not None
    assert bool((y.grad != 0).all())


# ---- data of which no copy is made ---------------------------------------------------------------


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """All data are more than are copied."""
    monkeypatch.setattr(owned, "LITTLE", 0)


REFUSED = {
    name: ask for name, ask in OF_ONE.items() if name in ("best_fit", "rsquared", "bootstrap")
}


@pytest.mark.parametrize("times", [1, 12], ids=["first", "remembered"])
@pytest.mark.parametrize("which", [0, 1], ids=["x", "y"])
def test_what_would_be_of_other_data_is_refused(large: None, which: int, times: int) -> None:
    fit, *given = fits(ONE, times)
    assert fit.popt.data_ptr() != given[0].data_ptr()
    asked = copy.deepcopy(fit)
    given[which].mul_(2)
    for ask in REFUSED.values():
        with pytest.raises(InputError, match="changed in place after the fit"):
            ask(fit)
    with pytest.raises(InputError, match="changed in place after the fit"):
        fit.save("nowhere.json")
    # the fit itself stands, and so does its copy
    expected, *_ = fits(ONE, 1)
    np.testing.assert_allclose(fit.stderr, expected.stderr, rtol=1e-9)
    assert fit.chisqr == pytest.approx(float(expected.chisqr), rel=1e-12)
    assert float(asked.rsquared) == pytest.approx(float(expected.rsquared), rel=1e-12)
    with pytest.raises(InputError, match="changed in place"):
        copy.deepcopy(fit).rsquared  # noqa: B018  # to be asked is to be refused


def test_what_would_be_of_other_data_is_refused_of_a_batch(large: None) -> None:
    fit, _, y = fits(MANY, 1)
    third = fit.at(3)
    y[2] += 1  # not that of the fit which is asked
    for one in (fit, third):
        with pytest.raises(InputError, match="changed in place"):
            one.rsquared  # noqa: B018
        with pytest.raises(InputError, match="changed in place"):
            one.best_fit  # noqa: B018


def test_what_was_asked_before_stays(large: None) -> None:
    fit, x, y = fits(ONE, 1)
    expected = fit.best_fit.clone()
    write(x, y)
    same(fit.best_fit, expected)


def test_data_that_nobody_writes_into_are_not_copied(large: None) -> None:
    fit, x, y = fits(ONE, 1)
    data = fit._inference.fitter.data
    assert data.y.data_ptr() == y.data_ptr()
    assert data.x.data_ptr() == x.data_ptr()
    same(pickle.loads(pickle.dumps(fit)).rsquared, fit.rsquared)


def test_tensors_of_inference_mode_have_no_versions(large: None) -> None:
    with torch.inference_mode():
        x, y = torch.tensor(T), torch.tensor(ONE)
    fit = curve_fit(decay, x, y, (1.0, 1.0, 1.0))
    assert float(fit.rsquared) > 0.9


def test_the_remembered_fits_of_these_tests_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = fronts.fitted

    def noting(*args: Any) -> Any:
        found = real(*args)
        made.append(found is not None)
        return found

    monkeypatch.setattr(fronts, "fitted", noting)
    fits(ONE, 4)
    assert made[-1]
