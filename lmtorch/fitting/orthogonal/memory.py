"""What is seen of a model before a fit with errors in x, and remembered for others of its kind.

To look at a function, to plan, and to hold derivatives to a backward pass costs fifty points as
much as the fit itself. As of plain fits (`minimising.repeated_eager`) what was found is used again
where everything that the function reaches is as it was; after some fits its evaluations are
recorded and replayed, and then the function itself is asked once more at the end.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...choose import Plan
from ...compiling.keys import NoKeyError
from ...compiling.unchanged import Unchanged, place_of
from ...core.method import Method
from ...jacobians.base import JacobianSource
from ...jacobians.dual_numbers import DualNumbers
from ...jacobians.learned import Evaluations
from ...minimising.kinds import plain
from .fitter import OrthogonalFitter, Points

KEPT = 32  # kinds of fits that a process remembers
NEW = 3  # times that a function of a kind has changed after which nothing more is kept of it
LEARNING = 4  # fits of a kind before its evaluations are recorded


class Look(NamedTuple):
    """What is seen of a function before a fit, and how it is fitted."""

    plan: Plan
    still: Method  # without errors in x
    rungs: Sequence[JacobianSource]
    arrays: bool  # it is called on arrays
    looped: bool  # and for each fit of a batch by itself
    black_box: bool  # no derivatives lead through it


@dataclass(frozen=True)
class Kind:
    """A kind of fit that is remembered.

    Attributes:
        place: what tells it from others.
        unchanged: tells whether the function is as it was.
        look: what was seen of it, with the source of derivatives that was found to be right first.
        still: what is known of its evaluations without errors in x.
        moved: with them.
        fits: for each that was made so, an entry.
    """

    place: Any
    unchanged: Unchanged
    look: Look
    still: Evaluations = field(default_factory=Evaluations)
    moved: Evaluations = field(default_factory=Evaluations)
    fits: list[None] = field(default_factory=list)

    @property
    def learns(self) -> bool:
        """Whether evaluations of the next fit are recorded, or replayed."""
        return len(self.fits) >= LEARNING and not self.unchanged.speaks


_KNOWN: OrderedDict[Any, Kind] = OrderedDict()
_CHANGED: dict[Any, int] = {}
_LOCK = threading.Lock()


def place(fitter: OrthogonalFitter, u: Tensor, points: Points) -> Any:
    """What tells the kind of a fit from others; None: it is of no kind that is remembered."""
    computes, data = fitter.computes, fitter.data
    given = (u, *points, fitter.start, data.x)
    if computes is None or fitter.jac is not None or u.ndim > 1 or not plain(()):
        return None
    if any(t.device.type != "cpu" or t.requires_grad for t in given):
        return None
    function, more = computes
    return (
        *place_of(function), more, tuple([(t.shape, t.dtype) for t in given]), fitter.bounded,
        data.implicit, data.numpy, data.each, data.every, fitter.tolerances,
        torch.get_default_dtype(),
    )  # fmt: skip


def known(where: Any, fitter: OrthogonalFitter) -> Kind | None:
    """The kind at a place, if its function is as it was."""
    kind = _KNOWN.get(where)
    if kind is None or not kind.unchanged.holds(_function(fitter)):
        return None
    return kind


def keep(where: Any, fitter: OrthogonalFitter, look: Look, source: JacobianSource) -> None:
    """Remember a fit that has ended at a minimum, unless what it reaches cannot be compared.

    Args:
        where: its place.
        fitter: of it.
        look: what was seen.
        source: that has given its derivatives, and was found to be right.
    """
    if type(source) is not DualNumbers or look.arrays or look.black_box:
        return
    with _LOCK:
        changed = _CHANGED[where] = _CHANGED.get(where, -1) + 1
        if changed > NEW:
            return
    try:
        unchanged = Unchanged(_function(fitter))
    except NoKeyError:
        _CHANGED[where] = NEW
        return
    rungs = [rung for rung in look.rungs if rung is not source]
    with _LOCK:
        _KNOWN[where] = Kind(where, unchanged, look._replace(rungs=(source, *rungs)))
        _KNOWN.move_to_end(where)
        while len(_KNOWN) > KEPT:
            _KNOWN.popitem(last=False)
        while len(_CHANGED) > 16 * KEPT:
            del _CHANGED[next(iter(_CHANGED))]


def forget(kind: Kind) -> None:
    """Replay nothing of a kind any more, and look at its function anew."""
    kind.still.refuse()
    kind.moved.refuse()
    with _LOCK:
        _KNOWN.pop(kind.place, None)


def _function(fitter: OrthogonalFitter) -> Any:
    assert fitter.computes is not None
    return fitter.computes[0]
