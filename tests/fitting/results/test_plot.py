"""Pictures: what is drawn."""

from collections.abc import Iterator

import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

from lmtorch import InputError, curve_fit, models, odr

from ..setting import DIFFERENCED, T, decay, line, noise, noisy


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def test_a_picture_is_a_figure_with_residuals_below() -> None:
    figure = curve_fit(decay, T, noisy()).plot()
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 2
    assert figure.axes[1].get_ylabel() == "data − fit"


def test_the_curve_is_drawn_over_all_the_data() -> None:
    fit = curve_fit(decay, T, noisy())
    curve = next(one for one in fit.plot().axes[0].lines if len(one.get_xdata()) > 40)
    x, y = (np.asarray(data, dtype=float) for data in curve.get_data())
    assert (x.min(), x.max()) == (T.min(), T.max())
    np.testing.assert_allclose(y, fit(x), rtol=1e-13)


def test_the_band_is_drawn() -> None:
    fit = curve_fit(decay, T, noisy())
    (band,) = fit.plot(level=0.8).axes[0].collections
    corners = band.get_paths()[0].vertices[:, 1]
    _, lower, upper = fit.confidence_band(np.linspace(0, 4, 400), 0.8)
    assert corners.min() == pytest.approx(lower.min(), rel=1e-12)
    assert corners.max() == pytest.approx(upper.max(), rel=1e-12)
    assert band.get_label() == "80% band"


def test_residuals_are_drawn_in_units_of_their_errors() -> None:
    fit = curve_fit(decay, T, noisy(), sigma=0.05 + 0.01 * T)
    below = fit.plot().axes[1]
    assert below.get_ylabel() == "(data − fit)/σ"
    np.testing.assert_allclose(below.lines[0].get_ydata(), -fit.residual, rtol=1e-14)


def test_error_bars_are_those_of_sigma() -> None:
    sigma = 0.05 + 0.01 * T
    y = noisy()
    (bars,) = curve_fit(decay, T, y, sigma=sigma).plot().axes[0].containers
    assert bars.has_yerr
    (verticals,) = bars.lines[2]
    ends = np.array([segment[:, 1] for segment in verticals.get_segments()])
    np.testing.assert_allclose(ends, np.stack([y - sigma, y + sigma], 1), rtol=1e-12)


def test_without_sigma_there_are_no_error_bars() -> None:
    (bars,) = curve_fit(decay, T, noisy()).plot().axes[0].containers
    assert not bars.has_yerr


def test_masked_points_are_not_drawn() -> None:
    kept = np.arange(40) % 4 != 0
    figure = curve_fit(decay, T, noisy(), mask=kept).plot()
    np.testing.assert_array_equal(figure.axes[0].containers[0].lines[0].get_xdata(), T[kept])
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_xdata(), T[kept])


def test_a_column_is_drawn_and_f_gets_columns() -> None:
    y = 2 * T + 1 + noise(40, 0.1)
    figure = curve_fit(torch.nn.Linear(1, 1).double(), T[:, None], y[:, None]).plot()
    curve = figure.axes[0].get_lines()[-1].get_xydata()
    np.testing.assert_allclose(curve[:, 1], np.polyval(np.polyfit(T, y, 1), curve[:, 0]), rtol=1e-9)


def test_tensors_are_drawn() -> None:
    y = torch.as_tensor(noisy()).float().requires_grad_()
    assert len(curve_fit(decay, torch.as_tensor(T).float(), y).plot().axes) == 2


def test_a_global_fit_has_a_colour_for_each_data_set() -> None:
    fit = curve_fit(line, [T, T[:9]], [T + noise(40), 3 + T[:9] + noise(9)], shared=["slope"])
    above, below = fit.plot().axes
    assert len(above.collections) == 2
    assert [len(one.get_xdata()) for one in below.lines[:2]] == [40, 9]
    assert below.lines[0].get_color() != below.lines[1].get_color()


def test_one_data_set_of_a_global_fit_may_be_drawn() -> None:
    fit = curve_fit(line, [T, T[:9]], [T + noise(40), 3 + T[:9] + noise(9)], shared=["slope"])
    above, below = fit.plot(dataset=1).axes
    assert len(above.collections) == 1
    np.testing.assert_array_equal(below.lines[0].get_xdata(), T[:9])


def test_the_legend_tells_data_sets_apart() -> None:
    fit = curve_fit(line, [T, T[:9]], [T + noise(40), 3 + T[:9] + noise(9)], shared=["slope"])
    told = [text.get_text() for text in fit.plot().axes[0].get_legend().get_texts()]
    assert {"data set 0", "data set 1", "95% band"} < {*told}
    assert len(told) == 4
    alone = [text.get_text() for text in fit.plot(dataset=1).axes[0].get_legend().get_texts()]
    assert "data" in alone
    with pytest.raises(InputError, match="dataset=2 does not name one of 2 data sets"):
        fit.plot(dataset=2)


def test_a_point_above_the_curve_is_above_zero() -> None:
    y = noisy()
    y[7] += 1
    for options in ({}, {"sigma": 0.1}):
        left = curve_fit(decay, T, y, **options).plot().axes[1].lines[0].get_ydata()
        assert np.asarray(left).argmax() == 7
    counts = np.random.default_rng(0).poisson(np.polyval((3, 20), T))
    counts[7] += 30
    fit = curve_fit(line, T, counts, likelihood="poisson", p0=(1, 10))
    assert np.asarray(fit.plot().axes[1].lines[0].get_ydata()).argmax() == 7


def test_axes_may_be_given_with_words() -> None:
    fit = curve_fit(decay, T, noisy())
    figure, (one, other) = pyplot.subplots(1, 2)
    assert fit.plot(ax=one, xlabel="t / s", ylabel="signal", title="decay") is figure
    assert (one.get_xlabel(), one.get_ylabel(), one.get_title()) == ("t / s", "signal", "decay")
    assert not other.lines
    fit.plot(ax=(one, other), xlabel="t / s")
    assert (other.get_xlabel(), other.get_ylabel()) == ("t / s", "data − fit")
    for wrong in (3, "x", [one, other, one]):
        with pytest.raises(InputError, match="must be matplotlib's axes"):
            fit.plot(ax=wrong)


def test_log_axes_leave_out_what_they_cannot_show() -> None:
    fit = curve_fit(decay, T, noisy(truth=(2.5, 1.3, 0.0)))  # x is zero, and the band negative
    figure = fit.plot(xscale="log", yscale="log")
    figure.canvas.draw()
    above, below = figure.axes
    assert (above.get_xscale(), above.get_yscale()) == ("log", "log")
    assert (below.get_xscale(), below.get_yscale()) == ("log", "linear")
    grid = np.asarray(above.lines[-1].get_xdata(), dtype=float)
    assert grid.min() == T[1]
    np.testing.assert_allclose(np.diff(np.log(grid)), np.diff(np.log(grid))[0], rtol=1e-6)
    given, axes = pyplot.subplots()
    axes.set_xscale("log")
    fit.plot(ax=axes)
    given.canvas.draw()
    assert np.asarray(axes.lines[-1].get_xdata(), dtype=float).min() == T[1]
    with pytest.raises(InputError, match="xscale='log' needs an x that is positive"):
        curve_fit(line, -T, T + noise(40)).plot(xscale="log")


def test_on_a_log_axis_the_data_say_how_far_down_it_goes() -> None:
    y = 3 * np.exp(-((T - 2) ** 2) / 0.02) + 1 + noise(40, 0.02)  # a term of 10⁻⁸⁰ at the ends
    fit = curve_fit(models.Gaussian("g") + models.Constant(), T, y)
    bottom, top = fit.plot(yscale="log").axes[0].get_ylim()
    assert y.min() / 4 < bottom < y.min()
    assert top > y.max()


def test_a_curve_over_decades_is_smooth_at_both_ends() -> None:
    x = np.geomspace(1e-3, 1e3, 40)
    fit = curve_fit(lambda x, a, k: a * x / (k + x), x, x / (1 + x) + noise(40, 0.01))
    grid = np.asarray(fit.plot().axes[0].lines[-1].get_xdata(), dtype=float)
    assert (grid.min(), grid.max()) == (x.min(), x.max())
    assert np.diff(np.log10(grid)).max() < 0.02
    assert np.diff(grid).max() < 3


@DIFFERENCED
def test_dates_are_drawn() -> None:
    days = np.datetime64("2026-01-01") + np.arange(40) * np.timedelta64(1, "D")
    fit = curve_fit(lambda x, a, b: a * ((x - days[0]) / np.timedelta64(1, "D")) + b, days, T)
    figure = fit.plot()
    figure.canvas.draw()
    curve = figure.axes[0].lines[-1]
    assert (curve.get_xdata()[0], curve.get_xdata()[-1]) == (days[0], days[-1])


@pytest.mark.filterwarnings("ignore:the curve passes the data by")
def test_the_terms_of_a_sum_are_drawn_with_their_names() -> None:
    y = 3 * np.exp(-((T - 2) ** 2)) + 0.2 * T + noise(40, 0.02)
    fit = curve_fit(models.Gaussian("g") + models.Linear(), T, y)
    above = fit.plot().axes[0]
    drawn = {one.get_label(): one for one in above.lines}
    for name in ("g", "Linear"):
        grid, curve = (np.asarray(v, dtype=float) for v in drawn[name].get_data())
        np.testing.assert_allclose(curve, fit.components(grid)[name], rtol=1e-12)
        assert drawn[name].get_linestyle() == "--"
    bare = fit.plot(components=False).axes[0].lines
    assert "g" not in {one.get_label() for one in bare}
    both = curve_fit(models.Gaussian("g") + models.Linear(), [T, T], [y, y], shared=["g_center"])
    assert len(both.plot().axes[0].lines) == len(curve_fit(line, [T, T], [y, y], shared=["slope"])
        .plot().axes[0].lines) + 4  # fmt: skip


def test_two_predictors_cannot_be_drawn() -> None:
    x = noise((2, 20))
    fit = curve_fit(lambda x, a, b: a * x[0] + b * x[1], x, x.sum(0) + noise(20, 0.1))
    with pytest.raises(InputError, match="a plot needs one x for each point"):
        fit.plot()


def test_a_batch_cannot_be_drawn_but_its_fits_can() -> None:
    fits = curve_fit(line, T, T + noise((2, 40)))
    with pytest.raises(InputError, match=r"fit.at\(index\).plot"):
        fits.plot()
    assert len(fits.at(0).plot().axes) == 2


# ---- errors in x ---------------------------------------------------------------------------------


def ellipse(x: torch.Tensor, a: float, b: float, c: float, d: float) -> torch.Tensor:
    return ((x[0] - a) / c) ** 2 + ((x[1] - b) / d) ** 2 - 1


def test_an_implicit_model_is_drawn_as_the_curve_where_it_is_zero() -> None:
    angle = np.linspace(0, 4.5, 30)
    points = np.stack([1 + 3 * np.cos(angle), 2 + 1.5 * np.sin(angle)])
    points += 0.05 * noise(60).reshape(2, 30)
    hidden = np.ma.array(points, mask=np.broadcast_to(np.arange(30) == 4, (2, 30)))
    fit = odr(ellipse, hidden, None, p0=[1, 2, 3, 1.5], sx=0.05)
    figure = fit.plot(xlabel="width", title="a ring")
    above, below = figure.axes
    band, curve = (one for one in above.collections if hasattr(one, "levels"))
    (segment,) = (path for path in curve.get_paths() if len(path.vertices) > 40)
    gap = ellipse(torch.as_tensor(segment.vertices.T.copy()), *fit.popt)
    assert float(gap.abs().max()) < 1e-3  # a grid of finite width
    # at the right end of the ellipse f = 0 moves with a + c, and the band is as wide as that
    direction = np.array([1.0, 0, 1, 0])
    half = scipy.stats.t.ppf(0.975, fit.nfree) * np.sqrt(direction @ fit.pcov @ direction)
    corners = np.concatenate([path.vertices for path in band.get_paths()])
    assert abs(corners[:, 0].max() - (fit["a"] + fit["c"] + half)) < 0.1 * half
    (drawn,) = (line for line in below.lines if len(line.get_xdata()) > 10)
    assert len(drawn.get_xdata()) == 29
    np.testing.assert_allclose(
        np.square(np.asarray(drawn.get_ydata())).sum(), fit.chisqr, rtol=1e-9
    )
    assert (above.get_xlabel(), above.get_title()) == ("width", "a ring")


def test_each_response_has_a_panel() -> None:
    def both(x: torch.Tensor, a: float, k: float) -> tuple[torch.Tensor, torch.Tensor]:
        return a * torch.exp(-k * x), a * k * x

    y = np.stack([2 * np.exp(-T), 2 * T]) + 0.02 * noise(2 * len(T)).reshape(2, -1)
    we = np.full(y.shape, 2500.0)
    we[1, 3] = 0.0
    fit = odr(both, T, y, p0=[1, 1], sx=0.002, we=we)
    figure = fit.plot(xlabel="time")
    assert len(figure.axes) == 4
    for place in range(2):
        curve = next(one for one in figure.axes[place].lines if len(one.get_xdata()) > 60)
        x, drawn = (np.asarray(data, dtype=float) for data in curve.get_data())
        np.testing.assert_allclose(drawn, fit.predict(x)[place], rtol=1e-12)
        left = next(one for one in figure.axes[2 + place].lines if len(one.get_xdata()) > 5)
        assert len(left.get_xdata()) == len(T) - place  # one has no weight
        rise = (fit.predict(T + 1e-6) - fit.predict(T - 1e-6))[place] / 2e-6
        alone = (y - fit.predict(T))[place] / np.hypot(0.02, 0.002 * rise)
        np.testing.assert_allclose(left.get_ydata(), alone[we[place] > 0], rtol=1e-2)
        assert figure.axes[2 + place].get_xlabel() == "time"
    with pytest.raises(InputError, match="2 curves"):
        fit.plot(ax=figure.axes[0])
    assert fit.plot(ax=figure.axes[:2]) is figure


def test_what_cannot_be_drawn_is_refused() -> None:
    x = np.stack([T, T**2, np.cos(T)])
    plane = odr(lambda x, a, b: a * x[0] + b * x[1] + x[2] - 1, x, None, p0=[0.1, 0.1])
    with pytest.raises(InputError, match="in a plane"):
        plane.plot()
