"""Functions of the loop that run recorded: what they are given, and when a record is used."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from inspect import isfunction
from typing import Any, NamedTuple

import numpy as np

from ..arrays.border import RECORDED
from .numbers import Number, Vector
from .operators import UnrecordableError
from .trees import MISSING, Tree, function_of
from .values import SCOPE, Entry, Given, Raw, Scribe, real, root

LARGEST = 8  # parameters up to which every entry is written out
KEPT = 64  # methods of which functions are kept
FITS = 8  # runs of a kind before its arithmetic is recorded, which takes as long as some of them
FAILURES = 32  # records in a row that come to nothing, each at the price of some iterations
OFTEN = 2  # times that a way is gone before it is compiled
BOXED = ("free", "move")  # methods of a problem that ask for its box
BENDS = "second_order"  # of a linear model
ARITHMETIC = (ZeroDivisionError, ValueError, OverflowError)


class Member(Raw):
    """The stand-in of an object whose class says by `recorded` what of it is noted.

    That names attributes, and methods that are called as they are; the others run on the stand-in.
    """

    def __init__(self, scribe: Scribe, value: Any, path: str) -> None:
        super().__init__(value, path)
        self._scribe = scribe
        kind: Any = type(value)
        self._noted, self._outside = kind.recorded()

    def __getattr__(self, name: str) -> Any:
        value, path = self.value, self.recorded_at
        kind: Any = type(value)
        if name in self._noted:
            made = self._scribe.given(getattr(value, name), f"{path}.{name}")
            setattr(self, name, made)
            return made
        found = getattr(kind, name)
        if name in self._outside:
            return partial(self._asked, name)
        if isinstance(found, property):
            raise UnrecordableError(f"{kind.__name__}.{name}, of which nothing is noted")
        return partial(found, self) if isfunction(found) else found

    def _asked(self, name: str, *arguments: Any) -> Any:
        path = self.recorded_at
        return self._scribe.called_by(
            f"{path}.{name}", (root(path),), getattr(self.value, name), arguments
        )


RECORDED.update((Number, Given, Entry, Vector))


class _Solver:
    """The stand-in of a solver, which works outside."""

    def __init__(self, scribe: Scribe, solver: Any) -> None:
        self._scribe, self._solver = scribe, solver

    def factor(self, linearization: Any, scale: Vector) -> Any:
        text, uses, value = self._scribe.array(scale)
        path = linearization.recorded_at
        return self._scribe.asked(
            f"solver.factor({path}, {text})", (root(path), *uses),
            self._solver.factor(linearization.value, value),
        )  # fmt: skip


class _Problem:
    """The stand-in of a problem, whose function is evaluated outside."""

    recorded_at = "problem"

    def __init__(self, scribe: Scribe, problem: Any) -> None:
        self._scribe, self._problem, self.value = scribe, problem, problem

    @property
    def asks(self) -> Scribe:
        """What calls functions outside of the record."""
        return self._scribe

    def __getattr__(self, name: str) -> Any:
        if name in BOXED:  # where the box is given, as the point is
            return partial(getattr(type(self._problem), name), self)
        return getattr(self._problem, name)

    @property
    def modelled(self) -> Any:
        """Itself: a small problem has no sample of its rows."""
        return self

    @cached_property
    def bounds(self) -> Any:
        """The box of the run; another of the kind has another."""
        box = self._problem.bounds
        return None if box is None else self._scribe.given(box, "problem.bounds")

    def fused(self, kept: Given) -> bool:
        found: bool = self._problem.fused(kept)  # until another source of derivatives is in use
        self._scribe.decided(f"problem.fused({kept.path})", kept.path, found)
        return found

    def model(self, x: Vector) -> Any:
        return self._asked("model", x)

    def model_at_end(self, x: Vector) -> Any:
        return self._asked("model_at_end", x)

    def cost(self, x: Vector) -> Any:
        return self._asked("cost", x)

    def _asked(self, name: str, x: Vector) -> Any:
        return self._scribe.called_by(f"problem.{name}", (), getattr(self._problem, name), (x,))


class Function:
    """A function of the loop, recorded way by way.

    Args:
        plain: the function itself, of (problem, method, *arguments).
        names: of the arguments.
    """

    def __init__(self, plain: Callable[..., Any], names: Sequence[str]) -> None:
        self.plain, self.names = plain, tuple(names)
        self.run: Any = None
        self.refused = False
        self._tree = Tree()
        self._scope: dict[str, Any] = dict(SCOPE)
        self._kinds: dict[Any, type] = {}
        self._gone: dict[tuple[bool, ...], int] = {}
        self._failed = 0
        self._lock = threading.Lock()

    def __call__(self, problem: Any, method: Any, *arguments: Any) -> Any:
        """What the function returns."""
        run = self.run
        if run is not None:
            try:
                found = run(problem, method.solver, *arguments)
            except ARITHMETIC as error:
                if _from_outside(error):
                    raise
                found = MISSING
            if found is not MISSING:
                return found
        return self._recorded(problem, method, arguments)

    def _recorded(self, problem: Any, method: Any, arguments: tuple[Any, ...]) -> Any:
        if self.refused:
            return self.plain(problem, method, *arguments)
        scribe = Scribe(len(arguments[0].x), Member, self._kinds, self._scope)
        stand_in: Any = _Problem(scribe, problem)
        solver: Any = _Solver(scribe, method.solver)
        try:
            given = [scribe.given(a, n) for a, n in zip(arguments, self.names, strict=True)]
            result = _plain_model(
                self.plain(stand_in, replace(method, solver=solver), *given)
            )  # fmt: skip
            text, uses = scribe.written(result)
        except UnrecordableError:
            self._failed += 1
            self.refused = self._failed >= FAILURES
            return self.plain(problem, method, *arguments)
        except (AttributeError, TypeError):  # a stand-in that cannot do what is asked of it
            found = self.plain(problem, method, *arguments)
            self.refused = True
            return found
        self._failed = 0
        entries, way = scribe.record.entries, scribe.record.way()
        with self._lock:
            self._gone[way] = self._gone.get(way, 0) + 1
            if self._gone[way] == OFTEN:
                self._scope.update(scribe.scope)
                self._tree.add(entries, text, uses)
                names = ("problem", "solver", *self.names)
                self.run = function_of(self._tree, self.plain.__name__, names, self._scope)
        return real(result)


def _from_outside(error: BaseException) -> bool:
    """Whether an error was raised by what a recorded function has called."""
    frame = error.__traceback__
    frame = frame and frame.tb_next
    return frame is not None and frame.tb_next is not None


def _plain_model(result: Any) -> Any:
    """The result without the function of a linear model that only acceleration asks for."""
    if not isinstance(result, tuple):
        return result
    made: Any = result if hasattr(result, "_fields") else Pair(*result)
    if BENDS in made._fields:
        return made._replace(**{BENDS: None})
    found = {
        name: _plain_model(part)
        for name, part in zip(made._fields, made, strict=True)
        if BENDS in getattr(part, "_fields", ())
    }
    return made._replace(**found)


class Pair(NamedTuple):
    """What a function returns."""

    first: Any
    second: Any


_KNOWN: OrderedDict[Any, list[Any]] = OrderedDict()  # with the number of runs
_LOCK = threading.Lock()
_SEEN: dict[int, tuple[Any, object]] = {}  # methods, by their place in memory, with that of alike
_ALIKE: dict[Any, object] = {}


def recordable(problem: Any, method: Any, n: int) -> bool:
    """Whether the arithmetic of a problem on NumPy's arrays is recorded."""
    # members say by an attribute of their own class that they compute with operators and the
    # functions of `arrays` alone, and hold nothing but plain numbers
    return (
        n <= min(LARGEST, problem.residual.rows)
        and problem.rate is None
        and all(
            vars(type(member)).get("recordable", False)
            for member in (method.solver, method.damping, method.scaling)
        )
    )


def _alike(method: Any) -> object:
    """The same object for methods that are equal: to hash a method costs more than an iteration."""
    found = _SEEN.get(id(method))
    if found is None or found[0] is not method:
        if len(_SEEN) >= KEPT:
            _SEEN.clear()
        if len(_ALIKE) >= KEPT:  # what was recorded under an object that is forgotten is made anew
            _ALIKE.clear()
            _SEEN.clear()
        # when a run is given up no function asks
        same = replace(method, patience=0.0, windows=0)
        found = _SEEN[id(method)] = method, _ALIKE.setdefault(same, object())
    return found[1]


def functions(
    problem: Any, method: Any, state: Any, plain: Sequence[tuple[Callable[..., Any], Any]]
) -> Any:
    """The loop's functions for a problem, recorded where they can be.

    Args:
        problem: on NumPy's arrays.
        method: how it is minimised.
        state: at the start, a NamedTuple of arrays with x among them; what is None stays so.
        plain: the functions, with the names of what they are given after problem and method.

    Returns:
        As many.
    """
    x = state.x
    if x.dtype != np.float64 or not recordable(problem, method, len(x)):
        return [function for function, _ in plain]
    key = (
        len(x), _alike(method), problem.eps(x), problem.penalty is None,
        problem.bounds is None, problem.keep, tuple(part is None for part in state),
        tuple(function for function, _ in plain),
    )  # fmt: skip
    with _LOCK:
        found = _KNOWN.get(key)
        if found is None:
            found = _KNOWN[key] = [0, *(Function(one, names) for one, names in plain)]
        _KNOWN.move_to_end(key)
        while len(_KNOWN) > KEPT:
            _KNOWN.popitem(last=False)
        found[0] += 1
    return found[1:] if found[0] > FITS else [function for function, _ in plain]
