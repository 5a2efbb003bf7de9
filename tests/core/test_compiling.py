"""An iteration is a function of tensors: torch.compile traces it whole, with equal numbers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import lmtorch
from lmtorch.core.bounds import Bounds
from lmtorch.core.linearizing import Last, begin, linearize
from lmtorch.core.loop import attempt
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.state import Start, State
from lmtorch.core.termination import RUNNING
from lmtorch.damping.marquardt import Marquardt
from lmtorch.damping.nielsen import Nielsen
from lmtorch.damping.scaling import Levenberg, More
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.losses.linear import Linear
from lmtorch.losses.robust import Robust, cauchy
from lmtorch.residuals.base import Part
from lmtorch.residuals.function import FunctionResidual
from lmtorch.solvers.cholesky import Cholesky
from lmtorch.solvers.qr import QR
from lmtorch.solvers.svd import SVD

from .setting import TIMES, decay

pytestmark = pytest.mark.skipif(
    torch.__version__ < (2, 13), reason="torch.compile cannot return a NamedTuple that it has made"
)
F64 = torch.float64
ONE = torch.tensor([2.0, 2.0], dtype=F64)
MANY = torch.tensor([[2.0, 2.0], [1.0, 0.5], [0.3, 1.7]], dtype=F64)


class ClosedForm:
    """The Jacobian of `decay` as a formula: torch.compile cannot trace vmap(jvp) (2.13)."""

    def blocks(
        self, part: Part, params: tuple[Tensor, ...], workspace: Callable[[int], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        (x,) = params
        residual = part.function(params)
        curve = torch.exp(-x[..., 1:2] * TIMES)
        jacobian = workspace(residual.shape[-1])
        jacobian.copy_(torch.stack([curve, -x[..., :1] * TIMES * curve], -1))
        yield residual, jacobian

    def evaluate(self, part: Part, params: tuple[Tensor, ...]) -> Tensor:
        return part.function(params)


CASES: dict[str, tuple[Method, Any]] = {
    "a robust loss within bounds": (
        Method(SVD(), TrustRegion(), More()),
        {
            "loss": Robust(cauchy, 0.1),
            "bounds": Bounds(torch.zeros(2, dtype=F64), torch.full((2,), 2.0, dtype=F64)),
        },
    ),
    "a penalty and learning rates": (
        Method(Cholesky(), Nielsen(), Levenberg()),
        {"penalty": torch.tensor([0.1, 0.2], dtype=F64), "rate": torch.tensor([0.5, 1], dtype=F64)},
    ),
    "dear evaluations": (Method(QR(), Marquardt(), More(), certify=True, frugal=True), {}),
}


def problem_of(method: Method, x: Tensor, **of_problem: Any) -> Problem:
    """The decay, whose Jacobian is a formula."""
    plain = Problem(FunctionResidual(decay, x), ClosedForm(), method.solver.form, Linear(), F64)
    return replace(plain, **of_problem)


def iterate(problem: Problem, method: Method, state: State, last: Last) -> tuple[State, Any, Any]:
    """One iteration of the loop as a run of many makes it, and what the next one needs of it."""
    state, model = linearize(problem, method, state, last)
    after, tried = attempt(problem, method, state, model)
    return after, tried, Last(state.x, state.cost, model.linearization.column_norms, tried)


@pytest.mark.parametrize(
    ("case", "x"),
    # each takes seconds; nothing is added to the plain problem in the last of them, and in the run
    [*((case, MANY) for case in CASES), ("a robust loss within bounds", ONE)],
    ids=lambda value: (
        ("one" if value.ndim == 1 else "batch") if isinstance(value, Tensor) else value
    ),
)
def test_an_iteration_is_one_graph_and_gives_the_same_numbers(case: str, x: Tensor) -> None:
    method, of_problem = CASES[case]
    problem = problem_of(method, x, **of_problem)
    state, model = begin(problem, method, Start(x))
    state, tried = attempt(problem, method, state, model)
    last = Last(x, model.linearization.cost, model.linearization.column_norms, tried)
    torch.compiler.reset()
    whole = torch.compile(partial(iterate, problem, method), fullgraph=True, backend="eager")
    compiled, compiled_last = state, last
    for _ in range(3):
        state, _, last = iterate(problem, method, state, last)
        compiled, _, compiled_last = whole(compiled, compiled_last)
        ours, theirs = tree_leaves((state, last)), tree_leaves((compiled, compiled_last))
        assert len(ours) == len(theirs) > 20
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(other, mine, rtol=0, atol=0, equal_nan=True)
    assert (state.cost < problem.cost(x)).any()  # they were not compared at a standstill


def test_a_run_of_compiled_iterations_ends_where_the_loop_does() -> None:
    method = Method(SVD(), TrustRegion(), More())
    problem = problem_of(method, MANY)
    state, model = begin(problem, method, Start(MANY))
    state, tried = attempt(problem, method, state, model)
    last = Last(MANY, model.linearization.cost, model.linearization.column_norms, tried)
    torch.compiler.reset()
    whole = torch.compile(partial(iterate, problem, method), fullgraph=True, backend="eager")
    for _ in range(30):
        state, _, last = whole(state, last)
        if not (state.status == RUNNING).any():
            break
    assert (state.status > 0).all()
    for x, found in zip(MANY, state.x, strict=True):
        alone = lmtorch.least_squares(decay, x)
        # half the digits of the cost
        torch.testing.assert_close(found, alone.x, rtol=1e-5, atol=1e-7)
