"""Docstrings that take the names of members from the tables in which they stand."""

import re
import textwrap
from collections.abc import Iterable
from typing import TypeVar

from .members import DAMPINGS, RHOS, SCALINGS, SOLVERS, SOURCES

# what a docstring may ask for, by <SOLVERS> and so on: names are written down in this file alone
NAMES: dict[str, Iterable[str]] = {
    "SOLVERS": SOLVERS,
    "DAMPINGS": DAMPINGS,
    "SCALINGS": SCALINGS,
    "SOURCES": SOURCES,
    "LOSSES": ("linear", *RHOS),
}
WIDTH = 100  # columns of a docstring
# an argument whose first line has such a word, with the lines that are indented below it
ASKING = re.compile(r"^( *)(\w+: .*<(?:" + "|".join(NAMES) + r")>.*(?:\n\1 {4}.*)*)", re.MULTILINE)

T = TypeVar("T")


def with_names(face: T) -> T:
    """Fill the names of the tables into the docstring of a class or function that asks for them."""

    def filled(argument: re.Match[str]) -> str:
        indent, text = argument.groups()
        for table, names in NAMES.items():
            text = text.replace(f"<{table}>", ", ".join(f'"{name}"' for name in names))
        return textwrap.fill(
            " ".join(text.split()),
            WIDTH,
            initial_indent=indent,
            subsequent_indent=indent + 4 * " ",
            break_on_hyphens=False,
        )

    if face.__doc__:  # under python -OO there is none
        face.__doc__ = ASKING.sub(filled, face.__doc__)
    return face
