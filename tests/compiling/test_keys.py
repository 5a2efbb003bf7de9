"""A key changes with everything that a function's results depend on, and with nothing else."""

import random
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lmtorch
from lmtorch.compiling.keys import NoKeyError, key_of

SCALE = 2.0
HELD = {"a": 1.0}


def closure(value: Any) -> Callable[..., Any]:
    return lambda x: x * value


def default(value: Any) -> Callable[..., Any]:
    def model(x: Any, factor: Any = value) -> Any:
        return x * factor

    return model


def nested(value: Any) -> Callable[..., Any]:
    def inner(x: Any) -> Any:
        return x * value

    def outer(x: Any) -> Any:
        return inner(x) + 1

    return outer


class Model:
    """A callable object with a number."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, x: Any) -> Any:
        return self.value * x

    def method(self, x: Any) -> Any:
        return self.value * x


def module(value: float) -> nn.Module:
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(value)
        layer.bias.fill_(0)
    return layer


MAKERS: dict[str, Callable[[float], Any]] = {
    "a closure": closure,
    "a default": default,
    "a function in a closure": nested,
    "a tensor in a closure": lambda value: closure(torch.tensor([1.0, value])),
    "an array in a closure": lambda value: closure(np.array([1.0, value])),
    "a list in a closure": lambda value: closure([value]),
    "a partial": lambda value: partial(max, value),
    "an object": Model,
    "a method": lambda value: Model(value).method,
    "a module": module,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_constant_is_part_of_the_key(make: Callable[[float], Any]) -> None:
    assert key_of(make(1.0)) == key_of(make(1.0))
    assert key_of(make(1.0)) != key_of(make(2.0))


def test_a_global_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(x: Tensor) -> Tensor:
        return SCALE * HELD["a"] * x

    before = key_of(model)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    changed = key_of(model)
    assert changed != before
    monkeypatch.setitem(HELD, "a", 2.0)
    assert key_of(model) not in (before, changed)


class Setting:
    """Constants of a class: a list, a tuple, and one in another class."""

    entries: ClassVar[list[float]] = [1.0]
    pair: ClassVar[tuple[float, ...]] = (1.0, 2.0)

    class Inner:
        """Of the class."""

        value = 1.0


class Slotted:
    """Its number is in a slot of a base."""

    __slots__ = ("__value",)

    def __init__(self, value: Any) -> None:
        self.__value = value

    def __call__(self, x: Any) -> Any:
        return self.__value * x


class Derived(Slotted):
    """With no slot of its own."""

    __slots__ = ()


class Numbers(list[float]):
    """With an attribute beside its entries."""

    scale = 1.0


def other_module(**held: Any) -> ModuleType:
    found = ModuleType("of_the_user")
    vars(found).update(held)
    return found


SETTINGS = other_module(inner=other_module(value=1.0), value=1.0)
TENSOR, LIST, DICT, NUMBERS, SLOTTED = torch.ones(2), [1.0], {"a": 1.0}, Numbers(), Derived(1.0)
TIMES, ENTRY, FOUND = TENSOR.mul, LIST.__getitem__, DICT.get


def _annotated(x: Any) -> Any:
    return x * annotated.value


annotated: Any = _annotated  # a function with an attribute, of which its type knows nothing
annotated.value = 1.0


# a function, and what changes a number that it uses
HIDDEN: dict[str, tuple[Callable[..., Any], Callable[[], Any]]] = {
    "a list of a class": (
        lambda x: x * Setting.entries[0],
        lambda: Setting.entries.append(Setting.entries.pop() + 1),
    ),
    "a tuple of a class": (
        lambda x: x * Setting.pair[0],
        lambda: setattr(Setting, "pair", (Setting.pair[0] + 1,)),
    ),
    "a class in a class": (
        lambda x: x * Setting.Inner.value,
        lambda: setattr(Setting.Inner, "value", Setting.Inner.value + 1),
    ),
    "a slot of a base": (
        SLOTTED,
        lambda: setattr(SLOTTED, "_Slotted__value", SLOTTED(1.0) + 1),
    ),
    "an attribute of a list": (
        lambda x: x * NUMBERS.scale,
        lambda: setattr(NUMBERS, "scale", NUMBERS.scale + 1),
    ),
    "an attribute of a function": (
        annotated,
        lambda: setattr(annotated, "value", annotated(1.0) + 1),
    ),
    "a tensor by its method": (TIMES, lambda: TENSOR.add_(1)),
    "a list by its method": (lambda x: x * ENTRY(0), lambda: LIST.insert(0, LIST[0] + 1)),
    "a dict by its method": (lambda x: x * FOUND("a"), lambda: DICT.update(a=DICT["a"] + 1)),
    "a module in a module": (
        lambda x: x * SETTINGS.inner.value,
        lambda: setattr(SETTINGS.inner, "value", SETTINGS.inner.value + 1),
    ),
    "the default dtype": (
        lambda x: x * torch.ones(2),
        lambda: torch.set_default_dtype(torch.float64),
    ),
}


@pytest.mark.parametrize(("function", "change"), HIDDEN.values(), ids=HIDDEN)
def test_what_is_reached_by_a_detour_is_part_of_the_key(
    function: Callable[..., Any], change: Callable[[], Any]
) -> None:
    default = torch.get_default_dtype()
    before = key_of(function)
    assert key_of(function) == before
    try:
        change()
        assert key_of(function) != before
    finally:
        torch.set_default_dtype(default)


def test_what_names_no_value_has_no_key() -> None:
    def inside(x: Any) -> Any:
        # the function is read, and never called
        import of_the_user  # type: ignore[import-not-found]  # no module has this name

        return x * of_the_user.value

    functions: list[Callable[..., Any]] = [
        lambda x: x * globals()["SCALE"],
        lambda x: x * eval("SCALE"),
        lambda x: x * vars(SETTINGS)["value"],
        lambda x: x * getattr(SETTINGS, "val" + "ue"),
        closure(SETTINGS),
        inside,
        lambda x: x * time.time(),
        lambda x: x * time.localtime().tm_hour,
        lambda x: x * random.random(),
        closure(time.time),
        closure(random.gauss),
        closure(random.Random(0)),
    ]
    for function in functions:
        with pytest.raises(NoKeyError):
            key_of(function)


def test_an_attribute_with_the_name_of_a_module_is_not_that_module() -> None:
    held = Model(1.0)
    # a model has no such attributes: the function is read, and never called
    key_of(lambda x: x * held.time * held.random)  # type: ignore[attr-defined]


def test_constants_of_usual_kinds_have_a_key() -> None:
    pair = namedtuple("pair", ["a"])

    class Named(Enum):
        ONE = 1.0

    for value in (pair(1.0), Named.ONE, SimpleNamespace(a=1.0), nn.Linear(1, 1), torch.sin):
        key_of(closure(value))


@dataclass(frozen=True)
class Line:
    """A model with a constant of its own; Python writes the rest of the class."""

    slope: float

    def at(self, x: Tensor) -> Tensor:
        return self.slope * x


def test_a_method_of_a_dataclass_has_a_key_with_its_fields() -> None:
    assert key_of(Line(2.0).at) == key_of(Line(2.0).at)
    assert key_of(Line(2.0).at) != key_of(Line(3.0).at)


def test_a_function_that_is_called_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(x: Tensor) -> Tensor:
        result: Tensor = closure(2.0)(x)
        return result

    before = key_of(model)
    monkeypatch.setitem(globals(), "closure", default)
    assert key_of(model) != before


def test_other_code_is_another_key() -> None:
    assert key_of(lambda x: x + 1) != key_of(lambda x: x - 1)
    assert key_of(lambda x: x + 1) != key_of(lambda x: x + 2)


def test_numbers_and_shapes_are_told_apart() -> None:
    kinds = [1, 1.0, True, "1", (1,), [1], torch.ones(1), torch.ones(1, 1), np.ones(1), None]
    assert len({key_of(kind) for kind in kinds}) == len(kinds)


def test_what_cannot_be_read_has_no_key() -> None:
    with pytest.raises(NoKeyError, match="cannot be compared"):
        key_of(closure(iter([1])))


def test_what_refers_to_itself_is_read_once() -> None:
    first, second = Model(1.0), Model(1.0)
    first.value, second.value = first, second
    assert key_of(first) == key_of(second)


class Answering:
    """Has an answer to any name."""

    def __init__(self) -> None:
        self.held = {"k": 1.0}

    def __getattr__(self, name: str) -> float:
        return self.held.get(name, 1.0)


class Failing(dict[str, float]):
    """Has entries as attributes, and fails as a dict does for those that there are not."""

    __getattr__ = dict.__getitem__


def test_an_object_that_has_any_attribute_does_not_speak_for_itself() -> None:
    found = Answering()
    before = key_of(lambda x: x * found.k)
    found.held["k"] = 2.0
    assert key_of(lambda x: x * found.k) != before


def test_an_object_that_fails_when_it_is_looked_at_is_read_or_has_no_key() -> None:
    entries = Failing(k=1.0)
    before = key_of(entries)
    entries["k"] = 2.0
    assert key_of(entries) != before

    class Called:
        def __getattr__(self, name: str) -> Any:
            raise KeyError(name)

        def __call__(self, x: Any) -> Any:
            return x

    with pytest.raises(NoKeyError, match="looked at"):
        key_of(Called())


def test_what_a_model_of_the_users_own_holds_is_part_of_the_key() -> None:
    class Own(lmtorch.models.Model):
        parameters = ("a",)

        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def formula(self, x: Any, a: Any) -> Any:
            return self.factor * a * x

    constant = lmtorch.models.Constant("c")
    assert key_of(Own(2.0)) == key_of(Own(2.0))
    assert key_of(Own(2.0)) != key_of(Own(3.0))
    assert key_of(Own(2.0) + constant) != key_of(Own(3.0) + constant)
