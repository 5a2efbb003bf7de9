"""Many problems at once are what they are one by one."""

import pickle
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import Bounds, leastsq
from torch import Tensor

from lmtorch import FallbackWarning, InputError, Solution, Status, least_squares

from .setting import F64, INF

COUNT = 120
POINTS = torch.linspace(0, 4, 50, dtype=F64)
START = torch.tensor([2.5, 1.5, 1.0, 0.7], dtype=F64)


def model(x: Tensor, t: Tensor) -> Tensor:
    return x[0] * torch.exp(-x[1] * t) + x[2] * torch.cos(x[3] * t)


def residual(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return model(x, t) - y


@cache
def data() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(COUNT, 4, dtype=F64, generator=generator) + torch.tensor(
        [2.0, 1.0, 0.5, 0.2], dtype=F64
    )
    clean = torch.stack([model(x, POINTS) for x in truth])
    return clean + 0.01 * torch.randn(COUNT, len(POINTS), dtype=F64, generator=generator)


def test_a_batch_takes_hardly_more_evaluations_than_minpack_and_has_all_digits() -> None:
    """Newton's step at the end is instead of the last of Gauss–Newton's, not after it."""
    found = least_squares(residual, START, args=(POINTS, data()), in_dims=(None, None, 0))
    t, counts = POINTS.numpy(), []

    def curve(x: Any) -> Any:
        return x[0] * np.exp(-x[1] * t) + x[2] * np.cos(x[3] * t)

    def slopes(x: Any) -> Any:
        falling, angle = np.exp(-x[1] * t), x[3] * t
        rows = [falling, -x[0] * t * falling, np.cos(angle), -x[2] * t * np.sin(angle)]
        return np.stack(rows)

    for y, x in zip(data().numpy(), found.x.numpy(), strict=True):
        answers = []
        for start, tolerance in ((START.numpy(), 1e-10), (x, 1e-15)):
            answers.append(
                leastsq(
                    lambda x, y=y: curve(x) - y, start, Dfun=slopes, col_deriv=True,
                    ftol=tolerance, xtol=tolerance, gtol=0.0, full_output=True,
                )
            )  # fmt: skip
        counts.append(answers[0][2]["nfev"])
        np.testing.assert_allclose(
            x, answers[1][0], rtol=1e-8
        )  # MINPACK stops at half of the digits
    assert bool(found.success.all())
    assert float(found.nfev.double().mean()) <= np.mean(counts) + 0.5


@cache
def together(polish: int | None = None) -> Solution:
    return least_squares(
        residual, START, args=(POINTS, data()), in_dims=(None, None, 0), polish=polish
    )


@cache
def single() -> tuple[Solution, ...]:
    return tuple(least_squares(residual, START, args=(POINTS, y)) for y in data())


@pytest.mark.parametrize("name", ["x", "cost", "fun", "jac"])
def test_answers_are_those_of_one_by_one(name: str) -> None:
    expected = torch.stack([solution[name] for solution in single()])
    torch.testing.assert_close(together()[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["grad", "optimality"])
def test_gradients_vanish_as_one_by_one(name: str) -> None:
    # after polishing they are round-off
    size = torch.linalg.vector_norm(together().jac, dim=(1, 2)) * torch.linalg.vector_norm(
        together().fun, dim=1
    )
    worst = together()[name].reshape(COUNT, -1).abs().amax(1)
    assert (worst <= 1e-10 * size).all()
    assert together()[name].shape == torch.stack([solution[name] for solution in single()]).shape


def test_evaluations_are_counted_for_each_problem_as_one_by_one() -> None:
    # without polishing, whose last steps are judged by round-off
    batch = together(0)
    singles = [least_squares(residual, START, args=(POINTS, y), polish=0) for y in few(40)]
    assert batch.nfev[:40].tolist() == [solution.nfev for solution in singles]
    # whether the last trial was kept, and has a Jacobian, may be a matter of
    # round-off: the status tells
    alike = batch.status[:40] == torch.tensor([int(solution.status) for solution in singles])
    assert alike.sum() > 30
    assert (
        batch.njev[:40][alike].tolist()
        == torch.tensor([solution.njev for solution in singles])[alike].tolist()
    )
    assert len(set(batch.nfev[:40].tolist())) > 5


def test_every_problem_has_a_status_a_message_and_a_success_of_its_own() -> None:
    batch = together()
    assert batch.success.dtype == torch.bool
    assert batch.success.all()
    assert batch.reasons == [Status(s) for s in batch.status.tolist()]
    assert [message.split(" (")[0] for message in batch.message] == [
        reason.message for reason in batch.reasons
    ]
    for message, nfev in zip(batch.message, batch.nfev.tolist(), strict=True):
        assert f"{nfev} evaluations" in message
    assert torch.equal(batch.active_mask, torch.zeros(COUNT, 4, dtype=torch.int64))


def few(count: int = 5) -> Tensor:
    return data()[:count]


def expected(count: int = 5) -> Tensor:
    return together().x[:count]


def by_dict(x: dict[str, Tensor], t: Tensor, y: Tensor) -> Tensor:
    return residual(
        torch.cat(
            [x["amplitudes"][:1], x["rest"][0][None], x["amplitudes"][1:], x["rest"][1][None]]
        ),
        t,
        y,
    )


STARTS = START.expand(5, 4)
DIMS: dict[str, tuple[Any, Any, Any]] = {
    "data alone": (START, (None, None, 0), (POINTS, few())),
    "start and data": (STARTS, (0, None, 0), (POINTS, few())),
    "one int for all": (STARTS, 0, (POINTS.expand(5, 50), few())),
    "minus one": (STARTS.T, (-1, None, -1), (POINTS, few().T)),
    "in the middle": (STARTS, (0, None, 1), (POINTS, few()[None].expand(1, 5, 50))),
    "arrays": (STARTS.numpy(), (0, None, 0), (POINTS.numpy(), few().numpy())),
    "a list of dims": (STARTS, [0, None, 0], (POINTS, few())),
}


@pytest.mark.parametrize("name", DIMS)
def test_in_dims_mean_what_they_mean_in_vmap(name: str) -> None:
    start, dims, args = DIMS[name]
    solution = least_squares(residual, start, args=args, in_dims=dims)
    np.testing.assert_allclose(solution.x, expected(), rtol=1e-9)
    # what vmap itself makes of the same dimensions
    mapped = torch.vmap(residual, tuple(dims) if isinstance(dims, list) else dims)(
        *(torch.as_tensor(v) for v in (start, *args))
    )
    begun = least_squares(residual, start, args=args, in_dims=dims, max_nfev=1)
    np.testing.assert_allclose(begun.fun, mapped.flatten(1), rtol=1e-15)


def test_starts_alone_may_differ() -> None:
    solution = least_squares(lambda x: residual(x, POINTS, few()[0]), STARTS, in_dims=0)
    torch.testing.assert_close(solution.x, expected()[:1].expand(5, 4), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "dims", [{"amplitudes": 0, "rest": [None, 0]}, {"amplitudes": None, "rest": 0}, None, 0]
)
def test_x0_may_be_a_tree_of_which_some_leaves_are_shared(dims: Any) -> None:
    shared = dims is None
    own = {"amplitudes": START[[0, 2]], "rest": [START[1], START[3]]}

    def spread(leaf: Tensor, dim: Any) -> Tensor:
        return leaf if dim is None else leaf.expand(5, *leaf.shape)

    if dims == 0:
        start: Any = {
            "amplitudes": spread(own["amplitudes"], 0),
            "rest": [spread(v, 0) for v in own["rest"]],
        }
    elif shared:
        start = own
    else:
        rest = dims["rest"] if isinstance(dims["rest"], list) else [dims["rest"]] * 2
        start = {
            "amplitudes": spread(own["amplitudes"], dims["amplitudes"]),
            "rest": [spread(v, dim) for v, dim in zip(own["rest"], rest, strict=True)],
        }
    solution = least_squares(by_dict, start, args=(POINTS, few()), in_dims=(dims, None, 0))
    assert solution.x["amplitudes"].shape == (5, 2)
    assert [leaf.shape for leaf in solution.x["rest"]] == [(5,), (5,)]
    torch.testing.assert_close(solution.x["amplitudes"], expected()[:, [0, 2]], rtol=1e-9, atol=0)
    torch.testing.assert_close(
        torch.stack(solution.x["rest"], 1), expected()[:, [1, 3]], rtol=1e-9, atol=0
    )
    assert solution.jac.shape == (5, 50, 4)


def test_arguments_may_be_trees_of_which_some_leaves_are_shared() -> None:
    def nested(x: Tensor, both: Any) -> Tensor:
        return residual(x, both["t"], both["y"][0])

    arguments = {"t": POINTS, "y": [few()]}
    solution = least_squares(nested, START, args=(arguments,), in_dims=(None, {"t": None, "y": 0}))
    torch.testing.assert_close(solution.x, expected(), rtol=1e-9, atol=0)


def decay_of_numbers(x: dict[str, Tensor], y: Tensor) -> Tensor:
    return x["a"] * torch.exp(-x["k"] * POINTS) - y


def slopes_of_numbers(x: dict[str, Tensor], y: Tensor) -> Tensor:
    falling = torch.exp(-x["k"] * POINTS)
    return torch.stack([falling, -POINTS * x["a"] * falling], 1)


@pytest.mark.parametrize(
    "jac", ["2-point", "3-point", slopes_of_numbers], ids=["2-point", "3-point", "given"]
)
def test_x0_may_be_a_dict_of_single_numbers_without_derivatives_too(jac: Any) -> None:
    truth = torch.tensor([[2.0, 1.0], [3.0, 0.5], [1.0, 0.2]], dtype=F64)
    y = truth[:, :1] * torch.exp(-truth[:, 1:] * POINTS)
    x0 = {"a": torch.ones(3, dtype=F64), "k": torch.ones(3, dtype=F64)}
    solution = least_squares(decay_of_numbers, x0, jac, args=(y,), in_dims=(0, 0))
    found = torch.stack([solution.x["a"], solution.x["k"]], 1)
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-6)


def test_one_number_for_each_problem_may_be_x0() -> None:
    goal = torch.arange(1, 6, dtype=F64)
    solution = least_squares(
        lambda x, y: (x - y)[None], torch.ones(5, dtype=F64), args=(goal,), in_dims=0
    )
    assert solution.x.shape == (5,)
    torch.testing.assert_close(solution.x, goal)


def test_a_problem_of_nan_leaves_the_others_bit_by_bit_as_they_are() -> None:
    y = data().clone()
    y[3, 7] = torch.nan
    solution = least_squares(residual, START, args=(POINTS, y), in_dims=(None, None, 0))
    others = torch.arange(COUNT) != 3
    for name in ("x", "cost", "fun", "jac", "nfev", "njev", "status"):
        assert torch.equal(solution[name][others], together()[name][others]), name
    assert solution.reasons[3] is Status.NOT_FINITE
    assert not solution.success[3]
    assert torch.equal(solution.x[3], START)


def test_the_first_problem_may_be_the_one_that_is_not_finite() -> None:
    y = data().clone()
    y[0] = torch.nan
    solution = least_squares(residual, START, args=(POINTS, y), in_dims=(None, None, 0))
    assert solution.reasons[0] is Status.NOT_FINITE
    assert torch.equal(solution.x[1:], together().x[1:])


def test_a_singular_problem_leaves_the_others_bit_by_bit_as_they_are() -> None:
    starts = START.repeat(COUNT, 1)
    # neither the rate nor the frequency has an influence here
    starts[5] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    solution = least_squares(residual, starts, args=(POINTS, data()), in_dims=(0, None, 0))
    others = torch.arange(COUNT) != 5
    for name in ("x", "cost", "fun", "jac", "nfev", "njev", "status"):
        assert torch.equal(solution[name][others], together()[name][others]), name
    alone = least_squares(residual, starts[5], args=(POINTS, data()[5]))
    assert float(solution.cost[5]) == pytest.approx(float(alone.cost), rel=1e-9)


@pytest.mark.parametrize("limit", [300_000, 3_000_000])
def test_blocks_that_fit_the_memory_have_the_same_answers(limit: int) -> None:
    solution = least_squares(
        residual,
        START,
        args=(POINTS, data()),
        in_dims=(None, None, 0),
        memory_limit=limit,
        polish=0,
    )
    for name in ("x", "cost", "fun", "grad"):
        # fewer problems at once sum in another order
        torch.testing.assert_close(solution[name], together(0)[name], rtol=1e-7, atol=1e-9)
    assert len(solution.message) == COUNT


def sizes() -> Tensor:
    """How far each parameter of nine problems may go: every third has another scale."""
    kinds = torch.tensor(
        [[1.0, 1.0, 1.0, 1.0], [3.0, 0.1, 1.0, 0.3], [0.01, 1.0, 0.3, 2.0]], dtype=F64
    )
    return kinds.repeat(3, 1)


X_SCALES: dict[str, tuple[Any, Tensor, dict[str, Any]]] = {
    "one vector for all": ([3.0, 0.1, 1.0, 0.3], sizes()[1].expand(9, 4), {}),
    "one for each": (sizes(), sizes(), {}),
    "in blocks": (sizes(), sizes(), {"memory_limit": 30_000}),
    "from several starts": (sizes(), sizes(), {"n_starts": 2}),
    "with a scale to be estimated": (sizes(), sizes(), {"loss": "huber", "f_scale": "mad"}),
    "with second opinions": (sizes(), sizes(), {"acceptable": 0.0, "second_opinion": True}),
}


@pytest.mark.parametrize("name", X_SCALES)
def test_each_problem_has_the_steps_of_its_own_x_scale(name: str) -> None:
    # problems are done at different times, and leave the others their own scales
    x_scale, own, options = X_SCALES[name]
    options = {"polish": 0, "second_opinion": False, **options}
    batch = least_squares(
        residual, START, args=(POINTS, few(9)), in_dims=(None, None, 0), x_scale=x_scale, **options
    )
    options.pop("memory_limit", None)
    singles = [
        least_squares(residual, START, args=(POINTS, y), x_scale=scale, **options)
        for y, scale in zip(few(9), own, strict=True)
    ]
    assert batch.nfev.tolist() == [solution.nfev for solution in singles]
    assert len(set(batch.nfev.tolist())) > 1
    torch.testing.assert_close(
        batch.x, torch.stack([solution.x for solution in singles]), rtol=1e-7, atol=1e-9
    )


def test_x_scale_may_be_a_tree_in_a_batch_too() -> None:
    def of_tree(x: dict[str, Tensor], t: Tensor, y: Tensor) -> Tensor:
        return residual(torch.cat([x["a"], x["b"]]), t, y)

    start = {"a": START[:2], "b": START[2:]}
    dims, args = (None, None, 0), (POINTS, few(9))
    flat = least_squares(residual, START, args=args, in_dims=dims, x_scale=sizes())
    tree = least_squares(
        of_tree, start, args=args, in_dims=dims, x_scale={"a": sizes()[:, :2], "b": sizes()[:, 2:]}
    )
    assert tree.nfev.tolist() == flat.nfev.tolist()
    torch.testing.assert_close(
        torch.cat([tree.x["a"], tree.x["b"]], -1), flat.x, rtol=1e-12, atol=0
    )


def walls() -> tuple[Tensor, Tensor]:
    """A box for each of five problems: none, a wall above, a wall below, a point, none."""
    lower = torch.full((5, 4), -INF, dtype=F64)
    upper = torch.full((5, 4), INF, dtype=F64)
    upper[1, 2] = 1.01
    lower[2, 1] = 1.45
    lower[3] = upper[3] = START
    return lower, upper


BOXES = {
    "tensors": walls(),
    "scipy": Bounds(*(side.numpy() for side in walls())),
    "one box for all": (torch.tensor([-INF, 1.45, -INF, 0.5], dtype=F64), INF),
    "numbers": (0.7, 3.0),
}


@pytest.mark.parametrize("form", BOXES)
def test_bounds_may_be_shared_or_differ_between_problems(form: str) -> None:
    solution = least_squares(
        residual, START, args=(POINTS, few()), in_dims=(None, None, 0), bounds=BOXES[form]
    )
    lower, upper = {"tensors": walls(), "scipy": walls()}.get(form, BOXES[form])
    for place in range(5):
        box = (lower[place], upper[place]) if form in ("tensors", "scipy") else (lower, upper)
        alone = least_squares(residual, START, args=(POINTS, few()[place]), bounds=box)
        torch.testing.assert_close(solution.x[place], alone.x, rtol=1e-7, atol=1e-9)
        assert torch.equal(solution.active_mask[place], alone.active_mask)
    assert solution.active_mask.any()


def in_numpy(x: np.ndarray, t: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x[0] * np.exp(-x[1] * t) + x[2] * np.cos(x[3] * t) - y


def test_numpy_functions_are_called_problem_by_problem_and_not_once_they_are_done() -> None:
    calls: Counter[float] = Counter()

    def counted(x: np.ndarray, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        assert x.shape == (4,)
        assert y.shape == (50,)
        calls[float(y[0])] += 1
        return in_numpy(x, t, y)

    y = data()[:40].numpy()
    solution = least_squares(
        counted, START.numpy(), "3-point", args=(POINTS.numpy(), y), in_dims=(None, None, 0)
    )
    np.testing.assert_allclose(solution.x, together().x[:40], rtol=1e-6)
    assert isinstance(solution.x, np.ndarray)
    spent = np.array([calls[float(row[0])] for row in y])
    # a Jacobian takes 7 calls, and one more is made at the end; half of the problems may be
    # waited for before they go
    needed = solution.nfev + 7 * solution.njev
    assert spent.min() < 0.7 * spent.max()
    assert np.corrcoef(spent, needed)[0, 1] > 0.7


@pytest.mark.parametrize("jac", [None, "2-point", "3-point"])
def test_batches_of_numpy_functions_have_the_answers_of_torch(jac: Any) -> None:
    arguments: dict[str, Any] = {
        "args": (POINTS.numpy(), few().numpy()),
        "in_dims": (None, None, 0),
    }
    if jac is None:
        with pytest.warns(FallbackWarning, match="cannot be differentiated"):
            solution = least_squares(in_numpy, START.numpy(), **arguments)
    else:
        solution = least_squares(in_numpy, START.numpy(), jac, **arguments)
    # forward differences know J to ε^½
    np.testing.assert_allclose(solution.x, expected(), rtol=1e-4)
    assert solution.success.dtype == bool
    assert solution.nfev.dtype == np.int64


def branching(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    if x[0] > 0:  # vmap has no value for this
        return residual(x, t, y)
    return 10 * residual(x, t, y)


def test_functions_that_vmap_refuses_are_looped_after_a_warning() -> None:
    with pytest.warns(FallbackWarning, match=r"torch\.vmap refuses the function"):
        solution = least_squares(branching, START, args=(POINTS, few()), in_dims=(None, None, 0))
    torch.testing.assert_close(solution.x, expected(), rtol=1e-9, atol=0)


def test_a_jacobian_of_the_users_is_asked_for_each_problem() -> None:
    def jacobian(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        decay = torch.exp(-x[1] * t)
        return torch.stack(
            [decay, -x[0] * t * decay, torch.cos(x[3] * t), -x[2] * t * torch.sin(x[3] * t)], 1
        )

    solution = least_squares(
        residual, START, jacobian, args=(POINTS, few()), in_dims=(None, None, 0), polish=5
    )
    torch.testing.assert_close(solution.x, expected(), rtol=1e-9, atol=0)


def test_one_parameter_may_have_a_vector_for_its_jacobian() -> None:
    scales = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    solution = least_squares(
        lambda x, a: a * x[0] * POINTS - POINTS,
        START[:1],
        lambda x, a: a * POINTS,
        args=(scales,),
        in_dims=(None, 0),
    )
    torch.testing.assert_close(solution.x[:, 0], 1 / scales, rtol=1e-12, atol=0)


@pytest.mark.parametrize("loss", ["soft_l1", "tukey"])
def test_the_scale_of_a_robust_loss_is_estimated_for_each_problem(loss: str) -> None:
    y = few().clone()
    y[:, ::9] += 0.5
    y[2] *= 10
    starts = START.repeat(5, 1)
    starts[2, [0, 2]] *= 10
    solution = least_squares(
        residual, starts, args=(POINTS, y), in_dims=(0, None, 0), loss=loss, f_scale="mad"
    )
    assert solution.f_scale.shape == (5,)
    for place in range(5):
        alone = least_squares(
            residual, starts[place], args=(POINTS, y[place]), loss=loss, f_scale="mad"
        )
        assert float(solution.f_scale[place]) == pytest.approx(float(alone.f_scale), rel=1e-5)
        torch.testing.assert_close(solution.x[place], alone.x, rtol=1e-5, atol=1e-6)


def test_more_parameters_than_the_small_ones_go_in_batches_too() -> None:
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(3, 90, 70, dtype=F64, generator=generator)
    b = torch.randn(3, 90, dtype=F64, generator=generator)
    solution = least_squares(
        lambda x, A, b: A @ x - b, np.zeros(70), args=(A, b), in_dims=(None, 0, 0)
    )
    np.testing.assert_allclose(
        solution.x, torch.linalg.lstsq(A, b[..., None]).solution[..., 0], rtol=1e-6, atol=1e-8
    )


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 5), st.integers(0, 2**31))
def test_linear_problems_have_the_solutions_of_lstsq(
    count: int, n: int, more: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(count, n + more, n, dtype=F64, generator=generator)
    b = torch.randn(count, n + more, dtype=F64, generator=generator)
    solution = least_squares(
        lambda x, A, b: A @ x - b, torch.zeros(n, dtype=F64), args=(A, b), in_dims=(None, 0, 0)
    )
    exact = torch.linalg.lstsq(A, b[..., None], driver="gelsd").solution[..., 0]
    bound = torch.linalg.cond(A)[:, None] * 1e-9 * (1 + exact.abs().amax(1, keepdim=True))
    assert ((solution.x - exact).abs() <= bound).all()


NO_FIT: dict[str, tuple[Any, Any, Any, str]] = {
    "a float": (STARTS, 0.5, (), "must be an int, or have an entry for x0"),
    "too few": (STARTS, (0,), (POINTS, few()), "one for each of the 2 args"),
    "too many": (STARTS, (0, None, 0), (), "one for each of the 0 args"),
    "a dimension that is not there": (STARTS, (2, None, 0), (POINTS, few()),
        "names dimension 2 of x0, which has 2"),
    "sizes that differ": (START.expand(4, 4), (0, None, 0), (POINTS, few()),
        "x0 is of 4 problems by in_dims"),
    "arguments that differ": (
        START, (None, 0, 0), (POINTS.expand(4, 50), few()),
        "names dimensions of different sizes: .*argument 1"
    ),
    "no problems": (START.expand(0, 4), (0,), (), "there are no problems"),
    "a number": (STARTS, (0, 0, 0), (1.0, few()),
        "names a dimension of an argument that is no array"),
    "a tree for a tensor": (STARTS, ({"a": 0}, None, 0), (POINTS, few()),
        "for a single tensor: give an int or None"),
    "another tree": ({"a": STARTS}, ({"b": 0}, None, 0), (POINTS, few()),
        "for a dict: give an int, None, or the same"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_FIT)
def test_in_dims_that_do_not_fit_are_refused(name: str) -> None:
    start, dims, args, message = NO_FIT[name]
    with pytest.raises(InputError, match=message):
        least_squares(residual, start, args=args, in_dims=dims)


def test_ten_thousand_fits_are_one_call() -> None:
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(0, 1, 50, dtype=F64)
    share = torch.rand(10_000, 4, dtype=F64, generator=generator)
    truth = torch.tensor([1.0, 0.3, 0.05, 0.0], dtype=F64) + share * torch.tensor(
        [2.0, 0.4, 0.1, 0.5], dtype=F64
    )

    def peak(x: Tensor, y: Tensor) -> Tensor:
        return x[0] * torch.exp(-0.5 * ((t - x[1]) / x[2]) ** 2) + x[3] - y

    y = torch.vmap(peak, (0, None))(truth, torch.zeros(50, dtype=F64))
    y += 0.02 * torch.randn(y.shape, dtype=F64, generator=generator)
    start = torch.tensor([1.0, 0.5, 0.1, 0.0], dtype=F64)
    many = least_squares(peak, start, args=(y,), in_dims=(None, 0))
    assert many.x.shape == (10_000, 4)
    assert many.success.float().mean() > 0.999
    assert (
        (many.x - truth).abs().median(0).values
        < torch.tensor([0.02, 0.002, 0.002, 0.01], dtype=F64)
    ).all()
    for i in range(0, 10_000, 500):
        one = least_squares(peak, start, args=(y[i],))
        torch.testing.assert_close(many.x[i], one.x, rtol=1e-9, atol=1e-12)
        assert many.status[i] == one.status


def test_a_jacobian_made_later_is_that_of_the_data_that_were_fitted() -> None:
    y = data()[:3].clone()
    called: dict[str, Any] = {"args": (POINTS, y), "in_dims": (None, None, 0)}
    solution = least_squares(residual, START, **called)
    expected = torch.stack([
        torch.func.jacrev(residual)(x, POINTS, row) for x, row in zip(solution.x, y, strict=True)
    ])  # fmt: skip
    solution.x[:] = 0  # the caller's own from now on
    torch.testing.assert_close(solution.jac, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(pickle.loads(pickle.dumps(solution)).jac, expected)

    changed = least_squares(residual, START, **called)
    y += 1
    with pytest.raises(InputError, match="changed in place after the fit"):
        changed.jac  # noqa: B018

    arrays = y.numpy()
    called["args"] = POINTS.numpy(), arrays
    asked, later = (least_squares(residual, START.numpy(), **called) for _ in range(2))
    asked.jac  # noqa: B018
    arrays[:] = 0
    np.testing.assert_array_equal(later.jac, asked.jac)


def test_no_jacobian_is_made_of_a_function_that_has_changed_since() -> None:
    fits, expected = [], []
    for factor in (1.0, 2.0):

        def other(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return residual(x, factor * t, y)  # noqa: B023 - the variable of the loop is the point

        called: dict[str, Any] = {"args": (POINTS, data()[:3]), "in_dims": (None, None, 0)}
        fits.append(least_squares(other, START, **called))
        expected.append(least_squares(other, START, **called).jac)
    with pytest.raises(InputError, match="gives other residuals than in the fit"):
        fits[0].jac  # noqa: B018
    torch.testing.assert_close(fits[1].jac, expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_a_jacobian_is_made_later_where_data_are_met_to_round_off(
    dtype: torch.dtype, offset: float
) -> None:
    t, truth = POINTS.to(dtype), torch.tensor([[2.0, 0.5], [1.0, 0.7]], dtype=dtype)

    def line(x: Tensor, y: Tensor) -> Tensor:
        return x[0] + x[1] * t + offset - y

    y = truth[:, :1] + truth[:, 1:] * t + offset
    for start in (truth, torch.ones_like(truth)):
        solution = least_squares(line, start, args=(y,), in_dims=(0, 0))
        expected = torch.stack([torch.ones_like(t), t], -1).expand_as(solution.jac)
        torch.testing.assert_close(solution.jac, expected)
