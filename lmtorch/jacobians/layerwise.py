"""Rows of J from what linear layers see: outer products of output gradients and inputs.

`linear_layers` has the mathematics. Here its rows are written straight into the workspace of the
loop, a chunk of samples at a time that stays in cache, or their factors are handed on where these
are all that is wanted; and the first block is checked against autograd's own sum of the rows.
Whatever does not fit is refused, and `PerSample` takes its place.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from .._autodiff import Params, ranges
from ..residuals.base import Part
from ..rows.factors import Factor, Plain, Weight
from ..rows.layers import LayerBlock, LayerRows
from ..rows.matrix import DenseRows
from ..rows.outer import Outer, OuterRows
from .base import Block, Workspace
from .linear_layers import (
    NotLayerwiseError,
    Recorder,
    Recording,
    bias_rows,
    check,
    columns_beside,
    depends,
    factors_of,
    output_gradients,
    rows_in,
)

FEWEST = 20  # samples from which mean and deviation of the inputs say something


class Seen(NamedTuple):
    """An evaluation, and what its rows are made of."""

    recording: Recording
    gradients: list[Tensor | None]  # of each layer's output
    beside: dict[int, Tensor]  # columns of parameters beside the layers
    apart: Tensor | None  # whether rows depend on other rows; None: nobody has to ask


class LayerWise:
    """Rows of J from inputs and output gradients of linear layers.

    Args:
        chunk: samples whose rows are made at once. Default: by the cache in the optimizer,
            elsewhere all of a part.
    """

    kinds = (LayerRows, OuterRows, DenseRows)

    def __init__(self, chunk: int | None = None) -> None:
        self.chunk = chunk
        self.checked = False
        self.inputs: Tensor | None = None  # (s, in), of the first layer

    def __repr__(self) -> str:
        """The settings, in the form of the other sources, which are dataclasses."""
        return f"LayerWise(chunk={self.chunk})"

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[Block]:
        """Rows by chunks that stay in cache, after a backward pass per residual of a sample."""
        count = part.count
        if count is None:
            raise NotLayerwiseError("no independent samples")
        if self.checked:
            recording, gradients, beside, apart = part.pure(
                "layers", lambda *tensors: _without_graph(_seen(part, tensors)), params
            )
            recording = recording._replace(twins=params)
        else:
            recording, gradients, beside, apart = _seen(part, params, search=True)
            first = recording.first
            # one of several parts may not be like the others: data may be sorted
            telling = first is not None and first.ndim == 2 and count >= FEWEST and part.whole
            self.inputs = first if telling else None
        if apart is not None and bool(apart):
            raise NotLayerwiseError("the residuals of a row depend on other rows")
        residuals = recording.outputs.detach()  # (s, k)
        sizes = [p.numel() for p in params]
        if LayerRows in workspace.kinds:
            factors = _factors(recording, gradients, beside, sizes)
            if not self.checked:
                check(factors, recording)
                self.checked = True
            yield Block(residuals.reshape(-1), factors)
            return
        each = residuals.shape[1]
        for chosen in ranges(count, workspace.whole((self.chunk or count) * each) // each):
            values = residuals[chosen].reshape(-1)
            rows = workspace(values.shape[0])
            views = rows.unflatten(0, (-1, residuals.shape[1])).split(sizes, 2)
            for place, (view, p) in enumerate(zip(views, params, strict=True)):
                out = view.unflatten(2, p.shape) if p.ndim else view[..., 0]
                rows_in(place, recording, gradients, beside, chosen, out)
            if not self.checked:
                check(DenseRows(rows), recording)
                self.checked = True
            if OuterRows in workspace.kinds:
                outer = _outer(recording, gradients, sizes, chosen)
                yield Block(values, OuterRows(rows, outer))
            else:
                yield Block(values, DenseRows(rows))

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The part's residuals, without a recording."""
        return part.evaluate(params)


def _seen(part: Part, params: Params, *, search: bool = False) -> Seen:
    """What is to be seen in an evaluation; with `search`, where else the parameters act, too."""
    assert part.count is not None
    with torch.enable_grad(), Recorder(params) as recorder:
        outputs = part.function(recorder.twins)
        recording = recorder.recording(outputs, part.count, search=search)
    beside = columns_beside(recording)
    gradients = output_gradients(recording)
    # of samples that the user has named it is known that they are independent
    apart = depends(recording, gradients) if part.sample is None else None
    return Seen(recording, gradients, beside, apart)


def _without_graph(seen: Seen) -> Seen:
    """What the rows are made of, and no more."""
    layers = [layer._replace(output=layer.output.detach()[:0]) for layer in seen.recording.layers]
    outputs = seen.recording.outputs.detach()
    return seen._replace(recording=Recording((), outputs, layers, None, seen.recording.others))


def _outer(
    recording: Recording,
    gradients: Sequence[Tensor | None],
    sizes: Sequence[int],
    chosen: slice,
) -> tuple[Outer, ...]:
    """The columns of the weights that are used once, on one vector of each sample."""
    used = [layer.weight for layer in recording.layers]
    starts = [0, *accumulate(sizes)]
    found = [
        Outer(starts[layer.weight], g[chosen], layer.input[chosen])
        for layer, g in zip(recording.layers, gradients, strict=True)
        if layer.weight >= 0
        and used.count(layer.weight) == 1
        and layer.input.ndim == 2
        and g is not None
    ]
    return tuple(sorted(found, key=lambda outer: outer.start))


def _factors(
    recording: Recording,
    gradients: Sequence[Tensor | None],
    beside: dict[int, Tensor],
    sizes: Sequence[int],
) -> LayerRows:
    """All rows by what the layers have seen, without a matrix."""
    starts = [0, *accumulate(sizes)]
    samples, residuals = recording.outputs.shape
    layers = [
        (layer, g) for layer, g in zip(recording.layers, gradients, strict=True) if g is not None
    ]
    found: list[Factor] = []
    with_weight = set[int]()
    for place, twin in enumerate(recording.twins):
        uses = [(layer, g) for layer, g in layers if layer.weight == place]
        if place in beside or twin.ndim < 2 or not uses:
            continue
        left, right = factors_of([(g, layer.input) for layer, g in uses])
        bias = uses[0][0].bias
        # a bias that is used with this weight only, and once, has the same factor
        alone = len(uses) == 1 and left.shape[2] == 1 and bias >= 0
        if alone and sum(layer.bias == bias for layer, _ in layers) == 1:
            with_weight.add(bias)
            found.append(Weight(starts[place], left, right, starts[bias]))
        else:
            found.append(Weight(starts[place], left, right))
    for place in range(len(recording.twins)):
        of_bias = [g for layer, g in layers if layer.bias == place]
        if place in beside:
            found.append(Plain(starts[place], beside[place].reshape(samples, residuals, -1)))
        elif of_bias and place not in with_weight:
            found.append(Plain(starts[place], bias_rows(of_bias)))
    block = LayerBlock(samples, residuals, tuple(found))
    # a layer may have seen a coarser dtype than the parameters have, under autocast or by itself
    like = recording.twins[0].detach()
    return LayerRows(starts[-1], (block.to(like.dtype),), like)
