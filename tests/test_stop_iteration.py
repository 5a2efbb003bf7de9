"""A StopIteration of the user's function comes out as raised, though generators read from it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import lmtorch

T = torch.linspace(0, 3, 12, dtype=torch.float64)
Y = 2 * torch.exp(-0.7 * T) + 0.01 * torch.cos(9 * T)
START = torch.ones(2, dtype=torch.float64)


class Exhausted:
    """A decay that ends its data at a chosen call."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, t: Any, a: Any, k: Any) -> Any:
        self.left -= 1
        if self.left <= 0:
            raise StopIteration("no more data")
        return a * torch.exp(-k * t)


FACES: dict[str, Callable[[Exhausted], Any]] = {
    "least_squares": lambda f: lmtorch.least_squares(lambda x: f(T, *x) - Y, START),
    "least_squares by differences": lambda f: lmtorch.least_squares(lambda x: f(T, *x) - Y, START,
        "2-point"),
    "least_squares in a batch": lambda f: lmtorch.least_squares(
        lambda x: f(T, *x) - Y, START.expand(3, 2), in_dims=0
    ),
    "least_squares with acceleration": lambda f: lmtorch.least_squares(
        lambda x: f(T, *x) - Y, START, acceleration=True
    ),
    "curve_fit": lambda f: lmtorch.curve_fit(f, T, Y),
    "odr": lambda f: lmtorch.odr(f, T, Y),
    "batch_jacobian": lambda f: lmtorch.batch_jacobian(lambda t: f(t, 2.0, 0.7), T),
    "laplacian": lambda f: lmtorch.laplacian(lambda t: f(t, 2.0, 0.7), T[:, None]),
    "finite_difference_jacobian": lambda f: lmtorch.finite_difference_jacobian(lambda t: f(t, 2.0,
            0.7), T),
}  # fmt: skip


# vmap is tried, and then called in vain
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
@pytest.mark.parametrize("face", FACES)
def test_it_comes_out_of_every_face_at_every_call(face: str) -> None:
    counted = Exhausted(10**9)
    FACES[face](counted)
    calls = 10**9 - counted.left
    for at in range(1, min(calls, 25) + 1):
        with pytest.raises(StopIteration, match="no more data"):
            FACES[face](Exhausted(at))
