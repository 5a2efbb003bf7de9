"""The Jacobian by finite differences, and a comparison of all modes with it and each other."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from .._checks import choice, number
from .._errors import InputError, as_raised
from ..jacobians.base import Workspace
from ..jacobians.finite_difference import FiniteDifference
from ..residuals.base import Part
from .calling import Call, check_function, checked, first_line
from .draws import Draws
from .first import jacobian_of
from .passes import by_columns

LOOSE = 10.0  # a finite difference may be off by so many times its estimated error
EXACT = 100.0  # two exact modes may differ by so many ε


@as_raised
def finite_difference_jacobian(
    f: Callable[[Tensor], Any],
    x: Tensor,
    *,
    batch_dims: int = 0,
    method: Literal["2-point", "3-point"] = "2-point",
    step: float | None = None,
) -> Tensor:
    """The Jacobian of a black box, by differences of its values.

    Args:
        f: takes a tensor and returns a tensor or array; it need not be differentiable by torch.
        x: a floating tensor.
        batch_dims: how many leading dimensions of x are samples, each with outputs of its own. All
            samples are then moved at once, so that more of them cost no more evaluations.
            Default: 0, the full Jacobian.
        method: "2-point" takes n + 1 evaluations and has errors of order ε^½; "3-point" takes
            2n + 1 and has errors of order ε^⅔. n is the number of inputs (of a sample).
        step: the length of the difference, relative to |x|. Default: ε^½ or ε^⅓, by the dtype;
            where x is zero, a length found from the differences themselves.

    Returns:
        `(*batch, *out, *in)`, dtype and device of x.

    Raises:
        InputError: f is no function, x no floating tensor, the method or step is none of those
            above, or the outputs do not begin with the batch.

    Reference: Dennis & Schnabel, Numerical Methods for Unconstrained Optimization (1996), §5.4.

    Example:
        >>> import numpy as np, torch, lmtorch
        >>> x = torch.tensor([1.0, 2.0], dtype=torch.float64)
        >>> lmtorch.finite_difference_jacobian(lambda x: np.sin(x.numpy()), x, method="3-point")
        tensor([[ 0.5403,  0.0000],
                [ 0.0000, -0.4161]], dtype=torch.float64)
    """
    check_function(f)
    choice(method, "method", ("2-point", "3-point"))
    if step is not None:
        size = number(step, "step", "must be a positive number: it is relative to |x|")
        if not 0 < size < math.inf:
            raise InputError(f"step={step} must be positive and finite: it is relative to |x|.")
        step = size

    def black_box(x: Tensor) -> Tensor:
        draws.again()
        y = f(x)
        plain = isinstance(y, float | list | tuple)  # torch would take these for float32
        return torch.as_tensor(y, dtype=x.dtype if plain else None, device=x.device)

    call = checked(black_box, x, batch_dims)
    draws = Draws(x)
    x = x.detach()
    shapes: list[torch.Size] = []

    def function(params: tuple[Tensor, ...]) -> Tensor:
        y = call(params[0])
        shapes.append(call.outputs(y))
        return y.reshape(*call.samples, call.outputs(y).numel())

    workspace = Workspace(lambda rows: x.new_empty(*call.samples, rows, call.size))
    part = Part(function, lambda other, params: other(params[0]), batch=batch_dims, black_box=True)
    with torch.no_grad():
        _, found = next(iter(FiniteDifference(method, step).blocks(part, (x,), workspace)))
    return found.reshape(call.samples + shapes[-1] + call.inputs)


@dataclass(frozen=True)
class DerivativeCheck:
    """What `check_derivatives` found; print it, or look at `ok`.

    Attributes:
        ok: at least one mode works, all modes that work agree with one another and with
            differences, and samples are independent.
        errors: for each mode the largest difference from the reference, relative to the largest
            entry of the Jacobian; a string if the mode is refused.
        tolerances: for each mode the largest error that counts as agreement.
        places: for each mode the (output, input) indices of its largest error.
        reference: the mode that the others are compared with.
        coupling: how much a sample's outputs change with another sample's inputs, relative to the
            outputs; None without a batch.
    """

    ok: bool
    errors: dict[str, float | str]
    tolerances: dict[str, float]
    places: dict[str, tuple[int, ...]]
    reference: str
    coupling: float | None

    def __str__(self) -> str:
        """A table of the errors, with the verdict first."""
        lines = [f"derivatives {'agree' if self.ok else 'DISAGREE'}; reference: {self.reference}"]
        for mode, error in self.errors.items():
            if isinstance(error, str):
                lines.append(f"  {mode:<9} refused: {error}")
                continue
            verdict = (
                "ok" if error <= self.tolerances[mode] else f"differs most at {self.places[mode]}"
            )
            lines.append(
                f"  {mode:<9} {error:8.1e}  (may be {self.tolerances[mode]:.0e})  {verdict}"
            )
        if self.coupling is not None:
            verdict = (
                "samples are independent"
                if self.coupling == 0
                else "outputs depend on other samples"
            )
            lines.append(f"  {'samples':<9} {self.coupling:8.1e}  {verdict}")
        return "\n".join(lines)


def check_derivatives(
    f: Callable[[Tensor], Tensor], x: Tensor, *, batch_dims: int = 1
) -> DerivativeCheck:
    """Compare Taylor, forward and reverse mode and finite differences, and say where they differ.

    They differ by an `autograd.Function` with a wrong backward, a `.detach()` or `no_grad` (which
    differences see through), a branch or kink at x, noise, or samples that are not independent.

    Args:
        f: written for a batch: `(*batch, *in)` to `(*batch, *out)`.
        x: `(*batch, *in)`, floating; float64 says more than float32.
        batch_dims: how many leading dimensions of x are samples. Default: 1.

    Returns:
        A `DerivativeCheck`: print it, or look at its `ok`.

    Raises:
        InputError: as in `batch_jacobian`.

    Example:
        >>> import torch, lmtorch
        >>> x = torch.rand(4, 3, dtype=torch.float64)
        >>> check = lmtorch.check_derivatives(lambda x: torch.sin(x) * x.detach(), x)
        >>> check.ok, check.errors["differences"] > 0.1   # differences see what is detached
        (False, True)
    """
    call = checked(f, x, batch_dims)
    x = x.detach()
    found: dict[str, Tensor] = {}
    errors: dict[str, float | str] = {}
    with torch.no_grad():
        y = call(x)
        for mode in ("autograd", "reverse", "taylor", "forward"):
            try:
                found[mode] = jacobian_of(f, replace(call, meeting=True), mode, None)
            except InputError as error:
                errors[mode] = first_line(error.__cause__ or error)
        coupling = None if batch_dims == 0 else _coupling(call, y)
        found["differences"] = (
            _of_coupled(call, y)
            if coupling
            else finite_difference_jacobian(f, x, batch_dims=batch_dims, method="3-point")
        )
    reference = next(iter(found))
    size = (
        found[reference].abs().max().clamp(min=torch.finfo(x.dtype).tiny)
        if found[reference].numel()
        else 1.0
    )
    eps = max(torch.finfo(t.dtype).eps for t in (x, y))
    scale = float(y.abs().max() / size) if y.numel() else 0.0
    tolerances, places = {}, {}
    for mode, jacobian in found.items():
        apart = (jacobian - found[reference]).abs() / size
        apart = torch.where(apart.isnan(), torch.inf, apart)
        errors[mode] = float(apart.max()) if apart.numel() else 0.0
        places[mode] = (
            tuple(int(i) for i in torch.unravel_index(apart.argmax(), apart.shape))
            if apart.numel()
            else ()
        )
        tolerances[mode] = (
            EXACT * eps if mode != "differences" else LOOSE * eps ** (2 / 3) * max(1.0, scale)
        )
    agree = reference != "differences" and all(
        isinstance(e, str) or e <= tolerances[mode] for mode, e in errors.items()
    )
    return DerivativeCheck(agree and not coupling, errors, tolerances, places, reference, coupling)


def _of_coupled(call: Call, y: Tensor) -> Tensor:
    """The Jacobian by central differences, of coupled samples: all are moved alike, by one step."""
    eps = max(torch.finfo(t.dtype).eps for t in (call.x, y))
    h = eps ** (1 / 3) * call.x.abs().max().clamp(min=1)
    moved = [(call(call.x + h * v), call(call.x - h * v)) for v in call.directions()]
    return by_columns(call, torch.stack([(ahead - behind) / (2 * h) for ahead, behind in moved]))


def _coupling(call: Call, y: Tensor) -> float:
    """How far moving the first sample moves the outputs of the others, relative to the outputs."""
    flat = call.x.flatten(0, call.batch - 1)
    if len(flat) < 2 or y.numel() == 0:
        return 0.0
    moved = flat.clone()
    moved[0] += 1 + flat[0].abs()
    others = (
        call(moved.view_as(call.x)).flatten(0, call.batch - 1)[1:]
        - y.flatten(0, call.batch - 1)[1:]
    )
    size = float(y.abs().max())
    apart = float(others.abs().max()) / size if size > 0 else float(others.abs().max())
    # less than this may be rounding: a matrix product with other rows may add up in another order
    return apart if apart > EXACT * torch.finfo(y.dtype).eps else 0.0
