"""What the benchmark of derivatives compares: networks, lmtorch's operators, what users write."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import functional, grad
from torch.func import functional_call, hessian, jacfwd, jacrev, jvp, vmap

import lmtorch

OURS = "lmtorch"
Result = Tensor | Sequence[Tensor]


class Way(NamedTuple):
    """How to have a derivative."""

    call: Callable[[Tensor], Result]  # of the batch's inputs
    power: int = 1  # of the batch, with which time and memory grow
    rival: bool = True  # not one of lmtorch's own


class Case(NamedTuple):
    """What is compared."""

    name: str
    inputs: tuple[int, ...]  # of a sample
    ways: Callable[[], dict[str, Way]]  # lmtorch's first


# ---- networks ------------------------------------------------------------------------------------


def inputs(case: Case, batch: int) -> Tensor:
    """A batch, the same in every process."""
    return torch.randn(batch, *case.inputs, generator=torch.Generator().manual_seed(1))


def _mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inside, outside in pairwise(widths):
        layers += [nn.Linear(inside, outside), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _classifier() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2),
        nn.Tanh(),
        nn.Conv2d(8, 16, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(144, 10),
    )


def _frozen(net: nn.Module) -> nn.Module:
    """Of no parameter is a graph wanted: to the advantage of every rival."""
    return net.requires_grad_(False)


def _single(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """A sample's outputs, as functions for `vmap` are written."""
    return lambda point: net(point[None])[0]


def _quiet(call: Callable[[Tensor], Result]) -> Callable[[Tensor], Result]:
    return torch.no_grad()(call)


def _trained(net: nn.Module, ways: dict[str, Way]) -> dict[str, Way]:
    """The same with a backward pass through the result, into all parameters."""

    def through(call: Callable[[Tensor], Result]) -> Callable[[Tensor], Result]:
        def gradients(x: Tensor) -> Result:
            found = call(x)
            assert isinstance(found, Tensor)
            return grad(found.square().mean(), list(net.parameters()), materialize_grads=True)

        return gradients

    return {name: way._replace(call=through(way.call)) for name, way in ways.items()}


# ---- first derivatives in the inputs -------------------------------------------------------------


def _jacobians(net: nn.Module) -> dict[str, Way]:
    _frozen(net)

    def diagonal(whole: Tensor) -> Tensor:
        count = whole.shape[0]
        return whole[torch.arange(count), :, torch.arange(count)]

    def per_output(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        y = net(x)
        rows = [grad(y[:, k].sum(), x, retain_graph=True)[0] for k in range(y.shape[1])]
        return torch.stack(rows, 1)

    def per_number(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        y = net(x)
        rows = [
            grad(number, x, retain_graph=True)[0][i] for i, row in enumerate(y) for number in row
        ]
        return torch.stack(rows).unflatten(0, y.shape)

    return {
        OURS: Way(_quiet(lambda x: lmtorch.batch_jacobian(net, x)), rival=False),
        "vmap(jacrev)": Way(_quiet(vmap(jacrev(_single(net))))),
        "vmap(jacfwd)": Way(_quiet(vmap(jacfwd(_single(net))))),
        "autograd.grad of each output's sum over the batch": Way(per_output),
        "autograd.grad of each sample's outputs": Way(per_number, 2),
        "autograd.functional.jacobian, its diagonal": Way(
            lambda x: diagonal(functional.jacobian(net, x)), 2
        ),
        "the same with vectorize=True": Way(
            lambda x: diagonal(functional.jacobian(net, x, vectorize=True)), 2
        ),
    }


# ---- second derivatives in the inputs ------------------------------------------------------------


def _laplacians(net: nn.Module, training: bool) -> dict[str, Way]:
    def trick(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            (first,) = grad(net(x).sum(), x, create_graph=True)
            total = torch.zeros_like(x[:, 0])
            for i in range(x.shape[1]):
                second = grad(first[:, i].sum(), x, retain_graph=True, create_graph=training)[0][
                    :, i
                ]
                total = total + second
        return total[:, None]

    def traced(point: Tensor) -> Tensor:
        return hessian(_single(net))(point).diagonal(dim1=-2, dim2=-1).sum(-1)

    def twice(x: Tensor, v: Tensor) -> Tensor:
        v = v.expand_as(x)
        return jvp(lambda x: jvp(net, (x,), (v,))[1], (x,), (v,))[1]

    def nested(x: Tensor) -> Tensor:
        return vmap(lambda v: twice(x, v))(torch.eye(x.shape[1])).sum(0)

    def looped(x: Tensor) -> Tensor:
        return sum((twice(x, v) for v in torch.eye(x.shape[1])), torch.zeros(len(x), 1))

    ways = {
        OURS: Way(lambda x: lmtorch.laplacian(net, x), rival=False),
        'lmtorch, mode="forward"': Way(
            lambda x: lmtorch.laplacian(net, x, mode="forward"), rival=False
        ),
        'lmtorch, mode="reverse"': Way(
            lambda x: lmtorch.laplacian(net, x, mode="reverse"), rival=False
        ),
        "autograd.grad of each component's sum": Way(trick),
        "trace of vmap(hessian)": Way(vmap(traced)),
        "jvp of jvp, vmap over directions": Way(nested),
        "jvp of jvp, a loop over directions": Way(looped),
    }
    if training:
        return _trained(net, ways)
    _frozen(net)
    return {name: way._replace(call=_quiet(way.call)) for name, way in ways.items()}


def _hessians(net: nn.Module) -> dict[str, Way]:
    _frozen(net)

    def trick(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            (first,) = grad(net(x).sum(), x, create_graph=True)
            rows = [grad(first[:, i].sum(), x, retain_graph=True)[0] for i in range(x.shape[1])]
        return torch.stack(rows, 1)[:, None]

    def one_by_one(x: Tensor) -> Tensor:
        return torch.stack([functional.hessian(lambda p: net(p).squeeze(), point) for point in x])[
            :, None
        ]

    return {
        OURS: Way(_quiet(lambda x: lmtorch.batch_hessian(net, x)), rival=False),
        'lmtorch, mode="taylor"': Way(
            _quiet(lambda x: lmtorch.batch_hessian(net, x, mode="taylor")), rival=False
        ),
        'lmtorch, mode="forward"': Way(
            _quiet(lambda x: lmtorch.batch_hessian(net, x, mode="forward")), rival=False
        ),
        "vmap(hessian)": Way(_quiet(vmap(hessian(_single(net))))),
        "autograd.grad of each component's sum": Way(trick),
        "autograd.functional.hessian, sample by sample": Way(one_by_one),
    }


def _burgers(net: nn.Module) -> dict[str, Way]:
    def whole(tx: Tensor, mode: str = "auto") -> Tensor:
        u, J, H = lmtorch.value_jacobian_hessian(net, tx, mode=mode, coordinates=1)
        return J[..., 0] + u * J[..., 1] - 0.01 * H[..., 0, 0]

    def chain(tx: Tensor) -> Tensor:
        t, x = (part.detach().requires_grad_() for part in (tx[:, :1], tx[:, 1:]))
        u = net(torch.cat([t, x], 1))
        u_t = grad(u, t, torch.ones_like(u), create_graph=True)[0]
        u_x = grad(u, x, torch.ones_like(u), create_graph=True)[0]
        u_xx = grad(u_x, x, torch.ones_like(u_x), create_graph=True)[0]
        return u_t + u * u_x - 0.01 * u_xx

    def joint(tx: Tensor) -> Tensor:
        tx = tx.detach().requires_grad_()
        u = net(tx)
        (first,) = grad(u.sum(), tx, create_graph=True)
        u_t, u_x = first[:, :1], first[:, 1:]
        u_xx = grad(u_x.sum(), tx, create_graph=True)[0][:, 1:]
        return u_t + u * u_x - 0.01 * u_xx

    def sample(tx: Tensor) -> Tensor:
        function = _single(net)
        u, J, H = function(tx), jacrev(function)(tx), hessian(function)(tx)
        return J[..., 0] + u * J[..., 1] - 0.01 * H[..., 1, 1]

    return _trained(
        net,
        {
            OURS: Way(whole, rival=False),
            'lmtorch, mode="reverse"': Way(partial(whole, mode="reverse"), rival=False),
            "a chain of autograd.grad, t and x apart": Way(chain),
            "a chain of autograd.grad, t and x together": Way(joint),
            "vmap of value, jacrev and hessian": Way(vmap(sample)),
        },
    )


# ---- in the parameters ---------------------------------------------------------------------------


def _parameters(net: nn.Module, record: bool) -> dict[str, Way]:
    params = dict(net.named_parameters())

    def by_jacrev(x: Tensor) -> Result:
        at = params if record else {name: p.detach() for name, p in params.items()}
        one = jacrev(lambda p, point: functional_call(net, p, (point[None],))[0])
        return list(vmap(one, (None, 0))(at, x).values())

    def by_row(x: Tensor) -> Result:
        with torch.enable_grad():
            y = net(x)
            numbers = [number for sample in y for number in sample]
        rows = [
            grad(
                number,
                list(params.values()),
                retain_graph=True,
                create_graph=record,
                materialize_grads=True,
            )
            for number in numbers
        ]
        return [torch.stack(blocks).unflatten(0, y.shape) for blocks in zip(*rows, strict=True)]

    ways = {
        OURS: Way(lambda x: list(lmtorch.parameter_jacobian(net, x).values()), rival=False),
        "vmap(jacrev of functional_call)": Way(by_jacrev),
        "autograd.grad of each sample's outputs": Way(by_row, 2),
    }
    return (
        ways
        if record
        else {name: way._replace(call=_quiet(way.call)) for name, way in ways.items()}
    )


def _columns(net: nn.Module, count: int) -> dict[str, Way]:
    params = {name: p.detach() for name, p in net.named_parameters()}
    name = "2.weight"
    places = list(range(0, 64 * count, 64))

    def by_jacrev(x: Tensor) -> Tensor:
        one = jacrev(lambda p, point: functional_call(net, p, (point[None],))[0])
        whole = vmap(one, (None, 0))(params, x)[name]
        return whole.flatten(2)[..., places].movedim(-1, 0)

    def by_jvp(x: Tensor) -> Tensor:
        weight = params[name]

        def along(place: Tensor) -> Tensor:
            direction = (
                torch.zeros_like(weight).flatten().scatter(0, place[None], 1).view_as(weight)
            )
            return jvp(lambda w: functional_call(net, {name: w}, (x,)), (weight,), (direction,))[1]

        if count == 1:
            return along(torch.tensor(places[0]))[None]
        return vmap(along)(torch.tensor(places))

    return {
        key: Way(_quiet(call), rival=key != OURS)
        for key, call in {
            OURS: lambda x: lmtorch.parameter_column(net, name, places, x),
            "jvp of functional_call, by hand": by_jvp,
            "the whole Jacobian by vmap(jacrev)": by_jacrev,
            "the whole Jacobian by lmtorch": lambda x: (
                lmtorch.parameter_jacobian(net, x, names=[name])[name]
                .flatten(2)[..., places]
                .movedim(-1, 0)
            ),
        }.items()
    }


CASES = {
    "jacobian-mlp": Case(
        "Jacobian per sample, MLP 3-64-64-5", (3,), lambda: _jacobians(_mlp(3, 64, 64, 5))
    ),
    "jacobian-conv": Case(
        "Jacobian per sample, convolutions, 12 x 12 to 10",
        (1, 12, 12),
        lambda: _jacobians(_classifier()),
    ),
    "laplacian-2": Case(
        "Laplacian, MLP 2-64-64-64-1", (2,), lambda: _laplacians(_mlp(2, 64, 64, 64, 1), False)
    ),
    "laplacian-10": Case(
        "Laplacian, MLP 10-64-64-64-1", (10,), lambda: _laplacians(_mlp(10, 64, 64, 64, 1), False)
    ),
    "training-2": Case(
        "Laplacian with its gradient, MLP 2-64-64-64-1",
        (2,),
        lambda: _laplacians(_mlp(2, 64, 64, 64, 1), True),
    ),
    "training-10": Case(
        "Laplacian with its gradient, MLP 10-64-64-64-1",
        (10,),
        lambda: _laplacians(_mlp(10, 64, 64, 64, 1), True),
    ),
    "hessian-3": Case(
        "Hessian per sample, MLP 3-64-64-1", (3,), lambda: _hessians(_mlp(3, 64, 64, 1))
    ),
    "hessian-10": Case(
        "Hessian per sample, MLP 10-64-64-1", (10,), lambda: _hessians(_mlp(10, 64, 64, 1))
    ),
    "parameters": Case(
        "In all parameters, MLP 3-64-64-5", (3,), lambda: _parameters(_mlp(3, 64, 64, 5), False)
    ),
    "parameters-graph": Case(
        "In all parameters, differentiable, MLP 3-64-64-5",
        (3,),
        lambda: _parameters(_mlp(3, 64, 64, 5), True),
    ),
    "column-1": Case("In one weight, MLP 3-64-64-5", (3,), lambda: _columns(_mlp(3, 64, 64, 5), 1)),
    "column-16": Case(
        "In sixteen weights, MLP 3-64-64-5", (3,), lambda: _columns(_mlp(3, 64, 64, 5), 16)
    ),
    "burgers": Case(
        "Burgers' residual with its gradient, MLP 2-20-20-20-1",
        (2,),
        lambda: _burgers(_mlp(2, 20, 20, 20, 1)),
    ),
}
