"""Expressions of a program, and that its text is the same wherever it is written."""

import random
from itertools import pairwise

from lmtorch.compiling.expressions import COMMUTING, REAL, TRUTH, Expression, Expressions


def scattered(made: Expressions) -> list[Expression]:
    """Numbers of a fit whose places in memory are in no order, as after other work."""
    room = [object.__new__(Expression) for _ in range(4_000)]
    random.Random(0).shuffle(room)
    numbers = []
    for place in range(40):
        del room[-50:]  # what is made next is put where these were
        numbers.append(made.input(f"x{place}", REAL, point=False))
    return numbers


def test_operands_that_commute_stand_in_the_order_in_which_they_were_made() -> None:
    """Their order decides how a program rounds; by places in memory it was another each time."""
    made = Expressions()
    numbers = scattered(made)
    assert [id(one) for one in numbers] != sorted(id(one) for one in numbers)
    truths = [made.apply("lt", one, numbers[0], kind=TRUTH) for one in numbers[1:]]
    for operator in COMMUTING:
        logical = operator in ("and", "or", "xor")
        among = truths if logical else numbers
        for first, second in pairwise(among):
            kind = REAL if operator in ("add", "mul", "maximum", "minimum") else TRUTH
            found = made.apply(operator, second, first, kind=kind)
            assert found.operands == (first, second)
            assert found is made.apply(operator, first, second, kind=kind)
