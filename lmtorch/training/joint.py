"""Several closures as one residual: an equation inside, conditions on the boundary, some data.

Each term has samples of its own, or none, and its rows follow those of the term before. Parts say
to which term they belong, so that each term has the source of derivatives that suits it.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .._autodiff import Params
from ..losses.criterion import Targeted, joined
from ..residuals.base import Part
from ..residuals.replay import Replay
from .closure import ClosureResidual, SampleResidual
from .streamed import Least, StreamResidual
from .targets import RowsChangedError

TermResidual = ClosureResidual | SampleResidual | StreamResidual


class TermsResidual:
    """The residuals of several terms, one after the other, in the same parameters.

    Args:
        terms: with the same layout and the same replay of random numbers.
    """

    def __init__(self, terms: Sequence[TermResidual]) -> None:
        self.terms = tuple(terms)
        self.draws = self.terms[0].draws
        self.streams = any(isinstance(term, StreamResidual) for term in terms)

    @property
    def rows(self) -> int:
        """m, of all terms together."""
        return sum(term.rows for term in self.terms)

    @property
    def losses(self) -> list[Least]:
        """Those of terms that are outputs with targets."""
        return [loss for term in self.terms for loss in term.losses]

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


def with_targets(
    terms: Sequence[TermResidual],
    targeted: Sequence[bool],
    params: Params,
    *,
    alone: bool = True,
) -> list[TermResidual]:
    """The terms, those that are outputs of a criterion with their targets.

    They are read once, for they do not depend on the parameters: of samples with the first
    evaluation, which the step makes anyway; those of a loader are read with its batches. `alone`:
    whether no other processes have a part in the step, which are to hear of what is wrong before
    they evaluate. Random numbers are drawn as in every other evaluation of the step, and left as
    they were: a closure may choose data by them.

    Raises:
        RowsChangedError: a term has no targets any more.
    """
    draws = terms[0].draws
    if alone and not draws.random and all(map(_read_along, terms, targeted)):
        return [
            term.reading() if has and isinstance(term, SampleResidual) else term
            for term, has in zip(terms, targeted, strict=True)
        ]
    replay = Replay(draws.device, draws.random, draws.kept)
    pairs = list(zip(terms, targeted, strict=True))
    with replay(), torch.enable_grad():
        results = [_results(t, params) if has or draws.random else [] for t, has in pairs]
    replay.rewind()
    made: list[TermResidual] = []
    for (term, has), found in zip(pairs, results, strict=True):
        # a loader's targets are read with it, and of an empty term other processes have them
        if isinstance(term, StreamResidual) or (has and term.rows == 0):
            made.append(term)
            continue
        if has and not all(isinstance(result, Targeted) for result in found):
            raise RowsChangedError(
                "the closure returned residuals, and a criterion's outputs before."
            )
        made.append(term.with_loss(joined([r.bound() for r in found])) if has else term)
    return made


def _read_along(term: TermResidual, has: bool) -> bool:
    """Whether no evaluation is needed for the targets alone; compiled ones do not return them."""
    plain = isinstance(term, SampleResidual) and term.through is None
    return not has or plain or isinstance(term, StreamResidual)


def _results(term: TermResidual, params: Params) -> list[Any]:
    """What a term's closure returns; of a loader nothing, whose batches only draw their numbers."""
    if isinstance(term, StreamResidual):
        if term.draws.random:
            term.evaluate(params)
        return []
    return term.results(params)
