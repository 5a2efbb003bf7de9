"""Looking at a closure: how many residuals, of what kind, and how much memory does it take?"""

import math
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._advice import of_columns
from .._errors import InputError, level
from .._modules import batch_statistics
from ..losses.criterion import Targeted
from ..residuals.layout import Layout
from ..residuals.probe import Probe
from ..residuals.replay import Replay
from ..residuals.watching import Habits, Operators, storage
from . import outputs
from .reach import UNLIKE, alike, check_dependence, check_reach, swaps
from .samples import Samples
from .squared import look_at
from .swap import Swap

COUPLED = (
    "the residuals of a sample change with the other samples of the batch ({reason}), so they are "
    "not independent per sample, as step(closure, *batch) needs. Use model.eval() or a norm "
    "without batch statistics (GroupNorm, LayerNorm), or call step(closure) with a closure over "
    "the whole batch. A division by len(x) and means of the batch couple samples as well: take "
    "numbers that belong to all data."
)

ONE_ROW = (
    "BatchNorm in training mode has no statistics of a single row: pass more rows, or use "
    "model.eval()."
)
ONE_VALUE = (
    "GroupNorm has groups of a single value, which it makes zero whatever they are: give it fewer "
    "groups than channels."
)
# torch's word where a mean would be of one value: of BatchNorm's batch, or of a group of GroupNorm
STATISTICS = "more than 1 value per channel"


def probe_closure(
    layout: Layout,
    swap: Swap,
    closure: Callable[..., Any],
    differentiable: bool,
    empty: bool = False,
) -> Probe:
    """Evaluate an opaque closure once.

    Args:
        layout: how x is made of the parameters.
        swap: calls the closure at other values of them.
        closure: returns residuals.
        differentiable: whether a gradient has to lead to them from the parameters.
        empty: whether there may be none, as other processes have them.

    Raises:
        InputError: it does not return residuals, or they are on another device.
    """
    replay = Replay(layout.tensors[0].device)
    with replay():
        result, twins, operators, habits = _evaluate(layout, swap, closure, ())
    targeted = _targeted(result)
    with torch.enable_grad():
        residual = outputs.flat(result)
    if empty and residual.numel() == 0:
        replay.rewind()
        return Probe(0, 0, targeted=targeted)
    _check(residual, layout, twins if differentiable else None)
    _warn_of_columns(residual, operators)
    if differentiable:
        _warn_of_constants(habits)
    look_at(result)
    written = _written(operators)
    in_place = differentiable and not _swaps(layout, swap, closure, (), written, replay)
    replay.rewind()
    rows = result.values if targeted else result
    leading = rows.shape[0] if isinstance(rows, Tensor) and rows.ndim else None
    return Probe(
        residual.shape[0],
        operators.bytes,
        random=replay.random,
        written=written,
        differentiates=habits.differentiates,
        leading=leading,
        in_place=in_place,
        targeted=targeted,
    )


def probe_samples(
    layout: Layout, swap: Swap, closure: Callable[..., Any], samples: Samples, differentiable: bool
) -> Probe:
    """Evaluate a closure on the first sample alone, and on the first two.

    Raises:
        InputError: no row of residuals for each sample, or rows that depend on other samples; a
            batch that depends on the parameters, or that the closure changes.
        ValueError: the closure's own.
    """
    for tensor in samples.tensors:
        check_reach(tensor, layout.tensors, layout.names)  # slices of it have no graph
    replay = Replay(layout.tensors[0].device)
    count = min(2, samples.count)
    both = samples.arguments(samples.take(slice(count)))
    with _of_some(count, samples), replay():
        result, twins, operators, habits = _evaluate(layout, swap, closure, both)
    targeted = _targeted(result)
    with torch.enable_grad():
        rows = outputs.by_sample(result, count)
    _check(rows, layout, twins if differentiable else None)
    if differentiable:
        _warn_of_constants(habits)
    look_at(result)
    written, activations = _written(operators), operators.bytes
    _refuse_changes(written, samples)
    if count > 1:
        factor = result.factor if targeted else 1.0
        single = _single(layout, swap, closure, samples, replay, rows, operators, factor)
        activations = max(activations - single, single)
    in_place = differentiable and not _swaps(layout, swap, closure, both, written, replay)
    replay.rewind()
    return Probe(
        rows.shape[1],
        activations,
        random=replay.random,
        written=written,
        differentiates=habits.differentiates,
        in_place=in_place,
        targeted=targeted,
    )


@contextmanager
def _of_some(count: int, samples: Samples) -> Iterator[None]:
    """Around a call with some of the samples: what it raises is told how many it was given."""
    try:
        yield
    except Exception as error:
        # arguments that are too many or too few are so with any number of samples
        of_a_call = isinstance(error, TypeError) and "positional argument" in str(error)
        if count < samples.count and not isinstance(error, InputError) and not of_a_call:
            error.add_note(
                f"The closure was called with {count} of the {samples.count} samples: "
                "step(closure, *batch) calls it with parts of the batch. What belongs to all "
                "samples at once, as the edges of a graph or other tensors of the whole batch, "
                "needs step(closure) without the batch; what belongs to each goes into the batch."
            )
        raise


def _targeted(result: Any) -> bool:
    """Whether a closure returned outputs with targets, which it may.

    Raises:
        InputError: a target depends on the parameters, or a cost is below zero.
    """
    if not isinstance(result, Targeted):
        return False
    result.bound().check(result.values.detach().reshape(-1))
    return True


def _check(residual: Tensor, layout: Layout, twins: Sequence[Tensor] | None) -> None:
    """Check residuals (m,) or (s, k), and with `twins` the graph that leads from them.

    Raises:
        InputError: there are none, or they cannot be differentiated.
    """
    if residual.numel() == 0:
        raise InputError("the closure returned no residuals: m = 0. There is nothing to fit.")
    _same_device(residual, layout)
    check_reach(residual, layout.tensors, layout.names)
    if twins is not None:
        check_dependence(residual, twins)


def _single(
    layout: Layout,
    swap: Swap,
    closure: Callable[..., Any],
    samples: Samples,
    replay: Replay,
    rows: Tensor,
    operators: Operators,
    factor: float,
) -> int:
    """Compare the rows of the first sample alone with those beside a second; return its bytes.

    Raises:
        InputError: they change with the other sample.
        ValueError: the closure's own.
    """
    try:
        with _of_some(1, samples), replay():
            result, _, alone, _ = _evaluate(
                layout, swap, closure, samples.arguments(samples.take(slice(1)))
            )
    except InputError as error:
        cause = error.__cause__
        if STATISTICS in str(cause) and not _of_groups(cause):
            raise InputError(COUPLED.format(reason="BatchNorm in training mode")) from error
        raise
    if isinstance(result, Targeted) and not math.isclose(result.factor, factor):
        raise InputError(COUPLED.format(reason="a criterion times another number for each count"))
    first = outputs.by_sample(result, 1)
    if first.shape[1] != rows.shape[1]:
        column = (
            " (A column (n, 1) less a vector (n,) is n x n: give both the same shape.)"
            if operators.spread
            else ""
        )
        raise InputError(
            f"the closure returned {tuple(first.shape)} residuals for one sample and "
            f"{tuple(rows.shape)} for two. Each sample needs the same number; terms that do not "
            f"belong to a sample need step(closure).{column}"
        )
    # a batch of two may be summed in another order than one sample, in the coarsest dtype
    tolerance = torch.finfo(operators.precision or rows.dtype).eps ** 0.5
    if not replay.random and not torch.allclose(
        first[0], rows[0].detach(), rtol=tolerance, atol=tolerance, equal_nan=True
    ):
        with replay():
            once_more, *_ = _evaluate(
                layout, swap, closure, samples.arguments(samples.take(slice(1)))
            )
        if not alike(first, outputs.by_sample(once_more, 1)):
            raise InputError(UNLIKE)
        raise InputError(
            COUPLED.format(
                reason="BatchNorm in training mode, or some other operation over the batch"
            )
        )
    return alone.bytes


def _refuse_changes(written: Sequence[Tensor], samples: Samples) -> None:
    """See that the closure does not write to its batch, of which each evaluation has to see all.

    Raises:
        InputError: it does.
    """
    places = {storage(t) for t in samples.tensors} - {None}
    if any(storage(t) in places for t in written):
        raise InputError(
            "the closure changes its batch in place, and is called several times in a step: each "
            "call would see other data. Make a new tensor, x * 2 in the place of x.mul_(2)."
        )


def _written(operators: Operators) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor, _ in operators.written)


def _swaps(
    layout: Layout,
    swap: Swap,
    closure: Callable[..., Any],
    args: tuple[Any, ...],
    written: Sequence[Tensor],
    replay: Replay,
) -> bool:
    """Whether the closure's backward pass uses the twins, too, and not the parameters."""
    # the parameters' own call writes to buffers of which the swap makes copies
    replay.kept = (*written, *swap.buffers)
    return swaps(layout.tensors, closure, args, swap, replay)


def refuse_batch_statistics(module: nn.Module) -> None:
    """Name the layer that couples samples, before any work.

    Raises:
        InputError: a BatchNorm in training mode.
    """
    layer = batch_statistics(module)
    if layer is not None:
        raise InputError(COUPLED.format(reason=layer))


def _evaluate(
    layout: Layout, swap: Swap, closure: Callable[..., Any], arguments: Sequence[Any]
) -> tuple[Any, list[Tensor], Operators, Habits]:
    """The result with its graph, the twins that it leads to, and what was seen on the way."""
    habits, operators = Habits(), Operators()
    try:
        with torch.enable_grad(), operators:
            twins = [t.detach().clone().requires_grad_() for t in layout.tensors]
            operators.bytes = 0
            with habits:
                result = swap(twins, closure, *arguments)
    except ValueError as error:
        if STATISTICS in str(error):
            raise InputError(ONE_VALUE if _of_groups(error) else ONE_ROW) from error
        raise
    finally:
        operators.undo()
    return result, twins, operators, habits


def _of_groups(error: BaseException | None) -> bool:
    """Whether torch has said it of GroupNorm, whose groups have nothing to do with the batch."""
    frames = traceback.extract_tb(None if error is None else error.__traceback__)
    return any(frame.name == "group_norm" for frame in frames)


def _warn_of_columns(residual: Tensor, operators: Operators) -> None:
    """A model's column (n, 1) less data (n,) is every prediction against every datum."""
    if residual.numel() in operators.spread:
        of_columns(math.isqrt(residual.numel()))


def _warn_of_constants(habits: Habits) -> None:
    """What has no derivative in torch has no part in J, and no operator says so."""
    if habits.met:
        warnings.warn(
            f"torch has no derivative of {habits.met}, and takes it for a constant: steps know "
            "nothing of what the parameters do through it. Write it in other operators or as an "
            "autograd.Function with a derivative, or choose jacobian='2-point'.",
            UserWarning,
            stacklevel=level(),
        )


def _same_device(residual: Tensor, layout: Layout) -> None:
    device = layout.tensors[0].device
    if residual.device != device:
        raise InputError(
            f"the residuals are on {residual.device}, the parameters on {device}. Bring them to "
            "one device."
        )
