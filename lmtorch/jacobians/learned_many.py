"""Evaluations of many problems by a record of a few, held to the function again and again.

The function is asked for the first problems, and what it does is recorded and replayed for all of
them (`replayed_many`). At the second, fourth, eighth ... evaluation it is asked for a few problems
again: what is not the same once is never replayed any more.
"""

from collections.abc import Callable, Sequence
from copy import copy

import torch
from torch import Tensor

from ..recording.operators import UnrecordableError
from .base import NOISE
from .learned import Evaluations
from .recorded import recorded
from .replayed_many import ManyReplay
from .signs import simplified

FEW = 3  # problems of a record
MANY = 256  # problems from which on a record pays
# a value, and its first and second derivatives that are not zero
Taken = tuple[Tensor, dict[int, Tensor], dict[tuple[int, int], Tensor]]
# evaluates some problems, from their parameters and their shares, (b, ...) each
Evaluate = Callable[[Sequence[Tensor], Sequence[Tensor]], Taken]


class LearnedMany:
    """What is known of evaluations of one function for many problems.

    Args:
        before: what an earlier call with the same function has found; None: there was none.

    Attributes:
        single: what is known of those for one of them by itself.
    """

    def __init__(self, before: "LearnedMany | None" = None) -> None:
        # The record of one problem is held to the function to the last bit before it is used: what
        # earlier calls have made of it changes no bit.
        self.single: Evaluations = Evaluations() if before is None else before.single
        self.refused = False
        self._known: dict[bool, _Known] = {}
        # Records of earlier calls spare the making of new ones, and are used where those would be:
        # a call gives the same bits whatever came before it.
        self._before = {} if before is None or before.refused else before.every

    @property
    def every(self) -> "dict[bool, _Known]":
        """The kinds of evaluations that are recorded, of earlier calls as well."""
        return {**self._before, **self._known}

    def taken(
        self, evaluate: Evaluate, params: Sequence[Tensor], shares: Sequence[Tensor], curved: bool
    ) -> Taken | None:
        """Residuals (b, m) of many problems with their derivatives.

        Args:
            evaluate: the function's own evaluation.
            params: (b, ...) each.
            shares: of the arguments, (b, ...) each.
            curved: whether second derivatives are among them.

        Returns:
            What `evaluate` gives, (b, m) with the problems last in memory. None: it has to be
            asked.

        Raises:
            OutOfMemoryError: torch's own.
        """
        known, count = self._known.get(curved), len(params[0])
        if self.refused or count < (MANY if known is None else FEW):
            return None
        if params[0].device.type != "cpu":
            return None
        try:
            if known is None:
                former = self._before.get(curved)
                known = former.again() if former else _Known(evaluate, params, shares)
                self._known[curved] = known
            return known(evaluate, params, shares)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever it is: the function itself is there
            self.refused = True
            return None


class _Known:
    """One kind of evaluation, recorded."""

    def again(self) -> "_Known":
        """The same record, of which nothing has been asked yet."""
        other = copy(self)
        other.asked = 0
        return other

    def __init__(
        self, evaluate: Evaluate, params: Sequence[Tensor], shares: Sequence[Tensor]
    ) -> None:
        self.keys: tuple[list[int], list[tuple[int, int]]] = ([], [])
        self.asked = 0
        few = [[one[:FEW].detach().clone() for one in given] for given in (params, shares)]

        def results() -> list[Tensor | None]:
            value, first, second = evaluate(*few)
            self.keys = list(first), list(second)
            return [value, *first.values(), *second.values()]

        first, *rest = [*few[0], *few[1]]
        self.replay = ManyReplay(simplified(recorded(results, first, rest)), FEW)

    def __call__(
        self, evaluate: Evaluate, params: Sequence[Tensor], shares: Sequence[Tensor]
    ) -> Taken:
        value, *rest = self.replay([*params, *shares])
        self.asked += 1
        count = len(self.keys[0])
        first = dict(zip(self.keys[0], rest[:count], strict=True))
        second = dict(zip(self.keys[1], rest[count:], strict=True))
        found = value, first, second
        if self.asked & (self.asked - 1) == 0:  # a power of two
            some = [[one[-FEW:].detach().contiguous() for one in given]
                    for given in (params, shares)]  # fmt: skip
            self._hold(found, evaluate(*some))
        return found

    def _hold(self, found: Taken, expected: Taken) -> None:
        """Compare with what the function gives of the last few problems.

        Raises:
            UnrecordableError: it is not the same.
        """
        if (list(expected[1]), list(expected[2])) != self.keys:
            raise UnrecordableError("other derivatives")
        ours = [found[0], *found[1].values(), *found[2].values()]
        own = [expected[0], *expected[1].values(), *expected[2].values()]
        for one, other in zip(ours, own, strict=True):
            one = one[-FEW:]
            allowed = torch.finfo(other.dtype).eps ** NOISE * other.abs().amax(-1, keepdim=True)
            apart = ((one - other).abs() > allowed) & other.isfinite()
            if bool((apart | (one.isfinite() != other.isfinite())).any()):
                raise UnrecordableError("the function gives something else")
