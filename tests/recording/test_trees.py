"""Records of one function on several ways become one function."""

import math

import pytest
import torch

from lmtorch.recording.numbers import Number, Record, Vector
from lmtorch.recording.operators import UnrecordableError
from lmtorch.recording.trees import MISSING, Tree, function_of

SCOPE = {"sqrt": math.sqrt, "inf": math.inf, "nan": math.nan}


def recorded(tree, function, *values):
    """Record a function of numbers, and add the way that it takes."""
    record = Record()
    given = [
        Number(record, value, record.line(name, (name,)))
        for name, value in zip("ab", values, strict=True)
    ]
    result = function(*given)
    tree.add(record.entries, result.name, () if result.constant else (result.name,))
    return result.value


def branching(a, b):
    """What takes another way for each order of its arguments."""
    if a < b:
        c = a * b
        return (c + a).sqrt() if c > 1 else c - b
    d = a / b
    return torch.where(d > 2, d, -d) + a


WAYS = [(0.5, 1.0), (2.0, 3.0), (3.0, 1.0), (2.0, 1.5)]


def test_each_way_is_run_and_others_are_missing():
    tree = Tree()
    for a, b in WAYS[:2]:
        recorded(tree, branching, a, b)
    run = function_of(tree, "run", ("a", "b"), SCOPE)
    assert run(3.0, 1.0) is MISSING
    recorded(tree, branching, 3.0, 1.0)
    run = function_of(tree, "run", ("a", "b"), SCOPE)
    expected = [0.5 - 1.0, math.sqrt(6.0 + 2.0), 3.0 + 3.0, -(2.0 / 1.5) + 2.0]
    assert [run(a, b) for a, b in WAYS] == expected


def test_a_new_way_may_need_what_was_left_out_before():
    def function(a, b):
        product = a * b
        if a < b:
            return a + 1.0
        return product + product * a if a < 5.0 else product

    tree = Tree()
    for number, (a, b) in enumerate([(1.0, 2.0), (3.0, 2.0), (6.0, 2.0)], 1):
        recorded(tree, function, a, b)
        run = function_of(tree, "run", ("a", "b"), SCOPE)
        assert ("*" in tree.source("run", ("a", "b"))) is (number > 1)
        found = [run(1.5, 2.0), run(4.0, 2.0), run(7.0, 2.0)]
        assert found == [2.5, 40.0, 14.0][:number] + [MISSING] * (3 - number)


@pytest.mark.parametrize("rising", [True, False])
def test_a_way_may_ask_more_often_than_python_indents(rising):
    """A hundred levels were an IndentationError of a fit, after many Newton steps."""

    def counted(a, b):
        total = a
        for _ in range(130):
            if (total < b) if rising else not (total >= b):
                total = total + 1.0
        return total

    tree = Tree()
    for a in (0.0, 100.0, 500.0):
        recorded(tree, counted, a, 1000.0)
    recorded(tree, counted, 0.0, 100.0)
    run = function_of(tree, "run", ("a", "b"), SCOPE)
    assert [run(a, 1000.0) for a in (0.0, 7.0, 500.0)] == [130.0, 137.0, 630.0]
    assert run(0.0, 100.0) == 100.0
    assert run(0.0, 101.0) is MISSING


def test_names_of_one_way_do_not_keep_lines_of_another():
    # the same name is one thing after one answer and another after the other: what is needed of it
    # on one way says nothing of the other
    def function(a, b):
        if a < b:
            unused = a * b
            unused = unused + a
            return a - b + unused * 0 + unused
        unused = a + b
        _ = unused / b
        return a * 2

    tree = Tree()
    recorded(tree, function, 1.0, 2.0)
    recorded(tree, function, 2.0, 1.0)
    run = function_of(tree, "run", ("a", "b"), SCOPE)
    assert run(1.0, 2.0) == 1.0 - 2.0 + 0.0 + 3.0
    assert run(2.0, 1.0) == 4.0
    assert "/" not in tree.source("run", ("a", "b"))


def test_a_mask_that_was_read_is_known_from_there_on():
    def function(a, b):
        mask = a < b
        first = a if mask else b
        return torch.where(mask, first, b * 2)

    tree = Tree()
    recorded(tree, function, 1.0, 2.0)
    recorded(tree, function, 2.0, 1.0)
    source = tree.source("run", ("a", "b"))
    assert "else" not in source
    run = function_of(tree, "run", ("a", "b"), SCOPE)
    assert (run(1.0, 2.0), run(2.0, 1.0)) == (1.0, 2.0)


def test_a_value_that_is_used_once_stands_where_it_is_used():
    # and only there: what another way needs, or what is needed twice, keeps its name
    def function(a, b):
        once, twice, later = a - b, a * b, a / b
        c = -(once + 1) * (twice - twice / 3)
        return c + later if c > 0 else c - (later - 2)

    tree = Tree()
    values = [(1.0, 3.0), (3.0, 1.0), (5.0, 2.0), (0.1, 7.0)]
    expected = [recorded(tree, function, *pair) for pair in values]
    source = tree.source("run", ("a", "b"))
    assert len(source.splitlines()) < 12
    run = function_of(tree, "run", ("a", "b"), {**SCOPE, "copysign": math.copysign})
    assert [run(a, b) for a, b in values] == expected


@pytest.mark.parametrize("function", [lambda a, b: (-a).sqrt(), lambda a, b: float(a)])
def test_what_python_refuses_to_compute_is_not_recorded(function):
    with pytest.raises(UnrecordableError):
        recorded(Tree(), function, 1.0, 2.0)


def test_operators_on_numbers_and_vectors_are_those_of_floats():
    record = Record()
    x = Vector([Number(record, value, f"x{i}") for i, value in enumerate((3.0, -2.0, 0.5))])
    nan = Number(record, math.nan, "n")

    def values(vector):
        return [entry.value for entry in vector.entries]

    assert values(2 - x) == [-1.0, 4.0, 1.5]
    assert values(1 / x) == [1 / 3, -0.5, 2.0]
    assert values(x.clamp(min=0)) == [3.0, 0.0, 0.5]
    assert values(torch.minimum(x, x * x)) == [3.0, -2.0, 0.25]
    assert values(torch.where(x > 0, x, 0.0)) == [3.0, 0.0, 0.5]
    assert (x.amax().value, x.sum().value) == (3.0, 1.5)
    assert torch.linalg.vector_norm(x).value == math.sqrt(9 + 4 + 0.25)
    assert ((x > 0).any().value, (x > 0).all().value) == (True, False)
    assert math.isnan(torch.maximum(nan, nan * 0).value)
    assert nan.isnan().value
    assert not nan.isfinite().value
    assert (~(nan < 1)).value
