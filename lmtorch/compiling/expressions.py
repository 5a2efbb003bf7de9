"""What a traced iteration computes, as scalar expressions: each one once, constants folded.

An expression is either a number of one fit, or a number of one point of one fit, which a loop over
the points evaluates. What has the same operator and the same operands is the same expression, so
that a product which several derivatives share is made once; and what a zero tangent multiplies is
never made at all.
"""

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

Number = float | int | bool
REAL, SINGLE, WHOLE, TRUTH = "double", "float", "whole", "truth"

# how an operator is written in C++; `F` is the vector of numbers in which it is computed
FORMS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "lt": "({0} < {1})",
    "le": "({0} <= {1})",
    "eq": "({0} == {1})",
    "ne": "({0} != {1})",
    "and": "({0} & {1})",
    "or": "({0} | {1})",
    "xor": "({0} ^ {1})",
    "not": "~{0}",
    "where": "choose({0}, {1}, {2})",
    "finite": "finite({0})",
}
COMMUTING = ("add", "mul", "eq", "ne", "and", "or", "xor", "maximum", "minimum")
FOLDS: dict[str, Callable[..., Number]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "xor": lambda a, b: a != b,
    "not": lambda a: not a,
    "finite": math.isfinite,
}


class Expression:
    """One number: an operator and its operands.

    Attributes:
        operator: a key of `FORMS`, the name of a C++ function, "constant", "input" or "sum" and its
            like.
        operands: other expressions.
        kind: the kind of number.
        value: of a constant; of an input, where it is read.
        point: whether it differs between the points of a fit.
        stage: how many loops over the points come before it can be known.
        place: among all expressions, in the order in which they were made.
    """

    __slots__ = ("kind", "operands", "operator", "place", "point", "stage", "value")

    def __init__(
        self,
        operator: str,
        operands: tuple["Expression", ...],
        kind: str,
        value: object,
        point: bool,
        stage: int,
        place: int,
    ) -> None:
        self.operator, self.operands, self.kind = operator, operands, kind
        self.value, self.point, self.stage, self.place = value, point, stage, place


class Eigen(NamedTuple):
    """Eigenvalues and eigenvectors, entry by entry."""

    values: list[Expression]
    vectors: list[list[Expression]]


class Expressions:
    """Makes expressions, the same one for the same computation."""

    def __init__(self) -> None:
        self._known: dict[object, Expression] = {}

    def constant(self, value: Number, kind: str) -> Expression:
        """A number that is known."""
        value = _rounded(value, kind)
        return self._one("constant", (), kind, value, False, 0, repr(value))

    def input(self, place: object, kind: str, point: bool) -> Expression:
        """What is read from memory."""
        return self._one("input", (), kind, place, point, 0, place)

    def reduce(self, operator: str, operand: Expression) -> Expression:
        """A sum or its like over the points: of what differs between them."""
        if operator == "sum" and operand.operator == "mul":
            front, rest = self._split(operand, operand)
            if rest is not None and rest is not operand:
                return self.apply("mul", front, self.reduce(operator, rest), kind=operand.kind)
        return self._one(operator, (operand,), operand.kind, None, False, operand.stage + 1, None)

    def apply(self, operator: str, *operands: Expression, kind: str) -> Expression:
        """An operator on numbers, simplified where that changes no result."""
        simple = self._simplified(operator, operands, kind)
        if simple is not None:
            return simple
        if operator in ("mul", "neg", "div") and any(o.point for o in operands):
            product = self._product(operator, operands, kind)
            if product is not None:
                return product
        return self._made(operator, operands, kind)

    def _product(
        self, operator: str, operands: tuple[Expression, ...], kind: str
    ) -> Expression | None:
        """A product for each point, with what all points share in front; None: it is another.

        A factor in front is made once for a fit. A division by such a factor is a product with its
        inverse, which moves the last digit by half a unit, and costs a tenth.

        Returns:
            The product.
        """
        one = self.constant(1, kind)
        front, behind = one, list[Expression]()
        for place, operand in enumerate(operands):
            factor, rest = self._split(operand, one)
            if operator == "div" and place == 1:
                if rest is not None:
                    return None
                front = self.apply("div", front, factor, kind=kind)
                continue
            front = self.apply("mul", front, factor, kind=kind)
            behind += [] if rest is None else [rest]
        if operator == "neg":
            front = self.apply("neg", front, kind=kind)
        total = behind[0]
        for other in behind[1:]:
            total = self._made("mul", (total, other), kind)
        if front is one:
            return total
        return self._made("mul", (front, total), kind)

    @staticmethod
    def _split(operand: Expression, one: Expression) -> tuple[Expression, Expression | None]:
        """What of a product is the same for all points, and the rest."""
        if not operand.point:
            return operand, None
        if operand.operator == "mul":
            first, second = operand.operands
            if not first.point:
                return first, second
            if not second.point:
                return second, first
        return one, operand

    def _made(self, operator: str, operands: tuple[Expression, ...], kind: str) -> Expression:
        if operator in COMMUTING:
            # in an order that is the same in every process, so that the program is, to the last bit
            operands = tuple(sorted(operands, key=attrgetter("place")))
        point = any(o.point for o in operands)
        stage = max(o.stage for o in operands)
        return self._one(operator, operands, kind, None, point, stage, None)

    def eigen(self, lower: Sequence[Expression], n: int) -> "Eigen":
        """The eigenvalues, rising, and eigenvectors of a matrix by its lower triangle, row by row.

        Returns:
            Both, as expressions: n, and n times n.
        """
        kind, stage = lower[0].kind, max(entry.stage for entry in lower)
        whole = self._one("eigen", tuple(lower), kind, n, False, stage, n)

        def entry(name: str) -> Expression:
            return self._one("of_eigen", (whole,), kind, name, False, stage, name)

        return Eigen(
            [entry(f"values[{i}]") for i in range(n)],
            [[entry(f"vectors[{i}][{j}]") for j in range(n)] for i in range(n)],
        )

    def convert(self, operand: Expression, kind: str) -> Expression:
        """A number as one of another kind."""
        if operand.kind == kind:
            return operand
        if operand.operator == "constant":
            assert isinstance(operand.value, bool | int | float)
            return self.constant(operand.value, kind)
        if kind == TRUTH:
            return self.apply("ne", operand, self.constant(0, operand.kind), kind=TRUTH)
        if operand.kind == TRUTH:
            one, zero = self.constant(1, kind), self.constant(0, kind)
            return self.apply("where", operand, one, zero, kind=kind)
        return self.apply(f"to_{kind}", operand, kind=kind)

    def _one(
        self,
        operator: str,
        operands: tuple[Expression, ...],
        kind: str,
        value: object,
        point: bool,
        stage: int,
        key: object,
    ) -> Expression:
        whole = (operator, *map(id, operands), kind, key, point)
        if whole not in self._known:
            place = len(self._known)
            self._known[whole] = Expression(operator, operands, kind, value, point, stage, place)
        return self._known[whole]

    def _simplified(
        self, operator: str, operands: Sequence[Expression], kind: str
    ) -> Expression | None:
        """What an operator comes to where an operand is a constant, or operands are the same."""
        values = [o.value if o.operator == "constant" else None for o in operands]
        if all(o.operator == "constant" for o in operands):
            folded = _folded(operator, values)
            if folded is not None:
                return self.constant(folded, kind)
        first, last = operands[0], operands[-1]
        if operator in ("mul", "and") and 0 in values and None in values:
            return self.constant(0, kind)
        if operator == "add" and 0 in values:
            return last if values[0] == 0 else first
        if operator == "sub" and values[1] == 0:
            return first
        if operator == "sub" and values[0] == 0:
            return self.apply("neg", last, kind=kind)
        if operator == "mul" and 1 in values:
            return last if values[0] == 1 else first
        if operator == "mul" and -1 in values:
            return self.apply("neg", last if values[0] == -1 else first, kind=kind)
        if operator == "div" and values[1] == 1:
            return first
        if operator == "div" and values[0] == 0:
            return self.constant(0, kind)
        if operator == "neg" and first.operator == "neg":
            return first.operands[0]
        if operator == "or" and False in values:
            return last if values[0] is False else first
        if operator == "and" and True in values:
            return last if values[0] is True else first
        if operator == "where":
            if values[0] is not None:
                return operands[1] if values[0] else operands[2]
            if operands[1] is operands[2]:
                return operands[1]
        if operator in ("and", "or", "maximum", "minimum") and first is last:
            return first
        return None


def _rounded(value: Number, kind: str) -> Number:
    if kind == TRUTH:
        return bool(value)
    return int(value) if kind == WHOLE else float(value)


def _folded(operator: str, values: Sequence[object]) -> Number | None:
    if operator == "where":
        chosen: Any = values[1] if values[0] else values[2]
        return chosen
    fold = FOLDS.get(operator)
    return None if fold is None else fold(*values)
