"""Derivatives in a model's parameters: the Jacobian of every sample."""

from collections.abc import Sequence
from functools import partial
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap

from .. import _memory
from .._autodiff import Params, ranges
from .._errors import InputError
from .._modules import call_with
from ..calculus.adjoints import Adjoints, Node
from ..calculus.base import NoRuleError
from ..jacobians.layers import (
    BESIDE,
    FEW,
    Layer,
    NotLayerwiseError,
    Recorder,
    Recording,
    check,
    columns_beside,
    output_gradients,
    rows_in,
)
from ..rows.matrix import DenseRows
from .calling import (
    check_chunk,
    check_mode,
    first_that_works,
    refuse_coupling,
    transformed,
    within,
)
from .coupling import refuse_meeting
from .model_parameters import Index, check_inputs, chosen_parameters, single_output
from .taylor import Expansion

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
        mode: "layerwise" (rows as outer products, for models whose parameters are those of linear
            layers; differentiable if between these are elementwise functions and sums alone),
            "reverse" (`vmap` over samples of the VJPs of one) or "autograd" (row by row). Default:
            "auto": "layerwise" where that is as differentiable as asked for, else "reverse", and
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
    parameters = chosen_parameters(model, names)
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
        if transformed():
            raise RuntimeError("rules are not applied inside a transform of torch.func")
        try:
            return _joined([_by_rules(outputs, tensors, some) for some in chunks()], tensors)
        except NoRuleError as error:
            if torch.is_grad_enabled() and mode == "auto":
                raise RuntimeError("what these rows are made of has no graph") from error
        return _joined([_by_layers(outputs, tensors, some) for some in chunks()], tensors)

    def reverse() -> list[Tensor]:
        return _joined([_by_reverse(outputs, tensors, some) for some in chunks()], tensors)

    def autograd() -> list[Tensor]:
        return _by_autograd(outputs, tensors, inputs)

    ways = [("layerwise", layerwise), ("reverse", reverse), ("autograd", autograd)]
    check_mode(ways, mode)
    if inputs and not within():
        refuse_meeting(model, inputs, 1)
    if count == 0:  # there is nothing to differentiate, which would show the shape
        with torch.no_grad():
            outputs.look(model(*inputs), count)
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
        if single_output(y).ndim == 0 or y.shape[0] != count:
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


def _by_rules(outputs: _Outputs, tensors: Params, samples: tuple[Tensor, ...]) -> list[Tensor]:
    """Rows of linear layers as outer products, from one sweep through rules of our own.

    Returns:
        (s, k, *param) each; with a graph where autograd records.

    Raises:
        NoRuleError: the model is not of linear layers, elementwise functions and sums alone.
    """
    count = samples[0].shape[0]
    if torch.is_autocast_enabled(samples[0].device.type):
        raise NoRuleError("autocast")
    adjoints = Adjoints(count)
    starts = [Node(t, place=place) for place, t in enumerate(tensors)]
    y = Expansion(adjoints).evaluate(lambda *params: outputs(params, *samples), *starts)
    if not isinstance(y, Node) or y.place >= 0:
        raise NoRuleError("no parameter has an influence")
    k = y.value.shape[1]
    units = torch.eye(k, dtype=y.value.dtype, device=y.value.device)[None]
    gradients = adjoints.pulled(y, units)
    layers = [Layer(u.weight, u.bias, u.input, u.made.value) for u in adjoints.uses]
    recording = Recording(tensors, y.value, layers, None, ())
    blocks = [rows_in(place, recording, gradients, {}) for place in range(len(tensors))]
    # what is the same for all samples may be a view of one of them
    return [b.contiguous() if b.ndim and b.stride(0) == 0 else b for b in blocks]


def _by_layers(outputs: _Outputs, tensors: Params, samples: tuple[Tensor, ...]) -> list[Tensor]:
    """Rows of linear layers as outer products, (s, k, *param) each, without a graph."""
    count = samples[0].shape[0]
    with torch.enable_grad(), Recorder(tensors) as recorder:
        recording = recorder.recording(outputs(recorder.twins, *samples), count, search=False)
    if recording.beside > FEW:
        raise NotLayerwiseError(BESIDE)
    gradients, beside = output_gradients(recording), columns_beside(recording)
    blocks = [rows_in(place, recording, gradients, beside) for place in range(len(tensors))]
    some = slice(None, None, max(1, count // CHECKED))  # of all, as their order may be another
    rows = [block[some].reshape(-1, t.numel()) for block, t in zip(blocks, tensors, strict=True)]
    check([(some, DenseRows(torch.cat(rows, 1)))], recording, some)
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


def _samples(inputs: tuple[Any, ...]) -> int:
    check_inputs(inputs)
    if not inputs or any(t.ndim == 0 for t in inputs):
        raise InputError("the inputs must be tensors with the samples in their first dimension.")
    counts = [t.shape[0] for t in inputs]
    if len(set(counts)) > 1:
        raise InputError(
            f"the inputs disagree on the number of samples: first dimensions {counts}."
        )
    return counts[0]


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
