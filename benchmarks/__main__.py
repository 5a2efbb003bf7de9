"""Run every benchmark and write docs/benchmarks.md with its figures."""

import argparse
from pathlib import Path

from . import gram, machine, step_time, time_to_loss

DOCS = Path(__file__).parents[1] / "docs"
INTRODUCTION = """# Benchmarks

Written by `make bench`. Times of a step are the least of several, rivals interleaved in one process.
Peak memory has not been measured beside rivals yet. Nothing here has been run on a GPU yet.
PyPose's LM is missing: two runs with it in the list were killed for lack of memory (24 GiB).
"""


def main() -> None:
    """All of them, or those named."""
    parts = {
        "gram": gram.run,
        "step": step_time.run,
        "loss": lambda: time_to_loss.run(DOCS / "images"),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(parts), help=f"some of {', '.join(parts)}")
    chosen = parser.parse_args().parts
    sections = [INTRODUCTION, f"Machine: {machine.description()}.", *(parts[name]() for name in chosen)]
    text = "\n\n".join(section.strip() for section in sections) + "\n"
    print(text)
    if chosen == list(parts):
        (DOCS / "benchmarks.md").write_text(text)


if __name__ == "__main__":
    main()
