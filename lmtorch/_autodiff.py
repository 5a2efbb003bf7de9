"""Jacobians by JVPs and VJPs, a chunk of directions at a time, of a function of several tensors.

Derivatives are taken tensor by tensor, not by slices of one flat vector: slicing inside `vmap(vjp)`
pads a zero n-vector for every sample and slice (3.4 to 6.9 times slower, benchmarks/). "Flat" is
the layout of the result, into which each tensor's part is written. `torch.func.jacfwd` takes no
chunk size; hence our own loop over directions.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import jvp

from ._threads import forward_mode
from .rows.base import scale

REMEMBERED = 4096  # weights of so many residuals are kept

Params = tuple[Tensor, ...]
Function = Callable[[Params], Tensor]  # tensors of the parameters -> residuals (..., m)


def history(tensor: Tensor) -> Iterator[Any]:
    """The nodes of autograd from which a tensor comes."""
    nodes: list[Any] = [tensor.grad_fn]
    known = {None}
    while nodes:
        node = nodes.pop()
        if node not in known:
            known.add(node)
            yield node
            nodes.extend(following for following, _ in node.next_functions)


def traced(tensor: Tensor) -> int:
    """Bytes of all that lies between the leaves of the graph and a tensor that comes from them."""
    total = 0
    for node in history(tensor):
        for result in getattr(node, "_input_metadata", ()):  # without types, as of torch 2.13
            if not result.is_nested_tensor:
                total += math.prod(result.shape) * result.dtype.itemsize
    return total


def random_weights(like: Tensor, seed: int = 0) -> Tensor:
    """Weights of a sum, normal, always the same: what differs anywhere differs in the sum."""
    draw = _drawn if like.numel() <= REMEMBERED else _drawn.__wrapped__
    drawn = draw(like.shape, seed, torch.get_default_dtype())
    return drawn.to(like, non_blocking=True)  # not to wait for the device


@lru_cache(maxsize=16)
def _drawn(shape: torch.Size, seed: int, dtype: torch.dtype) -> Tensor:
    """Normal numbers on the CPU; a generator is slow to make."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, device="cpu", dtype=dtype)


class Pulled(NamedTuple):
    """What one backward pass has shown of a function of the parameters."""

    values: Tensor  # (..., m), the residuals
    weights: Tensor  # w, for each of them or for the first ones
    gradient: Tensor  # Jᵀw, (..., n)


def weighted_gradients(values: Tensor, weights: Tensor, twins: Params) -> Params:
    """Gradients of Σ w·r; zeros where nothing leads to a tensor.

    The sum is formed, which the pass would not need: given the weights apart, torch (2.13) imports
    sympy, 0.4 s of a first fit.
    """
    with torch.enable_grad():
        total = (values * weights).sum()
    return torch.autograd.grad(total, twins, allow_unused=True, materialize_grads=True)


def ranges(total: int, chunk: int) -> Iterator[slice]:
    """Slices that cover `total` in steps of `chunk`."""
    for start in range(0, total, max(1, chunk)):  # of nothing, chunks of nothing
        yield slice(start, min(start + chunk, total))


def unit_rows(size: int, chosen: slice, like: Tensor) -> Tensor:
    """The unit vectors of `chosen`, as rows (c, size), without the whole identity."""
    directions = like.new_zeros(chosen.stop - chosen.start, size)
    directions[:, chosen].fill_diagonal_(1)
    return directions


def basis(params: Params, batch: int, columns: slice) -> Params:
    """Unit tangents (c, *param.shape) for the flat coordinates in `columns`, c of them.

    The leading `batch` dimensions of every tensor are problems of a batch, all moved at once.
    """
    sizes = [p.shape[batch:].numel() for p in params]
    directions = unit_rows(sum(sizes), columns, params[0])
    count = directions.shape[0]
    return tuple(
        part.reshape(count, *(1,) * batch, *p.shape[batch:]).expand(count, *p.shape)
        for part, p in zip(directions.split(sizes, dim=1), params, strict=True)
    )


class Graph:
    """An evaluation of residuals, through which J v and Jᵀw may be taken again and again.

    Args:
        function: the residuals (..., m).
        params: where; the leading `batch` dimensions of each tensor are problems of a batch.
        batch: their number.
    """

    def __init__(self, function: Function, params: Params, batch: int) -> None:
        with torch.enable_grad():
            self.twins = tuple(p.detach().requires_grad_() for p in params)
            self.values = function(self.twins)
        self.batch = batch
        self.backward: tuple[Tensor, list[Tensor | None]] | None = None

    def pull(self, weights: Tensor) -> Tensor:
        """Jᵀw, (..., n), by one backward pass."""
        if not self.values.requires_grad:
            return side_by_side([torch.zeros_like(t) for t in self.twins], self.batch).detach()
        shares = torch.autograd.grad(
            self.values,
            self.twins,
            weights.to(self.values.dtype),
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return side_by_side([g.to_dense() if g.is_sparse else g for g in shares], self.batch)

    def push(self, direction: Params) -> Tensor:
        """J v, (..., m), by reverse mode twice: the derivative of Jᵀw in w along v.

        No w changes it. It asks less of the operators than forward mode, whose formulas torch lacks
        for some.
        """
        if not self.values.requires_grad:
            return torch.zeros_like(self.values)
        if self.backward is None:
            self.backward = self._backward()
        weights, gradients = self.backward
        reached = [(g, v) for g, v in zip(gradients, direction, strict=True) if g is not None]
        if not reached:
            return torch.zeros_like(self.values)
        outputs, along = zip(*reached, strict=True)
        return torch.autograd.grad(
            outputs, weights, along, retain_graph=True, materialize_grads=True
        )[0]

    def _backward(self) -> tuple[Tensor, list[Tensor | None]]:
        """w, and Jᵀw with its graph, where it has one."""
        with torch.enable_grad():
            weights = torch.zeros_like(self.values, requires_grad=True)
            gradients = torch.autograd.grad(
                self.values,
                self.twins,
                weights,
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        return weights, [g if g.requires_grad else None for g in gradients]


def pushed(function: Function, params: Params, direction: Params) -> Tensor:
    """J v, (..., m), by reverse mode twice."""
    return Graph(function, params, 0).push(direction)


def pulled(
    function: Function, params: Params, batch: int
) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
    """Residuals (..., m), and w ↦ Jᵀw (..., n) by one backward pass for each w.

    The second is None where no derivative leads from the parameters to the residuals.
    """
    graph = Graph(function, params, batch)
    if not graph.values.requires_grad:
        return graph.values, None
    return graph.values.detach(), graph.pull


def fill_(rows: Tensor, parts: Sequence[Tensor], batch: int = 0) -> None:
    """Write each tensor's part (r, *batch, *param.shape) into its columns of (r, *batch, n)."""
    start = 0
    for part in parts:
        flat = (part.to_dense() if part.is_sparse else part).reshape(*part.shape[: 1 + batch], -1)
        rows[..., start : start + flat.shape[-1]] = flat
        start += flat.shape[-1]


class Curved(NamedTuple):
    """First and second derivatives of a cost in the parameters."""

    matrix: Tensor  # (..., n, n), the Hessian
    gradient: Tensor  # (..., n)


def hessian(
    function: Function,
    params: Params,
    batch: int,
    slope: Callable[[Tensor], Tensor],
    curvature: Callable[[Tensor], Tensor],
) -> Curved | None:
    """Hessian (..., n, n) of a cost Σ c(r): JᵀWJ + Σ w ∇²r with w = c′(r) and W = c″(r).

    The gradient g = Jᵀw is a function of the parameters and of w. One reverse pass through entry
    g_j gives row j of Σ w ∇²r from the parameters, and column j of J from w.

    Args:
        function: the residuals (..., m).
        params: where; the leading `batch` dimensions of each tensor are problems of a batch.
        batch: their number.
        slope: c′(r), (..., m).
        curvature: c″(r), (..., m), or (..., s, k, k) where c takes the k residuals of a sample
            together.

    Returns:
        The Hessian and the gradient; None where no derivative leads from the parameters to the
        residuals.
    """
    with torch.enable_grad():
        twins = tuple(p.detach().requires_grad_() for p in params)
        residual = function(twins)
        if not residual.requires_grad:
            return None
        weights = slope(residual.detach()).detach().to(residual.dtype).requires_grad_()
        shares = torch.autograd.grad(
            residual, twins, weights, create_graph=True, allow_unused=True, materialize_grads=True
        )
        gradient = side_by_side(shares, batch)
        inputs, rows, columns = (*twins, weights), [], []
        for entry in gradient.unbind(-1):
            shares = tuple(map(torch.zeros_like, inputs))
            if entry.requires_grad:
                shares = torch.autograd.grad(
                    entry.sum(),
                    inputs,
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
            *second, column = shares
            rows.append(side_by_side(second, batch))
            columns.append(column)
    jacobian = torch.stack(columns, -1)
    weighted = scale(jacobian, curvature(residual.detach()))
    found = torch.stack(rows, -2) + jacobian.mT @ weighted
    return Curved((found + found.mT) / 2, gradient.detach())


def side_by_side(parts: Sequence[Tensor], batch: int) -> Tensor:
    """Tensors of the shapes of the parameters as one, (..., n)."""
    return torch.cat([part.reshape(*part.shape[:batch], -1) for part in parts], -1)


def second_directional(function: Function, params: Params, direction: Params) -> Tensor:
    """d²r(x + tv)/dt² at t = 0, (..., m), by forward mode twice; `bent` tells if it is wrong."""

    def first(point: Params) -> Tensor:
        derivative: Tensor = jvp(function, (point,), (direction,))[1]
        return derivative

    with forward_mode():
        second: Tensor = jvp(first, (params,), (direction,))[1]
    return second


class Bend(NamedTuple):
    """How a weighted sum of residuals bends along a direction v."""

    first: Tensor  # wᵀJv, (...,)
    second: Tensor  # wᵀr_vv, (...,)


def bent(
    function: Function, params: Params, direction: Params, batch: int, weights: Tensor
) -> Bend:
    """First and second derivative of Σ w r(x + tv) in t by reverse mode twice, always right.

    Args:
        function: the residuals (..., m).
        params: where; the leading `batch` dimensions of each tensor are problems of a batch.
        direction: v, as the parameters.
        batch: their number.
        weights: w (..., m).
    """
    with torch.enable_grad():
        twins = tuple(p.detach().requires_grad_() for p in params)
        values = function(twins)
        if not values.requires_grad:
            return Bend(*values.new_zeros(2, *values.shape[:-1]).unbind())
        gradients = torch.autograd.grad(
            values, twins, weights, create_graph=True, allow_unused=True, materialize_grads=True
        )
        first = _inner(gradients, direction, batch)
        if not first.requires_grad:  # the residuals are linear
            return Bend(first, torch.zeros_like(first))
        seconds = torch.autograd.grad(first.sum(), twins, allow_unused=True, materialize_grads=True)
    return Bend(first.detach(), _inner(seconds, direction, batch))


def _inner(parts: Sequence[Tensor], direction: Params, batch: int) -> Tensor:
    """The product of derivatives in each parameter with v, (...,)."""
    return (side_by_side(parts, batch) * side_by_side(direction, batch)).sum(-1)
