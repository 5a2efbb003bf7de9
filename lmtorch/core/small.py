"""One small problem on a CPU runs on NumPy's arrays: when, and the way there and back.

A trial makes some hundreds of small operations, which cost torch a millisecond and NumPy a tenth of
it; for large arrays, in which the time is spent in the operations themselves, there is nothing to
gain. The code is the same: see `arrays`.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..arrays import arrays_of, heard, noises, tensors_of
from .bounds import Bounds
from .method import Method
from .problem import Problem
from .state import State

# that a row meets, at most: beyond them factorisations are most of the work
PARAMETERS = 64
ENTRIES = 2**15  # of the Jacobian, at most
DTYPES = (torch.float64, torch.float32)  # of the parameters; the linear algebra is in float64


def small(problem: Problem, method: Method, x: Tensor) -> bool:
    """Whether a run is made on NumPy's arrays.

    That is one problem on a CPU, few parameters and residuals, and members whose classes all say by
    an attribute `arrays` of their own that they speak NumPy as well: a user's, one that is derived
    from ours too, may know torch alone.
    """
    met = getattr(problem.residual, "met", len(x))
    members = (method.solver, method.damping, method.scaling, problem.form, problem.loss)
    return (
        type(x) is Tensor
        and x.ndim == 1
        and x.device.type == "cpu"
        and x.dtype in DTYPES
        and problem.dtype is torch.float64
        and problem.sample is None
        and problem.across is None
        and not getattr(problem.residual, "losses", ())  # targets are tensors
        and met <= PARAMETERS
        and met * problem.residual.rows <= ENTRIES
        and not x.requires_grad
        and all(vars(type(member)).get("arrays", False) for member in members)
        and not torch.compiler.is_compiling()
    )


def of_arrays(problem: Problem) -> Problem:
    """The problem with what it knows of the parameters as arrays; its function stays torch's.

    One that is so already is itself, with what it remembers of its linear models.
    """
    if problem.noises is not None:
        return problem
    bounds, penalty, rate = problem.bounds, problem.penalty, problem.rate
    return replace(
        problem,
        bounds=bounds and Bounds(*(arrays_of(side.contiguous()) for side in bounds)),
        penalty=arrays_of(penalty),
        rate=arrays_of(rate),
        noises=noises(),
    )


def showing(
    watch: Callable[[State], bool] | None, problem: Problem
) -> Callable[[State], bool] | None:
    """What is shown every state, which it sees as tensors."""
    if watch is None:
        return None

    def show(state: State) -> bool:
        with heard(problem.noises):
            return watch(tensors_of(state))

    return show
