"""Whether forward mode agrees with a backward pass: at the first call of each function.

Some formulas of torch's forward mode are wrong, and tell nothing of it (`formulas.py` has a list
of those that were found). Backward formulas are what everybody trains with, so that what forward
mode gives for a function is compared with them once, in one sum over all outputs and directions:

    Σ_c a_c Σ_k w_k (J v_c)_k = Σ_c a_c (Jᵀw)·v_c, and the same with H

Sums are compared sample by sample. A NaN of the backward pass says nothing: forward mode may be
right where `torch.where` has chosen.
"""

from typing import Any

import torch
from torch import Tensor

from .asked import look, unless_asked
from .calling import Call, within
from .draws import Draws

# of the sum of magnitudes: a wrong formula is off by more, and inside the function numbers may be
# of a lower precision
ROUGH = 1e-3
ROUNDING = 30  # times ε, where that is more


class Comparison:
    """A comparison that is to be made after forward mode has run.

    Args:
        call: the function and the point.
        order: of the derivatives, 1 or 2.
    """

    def __init__(self, call: Call, order: int) -> None:
        self.call = call
        self.order = order
        asked = call.function if call.asked is None else call.asked
        self.remember = (
            None if call.meeting or within() else unless_asked(("forward", order), asked)
        )
        # what is drawn at random is drawn alike in both
        self.draws = None if self.remember is None else Draws(call.x)

    def hold(self, directions: Tensor, found: Tensor) -> Tensor:
        """Pass on what forward mode found.

        Args:
            directions: (c, 1 …, *in).
            found: (c, *batch, *out) for order 1, (c, *batch, *out, *in) for order 2.

        Returns:
            What was found.

        Raises:
            RuntimeError: a backward pass gives something else.
        """
        if self.remember is None or self.draws is None:
            return found
        after = Draws(self.call.x)
        self.draws.again()
        try:
            agree = self._agree(directions, found.detach())
        except Exception:  # there is no backward formula, or it needs more memory than there is
            agree = True
        after.again()
        if not agree:
            raise RuntimeError(
                "it disagrees with a backward pass: torch's forward formula of some operator is "
                "wrong"
            )
        self.remember()
        return found

    def _agree(self, directions: Tensor, found: Tensor) -> bool:
        call, second = self.call, self.order == 2
        x = call.x.detach().requires_grad_()
        with torch.enable_grad(), look():
            y = call(x)
        weights = _weights(y.numel(), y).view_as(y)
        amounts = _weights(len(directions), x)
        pulled: Any  # None where no output depends on x, which torch does not declare
        (pulled,) = torch.autograd.grad(y, x, weights, create_graph=second, allow_unused=True)
        along = (amounts.view(-1, *(1,) * x.ndim) * directions.detach()).sum(0).expand_as(x)
        expected: Any = None
        if pulled is not None and not second:
            expected = (pulled * along).reshape(*call.samples, -1).sum(-1)
        elif pulled is not None and pulled.requires_grad:
            (expected,) = torch.autograd.grad(pulled, x, along, allow_unused=True)
        # (c, *batch, *out) or (c, *batch, *out, *in), to the sum over c and out
        shape = (1, *y.shape, *(1 for _ in call.inputs if second))
        parts = found * weights.view(shape) * amounts.view(-1, *(1,) * (found.ndim - 1))
        behind = call.inputs if second else ()
        parts = parts.reshape(len(found), *call.samples, -1, *behind)
        total, size = (t.sum((0, 1 + call.batch)) for t in (parts, parts.abs()))
        if expected is None:
            expected = torch.zeros_like(total)
        apart = (total - expected).abs().nan_to_num(0)
        bound = (
            max(ROUGH, ROUNDING * torch.finfo(found.dtype).eps)
            * (size + expected.abs()).nan_to_num(0).max()
        )
        return bool(apart.max() <= bound) if apart.numel() else True


def _weights(count: int, like: Tensor) -> Tensor:
    """Numbers that no sum of a few outputs hides: between 1 and 3."""
    return torch.arange(count, dtype=like.dtype, device=like.device).cos().add(2)
