"""Every Python block of the documentation runs, and what contributors are told is there."""

import inspect
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import lmtorch
from lmtorch.choose import docstrings as _docstrings

ROOT = Path(__file__).parents[1]
LONG = {"benchmarks.md"}  # minutes, and results rather than lessons
MADE = {"gallery", "project", "_build"}  # folders that the build of the site fills
PAGES = [
    ROOT / "README.md",
    *sorted(
        page
        for page in ROOT.glob("docs/**/*.md")
        if page.name not in LONG and not MADE & {*page.relative_to(ROOT).parts}
    ),
]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
SPAN = re.compile(r"`([^`\n]+)`")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks() -> list[Any]:
    """Page, first line and code of every block."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            name = f"{page.relative_to(ROOT)}:{line}"
            found.append(pytest.param(page, line, block[1], id=name))
    return found


def test_there_are_blocks() -> None:
    assert len(blocks()) > 50


@pytest.mark.parametrize(("page", "line", "code"), blocks())
def test_a_block_runs_alone(
    page: Path, line: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # what a block saves goes there
    torch.manual_seed(0)
    # lines as in the page, so that a traceback leads there
    exec(compile("\n" * line + code, str(page), "exec"), {"__name__": page.stem})


@pytest.mark.parametrize(
    "page", [*PAGES, CONTRIBUTING], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


# ---- CONTRIBUTING.md -----------------------------------------------------------------------------


def spans() -> list[str]:
    """What CONTRIBUTING.md sets in code, and the lines of its blocks."""
    text = CONTRIBUTING.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [*SPAN.findall(text), *"".join(blocks).splitlines()]


def folders() -> list[tuple[str, str, str]]:
    """Folder, protocol and the rest of each row of its table."""
    text = CONTRIBUTING.read_text(encoding="utf-8")
    return re.findall(r"^\| `(lmtorch/\w+/)` \|[^|]*\| ([^|]*) \| ([^|]*) \|$", text, re.MULTILINE)


def is_path(span: str) -> bool:
    return " " not in span and ("/" in span or Path(span).suffix in {".py", ".md", ".toml", ".txt"})


def test_every_path_that_contributors_are_told_exists() -> None:
    # a file may be named from the root, from the package, or from its folder
    package = ROOT / "lmtorch"
    places = [ROOT, package, *(path for path in package.iterdir() if path.is_dir())]
    told = [span for span in spans() if is_path(span) and not span.startswith(".venv")]
    assert len(told) > 30
    for path in told:
        assert any((place / path).exists() for place in places), path


def test_every_folder_has_its_row_with_its_files_and_protocols() -> None:
    inside = {f"lmtorch/{path.parent.name}/" for path in ROOT.glob("lmtorch/*/__init__.py")}
    assert {folder for folder, _, _ in folders()} == inside
    for folder, protocol, rest in folders():
        for name in SPAN.findall(rest):
            there = (ROOT / folder / name).exists() if is_path(name) else hasattr(lmtorch, name)
            assert there, (folder, name)
        for name in SPAN.findall(protocol):
            module, _, last = name.rpartition(".")
            assert getattr(getattr(import_module(module), last), "_is_protocol", False), name


def test_every_target_of_make_that_contributors_are_told_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    told = {match[1] for span in spans() if (match := re.match(r"make ([\w-]+)", span))}
    assert told >= {"test", "format", "fuzz"}
    assert told <= targets


def commands() -> list[str]:
    """The runs of a part of the tests that are told, but for those of all of them."""
    return [span for span in spans() if "-m pytest tests" in span]


def test_there_are_commands() -> None:
    assert len(commands()) >= 2


@pytest.mark.parametrize("command", commands())
def test_every_command_that_contributors_are_told_finds_tests(command: str) -> None:
    python, *arguments = shlex.split(command)
    assert python == ".venv/bin/python"
    done = subprocess.run(
        [sys.executable, *arguments, "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the reference ------------------------------------------------------------------------------


def test_every_public_name_is_in_the_reference_once() -> None:
    pages = [
        path.read_text(encoding="utf-8")
        for path in ROOT.glob("docs/reference/*.md")
        if path.name != "members.md"  # which is made of what there is
    ]
    told = [name for page in pages for name in re.findall(r"^\.\. auto\w+:: (\S+)$", page, re.M)]
    public = {
        f"lmtorch.{name}"
        for name, member in vars(lmtorch).items()
        if not name.startswith("_") and not inspect.ismodule(member)
    }
    public |= {
        f"lmtorch.models.{name}"
        for name, member in vars(lmtorch.models).items()
        if not name.startswith("_") and not inspect.ismodule(member)
    }
    assert len(told) == len(set(told))
    labelled = {"lmtorch.xarray.curvefit", "lmtorch.xarray.Accessor"}
    assert set(told) == public | labelled | {"lmtorch.losses.Criterion"}


# ---- names in docstrings -------------------------------------------------------------------------


def argument(face: Any, name: str) -> str:
    """What the docstring says of an argument."""
    text = inspect.getdoc(face) or ""
    found = re.search(rf"^    {name}: .*(?:\n {{8}}.*)*", text, re.MULTILINE)
    assert found is not None, name
    return found[0]


@pytest.mark.parametrize(
    ("face", "name", "table"),
    [
        (lmtorch.LevenbergMarquardt, "solver", "SOLVERS"),
        (lmtorch.LevenbergMarquardt, "damping", "DAMPINGS"),
        (lmtorch.LevenbergMarquardt, "scaling", "SCALINGS"),
        (lmtorch.LevenbergMarquardt, "jacobian", "SOURCES"),
        (lmtorch.LevenbergMarquardt, "loss", "LOSSES"),
        (lmtorch.least_squares, "solver", "SOLVERS"),
        (lmtorch.least_squares, "damping", "DAMPINGS"),
        (lmtorch.least_squares, "x_scale", "SCALINGS"),
        (lmtorch.least_squares, "loss", "LOSSES"),
    ],
)
def test_a_docstring_has_every_name_of_an_option(face: Any, name: str, table: str) -> None:
    text = argument(face, name)
    assert all(f'"{known}"' in text for known in _docstrings.NAMES[table])
    assert max(map(len, text.splitlines())) <= _docstrings.WIDTH


def test_no_docstring_asks_for_names_in_vain() -> None:
    asking = re.compile("<(?:" + "|".join(_docstrings.NAMES) + ")>")
    for name in dir(lmtorch):
        assert not asking.search(getattr(lmtorch, name).__doc__ or ""), name


def test_names_are_filled_in_for_an_argument_alone_and_braces_stay() -> None:
    def face() -> None:
        """A face.

        Args:
            solver: <SOLVERS> or an object, of which this line says more than there is room for
                on one line.
            other: {as it was}
                here.
        """

    text = inspect.getdoc(_docstrings.with_names(face)) or ""
    assert text.startswith('A face.\n\nArgs:\n    solver: "cholesky", ')
    assert "or an object, of which" in " ".join(text.split())
    assert text.endswith("    other: {as it was}\n        here.")
