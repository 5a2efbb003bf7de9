"""The page on accuracy says what was measured, and counts in the way that it says."""

import json
from typing import Any

import numpy as np
import pytest

from benchmarks import accuracy
from benchmarks.accuracy import METHODS

from .nist import PROBLEMS, log_relative_error

RESULTS = json.loads(accuracy.RESULTS.read_text("utf-8"))


def test_the_page_is_that_of_the_results() -> None:
    assert accuracy.PAGE.read_text("utf-8") == accuracy.page(RESULTS)


def test_all_problems_were_run_from_both_starts_by_all_methods() -> None:
    found = [(run["problem"], run["start"], run["method"]) for run in RESULTS["runs"]]
    assert sorted(found) == sorted(
        (name, start, method) for name in PROBLEMS for start in (1, 2) for method in METHODS
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_method_ends_where_its_results_say(method: str) -> None:
    # DanWood is benign: all find it, to the digits that their tolerances leave
    problem = PROBLEMS["DanWood"]
    end = METHODS[method](problem, problem.starts[1])
    (kept,) = (
        run
        for run in RESULTS["runs"]
        if (run["problem"], run["start"], run["method"]) == ("DanWood", 2, method)
    )
    digits = log_relative_error(np.asarray(end.values), problem.certified)
    assert end.success == kept["success"]
    assert abs(digits - kept["digits"]) < 2


def test_a_wrong_end_that_is_called_a_success_is_counted() -> None:
    def run(digits: float, success: bool) -> dict[str, Any]:
        return {
            "problem": "A", "difficulty": "Lower", "start": 1, "method": "lmtorch",
            "digits": digits, "success": success, "evaluations": 7,
        }  # fmt: skip

    for digits, success, wrong, failed in (
        (3.9, True, 1, 0),
        (7.0, False, 0, 1),
        (7.0, True, 0, 0),
    ):
        runs = [run(digits, success), *(run(9.0, True) | {"method": m} for m in list(METHODS)[1:])]
        text = accuracy.page({"machine": "here", "lmfit": "1", "runs": runs})
        (line,) = (line for line in text.splitlines() if line.startswith("| lmtorch |"))
        assert [cell.strip() for cell in line.split("|")[5:7]] == [str(wrong), str(failed)]
