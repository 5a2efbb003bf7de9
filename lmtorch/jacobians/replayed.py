"""Recorded evaluations, run again: each of torch's operators writes where it wrote the last time.

Every tensor of a record has memory of its own, made once. What is left of an evaluation is a
Python function without arguments or branches, a line for each operator. Lines that depend on no
parameter run once a fit. A call of NumPy's costs a quarter of one of torch's: it makes the
operators that IEEE 754 rounds correctly, which are the same to the last bit by whomever.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..recording.operators import UnrecordableError
from .recorded import ARGUMENTS, PARAMETERS, Evaluation, Operator, Value

FLOATS = (torch.float64, torch.float32)
# operators whose numbers may be given as tensors, of which torch would make one at each call
BINARY = frozenset(["add", "sub", "mul", "div", "rsub"])
COPIES = frozenset(["_to_copy", "clone"])
# correctly rounded by IEEE 754, hence the same in NumPy; exp and its like are not
ROUNDED: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "sqrt": np.sqrt,
    "abs": np.absolute,
    "square": np.square,
}


class Replay:
    """The operators of a record, with memory for their results.

    Args:
        record: of a function of one tensor.

    Attributes:
        results: (k, m), of the last run, an array.

    Raises:
        UnrecordableError: an operator cannot be run again to the same result.
    """

    def __init__(self, record: Evaluation) -> None:
        self._tensors: dict[int, Tensor] = {}
        self._before: list[_Line] = []  # once a fit
        self._lines: list[_Line] = []  # at each point
        self._allot(record)
        parameters, *arguments = record.inputs
        for place in record.inputs:
            self._tensors[place] = record.tensors[place].detach().clone()
        self._x: Any = self._tensors[parameters].view(-1).numpy()
        self._arguments = [self._tensors[place] for place in arguments]
        for operator in record.operators:
            self._add(record, operator)
        self._finish(record)
        self.bind, self.run = _compiled(self._before), _compiled(self._lines)

    # ---- how it is made --------------------------------------------------------------------------

    def _allot(self, record: Evaluation) -> None:
        """Make the rows of the results, each the memory of what is computed for it alone."""
        like = record.tensors[next(place for place in record.outputs if place is not None)]
        if like.ndim != 1 or like.dtype not in FLOATS:
            raise UnrecordableError("results that are no vectors")
        rows = torch.zeros(len(record.outputs), len(like), dtype=like.dtype)
        self.results: Any = rows.numpy()
        self._rows = list(rows.unbind())
        self._waiting: dict[int, list[Tensor]] = {}
        for place, row in zip(record.outputs, self._rows, strict=True):
            if place is not None:
                found = record.tensors[place]
                if found.shape != like.shape or found.dtype != like.dtype:
                    raise UnrecordableError("results of several shapes")
                owner, shape = _owner(record, place)
                self._waiting.setdefault(owner, []).append(row.view(shape))

    def _of(self, record: Evaluation, arguments: Any) -> Any:
        """Arguments with the tensors themselves."""
        if isinstance(arguments, Value):
            place = arguments.place
            if place not in self._tensors:
                self._tensors[place] = record.tensors[place]  # a constant
            return self._tensors[place]
        if isinstance(arguments, tuple | list):
            return type(arguments)(self._of(record, one) for one in arguments)
        if isinstance(arguments, dict):
            return {key: self._of(record, one) for key, one in arguments.items()}
        return arguments

    def _add(self, record: Evaluation, operator: Operator) -> None:
        args, kwargs = self._of(record, operator.args), self._of(record, operator.kwargs)
        if operator.view:  # of memory that stays where it is
            found = operator.func(*args, **kwargs)
            found = found if isinstance(found, tuple | list) else (found,)
            self._tensors.update(zip(operator.outs, found, strict=True))
            return
        if len(operator.outs) != 1:
            raise UnrecordableError(f"{operator.name} has several results")
        (place,) = operator.outs
        expected = record.tensors[place]
        rows = self._waiting.get(place)
        out = rows.pop(0) if rows else torch.empty(expected.shape, dtype=expected.dtype)
        self._tensors[place] = out
        lines = self._lines if operator.level == PARAMETERS else self._before
        lines.append(_line(operator, args, kwargs, out, expected))

    def _finish(self, record: Evaluation) -> None:
        """Copy what is no result of an operator of its own, or of two places at once."""
        for place, rows in self._waiting.items():
            for row in rows:
                source = self._of(record, Value(place))
                line = _Line(row.copy_, (source,), {})
                line()
                if record.levels[place] == PARAMETERS:
                    self._lines.append(line)
                elif record.levels[place] == ARGUMENTS:
                    self._before.append(line)

    # ---- how it is used --------------------------------------------------------------------------

    def begin(self, arguments: Sequence[Tensor]) -> None:
        """Take the arguments of a fit, as many as the record has, of the same shapes."""
        for mine, given in zip(self._arguments, arguments, strict=True):
            mine.copy_(given)
        self.bind()

    def __call__(self, x: Any) -> Any:
        """The results at a point, (k, m), in memory of their own."""
        self._x[...] = x.reshape(-1)
        self.run()
        return self.results.copy()


class _Line:
    """A call whose arguments are always the same."""

    __slots__ = ("args", "function", "kwargs")

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs

    def __call__(self) -> None:
        self.function(*self.args, **self.kwargs)


def _owner(record: Evaluation, place: int) -> tuple[int, torch.Size]:
    """Whose memory a vector of the record shows whole and in order, and its shape there."""
    shown = record.tensors[place]
    for operator in reversed(record.operators):
        if place in operator.outs:
            source = operator.args[0] if operator.view and operator.args else None
            if not isinstance(source, Value) or source.place in record.inputs:
                break
            found = record.tensors[source.place]
            whole = found.numel() == shown.numel() and found.data_ptr() == shown.data_ptr()
            alike = found.dtype is shown.dtype and found.is_neg() == shown.is_neg()
            if not (whole and alike and found.is_contiguous() and shown.is_contiguous()):
                break
            place = source.place
    return place, record.tensors[place].shape


def _line(operator: Operator, args: Any, kwargs: Any, out: Tensor, expected: Tensor) -> _Line:
    """How an operator is run with its result in `out`: the quickest way that gives the same."""
    for line in _ways(operator, args, kwargs, out):
        try:
            line()
        except (TypeError, RuntimeError):
            continue
        if _same(out, expected):
            return line
    raise UnrecordableError(f"{operator.name} gives something else")


def _ways(operator: Operator, args: Any, kwargs: Any, out: Tensor) -> list[_Line]:
    name = operator.name
    found = []
    arrays = _arrays([*args, out]) if not kwargs else None
    if arrays and (name in ROUNDED or name == "rsub"):
        given = arrays[-2::-1] if name == "rsub" else arrays[:-1]
        found.append(_Line(ROUNDED[name.removeprefix("r")], (*given, arrays[-1]), {}))
    if name in COPIES:
        found.append(_Line(out.copy_, args[:1], {}))
    if name in BINARY and not kwargs and len(args) == 2:
        numbers = tuple(_as_tensor(one, out) for one in args)
        if name == "rsub":
            found.append(_Line(torch.sub, numbers[::-1], {"out": out}))
        else:
            found.append(_Line(getattr(torch, name), numbers, {"out": out}))
    plain = getattr(torch, name, None)
    if plain is not None:
        found.append(_Line(plain, args, {**kwargs, "out": out}))

    def copied() -> None:
        out.copy_(operator.func(*args, **kwargs))

    return [*found, _Line(copied, (), {})]


def _arrays(tensors: Sequence[Any]) -> list[Any] | None:
    """Tensors and numbers as arrays in their memory, if all are of one dtype of floats."""
    out = tensors[-1]
    made = [_as_tensor(one, out) for one in tensors]
    if out.dtype not in FLOATS or not all(
        type(one) is Tensor and one.dtype is out.dtype and not one.is_neg() for one in made
    ):
        return None
    return [one.detach().numpy() for one in made]


def _as_tensor(number: Any, like: Tensor) -> Any:
    """A number as a tensor without dimensions."""
    if type(number) in (int, float) and like.dtype in FLOATS:
        return torch.tensor(number, dtype=like.dtype)
    return number


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same to the last bit."""
    return bool(one.numpy().tobytes() == other.detach().numpy().tobytes())


def _compiled(lines: Sequence[_Line]) -> Callable[[], None]:
    """A function that runs the lines, one after the other."""
    scope: dict[str, Any] = {}
    body = ["    pass"]
    for number, line in enumerate(lines):
        scope[f"f{number}"] = line.function
        given = []
        for place, arg in enumerate(line.args):
            scope[f"a{number}_{place}"] = arg
            given.append(f"a{number}_{place}")
        for name, arg in line.kwargs.items():
            scope[f"k{number}_{name}"] = arg
            given.append(f"{name}=k{number}_{name}")
        body.append(f"    f{number}({', '.join(given)})")
    # names of tensors and functions stand in its lines, and nothing else
    exec(compile("def run():\n" + "\n".join(body), "<replayed>", "exec"), scope)
    run: Callable[[], None] = scope["run"]
    return run
