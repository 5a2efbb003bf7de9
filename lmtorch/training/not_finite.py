"""Where NaN or infinity comes from, in words: a step that ends for it changes nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.problem import Problem
from .task import Task
from .terms import Term


def source_of(task: Task) -> str:
    """What is not finite at the point where a step has begun.

    Closures are evaluated once more, but those of a loader, which would be a pass over it.

    Args:
        task: the step.

    Returns:
        Words for a message.
    """
    problem, layout = task.problem, task.variables.layout
    bad = [
        name
        for name, p in zip(layout.names, layout.tensors, strict=True)
        if not bool(p.detach().isfinite().all())
    ]
    if bad:
        return f"the parameter {bad[0]!r} is not finite itself"
    if any(term.stream is not None for term in task.terms):
        return "NaN or infinity among the residuals of the loader's samples, or their derivatives"
    several = len(task.terms) > 1
    for place, flat in enumerate(_finite_rows(problem, task.start.x, len(task.terms))):
        if not bool(flat.all()):
            where = f" of term {place + 1}" if several else ""
            return f"NaN or infinity in the residuals{where} of {_which(flat, task.terms[place])}"
    why = "the residuals are finite and their derivatives are not"
    for place, term in enumerate(task.terms):
        found = None if term.samples is None else _in_data(term.samples.tensors)
        if found is not None and not bool(found.all()):
            where = f" of term {place + 1}" if several else ""
            return f"{why}; the data{where} have NaN or infinity in {_which(found, term)}"
    return f"{why}, as that of a square root at zero"


def _finite_rows(problem: Problem, x: Tensor, terms: int) -> list[Tensor]:
    """Which rows of each term are finite, bool (m,) each."""
    found: list[list[Tensor]] = [[] for _ in range(terms)]
    for part, values in zip(problem.residual.parts(), problem.values(x), strict=True):
        found[part.term].append(values.detach().isfinite().reshape(-1))
    nothing = x.new_zeros(0, dtype=torch.bool)
    return [torch.cat(rows) if rows else nothing for rows in found]


def _in_data(tensors: Sequence[Tensor]) -> Tensor | None:
    """Which samples are finite in all tensors of a batch, (s,) bool; None: they are no floats."""
    each = [
        t.detach().reshape(t.shape[0], -1).isfinite().all(1)
        for t in tensors
        if t.is_floating_point() or t.is_complex()
    ]
    return torch.stack(each).all(0) if each else None


def _which(fine: Tensor, term: Term) -> str:
    """How many rows or samples are not fine, and the first of them."""
    kind, count = "rows", term.sample_count
    if count:
        kind, fine = "samples", fine.reshape(count, -1).all(1)
    bad = (~fine).nonzero()[:, 0]
    return f"{len(bad)} of {len(fine)} {kind}, the first of them number {int(bad[0])}"
