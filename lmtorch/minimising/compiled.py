"""`compile=True`: what of a problem of a user's function is compiled, and when."""

import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from .. import choose
from .._errors import FallbackWarning, level
from ..compiling.columns import ByColumns
from ..compiling.given import Given
from ..compiling.keys import speaks_for_itself
from ..core.bounds import Bounds
from ..core.method import Method
from ..core.problem import Problem
from ..core.state import Start, State
from ..damping.scaling import FixedScale
from ..jacobians.given import GivenJacobian
from ..jacobians.ladder import Ladder
from ..losses.criterion import Bound
from .problems import ProblemsResidual
from .user_function import Calls, UserFunction

if TYPE_CHECKING:
    from ..compiling.descent import Compiled
    from ..compiling.programs import Program
    from ..compiling.recipes import Recipe

# With compile="auto": fits from which a program that is there already is used, and a new one made.
# To look for one costs less than a fit; to make one takes as long as 80,000 to 270,000 fits, the
# more the cheaper they are.
# On a GPU the eager path is quicker, and NVRTC slower, so that more are needed.
KNOWN, NEW, NEW_ON_DEVICE = 2, 300_000, 3_000_000
ALONE, TOGETHER = 4, 1  # Newton steps at the end of a single fit, and of the fits of a batch
DEVICES = ("cpu", "cuda")
ON_DAMPING = 3  # iterations on λ in a trial
TOLD: set[Any] = set()  # what this process has warned of: of which function, and why


class Compiling:
    """The wish to compile, of one call.

    Args:
        wanted: True, False or "auto".
        function: the user's.
        watched: somebody looks at every iteration, so that the loop has to run.
    """

    def __init__(self, wanted: bool | str, function: Any, watched: bool = False) -> None:
        self.wanted = wanted
        self.function = function
        self.watched = watched
        self.program: Program | None = None  # one that was sure of the end of a single fit
        self.numbers: Tensor | None = None  # that it was given of the method
        self.known: dict[str, Program] = {}  # of this call, whose function does not change

    def descend(
        self,
        problem: Problem,
        method: Method,
        begin: Start,
        trials: int,
        allowed: int | None = None,
        later: bool = False,
    ) -> "Compiled | None":
        """Run the fits from (n,) or (b, n); warn once where that was asked for and is not to be.

        Args:
            problem: what is minimised.
            method: how.
            begin: where.
            trials: after which no more steps are taken.
            allowed: trials that the last steps, too, must not exceed. Default: the same.
            later: what the program cannot judge is left, for `go_on`.

        Returns:
            Where they end; None: the loop has to be run.
        """
        if not self.wanted:
            return None
        x = begin.x
        new = NEW if x.device.type == "cpu" else NEW_ON_DEVICE
        known = self.wanted == "auto" and (x.ndim == 1 or len(x) < new)
        if known and (x.ndim == 1 or len(x) < KNOWN):
            return None
        reason = "a callback, history or table needs every iteration" if self.watched else ""
        quick = choose.in_entries(method, x.shape[-1])
        reason = reason or _reason(problem, quick, x)
        if not reason and quick is not None:
            # torch's tracer is imported when it is needed, and not before
            from ..compiling import descent

            many = x if x.ndim > 1 else x[None]
            # Newton's steps in the last look; those of a batch that need more are few
            quick = replace(quick, polish=min(quick.polish, ALONE if x.ndim == 1 else TOGETHER))
            recipe = _recipe(problem, quick, x)
            name = repr(recipe.method)
            try:
                program = self.known.get(name)
                program = program or descent.compiled(recipe, many, only_known=known)
            except descent.RefusedError as error:
                reason = str(error)
            else:
                if program is None:
                    return None
                self.known[name] = program
                if x.ndim > 1:
                    return descent.run(
                        recipe, program, problem, method, begin, trials, allowed, later
                    )
                found = descent.run_single(recipe, program, problem, method, begin, trials)
                self.program = None if len(found.left) or recipe.device != "cpu" else program
                self.numbers = recipe.given[-1].tensor
                return found
        self.refuse(reason)
        return None

    def go_on(
        self, problem: Problem, method: Method, x: Tensor, before: State, trials: int
    ) -> State:
        """Where fits from x (b, n) end that were left for later, `before`."""
        from ..compiling.doubtful import go_on

        quick = choose.in_entries(method, x.shape[-1])
        assert quick is not None
        recipe = _recipe(problem, quick, x)
        return go_on(recipe, problem, method, Start(x), before, trials)

    def quick(
        self, problem: Problem, method: Method, begin: Start, trials: int, allowed: int
    ) -> State | None:
        """Where further runs of fits end, compiled; None: the loop has to be run."""
        found = self.descend(problem, method, begin, trials, allowed)
        return None if found is None else found.state

    def refuse(self, reason: str) -> None:
        """Warn of why there is nothing compiled, if that was asked for, once for each function."""
        told = _itself(self.function), reason
        if self.wanted is True and told not in TOLD:
            warnings.warn(
                f"the fit is not compiled ({reason}); it runs as without compile=True.",
                FallbackWarning,
                stacklevel=level(),
            )
            TOLD.add(told)  # where the warning is an error, it is one every time


def _itself(function: Any) -> Any:
    """What tells a function from others, and is the same for one that is made anew in a loop."""
    bound = type(function) is MethodType
    owner: Any = function.__self__ if bound else function
    if speaks_for_itself(owner):  # of a fit of curves, which is named by its model
        owner = owner.compiled_by[0]
        return type(owner), owner.label
    plain: Any = function.__func__ if bound else function
    return plain.__code__ if type(plain) is FunctionType else type(plain)


def backend(device: torch.device) -> str:
    """The kind of device that a program is written for."""
    return device.type


def _reason(problem: Problem, quick: Method | None, x: Tensor) -> str:
    """Why a problem is not compiled, as far as it shows from outside; empty if it may be."""
    residual, scale = problem.residual, getattr(problem.loss, "scale", None)
    if x.device.type not in DEVICES:
        return f"programs are written for CPUs and CUDA, and x0 is on {x.device}"
    if quick is None:
        return (
            f"it has {x.shape[-1]} parameters, and few can be compiled, or a solver, damping or "
            "polish of your choice"
        )
    if not isinstance(residual, ProblemsResidual) or residual.black_box or residual.looped:
        return "the function is not one of torch operations that can be batched"
    if not isinstance(getattr(residual.call, "__self__", None), UserFunction):
        return "the function is called in a way of its own"
    if not isinstance(problem.source, Ladder) or isinstance(problem.source.current, GivenJacobian):
        return "its Jacobian is given"
    if isinstance(scale, Tensor) and scale.ndim:
        return "the loss has a scale for each fit"
    if isinstance(quick.scaling, FixedScale) and quick.scaling.scale.ndim > 1:
        return "x_scale differs between the fits"
    return ""


def _recipe(problem: Problem, quick: Method, x: Tensor) -> "Recipe":
    """What is compiled of fits from x (b, n) or (n,)."""
    from ..compiling.recipes import Recipe

    ladder: Any = problem.source
    return Recipe(*_parts(problem, quick, x.device), ladder, x.ndim == 1, backend(x.device))


def _parts(
    problem: Problem, method: Method, device: torch.device
) -> tuple[Any, list[Given], Method, Any]:
    """How the problem of one fit is made of tensors, these tensors, and what it depends on."""
    from ..compiling.iteration import apart

    # the iterations on λ are written out: two or three are enough, and more are seldom made
    if hasattr(method.damping, "iterations"):
        damping: Any = method.damping
        method = replace(method, damping=replace(damping, iterations=ON_DAMPING))
    residual: Any = problem.residual
    calling: UserFunction = residual.call.__self__
    values, tree = tree_flatten((calling.leaves, calling.kwargs))
    own = set(calling.places)
    shared = [
        place for place, value in enumerate(values)
        if isinstance(value, Tensor) and not (place < len(calling.leaves) and place in own)
    ]  # fmt: skip
    sides = () if problem.bounds is None else tuple(problem.bounds)
    given = [
        *(Given(share, False) for share in residual.shares),
        *(Given(values[place].detach(), True) for place in shared),
        *(Given(side, side.ndim == 1) for side in sides),
    ]
    loss, targets = problem.loss, list[Given]()
    if isinstance(loss, Bound):  # its targets are data, as the arguments are
        targets = [Given(target, not loss.batched) for target in loss.targets]
        given += targets
    method, options = apart(method)
    given.append(Given(torch.tensor(options, dtype=torch.float64, device=device), True))
    numbers = [None if isinstance(value, Tensor) else value for value in values]
    count = len(residual.shares)

    def make(tensors: Sequence[Tensor]) -> Problem:
        leaves = list(values)
        for place, tensor in zip(shared, tensors[count:], strict=False):
            leaves[place] = tensor
        other = copy(calling)
        other.leaves, other.kwargs = tree_unflatten(leaves, tree)
        other.calls = Calls()  # what a trace or a check evaluates is no evaluation of the fit
        one = replace(
            residual, call=other.residual, shares=tuple(tensors[:count]), batched=True, box=None
        )
        bounds, last = None, len(tensors) - len(targets)
        if sides:
            bounds = Bounds(*tensors[last - 2 : last])
        own = loss
        if isinstance(loss, Bound):
            parts = tensors[last:] if loss.batched else [t[None] for t in tensors[last:]]
            own = replace(loss, targets=tuple(parts), batched=True)
        return replace(
            problem, residual=one, source=ByColumns(), form=method.solver.form, bounds=bounds,
            loss=own, together=1, clock=None,
        )  # fmt: skip

    unknowns = calling.unknowns
    depends = (
        calling.function, numbers, repr(tree), repr(calling.tree), calling.places, calling.unit,
        repr(unknowns.tree), unknowns.scalar, [tuple(s) for s in unknowns.layout.shapes],
        [t.is_complex() for t in unknowns.layout.tensors], residual.rows,
        (loss.criterion, loss.together, loss.factor) if isinstance(loss, Bound) else loss,
        problem.dtype, problem.precision, bool(sides),
    )  # fmt: skip
    return make, given, method, depends
