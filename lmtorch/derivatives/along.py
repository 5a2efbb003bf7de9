"""Second derivatives along given directions, without the matrix: H v and vᵀHw."""

from dataclasses import replace

import torch
from torch import Tensor

from ..calculus.jets import every
from .calling import Call, Function, answered, checked
from .passes import fitting, one_number, products, products_by_reverse, taylor
from .second import Product


def hvp(f: Function, x: Tensor, v: Tensor, *, batch_dims: int = 0, mode: str = "auto") -> Tensor:
    """H v: the derivative of the gradient along v, without H.

    Args:
        f: a function with one output for each sample: `(*batch, *in)` to `(*batch,)` or
            `(*batch, 1)`.
        x: `(*batch, *in)`, floating.
        v: a direction for each sample, of the shape of x or what broadcasts to it.
        batch_dims: how many leading dimensions of x are samples. Default: 0, for an f that returns
            one number, a loss.
        mode: "forward" (forward over reverse) or "reverse" (reverse over reverse). Default: "auto".

    Returns:
        A tensor of the shape of x; differentiable.

    Raises:
        InputError: as in `gradient`, or v does not fit x.

    Reference: Pearlmutter, Fast exact multiplication by the Hessian (1994).

    Example:
        >>> import torch, lmtorch
        >>> lmtorch.hvp(lambda x: (x**3).sum(), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]))
        tensor([ 6., 12.])
    """
    call = checked(f, x, batch_dims)
    v = fitting(v, x, "v")

    def single(x: Tensor) -> Tensor:
        y = call(x)
        one_number(call, y, "hvp")
        return y.reshape(call.samples)

    number = replace(call, function=single)
    ways = [
        ("forward", lambda: products(number, v[None])[0]),
        ("reverse", lambda: products_by_reverse(number, v[None])[0]),
    ]
    return answered(f, call, 2, ways, mode)


def second_directional_derivative(
    f: Function,
    x: Tensor,
    v: Tensor,
    w: Tensor | None = None,
    *,
    batch_dims: int = 1,
    mode: str = "auto",
) -> Tensor:
    """vᵀHw of every output: d²f(x + sv + tw)/ds dt at zero.

    Args:
        f: written for a batch: `(*batch, *in)` to `(*batch, *out)`, each sample by itself.
        x: `(*batch, *in)`, floating.
        v: a direction for each sample, of the shape of x or what broadcasts to it: `(*in,)` is the
            same direction for all.
        w: a second direction, like v. Default: v, which gives the curvature along v.
        batch_dims: how many leading dimensions of x are samples. Default: 1.
        mode: as in `laplacian`.

    Returns:
        `(*batch, *out)`; differentiable.

    Raises:
        InputError: as in `batch_jacobian`, or a direction does not fit x.

    Example:
        >>> import torch, lmtorch
        >>> f, tx = lambda tx: tx[:, 0] * tx[:, 1] ** 2, torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> lmtorch.second_directional_derivative(f, tx, torch.tensor([0.0, 1.0]))
        tensor([2., 6.])
    """
    call = checked(f, x, batch_dims)
    v = fitting(v, x, "v")
    w = None if w is None else fitting(w, x, "w")

    def along() -> Tensor:
        directions = v[None] if w is None else torch.stack([v, w])
        second = taylor(call, directions, every).second
        assert second is not None
        return second[0 if w is None else 1]  # the pairs are (v, v), (v, w), (w, w)

    def by(product: Product) -> Tensor:
        return _inner(call, product(call, v[None])[0], v if w is None else w)

    ways = [
        ("taylor", along),
        ("forward", lambda: by(products)),
        ("reverse", lambda: by(products_by_reverse)),
    ]
    return answered(f, call, 2, ways, mode)


def _inner(call: Call, found: Tensor, w: Tensor) -> Tensor:
    """wᵀH v, (*batch, *out), from H v (*batch, *out, *in) and w (*batch, *in)."""
    between = found.ndim - w.ndim
    weights = w.reshape(call.samples + (1,) * between + call.inputs)
    products = found * weights
    return products.flatten(-len(call.inputs)).sum(-1) if call.inputs else products
