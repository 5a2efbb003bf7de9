"""Rows of J in the parameters of layers, from their inputs and the gradients of their outputs.

Where a parameter is the weight or bias of layers and samples are independent, one ordinary backward
pass of Σ r gives each sample's own gradients g in the layers' outputs, and with those its rows, for
z = W a + b

    ∂r/∂W = g aᵀ,   ∂r/∂b = g,

for each output r of a sample: no vmap, no copies. `layer_kinds` has other layers. A layer may be
applied several times, at several places of a sample or to the derivatives of its input
(`lmtorch.derivatives` does), and a weight may be that of several layers: the rows of all its uses
add up.

A few numbers beside the layers, an unknown coefficient of an equation, say, have columns by two
reverse passes: Jᵀw is linear in w, and its derivative in w is the column. Of more, the caller may
take the columns in another way.

Reference: Goodfellow, Efficient per-example gradient computations (2015).
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.utils._pytree import tree_leaves

from .._autodiff import Params, history, random_weights
from .._modes import FunctionMode
from .._pages import room
from ..rows.base import Rows
from .base import far_apart
from .layer_kinds import CoupledError, Kind, Linear, call_of

FEW = 16  # entries of parameters beside the layers at most; each costs a reverse pass
BESIDE = "parameters beside the layers"


class NotLayerwiseError(Exception):
    """Some parameter is more than the weight or bias of layers."""


class Layer(NamedTuple):
    """One use of a layer."""

    weight: int  # place among the parameters; −1: not one of them
    bias: int
    input: Tensor  # (s, ...), what the kind makes rows of
    output: Any  # (s, ...), what stands for it in autograd's graph
    kind: Kind = Linear()
    moves: bool = False  # whether its input depends on parameters


class Recorder(FunctionMode):
    """Keeps inputs and outputs of layers with parameters, and what acts elsewhere.

    An evaluation at its `twins` in the place of the parameters, with gradients enabled, is seen.
    """

    def __init__(self, params: Params) -> None:
        super().__init__()
        self.twins = tuple(p.detach().requires_grad_() for p in params)
        self.places = {id(twin): place for place, twin in enumerate(self.twins)}
        self.layers: list[Layer] = []
        self.elsewhere: set[int] = set()  # places of parameters that other functions took
        self.begun = False
        self.first: Tensor | None = None  # input of the first layer of all, if it is linear
        self.coupled = ""  # why samples depend on each other, if a layer says so

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given: Sequence[Any] = [*args, *kwargs.values()] if kwargs else args
        if any(isinstance(a, list | tuple | dict) for a in given):
            given = tree_leaves(given)
        taken = [place for a in given if (place := self.places.get(id(a))) is not None]
        own = self._own(func, args, kwargs or {}, result)
        taken = [place for place in taken if place not in own or taken.count(place) > 1]
        # a shape, a dtype or a detached result leads no derivative on
        if taken and any(
            isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(result)
        ):
            self.elsewhere.update(taken)
        return result

    def _own(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> set[int]:
        """Note a call of a layer; the places of parameters that are its weight or bias."""
        try:
            call = call_of(func, args, kwargs)
        except CoupledError as error:
            self.coupled = str(error)
            return set()
        if call is None:
            return set()
        if not self.begun and isinstance(call.kind, Linear):
            self.first = call.input
        self.begun = True
        weight, bias = (self.places.get(id(a), -1) for a in (call.weight, call.bias))
        if result.requires_grad and (weight >= 0 or bias >= 0):
            # not the tensor: a following function may write over it
            edge = get_gradient_edge(result)
            self.layers.append(Layer(weight, bias, call.input, edge, call.kind, call.moves))
        return {weight, bias} - {-1}

    def recording(
        self, outputs: Tensor, count: int, *, search: bool, lost: Collection[int] = ()
    ) -> "Recording":
        """What is needed for the rows, from the outputs of the evaluation that was seen.

        Args:
            outputs: of all samples, the samples first.
            count: samples.
            search: whether to look through the graph for uses of a parameter that no torch function
                shows; without, `check` is what finds them.
            lost: places of parameters that a search has found to have such uses.

        Raises:
            NotLayerwiseError: the function does not fit.
        """
        if self.coupled:
            raise NotLayerwiseError(self.coupled)
        outputs = outputs.reshape(count, -1)
        apart = self.elsewhere | set(lost)
        for layer in self.layers:
            if layer.input.ndim < 1 or layer.input.shape[0] != count:
                apart |= {layer.weight, layer.bias}
        if search:
            lost = _seen_nowhere(outputs, self.layers, self.twins)
            apart |= set(lost)
        layers = [
            layer._replace(
                weight=-1 if layer.weight in apart else layer.weight,
                bias=-1 if layer.bias in apart else layer.bias,
            )
            for layer in self.layers
        ]
        layers = [layer for layer in layers if layer.weight >= 0 or layer.bias >= 0]
        if not layers:
            raise NotLayerwiseError("no layer whose parameters act nowhere else")
        used = {place for layer in layers for place in (layer.weight, layer.bias)}
        others = tuple(place for place in range(len(self.twins)) if place not in used)
        return Recording(self.twins, outputs, layers, self.first, others, tuple(lost))


class Recording(NamedTuple):
    """An evaluation whose parameters are those of layers, and others beside them."""

    twins: Params  # what stood for the parameters
    outputs: Tensor  # (s, k), k of each sample, with their graph
    layers: list[Layer]
    first: Tensor | None  # input of the first layer of all, if it is linear
    others: tuple[int, ...]  # places of the parameters beside the layers
    lost: tuple[int, ...] = ()  # those of them that a search of the graph has found

    @property
    def beside(self) -> int:
        """Entries of the parameters beside the layers."""
        return sum(self.twins[place].numel() for place in self.others)


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
        raise NotLayerwiseError(f"{BESIDE}, and no second derivatives") from error
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
    twin = recording.twins[place]
    uses = uses_of(place, recording, gradients, chosen)
    if place in beside:
        rows = beside[place][chosen]
    elif not uses:
        rows = twin.new_zeros(*recording.outputs[chosen].shape, *twin.shape)
    elif len(uses) == 1 and isinstance(uses[0].kind, Linear) and uses[0].outer:
        g, a = uses[0].gradient, uses[0].input
        left, right = g[..., None], a[:, None, None, :]
        out = room(left, right) if out is None else out
        return torch.mul(left, right, out=out)
    else:
        rows = summed_rows(uses, twin)
    return rows if out is None else out.copy_(rows)


class Use(NamedTuple):
    """A use of a parameter, with what its rows are made of."""

    kind: Any
    gradient: Tensor  # (s, k, ...)
    input: Tensor  # (s, ...)
    weight: bool  # as a weight, not as a bias

    @property
    def outer(self) -> bool:
        """Whether the row of each residual is one outer product."""
        return self.weight and self.input.ndim == 2


def uses_of(
    place: int,
    recording: Recording,
    gradients: Sequence[Tensor | None],
    chosen: slice = slice(None),
) -> list[Use]:
    """The uses of a parameter at the chosen samples."""
    return [
        Use(layer.kind, g[chosen], layer.input[chosen], as_weight)
        for layer, g in zip(recording.layers, gradients, strict=True)
        if g is not None
        for as_weight, own in ((True, layer.weight), (False, layer.bias))
        if own == place
    ]


def summed_rows(uses: Sequence[Use], twin: Tensor) -> Tensor:
    """The rows of all uses together, (s, k, *param.shape)."""
    if len(uses) > 1 and all(isinstance(use.kind, Linear) for use in uses):
        found = factors_of(uses)
    else:  # patches of all samples and convolutions at once would take much memory
        found = None
    if found is not None:
        left, right = found
        return (left.mT @ right[:, None]).unflatten(-1, twin.shape[1:])  # Σ_t g aᵀ
    rows = None
    for use in uses:
        if use.weight:
            own = use.kind.weight_rows(use.gradient, use.input, twin.shape)
        else:
            own = use.kind.bias_rows(use.gradient)
        rows = own if rows is None else rows + own
    assert rows is not None
    return rows


def factors_of(uses: Sequence[Use]) -> tuple[Tensor, Tensor] | None:
    """Output gradients (s, k, t, out) and inputs (s, t, in) of all uses of a weight together.

    None where they are not all linear layers, or convolutions of one group.
    """
    if not all(
        use.weight and (isinstance(use.kind, Linear) or getattr(use.kind, "groups", None) == 1)
        for use in uses
    ):
        return None
    left, right = zip(*(use.kind.factors(use.gradient, use.input) for use in uses), strict=True)
    if len(uses) == 1:
        return left[0], right[0]
    return torch.cat(left, 2), torch.cat(right, 1)


def check(
    parts: Iterable[tuple[slice, Rows]], recording: Recording, looked: slice = slice(None)
) -> None:
    """Compare the rows with autograd, which knows their sum; the graph ends here.

    A layer may see samples in another order, or something else of which there are as many.

    Args:
        parts: all samples that are looked at, some at a time, with their rows.
        recording: of the evaluation.
        looked: those samples.

    Raises:
        NotLayerwiseError: the sum is another.
    """
    outputs = recording.outputs
    weights = torch.zeros_like(outputs)
    weights[looked] = random_weights(outputs.detach()[looked])
    gradients = torch.autograd.grad(
        outputs,
        recording.twins,
        weights,
        allow_unused=True,
        materialize_grads=True,
    )
    expected = torch.cat([(g.to_dense() if g.is_sparse else g).reshape(-1) for g in gradients])
    found, squares = torch.zeros_like(expected), torch.zeros_like(expected)
    for chosen, rows in parts:
        norms = rows.column_norms
        found += rows.transposed_times(weights[chosen].reshape(-1).to(norms.dtype))
        squares += norms.square()
    if far_apart(found, expected, squares.sqrt(), torch.finfo(outputs.dtype).eps):
        raise NotLayerwiseError("a parameter acts elsewhere than in a layer")


def telling(recording: Recording, gradients: Sequence[Tensor | None]) -> bool:
    """Whether a check has seen the samples of each use of a layer: zeros stand in any order.

    Where the last layer begins at zero, nothing is seen of those before it yet.
    """
    found = []
    for layer, g in zip(recording.layers, gradients, strict=True):
        if g is not None:
            found.append(g.any())
            if layer.bias < 0 and layer.moves:
                found.append(layer.input.any())
    return not found or bool(torch.stack(found).all())


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


def _seen_nowhere(outputs: Tensor, layers: Sequence[Layer], twins: Params) -> tuple[int, ...]:
    """Places of parameters to which paths lead from the outputs past the layers that were seen.

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
    return tuple(place for place, count in uses.items() if paths.get(place, 0) > count)
