"""Recorded evaluations of many problems, run again with the problems last in memory.

A record (`recorded`) of a few problems holds every operator that a model and its derivatives are
made of. Where they all go entry by entry, the same operators serve any number of problems. Here
they become a Python function with a line for each, in which

- every value (b, m) lies in memory as (m, b): numbers of the parameters are whole vectors, sums
  over points run along them, and points that all problems share are never expanded;
- factors that are powers of two, and signs, are carried along until they meet a sum: to move them
  through products is exact;
- a value is written where one stood that is no longer needed, so that a few planes, which stay in
  the cache, serve for all.

What has another shape or rule is refused, and the function itself is asked, as it always was.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..recording.operators import UnrecordableError
from .recorded import CONSTANTS, Evaluation, Operator, Value
from .replayed import BINARY, FLOATS

FARTHEST = 40  # exponent of a factor that is carried along: nothing overflows on the way
SAME = frozenset(["detach", "alias", "clone"])  # what changes no number
RESHAPING = frozenset(["view", "reshape", "_unsafe_view"])


class _Seen(NamedTuple):
    """A value as `factor` times what stands in a variable."""

    name: str
    factor: float = 1.0


class _Line:
    """One line of the function.

    Attributes:
        out: the variable that is set.
        call: what makes it, an expression with the names of its arguments in place.
        uses: variables that it reads.
        key: shape behind the problems and dtype, where the result is a plane of its own; None: it
            is a view, or a number of each problem.
    """

    __slots__ = ("call", "key", "out", "uses")

    def __init__(self, out: str, call: str, uses: Sequence[str], key: Any) -> None:
        self.out, self.call, self.uses, self.key = out, call, tuple(uses), key


class ManyReplay:
    """The operators of a record of a few problems, for any number of them.

    Args:
        record: of a function that returns (b, m) tensors.
        few: the number of problems of the record.

    Raises:
        UnrecordableError: an operator does not go entry by entry.
    """

    def __init__(self, record: Evaluation, few: int) -> None:
        self._few = few
        self._scope: dict[str, Any] = {"empty": torch.empty}
        self._lines: list[_Line] = []
        self._made: dict[str, str] = {}  # by what a line does, its variable
        self._values: dict[int, _Seen] = {}
        for number, place in enumerate(record.inputs):
            self._values[place] = _Seen(f"i{number}")
        for operator in record.operators:
            self._add(record, operator)
        outputs = [self._output(record, place) for place in record.outputs]
        self._planes: list[Any] = []
        self._run = self._compiled(len(record.inputs), outputs)

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The results (b, m), in memory (m, b), for inputs (b, ...)."""
        count = len(inputs[0])
        planes = [torch.empty(*tail, count, dtype=dtype) for tail, dtype in self._planes]
        found = self._run(count, planes, *(one.detach().movedim(0, -1) for one in inputs))
        return [
            (one if one.shape[-1] == count else one.expand(len(one), count)).movedim(-1, 0)
            for one in found
        ]  # fmt: skip

    # ---- lines -----------------------------------------------------------------------------------

    def _line(self, call: str, uses: Sequence[str], key: Any = None) -> str:
        """The variable that a line sets; what is there already is not made again."""
        known = self._made.get(call)
        if known is None:
            known = self._made[call] = f"v{len(self._lines)}"
            self._lines.append(_Line(known, call, uses, key))
        return known

    def _constant(self, value: Any) -> str:
        """The name of a tensor or another object that every run is given."""
        name = f"c{len(self._scope)}"
        self._scope[name] = value
        return name

    def _function(self, name: str) -> str:
        function = getattr(torch, name, None)
        if function is None:
            raise UnrecordableError(f"no function {name}")
        self._scope[f"torch_{name}"] = function
        return f"torch_{name}"

    def _call(self, name: str, given: Sequence[str], key: Any, rest: str = "") -> str:
        call = f"{self._function(name)}({', '.join(given)}{rest}"
        uses = [one for one in given if one[0] in "vi"]
        return self._line(call, uses, key)

    # ---- operators -------------------------------------------------------------------------------

    def _add(self, record: Evaluation, operator: Operator) -> None:
        name, results = operator.name, [record.tensors[place] for place in operator.outs]
        if any(one.ndim == 0 or one.shape[0] != self._few for one in results):
            raise UnrecordableError(f"{name} mixes problems")
        if name in SAME and isinstance(operator.args[0], Value):
            self._values[operator.outs[0]] = self._values[operator.args[0].place]
        elif operator.view or name in RESHAPING:
            self._view(record, operator, results)
        elif torch.Tag.pointwise in operator.func.tags and len(results) == 1:
            (place,) = operator.outs
            self._values[place] = self._pointwise(record, operator, results[0])
        elif name == "_to_copy" and set(operator.kwargs) <= {"dtype"}:
            (place,), seen = operator.outs, self._values[operator.args[0].place]
            dtype = self._constant(results[0].dtype)
            plain = self._plain(seen, record.tensors[operator.args[0].place])
            self._values[place] = _Seen(self._line(f"{plain}.to({dtype}", [plain]))
        else:
            raise UnrecordableError(f"{name} does not go entry by entry")

    def _view(self, record: Evaluation, operator: Operator, results: Sequence[Tensor]) -> None:
        """A part of a value, or the same in another shape; the problems stay as they are."""
        name, (first, *rest) = operator.name, operator.args
        seen, before = self._values[first.place], record.tensors[first.place]
        found: list[str] = []

        def indexed(dim: int, index: str) -> str:
            dim = dim + before.ndim if dim < 0 else dim
            if dim < 1:
                raise UnrecordableError(f"{name} of the problems")
            return self._line(f"{seen.name}[{':, ' * (dim - 1)}{index}]", [seen.name])

        if name == "slice" and len(rest) in (3, 4):
            found = [indexed(rest[0], ":".join(map(str, rest[1:])))]
        elif name == "select":
            found = [indexed(rest[0], str(rest[1]))]
        elif name == "unbind":
            dim = rest[0] if rest else 0
            found = [indexed(dim, str(i)) for i in range(len(results))]
        elif name == "unsqueeze":
            dim = rest[0] + before.ndim + 1 if rest[0] < 0 else rest[0]
            if dim < 1:
                raise UnrecordableError(f"{name} of the problems")
            found = [self._line(f"{seen.name}.unsqueeze({dim - 1})", [seen.name])]
        elif name in RESHAPING or (name == "expand" and results[0].ndim == before.ndim):
            shape = "".join(f"{size}, " for size in results[0].shape[1:])
            verb = "expand" if name == "expand" else "reshape"
            found = [self._line(f"{seen.name}.{verb}({shape}count)", [seen.name])]
        else:
            raise UnrecordableError(f"the view {name}")
        for place, one in zip(operator.outs, found, strict=True):
            self._values[place] = _Seen(one, seen.factor)

    def _pointwise(self, record: Evaluation, operator: Operator, result: Tensor) -> _Seen:
        name, args = operator.name, operator.args
        key = _key_of(result)
        if name in BINARY | {"neg"} and not operator.kwargs and result.dtype in FLOATS:
            given = [self._operand(record, one, result) for one in args]
            if name == "rsub":
                name, given = "sub", given[::-1]
            found = self._scaled(name, given, key)
            if found is not None:
                return found
        if any(isinstance(value, Tensor | Value) for value in operator.kwargs.values()):
            raise UnrecordableError(f"tensors that {name} is given by name")
        if operator.name == "rsub":
            if len(args) != 2 or operator.kwargs or result.dtype not in FLOATS:
                raise UnrecordableError("a difference that is scaled")
            of = [self._plain(self._operand(record, one, result), result) for one in args]
            return _Seen(self._call("sub", of[::-1], key))
        names = [self._argument(record, one, result) for one in args]
        rest = "".join(
            f", {word}={self._constant(value)}" for word, value in operator.kwargs.items()
        )
        return _Seen(self._call(name, names, key, rest))

    def _argument(self, record: Evaluation, arg: Any, result: Tensor) -> str:
        """The name of an argument as it is, with its factor multiplied out."""
        if not isinstance(arg, Value | Tensor):
            return self._constant(arg)
        value = record.tensors[arg.place] if isinstance(arg, Value) else arg
        return self._plain(self._operand(record, arg, result), value)

    def _scaled(self, name: str, given: Sequence[_Seen], key: Any) -> _Seen | None:
        """An operator through which factors go; None: there is another way."""
        if name == "neg":
            (one,) = given
            return one._replace(factor=-one.factor)
        if len(given) != 2:
            return None
        one, other = given
        if name in ("mul", "div"):
            by = one.factor * other.factor if name == "mul" else one.factor / other.factor
            if abs(math.log2(abs(by))) > FARTHEST:
                return None
            if other.name == "1":
                return _Seen(one.name, by)
            if one.name == "1" and name == "mul":
                return _Seen(other.name, by)
            names = [one.name, other.name]
            if one.name == "1":
                return _Seen(self._call("reciprocal", names[1:], key), by)
            if name == "mul":
                names.sort(key=lambda n: (n[0], int(n[1:])))
            return _Seen(self._call(name, names, key), by)
        sign = -1.0 if name == "sub" else 1.0
        if "1" in (one.name, other.name):
            return None
        if one.name == other.name:
            by = one.factor + sign * other.factor
            return _Seen(one.name, by) if by and math.frexp(abs(by))[0] == 0.5 else None
        ratio = sign * other.factor / one.factor
        if ratio == -1 and one.factor < 0:  # −a + b = b − a
            one, other = _Seen(other.name, -one.factor), _Seen(one.name, -one.factor)
        if abs(ratio) == 1:
            verb = "add" if ratio > 0 else "sub"
            return _Seen(self._call(verb, [one.name, other.name], key), one.factor)
        found = self._call("add", [one.name, other.name], key, f", alpha={ratio!r}")
        return _Seen(found, one.factor)

    # ---- operands --------------------------------------------------------------------------------

    def _operand(self, record: Evaluation, arg: Any, result: Tensor) -> _Seen:
        """An argument of an operator that goes entry by entry; a power of two as factor of "1"."""
        if isinstance(arg, Value):
            if record.levels[arg.place] > CONSTANTS:
                value = record.tensors[arg.place]
                if value.ndim != result.ndim or value.shape[0] != self._few:
                    raise UnrecordableError("values that broadcast over the problems")
                return self._values[arg.place]
            return self._of_constant(record.tensors[arg.place], result)
        if isinstance(arg, Tensor):
            return self._of_constant(arg, result)
        if type(arg) in (int, float):
            return self._number(torch.tensor(arg, dtype=result.dtype))
        raise UnrecordableError(f"an argument {arg!r}")

    def _number(self, value: Tensor) -> _Seen:
        """A number, (); a power of two as a factor of "1"."""
        number = value.item()
        power = number and math.isfinite(number) and math.frexp(abs(number))[0] == 0.5
        if power and abs(math.log2(abs(number))) <= FARTHEST:
            return _Seen("1", float(number))
        return _Seen(self._constant(value))

    def _of_constant(self, value: Tensor, result: Tensor) -> _Seen:
        """A tensor that is the same for all problems, with a place for them behind."""
        if value.ndim == 0:
            same = result.dtype in FLOATS and value.dtype == result.dtype
            return self._number(value) if same else _Seen(self._constant(value))
        if value.ndim > result.ndim:
            raise UnrecordableError("a constant of more dimensions")
        if value.ndim == result.ndim:
            value = self._shared(value)
        return _Seen(self._constant(value[..., None].contiguous()))

    def _shared(self, value: Tensor) -> Tensor:
        """What is there for each problem of the record, but the same for all."""
        if value.shape[0] == 1 or bool((value == value[:1]).all()):
            return value[0]
        raise UnrecordableError("a constant that differs between problems")

    def _plain(self, seen: _Seen, like: Tensor) -> str:
        """The variable with the factor multiplied out."""
        if seen.name == "1":
            return self._constant_number(seen.factor, like.dtype)
        if seen.factor == 1:
            return seen.name
        by = self._constant_number(seen.factor, like.dtype)
        return self._call("mul", [seen.name, by], _key_of(like))

    def _constant_number(self, number: float, dtype: torch.dtype) -> str:
        name = f"n{dtype}_{number!r}"
        for character in ".-+":
            name = name.replace(character, "_m" if character == "-" else "_")
        self._scope.setdefault(name, torch.tensor(number, dtype=dtype))
        return name

    def _output(self, record: Evaluation, place: int | None) -> str:
        """The variable of a result."""
        if place is None:
            raise UnrecordableError("no result")
        value = record.tensors[place]
        if value.ndim != 2 or value.dtype not in FLOATS:
            raise UnrecordableError("results that are no vectors")
        if record.levels[place] == CONSTANTS:
            column = self._shared(value)[:, None].clone()
            if len(column) and bool((column == column[0]).all()):  # one number, not written out
                column = column[0].expand(len(column), 1)
            return self._constant(column)
        found = self._plain(self._values[place], value)
        if not any(line.out == found and line.key for line in self._lines):
            one = self._constant_number(1.0, value.dtype)  # a copy, of what may be a view
            found = self._call("mul", [found, one], _key_of(value))
        return found

    # ---- the function ----------------------------------------------------------------------------

    def _compiled(self, inputs: int, outputs: Sequence[str]) -> Callable[..., Any]:
        """The lines that results are made of, with planes for what lies between."""
        needed = set(outputs)
        lines: list[_Line] = []
        for line in reversed(self._lines):
            if line.out in needed:
                lines.append(line)
                needed.update(line.uses)
        lines.reverse()
        self._lines = lines
        last = {name: number for number, line in enumerate(lines) for name in line.uses}
        results = set(outputs)
        # what a view is made of stays
        viewed = {name for line in lines if line.key is None for name in line.uses}
        idle: dict[Any, list[int]] = {}
        held: dict[str, tuple[int, Any]] = {}
        body = []
        for number, line in enumerate(lines):
            for name in line.uses:  # its plane may take the result, entry by entry
                if last[name] == number and name in held and name not in viewed:
                    plane, key = held.pop(name)
                    idle.setdefault(key, []).append(plane)
            if line.key is None:
                closing = "" if line.call.endswith((")", "]")) else ")"
                body.append(f"{line.out} = {line.call}{closing}")
                continue
            tail, dtype = line.key
            if line.out in results:
                shape = "".join(f"{size}, " for size in tail)
                out = f"empty(({shape}count), dtype={self._constant(dtype)})"
            elif math.prod(tail) == 1:
                body.append(f"{line.out} = {line.call})")
                continue
            else:
                free = idle.get(line.key)
                if free:
                    plane = free.pop()
                else:
                    plane = len(self._planes)
                    self._planes.append(line.key)
                held[line.out] = plane, line.key
                out = f"planes[{plane}]"
            body.append(f"{line.out} = {line.call}, out={out})")
        given = ", ".join(["count", "planes", *(f"i{number}" for number in range(inputs))])
        text = f"def run({given}):\n" + "".join(f"    {one}\n" for one in body)
        text += f"    return [{', '.join(outputs)}]\n"
        # names of tensors and functions stand in its lines, and nothing else
        exec(compile(text, "<replayed>", "exec"), self._scope)
        self.text = text
        run: Callable[..., Any] = self._scope["run"]
        return run


def _key_of(value: Tensor) -> Any:
    """Shape behind the problems, and dtype."""
    return tuple(value.shape[1:]), value.dtype
