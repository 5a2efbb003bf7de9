"""What stands in the place of residuals, as the graph of a closure's result shows it.

A step squares and adds what the closure returns. So what is a loss already is minimised in its
fourth power, and a penalty that is added to each residual is squared with it: the loss falls, and
the minimum is another one. A single number is refused (`outputs`). What has the shape of residuals
may be meant, so it has a warning that says what to return; but a loss that torch has an operator
for is none, whatever its shape.
"""

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from .._errors import InputError, level
from ..losses.criterion import Targeted
from .outputs import LOSS, instead, operands

# operators that leave a square what it is, but for its shape or a factor
THROUGH = (
    "View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Select", "Slice", "Permute",
    "T", "Transpose", "Clone", "ToCopy", "Expand", "Mul", "Div", "Neg",
)  # fmt: skip
WHOLE = ("SumBackward0", "MeanBackward0")  # over all entries
SUMS = ("SumBackward", "MeanBackward")
DEPTH = 12  # operators that are followed

SQUARES = (
    "the closure returns squares, which a step squares again: what is minimised is the sum of "
    "fourth powers. Return what is squared, model(x) - y."
)
NUMBER = (
    "among the residuals there is a sum or mean of squares, one number, which a step squares "
    "again. If it is the loss, return model(x) - y alone; if a penalty of the parameters, use "
    "weight_decay, or return c**0.5 * p of each parameter p as residuals."
)
PENALTY = (
    "a sum of squares is added to every residual, as a penalty is to a loss, and squared with it. "
    "Use weight_decay, or return c**0.5 * p of each parameter p as residuals beside the others."
)
ABSOLUTE = (
    "the closure returns absolute values, and their squares are those of the values themselves: "
    "what is minimised is the sum of squares. For absolute deviations return model(x) - y and take "
    "loss='soft_l1' or 'huber'."
)
CONSTANT = (
    "one of the results of the closure is a number that does not depend on the parameters: its "
    "square is added to the loss. Return the residuals alone, and keep what is to be logged "
    "elsewhere."
)
SQUASHED = {
    "CrossEntropyLoss": ("SoftmaxBackward", "a softmax"),
    "BCEWithLogitsLoss": ("SigmoidBackward", "a sigmoid"),
}


def look_at(result: Any) -> None:
    """Warn of losses and penalties in the place of residuals, and of logits that are none.

    Args:
        result: of a closure, with its graph.

    Raises:
        InputError: one of torch's losses among several results, or in the shape of a residual.
    """
    if isinstance(result, Targeted):
        _look_at_outputs(result)
        return
    leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    if len(leaves) > 1 and any(leaf.ndim == 0 and not leaf.requires_grad for leaf in leaves):
        _say(CONSTANT)
    leaves = [leaf for leaf in leaves if leaf.grad_fn is not None]
    if not leaves:
        return
    numbers = [leaf.grad_fn for leaf in leaves if leaf.numel() == 1]
    if use := instead([_inside(node) for node in numbers]):
        raise InputError(LOSS.format(use=use))
    inner = [_inside(leaf.grad_fn) for leaf in leaves]
    if all(map(_is_square, inner)) and any(leaf.numel() > 1 for leaf in leaves):
        _say(SQUARES)
    elif any(_is_square(_inside(n)) or _is_penalty(n) for n in numbers):
        _say(NUMBER)
    elif any(_has_penalty(leaf.grad_fn) for leaf in leaves if leaf.numel() > 1):
        _say(PENALTY)
    elif all(_kind(node).startswith("AbsBackward") for node in inner):
        _say(ABSOLUTE)


def _look_at_outputs(result: Targeted) -> None:
    """Warn of probabilities where a criterion takes logits."""
    name = type(result.criterion).__name__
    if name not in SQUASHED or not isinstance(result.values, Tensor):
        return
    kind, called = SQUASHED[name]
    if _kind(_inside(result.values.grad_fn)).startswith(kind):
        _say(
            f"{name} takes logits, and its outputs come from {called}, which it applies by itself: "
            "no output can be sure then. Leave it out of the model; for probabilities apply it "
            "afterwards."
        )


def _kind(node: Any) -> str:
    return type(node).__name__


def _inside(node: Any, *, sums: bool = True) -> Any:
    """The operator whose result was reshaped, weighed by constants, and summed up."""
    for _ in range(DEPTH):
        kind, before = _kind(node), operands(node)
        through = kind.removesuffix("Backward0").removesuffix("Backward1") in THROUGH
        if len(before) != 1 or not (through or (sums and kind.startswith(SUMS))):
            break
        node = before[0]
    return node


def _is_square(node: Any) -> bool:
    """Whether an operator is z², z · z, or a sum of several such."""
    kind, before = _kind(node), operands(node)
    if kind.startswith("PowBackward0"):
        return bool(node._saved_exponent == 2)
    if kind.startswith("MulBackward") and len(before) == 2:
        return before[0] is before[1]
    return False


def _is_penalty(node: Any, depth: int = DEPTH) -> bool:
    """Whether an operator's result is one number, made of squares of many."""
    node = _inside(node, sums=False)
    kind, before = _kind(node), operands(node)
    if kind in WHOLE:
        return _is_square(_inside(node))
    if kind == "AddBackward0" and before and depth:  # over several parameters
        return all(_is_penalty(part, depth - 1) for part in before)
    return False


def _has_penalty(node: Any) -> bool:
    """Whether a residual is a sum of what has its shape and of one number, made of squares."""
    node = _inside(node, sums=False)
    before: Sequence[Any] = operands(node)
    if _kind(node) != "AddBackward0" or len(before) != 2:
        return False
    return sum(map(_is_penalty, before)) == 1


def _say(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=level())
