"""The compiled descent in the place of the loop's own, where it can be had and is right.

Programs are kept in memory, and on disk for other processes. The first time that a process uses one
it is held to the loop itself, on the data at hand: the linear models at the starts, and the points
after one trial. Ends that the program cannot judge, such as those where digits are in doubt, go on
with the loop.
"""

import pickle
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..arrays import places, put, take
from ..core.loop import descend
from ..core.method import Method
from ..core.problem import Problem
from ..core.state import Begun, Start, State, blank, fresh
from ..core.termination import RUNNING, Status
from ..jacobians.ladder import Ladder
from . import parallel
from .building import NoCompilerError, folder, kept
from .doubtful import alone, go_on, longer
from .given import Given
from .grids import UnsupportedError
from .iteration import iterate, start, whole
from .parallel import Parallel
from .programs import ALONE, MANY, Descended, Program, written
from .recipes import ARRAYS, Recipe
from .replayed import Replayed
from .single import End

KEPT = 64  # programs that a process keeps in memory
LOOKED_AT = 4  # fits whose first iteration is held to the loop's
AGREE = 0.45  # power of round-off: relative difference from the loop's numbers that is allowed
LEFT = 0.4  # likewise: share of the first residuals that stands for any smaller one
# parts of a linear model that are compared, and what a user calls them
COMPARED = {"cost": "residuals", "gradient": "gradient", "normal": "derivatives"}
T = TypeVar("T")
_LOCK = threading.RLock()
_PROGRAMS: OrderedDict[str, "Program | str"] = OrderedDict()  # a string: why there is none
_RIGHT: set[str] = set()  # programs that were held to the loop in this process


class Compiled(NamedTuple):
    """Where fits have ended.

    Attributes:
        state: of all fits.
        gradient: (..., n), of all variables; of fits whose end the loop has found it is old.
        cosine: (...,), the largest between the residuals and a column of J, likewise.
        left: (k,), the fits whose end the loop has found, or has still to find.
        later: (j,), those whose end it has still to find.
    """

    state: State
    gradient: Tensor
    cosine: Tensor
    left: Tensor
    later: Tensor


class RefusedError(Exception):
    """Why there is no compiled descent, in words."""


def compiled(recipe: Recipe, x: Tensor, key: str, *, only_known: bool = False) -> Program | None:
    """Find or make the program of a recipe for fits x (b, n), held to the loop.

    Args:
        recipe: what is compiled.
        x: the starts.
        key: of the program, see `Recipe.key`.
        only_known: take it from memory or disk, or leave it.

    Returns:
        The program; None if it is not known yet, and only that was asked for.

    Raises:
        RefusedError: there is none.
    """
    with _LOCK:
        found = _PROGRAMS.get(key)
        if found is None:
            found = _from_disk(key, x.device)
            if found is None and only_known:
                return None
            if found is None:
                found = _new(recipe, x)
                if isinstance(found, Program):
                    _to_disk(key, found)
            _keep(key, found)
        _PROGRAMS.move_to_end(key)
        if isinstance(found, Program) and key not in _RIGHT:
            try:
                wrong = _wrong(recipe, found, x)
            except NoCompilerError as error:  # a device may refuse to run what it has loaded
                wrong = str(error)
            if wrong:
                found = wrong
                _keep(key, found)
            else:
                _RIGHT.add(key)
    if isinstance(found, str):
        raise RefusedError(found)
    return found


def held(problem: Problem, state: State) -> bool:
    """Whether the function gives the costs (b,) with which a program has ended, for some fits."""
    x, cost, first = state.x, state.cost, state.begun.cost
    places = torch.linspace(0, len(x) - 1, min(len(x), LOOKED_AT), device=x.device).long()
    found, cost, eps = problem.take(places).cost(x[places]), cost[places], problem.eps(x)
    apart = (found - cost).abs() > eps**AGREE * (cost + eps ** (2 * LEFT) * first[places])
    return not bool((apart | (found.isfinite() != cost.isfinite())).any())


def doubt(program: Program) -> None:
    """Hold a program to the loop once more before it is used again."""
    with _LOCK:
        _RIGHT.difference_update([key for key, one in _PROGRAMS.items() if one is program])


def _keep(key: str, found: "Program | str") -> None:
    _PROGRAMS[key] = found
    while len(_PROGRAMS) > KEPT:
        _PROGRAMS.popitem(last=False)


def _new(recipe: Recipe, x: Tensor) -> "Program | str":
    """The program, or why there is none."""
    try:
        if recipe.device == "cpu":
            layout = ALONE if recipe.alone else MANY
            program = written(recipe.make, recipe.method, x, recipe.given, layout)
        elif recipe.device == ARRAYS:
            program = written(recipe.make, recipe.method, x, recipe.given, None, Replayed)
        else:
            program = written(
                recipe.make, recipe.method, x, recipe.given, parallel.LAYOUT, Parallel
            )
        program.ready(x.device)
    except (UnsupportedError, NoCompilerError) as error:
        return str(error)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever torch says of a function that it cannot trace
        line = next((line for line in str(error).splitlines() if line.strip()), "")
        return f"{type(error).__name__}: {line[:200]}"
    return program


def _from_disk(key: str, device: torch.device) -> Program | None:
    place = kept(key)
    # a file of an earlier version, or one that is damaged, is no program
    with suppress(Exception):
        with place.open("rb") as file:
            found = pickle.load(file)
        if isinstance(found, Program):
            found.ready(device)
            return found
    return None


def _to_disk(key: str, program: Program) -> None:
    with suppress(OSError, pickle.PicklingError, AttributeError):
        folder().mkdir(parents=True, exist_ok=True)
        scratch = folder() / f"{key}.{threading.get_ident()}"
        scratch.write_bytes(pickle.dumps(program))
        scratch.replace(kept(key))


def _wrong(recipe: Recipe, program: Program, x: Tensor) -> str:
    """Where a program differs from the loop on some of the fits; empty: nowhere."""
    places = torch.linspace(0, len(x) - 1, min(len(x), LOOKED_AT), device=x.device).long()
    some = [g if g.shared else Given(g.tensor[places], False) for g in recipe.given]
    *tensors, numbers = (g.tensor for g in some)
    problem, method, x = recipe.make(tensors), whole(recipe.method, numbers), x[places]
    # by other means than those that were traced, and on a ladder of its own: what does not fit here
    # may do so in the fit itself
    problem = replace(problem, source=Ladder(recipe.source.rungs))
    loop = start(problem, method, x)
    model, first = loop.linearization, loop.linearization.cost
    for trials in (0, 1):
        ours = program.run(x, some, trials, newton=-1, everything=True).standing
        going = loop.state.status == RUNNING  # of others the end was looked at, too
        if trials:
            loop = iterate(problem, method, loop)
            going = loop.state.status == RUNNING
            apart = _steps_apart(ours.state.x, loop.state.x, x, model, problem.eps(x))
            if bool(apart[going].any()):
                return "the compiled step is not that of the function itself"
            # where steps differ by round-off, costs of the points may differ by more
            model = problem.model(ours.state.x)
        for name, what in COMPARED.items():
            mine, other = getattr(ours.linearization, name), getattr(model, name)
            apart = _apart(mine, other, model, first, name, problem.eps(x))
            if bool((apart.flatten(1).any(-1) if apart.ndim > 1 else apart)[going].any()):
                return f"the compiled {what} disagree with what the function itself gives"
    return ""


def _steps_apart(mine: Tensor, other: Tensor, x: Tensor, model: Any, eps: float) -> Tensor:
    """Which fits a program has led elsewhere than the loop, by what differs in the residuals.

    Parameters that residuals hardly depend on may differ by more: round-off decides of them.

    Args:
        mine: where the program has come to, (b, n).
        other: where the loop has.
        x: the starts.
        model: the linear model there.
        eps: round-off.

    Returns:
        True where they have gone apart.
    """

    def length(step: Tensor) -> Tensor:
        moved = (model.normal.double() @ step.double()[..., None])[..., 0]
        return (moved * step.double()).sum(-1).clamp(min=0).sqrt()

    size = length(other - x) + eps**LEFT * (2 * model.cost.double()).sqrt()
    apart = length(mine - other) > eps**AGREE * size
    return apart | (mine.isfinite() != other.isfinite()).any(-1)


def _apart(mine: Tensor, other: Tensor, model: Any, first: Tensor, name: str, eps: float) -> Tensor:
    """Which numbers differ by more than round-off, or in whether they are finite.

    Args:
        mine: the program's.
        other: the loop's.
        model: the loop's, at the same point.
        first: cost at the start.
        name: what they are.
        eps: round-off.

    Returns:
        True where they do.
    """
    # of exact data nothing is left after one trial but the round-off of what there was before
    length = ((2 * model.cost).sqrt() + eps**LEFT * (2 * first).sqrt()).to(other.dtype)
    norms = model.column_norms
    size = {
        "cost": length.square() / 2,
        "gradient": length[..., None] * norms,
        "normal": norms[..., :, None] * norms[..., None, :],
    }[name].to(other.dtype)
    there = mine.isfinite() & other.isfinite() & size.isfinite()
    apart = (mine - other).abs() > eps**AGREE * size
    return (apart & there) | (mine.isfinite() != other.isfinite())


def run(
    recipe: Recipe,
    program: Program,
    problem: Problem,
    method: Method,
    begin: Start,
    trials: int,
    allowed: int | None = None,
    later: bool = False,
) -> Compiled:
    """Run fits (b, n), compiled, and with the loop where the program cannot say how they end.

    Args:
        recipe: what was compiled.
        program: the compiled descent.
        problem: of all fits, for the loop.
        method: the loop's.
        begin: the starts (b, n), and where the first of several runs began.
        trials: of each fit, after which no more steps are taken.
        allowed: trials that the last steps, too, must not exceed. Default: the same.
        later: where the program cannot say it, `go_on` is called for what is left, and not here.

    Returns:
        Where they end.
    """
    x, begun = begin.x, begin.begun
    ended = program.run(x, recipe.given, trials, begun=begun)
    unsure = ended.standing.state
    # of what is sure nobody asks what only a run in progress, or a doubt, needs
    spent = _spent(unsure)._replace(damping=None)
    state = _written(_state(ended, x), ended.places, spent, {x.data_ptr()})
    left = ended.places[~_told(unsure, ended.told[ended.places])]
    waiting = left if later else left[:0]
    if len(left) and not later:
        some = Start(x[left], begun=None if begun is None else take(begun, left))
        part = recipe.of(left), problem.take(left), method.take(left)
        state = put(state, left, go_on(*part, some, take(state, left), trials, allowed))
    over = state.trials > (trials if allowed is None else allowed)
    over[waiting] = False
    if count := int(over.sum()):  # the program does not count what the last steps may still cost
        again = places(over, count)
        state = put(state, *alone(recipe, problem, method, begin, trials, again))
        left = torch.cat([left, again]).unique()
    return Compiled(state, ended.gradient, ended.cosine, left, waiting)


def run_single(
    recipe: Recipe, program: Program, problem: Problem, method: Method, begin: Start, trials: int
) -> Compiled:
    """Where one fit from (n,) ends; with the loop where the program cannot say how."""
    found = _run_single(recipe, program, problem, method, begin, trials)
    if int(found.state.trials) <= trials:
        return found
    # the program does not count what the last steps may still cost
    after, _ = descend(problem, method, begin, trials=trials)
    return found._replace(state=after._replace(damping=None))


def _run_single(
    recipe: Recipe, program: Program, problem: Problem, method: Method, begin: Start, trials: int
) -> Compiled:
    x, begun = begin.x, begin.begun
    given = [g.tensor.contiguous() for g in recipe.given]
    at_once = recipe.device == "cpu" and begun is None
    if at_once and (end := program.single.run(x.contiguous(), given, trials)):
        return _at_once(end, x)
    begun = None if begun is None else Begun(*(part[None] for part in begun))
    ended = program.run(x[None], recipe.given, trials, begun=begun)
    unsure = ended.standing.state
    state = _state(ended, x[None])
    if len(ended.places):
        state = _spent(unsure)._replace(damping=None)
    none = ended.places[None]
    alone: Compiled = _first(Compiled(state, ended.gradient, ended.cosine, none, none[:, :0]))
    if not len(ended.places) or bool(_told(unsure, ended.told)):
        return alone
    before = alone.state
    near = int(before.status) > 0 or int(before.status) == Status.EVALUATIONS
    begin = Start(before.x if near else x, begun=before.begun if near else begin.begun)
    after, _ = descend(problem, method, begin, trials=trials)
    return alone._replace(state=longer(after, before.trials, before.linearizations))


def _state(ended: Descended, x: Tensor) -> State:
    """The state of all fits, in which nothing is known of what only a run in progress needs."""
    nothing = torch.zeros_like(x, dtype=torch.float64)
    state = fresh(ended.x, ended.cost, ended.status, nothing, None, Begun(x, ended.cost, nothing))
    certificate = blank(x)._replace(promise=ended.promise, lowest=ended.lowest)
    return state._replace(
        trials=ended.trials, linearizations=ended.linearizations, certificate=certificate
    )


def _written(whole: T, places: Tensor, part: T, others: set[int]) -> T:
    """As `put`, but in place, but for `others`: a copy of everything for a few costs as they do."""
    if isinstance(whole, tuple):
        made: Any = whole
        new: Any = part
        return made._make(_written(a, places, b, others) for a, b in zip(made, new, strict=True))
    if not isinstance(whole, Tensor):
        return part
    assert isinstance(part, Tensor)
    found: Any = whole
    if whole.data_ptr() in others or 0 in whole.stride():  # in two places of the state, or not ours
        found = whole.clone(memory_format=torch.contiguous_format)
    others.add(found.data_ptr())
    return found.index_copy_(0, places, part)


def _at_once(end: End, x: Tensor) -> Compiled:
    """Where one fit has ended, if the program is sure of it."""
    place, gradient = torch.from_numpy(end.x), torch.from_numpy(end.gradient)
    cost, promise = torch.tensor(end.cost), torch.tensor(end.promise)
    counts = torch.tensor([end.status, end.trials, end.linearizations]).unbind()
    nothing = torch.zeros_like(x, dtype=torch.float64)
    state = fresh(place, cost, counts[0], nothing, None, Begun(x, cost, nothing))
    certificate = blank(x)._replace(promise=promise)
    state = state._replace(trials=counts[1], linearizations=counts[2], certificate=certificate)
    none = torch.empty(0, dtype=torch.int64)
    return Compiled(state, gradient, torch.tensor(end.cosine), none, none)


def _told(state: State, seen: Tensor) -> Tensor:
    """Whether nothing more is to be said of ends (b,) than the program has said, (b,) bool."""
    return seen | (state.status == RUNNING)


def _spent(state: State) -> State:
    """The state in which those that still run have used up their trials."""
    over = state.status == RUNNING
    return state._replace(status=torch.where(over, int(Status.EVALUATIONS), state.status))


def _first(value: Any) -> Any:
    """The only fit of a batch of one."""
    if isinstance(value, tuple):
        made: Any = value
        return made._make(_first(part) for part in made)
    return value[0] if isinstance(value, Tensor) else value
