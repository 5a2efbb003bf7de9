"""What the optimizer keeps between steps, in the form that torch's checkpoints take: tensors and numbers, by name."""

import zlib
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ..damping.base import Damping
from ..linearizations.dense import DenseForm
from ..residuals.layout import real
from ..rows.dense import DenseRows

NAMES = {"step", "strategy", "damping", "share", "scale"}
# what param groups of torch's own optimizers have, and ours have not
OTHERS = {"betas", "maximize", "foreach", "line_search_fn", "history_size"}


def label(strategy: Damping) -> int:
    """A number for a strategy with its settings; a word would not go into a flattened checkpoint."""
    return zlib.crc32(repr(strategy).encode())


def blank_damping(strategy: Damping, like: Tensor) -> Any:
    """A strategy's state of the right shape, which a checkpoint that is loaded into a fresh optimizer looks for."""
    one = like.new_ones(1)
    rows = DenseForm().accumulator((1,), 1, one)
    rows.add(one, DenseRows(rows.workspace(1).fill_(1)))
    return strategy.start(rows.finish(one.new_zeros(()).double(), None), one, one)


def restored_damping(kept: Mapping[str, Any], kind: type[Any]) -> Any:
    """A strategy's state of its kind, a NamedTuple, from what is kept of it; None if that has other fields."""
    return kind(**kept) if kept.keys() == set(kind._fields) else None


def check_loaded(state_dict: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> None:
    """A state that this optimizer can go on from.

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
            f"the state is of another optimizer: it has {sorted(map(str, foreign))}. Levenberg–Marquardt starts anew "
            "from the parameters: load the model's state alone."
        )
    saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
    own = chain.from_iterable(group["params"] for group in groups)
    # torch itself refuses groups of other lengths
    for place, (key, parameter) in enumerate(zip(saved, own, strict=False)):
        scale = state_dict["state"].get(key, {}).get("scale")
        size = real(parameter.detach()).numel()
        if scale is not None and scale.numel() != size:
            raise InputError(
                f"the state of parameter {place} has {scale.numel()} entries, and the parameter {size}: it is of "
                "another model."
            )


def moved(value: Any, device: torch.device) -> Any:
    """A copy of nested dicts of tensors on a device, dtypes kept."""
    if isinstance(value, Tensor):
        return value.detach().clone().to(device)
    if isinstance(value, Mapping):
        return {key: moved(item, device) for key, item in value.items()}
    return value
