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
from .base import DescendedError, JacobianSource, Workspace
from .layerwise import NotLayerwiseError


class Ladder:
    """Sources in the order in which they are tried.

    Args:
        rungs: the chosen source first, the most tolerant last.
    """

    def __init__(self, rungs: Sequence[JacobianSource]) -> None:
        self.rungs = list(rungs)
        self.refusals: list[str] = []
        self.warned = False

    @property
    def current(self) -> JacobianSource:
        """The one that serves."""
        return self.rungs[0]

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of the rung that serves; or `DescendedError`, after a step down, to begin again with the next."""
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
            raise DescendedError from error
        yield first
        yield from blocks

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """As the rung that serves does."""
        return self.current.evaluate(part, params)

    def _descend(self, error: Exception) -> None:
        refused, self.rungs = self.rungs[0], self.rungs[1:]
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        self.refusals.append(f"{refused!r}: {reason}")
        if isinstance(error, NotLayerwiseError):
            return  # a shortcut that does not fit this model, nothing to be warned of
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"the Jacobian by {refused!r} does not work for this model ({reason}); {self.current!r} serves.",
                FallbackWarning,
                stacklevel=2,
            )
