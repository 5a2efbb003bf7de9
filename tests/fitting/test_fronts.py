"""What comes before and after a fit is remembered: the third is told from no other."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeWarning
from torch import Tensor

import lmtorch
from lmtorch.fitting import fronts
from lmtorch.fitting.inference.covariance import determines, inverse_normal, of_one
from lmtorch.fitting.measurements.data import Data
from lmtorch.fitting.preparing import acceptable
from lmtorch.losses.linear import Linear
from lmtorch.minimising import repeated_compiled

from ..nist import PROBLEMS
from ..programs import compiler

T = np.linspace(1, 2, 12)
Y = 3 * T + 0.1 * np.cos(9 * T)
FACTOR = 1.0

COMPILE = False  # whether the fits of a test are compiled

pytestmark = pytest.mark.usefixtures("own_programs")


@pytest.fixture(
    autouse=True,
    params=[pytest.param(True, marks=compiler), False],
    ids=["compiled", "eager"],
)
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whether the fits are compiled."""
    monkeypatch.setitem(globals(), "COMPILE", request.param)
    return request.param


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The fits that were made as one that is remembered, as they are made."""
    found: list[Any] = []
    real = fronts.fitted

    def noting(*args: Any) -> Any:
        fit = real(*args)
        if fit is not None:
            found.append(fit)
        return fit

    monkeypatch.setattr(fronts, "fitted", noting)
    return found


def line(t: Tensor, slope: Tensor, level: Tensor) -> Tensor:
    return FACTOR * slope * t + level


def fit(
    f: Callable[..., Any] = line, x: Any = T, y: Any = Y, p0: Any = (1.0, 1.0), **o: Any
) -> Any:
    return lmtorch.curve_fit(f, x, y, p0, compile=COMPILE, **o)


def exact(y: Any = Y, factor: float = 1.0) -> Any:
    slope, level = np.polyfit(T, y, 1)
    return [slope / factor, level]


@pytest.mark.parametrize("tensors", [False, True], ids=["arrays", "tensors"])
def test_a_third_fit_has_all_that_the_first_had(tensors: bool, quick: list[Any]) -> None:
    x, y = (torch.from_numpy(T), torch.from_numpy(Y)) if tensors else (T, Y)
    first, _, third = fits = [fit(x=x, y=y) for _ in range(3)]
    assert quick == [third]
    _, cov = np.polyfit(T, Y, 1, cov=True)
    for one in fits:
        np.testing.assert_allclose(one.popt, exact(), rtol=1e-9)
        np.testing.assert_allclose(one.pcov, cov, rtol=1e-9)
    for name in ("popt", "pcov", "stderr", "chisqr", "ndata", "nvarys", "nfree", "success",
                 "status", "nfev", "names"):  # fmt: skip
        mine, others = getattr(third, name), getattr(first, name)
        assert type(mine) is type(others), name
        if isinstance(mine, np.ndarray | Tensor):
            assert mine.dtype == others.dtype
        if name != "names":
            np.testing.assert_allclose(np.asarray(mine), np.asarray(others), rtol=1e-9)
    for mine, others in zip(third.confidence_band(x), first.confidence_band(x), strict=True):
        np.testing.assert_allclose(mine, others, rtol=1e-9)
    assert third.report() == first.report()
    assert len(third.bootstrap(20).samples) == 20
    np.testing.assert_allclose(third.solution.jac, first.solution.jac, rtol=1e-9)
    assert str(third) == str(first)
    assert third.params.keys() == first.params.keys()


@pytest.mark.parametrize("name", ["Misra1a", "Thurber", "Gauss1", "Lanczos3"])
def test_a_third_fit_that_is_not_compiled_is_the_first_to_the_last_bit(
    name: str, quick: list[Any], compiled: bool
) -> None:
    if compiled:
        pytest.skip("a program rounds in another way than the first fit, whose J it has not")
    problem = PROBLEMS[name]
    x, y = problem.x.numpy(), problem.y.numpy()

    def curve(t: Any, *b: Any) -> Any:
        return problem.model(torch.stack(b), t)

    first, *_, last = (fit(curve, x, y, problem.starts[1]) for _ in range(12))
    assert len(quick) == 10
    for mine, others in ((last.popt, first.popt), (last.pcov, first.pcov)):
        assert np.array_equal(mine, others)
    for key in ("fun", "jac", "grad"):
        assert np.array_equal(last.solution[key], first.solution[key])
    for key in ("cost", "nfev", "njev", "status", "message", "success"):
        assert last.solution[key] == first.solution[key]
    assert last.report() == first.report()


def test_a_fit_that_ends_elsewhere_than_at_a_minimum_is_judged_as_ever(quick: list[Any]) -> None:
    def decay(t: Tensor, height: Tensor, rate: Tensor) -> Tensor:
        return height * torch.exp(-rate * t)

    y = 2 * np.exp(-1.5 * T) + 0.01 * np.cos(9 * T)
    for _ in range(3):
        fit(decay, y=y)
    assert len(quick) == 1
    with pytest.raises(lmtorch.NotConvergedError):  # nothing has an influence there
        fit(decay, y=y, p0=(1.0, 1e4))
    assert len(quick) == 1


def test_other_data_and_starts(quick: list[Any]) -> None:
    for _ in range(2):
        fit()
    for y, p0 in ((2 * Y, [1.0, 1.0]), (Y**2, [5.0, -1.0]), (Y, np.array([1, 2]))):
        np.testing.assert_allclose(fit(y=y, p0=p0).popt, exact(y), rtol=1e-9)
    assert len(quick) == 3
    data = Y.copy()
    held = fit(y=data)
    data[:] = 0  # what was fitted is a copy
    np.testing.assert_allclose(held.solution.jac[:, 0], T, rtol=1e-12)
    np.testing.assert_allclose(held.best_fit, np.polyval(exact(), T), rtol=1e-9)


def test_what_the_model_uses_has_changed(quick: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # seen without that
    monkeypatch.setattr(repeated_compiled.RepeatedCompiled, "_agrees", lambda *_: True)
    for _ in range(3):
        fit()
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    for _ in range(3):
        np.testing.assert_allclose(fit().popt, exact(factor=2.0), rtol=1e-9)
    assert len(quick) == 3


def made(power: int) -> Callable[..., Any]:
    def model(t: Tensor, slope: Tensor, level: Tensor, p: int = power) -> Any:
        return slope * t**p + level

    return model


def test_the_same_code_with_another_default_is_another_model() -> None:
    for _ in range(3):
        for power in (1, 2):
            found = fit(made(power)).popt
            np.testing.assert_allclose(found, np.polyfit(T**power, Y, 1), rtol=1e-9)


def test_options_are_part_of_the_kind() -> None:
    for _ in range(3):
        assert len(fit(full_output=True)) == 5
        assert len(fit()) == 2
        with pytest.warns(OptimizeWarning, match="standard deviation is 1"):
            absolute = fit(absolute_sigma=True)
        ratio = absolute.pcov / fit().pcov
        np.testing.assert_allclose(ratio, 10 / fit().chisqr, rtol=1e-9)


BOUNDS = {
    "pair": ([-np.inf, -np.inf, 0], np.inf),
    "names": {"s": (0, np.inf), "a": (-5, 5)},
    "at the end": ([0, 0, 0], [2.5, 9, 9]),
    "fixed": ([-9, -9, 1], [9, 9, 1]),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_third_fit_within_bounds_is_the_first_to_the_last_bit(
    name: str, quick: list[Any], compiled: bool
) -> None:
    x = np.linspace(-4, 4, 40)
    y = 3 * np.exp(-((x - 0.4) ** 2) / 2) + 0.01 * np.cos(9 * x)

    def peak(t: Any, a: Any, c: Any, s: Any) -> Any:
        return a * torch.exp(-((t - c) ** 2) / (2 * s**2))

    first, *_, last = (fit(peak, x, y, [1.0, 0.0, 1.0], bounds=BOUNDS[name]) for _ in range(12))
    assert len(quick) == 10
    assert last.report() == first.report()
    assert same(last.popt, first.popt)
    assert same(last.pcov, first.pcov)
    assert np.array_equal(last.solution.active_mask, first.solution.active_mask)
    assert last.solution.active_mask.any() == (name in ("at the end", "fixed"))
    assert last.nvarys == first.nvarys == (2 if name == "fixed" else 3)
    drawn, again = (one.bootstrap(8).samples for one in (first, last))
    assert same(drawn, again)  # refits stay in the box, too
    with pytest.raises(lmtorch.InputError, match="infeasible"):
        fit(peak, x, y, [1.0, 0.0, -1.0], bounds=BOUNDS[name])


def test_other_bounds_are_another_fit(compiled: bool) -> None:
    for _ in range(3):
        for low, high in ((-9.0, 2.5), (-9.0, 2.0), (-9.0, 9.0), (3.5, 9.0)):
            start = [max(low, 1.0), 0.0]
            slope = fit(p0=start, bounds=([low, -9], [high, 9])).popt[0]
            expected = min(max(exact()[0], low), high)
            assert slope == pytest.approx(expected, rel=1e-9)
            assert fit(p0=start, bounds={"slope": (low, high)}).popt[0] == pytest.approx(
                expected, rel=1e-9
            )


def test_a_model_without_bounds_is_remembered(quick: list[Any]) -> None:
    model = lmtorch.models.Linear("l")
    for scale in (1.0, 2.0, 3.0):
        found = fit(model, T, scale * Y)
        np.testing.assert_allclose(found.popt, exact(scale * Y), rtol=1e-9)
        assert found.names == ["l_slope", "l_intercept"]
    assert quick == [found]
    fit(lmtorch.models.Linear("m"))  # which is another
    assert quick == [found]


def test_a_model_of_the_library_is_remembered_with_its_rules(
    quick: list[Any], compiled: bool
) -> None:
    x = np.linspace(-4, 4, 40)
    y = 3 * np.exp(-((x - 0.4) ** 2) / 2) + 0.01 * np.cos(9 * x)
    model = lmtorch.models.Gaussian("g") + lmtorch.models.Constant("c")
    start = [7.0, 0.0, 1.0, 0.0]
    first, *_, last = (fit(model, x, y, start) for _ in range(12))
    assert len(quick) == 10
    assert last.report() == first.report()
    assert same(last.popt, first.popt)
    assert same(last.pcov, first.pcov)
    narrow = fit(model.with_bounds(g_sigma=(0, 0.9)), x, y, [7.0, 0.0, 0.8, 0.0])
    assert narrow.popt[2] == 0.9
    with pytest.raises(lmtorch.InputError, match="infeasible"):
        fit(model, x, y, [7.0, 0.0, -1.0, 0.0])
    assert len(quick) == 10


def same(one: Any, other: Any) -> bool:
    """Whether numbers are the same, NaN at a bound too; a program's J rounds in another way."""
    if COMPILE:
        return np.allclose(one, other, rtol=1e-9, atol=1e-12, equal_nan=True)
    return np.array_equal(one, other, equal_nan=True)


def start_of(found: Any) -> list[float]:
    """Where a fit has started."""
    start: list[float] = found._inference.fitter.start.tolist()
    return start


X = np.linspace(-4, 4, 40)
PEAK = np.exp(-((X - 0.4) ** 2) / 2) + 0.01 * np.cos(9 * X)


class Halfway(lmtorch.models.Gaussian):
    """A peak whose guess asks an attribute, and something of this module."""

    share = 1.0

    def start(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        found = super().start(x, y)
        return {**found, "amplitude": FACTOR * self.share * found["amplitude"]}


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (-50, 50)], ids=["free", "in a box"])
def test_a_fit_whose_start_is_guessed_is_remembered_and_guessed_anew(
    bounds: Any, quick: list[Any], compiled: bool
) -> None:
    model = lmtorch.models.Gaussian()
    curves = [np.roll(scale * PEAK, 5 * turn) for turn in range(-2, 3) for scale in (1.0, 30.0)]
    for _ in range(6):
        fit(model, X, curves[0], None, bounds=bounds)
    assert len(quick) == 4
    for y in curves:  # far from each other: a start of other data would lead elsewhere
        again = fit(model, X, y, None, bounds=bounds)
        assert quick[-1] is again
        anew = fit(lmtorch.models.Gaussian(), X, y, None, bounds=bounds)
        assert quick[-1] is again
        assert same(again.popt, anew.popt)
        assert same(again.pcov, anew.pcov)
        assert (again.solution.nfev, start_of(again)) == (anew.solution.nfev, start_of(anew))


def test_a_start_that_a_function_has_by_default_is_its_own(quick: list[Any]) -> None:
    def curve(t: Tensor, slope: Tensor, level: Tensor = 3.0) -> Tensor:  # type: ignore[assignment]
        return slope * t + level

    for _ in range(4):
        first = fit(curve, p0=None)
    assert len(quick) == 2
    curve.__defaults__ = (-7.0,)
    second = fit(curve, p0=None)
    assert len(quick) == 2
    assert (start_of(first), start_of(second)) == ([1.0, 3.0], [1.0, -7.0])


@pytest.mark.parametrize("what", ["attribute", "class", "global"])
def test_what_a_guess_uses_is_as_it_is_now(
    what: str, quick: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Halfway()
    for _ in range(4):
        first = fit(model, X, PEAK, None)
    assert quick[-1] is first  # what is remembered would be used once more
    if what == "attribute":
        model.share = 0.5
    elif what == "class":
        monkeypatch.setattr(Halfway, "share", 0.5)
    else:
        monkeypatch.setitem(globals(), "FACTOR", 0.5)
    second = fit(model, X, PEAK, None)
    assert start_of(second)[0] == 0.5 * start_of(first)[0]
    np.testing.assert_allclose(second.popt, first.popt, rtol=1e-8)


def test_a_curve_that_cannot_be_guessed_is_refused_as_ever(quick: list[Any]) -> None:
    model = lmtorch.models.Gaussian()
    for _ in range(4):
        fit(model, X, PEAK, None)
    count = len(quick)
    for x, y in ((X, np.where(X < 0, np.nan, PEAK)), (X[:2], PEAK[:2])):
        with pytest.raises((TypeError, ValueError)) as found:
            fit(model, x, y, None)
        with pytest.raises((TypeError, ValueError)) as expected:
            fit(lmtorch.models.Gaussian(), x, y, None)
        assert str(found.value) == str(expected.value)
    assert len(quick) == count


def test_what_is_wrong_is_said_as_ever(quick: list[Any]) -> None:
    for _ in range(3):
        fit()
    bad = Y.copy()
    bad[3] = np.nan
    with pytest.raises(lmtorch.InputError, match="NaN"):
        fit(y=bad)
    with pytest.raises(lmtorch.InputError, match="NaN"):
        fit(p0=[np.nan, 1.0])
    with pytest.raises(lmtorch.InputError):
        fit(y=Y[:5])
    with pytest.raises(TypeError, match="cannot determine"):
        fit(x=T[:1], y=Y[:1])
    with pytest.warns(UserWarning, match="no degrees of freedom"):
        fit(x=T[:2], y=Y[:2])
    assert len(quick) == 1


def test_the_inverse_of_a_normal_matrix_is_that_by_singular_values() -> None:
    rng = np.random.default_rng(0)
    jacobian = rng.standard_normal((20, 4)) * np.array([1e-3, 1.0, 1e5, 1e80])
    by_svd = inverse_normal(torch.from_numpy(jacobian), torch.zeros(4, dtype=torch.bool)).matrix
    found = of_one(jacobian.T @ jacobian)
    np.testing.assert_allclose(found, by_svd, rtol=1e-10)
    jacobian[:, 3] = jacobian[:, 0] * (1 + 1e-7 * rng.standard_normal(20))
    assert of_one(jacobian.T @ jacobian) is None
    jacobian[:, 3] = 0
    assert of_one(jacobian.T @ jacobian) is None
    jacobian[:, 3] = np.nan
    assert of_one(jacobian.T @ jacobian) is None


def test_what_determines_at_a_glance_has_no_eigenvalue_that_rounding_may_hide() -> None:
    rng = np.random.default_rng(1)
    units = np.array([1e-3, 1.0, 1e5, 1e80])
    taken = []
    for apart in np.logspace(0, -9, 200):
        jacobian = rng.standard_normal((20, 4))
        jacobian[:, 3] = jacobian[:, 0] + apart * jacobian[:, 3]
        unit = jacobian / np.linalg.norm(jacobian, axis=0)
        least = np.linalg.svd(unit, compute_uv=False)[-1] ** 2
        jacobian = jacobian * units
        taken.append(determines(jacobian.T @ jacobian))
        assert least > 1e-8 or not taken[-1]
        assert least < 1e-6 or taken[-1]  # what is far from dependent takes no second look
    assert 0 < sum(taken) < len(taken)
    for column in (0.0, np.nan, np.inf, 1e-120, 1e120):
        jacobian = rng.standard_normal((20, 4))
        jacobian[:, 3] *= column
        with np.errstate(all="ignore"):
            assert not determines(jacobian.T @ jacobian)
    assert not determines(np.eye(3, dtype=np.float32))  # whose rounding is another
    assert determines(np.array([[4.0]]))


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_data_whose_squares_are_no_numbers_are_fitted_in_silence(quick: list[Any]) -> None:
    for _ in range(2):
        fit = lmtorch.curve_fit(line, T, 1e200 * Y, [1e200, 1e200])
        np.testing.assert_allclose(fit.popt, 1e200 * np.polyfit(T, Y, 1), rtol=1e-8)
    assert not quick


def test_errors_are_made_when_they_are_asked_for_and_the_same_of_a_copy(compiled: bool) -> None:
    def curve(t: Any, a: Any, b: Any) -> Any:
        return a * torch.exp(-b * t)

    fits = [lmtorch.curve_fit(curve, T, Y, [1.0, 1.0], compile=compiled) for _ in range(8)]
    first, last = fits[0], fits[-1]
    assert not {"covariance", "_at_once"} & vars(last._inference).keys()
    twin, read = copy.deepcopy(fits[-2]), fits[-2].pcov
    np.testing.assert_array_equal(twin.pcov, read)
    np.testing.assert_allclose(last.pcov, first.pcov, rtol=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("entry", [1e300, np.inf, np.nan, 2.0])
def test_the_bar_of_one_curve_is_that_of_many(entry: float) -> None:
    y = torch.tensor([1.0, entry, -entry, 4.0], dtype=torch.float64)
    count = torch.tensor(4.0, dtype=torch.float64)
    one = acceptable(Data(y, y, None, None, count, False, False, ()), Linear())
    many = acceptable(Data(y, y[None], None, None, count[None], False, False, ()), Linear())
    torch.testing.assert_close(one, many[0], rtol=1e-14, atol=0.0)
    assert one.isinf() == (entry != 2.0)


def test_the_data_of_many_fits_are_not_read_for_what_is_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[Any] = []
    real = fronts._points
    monkeypatch.setattr(fronts, "_points", lambda data: read.append(0) or real(data))
    assert fit(y=np.stack([Y, 2 * Y])).success.all()
    assert not read
    assert fit().success
    assert len(read) == 2
