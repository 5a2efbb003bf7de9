"""Parameters that have run away in some fits of a batch, see `runaways.py` for what that is.

A fit that has run away is a success for its curve and none for its parameter: its status says so.
Errors tell who has run away, and J of all fits of a batch may take as long as the fits. So J is
made of those alone that have gone far from their start; and where many have, as all of them do from
a start that is far off, of those that have gone far beyond the others. The rest is all alike: a
sample of it says whether it has to be looked at one by one.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import _memory
from ..._arrays import tensor_of, to_array
from ..._autodiff import ranges
from ..._errors import InputError
from ...core.termination import Status
from ...minimising.solution import Later, Solution
from ..fitter import Fitter
from .runaways import FAR, UNSEEN, unit_errors

SAMPLE = 64  # fits that are looked at in any case
NAMED = 3  # places of fits that a warning names
RUNAWAY = int(Status.RUNAWAY)
_TOLD = ContextVar("_TOLD", default=True)  # of this thread; Python's filters are of all


@contextmanager
def untold() -> Iterator[None]:
    """Surrounds fits of which nothing is to be said but by their statuses."""
    before = _TOLD.set(False)
    try:
        yield
    finally:
        _TOLD.reset(before)


def silent() -> bool:
    """Whether nothing is to be said of a batch, see `untold`."""
    return not _TOLD.get()


def mark(fitter: Fitter, solution: Solution, start: Tensor) -> str:
    """Give the fits of a batch by squares in which a parameter has run away a status of their own.

    Args:
        fitter: of the fits.
        solution: where they have ended; those that are no success keep their status.
        start: of the variables, (..., n).

    Returns:
        What a user should know of them; empty where there are none.
    """
    away = runaways_of_many(fitter, solution, start)
    if away is None:
        return ""
    gone = away.any(-1)
    status = tensor_of(solution["status"])
    changed = torch.where(gone.to(status.device), RUNAWAY, status).to(status.dtype)
    given = to_array if isinstance(solution["status"], np.ndarray) else torch.Tensor.detach
    solution["status"] = given(changed)
    _reword(solution, gone.tolist())
    return "" if silent() else _told(fitter, gone, away)


def runaways_of_many(fitter: Fitter, solution: Solution, start: Tensor) -> Tensor | None:
    """Which variables of the fits of a batch that are successes have run away.

    Args:
        fitter: of the fits.
        solution: where they have ended.
        start: of the variables, (..., n).

    Returns:
        They, (b, n) bool; None: none has.
    """
    if fitter.likelihood is not None:
        return None
    x = tensor_of(solution.x).detach().abs()
    begun = start.detach().abs().reshape(-1, x.shape[-1])
    far = (x > FAR * begun) & (begun > 0)
    if not bool(far.any()):
        return None
    far &= (tensor_of(solution.status) > 0)[:, None]
    if fitter.bounded:  # of what is held at a bound no error is known
        far &= tensor_of(solution.active_mask) == 0
    away = torch.zeros_like(far)
    for rows in _suspected(fitter, solution, far, x):
        away[rows] = _looked(fitter, solution, far, rows)
    return away if bool(away.any()) else None


def _suspected(fitter: Fitter, solution: Solution, far: Tensor, x: Tensor) -> list[Tensor]:
    """The fits whose J is made.

    Args:
        fitter: of the fits.
        solution: where they have ended.
        far: which variables are far from their start, (b, n) bool.
        x: sizes of the variables, (b, n).

    Returns:
        Their numbers, (k,) each, so many that J of all fits the memory.
    """
    some = far.any(-1)
    rows = some.nonzero()[:, 0]
    if len(rows) > SAMPLE:
        apart = (far & (x > FAR * x.nanmedian(0).values)).any(-1)
        alike = (some & ~apart).nonzero()[:, 0]
        sample = alike[:: max(1, -(-len(alike) // SAMPLE))]
        if not (len(sample) and bool(_looked(fitter, solution, far, sample).any())):
            rows = apart.nonzero()[:, 0]
    each = 4 * fitter.data.m * x.shape[-1] * torch.float64.itemsize
    block = _memory.stream_rows(each, x.device, cache=_memory.CACHE_ROWS)
    return [rows[chosen] for chosen in ranges(len(rows), block)]


def _looked(fitter: Fitter, solution: Solution, far: Tensor, rows: Tensor) -> Tensor:
    """Which variables of some fits (k,) have run away, (k, n) bool."""
    x, cost = tensor_of(solution.x).detach()[rows].abs(), tensor_of(solution.cost)[rows]
    freedom = fitter.data.count.reshape(-1).to(cost.device)[rows] - fitter.varying
    with suppress(InputError):  # of a function that has changed there is no J, and nothing to say
        jacobian = to_array(tensor_of(_jacobian(solution, rows))).astype(np.float64)
        error = torch.from_numpy(unit_errors(jacobian, unbounded=True)).to(x.device)
        deviation = torch.where(freedom > 0, 2 * cost.detach() / freedom, 0.0).double().sqrt()
        return far[rows] & (x < UNSEEN * deviation[:, None] * error)
    return torch.zeros_like(far[rows])


def _jacobian(solution: Solution, rows: Tensor) -> Any:
    """J of some fits, (k, m, n), whether it was kept or not."""
    if solution.waits("jac"):
        return solution.part("jac", rows)
    kept = tensor_of(solution.jac).detach()
    return kept[rows.to(kept.device)]


def _reword(solution: Solution, gone: list[bool]) -> None:
    """Give the fits that have run away their message, where messages are asked for."""
    first, said = Solution(message=dict.__getitem__(solution, "message")), Status.RUNAWAY.message

    def words(chosen: slice) -> list[str]:
        own = first.part("message", chosen)
        return [said if g else text for g, text in zip(gone[chosen], own, strict=True)]

    solution["message"] = Later(lambda: words(slice(None)), words)


def _told(fitter: Fitter, gone: Tensor, away: Tensor) -> str:
    """What a user should know: how many, the first of them, and of which parameters."""
    names = fitter.parameters.variables
    ran = ", ".join(names[i] for i in away.any(0).nonzero()[:, 0].tolist())
    places = gone.nonzero()[:, 0].tolist()
    lead = fitter.data.lead
    at = [tuple(int(i) for i in np.unravel_index(place, lead)) for place in places[:NAMED]]
    first = ", ".join(str(place[0] if len(lead) == 1 else place) for place in at)
    more = ", ..." if len(places) > NAMED else ""
    return (
        f"in {len(places)} of {math.prod(lead)} fits a parameter ran away ({ran}; fits {first}"
        f"{more}; their status is RUNAWAY): the curve hardly depends on it there, and the cost "
        "falls towards its infinity, if at all. The data may not determine it: fix it, bound it, "
        "leave its term out, or start nearer."
    )
