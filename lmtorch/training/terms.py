"""What is passed to `step`, a closure with its batch or several such terms, and the residual that it becomes."""

from collections.abc import Callable
from typing import Any, NamedTuple

from .._errors import InputError
from ..choose import Plan
from ..jacobians.ladder import Ladder
from ..residuals.layout import Layout
from ..residuals.probe import Probe
from ..residuals.replay import Replay
from .closure import ClosureResidual, SampleResidual
from .in_place import InPlaceSwap
from .joint import TermResidual, TermsResidual
from .samples import Samples
from .swap import Swap

Closure = Callable[..., Any]


class Term(NamedTuple):
    """A term as it was passed to `step`."""

    closure: Closure
    batch: tuple[Any, ...]
    samples: Samples | None  # None: a closure without a batch


class Preparation(NamedTuple):
    """What was found out and decided about problems of a shape."""

    plan: Plan
    probes: tuple[Probe, ...]
    ladders: tuple[Ladder, ...]


def gathered(closure: Any, batch: tuple[Any, ...]) -> list[Term]:
    """What was passed to `step`, as terms.

    Raises:
        InputError: something that is no closure, or a mixture of a closure and terms.
    """
    passed = [(closure, *batch)]
    if isinstance(closure, tuple | list):
        passed = [
            tuple(term) if isinstance(term, tuple | list) else (term,) for term in (closure, *batch)
        ]
    wanted = []
    for term in passed:
        first, *rest = term or ((),)
        if not callable(first):
            what = "an empty term" if first == () else type(first).__name__
            raise InputError(
                f"step needs a closure that returns the residuals, and got {what}. For example "
                "opt.step(lambda: model(x) - y), opt.step(lambda x, y: model(x) - y, x, y), or for several terms "
                "opt.step((equation, inside), (condition, boundary)), each a closure followed by its batch."
            )
        if any(isinstance(a, tuple | list) and a and callable(a[0]) for a in rest) or (
            rest and all(map(callable, rest))
        ):
            raise InputError(
                "a closure is followed by its batch, and here by another closure or term. For several terms each is "
                "a tuple: opt.step((equation, inside), (condition, boundary)), opt.step((first,), (second,))."
            )
        wanted.append(Term(first, tuple(rest), Samples(rest) if rest else None))
    return wanted


def shape_of(term: Term) -> Any:
    """What distinguishes a term from others that look different to the plan."""
    shapes = () if term.samples is None else tuple((t.shape, t.dtype) for t in term.samples.tensors)
    return getattr(term.closure, "__code__", None) or id(term.closure), shapes


def as_residual(
    layout: Layout, swap: Swap, terms: list[Term], known: Preparation
) -> TermResidual | TermsResidual:
    """The terms as one residual, which draws the same random numbers in every evaluation of a step."""
    written = [tensor for probe in known.probes for tensor in probe.written]
    in_place = any(probe.in_place for probe in known.probes)
    if in_place:  # it has no copies of them
        written += swap.buffers
        swap = InPlaceSwap(layout.tensors)
    replay = Replay(layout.tensors[0].device, any(probe.random for probe in known.probes), written)
    made: list[TermResidual] = []
    for (closure, _, samples), probe, derivation in zip(
        terms, known.probes, known.plan.terms, strict=True
    ):
        if samples is None:
            made.append(ClosureResidual(layout, swap, closure, probe.rows, replay, probe.leading))
        else:
            made.append(
                SampleResidual(layout, swap, closure, samples, derivation.chunk, probe.rows, replay)
            )
    return made[0] if len(made) == 1 else TermsResidual(made)
