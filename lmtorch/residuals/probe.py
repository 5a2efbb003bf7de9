"""What a closure turns out to be: how many residuals, of what, and how much memory an evaluation touches."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .._errors import InputError
from . import outputs
from .layout import Layout
from .replay import Replay
from .samples import Samples
from .swap import Swap, check_reach

COUPLED = (
    "the residuals of a sample change with the other samples of the batch ({reason}), so they are not independent per "
    "sample, as step(closure, *batch) needs. Use model.eval() or a norm without batch statistics (GroupNorm, "
    "LayerNorm), or call step(closure) with a closure over the whole batch."
)


class Probe(NamedTuple):
    """Facts that decide how derivatives are taken."""

    rows: int  # residuals; of one sample where there are samples
    activations: int  # bytes of all intermediate results of one evaluation; of one sample where there are samples
    random: bool  # an evaluation draws random numbers


def probe_closure(layout: Layout, swap: Swap, closure: Callable[..., Any], differentiable: bool) -> Probe:
    """Evaluate an opaque closure once.

    Raises:
        InputError: it does not return residuals, or they are on another device.
    """
    replay = Replay(layout.tensors[0].device)
    with replay():
        result, touched = _evaluate(layout, swap, closure, ())
    replay.rewind()
    with torch.enable_grad():
        residual = outputs.flat(result)
    if residual.shape[0] == 0:
        raise InputError("the closure returned no residuals: m = 0. There is nothing to fit.")
    _same_device(residual, layout)
    check_reach(residual, layout.tensors, layout.names)
    _dependent(residual, differentiable)
    return Probe(residual.shape[0], touched, replay.random)


def probe_samples(
    layout: Layout, swap: Swap, closure: Callable[..., Any], samples: Samples, differentiable: bool
) -> Probe:
    """Evaluate a closure on the first sample alone, and on the first two.

    Raises:
        InputError: no row of residuals for each sample, or rows that depend on other samples.
        ValueError: the closure's own.
    """
    replay = Replay(layout.tensors[0].device)
    count = min(2, samples.count)
    with replay():
        result, touched = _evaluate(layout, swap, closure, samples.arguments(samples.take(slice(count))))
    with torch.enable_grad():
        rows = outputs.by_sample(result, count)
    if rows.shape[1] == 0:
        raise InputError("the closure returned no residuals: m = 0. There is nothing to fit.")
    _same_device(rows, layout)
    check_reach(rows, layout.tensors, layout.names)
    _dependent(rows, differentiable)
    if count == 1:
        replay.rewind()
        return Probe(rows.shape[1], touched, replay.random)
    try:
        with replay():
            result, single = _evaluate(layout, swap, closure, samples.arguments(samples.take(slice(1))))
    except ValueError as error:
        if "more than 1 value per channel" in str(error):  # BatchNorm's own word for a batch of one
            raise InputError(COUPLED.format(reason="BatchNorm in training mode")) from error
        raise
    replay.rewind()
    first = outputs.by_sample(result, 1)
    if first.shape[1] != rows.shape[1]:
        raise InputError(
            f"the closure returned {tuple(first.shape)} residuals for one sample and {tuple(rows.shape)} for two. "
            "Each sample needs the same number; terms that do not belong to a sample need step(closure)."
        )
    tolerance = torch.finfo(rows.dtype).eps ** 0.5
    if not replay.random and not torch.allclose(
        first[0], rows[0].detach(), rtol=tolerance, atol=tolerance, equal_nan=True
    ):
        raise InputError(COUPLED.format(reason="BatchNorm in training mode, or some other operation over the batch"))
    return Probe(rows.shape[1], max(touched - single, single), replay.random)


def refuse_batch_statistics(module: nn.Module) -> None:
    """Name the layer that couples samples, before any work.

    Raises:
        InputError: a BatchNorm in training mode.
    """
    layer = batch_statistics(module)
    if layer is not None:
        raise InputError(COUPLED.format(reason=layer))


def batch_statistics(module: nn.Module) -> str | None:
    """The layer that couples samples, in words; None where there is none."""
    for name, child in module.named_modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.training:
            return f"{name!r}, {type(child).__name__} in training mode"
    return None


class Touched(TorchDispatchMode):
    """Adds up the bytes of everything that operators return."""

    def __init__(self) -> None:
        start: Callable[[TorchDispatchMode], None] = TorchDispatchMode.__init__  # torch 2.13 has no types for it
        start(self)
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf._base is None:
                self.bytes += leaf.numel() * leaf.element_size()
        return result


def _evaluate(layout: Layout, swap: Swap, closure: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Any, int]:
    """The result, with its graph, and the bytes of all intermediate results."""
    twins = [t.detach().clone().requires_grad_() for t in layout.tensors]
    with torch.enable_grad(), Touched() as touched:
        result = swap(twins, closure, *arguments)
    return result, touched.bytes


def _dependent(residual: Tensor, differentiable: bool) -> None:
    if differentiable and not residual.requires_grad:
        raise InputError(
            "the residuals do not depend on any parameter: no gradient leads from them to what the optimizer was "
            "given. Compute them from the parameters with torch operations (no .detach(), .item(), NumPy or "
            "torch.no_grad() on the way; and are the model's parameters those of the optimizer?), or choose "
            "jacobian='2-point' for a black box."
        )


def _same_device(residual: Tensor, layout: Layout) -> None:
    device = layout.tensors[0].device
    if residual.device != device:
        raise InputError(
            f"the residuals are on {residual.device}, the parameters on {device}. Bring them to one device."
        )
