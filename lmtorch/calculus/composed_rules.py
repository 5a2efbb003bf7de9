"""Rules that are made of others: layers of networks, norms, distances."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import slopes as formulas
from .base import Algebra, Carrier, NoRuleError, values
from .primitive_rules import divided, subtracted


def convolution(
    algebra: Algebra,
    func: Callable[..., Any],
    z: Any,
    weight: Any,
    bias: Any = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """A convolution, linear in z; the bias is added to the value alone."""
    if not isinstance(z, Carrier) or isinstance(weight, Carrier) or isinstance(bias, Carrier):
        raise NoRuleError("a convolution whose weight is a function of x")
    result = algebra.linear(lambda v: func(v, weight, None, *args, **kwargs), z)
    if bias is None:
        return result
    return algebra.added(result, bias.reshape(-1, *(1,) * (weight.ndim - 2)))


def dense(
    algebra: Algebra, func: Callable[..., Tensor], z: Any, weight: Any, bias: Any = None
) -> Any:
    """z Wᵀ + b."""
    return algebra.dense(func, z, weight, bias)


def dropout(
    algebra: Algebra,
    func: Callable[..., Any],
    z: Any,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Any:
    """dropout: a value and its derivatives are multiplied by the same mask."""
    if inplace:
        raise NoRuleError("dropout in place")
    if not training:
        return z
    return algebra.product(torch.mul, func(torch.ones_like(algebra.bare(z)), p, training), z)


def softmax(
    algebra: Algebra,
    func: Callable[..., Any],
    z: Any,
    dim: int,
    _stacklevel: int = 3,
    dtype: Any = None,
) -> Any:
    """softmax: exp(z − max) over its sum."""
    if dtype is not None or isinstance(_stacklevel, torch.dtype):
        raise NoRuleError("softmax in another dtype")
    shifted = algebra.added(z, -algebra.bare(z).detach().amax(dim, keepdim=True))
    powers = algebra.chain(shifted, formulas.exp(shifted.value))
    return divided(
        algebra, torch.div, powers, algebra.reduced(torch.sum, powers, dim, keepdim=True)
    )


def layer_norm(
    algebra: Algebra,
    func: Callable[..., Any],
    z: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Any:
    """Layer norm: (z − mean) / √(variance + ε), scaled and shifted."""
    dims = tuple(range(-len(normalized_shape), 0))
    centred = subtracted(algebra, torch.sub, z, algebra.reduced(torch.mean, z, dims, keepdim=True))
    squares = algebra.product(torch.mul, centred, centred)
    variance = algebra.added(algebra.reduced(torch.mean, squares, dims, keepdim=True), eps)
    normed = algebra.product(
        torch.mul, centred, algebra.chain(variance, formulas.power(variance.value, -0.5))
    )
    normed = normed if weight is None else algebra.product(torch.mul, weight, normed)
    return normed if bias is None else algebra.added(normed, bias)


def euclidean(
    algebra: Algebra,
    func: Callable[..., Any],
    z: Any,
    ord: Any = None,
    dim: Any = None,
    keepdim: bool = False,
    **kwargs: Any,
) -> Any:
    """The length of vectors, √Σz²."""
    if kwargs.pop("p", ord) not in (2, "fro", None) or any(v is not None for v in kwargs.values()):
        raise NoRuleError("another norm than that of vectors")
    if dim is None:  # of all entries
        dim = tuple(range(-values(z).ndim, 0))
    if func is torch.linalg.norm and ord == 2 and not isinstance(dim, int) and len(dim) == 2:
        raise NoRuleError("the largest singular value")
    squares = algebra.product(torch.mul, z, z)
    total = algebra.reduced(torch.sum, squares, dim, keepdim=keepdim)
    return algebra.chain(total, formulas.root(total.value))


def distances(
    algebra: Algebra, func: Callable[..., Any], a: Any, b: Any, p: float = 2.0, **kwargs: Any
) -> Any:
    """cdist: the length of each difference of a row of a and a row of b."""
    if p != 2:
        raise NoRuleError("another distance than the length of the difference")
    # torch declares no second derivatives of its own kernel (2.13)
    left, right = (
        algebra.reshaped(torch.unsqueeze, x, dim) if isinstance(x, Carrier) else x.unsqueeze(dim)
        for x, dim in ((a, -2), (b, -3))
    )
    return euclidean(algebra, func, subtracted(algebra, torch.sub, left, right), dim=-1)
