"""Classical problems of nonlinear least squares, with their known minima.

Costs are ½‖r‖², half of the sums of squares that the papers print; `MGH k` is problem k of the
first reference, and f its sum of squares. The digits beyond the paper's six come from Newton's
method on the full Hessian in float64, in 40 digits or more for Meyer's and Watson's functions.
Where the paper leaves n free, so does the function.

References:
    Moré, Garbow & Hillstrom, Testing unconstrained optimization software (1981), ACM TOMS 7(1),
        17-41.
    Moré, Garbow & Hillstrom, Algorithm 566 (1981), ACM TOMS 7(1), 136-140: the same functions in
        Fortran.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassicalProblem:
    """A residual, the start of its paper and what is known of its minima."""

    name: str
    # (n,) -> (m,); fit for torch.func and for any dtype and device
    residual: Callable[[Tensor], Tensor]
    start: tuple[float, ...]
    # where a fit may end: the lowest minimum first, then other minima and limits at infinity
    costs: tuple[float, ...]
    # of the lowest, near the start; None where several points or none serve
    minimizer: tuple[float, ...] | None
    source: str

    @property
    def n(self) -> int:
        """Number of parameters."""
        return len(self.start)

    @property
    def minimum_cost(self) -> float:
        """The lowest known cost."""
        return self.costs[0]


def _values(x: Tensor, values: Sequence[float]) -> Tensor:
    """Data in the dtype and on the device of `x`."""
    return torch.tensor(values, dtype=x.dtype, device=x.device)


def _count(x: Tensor, first: int, last: int) -> Tensor:
    """first, …, last in the dtype and on the device of `x`."""
    return torch.arange(first, last + 1, dtype=x.dtype, device=x.device)


def rosenbrock(x: Tensor) -> Tensor:
    """The curved valley. MGH 1."""
    return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def freudenstein_roth(x: Tensor) -> Tensor:
    """Two cubics with a root and a second minimum, where the Jacobian is singular. MGH 2."""
    return torch.stack(
        [-13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1], -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1]],
    )


def powell_badly_scaled(x: Tensor) -> Tensor:
    """A root at (1.1e-5, 9.1). MGH 3."""
    return torch.stack([1e4 * x[0] * x[1] - 1, torch.exp(-x[0]) + torch.exp(-x[1]) - 1.0001])


def brown_badly_scaled(x: Tensor) -> Tensor:
    """A root at (1e6, 2e-6). MGH 4."""
    return torch.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


def beale(x: Tensor) -> Tensor:
    """A curved valley towards x[1] = 1. MGH 5."""
    return _values(x, (1.5, 2.25, 2.625)) - x[0] * (1 - x[1] ** _count(x, 1, 3))


def jennrich_sampson(x: Tensor) -> Tensor:
    """Two equal exponentials at the minimum, large residuals. MGH 6 with m = 10."""
    i = _count(x, 1, 10)
    return 2 + 2 * i - torch.exp(i * x[0]) - torch.exp(i * x[1])


def helical_valley(x: Tensor) -> Tensor:
    """A valley that winds once round the third axis. MGH 7, Fletcher & Powell (1963)."""
    # The paper's angle, atan(x2/x1) with half a turn added for x1 < 0, jumps on the half-plane
    # x1 = 0, x2 < 0. This is the same angle, and its derivative exists at x1 = 0, x2 > 0 as well.
    turns = torch.atan2(-x[0], x[1]) / (2 * math.pi) + 0.25
    return torch.stack(
        [10 * (x[2] - 10 * turns), 10 * (torch.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]]
    )


BARD = (0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39)


def bard(x: Tensor) -> Tensor:
    """Rational fit. MGH 8, Bard (1970)."""
    u = _count(x, 1, 15)
    v = 16 - u
    return _values(x, BARD) - (x[0] + u / (v * x[1] + torch.minimum(u, v) * x[2]))


GAUSSIAN = (0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989)


def gaussian(x: Tensor) -> Tensor:
    """A normal density, rounded to four digits. MGH 9."""
    t = (8 - _count(x, 1, 15)) / 2
    return x[0] * torch.exp(-x[1] * (t - x[2]) ** 2 / 2) - _values(x, GAUSSIAN + GAUSSIAN[-2::-1])


MEYER = (
    34780,
    28610,
    23650,
    19630,
    16370,
    13720,
    11540,
    9744,
    8261,
    7030,
    6005,
    5147,
    4427,
    3820,
    3307,
    2872,
)


def meyer(x: Tensor) -> Tensor:
    """Resistance of a thermistor; parameters differ by six orders of magnitude. MGH 10, Meyer."""
    t = 45 + 5 * _count(x, 1, 16)
    return x[0] * torch.exp(x[1] / (t + x[2])) - _values(x, MEYER)


def gulf(x: Tensor) -> Tensor:
    """Gulf research and development, m = 99. MGH 11, Cox (1969)."""
    # The paper prints |y mi x2|, its "mi" a minus that the typesetter spelt out; Algorithm 566
    # has the difference. Read as a product with m and i, the function has no root at the
    # published (50, 25, 3/2).
    t = _count(x, 1, 99) / 100
    y = 25 + (-50 * torch.log(t)) ** (2 / 3)
    return torch.exp(-((y - x[1]).abs() ** x[2]) / x[0]) - t


def box_3d(x: Tensor) -> Tensor:
    """Difference of exponentials, m = 10. MGH 12, Box (1966)."""
    t = _count(x, 1, 10) / 10
    return torch.exp(-t * x[0]) - torch.exp(-t * x[1]) - x[2] * (torch.exp(-t) - torch.exp(-10 * t))


def extended_powell_singular(x: Tensor) -> Tensor:
    """Rank two at the root, in blocks of four variables. MGH 13 and 22, Powell (1962)."""
    a, b, c, d = x.reshape(-1, 4).unbind(-1)
    return torch.stack(
        [a + 10 * b, math.sqrt(5) * (c - d), (b - 2 * c) ** 2, math.sqrt(10) * (a - d) ** 2], dim=-1
    ).reshape(-1)


def wood(x: Tensor) -> Tensor:
    """Two coupled curved valleys. MGH 14, Colville (1968)."""
    return torch.stack(
        [
            10 * (x[1] - x[0] ** 2),
            1 - x[0],
            math.sqrt(90) * (x[3] - x[2] ** 2),
            1 - x[2],
            math.sqrt(10) * (x[1] + x[3] - 2),
            (x[1] - x[3]) / math.sqrt(10),
        ]
    )


KOWALIK = (0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246)
KOWALIK_DOSES = (4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625)


def kowalik_osborne(x: Tensor) -> Tensor:
    """Enzyme reaction. MGH 15, Kowalik & Osborne (1968)."""
    u = _values(x, KOWALIK_DOSES)
    return _values(x, KOWALIK) - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x: Tensor) -> Tensor:
    """Very large residuals, where JᵀJ is the wrong curvature. MGH 16, m = 20, Brown & Dennis."""
    t = _count(x, 1, 20) / 5
    return (x[0] + t * x[1] - torch.exp(t)) ** 2 + (x[2] + x[3] * torch.sin(t) - torch.cos(t)) ** 2


OSBORNE_1 = (
    *(0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751),
    *(0.718, 0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490),
    *(0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406),
)


def osborne_1(x: Tensor) -> Tensor:
    """Two exponentials on a constant. MGH 17, Osborne (1972)."""
    t = 10 * _count(x, 0, 32)
    return _values(x, OSBORNE_1) - (
        x[0] + x[1] * torch.exp(-t * x[3]) + x[2] * torch.exp(-t * x[4])
    )


def biggs_exp6(x: Tensor) -> Tensor:
    """Three exponentials, m = 13. MGH 18, Biggs (1971)."""
    t = _count(x, 1, 13) / 10
    y = torch.exp(-t) - 5 * torch.exp(-10 * t) + 3 * torch.exp(-4 * t)
    return (
        x[2] * torch.exp(-t * x[0]) - x[3] * torch.exp(-t * x[1]) + x[5] * torch.exp(-t * x[4]) - y
    )


OSBORNE_2 = (
    *(1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608),
    *(0.655, 0.616, 0.606, 0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661),
    *(0.612, 0.558, 0.533, 0.495, 0.500, 0.423, 0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428),
    *(0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668, 0.645, 0.632, 0.591, 0.559),
    *(0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098, 0.054),
)


def osborne_2(x: Tensor) -> Tensor:
    """Three Gaussians on a decaying baseline. MGH 19, Osborne (1972)."""
    t = _count(x, 0, 64) / 10
    peaks = x[1:4, None] * torch.exp(-x[5:8, None] * (t - x[8:11, None]) ** 2)  # (3, 65)
    return _values(x, OSBORNE_2) - (x[0] * torch.exp(-t * x[4]) + peaks.sum(0))


def watson(x: Tensor) -> Tensor:
    """A polynomial that solves u' = u² + 1, ill-conditioned as n grows. MGH 20, Kowalik."""
    n = x.shape[-1]
    powers = (_count(x, 1, 29) / 29)[:, None] ** _count(x, 0, n - 1)  # (29, n)
    derivative = powers[:, :-1] @ (_count(x, 1, n - 1) * x[1:])
    return torch.cat(
        [derivative - (powers @ x) ** 2 - 1, torch.stack([x[0], x[1] - x[0] ** 2 - 1])]
    )


def extended_rosenbrock(x: Tensor) -> Tensor:
    """Rosenbrock's valley in pairs of variables. MGH 21, Spedicato (1975)."""
    a, b = x.reshape(-1, 2).unbind(-1)
    return torch.stack([10 * (b - a**2), 1 - a], dim=-1).reshape(-1)


def penalty_1(x: Tensor) -> Tensor:
    """A sphere with a faint pull towards (1, …, 1). MGH 23, Gill, Murray & Pitfield (1972)."""
    return torch.cat([math.sqrt(1e-5) * (x - 1), (x.square().sum() - 0.25)[None]])


def penalty_2(x: Tensor) -> Tensor:
    """Exponentials with a faint weight beside a sphere. MGH 24, Gill, Murray & Pitfield (1972)."""
    n = x.shape[-1]
    e, known = torch.exp(x / 10), torch.exp(_count(x, 1, n) / 10)
    return torch.cat(
        [
            x[:1] - 0.2,
            math.sqrt(1e-5) * (e[1:] + e[:-1] - known[1:] - known[:-1]),
            math.sqrt(1e-5) * (e[1:] - math.exp(-0.1)),
            ((n + 1 - _count(x, 1, n)) @ x.square() - 1)[None],
        ]
    )


def variably_dimensioned(x: Tensor) -> Tensor:
    """A quartic in one direction. MGH 25."""
    total = _count(x, 1, x.shape[-1]) @ (x - 1)
    return torch.cat([x - 1, torch.stack([total, total**2])])


def trigonometric(x: Tensor) -> Tensor:
    """Many minima. MGH 26, Spedicato (1975)."""
    n = x.shape[-1]
    return n - torch.cos(x).sum() + _count(x, 1, n) * (1 - torch.cos(x)) - torch.sin(x)


def brown_almost_linear(x: Tensor) -> Tensor:
    """All equations linear but the last. MGH 27, Brown (1969)."""
    return torch.cat([(x + x.sum() - (x.shape[-1] + 1))[:-1], (x.prod() - 1)[None]])


def discrete_boundary_value(x: Tensor) -> Tensor:
    """u″ = (u + t + 1)³ / 2, u(0) = u(1) = 0, in differences. MGH 28, Moré & Cosnard (1979)."""
    n = x.shape[-1]
    h = 1 / (n + 1)
    before, after = _neighbours(x)
    return 2 * x - before - after + h**2 * (x + _count(x, 1, n) * h + 1) ** 3 / 2


def discrete_integral_equation(x: Tensor) -> Tensor:
    """The same boundary value problem as an integral equation: dense J, the same root. MGH 29."""
    n = x.shape[-1]
    t = _count(x, 1, n) / (n + 1)
    # Green's function, (n, n)
    kernel = torch.minimum(t[:, None], t) * (1 - torch.maximum(t[:, None], t))
    return x + kernel @ (x + t + 1) ** 3 / (2 * (n + 1))


def broyden_tridiagonal(x: Tensor) -> Tensor:
    """MGH 30, Broyden (1965)."""
    before, after = _neighbours(x)
    return (3 - 2 * x) * x - before - 2 * after + 1


def broyden_banded(x: Tensor) -> Tensor:
    """Five diagonals below, one above. MGH 31, Broyden (1971)."""
    n = x.shape[-1]
    ones = torch.ones(n, n, dtype=x.dtype, device=x.device)
    band = ones.tril(1).triu(-5) - torch.eye(n, dtype=x.dtype, device=x.device)
    return x * (2 + 5 * x**2) + 1 - band @ (x * (1 + x))


def _neighbours(x: Tensor) -> tuple[Tensor, Tensor]:
    """Entries before and after each of x, zero beyond the ends."""
    zero = torch.zeros_like(x[:1])
    return torch.cat([zero, x[:-1]]), torch.cat([x[1:], zero])


def linear_full_rank(x: Tensor) -> Tensor:
    """MGH 32 with m = 2n."""
    n = x.shape[-1]
    return torch.cat([x, torch.zeros_like(x)]) - x.sum() / n - 1


def linear_rank_1(x: Tensor) -> Tensor:
    """A hyperplane of minima. MGH 33 with m = 2n."""
    n = x.shape[-1]
    return _count(x, 1, 2 * n) * (_count(x, 1, n) @ x) - 1


def linear_rank_1_zeros(x: Tensor) -> Tensor:
    """The same with zero columns and rows. MGH 34 with m = 2n."""
    n = x.shape[-1]
    rows = torch.cat([_count(x, 0, 2 * n - 2), torch.zeros_like(x[:1])])
    return rows * (_count(x, 2, n - 1) @ x[1:-1]) - 1


def chebyquad(x: Tensor) -> Tensor:
    """Nodes of the quadrature of equal weights, m = n. MGH 35, Fletcher (1965)."""
    n = x.shape[-1]
    argument = 2 * x - 1
    polynomials = [torch.ones_like(x), argument]
    for _ in range(n - 1):
        polynomials.append(2 * argument * polynomials[-1] - polynomials[-2])
    integrals = [0.0 if k % 2 else -1 / (k**2 - 1) for k in range(1, n + 1)]
    return torch.stack(polynomials[1:]).mean(-1) - _values(x, integrals)


def powell_hybrid(x: Tensor) -> Tensor:
    """The Jacobian is singular on the line x[1] = 0, which holds the root. Powell (1970)."""
    return torch.stack([x[0], 10 * x[0] / (x[0] + 0.1) + 2 * x[1] ** 2])


POWELL_BADLY_SCALED_ROOT = (1.098159329699817e-5, 9.106146739866524)
JENNRICH_SAMPSON_MINIMIZER = (0.2578252136703641, 0.2578252136703641)
BARD_MINIMIZER = (0.08241055974979, 1.13303609203, 2.343695178643)
GAUSSIAN_MINIMIZER = (0.3989561378388, 1.000019084488, 0.0)
KOWALIK_MINIMIZER = (0.192806934579, 0.1912823287344, 0.1230565069263, 0.1360623306838)
BROWN_DENNIS_MINIMIZER = (-11.59443990476, 13.20363005121, -0.4034394881769, 0.2367787744557)
MEYER_MINIMIZER = (0.0056096364710280525, 6181.3463462863723, 345.2236346241365)
OSBORNE_1_MINIMIZER = (
    0.375410052107,
    1.935846912712,
    -1.464687136613,
    0.01286753464006,
    0.02212269966167,
)
OSBORNE_2_MINIMIZER = (
    *(
        1.309977154627,
        0.431553794603,
        0.6336616989607,
        0.5994305347859,
        0.754183226328,
        0.9042885798596,
    ),
    *(1.365811835237, 4.823698817227, 2.398684866132, 4.568874597668, 5.675341470581),
)
WATSON_6_MINIMIZER = (
    *(
        -0.015725086401458,
        1.0124348693691,
        -0.23299162595674,
        1.2604300877996,
        -1.5137289227223,
        0.99299643243113,
    ),
)
WATSON_9_MINIMIZER = (
    *(-1.5307036521394e-5, 0.99978970393195, 0.014763963693557, 0.14634232829936, 1.0008211030047),
    *(-2.617731140519, 4.1044031644789, -3.1436122785564, 1.0526264080102),
)
WATSON_12_MINIMIZER = (
    *(
        -6.6380604645207e-9,
        1.0000016441179,
        -0.00056393221034231,
        0.34782054050404,
        -0.15673150409617,
    ),
    *(1.0528151772072, -3.2472711534597, 7.2884348979381, -10.271848241322, 9.0741136470753),
    *(-4.5413754666925, 1.0120118885528),
)
PENALTY_2_4_MINIMIZER = (0.1999993333504, 0.1913167009928, 0.4801014853326, 0.5188454043902)
PENALTY_2_10_MINIMIZER = (
    *(0.1999836051978, 0.01035064847129, 0.01960493448044, 0.03208906722069, 0.04993267739964),
    *(0.07651399515399, 0.1186240728695, 0.1921448723356, 0.3473205869418, 0.3691643741594),
)
BOUNDARY_VALUE_ROOT = (
    *(-0.04316498251876, -0.08157715653539, -0.1144857143805, -0.1409735768626, -0.159908696182),
    *(-0.1698772023128, -0.1690899837812, -0.1552495352218, -0.1253558916789, -0.07541653368589),
)
BROYDEN_TRIDIAGONAL_ROOT = (
    *(-0.5707221320112, -0.6818069499843, -0.7022100760177, -0.7055106298951, -0.7049061557287),
    *(-0.7014966070299, -0.6918893223548, -0.6657965144059, -0.5960351090264, -0.4164122575287),
)
BROYDEN_BANDED_ROOT = (
    *(-0.4283028635873, -0.4765964243563, -0.5196524636469, -0.5580993248322, -0.5925061568295),
    *(-0.6245036821995, -0.6232394714406, -0.6213938417966, -0.6204535966591, -0.5864692707204),
)


def _even(n: int) -> tuple[float, ...]:
    """1, …, n over n + 1: Chebyquad's start, and the mesh of the boundary value problem."""
    return tuple(j / (n + 1) for j in range(1, n + 1))


_PROBLEMS = (
    ClassicalProblem(
        "rosenbrock", rosenbrock, (-1.2, 1.0), (0.0,), (1.0, 1.0), "MGH 1; Rosenbrock (1960)"
    ),
    ClassicalProblem(
        "freudenstein_roth",
        freudenstein_roth,
        (0.5, -2.0),
        # f = 48.9842 at ((53 - 4 √22) / 3, (2 - √22) / 3), where the start leads
        (0.0, 24.49212683962),
        (5.0, 4.0),
        "MGH 2; Freudenstein & Roth (1963)",
    ),
    ClassicalProblem(
        "powell_badly_scaled",
        powell_badly_scaled,
        (0.0, 1.0),
        (0.0,),
        POWELL_BADLY_SCALED_ROOT,  # and the same with the two exchanged
        "MGH 3; Powell (1970)",
    ),
    ClassicalProblem(
        "brown_badly_scaled", brown_badly_scaled, (1.0, 1.0), (0.0,), (1e6, 2e-6), "MGH 4"
    ),
    ClassicalProblem("beale", beale, (1.0, 1.0), (0.0,), (3.0, 0.5), "MGH 5; Beale (1958)"),
    ClassicalProblem(
        "jennrich_sampson",
        jennrich_sampson,
        (0.3, 0.4),
        (62.18109117781,),  # f = 124.362
        JENNRICH_SAMPSON_MINIMIZER,  # the two columns of J are equal here
        "MGH 6; Jennrich & Sampson (1968)",
    ),
    ClassicalProblem(
        "helical_valley",
        helical_valley,
        (-1.0, 0.0, 0.0),
        (0.0,),
        (1.0, 0.0, 0.0),
        "MGH 7; Fletcher & Powell (1963)",
    ),
    ClassicalProblem(
        "bard",
        bard,
        (1.0, 1.0, 1.0),
        # f = 8.21487e-3; f = 17.4286 at (0.8406, -inf, -inf), a constant
        (0.004107438653290, 8.714346666667),
        BARD_MINIMIZER,
        "MGH 8; Bard (1970)",
    ),
    ClassicalProblem(
        "gaussian",
        gaussian,
        (0.4, 1.0, 0.0),
        (5.639663848096e-9,),  # f = 1.12793e-8
        GAUSSIAN_MINIMIZER,
        "MGH 9",
    ),
    ClassicalProblem(
        "meyer",
        meyer,
        (0.02, 4000.0, 250.0),
        (43.97292758543,),  # f = 87.9458; NIST's MGH10
        MEYER_MINIMIZER,
        "MGH 10; Meyer (1970)",
    ),
    ClassicalProblem(
        "gulf", gulf, (5.0, 2.5, 0.15), (0.0,), (50.0, 25.0, 1.5), "MGH 11; Cox (1969)"
    ),
    ClassicalProblem(
        "box_3d",
        box_3d,
        (0.0, 10.0, 20.0),
        (0.0,),
        None,  # (1, 10, 1), (10, 1, -1), and all of x1 = x2, x3 = 0
        "MGH 12; Box (1966)",
    ),
    ClassicalProblem(
        "powell_singular",
        extended_powell_singular,
        (3.0, -1.0, 0.0, 1.0),
        (0.0,),
        (0.0,) * 4,
        "MGH 13; Powell (1962)",
    ),
    ClassicalProblem(
        "wood", wood, (-3.0, -1.0, -3.0, -1.0), (0.0,), (1.0,) * 4, "MGH 14; Colville (1968)"
    ),
    ClassicalProblem(
        "kowalik_osborne",
        kowalik_osborne,
        (0.25, 0.39, 0.415, 0.39),
        # f = 3.07505e-4; f = 1.02734e-3 at (inf, -14.07, -inf, -inf)
        (1.537528019246e-4, 5.136715243477e-4),
        KOWALIK_MINIMIZER,
        "MGH 15; Kowalik & Osborne (1968)",
    ),
    ClassicalProblem(
        "brown_dennis",
        brown_dennis,
        (25.0, 5.0, -5.0, -1.0),
        (42911.10081318,),  # f = 85822.2
        BROWN_DENNIS_MINIMIZER,
        "MGH 16; Brown & Dennis (1971)",
    ),
    ClassicalProblem(
        "osborne_1",
        osborne_1,
        (0.5, 1.5, -1.0, 0.01, 0.02),
        (2.732447348741e-5,),  # f = 5.46489e-5; NIST's MGH17
        OSBORNE_1_MINIMIZER,
        "MGH 17; Osborne (1972)",
    ),
    ClassicalProblem(
        "biggs_exp6",
        biggs_exp6,
        (1.0, 2.0, 1.0, 1.0, 1.0, 1.0),
        (0.0, 0.00282782496275),  # f = 5.65565e-3 on the flat set x1 = x5, part of it saddle
        None,  # (1, 10, 1, 5, 4, 3) and (4, 10, 3, 5, 1, 1)
        "MGH 18; Biggs (1971)",
    ),
    ClassicalProblem(
        "osborne_2",
        osborne_2,
        (1.3, 0.65, 0.65, 0.7, 0.6, 3.0, 5.0, 7.0, 2.0, 4.5, 5.5),
        (0.02006886814677,),  # f = 4.01377e-2
        OSBORNE_2_MINIMIZER,
        "MGH 19; Osborne (1972)",
    ),
    ClassicalProblem(
        "watson_6",
        watson,
        (0.0,) * 6,
        (0.001143835026776,),  # f = 2.28767e-3
        WATSON_6_MINIMIZER,
        "MGH 20; Kowalik & Osborne (1968)",
    ),
    ClassicalProblem(
        "watson_9",
        watson,
        (0.0,) * 9,
        (6.998800690495e-7,),  # f = 1.39976e-6
        WATSON_9_MINIMIZER,
        "MGH 20; Kowalik & Osborne (1968)",
    ),
    ClassicalProblem(
        "watson_12",
        watson,
        (0.0,) * 12,
        (2.361190552946e-10,),  # f = 4.72238e-10
        WATSON_12_MINIMIZER,
        "MGH 20; Kowalik & Osborne (1968)",
    ),
    ClassicalProblem(
        "extended_rosenbrock",
        extended_rosenbrock,
        (-1.2, 1.0) * 5,
        (0.0,),
        (1.0,) * 10,
        "MGH 21; Spedicato (1975)",
    ),
    ClassicalProblem(
        "extended_powell_singular",
        extended_powell_singular,
        (3.0, -1.0, 0.0, 1.0) * 3,
        (0.0,),
        (0.0,) * 12,
        "MGH 22; Spedicato (1975)",
    ),
    ClassicalProblem(
        "penalty_1_4",
        penalty_1,
        (1.0, 2.0, 3.0, 4.0),
        (1.124988750450e-5,),  # f = 2.24997e-5
        (0.250007499587538,) * 4,
        "MGH 23; Gill, Murray & Pitfield (1972)",
    ),
    ClassicalProblem(
        "penalty_1_10",
        penalty_1,
        tuple(float(j) for j in range(1, 11)),
        (3.543825733545e-5,),  # f = 7.08765e-5
        (0.158122301113116,) * 10,
        "MGH 23; Gill, Murray & Pitfield (1972)",
    ),
    ClassicalProblem(
        "penalty_2_4",
        penalty_2,
        (0.5,) * 4,
        (4.688146503678e-6,),  # f = 9.37629e-6
        PENALTY_2_4_MINIMIZER,
        "MGH 24; Gill, Murray & Pitfield (1972)",
    ),
    ClassicalProblem(
        "penalty_2_10",
        penalty_2,
        (0.5,) * 10,
        (1.468302687284e-4,),  # f = 2.93660e-4
        PENALTY_2_10_MINIMIZER,
        "MGH 24; Gill, Murray & Pitfield (1972)",
    ),
    ClassicalProblem(
        "variably_dimensioned",
        variably_dimensioned,
        tuple(1 - j / 10 for j in range(1, 11)),
        (0.0,),
        (1.0,) * 10,
        "MGH 25",
    ),
    ClassicalProblem(
        "trigonometric",
        trigonometric,
        (0.1,) * 10,
        (0.0, 1.397528060940e-5),  # f = 2.79506e-5, where the start leads
        None,  # 0 and others
        "MGH 26; Spedicato (1975)",
    ),
    ClassicalProblem(
        "brown_almost_linear",
        brown_almost_linear,
        (0.5,) * 10,
        (0.0, 0.5),  # f = 1 at (0, ..., 0, n + 1): stationary, but a saddle
        None,  # (a, ..., a, a^(1-n)) with a = 1 or 0.97943
        "MGH 27; Brown (1969)",
    ),
    ClassicalProblem(
        "discrete_boundary_value",
        discrete_boundary_value,
        tuple(t * (t - 1) for t in _even(10)),
        (0.0,),
        BOUNDARY_VALUE_ROOT,
        "MGH 28; Moré & Cosnard (1979)",
    ),
    ClassicalProblem(
        "discrete_integral_equation",
        discrete_integral_equation,
        tuple(t * (t - 1) for t in _even(10)),
        (0.0,),
        BOUNDARY_VALUE_ROOT,
        "MGH 29; Moré & Cosnard (1979)",
    ),
    ClassicalProblem(
        "broyden_tridiagonal",
        broyden_tridiagonal,
        (-1.0,) * 10,
        (0.0,),
        BROYDEN_TRIDIAGONAL_ROOT,
        "MGH 30; Broyden (1965)",
    ),
    ClassicalProblem(
        "broyden_banded",
        broyden_banded,
        (-1.0,) * 10,
        (0.0,),
        BROYDEN_BANDED_ROOT,
        "MGH 31; Broyden (1971)",
    ),
    ClassicalProblem(
        "linear_full_rank",
        linear_full_rank,
        (1.0,) * 5,
        (2.5,),  # f = m - n
        (-1.0,) * 5,
        "MGH 32",
    ),
    ClassicalProblem(
        "linear_rank_1",
        linear_rank_1,
        (1.0,) * 5,
        (15 / 14,),  # f = m (m - 1) / (2 (2m + 1))
        None,  # any x with sum of j x_j = 3 / (2m + 1)
        "MGH 33",
    ),
    ClassicalProblem(
        "linear_rank_1_zeros",
        linear_rank_1_zeros,
        (1.0,) * 5,
        (31 / 17,),  # f = (m² + 3m - 6) / (2 (2m - 3))
        None,  # any x with sum of j x_j = 3 / (2m - 3), j = 2, ..., n - 1
        "MGH 34",
    ),
    ClassicalProblem(
        "chebyquad_7",
        chebyquad,
        _even(7),
        (0.0,),
        None,  # any order of the nodes
        "MGH 35; Fletcher (1965)",
    ),
    ClassicalProblem(
        "chebyquad_8",
        chebyquad,
        _even(8),
        (0.001758436862839,),  # f = 3.51687e-3
        None,
        "MGH 35; Fletcher (1965)",
    ),
    ClassicalProblem("chebyquad_9", chebyquad, _even(9), (0.0,), None, "MGH 35; Fletcher (1965)"),
    ClassicalProblem(
        "chebyquad_10",
        chebyquad,
        _even(10),
        # f = 6.50395e-3, the paper's only one, is where the start leads; 4.77271e-3 and
        # 9.50063e-3 by random starts
        (0.002386356848188, 0.003251977400441, 0.004750314425111),
        None,
        "MGH 35; Fletcher (1965)",
    ),
    ClassicalProblem(
        "powell_hybrid", powell_hybrid, (3.0, 1.0), (0.0,), (0.0, 0.0), "Powell (1970)"
    ),
)

CLASSICAL: dict[str, ClassicalProblem] = {problem.name: problem for problem in _PROBLEMS}
