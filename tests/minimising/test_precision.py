"""least_squares(precision=…): sums and factors in float64 of rows that are float32."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from lmtorch import InputError, Solution, Status, curve_fit, least_squares
from tests.nist import PROBLEMS

F32, F64 = torch.float32, torch.float64
NOISE = 0.01


@cache
def straight(n: int, rows: int, condition: float) -> tuple[Tensor, Tensor, Tensor]:
    """A and b in float32, and the minimum of ‖A x − b‖ in float64."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=F64)

    left, right = torch.linalg.qr(drawn(rows, n))[0], torch.linalg.qr(drawn(n, n))[0]
    values = torch.logspace(0, -float(torch.tensor(condition).log10()), n, dtype=F64)
    A = ((left * values) @ right.mT * rows**0.5).to(F32)
    b = (A.to(F64) @ drawn(n) + NOISE * drawn(rows)).to(F32)
    found = torch.linalg.lstsq(A.to(F64), b.to(F64)[:, None], driver="gelsd").solution
    return A, b, found[:, 0]


def fitted(A: Tensor, b: Tensor, **options: Any) -> Solution:
    return least_squares(lambda x: A @ x - b, torch.zeros(A.shape[1]), **options)


def off(A: Tensor, x: Tensor, minimum: Tensor) -> float:
    """How far the cost is above its minimum, in variances of the noise."""
    step = A.to(F64) @ (x.to(F64) - minimum)
    return float(step.square().sum() / 2) / NOISE**2


@pytest.mark.parametrize("n", [65, 200, 400])
def test_well_conditioned_float32_needs_no_float64(n: int) -> None:
    A, b, minimum = straight(n, 5 * n, 100.0)
    found = fitted(A, b)
    assert found.success
    assert found.x.dtype == F32
    # of a step of the noise along each of n directions a share that nobody would see
    assert off(A, found.x, minimum) < 1e-4


def test_double_sums_find_the_minimum_where_single_ones_do_not() -> None:
    A, b, minimum = straight(100, 2000, 1e4)
    single, mixed, double = (
        fitted(A, b, precision=p) for p in ("single", "mixed", "double")
    )  # fmt: skip
    assert torch.equal(single.x, fitted(A, b).x)  # what "auto" is for so many parameters
    errors = [off(A, found.x, minimum) for found in (single, mixed, double)]
    # JᵀJ has a condition of 10⁸, ten times what float32 can say
    assert errors[2] < 1e-4 < errors[0]
    assert errors[2] < errors[1] < errors[0]
    assert double.success
    assert double.x.dtype == F32


@pytest.mark.parametrize("precision", ["single", "double"])
def test_few_parameters_are_fitted_by_either(precision: str) -> None:
    t = torch.linspace(0, 4, 30)
    y = 2.5 * torch.exp(-1.3 * t)
    fit = curve_fit(lambda t, a, k: a * torch.exp(-k * t), t, y, [1.0, 1.0], precision=precision)
    assert fit.success
    torch.testing.assert_close(fit.popt, torch.tensor([2.5, 1.3]), rtol=1e-5, atol=0)
    many = torch.stack([y, 2 * y, 3 * y])
    fits = curve_fit(
        lambda t, a, k: a * torch.exp(-k * t), t, many, [1.0, 1.0], precision=precision
    )  # fmt: skip
    torch.testing.assert_close(
        fits.popt, torch.tensor([[2.5, 1.3], [5.0, 1.3], [7.5, 1.3]]), rtol=1e-5, atol=0
    )


def test_squares_that_overflow_single_precision_are_nobody_s_warning() -> None:
    """A second opinion came by where entries of J are 1e20; NumPy said so to the user."""
    problem = PROBLEMS["MGH10"]
    x, y = problem.x.float(), problem.y.float()
    start = torch.tensor(problem.starts[0], dtype=torch.float32)
    found = least_squares(lambda b: problem.model(b, x) - y, start)
    # one processor's round-off leads there, another's to a point of the valley, and says so
    if found.success:
        torch.testing.assert_close(found.x.double(), problem.certified, rtol=1e-3, atol=0)
    else:
        assert found.status == Status.VALLEY


def test_a_cost_beyond_single_precision_is_nobody_s_warning_either() -> None:
    """The third of such fits is replayed on NumPy, which spoke of an overflow in a cast."""
    x = torch.linspace(0, 1, 9)
    y = (1e22 * torch.exp(-2 * x.double()) * (1 + 0.01 * torch.sin(9 * x.double()))).float()
    for _ in range(3):
        fit = curve_fit(lambda x, a, k: a * torch.exp(-k * x), x, y, [5e21, 1.0])
        assert fit.success
        near = curve_fit(lambda x, a, k: a * torch.exp(-k * x), x, y / 1e22, [0.5, 1.0])
        torch.testing.assert_close(fit.popt[1], near.popt[1], rtol=1e-5, atol=0)


def test_a_call_with_another_precision_is_another_call() -> None:
    # a small fit that is called again is replayed, if it is the same
    t = torch.linspace(0, 4, 30)
    y = 2.5 * torch.exp(-1.3 * t) + 0.01 * torch.sin(40 * t)

    def misfit(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return x[0] * torch.exp(-x[1] * t) - y

    def ended(precision: str) -> list[float]:
        found = least_squares(misfit, torch.ones(2), args=(t, y), precision=precision)
        return [*found.x.tolist(), float(found.optimality)]

    alone = {p: ended(p) for p in ("single", "double")}
    for _ in range(3):
        assert ended("double") == alone["double"]
        assert ended("single") == alone["single"]
    assert alone["single"] != alone["double"]


@pytest.mark.parametrize(
    ("precision", "dtype", "words"),
    [
        ("mixed", F64, "float64"),
        ("single", F64, "float64"),
        ("mixed", F32, "solver='cholesky'"),
        ("half", F32, "'half'"),
    ],
)
def test_what_cannot_be_is_refused(precision: str, dtype: torch.dtype, words: str) -> None:
    with pytest.raises(InputError, match=words):
        least_squares(lambda x: x - 1, torch.zeros(3, dtype=dtype), precision=precision)
