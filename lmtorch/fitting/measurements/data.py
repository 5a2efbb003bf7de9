"""Data with their errors: checks, masks, and whitening, which gives all residuals deviation one."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_is_leaf, tree_leaves, tree_map

from ..._arrays import all_finite, tensor_of
from ..._errors import InputError
from .labels import row_labels
from .owned import NONE, Versions, leaves_of, owned, versions_of
from .reading import as_x, mask_of, merged, numbers_of, shown_of


@dataclass(frozen=True)
class Data:
    """The data of a fit, or of a batch (...) of fits, with `m` points each.

    Attributes:
        x: what f is called with.
        y: (..., m).
        weights: 1/σ, zero where a point is left out, (..., m) or (m,); None: all are one.
        root: L⁻¹ for a covariance matrix L Lᵀ, (..., m, m); None: errors are independent.
        count: how many points are not left out, (...,).
        numpy: whether results are returned as NumPy arrays.
        each_x: whether every fit has an x of its own, with the leading dimensions of y.
        sizes: how many points each of several joined data sets has.
        total: of a likelihood, the trials or the like of each point, (..., m) or (m,); None: it has
            none.
        versions: of x and y where they are the user's own tensors, see `owned`.
        labels: of the fits, the index of a table of pandas with a row for each; None: there are
            none.
    """

    x: Any
    y: Tensor
    weights: Tensor | None
    root: Tensor | None
    count: Tensor
    numpy: bool
    each_x: bool
    sizes: tuple[int, ...]
    total: Tensor | None = None
    versions: Versions = NONE
    labels: Any = None

    def unwritten(self) -> Self:
        """These data, unless x or y are no longer those of the fit.

        Raises:
            InputError: they were changed in place.
        """
        self.versions.check()
        return self

    @property
    def lead(self) -> tuple[int, ...]:
        """The leading dimensions, those of the batch."""
        return tuple(self.y.shape[:-1])

    def coloured(self, rows: Tensor) -> Tensor:
        """Bring rows (..., m) from units of the errors to those of y; points left out get zero."""
        if self.root is None:
            return (
                rows
                if self.weights is None
                else torch.where(self.weights > 0, rows / self.weights, 0.0)
            )
        # the rows of points that are left out are zero in the root
        whole = (
            self.root
            if self.weights is None
            else self.root + torch.diag_embed((self.weights <= 0).to(self.root))
        )
        return torch.linalg.solve(whole, rows[..., None])[..., 0]

    @property
    def m(self) -> int:
        """How many points each fit has, including those that are left out."""
        return self.y.shape[-1]

    def some(self, chosen: slice | Tensor) -> "Data":
        """The data of some fits of the batch, whose leading dimensions are flattened."""

        def part(value: Tensor | None, kept: int) -> Tensor | None:
            if value is None or value.ndim <= kept:
                return value
            return value.flatten(0, value.ndim - kept - 1)[chosen]

        return replace(
            self,
            labels=None,
            x=self.x.flatten(0, len(self.lead) - 1)[chosen] if self.each_x else self.x,
            y=self.y.flatten(0, -2)[chosen],
            weights=part(self.weights, 1),
            root=part(self.root, 2),
            count=self.count.flatten()[chosen],
            total=part(self.total, 1),
        )

    def at(self, index: tuple[int, ...]) -> "Data":
        """The data of one fit."""

        def one(value: Tensor | None, kept: int) -> Tensor | None:
            return value if value is None or value.ndim <= kept else value[index]

        return replace(
            self,
            labels=None,
            x=self.x[index] if self.each_x else self.x,
            y=self.y[index],
            weights=one(self.weights, 1),
            root=one(self.root, 2),
            count=self.count[index],
            total=one(self.total, 1),
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

    Points that a masked array hides are left out, and a column (m, 1) of ydata is one curve.

    Raises:
        InputError: data are empty, not finite, no numbers, or of shapes that do not fit.
    """
    if nan_policy not in (None, "raise", "omit"):
        raise InputError(f"nan_policy={nan_policy!r} must be 'raise', 'omit' or None.")
    numpy = not any(isinstance(leaf, Tensor) for leaf in leaves_of(ydata))
    sizes: tuple[int, ...] = ()
    labels = row_labels(ydata)
    xdata, ydata = owned(xdata, ydata)
    if joint:
        xdata, ydata, sigma, mask, sizes = _joined(xdata, ydata, sigma, mask)
    else:
        xdata, ydata, sigma = merged(xdata, "xdata"), merged(ydata, "ydata"), merged(sigma, "sigma")
    y = numbers_of(ydata, "ydata")
    if y.numel() == 0:
        raise InputError("ydata is empty: there is nothing to fit.")
    x = as_x(xdata, y) if tree_is_leaf(xdata) else tree_map(lambda leaf: as_x(leaf, y), xdata)
    if y.ndim == 0:  # a single value is taken for all points
        y = y.expand(x.shape[-1] if isinstance(x, Tensor) and x.ndim else 1)
    shapes = [y.shape]
    if not each_x and _is_column(y, x):
        y = y[..., 0]
        shapes.append(y.shape)
    if each_x is None:
        each_x = y.ndim > 1 and isinstance(x, Tensor) and x.shape in shapes
    lead = tuple(y.shape[:-1])
    if each_x and lead and not (isinstance(x, Tensor) and tuple(x.shape[: len(lead)]) == lead):
        raise InputError(
            f"with each_x, xdata must be one array that begins with the dimensions {lead} of ydata."
        )

    if mask is None and nan_policy != "omit" and _clean(x, y, xdata, ydata, sigma):
        weights, root = _errors(sigma, y, None)
        return _data(x, y, weights, root, numpy, each_x, sizes, labels)
    good_y = y.isfinite()
    fits = len(lead) if each_x else 0
    sets = list(zip(x, xdata, sizes, strict=True)) if joint else [(x, xdata, y.shape[-1])]
    goods = [
        _whole_points(tree_map(_finite, one), size, fits, "has NaN or infinity", y.device)
        for one, _, size in sets
    ]
    good_x = torch.cat(goods, -1)
    hidden = any(map(np.ma.is_masked, tree_leaves(xdata)))
    shown = [
        _whole_points(tree_map(shown_of, given), size, fits, "is masked", y.device)
        for _, given, size in sets
    ]
    kept = _kept(
        y,
        mask=mask_of(mask),
        ydata=shown_of(ydata),
        sigma=_shown_by(sigma, y),
        xdata=torch.cat(shown, -1) if hidden else None,
    )
    if nan_policy == "omit":
        kept = good_y & good_x & (kept if kept is not None else True)
        if not bool(kept.any()):
            raise InputError(
                "every point has a NaN or infinity: with nan_policy='omit' nothing is left to fit."
            )
    elif check_finite or nan_policy == "raise":
        for name, good in (("ydata", good_y), ("xdata", good_x)):
            seen = good if kept is None else good | ~kept
            if not bool(seen.all()):
                place = tuple((~seen).nonzero()[0].tolist())
                raise InputError(
                    f"{name} has NaN or infinity, first at {place}. Clean it, or leave such points "
                    "out with nan_policy='omit' or mask."
                )
    weights, root = _errors(sigma, y, kept)
    if kept is not None:
        weights = torch.where(kept, 1.0 if weights is None else weights, 0.0).to(y)
        if root is not None and root.ndim == 2:  # the same points are left out in all fits
            weights = weights.reshape(-1, weights.shape[-1])[0]
        y = torch.where(kept, y, 0.0)
        filled = [_filled(one, good, fits) for (one, _, _), good in zip(sets, goods, strict=True)]
        x = filled if joint else filled[0]
    return _data(x, y, weights, root, numpy, each_x, sizes, labels)


def _data(
    x: Any,
    y: Tensor,
    weights: Tensor | None,
    root: Tensor | None,
    numpy: bool,
    each_x: bool,
    sizes: tuple[int, ...],
    labels: Any,
) -> Data:
    """The data, with the points that are not left out counted."""
    count = y.detach().new_full(y.shape[:-1], y.shape[-1])
    if weights is not None:
        count = (weights > 0).to(y).expand(y.shape).sum(-1)
    seen = versions_of(x, y)
    labels = labels if labels is not None and tuple(y.shape[:-1]) == (len(labels),) else None
    return Data(x, y, weights, root, count, numpy, each_x, sizes, versions=seen, labels=labels)


def _clean(x: Any, y: Tensor, *given: Any) -> bool:
    """Whether no mask hides anything, and all numbers of x and y are finite: the usual case."""
    if any(isinstance(leaf, np.ma.MaskedArray) for one in given for leaf in leaves_of(one)):
        return False
    floats = (
        leaf for leaf in leaves_of(x) if isinstance(leaf, Tensor) and leaf.is_floating_point()
    )
    return all_finite(y) and all(map(all_finite, floats))


def _joined(xs: Any, ys: Any, sigma: Any, mask: Any) -> tuple[Any, Any, Any, Any, tuple[int, ...]]:
    """Join several data sets to one, but not their x; the mask has what masked arrays hide."""
    if not isinstance(xs, list | tuple) or not isinstance(ys, list | tuple) or len(xs) != len(ys):
        raise InputError(
            "with shared=..., xdata and ydata are lists of the same length, an "
            "entry for each data set."
        )
    parts = [numbers_of(y, f"ydata[{i}]").reshape(-1) for i, y in enumerate(ys)]
    sizes = tuple(len(part) for part in parts)
    for i, size in enumerate(sizes):
        if not size:
            raise InputError(f"ydata[{i}] is empty: leave the data set out.")

    def joined(values: Any, name: str) -> Tensor | None:
        if values is None:
            return None
        if not isinstance(values, list | tuple) or len(values) != len(parts):
            raise InputError(
                f"{name} must be a list with an entry for each of the {len(parts)} data sets."
            )
        pieces = []
        for i, (value, part) in enumerate(zip(values, parts, strict=True)):
            piece = numbers_of(value, f"{name}[{i}]")
            if piece.numel() not in (1, len(part)):
                raise InputError(
                    f"{name}[{i}] of shape {tuple(piece.shape)} does not fit "
                    f"ydata[{i}], {len(part)} points."
                )
            pieces.append(piece.reshape(-1).expand(len(part)).to(part))
        return torch.cat(pieces)

    deviations, kept = joined(sigma, "sigma"), joined(mask, "mask")
    for values in (ys, sigma or ()):
        if any(map(np.ma.is_masked, values)):
            pieces = [tensor_of(~np.ma.getmaskarray(v)).reshape(-1) for v in values]
            shown = torch.cat(
                [piece.expand(size) for piece, size in zip(pieces, sizes, strict=True)]
            ).to(parts[0])
            kept = shown if kept is None else kept * shown
    xs = [merged(x, f"xdata[{i}]") for i, x in enumerate(xs)]
    return xs, torch.cat(parts), deviations, None if kept is None else kept > 0, sizes


def _is_column(y: Tensor, x: Any) -> bool:
    """Whether y (..., m, 1) is a column of m points, as x has m, too, and not m fits of a point."""
    if y.ndim < 2 or y.shape[-1] != 1 or y.shape[-2] == 1:
        return False
    return all(not isinstance(leaf, Tensor) or y.shape[-2] in leaf.shape for leaf in tree_leaves(x))


def _shown_by(sigma: Any, y: Tensor) -> Tensor | None:
    """Which points a masked sigma shows; for a covariance matrix its diagonal tells."""
    shown = shown_of(sigma)
    return shown.diagonal(dim1=-2, dim2=-1) if shown is not None and _is_matrix(shown, y) else shown


def _kept(y: Tensor, **shown: Tensor | None) -> Tensor | None:
    """Which points are not left out by any of `shown`, in the shape of y; None: all are kept.

    Raises:
        InputError: a mask has another shape.
    """
    kept = None
    for name, one in shown.items():
        if one is not None:
            points = as_points(one.to(y.device), y, name)
            kept = points if kept is None else kept & points
    return kept


def as_points(values: Tensor, y: Tensor, name: str, hint: str = "") -> Tensor:
    """Expand values to the shape of y, one for each point; a column (..., m, 1) is flattened.

    Raises:
        InputError: their shape does not fit.
    """
    column = tuple(values.shape) == (*y.shape, 1)
    try:
        return (values[..., 0] if column else values).expand(y.shape)
    except RuntimeError as error:
        raise InputError(
            f"{name} of shape {tuple(values.shape)} does not fit ydata, {tuple(y.shape)}{hint}."
        ) from error


def _finite(leaf: Any) -> Tensor | None:
    return (
        leaf.detach().isfinite() if isinstance(leaf, Tensor) and leaf.is_floating_point() else None
    )


def _whole_points(flags: Any, m: int, fits: int, what: str, device: torch.device) -> Tensor:
    """Which points have all flags of x (a tree) set, (..., m); `fits` dimensions are the batch."""
    whole = torch.ones(m, dtype=torch.bool, device=device)
    for flag in tree_leaves(flags):
        if not isinstance(flag, Tensor):
            continue
        # (k, m): a row for each predictor, as in scipy
        if flag.ndim > fits and flag.shape[-1] == m:
            whole = whole & flag.to(device).reshape(*flag.shape[:fits], -1, m).all(-2)
        # (m, k): a row for each point, as in torch
        elif flag.ndim > fits and flag.shape[fits] == m:
            whole = whole & flag.to(device).flatten(fits + 1).all(-1)
        elif not bool(flag.all()):
            raise InputError(f"xdata {what} in a part that does not count the points.")
    return whole


def _filled(x: Any, good: Tensor, fits: int) -> Any:
    """Replace x of points that are not finite, and have no weight, by that of a good point.

    So f is called only where it is defined.
    """
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
        first = (
            first.reshape(*good.shape[:-1], *between, 1)
            if last
            else first.reshape(*good.shape[:-1], 1, *between)
        )
        stand_in = torch.take_along_dim(leaf, first, -1 if last else fits)
        return torch.where(good.reshape(shape), leaf, stand_in).nan_to_num(0.0, 0.0, 0.0)

    return tree_map(filled, x)


def _is_matrix(sigma: Tensor, y: Tensor) -> bool:
    """Whether sigma is a covariance matrix (..., m, m), and not deviations of a batch of m fits."""
    m = y.shape[-1]
    square = sigma.ndim >= 2 and tuple(sigma.shape[-2:]) == (m, m)
    return square and (y.ndim == 1 or tuple(sigma.shape) != tuple(y.shape))


def _errors(sigma: Any, y: Tensor, kept: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The weights 1/σ or, for a covariance matrix L Lᵀ, the root L⁻¹; the other is None.

    Raises:
        InputError: a deviation is not positive, a matrix is no covariance, or a shape does not fit.
    """
    if sigma is None:
        return None, None
    s = numbers_of(sigma, "sigma").to(y)
    m = y.shape[-1]
    if _is_matrix(s, y):
        return None, _whitening(s, kept)
    deviations = as_points(
        s, y, "sigma", f": give one deviation, one for each point, or a covariance ({m}, {m})"
    )
    bad = ~(deviations > 0) if kept is None else ~(deviations > 0) & kept
    if bool(bad.any()):
        first = tuple(torch.nonzero(bad)[0].tolist())
        raise InputError(
            f"sigma has entries that are zero, negative or NaN, {int(bad.sum())} of them, first at "
            f"{first}: it holds standard deviations. A mean of one measurement has none of its "
            "own: give it that of its neighbours, or leave the point out by mask."
        )
    return 1 / deviations, None


def _whitening(covariance: Tensor, kept: Tensor | None) -> Tensor:
    """L⁻¹ (..., m, m) for the covariance L Lᵀ of the points that are kept; zero for the others.

    Rows and columns of points that are left out are replaced by those of the identity, which leaves
    the factor of the others as if the points were not there.

    Raises:
        InputError: the matrix is no covariance.
    """
    pairs = None
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    if kept is not None:
        same = kept.ndim == 1 or bool((kept == kept.reshape(-1, kept.shape[-1])[0]).all())
        # if all fits keep the same points, one matrix is enough
        kept = kept.reshape(-1, kept.shape[-1])[0] if same else kept
        pairs = kept[..., :, None] & kept[..., None, :]
        covariance = torch.where(pairs, covariance, eye)
    if bool(covariance.isnan().any()):
        raise InputError("sigma has entries that are NaN or masked between points that count.")
    if not torch.allclose(covariance, covariance.mT, rtol=1e-6, atol=0):
        raise InputError(
            "sigma is a matrix, and not symmetric: it must be the covariance of ydata."
        )
    lower, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed.any()):
        raise InputError(
            "sigma is not positive definite: it must be a covariance matrix that can be inverted."
        )
    root = torch.linalg.solve_triangular(lower, eye.expand(covariance.shape), upper=False)
    return root if pairs is None else torch.where(pairs, root, 0.0)
