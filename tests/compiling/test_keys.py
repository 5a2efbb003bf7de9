"""A key changes with everything that a function's results depend on, and with nothing else."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

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
