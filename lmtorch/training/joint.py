"""Several closures as one residual: an equation inside, conditions on the boundary, some data.

Each term has samples of its own, or none, and its rows follow those of the term before. Parts say
to which term they belong, so that each term has the source of derivatives that suits it.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from torch import Tensor

from .._autodiff import Params
from ..residuals.base import Part
from .closure import ClosureResidual, SampleResidual

TermResidual = ClosureResidual | SampleResidual


class TermsResidual:
    """The residuals of several terms, one after the other, in the same parameters.

    Args:
        terms: with the same layout and the same replay of random numbers.
    """

    def __init__(self, terms: Sequence[TermResidual]) -> None:
        self.terms = tuple(terms)
        self.rows = sum(term.rows for term in terms)
        self.draws = self.terms[0].draws

    def params(self, x: Tensor) -> Params:
        """x as the tensors that it is made of."""
        return self.terms[0].params(x)

    def parts(self) -> Iterable[Part]:
        """The parts of the first term, then those of the next."""
        for place, term in enumerate(self.terms):
            for part in term.parts():
                yield replace(part, term=place, whole=False)

    def replay(self) -> AbstractContextManager[None]:
        """A context for each evaluation of all terms: they draw the same random numbers."""
        return self.draws()

    def take(self, places: Tensor) -> "TermsResidual":
        """There is one problem."""
        return self
