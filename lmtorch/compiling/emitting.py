"""Expressions as a program: the descent of many fits, some of them side by side.

    for each fit:
        begin
    while fits run, some of them side by side:
        iterate
        let the next ones take the places of those that have ended
    for each fit:
        look at the ends
        while one of them is not sure, and a Newton step may help: settle

What these compute is the loop's own beginning, iteration and look at the end, traced. Sums
over the points of a fit are one loop over them, in which residuals and their derivatives never
leave the registers (see `point_loops`).
"""

import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

from .expressions import REAL, SINGLE, TRUTH, WHOLE, Expression
from .fields import TYPES, Argument, fields
from .point_loops import SUMS, loop, type_of
from .tracing import ordered

SYMBOLS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^"}
MUCH = 40  # expressions from which it pays to look whether any fit needs them
FIRST = {"sum": "0", "amax": "-INFINITY", "amin": "INFINITY", "any": "0", "all": "-1"}


class Block(NamedTuple):
    """Something that is computed of W fits: its outputs, and where an argument of it is found."""

    outputs: list[Expression]
    where: Callable[[Expression], "Place"]  # of an input


class Place(NamedTuple):
    """Where an input is read."""

    source: str  # "p", what is carried, "r", what is carried between looks at the end, or "d", data
    number: int  # of what is carried, or of the argument among the data
    offset: int = 0  # of its first number there
    step: int = 0  # between the numbers of two points; 0: points share it
    shared: bool = False  # by all fits

    def written(self, kind: str, point: str) -> str:
        """In C++, for a point."""
        if self.source != "d":
            return f"{self.source}.s{self.number}"
        how, index = "all" if self.shared else "lanes", str(self.offset)
        if self.step:
            index = f"{self.offset} + {point} * {self.step}"
        return f"{how}<{TYPES[kind]}>(d.b{self.number}, {index})"


class Layout(Protocol):
    """How fits run beside each other, and where their numbers lie."""

    @property
    def pairs(self) -> bool:
        """Whether two points in float32 are one vector."""
        ...

    def before(self, data: Sequence[Argument]) -> str:
        """What stands in front, with how a number of an argument is read."""
        ...

    def after(
        self,
        data: Sequence[Argument],
        carried: Sequence[str],  # the kind of each number
        begun: Sequence[int],  # places of what is known of where the first of several runs began
    ) -> str:
        """What brings numbers in and out, and the loops around the blocks."""
        ...


def program(
    layout: Layout,
    points: int,
    data: Sequence[Argument],
    carried: Sequence[str],  # the kind of each number that is carried from iteration to iteration
    begin: Block,
    step: Block,
    look: Block,
    settle: Block,
    rest: Sequence[str],  # the kind of each number that is carried between looks at the end
    told: tuple[int, int, int],  # places of status and trials among them, and the status "running"
    begun: Sequence[int],  # places of what is known of where the first of several runs began
) -> str:
    """The program, in C++ or CUDA, as the layout is."""
    status, trials, running = told
    parts = [
        f"#define POINTS {points}",
        layout.before(data),
        f"struct State {{\n{fields(carried)}\n}};\nstruct Rest {{\n{fields(rest)}\n}};",
        _function("begin", begin, len(carried), layout.pairs),
        _function("step", step, len(carried), layout.pairs),
        _function("look", look, len(carried), layout.pairs),
        _function("settle", settle, len(carried), layout.pairs),
        "FUNCTION void told(const State &p, L &running, L &trials) {\n"
        f"  running = p.s{status} == (int64_t){running};\n  trials = p.s{trials};\n}}",
        "FUNCTION bool going(void *const *kept, int64_t fit, int64_t limit) {\n"
        f"  return ((int64_t *)kept[{status}])[fit] == (int64_t){running} &&\n"
        f"         ((int64_t *)kept[{trials}])[fit] < limit;\n}}",
        layout.after(data, carried, begun),
    ]
    return "\n\n".join(parts)


def _function(name: str, block: Block, carried: int, pairs: bool) -> str:
    """A C++ function that computes a block: number by number, and in loops over the points."""
    every = ordered(block.outputs)
    names = {id(one): f"v{place}" for place, one in enumerate(every)}
    lines: list[str] = []

    def text(one: Expression, point: str, names: dict[int, str] = names) -> str:
        if one.operator == "constant":
            return f"{type_of(one)}{{}} + {_literal(one)}"
        if one.operator == "input":
            return block.where(one).written(one.kind, point)
        return _written(one, names)

    def write(one: Expression, into: list[str]) -> None:
        into.append(f"const {type_of(one)} {names[id(one)]} = {text(one, '0')};")

    aside = apart(every, block.outputs)
    within = {id(one) for found in aside.values() for one in found}

    def choose(one: Expression) -> None:
        """A choice, one side of which is only made where a fit takes it."""
        mask, first, second = one.operands
        needed, inside = (mask, first) if _inside(first, aside[id(one)]) else (mask, second)
        kind, name, test = TYPES[one.kind], names[id(one)], names[id(needed)]
        test = test if inside is first else f"~{test}"
        plain = second if inside is first else first
        lines.append(f"{kind} {name} = {names[id(plain)]};")
        lines.append(f"if (any_({test})) {{")
        inner: list[str] = []
        for member in aside[id(one)]:
            write(member, inner)
        lines.extend("  " + line for line in inner)
        lines.append(f"  {name} = {_written(one, names)};")
        lines.append("}")

    for one in every:
        if one.operator == "constant":
            write(one, lines)
    for stage in range(1 + max((e.stage for e in every), default=0)):
        for one in every:
            if one.stage != stage or one.point or one.operator in (*SUMS, "constant"):
                continue
            if id(one) in aside:
                choose(one)
            elif id(one) not in within:
                write(one, lines)
        sums = [e for e in every if e.operator in SUMS and e.stage == stage + 1]
        if not sums:
            continue
        for one in sums:
            kind = TYPES[one.kind]
            first = f"({_scalar(one.kind)}){FIRST[one.operator]}"
            lines.append(f"{kind} {names[id(one)]} = {kind}{{}} + {first};")
        lines += loop(sums, names, text, pairs)
    for place, output in enumerate(block.outputs):  # the state q, and what follows is the rest t
        where = f"q.s{place}" if place < carried else f"t.s{place - carried}"
        lines.append(f"{where} = {names[id(output)]};")
    body = "\n".join("  " + line for line in lines)
    arguments = "const Data &d, const State &p, const Rest &r, State &q, Rest &t"
    return f"FUNCTION void {name}({arguments}) {{\n{body}\n}}"


def _inside(one: Expression, members: Sequence[Expression]) -> bool:
    return any(member is one for member in members)


def apart(
    every: Sequence[Expression], outputs: Sequence[Expression], much: int = MUCH
) -> dict[int, list[Expression]]:
    """For choices (by id) what only one of their sides needs, if that is much: operands first."""
    users: dict[int, list[Expression]] = {}
    for one in every:
        for operand in one.operands:
            users.setdefault(id(operand), []).append(one)
    for one in outputs:
        users.setdefault(id(one), []).append(one)  # needed by itself
    places = {id(one): place for place, one in enumerate(every)}
    found: dict[int, list[Expression]] = {}
    taken: set[int] = set()
    for choice in reversed(every):
        if choice.operator != "where" or choice.point or id(choice) in taken:
            continue
        sides = [_needed_by(choice, side, users, places) for side in choice.operands[1:]]
        largest = max(sides, key=len)
        if len(largest) >= much and not any(id(one) in taken for one in largest):
            found[id(choice)] = largest
            taken.update(map(id, largest))
    return found


def _needed_by(
    choice: Expression,
    side: Expression,
    users: dict[int, list[Expression]],
    places: dict[int, int],  # of all expressions (by id), operands first
) -> list[Expression]:
    """What nothing but one side of a choice needs, operands first.

    From the side down to operands, the last in the order of all first: whatever uses an expression
    has been looked at before it. So it takes as long as what is found is, and not as the program.

    Returns:
        These expressions.
    """
    members = {id(choice)}
    found: list[Expression] = []
    waiting = [(-places[id(side)], side)]
    seen = {id(side)}
    while waiting:
        _, one = heappop(waiting)
        plain = not one.point and one.operator not in (*SUMS, "constant", "input")
        # what the choice itself reads, the mask or the other side, is needed in any case
        other = one is not side and _inside(one, choice.operands)
        if not plain or one.stage != choice.stage or other:
            continue
        if all(id(user) in members for user in users[id(one)]):
            members.add(id(one))
            found.append(one)
            for operand in one.operands:
                if id(operand) not in seen:
                    seen.add(id(operand))
                    heappush(waiting, (-places[id(operand)], operand))
    return found[::-1]


def _scalar(kind: str) -> str:
    return {REAL: "double", SINGLE: "float"}.get(kind, "int64_t")


def _literal(one: Expression) -> str:
    value = one.value
    if one.kind == TRUTH:
        return "-1" if value else "0"
    if one.kind == WHOLE:
        return f"INT64_C({value})"
    assert isinstance(value, int | float)
    number = float(value)
    if math.isnan(number):
        text = "NAN"
    elif number in (float("inf"), float("-inf")):
        text = "INFINITY" if number > 0 else "-INFINITY"
    else:
        text = number.hex()
    return f"({_scalar(one.kind)})({text})"


def _written(one: Expression, names: dict[int, str]) -> str:
    operands = [names[id(o)] for o in one.operands]
    if one.operator in SYMBOLS:
        return f" {SYMBOLS[one.operator]} ".join(operands)
    if one.operator == "neg":
        return f"-{operands[0]}"
    if one.operator == "not":
        return f"~{operands[0]}"
    if one.operator == "eigen":
        return f"eigen_<{TYPES[one.kind]}, {one.value}>({{{', '.join(operands)}}})"
    if one.operator == "of_eigen":
        return f"{operands[0]}.{one.value}"
    function = {"where": "choose"}.get(one.operator, f"{one.operator}_")
    if one.operator.startswith("to_"):
        function = one.operator
    return f"{function}({', '.join(operands)})"
