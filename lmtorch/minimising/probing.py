"""Looking at a user's function: is it torch code or a black box, and does vmap take it?"""

import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.func import vmap

from .._autodiff import Params, Pulled, random_weights, traced, weighted_gradients
from .._errors import FallbackWarning, InputError, level
from .._threads import quiet
from ..core.bounds import Bounds
from ..residuals.probe import Probe
from ..residuals.watching import Constants, Operators
from .row_blocks import some_of_many
from .user_function import UserFunction

# relative move of a parameter without a derivative, to see whether it has an influence
WALK = 1e-3


def probe(
    make: Callable[[bool], UserFunction], exact: bool | None, box: Bounds | None
) -> tuple[UserFunction, Probe]:
    """Evaluate the function once, or a few times.

    Args:
        make: makes the function that calls the user's on arrays (True) or on tensors (False).
        exact: whether derivatives by torch are asked for (True), not needed (False), or wanted if
            possible (None).
        box: outside of which the function is not evaluated.

    Returns:
        The function in the way in which it can be called, and the facts about it.

    Raises:
        InputError: it returns no residuals, or (with `exact`) they cannot be differentiated.
        Exception: the function's own.
    """
    tensors = make(False)
    params, shares = _first(tensors)
    # to see every operator costs more than to evaluate a small function: the graph tells enough of
    # one problem, whose derivatives need memory for what depends on the parameters alone
    alone = exact is not False and not tensors.unknowns.batched
    looking = nullcontext() if alone else Operators()
    constants = Constants()
    reason, tall = "", None
    try:
        if exact is False and tensors.unknowns.numpy:
            return _black_box(make, InputError("not tried"))
        with quiet():  # NumPy warns of tensors that it is given on trial
            twins = tuple(p.detach().clone().requires_grad_(exact is not False) for p in params)
            tall = some_of_many(tensors, params) if alone else None
            looked_at = tensors if tall is None else tall.some
            with torch.enable_grad(), looking as operators, constants:
                residual = looked_at.residual(twins, *shares)
        if exact is False:
            assert operators is not None
            return _facts(tensors, residual, operators.bytes, black_box=True)
        if constants.met:
            reason = f"torch has no derivative of {constants.met}, and takes it for a constant"
        elif residual.requires_grad:
            weights = random_weights(residual.detach())
            gradients = weighted_gradients(residual, weights, twins)
            if not (reason := _lost(looked_at, twins, shares, residual, gradients, box)):
                activations = traced(residual) if operators is None else operators.bytes
                if tall is not None:
                    activations *= -(-len(tall.whole) // len(residual))
                    return _facts(tensors, tall.whole, activations, black_box=False)
                _, facts = _facts(tensors, residual, activations, black_box=False)
                slopes = torch.cat([gradient.reshape(-1) for gradient in gradients])
                values = facts.residual
                assert values is not None
                return tensors, facts._replace(pulled=Pulled(values, weights, slopes))
        reason = reason or "its result has no graph that leads to the parameters"
        if exact:
            raise InputError(
                f"the function cannot be differentiated by torch: {reason}. Compute the residuals "
                "from x by torch operations (no NumPy, .item(), .detach() or float() on the way), "
                "or leave jac unset for differences."
            )
        probed = _black_box(make, None)
    except InputError:
        if exact or reason:
            raise
        probed = _black_box(make, None)
    except Exception as error:
        if exact:
            raise
        reason = f"on tensors it raises {type(error).__name__}: {_line(error)}"
        probed = _black_box(make, error)
    if exact is None:
        warnings.warn(
            f"the function cannot be differentiated by torch ({reason or 'it returns no tensor'}); "
            "finite differences "
            'serve, jac="2-point". Torch operations in place of NumPy\'s give exact derivatives.',
            FallbackWarning,
            stacklevel=level(),
        )
    return probed


def _black_box(
    make: Callable[[bool], UserFunction], error: Exception | None
) -> tuple[UserFunction, Probe]:
    """Call the function on arrays first if x0 is one or tensors failed, else on tensors first."""
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
        return _facts(calling, residual, 0, black_box=True)
    assert first is not None
    # NumPy's refusal of tensors says nothing of what is wrong with the function
    foreign = isinstance(error, InputError) or "numpy" in str(error).lower()
    raise first if error is None or foreign else error


def _facts(
    calling: UserFunction, residual: Tensor, activations: int, *, black_box: bool
) -> tuple[UserFunction, Probe]:
    """The facts about a function that has returned this residual.

    Raises:
        InputError: there are no residuals, or they are on another device.
    """
    rows = residual.shape[0]
    if rows == 0:
        raise InputError("the function returned no residuals: m = 0. There is nothing to fit.")
    calling.rows = rows
    calling.copied = black_box
    device = calling.unknowns.start.device
    if residual.device != device:
        raise InputError(
            f"the residuals are on {residual.device}, x0 on {device}. Bring them to one device."
        )
    looped = calling.arrays or _refuses_vmap(calling)
    precision = max(
        calling.unknowns.start.dtype, residual.dtype, key=lambda dtype: torch.finfo(dtype).eps
    )
    size = float(residual.detach().abs().amax())
    finite = math.isfinite(size)
    return calling, Probe(
        rows,
        activations,
        black_box=black_box,
        looped=looped,
        finite=finite,
        size=size,
        precision=precision,
        residual=residual.detach().clone(),
    )


def _lost(
    calling: UserFunction,
    twins: Params,
    shares: tuple[Tensor, ...],
    residual: Tensor,
    gradients: Params,  # of a weighted sum of the residuals
    box: Bounds | None,
) -> str:
    """Say which parameter has an influence but no derivative, by a float() on the way; "": none.

    A parameter that changes nothing is allowed: a function need not use all of them at x0. One
    whose derivative is zero here but not at a nearby point is at a stationary point (x² at 0).
    """
    names, start = calling.unknowns.layout.names, 0
    for which, gradient in enumerate(gradients):
        if not bool((gradient == 0).any()):
            start += gradient.numel()
            continue
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
            weights = random_weights(ahead.detach())
            slopes = weighted_gradients(ahead, weights, ahead_twins)[which]
            if changed and not bool(slopes.reshape(-1)[entry]):
                return f"it depends on {names[which]}[{entry}], but no derivative in it does"
        start += gradient.numel()
    return ""


def _walk(place: Tensor, entry: int, column: int, box: Bounds | None) -> bool:
    """Move an entry of a parameter within the box, and return whether there was room."""
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


def _refuses_vmap(calling: UserFunction) -> bool:
    """Whether vmap fails on the function, so that a batch is called problem by problem: warns."""
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
            f"torch.vmap refuses the function ({_line(error)}); the problems are evaluated one "
            "after the other, which takes longer.",
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
