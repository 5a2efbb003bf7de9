"""The chosen source, then the next that works: models that a part of torch.func refuses are fitted all the same.

No batching rule, no forward-mode formula, a branch on data, a write into fresh zeros: each is an exception of torch,
raised when the first block is asked for. The next rung is tried, one warning names the operator, and the rung that
serves stays.
"""

import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .._autodiff import Params
from .._errors import FallbackWarning, InputError
from ..residuals.base import Part
from .base import JacobianSource, Workspace


class Ladder:
    """Sources in the order in which they are tried.

    Args:
        rungs: the chosen source first, the most tolerant last.
    """

    def __init__(self, rungs: Sequence[JacobianSource]) -> None:
        self.rungs = list(rungs)
        self.refusals: list[str] = []

    @property
    def current(self) -> JacobianSource:
        """The one that serves."""
        return self.rungs[0]

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of the first rung that gives any."""
        while True:
            blocks = self.current.blocks(part, params, workspace)
            try:
                first = next(blocks)
            except (InputError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                # whatever the reason: if it is the closure's own fault, the last rung raises it as it is
                if len(self.rungs) == 1:
                    raise
                self._descend(error)
                continue
            yield first
            yield from blocks
            return

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """As the rung that serves does."""
        return self.current.evaluate(part, params)

    def _descend(self, error: Exception) -> None:
        refused, self.rungs = self.rungs[0], self.rungs[1:]
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        self.refusals.append(f"{refused!r}: {reason}")
        if len(self.refusals) == 1:
            warnings.warn(
                f"the Jacobian by {refused!r} does not work for this model ({reason}); {self.current!r} serves.",
                FallbackWarning,
                stacklevel=2,
            )
