"""`compile=True` of the optimizer: what a step evaluates, in compiled form where that is right.

A compiled form is made the first time that it would be used, for a closure that holds what it holds
now, at tensors of these shapes. Its result is compared with that of the closure itself, then and at
the next point, and when the closure holds other tensors for the first time. What cannot be
compiled, or differs, runs as without; one warning says so.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._autocast import UnderAutocast
from .._errors import FallbackWarning, level, stopped
from ..residuals.probe import Probe
from .terms import Term
from .variables import Variables

MOST = 64  # compiled forms that are remembered
VARIANTS = 4  # of one closure, that differ only in numbers outside of tensors
CHECKS = 2  # points at which a compiled form is compared with the closure
WORTH = 60.0  # seconds of evaluations from which "auto" compiles what they evaluate


class Entry:
    """A compiled form, or the reason why there is none."""

    def __init__(self) -> None:
        self.form: Any = None
        self.seconds = 0.0  # spent in evaluations without it
        self.checks = 0
        self.held: list[int] = []  # identities of the tensors that were held when it was checked
        self.refused = False


class Forms:
    """The compiled forms of one optimizer's closures.

    Args:
        wanted: True, False or "auto".
    """

    def __init__(self, wanted: bool | str) -> None:
        self.wanted = wanted
        self.known: dict[Any, Entry] = {}
        self.variants: dict[Any, set[Any]] = {}  # keys of what closures of the same code held
        self.untold = ""
        self.warned = False

    def of(
        self, variables: Variables, terms: Sequence[Term], probes: Sequence[Probe]
    ) -> list["Through | None"]:
        """For each term what calls its evaluations; None: they run as they are."""
        if not self.wanted:
            return [None] * len(terms)
        return [self._of(variables, *pair) for pair in zip(terms, probes, strict=True)]

    def _of(self, variables: Variables, term: Term, probe: Probe) -> "Through | None":
        reason = _reason(probe, variables)
        if term.stream is not None:
            reason = "its batches come from a loader"
        if reason:
            self.refuse(reason)
            return None
        # torch's tracer is imported when it is needed, and not before
        from ..compiling.held import Held
        from ..compiling.keys import NoKeyError

        constants = () if term.samples is None else (term.samples.constants, term.samples.tensors)
        own = (variables.layout.tensors, type(variables.swap), term.shape)
        try:
            held = Held(term.closure, constants, own)
        except NoKeyError as error:
            self.refuse(str(error))
            return None
        kept = self.variants.setdefault(term.shape, set())
        if held.key not in kept and len(kept) >= VARIANTS:
            self.refuse(
                "numbers that the closure holds change from step to step; make tensors of them"
            )
            return None
        kept.add(held.key)

        def again() -> Any:
            return Held(term.closure, constants, own).key

        return Through(self, held.key, held.tensors, term, again)

    def refuse(self, reason: str) -> None:
        """Remember the first reason for which something is not compiled."""
        self.untold = self.untold or reason

    def tell(self) -> None:
        """Warn once of what was refused, if compiling was asked for, at the end of a step.

        Within it a warning that is made an error would look like a source of derivatives that does
        not work.
        """
        if self.untold and self.wanted is True and not self.warned:
            self.warned = True
            warnings.warn(
                f"the step is not compiled ({self.untold}); it runs as without compile=True.",
                FallbackWarning,
                stacklevel=level(),
            )

    def entry(self, key: Any) -> Entry:
        """What is known of an evaluation."""
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = Entry()
            if len(self.known) > MOST:
                del self.known[next(iter(self.known))]
        return found


class Through:
    """Calls the evaluations of a term at this step, in compiled form where there is one.

    Args:
        forms: where compiled forms are kept.
        key: of what the closure holds but for tensors.
        held: the tensors.
        term: the closure with its batch.
        again: reads the key once more.
        samples: of the part of the batch that is evaluated.
    """

    def __init__(
        self,
        forms: Forms,
        key: Any,
        held: Sequence[Tensor],
        term: Term,
        again: Callable[[], Any],
        samples: Sequence[Tensor] = (),
    ) -> None:
        self.forms = forms
        self.key = key
        self.held = tuple(held)
        self.term = term
        self.again = again
        self.samples = tuple(samples)

    def beside(self, samples: Sequence[Tensor]) -> "Through":
        """The same for a part of the batch."""
        return Through(self.forms, self.key, self.held, self.term, self.again, samples)

    def __call__(self, name: str, function: Callable[..., Any], tensors: Sequence[Tensor]) -> Any:
        """function(*tensors)."""
        if torch._C._are_functorch_transforms_active() or any(t.requires_grad for t in tensors):
            return function(*tensors)
        from ..compiling.held import kind_of

        kinds = tuple(map(kind_of, (*tensors, *self.samples)))
        entry = self.forms.entry((name, self.key, kinds))
        if entry.refused:
            return function(*tensors)
        if entry.form is None and self.forms.wanted == "auto" and entry.seconds < WORTH:
            begun = time.perf_counter()
            result = function(*tensors)
            entry.seconds += time.perf_counter() - begun
            return result
        return self._compiled(entry, function, tensors)

    def _compiled(
        self, entry: Entry, function: Callable[..., Any], tensors: Sequence[Tensor]
    ) -> Any:
        """The result of the compiled form, which is made and compared where that is due."""
        from ..compiling.evaluations import Evaluation, RefusedError, agree

        held = (*self.held, *self.samples)
        own = [id(t) for t in held]
        if entry.checks > CHECKS or (entry.checks == CHECKS and own == entry.held):
            return entry.form(tensors, held)
        begun = time.perf_counter()
        plain = function(*tensors)
        alone = time.perf_counter() - begun
        try:
            made = entry.form is None
            if made:
                entry.form = Evaluation(function, tensors, held)
                entry.held = own
                if self.again() != self.key:
                    raise RefusedError("the closure changes what it holds")
            begun = time.perf_counter()
            found = entry.form(tensors, held)
            seconds = time.perf_counter() - begun
            if not agree(found, plain, self._precision()):
                raise RefusedError("its compiled form gives other numbers")
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if stopped(error):
                raise
            entry.refused, entry.form = True, None
            self.forms.refuse(str(error))
            return plain
        entry.checks += 1
        # a first run of compiled code is no measure
        if self.forms.wanted == "auto" and not made and seconds > alone:
            entry.refused, entry.form = True, None
        return plain

    def _precision(self) -> torch.dtype | None:
        """The coarsest dtype of the autocast that is on round the closure."""
        if not isinstance(self.term.closure, UnderAutocast):
            return None
        return max(self.term.closure.dtypes.values(), key=lambda dtype: torch.finfo(dtype).eps)


def _reason(probe: Probe, variables: Variables) -> str:
    """Why a closure is not compiled, as far as its first evaluation shows; empty if it may be."""
    if probe.random:
        return "it draws random numbers"
    if probe.written or variables.swap.buffers:
        return "it writes to buffers, as batch norm does in training"
    if probe.in_place:
        return "its backward pass calls the model again"
    return ""
