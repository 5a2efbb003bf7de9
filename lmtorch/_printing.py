"""Progress on the screen."""

import sys


def say(text: str) -> None:
    """Print a line at once, without a buffer, as progress is read while the fit still runs."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
