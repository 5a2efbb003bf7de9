"""What may be meant where a name is not known."""

import difflib
from collections.abc import Collection, Iterable
from typing import Any

MOST = 3  # names that are proposed


def meant(unknown: Iterable[Any], names: Collection[str]) -> str:
    """A question after what is meant by names that are not known, " Is 'g_center' meant?".

    Args:
        unknown: what was given.
        names: those that there are: one is near that differs by a prefix or some letters.

    Returns:
        The question, with a blank before it; empty where no name is near.
    """
    near: list[str] = []
    for name in unknown:
        if isinstance(name, str):
            longer = [one for one in names if one.endswith(f"_{name}")] if name else []
            near += longer or difflib.get_close_matches(name, names, 1)
    found = [repr(name) for name in dict.fromkeys(near)][:MOST]
    return f" Is {' or '.join(found)} meant?" if found else ""
