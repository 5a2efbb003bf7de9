"""What is known of the parameters of a model before a fit: bounds, fixed values, ties, starts."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError, InputTypeError
from .._names import meant
from .expressions import circle, equation, expression

Tie = Callable[[dict[str, Any]], Any]
INSET = 0.05  # how far inside of a box a guess is put that is not inside, as a part of its width


@dataclass(frozen=True)
class Rules:
    """Rules by full names. None of its methods changes it.

    Args:
        bounds: (lower, upper), as the user has set them.
        fixed: values; None: held where the fit starts.
        ties: functions of a dict of the other values.
        starts: where a fit starts.
    """

    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    fixed: Mapping[str, float | None] = field(default_factory=dict)
    ties: Mapping[str, Tie] = field(default_factory=dict)
    starts: Mapping[str, float] = field(default_factory=dict)

    def bounded(self, pairs: Mapping[str, Any]) -> "Rules":
        """With these bounds."""
        return replace(self, bounds={**self.bounds, **{n: _pair(n, p) for n, p in pairs.items()}})

    def held(self, values: Mapping[str, Any]) -> "Rules":
        """With these values fixed, and not tied any more."""
        fixed = {name: None if v is None else _number(name, v) for name, v in values.items()}
        ties = {name: tie for name, tie in self.ties.items() if name not in fixed}
        return replace(self, fixed={**self.fixed, **fixed}, ties=ties)

    def tied(
        self,
        equations: Sequence[str | Mapping[str, Any]],
        ties: Mapping[str, Any],
        names: list[str],
    ) -> "Rules":
        """With these tied, and not fixed any more."""
        new = ties_of([text for text in equations if not isinstance(text, Mapping)], names)
        for some in (*(some for some in equations if isinstance(some, Mapping)), ties):
            for name, tie in ties_of(some, names).items():
                if name in new:
                    raise InputError(f"{name!r} is tied twice.")
                new[name] = tie
        fixed = {name: value for name, value in self.fixed.items() if name not in new}
        return replace(self, fixed=fixed, ties={**self.ties, **new})

    def started(self, values: Mapping[str, Any]) -> "Rules":
        """With these starts."""
        return replace(
            self, starts={**self.starts, **{n: _number(n, v) for n, v in values.items()}}
        )

    def without(self, names: Iterable[str]) -> "Rules":
        """Without those of these parameters."""
        gone = set(names)
        kept: list[dict[str, Any]] = [
            {name: value for name, value in one.items() if name not in gone}
            for one in (self.bounds, self.fixed, self.ties, self.starts)
        ]
        return Rules(*kept)

    def of(self, names: Sequence[str]) -> "Rules":
        """Those that are about parameters of these names alone."""
        kept: list[dict[str, Any]] = [
            {name: value for name, value in one.items() if name in names}
            for one in (self.bounds, self.fixed, self.ties, self.starts)
        ]
        kept[2] = {n: tie for n, tie in kept[2].items() if {*getattr(tie, "names", n)} <= {*names}}
        return Rules(*kept)

    def plus(self, other: "Rules") -> "Rules":
        """With those of another model, whose names are all different."""
        return Rules(
            {**self.bounds, **other.bounds},
            {**self.fixed, **other.fixed},
            {**self.ties, **other.ties},
            {**self.starts, **other.starts},
        )

    def box(self, name: str) -> tuple[float, float]:
        """(lower, upper) of a parameter; both are its value where it is held or starts there."""
        value = self.fixed.get(name, self.starts.get(name))
        return self.bounds.get(name, (-math.inf, math.inf)) if value is None else (value, value)

    def check(self, names: list[str], limits: Mapping[str, tuple[float, float]]) -> None:
        """Check that they hold together.

        Raises:
            InputError: a name is not known, has two roles, or a fixed value is outside its bounds.
        """
        for what, rules in (
            ("bounds", self.bounds),
            ("fixed values", self.fixed),
            ("ties", self.ties),
            ("starts", self.starts),
        ):
            self.known(rules, names, what)
        for name in self.ties:
            if name in self.bounds:
                raise InputError(
                    f"{name!r} is tied and has bounds: a tie cannot be held within bounds. Bound "
                    "what it follows from, or take one of the two away by with_free."
                )
        circle(self.ties)
        for what, values in (("is fixed at", self.fixed), ("starts at", self.starts)):
            for name, value in values.items():
                low, high = self.bounds.get(name, limits.get(name, (-math.inf, math.inf)))
                if value is not None and not low <= value <= high:
                    raise InputError(
                        f"{name!r} {what} {value}, outside its bounds, {low} to {high}."
                    )

    @staticmethod
    def known(given: Iterable[str], names: list[str], what: str) -> None:
        """Check names.

        Raises:
            InputError: the model has no such parameters.
        """
        if unknown := [name for name in given if name not in names]:
            raise InputError(
                f"{what} name {unknown}, which the model does not have: {names}."
                f"{meant(unknown, names)}"
            )

    def completed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Values by name, with fixed and tied ones and starts where they are not given."""
        fixed = {name: value for name, value in self.fixed.items() if value is not None}
        return with_ties({**self.starts, **fixed, **given}, self.ties)

    def within(self, found: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
        """A guess (...,) like `like` in keeping with the rules: in bounds, fixed, tied."""
        known = dict(found)
        for name, (low, high) in self.bounds.items():
            known[name] = inside(known[name], low, high)
        for values in (self.starts, self.fixed):
            for name, value in values.items():
                if value is not None:
                    known[name] = torch.full_like(like, value)
        free = {name: value for name, value in known.items() if name not in self.ties}
        known |= with_ties(free, self.ties)
        return {
            name: torch.as_tensor(known[name], dtype=like.dtype, device=like.device).expand(
                like.shape
            )
            for name in found
        }


def dict_of(given: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """What was given by name in a dict.

    Raises:
        InputTypeError: it is no dict.
    """
    if not isinstance(given, Mapping | None):
        raise InputTypeError(f"{what} are {given!r}: give them by name, name=..., or in a dict.")
    return dict(given or {})


def held_in(given: Iterable[str | Mapping[str, Any]]) -> dict[str, Any]:
    """Fixed values by name, None for a name alone.

    Raises:
        InputTypeError: it is neither a name nor a dict.
    """
    found: dict[str, Any] = {}
    for one in given:
        found.update({one: None} if isinstance(one, str) else dict_of(one, "fixed values"))
    return found


def with_ties(values: Mapping[str, Any], ties: Mapping[str, Tie]) -> dict[str, Any]:
    """Values by name, with those that are tied to them computed, as far as that goes."""
    known = dict(values)
    waiting = {name: tie for name, tie in ties.items() if name not in known}
    while waiting:  # a tie may depend on another
        before = len(waiting)
        for name, tie in list(waiting.items()):
            try:
                known[name] = tie(known)
            except KeyError:
                continue
            del waiting[name]
        if len(waiting) == before:
            break
    return known


def ties_of(ties: Mapping[str, Any] | Sequence[str] | str, names: list[str]) -> dict[str, Tie]:
    """Ties by name from equations, or from right-hand sides and functions by name.

    Raises:
        InputError: one cannot be read, or a parameter is tied twice.
        InputTypeError: it is neither text nor a function.
    """
    found: dict[str, Tie] = {}
    if isinstance(ties, Mapping):
        for name, tie in ties.items():
            found[name] = expression(tie, names, name) if isinstance(tie, str) else tie
            if not callable(found[name]):
                raise InputTypeError(
                    f"the tie of {name!r} is {type(tie).__name__}: give a text such as "
                    f"'2 * {names[0]}', or a function of a dict of values."
                )
        return found
    for text in [ties] if isinstance(ties, str) else ties:
        name, tie = equation(text, names)
        if name in found:
            raise InputError(f"{name!r} is tied twice.")
        found[name] = tie
    return found


def inside(value: Tensor, low: float, high: float) -> Tensor:
    """A guess that is moved into a box, and a little away from its walls, if it is not within."""
    if low == high:
        return torch.full_like(value, low)
    if math.isfinite(low) and math.isfinite(high):
        inset = torch.full_like(value, INSET * (high - low))
    else:
        wall = low if math.isfinite(low) else high
        size = abs(wall) if wall else 1.0
        inset = INSET * torch.maximum((value - wall).abs(), torch.full_like(value, size))
    value = torch.where(value <= low, low + inset, value) if math.isfinite(low) else value
    return torch.where(value >= high, high - inset, value) if math.isfinite(high) else value


def _pair(name: str, pair: Any) -> tuple[float, float]:
    """Bounds as two numbers.

    Raises:
        InputError: they are none, or reversed.
    """
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        raise InputError(f"the bounds of {name!r} are {pair!r}: give a pair, (lower, upper).")
    low = -math.inf if pair[0] is None else _number(name, pair[0], finite=False)
    high = math.inf if pair[1] is None else _number(name, pair[1], finite=False)
    if not low <= high:
        raise InputError(f"the lower bound of {name!r} is above its upper bound: {low}, {high}.")
    return low, high


def _number(name: str, value: Any, finite: bool = True) -> float:
    """A number of the user's.

    Raises:
        InputTypeError: it is none.
        InputError: it is NaN, or infinite where it may not be.
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{name}={value!r} is no number.") from error
    if math.isnan(number) or (finite and math.isinf(number)):
        raise InputError(f"{name}={number} is not finite.")
    return number
