"""Closures of other training loops: data that change between calls, parameters that came later."""

import random
import warnings
from collections.abc import Callable, Iterator
from itertools import count, cycle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.data import DataLoader, TensorDataset

from lmtorch import InputError, LevenbergMarquardt

ROWS = 60
Draw = Callable[[], Tensor]


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))
    return x, torch.sin(x.sum(1, keepdim=True))


def own_generator() -> Draw:
    generator = torch.Generator().manual_seed(0)
    return lambda: torch.rand(ROWS, 3, generator=generator)


def numpys() -> Draw:
    return lambda: torch.from_numpy(np.random.rand(ROWS, 3)).float()  # noqa: NPY002  # users do


def pythons() -> Draw:
    return lambda: torch.tensor([[random.random()] * 3 for _ in range(ROWS)])


def batches() -> Draw:
    loader = DataLoader(TensorDataset(*data()), ROWS // 2)
    coming: Iterator[Any] = iter(cycle(loader))
    return lambda: torch.as_tensor(next(coming)[0])


def counting() -> Draw:
    calls = count()
    return lambda: data()[0] * 0.9 ** next(calls)


def in_place() -> Draw:
    kept = data()[0].numpy()  # of which torch cannot know that it is written to
    calls = count()

    def draw() -> Tensor:
        kept[:] = kept + 0.1 * next(calls)
        return torch.from_numpy(kept.copy())

    return draw


@pytest.mark.parametrize(
    "make", [own_generator, numpys, pythons, batches, counting, in_place], ids=lambda m: m.__name__
)
def test_a_closure_that_sees_other_data_at_each_call_is_refused(make: Callable[[], Draw]) -> None:
    # a trial on other data says nothing of its step: it was kept or refused at random
    net, draw = network(), make()
    before = [p.detach().clone() for p in net.parameters()]

    def closure() -> Tensor:
        x = draw()
        residual: Tensor = net(x) - torch.sin(x.sum(1, keepdim=True))
        return residual

    with pytest.raises(InputError, match="at the same parameters"):
        LevenbergMarquardt(net).step(closure)
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))


def test_noise_on_a_batch_that_is_not_torchs_is_refused_and_called_so() -> None:
    # it was said to be BatchNorm
    net, generator = network(), np.random.default_rng(0)

    def closure(x: Tensor, y: Tensor) -> Tensor:
        noise = torch.from_numpy(generator.normal(size=x.shape)).to(x)
        residual: Tensor = net(x + 0.3 * noise) - y
        return residual

    with pytest.raises(InputError, match="at the same parameters"):
        LevenbergMarquardt(net).step(closure, *data())


def test_points_that_torch_draws_in_the_closure_are_the_same_in_every_trial() -> None:
    net, seen = network(), []

    def closure() -> Tensor:
        x = torch.rand(ROWS, 3)
        seen.append(x.sum().item())
        residual: Tensor = net(x) - torch.sin(x.sum(1, keepdim=True))
        return residual

    LevenbergMarquardt(net).step(closure)
    assert len(seen) > 2
    assert len(set(seen)) == 1


def test_sums_in_another_order_are_no_other_data() -> None:
    # as atomic additions of a GPU give them
    net, signs = network(), cycle([1.0, -1.0])
    x, y = data()

    def closure() -> Tensor:
        residual: Tensor = net(x) - y
        return residual * (1 + 1e-6 * next(signs))

    opt = LevenbergMarquardt(net)
    first = opt.step(closure)
    last = first
    for _ in range(5):
        last = opt.step(closure)
    assert first is not None
    assert last is not None
    assert last < 0.1 * first


def test_a_closure_that_changes_its_batch_is_refused_and_the_batch_is_as_it_was() -> None:
    net, (x, y) = network(), data()
    before = x.clone()
    with pytest.raises(InputError, match="in place"):
        LevenbergMarquardt(net).step(lambda x, y: net(x.mul_(0.5)) - y, x, y)
    assert torch.equal(x, before)


def test_features_of_trained_layers_are_no_batch() -> None:
    # the layers before them were left as they are, without a word
    net, (x, y) = network(), data()
    features = net[1](net[0](x))
    opt = LevenbergMarquardt(net)
    with pytest.raises(InputError, match=r"'0\.weight'"):
        opt.step(lambda h, y: net[2](h) - y, features, y)
    loss = opt.step(lambda h, y: net[2](h) - y, features.detach(), y)
    assert loss is not None


def test_a_parameter_is_no_batch() -> None:
    codes = torch.zeros(ROWS, 3, requires_grad=True)
    net, (_, y) = network(), data()
    opt = LevenbergMarquardt([*net.parameters(), codes])
    with pytest.raises(InputError, match="group 0, parameter 4"):
        opt.step(lambda z, y: net(z) - y, codes, y)


def replaced(net: nn.Sequential) -> None:
    net[2] = nn.Linear(6, 1)


def normed(net: nn.Sequential) -> None:
    parametrizations.weight_norm(net[0])


def pruned(net: nn.Sequential) -> None:
    prune.random_unstructured(net[0], "weight", 0.5)


def added(net: nn.Sequential) -> None:
    net.insert(2, nn.Linear(6, 6))


def closure_of(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    def closure(x: Tensor, y: Tensor) -> Tensor:
        residual: Tensor = net(x) - y
        return residual

    return closure


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (replaced, r"'2\.weight', '2\.bias'"),
        (normed, r"'0\.parametrizations\.weight\.original0'"),
        (added, r"'2\.weight', '2\.bias'"),
    ],
    ids=["replaced", "normed", "added"],
)
@pytest.mark.parametrize("stepped", [False, True], ids=["first", "later"])
def test_parameters_that_came_later_are_told_once(
    change: Callable[[nn.Sequential], None], name: str, stepped: bool
) -> None:
    net, batch = network(), data()
    opt = LevenbergMarquardt(net)
    if stepped:
        opt.step(closure_of(net), *batch)
    change(net)
    with pytest.warns(UserWarning, match=name):
        opt.step(closure_of(net), *batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.step(closure_of(net), *batch)


@pytest.mark.parametrize("known", ["frozen", "in a group", "same tensor"])
def test_parameters_that_came_later_and_are_known_are_no_matter(known: str) -> None:
    net, batch = network(), data()
    opt = LevenbergMarquardt(net)
    opt.step(closure_of(net), *batch)
    if known == "same tensor":  # prune keeps the parameter under another name
        pruned(net)
    else:
        replaced(net)
        if known == "frozen":
            net[2].requires_grad_(False)
        else:
            opt.add_param_group({"params": list(net[2].parameters())})
    before = [p.detach().clone() for p in net.parameters()]
    opt.step(closure_of(net), *batch)
    moved = [not torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True)]
    assert moved.count(False) == (2 if known == "frozen" else 0)
