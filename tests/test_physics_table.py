"""The problems of the physics benchmark are what they say, and its page says what was measured."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import physics_page, physics_table
from benchmarks.physics_table import METHODS, ROWS, SINES, Row

ROOT = Path(__file__).parents[1]
TINY = Row(SINES, (8,), 60, 20, redrawn=1)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_solution_satisfies_its_equation_and_what_is_given_on_the_edge(row: Row) -> None:
    def solution(x: Tensor) -> Tensor:
        return row.equation.solution(x)[:, None]

    residuals = physics_table.closures(row, solution)
    for of, batch in zip(
        residuals, physics_table.batches(row, torch.Generator().manual_seed(1)), strict=True
    ):
        # round-off of second derivatives
        assert float(of(*batch).abs().max()) < 1e-12
        assert len(of(*batch)) in (row.inside, row.edge)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_another_function_does_not(row: Row) -> None:
    inside, edge = physics_table.closures(
        row, lambda x: row.equation.solution(x)[:, None] + x[:, :1] ** 2
    )
    within, around = physics_table.batches(row, torch.Generator().manual_seed(1))
    # a mean square of 1 or more where all points count
    assert float(inside(*within).square().sum()) > 0.1
    assert float(edge(*around).square().sum()) > 0.01


@pytest.mark.parametrize("name", ROWS)
def test_points_of_the_edge_lie_there(name: str) -> None:
    row = ROWS[name]
    (within, _), (around, _) = physics_table.batches(row, torch.Generator().manual_seed(1))
    assert float(within.min()) > 0
    assert float(within.max()) < 1
    ends = (around == 0) | (around == 1)
    assert bool(ends.any(1).all())
    faces = {(i, float(around[k, i])) for k, i in ends.nonzero().tolist()}
    # the heat equation has no condition at the end of time
    assert len(faces) == (9 if name == "heat-4d" else 2 * row.equation.inputs)


def test_networks_are_as_large_as_the_published_ones() -> None:
    sizes = {name: row.parameters for name, row in ROWS.items()}
    assert sizes["poisson-2d-deep"] == 9_873
    assert sizes["poisson-5d-deep"] == 5_617
    assert sizes["poisson-10d"] == 118_145


@pytest.mark.parametrize("method", METHODS)
def test_two_steps_of_each_method_are_told_of(method: str) -> None:
    told: list[list[list[float]]] = []
    curve = physics_table.train(TINY, METHODS[method], 0, seconds=60, most=2, seen=told.append)
    assert [steps for _, _, steps, _ in curve] == [0, 1, 2]
    assert len({error for *_, error in curve}) == 3
    assert told[-1] == curve


def test_steps_come_closer_to_the_solution() -> None:
    curve = physics_table.train(TINY, METHODS["lm"], 0, seconds=60, most=12)
    assert curve[-1][3] < 0.8 * curve[0][3]


@pytest.mark.parametrize("method", ["lm", "adam"])
def test_on_another_device_the_errors_are_the_same(method: str, elsewhere: torch.device) -> None:
    here, there = (
        physics_table.train(TINY, METHODS[method], 0, seconds=60, most=3, device=device)
        for device in (torch.device("cpu"), elsewhere)
    )
    assert [steps for _, _, steps, _ in there] == [0, 1, 2, 3]
    # three figures: steps magnify what the order of sums leaves
    assert [e for *_, e in there] == pytest.approx([e for *_, e in here], rel=2e-3)
    assert len({error for *_, error in there}) == 4


@pytest.mark.parametrize("redrawn", [0, 1, 2])
def test_points_are_drawn_anew_when_they_should_be(redrawn: int) -> None:
    seen: list[Tensor] = []

    def step_of(net: torch.nn.Module, terms: list[Any]) -> Any:
        return lambda share: seen.append(terms[0][1])

    physics_table.train(TINY._replace(redrawn=redrawn), step_of, 0, seconds=60, most=4)
    same = [bool(torch.equal(one, other)) for one, other in pairwise(seen)]
    assert same == {0: [True] * 3, 1: [False] * 3, 2: [True, False, True]}[redrawn]


def run(*errors: float, machine: str = "a machine", seed: int = 0) -> dict[str, Any]:
    """A step a second."""
    curve = [[float(s), 2.0 * s, s, error] for s, error in enumerate(errors)]
    return {"curve": curve, "machine": machine, "seed": seed}


def test_times_are_those_of_the_first_look_below() -> None:
    one = run(1.0, 9e-4, 1e-4, 9e-6)
    assert [physics_page.reached(one, target) for target in (1e-3, 1e-4, 1e-5)] == [1, 3, 3]
    assert math.isinf(physics_page.reached(one, 1e-6))
    assert physics_page.at(one, 2.5) == [2, 4, 2, 1e-4]


def test_the_page_says_where_we_are_ahead_and_where_behind() -> None:
    # of the published row: 1e-5 after 59 s, 6.1e-8 in the end
    ahead, behind = run(1.0, 1e-3, 1e-9), run(*[1.0] * 60, 1e-6)
    said = physics_page.words({("poisson-2d", "lm"): [ahead]})
    assert said.count("Ahead") == 2
    assert "Behind" not in said
    assert "2.0 s, theirs 59 s" in said
    said = physics_page.words({("poisson-2d", "lm"): [behind]})
    assert said.count("Behind") == 2
    assert "Ahead" not in said
    line = physics_page.of_row("poisson-2d", [ahead, behind, behind])
    assert line[-1] == "3"
    assert line[-3] == "**1.0e-06**"


def test_on_a_gpu_seconds_are_those_of_the_clock() -> None:
    one = run(1.0, 9e-4, 1e-4, 9e-6)
    assert physics_page.reached(one, 1e-5, physics_page.WALL) == 6
    found = {("poisson-2d", "lm"): [{**one, "beside": 0}, {**one, "beside": 3, "seed": 1}]}
    said = physics_page.on_gpu(found)
    line = next(line for line in said.splitlines() if "2-64-1, 257" in line)
    assert [cell.strip() for cell in line.split("|")][5:] == [
        "2.0", "6.0", "6.0", "**9.0e-06**", "6, 3", "2", "0 to 3", "",
    ]  # fmt: skip
    assert "6.0 s, theirs 59 s" in said
    assert "Machine: a machine." in said
    assert physics_page.on_gpu({}) == ""


def test_points_that_stay_have_a_table_and_words_of_their_own() -> None:
    # of the published row: 1e-5 after 52 s, 5.6e-8 in the end
    redrawn, kept = run(1.0, 1e-3, 1e-6), run(1.0, 1e-4, 9e-6, 2e-8)
    found = {("poisson-5d", "lm"): [redrawn], ("poisson-5d", physics_page.KEPT): [kept, kept]}
    said = physics_page.with_points_that_stay(found)
    line = next(line for line in said.splitlines() if "5-64-1, 449" in line)
    assert [cell.strip() for cell in line.split("|")][-4:] == ["**2.0e-08**", "3, 3", "2", ""]
    assert "(2.0e-08, theirs 5.6e-08)" in said
    assert "Behind" not in said
    assert physics_page.with_options(found) == ""
    assert "1.0e-06, theirs" in physics_page.words(found)
    assert physics_page.with_points_that_stay({("poisson-5d", "lm"): [redrawn]}) == ""


def test_runs_with_options_are_compared_in_the_same_seconds_with_those_of_the_same_seeds() -> None:
    found = {
        ("poisson-2d", "lm"): [run(1.0, 0.1, 0.02, 0.003), run(1.0, 1.0, 1.0, seed=1)],
        ("poisson-2d", "lm, momentum=0.7"): [run(1.0, 0.2, 0.05)],
    }
    assert "| `momentum=0.7` | 1 | 2 | 5.0e-02 | 2.0e-02 |" in physics_page.with_options(found)


@pytest.mark.parametrize("redrawn", [0, 2])
def test_a_run_whose_points_are_drawn_at_other_steps_is_kept_apart(
    redrawn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ROWS, "poisson-2d", TINY)
    monkeypatch.setattr(physics_table, "RESULTS", tmp_path)
    command = ["physics_table", "poisson-2d", "--steps", "4"]
    monkeypatch.setattr("sys.argv", [*command, "--redrawn", f"{redrawn}"])
    physics_table.main()
    monkeypatch.setattr("sys.argv", command)
    physics_table.main()
    found = physics_page.runs(tmp_path)
    apart = found["poisson-2d", f"lm, redrawn={redrawn}"][0]
    other = TINY._replace(redrawn=redrawn)
    known = physics_table.train(other, METHODS["lm"], 0, seconds=60, most=4)
    assert apart["curve"][-1][2:] == known[-1][2:]
    assert found["poisson-2d", "lm"][0]["curve"][-1][3] != known[-1][3]
    if redrawn:
        assert "| points drawn anew every 2 steps | 1 |" in physics_page.with_options(found)
    else:
        assert "2-8-1" in physics_page.with_points_that_stay(found)


def test_the_page_is_of_the_runs_that_are_kept() -> None:
    written = (ROOT / "docs" / "physics_table.md").read_text(encoding="utf-8")
    assert written == physics_page.page()


@pytest.mark.parametrize("what", [physics_page.SECONDS, physics_page.WALL])
def test_the_picture_is_drawn(what: int, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    physics_page.draw({("heat-4d", "lm"): [run(1.0, 0.1, 0.01)]}, tmp_path / "picture.png", what)
    assert (tmp_path / "picture.png").stat().st_size > 10_000
