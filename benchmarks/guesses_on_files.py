"""Fits from guesses on measured data and on NIST's problems: ours, and lmfit's own.

Of NIST's problems the certified sum of squares is the least; of the other files it is the least of
our fits from 50 random starts about our own end and of all other fits. lmfit guesses models that
stand alone; of a sum each term guesses from the whole data, as its documentation does it, and what
cannot guess begins as it is made. Run it: `python -m benchmarks.guesses files`.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lmfit import models as theirs

import lmtorch
from lmtorch import models
from tests.nist import load

DATA = Path(__file__).parents[1] / "examples" / "data"
ENOUGH = 1 + 1e-6  # of the least sum of squares
STARTS = 50
YEAR = 2 * np.pi / 12  # of NIST's ENSO, by months


class File(NamedTuple):
    """A model for a file.

    Attributes:
        name: of the file.
        x: points.
        y: points.
        ours: the model.
        lmfit: the same of lmfit; None: it has none.
        least: the least sum of squares; None: it is not certified.
    """

    name: str
    x: Any
    y: Any
    ours: Any
    lmfit: Any
    least: float | None = None


def files() -> Iterator[File]:
    """All files with the models that they are known to follow."""
    g, decay = theirs.GaussianModel, theirs.ExponentialModel
    two = models.Gaussian("a") + models.Gaussian("b") + models.Exponential()
    waves = models.Constant() + models.Sine("y").with_fixed(y_frequency=YEAR)
    for name, ours, other in (
        ("DanWood", models.PowerLaw(), theirs.PowerLawModel()),
        ("Rat42", models.Logistic(), None),
        ("Rat43", models.Logistic5().with_fixed(bottom=0.0), None),
        ("Eckerle4", models.Gaussian(), g()),
        ("MGH17", models.Biexponential() + models.Constant(),
         decay(prefix="a_") + decay(prefix="b_") + theirs.ConstantModel()),
        *((f"Gauss{k}", two, g(prefix="a_") + g(prefix="b_") + decay()) for k in (1, 2, 3)),
        ("Lanczos3", sum(map(models.Exponential, "abc")),
         decay(prefix="a_") + decay(prefix="b_") + decay(prefix="c_")),
        ("ENSO", waves + models.Sine("a") + models.Sine("b"), None),
    ):  # fmt: skip
        problem = load(name)
        x, y = problem.x.numpy(), problem.y.numpy()
        certified = float((problem.model(problem.certified, problem.x) - problem.y).square().sum())
        yield File(f"NIST {name}", x, y, ours, other, certified)
    x, y = np.loadtxt(DATA / "peak.csv", delimiter=",", skiprows=1).T
    flat = models.Constant()
    for name, peak, other in (
        ("Gaussian", models.Gaussian(), g()),
        ("Lorentzian", models.Lorentzian(), theirs.LorentzianModel()),
        ("Voigt", models.Voigt(), theirs.VoigtModel()),
        ("pseudo-Voigt", models.PseudoVoigt(), theirs.PseudoVoigtModel()),
    ):
        yield File(f"a peak, {name}", x, y, peak + flat, other + theirs.ConstantModel())
    t, a, _ = np.loadtxt(DATA / "muon.csv", delimiter=",", skiprows=1).T
    yield File("muons", t, a, models.Exponential() + flat, decay() + theirs.ConstantModel())


def ours(one: File) -> float:
    """The sum of squares of our fit from our guess."""
    try:
        return float(lmtorch.curve_fit(one.ours, one.x, one.y).chisqr)
    except lmtorch.NotConvergedError:
        return np.inf


def by_lmfit(one: File) -> float | None:
    """The sum of squares of lmfit's fit from its guesses; None: it has no such model."""
    if one.lmfit is None:
        return None
    params = one.lmfit.make_params()
    for part in one.lmfit.components:
        try:
            params.update(part.guess(one.y, x=one.x))
        except Exception:  # it cannot guess: it begins where lmfit puts it
            continue
    for name in params:
        if name.endswith("gamma"):  # which it ties to sigma
            params[name].set(expr="", vary=True)
    try:
        return float(one.lmfit.fit(one.y, params, x=one.x).chisqr)
    except Exception:  # a fit that raises, whatever it raises, has found nothing
        return np.inf


def least(one: File) -> float:
    """The least sum of squares that is known."""
    if one.least is not None:
        return one.least
    begin = lmtorch.curve_fit(one.ours, one.x, one.y)
    rng, found = np.random.default_rng(0), [float(begin.chisqr)]
    for _ in range(STARTS):
        start = {k: v * np.exp(rng.normal(0, 0.7)) for k, v in begin.params.items()}
        try:
            found.append(float(lmtorch.curve_fit(one.ours, one.x, one.y, p0=start).chisqr))
        except (lmtorch.NotConvergedError, lmtorch.InputError):
            continue
    return min(found)


def rows() -> list[dict[str, Any]]:
    """Of each file whether our fit and lmfit's have found the least sum of squares."""
    found = []
    for one in files():
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            ends = {"ours": ours(one), "lmfit": by_lmfit(one)}
            best = min(least(one), *(end for end in ends.values() if end is not None))
        hits = {k: None if end is None else bool(end <= ENOUGH * best) for k, end in ends.items()}
        found.append({"file": one.name, **hits})
    return found


def section(found: list[dict[str, Any]]) -> str:
    """The part of the benchmarks page."""
    signs = {True: "found", False: "not found", None: "no such model"}
    lines = [
        "### On files",
        "",
        "Whether a fit from a guess ends within 1e-6 of the least sum of squares: of NIST's "
        "problems the certified one, of other files the least of fits from "
        f"{STARTS} starts. Of sums each of lmfit's terms guesses from all of the data. Written by "
        "`benchmarks/guesses_on_files.py`.",
        "",
        "| file | our guess | all lmfit |",
        "|---|---|---|",
    ]
    lines += [f"| {r['file']} | {signs[r['ours']]} | {signs[r['lmfit']]} |" for r in found]
    return "\n".join(lines)
