"""Guesses of sums and products: from where fits reach the optimum, and what rules make of them."""

import warnings
from collections.abc import Callable
from typing import Any

import lmfit
import numpy as np
import pytest
import torch
from nist import load
from scipy.optimize import OptimizeWarning

from lmtorch import InputError, curve_fit, models
from lmtorch.models import backfitting
from lmtorch.models.correcting import corrected
from lmtorch.models.rules import Rules

X = np.linspace(0, 10, 101)


def noise(shape: Any, deviation: float, seed: int = 0) -> np.ndarray:
    return deviation * np.random.default_rng(seed).standard_normal(shape)


# ---- where fits from guesses end -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["Gauss1", "Gauss2", "Gauss3"])
def test_two_gaussians_on_a_decay_are_found_as_nist_certifies(name: str) -> None:
    problem = load(name)
    model = models.Gaussian("a") + models.Gaussian("b") + models.Exponential()
    fit = curve_fit(model, problem.x, problem.y)
    c = dict(enumerate(problem.certified.tolist(), 1))
    expected = {"amplitude": c[1], "decay": 1 / c[2]}
    for prefix, first in (("a", 3), ("b", 6)):
        sigma = c[first + 2] / np.sqrt(2)  # NIST's width is that of exp(−(x − c)²/w²)
        expected[f"{prefix}_amplitude"] = c[first] * sigma * np.sqrt(2 * np.pi)
        expected[f"{prefix}_center"] = c[first + 1]
        expected[f"{prefix}_sigma"] = sigma
    for name_, value in expected.items():
        assert float(fit[name_]) == pytest.approx(value, rel=1e-7), name_


def test_unlike_peaks_are_put_where_each_fits_best() -> None:
    model = models.Gaussian("g") + models.Voigt("v") + models.Linear()
    truth = {"g_amplitude": 12, "g_center": 3, "g_sigma": 0.5, "v_amplitude": 30, "v_center": 7,
             "v_sigma": 0.3, "v_gamma": 0.4, "slope": 0.2, "intercept": 1}  # fmt: skip
    y = model(X, **truth) + noise(101, 0.1)
    fit = curve_fit(model, X, y)
    np.testing.assert_allclose([fit["g_center"], fit["v_center"]], [3, 7], atol=0.05)
    # lmfit's optimum, from there
    theirs = (
        lmfit.models.GaussianModel(prefix="g_")
        + lmfit.models.VoigtModel(prefix="v_")
        + lmfit.models.LinearModel()
    )
    params = theirs.make_params(**fit.params)
    params["v_gamma"].set(expr="", value=fit["v_gamma"], vary=True)
    assert theirs.fit(y, params, x=X).chisqr == pytest.approx(fit.chisqr, rel=1e-7)


def random_peaks(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Curves of two peaks on a line, apart by one to six widths, and their squares at the truth."""
    rng = np.random.default_rng(5)
    model = models.Gaussian("a") + models.Gaussian("b") + models.Linear()
    first, sigma = rng.uniform(2, 4, count), rng.uniform(0.4, 0.8, (2, count))
    apart = rng.uniform(2.2, 6, count) * sigma.mean(0)
    area = rng.uniform(4, 12, (2, count))
    curves = model(
        X, area[0], first, sigma[0], area[1], first + apart, sigma[1],
        rng.uniform(-0.5, 0.5, count), rng.uniform(-2, 2, count),
    )  # fmt: skip
    errors = noise(curves.shape, 0.15)
    return curves + errors, (errors**2).sum(-1)


def test_of_random_pairs_of_peaks_nearly_all_are_found() -> None:
    y, truth = random_peaks(100)
    model = models.Gaussian("a") + models.Gaussian("b") + models.Linear()
    fit = curve_fit(model, X, y)
    found = np.asarray(fit.success) & (np.asarray(fit.chisqr) <= truth)
    assert found.mean() >= 0.95
    # what a user of lmfit does: its guesses of the parts from all data
    theirs = [lmfit.models.GaussianModel(prefix=f"{name}_") for name in "ab"]
    line = lmfit.models.LinearModel()
    ends = []
    for row in y[:2]:  # it gives up after seconds
        params = line.guess(row, x=X)
        for part in theirs:
            params.update(part.guess(row, x=X))
        ends.append((theirs[0] + theirs[1] + line).fit(row, params, x=X).chisqr)
    assert found[:2].all()
    assert (np.array(ends) > truth[:2]).all()


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_dips_are_found_as_peaks_are(side: float) -> None:
    model = models.Lorentzian("a") + models.Lorentzian("b") + models.Constant()
    values = [side * 3.0, 3.0, 0.3, side * 2.0, 7.0, 0.4, 5.0]
    fit = curve_fit(model, X, model(X, *values) + noise(101, 0.02))
    centers = sorted([fit["a_center"], fit["b_center"]])
    np.testing.assert_allclose(centers, [3, 7], atol=0.05)


def test_a_batch_is_guessed_as_its_curves_one_by_one() -> None:
    y, _ = random_peaks(6)
    model = models.Gaussian("a") + models.Gaussian("b") + models.Linear()
    # as long as no curve is near enough all are guessed in all ways: alone they may end earlier
    together = model.guess(X, y.reshape(2, 3, -1))
    assert {name: value.shape for name, value in together.items()} == dict.fromkeys(
        model.names, (2, 3)
    )
    for i in range(6):
        alone = model.guess(X, y[i])
        cost = ((model(X, **alone) - y[i]) ** 2).sum()
        here = {name: value.reshape(-1)[i] for name, value in together.items()}
        assert ((model(X, **here) - y[i]) ** 2).sum() <= cost * (1 + 1e-9)


def test_many_curves_are_guessed_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    y, _ = random_peaks(7)
    model = models.Gaussian("a") + models.Linear()
    whole = model.guess(X, y)
    monkeypatch.setattr("lmtorch.models.guessing.TOGETHER", 2 * 101)
    for name, value in model.guess(X, y).items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-12)
    own = model.guess(np.stack([X] * 7), y)
    np.testing.assert_allclose(own["a_center"], whole["a_center"], rtol=1e-12)


def test_products_are_guessed() -> None:
    model = models.Gaussian("g") * models.Linear().with_fixed(intercept=1.0)
    errors = noise(101, 0.01)
    fit = curve_fit(model, X, model(X, 5.0, 4.0, 1.5, 0.1, 1.0) + errors)
    assert fit.chisqr <= (errors**2).sum()
    quotient = models.Linear("a").with_fixed(a_intercept=0.0) / models.Linear("b")
    quotient = quotient.with_fixed(b_slope=1.0)
    fit = curve_fit(quotient, X[1:], 3 * X[1:] / (2 + X[1:]) + noise(100, 0.005))
    np.testing.assert_allclose(fit.popt, [3, 0, 1, 2], atol=0.05)


# ---- what is known already -----------------------------------------------------------------------

PEAK = models.Gaussian("g") + models.Linear()
Y = PEAK(X, 8.0, 4.0, 0.6, 0.3, 1.0) + noise(101, 0.05)
RULES: dict[str, Callable[[Any], Any]] = {
    "fixed": lambda m: m.with_fixed(g_sigma=0.7),
    "tied": lambda m: m.with_ties("intercept = 2 * g_sigma"),
    "bounded": lambda m: m.with_bounds(g_sigma=(0.7, 0.9), slope=(None, 0.1)),
    "started": lambda m: m.with_start(slope=0.25),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_guess_keeps_the_rules(rule: Callable[[Any], Any]) -> None:
    guess = rule(PEAK).guess(X, Y)
    value = {name: float(number) for name, number in guess.items()}
    if rule is RULES["fixed"]:
        assert value["g_sigma"] == 0.7
    if rule is RULES["tied"]:
        assert value["intercept"] == 2 * value["g_sigma"]
    if rule is RULES["bounded"]:
        assert 0.7 < value["g_sigma"] < 0.9
        assert value["slope"] < 0.1
    if rule is RULES["started"]:
        assert value["slope"] == 0.25
    assert value["g_center"] == pytest.approx(4, abs=0.3)


def test_bounds_of_a_center_say_which_peak_is_meant() -> None:
    y = models.Gaussian()(X, 8.0, 4.0, 0.6) + models.Gaussian()(X, 2.0, 8.0, 0.4) + noise(101, 0.01)
    guess = models.Gaussian().with_bounds(center=(6.5, 10)).guess(X, y)
    assert float(guess["center"]) == pytest.approx(8, abs=0.2)


def test_a_function_of_which_nothing_is_known_spoils_no_guess() -> None:
    def level(x: Any, c: Any, rate: Any) -> Any:
        return c * 1e3 * torch.exp(-rate * x)  # far from the data at ones

    guess = (models.Gaussian("g") + level).guess(X, models.Gaussian()(X, 8.0, 4.0, 0.6))
    assert float(guess["g_center"]) == pytest.approx(4, abs=0.1)


# ---- data as they come ---------------------------------------------------------------------------


def test_the_order_of_points_and_points_of_nan_make_no_difference() -> None:
    guess = PEAK.guess(X, Y)
    order = np.random.default_rng(1).permutation(101)
    mixed = PEAK.guess(np.append(X[order], 20.0), np.append(Y[order], np.nan))
    for name, value in guess.items():
        assert float(mixed[name]) == pytest.approx(float(value), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_guesses_are_of_the_dtype_of_tensors(dtype: torch.dtype) -> None:
    guess = PEAK.guess(torch.from_numpy(X), torch.from_numpy(Y).to(dtype))
    assert {value.dtype for value in guess.values()} == {dtype}


def test_constant_data_and_few_points_have_a_guess() -> None:
    for x, y in ((X, np.full(101, 3.0)), (X[:1], Y[:1]), (X[:3], Y[:3]), (X, np.zeros(101))):
        assert all(np.isfinite(value) for value in PEAK.guess(x, y).values())


def test_a_curve_without_points_leaves_the_guesses_of_the_others_as_they_are() -> None:
    both = np.stack([Y, np.full(101, np.nan), 2 * Y])
    found = PEAK.guess(X, both)
    for place, y in ((0, Y), (2, 2 * Y)):
        for name, value in PEAK.guess(X, y).items():
            np.testing.assert_allclose(found[name][place], value, 1e-12)
    assert all(np.isfinite(value).all() for value in found.values())
    with pytest.raises(InputError, match="no point is left"):
        PEAK.guess(X, np.full((2, 101), np.nan))


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (X, Y[:50], "do not belong together"),
        (X, np.full(101, np.nan), "no point is left"),
        (X, ["a"] * 101, "no array of real numbers"),
    ],
)
def test_data_that_cannot_be_guessed_from_are_refused(x: Any, y: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        PEAK.guess(x, y)


# ---- rough places --------------------------------------------------------------------------------

THREE = models.Gaussian("a") + models.Gaussian("b") + models.Gaussian("c") + models.Linear()
TRUE = [2.7, 2.9, 0.45, 4.9, 6.2, 0.3, 4.6, 9.0, 0.3, 0.1, 1.0]
SPECTRUM = THREE(X, *TRUE) + noise(101, 0.05, 3)
LEAST = curve_fit(THREE, X, SPECTRUM, TRUE).chisqr


@pytest.mark.parametrize(
    "hints",
    [{"b_center": 6.5}, {"b_center": 5.9}, {"b_center": 6.8}, {"c_center": 3.2, "a_center": 8.7}],
    ids=str,
)
def test_a_rough_place_names_a_peak_and_spoils_no_other(hints: dict[str, float]) -> None:
    # held beside its peak it would leave what the others take for theirs
    for model, p0 in ((THREE, hints), (THREE.with_start(hints), None)):
        fit = curve_fit(model, X, SPECTRUM, p0)
        assert fit.chisqr <= 1.001 * LEAST
        for name, place in hints.items():
            assert float(fit[name]) == pytest.approx(place, abs=0.65)
    started = curve_fit(THREE, X, SPECTRUM, hints).to_dict()["parameters"]
    assert {name: started[name]["start"] for name in hints} == hints


def test_in_a_batch_a_hint_names_the_nearest_peak_of_each_curve() -> None:
    shifted = THREE(X, *TRUE[:1], 3.3, *TRUE[2:]) + noise(101, 0.05, 4)
    guess = THREE.with_start(c_center=3.2).guess(X, np.stack([SPECTRUM, shifted]))
    assert guess["c_center"].tolist() == [3.2, 3.2]
    np.testing.assert_allclose(guess["c_sigma"], 0.45, atol=0.15)
    np.testing.assert_allclose(guess["a_center"], 6.2, atol=0.2)  # the others from left to right
    np.testing.assert_allclose(guess["b_center"], 9.0, atol=0.2)


def test_a_hint_at_a_peak_that_is_small_is_believed() -> None:
    # a free guess of one peak takes the large one, far from the hint
    one = models.Gaussian("g") + models.Linear()
    y = one(X, 9.0, 3.0, 0.4, 0.0, 1.0) + models.Gaussian()(X, 0.6, 8.0, 0.3) + noise(101, 0.01)
    guess = one.with_start(g_center=8.1).guess(X, y)
    assert float(guess["g_center"]) == 8.1
    assert float(guess["g_amplitude"]) < 3


def test_a_spot_is_meant_by_both_of_its_coordinates() -> None:
    points = np.stack([a.ravel() for a in np.meshgrid(np.arange(16.0), np.arange(16.0))])
    two = models.Gaussian2D("a") + models.Gaussian2D("b")
    first, second = [20.0, 5.0, 4.0, 1.2, 1.2], [30.0, 5.0, 11.0, 1.0, 1.4]
    image = two(points, *first, *second) + noise(256, 0.02)
    fit = curve_fit(two, points, image, {"a_centerx": 5.5, "a_centery": 10.0})
    np.testing.assert_allclose([fit["a_centery"], fit["b_centery"]], [11, 4], atol=0.2)


def test_an_image_that_is_not_flattened_is_refused_in_words() -> None:
    """A fit flattens it (`tests/fitting/measurements/test_grids.py`), a guess does not."""
    with pytest.raises(InputError, match="flatten the image"):
        models.Gaussian2D().guess(np.mgrid[0:9.0, 0:9.0], np.ones((9, 9)))


def test_two_peaks_of_counts_are_not_taken_for_a_broad_one_with_a_dip() -> None:
    x = np.linspace(400, 500, 201)
    model = models.Gaussian("a") + models.Gaussian("b") + models.Linear()
    truth = dict(zip(model.names, (8000, 440, 4, 5000, 452, 4, 0.3, -100), strict=True))
    clean = np.asarray(model(x, **truth))
    counts = np.stack([np.random.default_rng(seed).poisson(clean) for seed in (0, 1, 2, 7)])
    found = {name: np.asarray(value) for name, value in model.guess(x, counts).items()}
    assert (found["b_amplitude"] > 0).all()
    fit = curve_fit(model, x, counts)
    assert fit.success.all()
    assert np.abs(fit.params["b_center"] - 452).max() < 1
    held = model.with_fixed("a_center", "b_center").guess(x, counts)  # at the guess, that is
    assert np.abs(np.asarray(held["b_center"]) - 452).max() < 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_dip_on_a_broad_peak_is_found_where_there_is_one(dtype: torch.dtype) -> None:
    x = torch.linspace(0, 100, 201, dtype=dtype)
    model = models.Gaussian("a") + models.Gaussian("b") + models.Linear()
    truth = (40.0, 48.0, 12.0, -8.0, 50.0, 3.5, 0.01, 1.0)
    noise = torch.randn(201, generator=torch.Generator().manual_seed(0), dtype=dtype)
    y = model(x, *truth) + 0.02 * noise
    fit = curve_fit(model, x, y)
    assert fit.success
    # which of two peaks of one shape is which, their places say
    assert min(fit["a_amplitude"], fit["b_amplitude"]) == pytest.approx(-8, rel=0.1)


def test_a_guess_of_peaks_and_dips_apart_is_settled_without_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = models.Gaussian("a") + models.Gaussian("b") + models.Constant()
    y = model(X, 2.0, 3.0, 0.5, -2.0, 7.0, 0.5, 1.0) + noise(101, 0.1, seed=3)
    tried = []
    first = backfitting._first
    monkeypatch.setattr(backfitting, "_first", lambda *a: tried.append(1) or first(*a))
    found = model.guess(X, y)
    assert len(tried) == 1  # of six, as nothing but noise is left
    np.testing.assert_allclose([found["a_amplitude"], found["b_amplitude"]], [2, -2], rtol=0.2)
    monkeypatch.setattr(backfitting, "SETTLED", 0.0)
    model.guess(X, y)
    assert len(tried) == 7  # where it is not settled all the others are tried


@pytest.mark.parametrize("shape", [models.Pearson7, models.Moffat])
@pytest.mark.parametrize("exponent", [0.8, 30.0, 1e4, 1e6])
def test_a_peak_whose_exponent_is_held_has_its_width_guessed_with_it(
    shape: Any, exponent: float
) -> None:
    (name,) = {"expon", "beta"} & set(shape().names)
    # of the same width at half height, which sigma is not
    sigma = 0.6 / np.sqrt(np.expm1(np.log(2) / exponent))
    peak = shape()(X, 3.0, 4.0, sigma, exponent)
    y = peak + 1 + noise(101, 0.02 * np.ptp(peak))
    for held in (
        shape("p").with_fixed({f"p_{name}": exponent}),
        shape("p").with_bounds({f"p_{name}": (exponent * (1 - 1e-9), exponent * (1 + 1e-9))}),
    ):
        guess = (held + models.Constant()).guess(X, y)
        assert guess["p_sigma"] == pytest.approx(sigma, rel=0.5)
        fit = curve_fit(held + models.Constant(), X, y)
        assert fit["p_center"] == pytest.approx(4, abs=0.05)
        assert fit["p_sigma"] == pytest.approx(sigma, rel=0.1)


def test_a_correction_solves_a_linear_problem_and_leaves_what_is_fixed() -> None:
    x = torch.linspace(0, 1, 20, dtype=torch.float64)
    y = torch.stack([3 * x + 2, 0 * x + 2])

    def at(values: dict[str, torch.Tensor]) -> torch.Tensor:
        return values["slope"][:, None] * x + values["level"][:, None]

    zero = torch.zeros(2, dtype=torch.float64)
    found = corrected({"slope": zero, "level": zero}, at, y, Rules())
    torch.testing.assert_close(found["slope"], zero.new_tensor([3, 0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(found["level"], zero.new_tensor([2, 2]), rtol=0, atol=1e-6)
    rules = Rules(fixed={"level": 1.0})
    held = corrected({"slope": zero, "level": zero}, at, y, rules)
    assert (held["level"] == 1).all()
    assert (held["slope"] != 0).all()


def wave(x: Any, size: Any, rate: Any, phase: Any) -> Any:
    return size * torch.sin(rate * x + phase)


def test_a_sum_that_ends_beside_its_data_as_a_start_is_not_known_says_so() -> None:
    model = models.Gaussian("g") + models.from_function(wave, prefix="w")
    y = model(X, 6.0, 5.0, 0.5, 1.0, 3.8, 0.3) + noise(101, 0.05)
    for _ in range(2):  # the second fit of a kind goes a shorter way
        with pytest.warns(OptimizeWarning, match="Nothing was known of where .*'w_rate'"):
            curve_fit(model, X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        known = curve_fit(model, X, y, p0={"w_size": 1.0, "w_rate": 3.8, "w_phase": 0.0})
        assert known["w_rate"] == pytest.approx(3.8, abs=0.02)
        # and where it comes to its data from 1 there is nothing to say
        easy = models.Gaussian("g") + models.from_function(lambda x, k: k * x, prefix="f")
        fit = curve_fit(easy, X, easy(X, 6.0, 5.0, 0.5, 2.0) + noise(101, 0.05))
        assert fit["f_k"] == pytest.approx(2, abs=0.02)
