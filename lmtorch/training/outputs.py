"""What a closure may return, and the residual vector it becomes.

Any tensor that is not a single number, or a tuple, list or dict of tensors (a physics-informed loss
has several terms). Complex residuals count as their real and imaginary parts, |z|² = Re² + Im².
Or outputs with their targets, from a criterion: then the outputs stand where residuals do.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .._errors import InputError
from ..calculus.base import Carrier
from ..losses.criterion import Targeted
from ..residuals.layout import real

# operators of torch's losses, and what to use in their place
LOSSES = {
    "NllLoss": "lmtorch.CrossEntropyLoss()(logits, y)",
    "BinaryCrossEntropyWithLogits": "lmtorch.BCEWithLogitsLoss()(logits, y)",
    "BinaryCrossEntropyBackward": "lmtorch.BCEWithLogitsLoss()(logits, y), with logits and without "
    "the sigmoid",
    "MseLoss": "model(x) - y, or lmtorch.MSELoss()(model(x), y)",
    "HuberLoss": "model(x) - y and loss='huber'",
    "SmoothL1Loss": "model(x) - y and loss='huber'",
}
# operators of which torch makes losses that it has no operator for: of a single number they tell
FORMULAS = {
    "LogSoftmax": "lmtorch.CrossEntropyLoss()(logits, y), where y may be probabilities",
    "LogSigmoid": "lmtorch.BCEWithLogitsLoss()(logits, y)",
    "SoftMarginLoss": "lmtorch.BCEWithLogitsLoss()(logits, (y + 1) / 2), of y = 0 and 1",
    "AbsBackward": "model(x) - y and loss='soft_l1' or 'huber', which are absolute deviations but "
    "for small ones",
}
POISSON = "lmtorch.PoissonNLLLoss()(log_rate, y), or with log_input=False of the rate"
GAUSSIAN = "lmtorch.GaussianNLLLoss()(mean, y, variance)"
FLATTENED = (
    "Positions that were flattened into the samples, as by logits.flatten(0, 1), stay in "
    "dimensions of their own: criteria take them so. "
)
DEPTH = 8  # operators that may follow a loss: a mean, a weight, a sum with another

LOSS = (
    "the closure returned a single number, a loss of torch's. Levenberg–Marquardt needs what the "
    "loss is made of: return {use}."
)
SCALAR = (
    "the closure returned a single number. Levenberg–Marquardt needs the residuals themselves, of "
    "any shape, not the loss: return the residuals, not their sum; for example `model(x) - y` "
    "instead of `((model(x) - y) ** 2).mean()`. (If there really is just one residual, return it "
    "with shape (1,).) Of a likelihood return lmtorch.CrossEntropyLoss()(model(x), y), or "
    "lmtorch.BCEWithLogitsLoss, PoissonNLLLoss, NegativeBinomialNLLLoss, GaussianNLLLoss likewise."
)


def leaves(result: Any) -> list[Tensor]:
    """The tensors of a closure's result, checked, complex ones as pairs.

    Raises:
        InputError: nothing, a scalar loss, no tensor, integers.
    """
    if isinstance(result, Targeted):
        result = result.values
    found: list[Any] = tree_leaves(result, is_leaf=lambda leaf: isinstance(leaf, Targeted))
    if any(isinstance(leaf, Targeted) for leaf in found):
        raise InputError(
            "the closure returned a criterion's outputs beside something else. Pass each as a term "
            "of its own: opt.step((lambda x, y: criterion(model(x), y), x, y), (others, z))."
        )
    if not found or all(leaf is None for leaf in found):
        raise InputError(
            "the closure returned nothing (None). Return the residuals: a tensor, or a tuple, list "
            "or dict of tensors."
        )
    for leaf in found:
        carries = isinstance(leaf, Carrier)  # in the place of a tensor, for a source of derivatives
        if not (isinstance(leaf, Tensor) or carries):
            raise InputError(
                f"the closure returned {type(leaf).__name__} where a tensor was expected. Return "
                "the residuals as torch tensors, made from the parameters by torch operations, so "
                "that they can be differentiated."
            )
        if not (leaf.is_floating_point() or leaf.is_complex()):
            raise InputError(
                f"the residuals are {leaf.dtype}, which has no derivatives. Convert the model's "
                "output and the data to a floating-point dtype."
            )
        if leaf.layout != torch.strided:
            raise InputError(f"the residuals are {leaf.layout}: return dense ones, to_dense().")
    if isinstance(result, Tensor):
        if result.ndim == 0:
            raise InputError(_scalar(result))
        if use := instead([result.grad_fn]):  # of each sample: reduction="none"
            raise InputError(
                "the closure returned losses of torch's, one for each sample. Levenberg–Marquardt "
                f"needs what they are made of: return {use}."
            )
    return [real(leaf) for leaf in found]


def _scalar(loss: Tensor) -> str:
    """What to return instead of a single number; of torch's own losses, by name."""
    nodes = [getattr(loss, "grad_fn", None)]
    for _ in range(DEPTH):
        if use := instead(nodes) or instead(nodes, FORMULAS) or _composed(nodes):
            return LOSS.format(use=use)
        nodes = [after for node in nodes if node is not None for after, _ in node.next_functions]
    return SCALAR


def instead(nodes: Sequence[Any], losses: Mapping[str, str] = LOSSES) -> str | None:
    """What to return in the place of one of torch's losses that these nodes of a graph are."""
    for kind in (type(node).__name__ for node in nodes):
        for name, use in losses.items():
            if kind.startswith(name):
                return use
    return None


def _composed(nodes: Sequence[Any]) -> str | None:
    """What to return in the place of exp f − y f, of μ − y log μ, or of log v + (m − y)²/v."""
    for node in nodes:
        kind, before = type(node).__name__, operands(node)
        if len(before) != 2:
            continue
        first, second = (type(operand).__name__ for operand in before)
        if kind.startswith("SubBackward") and second.startswith("MulBackward"):
            factors = [type(factor).__name__ for factor in operands(before[1])]
            logarithm = any(factor.startswith("LogBackward") for factor in factors)
            if first.startswith("ExpBackward") or logarithm:
                return POISSON
        if kind.startswith("AddBackward") and first.startswith("LogBackward"):
            over = [type(operand).__name__ for operand in operands(before[1])]
            if second.startswith("DivBackward") and over and over[0].startswith("PowBackward"):
                return GAUSSIAN
    return None


def operands(node: Any) -> list[Any]:
    """The nodes before one that have a graph."""
    return [before for before, _ in getattr(node, "next_functions", ()) if before is not None]


def flat(result: Any) -> Tensor:
    """All residuals as one vector (m,)."""
    parts = [leaf.reshape(-1) for leaf in leaves(result)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def by_sample(result: Any, count: int) -> Tensor:
    """Residuals of `count` samples as (count, k), from leaves whose rows are samples.

    Raises:
        InputError: a leaf that has no such rows.
    """
    parts = []
    for leaf in leaves(result):
        # (count · k,) counts too: `(model(x) - y).flatten()` is a habit; the probe makes sure that
        # it has one row per sample
        if (
            leaf.ndim == 0
            or leaf.shape[0] % count != 0
            or (leaf.ndim > 1 and leaf.shape[0] != count)
        ):
            flat = leaf.ndim > 1 and leaf.shape[0] > count and leaf.shape[0] % count == 0
            raise InputError(
                f"the residuals have no dimension for the samples: shape {tuple(leaf.shape)} for a "
                f"batch of {count}. Return one row of residuals for each sample, or call "
                f"step(closure) without the batch. {FLATTENED if flat else ''}Samples that do not "
                "count stay as zeros: torch.where(mask, residuals, 0) in the place of "
                "residuals[mask]."
            )
        parts.append(leaf.reshape(count, -1))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
