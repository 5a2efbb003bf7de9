"""How often a fit from a guess finds the minimum: our guesses beside lmfit's, on the same data.

Each shape is drawn with parameters of wide ranges, on 100 points from 0 to 10 with normal noise of
5 % of its height, a third of them upside down. A start succeeds if the fit from it ends within 1 %
of the least sum of squares that any of the fits finds, the one from the true parameters among them.
Two columns have our fit from either guess, so that only the starts differ; the third is lmfit's own
fit from its guess. Files are in `guesses_on_files.py`.
Run it: `python -m benchmarks.guesses [draws] [shape ...]`, or `python -m benchmarks.guesses files`.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmfit
import numpy as np
import torch
from lmfit import models as theirs

import lmtorch
from lmtorch import models

from . import guesses_on_files, machine

RESULTS = Path(__file__).parent / "results" / "guesses.json"
WAYS = ("ours", "ours_from_lmfit", "lmfit")  # our fit from either guess, and lmfit's own
NOISE = 0.05
DRAWS = 300
X = np.linspace(0.0, 10.0, 100)
GRID = np.stack([a.ravel() for a in np.meshgrid(np.linspace(0, 10, 14), np.linspace(0, 10, 14))])
ENOUGH = 1.01  # of the least sum of squares
Draws = dict[str, Any]
Case = tuple[Any, Any, Any, Draws]  # our model, lmfit's or None, points, parameters of all draws


def cases(generator: np.random.Generator, n: int) -> Iterator[Case]:
    """The shapes, with parameters of n draws each."""

    def some(low: float, high: float) -> Any:
        return generator.uniform(low, high, n)

    def sizes(low: float, high: float) -> Any:
        return 10 ** some(low, high)

    def peak(**more: Any) -> Draws:
        place = {"amplitude": height(), "center": some(1, 9), "sigma": sizes(-0.7, 0.3)}
        return {**place, **more}

    def height() -> Any:
        return sizes(-1, 2) * np.where(np.arange(n) % 3, 1, -1)

    yield models.Gaussian(), theirs.GaussianModel(), X, peak()
    yield models.Lorentzian(), theirs.LorentzianModel(), X, peak()
    yield models.Voigt(), theirs.VoigtModel(), X, peak(gamma=some(0.05, 1))
    yield models.PseudoVoigt(), theirs.PseudoVoigtModel(), X, peak(fraction=some(0, 1))
    yield models.Moffat(), theirs.MoffatModel(), X, peak(beta=some(0.8, 4))
    yield models.Pearson7(), theirs.Pearson7Model(), X, peak(expon=some(0.8, 4))
    yield models.SkewedGaussian(), theirs.SkewedGaussianModel(), X, peak(gamma=some(-4, 4))
    skew = peak(gamma=some(0.05, 1), skew=some(-4, 4))
    yield models.SkewedVoigt(), theirs.SkewedVoigtModel(), X, skew
    tail = peak(center=some(1, 5), gamma=some(0.3, 3))
    yield models.ExponentialGaussian(), theirs.ExponentialGaussianModel(), X, tail
    yield models.SplitGaussian(), None, X, peak(sigma_r=sizes(-0.7, 0.3))
    two = peak(sigma_r=sizes(-0.7, 0.3))
    yield models.SplitLorentzian(), theirs.SplitLorentzianModel(), X, two
    yield models.Doniach(), theirs.DoniachModel(), X, peak(gamma=some(-0.1, 0.3))
    yield models.BreitWigner(), theirs.BreitWignerModel(), X, peak(q=some(-4, 4))
    logs = peak(center=some(0, 2), sigma=some(0.1, 0.8))
    yield models.Lognormal(), theirs.LognormalModel(), X + 0.1, logs
    place = {"centerx": some(1, 9), "centery": some(1, 9)}
    spot = {"amplitude": height(), **place, "sigmax": some(0.5, 3), "sigmay": some(0.5, 3)}
    yield models.Gaussian2D(), theirs.Gaussian2dModel(), GRID, spot
    decay = {"amplitude": height(), "decay": sizes(-0.5, 1.5)}
    yield models.Exponential(), theirs.ExponentialModel(), X, decay
    both = {"amplitude1": height(), "decay1": some(0.2, 1), "decay2": some(3, 15)}
    yield models.Biexponential(), None, X, {**both, "amplitude2": both["amplitude1"] * some(0.2, 2)}
    yield models.StretchedExponential(), None, X, {**decay, "beta": some(0.4, 1.5)}
    power = {"amplitude": height(), "exponent": some(-3, 3)}
    yield models.PowerLaw(), theirs.PowerLawModel(), X + 0.3, power
    kelvin = {"amplitude": sizes(5, 12), "energy": some(2e4, 1.2e5)}
    yield models.Arrhenius(), None, 250 + 15 * X, kelvin
    wave = {"amplitude": height(), "frequency": some(0.6, 20), "shift": some(-3, 3)}
    yield models.Sine(), theirs.SineModel(), X, wave
    yield models.DampedSine(), None, X, {**wave, "decay": some(0.02, 0.6)}
    rise = {"bottom": some(-3, 3), "top": some(4, 9)}
    yield models.Logistic4(), None, X, {**rise, "center": some(1, 9), "sigma": sizes(-1.5, 0.3)}
    dose = {**rise, "ec50": sizes(-0.5, 0.9), "hill": some(0.7, 5)}
    yield models.Hill(), None, X, dose
    yield models.MichaelisMenten(), None, X, {"vmax": height(), "km": sizes(-1, 1.2)}
    for form in ("linear", "arctan", "erf", "logistic"):
        yield models.Step(form=form), theirs.StepModel(form=form), X, peak()
        up = {"center1": some(1, 4), "sigma1": some(0.1, 0.8)}
        down = {"center2": some(5, 9), "sigma2": some(0.1, 0.8)}
        box = {"amplitude": height(), **up, **down}
        yield models.Rectangle(form=form), theirs.RectangleModel(form=form), X, box
    seen = {"amplitude": height(), "decay": sizes(-0.7, 0.7), "center": some(1, 4)}
    yield models.GaussianResponseDecay(), None, X, {**seen, "sigma": sizes(-1.3, 0)}


def squares(model: Any, x: Any, y: Any, starts: Draws) -> Any:
    """The sums of squares (n,) of our fits from starts."""
    rows = np.stack([np.broadcast_to(starts[name], y.shape[:1]) for name in model.names], -1)
    limits = [model.bounds.get(name, (-np.inf, np.inf)) for name in model.names]
    low, high = (np.array(end) for end in zip(*limits, strict=True))
    rows = np.clip(np.nan_to_num(rows, nan=1.0), low + 1e-6, high - 1e-6)
    fit = lmtorch.curve_fit(model, x, y, p0=rows)
    return np.nan_to_num(np.asarray(fit.chisqr), nan=np.inf)


def of_lmfit(model: Any, x: Any, y: Any) -> tuple[Draws, Any]:
    """lmfit's guesses for all curves, and the sums of squares of its own fits."""
    found, ends = [], []
    points = {"x": x} if x.ndim == 1 else {"x": x[0], "y": x[1]}
    free = {"gamma"} & set(model.make_params())
    for one in y:
        params = None
        try:
            params = model.guess(one, **points)
            for name in free:  # which ties it to sigma
                params[name].set(expr="", vary=True)
            found.append({name: p.value for name, p in params.items()})
            ends.append(model.fit(one, params, **points).chisqr)
        except Exception:  # a fit that raises, whatever it raises, has found nothing
            ends.append(np.inf)
            if params is None:
                found.append(dict.fromkeys(model.make_params(), np.nan))
    return {name: np.array([f[name] for f in found]) for name in found[0]}, np.array(ends)


def rates(case: Case, generator: np.random.Generator) -> list[float | None]:
    """Shares of success from our guess, from lmfit's, and of lmfit's own fit."""
    model, other, x, draws = case
    clean = model(x, **{name: torch.tensor(draws[name]) for name in model.names}).numpy()
    height = np.ptp(clean, axis=-1, keepdims=True)
    y = clean + NOISE * height * generator.normal(size=clean.shape)
    ends = [squares(model, x, y, draws), squares(model, x, y, model.guess(x, y))]
    if other is not None:
        starts, own = of_lmfit(other, x, y)
        ends += [squares(model, x, y, starts), own]
    best = np.minimum.reduce(ends)
    found: list[float | None] = [float(np.mean(end <= ENOUGH * best)) for end in ends[1:]]
    return found if other is not None else [*found, None, None]


def keep(rows: list[dict[str, Any]], draws: int, *, whole: bool) -> None:
    """Write rows; those of some shapes alone take the places that they have."""
    kept = json.loads(RESULTS.read_text())
    if not whole:
        new = {row["shape"]: row for row in rows}
        rows = [new.get(row["shape"], row) for row in kept["rows"]]
    known = {"machine": f"{machine.description()}, lmfit {lmfit.__version__}", "draws": draws}
    files = {"files": kept["files"]} if "files" in kept else {}
    RESULTS.write_text(json.dumps({**known, "rows": rows, **files}, indent=1) + "\n", "utf-8")


def on_files() -> str:
    """Write the rows of files, and leave the others.

    Returns:
        Their part of the benchmarks page.
    """
    found = guesses_on_files.rows()
    kept = json.loads(RESULTS.read_text())
    files = {"machine": f"{machine.description()}, lmfit {lmfit.__version__}", "rows": found}
    RESULTS.write_text(json.dumps({**kept, "files": files}, indent=1) + "\n", "utf-8")
    return guesses_on_files.section(found)


def run(draws: int = DRAWS, only: list[str] | None = None) -> str:
    """The section of the benchmarks page."""
    lines = [
        "## Guesses beside lmfit's",
        "",
        f"{draws} draws of each shape, 100 points, noise {NOISE:.0%} of the height, a third of "
        f"them upside down: how often a fit ends within 1 % of the least sum of squares known. "
        f"lmfit {lmfit.__version__}; its `gamma` is set free, as ours is. Written by "
        "`benchmarks/guesses.py`.",
        "",
        "| shape | our guess | lmfit's guess, our fit | all lmfit |",
        "|---|---|---|---|",
    ]
    generator, rows = np.random.default_rng(7), []
    for case in cases(np.random.default_rng(6), draws):
        name = repr(case[0]).removesuffix("()")
        if only and type(case[0]).__name__ not in only:
            continue
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = rates(case, generator)
        shown = ["" if r is None else f"{100 * r:.1f} %" for r in found]
        rows.append({"shape": name, **dict(zip(WAYS, found, strict=True))})
        lines.append(f"| {name} | {' | '.join(shown)} |")
        print(lines[-1], flush=True)
    keep(rows, draws, whole=not only)
    return "\n".join([*lines, "", on_files()])


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:] == ["files"]:
        print(on_files())
    else:
        run(int(sys.argv[1]) if len(sys.argv) > 1 else DRAWS, sys.argv[2:])
    print(machine.description())
