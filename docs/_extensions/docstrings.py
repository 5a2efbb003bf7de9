"""Docstrings are written to be read as they stand; here they become reStructuredText.

What stands between backticks is code, and a link where it names something public; so is the name
of a page. Asterisks and bars are themselves, not emphasis and substitutions.
"""

import re
from typing import Any

from sphinx.application import Sphinx

import lmtorch

CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
PLAIN = re.compile(r"(?<!\\)([*|])")
PAGE = re.compile(r"\bdocs/(\w+)\.md\b(?:#[\w-]+)?")


def marked(line: str) -> str:
    """A line of a docstring as reStructuredText."""
    pieces = CODE.split(line)  # text, code, text, …
    for place, piece in enumerate(pieces):
        pieces[place] = _code(piece) if place % 2 else _text(piece)
    return "".join(pieces)


def _text(text: str) -> str:
    return PAGE.sub(r":doc:`/\1`", PLAIN.sub(r"\\\1", text))


def _code(text: str) -> str:
    name = text.removeprefix("lmtorch.").removesuffix("()")
    public = name.isidentifier() and hasattr(lmtorch, name) and not name.startswith("_")
    module = type(lmtorch)
    if public and not isinstance(getattr(lmtorch, name), module):
        return f":py:obj:`{text} <lmtorch.{name}>`"
    return f"``{text}``"


def process(app: Sphinx, what: str, name: str, member: Any, options: Any, lines: list[str]) -> None:
    """Change the lines in place, but for the examples, which are code."""
    example = False
    for place, line in enumerate(lines):
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if not example:
            lines[place] = marked(line)


def setup(app: Sphinx) -> dict[str, bool]:
    """Run before napoleon, which finds the sections."""
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
