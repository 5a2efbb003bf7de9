"""One small problem on a CPU runs on NumPy's arrays, and takes the way that it takes on tensors."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._pytree import tree_leaves

import lmtorch
from lmtorch.arrays import arrays_of, quiet, tensors_of
from lmtorch.core import loop
from lmtorch.core.bounds import Bounds
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.small import ENTRIES, PARAMETERS, of_arrays, small
from lmtorch.core.state import Start, State
from lmtorch.damping.geodesic import Geodesic
from lmtorch.damping.marquardt import Marquardt
from lmtorch.damping.nielsen import Nielsen
from lmtorch.damping.scaling import CurrentNorms, FixedScale, Levenberg, More
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.jacobians import latest
from lmtorch.jacobians.dual_numbers import DualNumbers
from lmtorch.jacobians.forward import Forward
from lmtorch.losses.linear import Linear
from lmtorch.losses.robust import Robust, cauchy, huber, tukey
from lmtorch.residuals.function import FunctionResidual
from lmtorch.solvers.svd import SVD

from ..nist import PROBLEMS
from .setting import decay

F64 = torch.float64
LOSSES = {
    "linear": Linear(),
    "huber": Robust(huber, 0.5),
    "cauchy": Robust(cauchy),
    "tukey": Robust(tukey, torch.tensor(2.0)),
}
DAMPINGS = [TrustRegion(), Nielsen(), Marquardt()]
SCALINGS = [More(), Levenberg(), CurrentNorms(), FixedScale(torch.tensor(2.0))]


def drawn(m: int, n: int, kind: str, seed: int) -> tuple[Any, Tensor]:
    """Residuals of some kind, and a start."""
    generator = torch.Generator().manual_seed(seed)
    a, b, y, x = (
        torch.randn(*size, dtype=F64, generator=generator) for size in ((m, n), (m, n), (m,), (n,))
    )
    if kind == "singular":
        a[:, 0], b[:, 0] = a[:, -1], b[:, -1]
    if kind == "unused":
        a[:, 0] = b[:, 0] = 0

    def model(x: Tensor) -> Tensor:
        values = a.to(x) @ x + torch.sin(b.to(x) @ x)
        return torch.where((x > 1.5).any(), torch.nan, values) if kind == "NaN" else values

    data = model(x + 0.3) if kind == "met" else y
    return lambda x: model(x) - data.to(x), x


def runs(problem: Problem, method: Method, x: Tensor, trials: int) -> tuple[State, State]:
    """The state on arrays, and on tensors."""
    assert small(problem, method, x)
    found, told = loop.descend(problem, method, Start(x), trials=trials)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "small", lambda *_: False)
        expected, other = loop.descend(problem, method, Start(x), trials=trials)
    # how a run ended is not read where its last linear model ended it
    assert all(type(a) is type(b) or None in (a, b) for a, b in zip(told, other, strict=True))
    return found, expected


@given(
    m=st.integers(1, 8),
    n=st.integers(1, 4),
    kind=st.sampled_from(["plain", "met", "NaN", "singular", "unused"]),
    loss=st.sampled_from(list(LOSSES.values())),
    damping=st.sampled_from(DAMPINGS),
    scaling=st.sampled_from(SCALINGS),
    boxed=st.booleans(),
    penalized=st.booleans(),
    rated=st.booleans(),
    dtype=st.sampled_from([torch.float32, F64]),
    trials=st.integers(0, 4),
    seed=st.integers(0, 2**16),
)
def test_the_first_trials_are_the_same_to_round_off(
    m: int, n: int, kind: str, loss: Any, damping: Any, scaling: Any, boxed: bool,
    penalized: bool, rated: bool, dtype: torch.dtype, trials: int, seed: int,
) -> None:  # fmt: skip
    fun, x = drawn(m, n, kind, seed)
    x = x.to(dtype)
    problem = Problem(
        FunctionResidual(fun, x), Forward(), SVD().form, loss, F64,
        penalty=torch.linspace(0.1, 0.5, n, dtype=F64) if penalized else None,
        rate=torch.linspace(0.5, 1, n, dtype=F64) if rated else None,
        bounds=Bounds((x - 0.4).to(F64), (x + 0.1).to(F64)) if boxed else None,
    )  # fmt: skip
    found, expected = runs(problem, Method(SVD(), damping, scaling), x, trials)
    ours, theirs = tree_leaves(found), tree_leaves(expected)
    absent = [place for place, leaf in enumerate(theirs) if leaf is None]
    assert [place for place, leaf in enumerate(ours) if leaf is None] == absent
    ours, theirs = ([leaf for leaf in leaves if leaf is not None] for leaves in (ours, theirs))
    assert [(t.dtype, t.shape) for t in ours] == [(t.dtype, t.shape) for t in theirs]
    digits = 1e-4 if dtype == torch.float32 else 1e-7
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=digits, atol=digits, equal_nan=True)


@pytest.mark.parametrize("kind", ["plain", "met", "singular", "unused", "NaN"])
@pytest.mark.parametrize("m", [2, 8])
def test_whole_runs_end_at_the_same_point_with_the_same_certificate(kind: str, m: int) -> None:
    for seed in range(6):
        fun, x = drawn(m, 3, kind, seed)
        problem = Problem(FunctionResidual(fun, x), Forward(), SVD().form, Linear(), F64)
        method = Method(SVD(), TrustRegion(), More(), polish=60, certify=True, patience=1e-3)
        found, expected = runs(problem, method, x, 200)
        assert (found.status > 0) == (expected.status > 0)
        torch.testing.assert_close(found.cost, expected.cost, rtol=1e-9, atol=1e-20, equal_nan=True)
        assert torch.equal(found.certificate.lost, expected.certificate.lost)


def test_a_trial_is_withdrawn_whose_derivatives_are_no_numbers() -> None:
    def cliff(x: Tensor) -> Tensor:
        return x - 2 + 0.1 * (1 - x).clamp(min=0).sqrt()

    x = torch.tensor([0.5, 0.6], dtype=F64)
    problem = Problem(FunctionResidual(cliff, x), Forward(), SVD().form, Linear(), F64)
    refused = []
    for trials in range(1, 5):
        found, expected = runs(problem, METHOD, x, trials)
        refused.append(not found.trial.accepted)
        assert (found.x < 1).all()
        assert found.trial.accepted == expected.trial.accepted
        torch.testing.assert_close(found.x, expected.x)
    assert any(refused)


def plain(x: Tensor, **of_problem: Any) -> Problem:
    return Problem(FunctionResidual(decay, x), Forward(), SVD().form, Linear(), F64, **of_problem)


METHOD = Method(SVD(), TrustRegion(), More())
X = torch.tensor([2.0, 2.0], dtype=F64)


class Own:
    """A scaling of a user's own, which knows torch alone."""

    def update(self, scale: Tensor | None, column_norms: Tensor) -> Tensor:
        return column_norms.clamp(min=1.0)


class Derived(More):
    """Likewise, derived from one of ours."""

    def update(self, scale: Tensor | None, column_norms: Tensor) -> Tensor:
        return super().update(scale, column_norms.clamp(min=1.0))


def test_what_is_large_or_a_batch_or_knows_torch_alone_runs_on_tensors() -> None:
    assert small(plain(X), METHOD, X)
    assert not small(plain(X[None]), METHOD, X[None])
    assert not small(plain(X), METHOD, X.clone().requires_grad_())
    assert not small(plain(X.half()), METHOD, X.half())
    assert not small(replace(plain(X), dtype=torch.float32), METHOD, X)
    assert not small(replace(plain(X), loss=object()), METHOD, X)
    assert not small(plain(X), replace(METHOD, damping=Geodesic(TrustRegion())), X)
    assert not small(plain(X), replace(METHOD, scaling=Own()), X)
    assert not small(plain(X), replace(METHOD, scaling=Derived()), X)
    for m, n in ((1, PARAMETERS + 1), (ENTRIES // 4 + 1, 4)):
        x = torch.zeros(n, dtype=F64)
        fun = FunctionResidual(lambda x, m=m: x.sum().expand(m), x)
        assert not small(replace(plain(X), residual=fun), METHOD, x)


@pytest.mark.parametrize("scaling", [Own(), Derived()])
def test_a_scaling_of_a_users_own_still_works(scaling: Any) -> None:
    found, _ = loop.descend(plain(X), replace(METHOD, scaling=scaling), Start(X), trials=100)
    assert found.status > 0


def test_a_watch_sees_tensors_and_may_stop() -> None:
    seen: list[State] = []

    def watch(state: State) -> bool:
        seen.append(state)
        return len(seen) == 3

    loop.descend(plain(X), METHOD, Start(X), trials=100, watch=watch)
    assert len(seen) == 3
    leaves = [leaf for state in seen for leaf in tree_leaves(state) if leaf is not None]
    assert {type(leaf) for leaf in leaves} == {Tensor}


def test_the_users_function_sees_tensors_whose_numbers_stay() -> None:
    points: list[tuple[Tensor, Tensor]] = []

    def fun(x: Tensor) -> Tensor:
        assert isinstance(x, Tensor)
        points.append((x.detach(), x.detach().clone()))
        return decay(x)

    lmtorch.least_squares(fun, X, jac="2-point")
    assert all(torch.equal(there, then) for there, then in points)


def test_numpy_says_what_its_user_has_asked_for_in_the_function_and_nothing_of_ours() -> None:
    def fun(x: np.ndarray) -> np.ndarray:
        return np.log(x) + 1

    with np.errstate(all="raise"):
        assert lmtorch.least_squares(decay, X).success  # divides by zero on its way
        with pytest.raises(FloatingPointError):
            lmtorch.least_squares(fun, [1e-3, -1.0], jac="2-point")
    with np.errstate(all="warn"), pytest.warns(RuntimeWarning, match="invalid value"):
        lmtorch.least_squares(lambda x: np.log(x) + 3, [1.0, 2.0], jac="2-point")
    seen: list[str] = []

    def callback(iterate: Any) -> None:
        seen.append(np.geterr()["divide"])

    with np.errstate(divide="call"):
        lmtorch.least_squares(decay, X, callback=callback)
    assert set(seen) == {"call"}


@pytest.mark.parametrize("name", ["Thurber", "MGH09", "Misra1a"])
@pytest.mark.parametrize("boxed", [False, True])
def test_rows_made_with_the_residuals_of_a_trial_change_nothing_but_the_calls(
    name: str, boxed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = PROBLEMS[name]
    start = torch.tensor(problem.starts[0], dtype=F64)
    # the first parameter cannot get where it wants to be
    upper = torch.full_like(start, torch.inf)
    upper[0] = 0.9 * problem.certified[0] if problem.certified[0] > start[0] else start[0]
    bounds = {"bounds": (-torch.inf, upper)} if boxed else {}
    found = lmtorch.least_squares(problem.residual, start, **bounds)
    monkeypatch.setattr(latest, "CHEAP", 0)
    expected = lmtorch.least_squares(problem.residual, start, **bounds)
    assert found.calls < expected.calls
    for what in ("nfev", "njev", "status"):
        assert getattr(found, what) == getattr(expected, what)
    torch.testing.assert_close(found.x, expected.x, rtol=1e-9, atol=0)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("penalized", [False, True])
def test_rows_that_come_at_once_make_the_model_that_blocks_make(
    loss: Any, dtype: torch.dtype, penalized: bool
) -> None:
    times = torch.linspace(0, 3, 12, dtype=dtype)
    x = torch.tensor([0.7, 1.3, 5.0], dtype=dtype)  # the last has no influence
    residual = FunctionResidual(lambda x: x[0] * torch.exp(-x[1] * times) - 0.4, x)
    penalty = torch.tensor([0.0, 0.5, 2.0], dtype=F64) if penalized else None
    source = latest.Latest([DualNumbers(), Forward()])
    problem = Problem(residual, source, SVD().form, loss, F64, penalty=penalty, keep=True)
    with quiet():
        there = of_arrays(problem)
        there.model(arrays_of(x))  # the first is verified, and comes by blocks
        model = there.model(arrays_of(x + 0.25))
        ones = arrays_of(torch.ones(3, dtype=F64))
        step = SVD().factor(model, ones).step(np.float64(0.3))
    assert model.both is not None  # it came at once
    found = tensors_of(model._replace(both=None))
    expected = replace(problem, source=Forward()).model(x + 0.25)
    close: dict[str, float] = (
        {"rtol": 1e-12, "atol": 1e-14} if dtype is F64 else {"rtol": 1e-5, "atol": 1e-6}
    )
    for name in ("residual", "jacobian", "cost", "gradient", "column_norms"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **close)
    torch.testing.assert_close(found.values, expected.values, **close)
    plain = SVD().factor(expected, torch.ones(3, dtype=F64)).step(torch.tensor(0.3, dtype=F64))
    torch.testing.assert_close(tensors_of(step), plain, **close)
