"""The classical problems through the optimizer: the costs of their papers and of scipy."""

from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from scipy.optimize import OptimizeResult
from torch import Tensor

import lmtorch

from .problems import CLASSICAL, ClassicalProblem
from .references import scipy_solution

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
FEW = ("rosenbrock", "kowalik_osborne", "box_3d", "freudenstein_roth", "beale")
# share of J's largest singular value, columns scaled, above which a direction is determined
IDENTIFIABLE = 1e-9


def run(
    problem: ClassicalProblem, steps: int = 3000, **options: Any
) -> tuple[Tensor, float, lmtorch.Status]:
    """Where a training loop ends: parameters, cost, status."""
    x = torch.tensor(problem.start, dtype=torch.float64, requires_grad=True)
    opt = lmtorch.LevenbergMarquardt([x], **options)
    for _ in range(steps):
        opt.step(lambda: problem.residual(x))
        if opt.status.final:
            break
    found = x.detach()
    return found, problem.residual(found).square().sum().item() / 2, opt.status


@cache
def reference(name: str) -> OptimizeResult:
    """Scipy's."""
    return scipy_solution(CLASSICAL[name].residual, CLASSICAL[name].start)


def agrees(cost: float, known: float) -> bool:
    """To nine digits; a zero to the square of 1e-9."""
    return cost == pytest.approx(known, rel=1e-9, abs=1e-18)


@pytest.mark.parametrize("name", CLASSICAL)
def test_the_defaults_find_what_scipy_finds(name: str) -> None:
    problem = CLASSICAL[name]
    x, cost, status = run(problem)
    assert status.final
    assert any(agrees(cost, known) for known in problem.costs), (cost, problem.costs, status)

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
    x, cost, _ = run(problem)
    if not agrees(cost, problem.minimum_cost):
        # the start leads to another published minimum
        assert any(agrees(cost, known) for known in problem.costs)
        return
    assert problem.minimizer is not None
    expected = torch.tensor(problem.minimizer, dtype=torch.float64)
    # the default is content with 1e-10 of the cost: five digits of x where polishing does
    # not add the others, which Gauss–Newton steps cannot where the residuals are large
    # (Brown & Dennis, the penalties)
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(map(str, *choice.items())))
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in CLASSICAL],
)
def test_every_choice_finds_a_known_minimum(choice: dict[str, Any], name: str) -> None:
    problem = CLASSICAL[name]
    ((what, value),) = choice.items()
    # the default tolerance, 1e-10 of the cost in a step, is not 1e-9 of the cost
    # where convergence is linear
    tolerances = {"ftol": 1e-14, "xtol": 1e-14}
    # singular zeros are approached by a constant factor for ever: the cost is known long before
    _, cost, status = run(problem, LONG.get(name, 250), **choice, **tolerances)
    if (value, name) in BEYOND and what != "damping":
        assert not (status.converged and cost > 1.01 * problem.minimum_cost), what
        return
    assert any(agrees(cost, known) for known in problem.costs), (cost, problem.costs, status)


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("solver", ["svd", "qr", "cholesky", "dual"])
def test_all_choices_together_find_a_known_minimum(name: str, solver: str) -> None:
    problem = CLASSICAL[name]
    sources = ("forward", "reverse", "autograd", "2-point", "3-point")
    for jacobian, damping in product(sources, ("trust_region", "nielsen", "marquardt")):
        _, cost, status = run(
            problem, 400, jacobian=jacobian, damping=damping, solver=solver, ftol=1e-14, xtol=1e-14
        )
        # nine digits of the cost; of one that is zero, what a derivative with half its digits
        # leaves
        assert any(agrees(cost, known) for known in problem.costs), (
            jacobian,
            damping,
            cost,
            status,
        )
