"""A rough place of a term, as a user gives it, beside a guess that was made without it.

A peak that is held a little beside the one that is meant leaves what the other terms of a sum take
for peaks of their own. So all are guessed freely, and the hint says only which of them is meant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .places import groups_of
from .rules import Rules

if TYPE_CHECKING:
    from .base import Model

CENTERS = ("center", "centerx", "centery")
WIDTHS = (("fwhm", 1.0), ("fwhmx", 1.0), ("sigma", 2.0))  # what tells a full width, about
REACH = 2.0  # full widths from which a hint may be away from what it means


def hinted(terms: "Sequence[Model]", rules: Rules) -> "list[Model]":
    """The terms whose place starts from a value that was given."""
    return [term for term in terms if any(name in rules.starts for name in _centers(term))]


def freed(terms: "Sequence[Model]", rules: Rules) -> Rules:
    """The rules without the starts of these terms."""
    names = {name for term in terms for name in term.names}
    return replace(rules, starts={n: v for n, v in rules.starts.items() if n not in names})


def meant(
    terms: "Sequence[Model]", values: Mapping[str, Tensor], rules: Rules
) -> tuple[dict[str, Tensor], Tensor]:
    """A free guess whose terms are named as the hints say.

    Args:
        terms: of a sum.
        values: of the guess (...,), terms of one shape by their places.
        rules: of the sum, with the hints.

    Returns:
        The values by name, and whether every hint is near to what it is taken for, (...,).
    """
    found = dict(values)
    some = hinted(terms, rules)
    near = torch.ones_like(next(iter(values.values())), dtype=torch.bool)
    alone = {id(term) for term in some}
    for group in groups_of(terms, freed(some, rules)):
        given = [term for term in group if term in some]
        if given:
            alone -= {id(term) for term in given}
            near = near & _named(group, given, found, rules)
    for term in some:
        if id(term) in alone:
            near = near & (_away([term], term, found, rules)[..., 0] <= REACH)
    return found, near


def _centers(term: "Model") -> list[str]:
    return [term._full(name) for name in CENTERS if name in term.parameters]


def _named(
    group: "Sequence[Model]", given: "Sequence[Model]", found: dict[str, Tensor], rules: Rules
) -> Tensor:
    """Give each hint the nearest of the terms that no other has, and the rest in their order."""
    free = torch.stack([torch.zeros_like(found[group[0].names[0]]) for _ in group], -1)
    near = torch.ones_like(free[..., 0], dtype=torch.bool)
    chosen: dict[int, Tensor] = {}
    for term in given:
        away = _away(group, term, found, rules) + free
        place = away.argmin(-1, keepdim=True)
        near = near & (away.take_along_dim(place, -1)[..., 0] <= REACH)
        free = free.scatter(-1, place, torch.inf)
        chosen[id(term)] = place
    rest = free.argsort(dim=-1, stable=True)  # those that are left come first
    others = [term for term in group if id(term) not in chosen]
    for i, term in enumerate(others):
        chosen[id(term)] = rest[..., i, None]
    rows = list(zip(*(term.names for term in group), strict=True))
    columns = [torch.stack([found[name] for name in names], -1) for names in rows]
    for names, column in zip(rows, columns, strict=True):
        for term, name in zip(group, names, strict=True):
            found[name] = column.take_along_dim(chosen[id(term)], -1)[..., 0]
    return near


def _away(
    group: "Sequence[Model]", hint: "Model", found: Mapping[str, Tensor], rules: Rules
) -> Tensor:
    """How far each term of a group is from a hint, in its full widths, (..., k)."""
    columns = []
    for term in group:
        total = torch.zeros_like(found[term.names[0]])
        for name, full in zip(_centers(term), _centers(hint), strict=True):
            if full in rules.starts:
                total = total + (found[name] - rules.starts[full]).abs()
        columns.append(total / _width(term, found))
    return torch.stack(columns, -1)


def _width(term: "Model", found: Mapping[str, Tensor]) -> Tensor:
    """The full width at half height, or about it; nothing is near to what tells none."""
    derived = term.derived_from({name: found[name] for name in term.names})
    known = {**found, **derived}
    for name, part in WIDTHS:
        full = term._full(name)
        if full in known and (name in term.parameters or full in derived):
            return part * known[full].abs()
    return torch.zeros_like(found[term.names[0]])
