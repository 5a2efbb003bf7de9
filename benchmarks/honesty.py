"""How often defaults are right, wrong with a word of doubt, and wrong without: lmtorch and rivals.

    python -m benchmarks.honesty [family ...] [--sets 200] [--contenders ours] [--verbose]

prints this section alone. What the rivals found is kept in a temporary folder, since it moves
only with their versions.
"""

import argparse
import hashlib
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lmfit
import numpy as np
import scipy
from scipy.optimize import least_squares

import lmtorch

from .honesty_contenders import OURS, RIVALS, Outcome
from .honesty_curves import Array
from .honesty_problems import MGH, NIST, RANDOM, USER, Group, chosen, groups
from .machine import table

SETS = 200
# in float64 and float32: a cost that exceeds the best by no more than this part of it is right, and
# a tight fit from a minimum gains no more
RELATIVE = (1e-6, 1e-3)
DIGITS = 1e-4  # relative error of the parameters that is right for NIST
TIGHT = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "max_nfev": 500}
CACHE = Path(tempfile.gettempdir()) / "lmtorch_honesty"
INTRO = """Fits at default options from the same starts, counted as right / wrong with a word of
doubt / wrong with success and no such word. A word of doubt is an exception, success=False or a
warning; for lmfit also that it could not estimate the errors. A fit is right if its sum of squares,
computed in float64, is at most 1 + 1e-6 (in float32 1 + 1e-3) times the lowest that is known, by a
tight fit from the truth or by anyone here, so that another local minimum is wrong; for NIST in
float64, if all parameters have four digits. In brackets are, behind the first number, the right
fits that came with a word of doubt, and behind the last the silent wrong ones from where a tight
fit goes on downhill: they are no minima of any kind. A batch is one call for all problems of a
family; for the classical problems and NIST's it is one call for the starts of a problem.
Evaluations are those of lmtorch's columns, in their order."""

Found = Mapping[str, list[Outcome] | None]  # by contender; None for who does not take part


# ---- what is known -------------------------------------------------------------------------------


def tight(group: Group, i: int, start: Array) -> float:
    """The lowest ‖r‖² that scipy reaches from a point at the tightest tolerances."""
    costs = [group.cost(i, start)]
    jacobian: Any = "3-point" if group.truths is None else lambda p: group.complex_step(i, p)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for method in ("lm", "trf"):
            try:
                found = least_squares(
                    lambda p: group.residual(i, p),
                    start,
                    jacobian,
                    method=method,
                    x_scale="jac",
                    **TIGHT,
                )
            except Exception:  # NaN on the way
                continue
            costs.append(group.cost(i, found.x))
    return min(costs)


def rivals(group: Group, fresh: bool) -> tuple[Array, Found]:
    """The lowest costs published or near the truth (b,), and what rivals found or the cache has."""
    data = [
        np.ascontiguousarray(v).tobytes()
        for v in (group.starts, group.y, group.sigma)
        if v is not None
    ]
    versions = f"{scipy.__version__} {lmfit.__version__} {np.__version__}"
    key = hashlib.sha256(b"".join([group.name.encode(), versions.encode(), *data])).hexdigest()[:16]
    path = CACHE / f"{group.name.replace(':', '-')}-{len(group)}-{key}.npz"
    if not path.exists() or fresh:
        arrays = {"known": np.array([min(costs, default=np.inf) for costs in group.published])}
        if group.truths is not None:
            arrays["known"] = np.array([tight(group, i, p) for i, p in enumerate(group.truths)])
        for name, rival in RIVALS.items():
            outcomes = rival(group)
            if outcomes is not None:
                arrays[f"{name}, p"] = np.stack([outcome.p for outcome in outcomes])
                arrays[f"{name}, word"] = np.array([outcome.word for outcome in outcomes])
        CACHE.mkdir(exist_ok=True)
        np.savez(path, **arrays)
    kept = dict(np.load(path))
    return kept["known"], {
        name: [
            Outcome(p, str(word))
            for p, word in zip(kept[f"{name}, p"], kept[f"{name}, word"], strict=True)
        ]
        if f"{name}, p" in kept
        else None
        for name in RIVALS
    }


# ---- what is right -------------------------------------------------------------------------------


def right(group: Group, i: int, p: Array, single: bool, targets: Sequence[float]) -> bool:
    """Whether the cost is a target, or below the first; for NIST, whether the digits are right."""
    if group.certified is not None and not single:
        return bool((np.abs(p - group.certified) <= DIGITS * np.abs(group.certified)).all())
    cost, allowance, relative = group.cost(i, p), group.allowance[i, int(single)], RELATIVE[single]
    return cost <= (1 + relative) * targets[0] + allowance or any(
        abs(cost - target) <= relative * target + allowance for target in targets
    )


class Score:
    """Counts of a row and a contender."""

    def __init__(self) -> None:
        self.right = self.doubted = self.word = self.silent = self.unfinished = self.evaluations = 0

    def add(self, good: bool, unfinished: bool, outcome: Outcome) -> None:
        """One more problem."""
        self.right += good
        self.doubted += good and bool(outcome.word)
        self.word += not good and bool(outcome.word)
        self.silent += not good and not outcome.word
        self.unfinished += not good and not outcome.word and unfinished
        self.evaluations += outcome.evaluations

    def __str__(self) -> str:
        doubted, unfinished = (
            f" ({count})" if count else "" for count in (self.doubted, self.unfinished)
        )
        return f"{self.right}{doubted} / {self.word} / {self.silent}{unfinished}"


class Scores:
    """Counts of all rows, by table, row and contender.

    Args:
        verbose: 1 prints every silent wrong answer, 2 every wrong one.
    """

    def __init__(self, verbose: int = 0) -> None:
        self.verbose = verbose
        self.tables: dict[str, dict[str, dict[str, Score]]] = {}

    def add(self, group: Group, i: int, best: float, who: str, outcome: Outcome) -> None:
        """Judge one outcome."""
        single = "float32" in who
        row, good = group.rows[i], right(group, i, outcome.p, single, [best])
        cost = group.cost(i, outcome.p)
        wanted = not good and (not outcome.word or self.verbose > 1) and np.isfinite(cost)
        nearby = tight(group, i, outcome.p) if wanted else cost
        unfinished = nearby < (1 - RELATIVE[single]) * cost
        if group.table == MGH:  # other published minima are right in a row of their own
            self._count(MGH, f"{row}, lowest minimum", who, good, unfinished, outcome)
            row = f"{row}, any published one"
            good = right(group, i, outcome.p, single, [best, *group.published[i]])
        for name in (row, "**all**") if group.table != MGH else (row,):
            self._count(group.table, name, who, good, unfinished, outcome)
        if not good and self.verbose > bool(outcome.word):
            _tell(group, i, best, who, outcome, nearby)

    def _count(
        self, title: str, row: str, who: str, good: bool, unfinished: bool, outcome: Outcome
    ) -> None:
        self.tables.setdefault(title, {}).setdefault(row, {}).setdefault(who, Score()).add(
            good, unfinished, outcome
        )

    def section(self, shown: Sequence[str]) -> str:
        """The tables in Markdown."""
        parts = ["## Honesty", INTRO.replace("\n", " ")]
        for title in (USER, RANDOM, MGH, NIST):
            rows = []
            for name, scores in sorted(
                self.tables.get(title, {}).items(), key=lambda item: item[0] == "**all**"
            ):
                counts = [f"{scores[who].evaluations:,}" for who in shown if who in OURS]
                rows.append(
                    [name, *(str(scores.get(who, "–")) for who in shown), " / ".join(counts)]
                )
            if rows:
                parts.append(
                    f"### {title}\n\n{table(['', *shown, 'evaluations of lmtorch'], rows)}"
                )
        return "\n\n".join(parts)


def _tell(group: Group, i: int, best: float, who: str, outcome: Outcome, nearby: float) -> None:
    """A wrong answer, so that it can be found again."""
    cost = group.cost(i, outcome.p)
    ratio = f"{cost / best:.6g} times the best" if best > 0 else "the best is 0"
    ended = (
        f"{outcome.status} after {outcome.evaluations} evaluations at"
        if outcome.status
        else "ended at"
    )
    print(
        f"{'with a word' if outcome.word else 'SILENT'}: {group.name}[{i}], {who}: {ended} "
        f"{np.asarray(outcome.p).tolist()} from {group.starts[i].tolist()}; cost {cost:.6g}, "
        f"{ratio} ({best:.6g}); a tight fit from there ends at {nearby:.6g}. {outcome.word}",
        flush=True,
    )


# ---- faces ---------------------------------------------------------------------------------------


def measure(
    names: Sequence[str], sets: int, shown: Sequence[str], verbose: int = 0, fresh: bool = False
) -> Scores:
    """Run the contenders that are shown on the families named."""
    scores = Scores(verbose)
    for name in names:
        begun = time.perf_counter()
        lower = 0
        for group in groups(name, sets):
            known, theirs = rivals(group, fresh)
            found = {**theirs, **{who: OURS[who](group) for who in shown if who in OURS}}
            costs = [
                [group.cost(i, o.p) for i, o in enumerate(outcomes)]
                for outcomes in found.values()
                if outcomes
            ]
            best = np.min([known, *costs], axis=0)
            lower += int((known > (1 + RELATIVE[0]) * best + group.allowance[:, 0]).sum())
            for who in shown:
                for i, outcome in enumerate(found[who] or ()):
                    scores.add(group, i, best[i], who, outcome)
        note = (
            f", {lower} times someone found less than is published or was found from the truth"
            if lower
            else ""
        )
        print(f"{name}: {time.perf_counter() - begun:.1f} s{note}", file=sys.stderr, flush=True)
    return scores


def run() -> str:
    """All families and all contenders."""
    shown = [*OURS, *RIVALS]
    return measure(chosen([]), SETS, shown).section(shown)


def main() -> None:
    """This section alone, or some families of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "families", nargs="*", help="names, with wildcards ('diode*'); all, if none is given"
    )
    parser.add_argument(
        "--sets", type=int, default=SETS, help="of each family of curves; half for random starts"
    )
    parser.add_argument(
        "--contenders", default="all", help="all, ours, rivals, or a part of their names"
    )
    parser.add_argument(
        "--verbose",
        "-v",
        action="count",
        default=0,
        help="silent wrong answers; -vv: all wrong ones",
    )
    parser.add_argument("--fresh", action="store_true", help="run the rivals again")
    given = parser.parse_args()
    everyone = [*OURS, *RIVALS]
    known = {"all": everyone, "ours": [*OURS], "rivals": [*RIVALS]}
    shown = known.get(given.contenders, [who for who in everyone if given.contenders in who])
    print(f"lmtorch of {Path(lmtorch.__file__).parent}", file=sys.stderr)
    print(
        measure(chosen(given.families), given.sets, shown, given.verbose, given.fresh).section(
            shown
        )
    )


if __name__ == "__main__":
    main()
