"""How compiled fits end: what the program says of an end is what the loop says of it."""

import ctypes
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch.compiling import building, descent
from lmtorch.compiling.prelude import PRELUDE
from lmtorch.core.loop import descend
from lmtorch.core.state import State
from lmtorch.core.termination import Status
from lmtorch.minimising import compiled as asked

from ..core.test_blurred import above, decays, near_decays
from ..programs import compiler

F64 = torch.float64
pytestmark = [compiler, pytest.mark.usefixtures("own_programs")]
B = torch.tensor([0.0, 10, 20, 30, 50, 80, 120, 200, 300, 500, 800], dtype=F64)
START = [1.0, 0.2, 0.02, 0.001]
EIGEN = """
extern "C" void eigen(const double *lower, double *values, double *vectors) {
  D a[15];
  for (int i = 0; i < 15; i++) std::memcpy(&a[i], lower + 8 * i, sizeof(D));
  Eigen<D, 5> e = eigen_<D, 5>(a);
  std::memcpy(values, e.values, sizeof e.values);
  std::memcpy(vectors, e.vectors, sizeof e.vectors);
}
"""


def two_decays(p: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """A fast decay beside a slow one: without the fast one two parameters have no influence."""
    fast, slow = torch.exp(-b * p[2]), torch.exp(-b * p[3])
    return p[0] * (p[1] * fast + (1 - p[1]) * slow) - y


def signals(count: int) -> Tensor:
    """Noisy signals (b, 11), four of five without a fast decay."""
    torch.manual_seed(0)
    share = torch.rand(count, 1, dtype=F64) * 0.4 * (torch.rand(count, 1) > 0.8)
    rate = 0.01 + 0.03 * torch.rand(count, 1, dtype=F64)
    y = share * torch.exp(-B * rate) + (1 - share) * torch.exp(-B * 0.001)
    return y + 0.03 * torch.randn(count, len(B), dtype=F64)


def fitted(y: Tensor, **options: Any) -> Any:
    return lmtorch.least_squares(
        two_decays, torch.tensor(START, dtype=F64), args=(B, y), in_dims=(None, None, 0), **options
    )


class Asked(NamedTuple):
    restarted: bool
    ours: State
    loop: State


@pytest.fixture
def opinions(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Every compiled run of a second opinion, beside what the loop makes of the same start."""
    heard: list[Asked] = []
    plain = asked.Compiling.quick

    def quick(
        self: Any, problem: Any, method: Any, begin: Any, trials: int, allowed: int
    ) -> State | None:
        found = plain(self, problem, method, begin, trials, allowed)
        assert found is not None
        loop, _ = descend(problem, method, begin, trials=trials)
        heard.append(Asked(begin.begun is not None, found, loop))
        return found

    monkeypatch.setattr(asked.Compiling, "quick", quick)
    return heard


def same(one: Tensor, other: Tensor) -> float:
    """The share of fits with the same status, all kinds of success being one."""
    return float((one.clamp(min=-99, max=1) == other.clamp(min=-99, max=1)).double().mean())


def test_a_first_run_is_called_lost_a_saddle_or_a_minimum_as_by_the_loop() -> None:
    first_runs_end_as_the_loops()


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_have_them")
def test_a_first_run_that_users_have_ends_as_the_loop_s() -> None:
    first_runs_end_as_the_loops()


def first_runs_end_as_the_loops() -> None:
    y = signals(400)
    ours, loop = (fitted(y, second_opinion=False, compile=way) for way in (True, False))
    assert {Status.LOST, Status.SADDLE} <= set(loop.status.tolist())
    # what differs are fits that wander: other digits lead them elsewhere
    assert same(ours.status, loop.status) >= 0.95
    lost = (loop.status == Status.LOST) & (ours.status == Status.LOST)
    assert int(lost.sum()) > 20
    both = ours.success & loop.success
    worse = ours.cost[both] > loop.cost[both] * (1 + 1e-8)
    assert float(worse.double().mean()) <= 0.01


def test_second_opinions_end_as_the_loop_s_go_by_where_the_first_run_began_and_share_programs(
    opinions: list[Asked],
) -> None:
    fitted(signals(200), compile=True)
    # those that differ by numbers share a program: a trust region's, and Nielsen's
    assert len(opinions) >= 5
    assert len(descent._PROGRAMS) == 2
    assert {a.restarted for a in opinions} == {True, False}
    statuses = [
        torch.cat([run.status for run in runs]) for runs in list(zip(*opinions, strict=True))[1:]
    ]
    assert same(*statuses) >= 0.8  # a run on a plateau may be slow, or lost some trials later
    for one in opinions:
        ours, loop = one.ours.begun, one.loop.begun
        if one.restarted:  # a column may have died since the first run began, of which is known
            unsure = (one.ours.status <= 0) & (one.ours.status != Status.EVALUATIONS)
            torch.testing.assert_close(ours.x[unsure], loop.x[unsure])
            near = (ours.norms - loop.norms).abs() <= 0.1 * loop.norms
            assert bool(near[unsure].double().mean() >= 0.9 if int(unsure.sum()) else True)
        lost = (one.ours.status == Status.LOST) & (one.loop.status == Status.LOST)
        gone = one.ours.certificate.lost == one.loop.certificate.lost
        assert bool(gone[lost].double().mean() >= 0.9 if int(lost.sum()) else True)


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_have_them")
def test_in_single_precision_the_loop_is_asked_of_what_a_program_cannot_tell() -> None:
    """What near decays promise where float32 blurs curvature is tried, and some are minima."""
    y, start = near_decays(1e-4, 10)
    ours, loop = (
        lmtorch.least_squares(
            decays, start, args=(y,), in_dims=(0, 0), second_opinion=False, compile=way
        )
        for way in (True, False)
    )
    assert int(ours.success.sum()) >= int(loop.success.sum()) - 1
    assert float(above(ours.x, y)[ours.success].max()) < 1e-3


def test_successes_are_no_fewer_and_as_good() -> None:
    y = signals(400)
    ours, loop = (fitted(y, compile=way) for way in (True, False))
    assert int(ours.success.sum()) >= int(loop.success.sum()) - 4
    both = ours.success & loop.success
    worse = ours.cost[both] > loop.cost[both] * (1 + 1e-6)
    assert float(worse.double().mean()) <= 0.01


def test_a_bound_is_active_where_the_loop_s_is_and_the_gradient_there_is_whole() -> None:
    bounds = ([0.5, 0.0, 0.005, 0.0], [1.5, 0.25, 0.1, 0.01])
    y = signals(300)
    ours, loop = (fitted(y, bounds=bounds, compile=way) for way in (True, False))
    both = ours.success & loop.success & ((ours.cost - loop.cost).abs() <= 1e-9 * loop.cost)
    assert int(both.sum()) > 200
    assert bool((loop.active_mask[both] != 0).any())
    torch.testing.assert_close(ours.active_mask[both], loop.active_mask[both])
    held = both[:, None] & (loop.active_mask != 0)
    torch.testing.assert_close(ours.grad[held], loop.grad[held], rtol=1e-5, atol=1e-9)


@pytest.mark.usefixtures("as_users_have_them")
@pytest.mark.parametrize("kind", ["any", "equal", "graded", "diagonal", "indefinite"])
def test_eigenvalues_in_lanes_are_lapack_s(kind: str) -> None:
    torch.manual_seed(1)
    a = torch.randn(8, 5, 5, dtype=F64)
    vectors = torch.linalg.qr(a).Q
    values = {
        "any": torch.rand(8, 5, dtype=F64),
        "equal": torch.tensor([1.0, 1, 1, 2, 2], dtype=F64).expand(8, 5),
        "graded": torch.tensor([1e-14, 1e-9, 1e-5, 1e-2, 1], dtype=F64).expand(8, 5),
        "diagonal": torch.rand(8, 5, dtype=F64),
        "indefinite": torch.randn(8, 5, dtype=F64),
    }[kind]
    matrix = vectors * values[:, None, :] @ vectors.mT
    if kind == "diagonal":
        matrix = torch.diag_embed(values)
    lower = matrix[:, *torch.tril_indices(5, 5)].T.contiguous()
    found, beside = torch.empty(5, 8, dtype=F64), torch.empty(5, 5, 8, dtype=F64)
    library = building.build(f"#define W 8\n{PRELUDE}\n{EIGEN}")
    library.eigen(*(ctypes.c_void_p(t.data_ptr()) for t in (lower, found, beside)))
    # a few units of the last digit of the largest
    torch.testing.assert_close(found.T, torch.linalg.eigvalsh(matrix), rtol=0, atol=1e-14)
    basis = beside.permute(2, 0, 1)
    assert float((basis.mT @ basis - torch.eye(5, dtype=F64)).abs().max()) < 1e-14
    again = basis * found.T[:, None, :] @ basis.mT
    torch.testing.assert_close(again, matrix, rtol=0, atol=2e-14)
