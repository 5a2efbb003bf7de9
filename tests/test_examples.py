"""Every example runs, at a small size, and ends where it should."""

import sys
from pathlib import Path

import pytest
import torch

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
sys.path.insert(0, str(Path(__file__).parents[1]))

from examples import (  # noqa: E402
    curve_fit_nist,
    demo,
    own_damping,
    regression_table,
    resume_checkpoint,
    sinc_network,
)


def test_the_curve_fit_agrees_with_the_certificate(tmp_path: Path) -> None:
    assert curve_fit_nist.main(tmp_path) >= 9
    assert (tmp_path / "curve_fit_nist.png").stat().st_size > 10_000


def test_the_network_comes_closer_to_the_sinc_than_the_noise(tmp_path: Path) -> None:
    assert sinc_network.main(tmp_path, samples=2_000, steps=15) < 0.05  # half the noise of the data
    assert (tmp_path / "sinc_network.png").stat().st_size > 10_000


def test_the_table_is_predicted_better_than_by_a_line(tmp_path: Path) -> None:
    (x, y), (x_test, y_test), unit = regression_table.data()
    line = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), y).solution
    left = y_test - torch.cat([x_test, torch.ones(len(x_test), 1)], 1) @ line
    assert regression_table.main(tmp_path, steps=10) < 0.75 * unit * float(left.square().mean().sqrt())
    assert (tmp_path / "regression_table.png").stat().st_size > 10_000


def test_an_own_damping_reaches_the_minimum() -> None:
    steps = own_damping.main()
    assert set(steps) == {"delayed gratification", "nielsen", "trust region"}
    assert max(steps.values()) < 400


def test_a_resumed_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    assert resume_checkpoint.main(tmp_path, samples=1_000, steps=3)


def test_the_demo_names_its_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo.main(tmp_path)
    printed = capsys.readouterr().out
    for name in ("curve_fit_nist.png", "sinc_network.png"):
        assert str(tmp_path / name) in printed
