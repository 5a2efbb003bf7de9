"""Criteria beside torch's own losses: values, slopes, Hessians, shapes, extremes."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import lmtorch
from lmtorch.losses.criterion import Bound, Criterion
from lmtorch.rows.matrix import DenseRows

F64 = torch.float64
GENERATOR = torch.Generator().manual_seed(3)
LOGITS = torch.randn(7, 4, dtype=F64, generator=GENERATOR)
CLASSES = torch.tensor([0, 1, 2, 3, 1, 1, 0])
SOME = torch.tensor([0, -100, 2, 3, -100, 1, 0])
WEIGHT = torch.tensor([0.3, 1.0, 2.0, 0.7], dtype=F64)
PROBABILITIES = torch.softmax(torch.randn(7, 4, dtype=F64, generator=GENERATOR), -1)
COUNTS = torch.poisson(torch.full((7, 4), 2.0, dtype=F64), generator=GENERATOR)
ZERO_ONE = (COUNTS > 1).to(F64)
POSITIVE = LOGITS.exp()
R = torch.tensor([0.5, 3.0, 20.0, 1.0], dtype=F64)
PIXELS = torch.randn(3, 4, 2, 5, dtype=F64, generator=GENERATOR)
PIXEL_CLASSES = torch.randint(4, (3, 2, 5), generator=GENERATOR)
BOTH = torch.stack([LOGITS, POSITIVE])


def negative_binomial(mean: Tensor) -> Tensor:
    density = torch.distributions.NegativeBinomial(R, logits=mean.log() - R.log())
    return -density.log_prob(COUNTS).sum()


TRIALS = COUNTS + torch.tensor([0.0, 3, 5, 1], dtype=F64)


def binomial(share: Tensor) -> Tensor:
    return -torch.distributions.Binomial(TRIALS, share).log_prob(COUNTS).sum()


def gaussian(both: Tensor) -> Tensor:
    return F.gaussian_nll_loss(both[0], COUNTS, both[1], full=True, reduction="sum")


Case = tuple[Callable[[Tensor], Any], Callable[[Tensor], Tensor], Tensor]
# ours of the outputs, torch's of the outputs, where
CASES: dict[str, Case] = {
    "squares": (
        lambda f: lmtorch.MSELoss()(f, COUNTS),
        lambda f: F.mse_loss(f, COUNTS, reduction="sum"),
        LOGITS,
    ),
    "classes": (
        lambda f: lmtorch.CrossEntropyLoss()(f, CLASSES),
        lambda f: F.cross_entropy(f, CLASSES, reduction="sum"),
        LOGITS,
    ),
    "classes with weights, smoothing and some ignored": (
        lambda f: lmtorch.CrossEntropyLoss(WEIGHT, label_smoothing=0.1)(f, SOME),
        lambda f: F.cross_entropy(f, SOME, WEIGHT, label_smoothing=0.1, reduction="sum"),
        LOGITS,
    ),
    "another class ignored": (
        lambda f: lmtorch.CrossEntropyLoss(ignore_index=1)(f, CLASSES),
        lambda f: F.cross_entropy(f, CLASSES, ignore_index=1, reduction="sum"),
        LOGITS,
    ),
    "probabilities": (
        lambda f: lmtorch.CrossEntropyLoss(WEIGHT, label_smoothing=0.2)(f, PROBABILITIES),
        lambda f: F.cross_entropy(f, PROBABILITIES, WEIGHT, label_smoothing=0.2, reduction="sum"),
        LOGITS,
    ),
    "pixels": (
        lambda f: lmtorch.CrossEntropyLoss(WEIGHT)(f, PIXEL_CLASSES),
        lambda f: F.cross_entropy(f, PIXEL_CLASSES, WEIGHT, reduction="sum"),
        PIXELS,
    ),
    "pixels with probabilities": (
        lambda f: lmtorch.CrossEntropyLoss()(f, PIXELS.softmax(1)),
        lambda f: F.cross_entropy(f, PIXELS.softmax(1), reduction="sum"),
        PIXELS.flip(0),
    ),
    "one sample": (
        lambda f: lmtorch.CrossEntropyLoss()(f, CLASSES[1]),
        lambda f: F.cross_entropy(f, CLASSES[1], reduction="sum"),
        LOGITS[0],
    ),
    "zeros and ones": (
        lambda f: lmtorch.BCEWithLogitsLoss()(f, ZERO_ONE),
        lambda f: F.binary_cross_entropy_with_logits(f, ZERO_ONE, reduction="sum"),
        LOGITS,
    ),
    "between zero and one, with weights": (
        lambda f: lmtorch.BCEWithLogitsLoss(WEIGHT, pos_weight=R)(f, PROBABILITIES),
        lambda f: F.binary_cross_entropy_with_logits(
            f, PROBABILITIES, WEIGHT, pos_weight=R, reduction="sum"
        ),
        LOGITS,
    ),
    "counts": (
        lambda f: lmtorch.PoissonNLLLoss()(f, COUNTS),
        lambda f: F.poisson_nll_loss(f, COUNTS, reduction="sum"),
        LOGITS,
    ),
    "counts, with what is of them alone": (
        lambda f: lmtorch.PoissonNLLLoss(full=True)(f, COUNTS),
        lambda f: F.poisson_nll_loss(f, COUNTS, full=True, reduction="sum"),
        LOGITS,
    ),
    "counts and their mean": (
        lambda f: lmtorch.PoissonNLLLoss(log_input=False, full=True, eps=0.01)(f, COUNTS),
        lambda f: F.poisson_nll_loss(
            f, COUNTS, log_input=False, full=True, eps=0.01, reduction="sum"
        ),
        POSITIVE,
    ),
    "scattered counts": (
        lambda f: lmtorch.NegativeBinomialNLLLoss(R, full=True)(f, COUNTS),
        lambda f: negative_binomial(f.exp()),
        LOGITS,
    ),
    "scattered counts and their mean": (
        lambda f: lmtorch.NegativeBinomialNLLLoss(R, log_input=False, full=True, eps=0)(f, COUNTS),
        negative_binomial,
        POSITIVE,
    ),
    "counts of trials": (
        lambda f: lmtorch.BinomialNLLLoss(TRIALS, full=True)(f, COUNTS),
        lambda f: binomial(f.sigmoid()),
        LOGITS,
    ),
    "counts of trials and their probability": (
        lambda f: lmtorch.BinomialNLLLoss(TRIALS, logits=False, full=True)(f / 2, COUNTS),
        lambda f: binomial(f / 2),
        PROBABILITIES,
    ),
    "mean and variance": (
        lambda f: lmtorch.GaussianNLLLoss(full=True)(f[0], COUNTS, f[1]),
        gaussian,
        BOTH,
    ),
    "mean and a variance for each row": (
        lambda f: lmtorch.GaussianNLLLoss(full=True)(f[0], COUNTS, f[1, :, :1]),
        lambda f: F.gaussian_nll_loss(f[0], COUNTS, f[1, :, :1], full=True, reduction="sum"),
        BOTH,
    ),
    "half of it": (
        lambda f: 0.5 * lmtorch.CrossEntropyLoss()(f, CLASSES),
        lambda f: 0.5 * F.cross_entropy(f, CLASSES, reduction="sum"),
        LOGITS,
    ),
}
# the Hessian is not what R is a root of: it is that of the Fisher matrix
FISHER = {
    "counts and their mean",
    "scattered counts and their mean",
    "counts of trials and their probability",
    "mean and variance",
    "mean and a variance for each row",
}


def both(case: Case) -> tuple[Bound, Tensor, Callable[[Tensor], Tensor]]:
    """The loss, its outputs as one vector, and the value as a function of the argument."""
    ours, _, where = case
    bound = ours(where).bound()

    def value(f: Tensor) -> Tensor:
        return bound.cost(ours(f).values.reshape(-1)) + bound.least()

    return bound, ours(where).values.reshape(-1), value


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_value_is_torchs(case: Case) -> None:
    _, theirs, where = case
    _, _, value = both(case)
    for f in (where, where + 0.3, where * 1.7):
        torch.testing.assert_close(value(f), theirs(f), rtol=1e-12, atol=1e-12)


SMOOTH = 0.8 * F.one_hot(CLASSES, 4) + 0.2 / 4
MEANS = COUNTS.clamp(min=1e-30)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_can_be_read_as_a_number_and_says_what_it_is(case: Case) -> None:
    ours, torchs, outputs = case
    found = ours(outputs.clone().requires_grad_())
    assert (2 * found).item() == pytest.approx(2 * torchs(outputs).item(), rel=1e-12)
    assert type(found.criterion).__name__ in repr(found)
    assert len(repr(found)) < 200  # without the numbers


@pytest.mark.parametrize(
    ("criterion", "best", "target"),
    [
        (lmtorch.MSELoss(), COUNTS, COUNTS),
        (lmtorch.CrossEntropyLoss(), PROBABILITIES.log(), PROBABILITIES),
        (lmtorch.CrossEntropyLoss(WEIGHT), (WEIGHT * PROBABILITIES).log(), PROBABILITIES),
        (lmtorch.CrossEntropyLoss(label_smoothing=0.2), SMOOTH.log(), CLASSES),
        (lmtorch.CrossEntropyLoss(), 1e3 * F.one_hot(CLASSES).double(), CLASSES),
        (lmtorch.BCEWithLogitsLoss(), PROBABILITIES.logit(), PROBABILITIES),
        (lmtorch.BCEWithLogitsLoss(), 1e3 * (2 * ZERO_ONE - 1), ZERO_ONE),
        (lmtorch.PoissonNLLLoss(), MEANS.log(), COUNTS),
        (lmtorch.PoissonNLLLoss(log_input=False, eps=0), MEANS, COUNTS),
        (lmtorch.NegativeBinomialNLLLoss(R), MEANS.log(), COUNTS),
        (lmtorch.NegativeBinomialNLLLoss(R, log_input=False, eps=0), MEANS, COUNTS),
    ],
    ids=str,
)
def test_the_cost_is_zero_at_the_best_outputs_and_more_beside(
    criterion: Any, best: Tensor, target: Tensor
) -> None:
    for apart in (0.0, 1e-3, 0.1):
        found = criterion(best + apart * LOGITS.abs(), target)
        cost = found.bound().cost(found.values.flatten())
        if apart and best.abs().max() < 1e3:
            assert cost > 1e-9
        else:
            assert abs(cost) < 1e-12  # sums of 28 numbers of order one


def test_the_cost_of_a_learnt_variance_is_counted_from_the_smallest() -> None:
    criterion = lmtorch.GaussianNLLLoss(eps=1e-3)
    ours = criterion(COUNTS, COUNTS, torch.full_like(COUNTS, 1e-9))
    assert abs(ours.bound().cost(ours.values.flatten())) < 1e-12
    below = criterion(COUNTS, COUNTS, torch.full_like(COUNTS, -1e-9))
    assert below.bound().cost(below.values.flatten()).isnan()  # a trial there is refused


@pytest.mark.parametrize("name", CASES)
def test_rows_and_residuals_have_torchs_gradient_and_hessian(name: str) -> None:
    bound, values, _ = both(CASES[name])
    ours, theirs, where = CASES[name]
    found = bound.expand(values)
    jacobian = torch.func.jacfwd(lambda f: ours(f).values)(where).reshape(len(values), -1)
    rows = found.rows(DenseRows(jacobian))
    gradient = torch.func.grad(theirs)(where).flatten()
    torch.testing.assert_close(jacobian.mT @ found.slope, gradient)
    torch.testing.assert_close(rows.transposed_times(found.residual), gradient)
    hessian = torch.func.hessian(theirs)(where).reshape(len(gradient), -1)
    curvature = bound.curvature(values)
    exact = curvature.diag() if curvature.ndim == 1 else torch.block_diag(*curvature)
    torch.testing.assert_close(jacobian.mT @ exact @ jacobian, hessian)
    if name not in FISHER:
        torch.testing.assert_close(rows.dense().mT @ rows.dense(), hessian)


def test_where_the_hessian_is_not_used_it_is_the_fisher_matrix() -> None:
    mean, r = torch.tensor([0.7], dtype=F64), 3.0
    counts = torch.arange(400, dtype=F64)
    poisson = torch.distributions.Poisson(mean).log_prob(counts).exp()
    scattered = torch.distributions.NegativeBinomial(r, logits=(mean / r).log())
    for criterion, density in (
        (lmtorch.PoissonNLLLoss(log_input=False, eps=0), poisson),
        (
            lmtorch.NegativeBinomialNLLLoss(r, log_input=False, eps=0),
            scattered.log_prob(counts).exp(),
        ),
    ):
        bound = criterion(mean.expand(400), counts).bound()
        expected = density @ bound.curvature(mean.expand(400))
        torch.testing.assert_close(bound.expand(mean.expand(400)).root[0].square(), expected)
        fisher = criterion.fisher(mean.expand(400, 1), *bound.targets)
        torch.testing.assert_close(fisher[0, 0], expected)
    # of the normal density by Gauss and Hermite's rule, exact for these moments
    points, weights = map(torch.tensor, np_hermite())
    found = torch.tensor([0.4, 2.5], dtype=F64)
    y = found[0] + found[1].sqrt() * points
    bound = lmtorch.GaussianNLLLoss()(found[0].expand_as(y), y, found[1].expand_as(y)).bound()
    values = found.repeat(len(y))
    exact = (weights[:, None, None] * bound.curvature(values)).sum(0) / weights.sum()
    torch.testing.assert_close(bound.expand(values).root[:2].square().diag(), exact)


@pytest.mark.parametrize("log", [True, False])
def test_information_is_the_expected_curvature(log: bool) -> None:
    whole = torch.arange(13, dtype=F64)
    share, mean = torch.tensor(0.3, dtype=F64), torch.tensor(1.7, dtype=F64)
    many = torch.arange(300, dtype=F64)
    cases: list[tuple[Any, Tensor, Tensor, Tensor]] = [
        (
            lmtorch.BinomialNLLLoss(12.0, logits=log),
            torch.logit(share) if log else share,
            whole,
            torch.distributions.Binomial(12, share).log_prob(whole),
        ),
        (
            lmtorch.PoissonNLLLoss(log, eps=0),
            mean.log() if log else mean,
            many,
            torch.distributions.Poisson(mean).log_prob(many),
        ),
        (
            lmtorch.NegativeBinomialNLLLoss(2.5, log, eps=0),
            mean.log() if log else mean,
            many,
            torch.distributions.NegativeBinomial(2.5, logits=(mean / 2.5).log()).log_prob(many),
        ),
    ]
    for criterion, output, targets, density in cases:
        values = output.expand(len(targets))
        bound = criterion(values, targets).bound()
        expected = density.exp() @ bound.curvature(values)
        found = criterion.fisher(values[:, None], *bound.targets)
        torch.testing.assert_close(found[:, 0], expected.expand_as(found[:, 0]))


@pytest.mark.parametrize(
    "criterion",
    [
        lmtorch.PoissonNLLLoss(log_input=False, eps=0),
        lmtorch.NegativeBinomialNLLLoss(2.0, log_input=False, eps=0),
        lmtorch.BinomialNLLLoss(5.0, logits=False),
    ],
    ids=repr,
)
def test_a_mean_of_zero_where_nothing_was_counted_costs_nothing(criterion: Any) -> None:
    outputs, counts = torch.tensor([0.0, 0.5], dtype=F64), torch.tensor([0.0, 2.0], dtype=F64)
    bound = criterion(outputs, counts).bound()
    assert bound.each(outputs)[0] == 0
    found = bound.expand(outputs)
    assert found.residual.isfinite().all()
    rows = found.rows(DenseRows(torch.eye(2, dtype=F64)))
    torch.testing.assert_close(rows.transposed_times(found.residual), found.slope)
    assert found.slope[0] > 0
    impossible = torch.tensor([0.5, 0.0], dtype=F64)  # something was counted
    assert bound.cost(impossible) == math.inf
    assert bound.cost(torch.tensor([-1e-9, 0.5], dtype=F64)).isnan()


def np_hermite() -> tuple[Any, Any]:
    from numpy.polynomial.hermite_e import hermegauss

    points: tuple[Any, Any] = hermegauss(8)
    return points


@pytest.mark.parametrize("size", [50.0, 400.0, 1e4])
def test_what_is_hopelessly_wrong_keeps_its_slope(size: float) -> None:
    right = torch.tensor([[-size, 0.0, size / 2]], dtype=F64)
    for bound, values in (
        (lmtorch.CrossEntropyLoss()(right, torch.tensor([0])).bound(), right.flatten()),
        (lmtorch.CrossEntropyLoss(label_smoothing=0.1)(right, torch.tensor([0])).bound(), right[0]),
        (lmtorch.BCEWithLogitsLoss()(right[0], torch.ones(3)).bound(), right[0]),
        (lmtorch.PoissonNLLLoss()(-right[0].abs(), torch.ones(3)).bound(), -right[0].abs()),
        (lmtorch.NegativeBinomialNLLLoss(2.0)(right[0], torch.ones(3)).bound(), right[0]),
    ):
        found = bound.expand(values)
        rows = found.rows(DenseRows(torch.eye(3, dtype=F64)))
        torch.testing.assert_close(rows.transposed_times(found.residual), found.slope)
        assert found.residual.abs().max() <= 1.5e3 * found.slope.abs().max().sqrt()
        assert found.value.isfinite()


def test_a_small_cost_has_all_of_its_digits() -> None:
    y = torch.tensor([1e8], dtype=F64)
    apart = 1e-6
    bound = lmtorch.PoissonNLLLoss()(y.log(), y).bound()
    found = bound.cost(y.log() + apart)
    # y (eᵗ − 1 − t) in a series; log y has an absolute error of 4e-15, beside a t of 1e-6
    assert found.item() == pytest.approx(1e8 * (apart**2 / 2 + apart**3 / 6), rel=1e-7)


def test_masked_logits_of_classes_that_are_not_asked_for_cost_nothing() -> None:
    logits = torch.tensor([[0.0, 1.0, -math.inf]], dtype=F64)
    bound = lmtorch.CrossEntropyLoss()(logits, torch.tensor([0])).bound()
    found = bound.expand(logits.flatten())
    assert found.value.item() == pytest.approx(math.log(1 + math.e))
    assert found.residual.isfinite().all()
    assert found.root is not None
    assert found.root.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_costs_of_coarse_outputs_are_summed_in_float64(dtype: torch.dtype) -> None:
    ours = lmtorch.CrossEntropyLoss()(LOGITS.to(dtype), CLASSES)
    expected = F.cross_entropy(LOGITS.to(dtype).to(F64), CLASSES, reduction="sum")
    torch.testing.assert_close(ours.bound().cost(ours.values.flatten()), expected)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: lmtorch.CrossEntropyLoss()(LOGITS, CLASSES[:3]),
        lambda: lmtorch.CrossEntropyLoss()(LOGITS, PROBABILITIES[:, :2]),
        lambda: lmtorch.CrossEntropyLoss(R[:2])(LOGITS, CLASSES),
        lambda: lmtorch.CrossEntropyLoss(reduction="mean"),
        lambda: lmtorch.CrossEntropyLoss(label_smoothing=1.5),
        lambda: lmtorch.BCEWithLogitsLoss()(LOGITS[:, :1], ZERO_ONE[:, 0]),
        lambda: lmtorch.BCEWithLogitsLoss(R[:3])(LOGITS, ZERO_ONE),
        lambda: lmtorch.BCEWithLogitsLoss(pos_weight=R[:3])(LOGITS, ZERO_ONE),
        lambda: lmtorch.PoissonNLLLoss()(LOGITS, COUNTS[:, 0]),
        lambda: lmtorch.NegativeBinomialNLLLoss(-1.0),
        lambda: lmtorch.GaussianNLLLoss(eps=0.0),
        lambda: lmtorch.GaussianNLLLoss()(LOGITS, COUNTS[:, 0], POSITIVE),
        lambda: lmtorch.GaussianNLLLoss()(LOGITS, COUNTS, POSITIVE[:3]),
        lambda: -1.0 * lmtorch.MSELoss()(LOGITS, COUNTS),
        lambda: lmtorch.MSELoss()(LOGITS, LOGITS.clone().requires_grad_()).bound(),
    ],
)
def test_what_does_not_go_together_is_refused(wrong: Callable[[], Any]) -> None:
    with pytest.raises(lmtorch.InputError):
        wrong()


def test_one_of_your_own_needs_cost_slope_and_root() -> None:
    class LogCosh(Criterion):
        elementwise = True

        def cost(self, outputs: Tensor, y: Tensor) -> Tensor:
            return (outputs - y).cosh().log()

        def slope(self, outputs: Tensor, y: Tensor) -> Tensor:
            return (outputs - y).tanh()

        def root(self, outputs: Tensor, y: Tensor) -> Tensor:
            return 1 / (outputs - y).cosh()

    bound = LogCosh()(LOGITS, COUNTS).bound()
    found = bound.expand(LOGITS.flatten())
    assert bound.least() == 0
    torch.testing.assert_close(found.slope, torch.func.grad(bound.cost)(LOGITS.flatten()))
    torch.testing.assert_close(bound.curvature(LOGITS.flatten()), found.root.square())
    assert repr(LogCosh()) == "LogCosh()"
    for method in ("cost", "slope", "root"):
        without: Any = type("Without", (LogCosh,), {method: getattr(Criterion, method)})
        with pytest.raises(TypeError, match=method):
            without()


def test_a_cost_below_zero_is_no_success() -> None:
    class Plain(Criterion):
        """Poisson's likelihood as it is in books."""

        elementwise = True

        def cost(self, outputs: Tensor, y: Tensor) -> Tensor:
            return outputs.exp() - y * outputs

        def slope(self, outputs: Tensor, y: Tensor) -> Tensor:
            return outputs.exp() - y

        def root(self, outputs: Tensor, y: Tensor) -> Tensor:
            return (outputs / 2).exp()

    theta = torch.zeros(3, dtype=F64, requires_grad=True)
    y = torch.tensor([5.0, 20, 30], dtype=F64)
    with pytest.raises(lmtorch.InputError, match="least"):
        lmtorch.LevenbergMarquardt([theta]).step(lambda: Plain()(theta + 2, y))
    opt = lmtorch.LevenbergMarquardt([theta])
    for _ in range(50):  # it falls below zero on the way
        opt.step(lambda: Plain()(theta, y))
        if opt.status.final:
            break
    assert not opt.converged, opt.report


class Students(Criterion):
    """Student's t of three degrees of freedom and scale one, of residuals f − y."""

    elementwise = True

    def cost(self, outputs: Tensor, y: Tensor) -> Tensor:
        return 2 * torch.log1p((outputs - y).square() / 3)

    def slope(self, outputs: Tensor, y: Tensor) -> Tensor:
        apart = outputs - y
        return 4 * apart / (3 + apart.square())

    def root(self, outputs: Tensor, y: Tensor) -> Tensor:
        return torch.full_like(outputs, math.sqrt(2 / 3))  # of its expectation


class Absolute(Students):
    """|f − y| with a corner, where no derivative is."""

    def cost(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - y).abs()

    def slope(self, outputs: Tensor, y: Tensor) -> Tensor:
        return torch.where(outputs < y, -1.0, 1.0)

    def root(self, outputs: Tensor, y: Tensor) -> Tensor:
        return torch.ones_like(outputs)


WRONG: list[tuple[str, Callable[..., Tensor], str]] = [
    ("slope", lambda self, f, y: -Students.slope(self, f, y), "not the derivative"),
    ("slope", lambda self, f, y: 1.01 * Students.slope(self, f, y), "not the derivative"),
    ("slope", lambda self, f, y: Students.slope(self, f, y).sum(-1), "derivative of the cost"),
    ("root", lambda self, f, y: torch.zeros_like(f), "lost"),
    ("root", lambda self, f, y: Students.curvature(self, f, y)[..., 0], "square root"),
    ("root", lambda self, f, y: torch.ones(len(f), 3, 3, dtype=F64), "diagonal root"),
]


def test_one_of_your_own_that_is_right_is_taken() -> None:
    for criterion in (Students(), Absolute()):
        for outputs in (LOGITS, COUNTS, COUNTS + 1e-6):  # at the corner, and beside it
            bound = criterion(outputs, COUNTS).bound()
            bound.check(outputs.flatten())


@pytest.mark.parametrize(("method", "wrong", "word"), WRONG)
def test_one_of_your_own_is_held_to_its_cost(
    method: str, wrong: Callable[..., Tensor], word: str
) -> None:
    criterion: Any = type("Wrong", (Students,), {method: wrong})()
    near = COUNTS + 0.3 * LOGITS.tanh()  # where the curvature is positive
    theta = near.clone().requires_grad_()
    with pytest.raises(lmtorch.InputError, match=word):
        lmtorch.LevenbergMarquardt([theta]).step(lambda: criterion(theta, COUNTS))
    with pytest.raises(lmtorch.InputError, match=word):
        lmtorch.least_squares(lambda x: criterion(x, COUNTS), near)


def test_a_loss_is_a_number_where_one_is_asked_for() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
    found = lmtorch.CrossEntropyLoss()(logits, torch.tensor([0, 0]))
    expected = F.cross_entropy(logits.double(), torch.tensor([0, 0]), reduction="sum").item()
    assert float(found) == pytest.approx(expected, rel=1e-12)
    assert f"{found:.3f}" == f"{expected:.3f}"
    assert f"{found}" == repr(found)
