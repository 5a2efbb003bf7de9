"""Results are ordinary tensors that can be differentiated again; nothing of the user's changes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import lmtorch

from .setting import F64, FIRST, SECOND, OldCube, built, close, hessians, jacobians, mlp, points

V = points(4, 3, seed=2)
OPERATORS: dict[str, Callable[..., Tensor]] = {
    "batch_jacobian": lmtorch.batch_jacobian,
    "gradient": lambda f, x, **k: lmtorch.gradient(lambda x: f(x)[:, 0], x, **k),
    "divergence": lambda f, x, **k: lmtorch.divergence(lambda x: x * f(x)[:, :1], x, **k),
    "curl": lambda f, x, **k: lmtorch.curl(lambda x: x * f(x)[:, :1], x, **k),
    "batch_hessian": lmtorch.batch_hessian,
    "hessian_diagonal": lmtorch.hessian_diagonal,
    "laplacian": lmtorch.laplacian,
    "second_directional_derivative": lambda f, x, **k: lmtorch.second_directional_derivative(
        f, x, V, **k
    ),
    "value_jacobian_hessian": lambda f, x, **k: torch.cat(
        [part.reshape(4, -1) for part in lmtorch.value_jacobian_hessian(f, x, **k)], 1
    ),
    "hvp": lambda f, x, **k: lmtorch.hvp(lambda x: f(x)[:, :1], x, V, batch_dims=1, **k),
    "jvp": lambda f, x, **k: lmtorch.jvp(f, x, V, **k),
    "vjp": lambda f, x, **k: lmtorch.vjp(f, x, V[:, :2], **k),
}
MODES = {
    "vjp": (None,),
    "hvp": ("auto", "forward", "reverse"),
    "jvp": ("auto", "taylor", "forward", "reverse"),
}
FIRST_ORDER = ("batch_jacobian", "gradient", "divergence", "curl")
SETTINGS = [(o, m) for o in OPERATORS for m in MODES.get(o, FIRST if o in FIRST_ORDER else SECOND)]
each = pytest.mark.parametrize(("operator", "mode"), SETTINGS)


def by_torch(operator: str, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The same, by torch.func over single samples; differentiable."""
    one = lambda s: f(s[None])[0]
    J: Any = torch.func.vmap(torch.func.jacrev(one))(x)
    H: Any = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(one)))(x)
    diagonal = H.diagonal(dim1=-2, dim2=-1)
    field: Any = torch.func.vmap(torch.func.jacrev(lambda s: s * one(s)[:1]))(x)
    of = {
        "batch_jacobian": lambda: J,
        "gradient": lambda: J[:, 0],
        "divergence": lambda: field.diagonal(dim1=-2, dim2=-1).sum(-1),
        "curl": lambda: torch.stack(
            [field[:, i, j] - field[:, j, i] for i, j in ((2, 1), (0, 2), (1, 0))], 1
        ),
        "batch_hessian": lambda: H,
        "hessian_diagonal": lambda: diagonal,
        "laplacian": lambda: diagonal.sum(-1),
        "second_directional_derivative": lambda: torch.einsum("bkij,bi,bj->bk", H, V, V),
        "value_jacobian_hessian": lambda: torch.cat(
            [part.reshape(4, -1) for part in (f(x), J, H)], 1
        ),
        "hvp": lambda: torch.einsum("bij,bj->bi", H[:, 0], V),
        "jvp": lambda: torch.einsum("bki,bi->bk", J, V),
        "vjp": lambda: torch.einsum("bki,bk->bi", J, V[:, :2]),
    }
    return of[operator]()


def called(operator: str, mode: str | None, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return OPERATORS[operator](f, x, **({} if mode is None else {"mode": mode}))


@each
def test_gradients_lead_into_x_and_into_the_parameters(operator: str, mode: str | None) -> None:
    model, x = built(mlp), points(4, 3).requires_grad_()
    inputs = (x, *model.parameters())
    found, expected = called(operator, mode, model, x), by_torch(operator, model, x)
    close(found.detach(), expected.detach())
    weights = points(*expected.shape, seed=9)
    ours = torch.autograd.grad(
        (found * weights).sum(), inputs, materialize_grads=True, allow_unused=True
    )
    theirs = torch.autograd.grad(
        (expected * weights).sum(), inputs, materialize_grads=True, allow_unused=True
    )
    for a, b in zip(ours, theirs, strict=True):
        close(a, b, roundings=4096)  # sums over all entries of third derivatives


@each
def test_nothing_of_the_users_changes(operator: str, mode: str | None) -> None:
    model, x = built(mlp), points(4, 3).requires_grad_()
    before = x.detach().clone()
    called(operator, mode, model, x).sum().detach()
    assert x.is_leaf
    assert x.requires_grad
    assert x.grad is None
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(x.detach(), before)
    plain = points(4, 3)
    called(operator, mode, model, plain)
    assert not plain.requires_grad


@each
def test_under_no_grad_results_are_the_same_and_require_none(
    operator: str, mode: str | None
) -> None:
    model, x = built(mlp), points(4, 3).requires_grad_()
    expected = by_torch(operator, model, x).detach()
    with torch.no_grad():
        found = called(operator, mode, model, x)
        assert not torch.is_grad_enabled()
    assert not found.requires_grad
    close(found, expected)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("mode", SECOND)
def test_under_no_grad_nothing_requires_a_gradient_of_a_function_without_x(mode: str) -> None:
    weight = torch.ones(4, 2, dtype=F64, requires_grad=True)
    with torch.no_grad():
        parts = lmtorch.value_jacobian_hessian(lambda x: weight * 2, points(4, 3), mode=mode)
    assert not any(part.requires_grad for part in parts)


def test_under_no_grad_an_unseen_function_is_still_differentiated() -> None:
    x = points(4, 3)
    with torch.no_grad():
        close(lmtorch.laplacian(lambda x: OldCube.apply(x).sum(1), x), 6 * x.sum(1))


@pytest.mark.parametrize("f", [torch.tanh, torch.nn.functional.softplus], ids=["tanh", "softplus"])
def test_a_laplacian_of_a_laplacian_is_the_biharmonic(f: Callable[[Tensor], Tensor]) -> None:
    x = points(4, 2)
    plane = lambda x: f(x[:, 0] + 2 * x[:, 1])  # Δ² g(k·x) = |k|⁴ g⁗
    fourth: Callable[[Tensor], Tensor] = f
    for _ in range(4):
        fourth = torch.func.grad(fourth)
    expected = 25 * torch.func.vmap(fourth)(x[:, 0] + 2 * x[:, 1])
    found = lmtorch.laplacian(lambda x: lmtorch.laplacian(plane, x), x)
    close(found, expected, roundings=4096)  # terms forty times as large cancel


def test_the_biharmonic_of_a_polynomial_is_the_one_in_closed_form() -> None:
    x = points(4, 2)
    f = lambda x: x[:, 0] ** 4 * x[:, 1] ** 2  # Δ² = 24 y² + 2 · 24 x²
    found = lmtorch.laplacian(lambda x: lmtorch.laplacian(f, x), x)
    close(found, 24 * x[:, 1] ** 2 + 48 * x[:, 0] ** 2)


@pytest.mark.parametrize(
    "operator", ["laplacian", "batch_hessian", "hessian_diagonal", "batch_jacobian", "gradient"]
)
def test_operators_run_under_vmap_and_grad(operator: str) -> None:
    model, x = built(mlp), points(4, 3)
    f = lambda s: model(s)[0]
    of = getattr(lmtorch, operator)
    single = lambda s: of(f, s, batch_dims=0)
    together = of(lambda x: model(x)[:, 0], x)
    close(torch.func.vmap(single)(x).detach(), together.detach())
    at = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(of(lambda x: model(x)[:, 0], at).sum(), at)
    close(
        torch.func.grad(lambda x: of(lambda x: model(x)[:, 0], x).sum())(x).detach(),
        expected,
        roundings=4096,
    )
    close(
        torch.func.vmap(torch.func.grad(lambda s: single(s).sum()))(x).detach(),
        expected,
        roundings=4096,
    )


def test_jvp_and_vjp_run_under_vmap() -> None:
    model, x = built(mlp), points(4, 3)
    columns = torch.func.vmap(lambda v: lmtorch.jvp(model, x[0], v))(torch.eye(3, dtype=F64))
    rows = torch.func.vmap(lambda w: lmtorch.vjp(model, x[0], w))(torch.eye(2, dtype=F64))
    expected = jacobians(model, x)[0]
    close(columns.T.detach(), expected)
    close(rows.detach(), expected)


def test_hessians_are_of_functional_calls_too() -> None:
    model, x = built(mlp), points(4, 3)
    params = {name: 2 * p.detach() for name, p in model.named_parameters()}
    f = lambda x: torch.func.functional_call(model, params, (x,))
    close(lmtorch.batch_hessian(f, x), hessians(f, x))
    assert not torch.equal(lmtorch.batch_hessian(f, x), lmtorch.batch_hessian(model, x))


def eigenfunction(x: Tensor) -> Tensor:
    """sin x₁ cos 2x₂ by a detour through operators that change shapes: its Δ is −5 times itself."""
    first, second = x.unbind(1)
    stacked = torch.stack([first, 2 * second], -1).mT.unsqueeze(0).expand(1, -1, -1).squeeze(0)
    joined = torch.cat([stacked[:1].sin(), stacked[1:].cos()]).permute(1, 0).contiguous()
    return (joined.reshape(-1, 2).T[0] * joined.flatten(1)[:, 1])[:, None].sum(-1, keepdim=True)


def test_nested_taylor_mode_sees_what_the_inner_one_does() -> None:
    x = torch.randn(6, 2, dtype=torch.float64)

    def inner(x: Tensor) -> Tensor:
        return lmtorch.laplacian(eigenfunction, x, mode="taylor")

    twice = lmtorch.laplacian(inner, x, mode="taylor")
    torch.testing.assert_close(twice, 25 * eigenfunction(x), rtol=1e-12, atol=1e-12)
    of_gradient = lmtorch.divergence(
        lambda x: lmtorch.gradient(eigenfunction, x, mode="taylor"), x, mode="taylor"
    )
    torch.testing.assert_close(of_gradient, -5 * eigenfunction(x)[:, 0], rtol=1e-12, atol=1e-12)


def test_a_step_on_the_biharmonic_operator_has_its_rows_from_linear_layers() -> None:
    net = torch.nn.Sequential(
        torch.nn.Linear(2, 70), torch.nn.Tanh(), torch.nn.Linear(70, 1)
    ).double()
    x = torch.rand(50, 2, dtype=torch.float64)

    def residual(x: Tensor) -> Tensor:
        return lmtorch.laplacian(lambda y: lmtorch.laplacian(net, y), x) - 1

    opt = lmtorch.LevenbergMarquardt(net)
    opt.step(residual, x)
    assert opt.report.jacobian.startswith("LayerWise")
    assert opt.report.loss_after < opt.report.loss
