"""Solutions that are saved and read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lmtorch
from lmtorch import InputError, least_squares, load

F64 = torch.float64


def rosenbrock(x: Any) -> Any:
    return torch.stack([10 * (x[..., 1] - x[..., 0] ** 2), 1 - x[..., 0]], -1)


STARTS = {
    "array": (np.array([-1.2, 1.0]), {}),
    "tensor": (torch.tensor([-1.2, 1.0], dtype=F64, requires_grad=True), {}),
    "float32": (torch.tensor([-1.2, 1.0]), {}),
    "bounds": (np.array([-1.2, 0.2]), {"bounds": (-2, 0.5)}),
    "batch": (np.array([[-1.2, 1.0], [2.0, 2.0]]), {"in_dims": 0}),
    "history": (np.array([-1.2, 1.0]), {"history": True, "n_starts": 2, "bounds": (-2, 2)}),
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        alike = torch.equal(one.detach().nan_to_num(7), other.nan_to_num(7))
        return one.dtype == other.dtype and alike
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize("name", STARTS)
def test_a_solution_comes_back_with_every_bit(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, options = STARTS[name]
    solution = least_squares(rosenbrock, start, **options)
    solution.save(tmp_path / "solution.json")
    again = load(tmp_path / "solution.json")
    assert type(again) is lmtorch.Solution
    for entry in set(solution) - {"history", "starts"}:
        assert same(solution[entry], again[entry]), entry
    solution.explain()
    said = capsys.readouterr().out
    again.explain()
    assert capsys.readouterr().out == said


def test_a_structure_of_parameters_comes_back(tmp_path: Path) -> None:
    def residual(p: dict[str, Any]) -> Any:
        return torch.cat([p["a"] - 1, p["b"][0].reshape(1) - 2])

    solution = least_squares(residual, {"a": torch.zeros(2), "b": (torch.zeros(()),)})
    solution.save(tmp_path / "solution.json")
    x = load(tmp_path / "solution.json").x
    assert torch.equal(x["a"], solution.x["a"])
    assert torch.equal(x["b"][0], solution.x["b"][0])


def test_a_solution_takes_no_function_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "solution.json"
    least_squares(rosenbrock, np.array([-1.2, 1.0])).save(path)
    with pytest.raises(InputError, match="a solution of least_squares, which takes no f"):
        load(path, rosenbrock)
    record = json.loads(path.read_text(encoding="utf-8"))
    for name, value in (("status", 99), ("x", {"array": 3}), ("message", None)):
        path.write_text(json.dumps({**record, name: value} if value else record | {"status": "x"}))
        with pytest.raises(InputError, match="damaged"):
            load(path)


@pytest.mark.parametrize("device", ["nowhere", 1.5, ("cpu",)])
def test_a_device_that_is_none_is_refused(device: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"device=.* is none"):
        load(tmp_path / "none.json", device=device)
