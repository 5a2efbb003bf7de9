"""Forward, reverse and Taylor passes that give derivatives of each sample's outputs in its inputs.

A sample's outputs depend on that sample alone. So one pass along e_j, the same direction for all
samples, gives column j of every sample's Jacobian. One pass back from output k of all samples gives
row k of every one, as the sum over the batch has no other terms. No sample is evaluated by itself,
and the blocks across samples, which are zero, are never made.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward
from torch.func import jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from .._autodiff import history
from .._errors import InputError
from .._threads import forward_mode
from ..calculus.jets import Jet, Pairing, watched
from .calling import Call, followed, transformed
from .compared import Comparison
from .formulas import Constants, frozen
from .taylor import expand

# fused attention has neither a forward formula nor second derivatives (torch 2.13)
PLAIN = SDPBackend.MATH


def taylor(call: Call, directions: Tensor, pairing: Pairing | None = None) -> Jet:
    """Value, first and second derivatives along `directions` (c, 1 …, *in).

    Raises:
        RuntimeError: we are inside a transform of torch.func, whose tensors cannot be followed.
    """
    if transformed():
        raise RuntimeError("Taylor mode does not run inside a transform of torch.func")
    jet = expand(call.function, Jet(call.x, directions), call.batch, pairing, call.noted)
    # checked after Taylor mode has ended: inside it every attribute access is intercepted
    call.held(jet.value)
    return jet


class Cut:
    """A function for forward mode in which `detach` and `no_grad` stop tangents, too.

    Args:
        function: takes and returns tensors.
        batch: how many leading dimensions of these are independent samples.
    """

    def __init__(self, function: Callable[..., Tensor], batch: int = 0) -> None:
        self.function = function
        self.mode = Constants(followed(), transformed(), batch)

    def __call__(self, *args: Any) -> Tensor:
        """Evaluate the function."""
        with torch.enable_grad(), self.mode, sdpa_kernel(PLAIN):
            return self.function(*args)

    def held(self, found: Tensor) -> Tensor:
        """Pass on what forward mode found, unless its own derivatives are needed and wrong.

        Raises:
            RuntimeError: the derivatives of the result would be wrong.
        """
        if self.mode.frozen and found.requires_grad:
            raise RuntimeError(frozen(self.mode.frozen))
        return found


def columns(call: Call, directions: Tensor) -> Tensor:
    """J v for each of the directions v, by forward mode: (c, *batch, *out)."""
    function, comparison = Cut(call, call.batch), Comparison(call, 1)

    def along(v: Tensor) -> Tensor:
        derivative: Tensor = jvp(function, (call.x,), (v.expand_as(call.x),))[1]
        return derivative if torch.is_grad_enabled() else derivative.detach()

    return comparison.hold(directions, function.held(_each(along, directions)))


def _each(along: Callable[[Tensor], Tensor], directions: Tensor) -> Tensor:
    """Apply `along` to each of the directions, all in one pass of forward mode."""
    with forward_mode():
        if len(directions) == 1:
            return along(directions[0])[None]
        result: Tensor = vmap(along, randomness="same")(directions)
        return result


def pullback(call: Call, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The outputs, and w ↦ Jᵀw."""
    y, pull = vjp(call, x)[:2]
    return y, lambda w: pull(w)[0]


def units(call: Call, y: Tensor, rows: slice) -> Tensor:
    """Cotangents e_k in a sample's output, the same for all samples: (c, *batch, *out)."""
    outputs = call.outputs(y)
    if outputs.numel() == 1:
        return torch.ones_like(y)[None][rows]
    basis = torch.eye(outputs.numel(), dtype=y.dtype, device=y.device)[rows]
    return basis.reshape(-1, *(1,) * call.batch, *outputs).expand(-1, *y.shape)


def pulled(pull: Callable[[Tensor], Tensor], cotangents: Tensor) -> Tensor:
    """Jᵀw for each of the cotangents, (c, *x.shape), in one pass where torch can batch it."""
    if len(cotangents) > 1:
        try:
            result: Tensor = vmap(pull, randomness="same")(cotangents)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError):  # an operator without a batching rule
            pass
        else:
            return result
    return torch.stack([pull(w) for w in cotangents])


def rows(call: Call, x: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs, and every row of each sample's Jacobian, by reverse mode, (k, *x.shape)."""
    y, pull = pullback(call, x)
    count = call.outputs(y).numel()
    if count == 0:
        return y, y.new_zeros(0, *x.shape)
    return y, pulled(pull, units(call, y, slice(0, count)))


def rows_by_autograd(call: Call, x: Tensor, record: bool) -> tuple[Tensor, Tensor]:
    """The outputs and the rows of J, row by row with plain autograd, for what torch.func refuses.

    x comes from `variable`.
    """
    y, parts = _rows_by_autograd(call, x, record)
    found = _stacked(parts, x)
    return (y, found) if record and wanted(y, x) else (y.detach(), found.detach())


def wanted(y: Tensor, *made: Tensor) -> bool:
    """Whether y depends on anything that requires a gradient, besides the variables made here."""
    if not all(x.is_leaf for x in made):  # a view of a tensor of the user's
        return True
    leaves = (getattr(node, "variable", None) for node in history(y))
    return any(leaf is not None and all(leaf is not x for x in made) for leaf in leaves)


def _rows_by_autograd(
    call: Call, x: Tensor, record: bool, most: int | None = None
) -> tuple[Tensor, list[Tensor]]:
    with torch.enable_grad():
        y = call(x)
        if most is not None and call.outputs(y).numel() > most:
            raise RuntimeError(f"a pass for each of {call.outputs(y).numel()} outputs")
        if not y.requires_grad:
            return y, [torch.zeros_like(x)] * call.outputs(y).numel()
        return y, [pulled_back(y, x, w, record) for w in units(call, y, slice(None))]


def pulled_back(y: Tensor, x: Tensor, weights: Tensor, record: bool) -> Tensor:
    """The gradient of Σ w·y in x by plain autograd, itself recorded or not; the graph is kept.

    For a small network a third of `torch.autograd.grad` goes into the checks of what is given to
    it, and at its first call it imports sympy for them. So its engine is called (torch 2.13).
    """
    made: Any  # None for an input without influence, which torch does not declare
    if watched():  # a mode must see that something is differentiated
        made = torch.autograd.grad(
            y, x, weights, retain_graph=True, create_graph=record, allow_unused=True
        )
    else:
        made = _engine_run_backward(
            (y,), (weights,), True, record, (x,), allow_unreachable=True, accumulate_grad=False
        )
    found: Tensor = torch.zeros_like(x) if made[0] is None else made[0]
    return found


def _stacked(parts: list[Tensor], like: Tensor) -> Tensor:
    """Rows (k, *x.shape) in one tensor; of a single one a view."""
    if len(parts) == 1:
        return parts[0][None]
    return torch.stack(parts) if parts else like.new_zeros(0, *like.shape)


def variable(x: Tensor) -> Tensor:
    """x as a variable of autograd: a view if gradients shall go on through x, else a new leaf."""
    # a view and not x itself: if the function holds x by another way, it is a constant there
    return (
        x.view_as(x) if x.requires_grad and torch.is_grad_enabled() else x.detach().requires_grad_()
    )


def by_columns(call: Call, found: Tensor) -> Tensor:
    """Put columns (d, *batch, *out) together as a Jacobian (*batch, *out, *in)."""
    return found.movedim(0, -1).unflatten(-1, call.inputs) if call.inputs else found[0]


def by_rows(call: Call, y: Tensor, found: Tensor) -> Tensor:
    """Put rows (k, *batch, *in) together as a Jacobian (*batch, *out, *in)."""
    if len(found) == 1:
        return found.reshape(y.shape + call.inputs).to(y.dtype)
    return found.movedim(0, call.batch).reshape(y.shape + call.inputs).to(y.dtype)


def products(call: Call, directions: Tensor) -> Tensor:
    """H v for each of the directions v, forward over reverse: (c, *batch, *out, *in).

    Raises:
        RuntimeError: the function is scripted, or forward mode is wrong.
    """

    def plain(x: Tensor) -> Tensor:
        y = call(x)
        if any("DifferentiableGraph" in node.name() for node in history(y)):
            # found in torch 2.13
            raise RuntimeError(
                "the derivative of a scripted function is not followed by forward mode"
            )
        return y

    function, record = Cut(plain, call.batch), torch.is_grad_enabled()
    comparison = Comparison(call, 2)
    inner = Call(function, call.x, call.batch)

    def jacobian(x: Tensor) -> Tensor:
        return by_rows(inner, *rows(inner, x))

    def along(v: Tensor) -> Tensor:
        # where autograd does not record, a backward pass takes the factors of a matrix for
        # constants
        with torch.enable_grad():
            derivative: Tensor = jvp(jacobian, (call.x,), (v.expand_as(call.x),))[1]
        return derivative if record else derivative.detach()

    return comparison.hold(directions, function.held(_each(along, directions)))


def twice_by_reverse(
    call: Call, directions: Tensor, most: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs, the rows of J, and H v for each of the directions v, by reverse over reverse.

    (Jᵀe_k) · v is one number for each sample, and its gradient is row k of H v. With `most`, a
    function with more outputs of a sample is refused.
    """
    if transformed():
        return _twice_inside(call, directions, most)
    record = torch.is_grad_enabled()
    x = variable(call.x)
    with sdpa_kernel(PLAIN):
        y, lines = _rows_by_autograd(call, x, record=True, most=most)
    record = record and wanted(y, x)

    def row_of(row: Tensor, v: Tensor) -> Tensor:
        if not row.requires_grad:  # f is linear
            return torch.zeros_like(row)
        weights = v.expand_as(row)
        return pulled_back(row, x, weights, record)

    jacobian = _stacked(lines, x)
    products = [row_of(row, v) for v in directions.unbind() for row in lines]
    if len(products) == 1:
        found = products[0].reshape(1, *y.shape, *call.inputs).to(y.dtype)
        return (y, jacobian, found) if record else (y.detach(), jacobian.detach(), found.detach())
    found = (
        _stacked(products, x).unflatten(0, (len(directions), len(lines))).movedim(1, 1 + call.batch)
    )
    found = found.reshape(len(directions), *y.shape, *call.inputs).to(y.dtype)
    return (y, jacobian, found) if record else (y.detach(), jacobian.detach(), found.detach())


def once_by_reverse(call: Call, place: int) -> tuple[Tensor, Tensor, Tensor]:
    """The output, its gradient and H e_i, of one output and one input i of each sample.

    As `twice_by_reverse` has it, and made for what is called at every step of a training: of a
    small network more time goes into what stands around the passes than into these.

    Raises:
        RuntimeError: there are several outputs, or no second derivatives.
    """
    x = variable(call.x)
    with torch.enable_grad():
        y = call(x)  # which sees to it that attention is plain
        if call.outputs(y).numel() != 1:
            raise RuntimeError("a pass for each of several outputs")
        row = pulled_back(y, x, torch.ones_like(y), True)
        direction = torch.zeros_like(row)
        last = direction if len(call.inputs) == 1 else direction.view(*call.samples, call.size)
        last.select(-1, place).fill_(1)
        along = pulled_back(row, x, direction, True)
    if torch.is_grad_enabled() and wanted(y, x):
        return y, row, along
    return y.detach(), row.detach(), along.detach()


def _twice_inside(
    call: Call, directions: Tensor, most: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Reverse over reverse by torch.func, inside a transform that plain autograd would not see."""

    def along(v: Tensor) -> Tensor:
        def slope(x: Tensor) -> Tensor:
            slopes = by_rows(call, *rows(call, x)) * v.expand_as(x).reshape(shape)
            return slopes.flatten(-len(call.inputs)).sum(-1) if call.inputs else slopes

        return by_rows(call, *rows(Call(slope, call.x, call.batch), call.x))

    with sdpa_kernel(PLAIN):
        y, jacobian = rows(call, call.x)
        if most is not None and len(jacobian) > most:
            raise RuntimeError(f"a pass for each of {len(jacobian)} outputs")
        shape = call.samples + (1,) * len(call.outputs(y)) + call.inputs
        return y, jacobian, torch.stack([along(v) for v in directions.unbind()])


def products_by_reverse(call: Call, directions: Tensor) -> Tensor:
    """H v for each of the directions v, reverse over reverse: (c, *batch, *out, *in)."""
    return twice_by_reverse(call, directions)[2]


def one_number(call: Call, y: Tensor, what: str) -> None:
    """Check that each sample has a single output.

    Raises:
        InputError: it has several.
    """
    if call.outputs(y).numel() != 1:
        raise InputError(
            f"{what} needs a function with one output for each sample, and it returned shape "
            f"{tuple(y.shape)} for x of shape {tuple(call.x.shape)} with batch_dims={call.batch}. "
            "Pick one, lambda x: f(x)[..., 0], or use batch_jacobian or batch_hessian; if more "
            "leading dimensions are samples, raise batch_dims."
        )


def numbers(vector: Any, like: Tensor, name: str) -> Tensor:
    """Convert a direction or weight to a tensor; numbers get the dtype and device of `like`.

    Raises:
        InputError: it holds no numbers.
    """
    if isinstance(vector, Tensor):
        return vector
    try:
        return torch.as_tensor(vector, dtype=like.dtype, device=like.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name}={vector!r} is no tensor, and no numbers that could be one."
        ) from error


def fitting(vector: Any, like: Tensor, name: str) -> Tensor:
    """Convert a direction or weight to a tensor and expand it to the shape of `like`.

    Raises:
        InputError: its shape does not fit.
    """
    vector = numbers(vector, like, name)
    shape = tuple(like.shape)
    padded = (1,) * (len(shape) - vector.ndim) + tuple(vector.shape)
    if len(padded) > len(shape) or any(a not in (1, b) for a, b in zip(padded, shape, strict=True)):
        raise InputError(f"{name} of shape {tuple(vector.shape)} does not broadcast to {shape}.")
    return vector.to(like.dtype).expand(like.shape)
