"""The classical problems through the optimizer: the costs of their papers and of scipy."""

from functools import cache
from typing import Any

import pytest
import torch
from scipy.optimize import OptimizeResult
from torch import Tensor

import lmtorch

from .problems import CLASSICAL, ClassicalProblem
from .references import scipy_solution

EXACT = ("forward", "reverse", "autograd")
CHOICES: list[dict[str, Any]] = [
    *({"solver": name} for name in ("qr", "cholesky", "dual")),
    *({"damping": name} for name in ("nielsen", "marquardt")),
    *({"jacobian": name} for name in ("forward", "reverse", "autograd", "2-point", "3-point")),
    *({"scaling": name} for name in ("levenberg", "marquardt")),
    {"acceleration": True},
]
# What is known not to agree, and why: (choice, problem).
BEYOND = {
    # JJᵀ is singular where m > n, and its λ drowns at a minimum with residuals: made for m < n
    ("dual", "watson_12"): "the step is ε‖r‖/λ off",
    ("dual", "penalty_1_4"): "the step is ε‖r‖/λ off",
    ("dual", "penalty_1_10"): "the step is ε‖r‖/λ off",
    # a scaling that forgets lets the trust region zigzag through a bent valley: Moré's
    # reason for the running maximum
    ("marquardt", "brown_dennis"): "steps of a tenth of what is needed",
    ("marquardt", "penalty_2_10"): "steps of a tenth of what is needed",
    ("marquardt", "powell_hybrid"): "the radius ends at round-off",
    # J of condition 1e8 and more, with columns known to ε^½
    ("2-point", "watson_9"): "the derivatives have 8 digits",
    ("2-point", "watson_12"): "the derivatives have 8 digits",
}
# steps that are needed where the way is long; run apart
LONG = {"meyer": 3000, "brown_dennis": 600, "penalty_2_4": 600, "powell_hybrid": 600}
# of the other pairs each choice meets every fifth problem and each problem every fifth choice, as
# on the diagonals of their table; the pairs between run apart
FIFTH = 5
AFTER = 5  # steps after a known cost, in which it must stay
FEW = ("rosenbrock", "kowalik_osborne", "box_3d", "freudenstein_roth", "beale")
# share of J's largest singular value, columns scaled, above which a direction is determined
IDENTIFIABLE = 1e-9


def run(
    problem: ClassicalProblem, steps: int = 3000, until_known: bool = False, **options: Any
) -> tuple[Tensor, float, lmtorch.Status]:
    """Where a training loop ends: parameters, cost, status.

    Where it is enough that a minimum is found, some steps after its cost is known: a singular zero
    is approached by a constant factor for ever, and a cost that has been reached is not left.
    """
    x = torch.tensor(problem.start, dtype=torch.float64, requires_grad=True)
    opt = lmtorch.LevenbergMarquardt([x], **options)

    def cost() -> float:
        return problem.residual(x.detach()).square().sum().item() / 2

    beyond = 0
    for _ in range(steps):
        opt.step(lambda: problem.residual(x))
        beyond += until_known and (beyond > 0 or found_in(problem, cost()))
        if opt.status.final or beyond > AFTER:
            break
    return x.detach(), cost(), opt.status


@cache
def by_default(name: str) -> tuple[Tensor, float, lmtorch.Status]:
    """The run of the defaults to its end."""
    return run(CLASSICAL[name])


@cache
def reference(name: str) -> OptimizeResult:
    """Scipy's."""
    return scipy_solution(CLASSICAL[name].residual, CLASSICAL[name].start)


def agrees(cost: float, known: float) -> bool:
    """To nine digits; a zero to the square of 1e-9."""
    return abs(cost - known) <= max(1e-9 * abs(known), 1e-18)


def found_in(problem: ClassicalProblem, cost: float) -> bool:
    """Whether it is the cost of a minimum that is known."""
    return any(agrees(cost, known) for known in problem.costs)


@pytest.mark.parametrize("name", CLASSICAL)
def test_the_defaults_find_what_scipy_finds(name: str) -> None:
    problem = CLASSICAL[name]
    x, cost, status = by_default(name)
    assert status.final
    assert found_in(problem, cost), (cost, problem.costs, status)

    theirs = reference(name)
    if not agrees(cost, theirs.cost):  # several minima: ours must be no worse
        assert cost < theirs.cost
        return
    if problem.minimizer is None:  # several points have this cost
        return
    # measured by what the difference does to the residual, where J determines it: 1e-9 of
    # the cost is this much of r
    J, r = torch.func.jacfwd(problem.residual)(x), problem.residual(x)
    change = J @ (torch.from_numpy(theirs.x) - x)
    assert change.norm() <= 2e-9**0.5 * r.norm() + 1e-6


def identifiable(problem: ClassicalProblem) -> bool:
    """Whether the minimizer is known, and determined: a singular minimum is not."""
    if problem.minimizer is None:
        return False
    J = torch.func.jacfwd(problem.residual)(torch.tensor(problem.minimizer, dtype=torch.float64))
    norms = J.norm(dim=0)
    singular = torch.linalg.svdvals(J / torch.where(norms > 0, norms, 1.0))
    return bool(singular[-1] > IDENTIFIABLE * singular[0])


@pytest.mark.parametrize(
    "name", [name for name, problem in CLASSICAL.items() if identifiable(problem)]
)
def test_the_defaults_find_the_minimizer_where_it_is_identifiable(name: str) -> None:
    problem = CLASSICAL[name]
    x, cost, _ = by_default(name)
    if not agrees(cost, problem.minimum_cost):
        # the start leads to another published minimum
        assert found_in(problem, cost)
        return
    assert problem.minimizer is not None
    expected = torch.tensor(problem.minimizer, dtype=torch.float64)
    # the default is content with 1e-10 of the cost: five digits of x where polishing does
    # not add the others, which Gauss–Newton steps cannot where the residuals are large
    # (Brown & Dennis, the penalties)
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        pytest.param(
            *(name, choice),
            marks=[pytest.mark.slow] if name in LONG or (place + number) % FIFTH else [],
            id="-".join((name, *map(str, *choice.items()))),
        )
        for place, name in enumerate(CLASSICAL)
        for number, choice in enumerate(CHOICES)
        # exact derivatives lead along one way, whoever has them: that they are the same matrix is
        # for the tests of sources, that each comes with every solver and damping for the last here
        if not (choice.get("jacobian") in EXACT or (name in LONG and "3-point" in choice.values()))
    ],
)
def test_every_choice_finds_a_known_minimum(name: str, choice: dict[str, Any]) -> None:
    problem = CLASSICAL[name]
    ((what, value),) = choice.items()
    # the default tolerance, 1e-10 of the cost in a step, is not 1e-9 of the cost
    # where convergence is linear
    tolerances = {"ftol": 1e-14, "xtol": 1e-14}
    steps = LONG.get(name, 250)
    _, cost, status = run(problem, steps, until_known=True, **choice, **tolerances)
    if (value, name) in BEYOND and what != "damping":
        assert not (status.converged and cost > 1.01 * problem.minimum_cost), what
        return
    assert found_in(problem, cost), (cost, problem.costs, status)


SOURCES = (*EXACT, "2-point", "3-point")
DAMPINGS = ("trust_region", "nielsen", "marquardt")
SOLVERS = ("svd", "qr", "cholesky", "dual")


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("solver", SOLVERS)
def test_all_choices_together_find_a_known_minimum(name: str, solver: str) -> None:
    problem = CLASSICAL[name]
    # every source; three problems that follow each other have every damping with it
    first = FEW.index(name) + SOLVERS.index(solver)
    for number, jacobian in enumerate(SOURCES):
        damping = DAMPINGS[(first + number) % len(DAMPINGS)]
        choices = {"jacobian": jacobian, "damping": damping, "solver": solver}
        _, cost, status = run(problem, 400, until_known=True, **choices, ftol=1e-14, xtol=1e-14)
        # nine digits of the cost; of one that is zero, what a derivative with half its digits
        # leaves
        assert found_in(problem, cost), (choices, cost, status)
