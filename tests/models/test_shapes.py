"""Every shape of the library: lmfit's values, its limits, its guess, and a fit from it."""

import inspect
from typing import Any

import lmfit
import mpmath
import numpy as np
import pytest
import scipy.integrate
import torch
from lmfit import lineshapes

import lmtorch
from lmtorch import models
from lmtorch.models import Model, peaks, searching
from tests.models.shapes import AFTER, ALL, NAMES, RESPONSE, TIMES, Values

F64 = torch.float64
EVERY = pytest.mark.parametrize(("model", "x", "values"), ALL, ids=NAMES)
LMFIT: dict[str, Any] = {
    "Constant": lambda x, c: c + 0 * x,
    "Linear": lineshapes.linear,
    "Quadratic": lineshapes.parabolic,
    "Polynomial": lambda x, **c: np.polyval([c[k] for k in sorted(c, reverse=True)], x),
    "Gaussian": lineshapes.gaussian,
    "Lorentzian": lineshapes.lorentzian,
    "Voigt": lineshapes.voigt,
    "PseudoVoigt": lineshapes.pvoigt,
    "Moffat": lineshapes.moffat,
    "Pearson7": lineshapes.pearson7,
    "SkewedGaussian": lineshapes.skewed_gaussian,
    "SkewedVoigt": lineshapes.skewed_voigt,
    "ExponentialGaussian": lineshapes.expgaussian,
    "SplitLorentzian": lineshapes.split_lorentzian,
    "Lognormal": lambda x, **p: np.where(x > 0, lineshapes.lognormal(x.copy(), **p), 0.0),
    "Doniach": lineshapes.doniach,
    "BreitWigner": lineshapes.breit_wigner,
    "Gaussian2D": lambda x, **p: lineshapes.gaussian2d(x[0], x[1], **p),
    "Exponential": lineshapes.exponential,
    "PowerLaw": lineshapes.powerlaw,
    "Logistic": lineshapes.logistic,
    "Sine": lineshapes.sine,
    "DampedSine": lineshapes.expsine,
    "Step": lineshapes.step,
    "Rectangle": lineshapes.rectangle,
    # of two that lmfit has, or by its formula
    "Biexponential": lambda x, amplitude1, decay1, amplitude2, decay2: (
        lineshapes.exponential(x, amplitude1, decay1)
        + lineshapes.exponential(x, amplitude2, decay2)
    ),
    "SplitGaussian": lambda x, amplitude, center, sigma, sigma_r: np.where(
        x < center,
        lineshapes.gaussian(x, amplitude * 2 * sigma / (sigma + sigma_r), center, sigma),
        lineshapes.gaussian(x, amplitude * 2 * sigma_r / (sigma + sigma_r), center, sigma_r),
    ),
    "StretchedExponential": lambda x, amplitude, decay, beta: (
        amplitude * np.exp(-((x / decay) ** beta))
    ),
    "Arrhenius": lambda x, amplitude, energy: amplitude * np.exp(-energy / (8.31446261815324 * x)),
    "Logistic4": lambda x, bottom, top, center, sigma: (
        bottom + lineshapes.logistic(x, top - bottom, center, sigma)
    ),
    "Logistic5": lambda x, bottom, top, center, sigma, asymmetry: (
        bottom + (top - bottom) * lineshapes.logistic(x, 1.0, center, sigma) ** asymmetry
    ),
    "Hill": lambda x, bottom, top, ec50, hill: (
        bottom + (top - bottom) * x**hill / (ec50**hill + x**hill)
    ),
    "Hill5": lambda x, bottom, top, ec50, hill, asymmetry: (
        bottom + (top - bottom) * (x**hill / (ec50**hill + x**hill)) ** asymmetry
    ),
    "MichaelisMenten": lambda x, vmax, km: vmax * x / (km + x),
    "GaussianResponseDecay": lambda x, amplitude, decay, center, sigma: lineshapes.expgaussian(
        x, amplitude * decay, center, sigma, 1 / decay
    ),
}


def expected(model: Model, x: Any, values: Values) -> Any:
    """What lmfit has for the curve, or NumPy for its formula."""
    options = {k: v for k, v in model.options.items() if k == "form"}
    return LMFIT[type(model).__name__](x, **values, **options)


def fitted(model: Model, x: Any, y: Any) -> Any:
    """A fit from the guess, within the bounds of the model."""
    found = model.guess(x, y)
    bounds = {name: model.bounds.get(name, (-np.inf, np.inf)) for name in model.names}
    return lmtorch.curve_fit(model, x, y, p0=[found[n] for n in model.names], bounds=bounds)


def arguments(model: Model, values: Values) -> list[torch.Tensor]:
    return [torch.tensor(values[name], dtype=F64) for name in model.names]


@EVERY
def test_its_values_are_those_of_lmfit_or_of_its_formula(
    model: Model, x: Any, values: Values
) -> None:
    if type(model).__name__ == "MeasuredResponseDecay":
        pytest.skip("it has a test of its own")
    # a few units of the last digit of sums of which one is large
    np.testing.assert_allclose(model(x, **values), expected(model, x, values), 1e-12, 1e-13)


@EVERY
def test_it_is_in_single_precision_what_it_is_in_double(
    model: Model, x: Any, values: Values
) -> None:
    low = model(torch.tensor(x, dtype=torch.float32), **values)
    assert isinstance(low, torch.Tensor)
    assert low.dtype == torch.float32
    # the energy of Arrhenius's law stands in an exponent of 25
    high = model(x, **values)
    np.testing.assert_allclose(low.numpy(), high, 3e-5, 3e-6 * np.abs(high).max())


@EVERY
def test_its_derivatives_are_those_of_central_differences(
    model: Model, x: Any, values: Values
) -> None:
    points, given = torch.tensor(x), arguments(model, values)
    if type(model).__name__ in ("Step", "Rectangle"):
        points = points + 1e-3  # not on a corner

    def curve(*p: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(points, *p)
        return found

    for place, value in enumerate(given):
        moved = list(given)
        h = 1e-5 * (1 + abs(float(value)))
        moved[place] = value + h
        after = curve(*moved)
        moved[place] = value - h
        rough = (after - curve(*moved)) / (2 * h)
        one = [torch.zeros_like(v) for v in given]
        one[place] = torch.ones_like(value)
        exact = torch.func.jvp(curve, tuple(given), tuple(one))[1].expand(rough.shape)
        assert exact.isfinite().all()
        torch.testing.assert_close(exact, rough, rtol=1e-4, atol=1e-6 * float(rough.abs().max()))


@EVERY
def test_a_fit_from_its_guess_finds_the_values(model: Model, x: Any, values: Values) -> None:
    clean = model(x, **values)
    noise = np.random.default_rng(1).normal(size=clean.shape)
    y = clean + 1e-3 * (np.abs(clean).max()) * noise
    fit = fitted(model, x, y)  # a FallbackWarning is an error
    best = np.sum((y - clean) ** 2)
    assert fit.success
    assert np.sum((y - model(x, **fit.params)) ** 2) <= best * (1 + 1e-9)


@EVERY
def test_a_guess_of_many_is_that_of_each(model: Model, x: Any, values: Values) -> None:
    clean = model(x, **values)
    generator = np.random.default_rng(2)
    y = clean * np.array([[1.0], [-0.5], [2.0]])
    y = (y + 0.02 * np.abs(y).max() * generator.normal(size=y.shape)).reshape(3, 1, -1)
    together = model.guess(x, y)
    for k in range(3):
        for name, value in model.guess(x, y[k, 0]).items():
            assert together[name].shape == (3, 1)
            np.testing.assert_allclose(together[name][k, 0], value, 1e-9)


@EVERY
@pytest.mark.parametrize("level", [0.0, 3.0, -1e-8])
def test_constant_data_give_finite_values(
    model: Model, x: Any, values: Values, level: float
) -> None:
    found = model.guess(x, np.full(np.shape(x)[-1], level))
    assert set(found) == set(model.names)
    assert all(np.isfinite(value) for value in found.values())


@EVERY
def test_order_and_gaps_of_the_points_do_not_matter(model: Model, x: Any, values: Values) -> None:
    y = np.broadcast_to(model(x, **values), np.shape(x)[-1:])
    order = np.random.default_rng(3).permutation(len(y))
    holes = y.copy()
    holes[5:9] = np.nan
    full = model.guess(x, y)
    for name, value in model.guess(x[..., order], y[order]).items():
        np.testing.assert_allclose(value, full[name], 1e-9)
    with_holes = model.guess(x, holes)
    kept = np.isfinite(holes)
    for name, value in model.guess(x[..., kept], holes[kept]).items():
        np.testing.assert_allclose(with_holes[name], value, 1e-9)


@pytest.mark.parametrize(
    "name", ["Sine()", "DampedSine()", "Gaussian()", "Rectangle(form='linear')"]
)
def test_tries_are_the_same_one_by_one_as_together(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, values = ALL[NAMES.index(name)]
    y = model(x, **values)
    together = model.guess(x, y)
    monkeypatch.setattr(searching, "TOGETHER", 1)
    monkeypatch.setattr(peaks, "TOGETHER", 1)
    for key, value in model.guess(x, y).items():
        np.testing.assert_allclose(value, together[key], 1e-9)


@pytest.mark.parametrize("start", [0.0, 37.0])
def test_the_guess_of_a_sinusoid_has_its_phase(start: float) -> None:
    x = np.linspace(start, start + 10, 120)
    for model, decay in ((models.Sine(), {}), (models.DampedSine(), {"decay": 0.1})):
        y = model(x, amplitude=2.0, frequency=2.5, shift=-1.0, **decay)
        found = model.guess(x, y)
        # in phase in the middle of the data, a quarter of a frequency step off at most
        guessed = model(x, **found)
        assert np.corrcoef(guessed, y)[0, 1] > 0.8


def test_every_shape_of_the_library_is_tested() -> None:
    library = {
        name
        for name, value in vars(models).items()
        if inspect.isclass(value) and issubclass(value, Model) and value is not Model
    }
    assert library == {type(model).__name__ for model, _, _ in ALL}


@pytest.mark.parametrize("name", ["Gaussian", "Lorentzian", "Voigt", "PseudoVoigt", "Lognormal"])
def test_names_and_values_carry_over_to_lmfit_and_back(name: str) -> None:
    """A result of lmfit evaluates to the same curve here, by its own dict of values."""
    theirs = getattr(lmfit.models, f"{name}Model")()
    ours = getattr(models, name)()
    _, x, values = ALL[NAMES.index(f"{name}()")]
    assert set(ours.names) <= set(theirs.make_params())
    x = x[x > 0]
    curve = theirs.eval(x=x, **values)
    np.testing.assert_allclose(ours(x, **values), curve, 1e-12, 1e-13)


def test_a_measured_response_is_integrated_exactly() -> None:
    model = models.MeasuredResponseDecay(times=TIMES.tolist(), response=RESPONSE.tolist())
    area = scipy.integrate.trapezoid(RESPONSE, TIMES)
    for x, decay, shift in ((0.77, 1.5, 0.2), (2.5, 0.05, -0.13), (9.0, 40.0, 0.0)):

        def integrand(t: float, until: float = x - shift, decay: float = decay) -> float:
            return float(np.interp(t, TIMES, RESPONSE) * np.exp(-(until - t) / decay))

        last = min(x - shift, TIMES[-1])
        corners = TIMES[(TIMES > 0) & (last > TIMES)]
        whole = scipy.integrate.quad(integrand, 0, last, points=corners, limit=200, epsabs=1e-14)[0]
        found = model([x], amplitude=2.0, decay=decay, shift=shift)[0]
        np.testing.assert_allclose(found, 2 * whole / area, 1e-9)  # of the quadrature


def test_a_narrow_measured_response_is_the_decay_itself() -> None:
    model = models.MeasuredResponseDecay(times=[-1e-7, 0.0, 1e-7], response=[0.0, 1.0, 0.0])
    x = AFTER[1:]
    np.testing.assert_allclose(
        model(x, amplitude=2.0, decay=1.5, shift=0.0), 2 * np.exp(-x / 1.5), 1e-7
    )


@pytest.mark.parametrize(
    ("times", "response", "says"),
    [
        ([0.0, 1.0], [1.0], "as many"),
        ([1.0, 0.0], [1.0, 1.0], "ascend"),
        ([0.0, 1.0], [1.0, np.nan], "finite"),
        ([0.0, 1.0], [1.0, -2.0], "no positive area"),
        ([0.0, 1.0], ["a", "b"], "numbers"),
    ],
)
def test_a_response_that_is_none_is_refused(times: Any, response: Any, says: str) -> None:
    with pytest.raises(lmtorch.InputError, match=says):
        models.MeasuredResponseDecay(times=times, response=response)


@pytest.mark.parametrize("shape", [models.Step, models.Rectangle])
def test_a_form_that_is_not_known_is_refused(shape: Any) -> None:
    with pytest.raises(lmtorch.InputError, match="form='cosine' is not known"):
        shape(form="cosine")
    assert shape(form="atan").options == {"form": "arctan"}


@pytest.mark.parametrize("degree", [-1, 1.5, "3", True])
def test_a_degree_that_is_none_is_refused(degree: Any) -> None:
    with pytest.raises(lmtorch.InputError, match="degree"):
        models.Polynomial(degree=degree)


def test_a_tail_neither_overflows_nor_vanishes() -> None:
    """lmfit's formula is inf · 0 for a short tail, where the peak is a Gaussian."""
    peak = models.ExponentialGaussian()
    x = np.linspace(-5, 5, 41)
    found = peak(x, amplitude=2.0, center=0.0, sigma=1.0, gamma=1e5)
    gauss = models.Gaussian()(x, amplitude=2.0, center=1e-5, sigma=1.0)  # the mean of the tail
    np.testing.assert_allclose(found, gauss, 1e-8)
    far = peak(np.array([1e3, -1e3]), amplitude=2.0, center=0.0, sigma=1.0, gamma=0.5)
    np.testing.assert_allclose(far, [2 * 0.5 * np.exp(-500 + 0.125), 0.0], 1e-12, 0)


def test_no_dose_has_a_response_and_no_slope_in_the_steepness() -> None:
    p = torch.tensor([1.0, 3.0, 2.0, 0.7], dtype=F64)
    rows = torch.func.jacfwd(lambda p: models.Hill()(torch.zeros(1, dtype=F64), *p))(p)
    torch.testing.assert_close(rows, torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=F64))
    p = torch.tensor([3.0, 2.0, 0.5], dtype=F64)
    shape = models.StretchedExponential()
    rows = torch.func.jacrev(lambda p: shape(torch.zeros(1, dtype=F64), *p))(p)
    torch.testing.assert_close(
        rows, torch.tensor([[1.0, 0.0, 0.0]], dtype=F64), atol=1e-100, rtol=0
    )


AREAS = (
    "Gaussian()",
    "Lorentzian()",
    "Voigt()",
    "PseudoVoigt()",
    "Pearson7()",
    "SkewedGaussian()",
    "SplitGaussian()",
    "SplitLorentzian()",
    "ExponentialGaussian()",
)


@pytest.mark.parametrize("name", AREAS)
def test_the_area_of_a_peak_is_its_amplitude(name: str) -> None:
    model, _, values = ALL[NAMES.index(name)]

    def curve(t: float) -> float:
        x = values["center"] + np.tan(t)
        return float(model([x], **values)[0] * (1 + np.tan(t) ** 2))

    area = scipy.integrate.quad(curve, -np.pi / 2, np.pi / 2, points=[0.0], limit=200)[0]
    np.testing.assert_allclose(area, values["amplitude"], 1e-7)  # of the quadrature


def test_the_spectrum_finds_a_sinusoid_of_unevenly_spaced_points() -> None:
    generator = np.random.default_rng(4)
    x = 100 + np.sort(generator.uniform(0, 40, 150))
    values = {"amplitude": 2.0, "frequency": 5.3, "shift": -1.0}
    y = models.Sine()(x, **values) + 0.3 * generator.normal(size=150)
    fit = fitted(models.Sine(), x, y)
    assert abs(fit.params["frequency"] - 5.3) < 0.01


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_at_zero_there_is_no_dose_and_no_time_whatever_the_exponent(dtype: torch.dtype) -> None:
    x = torch.zeros(1, dtype=dtype)
    small = {"hill": 0.02, "asymmetry": 0.1}
    levels = {"bottom": 1.0, "top": 3.0, "ec50": 2.0}
    assert models.Hill()(x, **levels, hill=0.02).item() == 1.0
    assert models.Hill()(x, **levels, hill=-0.02).item() == 3.0
    assert models.Hill5()(x, **levels, **small).item() == 1.0
    assert models.StretchedExponential()(x, amplitude=3.0, decay=2.0, beta=0.02).item() == 3.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("expon", [0.75, 1.0, 19.9, 20.1, 1e3, 1e5, 1e7])
def test_the_height_of_pearsons_peak_keeps_its_digits(dtype: torch.dtype, expon: float) -> None:
    given = torch.tensor(expon, dtype=dtype)
    exact = mpmath.mpf(given.item())

    def height(m: torch.Tensor) -> torch.Tensor:
        found = models.Pearson7()(torch.zeros(1, dtype=dtype), one, zero, one, m)
        assert isinstance(found, torch.Tensor)
        return found[0]

    one, zero = torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype)
    with mpmath.workdps(40):
        value = mpmath.gammaprod([exact], [exact - 0.5, 0.5])
        rate = mpmath.digamma(exact) - mpmath.digamma(exact - 0.5)
        rates = mpmath.polygamma(1, exact) - mpmath.polygamma(1, exact - 0.5)
        wanted = [float(value), float(value * rate), float(value * (rate**2 + rates))]
    slope = torch.func.grad(height)
    found = [height(given), slope(given), torch.func.jacfwd(slope)(given)]
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(found[0].item(), wanted[0], 60 * eps)
    np.testing.assert_allclose(found[1].item(), wanted[1], 2000 * eps)
    # torch's trigamma function of small arguments has no more
    np.testing.assert_allclose(found[2].item(), wanted[2], max(1e-9, 2e4 * eps))


def test_a_stretched_exponential_that_is_over_has_derivatives() -> None:
    x = torch.tensor([1.0, 1e3], dtype=torch.float32)
    given = tuple(torch.tensor(v, dtype=torch.float32) for v in (3.0, 0.03, 20.0))
    for forward in (torch.func.jacfwd, torch.func.jacrev):
        found = forward(models.StretchedExponential(), (1, 2, 3))(x, *given)
        assert all(torch.equal(column, torch.zeros(2)) for column in found)
