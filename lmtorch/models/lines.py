"""Constants, lines and polynomials, which other terms of a sum may stand on."""

from typing import Any

import torch
from torch import Tensor

from .._checks import count
from .base import Model
from .shape import Shape


class Constant(Shape):
    """A constant, c (units of y), as lmfit's ConstantModel.

    Example:
        >>> from lmtorch import models
        >>> models.Constant()([0.0, 1.0], c=2.0)
        array([2., 2.])
    """

    parameters = ("c",)
    linear = ("c",)
    background = True

    @staticmethod
    def formula(x: Any, c: Any) -> Any:
        """The constant."""
        return c

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The mean."""
        return {"c": y.mean(-1)}


class Linear(Shape):
    """A straight line, slope · x + intercept.

    Parameters, as of lmfit's LinearModel: slope (units of y over x), intercept (of y).

    Example:
        >>> from lmtorch import models
        >>> models.Linear()([0.0, 1.0], slope=2.0, intercept=1.0)
        array([1., 3.])
    """

    parameters = ("slope", "intercept")
    linear = ("slope", "intercept")
    background = True

    @staticmethod
    def formula(x: Any, slope: Any, intercept: Any) -> Any:
        """The line at x."""
        return slope * x + intercept

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The line of least squares."""
        intercept, slope = coefficients(x, y, 1).unbind(-1)
        return {"slope": slope, "intercept": intercept}


class Quadratic(Shape):
    """A parabola, a x² + b x + c.

    Parameters, as of lmfit's QuadraticModel: a, b and c (units of y over x², of y over x, of y).

    Example:
        >>> from lmtorch import models
        >>> models.Quadratic()([0.0, 2.0], a=1.0, b=2.0, c=3.0)
        array([ 3., 11.])
    """

    parameters = ("a", "b", "c")
    linear = ("a", "b", "c")
    background = True

    @staticmethod
    def formula(x: Any, a: Any, b: Any, c: Any) -> Any:
        """The parabola at x."""
        return (a * x + b) * x + c

    @staticmethod
    def start(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The parabola of least squares."""
        return dict(zip("cba", coefficients(x, y, 2).unbind(-1), strict=True))


class Polynomial(Model):
    """A polynomial of any degree, c0 + c1 x + c2 x² + ...

    Parameters, as of lmfit's PolynomialModel: c0, c1, ... (units of y over the power of x). Where x
    is far from zero shift it first: powers of 1000 to 1010 are nearly multiples of each other.

    Args:
        prefix: before the names of the parameters. Default: none.
        degree: 0 or more. Default: 7, as in lmfit.

    Raises:
        InputError: degree is no whole number, or negative.

    Example:
        >>> from lmtorch import models
        >>> models.Polynomial(degree=3)([0.0, 2.0], c0=1.0, c1=0.0, c2=0.0, c3=2.0)
        array([ 1., 17.])
    """

    background = True

    def __init__(self, prefix: str = "", degree: int = 7) -> None:
        degree = count(degree, "degree", 0)
        super().__init__(prefix, degree=degree)
        self.parameters = self.linear = tuple(f"c{k}" for k in range(degree + 1))

    @staticmethod
    def formula(x: Any, *values: Any) -> Any:
        """The polynomial at x, by Horner's rule."""
        *rest, found = values
        for c in reversed(rest):
            found = found * x + c
        return found

    def start(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The polynomial of least squares."""
        found = coefficients(x, y, self.options["degree"])
        return dict(zip(self.parameters, found.unbind(-1), strict=True))


def coefficients(x: Tensor, y: Tensor, degree: int) -> Tensor:
    """Coefficients (..., degree + 1) of the polynomial of least squares, constant first."""
    size = x.abs().amax(-1, keepdim=True)
    size = torch.where(size > 0, size, 1.0)
    powers = (x / size)[..., None] ** torch.arange(degree + 1, dtype=x.dtype, device=x.device)
    found = (torch.linalg.pinv(powers) @ y[..., None])[..., 0]
    return found / size ** torch.arange(degree + 1, dtype=x.dtype, device=x.device)
