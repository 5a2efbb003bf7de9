"""Derivatives in the parameters of a model are those of backward passes, output by output."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lmtorch
from lmtorch import InputError

from .setting import (
    F32,
    F64,
    Attention,
    OldCube,
    built,
    close,
    convolutional,
    mlp,
    points,
    transformer,
)

WAYS = ("auto", "layerwise", "reverse", "autograd")


def by_backward(
    model: nn.Module, *inputs: Tensor, names: list[str] | None = None
) -> dict[str, Tensor]:
    """∂out/∂w, (batch, *out, *param), from single samples."""
    chosen = {
        n: p
        for n, p in model.named_parameters()
        if (p.requires_grad if names is None else n in names)
    }
    kept = {n: p.requires_grad for n, p in chosen.items()}
    for p in chosen.values():
        p.requires_grad_()
    rows: dict[str, list[Tensor]] = {name: [] for name in chosen}
    shape = torch.Size()
    for i in range(len(inputs[0])):
        y = model(*(t[i : i + 1] for t in inputs))[0]
        shape = y.shape
        for value in y.flatten():
            gradients = torch.autograd.grad(
                value,
                list(chosen.values()),
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            for name, gradient in zip(chosen, gradients, strict=True):
                rows[name].append(gradient)
    for name, p in chosen.items():
        p.requires_grad_(kept[name])
    return {
        n: torch.stack(rows[n]).reshape(len(inputs[0]), *shape, *p.shape) for n, p in chosen.items()
    }


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, block in found.items():
        close(block.detach(), expected[name])


class Tied(nn.Module):
    """One weight under two names, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.decoder.weight = self.encoder.weight
        self.register_buffer("shift", torch.full((3,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.encoder(x) + self.shift))


class Two(nn.Module):
    """Of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(1, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(self.first(x)) * self.second(t)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(1, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrent(x[..., None])[0][:, -1]


class Custom(nn.Module):
    """What torch.func refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return OldCube.apply(self.linear(x))


class Stopped(nn.Module):
    """Constants that are cut out of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        with torch.no_grad():
            size = self.linear.weight.norm()
        return y * y.detach() + y / size


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "mlp": (mlp, ((3,),)),
    "conv": (convolutional, ((1, 4, 4),)),
    "transformer": (transformer, ((2, 4),)),
    "attention": (Attention, ((2, 4),)),
    "tied": (Tied, ((3,),)),
    "two inputs": (Two, ((3,), (1,))),
    "gru": (Recurrent, ((3,),)),
    "custom": (Custom, ((3,),)),
    "stopped": (Stopped, ((3,),)),
    "batchnorm in eval": (normed, ((3,),)),
}
models = pytest.mark.parametrize("name", MODELS)


def prepared(name: str, dtype: torch.dtype = F64) -> tuple[nn.Module, list[Tensor]]:
    make, inputs = MODELS[name]
    return built(make, dtype), [
        points(4, *shape, seed=i, dtype=dtype) for i, shape in enumerate(inputs)
    ]


@models
@pytest.mark.parametrize("mode", WAYS)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_blocks_are_those_of_backward_passes_or_the_mode_says_no(name: str, mode: str) -> None:
    model, inputs = prepared(name)
    expected = by_backward(model, *inputs)
    if mode == "layerwise" and name != "mlp":
        try:
            found = lmtorch.parameter_jacobian(model, *inputs, mode=mode)
        except InputError:
            return
    elif mode == "reverse" and name in ("gru", "custom"):
        with pytest.raises(InputError, match=r"mode='reverse' does not work .*mode='auto'"):
            lmtorch.parameter_jacobian(model, *inputs, mode=mode)
        return
    else:
        found = lmtorch.parameter_jacobian(model, *inputs, mode=mode)
    same(found, expected)


@models
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_blocks_under_no_grad_are_the_same_and_require_none(name: str) -> None:
    model, inputs = prepared(name, F32)
    expected = by_backward(model, *inputs)
    with torch.no_grad():
        found = lmtorch.parameter_jacobian(model, *inputs)
    same(found, expected)
    assert not any(block.requires_grad for block in found.values())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("mode", WAYS)
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_blocks_are_the_same_in_chunks(chunk: int, mode: str) -> None:
    model, inputs = prepared("mlp")
    same(
        lmtorch.parameter_jacobian(model, *inputs, chunk_size=chunk, mode=mode),
        by_backward(model, *inputs),
    )


@pytest.mark.parametrize("mode", WAYS)
def test_rows_and_blocks_may_be_chosen(mode: str) -> None:
    model, inputs = prepared("mlp")
    expected = by_backward(model, *inputs)
    row = lmtorch.parameter_jacobian(model, *inputs, output=-1, mode=mode)
    same(row, {n: b[:, -1] for n, b in expected.items()})
    names = ["2.weight", "0.bias"]
    same(
        lmtorch.parameter_jacobian(model, *inputs, names=names, mode=mode),
        {n: expected[n] for n in names},
    )
    both = lmtorch.parameter_jacobian(model, *inputs, names="0.bias", output=(0,), mode=mode)
    same(both, {"0.bias": expected["0.bias"][:, 0]})


def test_an_output_of_several_dimensions_is_chosen_by_a_tuple() -> None:
    model, inputs = prepared("transformer")
    expected = by_backward(model, *inputs)
    found = lmtorch.parameter_jacobian(model, *inputs, output=(1, -2), mode="autograd")
    same(found, {n: b[:, 1, -2] for n, b in expected.items()})


@pytest.mark.parametrize("mode", WAYS)
def test_frozen_parameters_are_left_out_unless_named(mode: str) -> None:
    model, inputs = prepared("mlp")
    for name, p in model.named_parameters():
        p.requires_grad_(name == "0.weight")
    same(lmtorch.parameter_jacobian(model, *inputs, mode=mode), by_backward(model, *inputs))
    expected = by_backward(model, *inputs, names=["4.bias"])
    same(lmtorch.parameter_jacobian(model, *inputs, names=["4.bias"], mode=mode), expected)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["0.weight"]


@pytest.mark.parametrize("mode", ["auto", "reverse", "autograd"])
def test_a_parameter_that_does_not_act_has_a_block_of_zeros(mode: str) -> None:
    model = built(lambda: nn.Linear(3, 2)).requires_grad_(False)
    model.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=F64)))
    found = lmtorch.parameter_jacobian(model, points(4, 3), mode=mode)
    same(found, {"unused": torch.zeros(4, 2, 2, dtype=F64)})


class Scaled(nn.Module):
    """c (W x + b), summed over the places of a sample, beside a number that is no layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5, dtype=F64))
        self.linear = nn.Linear(3, 2, dtype=F64)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.linear(x).sum(1)


@pytest.mark.parametrize("mode", WAYS)
@pytest.mark.parametrize("chunk", [None, 2])
def test_numbers_beside_the_layers_have_blocks_too(chunk: int | None, mode: str) -> None:
    model, x = Scaled(), torch.linspace(-1, 2, 60, dtype=F64).reshape(5, 4, 3)
    eye = torch.eye(2, dtype=F64)
    expected = {
        "scale": model.linear(x).sum(1).detach(),
        "linear.weight": 1.5 * eye[:, :, None] * x.sum(1)[:, None, None, :],
        "linear.bias": (1.5 * 4 * eye).expand(5, 2, 2),
    }
    with torch.no_grad():
        found = lmtorch.parameter_jacobian(model, x, mode=mode, chunk_size=chunk)
    same(found, expected)


@pytest.mark.parametrize("mode", WAYS)
def test_an_empty_batch_has_empty_blocks_of_the_right_shape(mode: str) -> None:
    model, _ = prepared("mlp")
    found = lmtorch.parameter_jacobian(model, points(0, 3), mode=mode)
    assert {n: b.shape for n, b in found.items()} == {
        n: (0, 2, *p.shape) for n, p in model.named_parameters()
    }


@pytest.mark.parametrize("mode", WAYS)
def test_blocks_are_differentiable(mode: str) -> None:
    model, inputs = prepared("mlp")
    found = lmtorch.parameter_jacobian(model, *inputs, mode=mode)
    total = sum(block.square().sum() for block in found.values())
    ours = torch.autograd.grad(total, list(model.parameters()))
    params = dict(model.named_parameters())
    one = lambda p, s: torch.func.functional_call(model, p, (s[None],))[0]
    theirs = torch.func.vmap(torch.func.jacrev(one), (None, 0))(params, inputs[0])
    expected = torch.autograd.grad(
        sum(b.square().sum() for b in theirs.values()), list(params.values())
    )
    for a, b in zip(ours, expected, strict=True):
        close(a, b, roundings=4096)  # sums over all entries


def test_buffers_and_parameters_are_as_before() -> None:
    model, inputs = prepared("batchnorm in eval")
    before = {n: t.clone() for n, t in model.state_dict().items()}
    lmtorch.parameter_jacobian(model, *inputs)
    lmtorch.parameter_column(model, "0.weight", 0, *inputs)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_batchnorm_in_training_is_refused_by_its_name() -> None:
    model = built(normed).train()
    with pytest.raises(InputError, match=r"'1', BatchNorm1d in training mode.*model.eval\(\)"):
        lmtorch.parameter_jacobian(model, points(4, 3))
    with pytest.raises(InputError, match="'1', BatchNorm1d in training mode"):
        lmtorch.batch_jacobian(model, points(4, 3))
    # across the batch it is well defined
    assert lmtorch.jacobian(model, points(4, 3)).shape == (4, 2, 4, 3)


# ---- single columns ------------------------------------------------------------------------------


@models
@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_columns_are_those_of_the_jacobian(name: str, mode: str) -> None:
    model, inputs = prepared(name)
    if name == "custom" and mode != "auto":  # which is served by plain autograd
        with pytest.raises(InputError, match="setup_context"):
            lmtorch.parameter_column(model, "linear.bias", 0, *inputs, mode=mode)
        return
    for which, block in by_backward(model, *inputs).items():
        last = block.ndim - dict(model.named_parameters())[which].ndim
        flat = block.flatten(last)
        for place in (0, flat.shape[-1] - 1, -2):
            found = lmtorch.parameter_column(model, which, place, *inputs, mode=mode)
            close(found.detach(), flat[..., place])


def test_places_are_numbers_or_tuples() -> None:
    model, inputs = prepared("mlp")
    J = by_backward(model, *inputs)["0.weight"]  # (4, 2, 8, 3)
    places: list[Any] = [(1, 2), (-7, -1), 5, -19, np.int64(5), torch.tensor(5)]
    for place in places:
        close(lmtorch.parameter_column(model, "0.weight", place, *inputs).detach(), J[..., 1, 2])


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
def test_lists_give_several_columns(mode: str) -> None:
    model, inputs = prepared("mlp")
    J = by_backward(model, *inputs)
    column = lambda name, index: lmtorch.parameter_column(
        model, name, index, *inputs, mode=mode
    ).detach()
    close(
        column("0.weight", [(1, 2), 0]),
        torch.stack([J["0.weight"][..., 1, 2], J["0.weight"][..., 0, 0]]),
    )
    close(column("0.bias", [3]), J["0.bias"][None, ..., 3])
    names = ["0.bias", "4.bias", "0.bias"]
    close(
        column(names, [3, -1, 0]),
        torch.stack([J[n][..., i] for n, i in zip(names, (3, -1, 0), strict=True)]),
    )
    close(column(["0.bias", "4.bias"], 1), torch.stack([J["0.bias"][..., 1], J["4.bias"][..., 1]]))


def test_a_column_under_no_grad_is_the_same_and_requires_none() -> None:
    model, inputs = prepared("stopped")
    expected = by_backward(model, *inputs)["linear.bias"][..., 1]
    with torch.no_grad():
        found = lmtorch.parameter_column(model, "linear.bias", 1, *inputs)
    assert not found.requires_grad
    close(found, expected)


def test_a_column_is_differentiable() -> None:
    model, x = built(lambda: nn.Sequential(nn.Linear(1, 1), nn.Tanh())), points(4, 1)
    found = lmtorch.parameter_column(model, "0.bias", 0, x).sum()  # Σ 1 − tanh²
    (gradient,) = torch.autograd.grad(found, model[0].bias)
    t = model(x).detach()
    close(gradient, (-2 * t * (1 - t**2)).sum(0))


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 100])
def test_columns_in_chunks_are_the_same(chunk_size: int | None) -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
    ).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    columns = lmtorch.parameter_column(model, "0.weight", list(range(24)), x, chunk_size=chunk_size)
    whole = lmtorch.parameter_jacobian(model, x)["0.weight"].reshape(5, 2, 24)
    torch.testing.assert_close(columns.movedim(0, -1), whole)


def test_a_chunk_of_no_columns_is_refused() -> None:
    with pytest.raises(lmtorch.InputError, match="chunk_size=0"):
        lmtorch.parameter_column(torch.nn.Linear(2, 1), "bias", 0, torch.rand(3, 2), chunk_size=0)


def test_a_child_at_two_places_and_a_weight_in_two_children_are_followed_and_left_as_they_are() -> (
    None
):
    torch.manual_seed(0)
    shared, first, second = (torch.nn.Linear(3, 3, dtype=F64) for _ in range(3))
    second.weight = first.weight
    model = torch.nn.Sequential(
        shared, torch.nn.Tanh(), first, torch.nn.Tanh(), second, torch.nn.Tanh(), shared
    )
    held = dict(model.named_parameters())
    x = torch.randn(4, 3, dtype=F64)
    found = lmtorch.parameter_jacobian(model, x)
    assert all(p is held[name] for name, p in model.named_parameters())
    assert shared.weight is held["0.weight"]
    assert second.weight is first.weight
    for name, p in held.items():
        rows = [torch.autograd.grad(y, p, retain_graph=True)[0] for y in model(x).flatten()]
        torch.testing.assert_close(found[name].reshape(12, *p.shape), torch.stack(rows))
