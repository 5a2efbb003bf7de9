"""A loader in the place of a batch: the steps are those on all samples, and nothing is kept."""

import gc
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import lmtorch
from lmtorch import FallbackWarning, InputError, LevenbergMarquardt
from lmtorch.choose import planning
from lmtorch.solvers import ConjugateGradients

F64 = torch.float64
ROWS = 300


def network(device: Any = "cpu", width: int = 8, *extra: nn.Module) -> nn.Sequential:
    torch.manual_seed(2)
    layers = (nn.Linear(2, width), nn.Tanh(), *extra, nn.Linear(width, 1))
    return nn.Sequential(*layers).to(device, F64)


def data(rows: int = ROWS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(rows, 2, dtype=F64, generator=generator)
    return x, (x[:, :1] - x[:, 1:]).sin() + 0.1 * torch.randn(
        rows, 1, dtype=F64, generator=generator
    )


class Pairs(Dataset):
    """Samples one by one, which `change` may change."""

    def __init__(self, change: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        self.x, self.y = data()
        self.change = change

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        return self.change(self.x[place]), self.y[place]


class Endless(IterableDataset):
    """Pairs whose number nobody tells."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(*data(), strict=True)


class Own:
    """A class of the user's: batches in an order of its own, of different sizes."""

    def __init__(self, order: Callable[[], Any] = lambda: range(ROWS), sizes: int = 70) -> None:
        self.order, self.sizes, self.passes = order, sizes, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        x, y = data()
        for some in torch.tensor(list(self.order())).split(self.sizes):
            yield x[some], y[some]


def pieces(size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(*(t.split(size) for t in data()), strict=True))


LOADERS: dict[str, Callable[[], Any]] = {
    "batches": lambda: DataLoader(TensorDataset(*data()), batch_size=64),
    "shuffled": lambda: DataLoader(TensorDataset(*data()), batch_size=64, shuffle=True),
    "own generator": lambda: DataLoader(
        TensorDataset(*data()), 64, shuffle=True, generator=torch.Generator().manual_seed(3)
    ),
    "workers": lambda: DataLoader(Pairs(), batch_size=100, shuffle=True, num_workers=2),
    "persistent": lambda: DataLoader(
        Pairs(), batch_size=100, num_workers=1, persistent_workers=True
    ),
    "iterable": lambda: DataLoader(Endless(), batch_size=77),
    "one batch": lambda: DataLoader(TensorDataset(*data()), batch_size=ROWS),
    "list": lambda: pieces(90),
    "an empty batch": lambda: [*pieces(90), tuple(t[:0] for t in data())],
    "own class": Own,
    "any order": lambda: Own(lambda: np.random.default_rng().permutation(ROWS)),
}


def losses(opt: LevenbergMarquardt, closure: Any, *batch: Any, steps: int = 4) -> list[float]:
    return [float(opt.step(closure, *batch)) for _ in range(steps)]


@pytest.mark.parametrize("width", [3, 20])
@pytest.mark.parametrize("name", LOADERS)
def test_steps_are_those_on_all_samples(name: str, width: int) -> None:
    if name in ("workers", "persistent") and width == 20:
        pytest.skip("the workers do not know the model")
    one, two = network(width=width), network(width=width)
    expected = losses(
        LevenbergMarquardt(one, acceleration=False, curvature="full"),
        lambda x, y: one(x) - y,
        *data(),
    )
    found = losses(
        LevenbergMarquardt(two, curvature="full"), lambda x, y: two(x) - y, LOADERS[name]()
    )
    assert found == pytest.approx(expected, rel=1e-8)
    assert found[-1] < 0.8 * found[0]


def test_batches_come_to_the_model(device: torch.device) -> None:
    model = network(device)
    opt = LevenbergMarquardt(model)
    opt.step(lambda x, y: model(x) - y, DataLoader(TensorDataset(*data()), batch_size=64))
    assert opt.report.accepted


def test_large_batches_are_cut_and_small_ones_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lmtorch._memory.CACHE, "cpu", 2**14)
    model, seen = network(), []

    def closure(x: Tensor, y: Tensor) -> Tensor:
        seen.append(len(x))
        return model(x) - y

    one, two = LevenbergMarquardt(model), LevenbergMarquardt(model)
    one.step(closure, pieces(ROWS))
    large = max(seen)
    assert 10 < large < ROWS / 2
    seen.clear()
    two.step(closure, pieces(3))
    assert large / 2 <= max(seen) <= large


@pytest.mark.parametrize("kind", ["tensor", "dict", "flag"])
def test_batches_may_have_structure(kind: str) -> None:
    model, (x, y) = network(), data()
    table = torch.cat([x, y], 1)
    closures: dict[str, Callable[..., Tensor]] = {
        "tensor": lambda b: model(b[:, :2]) - b[:, 2:],
        "dict": lambda b: model(b["x"]) - b["y"],
        "flag": lambda x, y, sign: sign * (model(x) - y),
    }
    loaders: dict[str, Any] = {
        "tensor": DataLoader(table, batch_size=50),
        "dict": [{"x": a, "y": b} for a, b in pieces(50)],
        "flag": [(a, b, -1.0) for a, b in pieces(50)],
    }
    expected = float((model(x) - y).detach().square().sum() / 2)
    assert float(LevenbergMarquardt(model).step(closures[kind], loaders[kind])) == pytest.approx(
        expected
    )


def test_a_list_of_tensors_is_one_batch() -> None:
    model = network()
    opt = LevenbergMarquardt(model)
    opt.step(lambda b: model(b[0]) - b[1], list(data()))
    assert opt.report.accepted


@pytest.mark.parametrize(("options", "first"), [({}, 1), ({"curvature": "sampled"}, 2)])
def test_an_evaluation_is_a_pass(options: Any, first: int) -> None:
    model, loader = network(width=20), Own()
    opt = LevenbergMarquardt(model, **{"curvature": "full", **options})
    closure = lambda x, y: model(x) - y
    opt.step(closure, loader)
    before = loader.passes
    opt.step(closure, loader)
    assert loader.passes - before == first + opt.report.trials


def test_products_read_the_loader_again() -> None:
    one, two = network(width=2), network(width=2)
    x, y = data()
    exact = LevenbergMarquardt(
        one, solver="cholesky", damping="nielsen", scaling="levenberg", curvature="full"
    )
    by_products = LevenbergMarquardt(
        two,
        solver=ConjugateGradients(forcing=1e-12),
        damping="nielsen",
        scaling="levenberg",
        curvature="full",
    )
    loader = Own(lambda: np.random.default_rng().permutation(ROWS))
    expected = losses(exact, lambda x, y: one(x) - y, x, y)
    found = losses(by_products, lambda x, y: two(x) - y, loader)
    # nine parameters have estimated norms, of which λ₀ is made
    assert found[:1] == pytest.approx(expected[:1])
    assert found[-1] < 0.7 * found[0]
    assert loader.passes > 4 * 5


def test_products_by_passes_are_those_of_rows() -> None:
    w = torch.zeros(2, 1, dtype=F64, requires_grad=True)
    x, y = data()
    opt = LevenbergMarquardt([w], solver=ConjugateGradients(forcing=1e-14), damping="nielsen")
    for _ in range(40):
        opt.step(lambda x, y: x @ w - y, Own())
    torch.testing.assert_close(w.detach(), torch.linalg.lstsq(x, y).solution)


CRITERIA: dict[str, Any] = {
    "classes": lambda f, y: lmtorch.CrossEntropyLoss()(f, (y[:, 0] > 0).long()),
    "counts": lambda f, y: lmtorch.PoissonNLLLoss(full=True)(f, (3 * y).abs().round()),
    "variance": lambda f, y: lmtorch.GaussianNLLLoss()(f[:, :1], y, f[:, 1:].exp()),
}


@pytest.mark.parametrize("options", [{}, {"curvature": "sampled"}, {"solver": "cg"}])
@pytest.mark.parametrize("name", CRITERIA)
def test_targets_are_read_with_the_batches(name: str, options: Any) -> None:
    def made() -> Any:
        torch.manual_seed(0)
        return nn.Linear(2, 2).to(F64)

    one, two, criterion = made(), made(), CRITERIA[name]
    given = {"damping": "nielsen", **options}
    first = LevenbergMarquardt(one, **given)
    second = LevenbergMarquardt(two, **given)
    loader = DataLoader(TensorDataset(*data()), batch_size=64, shuffle=True)
    if name == "counts":
        one, two = (nn.Sequential(m, nn.Flatten(0)) for m in (one, two))
        x, y = data()
        expected = losses(
            first,
            lambda x, y: criterion(one[0](x)[:, 0], y[:, 0]),
            x,
            y,
            steps=3,
        )
        found = losses(second, lambda x, y: criterion(two[0](x)[:, 0], y[:, 0]), loader, steps=3)
    else:
        expected = losses(first, lambda x, y: criterion(one(x), y), *data(), steps=3)
        found = losses(second, lambda x, y: criterion(two(x), y), loader, steps=3)
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    assert found[-1] < found[0]
    if not options:  # column norms are estimated otherwise, or the sample is another one
        assert found == pytest.approx(expected, rel=1e-9)


def test_one_of_several_terms() -> None:
    one, two = network(), network()
    x, y = data()
    ends = torch.tensor([[3.0, 3.0], [-3.0, 3.0]], dtype=F64)

    def terms(model: nn.Module, *batch: Any) -> Any:
        return (
            (lambda x, y: lmtorch.MSELoss()(model(x), y), *batch),
            (lambda: model(ends),),
            (lambda x: 0.1 * model(x), x[:40]),
        )

    first, second = LevenbergMarquardt(one, acceleration=False), LevenbergMarquardt(two)
    for _ in range(3):
        expected = first.step(*terms(one, x, y))
        found = second.step(*terms(two, Own()))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


# ---- the same samples in every pass ----------------------------------------------------------


def trained(loader: Any, *extra: nn.Module, steps: int = 2, **options: Any) -> LevenbergMarquardt:
    model = network("cpu", 8, *extra)
    opt = LevenbergMarquardt(model, **options)
    for _ in range(steps):
        opt.step(lambda x, y: model(x) - y, loader)
    return opt


class Drawing(Pairs):
    """Samples with noise from a generator that the dataset holds."""

    def __init__(self, draws: Any) -> None:
        super().__init__()
        self.draws = draws

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        return self.x[place] + 0.1 * self.draws.random(), self.y[place]


def torchs(x: Tensor) -> Tensor:
    return x + 0.1 * torch.randn(2, dtype=F64)


def numpys(x: Tensor) -> Tensor:
    return x + 0.1 * np.random.standard_normal()  # noqa: NPY002  # what users do


def pythons(x: Tensor) -> Tensor:
    return x + 0.1 * random.random()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("change", [torchs, numpys, pythons])
def test_random_changes_are_drawn_again(change: Any, workers: int) -> None:
    if workers and change is not torchs:
        pytest.skip("workers are seeded by torch for all three")
    loader = DataLoader(Pairs(change), batch_size=64, shuffle=True, num_workers=workers)
    model = network()
    opt = LevenbergMarquardt(model)
    found = losses(opt, lambda x, y: model(x) - y, loader, steps=2)
    # the next step draws anew: the loss before it is not the one after the last
    assert opt.report.accepted
    assert found[1] < found[0]


@pytest.mark.parametrize("draws", [np.random.default_rng(5), random.Random(5)])
def test_generators_of_the_data_are_drawn_again(draws: Any) -> None:
    loader = DataLoader(Drawing(draws), batch_size=64)
    before = float(draws.random())
    assert trained(loader).report.accepted
    assert float(draws.random()) != before  # they go on


def test_a_last_batch_may_be_dropped_at_random() -> None:
    loader = DataLoader(TensorDataset(*data()), batch_size=128, shuffle=True, drop_last=True)
    opt = trained(loader)
    assert opt.report.accepted
    assert "256 independent samples" in lmtorch.choose.explanation(opt._last.plan)


def test_the_generator_is_left_as_one_pass_leaves_it() -> None:
    loader = DataLoader(TensorDataset(*data()), batch_size=64, shuffle=True)
    torch.manual_seed(7)
    list(loader)
    expected = torch.get_rng_state()
    model = network()
    torch.manual_seed(7)
    LevenbergMarquardt(model).step(lambda x, y: model(x) - y, loader)
    assert torch.equal(torch.get_rng_state(), expected)


def test_a_loader_without_draws_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    model = network()
    before = torch.get_rng_state()
    LevenbergMarquardt(model).step(lambda x, y: model(x) - y, pieces(50))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_sees_the_same_masks_in_every_pass() -> None:
    masks: list[Tensor] = []

    class Masked(nn.Dropout):
        def forward(self, x: Tensor) -> Tensor:
            found = super().forward(torch.ones_like(x))
            if not torch._C._are_functorch_transforms_active() and len(x) > 2:
                masks.append(found.detach().clone())
            return x * found

    loader = DataLoader(TensorDataset(*data()), batch_size=ROWS, shuffle=True)
    opt = trained(loader, Masked(0.2), steps=1)
    assert opt.report.accepted
    assert len(masks) > 1
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    masks.clear()
    trained(loader, Masked(0.2), steps=2)
    assert not torch.equal(masks[-1], masks[0])


# ---- what is refused, with the parameters as they were ---------------------------------------


def unseeded(x: Tensor) -> Tensor:
    return x + 0.1 * np.random.default_rng().random()


class Shrinking(Own):
    """Fewer samples in each pass."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.order = lambda: range(ROWS - self.passes)
        return super().__iter__()


class Once:
    """An iterator in the clothes of a loader."""

    def __init__(self) -> None:
        self.inside = iter(pieces(50))

    def __iter__(self) -> Iterator[Any]:
        return self.inside


class Exchanging(Own):
    """A single sample that differs in the last bit."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for place, (x, y) in enumerate(super().__iter__()):
            if place == 3:
                x[5, 1] *= 1 + self.passes * torch.finfo(F64).eps
            yield x, y


class Paired(Own):
    """The same inputs and the same targets, in other pairs."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = data()
        self.passes += 1
        yield x, y.roll(self.passes, 0)


class Arrays:
    """Batches of NumPy's."""

    def __iter__(self) -> Iterator[Any]:
        return ((x.numpy(), y.numpy()) for x, y in pieces(50))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "generator": lambda: (batch for batch in pieces(50)),
    "zip": lambda: zip(*(t.split(50) for t in data()), strict=True),
    "runs out": Once,
    "shrinks": Shrinking,
    "exchanges": Exchanging,
    "paired": Paired,
    "unseeded": lambda: DataLoader(Pairs(unseeded), batch_size=64),
    "persistent": lambda: DataLoader(
        Pairs(torchs), batch_size=64, num_workers=1, persistent_workers=True
    ),
    "dataset": Pairs,
    "empty": lambda: DataLoader(TensorDataset(*(t[:0] for t in data())), batch_size=4),
    "other structure": lambda: [*pieces(50), (data()[0],)],
    "other constants": lambda: [*pieces(50), (data()[0], 1.0)],
    "disagree": lambda: [*pieces(50), (data()[0], data()[1][:7])],
    "arrays": Arrays,
}  # fmt: skip
WORDS = {
    "generator": "read once only",
    "zip": "read once only",
    "runs out": "run out|read again",
    "shrinks": "Each pass must yield the same",
    "exchanges": "other samples",
    "paired": "other samples",
    "unseeded": "other samples",
    "persistent": "persistent_workers=False",
    "dataset": "DataLoader",
    "empty": "no samples",
    "other structure": "another structure",
    "other constants": "another structure",
    "disagree": "batch 6 of the loader.*disagree",
    "arrays": "Convert it",
}


@pytest.mark.parametrize("options", [{}, {"solver": "cg"}])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_the_same_is_refused(name: str, options: Any) -> None:
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    opt = LevenbergMarquardt(model, **options)
    with pytest.raises(InputError, match=f"(?s){WORDS[name]}"):
        opt.step(lambda x, y: model(x) - y, REFUSED[name]())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert not any(opt.state.values())


def test_another_order_is_refused_where_samples_have_random_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planning, "SAMPLED_ENOUGH", ROWS // 2)  # so that some are left out
    loader = Own(lambda: np.random.default_rng().permutation(ROWS))
    with pytest.raises(InputError, match="another order"):
        trained(loader, nn.Dropout(0.1))
    with pytest.raises(InputError, match="another order"):
        trained(loader, curvature="sampled", solver="cg")


def test_a_loader_is_the_whole_batch() -> None:
    model, loader = network(), DataLoader(TensorDataset(*data()), batch_size=64)
    with pytest.raises(InputError, match="whole batch"):
        LevenbergMarquardt(model).step(lambda x, y, z: model(x) - y, loader, data()[0])


def test_bends_are_not_taken() -> None:
    with pytest.raises(InputError, match="acceleration=True"):
        trained(Own(), acceleration=True)


def test_steps_on_a_loader_are_not_compiled() -> None:
    with pytest.warns(FallbackWarning, match="from a loader"):
        assert trained(Own(), compile=True).report.accepted


class Broken(Pairs):
    """Fails at a sample."""

    fails: type[Exception] = OSError

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        if place == 250:
            raise self.fails("the disk is gone")
        return super().__getitem__(place)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("fails", [OSError, RuntimeError, ValueError])
def test_what_fails_in_the_loader_is_raised(
    workers: int, fails: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broken, "fails", fails)
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    opt = LevenbergMarquardt(model)
    state = torch.get_rng_state()
    with pytest.raises(fails, match="the disk is gone") as caught:
        opt.step(lambda x, y: model(x) - y, DataLoader(Broken(), 50, num_workers=workers))
    assert "at its batch 5" in caught.value.__notes__[0]
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert not any(opt.state.values())
    assert torch.equal(torch.get_rng_state(), state)


# ---- from step to step -----------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"solver": "svd"}, {"curvature": "sampled"}])
def test_the_length_may_change_between_steps(options: Any) -> None:
    model, loader = network(width=20), Own()
    opt = LevenbergMarquardt(model, **options)
    closure = lambda x, y: model(x) - y
    for rows in (ROWS, 200, 250):
        loader.order = lambda rows=rows: range(rows)
        x, y = (t[:rows] for t in data())
        expected = float((model(x) - y).detach().square().sum() / 2)
        assert float(opt.step(closure, loader)) == pytest.approx(expected, rel=1e-12)


def test_the_structure_may_change_between_steps() -> None:
    model = network(width=20)
    opt = LevenbergMarquardt(model)
    x, y = data()

    class Reshaped:
        columns, extra = 1, ()

        def __iter__(self) -> Any:
            return iter([(x, y.expand(-1, self.columns), *self.extra)])

    loader = Reshaped()
    closure = lambda x, y, *_: model(x).expand(-1, y.shape[1]) - y
    for columns in (1, 2, 1):
        loader.columns = columns
        expected = columns * float((model(x) - y).detach().square().sum() / 2)
        assert float(opt.step(closure, loader)) == pytest.approx(expected, rel=1e-12)
    loader.extra = (y,)
    with pytest.raises(InputError, match="another structure"):
        opt.step(closure, loader)
    opt.step(closure, loader)  # which looks anew


def test_the_length_may_not_be_what_it_is_said_to_be() -> None:
    class Lying(Pairs):
        def __len__(self) -> int:
            return 120

    def bags(pairs: Any) -> Any:
        x, y = zip(*pairs, strict=True)
        return torch.cat([torch.stack(x)] * 2), torch.cat([torch.stack(y)] * 2)

    loader = DataLoader(Lying(), batch_size=50, collate_fn=bags)
    opt = trained(loader, solver="svd")
    assert opt.report.accepted
    assert "240 independent samples" in lmtorch.choose.explanation(opt._last.plan)


def test_buffers_see_one_pass() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: Tensor
            self.register_buffer("seen", torch.zeros((), dtype=F64))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += len(x)
            return x

    model = network("cpu", 8, Counting())
    LevenbergMarquardt(model).step(lambda x, y: model(x) - y, pieces(50))
    assert float(model[2].seen) == ROWS


# ---- memory ----------------------------------------------------------------------------------


class Watched:
    """Batches made when they are asked for; at the last one of each pass tensors are counted."""

    def __init__(self, batches: int) -> None:
        self.batches, self.peak = batches, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(self.batches):
            if number == self.batches - 1:
                gc.collect()
                live = {
                    t.untyped_storage()._cdata: t.untyped_storage().nbytes()
                    for t in gc.get_objects()
                    if type(t) in (Tensor, nn.Parameter)
                }
                self.peak = max(self.peak, sum(live.values()))
            generator = torch.Generator().manual_seed(number)
            x = torch.randn(100, 2, dtype=F64, generator=generator)
            yield x, x[:, :1].sin()


@pytest.fixture
def frozen() -> Iterator[None]:
    """What was there before the test is not looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize(
    "options",
    [
        {"curvature": "full"},
        {"curvature": "sampled"},
        {"solver": "cg", "curvature": "full"},
        {"solver": "cg", "curvature": "sampled"},
        {"criterion": True, "curvature": "full"},
    ],
)
def test_memory_does_not_grow_with_the_number_of_samples(
    options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(lmtorch._memory.CACHE, "cpu", 2**18)
    peaks = []
    for batches in (60, 120):  # as many that both are planned alike
        given = dict(options)
        criterion = lmtorch.MSELoss() if given.pop("criterion", False) else torch.sub
        model, loader = network(width=20), Watched(batches)
        opt = LevenbergMarquardt(model, max_trials=2, **given)
        opt.step(lambda x, y, m=model, c=criterion: c(m(x), y), loader)
        peaks.append(loader.peak)
    few, many = peaks
    # 60 batches more have 144,000 bytes of samples, and 4 MB of rows
    assert many - few < 40_000
