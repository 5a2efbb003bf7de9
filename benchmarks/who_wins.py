"""Who wins where: docs/who_wins_where.md, of the results that the benchmarks have kept.

python -m benchmarks.who_wins          # keeps the tables of docs/benchmarks.md, and writes the page
python -m benchmarks.who_wins --page   # the page alone, of results/*.json as they are
"""

import argparse
import json
import math
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from . import machine, physics_page, tables
from .accuracy import RIGHT, SOLVED

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "who_wins_where.md"
EVEN = 1.05  # a ratio that noise alone may make
UNITS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "MiB": 1.0, "": 1.0}
NUMBER = re.compile(r"([\d,.]+(?:e[-+]?\d+)?)\s*(µs|ms|s|MiB)?$")


class Row(NamedTuple):
    """One comparison.

    Attributes:
        part: of the page.
        task: what was done, and what was measured.
        ours: of lmtorch, as shown.
        peer: the best other, by name.
        theirs: of it, as shown.
        ratio: above one where lmtorch is ahead.
        measured: machine, versions and date.
    """

    part: str
    task: str
    ours: str
    peer: str
    theirs: str
    ratio: float
    measured: str


def number(cell: str) -> float:
    """A cell in seconds, MiB or a count; NaN of what is none."""
    found = NUMBER.match(cell.strip())
    if not found:
        return math.nan
    return float(found[1].replace(",", "")) * UNITS[found[2] or ""]


def read(name: str) -> Any:
    """The results of a benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


# ---- accuracy and guesses ------------------------------------------------------------------------


def accuracy() -> Iterator[Row]:
    """NIST's problems: how many are solved, and how many wrong ends are called a success."""
    results = read("accuracy")
    runs, where = results["runs"], f"{results['machine']}, lmfit {results['lmfit']}"
    methods = list(dict.fromkeys(run["method"] for run in runs))
    good = {m: sum(r["digits"] >= SOLVED for r in runs if r["method"] == m) for m in methods}
    bad = {
        m: sum(r["success"] and r["digits"] < RIGHT for r in runs if r["method"] == m)
        for m in methods
    }
    for own in ("lmtorch", "lmtorch, NumPy code"):
        peers = [m for m in methods if not m.startswith("lmtorch")]
        best, least = max(peers, key=good.__getitem__), min(peers, key=bad.__getitem__)
        yield Row(
            "Accuracy", f"{own}: NIST's problems solved to {SOLVED:g} digits", str(good[own]), best,
            str(good[best]), good[own] / good[best], where,
        )  # fmt: skip
        yield Row(
            "Accuracy", f"{own}: wrong ends that are called a success, of NIST's", str(bad[own]),
            least, str(bad[least]), _fewer(bad[own], bad[least]), where,
        )  # fmt: skip


def _fewer(ours: float, theirs: float) -> float:
    """A ratio of counts of what should not be; one more of each, so that none divides."""
    return (theirs + 1) / (ours + 1)


def guesses() -> Iterator[Row]:
    """Shares of fits that end in the best minimum, from a guess."""
    results = read("guesses")
    for row in results["rows"]:
        if row["lmfit"] is not None:
            yield Row(
                "Start values", f"{row['shape']}: fits from a guess that find the minimum",
                f"{row['ours']:.1%}", "lmfit", f"{row['lmfit']:.1%}",
                row["ours"] / max(row["lmfit"], 1e-9), results["machine"],
            )  # fmt: skip
    files = results["files"]
    both = [row for row in files["rows"] if row["lmfit"] is not None]
    ours, other = (sum(row[name] for row in both) for name in ("ours", "lmfit"))
    yield Row(
        "Start values", f"{len(both)} files: fits from a guess that find the minimum", str(ours),
        "lmfit", str(other), ours / max(other, 1), files["machine"],
    )  # fmt: skip


def honesty(kept: list[dict[str, Any]]) -> Iterator[Row]:
    """Right fits, and wrong ones that are told as right."""
    for one in kept:
        rows = [row for row in one["rows"] if row[0] == "all"]
        if one["section"] != "Honesty" or not rows:
            continue
        counts = {
            name: [int(part.split()[0]) for part in cell.split("/")]
            for name, cell in zip(one["header"][1:-1], rows[0][1:-1], strict=True)
        }
        own = "lmtorch float64 single"
        peers = [name for name in counts if not name.startswith("lmtorch")]
        best = max(peers, key=lambda name: counts[name][0])
        least = min(peers, key=lambda name: counts[name][2])
        total = sum(counts[own])
        what = f"{one['heading'][0].lower() if one['heading'] != 'NIST' else 'N'}"
        what += one["heading"][1:]
        yield Row(
            "Honesty", f"{what}: right, of {total}", str(counts[own][0]), best,
            str(counts[best][0]), counts[own][0] / counts[best][0], one["measured"],
        )  # fmt: skip
        yield Row(
            "Honesty", f"{what}: wrong without a word, of {total}", str(counts[own][2]), least,
            str(counts[least][2]), _fewer(counts[own][2], counts[least][2]), one["measured"],
        )  # fmt: skip


# ---- time and memory -----------------------------------------------------------------------------


def small_and_many(kept: list[dict[str, Any]]) -> Iterator[Row]:
    """One fit and many, beside scipy's; the processor's time of a fit."""
    for one in kept:
        if one["section"] != "Small and many" or one["heading"] in ("Growth", "Many fits on a GPU"):
            continue
        place = next(i for i, name in enumerate(one["header"]) if name.startswith("processor"))
        peers: dict[str, str] = {}
        if place == 1:  # the peer is in the last row
            peers = {one["rows"][-1][0]: one["rows"][-1][place]}
        group = ""
        for row in one["rows"]:
            name, cell = row[place - 1].removeprefix("lmtorch, "), row[place]
            if place == 2 and row[0]:
                group, peers = f"{row[0]}, ", {}
            if name.startswith(("leastsq", "scipy", "lmfit")):
                peers[name] = cell
                continue
            best = min(peers, key=lambda peer: number(peers[peer]))
            yield Row(
                "One fit and many", f"{one['heading']}: {group}{name}", cell, best, peers[best],
                number(peers[best]) / number(cell), one["measured"],
            )  # fmt: skip


def _seconds(value: float) -> str:
    """In the unit that leaves a small number."""
    for unit, size in (("µs", 1e-6), ("ms", 1e-3)):
        if value < 1000 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s"


def stacks() -> Iterator[Row]:
    """Fits a second of an image stack."""
    results = read("stacks")
    versions = ", ".join(f"{name} {found}" for name, found in results["versions"].items())
    where = f"{results['machine']}, {versions}"
    rates = {name: rate["processor"] for name, rate in results["here"].items()}
    peers = {name: rate for name, rate in rates.items() if not name.startswith("da.lm")}
    best = max(peers, key=peers.__getitem__)
    for name in ("eager", "compiled"):
        for count, rate in results[name].items():
            rates[f"{count} worker{'s' * (count != '1')} of Dask, {name}"] = rate["processor"]
    for name, rate in rates.items():
        if name not in peers:
            yield Row(
                "Image stacks", f"{name}: fits a second of processor time", f"{rate:,.0f}", best,
                f"{peers[best]:,.0f}", rate / peers[best], where,
            )  # fmt: skip


def errors_in_x() -> Iterator[Row]:
    """Digits, time and success beside scipy.odr."""
    results = read("errors_in_x")
    for row in results["rows"]:
        yield Row(
            "Errors in x", f"{row['problem']}: time of a fit", f"{row['ours_ms']:.1f} ms",
            "scipy.odr", f"{row['scipy_ms']:.1f} ms", row["scipy_ms"] / row["ours_ms"],
            results["machine"],
        )  # fmt: skip
        yield Row(
            "Errors in x", f"{row['problem']}: digits", f"{row['ours_digits']:.1f}", "scipy.odr",
            f"{row['scipy_digits']:.1f}", row["ours_digits"] / row["scipy_digits"],
            results["machine"],
        )  # fmt: skip
    ours, theirs, of = results["peaks"]
    yield Row(
        "Errors in x", f"peaks from rough starts that are found, of {of}", str(ours), "scipy.odr",
        str(theirs), ours / max(theirs, 1), results["machine"],
    )  # fmt: skip


def networks(kept: list[dict[str, Any]]) -> Iterator[Row]:
    """A step, its memory, and the time to the lowest loss that the table has."""
    for one in kept:
        if one["section"] == "One step":
            own, *peers = one["rows"]
            for row in peers:
                yield Row(
                    "Networks", f"a step, {one['heading']}", own[1], row[0], row[1],
                    number(row[1]) / number(own[1]), one["measured"],
                )  # fmt: skip
        elif one["section"] == "Peak memory":
            for own, row in zip(one["rows"][::2], one["rows"][1::2], strict=True):
                yield Row(
                    "Networks", f"peak memory, {own[0]}", own[2], row[1], row[2],
                    number(row[2]) / number(own[2]), one["measured"],
                )  # fmt: skip
        elif one["section"] == "Time to a loss":
            own, *rest = one["rows"]
            peers = [row for row in rest if not row[0].startswith("lmtorch")]
            for place in range(1, len(one["header"]) - 1):
                came = [row for row in peers if not math.isnan(number(row[place]))]
                best = min(came, key=lambda row: number(row[place]))
                yield Row(
                    "Networks", f"time to a loss of {one['header'][place]}, {one['heading']}",
                    f"{own[place]} s", best[0], f"{best[place]} s",
                    number(best[place]) / number(own[place]), one["measured"],
                )  # fmt: skip


def derivatives(kept: list[dict[str, Any]]) -> Iterator[Row]:
    """The operators of lmtorch beside the best way of torch."""
    for one in kept:
        if one["section"] != "Derivatives":
            continue
        (own,) = (row for row in one["rows"] if row[0] == "lmtorch")
        peers = [row for row in one["rows"] if not row[0].startswith("lmtorch")]
        peers = [row for row in peers if "by lmtorch" not in row[0]]
        for place, size in enumerate(one["header"][1:5], 1):
            came = [row for row in peers if not math.isnan(number(row[place]))]
            if not came:
                continue
            best = min(came, key=lambda row: number(row[place]))
            ratio = number(best[place])
            yield Row(
                "Derivatives", f"{one['heading']}, {size} samples", own[place], best[0],
                _seconds(ratio * number(own[place])), ratio, one["measured"],
            )  # fmt: skip


def black_boxes(kept: list[dict[str, Any]]) -> Iterator[Row]:
    """Calls of a function that torch cannot differentiate."""
    for one in kept:
        if one["section"] == "Calls of a black box":
            for row in one["rows"]:
                ours, theirs = (number(side) for side in row[1].split(" / "))
                yield Row(
                    "Calls of a black box", f"{row[0]}, 2-point differences", f"{ours:g}",
                    "scipy trf", f"{theirs:g}", theirs / ours, one["measured"],
                )  # fmt: skip


def physics() -> Iterator[Row]:
    """Equations, in the seconds that all have had, and beside the published table."""
    found, elsewhere = physics_page.runs(), physics_page.runs(physics_page.ON_GPU)
    for name, row in physics_page.ROWS.items():
        ours = found.get((name, "lm"))
        if not ours:
            continue
        where = f"{ours[0]['machine']}; seeds: {len(ours)}"
        which = f"{physics_page.TITLES[name]}, {physics_page.network(row)}"
        end = median(run["curve"][-1][physics_page.ERROR] for run in ours)
        published = physics_page.PUBLISHED[name]
        yield Row(
            "Equations", f"{which}: last error, ours on one core, theirs on a GPU", f"{end:.1e}",
            f"published, {published.method}", f"{published.error:.1e}", published.error / end,
            where,
        )  # fmt: skip
        if there := elsewhere.get((name, "lm")):
            last = median(run["curve"][-1][physics_page.ERROR] for run in there)
            card = there[0]["machine"].split("; ")[1].split(", ")[-1]
            yield Row(
                "Equations", f"{which}: last error, ours on {card}, theirs on an RTX 6000",
                f"{last:.1e}", f"published, {published.method}", f"{published.error:.1e}",
                published.error / last, f"{there[0]['machine']}; seeds: {len(there)}",
            )  # fmt: skip
        peers = {m: found[name, m] for m in physics_page.NAMES if m != "lm" and (name, m) in found}
        if peers:
            every = [run for of in (ours, *peers.values()) for run in of]
            seconds = min(run["curve"][-1][physics_page.SECONDS] for run in every)

            def error(of: list[dict[str, Any]], seconds: float = seconds) -> float:
                return median(physics_page.at(run, seconds)[physics_page.ERROR] for run in of)

            best = min(peers, key=lambda method: error(peers[method]))
            yield Row(
                "Equations", f"{which}: error after {seconds:.0f} s of one core",
                f"{error(ours):.1e}", physics_page.NAMES[best], f"{error(peers[best]):.1e}",
                error(peers[best]) / error(ours), where,
            )  # fmt: skip


# ---- the page ------------------------------------------------------------------------------------


def rows() -> list[Row]:
    """All comparisons, part by part."""
    kept = json.loads(tables.RESULTS.read_text("utf-8"))
    parts = (
        accuracy(), honesty(kept), guesses(), small_and_many(kept), stacks(), errors_in_x(),
        black_boxes(kept), networks(kept), derivatives(kept), physics(),
    )  # fmt: skip
    return [row for part in parts for row in part if math.isfinite(row.ratio)]


INTRODUCTION = """# Who wins where

Written by `python -m benchmarks.who_wins` from what the benchmarks have kept in
`benchmarks/results`. Each row has lmtorch beside the best of the others that were measured on the
same task, and their ratio: above 1 lmtorch is ahead, below 1 it is behind, in **bold**. Counts of
what should not be, such as wrong ends, are compared with one added to each. What stands beside what
exactly, and how it was measured, is said under [benchmarks](benchmarks.md),
[accuracy](accuracy.md) and [physics beside a published table](physics_table.md).
"""


def page(found: list[Row]) -> str:
    """docs/who_wins_where.md."""
    behind = sorted((row for row in found if row.ratio < 1 / EVEN), key=lambda row: row.ratio)
    ahead = [row for row in found if row.ratio > EVEN]
    notes = list(dict.fromkeys(_stated(row.measured) for row in found))
    text = [
        INTRODUCTION,
        f"Of {len(found)} comparisons lmtorch is ahead in {len(ahead)}, behind in {len(behind)}, "
        f"and within {EVEN - 1:.0%} in {len(found) - len(ahead) - len(behind)}.",
        "## Where it is behind",
        "The largest gaps first. [Limits](limits.md) say what to use instead.",
        _table(behind, notes, with_part=True),
    ]
    for part, some in groupby(found, key=lambda row: row.part):
        text += [f"## {part}", _table(list(some), notes)]
    text.append("## Machines, versions, dates")
    text += [f"({i}) {note}" for i, note in enumerate(notes, 1)]
    return machine.filled("\n\n".join(part.strip() for part in text) + "\n")


def _stated(measured: str) -> str:
    """What is said of the measurement, without packages that took no part."""
    return machine.of_use(measured).rstrip(".") + "."


def _table(some: list[Row], notes: list[str], *, with_part: bool = False) -> str:
    lines = []
    for row in some:
        ratio = f"{row.ratio:.3g}" if 0.01 <= row.ratio < 1000 else f"{row.ratio:.0e}"
        ratio = f"**{ratio}**" if row.ratio < 1 / EVEN else ratio
        note = f"({notes.index(_stated(row.measured)) + 1})"
        task = f"{row.part}: {row.task}" if with_part else row.task
        lines.append([task, ratio, _whole(row.ours), row.peer, _whole(row.theirs), note])
    return machine.table(["task", "ratio", "lmtorch", "best other", "its", "measured"], lines)


def _whole(cell: str) -> str:
    """A number that no line breaks, neither before its unit nor within an exponent."""
    return cell.replace(" ", "\u00a0").replace("e-", "e\u2011")


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", action="store_true", help="do not read docs/benchmarks.md")
    write(keep=not parser.parse_args().page)


def write(*, keep: bool = True) -> None:
    """Write the page; with `keep` of the tables that docs/benchmarks.md has now."""
    if keep:
        tables.main()
    PAGE.write_text(page(rows()), encoding="utf-8")


if __name__ == "__main__":
    main()
