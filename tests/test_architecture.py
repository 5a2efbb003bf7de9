"""Imports run down, from the faces to the errors: the layering, read from the source."""

import ast
from functools import cache
from pathlib import Path

import pytest

import lmtorch

PACKAGE = Path(lmtorch.__file__).parent
MODULES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py")
)

# The higher stands on the lower. A folder's `base` and `__init__` belong to it; `core` sees
# only the bases of others.
LAYERS = (
    ("_denormals", "_exponential", "_one_pass", "_pages"),
    (
        "_arrays",
        "_autocast",
        "_errors",
        "_faces",
        "_memory",
        "_modes",
        "_modules",
        "_draws",
        "_elsewhere",
        "_names",
        "_printing",
        "_threads",
        "_symmetric",
        "_triangles",
        "arrays",
    ),
    (
        "_advice",
        "_bars",
        "_checks",
        "_code",
        "_files",
        "_pyplot",
        "_records",
        "_tangents",
        "distributed",
        "rows",
    ),
    ("_autodiff", "calculus", "recording"),
    ("residuals", "losses", "linearizations"),
    ("jacobians", "solvers"),
    ("damping",),
    ("core",),
    ("choose", "compiling"),
    ("training", "minimising", "derivatives", "models"),
    ("fitting",),
    ("xarray",),
    ("__init__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FOLDERS = ("rows", "residuals", "losses", "linearizations", "jacobians", "solvers", "damping")
# one small file holds the protocol, its rules, and what the loop needs of D
BEYOND_BASE = {"damping/scaling"}
# what the mathematics may not know of
FORBIDDEN = ("torch.nn", "numpy", "scipy")
PURE = ("core", "rows", "solvers", "damping", "linearizations", "losses")


def folder(module: str) -> str:
    """The part of the package that a module belongs to."""
    return module.split("/", maxsplit=1)[0]


@cache
def imports(module: str) -> set[str]:
    """Absolute names that a module imports, ours as paths from the package: "lmtorch/core/loop"."""
    path = PACKAGE / f"{module}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    here = ("lmtorch", *module.split("/"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = [*here[: len(here) - node.level]] if node.level else []
            parts = [*start, *(node.module or "").split(".")]
            base = [part for part in parts if part]
            found |= {".".join([*base, alias.name]) for alias in node.names} | {".".join(base)}
    return found


@cache
def siblings(module: str) -> set[str]:
    """Our modules among the imports, as paths from the package."""
    names = {
        name.removeprefix("lmtorch.").replace(".", "/")
        for name in imports(module)
        if name.startswith("lmtorch.")
    }
    return {name for name in names if name in MODULES}


def test_every_module_has_its_layer() -> None:
    assert {folder(module) for module in MODULES} <= set(LEVEL)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_down(module: str) -> None:
    mine = folder(module)
    above = {
        name
        for name in siblings(module)
        if folder(name) != mine and LEVEL[folder(name)] >= LEVEL[mine]
    }
    # of equals, one may stand on the other's base: a Jacobian source on what a residual is
    assert {
        name for name in above if LEVEL[folder(name)] > LEVEL[mine] or not name.endswith("/base")
    } == set()


@pytest.mark.parametrize("module", MODULES)
def test_jacobians_and_residuals_never_meet_solvers_and_linearizations(module: str) -> None:
    derivatives, algebra = {"jacobians", "residuals"}, {"solvers", "linearizations", "damping"}
    seen = {folder(name) for name in siblings(module)}
    if folder(module) in derivatives:
        assert not seen & algebra
    if folder(module) in algebra:
        assert not seen & derivatives


@pytest.mark.parametrize("module", [m for m in MODULES if folder(m) == "core"])
def test_the_core_knows_only_what_is_common_to_all_members(module: str) -> None:
    others = {name for name in siblings(module) if folder(name) in FOLDERS}
    assert {name for name in others if not name.endswith("/base")} <= BEYOND_BASE


@pytest.mark.parametrize("module", [m for m in MODULES if folder(m) in PURE])
def test_the_mathematics_knows_neither_modules_nor_numpy(module: str) -> None:
    names = imports(module)
    assert {n for n in names for bad in FORBIDDEN if n == bad or n.startswith(f"{bad}.")} == set()
    uses = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert "torch.nn" not in uses


@pytest.mark.parametrize("module", [m for m in MODULES if folder(m) in PURE])
def test_only_the_clock_knows_the_time(module: str) -> None:
    assert ("time" in imports(module)) == (module == "core/clock")


def test_only_the_chooser_knows_every_member() -> None:
    members = {
        m
        for m in MODULES
        if folder(m) in {"solvers", "damping"}
        and not m.endswith(("/base", "/__init__", "/pivoted"))  # the last is a part of "dual"
    }
    for module in MODULES:
        if folder(module) in {"choose", "solvers", "damping"}:
            continue
        assert siblings(module) & members <= BEYOND_BASE, module
    files = ("members", "planning", "solving", "alternatives", "several")
    choosers = [f"choose/{file}" for file in files]
    assert members <= set().union(*map(siblings, choosers))


@pytest.mark.parametrize("part", ["results", "saving", "inference", "loading"])
def test_records_and_results_of_fits_import_one_way(part: str) -> None:
    """Inside of a function, or for types alone, counts too: it would be a circle all the same."""
    drawn = {"fitting/inference/regions", "fitting/results/region_plots"}  # a region draws itself
    for module in MODULES:
        if module.startswith(f"fitting/{part}") and module not in drawn:
            assert module not in reached(siblings(module)), module


def reached(modules: set[str]) -> set[str]:
    """Our modules that are imported by these, and by what they import."""
    found: set[str] = set()
    new = set(modules)
    while new:
        found |= new
        new = set().union(*map(siblings, new)) - found
    return found


def test_the_reader_of_imports_sees_them() -> None:
    assert {"core/method", "linearizations/base", "core/ending"} <= siblings("core/loop")
    assert "torch" in imports("core/loop")
