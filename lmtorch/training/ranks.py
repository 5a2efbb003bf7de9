"""A model and an optimizer that many processes share: wrapped, sharded, or not the same on all."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._advice import of_each_alone
from .._errors import InputError, RankError
from ..choose.agreed import EXACT, bits, check_numbers, numbers_of
from ..core.problem import Problem
from ..distributed.processes import Processes
from ..residuals.layout import real
from .kept import Kept
from .loaders import RecountedError
from .preparation import Preparations, key_of
from .targets import RowsChangedError
from .terms import Term
from .variables import Variables


def unwrapped(params: Any) -> tuple[Any, tuple[nn.Module, ...]]:
    """Take a module out of DistributedDataParallel.

    Args:
        params: as the optimizer was given them.

    Returns:
        The module itself, or what else was given; and the wrappers around it, or within.

    Raises:
        InputError: parameters are sharded, by FSDP or as DTensors: every process needs all of them.
    """
    around: tuple[nn.Module, ...] = ()
    while isinstance(params, nn.parallel.DistributedDataParallel):
        around, params = (*around, params), params.module
    if isinstance(params, nn.Module):
        fsdp = sys.modules.get("torch.distributed.fsdp")
        whole = getattr(fsdp, "FullyShardedDataParallel", ())
        if any(isinstance(child, whole) for child in params.modules()):
            raise InputError(_sharded("the module is under FullyShardedDataParallel"))
        around = (*around, *(m for m in params.modules() if _parallel(m)))
    return params, around


def warn_if_alone(around: Sequence[nn.Module]) -> None:
    """Say so where a module is shared by processes, and the optimizer is not."""
    groups = (getattr(wrapper, "process_group", None) for wrapper in around)
    if any(group is not None and group.size() > 1 for group in groups):
        of_each_alone()


def _parallel(module: nn.Module) -> bool:
    return isinstance(module, nn.parallel.DistributedDataParallel)


def refuse_sharded(named: Iterable[tuple[str, Tensor]]) -> None:
    """Check that every parameter is whole on this process.

    Raises:
        InputError: one is a DTensor, or a flat parameter of FSDP.
    """
    tensors = sys.modules.get("torch.distributed.tensor")
    kind: Any = getattr(tensors, "DTensor", ())
    for name, tensor in named:
        if isinstance(tensor, kind) or hasattr(tensor, "_is_flat_param"):
            raise InputError(_sharded(f"{name} is a {type(tensor).__name__}"))


def _sharded(what: str) -> str:
    return (
        f"{what}: its values are spread over processes, and a step solves for all of them "
        "together. Give the plain module, or one under DistributedDataParallel, whose parameters "
        "are whole on every process (full_tensor() of a DTensor), and process_group for the data."
    )


@contextmanager
def plain(around: Sequence[nn.Module]) -> Iterator[None]:
    """While it lasts, DistributedDataParallel does nothing but call its module.

    Its gradients are not used here, and what it sends itself would meet what other processes send.
    """
    with ExitStack() as stack:
        for wrapper in around:
            inner: Any = wrapper.module
            wrapper.__dict__["forward"] = inner.__call__
            stack.callback(wrapper.__dict__.pop, "forward")
        yield


def spread_first(processes: Processes, params: Any, module: nn.Module | None) -> None:
    """Give all processes the parameters and buffers of the first, as DistributedDataParallel does.

    Args:
        processes: those that share the rows.
        params: the optimizer's param groups.
        module: the model, if it is known.

    Raises:
        InputError: they are different models.
    """
    tensors = [p for group in params for p in group["params"]]
    if module is not None:
        tensors += [b for b in module.buffers() if not any(b is t for t in tensors)]
    there = [t for t in tensors if not nn.parameter.is_lazy(t) and t.layout == torch.strided]
    sizes = float(sum(t.numel() for t in there) % EXACT)
    _, each = processes.telling("start", lambda: None, lambda _: [float(len(there)), sizes], 2)
    if len({tuple(row) for row in each.tolist()}) > 1:
        raise InputError(
            "the processes have different models: numbers of tensors, and of their entries, are "
            f"{each.long().tolist()}."
        )
    with torch.no_grad():
        found = processes.first([real(t.detach()) for t in there])
        for tensor, value in zip(there, found, strict=True):
            real(tensor.detach()).copy_(value)


def spread_buffers(processes: Processes | None, buffers: Sequence[Tensor]) -> None:
    """Give all processes, if there are others, the buffers of the first: each saw its own data."""
    if processes is None:
        return
    with torch.no_grad():
        for buffer, value in zip(buffers, processes.first(list(buffers)), strict=True):
            buffer.copy_(value)


def met(
    processes: Processes,
    variables: Variables,
    terms: Sequence[Term],
    x: Tensor,
    kept: Kept,
    options: Mapping[str, Any],
    preparations: Preparations,
) -> tuple[int, ...]:
    """Check that all processes begin a step at the same point, and tell their terms apart.

    Args:
        processes: those that share the rows.
        variables: the parameters.
        terms: of this process.
        x: the parameters as one vector.
        kept: the optimizer's state.
        options: what the step is asked for, by name.
        preparations: forgotten by all where one has forgotten them, as when it is unpickled.

    Returns:
        A number for the terms of each process: where all are as before, so is what was planned.

    Raises:
        InputError: parameters, options or the optimizer's state differ.
    """
    numbers = numbers_of(options)
    own = [
        bits(x),
        _state_bits(kept.common) if kept.steps else 0.0,  # before, a state may be prepared: blanks
        float(kept.steps),
        float(hash(key_of(variables, terms, x)) % EXACT),
        float(len(preparations.known)),
        *numbers.values(),
    ]
    _, each = processes.telling("begin", lambda: None, lambda _: own, len(own))
    for place, what in ((0, "parameters"), (2, "number of steps"), (1, "damping")):
        values = each[:, place]
        if bool((values != values[0]).any()):
            odd = processes.names[int((values != values[0]).nonzero()[0])]
            raise InputError(
                f"the {what} of rank {odd} differ from rank {processes.names[0]}'s: something has "
                "changed it on one process alone, such as a checkpoint that only one has loaded. "
                "Load and change it on all of them, or make the optimizer anew, which gives all "
                "the parameters of the first."
            )
    check_numbers(processes, list(numbers), each[:, 5:])
    if bool((each[:, 4] != each[0, 4]).any()):
        preparations.forget()
    return tuple(int(number) for number in each[:, 3])


def _state_bits(common: Mapping[str, Any]) -> float:
    """The same of λ and what belongs to it."""
    damping = common.get("damping") or {}
    return sum(bits(value) for value in damping.values() if isinstance(value, Tensor)) % EXACT


def name_not_finite(processes: Processes, problem: Problem, x: Tensor) -> None:
    """Say whose data are not finite at x, where a step has ended for that.

    Raises:
        RankError: NaN or infinity among the residuals of a process, or their derivatives.
    """
    _, fine = processes.telling("finite", lambda: problem.finite(x), lambda own: [float(own)], 1)
    odd = [name for name, one in zip(processes.names, fine[:, 0].tolist(), strict=True) if not one]
    if odd:
        others = f", as on ranks {odd[1:]}" if odd[1:] else ""
        reason = f"NaN or infinity among them or their derivatives{others}"
        raise RankError(odd[0], "residuals", reason)


def changed(error: BaseException) -> bool:
    """Whether rows have changed, here or, as all processes know, elsewhere."""
    return isinstance(error, RowsChangedError) or getattr(error, "rows_changed", False)


def counted_anew(error: BaseException, processes: Processes | None) -> bool:
    """Whether a loader had another number of samples, which all processes know in the same way."""
    return isinstance(error, RecountedError) if processes is None else changed(error)
