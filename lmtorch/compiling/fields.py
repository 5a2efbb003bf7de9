"""What a program holds of each fit: numbers of what kinds, under which names."""

from collections.abc import Sequence
from typing import NamedTuple

from .expressions import REAL, SINGLE, TRUTH, WHOLE

TYPES = {REAL: "D", SINGLE: "S", WHOLE: "L", TRUTH: "L"}
STORED = {REAL: "double", SINGLE: "float", WHOLE: "int64_t", TRUTH: "bool"}


class Argument(NamedTuple):
    """A tensor that the program reads.

    Attributes:
        kind: of its numbers.
        size: numbers of one fit, or of all, where fits share it.
        shared: whether they do.
    """

    kind: str
    size: int
    shared: bool


def fields(kinds: Sequence[str]) -> str:
    """The numbers of a structure."""
    return "\n".join(f"  {TYPES[kind]} s{i};" for i, kind in enumerate(kinds))
