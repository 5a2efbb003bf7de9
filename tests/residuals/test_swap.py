"""Tensors are replaced wherever a torch function takes them: alone, by name, in lists, in dicts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmtorch.training.swap import ModuleSwap, TensorSwap

F64 = torch.float64
W = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=F64, requires_grad=True)
B = torch.tensor([5.0, 6.0], dtype=F64, requires_grad=True)
X = torch.tensor([[0.5, -1.0], [2.0, 1.5], [0.1, 0.2]], dtype=F64)

CLOSURES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "positional": lambda w, b: F.linear(X, w, b),
    "keywords": lambda w, b: F.linear(input=X, weight=w, bias=b),
    "one keyword": lambda w, b: F.linear(X, w, bias=b),
    "method": lambda w, b: w.mul(2) + b,
    "reflected": lambda w, b: X @ w + b,
    "list": lambda w, b: torch.cat([w, b[None]]),
    "tuple": lambda w, b: torch.stack((w[0], b)),
    "a list of plain ones first": lambda w, b: torch.cat([X, w, b[None]], 0),
    "keyword list": lambda w, b: torch.cat(tensors=[w, b[None]], dim=0),
    "einsum": lambda w, b: torch.einsum("ij,j->i", w, b),
    "nested list": lambda w, b: torch.block_diag(*[w, b[None]]),
    "index": lambda w, b: w[0] + b,
    "property": lambda w, b: w.T + w.mT * b,
    "where": lambda w, b: torch.where(w > 1.5, w, b),
    "chained": lambda w, b: (w.exp().sin() @ b).sum()[None],
    "returned itself": lambda w, b: w,
    "returned in a dict": lambda w, b: {"w": w, "more": [b, w * b]},
}


def leaves(result: Any) -> list[Tensor]:
    return list(torch.utils._pytree.tree_leaves(result))


@pytest.mark.parametrize("name", CLOSURES)
def test_a_closure_sees_the_twins_in_place_of_its_tensors(name: str) -> None:
    twins = [(0.3 * W.detach() - 1).requires_grad_(), (B.detach() + 0.7).requires_grad_()]
    closure = CLOSURES[name]
    found = leaves(TensorSwap([W, B])(twins, lambda: closure(W, B)))
    expected = leaves(closure(*twins))
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)
    total = sum(leaf.sum() for leaf in found)
    reached = torch.autograd.grad(total, [W, B, *twins], allow_unused=True)
    assert reached[:2] == (None, None)
    assert reached[2] is not None
    assert torch.equal(W.detach(), torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=F64))


@pytest.mark.parametrize("name", CLOSURES)
def test_a_module_is_swapped_with_what_the_closure_names_directly(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 2, dtype=F64)
    twins = [torch.rand(2, 2, dtype=F64), torch.rand(2, dtype=F64)]
    swap = ModuleSwap(model, ["weight", "bias"], [model.weight, model.bias])
    weight, bias = model.weight, model.bias
    found = leaves(
        swap(
            twins,
            lambda: [CLOSURES[name](weight, bias), model(X), CLOSURES[name](model.weight, bias)],
        )
    )
    once = leaves(CLOSURES[name](*twins))
    for mine, theirs in zip(found, [*once, F.linear(X, *twins), *once], strict=True):
        assert torch.equal(mine, theirs)


def test_functions_that_take_none_of_them_are_called_as_they_are() -> None:
    other = torch.ones(2, dtype=F64)
    twins = [torch.zeros_like(W), torch.zeros_like(B)]
    found = TensorSwap([W, B])(
        twins, lambda: torch.cat([other, torch.full((2,), 3.0, dtype=F64)], dim=0).sum(dim=0)
    )
    assert found == 8
