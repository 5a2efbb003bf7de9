"""Models, ties, criteria and options in the terms of JSON, and back.

Code goes by its import path, a model of `lmtorch.models` by its name and a tie in text as it is.
What has neither, a lambda or a function that is defined inside another, is left out, and `Unsaved`
stands in for it.
"""

import inspect
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from ... import losses
from ..._code import found_at, path_of
from ..._errors import InputError
from ..._records import decoded, encoded
from ...losses.criterion import Criterion
from ...models.base import Model as LibraryModel
from ...models.expressions import Expression
from ...models.specs import from_spec
from ..brought import Renamed
from ..fitter import Fitter
from ..likelihoods import NAMES, Likelihood
from ..models import Joint, Model, OfModule, OfNumbers, OfTensors, model_of
from .unsaved import Unsaved

NOWHERE = "its code cannot be imported, as of a lambda, a function inside another, or a module"
GIVE = "lmtorch.load(path, f=...) takes it back"


class Code(NamedTuple):
    """What `load` was given, and what it finds missing."""

    given: Any  # the user's f, or a list of them; None: that of the file
    imports: bool  # whether modules that the file names may be imported
    lost: list[str]  # what is missing, in words
    why: str = ""  # why the function of the fit is not used

    def function(self, record: Mapping[str, Any], what: str, names: Sequence[str] = ()) -> Any:
        """The function of a record, or what stands in for it."""
        path = record.get("path")
        why = self.why or NOWHERE
        if self.why:
            pass
        elif "model" in record:
            try:
                return library_model(record["model"], self.imports)
            except InputError as error:
                why = str(error)
        elif path is not None and not self.imports:
            why = f"{path} was not imported"
        elif path is not None:
            try:
                found = found_at(path)
                if isinstance(found, FunctionType):
                    return found
                why = f"{path} is no function"
            except InputError as error:
                why = str(error)
        return Unsaved(what, why, names, record)


def code_record(function: Any) -> dict[str, Any]:
    """Where the code of a function is; empty if it cannot be told."""
    if isinstance(function, Unsaved):
        return function.record
    if isinstance(function, LibraryModel):
        try:
            return {"model": encoded(function.to_spec())}
        except InputError:
            return {}
    if isinstance(function, OfModule):
        return {"module": type(function.module).__name__}
    path = path_of(function)
    return {} if path is None else {"path": path}


def library_model(record: Any, imports: bool) -> LibraryModel:
    """A model of `lmtorch.models`, of which a user's parts are imported.

    Args:
        record: of what its `to_spec` gave.
        imports: whether they may be.

    Returns:
        The model.

    Raises:
        InputError: it is none, or a part of it is not there or may not be imported.
    """
    spec = decoded(record)
    if not imports and (paths := _paths_in(spec)):
        raise InputError(f"{', '.join(paths)} was not imported")
    return from_spec(spec)


def _paths_in(spec: Any) -> list[str]:
    """The import paths in a model's plain values."""
    if isinstance(spec, Mapping):
        own = [
            value
            for name, value in spec.items()
            if name in ("model", "function", "guess") and isinstance(value, str) and ":" in value
        ]
        return [*own, *(path for value in spec.values() for path in _paths_in(value))]
    return []


def model_record(model: Model) -> dict[str, Any]:
    """A model: its kind, where its code is, and the names of its parameters."""
    if isinstance(model, Joint):
        return {
            "kind": "joint",
            "label": model.label,
            "functions": [code_record(function) for function in model.functions],
            "own": model.own,
            "shared": sorted(model.shared),
        }
    if isinstance(model, OfTensors):
        shapes = {key: list(size) for key, size in zip(model.keys, model.shapes, strict=True)}
        return {
            "kind": "tensors",
            "label": model.label,
            "function": code_record(model.function),
            "shapes": shapes,
        }
    if not isinstance(model, OfNumbers):
        raise InputError(f"a fit of {type(model).__name__} cannot be saved.")
    return {
        "kind": "numbers",
        "label": model.label,
        "function": code_record(model.function),
        "names": list(model.names),
    }


def model_from(record: Mapping[str, Any], code: Code) -> Model:
    """The model of a record, with the code that is given, imported, or stands in.

    Returns:
        The model.

    Raises:
        InputError: the code that is given has other parameters.
    """
    makers = {"joint": _joint, "tensors": _of_tensors, "numbers": _of_numbers}
    model = makers[record["kind"]](record, code)
    if missing := unsaved_in(model):
        vars(model)["label"] = record["label"]
        code.lost.append(
            "fit(x), bands, pictures and refits need the function of the fit, which was not saved "
            f"or is not used ({missing[0].why}): {GIVE}"
        )
    return model


def unsaved_in(model: Any) -> list[Unsaved]:
    """What of a model's code is not there."""
    functions = model.functions if isinstance(model, Joint) else [model.function]
    return [function for function in functions if isinstance(function, Unsaved)]


def has_nameless_code(fitter: Fitter) -> bool:
    """Whether a function of a fit has no import path, so that it cannot be pickled."""
    model: Any = fitter.model
    functions = model.functions if isinstance(model, Joint) else [model.function]
    ties = [_inner(tie) for tie in fitter.parameters.ties.values()]
    given = [*functions, *ties, *fitter.options.values(), fitter.jac]
    return any(
        isinstance(one, FunctionType | LibraryModel) and not code_record(one) for one in given
    )


def _inner(tie: Any) -> Any:
    """A tie as its model has it."""
    return tie.tie if isinstance(tie, Renamed) else tie


def _of_numbers(record: Mapping[str, Any], code: Code) -> Model:
    names = record["names"]
    f = code.function(record["function"], "the function of the fit", names)
    f = f if code.given is None else code.given
    found = _tried(f, [1.0] * len(names)) or _tried(f, dict.fromkeys(names, 1.0))
    if found is None or found.names != names:
        if code.given is not None:
            raise InputError(f"f has other parameters than the fit that was saved: {names}.")
        f = Unsaved("the function of the fit", _changed(record), names, record["function"])
        found = OfNumbers(f, None)
    return found


def _tried(f: Any, p0: Any) -> OfNumbers | None:
    try:
        return OfNumbers(f, p0)
    except InputError:
        return None


def _changed(record: Mapping[str, Any]) -> str:
    return f"{record['function'].get('path')} has other parameters now"


def _of_tensors(record: Mapping[str, Any], code: Code) -> Model:
    shapes = {key: tuple(shape) for key, shape in record["shapes"].items()}
    f = code.function(record["function"], "the function of the fit", ["params"])
    f = f if code.given is None else code.given
    if isinstance(f, nn.Module):
        found: Any = model_of(f, None, None, 0)
        if dict(zip(found.keys, found.shapes, strict=True)) != shapes:
            raise InputError(f"the module has other parameters than the fit: {shapes}.")
        return found
    return OfTensors(f, {key: np.zeros(shape) for key, shape in shapes.items()}, record["label"])


def _joint(record: Mapping[str, Any], code: Code) -> Model:
    own, count = record["own"], len(record["own"])
    if code.given is not None:
        given = code.given if isinstance(code.given, list | tuple) else [code.given]
        found = Joint(list(given), count, record["shared"])
        if found.own != own:
            raise InputError(f"f has other parameters than the fit that was saved: {own}.")
        return found
    functions = [
        code.function(one, "the function of the fit", names)
        for one, names in zip(record["functions"], own, strict=True)
    ]
    found = Joint(functions, count, record["shared"])
    if found.own != own:
        why = "the function has other parameters now"
        functions = [
            Unsaved("the function of the fit", why, names, one)
            for names, one in zip(own, record["functions"], strict=True)
        ]
        found = Joint(functions, count, record["shared"])
    return found


# ---- ties ----------------------------------------------------------------------------------------


def ties_record(ties: Mapping[str, Any]) -> dict[str, Any]:
    """By name, the text of each tie, or where its code is."""
    return {name: _tie_record(tie) for name, tie in ties.items()}


def _tie_record(tie: Any) -> dict[str, Any]:
    if isinstance(tie, Renamed):
        return {"tie": _tie_record(tie.tie), "names": [list(pair) for pair in tie.names]}
    if isinstance(tie, Expression):
        return {"text": tie.text, "constants": list(tie.constants)}
    return code_record(tie)


def _tie_from(name: str, record: Mapping[str, Any], code: Code) -> Any:
    if "names" in record:
        tie = _tie_from(name, record["tie"], code)
        pairs = tuple((own, full) for own, full in record["names"])
        return tie if isinstance(tie, Unsaved) else Renamed(tie, pairs)
    if "text" in record:
        read = Expression(record["text"], tuple(record["constants"]))
        assert read.tree is not None  # which reads it, and refuses what is no tie
        return read
    return code.function(record, f"the tie of {name!r}")


def ties_from(records: Mapping[str, Any], code: Code) -> dict[str, Any]:
    """The ties again; one that was not saved has a stand-in."""
    found = {name: _tie_from(name, one, code) for name, one in records.items()}
    lost = [name for name, tie in found.items() if isinstance(tie, Unsaved)]
    if lost:
        code.lost.append(
            f"refits need the ties of {', '.join(lost)}, whose code cannot be imported; values, "
            "errors and bands do not"
        )
    return found


# ---- criteria ------------------------------------------------------------------------------------


def likelihood_record(likelihood: Likelihood | None) -> dict[str, Any] | None:
    """A likelihood by its name, with the settings of a criterion."""
    if likelihood is None:
        return None
    if likelihood.given is None:
        return {"name": likelihood.name}
    settings = {}
    for name in inspect.signature(type(likelihood.given).__init__).parameters:
        if hasattr(likelihood.given, name) and name != "self":
            try:
                settings[name] = encoded(getattr(likelihood.given, name))
            except InputError:
                return {"name": likelihood.name, "criterion": None}
    kind = type(likelihood.given)
    public = getattr(losses, kind.__name__, None) is kind
    path = kind.__name__ if public else path_of(kind)
    return {"name": likelihood.name, "criterion": path, "settings": settings}


def likelihood_from(record: Mapping[str, Any] | None, code: Code) -> Likelihood | None:
    """The likelihood of a record."""
    if record is None:
        return None
    name, path = record["name"], record.get("criterion")
    if "criterion" not in record:
        if name not in NAMES:
            raise InputError(f"the file names an unknown likelihood, {name!r}.")
        return Likelihood(name)
    kind: Any = None
    if path is not None and ":" not in path:
        kind = getattr(losses, path, None)
    elif path is not None and code.imports:
        kind = found_at(path)
    if isinstance(kind, type) and issubclass(kind, Criterion):
        settings = {key: decoded(value) for key, value in record["settings"].items()}
        return Likelihood(name, kind(**settings))
    code.lost.append(f"the criterion {name} was not saved: refits are not to be had")
    return Likelihood(name, Lost())


class Lost(Criterion):
    """What stands in for a criterion that was not saved."""

    elementwise = True

    def cost(self, outputs: Any, *targets: Any, **_: Any) -> Any:
        """Say that it is not there.

        Raises:
            InputError: always.
        """
        raise InputError("the criterion of this fit was not saved: it cannot be fitted again.")

    slope = root = cost


# ---- options -------------------------------------------------------------------------------------


def options_record(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options in the terms of JSON, functions by their paths; None: it was not saved."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if callable(value):
            found[name] = code_record(value) or None
            continue
        try:
            found[name] = {"value": encoded(value)}
        except InputError:
            found[name] = None
    return found


def options_from(record: Mapping[str, Any], code: Code) -> dict[str, Any]:
    """The options again; those that are not there have a stand-in where a function is wanted."""
    found = {}
    for name, one in record.items():
        if one is None:
            code.lost.append(f"the option {name} was not saved: refits go without it")
        elif "value" in one:
            found[name] = decoded(one["value"])
        else:
            found[name] = code.function(one, f"the option {name}")
    return found
