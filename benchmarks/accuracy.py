"""Digits of NIST's nonlinear regression problems, beside scipy and lmfit: docs/accuracy.md.

python -m benchmarks.accuracy          # a minute; writes results/accuracy.json and the page
python -m benchmarks.accuracy --page   # the page alone, of the results that are there
"""

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import lmfit
import numpy as np
import scipy.optimize
import torch

import lmtorch
from tests.nist import PROBLEMS, NistProblem, log_relative_error

from . import machine

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
SOLVED = 6.0  # digits
RIGHT = 4.0  # NIST: "at least 4 or 5 digits" are to be expected of a solution


class End(NamedTuple):
    """Where a fit ended."""

    values: Any
    success: bool
    evaluations: int


def _in_numpy(problem: NistProblem) -> Callable[..., Any]:
    """The model as users of the peers write it: arrays in, arrays out."""

    def model(x: Any, *b: float) -> Any:
        values = problem.model(torch.tensor(b, dtype=torch.float64), torch.as_tensor(x))
        return values.numpy()

    return model


def ours(problem: NistProblem, start: tuple[float, ...]) -> End:
    """`least_squares` at its defaults, derivatives by torch."""
    found = lmtorch.least_squares(problem.residual, list(start))
    return End(found.x, bool(found.success), int(found.nfev))


def ours_in_numpy(problem: NistProblem, start: tuple[float, ...]) -> End:
    """The same of a function that torch can't differentiate."""
    model, x, y = _in_numpy(problem), problem.x.numpy(), problem.y.numpy()
    found = lmtorch.least_squares(lambda b: model(x, *b) - y, np.array(start), jac="2-point")
    return End(found.x, bool(found.success), int(found.calls))


def curve_fit(problem: NistProblem, start: tuple[float, ...]) -> End:
    """`scipy.optimize.curve_fit` at its defaults, MINPACK's lmdif."""
    try:
        popt, _, info, _, ier = scipy.optimize.curve_fit(
            _in_numpy(problem), problem.x.numpy(), problem.y.numpy(), start, full_output=True
        )
    except RuntimeError:  # it says so where no minimum was found
        return End(np.full(problem.n, np.nan), False, 0)
    return End(popt, ier in (1, 2, 3, 4), info["nfev"])


def trf(problem: NistProblem, start: tuple[float, ...]) -> End:
    """`scipy.optimize.least_squares` at its defaults; calls of differences counted."""
    model, x, y = _in_numpy(problem), problem.x.numpy(), problem.y.numpy()
    found = scipy.optimize.least_squares(lambda b: model(x, *b) - y, start)
    return End(found.x, bool(found.success), found.nfev + problem.n * found.njev)


def lmfits(problem: NistProblem, start: tuple[float, ...]) -> End:
    """`lmfit.minimize` at its defaults."""
    model, x, y = _in_numpy(problem), problem.x.numpy(), problem.y.numpy()
    names = [f"b{i}" for i in range(problem.n)]
    params = lmfit.create_params(**dict(zip(names, start, strict=True)))
    try:
        found = lmfit.minimize(lambda p: model(x, *(p[name].value for name in names)) - y, params)
    except ValueError:  # it met NaN
        return End(np.full(problem.n, np.nan), False, 0)
    return End([found.params[name].value for name in names], bool(found.success), found.nfev)


METHODS: dict[str, Callable[[NistProblem, tuple[float, ...]], End]] = {
    "lmtorch": ours,
    "lmtorch, NumPy code": ours_in_numpy,
    "scipy curve_fit": curve_fit,
    "scipy least_squares": trf,
    "lmfit": lmfits,
}


def measure() -> dict[str, Any]:
    """All problems from both starts, by all methods."""
    runs = []
    for name, problem in PROBLEMS.items():
        for number, start in enumerate(problem.starts, 1):
            for method, fit in METHODS.items():
                with warnings.catch_warnings(), np.errstate(all="ignore"):
                    warnings.simplefilter("ignore")
                    end = fit(problem, start)
                digits = log_relative_error(np.asarray(end.values), problem.certified)
                runs.append(
                    {
                        "problem": name,
                        "difficulty": problem.difficulty,
                        "start": number,
                        "method": method,
                        "digits": round(digits, 2),
                        "success": end.success,
                        "evaluations": end.evaluations,
                    }
                )
    return {"machine": machine.description(), "lmfit": lmfit.__version__, "runs": runs}


INTRODUCTION = (
    "NIST's [problems of nonlinear regression](https://www.itl.nist.gov/div898/strd/nls/) have "
    "answers that were computed in 128-bit arithmetic and are printed to 11 digits. Each is fitted "
    "from both of NIST's starts, a far and a near one, at the default options of each package. "
    "Counted are the correct digits of the worst parameter. The formulas are the same for all; "
    '"NumPy code" and the peers differentiate by finite differences, as they do by default, and '
    '"lmtorch" by torch. Evaluations of the peers and of NumPy code include those of differences.'
)
HONESTY = (
    f"**Success of a wrong end** counts the runs with fewer than {RIGHT:g} digits that the package "
    "calls a success. Some of them are other minima, which only other starts could tell. The "
    "[section on honesty](benchmarks.md#honesty) has problems with wrong starts on purpose."
)


def page(results: dict[str, Any]) -> str:
    """docs/accuracy.md."""
    runs = results["runs"]
    rows = []
    for method in METHODS:
        own = [run for run in runs if run["method"] == method]
        digits = [run["digits"] for run in own]
        rows.append(
            [
                method,
                f"{sum(d >= SOLVED for d in digits)} of {len(digits)}",
                f"{mean(digits):.1f}",
                f"{min(digits):.1f}",
                f"{sum(run['success'] and run['digits'] < RIGHT for run in own)}",
                f"{sum(not run['success'] and run['digits'] >= SOLVED for run in own)}",
                f"{median(run['evaluations'] for run in own):.0f}",
            ]
        )
    head = ["", f"at least {SOLVED:g} digits", "digits, mean", "least", "success of a wrong end"]
    whole = machine.table([*head, "failure of a right one", "evaluations, median"], rows)
    found = {(run["problem"], run["start"], run["method"]): run for run in runs}
    lines = []
    for problem, start in dict.fromkeys((run["problem"], run["start"]) for run in runs):
        own = [found[problem, start, method] for method in METHODS]
        cells = [
            f"{run['digits']:.1f}" + ("" if run["success"] else " (said to have failed)")
            for run in own
        ]
        lines.append([problem, own[0]["difficulty"].lower(), ("far", "near")[start - 1], *cells])
    each = machine.table(["problem", "difficulty", "start", *METHODS], lines)
    where = f"Measured {machine.of_use(results['machine'])}, lmfit {results['lmfit']}."
    title = "# Accuracy\n\nWritten by `python -m benchmarks.accuracy`."
    parts = (title, INTRODUCTION, where, whole, HONESTY, "## Digits of each run", each)
    return machine.filled("\n\n".join(parts) + "\n")


def main() -> None:
    """Measure, unless the page alone is asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="do not measure again")
    if not parser.parse_args().page:
        torch.set_num_threads(1)
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(RESULTS.read_text("utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
