"""What scipy's tests of `curve_fit` ask for, in our words, with scipy's answers if it has any."""

import inspect
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from scipy.optimize import Bounds, OptimizeWarning

from lmtorch import FallbackWarning, InputError, NotConvergedError, curve_fit

from .setting import DIFFERENCED, F64, INF, UNDETERMINED, T, decay, line, noise, noisy, scipys

X = np.array([1.0, 2.0, 3.0, 4.0])
Y = np.array([1.0, 3.2, 9.5, 13.7])
METHODS = pytest.mark.parametrize("method", ["lm", "trf", "dogbox", None])

SHORT = np.linspace(0, 1, 11)
EXACT = 2 * np.exp(-2 * SHORT)


def fall(x: Any, a: Any, b: Any) -> Any:
    return a * torch.exp(-b * x)


def fall_jacobian(x: Any, a: Any, b: Any) -> Any:
    e = torch.exp(-b * x)
    return torch.stack([e, -a * x * e], 1)


def power(x: Any, a: Any, b: Any) -> Any:
    return b * x**a


class Powers:
    """A model that is a method, and one that is an object."""

    def method(self, x: Any, a: Any, b: Any) -> Any:
        return b * x**a

    @staticmethod
    def static(x: Any, a: Any, b: Any) -> Any:
        return b * x**a

    def __call__(self, x: Any, a: Any, b: Any) -> Any:
        return b * x**a


def test_the_signature_begins_with_scipys_in_its_order() -> None:
    theirs = [
        name for name in inspect.signature(scipy.optimize.curve_fit).parameters if name != "kwargs"
    ]
    ours = inspect.signature(curve_fit).parameters
    positional = theirs[: theirs.index("full_output")]
    assert list(ours)[: len(positional)] == positional
    assert set(theirs) <= set(ours)


def test_one_parameter_is_fitted_as_scipy_does() -> None:
    popt, pcov = curve_fit(lambda x, a: x**a, X, Y)
    theirs, covariance = scipys(lambda x, a: x**a, X, Y, [1.0])
    np.testing.assert_allclose(popt, theirs, rtol=1e-9)
    np.testing.assert_allclose(pcov, covariance, rtol=1e-8)


@pytest.mark.parametrize(
    "f",
    [
        power,
        Powers().method,
        Powers.static,
        Powers(),
        partial(lambda c, x, a, b: c * b * x**a, 1.0),
    ],
    ids=["function", "method", "static method", "object", "partial"],
)
def test_every_kind_of_callable_is_fitted_as_scipy_does(f: Any) -> None:
    popt, pcov = curve_fit(f, X, Y)
    theirs, covariance = scipys(power, X, Y, [1.0, 1.0])
    np.testing.assert_allclose(popt, theirs, rtol=1e-9)
    np.testing.assert_allclose(pcov, covariance, rtol=1e-8)


def test_the_published_numbers_of_two_parameters_come_out() -> None:
    popt, pcov = curve_fit(power, X, Y)
    np.testing.assert_allclose(popt, [1.7989, 1.1642], atol=5e-5)
    np.testing.assert_allclose(pcov, [[0.0852, -0.1260], [-0.1260, 0.1912]], atol=5e-5)


def test_full_output_unpacks_to_five() -> None:
    popt, _, info, message, status = curve_fit(fall, SHORT, EXACT, full_output=True)
    np.testing.assert_allclose(popt, [2, 2], rtol=1e-12)
    assert {"nfev", "fvec", "fjac"} <= set(info)
    assert info["fvec"].shape == (11,)
    assert isinstance(message, str)
    assert status in (1, 2, 3, 4, 5)


def test_a_result_is_a_tuple_of_two_for_who_takes_it_apart() -> None:
    fit = curve_fit(power, X, Y)
    assert len(fit) == 2
    assert fit[0] is fit.popt
    assert fit[1] is fit.pcov
    assert fit[-1] is fit.pcov


@METHODS
def test_all_of_scipys_methods_find_the_same(method: str | None) -> None:
    np.testing.assert_allclose(
        curve_fit(fall, SHORT, EXACT, method=method).popt, [2, 2], rtol=1e-12
    )


def test_close_peaks_in_narrow_data_are_found() -> None:
    # gh-2639
    x = [574.142, 574.154, 574.165, 574.177, 574.188, 574.199, 574.211, 574.222, 574.234, 574.245]
    y = [859.0, 997.0, 1699.0, 2604.0, 2013.0, 1964.0, 2435.0, 1550.0, 949.0, 841.0]
    p0 = [574.1861428571428, 574.2155714285715, 1302.0, 1302.0, 0.0035019999999983615, 859.0]

    def peaks(x: Any, x0: Any, x1: Any, A0: Any, A1: Any, sigma: Any, c: Any) -> Any:
        first, second = (torch.exp(-((x - at) ** 2) / (2 * sigma**2)) for at in (x0, x1))
        return A0 * first + A1 * second + c

    good = [
        5.74177150e02,
        5.74209188e02,
        1.74187044e03,
        1.58646166e03,
        1.0068462e-02,
        8.57450661e02,
    ]
    fit = curve_fit(peaks, x, y, p0, maxfev=10_000)
    np.testing.assert_allclose(fit.popt, good, rtol=1e-5)  # as good as what scipy records
    assert fit.chisqr <= np.sum((peaks(torch.tensor(x, dtype=F64), *good).numpy() - y) ** 2)


@pytest.mark.parametrize("factor", [1, 3])
def test_relative_sigma_has_no_scale(factor: float) -> None:
    x, y, sigma = np.arange(6.0), np.array([1, 1, 5, 7, 8, 12]), np.array([1, 2, 1, 2, 1, 2])
    _, pcov = curve_fit(line, x, y, [2, 0], factor * sigma)
    np.testing.assert_allclose(np.sqrt(np.diag(pcov)), [0.20659803, 0.57204404], rtol=1e-7)


@pytest.mark.parametrize("factor", [1, 3])
def test_absolute_sigma_has_the_scale_of_the_errors(factor: float) -> None:
    x, y, sigma = np.arange(6.0), np.array([1, 1, 5, 7, 8, 12]), np.array([1, 2, 1, 2, 1, 2])
    _, pcov = curve_fit(line, x, y, [2, 0], factor * sigma, absolute_sigma=True)
    np.testing.assert_allclose(
        np.sqrt(np.diag(pcov)), [factor * 0.30714756, factor * 0.85045308], rtol=1e-7
    )


@UNDETERMINED
def test_without_degrees_of_freedom_the_covariance_is_infinite() -> None:
    _, pcov = curve_fit(line, [0, 1], [1, 1], [2, 0])
    assert pcov.tolist() == [[INF, INF], [INF, INF]]


def test_a_covariance_that_is_not_determined_is_a_warning() -> None:
    with pytest.warns(OptimizeWarning, match="infinite in part: undetermined: changing 1·b"):
        curve_fit(lambda x, a, b: a * x, [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5.5, 6])


def test_lists_and_whole_numbers_serve_as_data() -> None:
    # gh-3037
    np.testing.assert_allclose(curve_fit(line, [1, 2, 3, 4], [3, 5, 7, 9]).popt, [2, 1], rtol=1e-12)


@pytest.mark.parametrize("place", ["xdata", "ydata"])
@pytest.mark.parametrize(
    "given", [{}, {"check_finite": True}, {"nan_policy": "raise", "check_finite": False}], ids=str
)
def test_nan_in_the_data_is_refused(place: str, given: dict[str, Any]) -> None:
    # gh-3422
    data = {"xdata": [1, 2, 3], "ydata": [1, 2, 3], place: [1, np.nan, 3]}
    with pytest.raises(InputError, match=f"{place} has NaN or infinity, first at"):
        curve_fit(line, **data, **given)


@pytest.mark.parametrize("policy", ["propagate", "hi"])
def test_a_policy_that_scipy_has_not_is_refused(policy: str) -> None:
    with pytest.raises(InputError, match="must be 'raise', 'omit' or None"):
        curve_fit(line, [1, 2, 3], [1, 2, 3], nan_policy=policy)


def test_check_finite_off_leaves_what_happens_to_the_function() -> None:
    x = np.array([1.0, 2.0, np.inf, 4.0])
    popt, _ = curve_fit(lambda x, a: a / x, x, 3 / x, check_finite=False)
    np.testing.assert_allclose(popt, 3, rtol=1e-12)


def test_omitted_points_are_as_if_they_were_not_there() -> None:
    x, y = np.array([2, 3, np.nan, 4, 4, np.nan, 6]), np.array([1, 2, 5, 3, np.nan, 7, 4])
    ours, theirs = (
        curve_fit(line, x, y, nan_policy="omit"),
        scipys(line, [2, 3, 4, 6], [1, 2, 3, 4], [1, 1]),
    )
    np.testing.assert_allclose(ours.popt, theirs[0], rtol=1e-9)
    np.testing.assert_allclose(ours.pcov, theirs[1], rtol=1e-8)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_point_with_one_nan_among_its_predictors_is_omitted(dimensions: int) -> None:
    nan = np.nan
    x = np.array([[2, 3, nan, 4, 4, nan, 5, 1], [2, 3, nan, nan, 4, nan, 7, 5]]).reshape(
        (1,) * (dimensions - 2) + (2, 8)
    )
    y = np.array([1, 2, 5, 3, nan, 7, 10, 4])

    def plane(x: Any, a: Any, b: Any) -> Any:
        return (a * x[..., 0, :] + b + x[..., 1, :]).squeeze()

    ours = curve_fit(plane, x, y, nan_policy="omit")
    theirs = scipys(plane, [[2, 3, 5, 1], [2, 3, 7, 5]], [1, 2, 10, 4], [1, 1])
    np.testing.assert_allclose(ours.popt, theirs[0], rtol=1e-9)
    np.testing.assert_allclose(ours.pcov, theirs[1], rtol=1e-8)


@pytest.mark.parametrize(
    "sigma", [np.full(100, 0.05), 0.05 * np.linspace(1, 10, 100)], ids=["equal", "rising"]
)
def test_points_are_omitted_with_their_errors(sigma: np.ndarray) -> None:
    x = np.linspace(1, 10, 100)
    y = 0.5 * np.exp(0.2 * x) + noise(100, 0.05)
    left = np.array([3, 7, 20, 50, 51, 99])
    kept = np.setdiff1d(np.arange(100), left)

    def growth(x: Any, a: Any, b: Any) -> Any:
        return b * torch.exp(a * x)

    theirs = scipys(growth, x[kept], y[kept], [0.1, 1.0], sigma=sigma[kept])
    x[left[:3]], y[left[3:]] = np.nan, np.nan
    ours = curve_fit(growth, x, y, [0.1, 1.0], sigma, nan_policy="omit")
    np.testing.assert_allclose(ours.popt, theirs[0], rtol=1e-8)
    np.testing.assert_allclose(ours.pcov, theirs[1], rtol=1e-7)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1], [])], ids=str)
@pytest.mark.parametrize("bounds", [(-INF, INF), (1, 2)], ids=str)
def test_no_data_are_refused(x: list[float], y: list[float], bounds: Any) -> None:
    # gh-9864
    with pytest.raises(InputError, match="ydata is empty"):
        curve_fit(lambda x, a: a * x, x, y, bounds=bounds)


def test_a_function_of_x_alone_is_refused() -> None:
    with pytest.raises(InputError, match="number of parameters cannot be told"):
        curve_fit(lambda x: x, [1, 2], [3, 4])


def test_x_may_be_none() -> None:
    popt, _ = curve_fit(lambda _, a: a * torch.arange(10), None, 2 * np.arange(10))
    np.testing.assert_allclose(popt, [2.0], rtol=1e-12)


def test_a_method_that_scipy_has_not_is_refused() -> None:
    with pytest.raises(InputError, match="method='unknown' is not known"):
        curve_fit(fall, SHORT, EXACT, method="unknown")


@METHODS
@pytest.mark.parametrize(
    "bounds", [([1.0, 0], [1.5, 3.0]), Bounds([1.0, 0], [1.5, 3.0])], ids=["pair", "Bounds"]
)
def test_bounds_hold_by_every_method(method: str | None, bounds: Any) -> None:
    # scipy's "lm" cannot; here all names mean the same loop
    popt, _ = curve_fit(fall, SHORT, EXACT, bounds=bounds, method=method)
    x = torch.as_tensor(np.asarray(SHORT, dtype=float))

    def slope(rate: float) -> float:
        """The slope of the sum of squares in the rate, the other parameter at its bound.

        On some processors scipy's trf stops 4e-9 away from its root.
        """
        curve, change = torch.func.jvp(
            lambda rate: fall(x, 1.5, rate),
            (torch.tensor(rate, dtype=torch.float64),),
            (torch.tensor(1.0).double(),),
        )
        return float(((curve - torch.as_tensor(EXACT)) * change).sum())

    assert popt[0] == 1.5
    np.testing.assert_allclose(
        popt[1], scipy.optimize.brentq(slope, 1.0, 3.0, xtol=1e-14), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("bounds", "start"),
    [((2.0, 6.0), 4.0), ((2.0, INF), 3.0), ((-INF, 0.5), -0.5), ((-INF, INF), 1.0)],
    ids=str,
)
def test_without_a_start_it_is_scipys(bounds: tuple[float, float], start: float) -> None:
    fit = curve_fit(lambda x, a: a * x, X, X, bounds=bounds)
    assert fit.to_dict()["parameters"]["a"]["start"] == start
    seen: list[float] = []

    def watched(x: Any, a: float) -> Any:
        seen.append(a)
        return a * x

    scipy.optimize.curve_fit(watched, X, X, bounds=bounds)
    assert float(seen[0]) == start


def test_the_start_is_not_ignored_within_bounds() -> None:
    # gh-5719
    x = np.linspace(-2 * np.pi, 2 * np.pi, 40)
    popt, _ = curve_fit(
        lambda x, a: torch.sin(x + a), x, np.sin(x), 2.1 * np.pi, bounds=(-3 * np.pi, 3 * np.pi)
    )
    np.testing.assert_allclose(popt, 2 * np.pi, rtol=1e-12)


def test_an_infeasible_start_is_called_p0_and_by_the_name_of_the_parameter() -> None:
    # gh-20155: scipy named its internal x0
    with pytest.raises(InputError, match=r"p0.*'a'.*outside its bounds"):
        curve_fit(lambda x, a: x**a, X, Y, p0=[1], bounds=(1000, 1001))


@pytest.mark.parametrize("scheme", ["2-point", "3-point"])
def test_finite_differences_find_the_same(scheme: str) -> None:
    np.testing.assert_allclose(curve_fit(fall, SHORT, EXACT, jac=scheme).popt, [2, 2], rtol=1e-9)


@METHODS
@pytest.mark.parametrize("sigma", [None, "deviations", "covariance"])
def test_the_users_jacobian_is_whitened_with_the_residuals(
    method: str | None, sigma: str | None
) -> None:
    y = EXACT + noise(11, 0.1)
    mixed = np.random.default_rng(3).normal(size=(11, 11))
    errors = {
        None: None,
        "deviations": 0.1 + 0.05 * SHORT,
        "covariance": 0.1 * np.eye(11) + 0.02 * mixed @ mixed.T,
    }
    theirs = scipys(fall, SHORT, y, [1, 1], sigma=errors[sigma])
    popt, pcov = curve_fit(
        fall, SHORT, y, sigma=errors[sigma], jac=fall_jacobian, method=method, ftol=1e-14
    )
    np.testing.assert_allclose(popt, theirs[0], rtol=1e-8)
    np.testing.assert_allclose(pcov, theirs[1], rtol=1e-7)


@DIFFERENCED
def test_the_users_jacobian_may_be_numpys() -> None:
    def f(x: Any, a: Any, b: Any) -> Any:
        return a * np.exp(-b * x)

    def jacobian(x: Any, a: Any, b: Any) -> Any:
        e = np.exp(-b * x)
        return np.vstack((e, -a * x * e)).T

    y = EXACT + noise(11, 0.1)
    popt, pcov = curve_fit(f, SHORT, y, jac=jacobian, ftol=1e-14)
    theirs = scipys(fall, SHORT, y, [1, 1])
    np.testing.assert_allclose(popt, theirs[0], rtol=1e-8)
    np.testing.assert_allclose(pcov, theirs[1], rtol=1e-7)


def test_an_outlier_with_a_large_sigma_counts_for_little() -> None:
    y, sigma = EXACT.copy(), np.ones(11)
    y[5], sigma[5] = 100, 200
    popt, _ = curve_fit(fall, SHORT, y, sigma=sigma, jac=fall_jacobian)
    np.testing.assert_allclose(popt, scipys(fall, SHORT, y, [2, 2], sigma=sigma)[0], rtol=1e-9)


@pytest.mark.parametrize("name", ["maxfev", "max_nfev"])
@pytest.mark.parametrize("bounds", [(-INF, INF), (0, 3)], ids=str)
def test_both_names_of_the_limit_serve_with_and_without_bounds(name: str, bounds: Any) -> None:
    # gh-6340
    popt, _ = curve_fit(
        lambda x, p: p * x, np.arange(10), 2 * np.arange(10), bounds=bounds, **{name: 100}
    )
    np.testing.assert_allclose(popt, 2, rtol=1e-14)


def test_a_limit_that_is_too_low_is_a_runtime_error() -> None:
    with pytest.raises(NotConvergedError, match=r"out of evaluations.*Raise max_nfev") as caught:
        curve_fit(fall, SHORT, EXACT, maxfev=2)
    assert isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_diagonal_covariance_is_the_deviations(absolute: bool) -> None:
    y = noisy(seed=123)
    sigma = 0.2 + 0.1 * T
    one, other = (
        curve_fit(decay, T, y, sigma=s, absolute_sigma=absolute) for s in (sigma, np.diag(sigma**2))
    )
    np.testing.assert_allclose(one.popt, other.popt, rtol=1e-9)
    np.testing.assert_allclose(one.pcov, other.pcov, rtol=1e-8)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_rotation_of_data_and_covariance_changes_nothing(absolute: bool) -> None:
    x, sigma = np.arange(1, 7), np.linspace(0.1, 0.4, 6)
    y = 2.5 * np.exp(-x) + noise(6, sigma)
    rotation = np.linalg.qr(np.random.default_rng(1234).normal(size=(6, 6)))[0]
    turn = torch.as_tensor(rotation)
    one = curve_fit(fall, x, y, sigma=sigma, absolute_sigma=absolute)
    other = curve_fit(
        lambda x, a, b: turn @ fall(x, a, b), x, rotation @ y,
        sigma=rotation @ np.diag(sigma**2) @ rotation.T, absolute_sigma=absolute,
    )  # fmt: skip
    np.testing.assert_allclose(one.popt, other.popt, rtol=1e-8)
    np.testing.assert_allclose(one.pcov, other.pcov, rtol=1e-7)


@pytest.mark.parametrize("absolute", [False, True])
def test_one_sigma_stands_for_all_points(absolute: bool) -> None:
    one, all_ = (
        curve_fit(line, X, Y, sigma=sigma, absolute_sigma=absolute)
        for sigma in (2, np.full(4, 2.0))
    )
    assert one.pcov.tolist() == all_.pcov.tolist()


@pytest.mark.parametrize("of_x", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("of_y", [np.float32, np.float64, np.int64])
def test_x_and_y_may_differ_in_dtype(of_x: Any, of_y: Any) -> None:
    # gh-9581
    x = np.arange(-3, 5)
    y = (6 * x + 12 + 2 * np.sin(x)).astype(of_y)
    popt, pcov = curve_fit(line, x.astype(of_x), y)
    theirs = scipys(line, x, y.astype(float), [1, 1])
    np.testing.assert_allclose(popt, theirs[0], rtol=1e-9)
    np.testing.assert_allclose(pcov, theirs[1], rtol=1e-8)


@pytest.mark.slow
def test_both_in_single_precision_is_as_good_as_the_data() -> None:
    # gh-7117
    def hyperbola(x: Any, s_1: Any, s_2: Any, o_x: Any, o_y: Any, c: Any) -> Any:
        mean, half = (s_1 + s_2) / 2, (s_2 - s_1) / 2
        root = ((x - o_x) ** 2 + c**2 / 4) ** 0.5
        return o_y + half * (x - o_x) + mean * root

    x = np.array([-32, -16, -8, 4, 4, 8, 16, 32])
    y = hyperbola(x, -2, 0.4, -1, -5, 9.5)
    bounds = ([-3.0, 0.0, -2.0, -10.0, 0.0], [0.0, 3.0, 3.0, 0.0, 10.0])
    double, single = (
        curve_fit(
            hyperbola,
            x.astype(dtype),
            y.astype(dtype),
            [-2.5 / 3, 4 / 3, 1.0, -4.0, 0.5],
            bounds=bounds,
        ).popt
        for dtype in (np.float64, np.float32)
    )
    np.testing.assert_allclose(single, double, atol=2e-5)


def test_one_y_stands_for_all_points() -> None:
    x = np.arange(10.0)
    target = 4.7 * x**2 + 3.5 * x + np.random.default_rng(123).random(10)

    def misfit(x: Any, a: Any, b: Any) -> Any:
        return a * x**2 + b * x - torch.as_tensor(target)

    one, all_ = (curve_fit(misfit, x, y) for y in (0, np.zeros(10)))
    np.testing.assert_allclose(one.popt, all_.popt, rtol=1e-12)
    np.testing.assert_allclose(one.pcov, all_.pcov, rtol=1e-12)


@pytest.mark.parametrize("name", ["args", "kwargs", "x0", "fun", "in_dims"])
def test_what_belongs_to_least_squares_alone_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is not an option of curve_fit"):
        curve_fit(line, X, Y, [1, 1], **{name: (1,)})


def test_fewer_points_than_parameters_are_refused() -> None:
    with pytest.raises(InputError, match="4 points cannot determine 5 parameters"):
        curve_fit(lambda x, a, b, c, d, e: a * torch.exp(-b * x) + c + d + e, X, Y)


def test_the_covariance_of_a_nearly_degenerate_fit_is_symmetric_and_positive() -> None:
    # gh-4555
    rng = np.random.default_rng(408113519974467917)
    x = np.arange(100)
    y = np.linspace(2, 7, 100) + rng.random(100)

    def logarithms(x: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
        return a * torch.log(x + 1 + b) + c * torch.log(x + 1 + d) + e

    _, pcov = curve_fit(logarithms, x, y, [105, 2090, 0.06, -0.99, -800])
    np.testing.assert_array_equal(pcov, pcov.T)
    scale = np.sqrt(np.diag(pcov))
    assert np.linalg.eigvalsh(pcov / np.outer(scale, scale)).min() > 0


def test_the_users_jacobian_is_not_computed_twice_at_the_start() -> None:
    # gh-13670
    x = np.linspace(0, 3, 101)
    y = 2 * x + 1 + noise(101, 0.5)
    points: list[list[float]] = []

    def jacobian(x: Any, *p: Any) -> Any:
        points.append([float(v) for v in p])
        return np.stack([x, np.ones_like(x)], 1)

    curve_fit(lambda x, *p: p[0] * x + p[1], x, y, [1.0, 5.0], jac=jacobian)
    assert points.count([1.0, 5.0]) == 1


def test_numpy_code_is_fitted_by_finite_differences_after_a_warning() -> None:
    with pytest.warns(FallbackWarning, match="finite differences serve"):
        popt, pcov = curve_fit(lambda x, a, b: b * np.exp(a * x), SHORT, EXACT)
    np.testing.assert_allclose(popt, [-2, 2], rtol=1e-9)
    assert np.abs(pcov).max() < 1e-15


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("absolute", [False, True])
def test_the_result_of_a_noisy_fit_is_scipys(seed: int, absolute: bool) -> None:
    sigma = 0.05 + 0.02 * T
    y = noisy(deviation=sigma, seed=seed)
    popt, pcov = curve_fit(decay, T, y, sigma=sigma, absolute_sigma=absolute)
    theirs = scipys(decay, T, y, [1, 1, 1], sigma=sigma, absolute_sigma=absolute)
    # where the cost is flat to scipy's last digit
    np.testing.assert_allclose(popt, theirs[0], rtol=1e-8)
    np.testing.assert_allclose(pcov, theirs[1], rtol=1e-7)
