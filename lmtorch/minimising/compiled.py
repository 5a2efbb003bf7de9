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
from ..compiling.building import NoCompilerError, compiler, kept
from ..compiling.columns import ByColumns
from ..compiling.given import Given
from ..compiling.keys import NoKeyError, speaks_for_itself
from ..compiling.recipes import ARRAYS
from ..core.bounds import Bounds
from ..core.method import Method
from ..core.problem import Problem
from ..core.state import Start, State
from ..damping.scaling import FixedScale
from ..jacobians.given import GivenJacobian
from ..jacobians.ladder import Ladder
from ..losses.criterion import Bound
from .effort import Effort, Work, effort_of, of_batch, of_doubts, of_one, price
from .ending import Ending
from .problems import ProblemsResidual
from .repeated_batches import only_computes
from .user_function import Calls, UserFunction

if TYPE_CHECKING:
    from ..compiling.descent import Compiled
    from ..compiling.programs import Program
    from ..compiling.recipes import Recipe

# With compile="auto": fits of a batch from which a program that is there already is used; to look
# for one costs less than a fit. When a new one is made tells `effort`.
KNOWN = 2
# On a GPU the eager path is quicker, and NVRTC slower: fits from which a new one is made there.
NEW_ON_DEVICE = 3_000_000
ALONE, TOGETHER = 4, 1  # Newton steps at the end of a single fit, and of the fits of a batch
WAYS = 4  # in which fits in doubt are run again, about
DEVICES = ("cpu", "cuda")
# Entries of the Jacobians and residuals of a batch from which on it is run by a program of NumPy's
# operations: to make one takes a second, to read it from the disk a tenth of that.
NUMBERS = 10**6
ON_DAMPING = 3  # iterations on λ in a trial
TOLD: set[Any] = set()  # what this process has warned of: of which function, and why


class Compiling:
    """The wish to compile, of one call.

    Args:
        wanted: True, False or "auto". Without a compiler, or with False, programs of batches are of
            NumPy's operations, and made where there are many numbers.
        function: the user's.
        watched: somebody looks at every iteration, so that the loop has to run.
    """

    def __init__(self, wanted: bool | str, function: Any, watched: bool = False) -> None:
        self.never = wanted is False  # no machine code is made
        self.wanted = wanted or "auto"
        self.arrays = False  # programs are of NumPy's operations
        self.function = function
        self.watched = watched
        self.program: Program | None = None  # one that was sure of the end of a single fit
        self.numbers: Tensor | None = None  # that it was given of the method
        self.known: dict[str, Program] = {}  # of this call, whose function does not change
        self.effort: Effort | None = None  # of all fits of the kind, where "auto" may still compile
        self.others: Effort | None = None  # likewise of further runs, by another program
        self.sure = False  # that it pays: what this call needs is made

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
        x = begin.x
        found = self._program(problem, method, x)
        if found is None:
            return None
        from ..compiling import descent

        recipe, program = found
        if x.ndim > 1:
            ended = descent.run(recipe, program, problem, method, begin, trials, allowed, later)
            if not self.arrays or descent.held(problem, ended.state):
                return ended
            descent.doubt(program)
            effort_of(recipe.key(x)).refused = True
            self.known.clear()
            return None
        ended = descent.run_single(recipe, program, problem, method, begin, trials)
        self.program = None if len(ended.left) or recipe.device != "cpu" else program
        self.numbers = recipe.given[-1].tensor
        return ended

    def ready(self, problem: Problem, method: Method, x: Tensor) -> bool:
        """Make the program of fits (b, n), in the midst of a call in which it has shown to pay.

        Returns:
            Whether there is one now.
        """
        self.sure = True
        self.sure = self._program(problem, method, x) is not None
        self.effort = None
        return self.sure

    def _on_arrays(self, x: Tensor) -> bool:
        """Whether programs of fits from x (b, n) are of NumPy's operations."""
        many = x.ndim > 1 and x.device.type == "cpu"
        return many and (self.never or (self.wanted == "auto" and no_compiler("cpu")))

    def _program(
        self, problem: Problem, method: Method, x: Tensor
    ) -> "tuple[Recipe, Program] | None":
        """The program of fits (b, n) or (n,), and of what; None: there is none, or not yet."""
        self.arrays = self._on_arrays(x)
        if self.wanted == "auto" and x.ndim > 1 and len(x) < KNOWN:
            return None
        if self.never and not self.arrays:
            return None
        if self.arrays and not (self.known or _numbers(problem, x) >= NUMBERS):
            return None
        reason = "a callback, history or table needs every iteration" if self.watched else ""
        quick = choose.in_entries(method, x.shape[-1])
        reason = reason or _reason(problem, quick, x)
        if not reason and quick is not None:
            # Newton's steps in the last look; those of a batch that need more are few
            quick = replace(quick, polish=min(quick.polish, ALONE if x.ndim == 1 else TOGETHER))
            recipe = _recipe(problem, quick, x)
            if self.arrays:
                recipe = recipe._replace(device=ARRAYS)
            program = self.known.get(repr(recipe.method))
            reason = "" if program else self._find(recipe, problem, x)
            program = program or self.known.get(repr(recipe.method))
            if program:
                return recipe, program
        if reason:
            self.refuse(reason)
        return None

    def _find(self, recipe: "Recipe", problem: Problem, x: Tensor) -> str:
        """Find or make the program of a recipe for fits (b, n) or (n,), if it is to be used now.

        Returns:
            Why there cannot be one; empty otherwise.
        """
        many = x if x.ndim > 1 else x[None]
        try:
            key = recipe.key(many)
        except NoKeyError as error:
            return str(error)
        effort, auto = effort_of(key), self.wanted == "auto"
        if self.arrays:
            return self._find_of_arrays(recipe, problem, many, key, effort)
        make = not auto or self._pays(effort, problem, x)
        if auto and make and no_compiler(recipe.device):
            make, effort.refused = False, True
        if not make and not effort.made:
            # one fit costs less than to read a program, and to hold it to the loop
            seldom = x.ndim == 1 and effort.seldom
            effort.missed = not seldom and not kept(key).exists()
            if seldom or effort.missed:
                self._later(effort, recipe.device)
                return ""
        # torch's tracer is imported when it is needed, and not before
        from ..compiling import descent

        try:
            program = descent.compiled(recipe, many, key, only_known=not make)
        except descent.RefusedError as error:
            effort.refused = True
            return str(error)
        if program is None:  # a file that is damaged is none
            effort.made, effort.missed = False, True
            self._later(effort, recipe.device)
            return ""
        effort.made = True
        self.known[repr(recipe.method)] = program
        # its price was that of two, where further runs are to be made
        self.sure = self.sure or (make and effort.doubts)
        return ""

    def _find_of_arrays(
        self, recipe: "Recipe", problem: Problem, x: Tensor, key: str, effort: Effort
    ) -> str:
        """The same of a program of NumPy's operations, which does not depend on earlier calls.

        Blocks of one image are fitted by workers that have done this and that before, to the same
        bits.

        Returns:
            Why there cannot be one; empty otherwise.
        """
        from ..compiling import descent

        residual: Any = problem.residual
        if not (effort.made or effort.refused or only_computes(residual.call.__self__, x, key)):
            effort.refused = True
        if not effort.refused:
            try:
                program = descent.compiled(recipe, x, key)
            except descent.RefusedError:
                effort.refused = True
            else:
                assert program is not None
                effort.made = True
                self.known[repr(recipe.method)] = program
        return "" if self.known else "the function is not one that can be written"

    def _pays(self, effort: Effort, problem: Problem, x: Tensor) -> bool:
        """Whether a program of fits (b, n) or (n,) is to be made, if there is none."""
        if x.device.type != "cpu":
            return x.ndim > 1 and len(x) >= NEW_ON_DEVICE
        n = x.shape[-1]
        ahead = effort.expected(len(x), problem.residual.rows, n) if x.ndim > 1 else 0.0
        return self.sure or effort.pays(ahead, n)

    def _later(self, effort: Effort, device: str) -> None:
        """Nothing for now: the work that is done on a CPU without a program is counted."""
        if device != "cpu":
            return
        if self.known:
            self.others = effort
        else:
            self.effort = effort

    def worth(self, work: float, n: int, doubts: bool) -> bool:
        """Whether fits of n parameters, which are this much work, shall be compiled after all.

        Args:
            work: of the call, with what is ahead.
            n: parameters of a fit.
            doubts: further runs are to be made.

        Returns:
            Whether that costs less, by all that is known of fits of the kind.
        """
        effort = self.effort
        if effort is None or effort.refused:
            return False
        return effort.spent + work >= price(n, doubts or effort.doubts)

    def count(self, ending: Ending, rows: int) -> None:
        """Count what fits have been that ran without a program."""
        effort = self.effort
        if effort is None:
            return
        trials, n = ending.state.trials, ending.state.x.shape[-1]
        if trials.ndim == 0:
            effort.add(of_one(trials))
        else:
            effort.doubts = effort.doubts or bool((ending.runs > 1).any())
            effort.add(of_batch(trials, ending.runs, rows, n), len(trials))

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
        if found is not None:
            return found.state
        if self.others is not None:  # one way of several that are asked
            fits, n = begin.x.shape
            work = of_doubts(fits, problem.residual.rows, n)
            self.others.add(Work(work.fixed / WAYS, work.varying / WAYS), fits)
        return None

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


def _numbers(problem: Problem, x: Tensor) -> int:
    """The entries of the Jacobians and residuals of fits (b, n)."""
    return len(x) * problem.residual.rows * (x.shape[-1] + 1)


def _itself(function: Any) -> Any:
    """What tells a function from others, and is the same for one that is made anew in a loop."""
    bound = type(function) is MethodType
    owner: Any = function.__self__ if bound else function
    if speaks_for_itself(owner):  # of a fit of curves, which is named by its model
        owner = owner.compiled_by[0]
        return type(owner), owner.label
    plain: Any = function.__func__ if bound else function
    return plain.__code__ if type(plain) is FunctionType else type(plain)


def no_compiler(device: str) -> bool:
    """Whether programs for a kind of device can't be made, which is asked before any is traced."""
    if device != "cpu":
        return False
    try:
        compiler()
    except NoCompilerError:
        return True
    return False


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
