"""Second derivatives are those of loops over single samples, in every mode."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmtorch

from .setting import (
    F32,
    F64,
    SECOND,
    Attention,
    built,
    close,
    convolutional,
    hessians,
    jacobians,
    mlp,
    points,
    same_derivatives,
    shaped,
    transformer,
)

UNRULED = ("auto", "forward", "reverse")  # attention has no Taylor rule
MODELS: list[Any] = [
    *(pytest.param(mlp, (3,), mode, id=f"mlp-{mode}") for mode in SECOND),
    *(pytest.param(convolutional, (1, 4, 4), mode, id=f"conv-{mode}") for mode in SECOND),
    *(pytest.param(transformer, (2, 4), mode, id=f"transformer-{mode}") for mode in UNRULED),
    *(pytest.param(Attention, (2, 4), mode, id=f"attention-{mode}") for mode in UNRULED),
]
exact = pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
moded = pytest.mark.parametrize("mode", SECOND)


def reference(model: nn.Module, x: Tensor) -> Tensor:
    """Torch itself has second derivatives of attention without the fused kernel only."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return hessians(model, x)


@exact
@pytest.mark.parametrize(("make", "inputs", "mode"), MODELS)
def test_a_batch_hessian_is_the_hessian_of_each_sample(
    make: Callable[[], nn.Module],
    inputs: tuple[int, ...],
    mode: str,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    model, x = built(make, dtype).to(device), points(2, *inputs, dtype=dtype).to(device)
    f = lambda x: model(x).flatten(1)[:, :2]
    found = lmtorch.batch_hessian(f, x, mode=mode)
    assert found.shape == (2, 2, *inputs, *inputs)
    close(found.detach(), reference(f, x))


@moded
def test_a_hessian_goes_across_all_of_x(mode: str) -> None:
    model, x = built(mlp), points(2, 3)
    f = lambda x: model(x).square().sum()
    close(lmtorch.hessian(f, x, mode=mode).detach(), torch.autograd.functional.hessian(f, x))


@moded
@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("outputs", [(), (1,), (2, 3)], ids=str)
@pytest.mark.parametrize("inputs", [(), (3,), (2, 4)], ids=str)
def test_any_shape_of_batch_inputs_and_outputs_will_do(
    inputs: tuple[int, ...], outputs: tuple[int, ...], batch: int, mode: str
) -> None:
    f = shaped(inputs, outputs, batch)
    x = points(*(2, 3)[:batch], *inputs)
    same_derivatives(f, x, batch, mode)


@moded
@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_of_one_and_an_empty_batch_are_batches(count: int, mode: str) -> None:
    model, x = built(mlp), points(1, 3)[:count]
    value, J, H = lmtorch.value_jacobian_hessian(model, x, mode=mode)
    assert (value.shape, J.shape, H.shape) == ((count, 2), (count, 2, 3), (count, 2, 3, 3))
    assert lmtorch.laplacian(model, x, mode=mode).shape == (count, 2)
    assert lmtorch.hessian_diagonal(model, x, mode=mode).shape == (count, 2, 3)
    assert lmtorch.batch_hessian(model, x, mode=mode).shape == (count, 2, 3, 3)
    assert lmtorch.second_directional_derivative(
        model, x, torch.ones(3, dtype=F64), mode=mode
    ).shape == (count, 2)
    if count:
        close(H.detach(), hessians(model, x))


@moded
@pytest.mark.parametrize("inputs", [2, 8], ids=["few", "many"])
def test_derivatives_have_the_dtype_of_the_output(inputs: int, mode: str) -> None:
    x = points(3, inputs, dtype=F32)
    f = lambda x: (x.double() ** 3).sum(1)
    H, trace = lmtorch.batch_hessian(f, x, mode=mode), lmtorch.laplacian(f, x, mode=mode)
    assert (H.dtype, trace.dtype) == (F64, F64)
    # passes back end in the dtype of x
    close(H.detach().float(), torch.diag_embed(6 * x))
    close(trace.detach().float(), 6 * x.sum(1))
    assert {t.dtype for t in lmtorch.value_jacobian_hessian(f, x, mode=mode)} == {F64}


@moded
@pytest.mark.parametrize("inputs", [3, 8], ids=["few", "many"])
def test_value_jacobian_and_hessian_come_together(inputs: int, mode: str) -> None:
    model, x = built(lambda: mlp(inputs)), points(3, inputs)
    value, J, H = lmtorch.value_jacobian_hessian(model, x, mode=mode)
    close(value.detach(), model(x).detach())
    close(J.detach(), jacobians(model, x))
    close(H.detach(), hessians(model, x))


@moded
def test_a_linear_function_has_zero_second_derivatives(mode: str) -> None:
    x = points(3, 4)
    W = points(4, 2)
    for f in (
        lambda x: x @ W,
        lambda x: x,
        lambda x: x[:, :1],
        lambda x: torch.ones(3, 2, dtype=F64),
    ):
        shape = (3, f(x).shape[1], 4, 4)
        found = lmtorch.batch_hessian(f, x, mode=mode)
        assert found.shape == shape
        assert not found.any()
        assert not lmtorch.laplacian(f, x, mode=mode).any()
        assert not lmtorch.hessian_diagonal(f, x, mode=mode).any()


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
@pytest.mark.parametrize("last", [(), (1,)], ids=str)
def test_hvp_is_each_hessian_times_v(last: tuple[int, ...], mode: str) -> None:
    model, x, v = built(mlp), points(4, 3), points(4, 3, seed=2)
    f = lambda x: model(x)[:, 0].reshape(len(x), *last)
    expected = (hessians(lambda x: model(x)[:, 0], x) @ v[..., None])[..., 0]
    close(lmtorch.hvp(f, x, v, batch_dims=1, mode=mode).detach(), expected)


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
def test_hvp_of_a_loss_is_torchs(mode: str) -> None:
    model, x, v = built(mlp), points(4, 3), points(4, 3, seed=2)
    f = lambda x: model(x).square().sum()
    close(lmtorch.hvp(f, x, v, mode=mode).detach(), torch.autograd.functional.hvp(f, x, v)[1])


@moded
@pytest.mark.parametrize("inputs", [(), (3,), (2, 2)], ids=str)
def test_a_second_directional_derivative_is_the_form_of_the_hessian(
    inputs: tuple[int, ...], mode: str
) -> None:
    x, v, w = (points(4, *inputs, seed=seed) for seed in range(3))
    d = v[0].numel()
    f = lambda x: torch.sin(x.reshape(len(x), -1)[:, :1] * x.reshape(len(x), -1)).cumsum(1)
    H = hessians(f, x).reshape(4, d, d, d)
    for first, second in ((v, None), (v, w), (v[0], w)):
        left = first.expand_as(x).reshape(4, d)
        right = (first if second is None else second).expand_as(x).reshape(4, d)
        expected = torch.einsum("bkij,bi,bj->bk", H, left, right)
        close(
            lmtorch.second_directional_derivative(f, x, first, second, mode=mode).detach(), expected
        )


@moded
@pytest.mark.parametrize("coordinates", [[0], [1, 2], (2, 0), range(2), [-1], [0, 0]], ids=str)
def test_a_laplacian_may_be_over_some_coordinates(coordinates: Any, mode: str) -> None:
    model, x = built(mlp), points(4, 3)
    diagonal = hessians(model, x).diagonal(dim1=-2, dim2=-1)
    found = lmtorch.laplacian(model, x, coordinates=coordinates, mode=mode)
    close(found.detach(), diagonal[..., list(coordinates)].sum(-1))


@moded
@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 19, 100, None])
def test_results_are_the_same_in_chunks_of_any_size(chunk: int | None, mode: str) -> None:
    x = points(2, 19)  # more than are taken at once without asking
    f = lambda x: torch.sin(x.cumsum(1)).sum(1).square()
    H = hessians(f, x)
    close(lmtorch.batch_hessian(f, x, chunk_size=chunk, mode=mode).detach(), H)
    diagonal = H.diagonal(dim1=1, dim2=2)
    close(lmtorch.hessian_diagonal(f, x, chunk_size=chunk, mode=mode).detach(), diagonal)
    close(lmtorch.laplacian(f, x, chunk_size=chunk, mode=mode).detach(), diagonal.sum(1))
    field = lambda x: torch.sin(x.cumsum(1))
    close(
        lmtorch.batch_jacobian(field, x, chunk_size=chunk, mode=mode).detach(), jacobians(field, x)
    )
    close(
        lmtorch.jacobian(field, x, chunk_size=chunk, mode=mode),
        torch.autograd.functional.jacobian(field, x),
    )


@moded
def test_a_harmonic_function_has_no_laplacian(mode: str) -> None:
    x = points(5, 3)
    found = lmtorch.laplacian(lambda x: 1 / x.norm(dim=1), x, mode=mode)
    # three terms of the size 2/r³ < 6 cancel
    assert float(found.detach().abs().max()) < 100 * torch.finfo(F64).eps


@pytest.mark.parametrize("mode", SECOND)
def test_the_length_of_a_zero_vector_has_no_curvature(mode: str) -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=F64)
    found = lmtorch.laplacian(lambda x: x.norm(dim=1), x, mode=mode)
    at_the_kink = 0.0 if mode == "forward" else torch.nan  # forward mode is torch's own
    torch.testing.assert_close(
        found, torch.tensor([at_the_kink, 0.2], dtype=F64), rtol=0, atol=1e-15, equal_nan=True
    )  # 1 / r


@pytest.mark.parametrize("mode", ["auto", "taylor", "forward", "reverse"])
@pytest.mark.parametrize("coordinates", [1, (0, 2), (2, 1), (-1,), (0, 1, 2)], ids=str)
def test_second_derivatives_of_some_coordinates_are_a_part_of_all(
    mode: str, coordinates: Any
) -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
    ).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    whole = torch.stack(
        [
            torch.stack(
                [torch.autograd.functional.hessian(lambda p, k=k: model(p)[k], p) for k in range(2)]
            )
            for p in x
        ]
    )
    chosen = [coordinates] if isinstance(coordinates, int) else list(coordinates)
    value, first, second = lmtorch.value_jacobian_hessian(
        model, x, coordinates=coordinates, mode=mode
    )
    torch.testing.assert_close(value, model(x))
    torch.testing.assert_close(first, lmtorch.batch_jacobian(model, x))
    torch.testing.assert_close(second, whole[..., chosen, :][..., chosen])


def test_coordinates_that_are_not_there_are_refused() -> None:
    with pytest.raises(lmtorch.InputError, match=r"coordinates=3 must be .* from 0 to 2"):
        lmtorch.value_jacobian_hessian(torch.sin, torch.randn(4, 3), coordinates=3)
