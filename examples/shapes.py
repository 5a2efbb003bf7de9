"""All shapes of lmtorch.models: noisy data of each, the guess made from them, and the fit."""

from pathlib import Path
from typing import Any

import numpy as np

import lmtorch
from lmtorch import models

X = np.linspace(0.0, 10.0, 120)
PLACE = {"amplitude": 5.0, "center": 4.0, "sigma": 0.8}
RISE = {"bottom": 1.0, "top": 3.0}
WAVE = {"amplitude": 2.0, "frequency": 3.3, "shift": 0.5}
BOX = {"amplitude": 2.0, "center1": 3.0, "sigma1": 0.3, "center2": 7.0, "sigma2": 0.8}
TIMES = np.linspace(0.0, 2.0, 21)
LAMP = np.exp(-((TIMES - 0.6) ** 2) / 0.05) + 0.3 * np.exp(-((TIMES - 1.2) ** 2) / 0.05)
SHAPES: list[tuple[Any, dict[str, float]]] = [
    (models.Gaussian(), PLACE),
    (models.Lorentzian(), PLACE),
    (models.Voigt(), {**PLACE, "gamma": 0.4}),
    (models.PseudoVoigt(), {**PLACE, "fraction": 0.5}),
    (models.Moffat(), {**PLACE, "beta": 1.5}),
    (models.Pearson7(), {**PLACE, "expon": 1.5}),
    (models.SkewedGaussian(), {**PLACE, "gamma": 4.0}),
    (models.SkewedVoigt(), {**PLACE, "gamma": 0.2, "skew": -3.0}),
    (models.ExponentialGaussian(), {**PLACE, "center": 2.5, "gamma": 0.6}),
    (models.SplitGaussian(), {**PLACE, "sigma_r": 2.0}),
    (models.SplitLorentzian(), {**PLACE, "sigma_r": 0.2}),
    (models.Lognormal(), {**PLACE, "center": 1.0, "sigma": 0.5}),
    (models.Doniach(), {**PLACE, "gamma": 0.2}),
    (models.BreitWigner(), {**PLACE, "q": 1.5}),
    (models.Exponential(), {"amplitude": 3.0, "decay": 2.0}),
    (models.Biexponential(), {"amplitude1": 3.0, "decay1": 0.4, "amplitude2": 1.0, "decay2": 6.0}),
    (models.StretchedExponential(), {"amplitude": 3.0, "decay": 1.5, "beta": 0.5}),
    (models.PowerLaw(), {"amplitude": 0.3, "exponent": 1.5}),
    (models.GaussianResponseDecay(), {**PLACE, "center": 2.0, "sigma": 0.3, "decay": 2.0}),
    (
        models.MeasuredResponseDecay(times=TIMES.tolist(), response=LAMP.tolist()),
        {"amplitude": 3.0, "decay": 2.0, "shift": 1.0},
    ),
    (models.Logistic4(), {**RISE, "center": 4.0, "sigma": 0.8}),
    (models.Logistic5(), {**RISE, "center": 4.0, "sigma": 0.8, "asymmetry": 0.3}),
    (models.Hill(), {**RISE, "ec50": 3.0, "hill": 3.0}),
    (models.MichaelisMenten(), {"vmax": 3.0, "km": 1.5}),
    (models.Sine(), WAVE),
    (models.DampedSine(), {**WAVE, "decay": 0.3}),
    (models.Step(form="linear"), {**PLACE, "sigma": 3.0}),
    (models.Step(form="erf"), PLACE),
    (models.Rectangle(form="arctan"), BOX),
    (models.Rectangle(form="logistic"), BOX),
]


def main(output: Path = Path("output")) -> int:
    """Fit each shape to noisy data of it, from its own guess, and draw all.

    Returns how many of the fits end as near to the data as the truth is.
    """
    generator = np.random.default_rng(0)
    panels, found = [], 0
    for model, values in SHAPES:
        x = X if not isinstance(model, models.PowerLaw | models.Lognormal) else X + 0.1
        clean = model(x, **values)
        y = clean + 0.04 * np.ptp(clean) * generator.normal(size=x.size)
        fit = lmtorch.curve_fit(model, x, y)
        panels.append((model, x, y, model(x, **model.guess(x, y)), fit))
        found += bool(fit.chisqr <= np.sum((y - clean) ** 2))
    print(f"{found} of {len(SHAPES)} fits are as near to their data as the truth")
    print("picture:", draw(panels, output / "shapes.png"))
    return found


def draw(panels: list[Any], path: Path) -> Path:
    """Data, guess and fit of each shape."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(6, 5, figsize=(11, 10.5), layout="constrained")
    for ax, (model, x, y, guess, fit) in zip(axes.flat, panels, strict=True):
        ax.plot(x, y, ".", color="0.7", markersize=3, label="data")
        ax.plot(x, guess, "--", color="tab:orange", linewidth=1, label="guess")
        ax.plot(x, model(x, **fit.params), color="tab:blue", linewidth=1.5, label="fit")
        form = model.options.get("form")
        ax.set_title(type(model).__name__ + (f", {form}" if form else ""), fontsize=9)
        ax.set_xticks([])
        ax.set_yticks([])
    axes.flat[0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
