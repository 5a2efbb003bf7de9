"""`lmtorch.xarray.curvefit` beside xarray's own, which calls scipy's curve_fit in every pixel."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from xarray_stacks import T, decay, decay_of_numpy, stack

import lmtorch
import lmtorch.xarray  # noqa: F401  (gives arrays their accessor)
from lmtorch import InputError, NotConvergedError
from lmtorch.xarray import curvefit
from lmtorch.xarray.variables import EMPTY, FEW, INVALID

# scipy stops at relative changes of 1e-8 of the cost, near whose minimum parameters are nearer
# than that to the square root of it
TIGHT = {"ftol": 1e-14, "xtol": 1e-14, "gtol": 1e-14}


def test_values_names_and_labels_are_those_of_xarray() -> None:
    da = stack()
    ours = da.lm.curvefit("t", decay, p0={"a": 2.0})
    theirs = da.curvefit("t", decay_of_numpy, p0={"a": 2.0}, kwargs=TIGHT)
    for name in theirs:
        assert ours[name].dims == tuple(theirs[name].transpose(*ours[name].dims).dims)
        np.testing.assert_allclose(
            ours[name], theirs[name].transpose(*ours[name].dims), rtol=1e-6, err_msg=name
        )
    assert set(theirs.coords) == set(ours.coords)
    assert ours.param.dtype == theirs.param.dtype
    assert ours.attrs == da.attrs  # xarray keeps those of a Dataset
    assert ours.x.attrs == {"units": "mm"}
    residual = da.curvefit("t", decay_of_numpy, p0={"a": 2.0}).curvefit_coefficients
    fit = residual.sel(param="a") * np.exp(-residual.sel(param="b") * da.t)
    redchi = ((fit - da) ** 2).sum("t") / (len(T) - 2)
    np.testing.assert_allclose(ours.curvefit_redchi, redchi.transpose("y", "x"), rtol=1e-6)
    np.testing.assert_allclose(
        ours.curvefit_stderr**2, np.diagonal(ours.curvefit_covariance, axis1=-2, axis2=-1)
    )
    assert bool((ours.curvefit_status > 0).all())
    assert bool((ours.curvefit_nfev > 1).all())
    assert ours.curvefit_redchi.attrs["units"] == "(V)^2"


def test_the_signature_begins_with_that_of_xarray() -> None:
    ours = list(inspect.signature(curvefit).parameters.values())
    bound = list(inspect.signature(stack(1, 1).lm.curvefit).parameters.values())
    assert [(p.name, p.default) for p in bound] == [(p.name, p.default) for p in ours[1:]]
    for kind in (xr.DataArray, xr.Dataset):
        theirs = list(inspect.signature(kind.curvefit).parameters.values())
        same, more = ours[1 : len(theirs)], ours[len(theirs) :]
        assert [(p.name, p.kind) for p in same] == [(p.name, p.kind) for p in theirs[1:]]
        other = [p.name for p, q in zip(same, theirs[1:], strict=True) if p.default != q.default]
        assert other == ["errors"]
        # what xarray adds one day can then be told from what is ours
        assert {p.kind for p in more} == {
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.VAR_KEYWORD,
        }


def test_a_dataset_is_fitted_variable_by_variable() -> None:
    da = stack(3, 4)
    both = xr.Dataset({"one": da, "two": 2 * da})
    fit = both.lm.curvefit("t", decay)
    theirs = both.curvefit("t", decay_of_numpy, kwargs=TIGHT)
    for name in theirs:
        np.testing.assert_allclose(
            fit[name], theirs[name].transpose(*fit[name].dims), rtol=1e-6, err_msg=name
        )
    assert "two_curvefit_status" in fit


def test_several_coordinates_and_reduced_dimensions() -> None:
    rng = np.random.default_rng(1)
    y, x = np.arange(9.0), np.arange(11.0)
    grid = {"frame": np.arange(3), "y": y, "x": x}
    centre = xr.DataArray([4.0, 5.0, 6.5], dims="frame")
    y_, x_ = (xr.DataArray(v, {n: v}) for n, v in (("y", y), ("x", x)))
    spots = 5 * np.exp(-((x_ - centre) ** 2 + (y_ - 4) ** 2) / 4)
    spots = spots.transpose("frame", "y", "x").assign_coords(grid)
    spots = spots + 0.01 * rng.standard_normal(spots.shape)

    def spot(at, height, x0, y0):
        x, y = at
        return height * torch.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 4)

    start = {"height": 4.0, "x0": 5.0, "y0": 5.0}
    fit = spots.lm.curvefit(["x", "y"], spot, p0=start)
    assert fit.curvefit_coefficients.dims == ("frame", "param")
    np.testing.assert_allclose(fit.curvefit_coefficients.sel(param="x0"), centre, atol=0.01)

    def of_numpy(at, height, x0, y0):
        x, y = at
        return height * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 4)

    theirs = spots.curvefit(["x", "y"], of_numpy, p0=start, kwargs=TIGHT)
    np.testing.assert_allclose(
        fit.curvefit_covariance, theirs.curvefit_covariance, rtol=1e-5, atol=1e-12
    )
    # all pixels together, as one fit
    da = stack(4, 5)
    whole = da.lm.curvefit("t", decay, reduce_dims=["x", "y"])
    other = da.curvefit("t", decay_of_numpy, reduce_dims=["x", "y"], kwargs=TIGHT)
    assert whole.curvefit_coefficients.dims == ("param",)
    np.testing.assert_allclose(whole.curvefit_coefficients, other.curvefit_coefficients, rtol=1e-6)


def test_a_coordinate_may_differ_between_pixels() -> None:
    da = stack(3, 4, noise=0)
    slow = xr.DataArray([1.0, 2.0, 4.0], dims="y")
    fit = da.lm.curvefit(da.t * slow, decay, reduce_dims="t")
    plain = da.lm.curvefit("t", decay)
    np.testing.assert_allclose(
        fit.curvefit_coefficients.sel(param="b") * slow,
        plain.curvefit_coefficients.sel(param="b"), rtol=1e-9,
    )  # fmt: skip


def test_starts_and_bounds_may_be_maps() -> None:
    t = np.arange(0, 2, 0.02)
    sign = xr.DataArray([1.0, -1.0], {"x": [0, 1]})

    def sine(t, a, f, p):
        return a * torch.sin(2 * np.pi * (f * t + p))

    wave = np.sin(2 * np.pi * 2 * t)
    da = xr.DataArray(np.stack([wave, wave]), {"x": [0, 1], "t": t})
    phase = xr.DataArray([0.0, 0.5], {"x": [0, 1]})
    expected = [[1, 2, 0], [-1, 2, 0.5]]
    by_start = da.lm.curvefit("t", sine, p0={"a": sign, "p": phase, "f": 2})
    np.testing.assert_allclose(by_start.curvefit_coefficients, expected, atol=1e-9)
    low, high = (xr.DataArray(v, {"x": [0, 1]}) for v in ([0.0, -2.0], [2.0, 0.0]))
    start = {"f": 2, "p": 0.25}
    for side in (low, -2.0):
        by_bounds = da.lm.curvefit("t", sine, p0=start, bounds={"a": (side, high)})
        np.testing.assert_allclose(by_bounds.curvefit_coefficients, expected, atol=1e-7)
        assert bool(np.isfinite(by_bounds.curvefit_covariance).all())
    with pytest.raises(InputError, match="Initial guess for 'a' has unexpected dimensions"):
        da.lm.curvefit("t", sine, p0={"a": xr.DataArray([1, 2], {"foo": [1, 2]})})
    with pytest.raises(InputError, match="Upper bound for 'a' has unexpected dimensions"):
        da.lm.curvefit("t", sine, bounds={"a": (0, xr.DataArray([1], {"foo": [1]}))})


def test_bounds_of_all_kinds_give_what_numbers_as_bounds_give() -> None:
    da = stack(3, 4)
    # rates lie between 0.5 and 2: some of these bind, and a map of equal bounds fixes
    kinds = {
        "between": (xr.DataArray([0.1, 1.0, 1.2], dims="y"), 1.5),
        "above": (xr.DataArray([0.1, 1.0, 1.2], dims="y"), np.inf),
        "below": (-np.inf, xr.DataArray([0.1, 1.0, 1.2], dims="y")),
        "fixed": (xr.DataArray([0.1, 1.0, 1.2], dims="y"), xr.DataArray([0.1, 1.0, 1.2], dims="y")),
        "mixed": (xr.DataArray([0.1, -np.inf, np.nan], dims="y"), 1.5),
    }
    for label, (low, high) in kinds.items():
        fit = da.lm.curvefit("t", decay, bounds={"b": (low, high)})
        for y in range(3):
            pair = [float(v[y]) if isinstance(v, xr.DataArray) else v for v in (low, high)]
            pair[0] = -np.inf if np.isnan(pair[0]) else pair[0]
            row = da.isel(y=[y]).lm.curvefit("t", decay, bounds={"b": tuple(pair)})
            for name in ("coefficients", "stderr", "redchi"):
                np.testing.assert_allclose(
                    fit[f"curvefit_{name}"][y], row[f"curvefit_{name}"][0], rtol=1e-6, atol=1e-9,
                    err_msg=f"{label} {name} {y}",
                )  # fmt: skip


def test_missing_points_are_left_out_in_each_pixel() -> None:
    da = stack(3, 4)
    da[0, 0, 3] = np.nan
    da[0, 1, :2] = np.nan
    da[1, 1] = np.nan
    da[1, 2, 1:] = np.nan
    fit = da.lm.curvefit("t", decay)
    theirs = da.isel(y=0).curvefit("t", decay_of_numpy, kwargs=TIGHT)
    np.testing.assert_allclose(
        fit.curvefit_coefficients[0], theirs.curvefit_coefficients, rtol=1e-6
    )
    assert fit.curvefit_status.values[1, 1:3].tolist() == [EMPTY, FEW]
    assert bool(fit.curvefit_coefficients.isnull()[1, 1:3].all())
    strict = da.lm.curvefit("t", decay, skipna=False)
    assert (strict.curvefit_status == INVALID).sum() == 4
    # a mask does the same to points that are there
    whole = stack(3, 4)
    masked = whole.lm.curvefit("t", decay, mask=da.notnull())
    np.testing.assert_array_equal(masked.curvefit_coefficients, fit.curvefit_coefficients)


def test_sigma_gives_absolute_errors_of_the_closed_form() -> None:
    # a constant of n points with σ has the error σ/√n
    rng = np.random.default_rng(0)
    da = xr.DataArray(rng.standard_normal((4, 9)), dims=("x", "t"), coords={"t": np.arange(9.0)})
    sigma = xr.DataArray([1.0, 2.0, 3.0, 4.0], dims="x")

    def constant(t, c):
        return c + 0 * t

    fit = da.lm.curvefit("t", constant, sigma=sigma, absolute_sigma=True)
    np.testing.assert_allclose(fit.curvefit_coefficients[:, 0], da.mean("t"), atol=1e-12)
    np.testing.assert_allclose(fit.curvefit_stderr[:, 0], sigma / 3, rtol=1e-9)
    assert fit.curvefit_redchi.attrs["units"] == "1"
    # weighted means, of points with errors of their own
    each = xr.DataArray(np.arange(1.0, 10), dims="t")
    fit = da.lm.curvefit("t", constant, kwargs={"sigma": each, "absolute_sigma": True})
    mean = (da / each**2).sum("t") / (1 / each**2).sum()
    np.testing.assert_allclose(fit.curvefit_coefficients[:, 0], mean, atol=1e-12)
    np.testing.assert_allclose(fit.curvefit_stderr[:, 0], float((1 / each**2).sum()) ** -0.5)


def test_counts_have_the_mean_and_its_error() -> None:
    rng = np.random.default_rng(0)
    counts = xr.DataArray(rng.poisson(3.0, (5, 20)), dims=("x", "t"))
    counts[4] = -1  # no counts: the pixel has a status, and the others are fitted

    def rate(t, mu):
        return mu + 0 * t

    fit = counts.lm.curvefit(
        xr.DataArray(np.arange(20.0), dims="t"), rate, reduce_dims="t", likelihood="poisson",
        bounds={"mu": (1e-3, np.inf)},
    )  # fmt: skip
    mean = counts[:4].mean("t")
    np.testing.assert_allclose(fit.curvefit_coefficients[:4, 0], mean, rtol=1e-9)
    np.testing.assert_allclose(fit.curvefit_stderr[:4, 0], (mean / 20) ** 0.5, rtol=1e-9)
    assert int(fit.curvefit_status[4]) == INVALID


def test_a_failed_pixel_is_a_status_or_an_exception() -> None:
    da = stack(3, 4)
    lost = xr.where((da.y == 1) & (da.x == da.x[2]), 1e5, 1.0)  # the curve is zero from there
    options = {"p0": {"a": 2.0, "b": lost}, "second_opinion": False}
    fit = da.lm.curvefit("t", decay, **options)
    assert (fit.curvefit_status <= 0).sum() == 1
    assert int(fit.curvefit_status[1, 2]) == lmtorch.Status.FLAT
    assert bool(fit.curvefit_coefficients[1, 2].isnull().all())
    kept = da.lm.curvefit("t", decay, errors="keep", **options)
    assert kept.curvefit_coefficients[1, 2].values.tolist() == [2.0, 1e5]
    with pytest.raises(NotConvergedError, match=r"1 of 12 fits failed, the first at \(1, 2\)"):
        da.lm.curvefit("t", decay, errors="raise", **options)
    # pixels without data do not raise, as in xarray
    empty = stack(3, 4).where(da.y > 0)
    assert (empty.lm.curvefit("t", decay, errors="raise").curvefit_status == EMPTY).sum() == 4


def test_a_single_pixel_raises_with_a_second_pass_too() -> None:
    short = stack(1, 1)[0, 0, :1]
    for start in (None, "neighbour"):
        assert int(short.lm.curvefit("t", decay, start=start).curvefit_status) == FEW
        with pytest.raises(NotConvergedError, match="1 of 1 fits failed"):
            short.lm.curvefit("t", decay, start=start, errors="raise")


def test_maps_of_bounds_that_cross_are_told_pixel_by_pixel() -> None:
    low = xr.DataArray([0.0, 9.0, np.nan], dims="x")
    high = xr.DataArray([5.0, 5.0, 5.0], dims="x")
    for bounds in ((low, high), (low, 5.0), (0.0, high - low)):
        fit = stack(2, 3).lm.curvefit("t", decay, bounds={"a": bounds})
        assert (fit.curvefit_status[:, [0, 2]] > 0).all()
        assert (fit.curvefit_status[:, 1] == INVALID).all()
        assert fit.curvefit_coefficients[:, 1].isnull().all()


def test_a_second_pass_without_degrees_of_freedom_is_taken() -> None:
    from lmtorch.xarray.neighbours import _best

    # of two starts for the one pixel the second succeeds, and its reduced χ² is 0/0
    made = {"status": np.array([-5, 3]), "redchi": np.array([1.0, np.nan])}
    assert _best(made, (np.array([0, 0]),), (1,)).tolist() == [1]


def test_statuses_have_meanings() -> None:
    attrs = stack(1, 2).lm.curvefit("t", decay).curvefit_status.attrs
    values, names = attrs["flag_values"], attrs["flag_meanings"].split()
    meanings = dict(zip(values.tolist(), names, strict=True))
    assert meanings[lmtorch.Status.POOR] == "poor"
    assert meanings[EMPTY] == "no_data"
    positive = [name for value, name in meanings.items() if value > 0]
    assert {name.split("_")[0] for name in positive} == {"converged"}
    assert len(set(names)) == len(values)


def test_names_of_a_function_of_any_number_of_parameters() -> None:
    da = stack(1, 3, noise=0)
    fit = da.lm.curvefit("t", lambda t, *p: p[0] * torch.exp(-p[1] * t), param_names=["u", "v"])
    assert fit.param.values.tolist() == ["u", "v"]
    np.testing.assert_allclose(fit.curvefit_coefficients.sel(param="u"), 2.5)
    with pytest.raises(InputError, match="param_names"):
        da.lm.curvefit("t", lambda t, *p: p[0] * torch.exp(-p[1] * t))


REFUSED: list[tuple[dict, str]] = [
    ({"errors": "warn"}, "errors='warn' is not known"),
    ({"start": "left"}, "start='left' is not known"),
    ({"skipna": "x"}, "skipna='x' must be True or False"),
    ({"resume": True}, "give store="),
    ({"p0": {"c": 1}}, r"p0 names \['c'\]"),
    ({"p0": [1, 2]}, "p0 must be a dict"),
    ({"p0": {"a": "x"}}, "give a number or a DataArray"),
    ({"bounds": {"a": 3}}, "give a pair"),
    ({"bounds": {"a": (2, 1)}}, "lower, then upper"),
    ({"bounds": {"a": (2, 3)}, "p0": {"a": 1}}, "p0 is infeasible"),
    ({"reduce_dims": "z"}, r"reduce_dims names \['z'\]"),
    ({"weights": 1.0}, "sigma=1/weights"),
    ({"kwargs": {"max_nfev": 3}, "max_nfev": 4}, "given twice"),
    ({"callback": print}, "callback is not for a stack"),
    ({"nan_policy": "omit"}, "nan_policy is set by curvefit itself"),
    ({"maxnfev": 3}, "no option 'maxnfev'"),
    ({"kwargs": 3}, "must be a dict"),
    ({"sigma": xr.DataArray(np.ones(3), dims="z")}, r"sigma has dimensions \['z'\]"),
    ({"mask": xr.DataArray([True, True], {"x": [7.0, 8.0]})}, "mask has other labels along"),
    ({"sigma": xr.DataArray(np.ones(4) + 1j, dims="x")}, "sigma has complex numbers"),
    ({"p0": {"a": xr.DataArray(np.ones(4) + 1j, dims="x")}}, "p0 of 'a' has complex numbers"),
    ({"ties": {"a": len}, "bounds": {"b": (xr.DataArray([0.0] * 3, dims="y"), 3)}}, "ties"),
]


@pytest.mark.parametrize(("wrong", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_what_cannot_work_is_refused_in_words(wrong: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        stack(3, 4).lm.curvefit("t", decay, **wrong)


def test_coordinates_and_objects_that_cannot_work_are_refused() -> None:
    da = stack(3, 4)
    with pytest.raises(InputError, match="coords names 'z'"):
        curvefit(da, "z", decay)
    with pytest.raises(InputError, match="none of coords is a dimension"):
        curvefit(da, xr.DataArray(T, dims="t"), decay)
    with pytest.raises(InputError, match="not a DataArray or Dataset"):
        curvefit(da.values, "t", decay)
    for wrong, says in (
        (da + 1j, "complex numbers: fit real and imaginary"),
        (da.astype("M8[ns]"), "of datetime64.ns. has no numbers"),
        (da.astype("m8[ns]"), "of timedelta64.ns. has no numbers"),
        (da.astype(str), "has no numbers"),
    ):
        for one in (wrong, wrong.to_dataset(name="v")):
            with pytest.raises(TypeError, match=says):
                curvefit(one, "t", decay)
    for coord in (
        xr.DataArray(T, {"t": T[::-1]}),
        (da.x * da.t).assign_coords(x=da.x[::-1].values),
    ):
        with pytest.raises(InputError, match="coordinate has other labels along"):
            curvefit(da, coord, decay, reduce_dims="t")
    with pytest.raises(InputError, match="no variables"):
        curvefit(xr.Dataset(), "t", decay)
    with pytest.raises(InputError, match=r"coords have dimensions \['u'\]"):
        curvefit(da, da.t * xr.DataArray([1.0, 2.0], dims="u"), decay, reduce_dims="t")


def test_a_model_brings_names_bounds_and_a_guess_for_every_pixel() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(0, 10, 60)
    center = xr.DataArray(rng.uniform(3, 7, (5, 6)), dims=("row", "column"))
    grid = xr.DataArray(x, {"x": x})
    # amplitude is the area, as in lmfit
    height = 4.0 / (0.5 * np.sqrt(2 * np.pi))
    peaks = height * np.exp(-((grid - center) ** 2) / (2 * 0.5**2))
    peaks = peaks.transpose("row", "column", "x") + 0.01 * rng.standard_normal((5, 6, 60))
    peaks[0, 0, 10] = np.nan
    model = lmtorch.models.Gaussian("g")
    for bounds in (None, {"g_center": (center - 1, center + 1)}):
        fit = peaks.lm.curvefit("x", model, bounds=bounds)
        assert fit.param.values.tolist() == ["g_amplitude", "g_center", "g_sigma"]
        found = fit.curvefit_coefficients
        np.testing.assert_allclose(found.sel(param="g_center"), center, atol=0.01)
        np.testing.assert_allclose(found.sel(param="g_sigma"), 0.5, atol=0.01)
        np.testing.assert_allclose(found.sel(param="g_amplitude"), 4.0, atol=0.05)
    # a start or bounds of the call go before the model's
    held = peaks.lm.curvefit("x", model, bounds={"g_sigma": (0.6, 2)})
    assert (held.curvefit_coefficients.sel(param="g_sigma") == 0.6).all()
    # what a model fixes or ties is so in every pixel
    two = peaks + 0.1 * grid
    both = model.with_fixed(g_sigma=0.5) + lmtorch.models.Linear().with_ties("intercept = 0*slope")
    fit = two.lm.curvefit("x", both, p0={"g_center": center})
    assert (fit.curvefit_coefficients.sel(param="g_sigma") == 0.5).all()
    assert (fit.curvefit_coefficients.sel(param="intercept") == 0).all()
    np.testing.assert_allclose(fit.curvefit_coefficients.sel(param="slope"), 0.1, atol=0.01)
    tied = model.with_ties("g_sigma = 0.1 * g_center")
    with pytest.raises(InputError, match="do not go with ties"):
        peaks.lm.curvefit("x", tied, bounds={"g_center": (center - 1, center + 1)})


@pytest.mark.parametrize("start", [None, "neighbour"])
def test_bytes_of_a_pixel_are_those_that_the_page_tells(start: str | None) -> None:
    fit = stack(3, 2).chunk({"y": 1}).lm.curvefit("t", decay, start=start)
    variables = fit.drop_vars(list(fit.coords))
    assert variables.nbytes == 6 * (8 * (2 + 1) ** 2 + 5 + (start is not None))


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("form", [2, 3])
def test_a_result_goes_to_zarr_and_back_without_a_warning(
    tmp_path: Path, form: int, lazy: bool
) -> None:
    da = stack(3, 4)
    fit = (da.chunk({"y": 2}) if lazy else da).lm.curvefit("t", decay)
    # warnings are errors here; what is consolidated is no part of Zarr's format 3
    fit.to_zarr(tmp_path / "fit.zarr", zarr_format=form, consolidated=False)
    back = xr.open_zarr(tmp_path / "fit.zarr", consolidated=False).load()
    xr.testing.assert_identical(back, fit.load())
    assert float(back.curvefit_stderr.sel(param="a")[1, 2]) > 0
    best = fit.curvefit_coefficients.sel(x=fit.x[:2])  # a part keeps how its labels are written
    best.to_zarr(tmp_path / "part.zarr", zarr_format=form, consolidated=False)
    part = xr.open_dataarray(tmp_path / "part.zarr", engine="zarr", consolidated=False).load()
    xr.testing.assert_identical(part, best)
