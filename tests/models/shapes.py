"""Every shape of the library with values that a fit may find, and data of it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lmtorch import models
from lmtorch.models import Model

Values = dict[str, float]
POINTS = np.linspace(-4.0, 6.0, 120)
AFTER = np.linspace(0.0, 10.0, 80)  # of what begins at zero
TIMES = np.linspace(0.0, 3.0, 31)
RESPONSE = np.exp(-((TIMES - 1.2) ** 2) / 0.08) + 0.3 * np.exp(-((TIMES - 1.8) ** 2) / 0.2)
GRID = np.stack(
    [axis.ravel() for axis in np.meshgrid(np.linspace(0, 8, 15), np.linspace(0, 9, 17))]
)


def peaks() -> Iterator[tuple[Model, Any, Values]]:
    """Those that are high somewhere."""
    place = {"amplitude": 5.0, "center": 1.3, "sigma": 0.8}
    for shape in (models.Gaussian(), models.Lorentzian()):
        yield shape, POINTS, place
    yield models.Voigt(), POINTS, {**place, "gamma": 0.4}
    yield models.PseudoVoigt(), POINTS, {**place, "fraction": 0.3}
    yield models.Moffat(), POINTS, {**place, "beta": 1.5}
    yield models.Pearson7(), POINTS, {**place, "expon": 1.8}
    yield models.SkewedGaussian(), POINTS, {**place, "gamma": -2.0}
    yield models.SkewedVoigt(), POINTS, {**place, "gamma": 0.3, "skew": 1.5}
    yield models.ExponentialGaussian(), POINTS, {**place, "center": 0.2, "gamma": 0.9}
    yield models.SplitGaussian(), POINTS, {**place, "sigma_r": 1.7}
    yield models.SplitLorentzian(), POINTS, {**place, "sigma_r": 0.3}
    yield models.Doniach(), POINTS, {**place, "gamma": 0.1}
    yield models.BreitWigner(), POINTS, {**place, "q": 2.0}
    yield models.Lognormal(), AFTER, {"amplitude": 5.0, "center": 0.9, "sigma": 0.4}
    spot = {"amplitude": 30.0, "centerx": 3.1, "centery": 5.2, "sigmax": 0.9, "sigmay": 1.6}
    yield models.Gaussian2D(), GRID, spot


def curves() -> Iterator[tuple[Model, Any, Values]]:
    """All others."""
    yield models.Constant(), POINTS, {"c": 2.0}
    yield models.Linear(), POINTS, {"slope": 0.3, "intercept": -1.0}
    yield models.Quadratic(), POINTS, {"a": 0.2, "b": -0.5, "c": 1.0}
    yield models.Polynomial(degree=3), POINTS, {"c0": 1.0, "c1": 0.2, "c2": -0.3, "c3": 0.05}
    yield models.Exponential(), AFTER, {"amplitude": 3.0, "decay": 2.0}
    two = {"amplitude1": 3.0, "decay1": 0.5, "amplitude2": 1.0, "decay2": 5.0}
    yield models.Biexponential(), AFTER, two
    yield models.StretchedExponential(), AFTER, {"amplitude": 3.0, "decay": 2.0, "beta": 0.6}
    yield models.PowerLaw(), AFTER + 0.5, {"amplitude": 3.0, "exponent": -1.2}
    yield models.Arrhenius(), np.linspace(290.0, 360.0, 30), {"amplitude": 1e9, "energy": 6e4}
    rise = {"center": 1.3, "sigma": 0.8}
    yield models.Logistic(), POINTS, {"amplitude": 5.0, **rise}
    yield models.Logistic4(), POINTS, {"bottom": 1.0, "top": 3.0, **rise}
    yield models.Logistic5(), POINTS, {"bottom": 1.0, "top": 3.0, **rise, "asymmetry": 0.5}
    dose = {"bottom": 1.0, "top": 3.0, "ec50": 2.5, "hill": 2.2}
    yield models.Hill(), AFTER, dose
    yield models.Hill5(), AFTER, {**dose, "asymmetry": 1.7}
    yield models.MichaelisMenten(), AFTER, {"vmax": 3.0, "km": 1.4}
    wave = {"amplitude": 2.0, "frequency": 3.3, "shift": 0.5}
    yield models.Sine(), POINTS, wave
    yield models.DampedSine(), AFTER, {**wave, "decay": 0.3}
    for form in ("linear", "arctan", "erf", "logistic"):
        yield models.Step(form=form), POINTS, {"amplitude": 5.0, **rise}
        box = {"amplitude": 5.0, "center1": -0.5, "sigma1": 0.3, "center2": 3.0, "sigma2": 0.6}
        yield models.Rectangle(form=form), POINTS, box
    seen = {"amplitude": 3.0, "decay": 1.5, "center": 1.0, "sigma": 0.3}
    yield models.GaussianResponseDecay(), AFTER, seen
    lamp = models.MeasuredResponseDecay(times=TIMES.tolist(), response=RESPONSE.tolist())
    yield lamp, AFTER, {"amplitude": 3.0, "decay": 1.5, "shift": 0.4}


ALL = [*peaks(), *curves()]
NAMES = [repr(model).split("times")[0].rstrip("(, ") for model, _, _ in ALL]
