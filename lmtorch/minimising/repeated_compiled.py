"""What is remembered of a compiled fit, so that another costs little beside its program.

Most of what a small fit costs is done again and again with the same result: the options are
checked, the function is looked at, the way is planned, the key of the program is made, the end is
looked at. All of that is remembered for its kind (`kinds`). It is used again only

- if everything that the function reaches is as it was (`compiling.unchanged`),
- if the program is sure of its minimum, and
- if the function itself, which is called once at that end, finds the cost there that the program
  has found: of a function that has changed in a way that nobody can see it would be another.

Everything else runs as the first time.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import choose
from .._arrays import to_array
from ..arrays import arrays_of, resolution
from ..choose import Plan
from ..compiling.keys import NoKeyError
from ..compiling.unchanged import Unchanged
from ..core.bounds import Bounds
from ..core.problem import Problem
from ..jacobians.base import JacobianSource
from ..jacobians.ladder import Ladder
from ..jacobians.learned_many import LearnedMany
from ..losses.linear import Linear
from .ending import Ended, Ending
from .jacobians_at_end import Jacobians
from .kinds import FLOATS, Call, put
from .results import Results
from .run import Run
from .solution import Solution
from .user_function import LARGEST, SMALLEST, Calls, UserFunction

if TYPE_CHECKING:  # a process that compiles nothing does not import what compiles
    from ..compiling.programs import Program
    from ..compiling.single import End

AGREE = 0.45  # power of round-off by which the costs at the end may differ


@dataclass(frozen=True)
class RepeatedCompiled:
    """A kind of fit that is remembered.

    Attributes:
        unchanged: tells whether the function is as it was.
        program: the compiled descent.
        calling: the function, without its arguments.
        problem: for the Jacobian at the end, likewise.
        plan: how it is solved.
        results: makes the solution.
        trials: at most.
        numbers: what the program is given of the method.
        shape: of x0.
        rungs: sources of derivatives, the one in use first.
    """

    unchanged: Unchanged
    program: "Program"
    calling: UserFunction
    problem: Problem
    plan: Plan
    results: Results
    trials: int
    numbers: Tensor
    shape: torch.Size
    rungs: tuple[JacobianSource, ...]

    @cached_property
    def flat(self) -> bool:
        """Whether x is a vector."""
        return len(self.shape) == 1

    def solve(self, fun: Callable[..., Any], call: Call, calls: Calls) -> Solution | None:
        """Solve a fit of this kind.

        Args:
            fun: the user's function.
            call: the start and the arguments.
            calls: counts calls of the function.

        Returns:
            The solution; None: it has to be found as the first time.
        """
        box = self.problem.bounds
        if box is not None and not box.contains(call.x):  # which is refused with words
            return None
        given = [*call.tensors, *(box or ()), self.numbers]
        end = self.program.single.run(call.x, given, self.trials)
        if end is None or end.status <= 0 or end.trials > self.trials:
            return None
        if not end.cost <= call.acceptable:
            return None
        calling = self._calling(fun, call.args, calls)
        point = torch.from_numpy(end.x.copy())  # a function may write into what it is given
        try:
            with torch.no_grad():
                residual = calling.residual((point if self.flat else point.view(self.shape),))
        except Exception:  # whatever it is: the way that is taken the first time knows what to say
            return None
        residual = residual.detach()
        values = residual.numpy() if residual.is_cpu else to_array(residual)
        if residual.dtype not in FLOATS or not self._agrees(values, end):
            from ..compiling.descent import doubt

            doubt(self.program)
            return None
        args = call.args if call.own else [_copied(arg) for arg in call.args]
        again = partial(self._jacobians, fun, args, end)
        x = end.x.copy()  # the solution's own, which may be written into
        if self.results.plain and x.dtype == values.dtype == np.float64:
            free = None if box is None else arrays_of(box).free(x, end.gradient)
            solution = self.results.of_program(end, x, values, free, again)
        else:
            kept: Any = values if self.calling.unknowns.numpy else residual
            ending = _ending(end._replace(x=x), kept, box)
            solution = self.results.solution(ending, None, again)
        solution.starts = None
        solution.calls = calls.made
        solution.history = None
        solution.explained(partial(choose.explanation, self.plan, []))
        # of a fit that may end at a bound errors are asked of J
        solution.remembered(end.normal if box is None else None, call.place)
        return solution

    def _agrees(self, values: Any, end: "End") -> bool:
        """Whether the function's own residuals have the cost that the program has found."""
        square = float(values.dot(values))
        if not (square == 0 or len(values) * SMALLEST**2 <= square <= LARGEST**2):
            return False  # in another unit
        squares = type(self.problem.loss) is Linear and values.dtype == np.float64
        cost = square / 2 if squares else self.problem.loss.cost(values)
        eps = max(resolution(end.x.dtype), resolution(values.dtype))
        apart = abs(cost - end.cost)
        if apart <= eps**AGREE * end.cost:
            return True
        # a cost that is nothing but round-off is never the same again
        lengths = float(np.square(end.x) @ end.normal.diagonal())
        return bool(apart <= eps**AGREE * end.cost + eps**1.5 * lengths)

    def _calling(self, fun: Callable[..., Any], args: list[Any], calls: Calls) -> UserFunction:
        """The function with its arguments."""
        calling = object.__new__(UserFunction)  # a copy, without the detours of `copy`
        vars(calling).update(vars(self.calling), function=fun, leaves=args, calls=calls)
        return calling

    def _source(self) -> Ladder:
        """The source of derivatives that the first fit has used, and verified."""
        source = Ladder(self.rungs)
        source.verified = True
        return source

    def _jacobians(self, fun: Callable[..., Any], args: list[Any], end: "End") -> Jacobians:
        """What makes J at the end."""
        calling = self._calling(fun, args, Calls())
        residual: Any = self.problem.residual
        problem = replace(
            self.problem,
            residual=replace(residual, call=calling.residual, refused=[], learned=LearnedMany()),
            source=self._source(),
        )
        x, cost = torch.from_numpy(end.x), torch.tensor(float(end.cost))
        return Jacobians(problem, x, cost, 1.0, 1, None, [])


def _copied(arg: Any) -> Any:
    """An argument as it is now, whatever is written into it later."""
    return arg.clone() if isinstance(arg, Tensor) else arg


def _ending(end: "End", residual: Tensor, box: Bounds | None) -> Ending:
    """What a solution is made of, in NumPy's numbers."""
    shape: Any = end.x.shape
    # annotations say Tensor for both: see `arrays`
    status: Any = np.int64(end.status)
    trials: Any = np.int64(end.trials)
    made: Any = np.int64(end.linearizations)
    lost: Any = np.zeros(shape, dtype=bool)
    free: Any = np.ones(shape, dtype=bool)
    if box is not None:
        free = arrays_of(box).free(end.x, end.gradient)
    one: Any = np.int64(1)
    return Ending(
        Ended(end.x, end.cost, status, trials, made, lost), residual, end.gradient, end.cosine,
        free, None, None, end.promise, runs=one, kept=one - 1,
    )  # fmt: skip


def keep(
    call: Call,
    fun: Callable[..., Any],
    run: Run,
    program: "Program",
    numbers: Tensor,
    results: Results,
    trials: int,
) -> None:
    """Remember a fit that a program has solved, unless what it reaches cannot be compared.

    Args:
        call: of the fit.
        fun: the user's function.
        run: how it was run.
        program: the compiled descent.
        numbers: what it is given of the method.
        results: makes the solution.
        trials: at most.
    """
    source: Any = run.problem.source
    plain = run.starts == 1 and not (run.estimate or run.calling.targeted)
    if not (plain and isinstance(source, Ladder) and source.verified):
        return
    if run.batched or run.calling.unit != 1 or run.calling.shares:
        return
    try:
        unchanged = Unchanged(call.function)
    except NoKeyError:
        return
    calling = copy(run.calling)
    calling.leaves, calling.calls = [], Calls()
    residual: Any = run.problem.residual
    box = run.problem.bounds
    problem = replace(
        run.problem,
        residual=replace(residual, call=calling.residual),
        source=Ladder([]),
        bounds=box and Bounds(*(side.contiguous() for side in box)),
    )
    known = RepeatedCompiled(
        unchanged, program, calling, problem,
        run.plan, results, trials, numbers, run.unknowns.layout.shapes[0], tuple(source.rungs),
    )  # fmt: skip
    put(call.place, known)
