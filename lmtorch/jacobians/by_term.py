"""For each term of a residual the source of derivatives that suits it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from .._autodiff import Params
from ..residuals.base import Part
from .base import Bending, Block, JacobianSource, Pull, Workspace, pull, push


@dataclass(frozen=True)
class ByTerm:
    """Asks the source of the term that a part belongs to.

    Args:
        sources: one for each term.
    """

    sources: Sequence[JacobianSource]

    def blocks(
        self, part: Part, params: Params, workspace: Workspace
    ) -> Iterator[Block | tuple[Tensor, Tensor]]:
        """Blocks of rows of a part, from the source of its term."""
        return self.sources[part.term].blocks(part, params, workspace)

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals of a part, evaluated by the source of its term."""
        return self.sources[part.term].evaluate(part, params)

    def push(self, part: Part, params: Params, direction: Params) -> Tensor:
        """J v of a part, by the source of its term."""
        return push(self.sources[part.term], part, params, direction)

    def pull(self, part: Part, params: Params) -> tuple[Tensor, Pull]:
        """Residuals of a part and w ↦ Jᵀw, by the source of its term."""
        return pull(self.sources[part.term], part, params)

    def bend(self, part: Part, params: Params, direction: Params) -> Tensor | None:
        """d²r(x + tv)/dt² of a part, if the source of its term has it."""
        source = self.sources[part.term]
        return source.bend(part, params, direction) if isinstance(source, Bending) else None
