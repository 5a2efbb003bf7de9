"""Finding out about a problem and planning for it, once for all data of the same shape."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from .. import choose
from .._errors import InputError
from ..choose import Facts, Options, Plan
from ..choose.agreed import check_same, of_all, with_memory
from ..distributed.processes import Processes
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
        processes: those that share the rows; None: there is but this one.
    """

    def __init__(
        self, options: Options, module: nn.Module | None, processes: Processes | None = None
    ) -> None:
        self.options = options
        self.module = module
        self.processes = processes
        self.known: dict[Any, Preparation] = {}

    def of(
        self, variables: Variables, terms: Sequence[Term], x: Tensor, others: tuple[int, ...] = ()
    ) -> tuple[Preparation, bool]:
        """The preparation for these terms, and whether it is remembered from an earlier step.

        Args:
            variables: the parameters.
            terms: the closures, which `check` has seen.
            x: the parameters as one vector.
            others: what distinguishes the terms of all processes, the same on each of them.

        Raises:
            InputError: the options do not fit the terms; a closure returns no residuals.
        """
        key = (*key_of(variables, terms, x), others)
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

    def check(self, terms: Sequence[Term]) -> None:
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
        if self.processes is not None:
            return self._of_all(self.processes, variables, terms, x)
        probes, facts = self._looked_at(variables, terms, x)
        plan = choose.plan(facts, self.options)
        return Preparation(plan, tuple(probes), tuple(Ladder(term.rungs) for term in plan.terms))

    def _of_all(
        self, processes: Processes, variables: Variables, terms: Sequence[Term], x: Tensor
    ) -> Preparation:
        """The same for the rows of all processes, which all plan the same."""
        own, facts = processes.alone("closure", lambda: self._looked_at(variables, terms, x))
        every = processes.gathered("facts", lambda: (facts, [(p.rows, p.targeted) for p in own]))
        together = of_all(processes, [facts for facts, _ in every])
        probes = [_beside(probe, [seen[i] for _, seen in every]) for i, probe in enumerate(own)]
        plan = choose.plan(together, with_memory(processes, self.options, x.device))
        check_same(processes, plan)
        return Preparation(plan, tuple(probes), tuple(Ladder(term.rungs) for term in plan.terms))

    def _looked_at(
        self, variables: Variables, terms: Sequence[Term], x: Tensor
    ) -> tuple[list[Probe], list[Facts]]:
        """What an evaluation of each closure shows."""
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
                probe.rows * (1 if term.sample_count is None else term.sample_count),
                term.sample_count,
                probe.activations,
                x.dtype,
                x.device,
                leading=probe.leading,
                layers=self.module is not None and of_layers(self.module),
                functional=_takes_dual_numbers(variables, term, probe),
                streams=term.stream is not None,
                outputs=probe.rows if probe.targeted else 1,
            )
            for probe, term in zip(probes, terms, strict=True)
        ]
        return probes, facts

    def _probe(self, variables: Variables, term: Term) -> Probe:
        """Evaluate a closure once or twice."""
        given = self.options.jacobian
        exact = not callable(given) and given not in ("2-point", "3-point")
        layout, swap = variables.layout, variables.swap
        if term.samples is None:
            empty = self.processes is not None
            return probe_closure(layout, swap, term.closure, exact, empty)
        if term.samples.count == 0:
            return Probe(0, 0)
        return probe_samples(layout, swap, term.closure, term.samples, exact)


def key_of(variables: Variables, terms: Sequence[Term], x: Tensor) -> tuple[Any, ...]:
    """What distinguishes terms that look different to the plan."""
    return variables.layout.n, x.dtype, x.device, tuple(term.shape for term in terms)


def _beside(own: Probe, every: Sequence[tuple[int, bool]]) -> Probe:
    """What is known of a term, where other processes may have seen more of it.

    Args:
        own: of this process.
        every: residuals of a sample, and whether they are a criterion's outputs, of each process.

    Raises:
        InputError: a criterion on one process and residuals on another.
    """
    there = [seen for seen in every if seen[0] > 0]
    if len({targeted for _, targeted in there}) > 1:
        raise InputError("the closure returns a criterion on some processes, residuals on others.")
    return own if own.rows or not there else own._replace(targeted=there[0][1])


def of_layers(module: nn.Module) -> bool:
    """Whether all parameters are weights and biases of linear layers."""
    apart = (m for m in module.modules() if type(m) is not nn.Linear)
    return all(not list(m.parameters(recurse=False)) for m in apart)


def _takes_dual_numbers(variables: Variables, term: Term, probe: Probe) -> bool:
    """Whether a closure of many rows may be called with dual numbers in place of the parameters.

    They are no tensors: no module takes them, but the functions of torch that are called with its
    parameters do. Where that does not work the next source is tried.
    """
    if term.samples is None or probe.in_place or probe.written or variables.swap.buffers:
        return False
    return variables.layout.n * probe.rows * (term.sample_count or 0) > choose.DENSE
