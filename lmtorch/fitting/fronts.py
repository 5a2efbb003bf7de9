"""What comes before and after a fit of a curve that is remembered, remembered with the fit.

Names, parameters, bounds and options are the same for every fit of a kind (`minimising.kinds`
tells what a kind is). Where they are remembered, only the numbers are new.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..arrays import quiet
from ..compiling.unchanged import place_of
from ..minimising import kinds
from ..minimising.arguments import bounds_as_key
from ..minimising.kinds import KEPT, Call
from ..minimising.solution import Solution
from ..minimising.user_function import Calls
from .doubts.patterns import LARGE, passed_by
from .doubts.runaways import runaways
from .doubts.signs import changed
from .fitter import Fitter
from .inference.inference import Inference
from .measurements.data import Data
from .measurements.owned import NONE, owned, versions_of
from .models import OfNumbers
from .preparing import acceptable_of_one
from .results.result import CurveFit
from .starts.unguessed import misses, searched


class Asked(NamedTuple):
    """A fit of a kind that may be remembered: its place, its points and its start."""

    place: tuple[Any, ...]
    x: Tensor  # (m,) or (k, m)
    y: Tensor  # (m,)
    square: float  # Σ y²
    start: Tensor | None  # (P,); None: it is to be found
    numpy: bool


class Front(NamedTuple):
    """What is remembered."""

    kind: tuple[Any, ...]  # of the fit of `Fitter.residual`
    fitter: Fitter  # without its data
    points: Tensor  # how many there are, (), in float64
    absolute: bool
    full_output: bool
    begin: Callable[[Data], Tensor]  # the start (P,) of data for which there is none


# options with which more is to be done than with the others
OTHERWISE = frozenset(["acceptable", "loss", "f_scale"])
_FRONTS: OrderedDict[Any, Front] = OrderedDict()
_LOCK = threading.Lock()


def asked_of(
    f: Any, xdata: Any, ydata: Any, p0: Any, bounds: Any, options: Mapping[str, Any]
) -> Asked | None:
    """Look at a call of `curve_fit`, all other arguments of which are defaults.

    Args:
        f: the user's function.
        xdata: points.
        ydata: points.
        p0: the start; None: it is found from the data.
        bounds: of the parameters.
        options: all the others.

    Returns:
        What is known of it; None: it is of no kind that is remembered.
    """
    if getattr(ydata, "ndim", 0) != 1:  # before many fits' data are read for nothing
        return None
    box = bounds_as_key(bounds)
    if OTHERWISE.intersection(options) or box is None:
        return None
    names, values = tuple(options), tuple(options.values())
    with quiet():  # of numbers whose squares are none
        points, counted = _points(xdata), _points(ydata)
    if points is None or counted is None:
        return None
    (x, _), (y, square) = points, counted
    if not 0 < x.ndim <= 2:
        return None
    if not kinds.plain(values) or x.shape[-1] != len(y):
        return None
    start = None if p0 is None else _start(p0)
    if start is None and p0 is not None:
        return None
    types = tuple(map(type, values))
    place = (
        place_of(f), box, names, values, types, type(xdata), type(ydata), x.shape, y.shape,
        None if start is None else start.shape, torch.get_default_dtype(),
    )  # fmt: skip
    return Asked(place, x, y, square, start, type(ydata) is np.ndarray)


def _start(p0: Any) -> Tensor | None:
    """A start of numbers in float64, (P,); None: it is of another kind."""
    start = kinds.start_of(p0)
    if start is None or not start.numpy or len(start.shape) != 1:
        return None
    return start.x if start.x.dtype is torch.float64 else None


def _points(data: Any) -> tuple[Tensor, float] | None:
    """Points in float64, all finite, and the sum of their squares; None: of another kind."""
    given = data
    if type(data) is np.ndarray:
        if data.dtype != np.float64:
            return None
        data = np.array(data, order="C")
    elif not (
        type(data) is Tensor
        and data.dtype is torch.float64
        and data.device.type == "cpu"
        and data.layout is torch.strided
        and not data.requires_grad
    ):
        return None
    flat = (data.numpy() if given is data else data).reshape(-1)
    square = float(flat.dot(flat))
    if not (flat.size and math.isfinite(square)):
        return None
    return owned(data)[0] if given is data else torch.from_numpy(data), square


def fitted(f: Any, asked: Asked) -> CurveFit | None:
    """Fit as the one that is remembered.

    Args:
        f: the user's function.
        asked: the call.

    Returns:
        The fit; None: it has to be made as ever.
    """
    front = _FRONTS.get(asked.place)
    if front is None:
        return None
    before = front.fitter
    model: Any = before.model
    if model.function is not f:
        model = copy(model)
        model.function = f
        vars(model).pop("label", None)
    versions = versions_of(asked.x, asked.y)
    own = versions is NONE
    data = object.__new__(Data)  # a frozen one takes longer to be made
    vars(data).update(
        vars(NOTHING),
        x=asked.x, y=asked.y, count=front.points, numpy=asked.numpy, versions=versions,
    )  # fmt: skip
    start = asked.start
    if start is None:
        try:
            start = front.begin(data)
        except Exception:  # whatever it is: the way that is taken the first time knows what to say
            return None
    if not len(asked.y) > len(start):
        return None
    fitter = object.__new__(Fitter)  # as the one before, with what was found of it
    vars(fitter).update(vars(before), model=model, data=data, start=start.clone())
    tensors = [asked.x.contiguous(), asked.y.contiguous(), fitter.start]
    args = [asked.x, asked.y, None, None, fitter.start, None]
    bar = acceptable_of_one(asked.y.numpy())
    call = Call(front.kind, f, start, args, tensors, bar, own)
    solution = kinds.solved(fitter.residual, call, Calls())
    if solution is None or not solution.success or runaways(fitter, solution, start):
        return None
    if searched(fitter, None, asked.start) and misses(data, solution, bar):
        return None  # another start may do better
    turned = asked.start is not None and _turned(start, solution.x)
    if turned and changed(fitter, solution, start):
        return None  # the way that is taken the first time says so
    inference = _inference(fitter, solution, front.absolute, asked)
    if float(solution.cost) > LARGE * bar and passed_by(inference):
        return None
    inference.warn()
    # free parameters are the variables
    return CurveFit(inference, full_output=front.full_output, popt=solution.x)


def _turned(start: Tensor, end: Tensor) -> bool:
    """Whether one of a few numbers has changed its sign."""
    return any(a * b < 0 for a, b in zip(start.tolist(), end.tolist(), strict=True))


def _inference(fitter: Fitter, solution: Solution, absolute: bool, asked: Asked) -> Inference:
    """What follows from a fit of free parameters, with what a quick look at it needs at hand."""
    found = object.__new__(Inference)
    ended, begun = solution.x.tolist(), fitter.start.tolist()
    glance = (
        float(solution.cost), math.sqrt(asked.square), float(len(asked.y)),
        list(map(abs, ended)), list(map(abs, begun)),
    )  # fmt: skip
    vars(found).update(
        fitter=fitter, solution=solution, absolute=absolute, loss=None,
        names=list(fitter.model.names), lead=(), n=fitter.varying, _glance=glance,
    )  # fmt: skip
    return found


def remember(
    asked: Asked,
    fitter: Fitter,
    solution: Solution,
    absolute: bool,
    full_output: bool,
    begin: Callable[[Data], Tensor],
) -> None:
    """Remember what came before a fit, if the fit itself is remembered.

    Args:
        asked: the call.
        fitter: of the fit.
        solution: of the fit.
        absolute: whether errors are.
        full_output: what the fit is unpacked to.
        begin: the start of data for which there is none.
    """
    kind = solution.kind
    if kind is None or type(fitter.model) is not OfNumbers or not fitter.parameters.free:
        return
    empty = Fitter(
        fitter.model, fitter.parameters, NOTHING, fitter.start, fitter.bounds, None, fitter.options
    )
    vars(empty).update(bounded=fitter.bounded, varying=fitter.varying)
    with _LOCK:
        _FRONTS[asked.place] = Front(
            kind, empty, fitter.data.count.detach(), absolute, full_output, begin
        )
        while len(_FRONTS) > KEPT:
            _FRONTS.popitem(last=False)


_NONE = torch.zeros(0)
NOTHING = Data(_NONE, _NONE, None, None, _NONE, True, False, ())
