"""What `benchmarks.honesty` fits: families of curves with random data, classical problems, NIST's.

A group is a set of problems of one shape, which may go into one batched call. Problem i of a
family of curves has a random generator of its own, so that it is the same however many are asked
for. To look at one of them:

    (group,) = groups("diode", 200)
    group.x, group.y[i], group.sigma[i], group.starts[i], group.truths[i]
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import numpy as np
import torch

from tests.nist import PROBLEMS
from tests.problems import CLASSICAL

from .honesty_curves import FAMILIES, Array, Family, Model

# of Σ(y/σ)², that float64 and float32 may leave where there is no noise
ROUNDING = np.array([1e-6, 1e-4]) ** 2
USER, RANDOM = "Starts as a user gives them", "Random starts about the truth"
MGH, NIST = "Moré, Garbow and Hillstrom", "NIST"


@dataclass(frozen=True, eq=False)
class Group:
    """Problems of one shape: minimise ‖residual(i, p)‖² over p, from starts[i].

    Attributes:
        name: of the group, to choose it and to find it again.
        table: in which its rows stand.
        rows: the row of each problem.
        residual: (number of the problem, parameters) → (m,), whitened, in NumPy and float64.
        starts: (b, n).
        truths: (b, n), or None where the lowest cost is published.
        published: known costs ‖r‖² of each problem, the lowest first; empty where there are none.
        allowance: ‖r‖² that counts as zero, of each problem in float64 and in float32, (b, 2).
        torch_residual: p (n,) → (m,) for `least_squares`, where the problem is no curve.
        model, x, y, sigma: of a curve, (m,) or (k, m), (b, m), (b, m).
        certified: (n,), for NIST.
    """

    name: str
    table: str
    rows: list[str]
    residual: Callable[[int, Array], Array]
    starts: Array
    truths: Array | None
    published: list[tuple[float, ...]]
    allowance: Array
    torch_residual: Callable[..., Any] | None = None
    model: Model | None = None
    x: Array | None = None
    y: Array | None = None
    sigma: Array | None = None
    certified: Array | None = None

    def __len__(self) -> int:
        """Number of problems."""
        return len(self.starts)

    def complex_step(self, i: int, p: Array) -> Array:
        """The Jacobian of a curve to the last digits, (m, n): Im r(p + ih) / h."""
        steps = np.asarray(p, dtype=np.float64) + 1e-30j * np.eye(len(p))
        return np.stack([self.residual(i, step).imag / 1e-30 for step in steps], -1)

    def cost(self, i: int, p: Array) -> float:
        """‖r‖² of problem i, infinite where it is no number."""
        p = np.asarray(p, dtype=np.float64)
        if not np.isfinite(p).all():
            return math.inf
        with np.errstate(all="ignore"):
            cost = float(np.square(self.residual(i, p)).sum())
        return cost if math.isfinite(cost) else math.inf


SCALES = (1, 10, 100)  # of the classical starts
NAMES = (*FAMILIES, "mgh", "nist")


def groups(name: str, sets: int) -> list[Group]:
    """Those of a family, of the classical problems, or of NIST's."""
    if name == "mgh":
        return [_classical(problem) for problem in CLASSICAL]
    if name == "nist":
        return [_nist(problem) for problem in PROBLEMS]
    return [_curve(name, FAMILIES[name], sets)]


def _curve(name: str, family: Family, sets: int) -> Group:
    draws = []
    for i in range(sets if family.factor is None else (sets + 1) // 2):
        rng = np.random.default_rng([family.seed, i])
        x, y, sigma, start, truth = family.draw(rng, i)
        if family.factor is not None:
            spread = math.log(family.factor)
            start = truth * np.exp(
                np.random.default_rng([family.seed, i, 1]).uniform(-spread, spread, len(truth))
            )
        draws.append((x, y, sigma, start, truth))
    ys, starts, truths = (np.stack([draw[k] for draw in draws]) for k in (1, 3, 4))
    sigmas = None if draws[0][2] is None else np.stack([draw[2] for draw in draws])
    x = draws[0][0]

    def residual(i: int, p: Array) -> Array:
        r = family.model(np, x, *p) - ys[i]
        return r if sigmas is None else r / sigmas[i]

    return Group(
        name, USER if family.factor is None else RANDOM, [family.row] * len(ys), residual, starts,
        truths,
        [()] * len(ys), np.outer(np.square(ys if sigmas is None else ys / sigmas).sum(-1),
            ROUNDING),
        None, family.model, x, ys, sigmas,
    )  # fmt: skip


def _classical(name: str) -> Group:
    problem = CLASSICAL[name]
    scales = SCALES if any(problem.start) else (1,)  # a multiple of zero is no other start
    starts = np.outer(scales, problem.start)

    def residual(i: int, p: Array) -> Array:
        return problem.residual(torch.from_numpy(np.array(p, dtype=np.float64))).numpy()

    published = [tuple(2 * cost for cost in problem.costs)] * len(starts)
    rows = [
        f"from {scale} × the paper's start" if scale > 1 else "from the paper's start"
        for scale in scales
    ]
    # in float32 the rounding of the parameters alone moves some residuals by 1e-4
    allowance = np.tile([0.0 if problem.minimum_cost else 1e-12, 1e-8], (len(starts), 1))
    return Group(
        f"mgh:{name}", MGH, rows, residual, starts, None, published, allowance, problem.residual
    )


def _nist(name: str) -> Group:
    problem = PROBLEMS[name]
    x, y, starts = problem.x.numpy(), problem.y.numpy(), np.array(problem.starts)

    def model(xp: Any, x: Any, *p: Any) -> Any:
        if xp is torch:
            return problem.model(torch.stack(p), x)
        return problem.model(
            torch.tensor(np.array(p, dtype=np.float64)), torch.from_numpy(x)
        ).numpy()

    return Group(
        f"nist:{name}", NIST, ["far start", "near start"], lambda i, p: model(np, x, *p) - y,
        starts, None,
        [(problem.certified_rss,)] * 2, np.outer([1, 1], np.square(y).sum() * ROUNDING), None,
        model, x,
        np.stack([y, y]), None, problem.certified.numpy(),
    )  # fmt: skip


def chosen(words: Sequence[str]) -> list[str]:
    """The names that match one of the words, which may have wildcards; all for no words.

    Raises:
        SystemExit: a word that matches no name.
    """
    for word in words:
        if not any(fnmatch(name, word) for name in NAMES):
            raise SystemExit(f"no family is called {word}: choose among {', '.join(NAMES)}.")
    return [name for name in NAMES if not words or any(fnmatch(name, word) for word in words)]
