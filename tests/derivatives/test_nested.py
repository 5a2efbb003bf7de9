"""Derivatives of derivatives, where torch's own formulas take what depends on x for a constant.

An operator that solves or factors keeps the factors, a norm its statistics, and an
`autograd.Function` all that it has computed: right once, wrong when differentiated again by forward
mode, or without autograd's records.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmtorch
from lmtorch import InputError

from .setting import F64, FIRST, SECOND, NewCube, built, close, hessians, jacobians, mlp, points

B = torch.tensor([1.0, -2.0], dtype=F64)
SKEW = torch.tensor([[0.0, 0.3], [0.0, 0.0]], dtype=F64)


def matrix(x: Tensor) -> Tensor:
    """2 + x xᵀ, (b, 2) -> (b, 2, 2), and not symmetric."""
    return torch.eye(2, dtype=x.dtype) * 2 + x[:, :, None] * x[:, None, :] + SKEW


def right(x: Tensor) -> Tensor:
    return B.expand(x.shape)[..., None]


FACTORED: dict[str, Callable[[Tensor], Tensor]] = {
    "slogdet": lambda x: torch.linalg.slogdet(matrix(x)).logabsdet,
    "logdet": lambda x: matrix(x).logdet(),
    "det": lambda x: torch.linalg.det(matrix(x)),
    "solve": lambda x: torch.linalg.solve(matrix(x), right(x))[:, 0, 0],
    "inv": lambda x: torch.linalg.inv(matrix(x))[:, 0, 1],
    "pinv": lambda x: torch.linalg.pinv(matrix(x))[:, 0, 1],
    "lstsq": lambda x: torch.linalg.lstsq(matrix(x), right(x)).solution[:, 0, 0],
    "lu": lambda x: torch.linalg.lu(matrix(x))[2][:, 1, 1],
    "lu_solve": lambda x: torch.linalg.lu_solve(*torch.linalg.lu_factor(matrix(x)), right(x))[
        :, 0, 0
    ],
    "cholesky": lambda x: torch.linalg.cholesky(matrix(x) - SKEW)[:, 1, 0],
    "cholesky_solve": lambda x: torch.cholesky_solve(
        right(x), torch.linalg.cholesky(matrix(x) - SKEW)
    )[:, 0, 0],
    "cholesky_inverse": lambda x: torch.cholesky_inverse(torch.linalg.cholesky(matrix(x) - SKEW))[
        :, 0, 0
    ],
    "qr": lambda x: torch.linalg.qr(matrix(x))[1][:, 0, 1],
    "householder": lambda x: torch.linalg.householder_product(matrix(x), 0.3 * x)[:, 0, 1],
    "svd": lambda x: torch.linalg.svdvals(matrix(x))[:, 0],
    "eigh": lambda x: torch.linalg.eigvalsh(matrix(x))[:, 0],
    "eig": lambda x: torch.linalg.eigvals(matrix(x)).real.amax(-1),
    "solve_triangular": lambda x: torch.linalg.solve_triangular(matrix(x), right(x), upper=True)[
        :, 0, 0
    ],
    "matrix_exp": lambda x: torch.linalg.matrix_exp(0.1 * matrix(x))[:, 0, 1],
    "normal": lambda x: torch.distributions.MultivariateNormal(B, matrix(x) - SKEW).log_prob(
        B.expand(x.shape) + 1
    ),
    "scatter_reduce": lambda x: torch.ones_like(x).scatter_reduce(
        1, torch.zeros_like(x).long(), x**2, "prod"
    )[:, 0],
}


def wide(x: Tensor) -> Tensor:
    """Four features of two, of which no norm is a constant."""
    return torch.cat([x, x**2 - x.flip(1)], 1)


def ahead(
    norm: nn.Module, features: Callable[[Tensor], Tensor] = wide
) -> Callable[[Tensor], Tensor]:
    """A norm, and a product that Taylor mode has no rule for."""
    return lambda x: norm(features(x)).flatten(1).prod(1)


def statistics(norm: nn.Module) -> nn.Module:
    """A batch norm that has seen data."""
    norm.get_buffer("running_mean").uniform_(-1, 1)
    norm.get_buffer("running_var").uniform_(0.5, 2)
    return norm


rows = lambda x: wide(x).reshape(-1, 2, 2)  # two channels of two places
NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "layer norm": ahead(built(lambda: nn.LayerNorm(4))),
    "layer norm without weights": ahead(
        built(lambda: nn.LayerNorm((2, 2), elementwise_affine=False)), rows
    ),
    "group norm": ahead(built(lambda: nn.GroupNorm(2, 4))),
    "rms norm": ahead(built(lambda: nn.RMSNorm(4, eps=1e-3))),
    "batch norm": ahead(built(lambda: statistics(nn.BatchNorm1d(4)))),
    "instance norm": ahead(
        built(lambda: nn.InstanceNorm1d(2, affine=True)), lambda x: rows(x).repeat(1, 1, 2) ** 2
    ),
    "instance norm with statistics": ahead(
        built(lambda: statistics(nn.InstanceNorm1d(2, track_running_stats=True))), rows
    ),
}
ALONE = {
    "an autograd.Function": lambda x: NewCube.apply(x).prod(1),
    "of a product": lambda x: NewCube.apply(x.prod(1)),
}
ALL = {**FACTORED, **NORMS, **ALONE}
X, V = points(3, 2), points(3, 2, seed=2)
forms = pytest.mark.parametrize("name", ALL)
recorded = pytest.mark.parametrize("record", [True, False], ids=["grad", "no_grad"])
TRACE = lambda H: H.diagonal(dim1=-2, dim2=-1).sum(-1)
SECOND_ORDER: dict[str, tuple[Callable[..., Tensor], Callable[[Tensor], Tensor]]] = {
    "batch_hessian": (lmtorch.batch_hessian, lambda H: H),
    "laplacian": (lmtorch.laplacian, TRACE),
    "hessian_diagonal": (lmtorch.hessian_diagonal, lambda H: H.diagonal(dim1=-2, dim2=-1)),
    "value_jacobian_hessian": (
        lambda f, x, **k: lmtorch.value_jacobian_hessian(f, x, **k).hessian,
        lambda H: H,
    ),
    "second_directional_derivative": (
        lambda f, x, **k: lmtorch.second_directional_derivative(f, x, V, **k),
        lambda H: torch.einsum("bij,bi,bj->b", H, V, V),
    ),
    "hvp": (
        lambda f, x, **k: lmtorch.hvp(f, x, V, batch_dims=1, **k),
        lambda H: torch.einsum("bij,bj->bi", H, V),
    ),
}
CONDITIONED = 1e5  # roundings: inverses of inverses, and products of four statistics


def or_none(result: Callable[[], Tensor], mode: str) -> Tensor | None:
    """What comes, or None where a mode that was asked for by name is refused."""
    try:
        return result().detach()
    except InputError as error:
        if mode == "auto" or "does not work for this function" not in str(error):
            raise
    return None


def test_the_laplacian_of_a_log_determinant_is_the_one_in_closed_form() -> None:
    f = lambda x: (
        torch.linalg.slogdet(torch.eye(2, dtype=F64) + x[:, :, None] * x[:, None, :]).logabsdet
    )
    with torch.no_grad():
        found = lmtorch.laplacian(f, torch.tensor([[1.0, 2.0]], dtype=F64))
    # of ln(1 + s) with s = |x|²: 4 / (1 + s) − 4 s / (1 + s)²
    close(found, torch.tensor([1 / 9], dtype=F64))


@forms
@recorded
def test_second_derivatives_are_right_or_refused(name: str, record: bool) -> None:
    H = hessians(ALL[name], X)
    for operator, part in SECOND_ORDER.values():
        for mode in SECOND:
            if (operator, mode) == (SECOND_ORDER["hvp"][0], "taylor"):
                continue
            with torch.set_grad_enabled(record):
                found = or_none(partial(operator, ALL[name], X, mode=mode), mode)
            if found is not None:
                close(found, part(H), CONDITIONED)


@forms
@recorded
def test_a_jacobian_of_a_jacobian_is_the_hessian_or_refused(name: str, record: bool) -> None:
    H = hessians(ALL[name], X)
    for outer, inner in product(FIRST, FIRST):
        of = partial(lmtorch.batch_jacobian, ALL[name], mode=inner)
        with torch.set_grad_enabled(record):
            found = or_none(
                partial(lmtorch.batch_jacobian, of, X, mode=outer), outer if inner == "auto" else ""
            )
        if found is not None and not found.isnan().all():  # of eigenvectors, which is not silent
            close(found, H, CONDITIONED)


@pytest.mark.parametrize(
    "name", [name for name in ALL if name not in ("cholesky_inverse", "scatter_reduce")]
)
@recorded
@pytest.mark.parametrize("inside", [torch.func.jacfwd, torch.func.jacrev], ids=["jacfwd", "jacrev"])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_operators_are_right_inside_torch_func(
    name: str, record: bool, inside: Callable[..., Any]
) -> None:
    f = lambda s: ALL[name](s[None])[0]
    with torch.set_grad_enabled(record):
        found = torch.stack(
            [inside(partial(lmtorch.gradient, f, batch_dims=0))(s) for s in X]
        ).detach()
    close(found, hessians(ALL[name], X), CONDITIONED)


def test_a_constant_inside_a_function_that_torch_func_differentiates_stays_one() -> None:
    def f(s: Tensor) -> Tensor:
        with torch.no_grad():
            slope = lmtorch.gradient(lambda s: s.prod() ** 2, s, batch_dims=0)
        return (slope * s).sum()

    close(torch.func.grad(f)(X[0]), lmtorch.gradient(lambda s: s.prod() ** 2, X[0], batch_dims=0))
    for mode in FIRST:
        found = or_none(partial(lmtorch.jacobian, f, X[0], mode=mode), mode)
        assert found is not None or mode == "taylor"
        if found is not None:
            close(found, torch.func.grad(f)(X[0]))


def slope(g: Callable[[Tensor], Tensor], h: float = 1e-3) -> Tensor:
    """d g(X + tV)/dt by central differences, of fourth order in h."""
    return (8 * (g(X + h * V) - g(X - h * V)) - (g(X + 2 * h * V) - g(X - 2 * h * V))) / (12 * h)


@forms
def test_derivatives_of_a_laplacian_are_right_or_refused(name: str) -> None:
    f, x = ALL[name], X.clone().requires_grad_()
    expected = slope(lambda x: TRACE(hessians(f, x)))
    for inner in SECOND:
        of = partial(lmtorch.laplacian, f, mode=inner)
        ways = [(inner, lambda of=of: torch.autograd.grad(of(x).sum(), x)[0])]
        ways += [
            (outer if inner == "auto" else "", partial(lmtorch.batch_jacobian, of, X, mode=outer))
            for outer in FIRST
        ]
        for mode, way in ways:
            found = or_none(way, mode)
            if found is not None and not found.isnan().any():
                # as near as differences come: h⁴ and ε / h
                atol = 1e-6 * max(1.0, float(expected.abs().max()))
                torch.testing.assert_close((found * V).sum(1), expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("mode", SECOND)
def test_gradients_of_laplacians_lead_into_the_weights_of_a_norm(mode: str) -> None:
    net = built(lambda: nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 1)))
    start, way, h = net[1].weight.detach().clone(), points(4), 1e-4

    def at(t: float) -> Tensor:
        with torch.no_grad():
            net[1].weight.copy_(start + t * way)
        return TRACE(hessians(net, X)).sum()

    expected = (at(h) - at(-h)) / (2 * h)
    at(0.0)
    (found,) = torch.autograd.grad(lmtorch.laplacian(net, X, mode=mode).sum(), net[1].weight)
    torch.testing.assert_close((found * way).sum(), expected, rtol=1e-5, atol=1e-6)  # h²


@pytest.mark.parametrize("name", ["layer norm", "solve", "an autograd.Function"])
def test_forward_mode_by_name_serves_where_nothing_follows(name: str) -> None:
    close(
        lmtorch.batch_jacobian(ALL[name], X, mode="forward"), jacobians(ALL[name], X), CONDITIONED
    )


def test_running_statistics_move_once_for_each_evaluation() -> None:
    for make in (lambda: nn.BatchNorm1d(4), lambda: nn.InstanceNorm1d(4, track_running_stats=True)):
        norm, plain = built(make).train(), built(make).train()
        x = points(4, 4, 3)
        count = 0

        def f(x: Tensor, norm: nn.Module = norm) -> Tensor:
            nonlocal count
            count += 1
            return norm(x).square().sum()

        found = lmtorch.jacobian(f, x, mode="autograd")
        at = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(plain(at).square().sum(), at)
        close(found, expected, roundings=4096)  # of a sum of squares whose gradient nearly cancels
        for _ in range(count - 1):
            plain(x)
        close(norm.running_mean, plain.running_mean)
        close(norm.running_var, plain.running_var)


def test_a_tangent_of_torchs_own_forward_mode_is_not_lost() -> None:
    with torch.autograd.forward_ad.dual_level():
        x = torch.autograd.forward_ad.make_dual(X, V)
        with pytest.raises(InputError, match=r"use torch\.func\.jvp"):
            lmtorch.laplacian(lambda x: (x**3).sum(1), x)


@pytest.mark.parametrize("operator", [lmtorch.laplacian, lmtorch.jacobian, lmtorch.hessian])
def test_under_no_grad_nothing_is_recorded_inside_vmap(operator: Any) -> None:
    model, x = built(mlp), points(4, 3)
    options = {"batch_dims": 0} if operator is lmtorch.laplacian else {}
    each = torch.func.vmap(lambda point: operator(model, point, **options))
    expected = each(x)
    assert expected.requires_grad  # in the parameters
    with torch.no_grad():
        found = each(x)
        # an outer derivative is still taken
        outer = torch.func.grad(lambda x: each(x).sum())(x)
        along = torch.func.jvp(each, (x,), (x,))[1]
    assert not found.requires_grad
    close(found, expected.detach())
    close(outer, torch.func.grad(lambda x: each(x).sum())(x).detach())
    close(along, torch.func.jvp(each, (x,), (x,))[1].detach())
    assert outer.abs().max() > 1e-3 < along.abs().max()
