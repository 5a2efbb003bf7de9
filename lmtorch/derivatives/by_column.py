"""Derivatives in a model's parameters: single columns of the Jacobian."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap
from torch.nn.attention import sdpa_kernel

from .._autodiff import Function, Params, ranges
from .._errors import InputError
from .._modules import call_with
from .._threads import forward_mode
from ..calculus.adjoints import Adjoints, Node
from ..calculus.base import NoRuleError
from ..calculus.jets import Entries, watched
from .calling import at_once, check_chunk, first_that_works, followed, transformed
from .draws import alike
from .model_parameters import Index, check_inputs, chosen_parameters, names_given, single_output
from .passes import PLAIN, Cut, wanted
from .taylor import Expansion, expand

# for so many columns of a parameter one sweep back from all outputs is tried, whose work is that of
# as many columns as a sample has outputs
SEVERAL = 4


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
        mode: "taylor" (rules of our own, for one parameter), "forward" (JVPs), "reverse" (VJPs of
            VJPs, for what has no forward formula) or "autograd" (the same by plain autograd, for
            what torch.func refuses). Default: "auto": for at least as many columns of a
            linear layer as a sample has outputs, one sweep back from these; else the first that
            works.
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
    check_inputs(inputs)
    several = not isinstance(name, str) or isinstance(index, list)
    names, indices = _paired(name, index)
    parameters = chosen_parameters(model, list(dict.fromkeys(names)))
    places = [_place(n, parameters[n], i) for n, i in zip(names, indices, strict=True)]
    tensors, others = tuple(parameters.values()), {}
    if not followed():  # `Cut` records what the function does
        tensors, inputs = tuple(t.detach() for t in tensors), tuple(map(_constant, inputs))
        others = {n: p.detach() for n, p in model.named_parameters() if n not in parameters}

    def function(params: Params) -> Tensor:
        own = dict(zip(parameters, params, strict=True))
        return single_output(call_with(model, {**others, **own}, inputs))

    def tangents() -> Params:
        found = tuple(t.new_zeros(len(places), t.numel()) for t in tensors)
        order = list(parameters)
        for column, (called, place) in enumerate(zip(names, places, strict=True)):
            found[order.index(called)][column, place] = 1
        return tuple(v.reshape(-1, *t.shape) for v, t in zip(found, tensors, strict=True))

    ways: list[tuple[str, Callable[[], Tensor]]] = [
        (
            "taylor",
            lambda: _columns_by_taylor(function, tensors, tangents(), places, chunk_size),
        ),
        ("forward", lambda: _columns_by_forward(function, tensors, tangents(), chunk_size)),
        ("reverse", lambda: _columns_by_reverse(function, tensors, tangents())),
        ("autograd", lambda: _columns_by_autograd(function, tensors, tangents())),
    ]
    if mode == "auto" and len(places) >= SEVERAL and len(tensors) == 1 and chunk_size is None:
        ways = [("sweep", partial(_columns_by_rules, function, tensors[0], places, inputs)), *ways]
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
    names = [name] * len(indices) if isinstance(name, str) else names_given(name, "name")
    if len(indices) == 1 and len(names) > 1:
        indices = indices * len(names)
    if len(names) != len(indices) or not names:
        raise InputError(
            f"{len(names)} name(s) and {len(indices)} index(es): one index for each column is "
            "needed."
        )
    return names, indices


def _columns_by_taylor(
    function: Function,
    tensors: Params,
    tangents: Params,
    places: list[int],
    chunk_size: int | None,
) -> Tensor:
    """J v for each of the tangents (c, *param), (c, *out), by Taylor mode of first order."""
    if len(tensors) > 1 or transformed() or watched():
        raise RuntimeError("Taylor mode takes one parameter, outside all other modes")
    (tensor,), (directions,) = tensors, tangents
    count = len(directions)
    chunk = at_once(lambda: function(tensors), count, chunk_size, tensor.device)

    def along(some: slice) -> Tensor:
        start = Entries(tensor, directions[some], places=tuple(places[some]))
        return expand(lambda p: function((p,)), start, 0).first

    found = [along(some) for some in alike(ranges(count, chunk), tensor)]
    return torch.cat(found) if len(found) > 1 else found[0]


def _columns_by_rules(
    function: Function, tensor: Tensor, places: list[int], inputs: tuple[Any, ...]
) -> Tensor:
    """Columns of a linear layer's weight or bias, from what arrives at its outputs.

    Returns:
        (c, *out).

    Raises:
        NoRuleError: the model is not of linear layers, elementwise functions and sums alone, or has
            more outputs of a sample than there are columns.
    """
    if transformed() or watched() or not inputs or torch.is_autocast_enabled(tensor.device.type):
        raise NoRuleError("a mode around it")
    adjoints = Adjoints(len(inputs[0]))
    y = Expansion(adjoints).evaluate(lambda p: function((p,)), Node(tensor, place=0))
    if not isinstance(y, Node) or y.place >= 0 or y.value[0].numel() > len(places):
        raise NoRuleError("more outputs than columns")
    outputs = y.value.shape[1:]
    k = outputs.numel()
    units = torch.eye(k, dtype=y.value.dtype, device=y.value.device).reshape(1, k, *outputs)
    total: Tensor | None = None
    for use, g in zip(adjoints.uses, adjoints.pulled(y, units), strict=True):
        if g is None:
            continue
        if g.ndim != 3:
            raise NoRuleError("a layer at several places of a sample")
        if use.weight >= 0 <= use.bias:
            raise NoRuleError("a weight that is a bias")
        if use.bias >= 0:
            part = g.index_select(2, torch.tensor(places, device=g.device))
        else:
            pairs = [divmod(p, tensor.shape[1]) for p in places]
            rows, columns = torch.tensor(pairs, device=g.device).unbind(1)
            part = g.index_select(2, rows) * use.input.index_select(1, columns).unsqueeze(1)
        total = part if total is None else total + part
    if total is None:
        raise NoRuleError("a parameter without influence")
    return total.movedim(-1, 0).reshape(len(places), *y.value.shape)


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
