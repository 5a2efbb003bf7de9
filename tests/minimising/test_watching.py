"""What can be seen of a run: callbacks, a table, a bar, a history."""

import re
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmtorch import InputError, Iterate, Status, least_squares

from ..problems import rosenbrock
from .setting import F64, decay, noisy

START = torch.tensor([-1.2, 1.0], dtype=F64)
Y = torch.stack([noisy(seed=seed) for seed in range(3)])


def batch(**options: Any) -> Any:
    start = torch.tensor([2.0, 1.0, 0.1], dtype=F64)
    return least_squares(lambda x, y: decay(x) - y, start, args=(Y,), in_dims=(None, 0), **options)


def test_an_iterate_is_what_the_loop_did() -> None:
    seen: list[Iterate] = []
    solution = least_squares(rosenbrock, START, callback=seen.append, polish=0)
    assert [iterate.nit for iterate in seen] == list(range(1, len(seen) + 1))
    # the last one only finds that the point before was the minimum: its trial counts for nothing
    assert [iterate.nfev for iterate in seen[:-1]] == list(range(2, len(seen) + 1))
    costs = [
        float(rosenbrock(START).square().sum() / 2),
        *(float(iterate.cost) for iterate in seen),
    ]
    points = [START, *(iterate.x for iterate in seen)]
    for before, after, x0, iterate in zip(costs, costs[1:], points, seen, strict=False):
        assert after == pytest.approx(float(rosenbrock(iterate.x).square().sum() / 2), rel=1e-14)
        assert float(iterate.reduction) == pytest.approx(before - after, abs=1e-14)
        assert iterate.accepted == (after < before)
        if iterate.accepted:
            assert float(iterate.step_norm) == pytest.approx(
                float((iterate.x - x0).norm()), rel=1e-12
            )
        else:
            assert torch.equal(iterate.x, x0)
        J, r = torch.func.jacfwd(rosenbrock)(x0), rosenbrock(x0)
        # a zero has no direction
        cosine = ((J.T @ r).abs() / J.norm(dim=0) / r.norm()).nan_to_num(0.0).max()
        assert float(iterate.optimality) == pytest.approx(float(cosine), rel=1e-9, abs=1e-12)
    assert {iterate.accepted for iterate in seen} == {True, False}
    assert [iterate.status is Status.RUNNING for iterate in seen] == [True] * (len(seen) - 1) + [
        False
    ]
    assert seen[-1].status is solution.status
    assert torch.equal(seen[-1].x, solution.x)
    assert 0 < seen[0].seconds <= seen[-1].seconds


def test_an_iterate_is_read_by_attribute_and_by_key_and_prints_in_one_line() -> None:
    seen: list[Iterate] = []
    least_squares(rosenbrock, START, callback=seen.append)
    assert seen[0]["x"] is seen[0].x
    assert seen[0]["nit"] == 1
    assert re.fullmatch(
        r"Iterate\(nit=1, nfev=2, cost=\S+, (accepted|refused), .*, status=RUNNING\)", repr(seen[0])
    )


def test_iterates_have_the_structure_of_x0() -> None:
    seen: list[Any] = []
    start = {"a": START[0], "b": START[1]}
    least_squares(lambda x: rosenbrock(torch.stack([x["a"], x["b"]])), start, callback=seen.append)
    assert set(seen[0].x) == {"a", "b"}
    plain: list[Any] = []
    least_squares(lambda x: 1 * x - 3, np.array([1.0]), callback=plain.append)
    assert isinstance(plain[0].x, np.ndarray)
    assert isinstance(plain[0].cost, float)


@pytest.mark.parametrize("name", ["x", "xk"])
def test_scipys_older_callbacks_get_x_alone(name: str) -> None:
    seen: list[Tensor] = []

    def by_x(x: Tensor) -> None:
        seen.append(x)

    def by_xk(xk: Tensor) -> None:
        seen.append(xk)

    solution = least_squares(rosenbrock, START, callback={"x": by_x, "xk": by_xk}[name], polish=0)
    assert torch.equal(seen[-1], solution.x)


def test_a_builtin_may_be_the_callback(capsys: pytest.CaptureFixture[str]) -> None:
    least_squares(rosenbrock, START, callback=print)
    assert "Iterate(nit=1" in capsys.readouterr().out


def test_an_exception_in_a_callback_comes_out_as_it_is() -> None:
    def broken(iterate: Any) -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        least_squares(rosenbrock, START, callback=broken)


def test_what_a_callback_writes_into_its_x_does_not_reach_the_fit() -> None:
    def vandal(iterate: Any) -> None:
        iterate.x[:] = np.nan

    plain = least_squares(lambda x: 1 * x**3 - 3, np.array([1.0]), polish=0)
    watched = least_squares(lambda x: 1 * x**3 - 3, np.array([1.0]), callback=vandal, polish=0)
    np.testing.assert_array_equal(watched.x, plain.x)


@pytest.mark.parametrize("stop", [1, 4])
def test_a_history_ends_where_the_run_does(stop: int) -> None:
    def callback(iterate: Any) -> None:
        if iterate.nit == stop:
            raise StopIteration

    solution = least_squares(rosenbrock, START, callback=callback, history=True)
    assert len(solution.history) == stop
    assert solution.status is Status.STOPPED


def test_a_history_holds_every_iteration_and_is_left_out_unless_asked_for() -> None:
    solution = least_squares(rosenbrock, START, history=True, polish=0)
    assert solution.history[-1].nfev == solution.nfev
    assert len(solution.history) in (solution.nfev - 1, solution.nfev)
    assert sum(iterate.accepted for iterate in solution.history) + 1 >= solution.njev
    assert least_squares(rosenbrock, START).history is None


def test_a_batch_is_watched_whole() -> None:
    seen: list[Iterate] = []
    solution = batch(callback=seen.append, memory_limit=20_000, polish=0)
    assert all(iterate.x.shape == (3, 3) for iterate in seen)
    assert all(
        iterate.cost.shape == iterate.accepted.shape == iterate.status.shape == (3,)
        for iterate in seen
    )
    assert torch.equal(seen[-1].x, solution.x)
    assert repr(seen[0]).startswith("Iterate(nit=1, 3 of 3 problems running")
    costs = torch.stack([iterate.cost for iterate in seen])
    assert (costs.diff(dim=0) <= 0).all()


def test_a_multi_start_is_watched_whole() -> None:
    seen: list[Iterate] = []
    least_squares(rosenbrock, START, bounds=(-2, 2), n_starts=4, callback=seen.append)
    assert all(iterate.x.shape == (4, 2) for iterate in seen)


def test_a_callback_stops_all_problems_of_a_batch() -> None:
    def stop(iterate: Any) -> None:
        raise StopIteration

    solution = batch(callback=stop)
    assert solution.status.tolist() == [-2] * 3
    assert not solution.success.any()


def test_silence_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    least_squares(rosenbrock, START)
    assert capsys.readouterr() == ("", "")


def test_verbose_one_says_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    solution = least_squares(rosenbrock, START, verbose=1)
    assert capsys.readouterr().out == f"{solution.message}\n"


def test_verbose_two_prints_a_row_for_each_iteration_under_a_head(
    capsys: pytest.CaptureFixture[str],
) -> None:
    solution = least_squares(rosenbrock, START, verbose=2, history=True)
    head, *rows, last = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "iteration",
        "nfev",
        "cost",
        "reduction",
        "step",
        "norm",
        "optimality",
        "damping",
    ]
    assert len(rows) == len(solution.history)
    for row, iterate in zip(rows, solution.history, strict=True):
        numbers = [float(word) for word in row.split()]
        shown = [
            iterate.nit,
            iterate.nfev,
            iterate.cost,
            iterate.reduction,
            iterate.step_norm,
            iterate.optimality,
        ]
        assert numbers[:6] == pytest.approx([float(value) for value in shown], rel=1e-2)
        assert len(row) == len(head)
    assert last == solution.message


def test_verbose_two_counts_the_problems_of_a_batch(capsys: pytest.CaptureFixture[str]) -> None:
    solution = batch(verbose=2)
    head, *rows, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["iteration", "running", "of", "median", "cost"]
    assert [int(row.split()[2]) for row in rows] == [3] * len(rows)
    running = [int(row.split()[1]) for row in rows]
    assert running == sorted(running, reverse=True)
    assert running[-1] == 0
    counts = [int(count) for count in re.findall(r"(\d+) \w+[^;]*\(\w+\)", last)]
    assert sum(counts) == 3
    assert all(reason.name in last for reason in solution.reasons)


@pytest.mark.parametrize("together", [False, True], ids=["single", "batch"])
def test_a_bar_goes_to_standard_error_and_ends_full(
    together: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if together:
        batch(progress=True)
    else:
        least_squares(rosenbrock, START, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("3/3" in err) if together else ("cost=" in err)


def test_a_bar_counts_the_problems_of_all_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    batch(progress=True, memory_limit=20_000)
    assert "3/3" in capsys.readouterr().err


def test_a_bar_without_tqdm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(InputError, match="pip install tqdm"):
        least_squares(rosenbrock, START, progress=True)


def test_watching_changes_nothing() -> None:
    plain = batch()
    watched = batch(callback=lambda iterate: None, history=True)
    for name in ("x", "cost", "nfev", "status"):
        assert torch.equal(plain[name], watched[name]), name


def test_an_estimated_scale_is_watched_through_all_its_rounds() -> None:
    seen: list[Iterate] = []
    solution = least_squares(
        lambda x: decay(x) - Y[0], torch.tensor([2.0, 1.0, 0.1], dtype=F64), loss="tukey",
        f_scale="mad",
        callback=seen.append, polish=0,
    )  # fmt: skip
    assert [iterate.nit for iterate in seen] == list(range(1, len(seen) + 1))
    assert torch.equal(seen[-1].x, solution.x)
    assert all(iterate.status in set(Status) for iterate in seen)


@pytest.mark.parametrize("limit", [None, 20_000], ids=["together", "blocks"])
@pytest.mark.parametrize("number", [5, 40])  # many small fits take another way
def test_a_bar_shows_fits_a_second_and_the_share_of_failures(
    number: int, limit: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    start = torch.tensor([2.0, 1.0, 0.1], dtype=F64)
    y = torch.cat([decay(start)[None], Y[:1].expand(number - 1, -1)])  # the start meets the first
    least_squares(
        lambda x, y: decay(x) - y, start, args=(y,), in_dims=(None, 0),
        progress=True, max_nfev=2, memory_limit=limit,
    )  # fmt: skip
    err = capsys.readouterr().err
    counts = [int(count) for count in re.findall(rf"(\d+)/{number} ", err)]
    assert counts == sorted(counts)
    assert counts[-1] == number
    last = err.split("\r")[-1]
    assert "fit/s" in last
    assert f"failed={1 - 1 / number:.2%}" in last
