"""A surface over a grid: coordinates in the shape of the data, as numpy.meshgrid makes them."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy.optimize import curve_fit as scipys

from lmtorch import InputError, curve_fit, models
from lmtorch._errors import InputTypeError

COLUMNS, ROWS = np.linspace(-3, 3, 20), np.linspace(-2, 2, 15)
X, Y = np.meshgrid(COLUMNS, ROWS)
START = [1.0, 0.0, 0.0, 1.0]
NOISE = np.random.default_rng(0).normal(size=X.shape)
SIGMA = 0.01 * (1 + Y**2)
Z = 3 * np.exp(-((X - 0.5) ** 2 + (Y + 0.3) ** 2) / 1.28) + SIGMA * NOISE


def spot(points: Any, height: Any, x0: Any, y0: Any, width: Any) -> Any:
    x, y = points
    return height * torch.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * width**2))


def flat_spot(points: Any, height: Any, x0: Any, y0: Any, width: Any) -> Any:
    return spot(points, height, x0, y0, width).ravel()


def of_scipy(z: Any = Z, sigma: Any = None, kept: Any = ...) -> tuple[Any, Any]:
    def curve(points: Any, *values: Any) -> Any:
        return spot(torch.as_tensor(points), *values).numpy()

    points = np.stack([X[kept].ravel(), Y[kept].ravel()])
    deviations = None if sigma is None else sigma[kept].ravel()
    found: tuple[Any, Any] = scipys(
        curve, points, z[kept].ravel(), START, deviations, xtol=1e-14, ftol=1e-14
    )
    return found


def same(fit: Any, expected: tuple[Any, Any]) -> None:
    # scipy's differences leave about seven digits of the values and five of the covariance
    np.testing.assert_allclose(fit.popt, expected[0], rtol=1e-6)
    np.testing.assert_allclose(fit.pcov, expected[1], rtol=1e-4, atol=1e-10)


IMAGE = xr.DataArray(Z, dims=("y", "x"), coords={"x": COLUMNS, "y": ROWS})
GRIDS = {
    "a pair": ((X, Y), Z),
    "a list": ([X, Y], Z),
    "one array": (np.stack([X, Y]), Z),
    "lists of numbers for data": ((X, Y), Z.tolist()),
    "a sparse grid": (np.meshgrid(COLUMNS, ROWS, sparse=True), Z),
    "tensors": ((torch.tensor(X), torch.tensor(Y)), torch.tensor(Z)),
    "axes of xarray": ((IMAGE.x, IMAGE.y), IMAGE),
    "grids of xarray in the other order": (xr.broadcast(IMAGE.x, IMAGE.y), IMAGE),
}


@pytest.mark.parametrize("model", [spot, flat_spot])
@pytest.mark.parametrize("given", GRIDS)
def test_a_grid_and_an_image_are_one_surface(given: str, model: Any) -> None:
    points, image = GRIDS[given]
    same(curve_fit(model, points, image, START), of_scipy())


@pytest.mark.parametrize("kind", ["square", "square of xarray"])
def test_a_square_image_is_one_surface_too(kind: str) -> None:
    image = IMAGE[:, :15]
    points: Any = (X[:, :15], Y[:, :15])
    if kind == "square of xarray":  # by names: shapes would let the axes be exchanged
        points = xr.broadcast(image.x, image.y)
    fit = curve_fit(spot, points, image if kind != "square" else Z[:, :15], START)
    same(fit, of_scipy(kept=(slice(None), slice(15))))


def test_errors_and_masks_have_the_shape_of_the_image() -> None:
    kept = np.hypot(X, Y) < 2
    same(curve_fit(spot, (X, Y), Z, START, SIGMA), of_scipy(sigma=SIGMA))
    same(curve_fit(spot, (X, Y), Z, START, SIGMA, mask=kept), of_scipy(Z, SIGMA, kept))
    hidden = np.ma.array(Z, mask=~kept)
    same(curve_fit(spot, (X, Y), hidden, START, SIGMA), of_scipy(Z, SIGMA, kept))
    holes = np.where(kept, Z, np.nan)
    found = curve_fit(spot, (X, Y), holes, START, SIGMA, nan_policy="omit")
    same(found, of_scipy(Z, SIGMA, kept))
    assert found.ndata == kept.sum()
    same(curve_fit(spot, (X, Y), Z, START, 0.1), of_scipy())


def test_what_is_asked_of_an_image_afterwards_takes_grids_or_rows_of_points() -> None:
    fit = curve_fit(spot, (X, Y), Z, START)
    finer = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 5))
    expected = spot(torch.as_tensor(np.array(finer)), *fit.popt).numpy()
    np.testing.assert_allclose(fit.predict(finer), expected.ravel(), rtol=1e-12)
    rows = np.stack([part.ravel() for part in finer])
    np.testing.assert_allclose(fit.predict(rows), expected.ravel(), rtol=1e-12)
    np.testing.assert_allclose(fit.predict((X, Y)), fit.best_fit, rtol=1e-12)
    assert fit.best_fit.shape == (Z.size,)


def test_a_named_model_takes_grids() -> None:
    peak = models.Gaussian2D()
    grids = curve_fit(peak, (X, Y), Z)
    rows = curve_fit(peak, np.stack([X.ravel(), Y.ravel()]), Z.ravel())
    np.testing.assert_array_equal(grids.popt, rows.popt)
    np.testing.assert_array_equal(grids.pcov, rows.pcov)


def test_counts_in_an_image_are_one_surface() -> None:
    counts = np.random.default_rng(1).poisson(20 * Z.clip(0) + 1).astype(float)
    grids = curve_fit(spot, (X, Y), counts, [20, 0, 0, 1], likelihood="poisson", bounds=(-9, 99))
    points = np.stack([X.ravel(), Y.ravel()])
    rows = curve_fit(
        spot, points, counts.ravel(), [20, 0, 0, 1], likelihood="poisson", bounds=(-9, 99)
    )
    np.testing.assert_allclose(grids.popt, rows.popt, rtol=1e-9)


def test_a_batch_stays_a_batch() -> None:
    def line(x: Any, a: Any, b: Any) -> Any:
        return a * x[0] + b * x[1]

    two = np.random.default_rng(2).normal(size=(2, 15))
    rows = np.array([[2.0, 1.0], [0.5, 3.0], [1.0, -1.0]]) @ two
    batch = curve_fit(line, tuple(two), rows)  # two predictors for all three fits
    assert batch.popt.shape == (3, 2)
    one = curve_fit(line, two, rows[:1])
    assert one.popt.shape == (1, 2)
    own = curve_fit(lambda x, a: a * x, X, 2 * X)  # x of each fit: its own
    assert own.popt.shape == (15, 1)


def test_axes_alone_are_told_to_become_grids() -> None:
    for axes in ((COLUMNS, ROWS), (ROWS, COLUMNS)):
        with pytest.raises(InputError, match=r"numpy\.meshgrid"):
            curve_fit(spot, axes, Z, START)


@pytest.mark.parametrize("form", [tuple, list, np.stack, lambda axes: torch.tensor(np.stack(axes))])
def test_the_axes_of_a_square_image_are_no_predictors_of_as_many_curves(form: Any) -> None:
    image, axes = Z[:, :15], (COLUMNS[:15], ROWS)
    with pytest.raises(InputError, match=r"numpy\.meshgrid.*each_x=False"):
        curve_fit(spot, form(axes), image, START)


def test_as_many_curves_of_several_predictors_are_fitted_where_that_is_said() -> None:
    rng = np.random.default_rng(0)

    def plane(points: Any, a: Any, b: Any) -> Any:
        return a * points[0] + b * points[1]

    slopes = rng.normal(size=(15, 2))
    for points in ((ROWS, ROWS**3), (ROWS, rng.normal(size=15))):
        curves = slopes @ np.stack(points)
        fits = curve_fit(plane, points, curves, each_x=False)
        np.testing.assert_allclose(fits.popt, slopes)
    fits = curve_fit(plane, points, curves)  # what rises and falls is no axis
    np.testing.assert_allclose(fits.popt, slopes)


STACK = np.stack([Z, 2 * Z + 0.01 * NOISE[::-1], Z[:, ::-1]])
STACKS = {
    "a pair": ((X, Y), STACK),
    "one array": (np.stack([X, Y]), STACK),
    "a sparse grid": (np.meshgrid(COLUMNS, ROWS, sparse=True), STACK),
    "tensors": ((torch.tensor(X), torch.tensor(Y)), torch.tensor(STACK)),
    "as many as coordinates": ((X, Y), STACK[:2]),
    "two dimensions of them": ((X, Y), STACK[:2].reshape(2, 1, *Z.shape)),
}


@pytest.mark.parametrize("given", STACKS)
@pytest.mark.parametrize("model", [spot, flat_spot])
def test_images_over_one_grid_are_fitted_one_by_one(given: str, model: Any) -> None:
    points, images = STACKS[given]
    fits = curve_fit(model, points, images, START, sigma=np.broadcast_to(SIGMA, images.shape))
    assert fits.best_fit.shape == (*images.shape[:-2], Z.size)
    values, images = np.asarray(fits.popt).reshape(-1, 4), np.asarray(images)
    for found, image in zip(values, images.reshape(-1, *Z.shape), strict=True):
        np.testing.assert_allclose(found, of_scipy(image, SIGMA)[0], rtol=1e-6)


def test_a_mask_and_errors_of_the_grid_hold_for_all_images() -> None:
    kept = X**2 + Y**2 < 4
    fits = curve_fit(spot, (X, Y), STACK, START, sigma=SIGMA, mask=kept)
    for found, image in zip(fits.popt, STACK, strict=True):
        np.testing.assert_allclose(found, of_scipy(image, SIGMA, kept)[0], rtol=1e-6)


def test_a_model_of_the_library_guesses_for_each_image() -> None:
    fits = curve_fit(models.Gaussian2D(), (X, Y), STACK)
    for place, image in enumerate(STACK):
        one = curve_fit(models.Gaussian2D(), (X, Y), image)
        np.testing.assert_allclose(fits.popt[place], one.popt, rtol=1e-7)


def test_points_in_rows_are_told_to_be_turned() -> None:
    points = np.stack([X.ravel(), Y.ravel()], axis=1)
    with pytest.raises(ValueError, match="unpack") as told:
        curve_fit(spot, points, Z.ravel(), START)
    assert "xdata.T" in told.value.__notes__[0]
    table = pd.DataFrame(points, columns=["x", "y"])
    with pytest.raises(InputTypeError, match="dict") as refused:
        curve_fit(spot, table, Z.ravel(), START)
    assert "dict(table[['x', 'y']])" in str(refused.value)

    def by_name(columns: Any, *values: Any) -> Any:
        return spot((columns["x"], columns["y"]), *values)

    same(curve_fit(by_name, dict(table[["x", "y"]]), Z.ravel(), START), of_scipy())
    same(curve_fit(spot, table.to_numpy().T, Z.ravel(), START), of_scipy())
