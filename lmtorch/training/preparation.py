"""Finding out about a problem and planning for it, once for all data of the same shape."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from .. import choose
from .._errors import InputError
from ..choose import Facts, Options, Plan
from ..jacobians.base import JacobianSource
from ..jacobians.by_term import ByTerm
from ..jacobians.ladder import Ladder
from ..residuals.probe import Probe
from .closure_probe import probe_closure, probe_samples, refuse_batch_statistics
from .terms import Term
from .variables import Variables

REMEMBERED = 16  # shapes at most


class Preparation(NamedTuple):
    """What is known of problems of a shape."""

    plan: Plan
    probes: tuple[Probe, ...]  # of each term
    ladders: tuple[Ladder, ...]  # of each term

    @property
    def source(self) -> JacobianSource:
        """Where the rows of all terms come from."""
        return self.ladders[0] if len(self.ladders) == 1 else ByTerm(self.ladders)

    @property
    def sources(self) -> str:
        """The sources that are in use now, in words."""
        return ", ".join(dict.fromkeys(repr(ladder.current) for ladder in self.ladders))


class Preparations:
    """Prepares problems, and remembers the latest shapes.

    Args:
        options: what the optimizer's user asked for.
        module: the model, if the optimizer knows it.
    """

    def __init__(self, options: Options, module: nn.Module | None) -> None:
        self.options = options
        self.module = module
        self.known: dict[Any, Preparation] = {}

    def of(
        self, variables: Variables, terms: Sequence[Term], x: Tensor
    ) -> tuple[Preparation, bool]:
        """The preparation for these terms, and whether it is remembered from an earlier step.

        Raises:
            InputError: the terms do not fit each other, or the options; a closure returns no
                residuals.
        """
        self._check(terms)
        key = (variables.layout.n, x.dtype, x.device, tuple(term.shape for term in terms))
        remembered = key in self.known
        if not remembered:
            made = self._made(variables, terms, x)
            if len(self.known) >= REMEMBERED:
                self.known.pop(next(iter(self.known)))
            self.known[key] = made
        return self.known[key], remembered

    def forget(self) -> None:
        """Find out anew from now on."""
        self.known.clear()

    def _check(self, terms: Sequence[Term]) -> None:
        """See what can be said before a closure is called.

        Raises:
            InputError: one Jacobian for several terms, or a layer that couples samples.
        """
        given = self.options.jacobian
        if len(terms) > 1 and callable(given) and not isinstance(given, JacobianSource):
            raise InputError(
                "a function for the Jacobian goes with one closure, and this step has "
                f"{len(terms)} terms, of which it would not know which one is asked for. Pass one "
                "closure that returns all residuals and one function that returns all rows, or "
                "choose a source of derivatives by name."
            )
        sampled = any(term.samples is not None for term in terms)
        if sampled and self.module is not None and self.module.training:
            refuse_batch_statistics(self.module)

    def _made(self, variables: Variables, terms: Sequence[Term], x: Tensor) -> Preparation:
        """Look at every closure, and plan."""
        layout = variables.layout
        # no generator, which would make another exception of the closure's StopIteration
        probes = [self._probe(variables, term) for term in terms]
        if self.options.loss not in ("linear", "auto") and all(p.targeted for p in probes):
            raise InputError(
                f"loss={self.options.loss!r} is for residuals, and the closure returns a "
                "criterion's outputs, which have their own loss. Leave `loss` out."
            )
        facts = [
            Facts(
                layout.n,
                probe.rows * (term.sample_count or 1),
                term.sample_count,
                probe.activations,
                x.dtype,
                x.device,
                leading=probe.leading,
                functional=_takes_dual_numbers(variables, term, probe),
                streams=term.stream is not None,
            )
            for probe, term in zip(probes, terms, strict=True)
        ]
        plan = choose.plan(facts, self.options)
        return Preparation(plan, tuple(probes), tuple(Ladder(term.rungs) for term in plan.terms))

    def _probe(self, variables: Variables, term: Term) -> Probe:
        """Evaluate a closure once or twice."""
        given = self.options.jacobian
        exact = not callable(given) and given not in ("2-point", "3-point")
        layout, swap = variables.layout, variables.swap
        if term.samples is None:
            return probe_closure(layout, swap, term.closure, exact)
        return probe_samples(layout, swap, term.closure, term.samples, exact)


def _takes_dual_numbers(variables: Variables, term: Term, probe: Probe) -> bool:
    """Whether a closure of many rows may be called with dual numbers in place of the parameters.

    They are no tensors: no module takes them, but the functions of torch that are called with its
    parameters do. Where that does not work the next source is tried.
    """
    if term.samples is None or probe.in_place or probe.written or variables.swap.buffers:
        return False
    return variables.layout.n * probe.rows * (term.sample_count or 0) > choose.DENSE
