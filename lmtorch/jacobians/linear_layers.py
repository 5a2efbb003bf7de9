"""Rows of J in the weights of linear layers: outer products of output gradients and inputs.

Where every parameter is the weight or bias of a linear layer z = W a + b and samples are
independent, one ordinary backward pass of Σ r gives each sample's own gradients g in the layers'
outputs, and

    ∂r/∂W = g aᵀ,   ∂r/∂b = g,

for each output r of a sample: no vmap, no copies. A layer may be applied several times, at several
places of a sample or to the derivatives of its input (`lmtorch.derivatives` does): the outer
products of all its uses add up.

A few numbers beside the layers, an unknown coefficient of an equation, say, have columns by two
reverse passes: Jᵀw is linear in w, and its derivative in w is the column. Whatever does not fit
(other layers, weights that other functions take too) is refused.

Reference: Goodfellow, Efficient per-example gradient computations (2015).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils._pytree import tree_leaves

from .._autodiff import Params, history, random_weights
from .._modes import FunctionMode
from ..rows.base import Rows
from .base import disagrees

FEW = 16  # entries of parameters beside the layers at most; each costs a reverse pass
ELSEWHERE = "a parameter acts elsewhere than in a linear layer"


class NotLayerwiseError(Exception):
    """Some parameter is more than the weight or bias of linear layers."""


class Layer(NamedTuple):
    """One use of a linear layer."""

    weight: int  # place among the parameters; −1: not one of them
    bias: int
    input: Tensor  # (s, ..., in)
    output: Tensor  # (s, ..., out), with its graph


class Recorder(FunctionMode):
    """Keeps inputs and outputs of linear layers with parameters, and what acts elsewhere.

    An evaluation at its `twins` in the place of the parameters, with gradients enabled, is seen.
    """

    def __init__(self, params: Params) -> None:
        super().__init__()
        self.twins = tuple(p.detach().requires_grad_() for p in params)
        self.places = {id(twin): place for place, twin in enumerate(self.twins)}
        self.layers: list[Layer] = []
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
                self.layers.append(Layer(weight, bias, args[0].detach(), result))
            args = args[:1]
        given: Sequence[Any] = [*args, *kwargs.values()] if kwargs else args
        if any(isinstance(a, list | tuple | dict) for a in given):
            given = tree_leaves(given)
        taken = [place for a in given if (place := self.places.get(id(a))) is not None]
        # a shape, a dtype or a detached result leads no derivative on
        if taken and any(
            isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(result)
        ):
            self.elsewhere.update(taken)
        return result

    def recording(self, outputs: Tensor, count: int, *, search: bool) -> "Recording":
        """What is needed for the rows, from the outputs of the evaluation that was seen.

        Args:
            outputs: of all samples, the samples first.
            count: samples.
            search: whether to look through the graph for uses of a parameter that no torch function
                shows; without, `check` is what finds them.

        Raises:
            NotLayerwiseError: the function or one of its parameters does not fit.
        """
        outputs = outputs.reshape(count, -1)
        if not self.layers:
            raise NotLayerwiseError("no linear layer")
        if any(layer.input.ndim < 2 or layer.input.shape[0] != count for layer in self.layers):
            raise NotLayerwiseError("a linear layer without the samples in its first dimension")
        used = {place for layer in self.layers for place in (layer.weight, layer.bias)}
        if used & self.elsewhere:
            raise NotLayerwiseError(ELSEWHERE)
        if search and not _only_in_layers(outputs, self.layers, self.twins):
            raise NotLayerwiseError(ELSEWHERE)
        others = tuple(place for place in range(len(self.twins)) if place not in used)
        if sum(self.twins[place].numel() for place in others) > FEW:
            raise NotLayerwiseError("parameters beside the linear layers")
        return Recording(self.twins, outputs, self.layers, self.first, others)


class Recording(NamedTuple):
    """An evaluation whose parameters are those of linear layers, and a few numbers beside them."""

    twins: Params  # what stood for the parameters
    outputs: Tensor  # (s, k), k of each sample, with their graph
    layers: list[Layer]
    first: Tensor | None  # input of the first linear layer of all
    others: tuple[int, ...]  # places of the parameters beside the layers


def output_gradients(recording: Recording) -> list[Tensor | None]:
    """Gradients of a sample's k outputs in each layer's output, (s, k, ..., out); None: zero."""
    made = [layer.output for layer in recording.layers]
    with torch.enable_grad():
        columns = recording.outputs.unbind(1)
    if not columns:
        return [None] * len(made)
    found = [
        torch.autograd.grad(
            column, made, torch.ones_like(column), retain_graph=True, allow_unused=True
        )
        for column in columns
    ]
    return [_side_by_side(of_layer) for of_layer in zip(*found, strict=True)]


def columns_beside(recording: Recording) -> dict[int, Tensor]:
    """Rows in the parameters beside the layers, by place: the derivative of Jᵀw in w.

    Each is (s, k, *param.shape).

    Raises:
        NotLayerwiseError: something cannot be differentiated twice.
        OutOfMemoryError: torch's own.
    """
    if not recording.others:
        return {}
    outputs = recording.outputs
    weights = torch.zeros_like(outputs, requires_grad=True)
    chosen = [recording.twins[place] for place in recording.others]
    try:
        with torch.enable_grad():
            pulled = torch.autograd.grad(
                outputs, chosen, weights, create_graph=True, materialize_grads=True
            )
            entries = torch.cat([gradient.reshape(-1) for gradient in pulled]).unbind()
        columns = torch.stack(
            [
                torch.autograd.grad(e, weights, retain_graph=True, materialize_grads=True)[0]
                for e in entries
            ],
            -1,
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise NotLayerwiseError(
            "parameters beside the linear layers, and no second derivatives"
        ) from error
    parts = columns.split([p.numel() for p in chosen], -1)
    return {
        place: part.reshape(*outputs.shape, *p.shape)
        for place, part, p in zip(recording.others, parts, chosen, strict=True)
    }


def rows_in(
    place: int,
    recording: Recording,
    gradients: Sequence[Tensor | None],
    beside: dict[int, Tensor],
    chosen: slice = slice(None),
    out: Tensor | None = None,
) -> Tensor:
    """Rows of the chosen samples in one parameter, (s, k, *param.shape), in `out` if given."""
    uses = [
        (g[chosen], layer.input[chosen])
        for layer, g in zip(recording.layers, gradients, strict=True)
        if g is not None and place in (layer.weight, layer.bias)
    ]
    twin = recording.twins[place]
    if place in beside:
        rows = beside[place][chosen]
    elif not uses:
        rows = twin.new_zeros(*recording.outputs[chosen].shape, *twin.shape)
    elif twin.ndim == 1:
        rows = bias_rows([g for g, _ in uses])
    elif len(uses) == 1 and uses[0][1].ndim == 2:
        g, a = uses[0]
        return torch.mul(g[..., None], a[:, None, None, :], out=out)
    else:
        g, a = factors_of(uses)
        rows = g.mT @ a[:, None]  # Σ_t g aᵀ
    return rows if out is None else out.copy_(rows)


def factors_of(uses: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Output gradients (s, k, t, out) and inputs (s, t, in) of all uses of a weight together."""
    left = [_places(g, 2) for g, _ in uses]
    right = [_places(a, 1) for _, a in uses]
    if len(uses) == 1:
        return left[0], right[0]
    return torch.cat(left, 2), torch.cat(right, 1)


def check(rows: Rows, recording: Recording) -> None:
    """Compare the first rows with autograd, which knows their sum; the graph ends here.

    Raises:
        NotLayerwiseError: the sum is another.
    """
    outputs = recording.outputs
    weights = random_weights(outputs.detach().view(-1)[: rows.shape[0]])
    direction = torch.zeros_like(outputs)
    direction.view(-1)[: rows.shape[0]] = weights
    gradients = torch.autograd.grad(
        outputs,
        recording.twins,
        direction,
        allow_unused=True,
        materialize_grads=True,
    )
    expected = torch.cat([g.reshape(-1) for g in gradients])
    if disagrees(rows, weights, expected, torch.finfo(outputs.dtype).eps):
        raise NotLayerwiseError(ELSEWHERE)


def depends(recording: Recording, gradients: Sequence[Tensor | None]) -> Tensor | None:
    """Whether outputs depend on other samples: else, weighted by w, gradients are weighted by w.

    Returns:
        A bool on the device; None: there is no gradient to compare.
    """
    outputs = recording.outputs
    made = [layer.output for layer in recording.layers]
    weights = random_weights(outputs.detach())
    weighted: Sequence[Tensor | None] = torch.autograd.grad(
        outputs, made, weights, retain_graph=True, allow_unused=True
    )
    apart = []
    for found, g in zip(weighted, gradients, strict=True):
        if found is None or g is None:
            continue
        expected = (weights.view(*weights.shape, *(1,) * (g.ndim - 2)) * g).sum(1)
        size = g.abs().sum(1).amax()
        far = (found - expected).abs().amax()
        apart.append(far > torch.finfo(outputs.dtype).eps ** 0.5 * size)
    return torch.stack(apart).any() if apart else None


def _side_by_side(of_outputs: Sequence[Tensor | None]) -> Tensor | None:
    """Gradients (s, ..., out) of each output of a sample as one tensor (s, k, ..., out)."""
    like = next((g for g in of_outputs if g is not None), None)
    if like is None:
        return None
    if len(of_outputs) == 1:
        return like.unsqueeze(1)
    return torch.stack([torch.zeros_like(like) if g is None else g for g in of_outputs], 1)


def bias_rows(gradients: Sequence[Tensor]) -> Tensor:
    """The sum of output gradients (s, k, ..., out) over all uses and places, (s, k, out)."""
    total, *more = [g if g.ndim == 3 else g.flatten(2, -2).sum(2) for g in gradients]
    for g in more:
        total = total + g
    return total


def _places(part: Tensor, lead: int) -> Tensor:
    """The places t where a layer is applied, (*lead, t, features); one if to the whole sample."""
    return part.unsqueeze(lead) if part.ndim == lead + 1 else part.flatten(lead, -2)


def _only_in_layers(outputs: Tensor, layers: list[Layer], twins: Params) -> bool:
    """Whether no path leads from the outputs to a parameter but through the layers that were seen.

    An `autograd.Function` takes a weight past every torch function, and a derivative that the
    closure takes by itself leads back through the layers' backward passes.
    """
    uses: dict[int, int] = {}
    for layer in layers:
        for place in {layer.weight, layer.bias} - {-1}:
            uses[place] = uses.get(place, 0) + 1
    places = {id(twin): place for place, twin in enumerate(twins)}
    paths: dict[int, int] = {}
    for node in history(outputs):
        for following, _ in node.next_functions:
            leaf = places.get(id(getattr(following, "variable", None)))
            if leaf is not None:
                paths[leaf] = paths.get(leaf, 0) + 1
    return all(paths.get(place, 0) <= count for place, count in uses.items())
