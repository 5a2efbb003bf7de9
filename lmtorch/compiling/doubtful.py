"""The loop for the few fits whose ends a program cannot judge."""

from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..arrays import places, put, take
from ..core.columns_of_roundoff import heard
from ..core.loop import descend
from ..core.method import Method
from ..core.problem import Problem
from ..core.state import Start, State
from ..core.termination import Status
from ..jacobians.ladder import Ladder
from ..jacobians.learned_many import LearnedMany
from .recipes import Recipe

FEW = 2000  # fits on a GPU up to which the loop runs on the CPU
T = TypeVar("T")


def go_on(
    recipe: Recipe,
    problem: Problem,
    method: Method,
    begin: Start,
    before: State,
    trials: int,
    allowed: int | None = None,
) -> State:
    """Where fits (b, n) end, with the loop, of which the program could not say it.

    Args:
        recipe: what was compiled.
        problem: of these fits.
        method: the loop's.
        begin: the starts (b, n), and where the first of several runs began.
        before: where the program has left them.
        trials: of each fit, after which no more steps are taken.
        allowed: trials that the last steps, too, must not exceed. Default: the same.

    Returns:
        Their state at the end.
    """
    near = (before.status > 0) | (before.status == int(Status.EVALUATIONS))
    if (more := heard(problem, begin.x, problem.model(begin.x))) is not None:
        near = near & more.all(-1)  # the others have followed round-off
    there = Start(
        torch.where(near[:, None], before.x, begin.x),
        begun=before.begun if begin.begun is None else begin.begun,
    )
    after = _looped(recipe, problem, method, there, trials)
    state = longer(after, before.trials, before.linearizations)
    over = state.trials > (trials if allowed is None else allowed)
    if count := int(over.sum()):  # together they are too many
        state = put(state, *alone(recipe, problem, method, begin, trials, places(over, count)))
    return state


def alone(
    recipe: Recipe, problem: Problem, method: Method, begin: Start, trials: int, some: Tensor
) -> tuple[Tensor, State]:
    """Some of the fits, and where they end with the loop alone."""
    start = Start(begin.x[some], begun=None if begin.begun is None else take(begin.begun, some))
    part = recipe.of(some), problem.take(some), method.take(some)
    return some, _looped(*part, start, trials)._replace(damping=None)


def _looped(recipe: Recipe, problem: Problem, method: Method, begin: Start, trials: int) -> State:
    """Where the loop ends: that of a few fits on a GPU runs on the CPU, if the function can.

    There a call costs a tenth: no kernel is launched, for which a few fits wait as long as many.

    Returns:
        Their state at the end.
    """
    device = begin.x.device
    if device.type != "cpu" and len(begin.x) <= FEW:
        with suppress(RuntimeError, TypeError):  # as where it holds tensors of the GPU
            after, _ = descend(*_at_home(recipe, problem, method, begin), trials=trials)
            return _moved(after._replace(damping=None), device)
    return descend(problem, method, begin, trials=trials)[0]


def _at_home(
    recipe: Recipe, problem: Problem, method: Method, begin: Start
) -> tuple[Problem, Method, Start]:
    """The same fits on the CPU."""
    cpu = torch.device("cpu")
    here = recipe.make([given.tensor.to(cpu) for given in recipe.given[:-1]])
    residual: Any = here.residual
    here = replace(
        here,
        residual=replace(residual, refused=[], learned=LearnedMany()),
        source=Ladder(recipe.source.rungs),
        form=problem.form,
        together=problem.together,
        loss=_to(here.loss, "scale", cpu),
    )
    method = replace(method, scaling=_to(method.scaling, "scale", cpu))
    return here, method, Start(begin.x.to(cpu), begun=_moved(begin.begun, cpu))


def _to(value: Any, name: str, device: torch.device) -> Any:
    """A dataclass whose field of a name, if it is a tensor, is on a device."""
    field = getattr(value, name, None)
    return replace(value, **{name: field.to(device)}) if isinstance(field, Tensor) else value


def _moved(value: T, device: torch.device) -> T:
    """All tensors of a state on a device."""
    return tree_map(lambda one: one.to(device) if isinstance(one, Tensor) else one, value)


def longer(state: State, trials: Tensor, linearizations: Tensor) -> State:
    """The state with the effort of what was compiled added to its own."""
    return state._replace(
        damping=None,
        trials=state.trials + trials,
        linearizations=state.linearizations + linearizations,
    )
