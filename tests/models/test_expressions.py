"""Ties as text: what they compute, and what is refused."""

import math
import pickle
from typing import Any

import pytest
import torch

from lmtorch import InputError
from lmtorch.models.expressions import circle, equation, expression

NAMES = ["a", "b", "g_center", "w[0]", "w[0,1]"]
VALUES = {"a": 1.5, "b": 0.25, "g_center": -2.0, "w[0]": 3.0, "w[0,1]": 4.0}
TEXTS = {
    "2 * a + b": 3.25,
    "-g_center ** 2": -4.0,
    "(a - b) / 4": 0.3125,
    "sqrt(2) * a": math.sqrt(2) * 1.5,
    "exp(a) - log10(b)": math.exp(1.5) - math.log10(0.25),
    "max(a, g_center) + min(1, b)": 1.75,
    "abs(g_center) * pi": 2 * math.pi,
    "arctan(a) - atan(a)": 0.0,
    "w[0] + w[0, 1]": 7.0,
    "e ** a": math.e**1.5,
    "3": 3.0,
    "+1e-3": 1e-3,
}


@pytest.mark.parametrize(("text", "value"), TEXTS.items())
def test_a_tie_has_the_value_that_it_says(text: str, value: float) -> None:
    tie = expression(text, NAMES, "c")
    assert float(tie(VALUES)) == pytest.approx(value, rel=1e-14)
    tensors = {name: torch.tensor(v, dtype=torch.float64) for name, v in VALUES.items()}
    assert float(tie(tensors)) == pytest.approx(value, rel=1e-14)


def test_a_tie_has_derivatives() -> None:
    a = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    expression("exp(2 * a) / max(a, 3)", NAMES, "c")({"a": a}).backward()
    assert float(a.grad) == pytest.approx(2 * math.exp(3.0) / 3)  # type: ignore[arg-type]


def test_a_parameter_that_is_called_as_a_constant_is_meant() -> None:
    tie = expression("2 * e", ["e", "pi"], "pi")
    assert tie.names == ["e"]
    assert tie({"e": 1.0}) == 2.0
    with pytest.raises(KeyError):  # and never the constant, where it is not yet known
        tie({})


def test_names_are_those_of_parameters() -> None:
    assert expression("sqrt(a) + pi * w[0]", NAMES, "c").names == ["a", "w[0]"]


def test_a_tie_is_pickled_as_text() -> None:
    tie = equation("b = 2 * a", NAMES)[1]
    assert pickle.loads(pickle.dumps(tie))({"a": 2.0}) == 4.0


REFUSED = {
    "a.real": "not understood",
    "a.__class__": "not understood",
    "__import__('os')": "may not be called",
    "torch.exp(a)": "'torch.exp' may not be called",
    "(lambda: 1)()": "may not be called",
    "a if b else 1": "not understood",
    "a < b": "a comparison",
    "[a][0]": "not understood",
    "w[b]": "not understood",
    "w[0:1]": "not understood",
    "'a'": "no real number",
    "1j": "no real number",
    "True": "no real number",
    "a ^ 2": "\\*\\* for a power",
    "a % 2": "no operator",
    "not a": "no operator",
    "a := 3": "cannot be read",
    "sqrt(a, b)": "takes 1",
    "max(a)": "takes 2",
    "sqrt(x=a)": "takes 1",
    "2 a": "cannot be read",
    "": "cannot be read",
    "1 / 0": "division by zero",
    "log(-1) * a": "at 'log\\(-1\\)'",
    "9 ** 9 ** 9 ** 9": "cannot be used",
    "sqrt": "no parameter 'sqrt'",
    "inf": "no parameter 'inf'",
    "g_centre + 1": "at 'g_centre'.*Is 'g_center' meant",
    "w[1]": "no parameter",
    "*a": "cannot be",
    "f'{a}'": "not understood",
    "a" * 3000: "3000 characters",
    "-" * 1500 + "a": "cannot be|too deep",
}


@pytest.mark.parametrize(("text", "words"), REFUSED.items(), ids=lambda text: text[:20])
def test_what_is_no_arithmetic_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        expression(text, NAMES, "c")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a + b", "no single '='"),
        ("a == b", "no single '='"),
        ("aa = b", "is no parameter.*Is 'a' meant"),
        ("a = 2 * a", "of itself"),
        ("a = b = 2", "cannot be read"),
        (3, "write it as a text"),
    ],
)
def test_an_equation_needs_a_parameter_on_its_left(text: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        equation(text, NAMES)


def test_circles_are_refused_with_their_names() -> None:
    names = list("abcd")
    ties = dict(equation(text, names) for text in ("a = b", "b = c + d", "c = 2 * a"))
    with pytest.raises(InputError, match="a ← b ← c ← a"):
        circle(ties)
    del ties["c"]
    circle(ties)


def test_many_ties_of_many_are_no_circle_and_take_no_time() -> None:
    names = [f"p{i}" for i in range(60)]
    circle(
        {
            name: expression(" + ".join(names[i + 1 :]) or "1", names, name)
            for i, name in enumerate(names)
        }
    )
