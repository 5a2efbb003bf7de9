"""States, copies and everything else that torch expects of every optimizer."""

import copy
import io
import pickle
from itertools import permutations, product

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint import FileSystemWriter, load, save
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from lmtorch import InputError, LevenbergMarquardt, Status
from lmtorch.damping.marquardt import Marquardt
from lmtorch.damping.nielsen import Nielsen
from lmtorch.damping.trust_region import TrustRegion

from .. import stand_in

F64 = torch.float64


class Training:
    """A small network on batches, the same for the same seed."""

    def __init__(self, device, dtype=torch.float32, **options):
        torch.manual_seed(11)
        self.model = nn.Sequential(
            nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)
        )
        self.model = self.model.to(device, dtype)
        self.x = torch.randn(96, 2).to(device, dtype)
        self.y = (self.x[:, :1] * self.x[:, 1:]).sin()
        self.opt = LevenbergMarquardt(self.model, **options)

    def step(self, k):
        rows = slice(24 * (k % 4), 24 * (k % 4) + 24)
        return self.opt.step(lambda x, y: self.model(x) - y, self.x[rows], self.y[rows])

    def run(self, start, stop):
        return [self.step(k).item() for k in range(start, stop)]

    def flat(self):
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


OPTIONS = {
    "default": {},
    "trust region": {"damping": "trust_region", "scaling": "more"},
    "marquardt": {"damping": "marquardt", "scaling": "marquardt"},
    "dual": {"solver": "dual"},
    "accelerated": {"acceleration": True},
    "penalty": {"weight_decay": 1e-3},
    "sampled": {"curvature": "sampled", "solver": "cholesky"},
}


@pytest.mark.parametrize(
    ("name", "dtype"),  # second derivatives of bfloat16 carry no digits
    [
        *product(OPTIONS, [torch.float32]),
        *((name, (F64, torch.bfloat16)[place % 2]) for place, name in enumerate(OPTIONS)),
    ],
    ids=str,
)
def test_a_resumed_training_is_the_same_bit_for_bit(name, dtype, device):
    options = OPTIONS[name]
    through, first, second = (Training(device, dtype, **options) for _ in range(3))
    expected = through.run(0, 8)

    assert first.run(0, 4) == expected[:4]
    stored = io.BytesIO()
    torch.save({"model": first.model.state_dict(), "opt": first.opt.state_dict()}, stored)
    stored.seek(0)
    loaded = torch.load(stored, weights_only=True)
    second.model.load_state_dict(loaded["model"])
    second.opt.load_state_dict(loaded["opt"])

    assert second.run(4, 8) == expected[4:]
    assert torch.equal(second.flat(), through.flat())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_damping_keeps_its_precision_under_parameters_of_lower(dtype, device):
    training = Training(device, dtype)
    training.step(0)
    kept = next(iter(training.opt.state.values()))
    kept["damping"]["damping"].fill_(1e-30)  # zero in float16
    fresh = Training(device, dtype)
    fresh.opt.load_state_dict(training.opt.state_dict())
    loaded = next(iter(fresh.opt.state.values()))["damping"]
    assert loaded["damping"].dtype == F64
    assert loaded["damping"].item() == 1e-30


KINDS = [Nielsen(), TrustRegion(), Marquardt(), Nielsen(0.1)]


@pytest.mark.parametrize(("saved", "own"), [*permutations(KINDS, 2)], ids=repr)
def test_a_state_saved_under_one_damping_loads_under_another_which_begins_afresh(
    saved, own, device
):
    before = Training(device, damping=saved, scaling="levenberg")
    before.run(0, 3)
    fresh, loaded = (Training(device, damping=own, scaling="levenberg") for _ in range(2))
    loaded.opt.load_state_dict(before.opt.state_dict())
    assert loaded.run(0, 3) == fresh.run(0, 3)
    assert torch.equal(loaded.flat(), fresh.flat())


@pytest.mark.parametrize("field", ["damping", "one that was there once"])
def test_a_damping_that_was_kept_with_other_fields_begins_afresh(field, device):
    training = Training(device)
    training.run(0, 3)
    lambdas = []
    for change in (lambda kept: kept.pop("damping"), lambda kept: kept["damping"].pop(field, None)):
        state = copy.deepcopy(training.opt.state_dict())
        state["state"][0]["damping"]["one that was there once"] = torch.ones(())
        change(state["state"][0])
        fresh = Training(device)
        fresh.model.load_state_dict(training.model.state_dict())
        fresh.opt.load_state_dict(state)
        fresh.step(3)
        lambdas.append(fresh.opt.report.damping)
    training.step(3)
    if field == "damping":
        assert lambdas[0] == lambdas[1] != training.opt.report.damping
    else:  # and one with the right fields goes on
        assert lambdas[0] != lambdas[1] == training.opt.report.damping


def test_a_loaded_state_says_nothing_of_the_data_of_the_step_before(device):
    training = Training(device)
    training.run(0, 2)
    state = training.opt.state_dict()
    training.y[:] = float("nan")
    with pytest.warns(UserWarning, match="the step was not taken"):
        training.step(2)
    assert training.opt.status is Status.NOT_FINITE
    training.opt.load_state_dict(state)
    assert training.opt.status is Status.RUNNING
    assert training.opt.report is None


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_the_last_step_that_was_kept_is_in_the_state_of_each_parameter(device):
    training = Training(device, F64, max_trials=1)
    before, kept = training.flat(), []
    for k in range(6):
        training.step(k)
        after = training.flat()
        kept.append(training.opt.report.accepted)
        step = torch.cat(
            [training.opt.state[p]["last_step"].flatten() for p in training.model.parameters()]
        )
        if kept[-1]:
            torch.testing.assert_close(step, after - before)
            last = step
        elif any(kept):
            assert torch.equal(step, last)
        before = after
    assert kept.count(True) >= 2


def test_what_does_not_fit_a_parameter_any_more_is_forgotten():
    x = torch.linspace(-1, 1, 20, dtype=F64)[:, None]
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).to(F64)
    opt = LevenbergMarquardt(net)
    for _ in range(3):
        opt.step(lambda: net(x) - x.sin())
    with torch.no_grad():  # the layer is made wider in its place
        net[0].weight.data = torch.randn(6, 1, dtype=F64)
        net[0].bias.data = torch.randn(6, dtype=F64)
        net[2].weight.data = torch.randn(1, 6, dtype=F64)
    before = net[2].bias.detach().clone()
    opt.step(lambda: net(x) - x.sin())
    assert opt.report.accepted
    assert opt.state[net[0].weight]["last_step"].shape == (6, 1)
    torch.testing.assert_close(opt.state[net[2].bias]["last_step"], net[2].bias - before)


def test_the_state_dict_is_deterministic_and_survives_a_round_trip(device):
    one, two, fresh = (Training(device) for _ in range(3))
    one.run(0, 3)
    two.run(0, 3)
    assert same(one.opt.state_dict(), two.opt.state_dict())
    fresh.opt.load_state_dict(one.opt.state_dict())
    assert same(fresh.opt.state_dict(), one.opt.state_dict())


def test_loading_leaves_the_given_state_dict_alone(device):
    training, fresh = Training(device), Training(device)
    training.run(0, 2)
    state = training.opt.state_dict()
    held = copy.deepcopy(state)
    fresh.opt.load_state_dict(state)
    fresh.run(2, 4)
    assert same(state, held)


def test_a_state_dict_of_other_groups_is_refused_as_in_torch():
    training = Training("cpu")
    other = LevenbergMarquardt([torch.ones(1, requires_grad=True)])
    with pytest.raises(ValueError, match=r"size of optimizer's group|different number"):
        other.load_state_dict(training.opt.state_dict())


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("steps", [0, 2])
def test_a_copy_goes_the_same_way_on_parameters_of_its_own(clone, steps, device):
    training = Training(device)
    training.run(0, steps)
    twin = copy.copy(training)
    twin.model, twin.opt = clone((training.model, training.opt))
    assert next(twin.model.parameters()) is twin.opt.param_groups[0]["params"][0]
    assert training.run(steps, steps + 3) == twin.run(steps, steps + 3)
    assert torch.equal(training.flat(), twin.flat())


def test_the_optimizer_alone_can_be_copied(device):
    training = Training(device)
    training.run(0, 2)
    twin = copy.deepcopy(training.opt)
    before = training.flat()
    model = twin._module
    twin.step(lambda x, y: model(x) - y, training.x, training.y)
    assert torch.equal(training.flat(), before)
    assert twin.report.accepted


def test_zero_grad_and_gradients_are_left_to_the_user(device):
    training = Training(device)
    weight = training.model[0].weight
    training.step(0)
    assert weight.grad is None
    weight.grad = torch.ones_like(weight)
    training.step(1)
    assert torch.equal(weight.grad, torch.ones_like(weight))
    training.opt.zero_grad()
    assert weight.grad is None


def test_step_hooks_run_before_and_after(device):
    training = Training(device)
    seen = []
    before = training.flat()
    training.opt.register_step_pre_hook(
        lambda o, a, k: seen.append(("pre", torch.equal(training.flat(), before)))
    )
    training.opt.register_step_post_hook(
        lambda o, a, k: seen.append(("post", torch.equal(training.flat(), before)))
    )
    training.step(0)
    assert seen == [("pre", True), ("post", False)]


def test_state_dict_hooks_run(device):
    training = Training(device)
    seen = []
    training.opt.register_state_dict_post_hook(lambda o, s: seen.append("saved"))
    training.opt.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    training.opt.load_state_dict(training.opt.state_dict())
    assert seen == ["saved", "loaded"]


def test_a_hook_may_change_what_is_loaded(device):
    training, fresh = Training(device), Training(device)
    training.run(0, 2)

    def lower(opt, state):
        state = copy.deepcopy(state)
        state["state"][0]["damping"]["damping"] *= 0.5
        return state

    fresh.opt.register_load_state_dict_pre_hook(lower)
    fresh.opt.load_state_dict(training.opt.state_dict())
    old, new = (
        next(iter(o.state.values()))["damping"]["damping"] for o in (training.opt, fresh.opt)
    )
    assert new == old / 2


def test_no_grad_around_a_step_changes_nothing(device):
    one, two = Training(device), Training(device)
    expected = one.run(0, 3)
    with torch.no_grad():
        assert two.run(0, 3) == expected
    assert torch.equal(one.flat(), two.flat())


def test_the_default_dtype_changes_nothing(device):
    one, two = Training(device), Training(device)
    one.opt.param_groups[0].update(weight_decay=0.1, upper=3.3)
    two.opt.param_groups[0].update(weight_decay=0.1, upper=3.3)
    expected = one.run(0, 3)
    torch.set_default_dtype(F64)
    try:
        assert two.run(0, 3) == expected
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(one.flat(), two.flat())


@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
@pytest.mark.parametrize("outside", [False, True], ids=["in the closure", "around the step"])
def test_autocast_may_be_on(batch, outside, device):
    training = Training(device)
    model, opt, x, y = training.model, training.opt, training.x, training.y

    def closure(x, y):
        with torch.autocast(device.type, torch.bfloat16, enabled=not outside):
            return model(x) - y

    losses = []
    for _ in range(4):
        with torch.autocast(device.type, torch.bfloat16, enabled=outside):
            losses.append(opt.step(closure, x, y) if batch else opt.step(lambda: closure(x, y)))
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert not torch.is_autocast_enabled(device.type)


@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
def test_autocast_is_for_the_model_and_not_for_the_equations(batch, device):
    # in float32 all matrix products would be cast: those of the equations for a step as well
    def trained(outside):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 30), nn.Tanh(), nn.Linear(30, 1)).to(device)
        x = torch.randn(200, 4, device=device)
        y = torch.sin(x.sum(1, keepdim=True))
        opt = LevenbergMarquardt(model, solver="cholesky")

        def closure(x, y):
            with torch.autocast(device.type, torch.bfloat16):
                return model(x) - y

        def plain(x, y):
            return model(x) - y

        chosen = plain if outside else closure
        for _ in range(3):
            with torch.autocast(device.type, torch.bfloat16, enabled=outside):
                opt.step(chosen, x, y) if batch else opt.step(lambda: chosen(x, y))
        return nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(trained(True), trained(False))


@pytest.mark.parametrize("lr", [1.0, torch.tensor(1.0)], ids=["float", "tensor"])
def test_distributed_checkpoints_take_and_give_the_state(lr, device):
    expected = Training(device).run(0, 6)
    first, second = Training(device, lr=lr), Training(device, lr=lr)
    assert first.run(0, 3) == expected[:3]
    state = get_optimizer_state_dict(first.model, first.opt)
    second.model.load_state_dict(first.model.state_dict())
    set_optimizer_state_dict(second.model, second.opt, state)
    assert second.run(3, 6) == expected[3:]


def test_distributed_checkpoints_of_a_fresh_optimizer_change_nothing(device):
    training = Training(device)
    before = training.flat()
    get_optimizer_state_dict(training.model, training.opt, options=StateDictOptions())
    assert torch.equal(training.flat(), before)
    assert training.opt.param_groups[0]["lr"] == 1.0


@pytest.mark.parametrize("steps", [0, 2])
def test_a_step_with_none_for_a_closure_is_harmless(steps, device):
    training, other = Training(device), Training(device)
    training.run(0, steps)
    other.run(0, steps)
    before = training.flat()
    assert training.opt.step(closure=None) is None
    assert torch.equal(training.flat(), before)
    assert training.run(steps, 6) == other.run(steps, 6)


def test_a_step_without_a_closure_is_refused_as_it_would_train_nothing(device):
    training = Training(device)
    (training.model(training.x) - training.y).square().mean().backward()
    with pytest.raises(InputError, match="step\\(\\) needs a closure that returns the residuals"):
        training.opt.step()


def test_a_wrapper_that_passes_none_in_a_first_order_loop_is_refused(device):
    """As AcceleratedOptimizer does: `loss.backward(); optimizer.step()` would train nothing."""
    training = Training(device)
    (training.model(training.x) - training.y).square().mean().backward()
    for _ in range(2):
        with pytest.raises(InputError, match=r"leave out loss\.backward"):
            training.opt.step(None)
    training.opt.zero_grad(set_to_none=False)
    assert training.opt.step(None) is None  # as before a checkpoint, with gradients of zero


def test_a_scaler_of_gradients_is_refused_as_it_would_train_nothing(device):
    training = Training(device)
    scaler = torch.amp.GradScaler(device.type)
    scaler.scale((training.model(training.x) - training.y).square().mean()).backward()
    with pytest.raises(InputError, match="GradScaler"):
        scaler.step(training.opt)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("flattened", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"damping": "nielsen"}, {"damping": "trust_region", "scaling": "more"}], ids=str
)
def test_a_distributed_checkpoint_keeps_the_damping(options, flattened, tmp_path, device):
    if device.type == stand_in.NAME:
        pytest.skip(
            "torch.distributed.checkpoint copies by a device's streams, and the stand-in has none"
        )
    form = StateDictOptions(flatten_optimizer_state_dict=flattened)
    expected = Training(device, **options).run(0, 6)
    first, second = Training(device, **options), Training(device, **options)
    first.run(0, 3)
    # one thread asks any device but the CPU for streams
    writer = FileSystemWriter(tmp_path, thread_count=2)
    save(
        get_optimizer_state_dict(first.model, first.opt, options=form),
        storage_writer=writer,
        no_dist=True,
    )
    template = get_optimizer_state_dict(second.model, second.opt, options=form)
    load(template, checkpoint_id=tmp_path, no_dist=True)
    second.model.load_state_dict(first.model.state_dict())
    set_optimizer_state_dict(second.model, second.opt, template, options=form)
    assert second.run(3, 6) == expected[3:]


def test_the_state_of_another_optimizer_is_refused_and_nothing_is_changed(device):
    training, other = Training(device), Training(device)
    training.run(0, 2)
    for stranger in (
        torch.optim.Adam(other.model.parameters()),
        torch.optim.SGD(other.model.parameters(), lr=0.1),
    ):
        other.model(other.x).sum().backward()
        stranger.step()
        held = copy.deepcopy(training.opt.state_dict())
        with pytest.raises(InputError, match="of another optimizer"):
            training.opt.load_state_dict(stranger.state_dict())
        assert same(training.opt.state_dict(), held)
        training.step(2)


def test_the_state_of_another_model_is_refused_and_nothing_is_changed(device):
    training = Training(device)
    training.run(0, 2)
    smaller = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1)).to(device)
    other = LevenbergMarquardt(smaller)
    held = copy.deepcopy(other.state_dict())
    with pytest.raises(InputError, match="of another model"):
        other.load_state_dict(training.opt.state_dict())
    assert same(other.state_dict(), held)


@pytest.mark.parametrize("option", ["weight_decay", "lower", "upper"])
def test_a_checkpoint_older_than_an_option_has_its_default(option, device):
    through, first, second = (Training(device) for _ in range(3))
    expected = through.run(0, 6)
    first.run(0, 3)
    state = first.opt.state_dict()
    del state["param_groups"][0][option]
    second.model.load_state_dict(first.model.state_dict())
    second.opt.load_state_dict(state)
    assert second.run(3, 6) == expected[3:]


@pytest.mark.parametrize(
    "scheduler", [torch.optim.lr_scheduler.CyclicLR, torch.optim.lr_scheduler.OneCycleLR]
)
def test_schedulers_that_cycle_the_momentum_say_how_to_leave_it_out(scheduler, device):
    rates = {"max_lr": 1.0} | (
        {"base_lr": 0.5} if "Cyclic" in scheduler.__name__ else {"total_steps": 4}
    )
    with pytest.raises(ValueError, match="cycle_momentum"):
        scheduler(Training(device).opt, **rates)
    training = Training(device)
    schedule = scheduler(training.opt, cycle_momentum=False, **rates)
    for k in range(3):
        training.step(k)
        schedule.step()


def test_a_step_may_be_compiled_or_called_in_inference_mode(device):
    if device.type == stand_in.NAME:
        pytest.skip(
            "torch makes no views of wrapped tensors in inference mode, and those of "
            "the stand-in are wrapped"
        )
    plain, compiled, inferred = (Training(device) for _ in range(3))
    expected = plain.run(0, 4)
    step = torch.compile(compiled.opt.step, backend="eager")
    assert [
        step(lambda x, y: compiled.model(x) - y, *rows(compiled, k)).item() for k in range(4)
    ] == expected
    with torch.inference_mode():
        found = [
            inferred.opt.step(
                lambda x, y: inferred.model(x) - y, *(t * 1 for t in rows(inferred, k))
            ).item()
            for k in range(4)
        ]
    assert found == expected
    assert torch.equal(inferred.flat(), plain.flat())


def rows(training, k):
    chosen = slice(24 * (k % 4), 24 * (k % 4) + 24)
    return training.x[chosen], training.y[chosen]


def test_names_of_parameters_are_in_the_state_dict(device):
    training = Training(device)
    assert training.opt.state_dict()["param_groups"][0]["param_names"][0] == "0.weight"


def test_the_optimizer_has_a_repr_with_its_options(device):
    text = repr(Training(device).opt)
    assert text.startswith("LevenbergMarquardt")
    assert "weight_decay" in text
