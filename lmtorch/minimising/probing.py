"""What a user's function turns out to be: torch code or a black box, of how many residuals, fit for vmap or not."""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from .._autodiff import Params
from .._errors import FallbackWarning, InputError, level
from .._threads import quiet
from ..core.bounds import Bounds
from ..residuals.watching import Touched
from .user_function import UserFunction

WALK = 1e-3  # relative step by which a parameter without a derivative is moved, to see whether it has an influence


class Found(NamedTuple):
    """Facts that decide how the function is called and differentiated."""

    calling: UserFunction
    rows: int  # m
    touched: int  # bytes of all intermediate results of an evaluation of one problem
    black_box: bool  # no derivatives lead through it
    looped: bool  # torch.vmap refuses it
    finite: bool  # at x0 of the first problem
    size: float  # the largest residual there, absolute
    precision: torch.dtype  # the coarser of x0's and the residuals'
    residual: Tensor  # (m,), at x0 of the first problem


def probe(make: Callable[[bool], UserFunction], exact: bool | None, box: Bounds | None) -> Found:
    """Evaluate the function once, or a few times.

    Args:
        make: the calling, on arrays (True) or tensors.
        exact: derivatives by torch are asked for (True), not needed (False), or wanted if possible (None).
        box: outside of which it is not evaluated.

    Returns:
        The facts.

    Raises:
        InputError: it returns no residuals, or (with `exact`) they cannot be differentiated.
        Exception: the function's own.
    """
    tensors = make(False)
    params, shares = _first(tensors)
    reason = ""
    try:
        if exact is False and tensors.unknowns.numpy:
            return _black_box(make, InputError("not tried"))
        with quiet():  # NumPy warns of tensors that it is given on trial
            twins = tuple(p.detach().clone().requires_grad_(exact is not False) for p in params)
            with torch.enable_grad(), Touched() as touched:
                residual = tensors.residual(twins, *shares)
        if exact is False or (
            residual.requires_grad and not (reason := _lost(tensors, twins, shares, residual, box))
        ):
            return _found(tensors, residual, touched.bytes, black_box=exact is False)
        reason = reason or "its result has no graph that leads to the parameters"
        if exact:
            raise InputError(
                f"the function cannot be differentiated by torch: {reason}. Compute the residuals from x by torch "
                "operations (no NumPy, .item(), .detach() or float() on the way), or leave jac unset for differences."
            )
        found = _black_box(make, None)
    except InputError:
        if exact or reason:
            raise
        found = _black_box(make, None)
    except Exception as error:
        if exact:
            raise
        reason = f"on tensors it raises {type(error).__name__}: {_line(error)}"
        found = _black_box(make, error)
    if exact is None:
        warnings.warn(
            f"the function cannot be differentiated by torch ({reason or 'it returns no tensor'}); finite differences "
            'serve, jac="2-point". Torch operations in place of NumPy\'s give exact derivatives.',
            FallbackWarning,
            stacklevel=level(),
        )
    return found


def _black_box(make: Callable[[bool], UserFunction], error: Exception | None) -> Found:
    """As the function takes it: arrays where x0 is one or tensors failed, otherwise tensors."""
    order = [True, False] if error is not None or make(True).unknowns.numpy else [False, True]
    first: Exception | None = None
    for arrays in order:
        calling = make(arrays)
        params, shares = _first(calling)
        try:
            with torch.no_grad():
                residual = calling.residual(params, *shares)
        except Exception as refused:
            # of two refusals the one that is about the function, not about the kind of its input
            first = refused if first is None or not arrays else first
            continue
        return _found(calling, residual, 0, black_box=True)
    assert first is not None
    # NumPy's refusal of tensors says nothing of what is wrong with the function
    foreign = isinstance(error, InputError) or "numpy" in str(error).lower()
    raise first if error is None or foreign else error


def _found(calling: UserFunction, residual: Tensor, touched: int, *, black_box: bool) -> Found:
    rows = residual.shape[0]
    if rows == 0:
        raise InputError("the function returned no residuals: m = 0. There is nothing to fit.")
    calling.rows = rows
    device = calling.unknowns.start.device
    if residual.device != device:
        raise InputError(
            f"the residuals are on {residual.device}, x0 on {device}. Bring them to one device."
        )
    looped = calling.arrays or _refuses_vmap(calling)
    precision = max(
        calling.unknowns.start.dtype, residual.dtype, key=lambda dtype: torch.finfo(dtype).eps
    )
    finite, size = bool(residual.detach().isfinite().all()), float(residual.detach().abs().amax())
    return Found(
        calling,
        rows,
        touched,
        black_box,
        looped,
        finite,
        size,
        precision,
        residual.detach().clone(),
    )


def _lost(
    calling: UserFunction,
    twins: Params,
    shares: tuple[Tensor, ...],
    residual: Tensor,
    box: Bounds | None,
) -> str:
    """Which parameter has an influence but no derivative: a float() or .detach() on the way; empty if none has.

    One that has neither is left alone: nothing says that a function must use all of them at x0. One that has both a
    little further on is at a stationary point, as x² at zero.
    """
    names, start = calling.unknowns.layout.names, 0
    for which, gradient in enumerate(_gradients(residual, twins)):
        for entry in (gradient == 0).reshape(-1).nonzero()[:, 0].tolist():
            moved = [p.detach().clone() for p in twins]
            place = moved[which].view(-1)
            if not _walk(place, entry, start + entry, box):
                continue
            ahead_twins = tuple(p.requires_grad_() for p in moved)
            with torch.enable_grad():
                ahead = calling.residual(ahead_twins, *shares)
            changed = ahead.shape != residual.shape or not torch.equal(
                ahead.detach().nan_to_num(), residual.detach().nan_to_num()
            )
            if changed and not bool(_gradients(ahead, ahead_twins)[which].reshape(-1)[entry]):
                return f"it depends on {names[which]}[{entry}], but no derivative in it does"
        start += gradient.numel()
    return ""


def _walk(place: Tensor, entry: int, column: int, box: Bounds | None) -> bool:
    """Move an entry of a parameter, inside the box; False if there is no room."""
    value = float(place[entry])
    step = WALK * max(1.0, abs(value))
    if box is not None:
        below, above = (float(side.reshape(-1, side.shape[-1])[0, column]) for side in box)
        step = (
            min(step, above - value)
            if above - value >= value - below
            else -min(step, value - below)
        )
    place[entry] += step
    return float(place[entry]) != value


def _gradients(residual: Tensor, twins: Params) -> tuple[Tensor, ...]:
    """Of a weighted sum of the residuals."""
    weights = (
        torch.arange(1, residual.shape[0] + 1, device=residual.device).to(residual.dtype).cos()
    )
    return torch.autograd.grad(residual, twins, weights, allow_unused=True, materialize_grads=True)


def _refuses_vmap(calling: UserFunction) -> bool:
    """Whether a batch must be called problem by problem; with one warning."""
    unknowns = calling.unknowns
    if not unknowns.start.ndim > 1:
        return False
    some = slice(0, 2)
    params = unknowns.layout.split(unknowns.start[some])
    try:
        with torch.no_grad():
            vmap(calling.residual)(params, *(share[some] for share in calling.shares))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        warnings.warn(
            f"torch.vmap refuses the function ({_line(error)}); the problems are evaluated one after the other, which "
            "takes longer.",
            FallbackWarning,
            stacklevel=level(),
        )
        return True
    return False


def _first(calling: UserFunction) -> tuple[Params, tuple[Tensor, ...]]:
    """The parameters and arguments of the first problem."""
    start = calling.unknowns.start
    one = start[0] if start.ndim > 1 else start
    return tuple(p.clone() for p in calling.unknowns.layout.split(one)), tuple(
        share[0] for share in calling.shares
    )


def _line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), "")[: math.ceil(200)]
