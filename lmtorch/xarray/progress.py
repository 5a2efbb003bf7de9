"""A bar over the fits of a stack, with fits per second and the share of failures."""

from typing import Self

from ..minimising.watch import bar_of as bar_of_fits


class Bar:
    """Counts fits that are done, and those that failed.

    Args:
        total: how many fits there are.
        blocks: how many blocks they lie in; 0: in one.
    """

    def __init__(self, total: int, blocks: int = 0) -> None:
        self.bar = bar_of_fits(total)
        self.blocks = blocks
        self.done = self.failed = self.ready = 0

    def __enter__(self) -> Self:
        """Show it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.bar.close()

    def fits(self, count: int, failed: int) -> None:
        """So many more fits are done, of which so many failed."""
        self.done += count
        self.failed += failed
        self.ready += 1
        said = {"failed": f"{self.failed / max(1, self.done):.2%}"}
        if self.blocks:
            said["blocks"] = f"{self.ready}/{self.blocks}"
        self.bar.set_postfix(said, refresh=False)
        self.bar.update(count)
