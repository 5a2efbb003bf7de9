"""A compiled fit of a kind that is remembered ends as the first would have, or runs as the first.

The model is linear in its one parameter, so that every minimum is known in closed form.
"""

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch.minimising import kinds, repeated_compiled
from lmtorch.minimising.results import Results

from ..programs import compiler

F64 = torch.float64
T = torch.linspace(1, 2, 12, dtype=F64)
Y = 3 * T + 0.1 * torch.cos(9 * T)
FACTOR = 1.0

pytestmark = [compiler, pytest.mark.usefixtures("own_programs")]


@pytest.fixture(autouse=True)
def same_dtype() -> Iterator[None]:
    """The default dtype is afterwards what it was."""
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)


def best(factor: float = 1.0, t: Tensor = T, y: Tensor = Y) -> float:
    """The minimum of ½ Σ (factor p t − y)²."""
    return float((t * y).sum() / t.square().sum() / factor)


def solve(fun: Callable[..., Any], x0: Any = (1.0,), **options: Any) -> Any:
    return lmtorch.least_squares(fun, x0, compile=True, **options)


def shortcuts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The solutions that were found without all that a first fit does, as they are found."""
    found: list[Any] = []
    real = kinds.solved

    def noting(*args: Any) -> Any:
        solution = real(*args)
        if solution is not None:
            found.append(solution)
        return solution

    monkeypatch.setattr(kinds, "solved", noting)
    return found


def line(p: Tensor, t: Tensor = T, y: Tensor = Y) -> Tensor:
    return FACTOR * p * t - y


def squared(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return p * p * t - y


class Line:
    """The line with what it uses held in an object."""

    def __init__(self) -> None:
        self.factor: Any = 1.0

    def residual(self, p: Tensor) -> Tensor:
        return self.factor * p * T - Y


def same(one: Any, other: Any) -> None:
    """Compare solutions, entry by entry."""
    assert list(one) == list(other)
    for name in set(one) - {"calls", "nfev", "njev", "message", "promise"}:
        mine, others = one[name], other[name]
        assert type(mine) is type(others), name
        if isinstance(mine, Tensor | np.ndarray):
            assert (mine.shape, mine.dtype) == (others.shape, others.dtype), name
            np.testing.assert_allclose(mine, others, rtol=1e-9, atol=1e-9)
        elif isinstance(mine, float):
            assert mine == pytest.approx(others, rel=1e-9, abs=1e-9)
        else:
            assert mine == others, name


@pytest.mark.parametrize(
    "x0",
    [[1.0], 1, np.array([1.0]), torch.tensor([1.0], dtype=F64), torch.ones(1), np.ones(1, "f4")],
    ids=["a list", "a number", "an array", "a tensor", "float32", "an array of float32"],
)
def test_the_second_solution_has_all_that_the_first_had(
    x0: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shortcuts(monkeypatch)
    first, second = solve(line, x0), solve(line, x0)
    assert len(found) == 1
    assert second is found[0]
    same(second, first)
    assert float(second.x[0]) == pytest.approx(best(), rel=1e-5)
    assert second.message.startswith(first.message.split("(")[0])
    assert second.calls == 1
    assert second.nfev == first.nfev
    assert second.jac.shape == (12, 1)
    second.explain()


BOXES = {"far": ([-9.0], [9.0]), "above": ([4.0], [9.0]), "below": ([-9.0], [1.0])}


@pytest.mark.parametrize("name", BOXES)
def test_a_fit_in_a_box_has_all_that_the_first_had(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, box = shortcuts(monkeypatch), BOXES[name]
    start = [min(max(2.0, box[0][0]), box[1][0])]
    first, second = (solve(line, start, bounds=box) for _ in range(2))
    assert len(found) == 1
    assert second is found[0]
    same(second, first)
    assert second.active_mask.tolist() == [{"far": 0, "above": -1, "below": 1}[name]]
    assert second.x[0] == pytest.approx(min(max(best(), box[0][0]), box[1][0]), rel=1e-9)
    # the gradient is whole, and tells of the data of each fit
    other = solve(line, start, args=(T, Y), bounds=box)
    twice = solve(line, start, args=(T, 2 * Y), bounds=box)
    assert twice is found[-1]
    assert other.x[0] == pytest.approx(second.x[0], rel=1e-9)
    assert twice.x[0] == pytest.approx(min(max(2 * best(), box[0][0]), box[1][0]), rel=1e-9)
    slope = (T * (twice.x[0] * T - 2 * Y)).sum()
    assert twice.grad[0] == pytest.approx(float(slope), rel=1e-6, abs=1e-9)
    with pytest.raises(lmtorch.InputError, match="infeasible"):
        solve(line, [99.0], bounds=box)
    wider = solve(line, start, bounds=([-50.0], [50.0]))
    assert wider.x[0] == pytest.approx(best(), rel=1e-9)


def test_sides_that_are_written_into_are_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    found, high = shortcuts(monkeypatch), np.array([1.0])
    for side in (1.0, 1.0, 1.5, 1.5, 1.0):
        high[0] = side
        x = solve(line, [0.5], bounds=([-9.0], high)).x[0]
        high[0] = 99.0
        assert x == pytest.approx(side, rel=1e-9)
    assert len(found) == 3


def test_another_start_other_data_and_other_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shortcuts(monkeypatch)
    x = [
        solve(line, [start], args=(t, y)).x[0]
        for start, t, y in ((1.0, T, Y), (5.0, T, 2 * Y), (1.0, T[:9], Y[:9]), (1.0, T[:9], Y[:9]))
    ]
    wanted = best(), 2 * best(), best(t=T[:9], y=Y[:9]), best(t=T[:9], y=Y[:9])
    np.testing.assert_allclose(x, wanted, rtol=1e-10)
    assert len(found) == 2


def test_an_array_that_is_written_into_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    found, y = shortcuts(monkeypatch), Y.numpy().copy()
    first = solve(line, args=(T, y))
    y *= 2
    second = solve(line, args=(T, y))
    y *= 2
    assert second.x[0] == pytest.approx(2 * first.x[0], rel=1e-10)
    assert len(found) == 1
    # J of the second is made now, of what was fitted
    np.testing.assert_allclose(second.jac[:, 0], T, rtol=1e-12)


def test_what_is_written_into_after_a_fit_leaves_its_jacobian() -> None:
    t = T.clone()
    for _ in range(2):
        found = solve(squared, args=(t, Y))
    expected = 2 * found.x[0] * T
    t.mul_(2)
    found.x[0] = 0
    np.testing.assert_allclose(found.jac[:, 0], expected, rtol=1e-12)


def cases(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, Callable[[], Any]]]:
    """Functions whose factor is 1, and what makes it 2."""
    array, owner = np.ones(1), Line()
    tensor = torch.from_numpy(array)
    return {
        "a tensor through NumPy": (
            lambda p: tensor * p * T - Y, lambda: np.multiply(array, 2, out=array)
        ),
        "an object": (owner.residual, lambda: setattr(owner, "factor", 2.0)),
        "a helper": (
            lambda p: helper(p) * T - Y,
            lambda: monkeypatch.setitem(globals(), "helper", twice),
        ),
    }  # fmt: skip


def helper(p: Tensor) -> Tensor:
    return p


def twice(p: Tensor) -> Tensor:
    return 2 * p


@pytest.mark.parametrize(
    "name",
    ["a tensor through NumPy", "an object", "a helper"],
)
def test_what_a_function_uses_has_changed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # seen without that
    monkeypatch.setattr(repeated_compiled.RepeatedCompiled, "_agrees", lambda *_: True)
    found = shortcuts(monkeypatch)
    function, change = cases(monkeypatch)[name]
    before = [solve(function).x[0] for _ in range(2)]
    assert len(found) == 1
    change()
    after = [solve(function).x[0] for _ in range(2)]
    np.testing.assert_allclose(before, best(), rtol=1e-10)
    np.testing.assert_allclose(after, best(2.0), rtol=1e-10)


@pytest.mark.parametrize("bounds", [(-math.inf, math.inf), ([0.0], [2.0])], ids=["free", "held"])
@pytest.mark.parametrize("loss", ["linear", "soft_l1"])
def test_a_solution_is_made_quickly_as_it_is_slowly(
    bounds: Any, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(p: Tensor) -> Tensor:
        return p * T - Y

    found = shortcuts(monkeypatch)
    quick = [solve(line, bounds=bounds, loss=loss) for _ in range(2)][1]
    monkeypatch.setattr(Results, "plain", False)
    slow = solve(line, bounds=bounds, loss=loss)
    assert len(found) == 2
    assert list(quick) == list(slow)
    assert quick.explanation == slow.explanation
    for name in quick:
        np.testing.assert_array_equal(quick[name], slow[name], err_msg=name)
        assert type(quick[name]) is type(slow[name]), name
        assert getattr(quick[name], "dtype", None) == getattr(slow[name], "dtype", None), name
    quick.x[0] = 7.0  # it is the solution's own
    assert solve(line, bounds=bounds, loss=loss).x[0] == slow.x[0]


def test_nothing_of_many_problems_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """To see whether each of their starts is finite took a twentieth of compiled fits."""
    asked: list[Any] = []
    real = kinds.call_of
    monkeypatch.setattr(kinds, "call_of", lambda *call: asked.append(0) or real(*call))
    starts = torch.ones(3, 1, dtype=F64)
    found = lmtorch.least_squares(lambda p: p * T - Y, starts, in_dims=0)
    assert found.success.all()
    assert not asked
    lmtorch.least_squares(lambda p: p * T - Y, starts[0])
    assert len(asked) == 1


def made(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda p: factor * p * T - Y


def test_the_same_code_with_another_constant_is_another_function() -> None:
    factors = [1.0, 1.0, 2.0, 1.0, 2.0]
    x = [solve(made(factor)).x[0] for factor in factors]
    np.testing.assert_allclose(x, [best(factor) for factor in factors], rtol=1e-10)


def test_a_function_that_is_defined_again_is_another() -> None:
    found = []
    for factor in (1, 2, 1):
        space: dict[str, Any] = {"T": T, "Y": Y}
        exec(f"def f(p): return {factor} * p * T - Y", space)
        found.append(solve(space["f"]).x[0])
    np.testing.assert_allclose(found, [best(), best(2.0), best()], rtol=1e-10)


def with_pi(p: Tensor) -> Tensor:
    return math.pi * p * T - Y


def test_what_no_key_can_see_is_seen_in_the_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing looks into libraries: the function's own value tells that something has changed."""
    for _ in range(2):
        assert solve(with_pi).x[0] == pytest.approx(best(math.pi), rel=1e-10)
    monkeypatch.setattr(math, "pi", 2.0)
    with pytest.warns(lmtorch.FallbackWarning, match="disagree"):
        after = solve(with_pi)
    assert after.x[0] == pytest.approx(best(2.0), rel=1e-10)
    assert after.success


def default_typed(p: Tensor) -> Tensor:
    return p * T.to(torch.ones(()).dtype).to(F64) - Y


def test_another_default_dtype_is_another_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_compiled.RepeatedCompiled, "_agrees", lambda *_: True)
    torch.set_default_dtype(torch.float32)
    coarse = [solve(default_typed).x[0] for _ in range(2)]
    torch.set_default_dtype(torch.float64)
    fine = [solve(default_typed).x[0] for _ in range(2)]
    np.testing.assert_allclose(coarse, best(t=T.float().double()), rtol=1e-12)
    np.testing.assert_allclose(fine, best(), rtol=1e-12)


def test_options_are_part_of_the_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shortcuts(monkeypatch)
    y = Y.clone()
    y[0] += 50
    for _ in range(2):
        plain = solve(line, args=(T, y))
        robust = solve(line, args=(T, y), loss="soft_l1")
    assert plain.x[0] == pytest.approx(best(y=y), rel=1e-10)
    loop = lmtorch.least_squares(line, [1.0], args=(T, y), loss="soft_l1")
    assert robust.x[0] == pytest.approx(loop.x[0], rel=1e-8)
    assert len(found) == 2
    spent = solve(line, args=(T, y), max_nfev=1)
    assert spent.nfev == 1
    assert not spent.success
    assert len(found) == 2
    for acceptable, shorter in ((1e6, 3), (1e-3, 3), (1e6, 4)):
        # where more is found than is believed, it is looked at further
        assert solve(line, args=(T, y), acceptable=acceptable).success
        assert len(found) == shorter


def test_what_is_not_sure_runs_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shortcuts(monkeypatch)
    assert solve(line, args=(T, Y)).success
    bad = Y.clone()
    bad[3] = torch.nan
    for _ in range(2):
        with pytest.raises(lmtorch.InputError, match="not finite"):
            solve(line, args=(T, bad))
    with pytest.raises(lmtorch.InputError, match="NaN"):
        solve(line, [math.nan], args=(T, Y))
    assert not found


def test_gradients_pass_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shortcuts(monkeypatch)
    start = torch.ones(1, dtype=F64)
    for _ in range(2):
        solve(line, start, args=(T, Y))
    y = Y.clone().requires_grad_()
    solve(line, start, args=(T, y)).x.sum().backward()
    assert len(found) == 1
    assert y.grad is not None
    torch.testing.assert_close(y.grad, T / T.square().sum())


def test_a_callback_and_a_history_see_every_iteration() -> None:
    seen: list[Any] = []
    solve(line)
    with pytest.warns(lmtorch.FallbackWarning, match="callback"):
        solve(line, callback=seen.append)
    assert seen
    assert solve(line, history=True).history


def test_calls_of_a_function_are_counted_and_it_is_called_in_every_fit() -> None:
    counted: list[int] = []

    def counting(p: Tensor) -> Tensor:
        counted.append(1)
        return p * T - Y

    # what it counts with changes: every fit is a first one, and each calls it
    for _ in range(2):
        before = len(counted)
        found = lmtorch.least_squares(counting, [1.0])
        assert len(counted) - before == found.calls


def test_within_a_mode_of_torch_everything_runs_as_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = shortcuts(monkeypatch)
    for _ in range(2):
        solve(line)
    before = len(found)
    with torch.device("cpu"):
        assert solve(line).x[0] == pytest.approx(best(), rel=1e-10)
    assert len(found) == before == 1


def test_threads_have_rooms_of_their_own() -> None:
    solve(line, args=(T, Y))
    x: dict[int, list[float]] = {}

    def work(number: int) -> None:
        x[number] = [solve(line, args=(T, number * Y)).x[0] for _ in range(50)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, found in x.items():
        np.testing.assert_allclose(found, number * best(), rtol=1e-10)


def curve(t: Tensor, slope: Tensor) -> Tensor:
    return FACTOR * slope * t


def test_curve_fit_has_the_errors_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shortcuts(monkeypatch)
    t, y = T.numpy(), Y.numpy()
    loop = lmtorch.curve_fit(curve, t, y)
    fits = [lmtorch.curve_fit(curve, t, y, compile=True) for _ in range(2)]
    assert len(found) == 1
    for fit in fits:
        np.testing.assert_allclose(fit.popt, best(), rtol=1e-10)
        np.testing.assert_allclose(fit.pcov, loop.pcov, rtol=1e-9)
        assert fit.success
        assert fit.nfev == fits[0].nfev
    other = lmtorch.curve_fit(curve, t, 2 * y, compile=True)
    np.testing.assert_allclose(other.pcov, 4 * loop.pcov, rtol=1e-9)
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    np.testing.assert_allclose(
        lmtorch.curve_fit(curve, t, y, compile=True).popt, best(2.0), rtol=1e-10
    )


def test_few_kinds_are_remembered() -> None:
    for factor in (1.0, 2.0):
        solve(made(factor))
    (alike,) = kinds._KNOWN.values()
    assert len(alike) == 2
    for number in range(2 * kinds.KEPT):
        kinds.put(number // 8, alike[0])
    assert set(map(len, kinds._KNOWN.values())) == {2, kinds.ALIKE}
    for number in range(kinds.KEPT):
        kinds.put(number, alike[0])
    assert len(kinds._KNOWN) == kinds.KEPT
