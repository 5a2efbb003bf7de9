"""Fewer operators in a recorded evaluation: each product once, and fewer changes of sign.

Derivatives of differences and of functions of −z change signs again and again, each time by an
operator of its own. Changes of sign are exact, and go through products and quotients:

    −(−z) = z        −(z c) = z (−c)        (−z) c = z (−c)

where c depends on no parameter: −c is then made once a fit. What is left without a use falls away.
The same operator of the same values, as first and second derivatives have it, is run once.
"""

from collections.abc import Sequence
from typing import Any

import torch

from .recorded import PARAMETERS, Evaluation, Operator, Value, places_in

NEGATIVE = torch.ops.aten.neg.default
PRODUCT = torch.ops.aten.mul.Tensor


def simplified(record: Evaluation) -> Evaluation:
    """The record itself, with the operators of which its results are made.

    Args:
        record: of an evaluation.
    """
    found = _Simpler(record)
    for operator in record.operators:
        found.add(operator)
    record.operators = _needed(record, found.operators)
    return record


class _Simpler:
    """The operators so far.

    Args:
        record: of which they are.
    """

    def __init__(self, record: Evaluation) -> None:
        self.record = record
        self.operators: list[Operator] = []
        self.made: dict[int, Operator] = {}  # by value, what makes it
        self.negatives: dict[int, int] = {}  # of constants, and of what depends on arguments
        self.known: dict[Any, Operator] = {}  # by what they compute
        self.first: dict[int, int] = {}  # of a value that is there already, which one that is

    def add(self, operator: Operator) -> None:
        """Add an operator, or another that gives the same."""
        args, kwargs = self._known((operator.args, operator.kwargs))
        operator = Operator(
            operator.func, args, kwargs, operator.outs, operator.level, operator.view
        )
        other = self._other(operator) if operator.level == PARAMETERS else None
        found = operator if other is None else other
        if not found.view and len(found.outs) == 1:
            same = self.known.setdefault((found.func, _key((found.args, found.kwargs))), found)
            if same is not found:
                found = self._alias(Value(same.outs[0]), found)
        self._append(found)

    def _known(self, arguments: Any) -> Any:
        """Arguments with the first one of values that are the same."""
        if isinstance(arguments, Value):
            return Value(self.first.get(arguments.place, arguments.place))
        if isinstance(arguments, tuple | list):
            return type(arguments)(map(self._known, arguments))
        if isinstance(arguments, dict):
            return {name: self._known(value) for name, value in arguments.items()}
        return arguments

    def _alias(self, value: Value, operator: Operator) -> Operator:
        """What gives a value in the place of an operator; a view of it takes no time."""
        (place,) = operator.outs
        self.first[place] = value.place
        func = torch.ops.aten.alias.default
        return Operator(func, (value,), {}, operator.outs, operator.level, view=True)

    def _append(self, operator: Operator) -> None:
        self.operators.append(operator)
        for place in operator.outs:
            self.made[place] = operator

    def _other(self, operator: Operator) -> Operator | None:
        if operator.func is NEGATIVE:
            return self._of_negative(operator)
        if operator.func is PRODUCT and not operator.kwargs:
            for z, c in (operator.args, operator.args[::-1]):
                before = self._maker(z, NEGATIVE)
                negative = None if before is None else self._negative(c)
                if before is not None and negative is not None:
                    return self._product(operator, before.args[0], negative)
        return None

    def _of_negative(self, operator: Operator) -> Operator | None:
        (argument,) = operator.args
        before = self._maker(argument, NEGATIVE)
        if before is not None:
            return self._alias(before.args[0], operator)
        before = self._maker(argument, PRODUCT)
        for z, c in () if before is None else (before.args, before.args[::-1]):
            negative = self._negative(c)
            if negative is not None:
                return self._product(operator, z, negative)
        return None

    def _maker(self, argument: object, func: object) -> Operator | None:
        """The operator that makes an argument at each point, if it is of a kind."""
        made = self.made.get(argument.place) if isinstance(argument, Value) else None
        if made is None or made.func is not func or made.level != PARAMETERS or made.kwargs:
            return None
        return made

    def _product(self, operator: Operator, z: object, c: int) -> Operator:
        return Operator(PRODUCT, (z, Value(c)), {}, operator.outs, operator.level, view=False)

    def _negative(self, argument: object) -> int | None:
        """The value −c of a tensor c that depends on no parameter; None of anything else."""
        record = self.record
        if not isinstance(argument, Value) or record.levels[argument.place] == PARAMETERS:
            return None
        place, tensor = argument.place, record.tensors[argument.place]
        if not tensor.is_floating_point():
            return None
        known = self.negatives.get(place)
        if known is None:
            level = record.levels[place]
            known = self.negatives[place] = record.place(-tensor.detach(), level)
            if level:  # of a constant it is one
                self._append(Operator(NEGATIVE, (argument,), {}, (known,), level, view=False))
        return known


def _key(arguments: Any) -> Any:
    """What tells arguments from others."""
    if isinstance(arguments, Value):
        return arguments.place
    if isinstance(arguments, tuple | list):
        return tuple(map(_key, arguments))
    if isinstance(arguments, dict):
        return tuple((name, _key(value)) for name, value in arguments.items())
    return type(arguments), repr(arguments)


def _needed(record: Evaluation, operators: Sequence[Operator]) -> list[Operator]:
    """The operators of which a result is made."""
    needed = {place for place in record.outputs if place is not None}
    kept = []
    for operator in reversed(operators):
        if needed.isdisjoint(operator.outs):
            continue
        kept.append(operator)
        needed.update(places_in((operator.args, operator.kwargs)))
    return kept[::-1]
