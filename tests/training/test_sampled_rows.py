"""Fewer rows than parameters: steps from a sample of them, tried on all.

The reference takes the sample alone as its batch, each sample as often as it stands for others.
"""

import math
from contextlib import nullcontext
from itertools import pairwise

import pytest
import torch
from torch import nn

from lmtorch import InputError, LevenbergMarquardt, Status, laplacian
from lmtorch.choose import Facts, Options, plan, planning
from lmtorch.linearizations.dense import DenseForm
from lmtorch.linearizations.layered import LayeredForm
from lmtorch.solvers.dual import Dual
from lmtorch.training import kept
from lmtorch.training.terms import terms_of

F64 = torch.float64
INSIDE, EDGE, WIDTH = 24, 8, 20  # of 81 parameters
N = 70


@pytest.fixture(autouse=True)
def _sixteen_rows(monkeypatch):
    """Half of the points are sampled, and so few that the tests are quick."""
    monkeypatch.setattr(planning, "DUAL_LEAST", 16)


class Poisson:
    """−Δu = f in a square, u = 0 at one side."""

    def __init__(self, device, **options):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))
        self.net.to(device, F64)
        self.inside = torch.rand(INSIDE, 2, dtype=F64, device=device)
        self.edge = torch.rand(EDGE, 2, dtype=F64, device=device) * self.inside.new_tensor([1, 0])
        self.opt = LevenbergMarquardt(self.net, **options)

    def equation(self, x):
        return 0.05 * (laplacian(self.net, x)[:, 0] + torch.sin(3 * x).prod(1))

    def condition(self, x):
        return 0.2 * self.net(x)[:, 0]

    @property
    def terms(self):
        return (self.equation, self.inside), (self.condition, self.edge)

    def sample(self):
        """The samples of each term that the next step takes."""
        chosen = self.opt._task(terms_of(self.terms[0], self.terms[1:])).problem.sample
        return [term.samples.tensors[0] for term in chosen.terms]

    @torch.no_grad()
    def loss(self):
        return sum(closure(x).square().sum() for closure, x in self.terms) / 2


@pytest.mark.parametrize(
    ("form", "options"),
    [
        (DenseForm(), {}),
        (LayeredForm(), {"lr": 0.7}),
        (LayeredForm(), {"acceleration": False, "momentum": 0.0, "weight_decay": 0.01}),
        (DenseForm(), {"loss": "huber", "loss_scale": 0.02}),
    ],
    ids=str,
)
def test_a_step_is_that_of_the_sample_with_each_as_often_as_it_stands_for(
    form, options, device, monkeypatch
):
    monkeypatch.setattr(kept, "COMMON", -math.inf)  # the sample shall not grow
    monkeypatch.setattr(kept, "DOUBLING", -math.inf)
    options = {"solver": Dual(form), "momentum": 0.7} | options
    of = Poisson(device, curvature="sampled", **options)
    reference = Poisson(device, curvature="full", **options)
    for _ in range(2):
        twice = [torch.cat([x, x]) for x in of.sample()]
        assert [len(x) for x in twice] == [INSIDE, EDGE]
        of.opt.step(*of.terms)
        reference.opt.step((reference.equation, twice[0]), (reference.condition, twice[1]))
        for found, expected in zip(of.net.parameters(), reference.net.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
        assert of.opt.report.damping == pytest.approx(reference.opt.report.damping, rel=1e-6)
        assert of.opt.report.trials == reference.opt.report.trials


def test_what_is_returned_and_what_must_fall_is_the_loss_of_all_rows(device):
    of = Poisson(device, curvature="sampled")
    before = [float(of.loss())]
    for _ in range(6):
        assert float(of.opt.step(*of.terms)) == pytest.approx(before[-1], rel=1e-9)
        before.append(float(of.loss()))
    assert all(after < first for first, after in pairwise(before))


class Linear:
    """Residuals A θ − b of samples."""

    def __init__(self, A, b, n):
        self.A, self.b = A, b
        self.theta = torch.zeros(n, dtype=F64, device=A.device, requires_grad=True)
        self.opt = LevenbergMarquardt(
            [self.theta], solver="dual", curvature="sampled", scaling="levenberg",
            acceleration=False,
        )  # fmt: skip

    def step(self):
        return self.opt.step(lambda A, b: A @ self.theta - b, self.A, self.b)

    @property
    def share(self):
        return self.opt._kept.common["share"]


def drawn(*shape, device):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(1)).to(device)


def test_a_sample_grows_where_it_has_peculiarities_and_stays_where_it_stands_for_all(device):
    A = drawn(60, 3, device=device) @ drawn(3, N, device=device)
    common = Linear(A, A @ drawn(N, device=device), N)
    peculiar = Linear(drawn(60, N, device=device), drawn(60, device=device), N)
    for _ in range(2):
        common.step()
        peculiar.step()
    assert common.share == 0
    assert peculiar.share == 1


def test_a_sample_without_anything_left_is_no_end(device):
    """One residual is not zero, and the first sample is without it."""
    for row in range(60):
        b = torch.zeros(60, dtype=F64, device=device)
        b[row] = 1
        of = Linear(drawn(60, N, device=device), b, N)
        of.step()
        if float(of.theta.detach().abs().max()) == 0:
            break
    else:
        pytest.fail("all rows are in the sample")
    assert of.opt.status is Status.RUNNING
    assert of.share > 0
    for _ in range(8):
        of.step()
    assert float(of.step()) < 1e-6


def test_trials_that_a_sample_could_not_pass_leave_no_damping_to_all_rows(device):
    """The first sample says so little of the edge that steps from it make all rows lose."""

    class Easy(Poisson):
        def equation(self, x):
            return 1e-6 * super().equation(x)

    of = Easy(device, curvature="sampled", momentum=0.7, acceleration=False)
    begun = float(of.loss())
    for _ in range(14):
        of.opt.step(*of.terms)
        assert of.opt.status is Status.RUNNING
    assert of.opt._kept.common["share"] == 1
    assert float(of.loss()) < 1e-6 * begun


@pytest.mark.parametrize("case", ["rate of zero", "not finite"])
def test_a_step_that_says_nothing_of_the_sample_leaves_it(case, device):
    of = Poisson(device, curvature="sampled", lr=0.0 if case == "rate of zero" else 1.0)
    if case == "not finite":
        of.inside[3] = math.nan
    said = {
        "rate of zero": nullcontext(),
        "not finite": pytest.warns(UserWarning, match="of term 1"),
    }
    with said[case]:
        of.opt.step(*of.terms)
    of.opt.step(*of.terms)
    assert of.opt._kept.common.get("share", 0) == 0


FACTS = Facts(20_000, 3000, 3000, 4096, F64, torch.device("cpu"))


def share(*terms, **options):
    return plan(list(terms), Options(**options)).share


def test_of_many_rows_of_several_terms_a_tenth_is_taken_at_first():
    edge = FACTS._replace(residuals=1000, samples=1000)
    assert share(FACTS, edge) == pytest.approx(0.1)
    few = FACTS._replace(residuals=600, samples=600)
    assert share(few, few) == pytest.approx(0.1)
    assert share(FACTS, edge, curvature="full") is None
    assert share(FACTS) is None  # one term
    assert share(FACTS, curvature="sampled") == pytest.approx(0.1)
    small = FACTS._replace(residuals=500, samples=500)
    assert share(small, small) is None


@pytest.mark.parametrize(
    "change", [{"processes": 2}, {"streams": True}, {"samples": None}], ids=str
)
def test_what_cannot_be_sampled_is_refused(change):
    with pytest.raises(InputError, match="curvature='sampled'"):
        share(FACTS._replace(**change), curvature="sampled", solver="dual")
    assert share(FACTS._replace(**change)) is None
