"""Run every benchmark and write docs/benchmarks.md with its figures."""

import argparse
from pathlib import Path

from . import (
    calls,
    derivatives,
    digits,
    fits,
    gram,
    guesses,
    honesty,
    host_reads,
    loaders,
    machine,
    memory,
    physics,
    precision,
    small_and_many,
    stacks,
    step_time,
    time_to_loss,
    who_wins,
)

DOCS = Path(__file__).parents[1] / "docs"
INTRODUCTION = """# Benchmarks

Written by `make bench`. Rivals are measured in turns in one process, so that a machine that slows
down does so for all. What has been run on a GPU says so. PyPose's LM takes part where it can: it
differentiates the whole batch at once, and for 10,000 rows its Jacobian asked for more than
12 GiB.
"""


def main() -> None:
    """Run all benchmarks, or those that are named."""
    parts = {
        "gram": gram.run,
        "step": step_time.run,
        "memory": memory.run,
        "loaders": loaders.run,
        "reads": host_reads.run,
        "fits": fits.run,
        "small_and_many": small_and_many.run,
        "stacks": stacks.run,
        "guesses": guesses.run,
        "calls": calls.run,
        "honesty": honesty.run,
        "derivatives": derivatives.run,
        "physics": physics.run,
        "precision": precision.run,
        "digits": digits.run,
        "loss": lambda: time_to_loss.run(DOCS / "images"),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(parts), help=f"some of {', '.join(parts)}")
    chosen = parser.parse_args().parts
    sections = [
        INTRODUCTION,
        f"Machine: {machine.description()}.",
        *(parts[name]() for name in chosen),
    ]
    text = machine.filled("\n\n".join(section.strip() for section in sections) + "\n")
    print(text)
    if chosen == list(parts):
        (DOCS / "benchmarks.md").write_text(text)
        who_wins.write()


if __name__ == "__main__":
    main()
