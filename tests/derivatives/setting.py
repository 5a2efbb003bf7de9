"""Functions to be differentiated, and derivatives not of our making: loops over single samples."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

import lmtorch

F32, F64 = torch.float32, torch.float64
ROUNDINGS = 256  # sums of up to some hundred terms, rounded in another order, several layers deep
FIRST = ("auto", "taylor", "forward", "reverse", "autograd")
SECOND = ("auto", "taylor", "forward", "reverse")


def close(found: Tensor, expected: Tensor, roundings: float = ROUNDINGS) -> None:
    """Equal in shape, dtype, device and, to rounding of the largest entry, in value."""
    assert isinstance(found, Tensor)
    size = max(1.0, float(expected.detach().abs().max())) if expected.numel() else 1.0
    atol = roundings * torch.finfo(expected.dtype).eps * size
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def one_by_one(
    of: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor],
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    batch: int,
) -> Tensor:
    """`of(function, point)` of each sample by itself, stacked."""

    def single(s: Tensor) -> Tensor:
        return f(s.reshape((1,) * batch + s.shape))[(0,) * batch]

    found = [of(single, s) for s in x.detach().reshape(-1, *x.shape[batch:])]
    return torch.stack(found).reshape(x.shape[:batch] + found[0].shape)


def jacobians(f: Callable[[Tensor], Tensor], x: Tensor, batch: int = 1) -> Tensor:
    """∂f/∂x of each sample, row by row, by torch."""
    return one_by_one(jacobian, f, x, batch)


def hessians(f: Callable[[Tensor], Tensor], x: Tensor, batch: int = 1) -> Tensor:
    """∂²f/∂x² of each sample, by torch, reverse over reverse."""
    return one_by_one(
        lambda g, s: jacobian(lambda s: jacobian(g, s, create_graph=True), s), f, x, batch
    )


def same_derivatives(
    f: Callable[[Tensor], Tensor], x: Tensor, batch: int = 1, mode: str = "taylor"
) -> None:
    """First and second derivatives, their diagonal and trace, by torch, one sample at a time."""
    d = x.shape[batch:].numel()
    J, H = jacobians(f, x, batch), hessians(f, x, batch)
    outputs = f(x).shape
    options: dict[str, Any] = {"batch_dims": batch, "mode": mode}
    square = H.reshape((*outputs, d, d))
    close(lmtorch.batch_jacobian(f, x, **options), J)
    close(lmtorch.batch_hessian(f, x, **options), H)
    close(
        lmtorch.hessian_diagonal(f, x, **options),
        square.diagonal(dim1=-2, dim2=-1).reshape(outputs + x.shape[batch:]),
    )
    close(lmtorch.laplacian(f, x, **options), square.diagonal(dim1=-2, dim2=-1).sum(-1))


def points(*shape: int, seed: int = 1, dtype: torch.dtype = F64) -> Tensor:
    """Between 0.5 and 1.5, where roots, logarithms and quotients are smooth."""
    return (
        torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
        .add(0.5)
        .to(dtype)
    )


def built(make: Callable[[], nn.Module], dtype: torch.dtype = F64) -> nn.Module:
    """The same weights each time, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().to(dtype).eval()


def mlp(inputs: int = 3, outputs: int = 2) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, 8),
        nn.Tanh(),
        nn.Linear(8, 8),
        nn.Softplus(),
        nn.Linear(8, outputs),
        nn.Sigmoid(),
    )


def convolutional() -> nn.Module:
    """(b, 1, 4, 4) -> (b, 3)."""
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3), nn.Softmax(-1)
    )


def transformer() -> nn.Module:
    """(b, 2, 4) -> the same."""
    return nn.TransformerEncoderLayer(
        4, 2, dim_feedforward=5, dropout=0.0, batch_first=True, activation="gelu"
    )


class Attention(nn.Module):
    """(b, 2, 4) -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class OldCube(torch.autograd.Function):
    """x³, as everyone wrote it before torch 2.0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * w


class NewCube(torch.autograd.Function):
    """x³ for torch.func, with a forward formula too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * w

    @staticmethod
    def jvp(ctx: Any, v: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * v


def shaped(
    inputs: tuple[int, ...], outputs: tuple[int, ...], batch: int
) -> Callable[[Tensor], Tensor]:
    """A function of a batch, (*batch, *inputs) to (*batch, *outputs), with a full Jacobian."""
    d, k = torch.Size(inputs).numel(), torch.Size(outputs).numel()
    W = torch.randn(d, k, generator=torch.Generator().manual_seed(0), dtype=F64)

    def f(x: Tensor) -> Tensor:
        samples = x.shape[:batch]
        return torch.sin((x.reshape(*samples, d, 1) * W).sum(-2)).reshape(samples + outputs)

    return f
