"""Errors of points in every form in which a user has them, as factors that make deviations one.

For d numbers at each of m points errors are given as deviations or weights, numbers that can be
spread over (d, m), or as matrices (d, d) or (d, d, m); weights are inverse squares of deviations,
weight matrices inverses of covariances.
"""

from typing import Any

import torch
from torch import Tensor

from ..._errors import InputError
from ..measurements.reading import numbers_of, shown_of

SMALL = 1e-10  # an eigenvalue below this share of the largest is zero but for round-off


def displacement(spread: Any, eta: Any, lead: int = 0) -> Any:
    """T η of η (..., k, m), tensors or arrays, for T of (..., k, m) or (..., k, k, m)."""
    if spread.ndim == lead + 2:
        return spread * eta
    return (spread * eta[..., None, :, :]).sum(-2)


def used(whitening: Any, lead: int = 0) -> Any:
    """Which of y has a weight, (..., q, m) bool, for R of (..., q, m) or (..., q, q, m)."""
    return whitening != 0 if whitening.ndim == lead + 2 else (whitening != 0).any(-3)


def spread_of(
    sx: Any, wd: Any, fixed: Any, grid: Tensor, lead: tuple[int, ...]
) -> tuple[Tensor, Tensor | None]:
    """T from deviations or covariances `sx`, or from weights `wd`, of x (..., k, m).

    Returns:
        T, (..., k, m) or (..., k, k, m), and which numbers are not masked.

    Raises:
        InputError: both are given, a shape does not fit, or numbers that are no errors.
    """
    name, given = ("sx", sx) if wd is None else ("wd", wd)
    if sx is not None and wd is not None:
        raise InputError("sx and wd both tell the errors of x: give one of them.")
    held = torch.zeros_like(grid, dtype=torch.bool)
    if fixed is not None:
        held, square = arranged(numbers_of(fixed, "fixed_x"), "fixed_x", "x", grid, lead)
        held = held != 0
        if square:
            raise InputError("fixed_x holds a truth value for each number of x.")
    values, square, shown = _read(1.0 if given is None else given, name, "x", grid, lead)
    if not square:
        if name == "sx":
            if not bool(((values >= 0) & values.isfinite()).all()):
                raise InputError(
                    "sx has entries that are negative, infinite or NaN: it holds standard "
                    "deviations, zero for an exact x."
                )
            return torch.where(held, 0.0, values), shown
        if not bool((((values > 0) & values.isfinite()) | held).all()):
            raise InputError(
                "wd has entries that are zero, negative, infinite or NaN. It holds weights, 1/σ². "
                "What has no weight would move for nothing, and every curve fit: leave the point "
                "out by we = 0, or hold an exact x by fixed_x."
            )
        return torch.where(held, 0.0, values.where(~held, 1.0).rsqrt()), shown
    matrix = _checked(values.movedim(-1, -3), name)
    if name == "sx":
        exact = (matrix.diagonal(dim1=-2, dim2=-1) == 0).mT
        lonely = torch.where(exact.mT[..., None], matrix, 0.0) == 0
        if not bool(lonely.all()):
            raise InputError(
                "sx has a matrix that is not positive definite: what has no variance has no "
                "covariance with another."
            )
        matrix, failed = torch.linalg.inv_ex(_with_identity(matrix, exact.mT))
        matrix = torch.where((failed != 0)[..., None, None], torch.nan, matrix)
        held = held | exact
    return _inverse_root(matrix, held.mT, name).movedim(-3, -1), shown


def whitening_of(
    sy: Any, we: Any, values: Tensor, lead: tuple[int, ...]
) -> tuple[Tensor, Tensor | None]:
    """R from deviations or covariances `sy`, or from weights `we`, of y (..., q, m).

    Returns:
        R, (..., q, m) or (..., q, q, m), and which numbers are not masked.

    Raises:
        InputError: both are given, a shape does not fit, or numbers that are no errors.
    """
    name, given = ("sy", sy) if we is None else ("we", we)
    if sy is not None and we is not None:
        raise InputError("sy and we both tell the errors of y: give one of them.")
    numbers, square, shown = _read(1.0 if given is None else given, name, "y", values, lead)
    if not square:
        if name == "sy":
            if not bool(((numbers > 0) & numbers.isfinite()).all()):
                raise InputError(
                    "sy has entries that are zero, negative, infinite or NaN: it holds standard "
                    "deviations. A response that is not to count is masked, or has we = 0."
                )
            return 1 / numbers, shown
        if not bool(((numbers >= 0) & numbers.isfinite()).all()):
            raise InputError("we has entries that are negative, infinite or NaN: it holds 1/σ².")
        return numbers.sqrt(), shown
    matrix = _checked(numbers.movedim(-1, -3), name)
    if name == "sy":
        lower, failed = torch.linalg.cholesky_ex(matrix)
        if bool(failed.any()):
            raise InputError(f"{name} has a matrix that is no covariance: not positive definite.")
        eye = torch.eye(len(matrix[0].mT[0]), dtype=matrix.dtype, device=matrix.device)
        eye = eye.expand(matrix.shape)
        return torch.linalg.solve_triangular(lower, eye, upper=False).movedim(-3, -1), shown
    sizes, vectors = torch.linalg.eigh(matrix)
    floor = SMALL * sizes[..., -1:].abs()
    if bool((sizes < -floor).any()):
        raise InputError("we has a matrix with a negative eigenvalue: it must be a weight, C⁻¹.")
    roots = torch.where(sizes > floor, sizes, 0.0).sqrt()
    return (roots[..., None] * vectors.mT).movedim(-3, -1), shown


def arranged(
    values: Tensor, name: str, of: str, like: Tensor, lead: tuple[int, ...]
) -> tuple[Tensor, bool]:
    """Numbers for each entry of `like` (..., d, m), or matrices for each point.

    Args:
        values: what was given.
        name: of it, for messages.
        of: the name of `like`, for messages.
        like: with the batch `lead` in front.
        lead: dimensions of the batch.

    Returns:
        (..., d, m), and False; or (..., d, d, m), and True.

    Raises:
        InputError: no form fits the shape, or several with another meaning.
    """
    (d, m), shape = like.shape[-2:], tuple(values.shape)
    forms: dict[tuple[int, ...], tuple[int, ...]] = {
        (): (1, 1), (1,): (1, 1), (m,): (1, m), (d, m): (d, m), (d, 1): (d, 1), (1, m): (1, m),
    }  # fmt: skip
    if d == 1:
        forms[m, 1] = (1, m)
    square = {(d, d): (d, d, 1), (d, d, m): (d, d, m), (d, d, 1): (d, d, 1)}
    if d > 1 and (d,) != (m,):
        forms[(d,)] = (d, 1)
    found = set()
    if shape in forms:
        found.add(((1,) * len(lead) + forms[shape], False))
    if d > 1 and d == m and shape[-1:] == (d,) and shape[:-1] in ((), lead):
        found.add(((*((1,) * len(lead) if len(shape) == 1 else lead), d, 1), False))
    if shape in square and not lead:
        found.add((square[shape], True))
    if lead and shape[: len(lead)] == lead:
        tail = shape[len(lead) :]
        if tail in forms and tail:
            found.add((lead + forms[tail], False))
        if tail in square:
            found.add((lead + square[tail], True))
    # of single numbers a weight matrix is the weight; a number of 1 is deviation and variance
    if d == 1 and (name in ("wd", "we") or len(shape) > 2 + len(lead)) and len(found) > 1:
        found = {one for one in found if one[1] != (name in ("wd", "we"))}
    if len(found) > 1:
        raise InputError(
            f"{name} of shape {shape} can be read in several ways for {of} of {_shape(like)}: give "
            f"it as {(*lead, d, m)}, or matrices as {(*lead, d, d, m)}."
        )
    if not found:
        if len(shape) >= 2 and shape[-2:] == (m, m):
            raise InputError(
                f"{name} is a matrix of all points: odr takes errors that are independent from "
                "point to point."
            )
        raise InputError(
            f"{name} of shape {shape} does not fit {of} of {_shape(like)}: give one number, one "
            f"for each number of {of}, or matrices {(*lead, d, d, m)}."
        )
    ((target, matrices),) = found
    whole = (*lead, d, d, m) if matrices else (*lead, d, m)
    return values.reshape(target).expand(whole), matrices


def _read(
    given: Any, name: str, of: str, like: Tensor, lead: tuple[int, ...]
) -> tuple[Tensor, bool, Tensor | None]:
    """Numbers as `arranged` has them, one where they are masked; and which are not."""
    values, square = arranged(numbers_of(given, name).to(like), name, of, like, lead)
    shown = shown_of(given)
    if shown is None:
        return values, square, None
    seen, _ = arranged(shown.to(like), name, of, like, lead)
    filled = torch.where(seen > 0, values, 1.0)
    if square:
        seen = seen.diagonal(dim1=-3, dim2=-2).movedim(-1, -2)
    return filled, square, seen > 0


def _shape(like: Tensor) -> tuple[int, ...]:
    """The shape of x or y as its user may have it: one row of numbers is none."""
    shape = tuple(like.shape)
    return (*shape[:-2], shape[-1]) if shape[-2] == 1 else shape


def _checked(matrix: Tensor, name: str) -> Tensor:
    """Matrices (..., d, d) that are finite and symmetric.

    Returns:
        They, symmetric to the last digit.

    Raises:
        InputError: one is not.
    """
    if not bool(matrix.isfinite().all()):
        raise InputError(f"{name} has entries that are infinite or NaN.")
    if not torch.allclose(matrix, matrix.mT, rtol=1e-6, atol=0):
        raise InputError(f"{name} has a matrix that is not symmetric.")
    return (matrix + matrix.mT) / 2


def _with_identity(matrix: Tensor, held: Tensor) -> Tensor:
    """Matrices (..., d, d) with the identity's rows and columns where they are held (..., d)."""
    out = held[..., None] | held[..., None, :]
    return torch.where(out, torch.diag_embed(held.to(matrix)), matrix)


def _inverse_root(weights: Tensor, held: Tensor, name: str) -> Tensor:
    """L⁻ᵀ of weights L Lᵀ between what is not held, zero for what is.

    Returns:
        It, (..., d, d).

    Raises:
        InputError: they are not positive definite.
    """
    lower, failed = torch.linalg.cholesky_ex(_with_identity(weights, held))
    if bool(failed.any()) or not bool(lower.isfinite().all()):
        raise InputError(
            f"{name} has a matrix that is not positive definite: every direction of x needs an "
            "error, or is held by fixed_x."
        )
    eye = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device).expand(lower.shape)
    root = torch.linalg.solve_triangular(lower, eye, upper=False).mT
    out = held[..., None] | held[..., None, :]
    return torch.where(out, 0.0, root)
