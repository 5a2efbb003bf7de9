"""The lists of `members.py` are whole: every name of `choose`, and every class of the package."""

import ast
import inspect
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import lmtorch
from lmtorch import choose, damping, jacobians, losses, solvers
from lmtorch.residuals.base import Residual

from . import members
from .cases import Failing

HERE = Path(__file__).parent
NAMED: dict[str, tuple[ModuleType, Mapping[str, Any], Mapping[str, Any]]] = {
    "solvers": (solvers, choose.SOLVERS, members.SOLVERS),
    "dampings": (damping, choose.DAMPINGS, members.DAMPINGS),
    "scalings": (damping, choose.SCALINGS, members.SCALINGS),
    "losses": (
        losses,
        {name: choose.loss(choose.Options(loss=name)) for name in ("linear", *choose.RHOS)},
        members.LOSSES,
    ),
}


def every_source() -> list[Any]:
    return [source.make(None, torch.cat) for source in members.SOURCES.values()]


def every_residual() -> list[Residual]:
    return [make(Failing()).residual for make in members.RESIDUALS.values()]


def every_kind_of_rows() -> list[Any]:
    return [make(torch.Generator(), 2, 1) for make in members.ROWS.values()]


# which methods make a class a member, and the members that the laws see
PROTOCOLS: dict[str, tuple[set[str], list[Any]]] = {
    "solvers": ({"form", "factor"}, [*members.SOLVERS.values()]),
    "dampings": ({"start", "propose", "update"}, [*members.DAMPINGS.values()]),
    "rows": ({"scaled", "transposed_times"}, every_kind_of_rows()),
    "forms": ({"accumulator", "entries"}, [*members.FORMS.values()]),
    "losses": ({"cost", "expand"}, [*members.LOSSES.values()]),
    "sources": ({"blocks", "evaluate"}, every_source()),
    "residuals": ({"params", "parts", "replay", "take"}, every_residual()),
}


def classes() -> set[type]:
    """Every class that is defined in the package, but for protocols."""
    found = set()
    for module in pkgutil.walk_packages(lmtorch.__path__, "lmtorch."):
        for _, kind in inspect.getmembers(import_module(module.name), inspect.isclass):
            if kind.__module__.startswith("lmtorch.") and not getattr(kind, "_is_protocol", False):
                found.add(kind)
    return found


def has(kind: type, names: set[str]) -> bool:
    """Whether a class has these methods or fields."""
    return all(hasattr(kind, name) or name in inspect.get_annotations(kind) for name in names)


@pytest.mark.parametrize("what", NAMED)
def test_every_name_of_choose_is_a_member_of_the_list(what: str) -> None:
    _, known, listed = NAMED[what]
    assert {name: listed.get(name) for name in known} == dict(known)


def test_every_name_of_a_source_is_a_member_of_the_list() -> None:
    assert set(choose.SOURCES) <= set(members.SOURCES)


@pytest.mark.parametrize("what", NAMED)
def test_every_named_member_can_be_imported_one_dot_deep(what: str) -> None:
    folder, known, _ = NAMED[what]
    for member in known.values():
        assert getattr(folder, type(member).__name__, None) is type(member)


def test_every_source_with_a_name_can_be_imported_one_dot_deep() -> None:
    for name, source in zip(members.SOURCES, every_source(), strict=True):
        if name in choose.SOURCES:
            assert getattr(jacobians, type(source).__name__, None) is type(source)


@pytest.mark.parametrize("what", PROTOCOLS)
def test_every_class_of_a_protocol_is_a_member_of_the_list(what: str) -> None:
    names, listed = PROTOCOLS[what]
    known = {type(member) for member in listed}
    assert known <= classes()  # the walk through the package finds them
    assert {kind for kind in classes() if has(kind, names)} <= known | set(members.ELSEWHERE)


def test_every_scaling_is_a_member_of_the_list() -> None:
    known = {type(member) for member in members.SCALINGS.values()}
    rules = {
        kind
        for kind in classes()
        if hasattr(kind, "update") and kind.__module__ == "lmtorch.damping.scaling"
    }
    assert rules == known


def test_what_has_laws_elsewhere_has_them_there() -> None:
    root = HERE.parents[1]
    for kind, path in members.ELSEWHERE.items():
        assert (root / path).exists(), kind


@pytest.mark.parametrize("path", sorted(HERE.glob("test_*.py")), ids=lambda path: path.stem)
def test_laws_name_no_member(path: Path) -> None:
    # a law that holds for some members asks them for a property; what holds for one alone has its
    # tests elsewhere
    listed = [member for _, members_ in PROTOCOLS.values() for member in members_]
    names = {type(member).__name__ for member in (*listed, *members.SCALINGS.values())}
    words = {
        node.id
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Name)
    }
    assert words & names == set()
