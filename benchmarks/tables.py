"""The tables of docs/benchmarks.md as numbers for programs: results/benchmarks.json.

What a benchmark prints is Markdown; this keeps each of its tables with the heading above it and
with what is said of where and when it was measured.
"""

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "benchmarks.json"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")  # the paragraph that has one says when and where


def tables_of(text: str) -> list[dict[str, Any]]:
    """All tables of a page.

    Args:
        text: of Markdown.

    Returns:
        Of each its section, its heading, what is said of the measurement, header and rows.
    """
    paragraphs = [block.strip() for block in re.split(r"\n\s*\n", text)]
    machine, section, heading, measured = "", "", "", ""
    found = []
    for block in paragraphs:
        if block.startswith("Machine: "):
            machine = measured = _line(block.removeprefix("Machine: "))
        elif block.startswith("## "):
            section, heading, measured = block[3:], "", machine
        elif block.startswith("### "):
            heading = block[4:]
        elif block.startswith("|"):
            header, _, *rows = (_cells(line) for line in block.splitlines())
            found.append({
                "section": section, "heading": heading, "measured": measured,
                "header": header, "rows": rows,
            })  # fmt: skip
        elif DATE.search(block) and not block.startswith("Measured again"):
            measured = _line(block)
    return found


def _line(block: str) -> str:
    return " ".join(block.split())


def _cells(line: str) -> list[str]:
    return [cell.strip().strip("*_") for cell in line.strip().strip("|").split("|")]


def keep(text: str) -> None:
    """Write the tables of a page into results/benchmarks.json."""
    RESULTS.write_text(json.dumps(tables_of(text), indent=1, ensure_ascii=False) + "\n", "utf-8")


def main() -> None:
    """Keep those of the page as it is."""
    keep(PAGE.read_text("utf-8"))


if __name__ == "__main__":
    main()
