"""The bar of a step over a loader: which pass is made, and how far it has come."""

from typing import Any

from .._bars import bars


class Bar:
    """Shows passes, one after the other, in one bar of batches, which is gone after the step.

    Args:
        shown: whether there is one.

    Raises:
        InputError: tqdm, which makes it, is not installed.
    """

    def __init__(self, shown: bool) -> None:
        self.make = bars() if shown else None
        self.steps = 0  # that are over
        self.passes = 0  # of this step that have begun
        self.bar: Any = None

    def __enter__(self) -> None:
        """A step begins, whose first pass opens the bar."""

    def __exit__(self, *error: object) -> None:
        """The step is over, or has failed."""
        if self.bar is not None:
            self.bar.close()
            self.steps += 1
        self.bar, self.passes = None, 0

    def begin(self, batches: int) -> None:
        """Begin a pass of so many batches; 0: their number is not known."""
        if self.make is None:
            return
        self.passes += 1
        total, name = batches or None, f"step {self.steps + 1}, pass {self.passes}"
        if self.bar is None:
            self.bar = self.make(desc=name, total=total, unit="batch", leave=False)
        else:
            self.bar.set_description(name, refresh=False)
            self.bar.reset(total=total)

    def advance(self) -> None:
        """A batch is done."""
        if self.bar is not None:
            self.bar.update()
