"""Errors in x beside scipy.odr, in one process and one thread: digits, time, and success.

    python -m benchmarks.errors_in_x

Digits: of the worst parameter, against the fit from its own end. Time: the processor's, the best of
several, both sides in turn. Success: fits of a peak from rough starts that end in the best minimum.
"""

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lmtorch

from . import machine

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from scipy import odr as theirs

RESULTS = Path(__file__).parent / "results" / "errors_in_x.json"
REPEATS = 15  # both sides; what ours remembers of a kind of fits it has learned in the first nine
STARTS = 20
Problem = tuple[Callable[..., Any], Callable[..., Any], Any, Any, list[float], dict[str, Any]]


def problems() -> dict[str, Problem]:
    """Models for torch and NumPy, x, y (None: implicit), a start, and errors."""
    rng = np.random.default_rng(0)
    found: dict[str, Problem] = {}
    for m in (50, 2000):
        t = np.linspace(0.1, 3, m)
        x, y = t + 0.05 * rng.standard_normal(m), 2 * np.exp(-t) + 0.02 * rng.standard_normal(m)
        found[f"decay, {m} points"] = (
            lambda x, a, k: a * torch.exp(-k * x),
            lambda b, x: b[0] * np.exp(-b[1] * x),
            x, y, [1.0, 1.0], {"sx": 0.05, "sy": 0.02},
        )  # fmt: skip
    angle = np.linspace(0, 4.5, 40)
    ring = np.stack([1 + 3 * np.cos(angle), 2 + 1.5 * np.sin(angle)])
    found["ellipse, implicit"] = (
        lambda x, a, b, c, d: ((x[0] - a) / c) ** 2 + ((x[1] - b) / d) ** 2 - 1,
        lambda p, x: ((x[0] - p[0]) / p[2]) ** 2 + ((x[1] - p[1]) / p[3]) ** 2 - 1,
        ring + 0.05 * rng.standard_normal(ring.shape), None, [1.0, 1.0, 2.0, 2.0], {"sx": 0.05},
    )  # fmt: skip
    return found


def ours(problem: Problem, start: Any = None) -> np.ndarray:
    """The parameters by lmtorch."""
    f, _, x, y, p0, errors = problem
    return lmtorch.odr(f, x, y, p0 if start is None else start, **errors).popt


def by_scipy(problem: Problem, start: Any = None) -> np.ndarray:
    """The parameters by scipy, with its default tolerances."""
    _, f, x, y, p0, errors = problem
    data = theirs.RealData(x, 1 if y is None else y, **errors)
    model = theirs.Model(f, implicit=y is None)
    run = theirs.ODR(data, model, beta0=p0 if start is None else start, maxit=500)
    return np.asarray(run.run().beta)


def digits(found: np.ndarray, exact: np.ndarray) -> float:
    """Correct digits of the worst parameter, 15 at most."""
    return float(-np.log10(np.abs(found / exact - 1).max() + 1e-15))


def peaks() -> tuple[int, int]:
    """How often each of the two finds the best minimum of a peak from rough starts."""
    rng, hits = np.random.default_rng(3), [0, 0]
    true = np.array([3.0, 2.0, 0.5])
    for _ in range(STARTS):
        t = np.linspace(0, 4, 40)
        y = true[0] * np.exp(-0.5 * ((t - true[1]) / true[2]) ** 2)
        x, y = t + 0.1 * rng.standard_normal(40), y + 0.05 * rng.standard_normal(40)
        problem: Problem = (
            lambda x, a, m, s: a * torch.exp(-0.5 * ((x - m) / s) ** 2),
            lambda b, x: b[0] * np.exp(-0.5 * ((x - b[1]) / b[2]) ** 2),
            x, y, list(true * np.exp(0.7 * rng.standard_normal(3))), {"sx": 0.1, "sy": 0.05},
        )  # fmt: skip
        best = ours(problem, true)
        for place, way in enumerate((ours, by_scipy)):
            try:
                near = np.allclose(np.abs(way(problem)), np.abs(best), rtol=1e-3)
            except lmtorch.NotConvergedError:
                near = False
            hits[place] += near
    return hits[0], hits[1]


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    print(f"{'':20}{'digits':>8}{'scipy':>8}{'ms':>9}{'scipy':>9}{'ratio':>8}")
    for name, problem in problems().items():
        exact, took = ours(problem, ours(problem)), [[], []]
        for _ in range(REPEATS):
            for place, way in enumerate((ours, by_scipy)):
                begun = time.process_time()
                way(problem)
                took[place].append(1e3 * (time.process_time() - begun))
        mine, other = (min(times) for times in took)
        told = digits(ours(problem), exact), digits(by_scipy(problem), exact)
        print(f"{name:20}{told[0]:8.1f}{told[1]:8.1f}{mine:9.1f}{other:9.1f}{mine / other:8.1f}")
        kept = (*told, mine, other)
        keys = ("ours_digits", "scipy_digits", "ours_ms", "scipy_ms")
        rows.append({"problem": name, **dict(zip(keys, kept, strict=True))})
    found, by_them = peaks()
    results = {"machine": machine.description(), "rows": rows, "peaks": [found, by_them, STARTS]}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(f"peak from rough starts: {found} of {STARTS}, scipy {by_them}")


if __name__ == "__main__":
    main()
