"""What a step minimises: the closures as one residual, with its loss, penalty, bounds and rates."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.method import Method
from ..core.problem import Problem
from ..core.state import Start, State
from ..distributed.processes import Processes
from ..losses.base import Loss
from ..residuals.replay import Replay
from .closure import ClosureResidual, SampleResidual
from .compiled import Through
from .in_place import InPlaceSwap
from .joint import TermResidual, TermsResidual, with_targets
from .mixed import MixedResidual, mixed
from .preparation import Preparation
from .streamed import StreamResidual
from .terms import Term
from .variables import Variables

NEARLY = 0.9  # share of the samples from which all are mixed


class Task(NamedTuple):
    """A step that is ready to be taken."""

    variables: Variables
    terms: tuple[Term, ...]
    prepared: Preparation
    remembered: bool  # the preparation is of an earlier step
    residual: TermResidual | TermsResidual
    problem: Problem
    start: Start  # the parameters, with the damping and scaling of the last step

    @property
    def method(self) -> Method:
        """How the step is taken."""
        return self.prepared.plan.method

    @property
    def least(self) -> Tensor | None:
        """What criteria add to the loop's cost, which begins at zero; None: there are none."""
        losses, across = self.residual.losses, self.problem.across
        own = torch.stack([loss.least() for loss in losses]).sum() if losses else None
        if across is None or not any(probe.targeted for probe in self.prepared.probes):
            return own
        nothing = torch.zeros(
            (), dtype=torch.float64, device=self.variables.layout.tensors[0].device
        )
        return across.added([nothing if own is None else own.to(nothing.dtype)])[0]

    def leave_traces(self) -> None:
        """Evaluate once more, and let closures write to buffers: one forward pass for a step."""
        buffers = (*self.variables.swap.buffers, *self.residual.draws.kept)
        if buffers:  # the evaluations of the step have left them as they were
            self.residual.draws.kept = buffers
            with self.residual.draws(leave=True), torch.enable_grad():
                for term in self.terms:
                    if term.sample_count == 0:  # other processes have them
                        continue
                    for batch in term.batches():
                        term.closure(*batch)

    def finish(self) -> None:
        """Leave the generators of random numbers as one evaluation would."""
        self.residual.draws.finish()
        for term in self.terms:
            if term.stream is not None:
                term.stream.finish(drawn=self.residual.draws.random)


def residual_of(
    variables: Variables,
    terms: Sequence[Term],
    prepared: Preparation,
    through: Sequence[Through | None],
    x: Tensor,
    *,
    alone: bool = True,
) -> TermResidual | TermsResidual:
    """The terms as one residual, with the same random numbers in every evaluation of a step.

    Args:
        variables: the parameters.
        terms: the closures.
        prepared: what is known of them.
        through: what calls the evaluations of each, in compiled form; None: they are plain.
        x: where the step begins; the targets of criteria are read there.
        alone: whether no other processes have a part in the step.
    """
    layout, swap = variables.layout, variables.swap
    written = [tensor for probe in prepared.probes for tensor in probe.written]
    if any(probe.in_place for probe in prepared.probes):
        written += swap.buffers  # a swap in place has no copies of them
        swap = InPlaceSwap(layout.tensors)
    random = any(probe.random for probe in prepared.probes)
    replay = Replay(layout.tensors[0].device, random, written)
    made: list[TermResidual] = []
    for term, probe, derivation, by in zip(
        terms, prepared.probes, prepared.plan.terms, through, strict=True
    ):
        own, rows = (layout, swap, term.closure), probe.rows
        if term.samples is None:
            made.append(ClosureResidual(*own, rows, replay, probe.leading, by))
        elif term.stream is None:
            made.append(SampleResidual(*own, term.samples, derivation.chunk, rows, replay, by))
        else:
            passes = (*own, term.stream, derivation.chunk, rows, replay)
            made.append(StreamResidual(*passes, targeted=probe.targeted))
    targeted = [probe.targeted for probe in prepared.probes]
    if any(targeted):  # those of a loader are read with its batches
        made = with_targets(made, targeted, layout.split(x), alone=alone)
    return made[0] if len(made) == 1 else TermsResidual(made)


def problem_of(
    variables: Variables,
    prepared: Preparation,
    residual: TermResidual | TermsResidual,
    x: Tensor,
    loss: Loss,
    sample: TermResidual | TermsResidual | MixedResidual | None = None,
    processes: Processes | None = None,
) -> Problem:
    """The loop's problem.

    Args:
        variables: the parameters.
        prepared: what is known and decided.
        residual: the terms.
        x: where the step begins.
        loss: of residuals.
        sample: the part of the residual that JᵀJ is made of, None: all.
        processes: those that share the rows; None: there is but this one.
    """
    counts = None
    if processes is not None:
        own = [residual.rows, 0 if sample is None else sample.rows]
        _, each = processes.telling("counts", lambda: None, lambda _: own, 2)
        whole, some = each.sum(0).tolist()
        counts = int(whole), int(some)
    plan = prepared.plan
    like = x.new_empty(0, dtype=plan.dtype)
    return Problem(
        residual,
        prepared.source,
        plan.method.solver.form,
        loss,
        plan.dtype,
        penalty=variables.option("weight_decay", 0.0, like),
        bounds=variables.bounds(x, plan.dtype),
        rate=variables.option("lr", 1.0, like),
        sample=sample,
        differences=plan.differences,
        keep=plan.keep,
        across=processes,
        counts=counts,
    )


def sample_of(
    residual: TermResidual | TermsResidual,
    share: float | None,
    seed: int,
    *,
    mixes: bool = False,
) -> TermResidual | TermsResidual | MixedResidual | None:
    """A random share of the rows of each term; None: all of them are taken.

    They are all rows of some samples, or with `mixes` few of as many samples as that takes, see
    `mixed`.
    """
    if share is None or share >= 1:
        return None
    terms = residual.terms if isinstance(residual, TermsResidual) else (residual,)
    generator = torch.Generator().manual_seed(seed)
    if mixes:
        (term,) = terms
        assert isinstance(term, SampleResidual)
        return _mixed(term, share, generator)
    chosen: list[TermResidual] = []
    for term in terms:
        if isinstance(term, StreamResidual):
            chosen.append(term.some(share, generator))
            continue
        assert isinstance(term, SampleResidual)  # a plan with a share has samples
        count = term.samples.count
        chosen.append(_some(term, math.ceil(share * count), generator))
    return TermsResidual(chosen) if len(chosen) > 1 else chosen[0]


def _some(term: SampleResidual, few: int, generator: torch.Generator) -> SampleResidual:
    """So many of the samples."""
    order = torch.randperm(term.samples.count, generator=generator, device="cpu")
    device = term.samples.tensors[0].device
    # non_blocking: nothing waits for the device
    return term.subset(order[:few].sort().values.to(device, non_blocking=True))


def _mixed(term: SampleResidual, share: float, generator: torch.Generator) -> MixedResidual:
    """A share of the rows, one of each sample as long as there are samples enough.

    Where it takes nearly all samples it takes all, of which the slope is made as well.
    """
    rows = math.ceil(share * term.rows)
    each = max(1, -(-rows // max(1, term.samples.count)))  # other processes may have the samples
    whole = rows >= NEARLY * term.samples.count
    some = term if whole else _some(term, rows, generator)
    return mixed(some, each, generator, whole=whole)


def gained_beside_sample(problem: Problem, before: Tensor, state: State) -> float | None:
    """What all rows have gained in a step over what the sample has whose rows were solved.

    Damping keeps a step so short that all rows gain something. Where they gain much less than the
    sample, the step has fitted what is peculiar to it. None where the model is of all rows, or
    knows their gradient.
    """
    sample = problem.modelled
    if sample is problem:
        return None
    own = sample.cost(before) - sample.cost(state.x)
    return float((state.trial.cost - state.cost) / own)
