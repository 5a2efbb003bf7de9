"""Outputs in the parameters of a model: the Jacobian of every sample, by parameter, or single columns of it."""

from collections.abc import Sequence, Set
from functools import partial
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap
from torch.nn.attention import sdpa_kernel
from torch.nn.parameter import is_lazy

from .. import _memory
from .._autodiff import ranges
from .._errors import InputError
from .._modules import call_with
from .._threads import forward_mode
from ..jacobians.base import Workspace
from ..jacobians.layerwise import LayerWise, NotLayerwiseError
from ..residuals.base import Part
from .calling import (
    at_once,
    check_chunk,
    check_kind,
    first_that_works,
    followed,
    refuse_coupling,
    transformed,
)
from .layers import blocks_of_layers
from .passes import PLAIN, Cut, wanted

USUAL = 64  # outputs of a sample at most, nearly always
Index = int | tuple[int, ...]
SMALL = 64 * 2**20  # bytes up to which nobody is asked how much memory is free


def parameter_jacobian(
    model: nn.Module,
    *inputs: Tensor,
    names: Sequence[str] | None = None,
    output: Index | None = None,
    mode: str = "auto",
    chunk_size: int | None = None,
) -> dict[str, Tensor]:
    """Every sample's outputs in the parameters of a model: ∂out/∂w for each weight, each bias.

    Args:
        model: called as `model(*inputs)`, for a batch: samples first in every input and in the output.
        *inputs: `(batch, ...)` each.
        names: of the parameters (blocks of columns), as in `model.named_parameters()`. Default: all that require a
            gradient.
        output: place in a sample's output, an int or tuple: that row alone. Default: all.
        mode: "layerwise" (rows as outer products, for models of linear layers alone; not differentiable itself),
            "reverse" (`vmap` over samples of the VJPs of one) or "autograd" (row by row). Default: "auto": "layerwise"
            under `torch.no_grad()`, else "reverse", and the next where a model refuses.
        chunk_size: samples at once. Default: by the memory that is free and the cache.

    Returns:
        A dict by parameter name, `(batch, *out, *param)` each; with `output`, `(batch, *param)`. Dtype and device of
        the parameters. Differentiable, unless under `torch.no_grad()`.

    Raises:
        InputError: no module, unknown names, no parameter that requires a gradient, an output that is not there, or a
            layer that couples samples.

    Example:
        >>> import torch, lmtorch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        >>> J = lmtorch.parameter_jacobian(model, torch.rand(5, 2))
        >>> {name: tuple(block.shape) for name, block in J.items()}
        {'0.weight': (5, 3, 8, 2), '0.bias': (5, 3, 8), '2.weight': (5, 3, 3, 8), '2.bias': (5, 3, 3)}
        >>> bool((J["2.bias"] == torch.eye(3)).all())   # out = W h + b
        True
    """
    parameters = _parameters(model, names)
    count = _samples(inputs)
    check_chunk(chunk_size)
    if output is not None and not all(
        isinstance(i, SupportsIndex) for i in (output if isinstance(output, tuple) else (output,))
    ):
        raise InputError(
            f"output={output!r} is no place in a sample's output: give an int, or a tuple of ints."
        )
    refuse_coupling(model)
    tensors = tuple(parameters.values())

    def rows_of(params: tuple[Tensor, ...], *some: Tensor) -> Tensor:
        """Outputs of the samples, all of them or the one that is asked for, flat, (s, k)."""
        y = call_with(model, dict(zip(parameters, params, strict=True)), some)
        shapes.append(_shape(y, some[0].shape[0]))
        return _chosen(y, output).reshape(some[0].shape[0], -1)

    shapes: list[torch.Size] = []
    n = sum(t.numel() for t in tensors)

    def chunk(rows_per_sample: int) -> int:
        """Samples at once: what is made of them stays, so that only memory bounds them."""
        each = 2 * rows_per_sample * n * tensors[0].element_size()
        if chunk_size is not None or transformed() or each * count <= SMALL:
            return chunk_size or max(1, count)
        return max(1, _memory.budget(inputs[0].device) // each)

    def size() -> int:
        """Of a sample's output, as far as the rows are concerned; of little a guess, which costs no evaluation."""
        if 2 * USUAL * n * tensors[0].element_size() * count <= SMALL:
            return USUAL
        with torch.no_grad():
            return rows_of(tensors, *(t[:1] for t in inputs)).shape[1]

    def rows_with(params: tuple[Tensor, ...], samples: tuple[Tensor, ...]) -> Tensor:
        return rows_of(params, *samples)

    def flat(params: tuple[Tensor, ...], samples: tuple[Tensor, ...]) -> Tensor:
        return rows_of(params, *samples).reshape(-1)

    def layerwise() -> list[Tensor]:
        if (torch.is_grad_enabled() and mode == "auto") or transformed():
            raise RuntimeError("rows of linear layers are not differentiable themselves")
        step = chunk(size())
        parts = []
        for some in ranges(count, step):
            samples = tuple(t[some] for t in inputs)
            try:
                parts.append(blocks_of_layers(partial(rows_with, samples=samples), tensors))
            except NotLayerwiseError:  # numbers beside the layers, perhaps
                part = Part(
                    partial(flat, samples=samples), _unused, sample=_unused, samples=samples
                )
                rows = torch.cat(
                    [
                        block.rows.dense()
                        for block in LayerWise().blocks(
                            part, tensors, Workspace(partial(_workspace, tensors[0], n))
                        )
                    ]
                )
                parts.append(_split(rows.view(len(samples[0]), -1, n), tensors))
        return _joined(parts) if parts else _empty(tensors)

    def reverse() -> list[Tensor]:
        def of_one(params: tuple[Tensor, ...], *sample: Tensor) -> tuple[Tensor, ...]:
            y, pull = vjp(lambda p: rows_of(p, *(t[None] for t in sample))[0], params)[:2]
            gradients: tuple[Tensor, ...] = vmap(lambda w: pull(w)[0])(
                torch.eye(len(y), dtype=y.dtype, device=y.device)
            )
            return gradients

        in_dims = (None, *(0 for _ in inputs))
        parts: list[tuple[Tensor, ...]] = [
            vmap(of_one, in_dims, randomness="different")(tensors, *(t[some] for t in inputs))
            for some in ranges(count, chunk(size()))
        ]
        return _joined(parts) if parts else _empty(tensors)

    def autograd() -> list[Tensor]:
        record = torch.is_grad_enabled()
        with torch.enable_grad():
            twins = tuple(
                t if record and t.requires_grad else t.detach().requires_grad_() for t in tensors
            )
            blocks: list[list[Tensor]] = [[] for _ in twins]
            for i in range(count):
                for value in rows_of(twins, *(t[i : i + 1] for t in inputs))[0]:
                    value = (
                        value if value.requires_grad else value + 0 * twins[0].sum()
                    )  # none of them acts
                    gradients = torch.autograd.grad(
                        value,
                        twins,
                        retain_graph=True,
                        create_graph=record,
                        allow_unused=True,
                        materialize_grads=True,
                    )
                    for block, gradient in zip(blocks, gradients, strict=True):
                        block.append(gradient)
        return (
            [torch.stack(block).unflatten(0, (count, -1)) for block in blocks]
            if count
            else _empty(tensors)
        )

    if count == 0:
        with torch.no_grad():
            shapes.append(_shape(model(*inputs), count))
    found = first_that_works(
        [("layerwise", layerwise), ("reverse", reverse), ("autograd", autograd)], mode
    )
    outputs = () if output is not None or not shapes else shapes[-1]
    return {
        name: block.reshape(count, *outputs, *tensor.shape)
        for (name, tensor), block in zip(parameters.items(), found, strict=True)
    }


def parameter_column(
    model: nn.Module,
    name: str | Sequence[str],
    index: Index | Sequence[Index],
    *inputs: Tensor,
    mode: str = "auto",
    chunk_size: int | None = None,
) -> Tensor:
    """∂out/∂w of a single weight or bias, for every output of every sample, by one forward pass.

    Several columns are vectorised: give lists of names and indices, or one name and a list of indices.

    Args:
        model: called as `model(*inputs)`.
        name: of the parameter, as in `model.named_parameters()`; or a list.
        index: place in the parameter: a tuple with one number for each of its dimensions, or one number that counts
            its entries row by row, as in `parameter.flatten()[index]`; or a list of such places.
        *inputs: whatever the model takes, tensors.
        mode: "forward" (JVPs), "reverse" (VJPs of VJPs, for what has no forward formula) or "autograd" (the same by
            plain autograd, for what torch.func refuses). Default: "auto".
        chunk_size: columns at once, where several are asked for. Default: by the memory that is free and the cache.

    Returns:
        The shape of the output, `(batch, *out)`; for lists of length c, `(c, batch, *out)`. Differentiable.

    Raises:
        InputError: no module, an unknown name, or an index that is not in the parameter.

    Example:
        >>> import torch, lmtorch
        >>> model, x = torch.nn.Linear(2, 3), torch.tensor([[5.0, 7.0]])
        >>> lmtorch.parameter_column(model, "weight", (2, 1), x)   # ∂(Wx + b)/∂w₂₁ = x₁ e₂
        tensor([[0., 0., 7.]]...)
    """
    check_chunk(chunk_size)
    _tensors(inputs)
    several = not isinstance(name, str) or isinstance(index, list)
    indices: list[Any] = list(index) if isinstance(index, list) else [index]
    names = [name] * len(indices) if isinstance(name, str) else _names(name, "name")
    if len(indices) == 1 and len(names) > 1:
        indices = indices * len(names)
    if len(names) != len(indices) or not names:
        raise InputError(
            f"{len(names)} name(s) and {len(indices)} index(es): one index for each column is needed."
        )
    parameters = _parameters(model, list(dict.fromkeys(names)))
    places = [_place(n, parameters[n], i) for n, i in zip(names, indices, strict=True)]
    tensors = tuple(parameters.values())

    record = followed()
    if not record:  # `Cut` records what the function does
        tensors, inputs = tuple(t.detach() for t in tensors), tuple(map(_constant, inputs))
    others = (
        {}
        if record
        else {n: p.detach() for n, p in model.named_parameters() if n not in parameters}
    )

    def function(params: tuple[Tensor, ...]) -> Tensor:
        return _output(
            call_with(model, {**others, **dict(zip(parameters, params, strict=True))}, inputs)
        )

    tangents = tuple(t.new_zeros(len(places), t.numel()) for t in tensors)
    order = list(parameters)
    for column, (called, place) in enumerate(zip(names, places, strict=True)):
        tangents[order.index(called)][column, place] = 1
    tangents = tuple(v.reshape(-1, *t.shape) for v, t in zip(tangents, tensors, strict=True))

    def forward() -> Tensor:
        cut = Cut(function)

        def along(*direction: Tensor) -> Tensor:
            derivative: Tensor = torch.func.jvp(cut, (tensors,), (direction,))[1]
            return derivative if record else derivative.detach()

        with forward_mode():
            if len(places) == 1:
                return cut.held(along(*(v[0] for v in tangents))[None])
            chunk = at_once(lambda: function(tensors), len(places), chunk_size, tensors[0].device)
            result: Tensor = vmap(along, randomness="same", chunk_size=chunk)(*tangents)
        return cut.held(result)

    def reverse() -> Tensor:
        with sdpa_kernel(PLAIN):
            y, pull = vjp(function, tensors)[:2]
        _, twice = vjp(lambda w: pull(w)[0], torch.zeros_like(y))[:2]
        return torch.stack([twice(tuple(v[c] for v in tangents))[0] for c in range(len(places))])

    def autograd() -> Tensor:
        record = torch.is_grad_enabled()
        twins = tuple(
            t.view_as(t) if record and t.requires_grad else t.detach().requires_grad_()
            for t in tensors
        )
        with torch.enable_grad(), sdpa_kernel(PLAIN):
            y = function(twins)
            w = torch.zeros_like(y, requires_grad=True)
            if not y.requires_grad:
                return y.new_zeros(len(places), *y.shape)
            # Jᵀw is linear in w, and its derivative in w along a unit vector is the column
            pulled = torch.autograd.grad(y, twins, w, create_graph=True, materialize_grads=True)
            found = [
                torch.autograd.grad(
                    pulled,
                    w,
                    [v[c] for v in tangents],
                    retain_graph=True,
                    create_graph=record,
                    materialize_grads=True,
                )[0]
                for c in range(len(places))
            ]
        return torch.stack(found) if record and wanted(y, *twins) else torch.stack(found).detach()

    columns = first_that_works(
        [("forward", forward), ("reverse", reverse), ("autograd", autograd)], mode
    )
    return columns if several else columns[0]


# ---- what both ask for -----------------------------------------------------------------------------------------------


def _parameters(model: Any, names: Sequence[str] | None) -> dict[str, Tensor]:
    if not isinstance(model, nn.Module):
        raise InputError(
            f"the model must be an nn.Module, whose parameters have names; this is {type(model).__name__}."
        )
    if isinstance(model, nn.DataParallel):
        raise InputError(
            "nn.DataParallel copies the model for each device, and has no parameters of its own: pass model.module."
        )
    there: dict[str, Tensor] = dict(model.named_parameters())
    lazy = next((name for name, p in there.items() if is_lazy(p)), None)
    if lazy is not None:
        raise InputError(
            f"the parameter {lazy!r} has no shape yet: call the model once on data, then differentiate."
        )
    if names is None:
        chosen = {name: p for name, p in there.items() if p.requires_grad}
        if not chosen:
            raise InputError(
                "no parameter of the model requires a gradient. Name those that are meant: names=[...]."
            )
        return chosen
    names = [names] if isinstance(names, str) else _names(names, "names")
    if not names:
        raise InputError(
            "names is empty: name the parameters that are meant, or leave it out for all."
        )
    unknown = [name for name in names if name not in there]
    if unknown:
        raise InputError(
            f"the model has no parameter {unknown[0]!r}. Its parameters: {', '.join(there) or 'none'}."
        )
    return {name: there[name] for name in names}


def _names(names: Any, option: str) -> list[str]:
    """Names of parameters, as they were given.

    Returns:
        A list.

    Raises:
        InputError: it is none.
    """
    if not isinstance(names, Sequence | Set) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{option}={names!r} is no name of a parameter and no list of names.")
    return list(names)


def _samples(inputs: tuple[Any, ...]) -> int:
    _tensors(inputs)
    if not inputs or any(t.ndim == 0 for t in inputs):
        raise InputError("the inputs must be tensors with the samples in their first dimension.")
    counts = [t.shape[0] for t in inputs]
    if len(set(counts)) > 1:
        raise InputError(
            f"the inputs disagree on the number of samples: first dimensions {counts}."
        )
    return counts[0]


def _tensors(inputs: tuple[Any, ...]) -> None:
    for place, t in enumerate(inputs):
        if not isinstance(t, Tensor):
            raise InputError(
                f"inputs must be tensors; number {place} is {type(t).__name__}: torch.as_tensor makes one."
            )
        check_kind(t, f"input {place}")


def _output(y: Any) -> Tensor:
    if not isinstance(y, Tensor):
        raise InputError(
            f"the model returned {type(y).__name__}. Wrap it in a module that returns the one tensor meant."
        )
    return y


def _shape(y: Any, count: int) -> torch.Size:
    """Of one sample's output."""
    if _output(y).ndim == 0 or y.shape[0] != count:
        raise InputError(
            f"the model returned shape {tuple(y.shape)} for {count} samples: samples must come first."
        )
    return y.shape[1:]


def _chosen(y: Tensor, output: Any) -> Tensor:
    if output is None:
        return y
    place = output if isinstance(output, tuple) else (output,)
    if len(place) != y.ndim - 1 or any(
        not -size <= i < size for i, size in zip(place, y.shape[1:], strict=True)
    ):
        raise InputError(
            f"output={output} is no place in a sample's output of shape {tuple(y.shape[1:])}."
        )
    row: Tensor = y[(slice(None), *place)]
    return row


def _place(name: str, parameter: Tensor, index: Any) -> int:
    """Among the entries, row by row."""
    shape = tuple(parameter.shape)
    if isinstance(index, SupportsIndex):
        fits = -parameter.numel() <= int(index) < parameter.numel()
        place = int(index) % max(1, parameter.numel())
    else:
        fits = (
            isinstance(index, tuple | list)
            and len(index) == len(shape)
            and all(
                isinstance(i, SupportsIndex) and -n <= int(i) < n
                for i, n in zip(index, shape, strict=True)
            )
        )
        place = 0
        if fits:
            for i, n in zip(index, shape, strict=True):
                place = place * n + i % n
    if not fits:
        raise InputError(f"index {index} is not in {name!r}, whose shape is {shape}.")
    return place


def _unused(*args: Any) -> Any:
    raise AssertionError("layerwise rows evaluate the part as a whole")


def _split(rows: Tensor, tensors: tuple[Tensor, ...]) -> list[Tensor]:
    return list(rows.split([t.numel() for t in tensors], -1))


def _constant(argument: Any) -> Any:
    return argument.detach() if isinstance(argument, Tensor) else argument


def _joined(parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Blocks of all samples; of a single chunk without a copy."""
    return (
        list(parts[0])
        if len(parts) == 1
        else [torch.cat(blocks) for blocks in zip(*parts, strict=True)]
    )


def _workspace(like: Tensor, n: int, rows: int) -> Tensor:
    return like.new_empty(rows, n)


def _empty(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    return [t.new_zeros(0, *t.shape) for t in tensors]
