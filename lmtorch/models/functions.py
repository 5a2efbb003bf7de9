"""Functions of one's own as models: their signature tells the parameters."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._arrays import is_tensor, tensor_of
from .._errors import InputError, InputTypeError
from .._modules import in_training
from .base import Model
from .calls import filled, plain
from .guessing import Points
from .rules import Rules
from .signatures import Arguments, label_of, signature_of

Guess = Callable[[Any, Any], dict[str, Any]]


class Function(Model):
    """A function f(x, a, b, ...) as a model; see `from_function`.

    Args:
        function: of torch operations, or of NumPy's.
        prefix: before the names of its arguments.
        guess: the user's function for start values.
    """

    def __init__(
        self, function: Callable[..., Any], prefix: str = "", guess: Guess | None = None
    ) -> None:
        super().__init__(prefix)
        given: Any = function
        if not callable(given) or isinstance(given, Model):
            raise InputTypeError(
                f"from_function needs a function f(x, a, b, ...), not {function!r}."
            )
        self.function, self.own_guess = function, guess
        if isinstance(given, nn.Module):
            _frozen(given)
            given = given.forward
        arguments: Arguments = signature_of(given)
        if arguments.open_ended:
            raise InputError(
                "the parameters of f(x, *p) have no names: write f(x, a, b, ...), or fit it "
                "without other models, with p0."
            )
        self.parameters = tuple(arguments.numbers)
        # an option that stands before a parameter is passed by, as in curve_fit
        self._positional = self.parameters == tuple(arguments.names[: len(self.parameters)])
        self.starting = {
            name: float(value)
            for name, value in arguments.defaults.items()
            if name in self.parameters
        }

    @property
    def label(self) -> str:
        """The prefix, else the function's name."""
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return self.prefix or ("f" if name == "<lambda>" else name)

    @property
    def _written(self) -> str:
        """The function with its arguments; of a module those of its forward."""
        if not isinstance(self.function, nn.Module):
            return label_of(self.function)
        return label_of(self.function.forward).replace("forward", type(self.function).__name__, 1)

    def __repr__(self) -> str:
        """The function with its arguments."""
        return f"{self.prefix}: {self._written}" if self.prefix else self._written

    @property
    def _blind(self) -> bool:
        """Whether it has parameters, and knows nothing of where they start."""
        return self.own_guess is None and not set(self.parameters) <= set(self.starting)

    @property
    def compiled_by(self) -> tuple[Any, ...]:
        """What tells whether compiled code of this model may be used again."""
        return type(self), self.function, self.parameters

    def _curve(self, x: Any, values: Sequence[Any]) -> Any:
        """The function's value; of arrays first as arrays, as it may be written for them."""
        if isinstance(x, np.ndarray) and not any(map(is_tensor, values)):
            if not isinstance(self.function, nn.Module):
                with suppress(TypeError):  # torch's functions take no arrays
                    return self._called(x, values)
            x, *values = map(plain, (x, *values))
            return tensor_of(self._called(x, values)).numpy()
        if not is_tensor(x) and not isinstance(x, np.ndarray):  # a dict or a table
            return self._called(x, values)
        return filled(x, self._called(tensor_of(x), values))

    def _called(self, x: Any, values: Sequence[Any]) -> Any:
        """What the function returns, a column (m, 1) of one curve, as of a network, as (m,)."""
        found = self._returned(x, values)
        column = (*getattr(x, "shape", ()), 1)
        if len(column) != 2 or getattr(found, "shape", ()) != column:
            return found
        many = any(math.prod(np.shape(value)) > 1 for value in values)
        return found if many else found[:, 0]

    def _returned(self, x: Any, values: Sequence[Any]) -> Any:
        if isinstance(self.function, nn.Module) and is_tensor(x):
            own = next((p for p in self.function.parameters() if p.is_floating_point()), x)
            values = [value.to(own.dtype) if is_tensor(value) else value for value in values]
            return tensor_of(self.function(x.to(own.dtype), *values)).to(x.dtype)
        if self._positional:
            return self.function(x, *values)
        return self.function(x, **dict(zip(self.parameters, values, strict=True)))

    def _found(self, points: Points, rules: Rules) -> dict[str, Tensor]:
        """What the user's guess says, else the defaults of the arguments, else ones."""
        given: dict[str, Any] = dict(self.starting)
        if self.own_guess is not None:
            found = self.own_guess(points.x, points.y)
            if unknown := [name for name in found if name not in self.parameters]:
                raise InputError(
                    f"the guess of {self!r} names {unknown}: its parameters are "
                    f"{list(self.parameters)}."
                )
            given.update(found)
        like = points.y[..., 0]
        return {
            self._full(name): torch.as_tensor(value, dtype=like.dtype, device=like.device).expand(
                like.shape
            )
            for name, value in given.items()
        }


def _frozen(module: nn.Module) -> None:
    """Check that nothing of a module waits to be fitted.

    Raises:
        InputTypeError: something does, or a layer changes from call to call.
    """
    if waiting := [name for name, p in module.named_parameters() if p.requires_grad]:
        raise InputTypeError(
            f"{type(module).__name__} has parameters of its own, {waiting[:3]}, which are not "
            "fitted in a sum of models: hold them by module.requires_grad_(False), or fit the "
            "module by itself, curve_fit(module, x, y), or write a function f(x, a, b, ...) of "
            "what is to be fitted."
        )
    if layer := in_training(module):
        raise InputTypeError(
            f"{type(module).__name__} is in training mode, where {layer} changes from call to "
            "call: set it to what it does after training by module.eval()."
        )


def from_function(
    function: Callable[..., Any], prefix: str = "", guess: Guess | None = None
) -> Model:
    """A model of a function f(x, a, b, ...), whose arguments are the parameters.

    A function that is added to a model becomes one by itself, `models.Gaussian("g") + f`; this
    gives it a prefix and a guess.

    Args:
        function: of x and numbers, in torch operations. Arguments whose default is no number are
            options, and keep it. Or a module without parameters that require gradients, as a
            network that was trained before, whose `forward` has these arguments.
        prefix: is set before the names of its parameters. Default: none.
        guess: guess(x, y) → values by name without prefix, for x (m,) and y (..., m), tensors, as
            `Model.start`. Default: the default values of the arguments, else 1.

    Returns:
        The model.

    Raises:
        InputTypeError: it is no function, or a module with parameters that require gradients or
            with dropout or BatchNorm in training mode.
        InputError: its parameters have no names.

    Example:
        >>> import torch
        >>> from lmtorch import models
        >>> def background(x, level=0.5, slope=0.0):
        ...     return level + slope * x
        >>> model = models.Gaussian("g") + models.from_function(background, prefix="b")
        >>> model.names
        ['g_amplitude', 'g_center', 'g_sigma', 'b_level', 'b_slope']
    """
    return Function(function, prefix, guess)
