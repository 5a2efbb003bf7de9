"""Many starts: the best of them, and all that there were."""

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from lmtorch import InputError, least_squares

from .setting import F64, INF, Counted

T = torch.linspace(0, 10, 60, dtype=F64)
FREQUENCY = 2.7
Y = 1.5 * torch.sin(FREQUENCY * T + 0.4)
# a frequency far off: the next minimum is not the lowest
START = torch.tensor([1.0, 0.5, 0.0], dtype=F64)
BOX = (torch.tensor([0.1, 0.1, -1.0], dtype=F64), torch.tensor([5.0, 5.0, 1.0], dtype=F64))


def wave(x: Tensor) -> Tensor:
    return x[0] * torch.sin(x[1] * T + x[2]) - Y


def test_the_lowest_of_many_minima_is_found_where_one_start_misses_it() -> None:
    alone = least_squares(wave, START, bounds=BOX)
    many = least_squares(wave, START, bounds=BOX, n_starts=20)
    assert float(alone.cost) > 1
    torch.testing.assert_close(
        many.x, torch.tensor([1.5, FREQUENCY, 0.4], dtype=F64), rtol=1e-8, atol=1e-10
    )
    assert many.success


def test_it_is_the_minimum_of_a_global_search() -> None:
    # 8 noisy periods: no closed form
    y = Y + 0.3 * torch.randn(60, dtype=F64)
    residual = lambda x: x[0] * torch.sin(x[1] * T + x[2]) - y
    many = least_squares(residual, START, bounds=BOX, n_starts=20)
    searched = scipy.optimize.differential_evolution(
        lambda x: float(residual(torch.from_numpy(x)).square().sum() / 2),
        list(zip(*(side.tolist() for side in BOX), strict=True)), rng=0, tol=1e-12,
    )  # fmt: skip
    assert float(many.cost) == pytest.approx(searched.fun, rel=1e-9)


def test_all_starts_are_kept_and_the_best_is_returned() -> None:
    many = least_squares(wave, START, bounds=BOX, n_starts=7)
    every = many.starts
    assert every.x.shape == (7, 3)
    assert every.cost.shape == every.nfev.shape == every.status.shape == every.success.shape == (7,)
    assert every.fun.shape == (7, 60)
    assert len(every.message) == 7
    place = int(every.cost.argmin())
    for name in ("x", "cost", "fun", "jac", "grad", "active_mask"):
        assert torch.equal(many[name], every[name][place]), name
    assert many.nfev == int(every.nfev[place])
    assert many.status == int(every.status[place])
    assert many.message == every.message[place]


def test_the_first_start_is_x0() -> None:
    many = least_squares(wave, START, bounds=BOX, n_starts=4, max_nfev=1)
    assert torch.equal(many.starts.x[0], START)
    alone = least_squares(wave, START, bounds=BOX)
    full = least_squares(wave, START, bounds=BOX, n_starts=4)
    torch.testing.assert_close(full.starts.x[0], alone.x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_starts_are_inside_the_bounds_and_one_in_each_slice_of_a_latin_hypercube(seed: int) -> None:
    starts = least_squares(wave, START, bounds=BOX, n_starts=9, seed=seed, max_nfev=1).starts.x[1:]
    assert (starts >= BOX[0]).all()
    assert (starts <= BOX[1]).all()
    slices = ((starts - BOX[0]) / (BOX[1] - BOX[0]) * 8).floor().long()
    for column in slices.T:
        assert sorted(column.tolist()) == list(range(8))


def test_without_bounds_starts_spread_about_x0_by_its_size() -> None:
    start = torch.tensor([0.0, 100.0, -0.1], dtype=F64)
    starts = least_squares(wave, start, n_starts=2001, max_nfev=1).starts.x[1:]
    deviation = (starts - start).std(0)
    # of 2000 draws, stratified: 1 % is many standard errors
    torch.testing.assert_close(
        deviation, torch.tensor([1.0, 100.0, 1.0], dtype=F64), rtol=1e-2, atol=0
    )


def test_one_sided_bounds_hold_for_the_starts() -> None:
    bounds = ([0.9, -INF, -INF], [INF, 0.6, INF])
    starts = least_squares(wave, START, bounds=bounds, n_starts=30, max_nfev=1).starts.x
    assert (starts[:, 0] >= 0.9).all()
    assert (starts[:, 1] <= 0.6).all()


def test_the_same_seed_gives_the_same_starts_and_another_others() -> None:
    one, same, other = (
        least_squares(wave, START, bounds=BOX, n_starts=5, seed=seed, max_nfev=1).starts.x
        for seed in (3, 3, 4)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one[1:], other[1:])


def test_no_random_number_of_the_users_is_drawn() -> None:
    # ruff would have us use a generator of our own: the global one is what must not be touched
    states = torch.get_rng_state, lambda: np.random.get_state()[1:]  # noqa: NPY002
    before = [state() for state in states]
    least_squares(wave, START, bounds=BOX, n_starts=5)
    after = [state() for state in states]
    assert torch.equal(before[0], after[0])
    for old, new in zip(before[1], after[1], strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_sampler_may_give_the_starts() -> None:
    given = np.array([[1.0, 2.5, 0.0], [1.0, 4.0, 0.0]])

    def sampler(count: int, rng: np.random.Generator) -> np.ndarray:
        assert isinstance(rng, np.random.Generator)
        return given[:count]

    many = least_squares(wave, START, n_starts=3, sampler=sampler, max_nfev=1)
    np.testing.assert_array_equal(many.starts.x[1:], given)
    assert float(least_squares(wave, START, n_starts=3, sampler=sampler).cost) < 1e-20


@pytest.mark.parametrize(
    ("points", "message"),
    [(np.zeros((2, 3)), r"returned \(2, 3\); 3 further starts of 3 parameters need \(3, 3\)"),
     (np.zeros((3, 2)), r"returned \(3, 2\)"),
     (np.full((3, 3), 99.0), "points outside the bounds"),
     (np.full((3, 3), np.nan), "points outside the bounds")],
    ids=["too few", "too narrow", "outside", "nan"],
)  # fmt: skip
def test_a_sampler_whose_points_do_not_fit_is_refused(points: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        least_squares(wave, START, bounds=BOX, n_starts=4, sampler=lambda count, rng: points)


def test_starts_of_nan_lose() -> None:
    # undefined for half of the starts, and at x0
    residual = lambda x: torch.log(x) - 1
    many = least_squares(residual, torch.tensor([-1.0], dtype=F64), bounds=(-5, 5), n_starts=8)
    np.testing.assert_allclose(many.x, np.e, rtol=1e-10)
    assert many.success
    assert (many.starts.status == -5).any()


def test_numpy_functions_have_many_starts_too() -> None:
    t, y = T.numpy(), Y.numpy()
    function = Counted(lambda x: x[0] * np.sin(x[1] * t + x[2]) - y)
    box = tuple(side.numpy() for side in BOX)
    many = least_squares(function, START.numpy(), "3-point", bounds=box, n_starts=20)
    np.testing.assert_allclose(many.x, [1.5, FREQUENCY, 0.4], rtol=1e-7)
    points = np.array(function.points)
    assert (points >= box[0]).all()
    assert (points <= box[1]).all()


def test_trees_have_many_starts_too() -> None:
    start = {"a": START[0], "rest": START[1:]}
    bounds: Any = tuple({"a": side[0], "rest": side[1:]} for side in BOX)
    many = least_squares(
        lambda x: wave(torch.cat([x["a"][None], x["rest"]])), start, bounds=bounds, n_starts=20
    )
    torch.testing.assert_close(
        many.x["rest"], torch.tensor([FREQUENCY, 0.4], dtype=F64), rtol=1e-8, atol=1e-10
    )
    assert many.starts.x["rest"].shape == (20, 2)


@pytest.mark.parametrize(
    "robust", [{}, {"loss": "soft_l1", "f_scale": "mad"}], ids=["plain", "mad"]
)
@pytest.mark.parametrize("wide", [False, True], ids=["one box", "a box for each"])
def test_each_problem_of_a_batch_has_its_own_best_start(wide: bool, robust: dict[str, Any]) -> None:
    frequencies = torch.tensor([1.1, 2.7, 4.1], dtype=F64)
    noise = 0.1 * torch.randn(3, 60, dtype=F64)
    y = 1.5 * torch.sin(frequencies[:, None] * T + 0.4) + noise
    residual = lambda x, y: x[0] * torch.sin(x[1] * T + x[2]) - y
    bounds = tuple(side.expand(3, 3) for side in BOX) if wide else BOX
    many = least_squares(
        residual, START, args=(y,), in_dims=(None, 0), bounds=bounds, n_starts=20, **robust
    )
    assert many.x.shape == (3, 3)
    assert many.starts.x.shape == (20, 3, 3)
    assert many.starts.cost.shape == (20, 3)
    assert len(many.starts.message) == 20
    assert len(many.starts.message[0]) == 3
    for place in range(3):
        alone = least_squares(residual, START, args=(y[place],), bounds=BOX, n_starts=20, **robust)
        torch.testing.assert_close(many.x[place], alone.x, rtol=1e-5, atol=1e-6)
        assert float((many.x[place, 1] - frequencies[place]).abs()) < 0.05
    assert torch.equal(many.cost, many.starts.cost.amin(0))


def test_starts_may_differ_between_problems() -> None:
    y = torch.stack([Y, 2 * Y])
    starts = torch.stack([START, 2 * START])
    many = least_squares(
        lambda x, y: x[0] * torch.sin(x[1] * T + x[2]) - y,
        starts,
        args=(y,),
        in_dims=0,
        n_starts=3,
        max_nfev=1,
    )
    assert torch.equal(many.starts.x[0], starts)
