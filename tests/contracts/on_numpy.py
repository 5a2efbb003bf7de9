"""Members that speak NumPy as well, behind tensors: the laws of their protocols hold for both.

What comes in without a batch goes to the member as NumPy's arrays and numbers, and comes out as
tensors; with a batch the member sees the tensors.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from lmtorch.arrays import arrays_of, on_numpy, quiet, tensors_of
from lmtorch.damping.base import LinearModel

CALLED = ("factor", "step", "solve", "length", "start", "propose", "update", "cost", "expand")


def on_both(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members, and once more those that speak NumPy, on its arrays."""
    speaking = {name: member for name, member in members.items() if known(member)}
    return dict(members) | {f"{name} on NumPy": Translated(m) for name, m in speaking.items()}


def known(member: Any) -> bool:
    """Whether the member says that it speaks NumPy."""
    return getattr(member, "arrays", False) is True


class Translated:
    """A member, or a factor that it made, which is given arrays and whose answers are tensors.

    Args:
        member: the member.
    """

    def __init__(self, member: Any) -> None:
        self._member = member

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._member, name)
        return partial(self._call, found) if name in (*CALLED, "curvature") else found

    def _call(self, method: Any, *args: Any) -> Any:
        if not single(args):
            return method(*args)
        with quiet():
            return answered(method(*map(asked, args)))


def single(args: Any) -> bool:
    """Whether all of the arguments are of one problem: nothing has a batch."""
    return all(of_one(arg) for arg in args)


def of_one(arg: Any) -> bool:
    """Whether an argument is of one problem: a vector, a linear model, or a tuple of numbers."""
    if isinstance(arg, LinearModel):
        return of_one(arg.linearization)
    if isinstance(arg, Tensor):
        return arg.ndim <= 1
    if hasattr(arg, "gradient"):
        return of_one(arg.gradient)
    return not isinstance(arg, tuple) or all(getattr(part, "ndim", 0) == 0 for part in arg)


def asked(value: Any) -> Any:
    """An argument as NumPy's."""
    if isinstance(value, LinearModel):
        linearization, scale = arrays_of((value.linearization, value.scale))
        factor = value.factor
        inner = factor.member if isinstance(factor, Factor) else Untranslated(factor)
        return value._replace(linearization=linearization, scale=scale, factor=inner)
    return arrays_of(value) if isinstance(value, Tensor | tuple) else value


def answered(value: Any) -> Any:
    """An answer as tensors."""
    if hasattr(value, "step") and not isinstance(value, tuple):
        return Factor(value)
    return tensors_of(value) if isinstance(value, tuple) or on_numpy(value) else value


class Factor(Translated):
    """A factor made of arrays."""

    @property
    def member(self) -> Any:
        """The factor itself."""
        return self._member


class Untranslated:
    """A factor made of tensors, which is asked by arrays."""

    def __init__(self, factor: Any) -> None:
        self._factor = factor

    def __getattr__(self, name: str) -> Any:
        return partial(self._call, getattr(self._factor, name))

    def _call(self, method: Any, *args: Any) -> Any:
        return arrays_of(method(*map(tensors_of, args)))
