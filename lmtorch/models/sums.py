"""Models that are made of models: a + b, a − b, a · b, a / b, with numbers and functions in them.

A sum has the parameters of both sides, those of the left side first. Its terms are what stands
between the plus and minus signs; they add up to the curve.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

from torch import Tensor

from .._arrays import is_tensor, tensor_of
from .._errors import InputError
from .backfitting import product, together
from .base import Model
from .functions import from_function
from .guessing import Points
from .ruled import Pair
from .rules import Rules

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


class Number(Model):
    """A number that is not fitted, as the 2 of `2 * model`.

    Args:
        value: the number.
    """

    def __init__(self, value: float) -> None:
        super().__init__(value=float(value))

    @property
    def label(self) -> str:
        """The number itself."""
        return f"{self.options['value']:g}"

    def _curve(self, x: Any, values: Sequence[Any]) -> Any:
        """The number, which broadcasts."""
        return self.options["value"]

    def __repr__(self) -> str:
        """The number itself."""
        return self.label


class Combined(Model):
    """Two models and the sign between them.

    Args:
        sign: one of + − * /.
        left: the model on its left.
        right: the model on its right.

    Raises:
        InputError: both sides have a parameter of the same name, or terms cannot be told apart.
    """

    def __init__(self, sign: str, left: Model, right: Model) -> None:
        super().__init__()
        self.sign, self.left, self.right = sign, left, right
        if both := [name for name in left.names if name in right.names]:
            raise InputError(
                f"{both} are parameters of {left!r} and of {right!r}: give them prefixes, as in "
                'models.Gaussian("a") + models.Gaussian("b"), or from_function(f, prefix="a").'
            )
        self.parameters = (*left.names, *right.names)
        self._rules = left._rules.plus(right._rules)
        parts = [part for part in (left, right) if not isinstance(part, Number)]
        self.background = bool(parts) and all(part.background for part in parts)
        labels = [label for label, _, _ in self._signed()]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise InputError(
                f"several terms of {self!r} are called {twice}: give them prefixes, so that their "
                "components can be told apart."
            )

    @property
    def label(self) -> str:
        """The model as it is written, by the labels of its parts."""
        return self._written(lambda part: part.label)

    def __repr__(self) -> str:
        """The model as it is written."""
        return self._written(repr)

    def _written(self, text: Callable[[Model], str]) -> str:
        """Both sides by `text`, in brackets where they are needed."""
        sides = []
        for side in (self.left, self.right):
            below = isinstance(side, Combined) and (
                (self.sign in "*/" and side.sign in "+-")
                or (side is self.right and self.sign in "-/")
            )
            sides.append(f"({text(side)})" if below else text(side))
        return f"{sides[0]} {self.sign} {sides[1]}"

    @property
    def compiled_by(self) -> tuple[Any, ...]:
        """What tells whether compiled code of this model may be used again."""
        return type(self), self.sign, self.left, self.right

    def _curve(self, x: Any, values: Sequence[Any]) -> Any:
        """Both sides with their values, and the sign between them."""
        count = len(self.left.names)
        left, right = self.left._curve(x, values[:count]), self.right._curve(x, values[count:])
        if is_tensor(left) != is_tensor(right):  # an array of a function beside a tensor
            left, right = (
                one if isinstance(one, float) else tensor_of(one) for one in (left, right)
            )
        return OPERATORS[self.sign](left, right)

    def _limits(self) -> dict[str, Pair]:
        """The bounds that belong to the formulas."""
        return {**self.left._limits(), **self.right._limits()}

    @property
    def _blind(self) -> bool:
        """Whether a part knows nothing of where its parameters start."""
        return self.left._blind or self.right._blind

    def _linear(self) -> list[str]:
        """The names in which it is linear: of a product those of one factor alone."""
        left, right = self.left._linear(), self.right._linear()
        if self.sign in "+-":
            return [*left, *right]
        return left if self.sign == "/" else left or right

    @property
    def terms(self) -> dict[str, Model]:
        """The terms of a sum by their labels; of a product it alone."""
        return {
            label: part if sign > 0 else Combined("*", Number(-1), part)
            for label, sign, part in self._signed()
        }

    def derived_from(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What follows from the parameters of each term; in a product they mean something else."""
        found: dict[str, Any] = {}
        for _, _, part in self._signed():
            if not isinstance(part, Combined):
                found.update(part.derived_from(values))
        return {name: value for name, value in found.items() if name not in values}

    def _signed(self) -> Iterator[tuple[str, int, Model]]:
        """The terms with their labels and signs."""
        yield from _signed(self, 1)

    def _found(self, points: Points, rules: Rules) -> dict[str, Tensor]:
        """The terms one after another, or the factors."""
        if self.sign in "+-":
            return together(list(self.terms.values()), points, rules)
        return product(self, self.left, self.right, self.sign, points, rules)


def _signed(model: Model, sign: int) -> Iterator[tuple[str, int, Model]]:
    if isinstance(model, Combined) and model.sign in "+-":
        yield from _signed(model.left, sign)
        yield from _signed(model.right, sign if model.sign == "+" else -sign)
    else:
        yield model.label, sign, model


def combined(sign: str, left: Any, right: Any) -> Model:
    """Two models, one of which may be a function or a number, with a sign between them."""
    sides = [_model(left), _model(right)]
    if any(side is NotImplemented for side in sides):
        return NotImplemented
    return Combined(sign, *sides)


def _model(value: Any) -> Any:
    """A model of a model, a number, a function or a module; NotImplemented of anything else."""
    if isinstance(value, Model):
        return value
    if isinstance(value, bool):
        return NotImplemented
    if isinstance(value, Real) or (is_tensor(value) and not value.ndim):
        return Number(float(value))
    return from_function(value) if callable(value) else NotImplemented
