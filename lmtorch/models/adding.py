"""The signs + − * / between models, functions and numbers, and the terms of what they make."""

from collections.abc import Mapping
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


class Terms(Arithmetic):
    """What a model is made of, as curves and as a picture."""

    names: Any
    label: Any
    _ordered: Any

    @property
    def terms(self) -> dict[str, Any]:
        """The terms of a sum by their labels; of any other model it alone."""
        return {self.label: self}

    def components(self, x: Any, /, *values: Any, **named: Any) -> dict[str, Any]:
        """The curve of each term of a sum at x; together they make the whole.

        Args:
            x: points, as in a call.
            values: the parameters of the whole model, as in a call.
            named: or by name.

        Returns:
            Curves by label: the prefix of a term, or its class or function. What is subtracted
            is negative.

        Raises:
            InputTypeError: a parameter is missing, or given twice.
            InputError: a name is not known.
        """
        known = dict(zip(self.names, self._ordered(values, named), strict=True))
        return {
            label: term(x, *(known[name] for name in term.names))
            for label, term in self.terms.items()
        }

    def plot(
        self, x: Any, y: Any = None, values: Mapping[str, Any] | None = None, *, ax: Any = None
    ) -> Any:
        """Draw the curve and its terms, beside data if there are any (needs matplotlib).

        Args:
            x: points (m,); the curve is drawn from the least to the largest.
            y: data (m,). Default: none.
            values: the parameters by name; those that are fixed, tied or have a start may be left
                out. Default: guessed from the data, to look at where a fit starts.
            ax: matplotlib's axes. Default: new ones.

        Returns:
            The matplotlib figure.

        Raises:
            InputError: matplotlib is not installed, x is not one number for each point, or there
                are neither values nor data.
        """
        from .picture import draw

        return draw(self, x, y, values, ax)


def _combined(sign: str, left: Any, right: Any) -> Any:
    from .sums import combined  # stands on models, which stand on this file

    return combined(sign, left, right)
