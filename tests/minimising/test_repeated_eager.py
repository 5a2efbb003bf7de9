"""A second fit of a kind begins at once, and is the first one to the last bit."""

import math
import sys
import threading

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds

import lmtorch
from lmtorch.jacobians.dual_numbers import DualNumbers
from lmtorch.jacobians.learned import AGREED, OfFit
from lmtorch.minimising import kinds, repeated_eager
from tests.nist import PROBLEMS

T = torch.linspace(0, 2, 15, dtype=torch.float64)
Y = 2 * torch.exp(-1.5 * T) + 0.01 * torch.cos(9 * T)


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """Nothing is remembered of the fits of other tests."""
    monkeypatch.setattr(kinds, "_KNOWN", type(kinds._KNOWN)())
    monkeypatch.setattr(repeated_eager, "_CHANGED", {})


@pytest.fixture
def solved(monkeypatch):
    """Which fits were solved as one before."""
    found = []
    plain = repeated_eager.RepeatedEager.solve

    def solve(self, *args):
        solution = plain(self, *args)
        found.append(solution is not None)
        return solution

    monkeypatch.setattr(repeated_eager.RepeatedEager, "solve", solve)
    return found


def decay(b, t, y):
    return b[0] * torch.exp(-b[1] * t) - y


@pytest.mark.parametrize("name", ["Misra1a", "Thurber", "Gauss1", "Lanczos3", "Rat43"])
def test_the_second_fit_is_the_first(name, solved):
    problem = PROBLEMS[name]
    first, second = (lmtorch.least_squares(problem.residual, problem.starts[0]) for _ in range(2))
    assert solved == [True]
    assert list(first) == list(second)
    for key in ("x", "fun", "jac", "grad", "active_mask"):
        assert np.array_equal(first[key], second[key]), key
        assert type(first[key]) is type(second[key])
    for key in ("cost", "optimality", "nfev", "njev", "status", "message", "success", "promise"):
        assert first[key] == second[key], key
        assert type(first[key]) is type(second[key])
    assert second.calls <= first.calls


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(2,), (1, 2), (2, 1)])
def test_tensors_stay_tensors(dtype, shape, solved):
    t, y, start = T.to(dtype), Y.to(dtype), torch.ones(shape, dtype=dtype)

    def residual(b):
        return decay(b.reshape(-1), t, y)

    first, *others = (lmtorch.least_squares(residual, start) for _ in range(12))
    assert solved == [True] * 11
    for second in others:
        for key, value in first.items():
            assert type(second[key]) is type(value), key
            if isinstance(value, torch.Tensor):
                assert second[key].dtype is value.dtype, key
                assert torch.equal(second[key], value), key
        assert str(second) == str(first).replace(f"calls: {first.calls}", f"calls: {second.calls}")


def test_data_in_arguments_may_be_others(solved):
    for factor in (1.0, 3.0, 0.2):
        repeated_fit = lmtorch.least_squares(decay, [1.0, 1.0], args=(T, factor * Y))
        alone = lmtorch.least_squares(
            lambda b, f=factor: decay(b, T, f * Y), torch.tensor([1.0, 1.0], dtype=torch.float64)
        )
        assert np.allclose(repeated_fit.x, alone.x.numpy(), rtol=1e-9)
    assert solved.count(True) >= 2


def test_another_function_of_the_same_code_is_looked_at_anew(solved):
    # the code is the same, what it calls is not: the second breaks the graph to its parameter
    def made(through):
        def residual(b):
            return b[0] * torch.exp(-through(b[1]) * T) - Y

        return residual

    lmtorch.least_squares(made(torch.abs), [1.0, 1.0])
    with pytest.warns(lmtorch.FallbackWarning, match="cannot be differentiated"):
        solution = lmtorch.least_squares(made(lambda b: abs(float(b))), [1.0, 1.0])
    assert True not in solved
    assert np.allclose(solution.x, [2.0, 1.5], atol=0.02)


def test_options_and_shapes_tell_kinds_apart(solved):
    lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y))
    lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y), gtol=1e-3)
    lmtorch.least_squares(decay, [1.0, 1.0], args=(T[:9], Y[:9]))
    lmtorch.least_squares(decay, torch.tensor([1.0, 1.0]), args=(T.float(), Y.float()))
    lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y), bounds=(0, 10))
    assert not solved


def test_what_finds_no_minimum_runs_as_the_first_time(solved):
    lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y))
    fresh = lmtorch.least_squares(lambda b: decay(b, T, 0 * Y), [1.0, 1.0])
    again = lmtorch.least_squares(decay, [1.0, 1.0], args=(T, 0 * Y))
    assert solved in ([], [False], [True])
    assert again.status == fresh.status
    with pytest.raises(lmtorch.InputError, match="not finite at the start"):
        lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y * math.nan))


def test_an_end_that_is_not_sure_is_found_as_the_first_time(solved):
    lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y), max_nfev=11)
    again = lmtorch.least_squares(decay, [1.0, 60.0], args=(T, Y), max_nfev=11)
    alone = lmtorch.least_squares(
        lambda b, t, y: 1.0 * decay(b, t, y), [1.0, 60.0], args=(T, Y), max_nfev=11
    )
    assert solved == [False]
    assert not again.success
    assert (again.status, again.message, again.nfev) == (alone.status, alone.message, alone.nfev)


def test_a_source_that_gives_way_is_replaced_by_one_that_is_held_to_a_backward_pass(
    solved, monkeypatch
):
    first = lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y))

    def fails(*_):
        raise RuntimeError("no rule")

    monkeypatch.setattr(DualNumbers, "block", fails)
    again = lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y))
    assert solved == [False]
    assert np.allclose(again.x, first.x, rtol=1e-9)


def test_residuals_of_extreme_size_get_their_unit(solved):
    def scaled(b, c):
        return c * decay(b, T, Y)

    for size in (1.0, 1e-170):
        c = torch.tensor(size, dtype=torch.float64)
        solution = lmtorch.least_squares(scaled, [1.0, 1.0], args=(c,))
        assert np.allclose(solution.x, [2.0, 1.5], atol=0.02)
    assert True not in solved  # the squares of the second are zero


def test_cost_that_is_not_believed_is_asked_about(solved):
    lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y), acceptable=1.0)
    poor = lmtorch.least_squares(
        decay, [1.0, 1.0], args=(T, Y + 2 * torch.sin(40 * T)), acceptable=1e-3
    )
    assert True not in solved
    assert not poor.success


def test_a_function_that_changes_each_time_is_kept_only_a_few_times(monkeypatch):
    made = []
    plain = repeated_eager.Unchanged
    monkeypatch.setattr(repeated_eager, "Unchanged", lambda f: made.append(f) or plain(f))
    for factor in range(1, 12):
        y = factor * Y
        lmtorch.least_squares(lambda b, y=y: decay(b, T, y), [1.0, 1.0])
    assert len(made) <= 1 + repeated_eager.NEW


def test_the_table_of_choices_is_that_of_the_first(solved):
    first, second = (lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y)) for _ in range(2))
    assert solved == [True]
    assert str(first.explain()) == str(second.explain())


# ---- evaluations that are replayed ---------------------------------------------------------------

FITS = repeated_eager.LEARNING + AGREED + 4  # after which evaluations are replayed


@pytest.fixture
def replayed(monkeypatch):
    """The fits in which evaluations were replayed, of all that have looked for records."""
    found = []
    plain = OfFit.close

    def close(self):
        plain(self)
        found.append(self.replayed)

    monkeypatch.setattr(OfFit, "close", close)
    return found


def same(one, other):
    """Whether two solutions are the same to the last bit."""
    numbers = all(np.array_equal(one[key], other[key]) for key in ("x", "fun", "jac", "grad"))
    return numbers and all(
        one[key] == other[key] for key in ("cost", "nfev", "njev", "status", "message", "promise")
    )


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        # a loss in turn; the others run apart
        pytest.param(*(name, loss), marks=[] if number == place % 2 else [pytest.mark.slow])
        for place, name in enumerate(["Misra1a", "Thurber", "Gauss1", "Lanczos3", "Rat43", "MGH17"])
        for number, loss in enumerate(["linear", "soft_l1"])
    ],
)
def test_replayed_fits_are_the_first_to_the_last_bit(name, loss, replayed):
    problem = PROBLEMS[name]

    def fit():
        return lmtorch.least_squares(problem.residual, problem.starts[1], loss=loss)

    first, *others = (fit() for _ in range(FITS))
    assert replayed[-1]
    assert all(same(first, other) for other in others)
    assert others[-1].calls == 1  # at the end


def test_replayed_fits_take_their_own_data_and_start(replayed):
    for factor in (*np.linspace(1, 2, FITS), 0.2, 30.0):
        found = lmtorch.least_squares(decay, [factor, 1.0], args=(T, factor * Y))
        alone = lmtorch.least_squares(
            lambda b, f=factor: decay(b, T, f * Y), torch.tensor([factor, 1.0]).double()
        )
        assert np.array_equal(found.x, alone.x.numpy())
    assert replayed[-2:] == [True, True]


def test_fits_of_curves_are_replayed(replayed):
    x, y = T.numpy(), Y.numpy()

    def curve(t, a, b):
        return a * torch.exp(-b * t)

    fits = [lmtorch.curve_fit(curve, x, y, [1.0, 1.0]) for _ in range(FITS)]
    assert replayed[-1]
    assert all(np.array_equal(fits[0].pcov, fit.pcov) for fit in fits)
    other = lmtorch.curve_fit(curve, x, 2 * y, [1.0, 1.0])
    assert replayed[-1]
    assert np.allclose(other.popt, fits[0].popt * [2, 1], rtol=1e-9)


INF = math.inf
BOXES = {
    "far off": ([0, 0], INF),
    "lists": ([0.0, -INF], [100.0, 3.0]),
    "arrays": (np.array([0.0, 0.0]), np.array([1.8, 10.0])),
    "at the end": ([0, 1.7], [INF, INF]),
    "fixed": ([0, 1.0], [INF, 1.0]),
    "nowhere": ([-INF, -INF], [INF, INF]),
}


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_fits_within_bounds_are_the_first_to_the_last_bit(name, dtype, solved, replayed):
    start = [1.0, 1.8 if name == "at the end" else 1.0]
    t, y = (T, Y) if dtype is None else (T.to(dtype), Y.to(dtype))
    start = start if dtype is None else torch.tensor(start, dtype=dtype)

    def fit():
        return lmtorch.least_squares(decay, start, args=(t, y), bounds=BOXES[name])

    first, *others = (fit() for _ in range(FITS))
    assert solved == [True] * (FITS - 1)
    assert replayed[-1]
    assert first.active_mask.any() == (name in ("arrays", "at the end", "fixed"))
    for other in others:
        assert same(first, other)
        assert np.array_equal(first.active_mask, other.active_mask)
        assert type(first.active_mask) is type(other.active_mask)
        assert first.active_mask.dtype == other.active_mask.dtype
        assert first.optimality == other.optimality


def test_a_bound_that_other_data_meet_is_kept(replayed):
    # the box is never touched while fits are learned, and then it is: by the end, and on the way
    box = ([0.0, 0.0], [2.5, 2.0])
    for factor in (*[1.0] * FITS, 1.2, 1.3, 3.0, 0.5):
        for start in ([1.0, 1.0], [0.1, 1.9], [2.5, 2.0]):
            found = lmtorch.least_squares(decay, start, args=(T, factor * Y), bounds=box)
            alone = lmtorch.least_squares(
                lambda b, f=factor: decay(b, T, f * Y), torch.tensor(start).double(), bounds=box
            )
            assert np.array_equal(found.x, alone.x.numpy())
            assert np.array_equal(found.active_mask, alone.active_mask.numpy())
            assert found.active_mask[0] == (factor > 1.25)
    assert replayed[-1]


def test_bounds_are_part_of_the_kind(solved):
    for high in (10.0, 1.9, 1.8):
        found = lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y), bounds=(0, [high, 10]))
        assert found.x[0] == high or (high == 10 and found.x[0] > 1.95)
    assert not solved
    sides = np.zeros(2), np.array([10.0, 10.0])
    for high in (10.0, 1.5):  # an array that is written into
        sides[1][0] = high
        assert lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y), bounds=sides).x[0] <= high
    assert not solved


def test_a_start_outside_of_bounds_that_are_remembered_is_refused(solved):
    for _ in range(FITS):
        lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y), bounds=(0, 10))
    for start in ([-1.0, 1.0], [1.0, 11.0]):
        with pytest.raises(lmtorch.InputError, match="infeasible"):
            lmtorch.least_squares(decay, start, args=(T, Y), bounds=(0, 10))
    for bounds in ((0, 10, 20), (10, 0), ([0, 0, 0], 10), "ab"):
        with pytest.raises(lmtorch.InputError):
            lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y), bounds=bounds)
    assert solved[:-2] == [True] * (FITS - 1)
    assert solved[-2:] == [False, False]


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize(
    "bounds",
    [
        ([torch.tensor(0.0, requires_grad=True)] * 2, 10),
        (torch.zeros(2, requires_grad=True), 10),
        (torch.zeros(2), np.array([10.0, 10.0])),
        Bounds([0, 0], [10, 10]),
        (None, 10),
    ],
    ids=["graded entries", "graded", "mixed", "scipy", "none"],
)
def test_bounds_of_any_kind_are_read_as_the_first_time(bounds):
    free = lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y))
    for _ in range(3):
        found = lmtorch.least_squares(decay, [1.0, 1.0], args=(T, Y), bounds=bounds)
        np.testing.assert_allclose(found.x, free.x, rtol=1e-8)


class Held:
    """A constant that a function reaches through an object."""

    def __init__(self):
        self.factor = 1.0
        self.data = Y.clone()


def test_what_has_changed_is_not_replayed(replayed):
    held, shift = Held(), torch.zeros(15, dtype=torch.float64)

    def residual(b):
        return held.factor * b[0] * torch.exp(-b[1] * T) + shift - held.data

    for _ in range(FITS):
        lmtorch.least_squares(residual, [1.0, 1.0])
    assert replayed[-1]

    def change_factor():
        held.factor = 0.5

    def change_data():
        held.data = 3 * Y

    for change in (change_factor, change_data, lambda: shift.fill_(0.25)):
        change()
        fresh = lmtorch.least_squares(lambda b: 1.0 * residual(b), [1.0, 1.0])
        found = lmtorch.least_squares(residual, [1.0, 1.0])
        assert np.allclose(found.x, fresh.x, rtol=1e-8)
        assert np.allclose(found.fun, residual(torch.from_numpy(found.x)).numpy())


def test_a_change_that_nobody_sees_is_found_at_the_end(replayed, monkeypatch):
    monkeypatch.setattr(repeated_eager.Unchanged, "holds", lambda *_: True)
    held = Held()

    def residual(b):
        return held.factor * b[0] * torch.exp(-b[1] * T) - Y

    for _ in range(FITS):
        lmtorch.least_squares(residual, [1.0, 1.0])
    held.factor, before = 0.5, len(replayed)
    for _ in range(2):
        found = lmtorch.least_squares(residual, [1.0, 1.0])
        assert np.allclose(found.fun, residual(torch.from_numpy(found.x)).numpy())
        assert np.allclose(found.x[0], 4, atol=0.1)
    assert replayed[before:] == [True]  # after which what was kept of the fit is another


def test_a_function_that_prints_is_called(replayed, capsys):
    def residual(b):
        print("called")
        return decay(b, T, Y)

    for _ in range(FITS):
        solution = lmtorch.least_squares(residual, [1.0, 1.0])
        assert capsys.readouterr().out.count("called") == solution.calls > 1
    assert not replayed


def branches(b, t, y):
    return b[0] * torch.exp(-b[1] * t) - y if b[0] > 0 else b[0] * t - y


def branches_on_data(b, t, y):
    return b[0] * torch.exp(-b[1] * t) - (y if float(y[0]) < 2.5 else y / 2)


@pytest.mark.parametrize("function", [branches, branches_on_data])
def test_a_function_that_may_go_another_way_is_called(function, replayed):
    for factor in (*[1.0] * FITS, 2.0):
        found = lmtorch.least_squares(function, [1.0, 1.0], args=(T, factor * Y))
        with torch.no_grad():
            expected = function(torch.from_numpy(found.x), T, factor * Y)
        assert np.array_equal(found.fun, expected.numpy())
    assert True not in replayed


def test_threads_do_not_share_the_memory_of_a_replay(replayed, solved):
    def fit(factor):
        return lmtorch.least_squares(decay, [1.0, 1.0], args=(T, factor * Y))

    factors = np.linspace(0.5, 3, 6)
    expected = [fit(factor).x for factor in factors]
    for _ in range(FITS):
        fit(1.0)
    solved.clear()
    found, begin = {}, threading.Barrier(len(factors))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that they meet within an evaluation

    def work(place):
        begin.wait()
        found[place] = [fit(factors[place]).x for _ in range(5)]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(factors))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert solved == [True] * 5 * len(factors)  # none was found to be wrong at its end
    assert replayed[-1]
    for place, x in enumerate(expected):
        assert all(np.allclose(other, x, rtol=1e-12) for other in found[place])


class Settings(dict[str, float]):
    """Entries as attributes, as many write it; a name that there is not is a KeyError."""

    __getattr__ = dict.__getitem__

    def scaled(self, x, t, y):
        return self.scale * (x[0] * torch.exp(-x[1] * t) - y)

    def __call__(self, x, t, y):
        return self.scaled(x, t, y)


@pytest.mark.parametrize("way", ["a closure", "a method", "callable"])
def test_an_object_that_fails_when_it_is_asked_for_a_name_spoils_no_fit(way: str) -> None:
    settings = Settings(scale=1.0)
    functions = {
        "a closure": lambda x, t, y: 1.0 * settings.scaled(x, t, y),
        "a method": settings.scaled,
        "callable": settings,
    }
    t = torch.linspace(0, 1, 12, dtype=torch.float64)
    y = 2 * torch.exp(-1.5 * t) + 0.01 * torch.sin(30 * t)
    start = torch.ones(2, dtype=torch.float64)
    first = lmtorch.least_squares(functions[way], start, args=(t, y))
    settings["scale"] = 3.0
    found = lmtorch.least_squares(functions[way], start, args=(t, y))
    torch.testing.assert_close(found.x, first.x)
    torch.testing.assert_close(found.cost, 9 * first.cost)
