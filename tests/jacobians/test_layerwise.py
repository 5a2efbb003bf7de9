"""Rows from linear layers: weights used several times, numbers beside the layers, what is refused.

The reference is `vmap` over samples of `jacrev`, with derivatives in the inputs
by `torch.func` as well.
"""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

import lmtorch
from lmtorch.jacobians import layerwise
from lmtorch.jacobians.layerwise import LayerWise
from lmtorch.jacobians.per_sample import PerSample
from lmtorch.training.terms import terms_of

F64 = torch.float64
Residuals = Callable[..., Tensor]  # network, coefficients, samples -> (s, k)


def network(*extra: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(2, 7), nn.Tanh(), *extra, nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 1)
    ).double()


def samples(count: int = 23) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(5), dtype=F64)


def of_step(
    model: nn.Module,
    closure: Any,
    batch: tuple[Tensor, ...],
    others: tuple[Tensor, ...] = (),
    chunk: int | None = None,
) -> tuple[Tensor, Any]:
    """The Jacobian that a step would use, and the ladder of sources that gave it."""
    params = [{"params": list(model.parameters())}, *({"params": c} for c in others)]
    opt = lmtorch.LevenbergMarquardt(params if others else model, solver="qr")
    with torch.no_grad():
        task = opt._task(terms_of(closure, batch))
        (ladder,) = task.prepared.ladders
        if chunk is not None:
            ladder.rungs[0] = LayerWise(chunk)
        with warnings.catch_warnings():
            warnings.simplefilter("error", lmtorch.FallbackWarning)
            return task.problem.linearize(task.start.x).jacobian, ladder


def reference(
    model: nn.Module,
    single: Callable[..., Tensor],
    batch: tuple[Tensor, ...],
    others: tuple[Tensor, ...] = (),
) -> Tensor:
    """The rows of `single(u, coefficients, *one sample)`, (k,), with u a function of a point."""
    names = [name for name, _ in model.named_parameters()]
    params = tuple(p.detach() for p in (*model.parameters(), *others))

    def residual(params: tuple[Tensor, ...], *sample: Tensor) -> Tensor:
        weights = dict(zip(names, params, strict=False))
        u = lambda x: functional_call(model, weights, (x[None],))[0, 0]
        return single(u, params[len(names) :], *sample)

    blocks = vmap(jacrev(residual), (None, *(0 for _ in batch)))(params, *batch)
    return torch.cat([b.reshape(b.shape[0], b.shape[1], -1) for b in blocks], 2).flatten(0, 1)


def gradient_of(u: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.func.grad(u)(x)


def laplacian_of(u: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.func.hessian(u)(x).diagonal().sum()


def same(found: Tensor, expected: Tensor) -> None:
    """To the rounding of sums over some hundred products of numbers of order one."""
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


def value_and_laplacian(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)[:, 0] * lmtorch.laplacian(model, x)[:, 0] + x[:, 0]


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    return lmtorch.gradient(model, x)


def all_orders(model: nn.Module, x: Tensor) -> Tensor:
    u, J, H = lmtorch.value_jacobian_hessian(model, x)
    return torch.stack([J[:, 0, 0] + u[:, 0] * J[:, 0, 1] - 0.1 * H[:, 0, 1, 1], H[:, 0, 0, 1]], 1)


def at_two_points(model: nn.Module, x: Tensor) -> Tensor:
    return model(x) * model(x.flip(1) + 1)


def at_many_points(model: nn.Module, x: Tensor) -> Tensor:
    """Five of each sample, in one call."""
    steps = torch.arange(5, dtype=x.dtype)[:, None]
    return model(x[:, None] + 0.1 * steps)[..., 0].cumsum(1)


def nested(model: nn.Module, x: Tensor) -> Tensor:
    return model(torch.cat([model(x), x[:, :1]], 1))


USES: dict[str, tuple[Residuals, Callable[..., Tensor]]] = {
    "value": (lambda m, x: m(x) - 1, lambda u, c, x: u(x)[None]),
    "laplacian": (value_and_laplacian, lambda u, c, x: (u(x) * laplacian_of(u, x))[None]),
    "gradient": (gradient, lambda u, c, x: gradient_of(u, x)),
    "all orders": (
        all_orders,
        lambda u, c, x: torch.stack(
            [
                gradient_of(u, x)[0]
                + u(x) * gradient_of(u, x)[1]
                - 0.1 * torch.func.hessian(u)(x)[1, 1],
                torch.func.hessian(u)(x)[0, 1],
            ]
        ),
    ),
    "two points": (at_two_points, lambda u, c, x: (u(x) * u(x.flip(0) + 1))[None]),
    "many points": (
        at_many_points,
        lambda u, c, x: torch.stack([u(x + 0.1 * k) for k in range(5)]).cumsum(0),
    ),
    "nested": (nested, lambda u, c, x: u(torch.stack([u(x), x[0]]))[None]),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("chunk", [None, 7, 1])
def test_a_weight_that_is_used_several_times_has_the_sum_of_its_shares(
    use: str, chunk: int | None
) -> None:
    model, x = network(), samples()
    residual, single = USES[use]
    found, ladder = of_step(model, lambda x: residual(model, x), (x,), chunk=chunk)
    assert isinstance(ladder.current, LayerWise)
    assert not ladder.refusals
    same(found, reference(model, single, (x,)))


def test_a_layer_that_appears_twice_in_the_network_is_used_twice() -> None:
    model = network()
    model.append(nn.Tanh())
    shared = nn.Linear(7, 7).double()
    model = nn.Sequential(
        *model[:2], shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(7, 1).double()
    )
    x = samples()
    found, ladder = of_step(model, lambda x: lmtorch.laplacian(model, x), (x,))
    assert isinstance(ladder.current, LayerWise)
    same(found, reference(model, lambda u, c, x: laplacian_of(u, x)[None], (x,)))


# ---- numbers beside the layers -------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("size", [None, 1, 3, 16], ids=["a number", "1", "3", "16"])
def test_a_few_numbers_beside_the_layers_have_columns_too(
    size: int | None, chunk: int | None
) -> None:
    model, x = network(), samples()
    c = torch.full((), 0.7, dtype=F64) if size is None else torch.linspace(0.5, 1, size, dtype=F64)
    c.requires_grad_()

    def closure(x: Tensor) -> Tensor:
        u, second = model(x)[:, 0], lmtorch.laplacian(model, x)[:, 0]
        return torch.stack([c.square().sum() * second + u, c.exp().prod() * u.square()], 1)

    def single(u: Any, c: Any, x: Tensor) -> Tensor:
        return torch.stack(
            [c[0].square().sum() * laplacian_of(u, x) + u(x), c[0].exp().prod() * u(x) ** 2]
        )

    found, ladder = of_step(model, closure, (x,), (c,), chunk)
    assert isinstance(ladder.current, LayerWise)
    # exp(c) summed over sixteen reaches 10⁵
    expected = reference(model, single, (x,), (c,))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11 * float(expected.abs().max()))


def test_several_numbers_keep_their_places_around_the_layers() -> None:
    torch.manual_seed(1)
    model, x = network(), samples()
    first, last = (
        torch.rand(2, 2, dtype=F64, requires_grad=True),
        torch.rand((), dtype=F64, requires_grad=True),
    )

    def closure(x: Tensor) -> Tensor:
        return (model(x @ first) * last + last**2).squeeze(1)

    opt = lmtorch.LevenbergMarquardt([first, *model.parameters(), last], solver="qr")
    with torch.no_grad():
        task = opt._task(terms_of(closure, (x,)))
        found = task.problem.linearize(task.start.x).jacobian
    assert isinstance(task.prepared.ladders[0].current, LayerWise)
    expected = torch.stack(
        [
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(
                        r, [first, *model.parameters(), last], retain_graph=True
                    )
                ]
            )
            for r in closure(x)
        ]
    )
    same(found, expected)


@pytest.mark.parametrize("size", [17, 40])
def test_more_than_sixteen_are_refused_without_a_warning(size: int) -> None:
    model, x = network(), samples()
    c = torch.linspace(0.5, 1, size, dtype=F64, requires_grad=True)
    found, ladder = of_step(model, lambda x: model(x) * c.square().sum(), (x,), (c,))
    assert isinstance(ladder.current, PerSample)
    assert "parameters beside the layers" in ladder.refusals[0]
    same(found, reference(model, lambda u, c, x: u(x)[None] * c[0].square().sum(), (x,), (c,)))


def test_a_number_that_is_not_used_has_a_column_of_zeros() -> None:
    model, x = network(), samples()
    c = torch.ones(2, dtype=F64, requires_grad=True)
    found, ladder = of_step(model, model, (x,), (c,))
    assert isinstance(ladder.current, LayerWise)
    assert (found[:, -2:] == 0).all()


# ---- what is refused -----------------------------------------------------------------------------


class Tied(nn.Module):
    """Decodes with the weight that it encodes with."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(2, 7)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.encode(x).tanh(), self.encode.weight.T).sum(1, keepdim=True)


class Small(nn.Module):
    """A weight's own share, too small for a check by size."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.net, self.share = network(), share

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.share * self.net[0].weight.square().sum()


class Keyword(nn.Module):
    """Calls with names of arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        inside = F.linear(
            input=self.net(x), weight=self.net[-1].weight[:, :1], bias=self.net[-1].bias
        )
        return inside + torch.cat([self.net[0].bias, self.net[2].bias]).sum()


@pytest.mark.parametrize("few", [True, False], ids=["few", "many"])
@pytest.mark.parametrize(
    "make", [Tied, lambda: Small(1.0), lambda: Small(1e-4), Keyword],
    ids=["tied", "decay", "slight decay", "keyword"],
)  # fmt: skip
@pytest.mark.parametrize("chunk", [None, 7])
def test_a_weight_that_acts_elsewhere_too_has_columns_of_its_own_or_is_refused_quietly(
    make: Callable[[], nn.Module], chunk: int | None, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    if not few:  # of the numbers that may have columns of their own
        monkeypatch.setattr(layerwise, "FEW", 3)
    model, x = make().double(), samples()
    found, ladder = of_step(model, lambda x: model(x) - 1, (x,), chunk=chunk)
    same(found, reference(model, lambda u, c, x: u(x)[None], (x,)))
    assert isinstance(ladder.current, LayerWise if few and make is not Keyword else PerSample)


def test_decay_among_the_residuals_of_a_sample_has_its_columns() -> None:
    model, x = network(), samples()
    closure = lambda x: torch.cat(
        [model(x), 1e-3 * model[0].weight.reshape(1, -1).expand(len(x), -1)], 1
    )
    found, ladder = of_step(model, closure, (x,))
    assert isinstance(ladder.current, LayerWise)
    by_sample = found.view(len(x), 15, -1)
    same(by_sample[:, 0], reference(model, lambda u, c, x: u(x)[None], (x,)))
    assert torch.equal(
        by_sample[:, 1:, :14], (1e-3 * torch.eye(14, dtype=F64)).expand(len(x), 14, 14)
    )


def test_looking_at_a_weight_is_not_using_it() -> None:
    model, x = network(), samples()

    def closure(x: Tensor) -> Tensor:
        scale = model[0].weight.detach().abs().max() + model[0].weight.shape[0]
        assert model[0].weight.dtype == F64
        return model(x) / scale

    _, ladder = of_step(model, closure, (x,))
    assert isinstance(ladder.current, LayerWise)


class OldTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.tanh())
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return (1 - y * y) * w


class OldScale(torch.autograd.Function):
    """c x, with a backward that is not made of torch operations and so has no derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, c: Tensor) -> Tensor:
        ctx.save_for_backward(x, c)
        return c * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor, Tensor]:
        x, c = ctx.saved_tensors
        return c * w, (w * x).sum()


class Activation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return OldTanh.apply(x)


def test_an_old_function_between_the_layers_is_no_hindrance() -> None:
    torch.manual_seed(3)
    model, twin = network(Activation()), network(nn.Tanh())
    x = samples()
    found, ladder = of_step(model, lambda x: torch.cat([model(x), model(x + 1)], 1), (x,))
    assert isinstance(ladder.current, LayerWise)
    same(found, reference(twin, lambda u, c, x: torch.stack([u(x), u(x + 1)]), (x,)))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale = network(), nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        return OldScale.apply(self.net(x), self.scale)


def test_a_number_inside_a_function_without_second_derivatives_is_served_by_plain_autograd() -> (
    None
):
    model, x = Scaled().double(), samples()
    opt = lmtorch.LevenbergMarquardt(model)
    with pytest.warns(lmtorch.FallbackWarning):
        opt.step(lambda x: model(x) - 1, x)
    assert opt.report is not None
    assert "Autograd" in opt.report.jacobian
    assert opt.report.loss_after < opt.report.loss


class TimeFirst(nn.Module):
    """A layer that sees as many times as samples, times first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(3, 8, dtype=F64), nn.Linear(8, 1, dtype=F64)
        self.head = nn.Linear(6, 2, dtype=F64)
        self.sizes = nn.Parameter(torch.zeros(1, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.tanh(self.inner(x.transpose(0, 1))).transpose(0, 1)
        return self.head(self.outer(seen)[..., 0])


class Beside(TimeFirst):
    """What has no influence at first is a sum over other points, as many as there are samples."""

    def forward(self, x: Tensor) -> Tensor:
        net = nn.Sequential(self.inner, nn.Tanh(), self.outer)
        grid = torch.linspace(-1, 1, 6, dtype=F64)[:, None].expand(6, 3)
        return net(x[:, 0]) + self.sizes * net(grid).mean()


class Sorted(TimeFirst):
    """The last samples are turned round on the way."""

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 0]
        order = torch.arange(len(x))
        if len(x) > 1:
            order[-3:] = order[-3:].flip(0)
        return self.outer(torch.tanh(self.inner(x[order])))[order.argsort()]


@pytest.mark.parametrize("kind", [TimeFirst, Beside, Sorted])
@pytest.mark.parametrize("chunk", [None, 2])
def test_what_a_first_point_does_not_show_is_found_later(
    kind: type[TimeFirst], chunk: int | None
) -> None:
    model = kind()
    with torch.no_grad():
        model.head.weight.zero_()  # of the layers before it, all gradients are zero
    x = torch.randn(6, 6, 3, generator=torch.Generator().manual_seed(5), dtype=F64)
    opt = lmtorch.LevenbergMarquardt(model, solver="qr")
    names = [name for name, _ in model.named_parameters()]
    with torch.no_grad():
        task = opt._task(terms_of(model, (x,)))
        (ladder,) = task.prepared.ladders
        ladder.rungs[0] = LayerWise(chunk)
        task.problem.linearize(task.start.x)
        there = task.start.x + 0.3
        found = task.problem.linearize(there).jacobian
        params = dict(zip(names, task.problem.residual.params(there), strict=True))
    blocks = jacrev(lambda p: functional_call(model, p, (x,)).flatten())(params)
    same(found, torch.cat([block.flatten(1) for block in blocks.values()], 1))
    assert "elsewhere" in ladder.refusals[0]
