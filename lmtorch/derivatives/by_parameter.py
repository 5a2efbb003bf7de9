"""Derivatives in a model's parameters: the Jacobian of every sample, or single columns of it."""

from collections.abc import Sequence, Set
from functools import partial
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap
from torch.nn.attention import sdpa_kernel
from torch.nn.parameter import is_lazy

from .. import _memory
from .._autodiff import Function, Params, ranges
from .._errors import InputError
from .._modules import call_with
from .._threads import forward_mode
from ..jacobians.linear_layers import (
    Recorder,
    check,
    columns_beside,
    output_gradients,
    rows_in,
)
from .calling import (
    at_once,
    check_chunk,
    check_kind,
    first_that_works,
    followed,
    refuse_coupling,
    transformed,
)
from .passes import PLAIN, Cut, wanted

Index = int | tuple[int, ...]
USUAL = 64  # nearly no sample has more outputs than that
SMALL = 64 * 2**20  # results of fewer bytes are not checked against the free memory
CHECKED = 4  # rows of so many samples are compared with autograd's


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
        model: called as `model(*inputs)`, for a batch: samples first in every input and in the
            output.
        *inputs: `(batch, ...)` each.
        names: of the parameters (blocks of columns), as in `model.named_parameters()`. Default: all
            that require a gradient.
        output: place in a sample's output, an int or tuple: that row alone. Default: all.
        mode: "layerwise" (rows as outer products, for models of linear layers alone; not
            differentiable itself), "reverse" (`vmap` over samples of the VJPs of one) or "autograd"
            (row by row). Default: "auto": "layerwise" under `torch.no_grad()`, else "reverse", and
            the next where a model refuses.
        chunk_size: samples at once. Default: by the memory that is free and the cache.

    Returns:
        A dict by parameter name, `(batch, *out, *param)` each; with `output`, `(batch, *param)`.
        Dtype and device of the parameters. Differentiable, unless under `torch.no_grad()`.

    Raises:
        InputError: no module, unknown names, no parameter that requires a gradient, an output that
            is not there, or a layer that couples samples.

    Example:
        >>> import torch, lmtorch
        >>> from torch.nn import Linear, Sequential, Tanh
        >>> model = Sequential(Linear(2, 8), Tanh(), Linear(8, 3))
        >>> J = lmtorch.parameter_jacobian(model, torch.rand(5, 2))
        >>> {name: tuple(block.shape) for name, block in J.items()}
        {'0.weight': (5, 3, 8, 2), '0.bias': (5, 3, 8), '2.weight': (5, 3, 3, 8), '2.bias': (5, 3,
        3)}
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
    outputs = _Outputs(model, list(parameters), output)
    chunks = partial(_chunks, outputs, tensors, inputs, chunk_size)

    def layerwise() -> list[Tensor]:
        if (torch.is_grad_enabled() and mode == "auto") or transformed():
            raise RuntimeError("rows of linear layers are not differentiable themselves")
        return _joined([_by_layers(outputs, tensors, some) for some in chunks()], tensors)

    def reverse() -> list[Tensor]:
        return _joined([_by_reverse(outputs, tensors, some) for some in chunks()], tensors)

    def autograd() -> list[Tensor]:
        return _by_autograd(outputs, tensors, inputs)

    if count == 0:  # there is nothing to differentiate, which would show the shape
        with torch.no_grad():
            outputs.look(model(*inputs), count)
    ways = [("layerwise", layerwise), ("reverse", reverse), ("autograd", autograd)]
    found = first_that_works(ways, mode)
    shape = outputs.shape if output is None else ()
    return {
        name: block.reshape(count, *shape, *tensor.shape)
        for (name, tensor), block in zip(parameters.items(), found, strict=True)
    }


class _Outputs:
    """A model's outputs as a function of its parameters, a row of k for each sample.

    Args:
        model: called for a batch.
        names: of the parameters.
        output: place in a sample's output, whose row is the only one; None: all.

    Attributes:
        shape: of a sample's output, as the last evaluation had it.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], output: Index | None) -> None:
        self.model = model
        self.names = names
        self.output = output
        self.shape = torch.Size()

    def __call__(self, params: Params, *samples: Tensor) -> Tensor:
        """The outputs (s, k) of s samples at other values of the parameters."""
        count = samples[0].shape[0]
        y = call_with(self.model, dict(zip(self.names, params, strict=True)), samples)
        self.look(y, count)
        return _chosen(y, self.output).reshape(count, -1)

    def look(self, y: Any, count: int) -> None:
        """Take note of the shape of what the model has returned.

        Raises:
            InputError: it is no tensor, or samples do not come first.
        """
        if _output(y).ndim == 0 or y.shape[0] != count:
            raise InputError(
                f"the model returned shape {tuple(y.shape)} for {count} samples: samples must come "
                "first."
            )
        self.shape = y.shape[1:]


def _chunks(
    outputs: _Outputs, tensors: Params, inputs: tuple[Tensor, ...], chunk_size: int | None
) -> list[tuple[Tensor, ...]]:
    """The samples, as many at once as asked for, or as the memory holds rows of."""
    count = inputs[0].shape[0]
    step = chunk_size or count
    row = 2 * sum(t.numel() for t in tensors) * tensors[0].element_size()
    if chunk_size is None and not transformed() and USUAL * row * count > SMALL:
        with torch.no_grad():
            each = row * outputs(tensors, *(t[:1] for t in inputs)).shape[1]
        if each * count > SMALL:  # what is made stays, so that only memory bounds it
            step = max(1, _memory.budget(inputs[0].device) // each)
    return [tuple(t[some] for t in inputs) for some in ranges(count, step)]


def _by_layers(outputs: _Outputs, tensors: Params, samples: tuple[Tensor, ...]) -> list[Tensor]:
    """Rows of linear layers as outer products, (s, k, *param) each, without a graph."""
    count = samples[0].shape[0]
    with torch.enable_grad(), Recorder(tensors) as recorder:
        recording = recorder.recording(outputs(recorder.twins, *samples), count, search=False)
    gradients, beside = output_gradients(recording), columns_beside(recording)
    blocks = [rows_in(place, recording, gradients, beside) for place in range(len(tensors))]
    first = [
        block[:CHECKED].reshape(-1, t.numel()) for block, t in zip(blocks, tensors, strict=True)
    ]
    check(torch.cat(first, 1), recording)
    return blocks


def _by_reverse(
    outputs: _Outputs, tensors: Params, samples: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Rows by the VJPs of each sample, (s, k, *param) each."""

    def of_one(params: Params, *sample: Tensor) -> Params:
        y, pull = vjp(lambda p: outputs(p, *(t[None] for t in sample))[0], params)[:2]
        directions = torch.eye(len(y), dtype=y.dtype, device=y.device)
        gradients: Params = vmap(lambda w: pull(w)[0])(directions)
        return gradients

    in_dims = (None, *(0 for _ in samples))
    rows: Params = vmap(of_one, in_dims, randomness="different")(tensors, *samples)
    return rows


def _by_autograd(outputs: _Outputs, tensors: Params, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Rows one by one, (count, k, *param) each."""
    count = inputs[0].shape[0]
    if count == 0:
        return _joined([], tensors)
    record = torch.is_grad_enabled()
    with torch.enable_grad():
        twins = tuple(
            t if record and t.requires_grad else t.detach().requires_grad_() for t in tensors
        )
        rows = [
            _gradients(value, twins, record)
            for i in range(count)
            for value in outputs(twins, *(t[i : i + 1] for t in inputs))[0]
        ]
    return [torch.stack(block).unflatten(0, (count, -1)) for block in zip(*rows, strict=True)]


def _gradients(value: Tensor, twins: Params, record: bool) -> Params:
    """The gradient of one output in every parameter, itself recorded or not."""
    if not value.requires_grad:  # no parameter has an influence on it
        value = value + 0 * twins[0].sum()
    return torch.autograd.grad(
        value,
        twins,
        retain_graph=True,
        create_graph=record,
        allow_unused=True,
        materialize_grads=True,
    )


def _joined(parts: Sequence[Sequence[Tensor]], tensors: Params) -> list[Tensor]:
    """Blocks of all samples from those of each chunk; of a single chunk without a copy."""
    if not parts:
        return [t.new_zeros(0, *t.shape) for t in tensors]
    if len(parts) == 1:
        return list(parts[0])
    return [torch.cat(blocks) for blocks in zip(*parts, strict=True)]


def parameter_column(
    model: nn.Module,
    name: str | Sequence[str],
    index: Index | Sequence[Index],
    *inputs: Tensor,
    mode: str = "auto",
    chunk_size: int | None = None,
) -> Tensor:
    """∂out/∂w of a single weight or bias, for every output of every sample, by one forward pass.

    Several columns are vectorised: give lists of names and indices, or one name and a list of
    indices.

    Args:
        model: called as `model(*inputs)`.
        name: of the parameter, as in `model.named_parameters()`; or a list.
        index: place in the parameter: a tuple with one number for each of its dimensions, or one
            number that counts its entries row by row, as in `parameter.flatten()[index]`; or a list
            of such places.
        *inputs: whatever the model takes, tensors.
        mode: "forward" (JVPs), "reverse" (VJPs of VJPs, for what has no forward formula) or
            "autograd" (the same by plain autograd, for what torch.func refuses). Default: "auto".
        chunk_size: columns at once, where several are asked for. Default: by the memory that is
            free and the cache.

    Returns:
        The shape of the output, `(batch, *out)`; for lists of length c, `(c, batch, *out)`.
        Differentiable.

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
    names, indices = _paired(name, index)
    parameters = _parameters(model, list(dict.fromkeys(names)))
    places = [_place(n, parameters[n], i) for n, i in zip(names, indices, strict=True)]
    tensors, others = tuple(parameters.values()), {}
    if not followed():  # `Cut` records what the function does
        tensors, inputs = tuple(t.detach() for t in tensors), tuple(map(_constant, inputs))
        others = {n: p.detach() for n, p in model.named_parameters() if n not in parameters}

    def function(params: Params) -> Tensor:
        own = dict(zip(parameters, params, strict=True))
        return _output(call_with(model, {**others, **own}, inputs))

    tangents = tuple(t.new_zeros(len(places), t.numel()) for t in tensors)
    order = list(parameters)
    for column, (called, place) in enumerate(zip(names, places, strict=True)):
        tangents[order.index(called)][column, place] = 1
    tangents = tuple(v.reshape(-1, *t.shape) for v, t in zip(tangents, tensors, strict=True))

    ways = [
        ("forward", partial(_columns_by_forward, function, tensors, tangents, chunk_size)),
        ("reverse", partial(_columns_by_reverse, function, tensors, tangents)),
        ("autograd", partial(_columns_by_autograd, function, tensors, tangents)),
    ]
    columns = first_that_works(ways, mode)
    return columns if several else columns[0]


def _paired(
    name: str | Sequence[str], index: Index | Sequence[Index]
) -> tuple[list[str], list[Any]]:
    """A name and an index for each column.

    Returns:
        Two lists of equal lengths.

    Raises:
        InputError: they do not go together.
    """
    indices: list[Any] = list(index) if isinstance(index, list) else [index]
    names = [name] * len(indices) if isinstance(name, str) else _names(name, "name")
    if len(indices) == 1 and len(names) > 1:
        indices = indices * len(names)
    if len(names) != len(indices) or not names:
        raise InputError(
            f"{len(names)} name(s) and {len(indices)} index(es): one index for each column is "
            "needed."
        )
    return names, indices


def _columns_by_forward(
    function: Function, tensors: Params, tangents: Params, chunk_size: int | None
) -> Tensor:
    """J v for each of the tangents (c, *param), (c, *out), by forward mode."""
    cut, record = Cut(function), followed()

    def along(*direction: Tensor) -> Tensor:
        derivative: Tensor = torch.func.jvp(cut, (tensors,), (direction,))[1]
        return derivative if record else derivative.detach()

    count = len(tangents[0])
    with forward_mode():
        if count == 1:
            return cut.held(along(*(v[0] for v in tangents))[None])
        chunk = at_once(lambda: function(tensors), count, chunk_size, tensors[0].device)
        result: Tensor = vmap(along, randomness="same", chunk_size=chunk)(*tangents)
    return cut.held(result)


def _columns_by_reverse(function: Function, tensors: Params, tangents: Params) -> Tensor:
    """J v for each of the tangents (c, *param), (c, *out), as VJPs of a VJP."""
    with sdpa_kernel(PLAIN):
        y, pull = vjp(function, tensors)[:2]
    _, twice = vjp(lambda w: pull(w)[0], torch.zeros_like(y))[:2]
    return torch.stack([twice(direction)[0] for direction in zip(*tangents, strict=True)])


def _columns_by_autograd(function: Function, tensors: Params, tangents: Params) -> Tensor:
    """J v for each of the tangents (c, *param), (c, *out), by plain autograd."""
    record = torch.is_grad_enabled()
    twins = tuple(
        t.view_as(t) if record and t.requires_grad else t.detach().requires_grad_() for t in tensors
    )
    with torch.enable_grad(), sdpa_kernel(PLAIN):
        y = function(twins)
        w = torch.zeros_like(y, requires_grad=True)
        if not y.requires_grad:
            return y.new_zeros(len(tangents[0]), *y.shape)
        # Jᵀw is linear in w, and its derivative in w along a unit vector is the column
        pulled = torch.autograd.grad(y, twins, w, create_graph=True, materialize_grads=True)
        found = [
            torch.autograd.grad(
                pulled,
                w,
                direction,
                retain_graph=True,
                create_graph=record,
                materialize_grads=True,
            )[0]
            for direction in zip(*tangents, strict=True)
        ]
    return torch.stack(found) if record and wanted(y, *twins) else torch.stack(found).detach()


def _parameters(model: Any, names: Sequence[str] | None) -> dict[str, Tensor]:
    if not isinstance(model, nn.Module):
        raise InputError(
            "the model must be an nn.Module, whose parameters have names; this is "
            f"{type(model).__name__}."
        )
    if isinstance(model, nn.DataParallel):
        raise InputError(
            "nn.DataParallel copies the model for each device, and has no parameters of its own: "
            "pass model.module."
        )
    there: dict[str, Tensor] = dict(model.named_parameters())
    lazy = next((name for name, p in there.items() if is_lazy(p)), None)
    if lazy is not None:
        raise InputError(
            f"the parameter {lazy!r} has no shape yet: call the model once on data, then "
            "differentiate."
        )
    if names is None:
        chosen = {name: p for name, p in there.items() if p.requires_grad}
        if not chosen:
            raise InputError(
                "no parameter of the model requires a gradient. Name those that are meant: "
                "names=[...]."
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
            f"the model has no parameter {unknown[0]!r}. Its parameters: "
            f"{', '.join(there) or 'none'}."
        )
    return {name: there[name] for name in names}


def _names(names: Any, option: str) -> list[str]:
    """Make a list of the names of parameters.

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
                f"inputs must be tensors; number {place} is {type(t).__name__}: torch.as_tensor "
                "makes one."
            )
        check_kind(t, f"input {place}")


def _output(y: Any) -> Tensor:
    if not isinstance(y, Tensor):
        raise InputError(
            f"the model returned {type(y).__name__}. Wrap it in a module that returns the one "
            "tensor meant."
        )
    return y


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
    """The number of an entry, counted row by row."""
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


def _constant(argument: Any) -> Any:
    return argument.detach() if isinstance(argument, Tensor) else argument
