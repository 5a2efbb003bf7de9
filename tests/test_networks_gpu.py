"""The benchmark of networks on a GPU measures what it says: tried where there is none, small."""

from pathlib import Path

import pytest
import torch

from benchmarks import networks_gpu

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a look."""
    monkeypatch.setattr(networks_gpu, "REPEATS", 2)
    monkeypatch.setattr(networks_gpu, "SECONDS", 0.05)
    monkeypatch.setattr(networks_gpu, "DIGITS_SECONDS", 0.05)
    monkeypatch.setattr(networks_gpu, "SEEDS", range(1))


def test_steps_are_timed_of_problems_as_large_as_is_said() -> None:
    rows = networks_gpu.wide(CPU, 40, 12)
    assert [row[0].split(",")[0] for row in rows] == ["40 × 301"] * 4
    rows = networks_gpu.many_samples(CPU, 400)
    assert [row[0].split(",")[-1].strip() for row in rows] == [
        "float32", 'solver="cholesky"', "defaults",
    ]  # fmt: skip
    rows = networks_gpu.tall(CPU, 3000)
    assert [len(row) for row in rows] == [4, 4]
    assert all(row[1].endswith(" ms") for row in rows)


def test_what_is_not_reached_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks_gpu, "TARGET", 0.0)
    rows = networks_gpu.to_a_loss(CPU, 40, 12)
    assert all("not in 0.05 s" in row[1] for row in rows)
    monkeypatch.setattr(networks_gpu, "TARGET", 10.0)
    assert all(row[1].endswith(" s") and row[2] == "1" for row in networks_gpu.to_a_loss(CPU, 40))


def test_digits_and_a_table_are_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = networks_gpu.of_digits(CPU)
    assert rows[0][0] == "lmtorch"
    assert all(row[2] == "0 of 1" for row in rows)
    monkeypatch.setattr(networks_gpu, "ENOUGH", 0.0)  # what every network has
    assert all(row[2] == "1 of 1" for row in networks_gpu.of_digits(CPU))
    monkeypatch.setattr(networks_gpu, "network", lambda inputs: networks_gpu.perceptron(inputs, 1))
    path = tmp_path / "line.csv"
    path.write_text("a,b\n" + "\n".join(f"{i},{2 * i}" for i in range(20)))
    rows = networks_gpu.without_matrix(CPU, path, 0.05)
    assert float(rows[0][1]) < 1.0  # a line beside which zero leaves one; a step is enough
    assert all(int(row[2]) >= 1 for row in rows)
