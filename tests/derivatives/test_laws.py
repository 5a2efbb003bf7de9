"""What holds between the operators, whatever the function."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lmtorch

from .setting import F64, FIRST, SECOND, built, close, mlp, points

drawn = given(
    d=st.integers(1, 5),
    b=st.integers(1, 4),
    seed=st.integers(0, 2**16),
    mode=st.sampled_from(SECOND),
)


def field(d: int, k: int, seed: int) -> Callable[[Tensor], Tensor]:
    """A smooth function (..., d) -> (..., k), neither even nor odd."""
    generator = torch.Generator().manual_seed(seed)
    A, B, c = (
        torch.randn(shape, generator=generator, dtype=F64) for shape in ((d, 6), (6, k), (6,))
    )
    return lambda x: (
        torch.tanh(x @ A + c) @ B + (x * x).sum(-1, keepdim=True) * torch.sin(x[..., :1])
    )


def scalar(d: int, seed: int) -> Callable[[Tensor], Tensor]:
    g = field(d, 1, seed)
    return lambda x: g(x)[..., 0]


@drawn
def test_the_laplacian_is_the_sum_of_the_diagonal_and_the_trace(
    d: int, b: int, seed: int, mode: str
) -> None:
    f, x = field(d, 2, seed), points(b, d, seed=seed)
    found = lmtorch.laplacian(f, x, mode=mode).detach()
    close(found, lmtorch.hessian_diagonal(f, x, mode=mode).detach().sum(-1))
    H = lmtorch.batch_hessian(f, x, mode=mode).detach()
    close(found, H.diagonal(dim1=-2, dim2=-1).sum(-1))
    close(H, H.mT)


@drawn
def test_the_divergence_of_a_gradient_is_the_laplacian(
    d: int, b: int, seed: int, mode: str
) -> None:
    f, x = scalar(d, seed), points(b, d, seed=seed)
    found = lmtorch.divergence(lambda x: lmtorch.gradient(f, x), x)
    close(found.detach(), lmtorch.laplacian(f, x, mode=mode).detach())


@given(d=st.integers(2, 3), b=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_a_gradient_has_no_curl_and_a_curl_no_divergence(d: int, b: int, seed: int) -> None:
    f, x = scalar(d, seed), points(b, d, seed=seed)
    curl = lmtorch.curl(lambda x: lmtorch.gradient(f, x), x)
    # entries of a Hessian, of the size of ten, cancel
    close(curl.detach(), torch.zeros_like(curl), roundings=4096)
    if d == 3:
        g = field(3, 3, seed)
        divergence = lmtorch.divergence(lambda x: lmtorch.curl(g, x), x)
        close(divergence.detach(), torch.zeros_like(divergence), roundings=4096)


@drawn
def test_jvp_and_vjp_are_adjoint(d: int, b: int, seed: int, mode: str) -> None:
    f, x = field(d, 3, seed), points(b, d, seed=seed)
    v, w = points(b, d, seed=seed + 1), points(b, 3, seed=seed + 2)
    J = lmtorch.batch_jacobian(f, x, mode=mode).detach()
    along, back = lmtorch.jvp(f, x, v, mode=mode).detach(), lmtorch.vjp(f, x, w).detach()
    close((w * along).sum(), (back * v).sum())
    close(along, (J @ v[..., None])[..., 0])
    close(back, (J.mT @ w[..., None])[..., 0])


@drawn
def test_hvp_and_the_directional_derivative_are_products_with_the_hessian(
    d: int, b: int, seed: int, mode: str
) -> None:
    f, x = scalar(d, seed), points(b, d, seed=seed)
    v, w = points(b, d, seed=seed + 1), points(b, d, seed=seed + 2)
    H = lmtorch.batch_hessian(f, x, mode=mode).detach()
    product = lmtorch.hvp(f, x, v, batch_dims=1).detach()
    close(product, (H @ v[..., None])[..., 0])
    close(
        lmtorch.second_directional_derivative(f, x, v, w, mode=mode).detach(), (product * w).sum(-1)
    )


@drawn
def test_the_laplacian_is_the_same_in_rotated_coordinates(
    d: int, b: int, seed: int, mode: str
) -> None:
    f, x = field(d, 2, seed), points(b, d, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=F64)).Q
    found = lmtorch.laplacian(lambda y: f(y @ Q), x @ Q.T, mode=mode)
    close(found.detach(), lmtorch.laplacian(f, x, mode=mode).detach())


@drawn
def test_a_batch_is_its_samples_one_by_one(d: int, b: int, seed: int, mode: str) -> None:
    f, x = field(d, 2, seed), points(b, d, seed=seed)
    for operator in (
        lmtorch.batch_jacobian,
        lmtorch.batch_hessian,
        lmtorch.laplacian,
        lmtorch.hessian_diagonal,
    ):
        whole = operator(f, x, mode=mode).detach()
        close(whole, torch.stack([operator(f, s, batch_dims=0).detach() for s in x]))
        close(whole, torch.cat([operator(f, s[None], mode=mode).detach() for s in x]))
        close(whole, operator(f, x[None], batch_dims=2, mode=mode).detach()[0])


@drawn
def test_derivatives_are_linear_in_the_function(d: int, b: int, seed: int, mode: str) -> None:
    f, g, x = field(d, 2, seed), field(d, 2, seed + 1), points(b, d, seed=seed)
    for operator in (lmtorch.batch_jacobian, lmtorch.laplacian):
        found = operator(lambda x: 2 * f(x) - g(x), x, mode=mode).detach()
        close(found, 2 * operator(f, x, mode=mode).detach() - operator(g, x, mode=mode).detach())


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that an operator made."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [
            leaf.untyped_storage().size() // leaf.element_size()
            for leaf in tree_leaves(result)
            if isinstance(leaf, Tensor)
        ]
        self.numel = max([self.numel, *sizes])
        return result


MADE = [
    *(("batch_jacobian", mode) for mode in FIRST),
    *(("divergence", mode) for mode in FIRST),
    *(
        (name, mode)
        for name in ("batch_hessian", "laplacian", "hessian_diagonal")
        for mode in SECOND
    ),
]


@pytest.mark.parametrize(("name", "mode"), MADE)
def test_the_blocks_across_samples_are_never_made(name: str, mode: str) -> None:
    model = built(lambda: mlp(3, 3))
    largest = []
    for count in (50, 100):
        with Largest() as watched:
            getattr(lmtorch, name)(model, points(count, 3), mode=mode)
        largest.append(watched.numel)
    # linear in the batch, and far from the (100 · 3)² of the whole; 8 units, 3
    # outputs, 6 pairs of inputs
    assert largest[1] <= 2 * largest[0]
    assert largest[1] <= 100 * 8 * 3 * 6


def test_a_laplacian_holds_no_hessian() -> None:
    d = 64
    x = points(5, d)
    with Largest() as watched:
        lmtorch.laplacian(lambda x: torch.sin(x).sum(1), x, mode="taylor", chunk_size=8)
    assert watched.numel <= d * d  # unit vectors, d of them, for all samples
    with Largest() as watched:
        lmtorch.batch_hessian(lambda x: torch.sin(x).sum(1), x, mode="taylor")
    assert watched.numel >= 5 * d * d
