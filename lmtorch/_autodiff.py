"""Jacobians by JVPs and VJPs, a chunk of directions at a time, of a function of several tensors.

Derivatives are taken tensor by tensor, not by slices of one flat vector: slicing inside `vmap(vjp)` pads a zero
n-vector for every sample and slice (3.4 to 6.9 times slower, benchmarks/). "Flat" is the layout of the result, into
which each tensor's part is written. `torch.func.jacfwd` takes no chunk size; hence our own loop over directions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.func import jvp, vmap

Params = tuple[Tensor, ...]
Function = Callable[[Params], Tensor]  # tensors of the parameters -> residuals (..., m)


def ranges(total: int, chunk: int) -> Iterator[slice]:
    """Slices that cover `total` in steps of `chunk`."""
    for start in range(0, total, max(1, chunk)):  # of nothing, chunks of nothing
        yield slice(start, min(start + chunk, total))


def units(size: int, chosen: slice, like: Tensor) -> Tensor:
    """The unit vectors of `chosen`, as rows (c, size), without the whole identity."""
    directions = like.new_zeros(chosen.stop - chosen.start, size)
    directions[:, chosen].fill_diagonal_(1)
    return directions


def basis(params: Params, batch: int, columns: slice) -> Params:
    """Unit tangents (c, *param.shape) for the flat coordinates in `columns`, c of them.

    The leading `batch` dimensions of every tensor are problems of a batch, all moved at once.
    """
    sizes = [p.shape[batch:].numel() for p in params]
    directions = units(sum(sizes), columns, params[0])
    count = directions.shape[0]
    return tuple(
        part.reshape(count, *(1,) * batch, *p.shape[batch:]).expand(count, *p.shape)
        for part, p in zip(directions.split(sizes, dim=1), params, strict=True)
    )


def push(
    function: Function, params: Params, batch: int, workspace: Callable[[int], Tensor], chunk: int | None
) -> tuple[Tensor, Tensor]:
    """Residuals (..., m) and Jacobian (..., m, n), filled by columns J e_j with forward mode."""

    def directional(tangent: Params) -> tuple[Tensor, Tensor]:
        value, derivative = jvp(function, (params,), (tangent,))[:2]
        return value, derivative

    n = sum(p.shape[batch:].numel() for p in params)
    out_dims: Any = (None, 0)  # torch declares integers; None, which it documents, leaves the value without a batch
    pushed = vmap(directional, out_dims=out_dims, randomness="same")
    residual, jacobian = None, None
    for columns in ranges(n, chunk or n):
        value, derivatives = pushed(basis(params, batch, columns))
        if residual is None or jacobian is None:
            residual, jacobian = value, workspace(value.shape[-1])
        jacobian[..., columns] = derivatives.movedim(0, -1)
    assert residual is not None
    assert jacobian is not None
    return residual, jacobian


def pull(pullback: Callable[[Tensor], tuple[Params]], residual: Tensor, jacobian: Tensor, rows: slice) -> None:
    """Fill rows of the Jacobian (..., m, n), e_iᵀJ, with reverse mode; all problems of a batch at once."""
    directions = units(residual.shape[-1], rows, residual)
    batch = residual.ndim - 1
    cotangents = directions.reshape(-1, *(1,) * batch, residual.shape[-1]).expand(-1, *residual.shape)
    gradients = vmap(lambda w: pullback(w)[0], randomness="same")(cotangents)
    fill_(jacobian if batch == 0 else jacobian.movedim(-2, 0), gradients, batch)


def fill_(rows: Tensor, parts: Sequence[Tensor], batch: int = 0) -> None:
    """Write each tensor's part (r, *batch, *param.shape) beside the others into rows (r, *batch, n)."""
    start = 0
    for part in parts:
        flat = (part.to_dense() if part.is_sparse else part).reshape(*part.shape[: 1 + batch], -1)
        rows[..., start : start + flat.shape[-1]] = flat
        start += flat.shape[-1]


def second_directional(function: Function, params: Params, direction: Params) -> Tensor:
    """d²r(x + tv)/dt² at t = 0, (..., m), by forward mode twice."""

    def first(point: Params) -> Tensor:
        derivative: Tensor = jvp(function, (point,), (direction,))[1]
        return derivative

    second: Tensor = jvp(first, (params,), (direction,))[1]
    return second
