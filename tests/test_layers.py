"""Layers that are hard for torch.func or for swapping parameters: sources agree on the Jacobian.

The reference is `.backward()` on the model's own parameters, row by row.
"""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch import FallbackWarning, InputError
from lmtorch.training.terms import terms_of

from .layers import CASES, LayerCase, OldCube, reference_jacobian

# a function mode does not see the arguments of an autograd.Function
UNSEEN = ("old_function", "new_function", "new_function_forward")


def refused(case: LayerCase, given: str, by_sample: bool) -> bool:
    """Whether a step is an error: the samples hang together, or parameters are not seen."""
    return (
        (by_sample and case.couples_samples)
        or case.name == "checkpoint_reentrant"
        or (given == "tensors" and case.name in UNSEEN)
    )


KINDS, WAYS = ("module", "tensors"), (False, True)
SETTINGS = [(case, given, by_sample) for case in CASES for given in KINDS for by_sample in WAYS]
# dropout has its tests in training/test_batches.py. Of a reentrant checkpoint in the first layer
# torch.autograd.grad itself leaves the parameters out (torch 2.13; docs/optimizer.md), so that
# there is nothing to compare with
APART = "checkpoint_reentrant_first"
COMPARED = [(case, *rest) for case, *rest in SETTINGS if not case.random and case.name != APART]
SERVED = [setting for setting in SETTINGS if not refused(*setting)]

given = pytest.mark.parametrize("given", KINDS)
sampled = pytest.mark.parametrize("by_sample", WAYS, ids=["whole", "samples"])


def settings(chosen: list[tuple[LayerCase, str, bool]]) -> Any:
    """A test of each."""
    ids = [
        f"{'samples' if by_sample else 'whole'}-{given}-{case!r}"
        for case, given, by_sample in chosen
    ]
    return pytest.mark.parametrize(("case", "given", "by_sample"), chosen, ids=ids)


def prepare(
    case: LayerCase, given: str, by_sample: bool
) -> tuple[Any, Any, tuple[Tensor, ...], Any, Any]:
    model = case.build()
    x, y = case.inputs()
    opt = lmtorch.LevenbergMarquardt(
        model if given == "module" else model.parameters(), solver="svd"
    )
    if by_sample:
        return opt, lambda x, y: model(x) - y, (x, y), model, (x, y)
    return opt, lambda: model(x) - y, (), model, (x, y)


def jacobian(opt: Any, closure: Any, batch: tuple[Tensor, ...]) -> tuple[Tensor, Any]:
    """The matrix that a step would use, and the ladder that gave it."""
    with torch.no_grad():
        task = opt._task(terms_of(closure, batch))
        return task.problem.linearize(task.start.x).jacobian, task.prepared.ladders[0]


@settings(COMPARED)
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_the_jacobian_is_that_of_backward(case: LayerCase, given: str, by_sample: bool) -> None:
    opt, closure, batch, model, (x, y) = prepare(case, given, by_sample)
    if by_sample and case.couples_samples:
        before = [p.clone() for p in model.parameters()]
        with pytest.raises(InputError, match=r"BatchNorm|other samples|statistics"):
            jacobian(opt, closure, batch)
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        return
    if given == "tensors" and case.name in UNSEEN:
        with pytest.raises(InputError, match=r"Pass the module|other samples"):
            jacobian(opt, closure, batch)
        return
    # knows .backward() only, and runs again with other parameters
    if case.name == "checkpoint_reentrant":
        with pytest.raises(RuntimeError):
            jacobian(opt, closure, batch)
        return
    found, _ = jacobian(opt, closure, batch)
    twin = case.build()
    expected = reference_jacobian(twin, twin(x) - y)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@settings(SERVED)
@pytest.mark.filterwarnings(
    "ignore::lmtorch.FallbackWarning", "ignore:the closure takes derivatives"
)
def test_a_step_lowers_the_loss(case: LayerCase, given: str, by_sample: bool) -> None:
    opt, closure, batch, _, _ = prepare(case, given, by_sample)
    for _ in range(3):
        opt.step(closure, *batch)
        if opt.report.accepted:
            break
    assert opt.report.loss_after < opt.report.loss


def test_falling_back_warns_once_and_names_what_refused() -> None:
    case = next(c for c in CASES if c.name == "old_function")
    opt, closure, batch, _, _ = prepare(case, "module", False)
    opt = lmtorch.LevenbergMarquardt(opt._module, jacobian="forward")
    with pytest.warns(FallbackWarning, match="does not work for this model"):
        opt.step(closure, *batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.step(closure, *batch)


def test_a_parameter_that_the_closure_names_directly_is_swapped_too() -> None:
    model = torch.nn.Linear(3, 1, dtype=torch.float64)
    weight = model.weight
    x = torch.randn(5, 3, dtype=torch.float64)
    opt = lmtorch.LevenbergMarquardt(model, solver="svd")
    found, _ = jacobian(opt, lambda: x @ weight[0] + model(x)[:, 0] - 1, ())
    torch.testing.assert_close(found, torch.cat([2 * x, torch.ones(5, 1, dtype=x.dtype)], 1))


@given
@sampled
def test_a_function_that_hides_its_arguments_is_refused_also_where_numbers_are_drawn(
    given: str, by_sample: bool
) -> None:
    model = torch.nn.Linear(3, 3, dtype=torch.float64)
    weight = model.weight  # named directly, so that the module's own swap does not serve either
    x = torch.randn(5, 3, dtype=torch.float64)

    def closure(x: Tensor = x) -> Tensor:
        return model(x) * torch.rand_like(x) + OldCube.apply(x, weight)

    opt = lmtorch.LevenbergMarquardt(model if given == "module" else model.parameters())
    before = weight.detach().clone()
    with pytest.raises(InputError, match="acts where its value cannot be replaced"):
        opt.step(closure, *((x,) if by_sample else ()))
    assert torch.equal(weight, before)


def test_a_result_from_before_the_step_is_refused() -> None:
    model = torch.nn.Linear(3, 1, dtype=torch.float64)
    early = model(torch.randn(5, 3, dtype=torch.float64))
    opt = lmtorch.LevenbergMarquardt(model)
    with pytest.raises(InputError, match="before the step"):
        opt.step(lambda: early * model.weight[0, 0] - 1)


@sampled
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_a_wrong_formula_is_found_also_where_numbers_are_drawn(by_sample: bool) -> None:
    model = torch.nn.Linear(3, 2, dtype=torch.float64)
    x = torch.randn(6, 3, dtype=torch.float64)

    def closure(x: Tensor = x) -> Tensor:
        with torch.no_grad():  # through which tangents pass
            size = model.weight.norm()
        return torch.nn.functional.dropout(model(x) / size, 0.5)

    opt = lmtorch.LevenbergMarquardt(model, solver="svd")
    torch.manual_seed(1)
    found, _ = jacobian(opt, closure, (x,) if by_sample else ())
    torch.manual_seed(1)
    torch.testing.assert_close(found, reference_jacobian(model, closure()), rtol=1e-9, atol=1e-11)


@given
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_the_jacobian_and_the_cost_draw_the_same_numbers(given: str) -> None:
    case = next(c for c in CASES if c.name == "transformer_layer_dropout")
    opt, closure, _, model, _ = prepare(case, given, False)
    torch.manual_seed(1)
    found, _ = jacobian(opt, closure, ())
    torch.manual_seed(1)
    torch.testing.assert_close(found, reference_jacobian(model, closure()), rtol=1e-9, atol=1e-11)
