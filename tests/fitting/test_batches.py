"""Many fits at once: each is what it would be alone."""

from typing import Any

import numpy as np
import pytest
import torch

from lmtorch import CurveFit, InputError, Status, _memory, curve_fit
from lmtorch.fitting import preparing

from .setting import T, decay, line, noise

LEADS = pytest.mark.parametrize("lead", [(3,), (2, 3)], ids=str)
ALONE = {"rtol": 1e-9, "atol": 1e-12}  # the batch stops with the last, the single fit with itself


def many(lead: tuple[int, ...], deviation: float = 0.05) -> np.ndarray:
    """Decays, each with a truth of its own."""
    rng = np.random.default_rng(7)
    a, b, c = (
        rng.uniform(1, 3, (*lead, 1)),
        rng.uniform(0.7, 2, (*lead, 1)),
        rng.uniform(0, 1, (*lead, 1)),
    )
    return a * np.exp(-b * T) + c + noise((*lead, 40), deviation)


def same(fits: CurveFit, index: Any, alone: CurveFit) -> None:
    """All numbers of a fit of the batch are those of the fit alone."""
    for name in (
        "popt",
        "pcov",
        "stderr",
        "residual",
        "chisqr",
        "redchi",
        "rsquared",
        "aic",
        "bic",
    ):
        np.testing.assert_allclose(
            np.asarray(getattr(fits, name))[index], getattr(alone, name), err_msg=name, **ALONE
        )
    for name in ("ndata", "nfree", "success"):
        assert np.asarray(getattr(fits, name))[index] == getattr(alone, name), name
    for mine, theirs in zip(fits.confidence_band(T), alone.confidence_band(T), strict=True):
        np.testing.assert_allclose(mine[index], theirs, **ALONE)


@LEADS
def test_a_batch_is_its_fits_one_by_one(lead: tuple[int, ...]) -> None:
    y = many(lead)
    fits = curve_fit(decay, T, y)
    assert fits.popt.shape == (*lead, 3)
    assert fits.pcov.shape == (*lead, 3, 3)
    for index in np.ndindex(*lead):
        same(fits, index, curve_fit(decay, T, y[index]))


@LEADS
@pytest.mark.parametrize("absolute", [False, True])
def test_sigma_may_differ_between_fits(lead: tuple[int, ...], absolute: bool) -> None:
    y, sigma = many(lead), np.random.default_rng(8).uniform(0.02, 0.2, (*lead, 40))
    fits = curve_fit(decay, T, y, sigma=sigma, absolute_sigma=absolute)
    for index in np.ndindex(*lead):
        same(
            fits, index, curve_fit(decay, T, y[index], sigma=sigma[index], absolute_sigma=absolute)
        )


def test_one_sigma_serves_all_fits() -> None:
    y, sigma = many((3,)), 0.05 + 0.02 * T
    fits = curve_fit(decay, T, y, sigma=sigma)
    for i in range(3):
        same(fits, i, curve_fit(decay, T, y[i], sigma=sigma))


@pytest.mark.parametrize("each", [False, True])
def test_a_covariance_may_be_common_or_of_each_fit(each: bool) -> None:
    y, mixed = many((3,)), noise((3, 40, 40), seed=4)
    sigma = np.eye(40) + mixed @ mixed.swapaxes(1, 2) / 40
    fits = curve_fit(decay, T, y, sigma=sigma if each else sigma[0])
    for i in range(3):
        same(fits, i, curve_fit(decay, T, y[i], sigma=sigma[i if each else 0]))


@LEADS
def test_masks_make_ragged_data_of_a_batch(lead: tuple[int, ...]) -> None:
    y, kept = many(lead), np.random.default_rng(9).random((*lead, 40)) < 0.7
    y[~kept] = 1e6
    fits = curve_fit(decay, T, y, mask=kept)
    for index in np.ndindex(*lead):
        alone = curve_fit(decay, T[kept[index]], y[index][kept[index]])
        np.testing.assert_allclose(fits.popt[index], alone.popt, **ALONE)
        np.testing.assert_allclose(fits.pcov[index], alone.pcov, **ALONE)
        assert fits.chisqr[index] == pytest.approx(alone.chisqr, rel=1e-9)
        assert fits.ndata[index] == alone.ndata


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor], ids=["arrays", "tensors"])
def test_fewer_points_than_variables_are_no_success(kind: Any) -> None:
    y = many((2, 2))
    y[0, 1] = np.nan  # none
    y[1, 0, 2:] = np.nan  # two, for three parameters
    f = decay if kind is np.asarray else lambda t, a, b, c: a * torch.exp(-b * t) + c
    fits = curve_fit(f, kind(T), kind(y), [1.0, 1.0, 0.0], nan_policy="omit")
    assert np.asarray(fits.success).tolist() == [[True, False], [False, True]]
    assert int(fits.status[0, 1]) == Status.FLAT
    assert int(fits.status[1, 0]) <= 0
    assert not fits.at((0, 1)).success
    assert "converged" not in fits.at((0, 1)).message + fits.at((1, 0)).message
    assert np.all(~(np.asarray(fits.redchi) < 0))  # and NaN or infinite without freedom
    held = curve_fit(f, kind(T), kind(y), [1.0, 1.0, 0.0], nan_policy="omit", fixed=["a", "b"])
    assert np.asarray(held.success).tolist() == [[True, False], [True, True]]


def test_omitted_points_differ_between_fits() -> None:
    y, kept = many((3,)), np.random.default_rng(9).random((3, 40)) < 0.7
    y[~kept] = np.nan
    fits = curve_fit(decay, T, y, nan_policy="omit")
    for i in range(3):
        alone = curve_fit(decay, T[kept[i]], y[i][kept[i]])
        np.testing.assert_allclose(fits.popt[i], alone.popt, **ALONE)
        np.testing.assert_allclose(fits.pcov[i], alone.pcov, **ALONE)


def test_x_of_the_shape_of_y_is_of_each_fit() -> None:
    y = many((3,))
    x = T + np.array([[0.0], [0.1], [0.2]])
    fits = curve_fit(decay, x, y)
    for i in range(3):
        np.testing.assert_allclose(fits.popt[i], curve_fit(decay, x[i], y[i]).popt, **ALONE)


def test_predictors_of_each_fit_are_told_by_each_x() -> None:
    x = noise((3, 2, 20))
    y = 2 * x[:, 0] - x[:, 1] + noise((3, 20), 0.1, seed=1)

    def plane(x: Any, a: Any, b: Any) -> Any:
        return a * x[0] + b * x[1]

    fits = curve_fit(plane, x, y, each_x=True)
    for i in range(3):
        np.testing.assert_allclose(fits.popt[i], np.linalg.lstsq(x[i].T, y[i])[0], rtol=1e-10)


def test_common_predictors_of_the_shape_of_y_are_told_by_each_x() -> None:
    x = noise((2, 20))
    y = np.stack([2 * x[0] - x[1], x[0] + x[1]]) + noise((2, 20), 0.1, seed=1)
    fits = curve_fit(lambda x, a, b: a * x[0] + b * x[1], x, y, each_x=False)
    for i in range(2):
        np.testing.assert_allclose(fits.popt[i], np.linalg.lstsq(x.T, y[i])[0], rtol=1e-10)


@LEADS
def test_every_fit_may_start_by_itself(lead: tuple[int, ...]) -> None:
    x = np.linspace(0, 6, 40)
    # of a sine the start decides which period it finds
    starts = np.random.default_rng(3).choice([1.0, 7.3, 13.5], lead)
    y = np.sin(x + 1) + noise((*lead, 40), 0.01)
    fits = curve_fit(lambda x, phase: torch.sin(x + phase), x, y, starts[..., None])
    for index in np.ndindex(*lead):
        alone = curve_fit(lambda x, phase: torch.sin(x + phase), x, y[index], [starts[index]])
        np.testing.assert_allclose(fits.popt[index], alone.popt, **ALONE)
    assert len(np.unique(fits.popt.round())) == len(np.unique(starts))


def test_fixed_values_may_differ_by_their_starts() -> None:
    y, offsets = many((3,)), np.array([0.1, 0.5, 0.9])
    fits = curve_fit(decay, T, y, {"a": 2.0, "b": 1.0, "c": offsets}, fixed=["c"])
    np.testing.assert_array_equal(fits["c"], offsets)
    for i in range(3):
        same(fits, i, curve_fit(decay, T, y[i], {"a": 2.0, "b": 1.0, "c": offsets[i]}, fixed=["c"]))


@pytest.mark.filterwarnings("ignore:the curve passes the data by")
def test_bounds_ties_and_transforms_hold_in_every_fit() -> None:
    y = many((3,))
    options: dict[str, Any] = {
        "bounds": {"a": (0.0, 1.9)}, "transforms": {"b": "positive"},
        "ties": {"c": lambda p: p["a"] / 5},
    }  # fmt: skip
    fits = curve_fit(decay, T, y, **options)
    for i in range(3):
        alone = curve_fit(decay, T, y[i], **options)
        np.testing.assert_allclose(fits.popt[i], alone.popt, **ALONE)
        np.testing.assert_allclose(fits.pcov[i], alone.pcov, **ALONE)


@LEADS
def test_a_fit_of_a_batch_by_itself_is_the_single_fit(lead: tuple[int, ...]) -> None:
    y = many(lead)
    fits = curve_fit(decay, T, y)
    index = (1,) * len(lead)
    one, alone = fits.at(index if len(lead) > 1 else 1), curve_fit(decay, T, y[index])
    np.testing.assert_allclose(one.popt, alone.popt, **ALONE)
    np.testing.assert_allclose(one.pcov, alone.pcov, **ALONE)
    np.testing.assert_allclose(one(T), alone(T), **ALONE)
    assert one.success is alone.success
    assert isinstance(one.status, Status)
    assert isinstance(one.message, str)
    assert repr(one) == repr(alone)
    assert one.names == alone.names
    np.testing.assert_allclose(
        one.profile("b").intervals["b"], alone.profile("b").intervals["b"], rtol=1e-8
    )


def test_by_itself_a_fit_has_its_own_sigma_mask_x_and_start() -> None:
    y, kept = many((3,)), np.random.default_rng(9).random((3, 40)) < 0.7
    sigma, x = (
        np.random.default_rng(8).uniform(0.02, 0.2, (3, 40)),
        T + np.array([[0.0], [0.1], [0.2]]),
    )
    fits = curve_fit(decay, x, y, np.ones((3, 3)), sigma, mask=kept)
    alone = curve_fit(decay, x[2], y[2], np.ones(3), sigma[2], mask=kept[2])
    one = fits.at(2)
    for name in ("popt", "pcov", "chisqr", "rsquared", "best_fit"):
        np.testing.assert_allclose(getattr(one, name), getattr(alone, name), err_msg=name, **ALONE)
    assert one.ndata == alone.ndata


@pytest.mark.parametrize("index", [(0, 0), (), 3, -4, "a", 1.0, None, slice(2)])
def test_a_fit_that_is_not_there_is_refused(index: Any) -> None:
    fits = curve_fit(line, T, T + noise((3, 40)))
    with pytest.raises(InputError, match="does not name one of"):
        fits.at(index)


def test_fits_are_counted_from_the_end_too() -> None:
    fits = curve_fit(line, T, T + noise((3, 40)))
    np.testing.assert_array_equal(fits.at(-1).popt, fits.popt[2])


def test_a_single_fit_has_no_fits_by_themselves() -> None:
    with pytest.raises(InputError, match="does not name one of"):
        curve_fit(line, T, T + noise(40)).at(0)


# ---- failures ------------------------------------------------------------------------------------


def test_a_fit_that_is_not_finite_leaves_its_neighbours_alone() -> None:
    y = many((3,))
    y[1, 5] = np.nan
    fits = curve_fit(decay, T, y, check_finite=False)
    assert fits.success.tolist() == [True, False, True]
    assert fits.status[1] == Status.NOT_FINITE
    assert np.isnan(fits.stderr[1]).all()
    for i in (0, 2):
        same(fits, i, curve_fit(decay, T, y[i]))


def test_a_fit_with_too_few_points_has_infinite_errors() -> None:
    y, kept = many((2,)), np.ones((2, 40), dtype=bool)
    kept[1, 2:] = False
    fits = curve_fit(decay, T, y, mask=kept)
    assert np.isfinite(fits.stderr[0]).all()
    assert not np.isfinite(fits.stderr[1]).any()


def test_a_limit_of_evaluations_is_no_exception_in_a_batch() -> None:
    fits = curve_fit(decay, T, many((3,)), max_nfev=2)
    assert not fits.success.any()
    assert np.all(fits.status == Status.EVALUATIONS)


def test_undetermined_fits_of_a_batch_are_infinite_without_a_warning() -> None:
    fits = curve_fit(lambda x, a, b, c: (a + b) * x + c, T, T + noise((2, 40)))
    assert np.isinf(fits.stderr[:, :2]).all()
    assert np.isfinite(fits.stderr[:, 2]).all()
    with pytest.raises(InputError, match="undetermined is of one fit"):
        _ = fits.undetermined


def test_the_order_of_fits_is_that_of_the_data() -> None:
    slopes = np.arange(12.0).reshape(3, 4)
    fits = curve_fit(line, T, slopes[..., None] * T + 1)
    np.testing.assert_allclose(fits["slope"], slopes, atol=1e-12)


@pytest.fixture
def blocks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are made for a few fits at a time, as those of a million fits are."""
    monkeypatch.setattr(_memory, "CACHE_ROWS", {"cpu": 2 * 2 * 8 * 40 * 3})


@pytest.mark.usefixtures("blocks_of_two")
@pytest.mark.parametrize("first", ["pcov", "stderr"])
@LEADS
def test_errors_in_blocks_are_those_of_each_fit(lead: tuple[int, ...], first: str) -> None:
    y, sigma = many(lead), 0.02 + 0.1 * np.random.default_rng(3).random((*lead, 40))
    x = np.broadcast_to(T, y.shape) * np.linspace(0.9, 1.1, y[..., 0].size).reshape(*lead, 1)
    start = np.broadcast_to([2.0, 1.0, 0.5], (*lead, 3))
    options: dict[str, Any] = {"loss": "huber", "bounds": ([0, 0, 0.4], np.inf)}
    fits = curve_fit(decay, x, y, start, sigma, mask=y > -9, **options)
    getattr(fits, first)
    for index in np.ndindex(*lead):
        alone = curve_fit(decay, x[index], y[index], start[index], sigma[index], **options)
        for name in ("pcov", "stderr"):
            np.testing.assert_allclose(
                getattr(fits, name)[index], getattr(alone, name), **ALONE, equal_nan=True
            )


def test_errors_of_columns_that_are_nearly_dependent_have_their_digits_in_a_batch_too() -> None:
    # the variance of the slope is 1 / Σ (x − x̄)², here of whole numbers, which are exact
    small, far = np.arange(40.0), 2.0**22 + np.arange(40.0)
    x = np.stack([small, far, small])
    y = np.stack([1 + 2 * row + noise((40,), 0.05) for row in x])
    fits = curve_fit(line, x, y, [2.0, 1.0], 1.0, absolute_sigma=True)
    exact = 1 / np.square(small - small.mean()).sum()
    np.testing.assert_allclose(fits.stderr[:, 0] ** 2, exact, rtol=1e-8)
    # of the intercept: 1/m + x̄² / Σ (x − x̄)²
    intercept = 1 / 40 + x.mean(1) ** 2 * exact
    np.testing.assert_allclose(fits.stderr[:, 1] ** 2, intercept, rtol=1e-8)


def test_undetermined_fits_are_told_among_determined_ones() -> None:
    x = np.stack([np.arange(40.0), np.full(40, 3.0), np.arange(40.0)])
    y = 1 + 2 * x + noise((3, 40), 0.05)
    fits = curve_fit(line, x, y, [2.0, 1.0])
    assert np.isinf(fits.pcov).all((1, 2)).tolist() == [False, True, False]
    for index in (0, 2):
        np.testing.assert_allclose(
            fits.pcov[index], curve_fit(line, x[index], y[index], [2.0, 1.0]).pcov, rtol=1e-9
        )


@pytest.mark.parametrize("blocks", [2, 7])  # of all 7 together J would fit the cache
def test_what_does_not_fit_the_memory_is_made_in_blocks_for_the_errors(
    blocks: int, request: pytest.FixtureRequest
) -> None:
    if blocks == 2:
        request.getfixturevalue("blocks_of_two")
    y = many((7,))
    whole, scarce = curve_fit(decay, T, y), curve_fit(decay, T, y, memory_limit=2000)
    assert scarce.solution.jac is None
    for name in ("popt", "stderr", "pcov", "chisqr", "redchi", "residual"):
        np.testing.assert_allclose(getattr(scarce, name), getattr(whole, name), **ALONE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_is_believed_of_a_curve_does_not_depend_on_the_others(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = 1e3 + torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)
    y[2, 3] = torch.nan
    for together in (1, 12, 10**6):  # numbers; of 12 two curves
        monkeypatch.setattr(preparing, "TOGETHER", together)
        spread, mean = preparing._moments(y.expand(2, 7, 5))
        assert spread.shape == mean.shape == (2, 7)
        np.testing.assert_allclose(spread[1], np.var(y.double().numpy(), -1), rtol=1e-9)
        np.testing.assert_allclose(mean[0], np.mean(y.double().numpy(), -1), rtol=1e-14)
