"""Differences of black boxes keep their promise, and a check says where derivatives part."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lmtorch

from .setting import F32, F64, OldCube, built, close, jacobians, mlp, points


class Wrong(OldCube):
    """A backward with another factor in its second column."""

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x**2 * w * torch.tensor([3.0, 2.0, 3.0], dtype=x.dtype)


class Unwritten(OldCube):
    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Tensor:
        # without a word, as authors leave it: it is what the operators are to meet
        raise NotImplementedError


@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
@pytest.mark.parametrize(("method", "power"), [("2-point", 1 / 2), ("3-point", 2 / 3)])
@pytest.mark.parametrize("batch", [0, 1])
def test_differences_of_a_black_box_are_as_near_as_they_promise(
    batch: int, method: Any, power: float, dtype: torch.dtype
) -> None:
    x = points(4, 3, dtype=dtype)
    calls = []

    def box(x: Tensor) -> np.ndarray:
        calls.append(x)
        a = x.numpy()
        return np.stack([np.sin(a).sum(-1), np.exp(a).prod(-1) / 10], -1)

    found = lmtorch.finite_difference_jacobian(box, x, batch_dims=batch, method=method)
    twin = lambda x: torch.stack([torch.sin(x).sum(-1), torch.exp(x).prod(-1) / 10], -1)
    expected = jacobians(twin, x.double(), batch)
    assert found.shape == expected.shape
    assert found.dtype == dtype
    # f″/2 of the size of ten, at steps of 1.5 at most
    assert float((found - expected).abs().max()) < 30 * torch.finfo(dtype).eps ** power
    inputs = 3 if batch else 12
    assert len(calls) == 1 + inputs * (1 if method == "2-point" else 2)
    assert not any(point.requires_grad for point in calls)


def test_three_points_are_nearer_than_two() -> None:
    x = points(4, 3)
    errors = [
        float(
            (
                lmtorch.finite_difference_jacobian(torch.sin, x, batch_dims=1, method=m)
                - torch.diag_embed(x.cos())
            )
            .abs()
            .max()
        )
        for m in ("3-point", "2-point")
    ]
    assert errors[0] < errors[1] / 100


def test_a_step_may_be_given_and_shapes_are_kept() -> None:
    x = points(2, 2, 3)
    found = lmtorch.finite_difference_jacobian(lambda x: x.numpy() ** 2, x, batch_dims=1, step=1e-2)
    square = found.reshape(2, 6, 6).diagonal(dim1=1, dim2=2).reshape(2, 2, 3)
    # (x + h)² − x² over h, whose round-off grows by 1 / h
    close(square, 2 * x + 1e-2 * x, roundings=1e4)
    number = lmtorch.finite_difference_jacobian(
        lambda x: float(x) ** 2, torch.tensor(3.0, dtype=F64)
    )
    assert number.shape == ()
    assert abs(float(number) - 6) < 1e-6


@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
@pytest.mark.parametrize("batch", [0, 1])
def test_a_smooth_network_agrees(batch: int, dtype: torch.dtype) -> None:
    model = built(mlp, dtype)
    check = lmtorch.check_derivatives(model, points(5, 3, dtype=dtype), batch_dims=batch)
    assert check.ok
    assert isinstance(check, lmtorch.DerivativeCheck)
    assert set(check.errors) == {"autograd", "reverse", "taylor", "forward", "differences"}
    assert check.coupling == (0.0 if batch else None)
    assert "derivatives agree" in str(check)
    assert ("samples are independent" in str(check)) == bool(batch)
    assert "differs" not in str(check)


def test_a_wrong_backward_is_found_and_its_place_told() -> None:
    check = lmtorch.check_derivatives(Wrong.apply, points(4, 3))
    assert not check.ok
    assert check.reference == "autograd"
    sample, out, into = check.places["differences"]
    assert (out, into) == (1, 1)
    text = str(check)
    assert "derivatives DISAGREE; reference: autograd" in text
    (line,) = [line for line in text.splitlines() if "differs most at" in line]
    assert line.split()[0] == "differences"
    assert str((sample, 1, 1)) in line
    assert "taylor    refused:" in text


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x**2 * x.detach(),
        lambda x: x**2 * x.data,
        lambda x: x**2 + 3 * x.floor() * x.detach(),
    ],
)
def test_what_is_cut_out_is_found_by_differences_alone(f: Any) -> None:
    check = lmtorch.check_derivatives(f, points(4, 3))
    assert not check.ok
    exact = [check.errors[mode] for mode in ("reverse", "forward")]
    assert all(isinstance(error, float) and error < 1e-12 for error in exact)
    assert check.errors["differences"] > 0.1


def test_a_scalar_factor_too_small_to_see_by_eye_is_found() -> None:
    class Slightly(OldCube):
        @staticmethod
        def backward(ctx: Any, w: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return 3.0001 * x**2 * w

    assert not lmtorch.check_derivatives(Slightly.apply, points(4, 3)).ok
    assert lmtorch.check_derivatives(OldCube.apply, points(4, 3)).ok


@pytest.mark.parametrize("size", [0.5, 1.0, 30.0])
def test_samples_that_are_coupled_are_found_whatever_the_differences_say(size: float) -> None:
    # every pass moves all samples alike, also a difference: all modes agree, and the
    # coupling is told by itself
    check = lmtorch.check_derivatives(lambda x: x**2 - x.mean(0), points(4, 3) * size)
    assert not check.ok
    assert check.coupling > 0.001
    assert all(error <= check.tolerances[mode] for mode, error in check.errors.items())
    assert "outputs depend on other samples" in str(check)


def test_without_an_exact_mode_nothing_agrees() -> None:
    check = lmtorch.check_derivatives(Unwritten.apply, points(4, 3))
    assert not check.ok
    assert "DISAGREE; reference: differences" in str(check)


def test_an_error_without_words_is_told_by_its_kind() -> None:
    check = lmtorch.check_derivatives(Unwritten.apply, points(4, 3))
    assert check.errors["autograd"] == "NotImplementedError"
    assert check.reference == "differences"


def test_nan_is_a_disagreement() -> None:
    x = torch.tensor([[0.0, 1.0]], dtype=F64)
    assert not lmtorch.check_derivatives(lambda x: torch.where(x > 0, x, x.sqrt() * 0), x).ok


def test_an_empty_batch_agrees() -> None:
    assert lmtorch.check_derivatives(built(mlp), points(0, 3)).ok
