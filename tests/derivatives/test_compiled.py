"""Derivatives of functions that `torch.compile` has made."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmtorch
from tests.derivatives.setting import built, points


class Model(nn.Module):
    """A network whose output is made zero on two sides."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[:, 0] * torch.sin(x[:, 0]) * (1 - x[:, 1])


@pytest.fixture
def tried() -> Iterator[list[Any]]:
    """What torch has given to its backend to compile; nothing is left of it afterwards."""
    torch._dynamo.reset()
    yield []
    torch._dynamo.reset()


def compiled(model: nn.Module, tried: list[Any], **options: Any) -> Callable[[Tensor], Tensor]:
    def backend(graph: Any, inputs: Any) -> Any:
        tried.append(graph)
        return graph.forward

    made: Callable[[Tensor], Tensor] = torch.compile(model, backend=backend, **options)
    return made


@pytest.mark.parametrize("fullgraph", [True, False])
def test_taylor_mode_compiles_nothing_and_is_exact(tried: list[Any], fullgraph: bool) -> None:
    model = built(Model)
    made = compiled(model, tried, fullgraph=fullgraph)
    for size in (3, 4, 5):
        x = points(size, 2)
        for operator in (lmtorch.laplacian, lmtorch.batch_jacobian):
            # by name: no other mode steps in for it
            found = operator(made, x, mode="taylor")
            assert torch.equal(found, operator(model, x, mode="taylor"))
    assert not tried
    assert torch.equal(made(x), model(x))
    assert tried  # outside derivatives it is compiled as ever


def test_what_torch_compiles_is_as_before_when_threads_have_differentiated(
    tried: list[Any],
) -> None:
    model = built(Model)
    made = compiled(model, tried)
    x = points(5, 2)
    expected = lmtorch.laplacian(model, x)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: lmtorch.laplacian(made, x), range(20)):
            assert torch.equal(found, expected)
    assert not tried
    made(x)
    assert tried


def test_an_error_of_the_function_leaves_the_compiler_as_it_was(tried: list[Any]) -> None:
    def f(x: Tensor) -> Tensor:
        raise KeyError("no such species")

    made = compiled(built(Model), tried)
    with pytest.raises(KeyError):
        lmtorch.laplacian(f, points(3, 2))
    made(points(3, 2))
    assert tried


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks at all that a tensor has
def test_a_compiled_step_may_take_derivatives(tried: list[Any]) -> None:
    model, x = built(Model), points(4, 2)
    step = compiled(lambda x: 2 * lmtorch.laplacian(model, x), tried)
    torch.testing.assert_close(step(x), 2 * lmtorch.laplacian(model, x))
