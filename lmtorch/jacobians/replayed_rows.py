"""Recorded evaluations of many rows, run again block by block.

Of a model of many points most time of a block goes into Python that calls operators, unless blocks
are so large that what lies between the operators no longer fits the cache. A record (`recorded`) of
a few rows holds every operator that residuals and derivatives are made of. Where each of them goes
row by row, the same operators serve any number of rows. Here they become a Python function with a
line for each, in which

- what is made of the parameters alone is made once for all blocks;
- signs and factors that are powers of two are carried along until a factor of the parameters can
  take them, which is exact;
- a (b c) is a b times c where a b is there already, as in the derivatives of a b;
- derivatives are written where they are read, as rows of one matrix, and other values where one
  stood that is no longer needed.

What sums over rows, or could tell one row from another, is refused.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._exponential import exp
from ..recording.operators import UnrecordableError
from .recorded import Evaluation, Operator, Value, places_in
from .replayed import FLOATS

FARTHEST = 40  # exponent of a factor that is carried along: nothing overflows on the way
SAME = frozenset(["detach", "alias", "clone"])  # what changes no number
RESHAPING = frozenset(["view", "reshape", "_unsafe_view", "unsqueeze", "squeeze"])
SCALED = frozenset(["mul", "div", "add", "sub", "rsub", "neg"])  # through which factors go


class _Seen(NamedTuple):
    """A value as `factor` times what stands in a variable; of "1" it is the factor itself."""

    name: str
    factor: float = 1.0


@dataclass
class _Line:
    """One line of the function: out = verb(*args, out=...)."""

    out: str
    verb: str
    args: list[str]
    rest: str  # further arguments, as text
    kind: tuple[tuple[int, ...], torch.dtype] | None  # shape of a row and dtype; None: a view


class RowReplay:
    """The operators of a record of a few rows, for any number of them.

    Args:
        record: of a function that returns vectors (rows,), the residuals last.
        few: the number of rows of the record.
        shared: how many of its inputs, the first ones, are the same for all rows: the parameters.

    Raises:
        UnrecordableError: an operator does not go row by row.
    """

    def __init__(self, record: Evaluation, few: int, shared: int) -> None:
        self._few, self._tensors, self._params = few, record.tensors, record.inputs[:shared]
        self._once: list[Operator] = []  # of the parameters alone
        self._single = set(self._params)  # their results
        self._given: list[tuple[int, float]] = []  # those that lines read, with a factor each
        self._scope: dict[str, Any] = {}
        self._lines: dict[str, _Line] = {}
        self._made: dict[Any, str] = {}  # by what a line does, its variable
        # of a view, what it is of, and the shape of that
        self._before: dict[str, tuple[str, torch.Size]] = {}
        self._values: dict[int, _Seen] = {}  # of what has a number for each row
        for number, place in enumerate(record.inputs[shared:]):
            if not record.tensors[place].ndim or len(record.tensors[place]) != few:
                raise UnrecordableError("an argument without rows")
            self._values[place] = _Seen(f"i{number}")
        for operator in record.operators:
            self._add(operator)
        self._uniform: dict[int, float] = {}  # results that are one number
        results = [self._output(number, place) for number, place in enumerate(record.outputs)]
        self._dtype = record.tensors[record.outputs[-1] or 0].dtype
        self._lines = {line.out: line for line in self._needed(results)}
        self._push(results)
        self.count, inputs = len(results), len(record.inputs) - shared
        self._whole = self._compiled(inputs, results)
        self._last = self._compiled(inputs, [None] * (self.count - 1) + results[-1:])
        self._point: tuple[list[Tensor], list[Tensor]] | None = None

    def __call__(
        self, params: Sequence[Tensor], rows: Sequence[Tensor], *, whole: bool = True
    ) -> Tensor:
        """The results, (k, rows).

        Args:
            params: the parameters, as the record was given them.
            rows: the other inputs, (rows, ...) each.
            whole: whether all of the results are wanted; otherwise the last alone, (1, rows).
        """
        if self._point is None or not all(map(torch.equal, params, self._point[0])):
            self._point = [one.detach().clone() for one in params], self._prepared(params)
        count, first = len(rows[0]), 0 if whole else self.count - 1
        run, planes = self._whole if whole else self._last
        made = [torch.empty(count, *tail, dtype=dtype) for tail, dtype in planes]
        found = torch.empty(self.count - first, count, dtype=self._dtype)
        outs = dict(enumerate(found.unbind(), first))
        for number, entry in self._uniform.items():
            if number in outs:
                outs[number].fill_(entry)
        run(outs, made, self._point[1], *(one.detach() for one in rows))
        return found

    def _prepared(self, params: Sequence[Tensor]) -> list[Tensor]:
        """What lines read that is made of the parameters alone."""
        known = {
            place: one.detach().clone() for place, one in zip(self._params, params, strict=True)
        }

        def of(arguments: Any) -> Any:
            if isinstance(arguments, Value):
                return known.get(arguments.place, self._tensors[arguments.place])
            if isinstance(arguments, tuple | list):
                return type(arguments)(map(of, arguments))
            if isinstance(arguments, dict):
                return {name: of(value) for name, value in arguments.items()}
            return arguments

        for operator in self._once:
            result = operator.func(*of(operator.args), **of(operator.kwargs))
            results = result if isinstance(result, tuple | list) else (result,)
            known.update(zip(operator.outs, results, strict=True))
        return [known[place] * factor for place, factor in self._given]

    # ---- operators -------------------------------------------------------------------------------

    def _add(self, operator: Operator) -> None:
        name, places = operator.name, set(places_in((operator.args, operator.kwargs)))
        if places.isdisjoint(self._values):
            self._once.append(operator)
            self._single.update(operator.outs)
            return
        results = [self._tensors[place] for place in operator.outs]
        place = operator.outs[0]
        if len(results) > 1 or not results[0].ndim or len(results[0]) != self._few:
            raise UnrecordableError(f"{name} mixes rows")
        first = operator.args[0]
        if name in SAME and isinstance(first, Value):
            self._values[place] = self._values[first.place]
        elif name == "select":
            seen, ndim = self._values[first.place], self._tensors[first.place].ndim
            dim = operator.args[1] % ndim
            if not dim:
                raise UnrecordableError("one row of all")
            index = f"[{':, ' * dim}{operator.args[2]}]"
            self._values[place] = _Seen(self._line("", [seen.name], index, None), seen.factor)
        elif name in RESHAPING:  # rows stay rows, as there are as many before and after
            self._values[place] = self._reshaped(self._values[first.place], operator, results[0])
        elif torch.Tag.pointwise in operator.func.tags:
            self._values[place] = self._pointwise(operator, results[0])
        else:
            raise UnrecordableError(f"{name} does not go row by row")

    def _reshaped(self, seen: _Seen, operator: Operator, result: Tensor) -> _Seen:
        shapes = self._tensors[operator.args[0].place].shape[1:], result.shape[1:]
        known = self._before.get(seen.name)
        if known is not None and known[1] == shapes[1]:  # there and back
            return _Seen(known[0], seen.factor)
        sizes = "".join(f", {size}" for size in shapes[1])
        name = self._line("", [seen.name], f".reshape(-1{sizes})", None)
        self._before[name] = seen.name, shapes[0]
        return _Seen(name, seen.factor)

    def _pointwise(self, operator: Operator, result: Tensor) -> _Seen:
        name, kind = operator.name, (tuple(result.shape[1:]), result.dtype)
        if operator.kwargs and any(True for _ in places_in(operator.kwargs)):
            raise UnrecordableError(f"tensors that {name} is given by name")
        tensors = [self._tensors[one.place] for one in operator.args if isinstance(one, Value)]
        alike = all(one.dtype == result.dtype for one in tensors if one.ndim)
        args = operator.args
        if name in SCALED and alike and not operator.kwargs and result.dtype in FLOATS:
            if name == "rsub" and len(args) == 2:
                name, args = "sub", args[::-1]
            seen = [self._operand(one, result) for one in args]
            if name == "neg":
                return seen[0]._replace(factor=-seen[0].factor)
            if len(seen) == 2:
                together = self._product if name in ("mul", "div") else self._sum
                one, other = seen
                found = together(name, one, other, kind)
                if found is not None:
                    return found
        if name == "rsub" or getattr(torch, name, None) is None:
            raise UnrecordableError(f"no function {name}")
        given = []
        for one in args:
            if isinstance(one, Value):
                seen_one = self._operand(one, result)
                given.append(self._plain(seen_one, self._tensors[one.place]))
            else:
                given.append(self._constant(one))
        rest = "".join(f", {word}={self._constant(v)}" for word, v in operator.kwargs.items())
        return _Seen(self._line(name, given, rest, kind))

    def _product(self, name: str, one: _Seen, other: _Seen, kind: Any) -> _Seen | None:
        by = one.factor * other.factor if name == "mul" else one.factor / other.factor
        if abs(math.log2(abs(by))) > FARTHEST:
            return None
        if other.name == "1":
            return _Seen(one.name, by)
        if one.name == "1":
            if name == "mul":
                return _Seen(other.name, by)
            return _Seen(self._line("reciprocal", [other.name], "", kind), by)
        if name == "div":
            return _Seen(self._line("div", [one.name, other.name], "", kind), by)
        for a, known in ((one.name, other.name), (other.name, one.name)):
            line = self._lines.get(known)
            if line is not None and line.verb == "mul":  # a (b c)
                for b, c in (line.args, line.args[::-1]):
                    both = self._made.get(("mul", tuple(sorted((a, b))), "", kind))
                    if both is not None and both != known:
                        return _Seen(self._line("mul", sorted((both, c)), "", kind), by)
        return _Seen(self._line("mul", sorted((one.name, other.name)), "", kind), by)

    def _sum(self, name: str, one: _Seen, other: _Seen, kind: Any) -> _Seen | None:
        one, other = self._standing(one, kind), self._standing(other, kind)
        sign = -1.0 if name == "sub" else 1.0
        if one.name == other.name:
            by = one.factor + sign * other.factor
            return _Seen(one.name, by) if by and math.frexp(abs(by))[0] == 0.5 else None
        ratio = sign * other.factor / one.factor
        if abs(ratio) != 1:
            text = f", alpha={ratio!r}"
            return _Seen(self._line("add", [one.name, other.name], text, kind), one.factor)
        verb = "add" if ratio > 0 else "sub"
        if ratio == -1 and one.factor < 0:  # −a + b = b − a
            one, other = _Seen(other.name, -one.factor), _Seen(one.name)
        return _Seen(self._line(verb, [one.name, other.name], "", kind), one.factor)

    # ---- operands --------------------------------------------------------------------------------

    def _operand(self, arg: Any, result: Tensor) -> _Seen:
        """An argument of an operator that goes entry by entry."""
        if isinstance(arg, Value):
            value = self._tensors[arg.place]
            if arg.place in self._values:
                if value.ndim != result.ndim:
                    raise UnrecordableError("rows that broadcast")
                return self._values[arg.place]
            if value.ndim >= result.ndim:
                raise UnrecordableError("what may be rows, and is of none of the arguments")
            if arg.place in self._single:
                return _Seen(self._shared(arg.place, 1.0))
            if value.ndim:
                return _Seen(self._constant(value))
            arg = value.item()
        if type(arg) in (int, float) and result.dtype in FLOATS:
            if arg and math.isfinite(arg) and math.frexp(abs(arg))[0] == 0.5:
                return _Seen("1", float(arg))
            return _Seen(self._constant(torch.tensor(arg, dtype=result.dtype)))
        raise UnrecordableError(f"an argument {arg!r}")

    def _shared(self, place: int, factor: float) -> str:
        """The variable of what is made of the parameters, times a factor."""
        if (place, factor) not in self._given:
            self._given.append((place, factor))
        return f"s{self._given.index((place, factor))}"

    def _plain(self, seen: _Seen, like: Tensor) -> str:
        """The variable with the factor multiplied out."""
        if seen.name == "1":
            return self._constant(torch.tensor(seen.factor, dtype=like.dtype))
        if seen.factor == 1:
            return seen.name
        kind = tuple(like.shape[1:]), like.dtype
        if seen.factor == -1:
            return self._line("neg", [seen.name], "", kind)
        by = self._constant(torch.tensor(seen.factor, dtype=like.dtype))
        return self._line("mul", [seen.name, by], "", kind)

    def _standing(self, seen: _Seen, kind: Any) -> _Seen:
        """The same; of a factor alone, a number that every run is given."""
        if seen.name != "1":
            return seen
        return _Seen(self._constant(torch.tensor(seen.factor, dtype=kind[1])))

    def _constant(self, value: Any) -> str:
        """The name of an object that every run is given."""
        name = f"c{len(self._scope)}"
        self._scope[name] = value
        return name

    def _line(self, verb: str, args: list[str], rest: str, kind: Any) -> str:
        """The variable that a line sets; what is there already is not made again."""
        key = verb, tuple(args), rest, kind
        known = self._made.get(key)
        if known is None:
            known = self._made[key] = f"v{len(self._lines)}"
            self._lines[known] = _Line(known, verb, args, rest, kind)
        return known

    # ---- results ---------------------------------------------------------------------------------

    def _output(self, number: int, place: int | None) -> _Seen | None:
        """A result; None, where it is one number."""
        value = self._tensors[place or 0]
        if place is None or value.ndim != 1 or len(value) != self._few or value.dtype not in FLOATS:
            raise UnrecordableError("results that are no vectors")
        if place in self._values:
            return self._values[place]
        for operator in self._once:
            if place in operator.outs and operator.name == "expand":
                source = operator.args[0].place  # of the parameters, the same for all rows
                if not self._tensors[source].ndim:
                    return _Seen(self._shared(source, 1.0))
        if place in self._single or not bool((value == value[:1]).all()):
            raise UnrecordableError("a result that no row has a part in")
        self._uniform[number] = value[0].item()
        return None

    def _push(self, results: list[_Seen | None]) -> None:
        """Give the factors of results to factors of the parameters in their products."""
        uses = Counter(name for line in self._lines.values() for name in line.args)
        uses.update(seen.name for seen in results if seen is not None)

        def given(name: str, factor: float) -> bool:
            line = self._lines.get(name)
            if line is None or line.verb != "mul" or uses[name] != 1:
                return False
            for at, arg in enumerate(line.args):
                if arg[0] == "s":
                    place, by = self._given[int(arg[1:])]
                    line.args[at] = self._shared(place, by * factor)
                    return True
            return any(given(arg, factor) for arg in line.args)

        for number, seen in enumerate(results):
            if seen is not None and seen.factor != 1 and given(seen.name, seen.factor):
                results[number] = _Seen(seen.name)

    # ---- the function ----------------------------------------------------------------------------

    def _needed(self, results: Sequence[_Seen | None]) -> list[_Line]:
        """The lines that results are made of, in order."""
        needed = {seen.name for seen in results if seen is not None}
        lines: list[_Line] = []
        for line in reversed(self._lines.values()):
            if line.out in needed:
                lines.append(line)
                needed.update(line.args)
        return lines[::-1]

    def _compiled(
        self, inputs: int, results: Sequence[_Seen | None]
    ) -> tuple[Callable[..., None], list[Any]]:
        """The lines as a function, and the planes for what lies between inputs and results."""
        lines, scope = self._needed(results), {**self._scope, "torch_mul": torch.mul}
        plain = {line.out for line in lines if line.kind == ((), self._dtype)}
        outs: dict[str, int] = {}  # variables that are written as rows of the results
        copies: dict[int, _Seen] = {}
        for number, seen in enumerate(results):
            if seen is not None and seen.factor == 1 and seen.name in plain - outs.keys():
                outs[seen.name] = number
            elif seen is not None:
                copies[number] = seen
        last = {name: number for number, line in enumerate(lines) for name in line.args}
        kept = {name for line in lines if line.kind is None for name in line.args}
        kept.update(seen.name for seen in copies.values())
        idle: dict[Any, list[int]] = {}
        held: dict[str, int] = {}
        planes: list[Any] = []
        body = [f"{', '.join(f's{k}' for k in range(len(self._given)))}, = given"]
        body = body if self._given else []
        for number, line in enumerate(lines):
            if line.kind is None:
                body.append(f"{line.out} = {line.args[0]}{line.rest}")
                continue
            for name in line.args:  # its plane may take the result, entry by entry
                if last[name] == number and name in held and name not in kept:
                    idle.setdefault(self._lines[name].kind, []).append(held.pop(name))
            if line.out in outs:
                out = f"outs[{outs[line.out]}]"
            else:
                free = idle.get(line.kind)
                if not free:
                    planes.append(line.kind)
                held[line.out] = free.pop() if free else len(planes) - 1
                out = f"planes[{held[line.out]}]"
            scope[f"torch_{line.verb}"] = exp if line.verb == "exp" else getattr(torch, line.verb)
            given = ", ".join(line.args)
            body.append(f"{line.out} = torch_{line.verb}({given}{line.rest}, out={out})")
        for number, seen in copies.items():
            if seen.name[0] == "s":
                body.append(f"outs[{number}].fill_({seen.name})")
                continue
            scope[f"f{number}"] = torch.tensor(seen.factor, dtype=self._dtype)
            body.append(f"torch_mul({seen.name}, f{number}, out=outs[{number}])")
        arguments = ", ".join(["outs", "planes", "given", *(f"i{k}" for k in range(inputs))])
        text = f"def run({arguments}):\n" + "".join(f"    {one}\n" for one in [*body, "pass"])
        # names of tensors and functions stand in its lines, and nothing else
        exec(compile(text, "<replayed>", "exec"), scope)
        return scope["run"], planes
