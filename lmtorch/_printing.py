"""Printing for those who watch."""

import sys


def say(text: str) -> None:
    """Print, now: a long fit is watched."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
