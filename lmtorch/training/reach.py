"""Whether twins replace the parameters everywhere: if not, columns of J would silently be zero.

And whether the closure gives the same twice: if not, trials would be judged on other data.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .._autodiff import history, random_weights
from .._errors import InputError
from ..losses.criterion import Targeted
from ..residuals.replay import Replay
from .swap import Swap

UNLIKE = (
    "the closure returned other residuals when it was called again at the same parameters: it "
    "draws from a generator that is not torch's own (NumPy's, Python's, a torch.Generator, an "
    "iterator over batches), counts its calls, keeps a hidden state for the next, or changes its "
    "data in place. All evaluations "
    "within a step must see the same data: draw random points or batches outside the closure, or "
    "pass the batch as step(closure, *batch)."
)


def check_dependence(residual: Tensor, twins: Sequence[Tensor]) -> None:
    """Check that some twin leads to the residuals.

    Raises:
        InputError: none does.
    """
    known = {id(twin) for twin in twins}
    leaves = (
        (getattr(node, "variable", None) for node in history(residual))
        if residual.requires_grad
        else ()
    )
    if not any(id(leaf) in known for leaf in leaves):
        raise InputError(
            "the residuals do not depend on any parameter: no gradient leads from them to what the "
            "optimizer was given. Compute them from the parameters with torch operations (no "
            ".detach(), .item(), NumPy, torch.no_grad() or checkpoint(use_reentrant=True) on the "
            "way; and are the model's parameters those of the optimizer?), or choose "
            "jacobian='2-point' for a black box. "
            "Second derivatives of a network of ReLU are zero everywhere: take tanh, or another "
            "smooth function."
        )


def check_reach(residual: Tensor, parameters: Sequence[Tensor], names: Sequence[str]) -> None:
    """Check that no gradient leads past the twins to the parameters themselves.

    Nothing is evaluated for it, and where all is well autograd finds no path and runs no backward
    pass.

    Raises:
        InputError: one does.
    """
    if not residual.requires_grad:
        return
    cotangent = torch.zeros_like(residual)
    reached: Sequence[Tensor | None] = torch.autograd.grad(
        residual, parameters, cotangent, retain_graph=True, allow_unused=True
    )
    missed = next(
        (name for name, gradient in zip(names, reached, strict=True) if gradient is not None), None
    )
    if missed is not None:
        raise InputError(
            f"{missed!r} acts where its value cannot be replaced: an autograd.Function takes the "
            "tensor itself, or the closure uses a result that was computed before the step. Pass "
            "the module instead of its parameters, LevenbergMarquardt(model); let the closure call "
            "the module rather than name its weights; and compute inside the closure what depends "
            "on the parameters, or detach it."
        )


def swaps(
    parameters: Sequence[Tensor],
    closure: Callable[..., Any],
    args: tuple[Any, ...],
    swap: Swap,
    replay: Replay,
) -> bool:
    """Whether gradients in the twins are those in the parameters themselves.

    They are not where a backward pass calls the module again, as the adjoint of a differential
    equation does: the twins are gone by then.

    Args:
        parameters: what the closure sees.
        closure: returns residuals.
        args: its arguments.
        swap: calls it with twins.
        replay: around each of two evaluations, so that they draw the same random numbers and leave
            no trace.

    Raises:
        InputError: the two evaluations differ.
    """
    twins = [t.detach().clone().requires_grad_() for t in parameters]
    try:
        mine, values = _gradients(lambda: swap(twins, closure, *args), twins, replay)
        theirs, others = _gradients(lambda: closure(*args), parameters, replay)
    except RuntimeError:
        return True  # not to be differentiated like this: nothing to compare with
    if [t.shape for t in values] != [t.shape for t in others]:
        return True  # not the same data at every call, which the next evaluation will say
    if not all(map(alike, values, others)):
        raise InputError(UNLIKE)
    eps = torch.finfo(parameters[0].dtype).eps
    # what is not finite says nothing of the size
    sizes = [
        max(
            (float(g.abs().nan_to_num(0.0, 0.0, 0.0).amax()) for g in pair if g.numel()),
            default=0.0,
        )
        for pair in zip(mine, theirs, strict=True)
    ]
    largest = max(sizes, default=0.0)
    return all(
        torch.allclose(a, b, rtol=0, atol=eps**0.5 * size + eps**0.75 * largest, equal_nan=True)
        for a, b, size in zip(mine, theirs, sizes, strict=True)
    )


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether two evaluations of the same residuals are the same, but for the order of sums."""
    share = torch.finfo(one.dtype).eps ** 0.5
    size = float(one.abs().nan_to_num(0.0, 0.0, 0.0).amax()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=share, atol=share * size, equal_nan=True)


def _gradients(
    call: Callable[[], Any], inputs: Sequence[Tensor], replay: Replay
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of a sum of the results with random weights, and the results."""
    with replay(), torch.enable_grad():
        result = call()
        found = tree_leaves(result.values if isinstance(result, Targeted) else result)
        leaves = [leaf for leaf in found if isinstance(leaf, Tensor) and leaf.requires_grad]
        real = [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in leaves]
        if not real:
            return [torch.zeros_like(t) for t in inputs], []
        gradients = torch.autograd.grad(
            real,
            inputs,
            [random_weights(leaf) for leaf in real],
            allow_unused=True,
            materialize_grads=True,
        )
    return [g.to_dense() for g in gradients], [leaf.detach() for leaf in leaves]
