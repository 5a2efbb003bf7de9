"""`least_squares` by several processes beside one on all data."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from . import fits, fitting
from .ranks import Ranks


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    """Two processes that stay for all tests of this module."""
    started = Ranks(2)
    yield started
    started.close()


@pytest.mark.parametrize("kind", ["even", "uneven", "empty"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "cauchy", "f_scale": 0.05},
        {"bounds": ([0.0, 0.0, 0.0], [2.0, 5.0, 1.0])},
        {"solver": "cholesky"},
        {"rows": 30_000},
        {"rows": 1_500_000, "max_nfev": 3},
    ],
    ids=str,
)
def test_solutions(two: Ranks, kind: str, options: dict[str, Any]) -> None:
    if options.get("rows", 0) > 10**6 and kind != "uneven":
        pytest.skip("rows in blocks are looked at once")
    many = two.run(fitting.fitted, {**options, "kind": kind})
    alone = fitting.fitted(0, 1, options)
    for found in many:
        torch.testing.assert_close(found["x"], alone["x"], rtol=1e-8, atol=1e-8)
        assert found["status"] == alone["status"]
        assert found["cost"] == pytest.approx(alone["cost"], rel=1e-10)
        for same in ("x", "grad"):
            assert torch.equal(found[same], many[0][same])
        for same in ("cost", "nfev", "optimality", "reason"):
            assert found[same] == many[0][same]
    for name in ("fun", "jac"):
        rows = torch.cat([found[name] for found in many])
        torch.testing.assert_close(rows, alone[name], rtol=1e-6, atol=1e-6)


def test_one_callback_stops_all(two: Ranks) -> None:
    first, second = two.run(fitting.fitted, {"stopped": True})
    assert "stopped" in first["reason"]
    assert torch.equal(first["x"], second["x"])
    assert first["nfev"] == second["nfev"]


@pytest.mark.parametrize("kind", ["uneven", "empty"])
def test_more_parameters(two: Ranks, kind: str) -> None:
    alone = fitting.wide(0, 1, kind)
    many = two.run(fitting.wide, kind)
    for found in many:
        torch.testing.assert_close(found[1:], alone[1:], rtol=1e-5, atol=1e-5)
        assert torch.equal(found[1:], many[0][1:])
    total = sum(float(found[0]) for found in many)
    assert total == pytest.approx(2 * float(alone[1]))


def test_what_does_not_go_with_a_group(two: Ranks) -> None:
    first, second = two.run(fitting.refused)
    says = ["n_starts", "compile", "mad", "differences", "in_dims", "different x0", "no gradients"]
    for found in (first, second):
        for (error, _, text), expected in zip(found, says, strict=False):
            assert error == "InputError"
            assert expected in text
    assert [first[7][:2], second[7][:2]] == [("RankError", 1), ("InputError", None)]
    assert "rank 1" in first[7][2]
    assert [first[8][:2], second[8][:2]] == [("RankError", 1)] * 2
    assert first[9][0] == second[9][0] == "InputError"
    assert "no process has residuals" in first[9][2]
    for found in (first, second):
        for (error, _, text), name in zip(found[10:], ("max_nfev", "loss", "bounds"), strict=True):
            assert error == "InputError"
            assert f"{name} of rank 1" in text
    assert fits.group(1) is None
