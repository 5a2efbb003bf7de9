"""Classical problems within a box, with their known minima.

Costs are ½‖r‖², half of the sums of squares that are published. The digits beyond the published
ones come from Newton's method on the full Hessian in the variables that are free at the minimum.

References:
    Gay, A trust-region approach to linearly constrained optimization (1984), Lecture Notes in
        Mathematics 1066, 72-105: boxes for problems of Moré, Garbow & Hillstrom; bounds and minima
        as in Neumaier's collection for bound constrained global optimization,
        https://www.mat.univie.ac.at/~neum/glopt/bounds.html.
    Hock & Schittkowski, Test examples for nonlinear programming codes (1981), Lecture Notes in
        Economics and Mathematical Systems 187: those that are sums of squares within bounds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .problems import CLASSICAL, beale, brown_badly_scaled, gulf, helical_valley, rosenbrock, wood

INF = float("inf")


@dataclass(frozen=True)
class BoundedProblem:
    """A residual, a start inside its box, and what is known of its minima there."""

    name: str
    residual: Callable[[Tensor], Tensor]  # (n,) -> (m,)
    start: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    cost: float | None  # of the minimum that the start leads to; None: not published
    # half of the printed sum of squares, of the lowest minimum; None: another minimum is near
    published: float | None
    source: str

    @property
    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """As `least_squares` takes them."""
        return self.lower, self.upper


def box_3d_of_three(x: Tensor) -> Tensor:
    """MGH 12 with m = 3, as Gay's minimum has it."""
    t = torch.arange(1, 4, dtype=x.dtype, device=x.device) / 10
    return torch.exp(-t * x[0]) - torch.exp(-t * x[1]) - x[2] * (torch.exp(-t) - torch.exp(-10 * t))


_PUBLISHED = (
    BoundedProblem(
        "powell_badly_scaled", CLASSICAL["powell_badly_scaled"].residual, (0.0, 1.0), (0.0, 1.0),
        (1.0, 9.0),
        7.562968362192e-11, 0.15125900e-9 / 2, "Gay, MGH 3",
    ),
    BoundedProblem(
        "brown_badly_scaled", brown_badly_scaled, (1.0, 1.0), (0.0, 3e-5), (1e6, 100.0),
        391.9999996476, 0.784e3 / 2, "Gay, MGH 4",
    ),
    BoundedProblem("beale", beale, (1.0, 1.0), (0.6, 0.5), (10.0, 100.0), 0.0, 0.0, "Gay, MGH 5"),
    BoundedProblem(
        "helical_valley", helical_valley, (-1.0, 0.0, 0.0), (-100.0, -1.0, -1.0), (0.8, 1.0, 1.0),
        0.4952110604807, 0.99042212 / 2, "Gay, MGH 7",
    ),
    BoundedProblem(
        "gaussian", CLASSICAL["gaussian"].residual, (0.4, 1.0, 0.0), (0.398, 1.0, -0.5),
        (4.2, 2.0, 0.1),
        5.639663848096e-9, 0.11279300e-7 / 2, "Gay, MGH 9",
    ),
    BoundedProblem(
        "box_3d", box_3d_of_three, (0.0, 9.5, 20.0), (0.0, 5.0, 0.0), (2.0, 9.5, 20.0),
        None, 0.30998153e-5 / 2, "Gay, MGH 12; Gay's start, (0, 10, 20), is outside",
    ),
    BoundedProblem(
        "wood", wood, (-3.0, -1.0, -3.0, -1.0), (-100.0,) * 4, (0.0, 10.0, 100.0, 100.0),
        0.7783504002193, 0.15567008e1 / 2, "Gay, MGH 14",
    ),
    BoundedProblem(
        "brown_dennis", CLASSICAL["brown_dennis"].residual, (25.0, 5.0, -5.0, -1.0),
        (-10.0, 0.0, -100.0, -20.0),
        (100.0, 15.0, 0.0, 0.2), 44430.23988375, 0.88860479e5 / 2, "Gay, MGH 16",
    ),
    BoundedProblem(
        "biggs_exp6", CLASSICAL["biggs_exp6"].residual, (1.0, 2.0, 1.0, 1.0, 1.0, 1.0),
        (0.0, 0.0, 0.0, 1.0, 0.0, 0.0),
        (2.0, 8.0, 1.0, 7.0, 5.0, 5.0), 2.660493295391e-4, 0.53209865e-3 / 2, "Gay, MGH 18",
    ),
    BoundedProblem(
        "hs_1", rosenbrock, (-2.0, 1.0), (-INF, -1.5), (INF, INF), 0.0, 0.0,
        "Hock & Schittkowski 1",
    ),
    BoundedProblem(
        # 0.0504261879 at (1.2244, 1.5) is on the other side of a ridge
        "hs_2", rosenbrock, (-2.0, 1.5), (-INF, 1.5), (INF, INF),
        2.470614658995, None, "Hock & Schittkowski 2; their start, (-2, 1), is outside",
    ),
    BoundedProblem(
        "hs_25", gulf, (100.0, 12.5, 3.0), (0.1, 0.0, 0.0), (100.0, 25.6, 5.0), 0.0, 0.0,
        "Hock & Schittkowski 25"
    ),
    BoundedProblem(
        "hs_38", wood, (-3.0, -1.0, -3.0, -1.0), (-10.0,) * 4, (10.0,) * 4, 0.0, 0.0,
        "Hock & Schittkowski 38"
    ),
)  # fmt: skip

# Infima at infinity and minima in a flat valley: bard with x₁ held off tends to a constant as x₂,
# x₃ → ∞, and osborne_1 is not brought to an end by anyone in 1000 evaluations
_ENDLESS = ("bard", "osborne_1")
CUT = 0.7  # of the way from the start to the minimizer


def _cut() -> list[BoundedProblem]:
    """The minimizer of every classical problem, cut off by a bound on its first variable."""
    found = []
    for name, problem in CLASSICAL.items():
        if (
            problem.minimizer is None
            or name in _ENDLESS
            or problem.start[0] == problem.minimizer[0]
        ):
            continue
        start, end = problem.start[0], problem.minimizer[0]
        wall, free = start + CUT * (end - start), (problem.n - 1) * (INF,)
        lower = (-INF if end > start else wall, *(-x for x in free))
        upper = (wall if end > start else INF, *free)
        found.append(
            BoundedProblem(
                f"{name}, cut",
                problem.residual,
                problem.start,
                lower,
                upper,
                None,
                None,
                problem.source,
            )
        )
    return found


PUBLISHED: dict[str, BoundedProblem] = {problem.name: problem for problem in _PUBLISHED}
BOUNDED: dict[str, BoundedProblem] = PUBLISHED | {problem.name: problem for problem in _cut()}
