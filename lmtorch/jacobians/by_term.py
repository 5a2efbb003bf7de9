"""For each term of a residual the source of derivatives that suits it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from .._autodiff import Params
from ..residuals.base import Part
from .base import Bending, Block, JacobianSource, Workspace


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
        """Those of the term's source."""
        return self.sources[part.term].blocks(part, params, workspace)

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """As the term's source does."""
        return self.sources[part.term].evaluate(part, params)

    def bend(self, part: Part, params: Params, direction: Params) -> Tensor | None:
        """As the term's source has it."""
        source = self.sources[part.term]
        return source.bend(part, params, direction) if isinstance(source, Bending) else None
