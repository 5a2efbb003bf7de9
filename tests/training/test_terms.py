"""Several terms in one step: an equation inside, conditions on the boundary, data somewhere.

The reference is one closure over everything, without a batch, that returns the terms' residuals as
a tuple; its Jacobian comes from another source (reverse mode of all rows at once).
"""

import copy
import io
import re
import warnings

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import lmtorch
from lmtorch import FallbackWarning, InputError, LevenbergMarquardt, Status
from lmtorch.jacobians.base import JacobianSource
from lmtorch.jacobians.finite_difference import FiniteDifference
from lmtorch.jacobians.forward import Forward

F64 = torch.float64
WIDE, NARROW = 10, 3  # networks of more than 64 parameters and of fewer


class Poisson:
    """c u″ = −sin 3x, u = 0 at both ends, data of u and u′ between, a penalty without samples."""

    def __init__(
        self, width=WIDE, given="module", seed=0, dtype=F64, device="cpu", model=None, **options
    ):
        torch.manual_seed(seed)
        self.model = model or nn.Sequential(
            nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
        )
        if model is None:
            self.model.append(nn.Linear(width, 1))
        self.model.to(device, dtype)
        self.factor = torch.tensor(0.5, dtype=dtype, device=device, requires_grad=True)
        self.inside = torch.linspace(0.05, 0.95, 31, dtype=dtype, device=device)[:, None]
        self.edge = torch.tensor([[0.0], [1.0]], dtype=dtype, device=device)
        self.x = torch.linspace(0.3, 0.7, 7, dtype=dtype, device=device)[:, None]
        self.y = 1 + 0.1 * torch.cos(5 * self.x)
        first, second = list(self.model[:2].parameters()), list(self.model[2:].parameters())
        params = {
            "module": self.model,
            "tensors": [*self.model.parameters(), self.factor],
            "groups": [
                {"params": first, "weight_decay": 0.01},
                {"params": second, "lr": 0.7},
                {"params": self.factor},
            ],
        }[given]
        self.opt = LevenbergMarquardt(params, **options)

    def equation(self, x):
        return self.factor * lmtorch.laplacian(self.model, x) + torch.sin(3 * x)

    def condition(self, x):
        return 2 * self.model(x)

    def data(self, x, y):
        """Two residuals of each sample."""
        u = self.model(x)
        return torch.cat([u + 0.1 * lmtorch.gradient(self.model, x) - y, u * u - y], 1)

    def small(self):
        """Of no sample; and J has no small singular values, which would magnify the rounding."""
        return tuple(0.3 * (p - 0.1) for p in (*self.model.parameters(), self.factor))

    def terms(self):
        return (
            (self.equation, self.inside),
            (self.condition, self.edge),
            (self.data, self.x, self.y),
            (self.small,),
        )

    def all_at_once(self):
        return tuple(closure(*batch) for closure, *batch in self.terms())

    def loss(self):
        return (
            sum(leaf.detach().square().sum().item() for leaf in tree_leaves(self.all_at_once())) / 2
        )

    def flat(self):
        return torch.cat([p.detach().flatten() for p in (*self.model.parameters(), self.factor)])


def same_steps(one, other, steps=3, roundings=1e6, whole=None, terms=None):
    """Compare terms with one closure: other sums, rounded by JᵀJ's condition, 10⁵ at most."""
    whole = whole or other.all_at_once
    for _ in range(steps):
        loss = one.opt.step(*(terms or one.terms)())
        expected = other.opt.step(whole)
        eps = torch.finfo(one.flat().dtype).eps
        torch.testing.assert_close(loss, expected, rtol=1e4 * eps, atol=0)
        torch.testing.assert_close(
            one.flat(), other.flat(), rtol=roundings * eps, atol=roundings * eps
        )
        assert one.opt.report.damping == pytest.approx(
            other.opt.report.damping, rel=roundings * eps
        )
        assert one.opt.report.trials == other.opt.report.trials
        assert one.opt.report.loss_after < one.opt.report.loss


OPTIONS = {
    "default": {},
    "cholesky": {"solver": "cholesky"},
    "qr": {"solver": "qr"},
    "svd": {"solver": "svd"},
    "dual": {"solver": "dual"},
    "trust region": {"damping": "trust_region", "scaling": "more"},
    "marquardt": {"damping": "marquardt", "scaling": "marquardt"},
    "accelerated": {"acceleration": True, "solver": "qr"},
    "plain": {"acceleration": False},
    "full": {"curvature": "full", "solver": "cholesky"},
    "robust": {"loss": "cauchy", "loss_scale": 0.3},
    "decay": {"weight_decay": 0.01},
    "slow": {"lr": 0.3},
    "bounds": {"lower": -1.5, "upper": 1.0},
    "forward": {"jacobian": "forward"},
    "autograd": {"jacobian": "autograd"},
    "streamed": {"memory_limit": 170_000, "solver": "cholesky"},
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "streamed" else name
        for name in OPTIONS
    ],
)
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_terms_take_the_step_of_one_closure_over_everything(name, width):
    options = OPTIONS[name]
    with torch.no_grad():
        one, other = (Poisson(width, **options) for _ in range(2))
    same_steps(one, other)


@pytest.mark.parametrize("given", ["module", "tensors", "groups"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_terms_serve_however_the_parameters_are_given(given, width, device):
    one, other = (Poisson(width, given, device=device) for _ in range(2))
    same_steps(one, other)
    assert (one.factor.item() != 0.5) == (given != "module")


def test_terms_in_float32_take_the_same_steps():
    one, other = (Poisson(WIDE, dtype=torch.float32) for _ in range(2))
    same_steps(one, other, steps=2, roundings=1e4)


def test_the_loss_is_half_the_sum_of_the_squares_of_every_term():
    fit = Poisson()
    before = fit.loss()
    loss = fit.opt.step(*fit.terms())
    assert loss.dtype == F64
    assert loss.shape == ()
    assert loss.item() == pytest.approx(before, rel=1e-12)
    assert fit.opt.report.loss_after == pytest.approx(fit.loss(), rel=1e-12)


def test_a_sampled_curvature_keeps_the_gradient_of_all_terms():
    # so short a step gains its slope, whatever the curvature
    fit = Poisson(curvature="sampled", damping="nielsen", lr=torch.tensor(1e-4))
    fit.opt.step(*fit.terms()[:3])
    assert fit.opt.report.trials == 1
    assert fit.opt.report.gain_ratio == pytest.approx(1, abs=1e-3)


def test_a_sampled_curvature_takes_part_of_the_samples_of_each_term():
    fit = Poisson(curvature="sampled")
    many = torch.rand(3000, 1, dtype=F64)
    seen = []

    def equation(x):
        seen.append(("equation", len(x)))
        return fit.equation(x)

    def data(x, y):
        seen.append(("data", len(x)))
        return fit.data(x, y)

    losses = [
        fit.opt.step((equation, many), (data, many[:2000], many[:2000])).item() for _ in range(4)
    ]
    assert losses[-1] < losses[0]
    assert fit.opt._last.plan.share == pytest.approx(0.1)
    sizes = {
        name: [size for called, size in seen if called == name] for name in ("equation", "data")
    }
    assert 300 in sizes["equation"]
    assert 200 in sizes["data"]


def test_several_terms_are_not_sampled_unless_asked(capsys):
    fit = Poisson()
    many = torch.rand(3000, 1, dtype=F64)
    fit.opt.step((fit.equation, many), (fit.data, many, many))
    assert fit.opt._last.plan.share is None
    fit.opt.explain()
    assert "all rows" in capsys.readouterr().out
    alone = Poisson()
    alone.opt.step((alone.equation, many))  # where one term is
    assert alone.opt._last.plan.share is not None


def test_a_sampled_curvature_needs_samples_in_every_term():
    fit = Poisson(curvature="sampled")
    with pytest.raises(InputError, match="needs samples"):
        fit.opt.step(*fit.terms())


def test_a_term_alone_is_a_closure_with_its_batch():
    one, other, third = Poisson(), Poisson(), Poisson()
    for _ in range(3):
        a = one.opt.step((one.data, one.x, one.y))
        b = other.opt.step(other.data, other.x, other.y)
        c = third.opt.step([third.data, third.x, third.y])
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    assert torch.equal(one.flat(), other.flat())
    assert torch.equal(one.flat(), third.flat())


def test_lists_and_bare_closures_are_terms_too():
    one, other, third = Poisson(), Poisson(), Poisson()
    for _ in range(3):
        one.opt.step(*one.terms())
        other.opt.step(*(list(term) for term in other.terms()))
        third.opt.step(*third.terms()[:-1], third.small)
    assert torch.equal(one.flat(), other.flat())
    assert torch.equal(one.flat(), third.flat())


@pytest.mark.parametrize("structure", ["dict", "list", "flag"])
def test_the_batch_of_a_term_may_have_structure(structure):
    one, other = Poisson(), Poisson()
    term = {
        "dict": lambda: (lambda b: one.data(b["x"], b["y"]), {"x": one.x, "y": one.y}),
        "list": lambda: (lambda b: one.data(*b), [one.x, one.y]),
        "flag": lambda: (lambda x, y, sign: sign * one.data(x, y), one.x, one.y, -1.0),
    }[structure]()
    one.opt.step((one.equation, one.inside), term)
    other.opt.step(lambda: (other.equation(other.inside), other.data(other.x, other.y)))
    torch.testing.assert_close(one.flat(), other.flat(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("jacobian", ["2-point", "3-point"])
def test_black_boxes_may_be_terms(jacobian):
    fit = Poisson(NARROW, jacobian=jacobian)
    box = lambda x: torch.as_tensor(fit.condition(x).detach().numpy())
    other = Poisson(NARROW)
    for _ in range(2):
        fit.opt.step((box, fit.edge), *fit.terms()[2:])
        other.opt.step(
            lambda: (other.condition(other.edge), other.data(other.x, other.y), other.small())
        )
    # derivatives to ε^½ and ε^⅔, times the condition
    tolerance = 1e-5 if jacobian == "2-point" else 1e-7
    torch.testing.assert_close(fit.flat(), other.flat(), rtol=tolerance, atol=tolerance)


def test_a_function_for_the_jacobian_is_refused_for_several_terms():
    theta = torch.ones(2, dtype=F64, requires_grad=True)
    opt = LevenbergMarquardt([theta], jacobian=lambda *batch: torch.eye(2, dtype=F64))
    with pytest.raises(InputError, match="goes with one closure, and this step has 2 terms"):
        opt.step((lambda: theta - 1,), (lambda: theta - 2,))
    assert theta.tolist() == [1.0, 1.0]
    for _ in range(5):
        opt.step((lambda: theta - 3,))
    torch.testing.assert_close(theta.detach(), torch.full_like(theta, 3))


class Counting:
    """A source of derivatives that notes which terms ask for it."""

    def __init__(self, source):
        self.source = source
        self.asked = []

    def blocks(self, part, params, workspace):
        self.asked.append(part.term)
        return self.source.blocks(part, params, workspace)

    def evaluate(self, part, params):
        return self.source.evaluate(part, params)


@pytest.mark.parametrize("source", [Forward(), FiniteDifference("3-point")], ids=repr)
def test_an_object_that_is_a_source_serves_all_terms(source):
    counting = Counting(source)
    assert isinstance(counting, JacobianSource)
    fit, other = Poisson(NARROW, jacobian=counting), Poisson(NARROW)
    fit.opt.step(*fit.terms()[1:])
    other.opt.step(*other.terms()[1:])
    assert set(counting.asked) == {0, 1, 2}
    # three points know ε^⅔
    torch.testing.assert_close(fit.flat(), other.flat(), rtol=1e-5, atol=1e-5)


# ---- random numbers and buffers ------------------------------------------------------------------


class Masked(nn.Module):
    """Dropout that remembers what it drew."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        mask = nn.functional.dropout(torch.ones_like(x))
        if not torch._C._functorch.is_functorch_wrapped_tensor(mask):
            self.seen.append(mask.detach().clone())
        return x * mask


@pytest.mark.parametrize("acceleration", [False, True])
def test_masks_are_replayed_across_terms_within_a_step_and_new_in_the_next(acceleration):
    torch.manual_seed(2)
    masked = Masked()
    model = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), masked, nn.Linear(6, 1)).double()
    a, b = torch.randn(5, 2, dtype=F64), torch.randn(4, 2, dtype=F64)
    opt = LevenbergMarquardt(model, jacobian="autograd", acceleration=acceleration)
    drawn = []
    for step in range(3):
        masked.seen.clear()
        opt.step((lambda: model(a) - 1,), (lambda: model(b) + 1,))
        first = [mask for mask in masked.seen if len(mask) == 5]
        second = [mask for mask in masked.seen if len(mask) == 4]
        assert len(first) == len(second) >= 2
        # the probe of each term, in a first step, begins with the generator as it found it,
        # and evaluates three times
        probed = 3 if step == 0 else 0
        first, second = first[probed:], second[probed:]
        assert all(torch.equal(mask, first[0]) for mask in first)
        assert all(torch.equal(mask, second[0]) for mask in second)
        assert not torch.equal(first[0][:4], second[0])
        drawn.append(first[0])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


class Weighted(nn.Module):
    """Σ w x, of no linear layer."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return (x * self.weight).sum(1, keepdim=True)


@pytest.mark.parametrize(
    "options", [{}, {"memory_limit": 45_000, "solver": "cholesky"}, {"jacobian": "autograd"}]
)
@pytest.mark.parametrize("layer", [nn.Linear(70, 1), Weighted(70)], ids=["linear", "weighted"])
def test_with_dropout_terms_that_are_linear_gain_exactly_what_was_promised(layer, options):
    # for a fixed mask residuals are linear in the weights; another mask at the trial shows
    torch.manual_seed(6)
    model = nn.Sequential(nn.Dropout(0.5), copy.deepcopy(layer)).double()
    x, z = torch.randn(160, 70, dtype=F64), torch.randn(40, 70, dtype=F64)
    opt = LevenbergMarquardt(model, **options)
    for _ in range(3):
        opt.step(
            (lambda x: model(x) - x.sum(1, keepdim=True), x),
            (model, z),
            (lambda: 0.1 * model[1].weight,),
        )
        assert opt.report.gain_ratio == pytest.approx(1, abs=1e-6)


def test_a_step_of_terms_leaves_the_generator_as_one_evaluation_would():
    torch.manual_seed(6)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 1)).double()
    x = torch.randn(60, 5, dtype=F64)
    opt = LevenbergMarquardt(model, jacobian="autograd")
    for _ in range(2):
        before = torch.get_rng_state()
        model(x)
        model(x[:7])
        expected = torch.rand(3)
        torch.set_rng_state(before)
        opt.step((lambda: model(x) - 1,), (lambda: model(x[:7]) + 1,))
        assert torch.equal(torch.rand(3), expected)


def normed():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(1, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1)).double()


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("by", ["module", "parameters"])
def test_batch_statistics_are_refused_with_a_batch_in_any_term(place, by):
    model = normed()
    before = copy.deepcopy(list(model.parameters()))
    x = torch.randn(9, 1, dtype=F64)
    opt = LevenbergMarquardt(model if by == "module" else model.parameters())
    terms = [(lambda: model(x) - 1,), (lambda: model(x) + 1,)]
    terms[place] = (lambda x: model(x) - 1, x)
    with pytest.raises(InputError, match="BatchNorm"):
        opt.step(*terms)
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("acceleration", [False, True])
def test_buffers_see_one_forward_pass_of_each_term(acceleration):
    model, twin = normed(), normed()
    a, b = torch.randn(9, 1, dtype=F64), torch.randn(4, 1, dtype=F64)
    opt = LevenbergMarquardt(model, acceleration=acceleration)
    for count in (1, 2):
        twin.load_state_dict(model.state_dict())
        opt.step((lambda: model(a) - 1,), (lambda: model(b) + 1,))
        twin(a)
        twin(b)
        assert model[1].num_batches_tracked == 2 * count
        torch.testing.assert_close(model[1].running_mean, twin[1].running_mean)
        torch.testing.assert_close(model[1].running_var, twin[1].running_var)


# ---- sources of derivatives, streams and plans ---------------------------------------------------


class OldTanh(torch.autograd.Function):
    """As everyone wrote it before torch 2.0: torch.func refuses it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.tanh())
        return x.tanh()

    @staticmethod
    def backward(ctx, w):
        (y,) = ctx.saved_tensors
        return (1 - y * y) * w


def test_a_term_whose_model_is_refused_falls_back_alone(capsys):
    one, other = Poisson(), Poisson()
    old = lambda x: OldTanh.apply(one.model[0](x)).sum(1)
    with pytest.warns(FallbackWarning, match="does not work for this model"):
        one.opt.step((one.equation, one.inside), (lambda: old(one.x),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one.opt.step((one.equation, one.inside), (lambda: old(one.x),))
    for _ in range(2):
        other.opt.step(
            lambda: (other.equation(other.inside), other.model[0](other.x).tanh().sum(1))
        )
    torch.testing.assert_close(one.flat(), other.flat(), rtol=1e-8, atol=1e-8)
    assert re.fullmatch(r"LayerWise\(chunk=\d+\), Autograd\(.*\)", one.opt.report.jacobian)
    one.opt.explain()
    table = capsys.readouterr().out.splitlines()
    first, second, chunk = (
        next(line for line in table if line.startswith(word))
        for word in ("jacobian 1", "jacobian 2", "chunk 1")
    )
    assert "LayerWise" in first
    # what serves now
    assert re.match(r"jacobian 2 +Autograd\(.*in the place of LayerWise\(", second)
    assert "of 31 samples" in chunk
    refused = [line for line in table if line.startswith("refused")]
    assert [re.match(r"refused +(\w+)\(", line)[1] for line in refused] == ["LayerWise", "Reverse"]
    assert not any(line.startswith("chunk 2") for line in table)


def test_terms_stream_in_chunks_with_the_same_result():
    narrow = Poisson(memory_limit=170_000, solver="cholesky")
    wide, largest = Poisson(solver="cholesky"), {"equation": 0, "data": 0}
    for fit in (narrow, wide):
        fit.inside = torch.linspace(0.05, 0.95, 500, dtype=F64)[:, None]
        fit.x = torch.linspace(0.3, 0.7, 300, dtype=F64)[:, None]
        fit.y = 1 + 0.1 * torch.cos(5 * fit.x)

    def equation(x):
        largest["equation"] = max(largest["equation"], len(x))
        return narrow.equation(x)

    def data(x, y):
        largest["data"] = max(largest["data"], len(x))
        return narrow.data(x, y)

    for _ in range(3):
        narrow.opt.step((equation, narrow.inside), (data, narrow.x, narrow.y))
        wide.opt.step((wide.equation, wide.inside), (wide.data, wide.x, wide.y))
    assert 1 <= largest["equation"] < 500
    assert 1 <= largest["data"] < 300
    torch.testing.assert_close(narrow.flat(), wide.flat(), rtol=1e-9, atol=1e-9)


def test_the_number_of_samples_may_change_from_step_to_step():
    one, other = Poisson(), Poisson()
    for seed, (inside, edge) in enumerate(
        [(31, 2), (40, 2), (31, 1), (5, 9), (31, 2), *((k, 2) for k in range(6, 26))]
    ):
        torch.manual_seed(seed)
        for fit in (one, other):
            torch.manual_seed(seed)
            fit.inside = torch.rand(inside, 1, dtype=F64)
            fit.edge = torch.rand(edge, 1, dtype=F64)
        expected = one.loss()
        if seed < 5:
            same_steps(one, other, steps=1)
        else:
            assert one.opt.step(*one.terms()).item() == pytest.approx(expected, rel=1e-12)


def test_points_drawn_anew_inside_the_step_call_reach_the_terms():
    fit = Poisson()
    seen = []

    def equation(x):
        seen.append(x)
        return fit.equation(x)

    for _ in range(3):
        points = torch.rand(11, 1, dtype=F64)
        seen.clear()
        fit.opt.step((equation, points), fit.terms()[1])
        whole = [
            x.detach()
            for x in seen
            if len(x) == 11 and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        ]
        assert whole
        assert all(torch.equal(x, points) for x in whole)


def test_terms_may_be_the_same_code_on_other_shapes():
    def make(fit, factor, copies):
        return lambda x: factor * fit.model(x).repeat(1, copies)

    one, other = Poisson(), Poisson()
    for copies in (1, 2, 3):  # of one code, whose rows are remembered under its name
        loss = one.opt.step((make(one, 1, 1), one.x), (make(one, 2, copies), one.x))
        expected = other.opt.step(
            lambda k=copies: (make(other, 1, 1)(other.x), make(other, 2, k)(other.x)),
        )
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(one.flat(), other.flat(), rtol=1e-8, atol=1e-8)


def test_terms_may_come_and_go():
    one, other = Poisson(), Poisson()
    for chosen in ([0, 1], [0, 1, 2, 3], [2], [0, 1]):
        one.opt.step(*[one.terms()[i] for i in chosen])
        other.opt.step(
            lambda chosen=chosen: tuple(other.terms()[i][0](*other.terms()[i][1:]) for i in chosen)
        )
        torch.testing.assert_close(one.flat(), other.flat(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "options", [{}, {"acceleration": False, "solver": "cholesky"}, {"loss": "huber"}], ids=str
)
def test_a_resumed_training_on_terms_is_the_same_bit_for_bit(options):
    through, first, second = (Poisson(**options) for _ in range(3))
    expected = [through.opt.step(*through.terms()).item() for _ in range(6)]
    assert [first.opt.step(*first.terms()).item() for _ in range(3)] == expected[:3]
    stored = io.BytesIO()
    torch.save({"model": first.model.state_dict(), "opt": first.opt.state_dict()}, stored)
    stored.seek(0)
    loaded = torch.load(stored, weights_only=True)
    second.model.load_state_dict(loaded["model"])
    second.opt.load_state_dict(loaded["opt"])
    assert [second.opt.step(*second.terms()).item() for _ in range(3)] == expected[3:]
    assert torch.equal(second.flat(), through.flat())


# ---- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_nan_in_one_term_leaves_the_parameters_and_says_so(place):
    fit = Poisson()
    fit.opt.step(*fit.terms())
    before, kept = fit.flat(), copy.deepcopy(fit.opt.state_dict()["state"])
    (fit.inside, fit.edge, fit.y)[place][1] = torch.nan
    where = rf"residuals of term {min(place, 1) + 1} of 1 of" if place < 2 else "the step was not"
    with pytest.warns(UserWarning, match=where):
        loss = fit.opt.step(*fit.terms())
    assert fit.opt.status == Status.NOT_FINITE
    assert not loss.isfinite()
    assert torch.equal(fit.flat(), before)
    after = fit.opt.state_dict()["state"]
    assert torch.equal(after[0]["scale"], kept[0]["scale"])
    assert after[0]["damping"]["damping"] == kept[0]["damping"]["damping"]
    (fit.inside, fit.edge, fit.y)[place][1] = 0.5
    fit.opt.step(*fit.terms())
    assert fit.opt.report.accepted


def test_an_exception_in_one_term_is_raised_and_leaves_the_parameters():
    fit = Poisson()
    before = fit.flat()

    def broken(x):
        if len(x) > 1:
            raise KeyError("mine")
        return fit.model(x)

    with pytest.raises(KeyError, match="mine"):
        fit.opt.step(fit.terms()[0], (broken, fit.x))
    assert torch.equal(fit.flat(), before)


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        (lambda f: [(f.equation, f.inside), (f.x, f.y)], "needs a closure.*got Tensor"),
        (lambda f: [(f.equation, f.inside), f.x], "needs a closure.*got Tensor"),
        (lambda f: [(f.equation, f.inside), ()], "needs a closure.*got an empty term"),
        (lambda f: [(), (f.equation, f.inside)], "needs a closure.*got an empty term"),
        (lambda f: [[f.terms()[0], f.terms()[1]]],
            "needs a closure.*got tuple.*each a closure followed by its batch"),
        (lambda f: [(f.equation, f.inside), None], "needs a closure.*got NoneType"),
        (lambda f: [f.small, (f.condition, f.edge)],
            "followed by its batch, and here by another closure or term"),
        (lambda f: [f.small, (f.small, f.small)],
            "followed by its batch, and here by another closure or term"),
        (lambda f: [f.small, f.small],
            "followed by its batch, and here by another closure or term"),
        (lambda f: [(f.small, f.small)],
            "followed by its batch, and here by another closure or term"),
        (lambda f: [f.equation, f.inside, f.condition, f.edge],
            "followed by its batch, and here by another closure or term"),
        (lambda f: [(f.equation, f.inside, (f.small,))],
            "followed by its batch, and here by another closure or term"),
        (lambda f: [(f.equation, f.inside), (f.data, f.x, f.y[:3])],
            r"disagree on the number of samples.*\[7, 3\]"),
        (lambda f: [(f.equation, f.inside), (f.condition, f.edge[:0])], "no samples"),
        (lambda f: [(f.equation, f.inside), (f.condition, 1.0)],
            "no tensor with a dimension for the samples"),
        (lambda f: [f.terms()[0], (lambda x: f.model(x).sum(0), f.x)],
            "no dimension for the samples"),
        (lambda f: [f.terms()[0], (lambda x: f.model(x).mean(), f.x)], "single number"),
        (lambda f: [f.terms()[0], (lambda: f.model(f.x).mean(),)], "single number"),
        (lambda f: [f.terms()[0], (lambda: None,)], "returned nothing"),
        (lambda f: [f.terms()[0], (lambda: f.model(f.x)[:0],)], "no residuals: m = 0"),
        (lambda f: [f.terms()[0], (lambda x: x - 1, f.x)], "do not depend on any parameter"),
        (lambda f: [f.terms()[0], (lambda x: f.model(x) - f.model(x).mean(), f.x)],
            "not independent per sample"),
    ],
)  # fmt: skip
def test_terms_that_cannot_serve_are_refused_with_advice(terms, says):
    fit = Poisson()
    before = fit.flat()
    with pytest.raises(InputError, match=f"(?s){says}"):
        fit.opt.step(*terms(fit))
    assert torch.equal(fit.flat(), before)


def test_a_function_may_be_among_the_constants_of_a_batch():
    one, other = Poisson(), Poisson()
    one.opt.step(lambda x, f: f(one.model(x)), one.x, torch.tanh)
    other.opt.step(lambda x: torch.tanh(other.model(x)), other.x)
    assert torch.equal(one.flat(), other.flat())
