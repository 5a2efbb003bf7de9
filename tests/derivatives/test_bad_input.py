"""What cannot be differentiated is an `InputError` before any work that says what to do."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lmtorch
from lmtorch import InputError

from .setting import built, mlp, points

X = points(4, 3)
V = points(3)
OPERATORS: dict[str, Callable[..., Any]] = {
    "jacobian": lmtorch.jacobian,
    "batch_jacobian": lmtorch.batch_jacobian,
    "gradient": lmtorch.gradient,
    "divergence": lmtorch.divergence,
    "curl": lmtorch.curl,
    "jvp": lambda f, x, **k: lmtorch.jvp(f, x, V, **k),
    "vjp": lambda f, x, **k: lmtorch.vjp(f, x, V, **k),
    "hessian": lmtorch.hessian,
    "batch_hessian": lmtorch.batch_hessian,
    "hessian_diagonal": lmtorch.hessian_diagonal,
    "value_jacobian_hessian": lmtorch.value_jacobian_hessian,
    "laplacian": lmtorch.laplacian,
    "hvp": lambda f, x, **k: lmtorch.hvp(f, x, V, **k),
    "second_directional_derivative": lambda f, x, **k: lmtorch.second_directional_derivative(
        f, x, V, **k
    ),
    "finite_difference_jacobian": lmtorch.finite_difference_jacobian,
    "check_derivatives": lmtorch.check_derivatives,
}
BATCHED = [name for name in OPERATORS if name not in ("jacobian", "hessian", "jvp", "vjp")]
MODED = [
    n for n in OPERATORS if n not in ("vjp", "finite_difference_jacobian", "check_derivatives")
]
CHUNKED = [
    "jacobian",
    "batch_jacobian",
    "hessian",
    "batch_hessian",
    "hessian_diagonal",
    "laplacian",
]
each = pytest.mark.parametrize("operator", OPERATORS)


def uncalled(x: Any) -> Tensor:
    raise AssertionError("the function was called before its arguments were looked at")


@each
def test_x_must_be_a_floating_tensor(operator: str) -> None:
    of = OPERATORS[operator]
    with pytest.raises(
        InputError, match=re.escape("x must be a tensor, and is list: torch.as_tensor(x) makes one")
    ):
        of(uncalled, [[1.0, 2.0, 3.0]])
    with pytest.raises(
        InputError, match=r"x is torch.int64, which has no derivatives. Convert it: x.double\(\)"
    ):
        of(uncalled, torch.ones(4, 3, dtype=torch.int64))


@pytest.mark.parametrize("operator", [n for n in OPERATORS if n != "finite_difference_jacobian"])
def test_the_function_must_be_one(operator: str) -> None:
    with pytest.raises(InputError, match="must be a function or module, and is Tensor"):
        OPERATORS[operator](X, X)


@pytest.mark.parametrize("operator", BATCHED)
@pytest.mark.parametrize("dims", [-1, 3, 1.0, True, None])
def test_batch_dims_must_fit_x(operator: str, dims: Any) -> None:
    with pytest.raises(
        InputError, match=re.escape(f"batch_dims={dims!r} does not fit x of shape (4, 3)")
    ):
        OPERATORS[operator](uncalled, X, batch_dims=dims)


@pytest.mark.parametrize("operator", CHUNKED)
@pytest.mark.parametrize("chunk", [0, -2, 1.5, "all"])
def test_a_chunk_is_a_positive_number(operator: str, chunk: Any) -> None:
    with pytest.raises(
        InputError, match=re.escape(f"chunk_size={chunk!r} must be a positive number")
    ):
        OPERATORS[operator](uncalled, X, chunk_size=chunk)
    with pytest.raises(
        InputError, match=re.escape(f"chunk_size={chunk!r} must be a positive number")
    ):
        lmtorch.parameter_jacobian(nn.Linear(3, 1), X, chunk_size=chunk)


@pytest.mark.parametrize("operator", [n for n in MODED if n != "curl"])
def test_an_unknown_mode_is_refused_with_the_known_ones(operator: str) -> None:
    with pytest.raises(
        InputError, match=r"mode='backwards' is not known here. Use one of 'auto', '"
    ):
        OPERATORS[operator](uncalled, X, mode="backwards")
    with pytest.raises(InputError, match="mode='backwards' is not known here"):
        lmtorch.curl(uncalled, X, mode="backwards")


@pytest.mark.parametrize("operator", MODED)
def test_inference_mode_is_refused(operator: str) -> None:
    with (
        torch.inference_mode(),
        pytest.raises(InputError, match=r"inference_mode\(\).*torch.no_grad\(\)"),
    ):
        OPERATORS[operator](uncalled, X)


@each
def test_the_function_must_return_one_floating_tensor(operator: str) -> None:
    of = OPERATORS[operator]
    if operator != "finite_difference_jacobian":  # which takes whatever torch.as_tensor takes
        with pytest.raises(
            InputError, match=r"returned tuple where a tensor was expected.*f\(x\)\[0\]"
        ):
            of(lambda x: (x, x), X)
    with pytest.raises(InputError, match=r"returned torch.int64, which has no derivatives"):
        of(lambda x: x.long(), X)


@pytest.mark.parametrize("operator", BATCHED)
def test_outputs_must_begin_with_the_samples(operator: str) -> None:
    with pytest.raises(
        InputError, match=r"returned shape \(3,\) for x of shape \(4, 3\).*torch.func.vmap\(f\)"
    ):
        OPERATORS[operator](lambda x: x.sum(0), X, batch_dims=1)


@pytest.mark.parametrize("operator", ["gradient", "hvp"])
def test_one_output_is_needed_for_a_gradient(operator: str) -> None:
    with pytest.raises(
        InputError, match=rf"{operator} needs a function with one output.*\[..., 0\].*batch_hessian"
    ):
        OPERATORS[operator](lambda x: x, X, batch_dims=1)


def test_a_divergence_is_of_vector_fields() -> None:
    with pytest.raises(InputError, match=r"divergence needs a vector field.*\(3,\).*\(2,\)"):
        lmtorch.divergence(lambda x: x[:, :2], X)


def test_a_curl_is_of_fields_in_two_or_three_dimensions() -> None:
    with pytest.raises(InputError, match=r"curl is of fields in 2 or 3 dimensions; .*\(4,\)"):
        lmtorch.curl(uncalled, points(4, 4))
    with pytest.raises(InputError, match=r"curl needs a field of 3 components; f has \(2,\)"):
        lmtorch.curl(lambda x: x[:, :2], X)


@pytest.mark.parametrize("coordinates", [[], [3], [0, -4]])
def test_coordinates_must_be_there(coordinates: list[int]) -> None:
    with pytest.raises(
        InputError, match=re.escape(f"coordinates={coordinates} must be one place or several")
    ):
        lmtorch.laplacian(uncalled, X, coordinates=coordinates)


@pytest.mark.parametrize("coordinates", [3, -4, 1.5, [1.5], "x", True, [True, False, True]])
def test_a_coordinate_alone_must_be_there(coordinates: Any) -> None:
    with pytest.raises(
        InputError, match=re.escape(f"coordinates={coordinates} must be one place or several")
    ):
        lmtorch.laplacian(uncalled, X, coordinates=coordinates)


def test_a_coordinate_alone_is_one_of_a_list() -> None:
    model = built(mlp)
    for i in (0, 2, -1):
        assert torch.equal(
            lmtorch.laplacian(model, X, coordinates=i), lmtorch.laplacian(model, X, coordinates=[i])
        )


@each
@pytest.mark.parametrize("shape", [(4, 0), (0, 0), (4, 2, 0)], ids=str)
def test_inputs_without_entries_are_refused(operator: str, shape: tuple[int, ...]) -> None:
    if operator == "curl":
        return
    with pytest.raises(InputError, match=r"nothing to differentiate in: .*x has no entries, shape"):
        OPERATORS[operator](uncalled, torch.zeros(shape))


@pytest.mark.parametrize(
    "operator", ["jacobian", "hessian", "jvp", "vjp", "finite_difference_jacobian"]
)
def test_an_empty_input_is_refused(operator: str) -> None:
    with pytest.raises(InputError, match="nothing to differentiate in: x has no entries"):
        OPERATORS[operator](uncalled, torch.zeros(0, 3))


def test_a_direction_is_numbers() -> None:
    for of in (lmtorch.jvp, lmtorch.hvp, lmtorch.second_directional_derivative):
        for v in ("x", [["a"]], object()):
            with pytest.raises(InputError, match="is no tensor, and no numbers"):
                of(uncalled, X, v)
    assert torch.equal(
        lmtorch.jvp(torch.sin, X, [1.0, 0.0, 2.0]), X.cos() * torch.tensor([1.0, 0.0, 2.0])
    )


def test_directions_and_weights_must_fit() -> None:
    for of in (lmtorch.jvp, lmtorch.hvp, lmtorch.second_directional_derivative):
        with pytest.raises(InputError, match=r"v of shape \(4,\) does not broadcast to \(4, 3\)"):
            of(uncalled, X, points(4))
    with pytest.raises(InputError, match=r"w of shape \(2, 4, 3\) does not broadcast to \(4, 3\)"):
        lmtorch.second_directional_derivative(uncalled, X, V, points(2, 4, 3))
    with pytest.raises(InputError, match=r"w of shape \(2,\) does not broadcast to \(4, 3\)"):
        lmtorch.vjp(torch.sin, X, points(2))


def test_differences_know_two_methods_and_positive_steps() -> None:
    with pytest.raises(
        InputError, match=r"method='5-point' is not known. Use one of '2-point', '3-point'"
    ):
        lmtorch.finite_difference_jacobian(uncalled, X, method="5-point")
    with pytest.raises(InputError, match="step=0 must be positive"):
        lmtorch.finite_difference_jacobian(uncalled, X, step=0)


# ---- of parameters -------------------------------------------------------------------------------


MODEL = built(mlp)


class Pair(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


class Summed(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sum(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: lmtorch.parameter_jacobian(torch.sin, X),
            "must be an nn.Module.*builtin_function_or_method",
        ),
        (
            lambda: lmtorch.parameter_jacobian(nn.Flatten(), X),
            "no parameter of the model requires a gradient",
        ),
        (
            lambda: lmtorch.parameter_jacobian(MODEL, X, names=["weight"]),
            "no parameter 'weight'. Its.*0.weight, 0.bias",
        ),
        (
            lambda: lmtorch.parameter_jacobian(nn.Flatten(), X, names=["a"]),
            "no parameter 'a'. Its parameters: none",
        ),
        (lambda: lmtorch.parameter_jacobian(MODEL, X, names=[]), "names is empty"),
        (
            lambda: lmtorch.parameter_jacobian(MODEL),
            "inputs must be tensors with the samples in their first",
        ),
        (lambda: lmtorch.parameter_jacobian(MODEL, [1.0]), "inputs must be tensors"),
        (lambda: lmtorch.parameter_jacobian(MODEL, torch.tensor(1.0)), "inputs must be tensors"),
        (
            lambda: lmtorch.parameter_jacobian(MODEL, X, X[:2]),
            r"disagree on the number of samples.*\[4, 2\]",
        ),
        (lambda: lmtorch.parameter_jacobian(MODEL, X, output=2), r"output=2 is no place .*\(2,\)"),
        (
            lambda: lmtorch.parameter_jacobian(MODEL, X, output=(0, 0)),
            r"output=\(0, 0\) is no place",
        ),
        (lambda: lmtorch.parameter_jacobian(MODEL, X, output=0.5), "output=0.5 is no place"),
        (
            lambda: lmtorch.parameter_jacobian(MODEL, X, mode="forward"),
            "mode='forward' is not known here.*'layerwise'",
        ),
        (
            lambda: lmtorch.parameter_jacobian(Pair(3, 2).double(), X),
            "model returned tuple. Wrap it in a module",
        ),
        (
            lambda: lmtorch.parameter_jacobian(Summed(3, 2).double(), X[:3]),
            r"shape \(2,\) for 1 samples",
        ),
        (lambda: lmtorch.parameter_column(torch.sin, "w", 0, X), "must be an nn.Module"),
        (lambda: lmtorch.parameter_column(MODEL, "w", 0, X), "no parameter 'w'"),
        (
            lambda: lmtorch.parameter_column(MODEL, "0.bias", 8, X),
            r"index 8 is not in '0.bias', whose shape is \(8,\)",
        ),
        (lambda: lmtorch.parameter_column(MODEL, "0.bias", -9, X), "index -9 is not in"),
        (
            lambda: lmtorch.parameter_column(MODEL, "0.weight", (0,), X),
            r"index \(0,\) is not in '0.weight'.*\(8, 3\)",
        ),
        (
            lambda: lmtorch.parameter_column(MODEL, "0.weight", (0, 3), X),
            r"index \(0, 3\) is not in",
        ),
        (lambda: lmtorch.parameter_column(MODEL, "0.weight", 1.5, X), "index 1.5 is not in"),
        (
            lambda: lmtorch.parameter_column(MODEL, ["0.bias"], [0, 1], X),
            r"1 name\(s\) and 2 index\(es\)",
        ),
        (lambda: lmtorch.parameter_column(MODEL, [], [], X), r"0 name\(s\) and 0 index\(es\)"),
        (
            lambda: lmtorch.parameter_column(MODEL, "0.bias", 0, X, mode="jets"),
            "mode='jets' is not known here",
        ),
        (
            lambda: lmtorch.parameter_column(Pair(3, 2).double(), "bias", 0, X),
            "model returned tuple. Wrap it",
        ),
    ],
)
def test_parameters_are_asked_for_by_what_is_there(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_inference_mode_is_refused_for_parameters_too() -> None:
    with torch.inference_mode(), pytest.raises(InputError, match=r"inference_mode\(\)"):
        lmtorch.parameter_jacobian(MODEL, X)


def test_an_input_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"x is torch.int64"):
        lmtorch.hessian(torch.sin, torch.ones(3, dtype=torch.int64))


def test_a_tensor_of_inference_mode_is_named_with_the_way_out() -> None:
    with torch.inference_mode():
        x = points(4, 3)
    model = torch.nn.Linear(3, 2, dtype=torch.float64)
    for of in (
        lmtorch.batch_jacobian,
        lmtorch.laplacian,
        lmtorch.batch_hessian,
        lmtorch.value_jacobian_hessian,
    ):
        with pytest.raises(InputError, match=r"inference_mode.*x\.clone\(\)"):
            of(model, x)
    with pytest.raises(InputError, match=r"inference_mode.*clone\(\)"):
        lmtorch.parameter_jacobian(model, x)
    with pytest.raises(InputError, match=r"inference_mode.*clone\(\)"):
        lmtorch.parameter_column(model, "weight", (0, 0), x)


def test_what_is_no_dense_tensor_is_named_with_the_way_out() -> None:
    model = torch.nn.Linear(3, 2)
    with pytest.raises(InputError, match=r"to_dense\(\)"):
        lmtorch.jacobian(lambda x: x, torch.eye(3).to_sparse())
    for array in (torch.ones(4, 3).numpy(), [[1.0, 2.0, 3.0]]):
        with pytest.raises(InputError, match=r"torch\.as_tensor"):
            lmtorch.parameter_jacobian(model, array)
        with pytest.raises(InputError, match=r"torch\.as_tensor"):
            lmtorch.parameter_column(model, "weight", (0, 0), array)


def test_models_whose_parameters_are_not_their_own_or_not_there_are_named() -> None:
    x = torch.ones(4, 3)
    with pytest.raises(InputError, match=r"DataParallel.*model\.module"):
        lmtorch.parameter_jacobian(torch.nn.DataParallel(torch.nn.Linear(3, 2)), x)
    with pytest.raises(InputError, match=r"'0\.weight' has no shape yet"):
        lmtorch.parameter_jacobian(torch.nn.Sequential(torch.nn.LazyLinear(2)), x)


def test_shapes_come_from_meta_tensors() -> None:
    model, x = torch.nn.Linear(3, 2, device="meta"), torch.empty(4, 3, device="meta")
    assert lmtorch.batch_jacobian(model, x).shape == (4, 2, 3)
    assert lmtorch.laplacian(model, x).shape == (4, 2)
    assert lmtorch.parameter_jacobian(model, x)["weight"].shape == (4, 2, 2, 3)


def test_places_may_be_whole_numbers_of_any_kind() -> None:
    model = lambda x: (x**4).sum(1)
    expected = lmtorch.laplacian(model, X, coordinates=[0, 2])
    for coordinates in (torch.tensor([0, 2]), np.array([0, -1]), (np.int32(2), 0)):
        assert torch.equal(lmtorch.laplacian(model, X, coordinates=coordinates), expected)


def test_complex_numbers_are_refused_with_the_way_that_works() -> None:
    z = torch.complex(X[:, :1], X[:, 1:2])
    square = lambda z: z * z
    with pytest.raises(InputError, match=r"complex.*torch.view_as_complex\(z\)"):
        lmtorch.batch_jacobian(square, z)
    with pytest.raises(InputError, match=r"complex.*torch.view_as_real\(f\(x\)\)"):
        lmtorch.batch_jacobian(lambda x: torch.complex(x, x), X)
    parts = torch.view_as_real(z)
    J = lmtorch.batch_jacobian(
        lambda parts: torch.view_as_real(square(torch.view_as_complex(parts))), parts
    )
    a, b = parts[:, 0].unbind(-1)  # Cauchy and Riemann: ∂(z²) = 2 (a + ib)
    expected = 2 * torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], -2)
    torch.testing.assert_close(J[:, 0, :, 0, :], expected)
