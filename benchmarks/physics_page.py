"""docs/physics_table.md and its picture, of the runs that `benchmarks.physics_table` has kept.

python -m benchmarks.physics_page
"""

import json
import math
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from .machine import filled, of_use, table
from .physics_table import ON_GPU, RESULTS, ROWS, Row

DOCS = Path(__file__).parents[1] / "docs"
TARGETS = (1e-3, 1e-4, 1e-5)
SECONDS, WALL, STEPS, ERROR = range(4)  # of an entry of a curve
AXIS = {SECONDS: "processor seconds", WALL: "seconds"}
NAMES = {"lm": "lmtorch", "lbfgs": "L-BFGS", "adam": "Adam", "ssbroyden": "SSBroyden"}
TITLES = {
    "poisson-2d": "Poisson, 2-D",
    "poisson-2d-deep": "Poisson, 2-D",
    "poisson-5d": "Poisson, 5-D",
    "poisson-5d-deep": "Poisson, 5-D",
    "poisson-5d-wide": "Poisson, 5-D",
    "poisson-10d": "Poisson, 10-D",
    "heat-4d": "heat, 4+1-D",
}


class Published(NamedTuple):
    """The best entry of the published table: on a GPU, the best of many tuned runs."""

    error: float
    method: str = "best of all"
    seconds: float | None = None  # to 1e-5


PUBLISHED = {
    "poisson-2d": Published(6.1e-8, "ENGD", 59),
    "poisson-2d-deep": Published(7.9e-7, "KFAC", 101),
    "poisson-5d": Published(5.6e-8, "ENGD", 52),
    "poisson-5d-deep": Published(1.1e-4),
    "poisson-5d-wide": Published(1.7e-4, "KFAC"),
    "poisson-10d": Published(2.2e-5, "Hessian-free"),
    "heat-4d": Published(7.4e-7, "ENGD"),
}
INTRODUCTION = """# Physics, beside a published table

Written by `python -m benchmarks.physics_page`, from runs of `python -m benchmarks.physics_table`.

The problems are those of Dangel, Müller & Zeinhofer, [Kronecker-factored approximate curvature for
physics-informed neural networks](https://arxiv.org/abs/2405.15603) (NeurIPS 2024), with the
same tanh networks and numbers of points, in float64. Their figures are the best entry of each of
their tables: of energy natural gradients (ENGD), KFAC, Hessian-free optimization, Adam, L-BFGS and
others, each the best of 50 to 100 runs with different settings, on an RTX 6000 GPU. lmtorch has run
at its defaults, on one core of a CPU and, further below, on a GPU; nothing was tuned. Errors are
the root of the mean square of u_net − u, here at 10,000 random points that take no part in
training.

Our draws are uniform, and our networks begin as Glorot has it; theirs may differ in both. The loss
is the mean square of the equation inside and that of the condition on the edge, without weights.
"Redrawn" is for each step, and for the wide network in five dimensions for every hundredth. Of the
edge of the heat equation half of the points are at the start.

Each of their runs had 1,000 s of the clock in two dimensions, 3,000 s in five and for the heat
equation, and 6,000 s in ten, as [the files of their
searches](https://github.com/f-dangel/kfac-pinns-experiments) say; ours end long before. There ENGD
and Hessian-free optimization draw points anew in each step and KFAC every hundredth, but of the
wide networks this was searched for as well: from never to every 10,000 steps for KFAC in five
dimensions, from never to every hundredth for Hessian-free optimization in ten.

| row | equation on the unit cube | solution | points inside and on the edge |
|---|---|---|---|
| Poisson, 2-D | −Δu = 2π² sin πx sin πy | sin πx sin πy | 900 + 120, fixed |
| Poisson, 5-D | −Δu = π² Σ cos πxᵢ | Σ cos πxᵢ | 3,000 + 500, redrawn |
| Poisson, 10-D | Δu = 0 | x₁x₂ + x₃x₄ + … + x₉x₁₀ | 3,000 + 1,000, redrawn |
| heat, 4+1-D | u_t = ¼Δu | e⁻ᵗ Σ sin 2xᵢ | 3,000 + 500, redrawn |
"""
HOW = """The machine was shared with other work while this ran. Seconds are therefore those of the
processor, which a busy machine stretches less than those of the clock; looking at the error is not
counted. Their seconds are of the clock. A dash says that the runs ended before. Several seeds are
given by their medians."""
BEFORE = """The run of 5-64-48-32-16-1 with `momentum=0` is from before steps on more parameters
than rows began with a sample of the rows ([choices](choices.md#sampled-curvature)). That in ten
dimensions was stopped after 27 of its 60 steps, and that of the wide network in five after 30 of
81, and gone on with from what was kept, in ten dimensions by the version of a day later: until
then its steps were made with a correction that was mostly wrong, and gained less."""
PICTURE = """![Errors against seconds](images/physics_table.png)

Each line is a run. Dotted: the last error of the best published entry; the star is its time to 1e-5
on the GPU, where we know it."""
GPU = """The same at its defaults with parameters and points on a GPU, in float64: `python -m
benchmarks.physics_table ROW --device cuda`. The published figures are of an RTX 6000, ours of the
card below, which is another. Seconds are those of the clock, the device having done with the step,
from the first step on; points are drawn on the CPU and sent there, and looking at the error is not
counted."""
STAYING = """The same networks, and the points of the first draw in every step: `python -m
benchmarks.physics_table ROW --redrawn 0`. The published runs of these two rows, which draw their
points anew in each step, are another protocol; these say what can be had in the same seconds (why:
[physics](physics.md#points-that-are-drawn-anew)). In the picture above they are dashed."""
GPU_PICTURE = "![Errors against seconds on a GPU](images/physics_table_gpu.png)"
REDRAWN = "redrawn"  # beside the options: points are drawn anew after so many steps
KEPT = f"lm, {REDRAWN}=0"
LINES = {  # of the picture: label, colour and dashes, the upper ones last
    "ssbroyden": (NAMES["ssbroyden"], "C2", "-"),
    "adam": (NAMES["adam"], "0.55", "-"),
    "lbfgs": (NAMES["lbfgs"], "C0", "-"),
    KEPT: (f"{NAMES['lm']}, points that stay", "C3", "--"),
    "lm": (NAMES["lm"], "C3", "-"),
}
Runs = dict[tuple[str, str], list[dict[str, Any]]]


def runs(folder: Path = RESULTS) -> Runs:
    """By row and method, those with options under `method, option=value`.

    Points that are drawn at other steps than the row's count as an option, `redrawn`.
    """
    found = defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text())
        given = dict(run["options"])
        if "redrawn" in run:
            given[REDRAWN] = run["redrawn"]
        options = (f"{name}={value}" for name, value in given.items())
        found[run["row"], ", ".join([run["method"], *options])].append(run)
    return dict(found)


def reached(run: dict[str, Any], target: float, what: int = SECONDS) -> float:
    """Seconds, or steps, until the error was first below; infinite if it never was."""
    return next((entry[what] for entry in run["curve"] if entry[ERROR] < target), math.inf)


def at(run: dict[str, Any], seconds: float) -> list[float]:
    """The last entry of a curve up to that time."""
    return [entry for entry in run["curve"] if entry[SECONDS] <= seconds][-1]


def _shown(number: float) -> str:
    if math.isinf(number):
        return "–"
    return f"{number:.1f}" if number < 10 else f"{number:,.0f}"


def network(row: Row) -> str:
    """As 2-64-1."""
    return "-".join(map(str, (row.equation.inputs, *row.hidden, 1)))


def of_row(name: str, ours: list[dict[str, Any]], what: int = SECONDS) -> list[str]:
    """A line of the table, in seconds of the processor or of the clock."""
    row, theirs = ROWS[name], PUBLISHED[name]
    times = [_shown(median(reached(run, target, what) for run in ours)) for target in TARGETS]
    last = [run["curve"][-1] for run in ours]
    end, steps = median(e[what] for e in last), median(e[STEPS] for e in last)
    return [
        TITLES[name],
        f"{network(row)}, {row.parameters:,}",
        f"{theirs.method} {theirs.error:.1e}",
        "" if theirs.seconds is None else f"{theirs.seconds:g}",
        *times,
        f"**{median(e[ERROR] for e in last):.1e}**",
        f"{end:.0f}, {steps:,.0f}",
        f"{len(ours)}",
    ]


def beside(found: Runs) -> str:
    """L-BFGS, Adam and SSBroyden, in the seconds that all who have run have had."""
    lines = []
    for name, row in ROWS.items():
        several = {method: found.get((name, method), []) for method in NAMES}
        if not several["lm"] or sum(map(bool, several.values())) < 2:
            continue
        seconds = min(run["curve"][-1][SECONDS] for of in several.values() for run in of)
        ends = [[at(run, seconds) for run in of] for of in several.values()]
        cells = [
            f"{median(e[ERROR] for e in end):.1e} ({median(e[STEPS] for e in end):,.0f})"
            if end
            else "not run"
            for end in ends
        ]
        lines.append([TITLES[name], network(row), f"{seconds:.0f}", *cells])
    head = ["row", "network", "seconds", *(f"{name}: error (steps)" for name in NAMES.values())]
    return table(head, lines)


def with_options(found: Runs) -> str:
    """Runs with options beside those without, of the same seeds, in the seconds both have had."""
    lines = []
    for (name, method), several in found.items():
        if "," not in method or method == KEPT or (name, "lm") not in found:
            continue
        seeds = {run["seed"] for run in several}
        plain = [run for run in found[name, "lm"] if run["seed"] in seeds]
        if not plain:
            continue
        seconds = min(run["curve"][-1][SECONDS] for run in [*several, *plain])
        ends = [median(at(run, seconds)[ERROR] for run in of) for of in (several, plain)]
        option = method.partition(", ")[2]
        cells = [TITLES[name], network(ROWS[name]), _named(option), f"{len(several)}"]
        lines.append([*cells, f"{seconds:.0f}", *(f"{end:.1e}" for end in ends)])
    if not lines:
        return ""
    return table(["row", "network", "with", "seeds", "seconds", "error", "as above"], lines)


def _named(option: str) -> str:
    """An option, or how often points were drawn anew, in words."""
    name, _, steps = option.partition("=")
    if name != REDRAWN:
        return f"`{option}`"
    return f"points drawn anew every {steps} steps"


def words(found: Runs, what: int = SECONDS, where: str = "one core against their GPU") -> str:
    """Where we are ahead, and where behind, in seconds of the processor or of the clock."""
    said: dict[str, list[str]] = {"sooner": [], "later": [], "lower": [], "higher": []}
    for name, theirs in PUBLISHED.items():
        if not (ours := found.get((name, "lm"))):
            continue
        which = f"{TITLES[name]}, {network(ROWS[name])}"
        last = median(run["curve"][-1][ERROR] for run in ours)
        said["lower" if last < theirs.error else "higher"].append(
            f"{which} ({last:.1e}, theirs {theirs.error:.1e})"
        )
        if theirs.seconds is not None:
            soon = median(reached(run, 1e-5, what) for run in ours)
            end = median(run["curve"][-1][what] for run in ours)
            after = f"not in {end:.0f} s" if math.isinf(soon) else f"{_shown(soon)} s"
            said["sooner" if soon < theirs.seconds else "later"].append(
                f"{which} ({after}, theirs {theirs.seconds:g} s)"
            )
    heads = {
        "sooner": f"**Ahead in seconds to 1e-5**, {where}",
        "later": "**Behind in seconds to 1e-5**",
        "lower": "**Ahead in the last error**, whatever time each has had",
        "higher": "**Behind in the last error**, whatever time each has had",
    }
    return "\n".join(f"* {heads[key]}: {'; '.join(of)}." for key, of in said.items() if of)


def with_points_that_stay(found: Runs) -> str:
    """The part of the page with the runs whose points are never drawn anew."""
    staying = {(name, "lm"): of for (name, how), of in found.items() if how == KEPT}
    if not staying:
        return ""
    lines = [of_row(name, staying[name, "lm"]) for name in ROWS if (name, "lm") in staying]
    parts = ["## With points that stay", STAYING.replace("\n", " ")]
    return "\n\n".join([*parts, table(_head(), lines), words(staying)])


def on_gpu(found: Runs) -> str:
    """The part of the page with the runs on a GPU; nothing where there are none."""
    names = [name for name in ROWS if (name, "lm") in found]
    if not names:
        return ""
    lines = []
    for name in names:
        ours = found[name, "lm"]
        beside = sorted({run["beside"] for run in ours})
        lines.append([*of_row(name, ours, WALL), " to ".join(map(str, beside))])
    machines = sorted({of_use(run["machine"]) for of in found.values() for run in of})
    parts = [
        "## On a GPU",
        GPU.replace("\n", " "),
        table([*_head(), "other runs on the card"], lines),
        words(found, WALL, "a GPU against another"),
        f"Machine: {'; '.join(machines)}.",
        GPU_PICTURE,
    ]
    return "\n\n".join(parts)


def _head() -> list[str]:
    """What stands above the lines of `of_row`."""
    return [
        "row", "network, parameters", "published: last error", "published: s to 1e-5",
        *(f"ours: s to 1e-{round(-math.log10(target))}" for target in TARGETS),
        "last error", "after s, steps", "seeds",
    ]  # fmt: skip


def draw(found: Runs, path: Path, what: int = SECONDS) -> None:
    """Errors against seconds of the processor or of the clock, a panel for each row."""
    import matplotlib.pyplot as plt

    names = [name for name in ROWS if (name, "lm") in found]
    figure, axes = plt.subplots(2, 4, figsize=(15, 6.5), layout="constrained")
    panels = list(axes.flat)
    for axis, name in zip(panels, names, strict=False):
        for method, (label, colour, dashes) in LINES.items():
            for run in found.get((name, method), []):
                seconds, errors = zip(*((e[what], e[ERROR]) for e in run["curve"][1:]), strict=True)
                axis.loglog(seconds, errors, dashes, color=colour, lw=1.3, label=label)
        theirs = PUBLISHED[name]
        axis.axhline(theirs.error, color="0.3", ls=":", lw=1, label="published, GPU")
        if theirs.seconds is not None:
            axis.plot(theirs.seconds, 1e-5, "*", color="0.3", ms=9)
        axis.set_title(f"{TITLES[name]}, {network(ROWS[name])}", fontsize=10)
        axis.set(xlabel=AXIS[what], ylabel="error")
        axis.grid(alpha=0.2)
    for axis in panels[len(names) :]:
        axis.axis("off")
    named = {}
    for axis in panels:
        named |= {
            label: line for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
    # on the GPU's picture two panels are empty, on the other one
    panels[-1].legend(named.values(), named, frameon=False, fontsize=9, loc="center")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def page() -> str:
    """The whole page."""
    found = runs()
    lines = [of_row(name, found[name, "lm"]) for name in ROWS if (name, "lm") in found]
    machines = {run["machine"] for of in found.values() for run in of}
    where = "; ".join(sorted(of_use(machine) for machine in machines))
    parts = [
        INTRODUCTION,
        "## What came of it",
        table(_head(), lines),
        words(found),
        f"Machine: {where}. {HOW}".replace("\n", " "),
        BEFORE.replace("\n", " "),
        PICTURE,
        with_points_that_stay(found),
        on_gpu(runs(ON_GPU)),
        "## L-BFGS, Adam and SSBroyden",
        "The same networks, points and losses, seed 0 for these three; torch's L-BFGS with a "
        "strong Wolfe search, ten iterations a step and 50 pairs; torch's Adam, its rate from 5e-3 "
        "down by a cosine over the run; the self-scaled Broyden method of Urbán, Stefanou & Pons "
        "(J. Comput. Phys., 2025), our own code after their formulas "
        "(`benchmarks/self_scaled_broyden.py`), with scipy's strong Wolfe search, ten iterations a "
        "step. It holds a matrix n × n. None was tuned.",
        beside(found),
        with_options(found),
    ]
    return filled("\n\n".join(part.strip() for part in parts if part) + "\n")


def main() -> None:
    """Write both."""
    draw(runs(), DOCS / "images" / "physics_table.png")
    if there := runs(ON_GPU):
        draw(there, DOCS / "images" / "physics_table_gpu.png", WALL)
    (DOCS / "physics_table.md").write_text(page())


if __name__ == "__main__":
    main()
