"""From the variables u that are fitted to the parameters p of the model: fixed, tied, transformed.

A transform keeps a parameter inside an open interval whatever u is: by an exponential if one end is
infinite, by the logistic curve between two ends; p rises with u. A tie makes a parameter a function
of the others. Bounds need nothing here, as they apply to u.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .._arrays import tensor_of
from .._errors import InputError, InputTypeError
from .._names import meant

Tie = Callable[[dict[str, Any]], Any]
Transform = str | tuple[float, float]


@dataclass(frozen=True)
class Parameters:
    """How p is computed from u.

    Args:
        names: the names of the entries of p.
        fixed: the parameters that stay at their start.
        ties: by name, functions of a dict of the others' values.
        transforms: by name, "positive" or (lower, upper).

    Raises:
        InputError: a name is not known or has two roles.
    """

    names: list[str]
    fixed: Sequence[str] = ()
    ties: Mapping[str, Tie] = field(default_factory=dict)
    transforms: Mapping[str, Transform] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the names."""
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise InputError(f"several parameters are called {twice}: give each a name of its own.")
        for what, roles in (("ties", self.ties), ("transforms", self.transforms)):
            if not isinstance(roles, Mapping):
                raise InputTypeError(f"{what}={roles!r} must be a dict by name.")
        for what, given in (
            ("fixed", self.fixed),
            ("ties", self.ties),
            ("transforms", self.transforms),
        ):
            unknown = [name for name in given if name not in self.names]
            if unknown:
                raise InputError(
                    f"{what} names {unknown}, which the model does not have: {self.names}."
                    f"{meant(unknown, self.names)}"
                )
        both = sorted(
            set(self.fixed) & set(self.ties)
            | (set(self.fixed) | set(self.ties)) & set(self.transforms)
        )
        if both:
            raise InputError(
                f"{both} have two roles: a parameter is fixed, tied or "
                "transformed, not two of them."
            )
        for name, tie in self.ties.items():
            if not callable(tie):
                raise InputTypeError(
                    f"the tie of {name!r} is {type(tie).__name__}: give a "
                    "function of a dict of values."
                )
        for name, transform in self.transforms.items():
            pair = isinstance(transform, tuple | list) and len(transform) == 2
            numbers = pair and all(isinstance(end, Real) for end in transform)
            if transform != "positive" and not (
                numbers and float(transform[0]) < float(transform[1])
            ):
                raise InputError(
                    f"the transform of {name!r} is {transform!r}: 'positive', or (lower, upper)."
                )
        if not self.variables:
            raise InputError("every parameter is fixed or tied: there is nothing to fit.")

    @cached_property
    def variables(self) -> list[str]:
        """The names of the entries of u."""
        return [name for name in self.names if name not in self.fixed and name not in self.ties]

    @cached_property
    def free(self) -> bool:
        """Whether u is p: nothing is fixed, tied or transformed."""
        return not (self.fixed or self.ties or self.transforms)

    def inward(self, p: Tensor) -> Tensor:
        """The variables u (..., n) that belong to the start p (..., P).

        Raises:
            InputError: a transformed parameter starts outside its interval.
        """
        if self.free:
            return p.clone()
        columns = []
        for name in self.variables:
            value = p[..., self.names.index(name)]
            transform = self.transforms.get(name)
            if transform is None:
                columns.append(value)
                continue
            low, high = _interval(transform)
            if not bool(((value > low) & (value < high)).all()):
                raise InputError(
                    f"{name!r} starts outside ({low}, {high}), where its transform keeps it."
                )
            columns.append(_from_inside(value, low, high))
        return torch.stack(columns, -1)

    def outward(self, u: Tensor, start: Tensor) -> Tensor:
        """The parameters p (..., P) of variables u (..., n), fixed ones as in `start` (..., P)."""
        if self.free:
            return u
        values: dict[str, Any] = {}
        for column, name in enumerate(self.variables):
            value, transform = u[..., column], self.transforms.get(name)
            values[name] = value if transform is None else _to_inside(value, *_interval(transform))
        for name in self.fixed:
            values[name] = start[..., self.names.index(name)]
        waiting = dict(self.ties)
        while waiting:  # a tie may depend on another
            done = [name for name, tie in waiting.items() if self._tied(name, tie, values, u)]
            if not done:
                raise InputError(
                    f"the ties of {sorted(waiting)} go in a circle, or name a "
                    "parameter that is not there."
                )
            for name in done:
                del waiting[name]
        columns = [tensor_of(values[name]).to(u) for name in self.names]
        return torch.stack(torch.broadcast_tensors(*columns), -1)

    @staticmethod
    def _tied(name: str, tie: Tie, values: dict[str, Any], like: Tensor) -> bool:
        """Compute a tie if all values that it needs are known, and return whether it was computed.

        Raises:
            InputTypeError: the tie returns no number, or not one for each fit.
        """
        try:
            value = tie(values)
        except KeyError:
            return False
        try:
            values[name] = tensor_of(value).to(like).expand(like.shape[:-1])
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputTypeError(
                f"the tie of {name!r} returned {value!r}, not a number: it gets a dict of the "
                "other values, and must return the one that it stands for."
            ) from error
        return True

    def told(self, name: str) -> str:
        """The role of a parameter, and of a tied one its equation, if that was given as text."""
        role = self.role(name)
        if role != "tied":
            return role
        text = getattr(self.ties[name], "text", "")
        return f"tied: {text}" if text else role

    def role(self, name: str) -> str:
        """What keeps a parameter from being free, in words for reports; empty if it is free."""
        if name in self.fixed:
            return "fixed"
        if name in self.ties:
            return "tied"
        transform = self.transforms.get(name)
        return (
            ""
            if transform is None
            else "positive"
            if isinstance(transform, str)
            else f"within {transform}"
        )


def _interval(transform: Transform) -> tuple[float, float]:
    return (
        (0.0, math.inf)
        if isinstance(transform, str)
        else (float(transform[0]), float(transform[1]))
    )


def _from_inside(p: Tensor, low: float, high: float) -> Tensor:
    """The variable u of a parameter p in the interval."""
    if low == -math.inf and high == math.inf:
        return p
    if high == math.inf:
        return (p - low).log()
    if low == -math.inf:
        return -(high - p).log()
    return ((p - low) / (high - low)).logit()


def _to_inside(u: Tensor, low: float, high: float) -> Tensor:
    """The parameter p in the interval of a variable u: the inverse of `_from_inside`."""
    if low == -math.inf and high == math.inf:
        return u
    if high == math.inf:
        return low + u.exp()
    if low == -math.inf:
        return high - (-u).exp()
    return low + (high - low) * torch.sigmoid(u)
