"""The page of members and protocols: what the packages below `lmtorch` export, as they are now."""

import inspect
from importlib import import_module
from pathlib import Path

from sphinx.application import Sphinx

import lmtorch

PACKAGES = {
    "damping": "Who damps, and D",
    "solvers": "Who solves",
    "jacobians": "Where the rows of J come from",
    "linearizations": "The linear model",
    "rows": "Rows of J",
    "losses": "What is summed",
}


def exported(package: str) -> list[str]:
    """The public names of a package, but for those that `lmtorch` itself has."""
    members = vars(import_module(f"lmtorch.{package}"))
    return [
        name
        for name, member in members.items()
        if not name.startswith("_")
        and not inspect.ismodule(member)
        and getattr(member, "__module__", "").startswith("lmtorch.")
        and not hasattr(lmtorch, name)
        and f"{package}.{name}" != "losses.Criterion"  # on the page of likelihoods
    ]


def page() -> str:
    """The text of the page."""
    lines = [
        "# Members and protocols",
        "",
        "What options name, and what members of your own are written against: "
        "[how to write them](../extending.md).",
        "",
    ]
    for package, what in PACKAGES.items():
        lines += [f"## {what}: lmtorch.{package}", "", "```{eval-rst}"]
        for name in exported(package):
            member = getattr(import_module(f"lmtorch.{package}"), name)
            kind = "class" if inspect.isclass(member) else "function"
            lines.append(f".. auto{kind}:: lmtorch.{package}.{name}")
        lines += ["```", ""]
    return "\n".join(lines)


def write(app: Sphinx) -> None:
    """Write the page, if it is another one than before."""
    path = Path(app.srcdir) / "reference" / "members.md"
    text = page()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write before the pages are looked for."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
