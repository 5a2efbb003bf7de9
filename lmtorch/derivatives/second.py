"""Second derivatives: Hessians, diagonals, traces and products, and both orders in one pass."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from operator import index
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._autodiff import ranges
from .._errors import InputError
from ..calculus.jets import among, diagonal, every, trace, watched
from .calling import Call, Function, answered, checked, chunk_of, transformed
from .draws import alike
from .layers import second_by_layers
from .passes import (
    by_columns,
    by_rows,
    once_by_reverse,
    products,
    products_by_reverse,
    rows,
    taylor,
    twice_by_reverse,
)

# up to so many inputs d all d (d + 1) / 2 pairs at once cost less than d products with the Hessian
# (benchmarks/)
PAIRS = 6
# with one output and a large batch: up to 2 inputs all pairs at once are faster; from 3 on reverse
# over reverse is (0.7 of the time, benchmarks/)
ALONE = 2
# a batch is large if it has more pairs, of all samples, than this: with fewer the time goes by the
# number of calls, not by their work (benchmarks/)
LITTLE = 1_000
# with a graph, up to so many inputs, of a network of layers, are all taken forward for any number
# of second derivatives; two backward passes cost as much as four evaluations
THREE = 3
Product = Callable[[Call, Tensor], Tensor]  # directions (c, 1 …, *in) -> H v (c, *batch, *out, *in)


class ValueJacobianHessian(NamedTuple):
    """A function's value and its first and second derivatives, for each sample."""

    value: Tensor  # (*batch, *out)
    jacobian: Tensor  # (*batch, *out, *in)
    hessian: Tensor  # (*batch, *out, *in, *in)


def hessian(f: Function, x: Tensor, *, mode: str = "auto", chunk_size: int | None = None) -> Tensor:
    """Second derivatives of every output in every pair of inputs, across the whole of x.

    For a function of a batch nearly all of it is zero; `batch_hessian` makes only the rest.

    Args:
        f: takes one tensor and returns one tensor, usually a single number.
        x: a floating tensor of any shape.
        mode: as in `batch_hessian`.
        chunk_size: as in `batch_hessian`.

    Returns:
        `(*out, *x.shape, *x.shape)`, dtype and device of the output; differentiable.

    Raises:
        InputError: f is no function, x no floating tensor, or the mode does not work for f.

    Example:
        >>> import torch, lmtorch
        >>> lmtorch.hessian(lambda x: x[0] ** 2 * x[1], torch.tensor([1.0, 2.0]))
        tensor([[4., 2.],
                [2., 0.]])
    """
    return batch_hessian(f, x, batch_dims=0, mode=mode, chunk_size=chunk_size)


def batch_hessian(
    f: Function,
    x: Tensor,
    *,
    batch_dims: int = 1,
    mode: str = "auto",
    chunk_size: int | None = None,
) -> Tensor:
    """Each sample's second derivatives in its own inputs.

    Args:
        f: written for a batch: `(*batch, *in)` to `(*batch, *out)`, each sample by itself.
        x: `(*batch, *in)`, floating.
        batch_dims: how many leading dimensions of x are samples. Default: 1.
        mode: "taylor" (all pairs at once, in plain operations), "forward" (forward over reverse,
            torch.func) or "reverse" (reverse over reverse, torch.autograd, row by row). Default:
            "auto": for networks of linear layers and smooth activations all layers at once; else
            Taylor mode for few inputs, and forward over reverse for more; where an operator
            refuses a mode, the next one is tried.
        chunk_size: columns at once. Default: by the memory that is free and the cache.

    Returns:
        `(*batch, *out, *in, *in)`, dtype and device of the output; differentiable.

    Raises:
        InputError: as in `batch_jacobian`.

    Example:
        >>> import torch, lmtorch
        >>> lmtorch.batch_hessian(lambda x: (x**3).sum(1), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([[[ 6.,  0.],
                 [ 0., 12.]],
        <BLANKLINE>
                [[18.,  0.],
                 [ 0., 24.]]])
    """
    call = checked(f, x, batch_dims, chunk_size)

    def along() -> Tensor:
        found = _taylor(call, list(range(call.size)))
        return found.hessian.reshape(found.value.shape + call.inputs + call.inputs)

    def forward() -> Tensor:
        chunk = chunk_of(call, call.size, chunk_size)
        blocks = alike(ranges(call.size, chunk), x)
        return by_columns(
            call, torch.cat([products(call, call.directions(some)) for some in blocks])
        )

    def reverse(most: int | None = None) -> Tensor:
        return by_columns(call, twice_by_reverse(call, call.directions(), most)[2])

    ways = [("taylor", along), ("forward", forward), ("reverse", reverse)]
    if mode == "auto" and not _few_pairs(call, call.size):
        ways = [("reverse", partial(reverse, most=1)), *ways[call.size > PAIRS :]]
    if mode == "auto" and chunk_size is None and _by_layers(call, call.size):
        every_input = range(call.size)
        ways = [("layers", lambda: second_by_layers(call, every_input, "every")[2]), *ways]
    return answered(f, call, 2, ways, mode)


def value_jacobian_hessian(
    f: Function,
    x: Tensor,
    *,
    batch_dims: int = 1,
    coordinates: int | Sequence[int] | None = None,
    mode: str = "auto",
    chunk_size: int | None = None,
) -> ValueJacobianHessian:
    """Value, first and second derivatives of each sample, in one pass if the mode allows it.

    Args:
        f: written for a batch: `(*batch, *in)` to `(*batch, *out)`, each sample by itself.
        x: `(*batch, *in)`, floating.
        batch_dims: how many leading dimensions of x are samples. Default: 1.
        coordinates: the inputs of a sample (flattened), one or several, in which second derivatives
            are taken: the fewer, the faster. Default: all. First derivatives are in all inputs.
        mode: as in `batch_hessian`.
        chunk_size: columns of the Hessian at once, if they are not made in one pass. Default: by
            the memory that is free and the cache.

    Returns:
        A named tuple of `value (*batch, *out)`, `jacobian (*batch, *out, *in)` and
        `hessian (*batch, *out, *in, *in)`; differentiable. With c coordinates the Hessian is
        `(*batch, *out, c, c)`.

    Raises:
        InputError: as in `batch_jacobian`, or x has no such coordinates.

    Example:
        >>> import torch, lmtorch
        >>> f, tx = lambda tx: tx[:, 0] * tx[:, 1] ** 2, torch.rand(100, 2)
        >>> u, J, H = lmtorch.value_jacobian_hessian(f, tx, coordinates=1)
        >>> u_t, u_x, u_xx = J[:, 0], J[:, 1], H[:, 0, 0]
        >>> burgers = u_t + u * u_x - 0.01 * u_xx
    """
    call = checked(f, x, batch_dims, chunk_size)
    chosen = _chosen(call, coordinates)
    shape = (
        call.inputs + call.inputs if coordinates is None else torch.Size((len(chosen), len(chosen)))
    )

    def of_columns(value: Tensor, jacobian: Tensor, columns: Tensor) -> ValueJacobianHessian:
        entries = columns if len(call.inputs) == 1 else _flattened(call, columns)
        if len(chosen) == 1:
            second = entries[..., chosen[0]]
        else:
            second = torch.stack([entries[..., i] for i in chosen], -1).movedim(0, -2)
        return ValueJacobianHessian(
            value, by_rows(call, value, jacobian), second.reshape(value.shape + shape)
        )

    def along() -> ValueJacobianHessian:
        found = _taylor(call, chosen)
        return found._replace(hessian=found.hessian.reshape(found.value.shape + shape))

    def forward() -> ValueJacobianHessian:
        chunks = ranges(len(chosen), chunk_of(call, len(chosen), chunk_size))

        def some_columns(some: slice) -> Tensor:
            return products(call, call.directions(chosen[some]))

        passes: list[Callable[[], Any]] = [partial(rows, call, x)]
        passes += [partial(some_columns, some) for some in chunks]
        (value, jacobian), *columns = (evaluate() for evaluate in alike(passes, x))
        return of_columns(value, jacobian, torch.cat(columns))

    def reverse(most: int | None = None) -> ValueJacobianHessian:
        return of_columns(*twice_by_reverse(call, call.directions(chosen), most))

    ways = [("taylor", along), ("forward", forward), ("reverse", reverse)]
    if mode == "auto" and len(chosen) == 1 and call.again and not transformed() and not watched():
        # a backward pass through one product costs less than one through Taylor mode
        ways = [("reverse", lambda: _of_one(call, chosen[0] % call.size, shape)), *ways]
    elif mode == "auto" and not _few_pairs(call, len(chosen)):
        ways = [("reverse", partial(reverse, most=1)), *ways[len(chosen) > PAIRS :]]
    if mode == "auto" and chunk_size is None and _by_layers(call, len(chosen)):
        layers = partial(second_by_layers, call, chosen, "every")
        ways = [("layers", lambda: ValueJacobianHessian(*layers())), *ways]
    return answered(f, call, 2, ways, mode)


def _by_layers(call: Call, count: int) -> bool:
    """Whether one pass for all layers is the least work, if the function is made of layers."""
    # with a graph first derivatives in all inputs go forward, and all pairs of the chosen ones
    if transformed() or len(call.inputs) != 1:
        return False
    return not call.again or call.size <= THREE or _few_pairs(call, count)


def _of_one(call: Call, place: int, shape: torch.Size) -> ValueJacobianHessian:
    """Both orders in a single input of a function with one output, by two backward passes."""
    y, row, along = once_by_reverse(call, place)
    entries = along if len(call.inputs) == 1 else along.reshape(*call.samples, call.size)
    jacobian = row.reshape(y.shape + call.inputs)
    second = entries.select(-1, place).reshape(y.shape + shape)
    if row.dtype != y.dtype:
        jacobian, second = jacobian.to(y.dtype), second.to(y.dtype)
    return ValueJacobianHessian(y, jacobian, second)


def _few_pairs(call: Call, size: int) -> bool:
    """Whether all pairs at once cost less than a product with the Hessian for each input."""
    if transformed():  # plain autograd would not see what torch.func does around it
        return True
    # the Jacobian by linear layers must see the operations, which reverse mode would hide
    if watched() and size <= PAIRS:
        return True
    return size <= ALONE or size * (size + 1) // 2 * call.samples.numel() <= LITTLE


def _taylor(call: Call, chosen: list[int]) -> ValueJacobianHessian:
    """Value and both derivatives by Taylor mode, all pairs of the chosen inputs at once."""
    jet = taylor(
        call,
        call.directions(),
        every if len(chosen) == call.size else among([i % call.size for i in chosen]),
    )
    assert jet.second is not None
    places = torch.tensor(_places(len(chosen)), device=call.x.device)
    whole = jet.second.index_select(0, places).movedim(0, -1)  # (*batch, *out, c²)
    return ValueJacobianHessian(jet.value, by_columns(call, jet.first), whole)


@cache
def _places(size: int) -> list[int]:
    """For the entries (i, j) of a matrix, row by row, their places among the pairs with i ≤ j."""
    starts = [i * size - i * (i + 1) // 2 for i in range(size)]  # the place of (i, j) is start + j
    return [starts[min(i, j)] + max(i, j) for i in range(size) for j in range(size)]


def laplacian(
    f: Function,
    x: Tensor,
    *,
    batch_dims: int = 1,
    coordinates: int | Sequence[int] | None = None,
    mode: str = "auto",
    chunk_size: int | None = None,
) -> Tensor:
    """The Laplacian Σᵢ ∂²f/∂xᵢ² of each output of each sample.

    The sum is carried through the function as one number, beside the first derivatives: d inputs
    cost what d + 2 evaluations do, and no Hessian is held.

    Args:
        f: written for a batch: `(*batch, *in)` to `(*batch, *out)`, each sample by itself.
        x: `(*batch, *in)`, floating.
        batch_dims: how many leading dimensions of x are samples. Default: 1.
        coordinates: the inputs of a sample (flattened), one or several, over which the sum goes,
            for example those of space and not of time. Default: all.
        mode: "taylor" (as described), "forward" (forward over reverse, torch.func) or "reverse"
            (reverse over reverse, torch.autograd). Default: "auto": for networks of linear layers
            and smooth activations all layers at once, else Taylor mode; where an operator refuses
            a mode, the next one is tried.
        chunk_size: directions at once. Default: by the memory that is free and the cache.

    Returns:
        `(*batch, *out)`, dtype and device of the output; differentiable.

    Raises:
        InputError: as in `batch_jacobian`, or x has no such coordinates.

    Reference: Li et al., A computational framework for neural network-based variational Monte Carlo
    with Forward Laplacian (2024).

    Example:
        >>> import torch, lmtorch
        >>> xy = torch.rand(100, 2, dtype=torch.float64)
        >>> harmonic = lmtorch.laplacian(lambda xy: torch.exp(xy[:, 0]) * torch.sin(xy[:, 1]), xy)
        >>> harmonic.shape, bool(harmonic.abs().max() < 1e-14)
        (torch.Size([100]), True)
    """
    call = checked(f, x, batch_dims, chunk_size)
    chosen = _chosen(call, coordinates)

    def along(some: list[int]) -> Tensor:
        second = taylor(call, call.directions(some), trace).second
        assert second is not None
        return second[0]

    def by(product: Product, some: list[int]) -> Tensor:
        return _picked(call, product(call, call.directions(some)), some).sum(-1)

    def summed(of: Callable[[list[int]], Tensor]) -> Tensor:
        blocks = [
            of(chosen[some])
            for some in alike(ranges(len(chosen), chunk_of(call, len(chosen), chunk_size)), x)
        ]
        return torch.stack(blocks).sum(0) if len(blocks) > 1 else blocks[0]

    ways = [
        ("taylor", lambda: summed(along)),
        ("forward", lambda: summed(partial(by, products))),
        ("reverse", lambda: summed(partial(by, products_by_reverse))),
    ]
    if mode == "auto" and chunk_size is None:
        ways = [("layers", lambda: second_by_layers(call, chosen, "trace")[2]), *ways]
    return answered(f, call, 2, ways, mode)


def hessian_diagonal(
    f: Function,
    x: Tensor,
    *,
    batch_dims: int = 1,
    mode: str = "auto",
    chunk_size: int | None = None,
) -> Tensor:
    """The diagonal of each sample's Hessian, ∂²f/∂xᵢ²: the terms of the Laplacian.

    Args:
        f: written for a batch: `(*batch, *in)` to `(*batch, *out)`, each sample by itself.
        x: `(*batch, *in)`, floating.
        batch_dims: how many leading dimensions of x are samples. Default: 1.
        mode: as in `laplacian`.
        chunk_size: directions at once. Default: by the memory that is free and the cache.

    Returns:
        `(*batch, *out, *in)`, dtype and device of the output; differentiable.

    Raises:
        InputError: as in `batch_jacobian`.

    Example:
        >>> import torch, lmtorch
        >>> f = lambda x: x[:, 0] ** 2 * x[:, 1] ** 3
        >>> lmtorch.hessian_diagonal(f, torch.tensor([[1.0, 2.0]]))
        tensor([[16., 12.]])
    """
    call = checked(f, x, batch_dims, chunk_size)

    def along(some: list[int]) -> Tensor:
        second = taylor(call, call.directions(some), diagonal).second
        assert second is not None
        return second.movedim(0, -1)

    def by(product: Product, some: list[int]) -> Tensor:
        return _picked(call, product(call, call.directions(some)), some)

    def joined(of: Callable[[list[int]], Tensor]) -> Tensor:
        every_one = list(range(call.size))
        blocks = [
            of(every_one[some])
            for some in alike(ranges(call.size, chunk_of(call, call.size, chunk_size)), x)
        ]
        return (
            torch.cat(blocks, -1).unflatten(-1, call.inputs) if call.inputs else blocks[0][..., 0]
        )

    ways = [
        ("taylor", lambda: joined(along)),
        ("forward", lambda: joined(partial(by, products))),
        ("reverse", lambda: joined(partial(by, products_by_reverse))),
    ]
    if mode == "auto" and chunk_size is None:
        inputs = range(call.size)
        ways = [("layers", lambda: second_by_layers(call, inputs, "diagonal")[2]), *ways]
    return answered(f, call, 2, ways, mode)


def _chosen(call: Call, coordinates: int | Sequence[int] | None) -> list[int]:
    """The coordinates as a list; raises an `InputError` if x has no such coordinates."""
    if coordinates is None:
        return list(range(call.size))
    given = coordinates if isinstance(coordinates, Iterable) else [coordinates]
    try:
        # whatever a caller without a type checker passes; a mask is no list of places
        chosen = [-call.size - 1 if isinstance(i, bool) else index(i) for i in given]
    except TypeError:
        chosen = []
    if not chosen or any(not -call.size <= i < call.size for i in chosen):
        raise InputError(
            f"coordinates={coordinates} must be one place or several in a sample's input (shape "
            f"{tuple(call.inputs)}, flattened): whole numbers from 0 to {call.size - 1}, or from "
            f"{-call.size} to -1 counted from the end."
        )
    return chosen


def _flattened(call: Call, found: Tensor) -> Tensor:
    """Derivatives in a sample's inputs (..., *in) as (..., d)."""
    return found.flatten(-len(call.inputs)) if call.inputs else found[..., None]


def _picked(call: Call, found: Tensor, coordinates: list[int]) -> Tensor:
    """Diagonal entries (H e_i)_i, (*batch, *out, c), from H e_i for the chosen i."""
    flat = _flattened(call, found)
    return torch.stack([part[..., i] for part, i in zip(flat, coordinates, strict=True)], -1)
