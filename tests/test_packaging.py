"""What an installation rests on: the name, the version, and what a user is told to install."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

import lmtorch

ROOT = Path(lmtorch.__file__).parents[1]
WRITTEN = {".md", ".py", ".toml", ".txt", ""}  # "": the Makefile, .ci/run
TOLD = re.compile(r"pip3? install\b.*\blmtorch\b")

# Python finds no metadata of the package, as in a checkout that nobody has installed.
NOT_INSTALLED = """
from importlib.metadata import Distribution, PackageNotFoundError

found = Distribution.from_name

def from_name(name):
    if name in ("lmtorch", "levenberg-marquardt"):
        raise PackageNotFoundError(name)
    return found(name)

Distribution.from_name = from_name

import yaml

import lmtorch
print(lmtorch.__version__)
"""


def run(code: str, *options: str) -> str:
    """What a new Python prints, on both streams."""
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def files() -> list[Path]:
    """Everything that is written by hand, where the whole project is at hand."""
    folders = ("lmtorch", "docs", "examples", "benchmarks", ".ci")
    inside = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    return [
        path for path in (*ROOT.iterdir(), *inside) if path.is_file() and path.suffix in WRITTEN
    ]


def test_a_checkout_that_is_not_installed_is_imported() -> None:
    assert run(NOT_INSTALLED).split() == [lmtorch.__version__]


def test_nobody_is_told_to_install_a_stranger_s_package() -> None:
    # `lmtorch` on PyPI belongs to others
    assert TOLD.search('plot() needs matplotlib: pip install "lmtorch[plot]".')
    told = [
        f"{path}: {line}"
        for path in files()
        for line in path.read_text("utf-8").splitlines()
        if TOLD.search(line)
    ]
    assert told == []


def test_the_first_use_says_nothing_of_torch_s_own_warnings() -> None:
    # forward mode scripts formulas of torch's own, once for a process: to torch 2.13 with
    # a DeprecationWarning, which Python hides from users, since 2.14 with a
    # FutureWarning, which it shows
    use = "lmtorch.batch_jacobian(torch.sin, torch.ones(2, 3), mode='forward')"
    assert run(f"import torch, lmtorch; {use}", "-W", "error:`torch.jit") == ""


def test_those_who_cite_and_those_who_build_are_told_the_same_as_pip() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    recipe = yaml.safe_load((ROOT / "packaging/conda/recipe.yaml").read_text("utf-8"))
    release = lmtorch.__version__.split(".dev")[0]
    assert citation["version"] == recipe["context"]["version"] == release
    assert citation["license"] == recipe["about"]["license"] == project["license"]
    assert recipe["package"]["name"] == project["name"]
    assert recipe["about"]["summary"] == project["description"]
    needs = {f"python{project['requires-python']}", *project["dependencies"]}
    run = {
        line.replace(" ", "").replace("pytorch", "torch") for line in recipe["requirements"]["run"]
    }
    assert run == needs
