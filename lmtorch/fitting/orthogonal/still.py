"""The fit without errors in x, from whose end one with errors in x may begin.

Points that stay where they are leave a plain problem of the parameters alone, small and dense.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor

from ..._arrays import to_array
from ...arrays import arrays_of, quiet, tensors_of
from ...core.bounds import Bounds
from ...core.loop import descend, descend_on_arrays
from ...core.method import Method
from ...core.problem import Problem
from ...core.small import of_arrays, small
from ...core.state import Start
from ...core.termination import Tolerances
from ...jacobians.given import GivenJacobian
from ...jacobians.ladder import Ladder
from ...jacobians.latest import ENTRIES, Latest
from ...losses.linear import Linear
from ...minimising.problems import ProblemsResidual
from ...minimising.unknowns import Unknowns
from ...minimising.user_function import UserFunction
from .fitter import OrthogonalFitter
from .memory import Kind, Look

LOOSE = Tolerances(1e-3, 1e-3, 1e-3)  # it says no more than where to begin


def way_of(method: Method) -> Method:
    """How it is minimised, where the fit with errors in x is minimised by `method`."""
    eliminating: Any = method.solver
    solver = eliminating.shared
    return replace(method, solver=solver, tolerances=LOOSE, polish=0, certify=False)


def fitted(
    fitter: OrthogonalFitter,
    look: Look,
    u: Tensor,  # (n,) or (b, n)
    arguments: tuple[Tensor, ...],  # x, y, R and p0, (b, ...) each
    bounds: Bounds | None,
    trials: int,
    known: Ladder,
    kind: Kind | None = None,
) -> tuple[Tensor, Tensor]:
    """Minimise from u, with points where they are.

    Args:
        fitter: of the points.
        look: what is known of its function.
        u: the variables at the start.
        arguments: of `still_at`.
        bounds: of u.
        trials: evaluations at most.
        known: sources of derivatives, as far as they are known to be right with errors in x.
        kind: of fits that were made before.

    Returns:
        Where that ends, and the trials, (...,).
    """
    batched = u.ndim > 1
    given = to_array(u) if fitter.data.numpy else u
    unknowns = Unknowns(given, 0, len(u)) if batched else Unknowns(given)
    dims = (0,) * len(arguments) if batched else (None,) * len(arguments)
    values = arguments if batched else tuple(one[0] for one in arguments)
    calling = UserFunction(fitter.still_at, unknowns, values, {}, dims, look.arrays)
    rungs = known.rungs
    if fitter.jac is not None:
        rungs = [GivenJacobian(calling.jacobian(fitter.still_rows))]
    rows, n = fitter.data.each * fitter.data.points, u.shape[-1]
    few = u.ndim == 1 and u.device.type == "cpu" and n * rows <= ENTRIES
    source = Latest(rungs) if few and not look.black_box else Ladder(rungs)
    learned, source.verified = None, known.verified
    if isinstance(source, Latest):
        source.count = n
        if kind is not None and kind.learns:
            source.learned = learned = kind.still.of_fit(values)
    residual = ProblemsResidual(
        calling.residual, unknowns.layout, calling.shares, rows,
        batched=batched, looped=look.looped, black_box=look.black_box and fitter.jac is None,
    )  # fmt: skip
    solver = look.still.solver
    problem = Problem(residual, source, solver.form, Linear(), look.plan.dtype, bounds=bounds)
    try:
        if not small(problem, look.still, u):
            state, _ = descend(problem, look.still, Start(u), trials=trials)
            return state.x, state.trials
        with quiet():  # of the state no more is wanted as tensors
            ready, start = of_arrays(problem), arrays_of(Start(u))
            state, _ = descend_on_arrays(ready, look.still, start, trials)
            return tensors_of((state.x, state.trials))
    finally:
        if learned is not None:
            learned.close()
