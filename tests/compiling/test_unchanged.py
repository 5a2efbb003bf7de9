"""What a key is made of is compared in microseconds: whatever changes a key is seen."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import lmtorch
from lmtorch.compiling import unchanged
from lmtorch.compiling.keys import NoKeyError, key_of
from lmtorch.compiling.unchanged import Unchanged, place_of

from .test_keys import HIDDEN, Model, closure, module, nested

FACTOR = 2.0
LATER: dict[str, Any] = {}


def helper(x: Any) -> Any:
    return 2 * x


def other_helper(x: Any) -> Any:
    return 3 * x


def calls_helper(x: Any) -> Any:
    return helper(x)


def reads_what_may_be_there(x: Any) -> Any:
    # the name is not there until a test puts it there
    return x * (defined_later if LATER else 1.0)  # type: ignore[name-defined] # noqa: F821


def set_cell(function: Any, value: Any) -> None:
    function.__closure__[0].cell_contents = value


def in_numpys_way(tensor: torch.Tensor) -> None:
    """A change that the version of a tensor does not count."""
    tensor.numpy()[0] += 1


class Deep:
    """A number two objects away."""

    def __init__(self) -> None:
        self.inner = SimpleNamespace(entries=[1.0, {"a": np.ones(2)}])

    def residual(self, x: Any) -> Any:
        return x * self.inner.entries[0] * self.inner.entries[1]["a"][0]


class Classy:
    """A constant of the class and a method, which may be replaced."""

    number = 1.0

    def factor(self) -> float:
        return self.number

    def residual(self, x: Any) -> Any:
        return x * self.factor()


def cases() -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """Functions, and what changes what they compute."""
    held = torch.ones(2)
    deep, classy, layer = Deep(), Classy(), module(1.0)
    return {
        "a cell": (closure(1.0), lambda f: set_cell(f, 2.0)),
        "a cell of a function in a cell": (
            nested(1.0), lambda f: set_cell(f.__closure__[0].cell_contents, 2.0)
        ),
        "a tensor in place": (closure(held), lambda f: held.add_(1)),
        "a tensor through NumPy": (closure(torch.ones(2)), lambda f: in_numpys_way(
            f.__closure__[0].cell_contents)),
        "a tensor's data": (closure(torch.ones(2)), lambda f: setattr(
            f.__closure__[0].cell_contents, "data", torch.zeros(2))),
        "a tensor's shape": (closure(torch.ones(2)), lambda f:
            f.__closure__[0].cell_contents.unsqueeze_(0)),
        "an array in place": (closure(np.ones(2)), lambda f: np.add(
            f.__closure__[0].cell_contents, 1, out=f.__closure__[0].cell_contents)),
        "a code": (lambda x: 3 * x, lambda f: setattr(f, "__code__", helper.__code__)),
        "a default": (lambda x, a=1.0: a * x, lambda f: setattr(f, "__defaults__", (2.0,))),
        "a keyword's default": (lambda x, *, a=1.0: a * x,
                                lambda f: f.__kwdefaults__.update(a=2.0)),
        "an attribute": (Model(1.0).method, lambda f: setattr(f.__self__, "value", 2.0)),
        "an attribute that is new": (Model(1.0), lambda f: setattr(f, "other", 2.0)),
        "an array far away": (deep.residual, lambda f: deep.inner.entries[1]["a"].fill(3.0)),
        "an entry far away": (Deep().residual,
                              lambda f: f.__self__.inner.entries.__setitem__(0, 2.0)),
        "a class's number": (classy.residual, lambda f: setattr(Classy, "number", 2.0)),
        "a class's method": (classy.residual, lambda f: setattr(Classy, "factor", lambda s: 5.0)),
        "an object's class": (Model(1.0), lambda f: setattr(f, "__class__", OtherModel)),
        "a module's parameters": (layer, lambda f: nn.init.zeros_(f.weight)),
        "a module's parameter": (module(1.0), lambda f: setattr(f, "bias", None)),
        "an argument of a partial": (partial(closure(1.0)), lambda f: f.__setstate__(
            (f.func, (2.0,), {}, {}))),
        "a set": (closure({1.0}), lambda f: f.__closure__[0].cell_contents.add(2.0)),
    }  # fmt: skip


class OtherModel(Model):
    """The same, elsewhere."""

    def __call__(self, x: Any) -> Any:
        return self.value * x + 1


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    number, factor, dtype = Classy.number, Classy.factor, torch.get_default_dtype()
    yield
    # what a test may have set in the place of a method is what is to be taken back
    Classy.number, Classy.factor = number, factor  # type: ignore[method-assign]
    torch.set_default_dtype(dtype)


@pytest.mark.parametrize("name", cases())
def test_a_change_is_seen(name: str) -> None:
    function, change = cases()[name]
    seen, before = Unchanged(function), key_of(function)
    assert seen.holds(function)
    change(function)
    assert key_of(function) != before
    assert not seen.holds(function)


@pytest.mark.parametrize("name", [name for name in HIDDEN if name != "the default dtype"])
def test_a_change_by_a_detour_is_seen(name: str) -> None:
    function, change = HIDDEN[name]
    seen = Unchanged(function)
    assert seen.holds(function)
    change()
    assert not seen.holds(function)


@pytest.mark.parametrize(
    ("function", "name", "changed"),
    [
        (lambda x: FACTOR * x, "FACTOR", 3.0),
        (calls_helper, "helper", other_helper),
        (reads_what_may_be_there, "defined_later", 1.0),
    ],
)
def test_a_global_is_seen(
    function: Any, name: str, changed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Unchanged(function)
    assert seen.holds(function)
    monkeypatch.setitem(globals(), name, changed)
    assert not seen.holds(function)


def test_a_function_that_is_made_anew_stands_for_the_first() -> None:
    held = torch.ones(2)
    first, again = closure(held), closure(held)
    assert place_of(first) == place_of(again)
    seen = Unchanged(first)
    assert seen.holds(again)
    assert not seen.holds(closure(torch.ones(2)))  # it may change without the first
    assert not seen.holds(closure(2.0))
    one, other = closure(1.0), closure(2.0)
    assert place_of(one) == place_of(other)
    assert not Unchanged(one).holds(other)
    annotated: Any = closure(held)
    annotated.factor = 2.0
    assert not seen.holds(annotated)


def test_a_method_of_another_object_is_another() -> None:
    one, other = Model(1.0), Model(2.0)
    seen = Unchanged(one.method)
    assert seen.holds(one.method)
    assert not seen.holds(other.method)
    assert not seen.holds(one)


def test_equal_numbers_are_the_same_and_others_are_not() -> None:
    model = Model(1e300)
    seen = Unchanged(model)
    model.value = float("1e300")
    assert seen.holds(model)
    model.value = 0.0
    seen = Unchanged(model)
    model.value = -0.0
    assert not seen.holds(model)
    model.value = 0
    assert not seen.holds(model)


def test_what_takes_long_to_compare_is_not_compared() -> None:
    with pytest.raises(NoKeyError, match="take long"):
        Unchanged(closure(np.zeros(unchanged.LARGEST)))


def test_what_is_looked_at_is_kept_alive() -> None:
    """A number of an object that is gone may be that of another."""
    model = Model([1.0])
    seen = Unchanged(model)
    assert sys.getrefcount(model.value) > sys.getrefcount(Model([1.0]).value)
    model.value = [1.0]
    assert not seen.holds(model)


def test_what_says_by_itself_what_it_computes_is_looked_at_in_full() -> None:
    class Own(lmtorch.models.Model):
        parameters = ("a",)
        limits: ClassVar[dict[str, Any]] = {"a": (0.0, 1.0)}

        def formula(self, x: Any, a: Any) -> Any:  # which sees more than `compiled_by` says
            return self.factor * a * x

        def __init__(self) -> None:
            super().__init__()
            self.factor = 2.0

    def rules(model: Any) -> None:
        model._rules = model._rules.bounded({"a": (0.0, 0.5)})

    def factor(model: Any) -> None:
        model.factor = 3.0

    def within(model: Any) -> None:
        Own.limits["a"] = (0.0, 2.0)

    def of_class(model: Any) -> None:
        Own.formula = staticmethod(lambda x, a: a * x)  # type: ignore[method-assign]

    for change in (rules, factor, within, of_class):
        model = Own()
        both = model + lmtorch.models.Constant("c")
        seen, of_sum = Unchanged(model), Unchanged(both)
        assert seen.holds(model)
        assert of_sum.holds(both)
        assert not seen.holds(Own())
        change(model)
        assert not seen.holds(model)
        assert not of_sum.holds(both)


def test_what_moves_from_one_function_to_the_next_is_seen() -> None:
    def first(x: Any) -> Any:
        return second(x)

    def second(x: Any) -> Any:
        return x

    first.level = 1.0  # type: ignore[attr-defined]
    looked = Unchanged(first)
    assert looked.holds(first)
    second.level = vars(first).pop("level")  # type: ignore[attr-defined]
    assert not looked.holds(first)
    first.level = vars(second).pop("level")  # type: ignore[attr-defined]
    assert looked.holds(first)
