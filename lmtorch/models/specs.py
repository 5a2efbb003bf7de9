"""Models as plain values, for JSON, and back: classes by name, a user's code by its import path.

Nothing is pickled and nothing evaluated: what is not of this package is imported from its module,
as a user would import it.
"""

import math
from collections.abc import Mapping
from typing import Any

from .._code import found_at, path_of
from .._errors import InputError
from .base import Model
from .expressions import Expression
from .functions import Function
from .rules import Rules, ties_of
from .sums import OPERATORS, Combined, Number

OWN = "lmtorch.models"


def spec_of(model: Model) -> dict[str, Any]:
    """A model in plain values, with its rules.

    Returns:
        A dict of text, numbers, lists and dicts.

    Raises:
        InputError: it has code that cannot be found by an import.
    """
    rules = model._rules
    given: dict[str, Any] = {
        "bounds": {
            name: [end if math.isfinite(end) else None for end in pair]
            for name, pair in rules.bounds.items()
        },
        "fixed": dict(rules.fixed),
        "ties": {
            name: tie.text if isinstance(tie, Expression) else {"function": _path(tie)}
            for name, tie in rules.ties.items()
        },
        "starts": dict(rules.starts),
    }
    return {**_form(model), **{what: values for what, values in given.items() if values}}


def from_spec(spec: Mapping[str, Any]) -> Model:
    """The model that `Model.to_spec` has written down.

    Args:
        spec: a dict, as from JSON.

    Returns:
        The model.

    Raises:
        InputError: it is no such dict, or its code is not there.

    Example:
        >>> from lmtorch import models
        >>> spec = (models.Gaussian("g") + models.Linear()).with_fixed(g_sigma=1).to_spec()
        >>> spec["fixed"], spec["left"]
        ({'g_sigma': 1.0}, {'model': 'Gaussian', 'prefix': 'g'})
        >>> models.from_spec(spec)
        Gaussian('g') + Linear()
    """
    model = _made(spec)
    ties = {
        name: found_at(tie["function"]) if isinstance(tie, Mapping) else tie
        for name, tie in spec.get("ties", {}).items()
    }
    rules = Rules(starts=dict(spec.get("starts", {})), ties=ties_of(ties, model.names))
    return model._ruled(rules.bounded(spec.get("bounds", {})).held(spec.get("fixed", {})))


def _path(code: Any) -> str:
    """Where a function or class can be imported from, "module:name".

    Returns:
        The path.

    Raises:
        InputError: it cannot be imported.
    """
    path = path_of(code)
    if path is None:
        raise InputError(
            f"{code!r} cannot be saved, as it cannot be imported again: define it by def or class "
            "at the top of a module."
        )
    return path


def _form(model: Model) -> dict[str, Any]:
    """A model without its rules."""
    if isinstance(model, Number):
        return {"model": "number", "value": model.options["value"]}
    if isinstance(model, Combined):
        return {"model": model.sign, "left": _form(model.left), "right": _form(model.right)}
    prefix = {"prefix": model.prefix} if model.prefix else {}
    if isinstance(model, Function):
        guess = {} if model.own_guess is None else {"guess": _path(model.own_guess)}
        return {"model": "function", "function": _path(model.function), **prefix, **guess}
    kind = type(model)
    known = kind.__module__.startswith(f"{OWN}.")
    name = kind.__name__ if known else _path(kind)
    options = {"options": dict(model.options)} if model.options else {}
    return {"model": name, **prefix, **options}


def _made(spec: Mapping[str, Any]) -> Model:
    """The model of a form.

    Returns:
        It, without rules.

    Raises:
        InputError: it is none.
    """
    try:
        name, prefix = spec["model"], spec.get("prefix", "")
        if name == "number":
            return Number(spec["value"])
        if name in OPERATORS:
            return Combined(name, _made(spec["left"]), _made(spec["right"]))
        if name == "function":
            guess = found_at(spec["guess"]) if "guess" in spec else None
            return Function(found_at(spec["function"]), prefix, guess)
        kind = found_at(name if ":" in name else f"{OWN}:{name}")
        if not isinstance(kind, type) or not issubclass(kind, Model):  # and is not called
            raise InputError(f"{name!r} is no model.")
        return kind(prefix=prefix, **spec.get("options", {}))
    except (KeyError, TypeError) as error:
        raise InputError(f"{spec!r} is no model in plain values: {error!r}.") from error
