"""Gradients of a solution in its data, beside finite differences of refits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from lmtorch import InputError, least_squares

from .setting import F64, INF, decay, noisy

T = torch.linspace(0, 4, 12, dtype=F64)
TIGHT = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15}
START = torch.tensor([2.0, 1.0, 0.1], dtype=F64)


def data(seed: int = 0, noise: float = 0.3) -> Tensor:
    """Large residuals: the curvature of the model counts in the Hessian."""
    return noisy(noise=noise, seed=seed, t=T)


def refit(y: Tensor, t: Tensor = T, **options: Any) -> Any:
    return least_squares(lambda x, t, y: decay(x, t) - y, START, args=(t, y), **(TIGHT | options))


def check(function: Callable[..., Any], *inputs: Tensor) -> None:
    """Compare with central differences of refits in random directions, good to some (1e-16 κ)^⅔."""
    leaves = tuple(t.detach().clone().requires_grad_() for t in inputs)
    assert gradcheck(function, leaves, eps=1e-5, atol=1e-6, rtol=1e-5, fast_mode=True)


def test_a_linear_fit_has_the_gradient_of_its_closed_form() -> None:
    A = torch.stack([torch.ones_like(T), T], 1)
    y = data().requires_grad_()
    x = least_squares(lambda x, y: A @ x - y, torch.zeros(2, dtype=F64), args=(y,)).x
    jacobian = torch.stack([torch.autograd.grad(entry, y, retain_graph=True)[0] for entry in x])
    torch.testing.assert_close(jacobian, torch.linalg.pinv(A), rtol=1e-9, atol=1e-12)


def test_design_matrices_have_gradients_too() -> None:
    generator = torch.Generator().manual_seed(0)
    A, y = (
        torch.randn(8, 3, dtype=F64, generator=generator),
        torch.randn(8, dtype=F64, generator=generator),
    )
    check(
        lambda A, y: (
            least_squares(lambda x, A, y: A @ x - y, torch.zeros(3, dtype=F64), args=(A, y)).x
        ),
        A,
        y,
    )


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
def test_a_nonlinear_fit_has_the_gradient_of_refits(noise: float) -> None:
    check(lambda t, y: refit(y, t).x, T, data(noise=noise))


@pytest.mark.parametrize("field", ["cost", "fun"])
def test_cost_and_residuals_carry_gradients(field: str) -> None:
    check(lambda t, y: refit(y, t)[field], T, data())


def test_the_cost_has_the_gradient_of_the_envelope_theorem() -> None:
    y = data().requires_grad_()
    solution = refit(y)
    (gradient,) = torch.autograd.grad(solution.cost, y)
    torch.testing.assert_close(gradient, -solution.fun.detach(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("loss", ["soft_l1", "cauchy", "arctan", "geman_mcclure"])
def test_robust_fits_have_the_gradient_of_refits(loss: str) -> None:
    y = data()
    y[3] += 2
    check(lambda y: refit(y, loss=loss, f_scale=0.5).x, y)
    check(lambda y: refit(y, loss=loss, f_scale=0.5).cost, y)


@pytest.mark.parametrize(
    "bounds",
    [([-INF, -INF, 0.6], INF), (-INF, [2.2, INF, INF]), ([-INF, 1.0, -INF], [INF, 1.0, INF])],
    ids=["a wall below", "a wall above", "fixed"],
)
def test_a_variable_at_its_wall_stays_there_and_the_others_follow_the_data(bounds: Any) -> None:
    start = START.clamp(min=torch.tensor([0.0, 0.0, 0.6])) if bounds[1] is INF else START
    fit = lambda y: least_squares(
        lambda x, y: decay(x, T) - y, start, args=(y,), bounds=bounds, **TIGHT
    )
    y = data(noise=0.05)
    solution = fit(y.clone().requires_grad_())
    assert solution.active_mask.any()
    check(lambda y: fit(y).x, y)
    held = int(solution.active_mask.nonzero()[0])
    leaf = y.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(fit(leaf).x[held], leaf)
    assert (gradient == 0).all()


def test_a_bound_that_is_not_active_changes_no_gradient() -> None:
    y = data(noise=0.05).requires_grad_()
    free, boxed = refit(y).x, refit(y, bounds=(-10, 10)).x
    for one, other in zip(free, boxed, strict=True):
        expected, found = (
            torch.autograd.grad(entry, y, retain_graph=True)[0] for entry in (one, other)
        )
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)


def test_each_problem_of_a_batch_has_its_own_gradient() -> None:
    y = torch.stack([data(seed) for seed in range(3)])

    def fit(y: Tensor, t: Tensor) -> Tensor:
        solution = least_squares(
            lambda x, t, y: decay(x, t) - y, START, args=(t, y), in_dims=(None, None, 0), **TIGHT
        )
        return solution.x

    check(fit, y, T)
    leaf = y.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(fit(leaf, T)[1].sum(), leaf)
    assert (gradient[[0, 2]] == 0).all()
    alone = y[1].clone().requires_grad_()
    (expected,) = torch.autograd.grad(refit(alone).x.sum(), alone)
    torch.testing.assert_close(gradient[1], expected, rtol=1e-6, atol=1e-9)


def test_batches_with_bounds_and_robust_losses_have_gradients_too() -> None:
    y = torch.stack([data(seed, 0.05) for seed in range(3)])
    start = torch.tensor([2.0, 1.0, 0.4], dtype=F64)
    lower = torch.tensor([-INF, -INF, 0.4], dtype=F64)
    fit = lambda y: least_squares(
        lambda x, y: decay(x, T) - y,
        start,
        args=(y,),
        in_dims=(None, 0),
        bounds=(lower, INF),
        loss="soft_l1",
        **TIGHT,
    )
    assert fit(y).active_mask.any()
    check(lambda y: fit(y).x, y)


def test_functions_that_vmap_refuses_have_gradients_too() -> None:
    y = torch.stack([data(seed) for seed in range(2)])

    def branching(x: Tensor, y: Tensor) -> Tensor:
        return decay(x, T) - y if x[0] > -100 else x.sum() * y

    leaf = y.clone().requires_grad_()
    with pytest.warns(match="refuses"):
        found = least_squares(branching, START, args=(leaf,), in_dims=(None, 0), **TIGHT)
    (gradient,) = torch.autograd.grad(found.x[0].sum(), leaf)
    alone = y[0].clone().requires_grad_()
    (expected,) = torch.autograd.grad(refit(alone).x.sum(), alone)
    torch.testing.assert_close(gradient[0], expected, rtol=1e-6, atol=1e-9)


def test_a_tree_of_parameters_carries_gradients_in_every_leaf() -> None:
    def fit(y: Tensor) -> tuple[Tensor, ...]:
        start = {"a": START[0], "rest": [START[1:2], START[2]]}
        x = least_squares(
            lambda x, y: x["a"] * torch.exp(-x["rest"][0] * T) + x["rest"][1] - y,
            start,
            args=(y,),
            **TIGHT,
        ).x
        return x["a"], x["rest"][0], x["rest"][1]

    check(fit, data())


def test_keyword_arguments_carry_gradients() -> None:
    fit = lambda y, t: (
        least_squares(lambda x, y, t: decay(x, t) - y, START, kwargs={"y": y, "t": t}, **TIGHT).x
    )
    check(fit, data(), T)


def test_trees_among_the_arguments_carry_gradients() -> None:
    fit = lambda y, t: (
        least_squares(
            lambda x, d: decay(x, d["t"]) - d["y"], START, args=({"t": t, "y": y},), **TIGHT
        ).x
    )
    check(fit, data(), T)


def test_a_multi_start_carries_the_gradient_of_its_best() -> None:
    y = data().requires_grad_()
    plain = refit(y)
    many = refit(y, n_starts=3, bounds=(-5, 5))
    expected, found = (torch.autograd.grad(s.x.sum(), y)[0] for s in (plain, many))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_an_inner_fit_may_serve_an_outer_one() -> None:
    # a hyper-parameter, the rate, fitted through the inner fit of amplitude and
    # offset: variable projection
    y = data()

    def inner(rate: Tensor) -> Tensor:
        shape = torch.exp(-rate * T)
        return least_squares(
            lambda x, s, y: x[0] * s + x[1] - y, torch.ones(2, dtype=F64), args=(shape, y), **TIGHT
        ).fun

    rate = torch.tensor(1.0, dtype=F64, requires_grad=True)
    for _ in range(60):
        r = inner(rate)
        J = torch.stack([torch.autograd.grad(entry, rate, retain_graph=True)[0] for entry in r])
        with torch.no_grad():
            rate -= (J @ r) / (J @ J)
    torch.testing.assert_close(rate.detach(), refit(y).x[1], rtol=1e-6, atol=0)


def test_directions_without_curvature_pass_no_gradient() -> None:
    y = data().requires_grad_()
    # only the sum of the first two is determined
    solution = least_squares(
        lambda x, y: (x[0] + x[1]) * torch.exp(-T) + x[2] - y, torch.ones(3, dtype=F64), args=(y,)
    )
    (along,) = torch.autograd.grad(solution.x[0] - solution.x[1], y, retain_graph=True)
    assert along.abs().max() < 1e-9
    (total,) = torch.autograd.grad(solution.x[0] + solution.x[1], y)
    A = torch.stack([torch.exp(-T), torch.ones_like(T)], 1)
    torch.testing.assert_close(total, torch.linalg.pinv(A)[0], rtol=1e-7, atol=1e-10)


def test_an_estimated_scale_passes_no_gradient_and_says_so() -> None:
    y = data()
    y[3] += 2
    with pytest.raises(InputError, match="C changes with them"):
        refit(y.clone().requires_grad_(), loss="soft_l1", f_scale="mad")
    with torch.no_grad():
        scale = refit(y.clone().requires_grad_(), loss="soft_l1", f_scale="mad").f_scale
    check(lambda y: refit(y, loss="soft_l1", f_scale=scale).x, y)


def test_data_that_ask_for_no_gradient_make_no_graph() -> None:
    solution = refit(data())
    for name in ("x", "cost", "fun", "jac", "grad", "optimality"):
        assert not solution[name].requires_grad, name


def test_nothing_makes_a_graph_under_no_grad() -> None:
    y = data().requires_grad_()
    with torch.no_grad():
        solution = refit(y)
    for name in ("x", "cost", "fun", "jac", "grad", "optimality"):
        assert not solution[name].requires_grad, name


def test_the_start_gets_no_gradient() -> None:
    start = START.clone().requires_grad_()
    y = data().requires_grad_()
    x = least_squares(lambda x, y: decay(x, T) - y, start, args=(y,)).x
    (gradient,) = torch.autograd.grad(x.sum(), start, allow_unused=True)
    assert gradient is None


def test_numpy_parameters_come_back_without_a_graph() -> None:
    y = data().requires_grad_()
    solution = least_squares(lambda x, y: decay(x, T) - y, START.numpy(), args=(y,))
    assert isinstance(solution.x, np.ndarray)
    assert isinstance(solution.cost, float)


def test_the_values_are_those_of_the_fit_without_gradients() -> None:
    plain, graphed = refit(data()), refit(data().requires_grad_())
    for name in ("x", "fun"):
        assert torch.equal(plain[name], graphed[name].detach()), name
    # NumPy and torch add the squares in another order
    torch.testing.assert_close(plain.cost, graphed.cost.detach(), rtol=1e-14, atol=0)


def test_gradients_flow_on_into_what_the_data_were_made_of() -> None:
    def fit(shift: Tensor) -> Tensor:
        return refit(data() + shift).x

    check(fit, torch.tensor(0.1, dtype=F64))


def test_a_second_derivative_is_an_error() -> None:
    y = data().requires_grad_()
    x = refit(y).x
    (gradient,) = torch.autograd.grad(x[0], y, create_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(gradient.sum(), y)


def test_a_first_derivative_may_have_a_graph_that_nobody_follows() -> None:
    y = data().requires_grad_()
    (kept,) = torch.autograd.grad(refit(y).x[0], y, create_graph=True)
    (plain,) = torch.autograd.grad(refit(y).x[0], y)
    assert torch.equal(kept.detach(), plain)


def test_single_precision_data_have_single_precision_gradients() -> None:
    y = data().float().requires_grad_()
    solution = least_squares(lambda x, y: decay(x, T.float()) - y, START.float(), args=(y,))
    (gradient,) = torch.autograd.grad(solution.x.sum(), y)
    exact = data().requires_grad_()
    (expected,) = torch.autograd.grad(refit(exact).x.sum(), exact)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-2, atol=1e-2)
