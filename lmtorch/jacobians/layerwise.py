"""Rows of J from what layers see: of a linear layer outer products of gradients and inputs.

`layers` has the mathematics. Here its rows are written straight into the workspace of the loop, a
chunk of samples at a time that stays in cache, or their factors are handed on where these are all
that is wanted; then many parameters may act elsewhere, whose rows `PerSample` gives. The first
evaluation is checked against autograd's own sum of the rows, and so are those that follow until no
layer has gradients of zero, which say nothing of the samples that they are of. Whatever does not
fit is refused, and `PerSample` takes its place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from .._autodiff import Params, ranges
from ..residuals.base import Part
from ..rows.factors import Factor, Lookup, Plain, Weight
from ..rows.layers import LayerBlock, LayerRows
from ..rows.matrix import DenseRows
from ..rows.outer import Outer, OuterRows
from .base import Block, Workspace
from .layer_kinds import Linear, Table
from .layers import (
    BESIDE,
    FEW,
    NotLayerwiseError,
    Recorder,
    Recording,
    Use,
    check,
    columns_beside,
    depends,
    factors_of,
    output_gradients,
    rows_in,
    summed_rows,
    telling,
    uses_of,
)
from .per_sample import PerSample

FEWEST = 20  # samples from which mean and deviation of the inputs say something


class Seen(NamedTuple):
    """An evaluation, and what its rows are made of."""

    recording: Recording
    gradients: list[Tensor | None]  # of each layer's output
    beside: dict[int, Tensor]  # columns of parameters beside the layers
    apart: Tensor | None  # whether rows depend on other rows; None: nobody has to ask


class LayerWise:
    """Rows of J from inputs and output gradients of layers.

    Args:
        chunk: samples whose rows are made at once. Default: by the cache in the optimizer,
            elsewhere all of a part.
    """

    kinds = (LayerRows, OuterRows, DenseRows)

    def __init__(self, chunk: int | None = None) -> None:
        self.chunk = chunk
        self.begun = False
        self.checked = False
        self.lost: tuple[int, ...] = ()  # places of parameters that act where nobody sees it
        self.inputs: Tensor | None = None  # (s, in), of the first layer

    def __repr__(self) -> str:
        """The settings, in the form of the other sources, which are dataclasses."""
        return f"LayerWise(chunk={self.chunk})"

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[Block]:
        """Rows by chunks that stay in cache, after a backward pass per residual of a sample."""
        count = part.count
        if count is None:
            raise NotLayerwiseError("no independent samples")
        general = LayerRows in workspace.kinds
        if self.checked:

            def again(*tensors: Tensor) -> Seen:
                return _without_graph(self._seen(part, tensors, general))

            name = "layers, and others" if general else "layers"
            recording, gradients, beside, apart = part.pure(name, again, params)
            recording = recording._replace(twins=params)
        else:
            recording, gradients, beside, apart = self._seen(part, params, general, search=True)
            self.lost = recording.lost
            first = recording.first
            # one of several parts may not be like the others: data may be sorted
            shown = first is not None and first.ndim == 2 and count >= FEWEST and part.whole
            self.inputs = first if shown and not self.begun else None
            self.begun = True
        if apart is not None and bool(apart):
            raise NotLayerwiseError("the residuals of a row depend on other rows")
        residuals = recording.outputs.detach()  # (s, k)
        sizes = [p.numel() for p in params]
        if LayerRows in workspace.kinds:
            factors = _factors(recording, gradients, beside, sizes)
            if not self.checked:
                check([(slice(None), factors)], recording)
                self.checked = telling(recording, gradients)
            yield Block(residuals.reshape(-1), factors)
            return
        each = residuals.shape[1]
        chunks = list(ranges(count, workspace.whole((self.chunk or count) * each) // each))
        if not self.checked:
            parts = ((some, _factors(recording, gradients, beside, sizes, some)) for some in chunks)
            check(parts, recording)
            self.checked = telling(recording, gradients)
        for chosen in chunks:
            values = residuals[chosen].reshape(-1)
            rows = workspace(values.shape[0])
            views = rows.unflatten(0, (-1, residuals.shape[1])).split(sizes, 2)
            for place, (view, p) in enumerate(zip(views, params, strict=True)):
                out = view.unflatten(2, p.shape) if p.ndim else view[..., 0]
                rows_in(place, recording, gradients, beside, chosen, out)
            if OuterRows in workspace.kinds:
                outer = _outer(recording, gradients, sizes, chosen)
                yield Block(values, OuterRows(rows, outer))
            else:
                yield Block(values, DenseRows(rows))

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The part's residuals, without a recording."""
        return part.evaluate(params)

    def _seen(self, part: Part, params: Params, general: bool, *, search: bool = False) -> Seen:
        """What is to be seen in an evaluation; with `search`, where else the parameters act, too.

        Args:
            part: of the rows.
            params: where.
            general: whether many parameters may act elsewhere.
            search: whether to look for such that no function of torch shows.

        Raises:
            NotLayerwiseError: the function or its parameters do not fit.
        """
        assert part.count is not None
        with torch.enable_grad(), Recorder(params) as recorder:
            outputs = part.function(recorder.twins)
            recording = recorder.recording(outputs, part.count, search=search, lost=self.lost)
        if recording.beside > FEW and not general:
            raise NotLayerwiseError(BESIDE)
        many = recording.beside > FEW
        beside = self._others(part, params, recording) if many else columns_beside(recording)
        gradients = output_gradients(recording)
        # of samples that the user has named it is known that they are independent
        apart = depends(recording, gradients) if part.sample is None else None
        return Seen(recording, gradients, beside, apart)

    def _others(self, part: Part, params: Params, recording: Recording) -> dict[int, Tensor]:
        """Rows in the parameters beside the layers, by place, as `PerSample` has them.

        Raises:
            NotLayerwiseError: they cannot be had so, or there is nothing to be gained.
            OutOfMemoryError: torch's own.
        """
        n = sum(p.numel() for p in params)
        single, others = part.sample, recording.others
        if single is None or part.random or 2 * recording.beside > n:
            raise NotLayerwiseError(BESIDE)

        def of_others(chosen: Params, *sample: Tensor) -> Tensor:
            all_of_them = list(params)
            for place, p in zip(others, chosen, strict=True):
                all_of_them[place] = p
            return single(tuple(all_of_them), *sample)

        own = replace(part, sample=of_others, through=None)
        chosen = tuple(params[place] for place in others)
        make = Workspace(lambda rows: chosen[0].new_empty(rows, recording.beside))
        try:
            rows = torch.cat([b for _, b in PerSample(self.chunk).blocks(own, chosen, make)])
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise NotLayerwiseError(f"{BESIDE}: {error}") from error
        parts = rows.view(*recording.outputs.shape, -1).split([p.numel() for p in chosen], -1)
        return {
            place: columns.unflatten(-1, p.shape) if p.ndim else columns[..., 0]
            for place, columns, p in zip(others, parts, chosen, strict=True)
        }


def _without_graph(seen: Seen) -> Seen:
    """What the rows are made of, and no more."""
    layers = [layer._replace(output=None) for layer in seen.recording.layers]
    outputs = seen.recording.outputs.detach()
    recording = seen.recording._replace(twins=(), outputs=outputs, layers=layers, first=None)
    return seen._replace(recording=recording)


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
        and isinstance(layer.kind, Linear)
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
    chosen: slice = slice(None),
) -> LayerRows:
    """The rows of the chosen samples by what the layers have seen, without a matrix."""
    starts = [0, *accumulate(sizes)]
    samples, residuals = recording.outputs[chosen].shape
    found: list[Factor] = []
    joint = _joint_biases(recording, gradients)
    for place, twin in enumerate(recording.twins):
        uses = uses_of(place, recording, gradients, chosen)
        if place in beside:
            columns = beside[place][chosen].reshape(samples, residuals, -1)
            found.append(Plain(starts[place], columns))
        elif uses and place not in joint.values():
            bias = joint.get(place)
            of_bias = None if bias is None else starts[bias]
            found.append(_factor(starts[place], uses, twin, of_bias))
    block = LayerBlock(samples, residuals, tuple(found))
    # a layer may have seen a coarser dtype than the parameters have, under autocast or by itself
    like = recording.twins[0].detach()
    return LayerRows(starts[-1], (block.to(like.dtype),), like)


def _joint_biases(recording: Recording, gradients: Sequence[Tensor | None]) -> dict[int, int]:
    """Weights and their biases that are used together once, on a whole sample.

    Such a bias has the same factor as its weight, with an input that is one.
    """
    layers = [layer for layer, g in zip(recording.layers, gradients, strict=True) if g is not None]
    used = [place for layer in layers for place in (layer.weight, layer.bias)]
    return {
        layer.weight: layer.bias
        for layer in layers
        if isinstance(layer.kind, Linear)
        and layer.input.ndim == 2
        and min(layer.weight, layer.bias) >= 0
        and used.count(layer.weight) == used.count(layer.bias) == 1
    }


def _factor(start: int, uses: Sequence[Use], twin: Tensor, bias: int | None) -> Factor:
    """The columns of a parameter, by factors where these are fewer numbers than the columns."""
    first = uses[0]
    if all(isinstance(use.kind, Table) for use in uses):
        left, places = zip(
            *(use.kind.factors(use.gradient, use.input) for use in uses), strict=True
        )
        return Lookup(start, torch.cat(left, 2), torch.cat(places, 1), twin.shape[0])
    if first.weight and twin.ndim > 1 and _fewer(uses, twin):
        found = factors_of(uses)
        if found is not None:
            return Weight(start, *found, bias)
    return Plain(start, summed_rows(uses, twin).flatten(2))


def _fewer(uses: Sequence[Use], twin: Tensor) -> bool:
    """Whether the factors of a weight are fewer numbers for each sample than its rows."""
    if not all(hasattr(use.kind, "places") for use in uses):
        return False
    t = sum(use.kind.places(use.gradient) for use in uses)
    k, p, q = uses[0].gradient.shape[1], twin.shape[0], twin.shape[1:].numel()
    return t == 1 or t * (k * p + q) < k * p * q
