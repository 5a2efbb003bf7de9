"""Small fits and many: one thread against one thread, beside scipy, lmfit, jaxopt and optimistix.

python -m benchmarks.small_and_many [PARTS], with parts among

    one      one warm fit of Misra1a, Thurber and Gauss1
    peaks    10⁴ and 10⁵ peaks, 4 × 50
    spots    10⁴ spots in a camera's window, 5 × 121
    decays   10⁴ decays, 3 × 20
    tall     one iteration of 10⁶ residuals × 50 parameters, and its memory
    pixels   `curve_fit` of diffusion MRI, with error bars
    memory   of 10⁷ fits in one call
    growth   time a fit against the number of fits
    gpu      peaks a second in float32 on a CUDA device

JAX_PYTHON names a Python that has jax, jaxopt and optimistix, which take part in many fits then.
"""

import argparse
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import curve_fit, leastsq

import lmtorch
from tests.nist import PROBLEMS

from . import machine, many_gpu, many_growth, many_memory, many_tall
from .machine import table
from .many_peers import Optima, curve_fit_loop, jax_fits, leastsq_loop
from .many_tasks import DECAYS, ONE, PEAKS, SPOTS, Task, pixels
from .paired import Spent, in_turns, shown

COMPILES = "compile" in inspect.signature(lmtorch.least_squares).parameters
WAYS = {"eager": {}, **({"compiled": {"compile": True}} if COMPILES else {})}
SAMPLE = 1_000  # fits of scipy's loop, whose time for all is that of the sample, scaled
NEAR = 1e-6  # of the optimum
SECONDS = 15.0  # of turns, for many fits
INTRODUCTION = (
    "One thread against one thread, in turns in one process: the least processor time of several "
    f"calls, and the least wall time. The loop of leastsq, with its exact Jacobian, is measured on "
    f"{SAMPLE:,} of the fits. Fits are compared with minima that a tight fit in float64, written "
    "apart from lmtorch, finds from the true parameters and from the start: a cost is within 1e-6 "
    "if the sum of squares in float64 differs from that of one of them by no more than 1e-6 of "
    "it, parameters if none is farther than 1e-6 of the larger of its size and 1. A poor start "
    "leads some fits, 0.3 % of these peaks, to another minimum, MINPACK's as ours; a few end at "
    "one that neither tight fit finds. A success apart from both is at another minimum if a tight "
    "fit from a thousandth beside its end comes back to its cost within 1e-6; otherwise at none."
)


# ---- one fit -------------------------------------------------------------------------------------


def one() -> str:
    """A warm fit alone, from NIST's far start."""
    rows = []
    for name in ONE:
        turns = in_turns(_alone(name), seconds=4.0)
        for way, spent in turns.least.items():
            rows.append([
                name if way == "leastsq" else "",
                "scipy leastsq, exact J" if way == "leastsq" else way,
                shown(spent.processor),
                shown(spent.wall),
                f"{turns.ratio(way, 'leastsq'):.3g}",
                shown(turns.first[way].wall),
            ])  # fmt: skip
    intro = (
        "One warm fit in float64 from NIST's far start; defaults of each but for the exact "
        "Jacobian, written by hand in NumPy, of leastsq and lmfit. A first call imports and, "
        "compiled, traces and compiles."
    )
    header = ["", "", "processor", "wall", "× leastsq", "first call, wall"]
    return f"### One warm fit\n\n{intro}\n\n{table(header, rows)}"


def _alone(name: str) -> dict[str, Callable[[], Any]]:
    problem, (model, jacobian) = PROBLEMS[name], ONE[name]
    x, y, start = problem.x.numpy(), problem.y.numpy(), list(problem.starts[0])

    def curve(x: Any, *b: Any) -> Any:
        return problem.model(torch.stack(b), x)

    ways: dict[str, Callable[[], Any]] = {
        "leastsq": lambda: leastsq(
            lambda b: model(x, b) - y, start, Dfun=lambda b: jacobian(x, b), col_deriv=True
        ),
        "scipy curve_fit": lambda: curve_fit(lambda x, *b: model(x, b), x, y, start),
    }
    if lmfits := _lmfit(model, jacobian, x, y, start):
        ways["lmfit, exact J"] = lmfits
    for way, options in WAYS.items():
        ways[f"least_squares, {way}"] = partial(
            lmtorch.least_squares, problem.residual, start, **options
        )
        ways[f"curve_fit, {way}"] = partial(lmtorch.curve_fit, curve, x, y, start, **options)
    return ways


def _lmfit(
    model: Callable[..., Any], jacobian: Callable[..., Any], x: Any, y: Any, start: list[float]
) -> Callable[[], Any] | None:
    try:
        import lmfit
    except ImportError:
        return None

    def values(p: Any) -> list[float]:
        return [p[key].value for key in p]

    def fit() -> Any:
        p = lmfit.Parameters()
        for i, value in enumerate(start):
            p.add(f"b{i}", value)
        return lmfit.minimize(
            lambda p: model(x, values(p)) - y,
            p,
            Dfun=lambda p: jacobian(x, values(p)),
            col_deriv=True,
        )

    return fit


# ---- many fits -----------------------------------------------------------------------------------

HEADER = [
    "fits",
    "",
    "processor, a fit",
    "wall, a fit",
    "times leastsq's speed",
    "cost within 1e-6",
    "parameters within 1e-6",
    "called a success",
    "of those at another minimum",
    "at none",
    "first call, wall",
]


def many(task: Task, sizes: tuple[int, ...], most: int) -> str:
    """All fits of a size and dtype in one call."""
    rows = []
    for size in dict.fromkeys(min(size, most) for size in sizes):
        true, y = task.data(size)
        for dtype in (torch.float64, torch.float32):
            name = str(dtype).removeprefix("torch.")
            data = torch.from_numpy(y).to(dtype)
            rounded = data.double().numpy()  # what the fit is given
            optima = Optima.of(task, rounded, true)
            turns = in_turns(_together(task, data, rounded[:SAMPLE]), SECONDS)
            sample = turns.least["leastsq"].per(min(SAMPLE, size))
            found, codes = turns.results["leastsq"]
            row = partial(_row, optima, sample)
            rows.append(
                row([f"{size:,} {name}", "leastsq"], sample, found, np.isin(codes, (1, 2, 3, 4)))
            )
            for way, result in turns.results.items():
                if way != "leastsq":
                    spent = turns.least[way].per(size)
                    p, success = _read(result)
                    rows.append([*row(["", way], spent, p, success), shown(turns.first[way].wall)])
            for peer, told in jax_fits(task, y, name).items():
                spent = Spent(told["processor"], told["wall"]).per(size)
                rows.append([*row(["", peer], spent, told["p"], None), shown(told["first"])])
    for row in rows:
        row += ["–"] * (len(HEADER) - len(row))
    return f"### {task.name}\n\n{table(HEADER, rows)}"


def _together(task: Task, data: torch.Tensor, sample: Any) -> dict[str, Callable[[], Any]]:
    """The loop over a sample, and one call of each face for all; results are read out."""
    x = torch.from_numpy(task.x).to(data.dtype)
    ways: dict[str, Callable[[], Any]] = {"leastsq": partial(leastsq_loop, task, sample)}
    for way, options in WAYS.items():
        ways[f"least_squares, {way}"] = partial(
            lmtorch.least_squares,
            task.residual,
            torch.tensor(task.start, dtype=data.dtype),
            args=(x, data),
            in_dims=(None, None, 0),
            **options,
        )
        ways[f"curve_fit, {way}"] = partial(
            lmtorch.curve_fit, task.model, x, data, task.start, **options
        )
    return ways


def _read(result: Any) -> tuple[Any, Any]:
    p = result.popt if hasattr(result, "popt") else result.x
    return np.asarray(p, dtype=float), np.asarray(result.success)


def _row(
    optima: Optima, sample: Spent, label: list[str], spent: Spent, p: Any, success: Any
) -> list[str]:
    """Time of a fit, and how good the fits are, of which those may be a sample."""
    right, near = optima.near(p, NEAR)
    said = ["–"] * 3
    if success is not None:
        apart = success & ~right
        other = optima.at_minimum(p, apart, NEAR)
        said = [f"{np.mean(success):.2%}", f"{other:,}", f"{np.sum(apart) - other:,}"]
    return [
        *label,
        shown(spent.processor),
        shown(spent.wall),
        f"{sample.processor / spent.processor:.3g}",
        f"{np.mean(right):.2%}",
        f"{np.mean(near):.2%}",
        *said,
    ]


# ---- pixels --------------------------------------------------------------------------------------


def pixels_with_errors(most: int) -> str:
    """Parameters and standard errors of every pixel."""
    task, rows = pixels(), []
    for size in dict.fromkeys((100, min(most, 10_000))):
        _, y = task.data(size)
        sample = min(size, SAMPLE)
        ways: dict[str, Callable[[], Any]] = {"loop": partial(curve_fit_loop, task, y[:sample])}
        for way, options in WAYS.items():
            ways[way] = partial(_with_errors, task, y, options)
        turns = in_turns(ways, SECONDS)
        loop = turns.least["loop"].per(sample)
        rows.append([f"{size:,}", "scipy curve_fit, a loop", *map(shown, loop), "1", "–"])
        for way in WAYS:
            spent, (_, errors, success) = turns.least[way].per(size), turns.results[way]
            theirs = turns.results["loop"][1]
            apart = np.abs(errors[:sample] / theirs - 1).max(-1)
            rows.append([
                "",
                f"lmtorch.curve_fit, {way}",
                *map(shown, spent),
                f"{loop.processor / spent.processor:.3g}",
                f"{np.mean(success):.2%}, {np.mean(apart < 1e-2):.2%}",
            ])  # fmt: skip
    header = [
        "pixels", "", "processor, a pixel", "wall, a pixel", "times the loop's speed",
        "called a success, standard errors as scipy's to 1 %",
    ]  # fmt: skip
    intro = (
        "IVIM of each pixel, 4 parameters and 21 b-values, from one start, in float64. 100 pixels "
        "are measured; 10,000 are noisy copies of them. The loop differentiates by differences, as "
        "users call it; both read the standard errors."
    )
    return f"### Pixels of diffusion MRI\n\n{intro}\n\n{table(header, rows)}"


def _with_errors(task: Task, y: Any, options: dict[str, Any]) -> tuple[Any, Any, Any]:
    fit = lmtorch.curve_fit(task.model, task.x, y, task.start, **options)
    return np.asarray(fit.popt), np.asarray(fit.stderr), np.asarray(fit.success)


# ---- all -----------------------------------------------------------------------------------------

PICTURES = Path(__file__).parents[1] / "docs" / "images"
MOST = 1_000_000
PARTS: dict[str, Callable[[int], str]] = {  # the most fits in a call → a section
    "one": lambda most: one(),
    "peaks": partial(many, PEAKS, (10_000, 100_000)),
    "spots": partial(many, SPOTS, (10_000,)),
    "decays": partial(many, DECAYS, (10_000,)),
    "tall": lambda most: many_tall.run(),
    "pixels": pixels_with_errors,
    "memory": partial(many_memory.run, WAYS),
    "growth": partial(many_growth.run, WAYS, PICTURES),
    "gpu": partial(many_gpu.run, WAYS),
}


def sections(parts: Iterable[str] = PARTS, most: int = MOST) -> Iterator[str]:
    """One after another, on one thread; a GPU's only where there is one."""
    yield f"## Small and many\n\n{INTRODUCTION}"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in parts:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                section = PARTS[name](most)
            if section:
                yield section
    finally:
        torch.set_num_threads(threads)


def run() -> str:
    """All of them."""
    return "\n\n".join(sections())


def main() -> None:
    """Print the parts that are named, each when it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--most", type=int, default=MOST, help="fits in a call, for a quick look")
    asked = parser.parse_args()
    print(f"Machine: {machine.description()}.\n")
    for section in sections(asked.parts, asked.most):
        print(section, "\n", flush=True)


if __name__ == "__main__":
    main()
