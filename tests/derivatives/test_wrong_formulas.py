"""What torch's forward mode gets wrong without an error, from reports of its users.

The expected numbers are written out by hand, or come from reverse mode or from differences. Numbers
of reports are those of github.com/pytorch/pytorch/issues.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import lmtorch
from lmtorch import InputError
from lmtorch.derivatives import formulas
from tests.derivatives.setting import F64, SECOND, close, hessians, points, same_derivatives


def factored(t: Tensor) -> Tensor:
    """Of #196694: two factors with one right-hand side."""
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    L = torch.stack([2 * one, zero, t, 3 * one, 3 * one, zero, 2 * t + 1, 2 * one]).reshape(2, 2, 2)
    b = torch.tensor([[1.0, 2.0], [-1.0, 3.0]], dtype=F64)
    weights = torch.tensor([[[1.0, 2], [3, 4]], [[2, -1], [4, 3]]], dtype=F64)
    return (torch.cholesky_solve(b, L) * weights).sum()


def prefixes(t: Tensor) -> Tensor:
    """Of #196705: a prefix of one number that is far below the others."""
    x = torch.stack([t, 1 - t, 2 * t + 3, -t, t + 2, 3 * t - 1]).reshape(2, 3)
    weights = torch.tensor([[1.0, 2, -1], [3, -2, 4]], dtype=F64)
    return (torch.logcumsumexp(x, -1) * weights).sum()


def determinant(t: Tensor) -> Tensor:
    """t² − 1, of a matrix that is singular at 1."""
    return torch.linalg.det(torch.stack([t, torch.ones_like(t), torch.ones_like(t), t]).view(2, 2))


REPORTED: dict[str, tuple[Callable[[Tensor], Tensor], float, float, float]] = {
    # function, point, first and second derivative
    "cholesky_solve": (factored, -7.0, -11 / 3, 5 / 18),
    "logcumsumexp": (prefixes, -400.0, -5.0, 0.0),
    "det": (determinant, 1.0, 2.0, 2.0),
    "sinc": (torch.sinc, 0.0, 0.0, -(math.pi**2) / 3),
    "sinc beside zero": (torch.sinc, 1e-5, -(math.pi**2) / 3e5, -(math.pi**2) / 3),
}


@pytest.mark.parametrize("name", REPORTED)
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
def test_what_was_reported_is_right_here(
    name: str, listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not listed:  # a formula that nobody has reported yet is found by comparison
        if name == "det":
            pytest.skip("wrong at singular matrices alone, where no comparison may have been made")
        monkeypatch.setattr(formulas, "WRONG", frozenset())
    f, at, first, second = REPORTED[name]
    t = torch.tensor(at, dtype=F64)
    for _ in range(2):
        assert lmtorch.jacobian(f, t).item() == pytest.approx(first, abs=1e-9)
        assert lmtorch.hessian(f, t).item() == pytest.approx(second, abs=1e-9)


def test_a_wrong_forward_formula_is_refused_by_name_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(formulas, "WRONG", frozenset())
    t = torch.tensor(1.37, dtype=F64)
    for _ in range(2):
        for operator in (lmtorch.jacobian, lmtorch.hessian):
            with pytest.raises(InputError, match="disagrees with a backward pass"):
                operator(factored, t, mode="forward")


def test_lower_precision_inside_is_no_disagreement() -> None:
    f = lambda x: torch.sin(x.float()).double() ** 2 * x
    found = lmtorch.batch_hessian(f, points(5, 2), mode="forward")
    torch.testing.assert_close(found, hessians(f, points(5, 2)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keepdim", [True, False])
def test_second_derivatives_of_a_length_at_zero_are_not_a_number(keepdim: bool) -> None:
    # #92075: of exp(−|x|²) at 0 they are −2, and the chain rule through |x| would give 0
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=F64)
    f = lambda x: torch.exp(-(torch.linalg.vector_norm(x, dim=-1, keepdim=keepdim) ** 2))
    for mode in ("auto", "taylor", "reverse"):
        found = lmtorch.laplacian(f, x, mode=mode).flatten()
        assert found[0].isnan()
        assert found[1].item() == pytest.approx((4 * 25 - 4) * math.exp(-25))
    assert lmtorch.hessian(lambda x: torch.linalg.norm(x) ** 2, x[0]).isnan().all()
    assert (lmtorch.batch_jacobian(f, x)[0] == 0).all()  # as torch has it
    masked = lambda x: torch.where((x == 0).all(-1), 1.0, torch.linalg.vector_norm(x, dim=-1))
    assert lmtorch.laplacian(masked, x)[0] == 0


def test_the_length_of_all_entries() -> None:
    same_derivatives(lambda x: torch.linalg.norm(x) ** 3, points(2, 3), 0)
    same_derivatives(lambda x: x.norm() * x[0], points(3), 0)


@pytest.mark.parametrize("mode", ["auto", "taylor"])
def test_distances_to_centres_have_second_derivatives(mode: str) -> None:
    # torch has none of its kernel: NotImplementedError
    centres = points(4, 3, seed=2)
    by_hand = lambda x: (x[:, None] - centres).square().sum(-1).sqrt()
    x = points(5, 3)
    for f in (lambda x: torch.cdist(x, centres), lambda x: torch.cdist(centres, x).T):
        close(lmtorch.batch_hessian(f, x, mode=mode), hessians(by_hand, x))


def test_hardsigmoid_has_second_derivatives_of_zero_and_says_so() -> None:
    x = points(5, 3)
    squared = lambda x: functional.hardsigmoid(3 * x - 2) ** 2
    by_hand = lambda x: ((3 * x - 2) / 6 + 0.5).clamp(0, 1) ** 2
    close(lmtorch.batch_hessian(squared, x), hessians(by_hand, x))
    with pytest.warns(lmtorch.ZeroDerivativeWarning, match="hardsigmoid"):
        lmtorch.laplacian(functional.hardsigmoid, x)


@pytest.mark.parametrize("mode", SECOND)
def test_derivatives_that_torch_does_not_have_are_refused_in_words(mode: str) -> None:
    bags = torch.tensor([[0, 1]])
    f = lambda x: functional.embedding_bag(bags, x, mode="sum") ** 2
    words = "torch has no such derivatives" if mode == "auto" else "does not work"
    with pytest.raises(InputError, match=words):
        lmtorch.hessian(f, points(2, 3), mode=mode)
