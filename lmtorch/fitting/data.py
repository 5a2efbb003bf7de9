"""Data with their errors: checked, masked, and the whitening that gives every residual the deviation one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from .._errors import InputError


@dataclass(frozen=True)
class Data:
    """What is fitted to: `m` points, of one problem or of a batch (...).

    Attributes:
        x: as f gets it.
        y: (..., m).
        weights: 1/σ, zero where a point is left out, (..., m) or (m,); None: all one.
        root: L⁻¹ of a covariance σ = L Lᵀ, (..., m, m); None: errors are independent.
        count: points that count, (...,).
        numpy: results go back as NumPy.
        each_x: every problem has an x of its own, with y's leading dimensions.
        sizes: points of each of several data sets, one after the other.
    """

    x: Any
    y: Tensor
    weights: Tensor | None
    root: Tensor | None
    count: Tensor
    numpy: bool
    each_x: bool
    sizes: tuple[int, ...]

    @property
    def lead(self) -> tuple[int, ...]:
        """The batch."""
        return tuple(self.y.shape[:-1])

    @property
    def m(self) -> int:
        """Points of each problem, those left out included."""
        return self.y.shape[-1]

    def at(self, index: tuple[int, ...]) -> "Data":
        """The data of one fit."""

        def one(value: Tensor | None, kept: int) -> Tensor | None:
            return value if value is None or value.ndim <= kept else value[index]

        return replace(
            self,
            x=self.x[index] if self.each_x else self.x,
            y=self.y[index],
            weights=one(self.weights, 1),
            root=one(self.root, 2),
            count=self.count[index],
        )


def gather(
    xdata: Any,
    ydata: Any,
    sigma: Any,
    mask: Any,
    *,
    check_finite: bool,
    nan_policy: str | None,
    joint: bool,
    each_x: bool | None,
) -> Data:
    """Check and convert the data.

    Raises:
        InputError: empty, not finite, or of shapes that do not fit.
    """
    if nan_policy not in (None, "raise", "omit"):
        raise InputError(f"nan_policy={nan_policy!r} must be 'raise', 'omit' or None.")
    numpy = not any(isinstance(leaf, Tensor) for leaf in tree_leaves(ydata))
    sizes: tuple[int, ...] = ()
    if joint:
        xdata, ydata, sigma, mask, sizes = _joined(xdata, ydata, sigma, mask)
    y = _numbers(ydata, "ydata")
    if y.numel() == 0:
        raise InputError("ydata is empty: there is nothing to fit.")
    x = tree_map(
        lambda leaf: _as_x(leaf, y), xdata if joint or not isinstance(xdata, list | tuple) else np.asarray(xdata)
    )
    if y.ndim == 0:  # one value stands for all points
        y = y.expand(x.shape[-1] if isinstance(x, Tensor) and x.ndim else 1)
    if each_x is None:
        each_x = y.ndim > 1 and isinstance(x, Tensor | np.ndarray) and tuple(x.shape) == tuple(y.shape)
    lead = tuple(y.shape[:-1])
    if each_x and lead and not (isinstance(x, Tensor) and tuple(x.shape[: len(lead)]) == lead):
        raise InputError(f"with each_x, xdata must be one array that begins with the dimensions {lead} of ydata.")
    kept = _mask(mask, y)

    good_y = y.isfinite()
    fits = len(lead) if each_x else 0
    sets = list(zip(x, sizes, strict=True)) if joint else [(x, y.shape[-1])]
    goods = [_finite_points(one, size, fits) for one, size in sets]
    good_x = torch.cat(goods, -1)
    if nan_policy == "omit":
        kept = good_y & good_x & (kept if kept is not None else True)
        if not bool(kept.any()):
            raise InputError("every point has a NaN or infinity: with nan_policy='omit' nothing is left to fit.")
    elif check_finite or nan_policy == "raise":
        for name, good in (("ydata", good_y), ("xdata", good_x)):
            seen = good if kept is None else good | ~kept
            if not bool(seen.all()):
                place = tuple((~seen).nonzero()[0].tolist())
                raise InputError(
                    f"{name} has NaN or infinity, first at {place}. Clean it, or leave such points out with "
                    "nan_policy='omit' or mask."
                )
    weights, root = _errors(sigma, y, kept)
    if kept is not None:
        if root is not None:
            raise InputError("points cannot be left out under a full covariance sigma: drop their rows beforehand.")
        weights = torch.where(kept, 1.0 if weights is None else weights, 0.0).to(y)
        y = torch.where(kept, y, 0.0)
        filled = [_filled(one, good, fits) for (one, _), good in zip(sets, goods, strict=True)]
        x = filled if joint else filled[0]
    used = torch.ones_like(y) if weights is None else (weights > 0).to(y).expand(y.shape)
    return Data(x, y, weights, root, used.sum(-1), numpy, each_x, sizes)


def _joined(xs: Any, ys: Any, sigma: Any, mask: Any) -> tuple[Any, Any, Any, Any, tuple[int, ...]]:
    """Several data sets as one, x still apart."""
    if not isinstance(xs, list | tuple) or not isinstance(ys, list | tuple) or len(xs) != len(ys):
        raise InputError("with shared=..., xdata and ydata are lists of the same length, an entry for each data set.")
    parts = [_numbers(y, f"ydata[{i}]").reshape(-1) for i, y in enumerate(ys)]
    sizes = tuple(len(part) for part in parts)
    for i, size in enumerate(sizes):
        if not size:
            raise InputError(f"ydata[{i}] is empty: leave the data set out.")

    def joined(values: Any, name: str) -> Tensor | None:
        if values is None:
            return None
        if not isinstance(values, list | tuple) or len(values) != len(parts):
            raise InputError(f"{name} must be a list with an entry for each of the {len(parts)} data sets.")
        pieces = []
        for i, (value, part) in enumerate(zip(values, parts, strict=True)):
            piece = _numbers(value, f"{name}[{i}]")
            if piece.numel() != 1 and piece.shape != part.shape:
                raise InputError(
                    f"{name}[{i}] of shape {tuple(piece.shape)} does not fit ydata[{i}], {len(part)} points."
                )
            pieces.append(piece.reshape(-1).expand(len(part)).to(part))
        return torch.cat(pieces)

    return list(xs), torch.cat(parts), joined(sigma, "sigma"), joined(mask, "mask"), sizes


def _numbers(values: Any, name: str) -> Tensor:
    """A floating-point tensor; NumPy and plain numbers become float64, as in scipy."""
    array: Tensor | np.ndarray
    try:
        array = values if isinstance(values, Tensor) else np.asarray(values)
        real = array if isinstance(array, Tensor) else np.array(array.real, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is no array of real numbers: {error}") from error
    if array.is_complex() if isinstance(array, Tensor) else np.iscomplexobj(array):
        raise InputError(f"{name} is complex: fit real and imaginary parts as two data sets, with shared=[...].")
    if isinstance(real, np.ndarray):
        return torch.as_tensor(real)
    return real if real.is_floating_point() else real.to(torch.float64)


def _as_x(leaf: Any, y: Tensor) -> Any:
    """Numbers in the dtype and on the device of y; what f alone understands stays."""
    if isinstance(leaf, Tensor):
        return leaf
    array = np.asarray(leaf)
    return torch.as_tensor(np.array(array, dtype=np.float64)).to(y) if array.dtype.kind in "fiub" else leaf


def _finite_points(x: Any, m: int, fits: int) -> Tensor:
    """Which of the points have a finite x, (..., m) with the first dimensions of x that count fits."""
    good = torch.ones(m, dtype=torch.bool)
    for leaf in tree_leaves(x):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            finite = leaf.detach().isfinite()
            if finite.ndim > fits and finite.shape[-1] == m:  # (k, m): predictors in rows, scipy's layout
                good = good.to(finite.device) & finite.reshape(*finite.shape[:fits], -1, m).all(-2)
            elif finite.ndim > fits and finite.shape[fits] == m:  # (m, k): samples in rows, a module's
                good = good.to(finite.device) & finite.flatten(fits + 1).all(-1)
            elif not bool(finite.all()):
                raise InputError("xdata has NaN or infinity.")
    return good


def _filled(x: Any, good: Tensor, fits: int) -> Any:
    """The x of a good point in place of one that is not finite, whose point has no weight: f is defined there."""
    if bool(good.all()):
        return x

    def filled(leaf: Any) -> Any:
        if (
            not isinstance(leaf, Tensor)
            or leaf.ndim <= fits
            or good.shape[-1] not in (leaf.shape[-1], leaf.shape[fits])
        ):
            return leaf
        last = leaf.shape[-1] == good.shape[-1]
        between = (1,) * (leaf.ndim - good.ndim)
        shape = (*good.shape[:-1], *between, good.shape[-1]) if last else (*good.shape, *between)
        first = good.to(torch.int8).argmax(-1, keepdim=True)
        first = first.reshape(*good.shape[:-1], *between, 1) if last else first.reshape(*good.shape[:-1], 1, *between)
        stand_in = torch.take_along_dim(leaf, first, -1 if last else fits)
        return torch.where(good.reshape(shape), leaf, stand_in).nan_to_num(0.0, 0.0, 0.0)

    return tree_map(filled, x)


def _mask(mask: Any, y: Tensor) -> Tensor | None:
    if mask is None:
        return None
    try:
        return torch.as_tensor(mask).to(y.device).bool().expand(y.shape)
    except RuntimeError as error:
        raise InputError(f"mask of shape {tuple(np.shape(mask))} does not fit ydata, {tuple(y.shape)}.") from error


def _errors(sigma: Any, y: Tensor, kept: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """1/σ, or L⁻¹ of a covariance matrix.

    Raises:
        InputError: zero, negative or NaN, a matrix that is no covariance, or of another shape.
    """
    if sigma is None:
        return None, None
    s = _numbers(sigma, "sigma").to(y)
    m = y.shape[-1]
    matrix = s.ndim >= 2 and tuple(s.shape[-2:]) == (m, m) and (y.ndim == 1 or tuple(s.shape) != tuple(y.shape))
    if matrix:
        if not torch.allclose(s, s.mT, rtol=1e-6, atol=0):
            raise InputError("sigma is a matrix, and not symmetric: it must be the covariance of ydata.")
        lower, failed = torch.linalg.cholesky_ex(s)
        if bool(failed.any()):
            raise InputError("sigma is not positive definite: it must be a covariance matrix that can be inverted.")
        eye = torch.eye(m, dtype=s.dtype, device=s.device)
        return None, torch.linalg.solve_triangular(lower, eye.expand(s.shape), upper=False)
    try:
        deviations = s.expand(y.shape)
    except RuntimeError as error:
        raise InputError(
            f"sigma of shape {tuple(s.shape)} does not fit ydata, {tuple(y.shape)}: give one deviation, one for each "
            f"point, or a covariance ({m}, {m})."
        ) from error
    bad = ~(deviations > 0) if kept is None else ~(deviations > 0) & kept
    if bool(bad.any()):
        raise InputError("sigma has entries that are zero, negative or NaN: it holds standard deviations.")
    return 1 / deviations, None


def points_of(x: Any, known: Any, data: Data) -> tuple[Any, int]:
    """New points as f takes them, in the dtype of the data, and how many they are, in the layout of xdata.

    Raises:
        InputError: they cannot be counted.
    """
    new = tree_map(lambda leaf: _as_x(leaf, data.y), np.asarray(x) if isinstance(x, list | tuple | int | float) else x)
    pairs = zip(tree_leaves(new), tree_leaves(known), strict=True)
    for leaf, before in pairs:
        if not isinstance(leaf, Tensor):
            continue
        if leaf.ndim == 0:
            return leaf[None], 1
        in_rows = isinstance(before, Tensor) and before.ndim > 1 and before.shape[-1] not in (*data.sizes, data.m)
        return new, leaf.shape[0 if in_rows else -1]
    raise InputError("new points must be arrays or tensors in the layout of xdata.")


def curve_of(values: Any, like: Tensor, count: int) -> Tensor:
    """(count,) from what f returned, flat; one number stands for all points.

    Raises:
        InputError: another number of values, complex ones, or none.
    """
    if values is None:
        raise InputError("f returned nothing. It must return the curve, a number for each point.")
    if values.is_complex() if isinstance(values, Tensor) else np.iscomplexobj(values):
        raise InputError(
            "f returned complex numbers. Fit real and imaginary parts as two data sets, with shared=[...]."
        )
    curve = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values, dtype=np.float64))
    curve = curve.reshape(-1)
    if curve.shape[0] != count:
        if curve.shape[0] != 1:
            raise InputError(f"f returned {curve.shape[0]} values for {count} points. It must return one for each.")
        curve = curve.expand(count)
    return curve.to(like.device)


def total(sizes: Sequence[int]) -> list[slice]:
    """Where each data set stands among all points."""
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
