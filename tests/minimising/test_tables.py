"""Residuals that are every prediction against every datum are told of; other tables are none."""

import warnings

import numpy as np
import pytest
import torch

from lmtorch import least_squares

from .setting import F64

A = torch.linspace(-1, 1, 24, dtype=F64).reshape(8, 3) ** torch.arange(1, 4)
B = A @ torch.tensor([1.0, -2.0, 0.5], dtype=F64) + 0.1 * torch.cos(9 * torch.arange(8))


@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
@pytest.mark.parametrize("start", [[0.0, 0.0, 0.0], [1.0, 0.5, 2.0]])
@pytest.mark.parametrize("side", ["column less vector", "vector less column"])
@pytest.mark.parametrize("arrays", [False, True], ids=["torch", "numpy"])
def test_a_column_less_a_vector_is_told(start: list[float], side: str, arrays: bool) -> None:
    a, b = (A.numpy(), B.numpy()) if arrays else (A, B)

    def function(p):
        table = a @ p[:, None] - b
        return table if side == "column less vector" else -table.T

    with pytest.warns(UserWarning, match=r"8 x 8, made of a column \(8, 1\) and a vector"):
        least_squares(function, np.array(start) if arrays else torch.tensor(start, dtype=F64))


@pytest.mark.parametrize("start", [[0.0, 0.0], [1.0, 2.0]])
def test_within_bounds_no_point_outside_is_asked_for(start: list[float]) -> None:
    points = []

    def function(p):
        points.append(p.detach().clone())
        return (A[:, :2] @ p)[:, None] - B

    with pytest.warns(UserWarning, match="every prediction against every datum"):
        least_squares(function, torch.tensor(start, dtype=F64), bounds=(0, 2))
    assert all(bool(((p >= 0) & (p <= 2)).all()) for p in points if p.ndim == 1)


def test_images_and_surfaces_are_none() -> None:
    grid = torch.linspace(0, 1, 6, dtype=F64)
    noise = torch.sin(40 * torch.arange(36, dtype=F64)).reshape(6, 6)
    functions = (
        lambda p: p[0] * grid[:, None] + p[1] * grid - noise,
        lambda p: p[0] * grid[:, None] * grid + p[1] - noise,
        lambda p: (p[0] * grid[:, None] - p[1]).expand(6, 6) - 1.0,  # rows alike at every point
        lambda p: (p[0] * grid - p[1] * grid.square() - 1.0).reshape(2, 3),
        lambda p: p[0] * torch.arange(9, dtype=F64) - p[1],  # would be one as a table
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for function in functions:
            least_squares(function, torch.zeros(2, dtype=F64))
