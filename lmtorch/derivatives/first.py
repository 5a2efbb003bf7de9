"""First derivatives: Jacobians, gradients, divergence, curl, and products with them."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from .._autodiff import ranges
from .._errors import InputError
from .calling import (
    Call,
    Function,
    RefusedError,
    answered,
    checked,
    chunk_of,
    first_that_works,
    followed,
    transformed,
)
from .draws import alike
from .passes import (
    PLAIN,
    by_columns,
    by_rows,
    columns,
    fitting,
    numbers,
    one_number,
    pullback,
    pulled,
    rows_by_autograd,
    taylor,
    units,
    variable,
)
from .unrolled import by_matrices

# rows of so many bytes, of all samples, fill the cache of a CPU one by one: several at once gain
# nothing, and plain autograd keeps less than torch.func, which could be differentiated again
# (a twentieth of the time, up to a half with a quarter of a MiB of inputs, benchmarks/)
FULL = 2**18
# up to so many inputs of a sample forward passes are tried before the number of outputs is known
CHEAP = 3


def jacobian(
    f: Function, x: Tensor, *, mode: str = "auto", chunk_size: int | None = None
) -> Tensor:
    """Every output in every input: the full Jacobian, across the whole of x.

    For a function of a batch nearly all of it is zero: the blocks ∂f(x_i)/∂x_j of different
    samples. `batch_jacobian` makes only the others.

    Args:
        f: takes one tensor and returns one tensor, written in torch.
        x: a floating tensor of any shape.
        mode: "taylor", "forward", "reverse" or "autograd". Default: "auto", by shape.
        chunk_size: rows or columns at once. Default: by the memory that is free and the cache.

    Returns:
        `(*out, *x.shape)`, dtype and device of the output; differentiable.

    Raises:
        InputError: f is no function, x no floating tensor, or the mode does not work for f.

    Example:
        >>> import torch, lmtorch
        >>> lmtorch.jacobian(lambda x: x**2, torch.tensor([1.0, 2.0]))
        tensor([[2., 0.],
                [0., 4.]])
    """
    return batch_jacobian(f, x, batch_dims=0, mode=mode, chunk_size=chunk_size)


def batch_jacobian(
    f: Function,
    x: Tensor,
    *,
    batch_dims: int = 1,
    mode: str = "auto",
    chunk_size: int | None = None,
) -> Tensor:
    """The Jacobian of each sample: its outputs in its own inputs.

    The function is called with the whole batch. One pass gives a row, or a column, of every
    sample's Jacobian; the blocks across samples, which are zero, are never made: time and memory
    are linear in the batch.

    Args:
        f: written for a batch, as networks are: `(*batch, *in)` to
            `(*batch, *out)`, each sample by itself.
        x: `(*batch, *in)`, floating.
        batch_dims: how many leading dimensions of x are samples. Default: 1.
        mode: "taylor" (forward, in plain operations), "forward" (torch.func.jvp), "reverse"
            (torch.func.vjp) or "autograd" (torch.autograd.grad, row by row). Default: "auto",
            forward if a sample has no more inputs than outputs, otherwise reverse; where an
            operator refuses a mode, the next one is tried. Rows of small convolutions of an
            `nn.Sequential`, of which no graph is wanted, come by products of matrices.
        chunk_size: rows or columns at once. Default: by the memory that is free and the cache.

    Returns:
        `(*batch, *out, *in)`, dtype and device of the output; differentiable in x
        and in the parameters of f.

    Raises:
        InputError: as in `jacobian`; or the outputs do not begin with the batch, or those of one
            sample depend on others (BatchNorm in training mode, a mean over the batch).

    Reference: Griewank & Walther, Evaluating Derivatives (2008), ch. 3, on the modes.

    Example:
        >>> import torch, lmtorch
        >>> images = torch.rand(5, 1, 8, 8)
        >>> classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        >>> lmtorch.batch_jacobian(classifier, images).shape
        torch.Size([5, 3, 1, 8, 8])
    """
    return jacobian_of(f, checked(f, x, batch_dims, chunk_size), mode, chunk_size)


def jacobian_of(f: Function, call: Call, mode: str, chunk_size: int | None) -> Tensor:
    """The Jacobian of each sample, of what was made of the user's function f."""
    x = call.x

    def along() -> Tensor:
        chunk = chunk_of(call, call.size, chunk_size)
        blocks = alike(ranges(call.size, chunk), x)
        parts = [taylor(call, call.directions(some)).first for some in blocks]
        return by_columns(call, torch.cat(parts))

    def forward() -> Tensor:
        chunk = chunk_of(call, call.size, chunk_size)
        blocks = alike(ranges(call.size, chunk), x)
        return by_columns(
            call, torch.cat([columns(call, call.directions(some)) for some in blocks])
        )

    def reverse() -> Tensor:
        y, pull = pullback(call, x)
        count = call.outputs(y).numel()
        if mode == "auto" and 0 < call.size <= count and not transformed():
            try:
                return first_that_works([("taylor", along), ("forward", forward)], "auto")
            except RefusedError:
                pass
            except (InputError, torch.OutOfMemoryError):
                raise
            except Exception:  # both refused
                pass
        chunk = chunk_of(call, count, chunk_size, least=1)
        parts = [pulled(pull, units(call, y, some)) for some in ranges(count, chunk)]
        return by_rows(call, y, torch.cat(parts) if parts else y.new_zeros(0, *x.shape))

    def autograd() -> Tensor:
        y, found = rows_by_autograd(call, variable(x), torch.is_grad_enabled())
        return by_rows(call, y, found)

    ways = [("taylor", along), ("forward", forward), ("reverse", reverse), ("autograd", autograd)]
    if mode == "auto" and (call.size > CHEAP or call.size == 0):
        large = x.device.type == "cpu" and x.numel() * x.element_size() > FULL
        plain = large and chunk_size is None and not followed()
        ways = ways[:1:-1] if plain else ways[2:]
        if chunk_size is None:
            ways = [("matrices", lambda: by_matrices(call)), *ways]
    return answered(f, call, 1, ways, mode)


def gradient(f: Function, x: Tensor, *, batch_dims: int = 1, mode: str = "auto") -> Tensor:
    """The gradient of a function with one output for each sample.

    Args:
        f: `(*batch, *in)` to `(*batch,)` or `(*batch, 1)`.
        x: `(*batch, *in)`, floating.
        batch_dims: how many leading dimensions of x are samples. Default: 1.
        mode: as in `batch_jacobian`.

    Returns:
        A tensor of the shape of x, `(*batch, *in)`; differentiable.

    Raises:
        InputError: as in `batch_jacobian`, or a sample has several outputs.

    Example:
        >>> import torch, lmtorch
        >>> xy = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> lmtorch.gradient(lambda xy: xy[:, 0] * xy[:, 1] ** 2, xy)
        tensor([[ 4.,  4.],
                [16., 24.]])
    """
    call = checked(f, x, batch_dims)

    def single(x: Tensor) -> Tensor:
        y = call(x)
        one_number(call, y, "gradient")
        return y.reshape(call.samples)

    return jacobian_of(f, replace(call, function=single), mode, None)


def divergence(f: Function, x: Tensor, *, batch_dims: int = 1, mode: str = "auto") -> Tensor:
    """Σᵢ ∂fᵢ/∂xᵢ of a vector field.

    Args:
        f: `(*batch, *in)` to the same shape.
        x: `(*batch, *in)`, floating.
        batch_dims: how many leading dimensions of x are samples. Default: 1.
        mode: as in `batch_jacobian`.

    Returns:
        `(*batch,)`, dtype and device of the output; differentiable. The Jacobian's other entries
        are dropped as they come, a chunk of directions at a time.

    Raises:
        InputError: as in `batch_jacobian`, or the outputs have another shape than the inputs.

    Example:
        >>> import torch, lmtorch
        >>> lmtorch.divergence(lambda x: x**2, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([ 6., 14.])
    """
    call = checked(f, x, batch_dims)

    def field(x: Tensor) -> Tensor:
        y = call(x)
        if call.outputs(y) != call.inputs:
            raise InputError(
                "divergence needs a vector field, with outputs of the shape of the inputs "
                f"{tuple(call.inputs)}, and a sample's output is {tuple(call.outputs(y))}."
            )
        return y

    def summed(parts: list[tuple[slice, Tensor]]) -> Tensor:
        total = x.new_zeros(call.samples)
        for some, part in parts:
            # (c, *batch, d)
            flat = part.flatten(1 + batch_dims) if call.inputs else part[..., None]
            chosen = flat[..., some].movedim(0, -1)  # (*batch, d of these, c of these)
            total = total + chosen.diagonal(dim1=-2, dim2=-1).sum(-1)
        return total

    vector = replace(call, function=field)
    blocks = list(ranges(call.size, chunk_of(call, call.size, None)))

    def along() -> Tensor:
        each = alike(blocks, x)
        return summed([(some, taylor(vector, vector.directions(some)).first) for some in each])

    def forward() -> Tensor:
        each = alike(blocks, x)
        return summed([(some, columns(vector, vector.directions(some))) for some in each])

    def reverse() -> Tensor:
        y, pull = pullback(vector, x)
        return summed([(some, pulled(pull, units(vector, y, some)).to(y.dtype)) for some in blocks])

    def autograd() -> Tensor:
        y, found = rows_by_autograd(vector, variable(x), torch.is_grad_enabled())
        return summed([(slice(None), found.to(y.dtype))])

    ways = [("taylor", along), ("forward", forward), ("reverse", reverse), ("autograd", autograd)]
    return answered(f, call, 1, ways, mode)


def curl(f: Function, x: Tensor, *, batch_dims: int = 1, mode: str = "auto") -> Tensor:
    """∇ × f of a vector field in two or three dimensions.

    Args:
        f: `(*batch, 2)` to `(*batch, 2)`, or `(*batch, 3)` to `(*batch, 3)`.
        x: `(*batch, 2)` or `(*batch, 3)`, floating.
        batch_dims: how many leading dimensions of x are samples. Default: 1.
        mode: as in `batch_jacobian`.

    Returns:
        In three dimensions `(*batch, 3)`; in two ∂f₂/∂x₁ − ∂f₁/∂x₂, `(*batch,)`. Differentiable.

    Raises:
        InputError: as in `batch_jacobian`, or the field has another number of dimensions.

    Example:
        >>> import torch, lmtorch
        >>> rotation = lambda x: torch.stack([-x[:, 1], x[:, 0]], 1)
        >>> lmtorch.curl(rotation, torch.rand(2, 2))
        tensor([2., 2.])
    """
    call = checked(f, x, batch_dims)
    if call.inputs not in ((2,), (3,)):
        raise InputError(
            f"curl is of fields in 2 or 3 dimensions; a sample of x has shape {tuple(call.inputs)}."
        )
    J = batch_jacobian(f, x, batch_dims=batch_dims, mode=mode)
    if J.shape[batch_dims:-1] != call.inputs:
        raise InputError(
            f"curl needs a field of {call.size} components; f has {tuple(J.shape[batch_dims:-1])}."
        )
    if call.size == 2:
        return J[..., 1, 0] - J[..., 0, 1]
    return torch.stack([J[..., i, j] - J[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0))], -1)


def jvp(f: Function, x: Tensor, v: Tensor, *, mode: str = "auto") -> Tensor:
    """J v: the derivative of the outputs as x moves along v, without J.

    Args:
        f: takes one tensor and returns one tensor, of a batch or not.
        x: a floating tensor.
        v: a direction, of the shape of x or what broadcasts to it.
        mode: "taylor", "forward", or "reverse" (twice, for what has no forward
            formula). Default: "auto".

    Returns:
        A tensor of the shape of f(x); differentiable. (`torch.func.jvp` returns f(x) as well.)

    Raises:
        InputError: x is no floating tensor, or v does not fit x.

    Example:
        >>> import torch, lmtorch
        >>> lmtorch.jvp(torch.sin, torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))
        tensor([1., 2., 3.])
    """
    call = checked(f, x, 0)
    v = fitting(v, x, "v")

    def reverse() -> Tensor:
        # Jᵀw is linear in w, and its derivative in w along v is J v
        with sdpa_kernel(PLAIN):
            y, pull = pullback(call, x)
        twice = torch.func.vjp(pull, torch.zeros_like(y))[1]
        product: Tensor = twice(v)[0]
        return product

    ways = [
        ("taylor", lambda: taylor(call, v[None]).first[0]),
        ("forward", lambda: columns(call, v[None])[0]),
        ("reverse", reverse),
    ]
    return answered(f, call, 1, ways, mode)


def vjp(f: Function, x: Tensor, w: Tensor) -> Tensor:
    """Jᵀw: the gradient of Σ w f(x) in x, without J.

    Args:
        f: takes one tensor and returns one tensor, of a batch or not.
        x: a floating tensor.
        w: weights of the outputs, of the shape of f(x) or what broadcasts to it.

    Returns:
        A tensor of the shape of x; differentiable. (`torch.func.vjp` returns f(x) and a function.)

    Raises:
        InputError: x is no floating tensor, or w does not fit f(x).

    Example:
        >>> import torch, lmtorch
        >>> lmtorch.vjp(lambda x: x.sum() * x, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0]))
        tensor([4., 1.])
    """
    call = checked(f, x, 0)
    w = numbers(w, x, "w")

    def reverse() -> Tensor:
        y, pull = pullback(call, x)
        return pull(fitting(w, y, "w"))

    def autograd() -> Tensor:
        at = variable(x)
        record = torch.is_grad_enabled()
        with torch.enable_grad():
            y = call(at)
        if not y.requires_grad:
            return torch.zeros_like(x)
        weights = fitting(w, y, "w")
        return torch.autograd.grad(y, at, weights, create_graph=record, materialize_grads=True)[0]

    return answered(f, call, 1, [("reverse", reverse), ("autograd", autograd)], "auto")
