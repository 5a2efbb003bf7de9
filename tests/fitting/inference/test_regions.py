"""Joint confidence regions of two parameters."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib import pyplot

from lmtorch import InputError, curve_fit, odr

from ..setting import (
    CONCENTRATION,
    RATE,
    UNDETERMINED,
    T,
    decay,
    design,
    line,
    michaelis_menten,
    noise,
    noisy,
    solved,
)

Y = noisy()
LEVELS = (0.5, 0.95)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def form(points: np.ndarray, center: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    away = points - center
    return np.einsum("ij,jk,ik->i", away, np.linalg.inv(covariance), away)


@pytest.mark.parametrize("absolute", [False, True], ids=["scaled", "absolute"])
def test_of_a_linear_model_the_region_is_the_ellipse(absolute: bool) -> None:
    y = 2 * T + 1 + noise(40, 0.1)
    sigma = 0.1 if absolute else None
    fit = curve_fit(line, T, y, sigma=sigma, absolute_sigma=absolute)
    region = fit.confidence_region(("slope", "intercept"), LEVELS)
    center, inverse, chisqr = solved(design(T), y, 10.0 if absolute else 1.0)
    covariance = inverse if absolute else inverse * chisqr / 38
    for level in LEVELS:
        limit = scipy.stats.chi2.ppf(level, 2)
        if not absolute:
            limit = 2 * scipy.stats.f.ppf(level, 2, 38)
        (outline,) = region.contours[level]
        np.testing.assert_array_equal(outline[0], outline[-1])
        np.testing.assert_allclose(form(outline, center, covariance), limit, rtol=1e-8)
        np.testing.assert_allclose(
            form(region.ellipses[level], center, covariance), limit, rtol=1e-8
        )
    rise = form(region.points.reshape(-1, 2), center, covariance)
    np.testing.assert_allclose(region.rise.ravel(), rise, rtol=1e-6, atol=1e-8)
    expected = scipy.stats.chi2.cdf(rise, 2) if absolute else scipy.stats.f.cdf(rise / 2, 2, 38)
    np.testing.assert_allclose(region.probability.ravel(), expected, rtol=1e-6, atol=1e-8)


def chisqr_at(v: float, k: float) -> float:
    return float(np.sum((v * CONCENTRATION / (k + CONCENTRATION) - RATE) ** 2))


def test_of_a_curve_every_point_of_the_outline_is_on_the_limit() -> None:
    fit = curve_fit(michaelis_menten, CONCENTRATION, RATE)
    (outline,) = fit.confidence_region(("v_max", "k")).contours[0.95]
    rise = np.array([chisqr_at(*point) for point in outline]) - chisqr_at(*fit.popt)
    np.testing.assert_allclose(rise / fit.redchi, 2 * scipy.stats.f.ppf(0.95, 2, 10), rtol=1e-7)
    assert len(outline) > 50


def test_the_other_parameters_are_refitted() -> None:
    fit = curve_fit(decay, T, Y)
    (outline,) = fit.confidence_region(("b", "c")).contours[0.95]
    for b, c in outline[::10]:
        e = np.exp(-b * T)
        a = e @ (Y - c) / (e @ e)
        rise = np.sum((a * e + c - Y) ** 2) - fit.chisqr
        assert rise / fit.redchi == pytest.approx(2 * scipy.stats.f.ppf(0.95, 2, 37), rel=1e-6)


def test_the_grid_is_that_of_lmfit() -> None:
    lmfit = pytest.importorskip("lmfit")
    fit = curve_fit(decay, T, Y)
    region = fit.confidence_region(("a", "b"), points=5)

    def residual(p: Any) -> np.ndarray:
        return p["a"] * np.exp(-p["b"] * T) + p["c"] - Y

    params = lmfit.create_params(a=2.5, b=1.3, c=0.5)
    minimizer = lmfit.Minimizer(residual, params)
    result = minimizer.minimize()
    for (i, j), expected in np.ndenumerate(np.sqrt(region.rise)):
        a, b = region.points[i, j]
        _, _, grid = lmfit.conf_interval2d(minimizer, result, "a", "b", 1, 1, ((a, a), (b, b)),
                                           chi2_out=True)  # fmt: skip
        rise = (grid.item() - result.chisqr) / result.redchi
        assert expected**2 == pytest.approx(rise, rel=1e-4, abs=1e-6)


def test_of_counts_the_likelihood_tells() -> None:
    counts = np.random.default_rng(0).poisson(2 * T + 5)
    fit = curve_fit(line, T, counts, [1, 3], likelihood="poisson")
    (outline,) = fit.confidence_region(("slope", "intercept")).contours[0.95]

    def likelihood(slope: float, intercept: float) -> float:
        return float(scipy.stats.poisson.logpmf(counts, slope * T + intercept).sum())

    rise = 2 * (likelihood(*fit.popt) - np.array([likelihood(*point) for point in outline]))
    np.testing.assert_allclose(rise, scipy.stats.chi2.ppf(0.95, 2), rtol=1e-6)


def test_a_transformed_parameter_has_the_same_region() -> None:
    plain = curve_fit(michaelis_menten, CONCENTRATION, RATE)
    moved = curve_fit(michaelis_menten, CONCENTRATION, RATE, transforms={"k": "positive"})
    (outline,) = moved.confidence_region(("v_max", "k")).contours[0.95]
    rise = np.array([chisqr_at(*point) for point in outline]) - chisqr_at(*plain.popt)
    np.testing.assert_allclose(rise / plain.redchi, 2 * scipy.stats.f.ppf(0.95, 2, 10), rtol=1e-6)


def test_a_region_that_is_far_from_the_ellipse_is_whole() -> None:
    few = CONCENTRATION[:6], RATE[:6]  # none beyond the bend
    fit = curve_fit(michaelis_menten, *few, p0=(200, 0.1))
    (outline,) = fit.confidence_region(("v_max", "k"), 0.9, points=41).contours[0.9]
    np.testing.assert_array_equal(outline[0], outline[-1])
    ellipse = fit.confidence_region(("v_max", "k"), 0.9, points=5).ellipses[0.9]
    assert outline[:, 0].max() > 1.2 * ellipse[:, 0].max()
    limit = 2 * scipy.stats.f.ppf(0.9, 2, 4)
    c, r = few
    rise = np.array([np.sum((v * c / (k + c) - r) ** 2) for v, k in outline]) - fit.chisqr
    np.testing.assert_allclose(rise / fit.redchi, limit, rtol=1e-5)


def test_an_outline_that_runs_into_a_bound_is_open_and_inside() -> None:
    fit = curve_fit(decay, T, Y, [2, 1, 0.6], bounds={"c": (0.49, 2)})
    assert fit["c"] > 0.49
    (outline,) = fit.confidence_region(("b", "c")).contours[0.95]
    assert not np.array_equal(outline[0], outline[-1])
    assert outline[:, 1].min() >= 0.49
    np.testing.assert_allclose(outline[[0, -1], 1], 0.49, atol=1e-12)


@UNDETERMINED
def test_what_is_not_determined_has_no_ellipse_and_an_open_region() -> None:
    fit = curve_fit(lambda t, a, b, k: (a + b) * torch.exp(-k * t) + 0.5, T, Y)
    region = fit.confidence_region(("a", "k"))
    assert region.ellipses[0.95].shape == (0, 2)
    assert len(region.contours[0.95]) == 2
    for outline in region.contours[0.95]:
        np.testing.assert_allclose(outline[:, 1], outline[0, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        ("ab", {}, "must be two names"),
        (("a",), {}, "must be two names"),
        (3, {}, "must be two names"),
        (("a", "a"), {}, "of two parameters, not of 'a' twice"),
        (("a", "x"), {}, "there is no parameter 'x'"),
        (("a", "c"), {}, "'c' does not vary"),
        (("a", "b"), {"level": 1.0}, "must be a probability"),
        (("a", "b"), {"level": (0.5, float("nan"))}, "must be a probability"),
        (("a", "b"), {"points": 4}, "whole number of 5 and more"),
        (("a", "b"), {"points": 9.0}, "whole number of 5 and more"),
        (("a", "b"), {"points": True}, "whole number of 5 and more"),
    ],
)
def test_what_cannot_be_is_refused(names: Any, options: dict[str, Any], said: str) -> None:
    fit = curve_fit(decay, T, Y, fixed=["c"], p0=(2, 1, 0.5))
    with pytest.raises(InputError, match=said):
        fit.confidence_region(names, **options)


def test_with_errors_in_x_the_points_move_as_well() -> None:
    x, y = T + noise(40, 0.1, 1), 2 * T + 1 + noise(40, 0.2, 2)
    fit = odr(line, x, y, sx=0.1, sy=0.2)
    (outline,) = fit.confidence_region(("slope", "intercept")).contours[0.95]

    def chisqr(slope: float, intercept: float) -> float:
        return float(np.sum((slope * x + intercept - y) ** 2) / (0.2**2 + (slope * 0.1) ** 2))

    rise = np.array([chisqr(*point) for point in outline]) - chisqr(*fit.popt)
    np.testing.assert_allclose(rise / fit.redchi, 2 * scipy.stats.f.ppf(0.95, 2, 38), rtol=1e-6)


def test_fits_without_a_likelihood_or_many_are_refused() -> None:
    robust = curve_fit(decay, T, Y, loss="huber")
    many = curve_fit(decay, T, Y + noise((2, 40), 0.02))
    for method in ("confidence_region", "plot_regions"):
        given = [] if method == "plot_regions" else [("a", "b")]
        with pytest.raises(InputError, match="a region needs a likelihood"):
            getattr(robust, method)(*given)
        with pytest.raises(InputError, match=rf"fit.at\(index\).{method}"):
            getattr(many, method)(*given)


def test_a_region_is_drawn() -> None:
    region = curve_fit(line, T, 2 * T + noise(40)).confidence_region(("slope", "intercept"), LEVELS)
    (axis,) = region.plot().axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("slope", "intercept")
    drawn = [one.get_xydata() for one in axis.lines]
    np.testing.assert_array_equal(drawn[0], region.contours[0.5][0])
    np.testing.assert_array_equal(drawn[3], region.ellipses[0.95])
    figure, given = pyplot.subplots()
    assert region.plot(given) is figure


def test_all_pairs_are_drawn_below_the_profiles() -> None:
    fit = curve_fit(decay, T, Y)
    figure = fit.plot_regions(points=9)
    figure.canvas.draw()
    axes = np.array(figure.axes).reshape(3, 3)
    assert [[one.get_visible() for one in row] for row in axes] == np.tri(3, dtype=bool).tolist()
    assert [one.get_xlabel() for one in axes[-1]] == ["a", "b", "c"]
    assert axes[2, 0].get_ylabel() == "c"
    assert fit.plot_regions("a").axes[0].get_xlabel() == "a"
