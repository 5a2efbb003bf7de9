"""A page for each example, with its picture, and one of all of them: made of `examples/README.md`.

Written anew before each build, into `docs/gallery/`.
"""

import ast
import re
from pathlib import Path
from typing import NamedTuple

from sphinx.application import Sphinx

ROW = re.compile(
    r"^\| \[(?P<name>\w+)\.py\]\([^)]*\) \| (?P<what>.*?) \| (?P<data>.*?) \| "
    r"(?:\[[^]]*\]\(\.\./docs/(?P<picture>[^)]*)\))? ?\|(?: (?P<time>[^|]*) \|)?$",
    re.MULTILINE,
)


class Example(NamedTuple):
    """A row of the table in `examples/README.md`."""

    name: str
    what: str
    data: str
    picture: str | None
    time: str | None


def examples(root: Path) -> list[Example]:
    """All rows, in order."""
    table = (root / "examples" / "README.md").read_text(encoding="utf-8")
    return [Example(**match.groupdict()) for match in ROW.finditer(table)]


def subject(root: Path, example: Example) -> str:
    """The first line of its docstring."""
    source = (root / "examples" / f"{example.name}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or example.name
    return docstring.splitlines()[0]


def title(root: Path, example: Example) -> str:
    """The subject up to a colon, where it has one, or to its end."""
    whole = subject(root, example)
    return re.split(r"(?<=[?])\s|: |\.$|;", whole, maxsplit=1)[0]


def page(root: Path, example: Example) -> str:
    """The example's own page: what it shows, its picture, its code."""
    lines = [f"# {title(root, example)}", "", subject(root, example), ""]
    if example.data.strip():
        lines += [f"Data: {example.data}.", ""]
    if example.time and example.time.strip():
        lines += [f"Takes {example.time.strip()} of one CPU core.", ""]
    if example.picture:
        lines += [f"![{title(root, example)}](../{example.picture})", ""]
    lines += [
        f"Run it from the root of a clone: `python examples/{example.name}.py`.",
        "",
        f"```{{literalinclude}} ../../examples/{example.name}.py",
        "```",
        "",
    ]
    return "\n".join(lines)


def overview(root: Path, shown: list[Example]) -> str:
    """Cards with the pictures, which lead to the pages."""
    cards = []
    for example in shown:
        picture = [f":img-top: ../{example.picture}"] if example.picture else []
        alt = [f":img-alt: {title(root, example)}"] if example.picture else []
        cards += [
            f"::::{{grid-item-card}} {title(root, example)}",
            f":link: {example.name}",
            ":link-type: doc",
            *picture,
            *alt,
            "",
            _sentence(example.what),
            "::::",
            "",
        ]
    return "\n".join(
        [
            "# Examples",
            "",
            "Each runs by itself from a clone, prints what it found and draws it to `output/`.",
            "",
            ":::::{grid} 1 2 2 3",
            ":gutter: 3",
            "",
            *cards,
            ":::::",
            "",
            "```{toctree}",
            ":hidden:",
            "",
            *(example.name for example in shown),
            "```",
            "",
        ]
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def write(app: Sphinx) -> None:
    """Write all pages; what has not changed is left alone, so that it is not built again."""
    docs, root = Path(app.srcdir), Path(app.srcdir).parent
    folder = docs / "gallery"
    folder.mkdir(exist_ok=True)
    shown = examples(root)
    pages = {example.name: page(root, example) for example in shown}
    for name, text in {**pages, "index": overview(root, shown)}.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.glob("*.md"):
        if path.stem not in pages and path.stem != "index":
            path.unlink()


def setup(app: Sphinx) -> dict[str, bool]:
    """Write before the pages are looked for."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
