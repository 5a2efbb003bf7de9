"""Whether the samples of a batch meet inside a function, which then has no derivatives per sample.

A pass for all samples at once gives the derivatives of each only if its outputs depend on no other
sample. A mean over the batch, a softmax along it or attention between samples breaks that, and what
comes out is the sum over all of them, without an error. So the gradient of Σ wᵢ·f(x)ᵢ in all of
x is compared with that of Σ 2^cᵢ wᵢ·f(x)ᵢ, of which each sample i has a factor of its own:

    where samples are apart    g′ᵢ = 2^cᵢ gᵢ, to the last bit
    where they meet            the parts of other samples have other factors

It takes one evaluation of a few samples and two backward passes, once for each function
(`asked.py`). On the way it shows whether torch takes something for a constant of which it has no
derivative: that is asked of functions of one sample as well. What is detached, as batch statistics
may be, is a constant here as it is to autograd. Not seen are samples that meet only at other
points, and functions within a transform of torch.func.
"""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ..residuals.watching import Constants
from .asked import look, unless_asked
from .bends import BATCH, COUPLED, contents, coupled
from .uncompiled import Uncompiled

FEW = 8  # samples that are looked at, each with a power of two of its own
ROUNDING = 1e3  # times ε: what a sum of atomic additions may differ by

MEETING = (
    "outputs of the function for one sample depend on other samples of the batch, by a mean, a "
    "softmax or attention over the batch, say: there are no derivatives per sample, and what all "
    "of it gives at once would be wrong. Let it work on the dimensions behind the batch; or "
    "detach() what is meant as a constant; or use batch_dims=0 for the derivatives across the "
    "whole batch."
)


UNDERIVED = (
    "torch has no derivative of {}, and takes it for a constant, so that the derivatives of the "
    "function lack its share. Write it in other operators or as an autograd.Function with a "
    "derivative, or use finite_difference_jacobian for first derivatives."
)


class MeetingError(InputError):
    """Samples of the batch meet in the function."""


class UnderivedError(InputError):
    """Something in the function has no derivative in torch, which does not say so."""


def refuse_meeting(function: Callable[..., Any], inputs: Sequence[Tensor], batch: int) -> None:
    """Refuse a function in which samples meet; ask each function once.

    Args:
        function: of the inputs, the samples first in its result.
        inputs: (*batch, ...) each.
        batch: how many dimensions are samples.

    Raises:
        MeetingError: an output of one sample depends on another.
        UnderivedError: torch takes something for a constant that follows the inputs.
    """
    alone = inputs[0].shape[:batch].numel() < 2
    remember = unless_asked(("meeting", batch, alone), function)
    if remember is None:
        return
    if _meet(function, inputs, batch, alone):
        raise MeetingError(MEETING)
    remember()


def _meet(function: Callable[..., Any], inputs: Sequence[Tensor], batch: int, alone: bool) -> bool:
    """Whether samples meet, among a few of them; where the function takes no few, among all."""
    first, *others = (1,) if alone else inputs[0].shape[:batch]
    few = max(2, ceil(FEW / max(1, torch.Size(others).numel())))
    device = inputs[0].device
    cards = [device] if device.type == "cuda" else []
    # draws must not be others than without this, nor anything be compiled for a glance
    with torch.random.fork_rng(cards), torch.enable_grad(), Uncompiled(), look():
        for some in (slice(few), slice(None)) if few < first else (slice(None),):
            try:
                given = [t.detach() if alone else t.detach()[some] for t in inputs]
                return _apart(function, given, batch, alone) is False
            except (MeetingError, UnderivedError):
                raise
            # whatever a function says of fewer samples than it was written for, or of a graph that
            # has no second use: it is said again, if it matters, when it is differentiated
            except Exception:
                continue
    return False


def _apart(
    function: Callable[..., Any], inputs: list[Tensor], batch: int, alone: bool
) -> bool | None:
    """Whether gradients in each sample have the factor of that sample; None: there are none."""
    points = [t.clone().requires_grad_() for t in inputs if t.is_floating_point()]
    given = iter(points)
    with Constants() as constants:
        y = function(*(next(given) if t.is_floating_point() else t for t in inputs))
    if constants.met:
        raise UnderivedError(UNDERIVED.format(constants.met))
    if alone:
        return None
    samples = inputs[0].shape[:batch]
    if not isinstance(y, Tensor) or y.shape[:batch] != samples or not y.requires_grad:
        return None
    if contents(y) & BATCH and coupled(y):
        raise MeetingError(COUPLED.format("a batch norm in training mode, within the function,"))
    count = samples.numel()
    # no two outputs have the same weight: those of a softmax add up to one
    weights = torch.arange(y.numel(), dtype=y.dtype, device=y.device).cos().add(2).view_as(y)
    factors = 2.0 ** (torch.arange(count, device=y.device) % FEW)

    def of_each(t: Tensor) -> Tensor:
        return factors.to(t.dtype).view(*samples, *(1,) * (t.ndim - batch))

    once, twice = (
        torch.autograd.grad(y, points, w, retain_graph=True, allow_unused=True)
        for w in (weights, weights * of_each(y))
    )
    found: Any  # None for an input without influence, which torch does not declare
    for found, other in zip(once, twice, strict=True):
        if found is None:
            continue
        expected = found * of_each(found)
        apart = (other - expected).abs().nan_to_num(0, 0, 0)
        size = expected.abs().nan_to_num(0, 0, 0).max()
        if apart.max() > ROUNDING * torch.finfo(found.dtype).eps * size:
            return False
    return True
