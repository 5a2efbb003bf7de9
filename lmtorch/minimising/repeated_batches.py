"""Records of evaluations of many problems that outlast a call, for the next one of the same kind.

To record what a function computes, and to write that as a function of its own, costs as much as a
thousand fits of it. Another call finds the records again where the function reaches what it reached
then (`compiling.unchanged`), and arguments that all problems share hold the same numbers: they are
part of the records. A record that is found again is held to the function as a new one is, from the
first evaluation of the call on (`jacobians.learned_many`).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from .._arrays import bits_of
from .._modes import within_something
from ..compiling.keys import NoKeyError
from ..compiling.unchanged import Unchanged, place_of
from ..jacobians.learned_many import LearnedMany
from .user_function import UserFunction

PLAIN = frozenset({type(None), bool, int, float, str})
KEPT = 32  # kinds of calls that a process remembers
ALIKE = 4  # of them with the same code and shapes
SHARED = 2**16  # numbers of the arguments that all problems share, which are compared in each call
PROGRAMS = 6  # for functions of a kind: two of each of three
NEW = 8  # times that the functions of a kind may change before nothing more is kept of it

_KNOWN: OrderedDict[Any, list["_Repeated"]] = OrderedDict()
_CHANGED: dict[Any, int] = {}
_TRACED: dict[Any, set[str]] = {}  # the keys of programs for functions of a kind
_LOCK = threading.Lock()


@dataclass
class _Repeated:
    """What is known of one function with arguments that all problems share."""

    unchanged: Unchanged
    shared: list[Tensor]
    learned: LearnedMany

    def holds(self, function: Any, shared: Sequence[Tensor]) -> bool:
        """Whether it is the same function, with the same numbers."""
        return self.unchanged.holds(function) and all(map(_same, shared, self.shared))


def learned_of(calling: UserFunction, x: Tensor) -> LearnedMany:
    """What is known of evaluations of a function for many problems, of earlier calls as well.

    Args:
        calling: the function with its arguments.
        x: where its problems begin, (b, n).

    Returns:
        What this call may use, and adds to.
    """
    found = _described(calling, x)
    if found is None:
        return LearnedMany()
    place, function, shared = found
    with _LOCK:
        for known in _KNOWN.get(place, ()):
            if known.holds(function, shared):
                _KNOWN.move_to_end(place)
                known.learned = LearnedMany(known.learned)
                return known.learned
        changed = _CHANGED[place] = _CHANGED.get(place, 0) + 1
        if len(_CHANGED) > 2**10:
            _CHANGED.clear()
        if changed > NEW:
            return LearnedMany()
        try:
            unchanged = Unchanged(function)
        except NoKeyError:
            _CHANGED[place] = NEW
            return LearnedMany()
        if unchanged.speaks:  # to call it does more than to compute
            return LearnedMany()
        copies = [one.detach().clone() for one in shared]
        known = _Repeated(unchanged, copies, LearnedMany())
        _KNOWN[place] = [known, *_KNOWN.pop(place, [])][:ALIKE]
        while len(_KNOWN) > KEPT:
            _KNOWN.popitem(last=False)
        return known.learned


def only_computes(calling: UserFunction, x: Tensor, key: str) -> bool:
    """Whether all that a function of problems from x (b, n) does is to compute, again and again.

    Args:
        calling: the function with its arguments.
        x: where its problems begin.
        key: of its program, which is another where anything that the function reaches is.

    Returns:
        False where it prints, or where functions of its code have been others some times before, as
        those that close over their data: a program for each would take longer than it saves.
    """
    found = _described(calling, x)
    if found is None:
        return False
    place, function, _ = found
    with _LOCK:
        keys = _TRACED.setdefault(place, set())
        if key not in keys and len(keys) >= PROGRAMS:
            return False
        keys.add(key)
        if len(_TRACED) > 2**10:
            _TRACED.clear()
    try:
        return not Unchanged(function).speaks
    except NoKeyError:
        return False


def _described(calling: UserFunction, x: Tensor) -> tuple[Any, Any, list[Tensor]] | None:
    """Describe a call.

    Returns:
        What tells it from others, the user's function, and what all problems share. None: it is of
        no kind of which anything is kept.
    """
    function: Callable[..., Any] = calling.function
    more: Any = ()
    owner = function.__self__ if type(function) is MethodType else None
    if type(owner).__module__.startswith("lmtorch."):  # a fit of a curve: its data are arguments
        evaluates = getattr(owner, "evaluates", None)
        if evaluates is None:
            return None
        function, more = evaluates
    simple = calling.tree is None and calling.unknowns.tree is None and not calling.kwargs
    plain = simple and not calling.arrays and x.device.type == "cpu" and not within_something()
    if not (plain and calling.shares):
        return None
    shared, forms = list[Tensor](), list[Any]()
    for place, leaf in enumerate(calling.leaves):
        if place in calling.places:
            share = calling.shares[calling.places.index(place)]
            forms.append(("own", share.shape[1:], share.dtype, leaf.requires_grad))
        elif type(leaf) is Tensor and leaf.device.type == "cpu" and leaf.layout is torch.strided:
            shared.append(leaf)
            forms.append((leaf.shape, leaf.dtype, leaf.requires_grad))
        elif type(leaf) in PLAIN:
            forms.append((type(leaf), repr(leaf)))
        else:
            return None
    if sum(one.numel() for one in shared) > SHARED:
        return None
    kind = (
        *place_of(function), more, x.shape[-1], x.dtype, calling.unknowns.layout.shapes[0],
        tuple(forms), calling.unit, torch.get_default_dtype(),
    )  # fmt: skip
    return kind, function, shared


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether both hold the same bits, and NaN where the other does."""
    return bits_of(one) == bits_of(other)
