"""The signs + − * / between models, functions and numbers."""

from typing import Any


class Arithmetic:
    """Gives a model the signs; what they make is in `sums.py`."""

    __array_ufunc__ = None  # so that NumPy's numbers leave `2 * model` to the model

    def __add__(self, other: Any) -> Any:
        """The sum with a model, a function or a number."""
        return _combined("+", self, other)

    def __radd__(self, other: Any) -> Any:
        """The sum; of nothing, as `sum(models)` begins, the model itself."""
        return self if type(other) is int and other == 0 else _combined("+", other, self)

    def __sub__(self, other: Any) -> Any:
        """The difference from a model, a function or a number."""
        return _combined("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        """The difference of a function or a number from the model."""
        return _combined("-", other, self)

    def __mul__(self, other: Any) -> Any:
        """The product with a model, a function or a number."""
        return _combined("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        """The product of a function or a number with the model."""
        return _combined("*", other, self)

    def __truediv__(self, other: Any) -> Any:
        """The quotient by a model, a function or a number."""
        return _combined("/", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        """The quotient of a function or a number by the model."""
        return _combined("/", other, self)

    def __neg__(self) -> Any:
        """The negative of the model."""
        return _combined("*", -1, self)


def _combined(sign: str, left: Any, right: Any) -> Any:
    from .sums import combined  # stands on models, which stand on this file

    return combined(sign, left, right)
