"""Fewer changes of sign among the operators of a recorded evaluation.

Derivatives of differences and of functions of −z change signs again and again, each time by an
operator of its own. Changes of sign are exact, and go through products and quotients:

    −(−z) = z        −(z c) = z (−c)        (−z) c = z (−c)

where c depends on no parameter: −c is then made once a fit. What is left without a use falls away.
"""

from collections.abc import Sequence

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

    def add(self, operator: Operator) -> None:
        """Add an operator, or another that gives the same."""
        other = self._other(operator) if operator.level == PARAMETERS else None
        self._append(operator if other is None else other)

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
        if before is not None:  # a view of z takes no time
            alias = torch.ops.aten.alias.default
            args = before.args
            return Operator(alias, args, {}, operator.outs, operator.level, view=True)
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
