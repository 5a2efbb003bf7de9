"""The page of who wins where is made of the results, and shows losses as it shows wins."""

import json
import re

import pytest

from benchmarks import who_wins
from benchmarks.tables import tables_of
from benchmarks.who_wins import Row, number, page, rows

ROWS = rows()


def test_the_page_is_that_of_the_results() -> None:
    assert who_wins.PAGE.read_text("utf-8") == page(ROWS)


def test_every_part_of_the_benchmarks_has_rows() -> None:
    assert {row.part for row in ROWS} == {
        "Accuracy", "Honesty", "Start values", "One fit and many", "Image stacks", "Errors in x",
        "Calls of a black box", "Networks", "Derivatives", "Equations",
    }  # fmt: skip


def test_every_row_says_on_what_with_what_and_when_it_was_measured() -> None:
    for row in ROWS:
        assert re.search(r"20\d\d-\d\d-\d\d", row.measured), row
        assert "torch 2" in row.measured, row
        assert row.peer, row
        assert "lmtorch" not in row.peer, row


def test_a_loss_is_shown_where_losses_are_and_in_its_part() -> None:
    found = [
        Row("A", "won", "1", "them", "2", 2.0, "2026-01-01, here"),
        Row("A", "lost", "4", "them", "1 s", 0.25, "2026-01-01, here"),
        Row("B", "even", "4", "them", "4e-07", 1.0, "2026-01-02, there"),
    ]
    text = page(found)
    assert "ahead in 1, behind in 1, and within 5% in 1" in text
    behind, a, b, notes = re.split(r"\n## [^\n]*\n", text)[1:]
    assert behind.count("\n| A: lost | **0.25** | 4 | them | 1\u00a0s | (1) |") == 1
    assert "won" not in behind
    assert "even" not in behind
    assert "| lost | **0.25** | 4 | them | 1\u00a0s | (1) |" in a
    assert "| won | 2 | 1 | them | 2 | (1) |" in a
    assert "| even | 1 | 4 | them | 4e\u201107 | (2) |" in b
    assert "(2) 2026-01-02, there." in notes


def test_the_tables_of_a_page_are_read_with_what_is_said_of_them() -> None:
    text = (
        "# T\n\nMachine: 2026-01-01;\nhere.\n\n## A\n\nWords.\n\n| a | b |\n| --- | --- |\n"
        "| **1 ms** | – |\n\n## B\n\nMeasured 2026-01-02,\nthere.\n\n### C\n\n"
        "| c |\n| --- |\n| _x_ |"
    )
    first, second = tables_of(text)
    assert first == {"section": "A", "heading": "", "measured": "2026-01-01; here.",
                     "header": ["a", "b"], "rows": [["1 ms", "–"]]}  # fmt: skip
    assert (second["section"], second["heading"], second["rows"]) == ("B", "C", [["x"]])
    assert second["measured"] == "Measured 2026-01-02, there."


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1,030 MiB", 1030), ("2.03 µs", 2.03e-6), ("41 ms", 0.041), ("3 s", 3), ("1.2e-3", 1.2e-3)],
)
def test_cells_are_read_in_one_unit(cell: str, value: float) -> None:
    assert number(cell) == pytest.approx(value)
    assert number("–") != number("–")  # no number


def test_ratios_are_above_one_where_the_other_takes_longer() -> None:
    kept = json.loads(who_wins.tables.RESULTS.read_text("utf-8"))
    warm = [row for row in who_wins.small_and_many(kept) if "One warm fit: Misra1a" in row.task]
    assert warm
    for row in warm:
        assert row.ratio == pytest.approx(number(row.theirs) / number(row.ours), rel=1e-2)
