"""Whether a fit has ended beside its data because a variable changed its sign on the way.

From a start that is right to a factor of two, a step may carry a time or a capacity beyond zero, to
a minimum where it is negative: an arc of an impedance turns over there, and no step leads back. The
same start with that variable held on its side of zero tells: where it ends lower, that is said.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..._arrays import tensor_of
from ..._errors import stopped
from ..._threads import quiet
from ...minimising.solution import Solution
from ..fitter import Fitter
from ..inference.selection import of_some
from ..starts.blind import each_beside

LOWER = 0.9  # share of the cost below which another minimum is told of
# of a batch: what is tried takes longer than hundreds of its fits, so that a few are, for all
FEWEST = 0.01  # of the fits, below which none is tried
MOST = 16  # that are tried
# of the fewest fits that count so many are among those that are looked at first, on average; that
# fewer than `SHOW` of them are happens once in 59,000 batches
AMONG, SHOW = 20, 5


def changed(fitter: Fitter, solution: Solution, u: Tensor) -> str:
    """What is said of fits that end lower where variables keep the sign of their start.

    Of a batch nothing is said where fewer than one fit in a hundred may be such a one, and some are
    looked at where many are.

    Args:
        fitter: of one fit or a batch (...).
        solution: of the fit.
        u: the start that was given, (..., n).

    Returns:
        A sentence; empty: there are none.
    """
    names = fitter.parameters.variables
    start = tensor_of(u).detach().reshape(-1, len(names))
    end = tensor_of(solution.x).detach().reshape(start.shape)
    turned = start * end < 0
    fewest = max(1, FEWEST * len(start))
    suspects = turned.any(-1).nonzero()[:, 0]
    if len(suspects) < fewest:
        return ""
    if fitter.data.lead:
        some = _spread(suspects, AMONG / fewest)
        if len(_beside(fitter, solution, some)) < min(SHOW, fewest):
            return ""
        suspects = _beside(fitter, solution, suspects)
    elif not bool(each_beside(fitter.data, tensor_of(solution.fun).detach())):
        return ""
    if len(suspects) < fewest:
        return ""
    which = suspects[:: -(-len(suspects) // MOST)]
    cost = tensor_of(solution.cost).detach().reshape(-1)[which]
    other = _held(fitter, which, start[which], turned[which])
    better = other < LOWER * cost
    if not bool(better.any()):
        return ""
    found = which[better]
    first = int(found[0])
    columns = turned[found].any(0).nonzero()[:, 0].tolist()
    asked = _sides(names, columns, start[first])
    times = float((cost / other)[better][0])
    share = f"a sum of squares {times:.2g} times less"
    if fitter.likelihood is not None:
        share = "a lower minimum"
    if fitter.data.lead:
        few = len(which) < len(suspects)
        seen = suspects if few else found
        tried = (
            f" Of the {len(which)} that were looked at {len(found)} need not have." if few else ""
        )
        return (
            f"{len(seen)} of {len(start)} fits have ended beside their data, where a parameter "
            f"has changed its sign.{tried} With {asked} the start of that of index {first} leads "
            f"to {share}."
        )
    ways = ", ".join(
        f"{names[i]} (from {float(start[0, i]):.3g} to {float(end[0, i]):.3g})" for i in columns
    )
    which_sign = "its sign" if len(columns) == 1 else "their signs"
    return (
        f"the fit has ended beside the data, where {ways} changed {which_sign}: with {asked} "
        f"the same start leads to {share}."
    )


def _spread(places: Tensor, share: float) -> Tensor:
    """So large a share of places (k,), which meets no pattern among them by the golden ratio."""
    rank = torch.arange(len(places), device=places.device)
    return places[rank * 40503 % 65536 < share * 65536]


def _beside(fitter: Fitter, solution: Solution, places: Tensor) -> Tensor:
    """Those of some fits of a batch, at `places` (k,), that have ended beside their data."""
    residual = of_some(solution, "fun", places).reshape(len(places), -1)
    return places[each_beside(fitter.data.some(places), residual)]


def _held(fitter: Fitter, which: Tensor, start: Tensor, turned: Tensor) -> Tensor:
    """The costs of fits (b,) whose variables may not turn; infinite where they came to nothing."""
    lower, upper = (side.expand(start.shape[-1:]).to(start) for side in fitter.bounds)
    lower = torch.where(turned & (start > 0), lower.clamp(min=0.0), lower)
    upper = torch.where(turned & (start < 0), upper.clamp(max=0.0), upper)
    nothing = torch.full_like(start[:, 0], torch.inf)
    if fitter.data.lead:
        whole = fitter.start if fitter.start.ndim == 1 else fitter.start.flatten(0, -2)[which]
        fitter = replace(fitter, data=fitter.data.some(which), start=whole)
    else:
        start, lower, upper = start[0], lower[0], upper[0]
    quietly: dict[str, Any] = {"callback": None, "verbose": 0, "progress": False, "history": False}
    try:
        with quiet():  # what is to be said was said of the fit itself
            found = fitter.solve(start, bounds=(lower, upper), **quietly)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a second look may not cost the fit
        if stopped(error):
            raise
        return nothing
    success = tensor_of(found.success).reshape(-1).to(start.device)
    return torch.where(success, tensor_of(found.cost).detach().reshape(-1).to(nothing), nothing)


def _sides(names: Sequence[str], columns: Sequence[int], start: Tensor) -> str:
    """Bounds that hold variables on the side of zero where they started, as an argument."""
    sides = [f"'{names[i]}': {'(0, inf)' if start[i] > 0 else '(-inf, 0)'}" for i in columns]
    return f"bounds={{{', '.join(sides)}}}"
