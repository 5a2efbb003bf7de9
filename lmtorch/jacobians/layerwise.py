"""Per sample, from what linear layers see: a row of J is the outer product of a layer's output gradient and its input.

Where every parameter is the weight or bias of a linear layer z = W a + b and samples are independent, one ordinary
backward pass of Σ r gives each sample's own gradients g in the layers' outputs, and

    ∂r/∂W = g aᵀ,   ∂r/∂b = g,

written straight into the rows of J: no vmap, no copies. A layer may be applied several times, at several places of a
sample or to the derivatives of its input (`lmtorch.derivatives` does): the outer products of all its uses add up.

A few numbers beside the layers, an unknown coefficient of an equation, say, have columns by two reverse passes: Jᵀw
is linear in w, and its derivative in w is the column. The first block is checked against autograd's own sum of the
rows; whatever does not fit (other layers, weights that other functions take too) is refused, and `PerSample` takes its place.

Reference: Goodfellow, Efficient per-example gradient computations (2015).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils._pytree import tree_leaves

from .._autodiff import Params, history, random_weights, ranges
from .._modes import FunctionMode
from ..residuals.base import Part
from ..rows.dense import DenseRows
from ..rows.outer import Outer, OuterRows
from .base import Block, Workspace, disagrees

FEW = 16  # entries of parameters beside the layers at most; each costs a reverse pass


FEWEST = 20  # samples from which something can be said of their size


class NotLayerwiseError(Exception):
    """Some parameter is more than the weight or bias of linear layers."""


class LayerWise:
    """Rows of J from inputs and output gradients of linear layers.

    Args:
        chunk: samples whose rows are made at once. Default: by the cache in the optimizer, elsewhere all of a part.
    """

    kinds = (OuterRows, DenseRows)

    def __init__(self, chunk: int | None = None) -> None:
        self.chunk = chunk
        self.checked = False
        self.inputs: Tensor | None = None  # (s, in), of the first layer

    def __repr__(self) -> str:
        """The settings, in the form of the other sources, which are dataclasses."""
        return f"LayerWise(chunk={self.chunk})"

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[Block]:
        """One backward pass of the part for each residual of a sample, then rows in chunks that stay in cache."""
        count = part.count
        if count is None:
            raise NotLayerwiseError("no independent samples")
        twins = tuple(p.detach().requires_grad_() for p in params)
        with torch.enable_grad(), Recorder(twins) as recorder:
            residual = part.function(twins)
        if not recorder.layers:
            raise NotLayerwiseError("no linear layer")
        if any(layer.input.ndim < 2 or layer.input.shape[0] != count for layer in recorder.layers):
            raise NotLayerwiseError("a linear layer without the samples in its first dimension")
        if any(
            place in recorder.elsewhere
            for layer in recorder.layers
            for place in (layer.weight, layer.bias)
        ):
            raise NotLayerwiseError("a parameter acts elsewhere than in a linear layer")
        if not self.checked:
            if not _only_in_layers(residual, recorder.layers, twins):
                raise NotLayerwiseError("a parameter acts elsewhere than in a linear layer")
            first = recorder.first
            told = (
                first is not None and first.ndim == 2 and count >= FEWEST and part.whole
            )  # sorted data change from part to part
            self.inputs = first if told else None
        others = _others(recorder.layers, params)
        beside = (
            _columns(residual, twins, others) if others else residual.detach()[:, None][:, :0]
        )  # (m, entries)
        outputs = [layer.output for layer in recorder.layers]
        residuals = residual.detach().view(count, -1)  # (s, k)
        gradients = []
        for index in range(residuals.shape[1]):
            direction = torch.zeros_like(residuals)
            direction[:, index] = 1
            gradients.append(
                torch.autograd.grad(
                    residual, outputs, direction.view(-1), retain_graph=True, allow_unused=True
                )
            )
        if part.sample is None:  # nobody has looked whether they are independent
            _check_independence(residual, outputs, gradients, count)
        for chosen in ranges(count, self.chunk or count):
            values = residuals[chosen].reshape(-1)
            rows = workspace(values.shape[0])
            by_sample = rows.unflatten(0, (-1, len(gradients)))  # (s, k, n)
            for index, of_outputs in enumerate(gradients):
                _fill_(by_sample[:, index], of_outputs, recorder.layers, params, chosen)
            start = 0
            for columns in others.values():
                size = columns.stop - columns.start
                some = slice(chosen.start * len(gradients), chosen.stop * len(gradients))
                rows[:, columns] = beside[some, start : start + size]
                start += size
            if not self.checked:
                _check(rows, residual, twins)
                self.checked = True
            if OuterRows in workspace.kinds:
                outer = _outer(recorder.layers, gradients, params, chosen)
                yield Block(values, OuterRows(rows, outer))
            else:
                yield Block(values, DenseRows(rows))

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals of the part, by a plain call."""
        return part.function(params)


class _Layer(NamedTuple):
    weight: int  # place among the parameters; −1: not one of them
    bias: int
    input: Tensor  # (s, ..., in)
    output: Tensor  # (s, ..., out)


class Recorder(FunctionMode):
    """Keeps inputs and outputs of the linear layers whose weight or bias is a parameter, and what acts elsewhere."""

    def __init__(self, twins: Params) -> None:
        super().__init__()
        self.places = {id(twin): place for place, twin in enumerate(twins)}
        self.layers: list[_Layer] = []
        self.elsewhere: set[int] = set()  # places of parameters that other functions took
        self.first: Tensor | None = None  # input of the first linear layer of all

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is linear and self.first is None:
            self.first = args[0].detach()
        if func is linear and not kwargs and args[1].ndim == 2:
            weight, bias = (
                self.places.get(id(a), -1) for a in (args[1], args[2] if len(args) > 2 else None)
            )
            if weight >= 0 or bias >= 0:
                self.layers.append(_Layer(weight, bias, args[0].detach(), result))
            args = args[:1]
        given: Sequence[Any] = [*args, *kwargs.values()] if kwargs else args
        if any(isinstance(a, list | tuple | dict) for a in given):
            given = tree_leaves(given)
        taken = [place for a in given if (place := self.places.get(id(a))) is not None]
        # of a shape, a dtype or what is detached nothing is to be differentiated
        if taken and any(
            isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(result)
        ):
            self.elsewhere.update(taken)
        return result


def _fill_(
    rows: Tensor,
    gradients: Sequence[Tensor | None],
    layers: list[_Layer],
    params: Params,
    chosen: slice,
) -> None:
    """Rows (s, n) of one residual of the chosen samples, from its gradients in the outputs of the layers."""
    views = rows.split([p.numel() for p in params], 1)
    columns = [
        view.unflatten(1, p.shape) if p.ndim else view[:, 0]
        for view, p in zip(views, params, strict=True)
    ]
    for place, param in enumerate(params):
        uses = [
            (gradient[chosen], layer.input[chosen])
            for layer, gradient in zip(layers, gradients, strict=True)
            if gradient is not None and place in (layer.weight, layer.bias)
        ]
        if not uses:
            columns[place].zero_()
        elif param.ndim == 1:
            columns[place].copy_(torch.cat([_places(g) for g, _ in uses], 1).sum(1))
        elif len(uses) == 1 and uses[0][0].ndim == 2:
            torch.mul(uses[0][0][:, :, None], uses[0][1][:, None, :], out=columns[place])
        else:
            g, a = (
                torch.cat([_places(part) for part in parts], 1) for parts in zip(*uses, strict=True)
            )
            columns[place].copy_(g.mT @ a)  # Σ_t g aᵀ


def _outer(
    layers: list[_Layer],
    gradients: Sequence[Sequence[Tensor | None]],
    params: Params,
    chosen: slice,
) -> tuple[Outer, ...]:
    """The columns of the weights that are used once, on one vector of each sample."""
    used = [layer.weight for layer in layers]
    starts = [0, *accumulate(p.numel() for p in params)]
    found = []
    for place, layer in enumerate(layers):
        shares = [g for of_outputs in gradients if (g := of_outputs[place]) is not None]
        if (
            layer.weight >= 0
            and used.count(layer.weight) == 1
            and layer.input.ndim == 2
            and len(shares) == len(gradients)
        ):
            left = torch.stack([share[chosen] for share in shares], 1)
            found.append(Outer(starts[layer.weight], left, layer.input[chosen]))
    return tuple(sorted(found, key=lambda outer: outer.start))


def _places(part: Tensor) -> Tensor:
    """(s, t, features): the places t of a sample where a layer is applied, one if it is applied to the sample whole."""
    return part[:, None] if part.ndim == 2 else part.flatten(1, -2)


def _others(layers: list[_Layer], params: Params) -> dict[int, slice]:
    """Parameters that no linear layer uses, with their columns.

    Raises:
        NotLayerwiseError: they have too many entries for columns one by one.
    """
    used = {place for layer in layers for place in (layer.weight, layer.bias)}
    starts = [0, *accumulate(p.numel() for p in params)]
    others = {
        place: slice(starts[place], starts[place + 1])
        for place in range(len(params))
        if place not in used
    }
    if sum(columns.stop - columns.start for columns in others.values()) > FEW:
        raise NotLayerwiseError("parameters beside the linear layers")
    return others


def _columns(residual: Tensor, twins: Params, others: dict[int, slice]) -> Tensor:
    """J e_j for their entries, (m, entries), by two reverse passes: the derivative of Jᵀw in w.

    Raises:
        NotLayerwiseError: something cannot be differentiated twice.
        OutOfMemoryError: torch's own.
    """
    weights = torch.zeros_like(residual, requires_grad=True)
    chosen = [twins[place] for place in others]
    try:
        with torch.enable_grad():
            pulled = torch.autograd.grad(
                residual, chosen, weights, create_graph=True, materialize_grads=True
            )
            entries = torch.cat([gradient.reshape(-1) for gradient in pulled]).unbind()
        columns = [
            torch.autograd.grad(e, weights, retain_graph=True, materialize_grads=True)[0]
            for e in entries
        ]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise NotLayerwiseError(
            "parameters beside the linear layers, and no second derivatives"
        ) from error
    return torch.stack(columns, 1)


def _check(rows: Tensor, residual: Tensor, twins: Params) -> None:
    """A sum of the rows is what autograd knows it to be, whatever the parameters are used for."""
    weights = random_weights(residual.detach()[: rows.shape[0]])
    direction = torch.zeros_like(residual)
    direction[: rows.shape[0]] = weights
    gradients = torch.autograd.grad(
        residual, twins, direction, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    hold(
        rows,
        weights,
        torch.cat([g.reshape(-1) for g in gradients]),
        torch.finfo(residual.dtype).eps,
    )


def hold(rows: Tensor, weights: Tensor, expected: Tensor, eps: float) -> None:
    """Rowsᵀw against autograd's.

    Raises:
        NotLayerwiseError: they differ.
    """
    if disagrees(DenseRows(rows), weights, expected, eps):
        raise NotLayerwiseError("a parameter acts elsewhere than in a linear layer")


def _only_in_layers(residual: Tensor, layers: list[_Layer], twins: Params) -> bool:
    """Whether no path leads from the residuals to a parameter but through the layers that were seen.

    An `autograd.Function` takes a weight past every torch function, and a derivative that the closure takes by itself
    leads back through the layers' backward passes.
    """
    uses: dict[int, int] = {}
    for layer in layers:
        for place in {layer.weight, layer.bias} - {-1}:
            uses[place] = uses.get(place, 0) + 1
    places = {id(twin): place for place, twin in enumerate(twins)}
    paths: dict[int, int] = {}
    for node in history(residual):
        for following, _ in node.next_functions:
            leaf = places.get(id(getattr(following, "variable", None)))
            if leaf is not None:
                paths[leaf] = paths.get(leaf, 0) + 1
    return all(paths.get(place, 0) <= count for place, count in uses.items())


def _check_independence(
    residual: Tensor, outputs: list[Tensor], gradients: list[Any], count: int
) -> None:
    """Rows of a sample depend on that sample alone: weighted by w, they give gradients weighted by w.

    Raises:
        NotLayerwiseError: they depend on others.
    """
    weights = random_weights(residual.detach().view(count, -1))
    weighted = torch.autograd.grad(
        residual, outputs, weights.view(-1), retain_graph=True, allow_unused=True
    )
    apart = []
    for place, found in enumerate(weighted):
        shares = [
            (weights[:, k], of[place]) for k, of in enumerate(gradients) if of[place] is not None
        ]
        if found is None:
            continue
        expected, size = torch.zeros_like(found), torch.zeros_like(found)
        for w, g in shares:
            expected += w.view(-1, *(1,) * (g.ndim - 1)) * g
            size += g.abs()
        apart.append(
            (found - expected).abs().amax() > torch.finfo(residual.dtype).eps ** 0.5 * size.amax()
        )
    if apart and bool(torch.stack(apart).any()):
        raise NotLayerwiseError("the residuals of a row depend on other rows")
