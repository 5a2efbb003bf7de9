"""Mini-batches: what is carried over, what is drawn anew, what is refused."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lmtorch import FallbackWarning, InputError, LevenbergMarquardt

F64 = torch.float64


def network(device, *extra):
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(2, 6), nn.Tanh(), *extra, nn.Linear(6, 1)).to(device, F64)


def data(device, rows=200):
    torch.manual_seed(4)
    x = torch.randn(rows, 2, dtype=F64, device=device)
    return x, (x[:, :1] - x[:, 1:]).sin()


@pytest.mark.parametrize("damping", ["nielsen", "marquardt", "trust_region"])
def test_the_damping_is_carried_from_batch_to_batch(damping, device):
    model = network(device)
    x, y = data(device)
    opt = LevenbergMarquardt(model, damping=damping)
    opt.step(lambda x, y: model(x) - y, x[:100], y[:100])
    kept = {name: v.clone() for name, v in next(iter(opt.state.values()))["damping"].items()}
    other = LevenbergMarquardt(model, damping=damping)
    opt.step(lambda x, y: model(x) - y, x[100:], y[100:])
    if damping != "trust_region":  # whose first λ follows from the radius
        assert opt.report.trials > 1 or opt.report.damping == pytest.approx(kept["damping"].item())
    assert not other.state


def test_each_step_linearises_and_tries_on_its_own_batch(device):
    model = network(device)
    x, y = data(device)
    opt = LevenbergMarquardt(model)
    for rows in (slice(0, 50), slice(50, 120), slice(120, 200), slice(0, 50)):
        a, b = x[rows], y[rows]
        before = (model(a) - b).square().sum().item() / 2
        loss = opt.step(lambda x, y: model(x) - y, a, b)
        after = (model(a) - b).square().sum().item() / 2
        assert loss.item() == pytest.approx(before, rel=1e-12)
        assert opt.report.loss_after == pytest.approx(after, rel=1e-12)
        assert after < before


def test_opaque_and_per_sample_steps_are_the_same(device):
    one, two = network(device), network(device)
    x, y = data(device)
    first, second = LevenbergMarquardt(one), LevenbergMarquardt(two)
    for _ in range(4):
        a = first.step(lambda: one(x) - y)
        b = second.step(lambda x, y: two(x) - y, x, y)
        torch.testing.assert_close(a, b, rtol=1e-7, atol=0)


@pytest.mark.parametrize("structure", ["dict", "list", "flag"])
def test_a_batch_may_have_structure(structure, device):
    model = network(device)
    x, y = data(device)
    opt = LevenbergMarquardt(model)
    if structure == "dict":
        opt.step(lambda b: model(b["x"]) - b["y"], {"x": x, "y": y})
    elif structure == "list":
        opt.step(lambda b: model(b[0]) - b[1], [x, y])
    else:
        opt.step(lambda x, y, sign: sign * (model(x) - y), x, y, -1.0)
    assert opt.report.accepted


class Masked(nn.Module):
    """Dropout that remembers its masks."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        mask = F.dropout(torch.ones_like(x))
        if not torch._C._functorch.is_functorch_wrapped_tensor(mask):
            self.seen.append(mask.detach().clone())
        return x * mask


@pytest.mark.parametrize("by", ["module", "parameters"])
def test_the_mask_is_the_same_within_a_step_and_new_in_the_next(by, device):
    masked = Masked()
    model = network(device, masked)
    x, y = data(device, 20)
    opt = LevenbergMarquardt(model if by == "module" else model.parameters(), jacobian="autograd")
    masks = []
    for _ in range(3):
        masked.seen.clear()
        opt.step(lambda: model(x) - y)
        assert len(masked.seen) >= 2
        assert all(torch.equal(mask, masked.seen[0]) for mask in masked.seen)
        masks.append(masked.seen[0])
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[1], masks[2])


OPTIONS = {
    "default": {},
    "forward": {"jacobian": "forward"},
    "autograd": {"jacobian": "autograd"},
    "streamed": {"solver": "cholesky", "memory_limit": 40_000},
    "sampled": {"curvature": "sampled", "solver": "cholesky"},
}


@pytest.mark.parametrize(
    # an opaque closure does not stream; an estimated curvature promises otherwise: the next test
    (
        "name",
        "batch",
    ),
    [*product(("default", "forward", "autograd"), (False, True)), ("streamed", True)],
)
def test_with_dropout_a_linear_model_gains_exactly_what_was_promised(name, batch, device):
    # residuals are linear in the weights for a fixed mask, so any other mask at the
    # trial spoils the gain ratio
    torch.manual_seed(6)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 1)).to(device, F64)
    x = torch.randn(60, 5, dtype=F64, device=device)
    y = x.sum(1, keepdim=True)
    opt = LevenbergMarquardt(model, **OPTIONS[name])
    if device.type == "cuda" and name == "forward":
        # a GPU draws other masks within torch.func than outside, which is found out and said
        with pytest.warns(FallbackWarning, match="draws other random numbers"):
            step_of(opt, model, x, y, batch)
    for _ in range(4):
        step_of(opt, model, x, y, batch)
        assert opt.report.gain_ratio == pytest.approx(1, abs=1e-6)


def step_of(opt, model, x, y, batch):
    """One step on the batch, or on a closure that knows it."""
    opt.step(lambda x, y: model(x) - y, x, y) if batch else opt.step(lambda: model(x) - y)


def test_with_dropout_and_sampled_curvature_the_gradient_and_trials_see_one_mask(device):
    torch.manual_seed(6)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 1)).to(device, F64)
    x = torch.randn(400, 5, dtype=F64, device=device)
    y = x.sum(1, keepdim=True)
    opt = LevenbergMarquardt(model, curvature="sampled", damping="nielsen", lr=torch.tensor(1e-4))
    opt.step(lambda x, y: model(x) - y, x, y)
    # so short a step gains its slope, whatever the curvature; another mask changes the
    # loss by percents of itself
    assert opt.report.trials == 1
    assert opt.report.gain_ratio == pytest.approx(1, abs=1e-3)


def test_a_step_leaves_the_generator_as_one_evaluation_would(device):
    torch.manual_seed(6)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 1)).to(device, F64)
    x = torch.randn(60, 5, dtype=F64, device=device)
    opt = LevenbergMarquardt(model, jacobian="autograd")
    gpus = [device] if device.type == "cuda" else []
    for _ in range(2):
        with torch.random.fork_rng(gpus):
            model(x)
            expected = torch.rand(3, device=device)
        opt.step(lambda: model(x) - 1)
        assert torch.equal(torch.rand(3, device=device), expected)


@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_closure_that_raises_leaves_the_generator_where_it_was(batch, at, device):
    # evaluations are a probe, a linearization and a trial; each draws a mask
    # before the closure fails
    torch.manual_seed(6)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 1)).to(device, F64)
    x = torch.randn(60, 5, dtype=F64, device=device)
    opt = LevenbergMarquardt(model, jacobian="forward")
    evaluations = 0

    def closure(x):
        nonlocal evaluations
        evaluations += len(x) == 60
        residual = model(x) - 1
        if len(x) == 60 and evaluations >= at:
            raise KeyboardInterrupt
        return residual

    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        expected = torch.rand(3, device=device)
    with pytest.raises(KeyboardInterrupt):
        opt.step(closure, x) if batch else opt.step(lambda: closure(x))
    assert torch.equal(torch.rand(3, device=device), expected)


@pytest.mark.parametrize("by", ["module", "parameters"])
def test_batch_statistics_are_refused_per_sample(by, device):
    model = network(device, nn.BatchNorm1d(6))
    x, y = data(device)
    before = [p.clone() for p in model.parameters()]
    opt = LevenbergMarquardt(model if by == "module" else model.parameters())
    with pytest.raises(InputError, match="BatchNorm"):
        opt.step(lambda x, y: model(x) - y, x, y)
    assert all(map(torch.equal, before, model.parameters()))
    model.eval()
    opt.step(lambda x, y: model(x) - y, x, y)
    assert opt.report.accepted


def test_batch_statistics_are_refused_also_where_training_begins_after_a_step(device):
    model = network(device, nn.BatchNorm1d(6)).eval()
    x, y = data(device)
    opt = LevenbergMarquardt(model)
    closure = lambda x, y: model(x) - y
    opt.step(closure, x, y)
    model.train()
    before = [p.clone() for p in (*model.parameters(), *model.buffers())]
    with pytest.raises(InputError, match="BatchNorm"):
        opt.step(closure, x, y)
    assert all(map(torch.equal, before, (*model.parameters(), *model.buffers())))


@pytest.mark.parametrize("batch", [True, False])
def test_a_group_of_one_value_is_not_said_of_the_batch(batch, device):
    # torch has the same words for it as for a batch norm that is given a single sample
    model = network(device, nn.GroupNorm(6, 6))
    x, y = data(device)
    closure = (lambda x, y: model(x) - y) if batch else (lambda: model(x[:1]) - y[:1])
    with pytest.raises(InputError, match="GroupNorm has groups of a single value") as refused:
        LevenbergMarquardt(model).step(closure, *((x, y) if batch else ()))
    assert "BatchNorm" not in str(refused.value)


def test_residuals_that_couple_samples_are_refused(device):
    model = network(device)
    x, y = data(device)
    with pytest.raises(InputError, match="not independent"):
        LevenbergMarquardt(model).step(lambda x, y: (model(x) - model(x).mean()) - y, x, y)


def test_sampled_curvature_reaches_the_minimum_of_the_full_one(device):
    torch.manual_seed(8)
    t = torch.rand(2000, 1, dtype=F64, device=device) * 4
    y = 2.5 * torch.exp(-1.3 * t) + 0.1 + 0.01 * torch.randn_like(t)
    found = []
    for curvature in ("full", "sampled"):
        theta = torch.ones(3, dtype=F64, device=device, requires_grad=True)
        opt = LevenbergMarquardt([theta], curvature=curvature, solver="cholesky")
        for _ in range(60):
            opt.step(lambda t, y, b=theta: b[0] * torch.exp(-b[1] * t) + b[2] - y, t, y)
            if opt.status.final:
                break
        found.append(theta.detach())
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_sampled_curvature_draws_the_same_samples_for_the_same_seed(device):
    def run(seed):
        model = network(device)
        x, y = data(device)
        opt = LevenbergMarquardt(model, curvature="sampled", seed=seed)
        return [opt.step(lambda x, y: model(x) - y, x, y).item() for _ in range(4)]

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_sampled_curvature_draws_other_rows_in_each_step(device):
    t = torch.linspace(0, 4, 200, dtype=F64, device=device)
    theta = torch.ones(2, dtype=F64, device=device, requires_grad=True)
    opt = LevenbergMarquardt([theta], curvature="sampled", jacobian="forward")
    seen = set()

    def closure(t):
        if len(t) == 20:  # the share is a tenth, cost and gradient are of all
            seen.add(tuple(t.tolist()))
        return theta[0] * torch.exp(-theta[1] * t) - torch.exp(-2 * t)

    for step in range(1, 4):
        opt.step(closure, t)
        assert len(seen) == step
    assert all(len(set(rows)) == 20 for rows in seen)


def test_the_sample_doubles_while_its_curvature_promises_too_much(device):
    # a Jacobian of next to nothing makes every step far too long, and the first of each is refused
    t = torch.ones(200, dtype=F64, device=device)
    theta = torch.ones(1, dtype=F64, device=device, requires_grad=True)
    sizes = []

    def tiny(t):
        sizes.append(len(t))
        return 1e-6 * t[:, None]

    opt = LevenbergMarquardt(
        [theta], curvature="sampled", jacobian=tiny, damping="nielsen", max_trials=1
    )
    for _ in range(6):
        opt.step(lambda t: theta * t - 2, t)
        assert not opt.report.accepted
    assert sizes == [20, 40, 80, 160, 200, 200]


def test_the_sample_stays_while_its_curvature_serves(device):
    t = torch.linspace(1, 2, 200, dtype=F64, device=device)
    theta = torch.zeros(1, dtype=F64, device=device, requires_grad=True)
    sizes = []

    def slope(t):
        sizes.append(len(t))
        return t[:, None]

    opt = LevenbergMarquardt([theta], curvature="sampled", jacobian=slope, damping="nielsen")
    for _ in range(3):
        opt.step(lambda t: theta * t - 2, t)
    assert sizes == [20, 20, 20]


def test_sampled_curvature_needs_samples():
    model = network("cpu")
    x, y = data("cpu")
    with pytest.raises(InputError, match="sampled"):
        LevenbergMarquardt(model, curvature="sampled").step(lambda: model(x) - y)


class Old(torch.autograd.Function):
    """No vmap, no forward mode: torch.func refuses it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].cos()


def test_a_fallback_warns_once_for_each_optimizer(device):
    model = network(device)
    x, y = data(device, 90)
    opt = LevenbergMarquardt(model, jacobian="reverse")

    def train():
        for rows in (90, 60, 30):  # other shapes are planned anew
            opt.step(lambda x, y: Old.apply(model(x)) - y, x[:rows], y[:rows])
            opt.step(lambda rows=rows: Old.apply(model(x[:rows])) - y[:rows])

    with pytest.warns(FallbackWarning, match="does not work") as caught:
        train()
    assert len([w for w in caught if w.category is FallbackWarning]) == 1
    assert opt.report.accepted
    assert opt.report.jacobian.startswith("Autograd")


def test_explain_prints_the_choice_with_its_numbers(capsys, device):
    model = network(device)
    x, y = data(device)
    opt = LevenbergMarquardt(model)
    opt.explain()
    assert "nothing is chosen yet" in capsys.readouterr().out
    opt.step(lambda x, y: model(x) - y, x, y)
    opt.explain()
    text = capsys.readouterr().out
    for word in (
        "n = 25, m = 200",
        "200 independent samples",
        "SVD",
        "TrustRegion",
        "More",
        "jacobian",
        "VJP",
        "KiB",
    ):
        assert word in text


@pytest.mark.parametrize("seed", range(8))
def test_targets_finer_than_the_model_are_no_coupling_of_samples(seed):
    # a float32 model sums a batch of two in another order than one sample, and its
    # round-off is that of float32
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(40, 300), nn.Tanh(), nn.Linear(300, 1))
    x, y = torch.randn(50, 40), torch.randn(50, 1, dtype=F64)
    opt = LevenbergMarquardt(model)
    with torch.no_grad():
        expected = (model(x) - y).square().sum() / 2
    torch.testing.assert_close(opt.step(lambda x, y: model(x) - y, x, y), expected)
    assert opt.report.accepted
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_a_model_in_half_precision_inside_is_no_coupling_of_samples():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 300), nn.Tanh(), nn.Linear(300, 1))
    x, y = torch.randn(50, 40), torch.randn(50, 1)

    def closure(x, y):
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
        return out.float() - y

    opt = LevenbergMarquardt(model)
    opt.step(closure, x, y)
    assert opt.report.accepted


@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
def test_a_column_less_a_vector_is_told(batch):
    torch.manual_seed(0)
    model = nn.Linear(2, 1).to(F64)
    x, y = torch.randn(12, 2, dtype=F64), torch.randn(12, dtype=F64)
    opt = LevenbergMarquardt(model)
    if batch:
        with pytest.raises(InputError, match=r"A column \(n, 1\) less a vector"):
            opt.step(lambda x, y: model(x) - y, x, y)
    else:
        with pytest.warns(UserWarning, match=r"12 x 12, made of a column \(12, 1\) and a vector"):
            opt.step(lambda: model(x) - y)


def test_pairs_of_points_are_residuals_like_others():
    points = torch.linspace(0, 1, 6, dtype=F64)
    theta = nn.Parameter(torch.ones(1, dtype=F64))
    LevenbergMarquardt([theta]).step(lambda: theta * (points[:, None] - points[None, :]) - 1)


@pytest.mark.parametrize("place", [0, 1])
def test_arrays_in_the_batch_are_refused_by_name_of_what_to_do(place):
    model = nn.Linear(2, 1).to(F64)
    batch = [torch.randn(12, 2, dtype=F64), torch.randn(12, 1, dtype=F64)]
    batch[place] = batch[place].numpy()
    with pytest.raises(InputError, match=r"torch\.as_tensor"):
        LevenbergMarquardt(model).step(
            lambda x, y: model(torch.as_tensor(x)) - torch.as_tensor(y), *batch
        )


def test_a_sampled_curvature_may_begin_at_a_rate_of_zero():
    t = torch.ones(200, dtype=F64)
    theta = torch.ones(1, dtype=F64, requires_grad=True)
    opt = LevenbergMarquardt(
        [theta], lr=0.0, curvature="sampled", damping="nielsen", solver="cholesky"
    )
    for _ in range(2):
        opt.step(lambda t: (theta * t).exp() - 9, t)
    assert theta.item() == 1
