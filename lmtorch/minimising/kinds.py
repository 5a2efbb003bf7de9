"""Which fits are of one kind, and what is known of each kind.

Two fits are of one kind where the code of the function, its options, and the shapes and dtypes of
its numbers are the same. What the first has found out, `repeated_compiled` and `repeated_eager` use
again for the next, as long as the function reaches what it reached then (`compiling.unchanged`).
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from .._modes import within_something
from ..compiling.unchanged import Unchanged, place_of
from .arguments import bounds_as_key
from .solution import Solution
from .user_function import Calls, to_tensor

KEPT = 64  # kinds of fits that a process remembers
ALIKE = 4  # of them with the same code, options and shapes, but other constants
PLAIN = frozenset({type(None), bool, int, float, str})
NUMBERS = frozenset({int, float, np.float64})
KINDS = frozenset({np.dtype(np.float64), np.dtype(np.float32)})
FLOATS = (torch.float64, torch.float32)

_KNOWN: OrderedDict[Any, list["Kind"]] = OrderedDict()
_LOCK = threading.Lock()


class Call(NamedTuple):
    """A fit that may be remembered.

    Attributes:
        place: what tells its kind from others.
        function: the user's own.
        x: the start, (n,).
        args: of the function, numbers and tensors.
        tensors: those that are tensors, contiguous.
        acceptable: the largest cost that is believed.
        own: whether nobody else writes into the arguments, so that they need no copies.
    """

    place: tuple[Any, ...]
    function: Any
    x: Tensor
    args: list[Any]
    tensors: list[Tensor]
    acceptable: float
    own: bool = False


def call_of(
    fun: Callable[..., Any],
    x0: Any,
    args: Sequence[Any],
    options: tuple[Any, ...],
    unusual: tuple[Any, ...],
    acceptable: Any,
    bounds: Any,
) -> Call | None:
    """Look at a call before anything is done.

    Args:
        fun: the user's function.
        x0: the start.
        args: further arguments.
        options: everything else that decides how it is solved.
        unusual: options that nothing is remembered with.
        acceptable: the largest cost that is believed.
        bounds: of the parameters.

    Returns:
        What is known of it; None: it is of no kind that is remembered.
    """
    kinds = tuple(map(type, options))
    if not plain(options):
        return None
    start, most = start_of(x0), math.inf if acceptable is None else _number(acceptable)
    box = bounds_as_key(bounds)
    if start is None or most is None or box is None or any(value is not None for value in unusual):
        return None
    function, more = fun, ()
    owner = fun.__self__ if type(fun) is MethodType else None
    if type(owner).__module__.startswith("lmtorch."):  # a fit of a curve: its data are arguments
        function, more = getattr(owner, "computes", None) or (fun, ())
    x, shape, numpy = start
    leaves, tensors, forms = list[Any](), list[Tensor](), list[Any]()
    for arg in args:
        kind = type(arg)
        if kind is np.ndarray:
            arg = to_tensor(arg, x.device)
        if type(arg) is Tensor:
            if arg.device.type != "cpu" or arg.requires_grad or arg.layout is not torch.strided:
                return None
            tensors.append(arg.contiguous())
            forms.append((kind, arg.shape, arg.dtype))
        elif kind in PLAIN:
            forms.append((kind, repr(arg)))
        else:
            return None
        leaves.append(arg)
    place = (
        *place_of(function), more, options, kinds, box, shape, x.dtype, numpy, tuple(forms),
        torch.get_default_dtype(),
    )  # fmt: skip
    return Call(place, function, x, leaves, tensors, most)


def plain(options: tuple[Any, ...]) -> bool:
    """Whether options are names and numbers, and torch runs in no mode of its own."""
    usual = PLAIN.issuperset(map(type, options)) or all(map(_plain, options))
    return usual and not within_something()


def _plain(value: Any) -> bool:
    """Whether an option is a name or a number, or a tuple of them."""
    return type(value) in PLAIN or (type(value) is tuple and PLAIN.issuperset(map(type, value)))


def _number(acceptable: Any) -> float | None:
    """One cost; None: it is something else."""
    if type(acceptable) in NUMBERS or (type(acceptable) is Tensor and acceptable.ndim == 0):
        cost = float(acceptable.detach() if type(acceptable) is Tensor else acceptable)
        return None if math.isnan(cost) else cost
    return None


class Begin(NamedTuple):
    """A start."""

    x: Tensor  # (n,), with memory of its own
    shape: Any
    numpy: bool  # whether results are NumPy's


def start_of(x0: Any) -> Begin | None:
    """Read a start.

    Args:
        x0: as the user has given it.

    Returns:
        The start; None: it is of a kind with which nothing is remembered.
    """
    kind = type(x0)
    if kind is Tensor:
        if x0.device.type != "cpu" or x0.dtype not in FLOATS or x0.layout is not torch.strided:
            return None
        flat = x0.detach().reshape(-1).clone()
        return Begin(flat, x0.shape, False) if _finite(flat) else None
    if kind is list or kind is tuple:
        if not NUMBERS.issuperset(map(type, x0)):
            return None
    elif kind is not np.ndarray and kind not in NUMBERS:
        return None
    array = np.array(x0)
    if array.dtype not in KINDS:
        if array.dtype.kind not in "iu":
            return None
        array = array.astype(np.float64)
    flat = array if array.ndim == 1 else array.reshape(-1)
    if not flat.size or not _finite(flat):
        return None
    # a number is a vector of one
    return Begin(torch.from_numpy(flat), array.shape or (1,), True)


def _finite(few: Any) -> bool:
    """Whether a few numbers are finite; NumPy's own way to ask takes longer."""
    return all(map(math.isfinite, few.tolist()))


class Kind(Protocol):
    """A kind of fit that is remembered."""

    @property
    def unchanged(self) -> Unchanged:
        """Tells whether the function is as it was."""

    def solve(self, fun: Callable[..., Any], call: Call, calls: Calls) -> Solution | None:
        """Solve another fit of the kind; None: it has to be found as the first time."""


def solved(fun: Callable[..., Any], call: Call, calls: Calls) -> Solution | None:
    """Solve a fit of a kind that is remembered.

    Args:
        fun: the user's function.
        call: of the fit.
        calls: counts calls of the function.

    Returns:
        The solution; None: it has to be found as ever.
    """
    for known in _KNOWN.get(call.place, ()):
        if known.unchanged.holds(call.function):
            return known.solve(fun, call, calls)
    return None


def put(place: Any, known: Kind) -> None:
    """Keep a kind of fit, and forget the oldest of too many."""
    with _LOCK:
        alike = _KNOWN.pop(place, [])
        _KNOWN[place] = [known, *alike][:ALIKE]
        while len(_KNOWN) > KEPT:
            _KNOWN.popitem(last=False)
