"""Loops over the points of a fit, which make its sums.

On a CPU exponentials and their like are made before, of some points, in a loop of their own:

    for some of the points at a time:
        for each:
            make what is costly
        for each:
            make the rest, and add it to the sums

They are long rows of operations that wait for each other; of a loop that does nothing else a
processor has several turns at hand, and it does not lose the sums from its registers at each call.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .expressions import REAL, SINGLE, Expression
from .fields import TYPES
from .tracing import ordered

SUMS = {
    "sum": "{0} += {1};", "any": "{0} |= {1};", "all": "{0} &= {1};",
    "amax": "{0} = maximum_({0}, {1});", "amin": "{0} = minimum_({0}, {1});",
}  # fmt: skip
SHORT = 60  # expressions up to which a loop takes two points at a time
# functions of a point that are made before, some points at a time
COSTLY = frozenset(
    ["exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh",
     "acosh", "atanh", "erf", "erfc", "log1p", "expm1", "log2", "log10", "exp2", "lgamma", "pow",
     "atan2", "hypot"]
)  # fmt: skip


def loop(
    sums: Sequence[Expression], names: dict[int, str], text: Callable[..., str], pairs: bool
) -> list[str]:
    """A loop over the points that makes some sums.

    Where it is short two points are written line by line beside each other: what one of them waits
    for, a processor that looks so many instructions ahead fills with the other. The order of what
    is summed is the same. In float32, half as long as float64, one vector holds both points.

    Args:
        sums: what is made.
        names: of all expressions (by id) in the program.
        text: how one is written, of an expression, the number of its point, and names.
        pairs: whether it is for a CPU, where two points may be one vector.

    Returns:
        Its lines.
    """
    roots = [e.operands[0] for e in sums]
    every = [one for one in ordered(roots) if one.point]
    costly = [one for one in every if one.operator in COSTLY] if pairs else []
    if not costly:
        return _Turn(every, sums, {}, names, text, pairs).over("0", "POINTS")
    kept = {id(one): f"kept_{names[id(one)]}" for one in costly}
    first = [one for one in ordered(costly) if one.point]
    rest = [one for one in ordered(roots, kept) if one.point]
    lines = [f"{type_of(one)} {kept[id(one)]}[TILE];" for one in costly]
    lines += _Turn(first, (), kept, names, text, pairs).over("tile", "end")
    lines += _Turn(rest, sums, kept, names, text, pairs).over("tile", "end")
    return [
        "for (int64_t tile = 0; tile < POINTS; tile += TILE) {",
        "  const int64_t end = tile + TILE < POINTS ? tile + TILE : POINTS;",
        *("  " + line for line in lines), "}",
    ]  # fmt: skip


class _Turn(NamedTuple):
    """One turn of a loop."""

    every: Sequence[Expression]  # what is made, operands first
    sums: Sequence[Expression]  # to which it is added; empty: what is costly is kept, and no more
    kept: dict[int, str]  # where what is costly (by id) is kept
    names: dict[int, str]
    text: Callable[..., str]
    pairs: bool

    def over(self, first: str, end: str) -> list[str]:
        """The lines of the loop from a point to another."""
        if len(self.every) > SHORT:
            return [f"for (int64_t k = {first}; k < {end}; k++) {{", *self.body(["k"]), "}"]
        return [
            f"for (int64_t k = {first}; k + 1 < {end}; k += 2) {{",
            *self.body(["k", "(k + 1)"]), "}",
            f"if (({end} - {first}) % 2) {{", *self.body([f"({end} - 1)"]), "}",
        ]  # fmt: skip

    def body(self, points: Sequence[str]) -> list[str]:
        """What is done at one or two points."""
        lines, names = list[str](), self.names
        known = [
            names | {id(one): f"{names[id(one)]}{'_' * at}" for one in self.every}
            for at in range(len(points))
        ]
        both = dict(names)  # of both points
        for one in self.every:
            where = self.kept.get(id(one))
            places = [] if where is None else [f"{where}[{point} - tile]" for point in points]
            if self.pairs and len(points) == 2 and _paired(one):
                lines.append(f"const P {names[id(one)]} = {self._pair(one, points, places, both)};")
                for own, half in zip(known, ("first_", "second_"), strict=True):
                    own[id(one)] = f"{half}({names[id(one)]})"
            else:
                lines += self._each(one, points, places, known)
                both[id(one)] = f"pair({', '.join(own[id(one)] for own in known)})"
            if not self.sums:
                for place, own in zip(places, known, strict=False):
                    lines.append(f"{place} = {own[id(one)]};")
        for one in self.sums:
            for own in known:
                lines.append(SUMS[one.operator].format(names[id(one)], own[id(one.operands[0])]))
        return ["  " + line for line in lines]

    def _pair(
        self, one: Expression, points: Sequence[str], places: list[str], both: dict[int, str]
    ) -> str:
        """A number of two points as one vector."""
        if places and self.sums:
            return f"pair({', '.join(places)})"
        for same in one.operands:
            if not same.point:
                both[id(same)] = f"pair({self.names[id(same)]}, {self.names[id(same)]})"
        found = self.text(one, points[0], both)
        if one.operator == "input":
            return f"pair({found}, {self.text(one, points[1])})"
        return found

    def _each(
        self,
        one: Expression,
        points: Sequence[str],
        places: list[str],
        known: Sequence[dict[int, str]],
    ) -> list[str]:
        """The lines that make a number of each point."""
        made = [own[id(one)] for own in known]
        known_before = places and self.sums
        two = self.pairs and len(points) == 2 and one.kind == REAL
        if two and one.operator == "exp" and not known_before:
            given = [own[id(one.operands[0])] for own in known]
            return [f"D {', '.join(made)};", f"exp_both({', '.join([*given, *made])});"]
        if known_before:
            found = places
        else:
            found = [self.text(one, at, own) for at, own in zip(points, known, strict=True)]
        kind = type_of(one)
        return [f"const {kind} {a} = {b};" for a, b in zip(made, found, strict=True)]


def _paired(one: Expression) -> bool:
    """Whether a number of each point is made for two points at once: in float32, from such."""
    alike = all(operand.kind == SINGLE for operand in one.operands)
    return one.kind == SINGLE and alike and one.operator != "of_eigen"


def type_of(one: Expression) -> str:
    """The C++ type of an expression: a vector, or the eigenvalues and vectors of a matrix."""
    if one.operator == "eigen":
        return f"Eigen<{TYPES[one.kind]}, {one.value}>"
    return TYPES[one.kind]
