"""What every solver promises: the step of the damped normal equations for any λ and batch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lmtorch.solvers.base import Solver

from .members import TO_DIGITS as SOLVERS
from .on_numpy import on_both
from .setting import EPS, System

SHAPES = [(7, 4), (4, 4), (3, 5), (12, 1), (1, 3)]

both = on_both(SOLVERS)
solvers = pytest.mark.parametrize("solver", both.values(), ids=both)
batches = pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
priors = pytest.mark.parametrize("penalized", [False, True], ids=["plain", "prior"])


def reads_rows(solver: Solver) -> bool:
    """Whether it sees J itself; in JᵀJ a deficient rank drowns in the squares of the others."""
    return not solver.form.sampled


def determined(solver: Solver, system: System) -> bool:
    """Whether there is a step without damping, and the solver can know it."""
    m, n = system.jacobian.shape[-2:]
    zero = torch.zeros((), dtype=torch.float64)
    step = solver.factor(system.linearization(solver), system.scale).step(zero)
    return bool(step.isfinite().all()) and (m >= n or reads_rows(solver))


@solvers
@batches
@shapes
@priors
def test_the_step_solves_the_damped_normal_equations(
    solver: Solver, batch: tuple[int, ...], shape: tuple[int, int], penalized: bool
) -> None:
    system = System(shape, batch, penalized=penalized)
    step = solver.factor(system.linearization(solver), system.scale).step(system.damping)
    assert step.shape == (*batch, shape[1])
    assert step.dtype == torch.float64
    torch.testing.assert_close(
        (system.matrix(system.damping) @ step[..., None])[..., 0], -system.gradient
    )


@solvers
@batches
@shapes
@priors
def test_any_right_hand_side_is_solved_for(
    solver: Solver, batch: tuple[int, ...], shape: tuple[int, int], penalized: bool
) -> None:
    system = System(shape, batch, penalized=penalized)
    rhs = torch.randn(*batch, shape[1], dtype=torch.float64)
    solution = solver.factor(system.linearization(solver), system.scale).solve(rhs, system.damping)
    assert solution.shape == rhs.shape
    torch.testing.assert_close((system.matrix(system.damping) @ solution[..., None])[..., 0], rhs)


@solvers
@batches
@shapes
@priors
def test_the_length_is_that_of_the_scaled_step_and_its_derivative_that_of_differences(
    solver: Solver, batch: tuple[int, ...], shape: tuple[int, int], penalized: bool
) -> None:
    system = System(shape, batch, penalized=penalized)
    factor = solver.factor(system.linearization(solver), system.scale)

    def length_at(damping: Tensor) -> Tensor:
        return torch.linalg.vector_norm(system.scale * factor.step(damping), dim=-1)

    length, slope = factor.length(system.damping)
    assert length.shape == slope.shape == batch
    torch.testing.assert_close(length, length_at(system.damping))
    h = 1e-4 * system.damping
    differences = (length_at(system.damping + h) - length_at(system.damping - h)) / (2 * h)
    # truncation: a relative 1e-4 squared, times the third derivative, which is of the
    # order of the first over λ²
    torch.testing.assert_close(slope, differences, rtol=1e-6, atol=1e-8)


@solvers
@pytest.mark.parametrize(
    "shape", [(7, 4), (4, 4), (3, 5)], ids=lambda shape: f"{shape[0]}x{shape[1]}"
)
def test_the_length_at_zero_damping_has_the_one_sided_derivative(
    solver: Solver, shape: tuple[int, int]
) -> None:
    system = System(shape)
    zero = torch.zeros((), dtype=torch.float64)
    if not determined(solver, system):
        return
    factor = solver.factor(system.linearization(solver), system.scale)
    length, slope = factor.length(zero)
    h = torch.full_like(zero, 1e-8)
    torch.testing.assert_close(length, factor.length(h)[0], rtol=1e-4, atol=0)
    # h times the second derivative is the truncation, ε over h the rounding,
    # times the condition of JᵀJ
    torch.testing.assert_close(slope, (factor.length(h)[0] - length) / h, rtol=1e-3, atol=0)


@solvers
def test_a_square_problem_has_a_step_without_damping(solver: Solver) -> None:
    system = System((4, 4))
    assert determined(solver, system)
    zero = torch.zeros((), dtype=torch.float64)
    step = solver.factor(system.linearization(solver), system.scale).step(zero)
    expected = torch.linalg.solve(system.jacobian, -system.residual)
    # ε times the condition of JᵀJ, 100, with room for D
    torch.testing.assert_close(step, expected, rtol=1e-10, atol=1e-10)


@given(
    m=st.integers(1, 12),
    n=st.integers(1, 12),
    decades=st.floats(0, 6),
    penalized=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_all_solvers_take_the_step_of_the_stacked_least_squares_problem(
    m: int, n: int, decades: float, penalized: bool, seed: int
) -> None:
    system = System((m, n), penalized=penalized, condition=10**decades, seed=seed)
    rows, values = [system.jacobian, (system.damping.sqrt() * system.scale).diag()], [
        -system.residual, torch.zeros(n, dtype=torch.float64)
    ]  # fmt: skip
    if system.prior is not None:
        rows, values = [*rows, system.prior.root.diag()], [*values, -system.prior.residual]
    expected = torch.linalg.lstsq(torch.cat(rows), torch.cat(values)[:, None]).solution[:, 0]
    # the error of each is ε times the condition of the matrix it factors; with M = λD² + W,
    # JᵀJ + M and JM⁻¹Jᵀ + I have no worse one than the largest eigenvalue of the first over the
    # least of M, with D's spread on top
    eigenvalues = torch.linalg.eigvalsh(system.matrix(system.damping))
    floor = (system.damping * system.scale.square()).min()
    spread = (system.scale.max() / system.scale.min()).square()
    tolerance = 100 * EPS * float(eigenvalues[-1] / floor * spread)
    for name, solver in SOLVERS.items():
        step = solver.factor(system.linearization(solver), system.scale).step(system.damping)
        torch.testing.assert_close(
            step,
            expected,
            rtol=0,
            atol=tolerance * float(expected.norm()) + 1e-14,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@solvers
@pytest.mark.parametrize("bad", [torch.nan, torch.inf], ids=str)
@pytest.mark.parametrize("where", ["residual", "jacobian"])
@priors
def test_one_bad_problem_leaves_its_neighbours_alone(
    solver: Solver, bad: float, where: str, penalized: bool
) -> None:
    system = System((4, 4), (3,), penalized=penalized)
    good = solver.factor(system.linearization(solver), system.scale)
    good_step, good_length = good.step(system.damping), good.length(system.damping)
    getattr(system, where)[1, 0] = bad
    factor = solver.factor(system.linearization(solver), system.scale)
    step, length = factor.step(system.damping), factor.length(system.damping)
    rhs = torch.ones(3, 4, dtype=torch.float64)
    for mine, theirs in zip((step, *length), (good_step, *good_length), strict=True):
        # a batched product may sum in another order, so the last digit is free here
        torch.testing.assert_close(mine[[0, 2]], theirs[[0, 2]], rtol=1e-13, atol=1e-13)
    assert not step[1].isfinite().all()
    torch.testing.assert_close(
        factor.solve(rhs, system.damping)[[0, 2]],
        good.solve(rhs, system.damping)[[0, 2]],
        rtol=1e-13,
        atol=1e-13,
    )


@solvers
@batches
def test_an_undamped_singular_matrix_gives_no_step_or_the_shortest(
    solver: Solver, batch: tuple[int, ...]
) -> None:
    if not reads_rows(solver):
        return  # the last pivot of JᵀJ is round-off of either sign, and so is what follows from it
    system = System((5, 4), batch)
    system.jacobian[..., 3] = system.jacobian[..., 2]  # two parameters that do the same
    system.scale = torch.ones_like(system.scale)
    zero = torch.zeros(batch, dtype=torch.float64)
    step = solver.factor(system.linearization(solver), system.scale).step(zero)
    shortest = -(torch.linalg.pinv(system.jacobian) @ system.residual[..., None])[..., 0]
    for one, truth in zip(step.reshape(-1, 4), shortest.reshape(-1, 4), strict=True):
        if not one.isnan().all():
            torch.testing.assert_close(one, truth)


@solvers
@batches
@priors
def test_a_variable_that_is_held_does_not_move_and_the_others_step_as_if_it_were_absent(
    solver: Solver, batch: tuple[int, ...], penalized: bool
) -> None:
    system = System((5, 4), batch, penalized=penalized)
    free = torch.tensor([True, True, False, True]).expand(*batch, 4)
    held = system.linearization(solver).freeze(free)
    step = solver.factor(held, system.scale).step(system.damping)
    assert (step[..., 2] == 0).all()
    kept = [0, 1, 3]
    matrix = system.matrix(system.damping)[..., kept, :][..., kept]
    expected = torch.linalg.solve(matrix, -system.gradient[..., kept, None])[..., 0]
    torch.testing.assert_close(step[..., kept], expected)


@solvers
@batches
@priors
@pytest.mark.parametrize(
    "shape", [(9, 4), (5, 4), (3, 5)], ids=lambda shape: f"{shape[0]}x{shape[1]}"
)
def test_a_parameter_without_influence_stays_where_it_is(
    solver: Solver, batch: tuple[int, ...], shape: tuple[int, int], penalized: bool
) -> None:
    system = System(shape, batch, penalized=penalized)
    system.jacobian[..., 1] = 0
    if system.prior is not None:
        system.prior.root[..., 1] = system.prior.residual[..., 1] = 0
    factor = solver.factor(system.linearization(solver), system.scale)
    rhs = torch.randn(*batch, shape[1], dtype=torch.float64)
    rhs[..., 1] = 0
    for answer in (factor.step(system.damping), factor.solve(rhs, system.damping)):
        assert answer.isfinite().all()
        assert (answer[..., 1] == 0).all()


@solvers
def test_without_damping_a_parameter_without_influence_leaves_no_step_or_that_of_the_others(
    solver: Solver,
) -> None:
    system = System((5, 4))
    system.jacobian[..., 1] = 0
    zero = torch.zeros((), dtype=torch.float64)
    step = solver.factor(system.linearization(solver), system.scale).step(zero)
    kept = [0, 2, 3]
    A, b = system.jacobian[:, kept], -system.residual[:, None]
    if not step.isnan().all():
        torch.testing.assert_close(step[kept], torch.linalg.lstsq(A, b).solution[:, 0])
        assert step[1] == 0


@pytest.mark.parametrize(
    ("solver", "dtype"),
    [
        pytest.param(solver, dtype, id=f"{name}-{dtype}")
        for name, solver in both.items()
        for dtype in (torch.float32, torch.float64)
        # a run on NumPy's arrays has float64 throughout (`core/small.py`)
        if dtype == torch.float64 or "NumPy" not in name
    ],
)
def test_the_step_has_the_dtype_of_the_linear_model_whatever_that_of_the_damping(
    solver: Solver, dtype: torch.dtype
) -> None:
    system = System((7, 4))
    system.jacobian, system.residual = system.jacobian.to(dtype), system.residual.to(dtype)
    factor = solver.factor(system.linearization(solver), system.scale.to(dtype))
    step = factor.step(system.damping)
    assert step.dtype == dtype
    expected = torch.linalg.solve(system.matrix(system.damping).double(), -system.gradient.double())
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9  # ε times the condition, some hundreds
    torch.testing.assert_close(step.double(), expected, rtol=tolerance, atol=tolerance)
