"""First and second derivatives of networks of layers, z = W a + b and a = g(z), and their adjoints.

Of such networks all that Taylor mode does to an operator is known beforehand. Value, first and
second derivatives are rows of one array, each with the samples last, along which most goes:

    y = g(z):   ∂ᵢy = g′ ∂ᵢz,   ∂ᵢⱼy = g′ ∂ᵢⱼz + g″ ∂ᵢz ∂ⱼz

and with gradients ȳ, ȳᵢ, ȳᵢⱼ of a number in these, the gradients in those of z are

    z̄ᵢⱼ = g′ ȳᵢⱼ,   z̄ᵢ = g′ ȳᵢ + g″ Σⱼ (1 + δᵢⱼ) ȳᵢⱼ ∂ⱼz,
    z̄ = g′ ȳ + g″ (Σ ȳᵢ ∂ᵢz + Σ ȳᵢⱼ ∂ᵢⱼz) + g‴ Σ ȳᵢⱼ ∂ᵢz ∂ⱼz

Where all of it is small the time goes by the number of calls, and a call of NumPy takes a third of
that of torch. Where it is large, samples are taken in blocks that stay in a CPU's cache.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..arrays.border import quiet
from .activations import ACTIVATIONS, Bend

SMALL = 2**15  # numbers of a layer, up to which torch takes one thread as NumPy does
CACHE = 2**19  # bytes of a layer that stay in the cache of a CPU (benchmarks/)


class Layer(NamedTuple):
    """A linear layer and what follows it."""

    weight: Tensor  # (out, in)
    bias: Tensor | None
    activation: str  # of `ACTIVATIONS`; "": none


class Wanted(NamedTuple):
    """Which derivatives are wanted."""

    first: tuple[int, ...]  # inputs of a sample
    pairs: tuple[tuple[int, int], ...]  # places among these, of second derivatives
    summed: bool = False  # the one sum of all pairs instead, each twice the same input

    @property
    def seconds(self) -> int:
        """How many second derivatives there are."""
        return 1 if self.summed else len(self.pairs)


class Kept(NamedTuple):
    """What a pass back needs of a layer, for a block of samples."""

    input: Any  # (rows, in, s); of the first layer (in, s)
    before: Any  # (rows, out, s) without the value's own row; of the first layer (first, out, 1)
    bend: Bend | None


def library_for(x: Tensor, numbers: int) -> Any:
    """NumPy, or torch where several threads share what is large, and where NumPy has no memory."""
    alone = numbers <= SMALL or torch.get_num_threads() == 1
    return np if alone and x.device.type == "cpu" else torch


def plain(library: Any, tensor: Any) -> Any:
    """A tensor for a library, without a graph and sharing its memory."""
    if tensor is None:
        return None
    return tensor.detach().numpy() if library is np else tensor.detach()


def blocks(library: Any, x: Any, each: int) -> list[slice]:
    """Blocks of samples, each of which has so many numbers in a layer."""
    size = max(1, len(x))
    if library is np:
        size = min(size, max(16, CACHE // (x.itemsize * max(1, each))))
    return [slice(start, start + size) for start in range(0, max(1, len(x)), size)]


class Layered:
    """Derivatives of a network of layers at a batch of points, of which no graph is made.

    Args:
        layers: of the network.
        x: (s, in).
        wanted: which derivatives.
        keep: whether there will be a pass back.
    """

    def __init__(self, layers: Sequence[Layer], x: Tensor, wanted: Wanted, keep: bool) -> None:
        self.wanted, self.keep = wanted, keep
        self.rows = 1 + len(wanted.first) + wanted.seconds
        widest = max(layer.weight.shape[0] for layer in layers)
        self.library = library_for(x, len(x) * self.rows * widest)
        self.x = plain(self.library, x)
        self.layers = [
            (plain(self.library, w), plain(self.library, b), name) for w, b, name in layers
        ]
        self.blocks = blocks(self.library, self.x, self.rows * widest)
        self.kept: list[list[Kept]] = []

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """The value (s, out), first derivatives (s, out, c) and second ones (s, out, q)."""
        behind = 1 + len(self.wanted.first)
        with quiet():
            found = [self._forward(self.x[some].T) for some in self.blocks]
        if self.library is np:
            whole = found[0] if len(found) == 1 else np.concatenate(found, -1)
            parts = whole[0], whole[1:behind], whole[behind:]
            value, first, second = map(torch.from_numpy, parts)
        else:  # of parts that are no views of one another
            (whole,) = found
            value, first, second = whole[0].clone(), whole[1:behind].clone(), whole[behind:].clone()
        return value.T.contiguous(), first.permute(2, 1, 0), second.permute(2, 1, 0)

    def _empty(self, *shape: int) -> Any:
        if self.library is np:
            return np.empty(shape, self.x.dtype)
        return self.x.new_empty(shape)

    def _forward(self, x: Any) -> Any:
        first, kept = list(self.wanted.first), []
        c = len(first)
        a: Any = x
        every: Any = None
        for place, (weight, bias, name) in enumerate(self.layers):
            if place == 0:
                z = weight @ x
                slopes, bends = weight.T[first][:, :, None], None
                if bias is not None:
                    z += bias[:, None]
                before = slopes
                if not name:
                    every = self._empty(self.rows, *z.shape)
                    every[0], every[1 : 1 + c], every[1 + c :] = z, slopes, 0
            else:
                every = weight @ a
                z = every[0]
                if bias is not None:
                    z += bias[:, None]
                before = every[1:]
                slopes, bends = every[1 : 1 + c], every[1 + c :]
            bend = None
            made = every if not name else self._empty(self.rows, *z.shape)
            if name:
                bend = ACTIVATIONS[name](self.library, z)
                self._through(made, bend, slopes, bends)
            if self.keep:
                kept.append(Kept(a, before, bend))
            a = made
        if self.keep:
            self.kept.append(kept)
        # what is kept must not be what a user may write to
        return a.copy() if self.library is np and self.layers[-1][2] and self.keep else a

    def _through(self, made: Any, bend: Bend, slopes: Any, bends: Any) -> None:
        """Through an activation, into `made`."""
        multiply = self.library.multiply
        c = len(self.wanted.first)
        made[0] = bend.value
        multiply(slopes, bend.slope, out=made[1 : 1 + c])
        into = made[1 + c :]
        if bends is not None:
            multiply(bends, bend.slope, out=into)
        for place, pairs in enumerate(self._pairs(slopes)):
            pairs = pairs * bend.curvature
            if bends is None:
                into[place] = pairs
            else:
                into[place] += pairs

    def _pairs(self, slopes: Any) -> list[Any]:
        """∂ᵢz ∂ⱼz for each second derivative."""
        if self.wanted.summed:
            return [(slopes * slopes).sum(0)]
        return [slopes[i] * slopes[j] for i, j in self.wanted.pairs]

    def backward(
        self, gradient: Sequence[Tensor | None], needed: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients in x and in the weight and bias of each layer, from those in what was found.

        Args:
            gradient: in value, first and second derivatives, as `forward` has them; None: zero.
            needed: of what is returned.

        Returns:
            Of x, and of the weights and biases in turns.
        """
        library, last = self.library, self.layers[-1][0].shape[0]
        c = len(self.wanted.first)
        parts = (slice(0, 1), slice(1, 1 + c), slice(1 + c, None))
        given = [None if part is None else plain(library, part) for part in gradient]
        if given[0] is not None:
            given[0] = given[0][..., None]
        given = [None if part is None else library.swapaxes(part, 0, 2) for part in given]
        x = np.empty_like(self.x) if library is np else torch.empty_like(self.x)
        total: list[Any] = [x if needed[0] else None] + [None] * (2 * len(self.layers))
        with quiet():
            for some, kept in zip(self.blocks, self.kept, strict=True):
                g = self._empty(self.rows, last, len(self.x[some]))
                for rows, part in zip(parts, given, strict=True):
                    g[rows] = 0 if part is None else part[..., some]
                self._backward(g, some, kept, needed, total)
        if library is np:
            total = [None if t is None else torch.from_numpy(np.asarray(t)) for t in total]
        return total

    def _backward(
        self, g: Any, some: slice, kept: list[Kept], needed: Sequence[bool], total: list[Any]
    ) -> None:
        """Add what a block of samples has to the gradients."""
        first = list(self.wanted.first)
        c = len(first)

        def add(place: int, part: Any) -> None:
            total[place] = part if total[place] is None else total[place] + part

        for place in reversed(range(len(self.layers))):
            weight, bias, _ = self.layers[place]
            if kept[place].bend is not None:
                g = self._back(g, kept[place], place == 0)
            if bias is not None and needed[2 + 2 * place]:
                add(2 + 2 * place, g[0].sum(1))
            if place:
                if needed[1 + 2 * place]:
                    add(1 + 2 * place, (g @ kept[place].input.swapaxes(1, 2)).sum(0))
                # of one output it is no sum, for which a product of matrices takes longer
                g = weight.T @ g if len(weight) > 1 else weight.T * g
                continue
            if needed[1]:
                of_weight = g[0] @ kept[0].input.T
                of_weight[:, first] += g[1 : 1 + c].sum(2).T
                add(1, of_weight)
            if needed[0]:
                total[0][some] = (weight.T @ g[0]).T

    def _back(self, g: Any, kept: Kept, start: bool) -> Any:
        """Gradients in value and derivatives before an activation, from those behind it."""
        c, wanted, bend = len(self.wanted.first), self.wanted, kept.bend
        assert bend is not None
        slopes = kept.before[:c]
        into = g * bend.slope
        weighed = g[1 : 1 + c] * slopes
        total = weighed.sum(0) if c > 1 else weighed[0]
        if not start:
            for q in range(1 + c, self.rows):
                total += g[q] * kept.before[q - 1]
        value = into[0]
        value += total * bend.curvature
        third = bend.third()
        curved = g[1 + c :] * bend.curvature
        for q, pairs in enumerate(self._pairs(slopes)):
            value += pairs * third * g[1 + c + q]
        if wanted.summed:
            curved *= 2
            into[1 : 1 + c] += slopes * curved
        else:
            for (i, j), each in zip(wanted.pairs, curved, strict=True):
                if i == j:
                    each = each + each
                    into[1 + i] += each * slopes[i]
                else:
                    into[1 + i] += each * slopes[j]
                    into[1 + j] += each * slopes[i]
        return into
