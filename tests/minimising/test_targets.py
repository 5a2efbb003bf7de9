"""A function that returns criterion(outputs, targets): likelihoods in `least_squares`."""

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor
from torch.nn import functional as F

import lmtorch
from lmtorch import choose, least_squares
from lmtorch.losses import Criterion
from lmtorch.minimising import row_blocks

from ..programs import compiler

F64 = torch.float64
T = torch.linspace(0, 4, 40, dtype=F64)
TRUTH = torch.tensor([40.0, 1.2, 3.0], dtype=F64)
START = torch.tensor([30.0, 1.0, 1.0], dtype=F64)
POISSON = lmtorch.PoissonNLLLoss(log_input=False, eps=0)


def rate(x: Tensor, t: Tensor) -> Tensor:
    return x[0] * torch.exp(-x[1] * t) + x[2]


COUNTS = torch.poisson(rate(TRUTH, T).expand(6, -1), torch.Generator().manual_seed(2))


def counts(x: Tensor, t: Tensor, y: Tensor) -> Any:
    return POISSON(rate(x, t), y)


def value(x: Tensor, y: Tensor) -> Tensor:
    return F.poisson_nll_loss(rate(x, T), y, log_input=False, eps=0, reduction="sum")


def scipys(y: Tensor, start: Tensor = START) -> Any:
    """The minimum by scipy's Newton with exact derivatives."""

    def numbers(f: Any) -> Any:
        return lambda v: f(torch.as_tensor(v), y).numpy()

    return scipy.optimize.minimize(
        numbers(value), start.numpy(), jac=numbers(torch.func.grad(value)),
        hess=numbers(torch.func.hessian(value)), method="trust-exact", options={"gtol": 1e-8},
    )  # fmt: skip


def test_the_solution_is_scipys_minimum_and_its_fields_are_those_of_the_likelihood() -> None:
    y = COUNTS[0]
    found, expected = least_squares(counts, START, args=(T, y)), scipys(y)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-7)
    assert found.success
    torch.testing.assert_close(found.cost, value(found.x, y), rtol=1e-13, atol=0)
    torch.testing.assert_close(found.fun, rate(found.x, T))
    jacobian = torch.func.jacfwd(rate)(found.x, T)
    fisher = jacobian.mT @ (jacobian / found.fun[:, None])
    torch.testing.assert_close(found.jac.mT @ found.jac, fisher, rtol=1e-9, atol=1e-9)
    far = least_squares(counts, START, args=(T, y), max_nfev=2)
    torch.testing.assert_close(far.grad, torch.func.grad(value)(far.x, y))
    assert "exact Hessian" in capture(found)


def capture(solution: Any) -> str:
    return str(solution.__dict__["_explanation"]())


def exact(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The Jacobian, as a user may give it."""
    return torch.func.jacfwd(rate)(x, t)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "qr"},
        {"solver": "cholesky", "damping": "nielsen"},
        {"solver": "dual"},
        {"jac": "2-point"},
        {"jac": "reverse"},
        {"jac": exact},
        {"n_starts": 4},
        {"acceleration": True},
        {"bounds": (0, [100, 5, 50])},
        {"compile": "auto"},
    ],
    ids=lambda options: str({n: getattr(o, "__name__", o) for n, o in options.items()}),
)
def test_options_come_to_the_same_minimum(options: dict[str, Any]) -> None:
    found = least_squares(counts, START, args=(T, COUNTS[1]), **options)
    # differences end where their derivatives do
    np.testing.assert_allclose(found.x, scipys(COUNTS[1]).x, rtol=2e-6)
    torch.testing.assert_close(found.cost, value(found.x, COUNTS[1]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("many", [6, 48])  # 32 or more are solved in another way
def test_a_batch_has_a_loss_for_each_problem(many: int) -> None:
    y = COUNTS.repeat(many // 6, 1)
    found = least_squares(counts, START, args=(T, y), in_dims=(None, None, 0))
    for place in (0, many // 2, many - 1):
        alone = least_squares(counts, START, args=(T, y[place]))
        # round-off of other sums moves a parameter by a part of its error of 1e-1
        torch.testing.assert_close(found.x[place], alone.x, rtol=1e-6, atol=0)
        torch.testing.assert_close(found.cost[place], alone.cost, rtol=1e-12, atol=0)
        torch.testing.assert_close(found.fun[place], alone.fun, rtol=1e-6, atol=0)
        torch.testing.assert_close(found.jac[place], alone.jac, rtol=1e-5, atol=1e-5)
    starts = least_squares(
        counts, START, args=(T, y[:3]), in_dims=(None, None, 0), n_starts=2, seed=1
    )
    torch.testing.assert_close(starts.cost, found.cost[:3], rtol=1e-12, atol=0)


@compiler
@pytest.mark.usefixtures("own_programs")
def test_a_batch_can_be_compiled() -> None:
    plain = least_squares(counts, START, args=(T, COUNTS), in_dims=(None, None, 0))
    found = least_squares(counts, START, args=(T, COUNTS), in_dims=(None, None, 0), compile=True)
    torch.testing.assert_close(found.x, plain.x, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.cost, plain.cost, rtol=1e-12, atol=0)
    others = COUNTS.flip(0)  # the same program for other counts
    again = least_squares(counts, START, args=(T, others), in_dims=(None, None, 0), compile=True)
    torch.testing.assert_close(again.x, plain.x.flip(0), rtol=1e-6, atol=0)


def test_many_rows_in_blocks_keep_their_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = least_squares(counts, START, args=(T, COUNTS[0]))
    monkeypatch.setattr(choose, "DENSE", 10)
    monkeypatch.setattr(row_blocks, "ROWS", 16)
    found = least_squares(counts, START, args=(T, COUNTS[0]))
    torch.testing.assert_close(found.x, plain.x, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.cost, plain.cost, rtol=1e-13, atol=0)


def test_several_outputs_of_a_sample_belong_together() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(60, 2, dtype=F64, generator=generator)
    classes = torch.randint(3, (4, 60), generator=generator)

    def logits(w: Tensor, x: Tensor, y: Tensor) -> Any:
        return lmtorch.CrossEntropyLoss(label_smoothing=0.1)(x @ w, y)

    start = torch.zeros(2, 3, dtype=F64)
    found = least_squares(logits, start, args=(points, classes), in_dims=(None, None, 0))
    for w, y, cost in zip(found.x, classes, found.cost, strict=True):
        loss = F.cross_entropy(points @ w, y, label_smoothing=0.1, reduction="sum")
        torch.testing.assert_close(cost, loss)

        def theirs(v: Any, y: Tensor = y) -> Any:
            w = torch.as_tensor(v).view(2, 3).requires_grad_()
            loss = F.cross_entropy(points @ w, y, label_smoothing=0.1, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, w)
            return loss.item(), gradient.flatten().numpy()

        least = scipy.optimize.minimize(theirs, np.zeros(6), jac=True, tol=1e-10).fun
        assert float(cost) == pytest.approx(least, rel=1e-10)


def test_mean_and_variance_of_normal_numbers() -> None:
    y = torch.tensor([1.0, 2, 4, 5, 9], dtype=F64)
    criterion = lmtorch.GaussianNLLLoss()
    found = least_squares(
        lambda x, y: criterion(x[0].expand(5), y, x[1].exp().expand(5)), [0.0, 0.0], args=(y,)
    )
    assert found.x[0] == pytest.approx(y.mean().item(), rel=1e-9)
    assert np.exp(found.x[1]) == pytest.approx(y.var(correction=0).item(), rel=1e-7)


def test_black_boxes_work_by_differences() -> None:
    def numpys(x: Any, t: Any, y: Any) -> Any:
        curve = x[0] * np.exp(-x[1] * t) + x[2]
        return POISSON(torch.as_tensor(curve), torch.as_tensor(y))

    with pytest.warns(lmtorch.FallbackWarning):
        found = least_squares(numpys, START.numpy(), args=(T.numpy(), COUNTS[2].numpy()))
    np.testing.assert_allclose(found.x, scipys(COUNTS[2]).x, rtol=2e-6)


def test_solutions_carry_gradients_to_targets_and_to_arguments() -> None:
    y, t = COUNTS[3].clone().requires_grad_(), T.clone().requires_grad_()
    found = least_squares(counts, START, args=(t, y))
    of_t, of_y = torch.autograd.grad(found.x[1], (t, y))
    for place in (0, 7, 30):
        for which, got in ((0, of_t), (1, of_y)):
            ends = []
            for step in (-1e-4, 1e-4):
                moved = [T.clone(), COUNTS[3].clone()]
                moved[which][place] += step
                ends.append(least_squares(counts, START, args=tuple(moved)).x[1])
            # central differences of solutions to 1e-9
            expected = float(ends[1] - ends[0]) / 2e-4
            assert float(got[place]) == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_a_gradient_passes_a_point_that_is_met_exactly() -> None:
    y = rate(TRUTH, T).requires_grad_()  # no counts, but a likelihood that is met at every point
    found = least_squares(counts, 1.1 * TRUTH, args=(T, y))
    (got,) = torch.autograd.grad(found.x[0], y)
    # of weighted least squares with weights 1/μ, which this is near exact data
    jacobian = torch.func.jacfwd(rate)(TRUTH, T)
    weighted = jacobian.mT / rate(TRUTH, T)
    expected = torch.linalg.solve(weighted @ jacobian, weighted)[0]
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


def test_callbacks_and_acceptable_costs_are_in_the_units_of_the_result() -> None:
    seen = []
    found = least_squares(counts, START, args=(T, COUNTS[0]), callback=seen.append, history=True)
    assert float(seen[-1].cost) == pytest.approx(float(found.cost), rel=1e-9)
    poor = least_squares(
        counts, START, args=(T, COUNTS[0]), acceptable=float(found.cost) - 1, second_opinion=False
    )
    fine = least_squares(counts, START, args=(T, COUNTS[0]), acceptable=float(found.cost) + 1)
    assert not poor.success
    assert fine.success


class Below(Criterion):
    """A cost that is not counted from its least."""

    elementwise = True

    def cost(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - y).square() - 1

    def slope(self, outputs: Tensor, y: Tensor) -> Tensor:
        return 2 * (outputs - y)

    def root(self, outputs: Tensor, y: Tensor) -> Tensor:
        return torch.full_like(outputs, 2**0.5)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda: least_squares(counts, START, args=(T, COUNTS[0]), loss="huber"), "own loss"),
        (lambda: least_squares(counts, START, args=(T, COUNTS[0]), f_scale=2.0), "own loss"),
        (lambda: least_squares(counts, START, args=(T, COUNTS[0]), f_scale="mad"), "own loss"),
        (lambda: least_squares(counts, -START, args=(T, COUNTS[0])), "not finite at the start"),
        (lambda: least_squares(lambda x: POISSON(rate(x, T), rate(x, T)), START), "detach"),
        (
            lambda: least_squares(lambda x: (POISSON(rate(x, T), COUNTS[0]), x), START),
            "alone",
        ),
        (lambda: least_squares(lambda x: Below()(rate(x, T), rate(TRUTH, T)), TRUTH), "least"),
        (lambda: least_squares(lambda x: F.poisson_nll_loss(x, COUNTS[0, :3]), START), "single"),
    ],
)
def test_what_cannot_work_is_refused_in_words(wrong: Any, word: str) -> None:
    with pytest.raises(lmtorch.InputError, match=word):
        wrong()


def test_a_function_that_changes_its_mind_is_refused() -> None:
    calls = []

    def changing(x: Tensor) -> Any:
        calls.append(1)
        found = counts(x, T, COUNTS[0])
        return found if len(calls) < 6 else found.values

    with pytest.raises(lmtorch.InputError, match="another"):
        least_squares(changing, START)
