"""The optimizer's state in the form that torch's checkpoints take: tensors and numbers, by name."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ..damping.base import Damping
from ..linearizations.dense import DenseForm
from ..residuals.layout import real
from ..rows.matrix import DenseRows

NAMES = {"step", "strategy", "damping", "share", "scale", "last_step", "loss"}
# what param groups of torch's own optimizers have, and ours have not
OTHERS = {"betas", "maximize", "foreach", "line_search_fn", "history_size"}


def label(strategy: Damping) -> int:
    """A number for a strategy with its settings: a flattened checkpoint takes no words."""
    return zlib.crc32(repr(strategy).encode())


def blank_damping(strategy: Damping, like: Tensor) -> Any:
    """A strategy's state of the right shape, for a checkpoint to be loaded into before a step."""
    one = like.new_ones(1)
    rows = DenseForm().accumulator((1,), 1, one)
    rows.add(one, DenseRows(rows.workspace(1).fill_(1)))
    return strategy.start(rows.finish(one.new_zeros(()).double(), None), one, one)


def restored_damping(kept: Mapping[str, Any], kind: type[Any]) -> Any:
    """A strategy's state, a NamedTuple, from what is kept of it; None if that has other fields."""
    return kind(**kept) if kept.keys() == set(kind._fields) else None


@contextmanager
def values_as_saved(
    optimizer: torch.optim.Optimizer, restored: Callable[[], None]
) -> Iterator[None]:
    """Around an optimizer's `load_state_dict`: the state is checked first, and keeps its dtypes.

    torch casts every tensor of the state to the dtype of its parameter, which rounds a damping in
    half precision to zero and turns flags into numbers. Here the values themselves are taken, on
    the device of the parameter.

    Args:
        optimizer: that loads.
        restored: called when the state is there, before hooks of the user's.

    Yields:
        While torch loads.
    """
    loaded: dict[str, Any] = {}

    def notice(_: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
        check_loaded(state_dict, optimizer.param_groups)
        loaded.update(state_dict)  # as the user's own hooks left it

    def restore(_: torch.optim.Optimizer) -> None:
        saved = chain.from_iterable(group["params"] for group in loaded["param_groups"])
        own = chain.from_iterable(group["params"] for group in optimizer.param_groups)
        for key, parameter in zip(saved, own, strict=True):
            if key in loaded["state"]:
                optimizer.state[parameter] = moved(loaded["state"][key], parameter.device)
        restored()

    last = optimizer.register_load_state_dict_pre_hook(notice)
    first = optimizer.register_load_state_dict_post_hook(restore, prepend=True)
    try:
        yield
    finally:
        last.remove()
        first.remove()


def check_loaded(state_dict: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> None:
    """Check that this optimizer can go on from a state.

    Args:
        state_dict: as `load_state_dict` was given it.
        groups: the optimizer's own.

    Raises:
        InputError: it is of another optimizer, or of another model.
    """
    if not {"state", "param_groups"} <= set(state_dict):
        raise InputError(
            f"a state_dict has 'state' and 'param_groups', and this one has {list(state_dict)}."
        )
    foreign = {key for entry in state_dict["state"].values() for key in entry if key not in NAMES}
    foreign |= {
        key
        for group in state_dict["param_groups"]
        if "lower" not in group
        for key in group
        if key in OTHERS
    }
    if foreign:
        raise InputError(
            f"the state is of another optimizer: it has {sorted(map(str, foreign))}. "
            "Levenberg–Marquardt starts anew from the parameters: load the model's state alone."
        )
    saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
    own = chain.from_iterable(group["params"] for group in groups)
    # torch itself refuses groups of other lengths
    for place, (key, parameter) in enumerate(zip(saved, own, strict=False)):
        scale = state_dict["state"].get(key, {}).get("scale")
        size = real(parameter.detach()).numel()
        if scale is not None and scale.numel() != size:
            raise InputError(
                f"the state of parameter {place} has {scale.numel()} entries, and the parameter "
                f"{size}: it is of another model."
            )


def moved(value: Any, device: torch.device) -> Any:
    """A copy of nested dicts of tensors on a device, dtypes kept."""
    if isinstance(value, Tensor):
        return value.detach().clone().to(device)
    if isinstance(value, Mapping):
        return {key: moved(item, device) for key, item in value.items()}
    return value
