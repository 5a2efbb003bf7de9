"""Recurrent layers under the transforms of torch.func, where torch's fast kernels do not go.

`vmap` over the samples takes the gates of a recurrent layer apart, and fails for two reasons: the
state that a layer begins with is the same for all samples, and the gates of a sample are added to
it in place; and the kernel of oneDNN for an LSTM has no batching rule (torch 2.13). With a state
of its own for each sample, and without oneDNN, the same layer is one of matrix products, and
the Jacobian is had sample by sample. Otherwise each sample would cost a backward pass of all.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .._modes import FunctionMode
from .._threads import without_onednn

LAYERS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
CELLS = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")


def has_recurrences(module: nn.Module) -> bool:
    """Whether a layer of the module is a recurrent one of torch's."""
    return any(isinstance(child, nn.RNNBase | nn.RNNCellBase) for child in module.modules())


def taken_apart() -> AbstractContextManager[Any]:
    """A context for a call of the module: under a transform its recurrent layers can be batched."""
    if not torch._C._are_functorch_transforms_active():
        return nullcontext()
    return _OwnStates()


class _OwnStates(FunctionMode):
    """Gives each sample a state of its own to begin with, and keeps oneDNN out."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name not in LAYERS and name not in CELLS:
            return func(*args, **(kwargs or {}))
        sequence, state, *others = args
        if isinstance(others[0], Tensor) and name in LAYERS:  # packed: lengths, and then the state
            return func(*args, **(kwargs or {}))
        nothing = sequence.new_zeros(())  # of each sample, as its sequence is
        one = isinstance(state, Tensor)
        state = state + nothing if one else tuple(part + nothing for part in state)
        with without_onednn():
            return func(sequence, state, *others, **(kwargs or {}))
