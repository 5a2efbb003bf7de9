"""`Model`: a formula whose parameters have names, with what is known of them before a fit.

A shape of the library says its parameters, its formula and how it guesses them; all else is here:
prefixes, calls by name, bounds, fixed values, ties. A model is never changed: what sets a rule
returns another model, so that one may stand in several sums.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .._arrays import is_tensor, tensor_of, to_array
from .._elsewhere import Elsewhere
from .._errors import InputError, InputTypeError
from .._names import meant
from .._threads import quiet
from .calls import beside, column, dated, filled, plain, points_of, stand_in
from .guessing import Points, as_given
from .ruled import Pair, Ruled
from .rules import Rules


class Model(Ruled, Elsewhere):
    """A function f(x, parameters) with named parameters, which can guess them from data.

    A model of one's own is a subclass with `parameters`, `formula` and `start`, and whichever of
    the others it needs; or a plain function, see `lmtorch.models.from_function`.

    Args:
        prefix: is set before all names, "g" for `g_amplitude`, `g_center`, ...; so that a model may
            stand in a sum twice. An underscore at its end may be there. Default: none.
        options: what a subclass takes beside the prefix and keeps, as the degree of a polynomial:
            plain values, as they are saved with the model.

    Attributes:
        parameters: the names of the parameters, without prefix, in the order of `formula`.
        limits: bounds that belong to the formula, by name without prefix, such as σ ≥ 0.
        linear: names without prefix of the parameters in which the formula is linear (it is a sum
            of a term for each of them, and is zero where all are zero); a guess solves for them.
        background: whether the model is what other terms of a sum stand on, so that it is guessed
            before them.
        prefix: as given, without a final underscore.
        options: as given.

    Raises:
        InputError: the prefix makes no names.
        InputTypeError: an option is called as a parameter is, whose value belongs elsewhere.

    Example:
        >>> import torch
        >>> from lmtorch import models
        >>> class Saturation(models.Model):
        ...     parameters = ("height", "scale")
        ...     limits = {"scale": (0.0, float("inf"))}
        ...
        ...     @staticmethod
        ...     def formula(x, height, scale):
        ...         return height * x / (scale + x)
        ...
        ...     @staticmethod
        ...     def start(x, y):
        ...         return {"height": y.amax(-1), "scale": x.mean(-1)}
        >>> Saturation("s")(torch.tensor([1.0, 3.0]), s_height=2.0, s_scale=1.0)
        tensor([1.0000, 1.5000])
    """

    parameters: Sequence[str] = ()
    limits: ClassVar[Mapping[str, Pair]] = {}
    linear: Sequence[str] = ()
    background: bool = False
    # lmfit's names
    _elsewhere: ClassVar[Mapping[str, str]] = {
        "fit": "lmtorch.curve_fit(model, x, y)",
        "make_params": "model.guess(x, y), or p0={name: value} in curve_fit",
        "eval": "model(x, name=value, ...)",
        "param_names": "model.names",
        "set_param_hint": "model.with_bounds, with_fixed, with_start or with_ties",
    }

    def __init__(self, prefix: str = "", **options: Any) -> None:
        self.prefix = _checked(prefix)
        if values := [name for name in options if name in self.parameters]:
            raise InputTypeError(
                f"{values} are parameters of {type(self).__name__}: give their values in a call, "
                "in p0 of curve_fit, or by with_start or with_fixed."
            )
        self.options = options
        self._rules = Rules()

    def formula(self, x: Any, *values: Any) -> Any:
        """The curve at x, of torch operations; a static method where it needs nothing of the model.

        Args:
            x: points (m,), or (k, m) of k coordinates; a tensor.
            values: a number of each parameter, in the order of `parameters`; a tensor each, (), or
                (..., 1) for many curves.

        Returns:
            The curve, (m,) or (..., m). What does not depend on x may be a number for all points.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no formula: give it a method formula(x, *values) that "
            "returns the curve at x, with a value for each name in `parameters`."
        )

    def start(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Guess the parameters from data; a static method where it needs nothing of the model.

        Args:
            x: points (m,), ascending, or (..., m) if each curve has its own; or (k, m).
            y: curves (..., m), without NaN, in the dtype and on the device of x.

        Returns:
            A number for each curve, (...,), by name without prefix. What is missing starts at 1.
        """
        return {}

    def start_within(self, x: Tensor, y: Tensor, box: Mapping[str, Pair]) -> dict[str, Tensor]:
        """Guess as `start`, where what a parameter means depends on one that is held or bounded.

        Args:
            x: as of `start`.
            y: likewise.
            box: (lower, upper) by name without prefix, of the parameters with bounds; both are the
                value of one that is held.

        Returns:
            As of `start`, which is called by default. A guess is moved into its bounds afterwards.
        """
        return self.start(x, y)

    def derived(self, *values: Any) -> dict[str, Any]:
        """What follows from the parameters and is asked for beside them, as a peak's height.

        A fit has it with its errors: `fit.derived`, and the report. A static method where it needs
        nothing of the model.

        Args:
            values: a tensor (...,) of each parameter, in the order of `parameters`.

        Returns:
            Tensors (...,) by name without prefix. Default: nothing.
        """
        return {}

    # ---- names ----------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The names of the parameters with their prefix, in the order of a call."""
        return [self._full(name) for name in self.parameters]

    @property
    def label(self) -> str:
        """What the model is called as a term of a sum: its prefix, else its class."""
        return self.prefix or type(self).__name__

    def _full(self, name: str) -> str:
        return f"{self.prefix}_{name}" if self.prefix else name

    @property
    def __signature__(self) -> inspect.Signature:
        """The arguments of a call by position: x and the parameters."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        x = "x" if "x" not in self.names else "x_"  # no parameter of a function is hidden by it
        first = inspect.Parameter(x, inspect.Parameter.POSITIONAL_ONLY)
        return inspect.Signature([first, *(inspect.Parameter(name, kind) for name in self.names)])

    # ---- values ---------------------------------------------------------------------------------

    def __call__(self, x: Any, /, *values: Any, **named: Any) -> Any:
        """The curve at x.

        Args:
            x: points (m,), or (k, m) of k coordinates.
            values: the parameters in the order of `names`, numbers, or (...,) for many curves.
            named: or by name. Those that are left out are fixed, tied or have a start
                (`with_start`), which they take.

        Returns:
            The curve (m,), or (..., m): a NumPy array if neither x nor a parameter is a tensor,
            otherwise a tensor.

        Raises:
            InputTypeError: a parameter is missing, or given twice.
            InputError: a name is not known.
        """
        if named or len(values) != len(self.names):
            values = self._ordered(values, named)
        if any(np.ndim(value) for value in values if not stand_in(value)):
            values = tuple(map(column, values))
        return self._curve(points_of(x), values)

    def _ordered(self, values: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values in the order of the names, with those that are known without being given."""
        names = self.names
        if len(values) > len(names):
            raise InputTypeError(f"{len(values)} values for the parameters {names}.")
        given = dict(zip(names, values, strict=False))
        if twice := [name for name in named if name in given]:
            raise InputTypeError(f"{twice} are given by position and by name.")
        if unknown := [name for name in named if name not in names]:
            raise InputError(
                f"there are no parameters {unknown}: they are {names}.{meant(unknown, names)}"
            )
        known = self._rules.completed({**given, **named})
        if missing := [name for name in names if name not in known]:
            raise InputTypeError(f"values are missing for {missing}: give them by name.")
        return tuple(known[name] for name in names)

    def _curve(self, x: Any, values: Sequence[Any]) -> Any:
        """The formula, in tensors; an array where x and all values are none."""
        if not is_tensor(x) and not isinstance(x, np.ndarray):
            raise InputTypeError(f"{self!r} takes numbers as x, not {type(x).__name__}.")
        if isinstance(x, np.ndarray) and x.dtype.kind in "mM":
            raise InputTypeError(dated("x", x.dtype))
        if any(map(is_tensor, (x, *values))):
            points = tensor_of(x)
            return filled(x, self.formula(points, *(beside(v, points) for v in values)))
        x, *values = map(plain, (x, *values))
        return to_array(filled(x, self.formula(x, *values)))

    def derived_from(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What `derived` says of this model, or of each term of a sum.

        Args:
            values: tensors (...,) by full name.

        Returns:
            Tensors (...,) by full name; no name is that of a parameter.

        Raises:
            InputError: what `derived` does is not written in torch.
        """
        given = [values[name] for name in self.names]
        try:
            with quiet(DeprecationWarning):  # that NumPy has for its functions of tensors
                found: Any = self.derived(*given)
        except (TypeError, RuntimeError) as error:  # it takes no tensors, or none of derivatives
            raise InputError(
                f"derived of {self!r} takes no tensors, {error}: write it in operations of torch."
            ) from error
        if not (isinstance(found, Mapping) and all(map(is_tensor, found.values()))):
            raise InputError(
                f"derived of {self!r} returned {found!r}: it must return a dict of tensors, made "
                "of its arguments by torch, so that their errors are known."
            )
        full = {self._full(name): value for name, value in found.items()}
        return {name: value for name, value in full.items() if name not in values}

    # ---- guesses --------------------------------------------------------------------------------

    def guess(self, x: Any, y: Any) -> dict[str, Any]:
        """Values to start a fit from, found in the data and in keeping with all rules.

        Args:
            x: points (m,), in any order; (k, m) of k coordinates; (..., m) if each curve has its
                own.
            y: a curve (m,), or many (..., m). Points that are NaN are left out; of many curves one
                without points is taken for zero.

        Returns:
            The parameters by name, a number for each curve, (...,): NumPy's if y was no tensor,
            otherwise tensors like y.

        Raises:
            InputError: x and y do not belong together, or no point of any curve is left.
        """
        points = Points.of(x, y)
        return as_given(self.guessed(points), y)

    def guessed(self, points: Points, rules: Rules | None = None) -> dict[str, Tensor]:
        """What `guess` finds at points that are ready for it: by name, (...,) like their y."""
        rules = self._all_rules if rules is None else rules
        parts = []
        for part in points.parts():
            with quiet(DeprecationWarning):  # that NumPy has for its functions of tensors
                found = self._found(part, rules)
            like = part.y[..., 0]
            known = {name: v.to(like).nan_to_num(1.0, 1.0, 1.0) for name, v in found.items()}
            full = {name: known.get(name, torch.ones_like(like)) for name in self.names}
            parts.append(rules.within(full, like))
        if len(parts) == 1:
            return parts[0]
        whole = {name: torch.cat([part[name] for part in parts]) for name in self.names}
        return {name: value.reshape(points.lead) for name, value in whole.items()}

    def _found(self, points: Points, rules: Rules) -> dict[str, Tensor]:
        """What `start` finds, by full name; rules tell only where it looks."""
        points = self._near(points, rules)
        box = {name: rules.box(self._full(name)) for name in self.parameters}
        found = self.start_within(points.x, points.y, box)
        return {self._full(name): value.expand(points.lead) for name, value in found.items()}

    def _near(self, points: Points, rules: Rules) -> Points:
        """The points where rules say that the center of a peak is, if there are enough."""
        name = self._full("center")
        if "center" not in self.parameters or name not in rules.bounds:
            return points
        return points.between(*rules.bounds[name])

    @property
    def _blind(self) -> bool:
        """Whether it has parameters, and knows nothing of where they start."""
        return bool(self.names) and type(self).start is Model.start

    def _linear(self) -> list[str]:
        """The full names of the parameters in which the curve is linear."""
        return [self._full(name) for name in self.linear]

    # ---- rules ----------------------------------------------------------------------------------

    def _limits(self) -> dict[str, Pair]:
        """The bounds that belong to the formula, by full name."""
        return {self._full(name): pair for name, pair in self.limits.items()}

    # ---- as code and as text --------------------------------------------------------------------

    @property
    def compiled_by(self) -> tuple[Any, ...]:
        """What tells whether compiled code of this model may be used again."""
        return type(self), self.prefix, self.options

    def to_spec(self) -> dict[str, Any]:
        """The model in plain values, ready for JSON: its class, prefix, options and rules.

        Returns:
            A dict, of which `lmtorch.models.from_spec` makes the model again.

        Raises:
            InputError: it has code that cannot be found by an import, as a lambda.
        """
        from .specs import spec_of

        return spec_of(self)

    def __repr__(self) -> str:
        """The model as it is written."""
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        prefix = [repr(self.prefix)] if self.prefix else []
        return f"{type(self).__name__}({', '.join([*prefix, *options])})"


def _checked(prefix: str) -> str:
    """A prefix without its final underscore.

    Returns:
        It.

    Raises:
        InputTypeError: it is no text.
        InputError: names cannot begin with it.
    """
    if not isinstance(prefix, str):
        raise InputTypeError(
            f"prefix={prefix!r} must be a string, as 'g' for g_center; what else a model takes is "
            "given by name, as in Polynomial(degree=2)."
        )
    bare = prefix.removesuffix("_")
    if prefix and not bare.isidentifier():
        raise InputError(
            f"prefix={prefix!r} makes no names of parameters: letters, digits and underscores "
            "do, with a letter first."
        )
    return bare
