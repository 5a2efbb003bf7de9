"""`compile=True`: the steps of the plain optimizer, whatever changes between them.

Most tests run what was recorded as torch's operators, without the compiler of inductor, which takes
seconds for each; what is recorded, and when it is used again, is the same. The last ones compile.
"""

import copy
import shutil
import warnings
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmtorch
from lmtorch import FallbackWarning, InputError, LevenbergMarquardt
from lmtorch.compiling import evaluations

from ..derivatives.setting import NewCube

F64 = torch.float64
FACTOR = 1.0  # a global that a closure reads
SHIFT = torch.zeros((), dtype=F64)  # and a tensor


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Records are run as they are; the list has one entry for each."""
    made: list[Any] = []

    def run(graph: Any, given: Any) -> Any:
        made.append(graph)
        return graph

    monkeypatch.setattr(evaluations, "_compiled", run)
    return made


def network(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).to(F64)


def data(count: int = 12, width: int = 2) -> tuple[Tensor, Tensor]:
    x = torch.linspace(-1, 1, count * width, dtype=F64).reshape(count, width)
    return x, (3 * x).sin().sum(1, keepdim=True)


def difference(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return model(x) - y


def refused(optimizer: LevenbergMarquardt) -> bool:
    """Whether anything that was tried could not be compiled, or nothing was tried."""
    return not optimizer._forms.known or any(e.refused for e in optimizer._forms.known.values())


def both(make: Any, steps: int = 3, **options: Any) -> LevenbergMarquardt:
    """Hold the losses of compiled steps to those of plain ones; `make` gives model and step."""
    plain, other = make(), make()
    losses = []
    for (model, step), compiled in ((plain, False), (other, True)):
        optimizer = LevenbergMarquardt(model, compile=compiled, **options)
        losses.append([float(step(optimizer, place)) for place in range(steps)])
    # the same operators in the same order, but for what inductor or a second record reorders
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert losses[0][-1] < losses[0][0]
    return optimizer


def regression() -> tuple[nn.Module, Any]:
    model, (x, y) = network(2, 5, 1), data()
    return model, lambda o, _: o.step(lambda x, y: model(x) - y, x, y)


def whole() -> tuple[nn.Module, Any]:
    model, (x, y) = network(2, 5, 1), data()
    return model, lambda o, _: o.step(lambda: model(x) - y)


def poisson() -> tuple[nn.Module, Any]:
    model, (x, f) = network(2, 20, 1), data(30)
    edge = x[::7] * torch.tensor([0.0, 1.0], dtype=F64)
    terms = (lambda x, f: lmtorch.laplacian(model, x) - f, x, f), (model, edge)
    return model, lambda o, _: o.step(*terms)


def convolution() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    layers = nn.Conv1d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 1)
    model, (x, y) = nn.Sequential(*layers).to(F64), data(10, 6)
    return model, lambda o, _: o.step(lambda x, y: model(x) - y, x[:, None], y)


def recurrent() -> tuple[nn.Module, Any]:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.out = nn.GRU(1, 3, batch_first=True), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.layers(x)[0][:, -1])

    torch.manual_seed(0)
    model, (x, y) = Last().to(F64), data(10, 4)
    return model, lambda o, _: o.step(lambda x, y: model(x) - y, x[..., None], y)


def coupled() -> tuple[nn.Module, Any]:
    model, (x, y) = network(2, 5, 1), data(6)
    mix = torch.linspace(0, 1, 36, dtype=F64).reshape(6, 6)
    return model, lambda o, _: o.step(lambda: mix @ (model(x) - y))


def curve() -> tuple[list[Tensor], Any]:
    theta = torch.ones(2, dtype=F64, requires_grad=True)
    t = torch.linspace(0, 4, 30, dtype=F64)
    return [theta], lambda o, _: o.step(lambda: theta[0] * torch.exp(-theta[1] * t) - 2 / (1 + t))


def groups() -> tuple[list[Any], Any]:
    model, (x, y) = network(2, 5, 1), data()
    scale = torch.ones((), dtype=F64, requires_grad=True)
    params = [{"params": list(model.parameters()), "weight_decay": 1e-3}, {"params": [scale]}]
    return params, lambda o, _: o.step(lambda: scale * model(x) - y)


@pytest.mark.parametrize(
    "make", [regression, whole, poisson, convolution, recurrent, coupled, curve, groups]
)
def test_compiled_steps_are_those_of_the_plain_optimizer(make, recorded):
    assert not refused(both(make))
    assert recorded


@pytest.mark.parametrize("source", ["forward", "reverse", "per_sample", "autograd"])
def test_so_they_are_with_every_source_of_derivatives(source, recorded):
    assert not refused(both(regression, jacobian=source))


def test_so_they_are_with_curvature_from_some_of_the_samples(recorded):
    def many() -> tuple[nn.Module, Any]:
        model, (x, y) = network(2, 12, 1), data(600)
        return model, lambda o, _: o.step(lambda x, y: model(x) - y, x, y)

    assert not refused(both(many, curvature="sampled"))
    assert any("pull" in key[0] for key in both(many, curvature="sampled")._forms.known)


@pytest.mark.parametrize("acceleration", [True, False])
def test_so_they_are_with_acceleration_in_a_small_problem(acceleration, recorded):
    assert not refused(both(curve, acceleration=acceleration))


# ---- what changes between steps --------------------------------------------------------------


class Scaled(nn.Module):
    """Has a number, a buffer and a mode that change what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(2, 5, 1)
        self.factor = 1.0
        self.register_buffer("shift", torch.zeros(1, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        y = self.factor * self.net(x) + self.shift
        return 2 * y if self.training else y


def batch(place: int) -> tuple[Tensor, Tensor]:
    x, y = data()
    return x + 0.1 * place, y * (1 + place)


def new_tensors(model, box, place):
    x, y = batch(place)
    return lambda: model(x) - y


def written_tensors(model, box, place):
    x, y = batch(place)
    box.x.copy_(x)
    box.y.copy_(y)
    return lambda: model(box.x) - box.y


def tensors_in_a_list(model, box, place):
    box.list[:] = batch(place)
    return lambda: model(box.list[0]) - box.list[1]


def a_number(model, box, place):
    factor, (x, y) = 1.0 + (place > 1), batch(0)
    return lambda: factor * model(x) - y


def an_attribute(model, box, place):
    model.factor, (x, y) = 1.0 + (place > 1), batch(0)
    return lambda: model(x) - y


def a_buffer(model, box, place):
    model.shift, (x, y) = model.shift + 0.3, batch(0)
    return lambda: model(x) - y


def a_written_buffer(model, box, place):
    model.shift.fill_(0.3 * place)
    x, y = batch(0)
    return lambda: model(x) - y


def the_mode(model, box, place):
    model.train(place % 2 == 1)
    x, y = batch(0)
    return lambda: model(x) - y


def a_global(model, box, place):
    globals()["FACTOR"], (x, y) = 1.0 + (place > 1), batch(0)
    return lambda: FACTOR * model(x) - y


def a_global_tensor(model, box, place):
    globals()["SHIFT"], (x, y) = torch.full((), 0.1 * place, dtype=F64), batch(0)
    return lambda: model(x) - y + SHIFT


def a_default(model, box, place):
    x, y = batch(0)

    def closure(factor: float = 1.0 + (place > 1)) -> Tensor:
        return factor * model(x) - y

    return closure


def a_hook(model, box, place):
    if place == 2:
        model.net[0].register_forward_hook(lambda layer, given, found: 2 * found)
    x, y = batch(0)
    return lambda: model(x) - y


def the_weights(model, box, place):
    with torch.no_grad():
        model.net[0].weight.mul_(0.9)
    x, y = batch(0)
    return lambda: model(x) - y


def a_frozen_weight(model, box, place):
    model.net[0].weight.requires_grad_(place < 2)
    x, y = batch(0)
    return lambda: model(x) - y


def a_frozen_weight_that_is_written_to(model, box, place):
    model.net[0].weight.requires_grad_(False).mul_(0.9)
    x, y = batch(0)
    return lambda: model(x) - y


def the_size(model, box, place):
    x, y = data(12 + 2 * place)
    return lambda: model(x) - y


def the_same_tensor_and_then_two(model, box, place):
    x, y = batch(0)
    other = x if place < 2 else x * 3
    return lambda: model(x) * other[:, :1] - y


CHANGES = [
    new_tensors, written_tensors, tensors_in_a_list, a_number, an_attribute, a_buffer,
    a_written_buffer, the_mode, a_global, a_global_tensor, a_default, a_hook, the_weights,
    a_frozen_weight, a_frozen_weight_that_is_written_to, the_size, the_same_tensor_and_then_two,
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "by"),
    [
        *((change, "module") for change in CHANGES),
        *((change, "tensors") for change in (new_tensors, a_buffer, the_weights)),
    ],
)
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_what_changes_between_steps_is_seen(change, by, recorded, monkeypatch):
    monkeypatch.setitem(globals(), "FACTOR", 1.0)
    monkeypatch.setitem(globals(), "SHIFT", SHIFT)
    losses = []
    for compiled in (False, True):
        model, (x, y) = Scaled().eval(), data()
        box = SimpleNamespace(x=x.clone(), y=y.clone(), list=[x, y])
        params = model if by == "module" else list(model.parameters())
        optimizer = LevenbergMarquardt(params, compile=compiled)
        losses.append([])
        for place in range(6):
            loss = optimizer.step(change(model, box, place))
            assert loss is not None
            losses[-1].append(float(loss))
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert not refused(optimizer)  # as what a comparison finds out would be


def test_a_batch_and_what_the_closure_holds_beside_it_are_seen(recorded):
    def make() -> tuple[nn.Module, Any]:
        model = network(2, 5, 1)

        def step(optimizer: LevenbergMarquardt, place: int) -> Any:
            (x, y), weight = data(30), torch.tensor(1.0 + place, dtype=F64)
            x, y = x + 0.1 * place, y * (1 + place)
            return optimizer.step(lambda x, y: weight * (model(x) - y), x, y)

        return model, step

    losses = []
    for compiled in (False, True):
        model, step = make()
        optimizer = LevenbergMarquardt(model, compile=compiled)
        losses.append([float(step(optimizer, place)) for place in range(5)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert not refused(optimizer)


def test_autocast_between_steps_is_seen(recorded):
    losses = []
    for compiled in (False, True):
        model, (x, y) = network(2, 5, 1).float(), (t.float() for t in data())
        closure = partial(difference, model, x, y)
        optimizer = LevenbergMarquardt(model, compile=compiled)
        losses.append([])
        for place in range(6):
            with torch.autocast("cpu", torch.bfloat16, enabled=place % 2 == 1):
                losses[-1].append(float(optimizer.step(closure)))
    # bfloat16 rounds to eight bits, and the record's operators are the same
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert not refused(optimizer)


class Cube(NewCube):
    """x³, whose derivatives are said to be 2x², in both modes."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x**2 * gradient

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x**2 * tangent


@pytest.mark.parametrize("source", ["auto", "forward", "reverse", "per_sample"])
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_a_derivative_of_its_own_is_kept(source, recorded):
    def make() -> tuple[nn.Module, Any]:
        model, (x, y) = network(2, 5, 1), data()
        return model, lambda o, _: o.step(lambda x, y: Cube.apply(model(x)) - y, x, y)

    both(make, jacobian=source)


# ---- what cannot be compiled -----------------------------------------------------------------


def of_branches(model, x, y):
    return lambda: model(x) - y if model[0].weight.sum() > -1e9 else y


def of_numbers(model, x, y):
    return lambda: model(x) * float(x[0, 0] + 2) - y


def of_numpy(model, x, y):
    return lambda: model(x) * torch.from_numpy(x.numpy() ** 2).sum() - y


def of_data(model, x, y):
    return lambda: model(x) * model[0].weight.data.sum() - y


def of_a_list(model, x, y):
    return lambda: model(x) * sum(x.tolist()[0], 3.0) - y


def of_an_iterator(model, x, y):
    batches = iter([x] * 1000)
    return lambda: model(next(batches)) - y


def of_a_counter(model, x, y):
    calls = [0]

    def closure() -> Tensor:
        calls[0] += 1
        return model(x) - y

    return closure


def of_draws(model, x, y):
    return lambda: torch.nn.functional.dropout(model(x), 0.1) - y


@pytest.mark.parametrize(
    "kind",
    [of_branches, of_numbers, of_numpy, of_data, of_a_list, of_an_iterator, of_a_counter, of_draws],
)
def test_what_cannot_be_compiled_runs_as_without_after_one_warning(kind, recorded):
    losses = []
    for compiled in (False, True):
        torch.manual_seed(1)
        model, (x, y) = network(2, 5, 1), data()
        closure = kind(model, x, y)
        optimizer = LevenbergMarquardt(model, compile=compiled, jacobian="reverse")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.manual_seed(2)
            losses.append([float(optimizer.step(closure)) for _ in range(7)])
        told = [w for w in caught if "not compiled" in str(w.message)]
        assert len(told) == compiled
        assert all(w.category is FallbackWarning and w.filename == __file__ for w in told)
    assert losses[0] == losses[1]


def test_a_closure_that_changes_what_it_holds_is_found_out_at_once(recorded):
    model, (x, y) = network(2, 5, 1), data()
    optimizer, closure = LevenbergMarquardt(model, compile=True), of_a_counter(model, x, y)
    with pytest.warns(FallbackWarning, match="changes what it holds"):
        optimizer.step(closure)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(5), nn.Dropout(0.2)])
def test_layers_that_draw_or_write_in_training_run_as_without(layer, recorded):
    model, (x, y) = network(2, 5, 1).insert(1, layer.to(F64)), data()
    optimizer = LevenbergMarquardt(model, compile=True)
    with pytest.warns(FallbackWarning, match="not compiled"):
        optimizer.step(lambda: model(x) - y)
    assert not recorded
    model.eval()
    optimizer.step(lambda: model(x) - y)
    assert recorded
    assert not refused(optimizer)


def test_a_compiled_form_with_other_numbers_is_found_out(monkeypatch):
    def wrong(graph: Any, given: Any) -> Any:
        return lambda *tensors: [t * 1.001 if t.is_floating_point() else t for t in graph(*tensors)]

    monkeypatch.setattr(evaluations, "_compiled", wrong)
    with pytest.warns(FallbackWarning, match="gives other numbers"):
        both(regression)


def test_a_form_that_is_wrong_where_it_was_not_made_is_found_out(monkeypatch):
    def frozen(graph: Any, given: Any) -> Any:
        found = graph(*given)
        return lambda *tensors: found

    monkeypatch.setattr(evaluations, "_compiled", frozen)
    with pytest.warns(FallbackWarning, match="gives other numbers"):
        both(regression)


def test_numbers_that_change_at_every_step_are_not_compiled_for_ever(recorded):
    model, (x, y) = network(2, 5, 1), data()
    optimizer = LevenbergMarquardt(model, compile=True)

    def step(factor: float) -> None:
        optimizer.step(lambda: factor * (model(x) - y))

    for place in range(4):
        step(1.0 + place)
    with pytest.warns(FallbackWarning, match="make tensors of them"):
        step(5.0)
    made = len(recorded)
    step(20.0)
    assert len(recorded) == made


@pytest.mark.parametrize("wanted", ["yes", 1, None, 0.5])
def test_the_option_is_true_false_or_auto(wanted):
    with pytest.raises(InputError, match=r"must be True, False or 'auto'"):
        LevenbergMarquardt(network(2, 5, 1), compile=wanted)


def test_auto_compiles_what_has_taken_long(recorded, monkeypatch):
    both_ways = regression()
    optimizer = LevenbergMarquardt(both_ways[0], compile="auto")
    both_ways[1](optimizer, 0)
    assert not recorded
    monkeypatch.setattr("lmtorch.training.compiled.WORTH", 0.0)
    both_ways[1](optimizer, 1)
    both_ways[1](optimizer, 2)
    assert recorded


def test_auto_keeps_what_is_faster_without(monkeypatch):
    clock = [0.0]  # which only compiled code moves on

    def late(graph: Any, given: Any) -> Any:
        def run(*tensors: Tensor) -> Any:
            clock[0] += 1.0
            return graph(*tensors)

        return run

    told = SimpleNamespace(perf_counter=lambda: clock[0])
    monkeypatch.setattr("lmtorch.training.compiled.time", told)
    monkeypatch.setattr(evaluations, "_compiled", late)
    monkeypatch.setattr("lmtorch.training.compiled.WORTH", 0.0)
    (model, step), kept = regression(), {}
    for wanted in ("auto", True):
        optimizer = LevenbergMarquardt(model, compile=wanted, acceleration=False)
        for place in range(3):
            step(optimizer, place)
        kept[wanted] = [entry.form is not None for entry in optimizer._forms.known.values()]
    assert kept["auto"]
    assert not any(kept["auto"])
    assert all(kept[True])


def test_a_copy_compiles_as_well(recorded):
    model, (x, y) = network(2, 5, 1), data()
    optimizer = LevenbergMarquardt(model, compile=True)

    def step(optimizer: LevenbergMarquardt, model: nn.Module) -> float:
        return float(optimizer.step(lambda: model(x) - y))

    step(optimizer, model)
    step(optimizer, model)
    made = len(recorded)
    twin, other = copy.deepcopy((model, optimizer))
    for _ in range(2):
        assert step(optimizer, model) == pytest.approx(step(other, twin), rel=1e-12)
    assert len(recorded) > made


# ---- with inductor ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")
def test_inductor_gives_the_same_steps():
    assert not refused(both(regression, acceleration=False))


def test_without_a_compiler_a_step_runs_as_without(monkeypatch):
    from torch._inductor import config

    with (
        config.patch({"cpp.cxx": ("no such compiler",), "force_disable_caches": True}),
        pytest.warns(FallbackWarning, match="not compiled") as told,
    ):
        both(curve)
    assert len([w for w in told if "not compiled" in str(w.message)]) == 1
