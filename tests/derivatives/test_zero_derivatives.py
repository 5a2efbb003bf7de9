"""Who is told of derivatives that are zero by how the function is written, and who is not."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lmtorch
from lmtorch import InputError, ZeroDerivativeWarning
from tests.derivatives.setting import SECOND, built, points

KINKED: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu_in_place": lambda: nn.ReLU(inplace=True),
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "hardtanh": nn.Hardtanh,
    "relu6": nn.ReLU6,
    "threshold": lambda: nn.Threshold(0.1, 0.0),
    "hardshrink": nn.Hardshrink,
    "softshrink": nn.Softshrink,
    "max_pool": lambda: nn.MaxPool1d(1),
}
Operator = Callable[..., Tensor]
OPERATORS: dict[str, Operator] = {
    "laplacian": lmtorch.laplacian,
    "batch_hessian": lmtorch.batch_hessian,
    "hessian_diagonal": lmtorch.hessian_diagonal,
    "value_jacobian_hessian": lambda f, x, **kw: lmtorch.value_jacobian_hessian(f, x, **kw)[2],
    "one coordinate": lambda f, x, **kw: lmtorch.value_jacobian_hessian(f, x, coordinates=1, **kw)[
        2
    ],
    "second_directional_derivative": lambda f, x, **kw: lmtorch.second_directional_derivative(
        f, x, torch.ones_like(x), **kw
    ),
}


def network(activation: Callable[[], nn.Module], inputs: int = 2) -> nn.Module:
    return built(lambda: nn.Sequential(nn.Linear(inputs, 6), activation(), nn.Linear(6, 1)))


def told(call: Callable[[], Any]) -> str:
    """The one warning that a call gives; nothing if it gives none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert all(issubclass(w.category, ZeroDerivativeWarning) for w in caught)
    assert len(caught) <= 1
    return str(caught[0].message) if caught else ""


@pytest.mark.parametrize("mode", SECOND)
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("record", [True, False], ids=["recorded", "no_grad"])
def test_second_derivatives_of_relu_networks_are_told_of_in_every_mode(
    operator: str, mode: str, record: bool
) -> None:
    net = network(nn.LeakyReLU)
    with torch.set_grad_enabled(record):
        said = told(lambda: OPERATORS[operator](net, points(5, 2), mode=mode))
    assert "piecewise linear" in said
    assert "leaky_relu (layer '1', LeakyReLU)" in said
    assert "SiLU" in said


@pytest.mark.parametrize("activation", KINKED)
@pytest.mark.parametrize("operator", ["laplacian", "one coordinate", "batch_hessian"])
def test_every_piecewise_linear_activation_is_told_of(operator: str, activation: str) -> None:
    net = network(KINKED[activation])
    for size in (5, 600):  # Hessians of many samples take another mode
        assert "piecewise linear" in told(lambda n=size: OPERATORS[operator](net, points(n, 2)))


def test_layers_are_named_by_the_variables_that_hold_them() -> None:
    net = network(nn.ReLU)
    said = told(lambda: lmtorch.laplacian(lambda x: 2 * net(x), points(5, 2)))
    assert "relu (layer 'net.1', ReLU)" in said


@pytest.mark.parametrize(
    "f",
    [
        lambda x: torch.where(x > 1, x, 0.1 * x),
        lambda x: (x > 1) * x,
        lambda x: (x > 1).double() * x,
        lambda x: torch.sign(x - 1) * x,
        lambda x: torch.maximum(x, 2 - x),
        lambda x: x.clamp(min=1),
        lambda x: x + x.abs(),
    ],
    ids=["where", "mask", "a mask of numbers", "sign", "maximum", "clamp", "abs"],
)
def test_what_is_written_by_hand_is_told_of(f: Callable[[Tensor], Tensor]) -> None:
    assert "piecewise linear" in told(lambda: lmtorch.laplacian(f, points(5, 2)))


def test_products_with_the_hessian_are_told_of() -> None:
    net, x = network(nn.ReLU, 4), points(5, 4)
    for mode in ("auto", "forward", "reverse"):
        call = lambda mode=mode: lmtorch.hvp(net, x, x, batch_dims=1, mode=mode)
        assert "piecewise linear" in told(call)


def test_inside_transforms_of_torch_it_is_told_too() -> None:
    net = network(nn.ReLU)
    each = torch.func.vmap(lambda s: lmtorch.laplacian(net, s[None]))
    assert "piecewise linear" in told(lambda: each(points(5, 2)))


@pytest.mark.parametrize("inputs", [2, 5])
def test_derivatives_of_derivatives_of_relu_networks_are_told_of(inputs: int) -> None:
    net, x = network(nn.ReLU, inputs), points(5, inputs)
    slope = lambda x: lmtorch.gradient(net, x)
    assert "constant between kinks" in told(lambda: lmtorch.batch_jacobian(slope, x))
    energy = lambda x: lmtorch.gradient(net, x).square().sum(-1)
    assert "constant between kinks" in told(lambda: lmtorch.laplacian(energy, x))
    assert "constant between kinks" in told(lambda: lmtorch.divergence(slope, x))


def linear() -> nn.Module:
    return built(lambda: nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.1), nn.Linear(4, 1)))


@pytest.mark.parametrize("mode", SECOND)
@pytest.mark.parametrize(
    "f",
    [
        linear(),
        network(nn.Tanh),
        network(nn.GELU),
        network(nn.ELU),
        network(nn.Softplus),
        lambda x: torch.relu(x - 1) ** 3,
        lambda x: torch.relu(x - 1) * x,
        lambda x: x.square().sum(1),
        lambda x: torch.where(torch.tensor([[True, False]]), x, 3 * x),
        lambda x: torch.where(x.isnan(), 0.0, x),
        lambda x: x.detach().abs().amax() * x,
        torch.ones_like,
        lambda x: torch.relu(torch.tensor(-1.0)) + x,
    ],
    ids=[
        "linear network",
        "tanh",
        "gelu",
        "elu",
        "softplus",
        "relu cubed",
        "relu times x",
        "square",
        "a mask that is given",
        "a guard against nan",
        "scaled by what is detached",
        "constant",
        "a kink elsewhere",
    ],
)
def test_nothing_is_said_of_functions_that_bend_or_that_are_linear(
    f: Callable[[Tensor], Tensor], mode: str
) -> None:
    x = points(5, 2)
    for operator in OPERATORS.values():
        assert not told(lambda operator=operator: operator(f, x, mode=mode))
    if mode == "auto":
        assert not told(lambda: lmtorch.batch_jacobian(f, x))


def test_nothing_is_said_of_batch_norm_that_has_its_statistics() -> None:
    net = built(lambda: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)))
    for operator in OPERATORS.values():
        for mode in ("auto", "forward", "reverse"):
            assert not told(
                lambda operator=operator, mode=mode: operator(net, points(5, 2), mode=mode)
            )


def test_nothing_is_said_of_losses_with_a_modulus() -> None:
    net, x = network(nn.Tanh), points(5, 2)
    assert not told(lambda: lmtorch.laplacian(net, x).abs().mean().backward())
    A = points(7, 3)
    for mode in SECOND:
        loss = lambda w: (A @ w - 1).abs().sum()
        assert not told(lambda mode=mode, loss=loss: lmtorch.hessian(loss, points(3, 1), mode=mode))


def test_nothing_is_said_of_nested_derivatives_that_are_constant() -> None:
    x = points(5, 2)
    square = lambda x: x.square().sum(1)
    for mode in SECOND:
        inner = lambda x, mode=mode: lmtorch.laplacian(square, x, mode=mode)
        assert not told(lambda inner=inner: lmtorch.laplacian(inner, x))
    slope = lambda x: lmtorch.gradient(lambda x: x @ x.new_ones(2), x)
    assert not told(lambda: lmtorch.batch_jacobian(slope, x))


def no_grad_inside(x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.sin(x)


@pytest.mark.parametrize(
    ("f", "by"),
    [
        (lambda x: torch.sin(x.detach()), "detach"),
        (lambda x: torch.sin(x.data), "data"),
        (no_grad_inside, r"torch.no_grad()"),
        (lambda x: torch.as_tensor(x.detach().numpy() ** 2), "detach"),
        (lambda x: torch.tensor([[v.item() ** 2] for v in x[:, 0]]), "item"),
        (lambda x: torch.tensor(x.tolist()) ** 2, "tolist"),
    ],
    ids=["detach", "data", "no_grad", "numpy", "item", "tolist"],
)
def test_what_cuts_a_function_off_from_its_input_is_named(
    f: Callable[[Tensor], Tensor], by: str
) -> None:
    x = points(5, 2)
    for operator in (lmtorch.laplacian, lmtorch.batch_jacobian):
        assert f"cut off by {by}" in told(lambda operator=operator: operator(f, x))


def test_it_is_said_once_for_a_line_in_a_training() -> None:
    net, x = network(nn.ReLU), points(5, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            lmtorch.laplacian(net, x)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_a_warning_that_is_made_an_error_ends_the_call() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ZeroDerivativeWarning)
        with pytest.raises(ZeroDerivativeWarning):
            lmtorch.laplacian(network(nn.ReLU), points(5, 2))


# ---- what would be wrong without a word ----------------------------------------------------------


def normed(x: Tensor) -> Tensor:
    return torch.tanh(functional.batch_norm(x, None, None, training=True))


@pytest.mark.parametrize("mode", SECOND)
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("record", [True, False], ids=["recorded", "no_grad"])
def test_batch_norm_in_training_mode_is_refused_wherever_it_is(
    operator: str, mode: str, record: bool
) -> None:
    net = built(lambda: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Tanh())).train()
    for f in (lambda x: 2 * net(x), normed):  # within a function it is not found among the layers
        # torch.func itself refuses a module that counts its batches, in words of its own
        words = "mode='forward'|batch norm" if mode == "forward" else "batch norm"
        with torch.set_grad_enabled(record), pytest.raises(InputError, match=words):
            OPERATORS[operator](f, points(5, 2), mode=mode)


@pytest.mark.parametrize("inputs", [2, 5])
def test_first_derivatives_refuse_batch_norm_as_well(inputs: int) -> None:
    for mode in ("auto", "taylor", "forward", "reverse", "autograd"):
        with pytest.raises(InputError, match="batch norm"):
            lmtorch.batch_jacobian(normed, points(5, inputs), mode=mode)
    with pytest.raises(InputError, match="batch norm"):
        lmtorch.divergence(normed, points(5, inputs))


def test_norms_of_single_samples_are_no_batch_norm() -> None:
    x = points(5, 4)
    f = lambda x: torch.tanh(functional.instance_norm(x[:, None]))[:, 0]
    for mode in ("auto", "forward", "reverse"):
        found = lmtorch.batch_hessian(f, x, mode=mode)
        torch.testing.assert_close(found[1], lmtorch.batch_hessian(f, x[1:2], mode=mode)[0])


@pytest.mark.parametrize("operator", [lmtorch.batch_jacobian, *OPERATORS.values()])
@pytest.mark.parametrize("inputs", [2, 20])
def test_a_function_that_writes_over_its_input_is_refused(operator: Operator, inputs: int) -> None:
    def f(x: Tensor) -> Tensor:
        x *= 2
        return torch.sin(x)

    # whether torch refuses it or x has changed: no derivative at another point is returned
    with pytest.raises((InputError, RuntimeError), match=r"in place|in-place"):
        operator(f, points(5, inputs))


def filled(x: Tensor) -> Tensor:
    y = 2 * x
    y[y < 2] = 0
    return y


@pytest.mark.parametrize(
    "f",
    [
        lambda x: torch.where(x > 1, x, 0.1 * x),
        lambda x: (x > 1) * x,
        lambda x: (x > 1).double() * x,
        lambda x: (2 * x).masked_fill(x < 1, 0.0),
        filled,
    ],
    ids=["where", "mask", "a mask of numbers", "masked_fill", "written"],
)
@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
def test_masks_by_hand_are_told_of_in_every_mode(f: Operator, mode: str) -> None:
    x = points(20, 4)
    number = lambda x: f(x).sum(-1)
    for _ in range(2):
        for call in (
            lambda: lmtorch.batch_hessian(f, x, mode=mode),
            lambda: lmtorch.laplacian(f, x, mode=mode),
            lambda: lmtorch.hvp(number, x, x, batch_dims=1, mode=mode),
        ):
            assert "piecewise linear" in told(call)


def test_nothing_is_said_of_masks_of_what_bends() -> None:
    x = points(20, 4)
    for f in (
        lambda x: (x > 1) * x.sin(),
        lambda x: (x > 1) * x**2,
        lambda x: x.detach().norm() * x + x.detach(),
        lambda x: x @ torch.ones(4, 1, dtype=x.dtype),
    ):
        for mode in ("auto", "forward", "reverse"):
            assert not told(lambda f=f, mode=mode: lmtorch.batch_hessian(f, x, mode=mode))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: torch.sin(x.detach()),
        no_grad_inside,
        lambda x: (x > 1).double(),
        lambda x: x.argmax(1, keepdim=True).double(),
        lambda x: x.round(),
    ],
    ids=["detach", "no_grad", "comparison", "argmax", "round"],
)
def test_functions_without_a_graph_are_told_of_whatever_the_operator(f: Operator) -> None:
    x = points(20, 4)
    number = lambda x: f(x).sum(-1)
    for call in (
        lambda: lmtorch.batch_jacobian(f, x),
        lambda: lmtorch.gradient(number, x),
        lambda: lmtorch.vjp(f, x, 1.0),
        lambda: lmtorch.jvp(f, x, x),
        lambda: lmtorch.hvp(number, x, x, batch_dims=1),
        lambda: lmtorch.laplacian(f, x),
    ):
        assert "derivatives are zero" in told(call)


def test_nothing_is_said_of_constants_that_differ_from_sample_to_sample() -> None:
    x = points(20, 4)
    f = lambda x: torch.arange(20.0, dtype=x.dtype)
    for operator in (lmtorch.batch_jacobian, lmtorch.laplacian, lmtorch.gradient):
        assert not told(lambda operator=operator: operator(f, x))
