"""Which of several terms of one shape is which: by their places, from left to right."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .rules import Rules

if TYPE_CHECKING:
    from .base import Model

# the parameter that says where a term is; of two that a shape has the first
PLACES = ("center", "centerx", "decay", "frequency")


def by_place(
    terms: "Sequence[Model]", values: dict[str, Tensor], rules: Rules
) -> dict[str, Tensor]:
    """A guess whose terms of one shape stand in the order of their places.

    The curve is the same. Without it the higher of two peaks would come first, and in a batch or
    an image the names would change from curve to curve. Terms that a rule tells apart stay as they
    are.

    Args:
        terms: of a sum.
        values: a guess of them (...,), by name.
        rules: of the sum.

    Returns:
        Values by name.
    """
    found = dict(values)
    for group in groups_of(terms, rules):
        place = next(name for name in PLACES if name in group[0].parameters)
        rows = list(zip(*(term.names for term in group), strict=True))
        columns = [torch.stack([values[name] for name in names], -1) for names in rows]
        order = columns[list(group[0].parameters).index(place)].argsort(dim=-1, stable=True)
        for names, column in zip(rows, columns, strict=True):
            found.update(zip(names, column.take_along_dim(order, -1).unbind(-1), strict=True))
    return found


def groups_of(terms: "Sequence[Model]", rules: Rules) -> "list[list[Model]]":
    """Terms that may change places with each other, in the order of the sum.

    Args:
        terms: of a sum.
        rules: of the sum.

    Returns:
        Groups of two and more.
    """
    said = _said(rules)
    if said is None:
        return []
    groups: dict[tuple[str, ...], list[Model]] = {}
    for term in terms:
        place = next((name for name in PLACES if name in term.parameters), None)
        if place is not None and not said & {*term.names}:
            groups.setdefault((place, *_kind(term, rules)), []).append(term)
    return [group for group in groups.values() if len(group) > 1]


def _kind(term: "Model", rules: Rules) -> tuple[str, ...]:
    """What terms have in common that may change places: formula, options and bounds."""
    function = getattr(term, "function", None)  # of the user's: alike is what is the same
    bounds = [tuple(rules.bounds.get(name, ())) for name in term.names]
    return str(type(term)), repr(term.options), str(id(function)), repr(bounds)


def _said(rules: Rules) -> set[str] | None:
    """The names that a rule other than bounds is about; None: it cannot be told."""
    names = {*rules.fixed, *rules.starts, *rules.ties}
    for tie in rules.ties.values():
        of = getattr(tie, "names", None)
        if of is None:  # code of the user's, which may use any of them
            return None
        names.update(name for one in of for name in (one if isinstance(one, tuple) else (one,)))
    return names
