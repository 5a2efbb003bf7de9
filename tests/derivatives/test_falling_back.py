"""What a mode does not know is never dropped: "auto" takes the next, and a named mode says so."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lmtorch
from lmtorch import InputError

from .setting import (
    F64,
    FIRST,
    SECOND,
    NewCube,
    OldCube,
    built,
    close,
    convolutional,
    hessians,
    jacobians,
    mlp,
    points,
)

NET = built(mlp)


class Recurrent(nn.Module):
    """(b, 3) -> (b, 2), at the last of three steps."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.recurrent = kind(1, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrent(x[..., None])[0][:, -1]


def written(x: Tensor) -> Tensor:
    """Into zeros, column by column."""
    out = torch.zeros(x.shape, dtype=x.dtype)
    for i in range(x.shape[1]):
        out[:, i] = x[:, i] ** 3 * x[:, 0]
    return out


def in_place(x: Tensor) -> Tensor:
    y = torch.sin(x)
    y += x**2
    y.mul_(x[:, :1])
    return y


def autograd_inside(x: Tensor) -> Tensor:
    """A network and its gradient, as in a physics-informed residual."""
    if not x.requires_grad:
        x = x.detach().requires_grad_()
    u = NET(x)
    return torch.autograd.grad(u.sum(), x, create_graph=True)[0] * u[:, :1]


def func_inside(x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.grad(lambda s: NET(s).square().sum()))(x)


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return torch.sin(x) * x[:, :1] ** 3


def or_refused(result: Callable[[], Tensor], *modes: str) -> Tensor | None:
    """What comes, or None where the error names one of the modes."""
    try:
        return result()
    except InputError as error:
        if not any(f"mode='{mode}'" in str(error) for mode in modes):
            raise
    return None


LSTM, GRU = built(lambda: Recurrent(nn.LSTM)), built(lambda: Recurrent(nn.GRU))
UNRULED: dict[str, Callable[[Tensor], Tensor]] = {
    "fft": lambda x: torch.fft.fft(x).real ** 2,
    "fft of a function": lambda x: torch.fft.rfft(x**2).abs(),
    "complex": lambda x: torch.complex(x, x**2).abs(),
    "cumprod": lambda x: x.cumprod(1),
    "logsumexp": lambda x: torch.logsumexp(x**2, 1),
    "maximum": lambda x: x.max(1).values ** 3,
    "largest singular value": lambda x: torch.linalg.norm(
        x.reshape(-1, 1, 3).mT * x.reshape(-1, 1, 3), 2, (-2, -1)
    ),
    "einsum of two": lambda x: torch.einsum("bi,bj->bij", x, x**2),
    "norm of another order": lambda x: torch.linalg.vector_norm(x, 3, dim=1),
    "sum of magnitudes": lambda x: x.norm(1, dim=1),
    "sum of magnitudes by name": lambda x: torch.norm(x**2 - 1, p=1, dim=1),
    "third norm by name": lambda x: torch.norm(x, p=3, dim=1, keepdim=True),
    "third norm, third argument": lambda x: torch.linalg.norm(x, ord=3, dim=-1),
    "largest magnitude": lambda x: torch.linalg.vector_norm(x, ord=torch.inf, dim=1) ** 3,
    "softmax of a dtype": lambda x: torch.softmax(x, 1, dtype=F64),
    "matrix with vector": lambda x: (
        x @ x[0] if len(x) == 0 else (x @ torch.ones(3, dtype=F64)) ** 2
    ),
    "convolution whose weight is x": lambda x: (
        torch.nn.functional.conv1d(x[:, None], x[:1, None] * 0 + 1) * x[:, :1, None]
    ),
}
UNSEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "an old function": OldCube.apply,
    "a new function": NewCube.apply,
    "an old function of a function": lambda x: OldCube.apply(torch.sin(x)).square(),
    "net and function": lambda x: NET(x)[:, :1] + OldCube.apply(x),
    "function and net": lambda x: OldCube.apply(x) * NET(x)[:, :1],
    "function into net": lambda x: NET(OldCube.apply(x)),
    "function, summed, added": lambda x: x + OldCube.apply(x).sum(1, keepdim=True),
    "function in a where": lambda x: torch.where(x > 1, x, OldCube.apply(x)),
    "function in cat": lambda x: torch.cat([x, NewCube.apply(x)], 1),
    "autograd inside": autograd_inside,
    "torch.func inside": func_inside,
    "torch.func and more": lambda x: func_inside(x) * x,
    "in place": in_place,
    "written into zeros": written,
    "written, and read": lambda x: written(x) + x**2,
    "inplace activation": lambda x: torch.nn.functional.elu(x - 1, inplace=True) * x,
    "scripted": scripted,
    "scripted and more": lambda x: scripted(x) + x**2,
    "an out": lambda x: torch.einsum("bi,i->bi", x**2, torch.ones(3, dtype=F64)),
    "checkpoint": lambda x: checkpoint(NET, x, use_reentrant=False),
    "lstm": LSTM,
    "gru": GRU,
}
SEEN = {"an out", "checkpoint"}  # through which Taylor mode does look
RIGHT = {**UNRULED, **UNSEEN}


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_auto_gives_the_right_derivatives(name: str) -> None:
    f, x = RIGHT[name], points(4, 3)
    J, H = jacobians(f, x), hessians(f, x)
    before = x.clone()
    close(lmtorch.batch_jacobian(f, x).detach(), J)
    close(lmtorch.batch_hessian(f, x).detach(), H)
    close(lmtorch.laplacian(f, x).detach(), H.diagonal(dim1=-2, dim2=-1).sum(-1))
    close(lmtorch.hessian_diagonal(f, x).detach(), H.diagonal(dim1=-2, dim2=-1))
    with torch.no_grad():
        close(lmtorch.laplacian(f, x), H.diagonal(dim1=-2, dim2=-1).sum(-1))
        close(lmtorch.batch_jacobian(f, x), J)
    assert torch.equal(x, before)
    assert not x.requires_grad


@pytest.mark.parametrize("name", [name for name in RIGHT if name not in SEEN])
def test_taylor_mode_refuses_what_it_does_not_know_by_name(name: str) -> None:
    for operator in (
        lmtorch.batch_jacobian,
        lmtorch.laplacian,
        lmtorch.batch_hessian,
        lmtorch.hessian_diagonal,
    ):
        with pytest.raises(InputError, match=r"mode='taylor' does not work .*mode='auto'"):
            operator(RIGHT[name], points(4, 3), mode="taylor")


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_torch_func_refuses_an_old_function_by_name(mode: str) -> None:
    with pytest.raises(InputError, match=f"mode='{mode}' does not work .*setup_context"):
        lmtorch.batch_jacobian(OldCube.apply, points(4, 3), mode=mode)
    with pytest.raises(InputError, match=r"mode='forward' does not work .*setup_context"):
        lmtorch.jvp(OldCube.apply, points(3), points(3), mode="forward")


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("mode", ["taylor", "forward", "reverse"])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_mode_by_name_is_right_or_refused(mode: str, name: str) -> None:
    f, x = RIGHT[name], points(4, 3)
    for operator, reference in (
        (lmtorch.batch_jacobian, jacobians),
        (lmtorch.batch_hessian, hessians),
    ):
        found = or_refused(partial(operator, f, x, mode=mode), mode)
        if found is not None:
            close(found.detach(), reference(f, x))


def test_other_operators_fall_back_too() -> None:
    f, x, v = OldCube.apply, points(4, 3), points(4, 3, seed=2)
    close(lmtorch.gradient(lambda x: f(x).sum(1), x).detach(), 3 * x**2)
    close(lmtorch.divergence(f, x).detach(), (3 * x**2).sum(1))
    close(lmtorch.curl(f, x).detach(), torch.zeros(4, 3, dtype=F64))
    close(lmtorch.vjp(f, x, v).detach(), 3 * x**2 * v)
    close(lmtorch.hvp(lambda x: f(x).sum(), x, v).detach(), 6 * x * v)
    close(lmtorch.second_directional_derivative(f, x, v).detach(), 6 * x * v**2)
    assert torch.equal(lmtorch.value_jacobian_hessian(f, x).value.detach(), x**3)
    close(lmtorch.jvp(NewCube.apply, x, v), 3 * x**2 * v)


def cut_by_no_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        size = torch.sin(x) * x
    return size * x**2


CUT: dict[str, Callable[[Tensor], Tensor]] = {
    "detach": lambda x: x**2 * torch.sin(x).detach(),
    "detach at once": lambda x: x**3 * x.detach(),
    "data": lambda x: x**2 * torch.sin(x).data,
    "no_grad": cut_by_no_grad,
    "rounded": lambda x: x**2 * (3 * x).round(),
    "compared": lambda x: x**2 * (x > 1),
    "a branch": lambda x: x**2 if bool((x > 0).all()) else x**3,
}


# cumprod has no rule, so that Taylor mode by name is refused
@pytest.mark.parametrize(
    ("mode", "unruled"),
    [(m, u) for m in FIRST for u in (False, True) if (m, u) != ("taylor", True)],
)
@pytest.mark.parametrize("name", CUT)
def test_what_autograd_takes_for_a_constant_is_one(name: str, mode: str, unruled: bool) -> None:
    x = points(4, 3)
    f = (lambda x: CUT[name](x).cumprod(1)) if unruled else CUT[name]
    J, H = jacobians(f, x), hessians(f, x)
    for record in (True, False):
        with torch.set_grad_enabled(record):
            close(lmtorch.batch_jacobian(f, x, mode=mode).detach(), J)
            if mode in SECOND:
                close(lmtorch.batch_hessian(f, x, mode=mode).detach(), H)
                close(
                    lmtorch.laplacian(f, x, mode=mode).detach(),
                    H.diagonal(dim1=-2, dim2=-1).sum(-1),
                )


def test_a_function_that_leaves_torch_is_an_error_and_not_zero() -> None:
    f = lambda x: torch.as_tensor(np.sin(x.numpy()))
    with pytest.raises(RuntimeError, match="numpy"):
        lmtorch.laplacian(f, points(4, 3))
    with pytest.raises(InputError, match=r"mode='taylor' does not work .*numpy"):
        lmtorch.laplacian(f, points(4, 3), mode="taylor")


def test_x_is_not_changed_by_a_mode_that_is_refused() -> None:
    def f(x: Tensor) -> Tensor:
        x.requires_grad_()
        return (x**3).sum(1)

    x = points(4, 3)
    close(lmtorch.laplacian(f, x).detach(), 6 * x.sum(1))
    assert not x.requires_grad


def test_an_error_of_the_functions_own_comes_through() -> None:
    def f(x: Tensor) -> Tensor:
        raise KeyError("no such species")

    for operator in (
        lmtorch.batch_jacobian,
        lmtorch.laplacian,
        lmtorch.gradient,
        lmtorch.divergence,
    ):
        with pytest.raises(KeyError, match="no such species"):
            operator(f, points(4, 3))


def test_an_error_without_words_is_named_by_its_kind() -> None:
    def f(x: Tensor) -> Tensor:
        raise NotImplementedError  # without a word: its kind is all that can be told

    with pytest.raises(InputError, match=re.escape("(NotImplementedError)")):
        lmtorch.batch_jacobian(f, points(4, 3), mode="forward")


@pytest.mark.parametrize("inner", SECOND)
@pytest.mark.parametrize("outer", SECOND)
@pytest.mark.parametrize(
    "activation", [torch.tanh, torch.nn.functional.softplus], ids=["tanh", "softplus"]
)
def test_operators_nest_in_all_modes_or_say_that_they_do_not(
    activation: Callable[[Tensor], Tensor], outer: str, inner: str
) -> None:
    x = points(2, 2)
    f = lambda x: activation(x[:, 0] * x[:, 1])
    trace = lambda g: lambda x: hessians(g, x).diagonal(dim1=-2, dim2=-1).sum(-1)
    laplacian_by_hand = lambda x: torch.stack(
        [
            torch.autograd.functional.hessian(lambda s: f(s[None])[0], s, create_graph=True)
            .diagonal()
            .sum()
            for s in x
        ]
    )
    expected = trace(laplacian_by_hand)(x)
    twice = lambda: lmtorch.laplacian(lambda x: lmtorch.laplacian(f, x, mode=inner), x, mode=outer)
    found = twice() if outer == "auto" else or_refused(twice, outer, inner)
    if found is not None:
        close(found.detach(), expected, roundings=4096)  # fourth derivatives, of the size of thirty


def test_models_with_layers_of_all_kinds_have_laplacians() -> None:
    model = built(
        lambda: nn.Sequential(
            convolutional(), nn.GELU(), nn.LayerNorm(3), nn.Linear(3, 2), nn.Dropout(0.3)
        )
    )
    x = points(2, 1, 4, 4)
    expected = hessians(model, x).flatten(-6, -4).flatten(-3)
    H = lmtorch.batch_hessian(model, x).detach()
    close(H.flatten(-6, -4).flatten(-3), expected)
    trace: Any = H.reshape(2, 2, 16, 16).diagonal(dim1=-2, dim2=-1).sum(-1)
    close(lmtorch.laplacian(model, x).detach(), trace)
