"""Dual numbers as a source of derivatives, and where the ladder leaves them in silence."""

import io
from contextlib import redirect_stdout

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch import least_squares
from lmtorch.calculus.base import NoRuleError
from lmtorch.calculus.duals import Dual
from lmtorch.jacobians.base import Workspace, own_workspace
from lmtorch.jacobians.dual_numbers import DualNumbers
from lmtorch.minimising.problems import ProblemsResidual
from lmtorch.residuals.base import Part
from lmtorch.residuals.layout import Layout
from lmtorch.rows.columns import Columns
from lmtorch.rows.matrix import DenseRows

F64 = torch.float64
T = torch.linspace(0, 2, 7, dtype=F64)


def decay(x: Tensor) -> Tensor:
    return x[0] * torch.exp(-x[1] * T) + x[2] - 0.3


def rows(part: Part, params: tuple[Tensor, ...], kind: type) -> tuple[Tensor, Tensor]:
    """Residuals and the written matrix of a part, through rows of a kind."""
    workspace = own_workspace(params, part.batch)
    (block,) = DualNumbers().blocks(part, params, Workspace(workspace.make, (kind,)))
    assert isinstance(block.rows, kind)
    return block.residual, block.rows.dense()


@pytest.mark.parametrize("kind", [Columns, DenseRows])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_it_has_the_matrix_of_torch_from_several_tensors(kind: type, dtype: torch.dtype) -> None:
    def f(params: tuple[Tensor, ...]) -> Tensor:
        a, b = params
        return a * torch.exp(-b[0] * T.to(dtype)) + b[1] ** 2

    params = (torch.tensor(1.3, dtype=dtype), torch.tensor([0.4, 2.0], dtype=dtype))
    residual, found = rows(Part(f, lambda other, p: other(p)), params, kind)
    torch.testing.assert_close(residual, f(params))
    blocks = torch.func.jacfwd(f)(params)
    expected = torch.cat([block.reshape(len(T), -1) for block in blocks], 1)
    torch.testing.assert_close(found, expected)
    assert found.dtype == dtype


STACKS = {
    "in their order": lambda a, b, c: torch.stack((a, b, c)),
    "in another order": lambda a, b, c: torch.stack([b, a, c]),
    "one twice": lambda a, b, c: torch.stack([a, a, c]),
    "some": lambda a, b, c: torch.stack([b, c, b.detach()]),
    "one by itself": lambda a, b, c: torch.stack([c]).expand(3),
    "along the last dimension": lambda a, b, c: torch.stack([a, b, c], dim=-1),
    "scaled": lambda a, b, c: torch.stack([a, 2 * b, c]),
    "of another dtype": lambda a, b, c: torch.stack([a, b.float().double(), c]),
    "put together and taken apart": lambda a, b, c: torch.stack(list(torch.stack([a, b, c]))),
}


@pytest.mark.parametrize("name", STACKS)
def test_single_parameters_are_stacked_with_their_derivatives(name: str) -> None:
    def f(params: tuple[Tensor, ...]) -> Tensor:
        p = STACKS[name](*params)
        return p[0] * torch.exp(-p[1] * T) + p[-1] ** 2 * T

    params = tuple(torch.tensor([1.3, 0.4, 2.0], dtype=F64).unbind())
    part = Part(f, lambda other, p: other(p))
    residual, found = rows(part, params, Columns)
    torch.testing.assert_close(residual, f(params))
    torch.testing.assert_close(found, torch.stack(torch.func.jacfwd(f)(params), 1))
    whole = torch.func.jacfwd(torch.func.jacfwd(f))(params)
    second = DualNumbers().second(part, params).second
    for i, row in enumerate(whole):
        for j in range(i, 3):
            expected = row[j]
            torch.testing.assert_close(second.get((i, j), torch.zeros_like(expected)), expected)


@pytest.mark.parametrize("kind", [Columns, DenseRows])
def test_problems_of_a_batch_have_the_matrices_that_they_have_alone(kind: type) -> None:
    def single(params: tuple[Tensor, ...], y: Tensor) -> Tensor:
        return decay(params[0]) - y.cumsum(0)

    x = torch.rand(4, 3, dtype=F64)
    y = torch.rand(4, 7, dtype=F64)
    layout = Layout([x[0]], ["x"])
    (part,) = ProblemsResidual(single, layout, (y,), 7, batched=True).parts()
    residual, found = rows(part, (x,), kind)
    torch.testing.assert_close(
        residual, torch.stack([single((p,), d) for p, d in zip(x, y, strict=True)])
    )
    torch.testing.assert_close(found, torch.stack([torch.func.jacfwd(decay)(p) for p in x]))


def test_residuals_that_depend_on_nothing_have_rows_of_zeros() -> None:
    part = Part(lambda params: T, lambda other, p: other(p))
    residual, found = rows(part, (torch.ones(2, dtype=F64),), Columns)
    assert torch.equal(residual, T)
    assert torch.equal(found, torch.zeros(7, 2, dtype=F64))


def test_derivatives_are_had_inside_no_grad_as_well() -> None:
    with torch.no_grad():
        _, found = rows(
            Part(lambda p: decay(p[0]), lambda other, p: other(p)),
            (torch.ones(3, dtype=F64),),
            Columns,
        )
    torch.testing.assert_close(found, torch.func.jacfwd(decay)(torch.ones(3, dtype=F64)))


def source(f, x, *args, **kwargs) -> str:
    """The source that is used in the end, as `explain` has it; nothing may be warned of."""
    said = io.StringIO()
    with redirect_stdout(said):
        least_squares(f, x, *args, **kwargs).explain()
    lines = said.getvalue().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("jacobian"))


X = torch.tensor([1.0, 2.0, 0.1], dtype=F64)


def test_it_is_the_first_source_of_a_small_problem() -> None:
    assert source(decay, X).startswith("DualNumbers")
    assert source(lambda p: decay(torch.stack([p["a"], *p["b"]])), {"a": X[0], "b": X[1:]}) == (
        "DualNumbers()"
    )


class Half(torch.autograd.Function):
    """x/2, whose derivative is said to be one quarter."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x / 2

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, w: Tensor) -> Tensor:
        return w / 4


def other_value(x: Tensor) -> Tensor:
    """It does something else with what is no tensor."""
    return decay(x) * (1.0 if isinstance(x, Tensor) else 2.0)


def other_derivative(x: Tensor) -> Tensor:
    """It does something else with what is no tensor, where only derivatives show it."""
    return decay(x if isinstance(x, Tensor) else torch.stack([x[0], x[1].detach(), x[2]]))


UNSEEN = {
    "an operator without a rule": lambda x: torch.fft.rfft(decay(x)).real,
    "a write": lambda x: torch.zeros(7, dtype=F64).index_add(0, torch.arange(7), decay(x)),
    "derivatives inside": torch.func.grad(lambda z: decay(z).sum()),
    "another value": other_value,
    "another derivative": other_derivative,
    "an exception of its own": lambda x: decay(x) if type(x) is Tensor else 1 / 0,
}


@pytest.mark.parametrize("case", UNSEEN)
def test_what_it_cannot_see_is_left_to_the_next_source_in_silence(case: str) -> None:
    f = UNSEEN[case]
    assert source(f, X, max_nfev=1) == "Forward(chunk=3)"
    found = least_squares(f, X, max_nfev=1).jac
    torch.testing.assert_close(found, torch.autograd.functional.jacobian(f, X))


@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")  # nor does forward mode see it
def test_a_derivative_that_only_autograd_knows_is_left_to_it() -> None:
    found = least_squares(lambda x: Half.apply(decay(x)), X, max_nfev=1).jac
    torch.testing.assert_close(found, torch.func.jacfwd(decay)(X) / 4)


def test_a_batch_is_served_and_left_in_silence_as_well() -> None:
    y = torch.rand(5, 7, dtype=F64)
    x = X.expand(5, 3)
    options = {"in_dims": (0, 0), "max_nfev": 1}
    assert source(lambda p, y: decay(p) - y, x, args=(y,), **options) == "DualNumbers()"
    unseen = source(lambda p, y: torch.fft.rfft(decay(p) - y).real, x, args=(y,), **options)
    assert unseen == "Forward(chunk=3)"


def test_curve_fit_has_its_numbers_with_all_that_it_does_to_parameters() -> None:
    seen: list[type] = []

    def f(x, a, b, c):
        seen.append(type(a))
        return a * torch.exp(-b * x) + c

    y = f(T, 2.0, 1.5, 0.2) + 0.01 * torch.sin(40 * T)
    fit = lmtorch.curve_fit(
        f, T, y, {"a": 1.0, "b": 1.0, "c": 0.1}, sigma=0.01 + 0.01 * T,
        bounds={"a": (0, 5)}, fixed=["c"], transforms={"b": "positive"},
    )  # fmt: skip
    plain = lmtorch.curve_fit(
        f, T, y, {"a": 1.0, "b": 1.0, "c": 0.1}, sigma=0.01 + 0.01 * T,
        bounds={"a": (0, 5)}, fixed=["c"], transforms={"b": "positive"}, jac="reverse",
    )  # fmt: skip
    assert any(issubclass(kind, Dual) for kind in seen)
    torch.testing.assert_close(fit.popt, plain.popt)


def test_an_operator_without_a_rule_is_named() -> None:
    part = Part(lambda p: torch.fft.rfft(p[0]).real, lambda other, p: other(p))
    with pytest.raises(NoRuleError, match="fft_rfft"):
        rows(part, (X,), Columns)


def test_a_batch_is_evaluated_as_one_or_under_vmap_to_the_same_numbers() -> None:
    y, x = torch.rand(5, 7, dtype=F64), torch.rand(5, 3, dtype=F64)

    def as_one(params: tuple[Tensor, ...], y: Tensor) -> Tensor:
        return decay(params[0]) - y * params[0][1]

    def mapped(params: tuple[Tensor, ...], y: Tensor) -> Tensor:
        return as_one(params, torch.eye(7, dtype=F64) @ y)  # a product that needs vmap

    found = []
    for f in (as_one, mapped):
        (part,) = ProblemsResidual(f, Layout([x[0]], ["x"]), (y,), 7, batched=True).parts()
        found.append((*rows(part, (x,), Columns), DualNumbers().evaluate(part, (x,))))
        assert bool(part.refused) == (f is mapped)
        bends = DualNumbers().second(part, (x,)).second
        assert set(bends) == {(0, 1), (1, 1)}
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
