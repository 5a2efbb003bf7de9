"""What every solver promises: the step of the damped normal equations, for any λ and in any batch."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lmtorch.linearizations.base import Linearization, Prior
from lmtorch.linearizations.dense import DenseForm
from lmtorch.linearizations.normal import Normal
from lmtorch.rows.dense import DenseRows
from lmtorch.solvers.base import Solver
from lmtorch.solvers.cholesky import Cholesky
from lmtorch.solvers.dual import Dual
from lmtorch.solvers.qr import QR
from lmtorch.solvers.svd import SVD

EPS = torch.finfo(torch.float64).eps
SOLVERS = [SVD(), QR(), Cholesky(), Dual()]
SHAPES = [(7, 4), (4, 4), (3, 5), (12, 1), (1, 3)]

solvers = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
batches = pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
priors = pytest.mark.parametrize("penalized", [False, True], ids=["plain", "prior"])


class System:
    """r, J, a prior, D and λ, drawn at random; and the same equations written out as one matrix."""

    def __init__(
        self,
        shape: tuple[int, int],
        batch: tuple[int, ...] = (),
        *,
        penalized: bool = False,
        condition: float = 10.0,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*size: int) -> Tensor:
            return torch.randn((*batch, *size), dtype=torch.float64, generator=generator)

        m, n = shape
        u, v = torch.linalg.qr(draw(m, m)).Q, torch.linalg.qr(draw(n, n)).Q
        k = min(m, n)
        singular = torch.logspace(
            0, -torch.log10(torch.tensor(condition)).item(), k, dtype=torch.float64
        )
        self.jacobian = u[..., :k] * singular @ v[..., :k].mT
        self.residual = draw(m)
        self.scale = draw(n).exp()
        self.damping = draw().exp() * 0.1
        self.prior = None
        if penalized:
            root, x = draw(n).exp(), draw(n)
            self.prior = Prior(root, root * x)

    def linearization(self, solver: Solver) -> Linearization:
        """In the form that the solver takes, filled in two blocks where there are two rows."""
        m, n = self.jacobian.shape[-2:]
        accumulator = solver.form.accumulator(
            (*self.residual.shape[:-1], n), m, self.jacobian.new_empty(0)
        )
        for rows in filter(None, (range(m)[: m // 2], range(m)[m // 2 :])):
            block = slice(rows[0], rows[-1] + 1)
            workspace = accumulator.workspace(len(rows))
            workspace.copy_(self.jacobian[..., block, :])
            accumulator.add(self.residual[..., block], DenseRows(workspace))
        return accumulator.finish(self.residual.square().sum(-1) / 2, self.prior)

    @property
    def gradient(self) -> Tensor:
        """Jᵀr with the prior's."""
        gradient = (self.jacobian.mT @ self.residual[..., None])[..., 0]
        return gradient if self.prior is None else gradient + self.prior.root * self.prior.residual

    def matrix(self, damping: Tensor) -> Tensor:
        """JᵀJ + W + λD², (..., n, n)."""
        diagonal = damping[..., None] * self.scale.square()
        if self.prior is not None:
            diagonal = diagonal + self.prior.root.square()
        return self.jacobian.mT @ self.jacobian + torch.diag_embed(diagonal)


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
    # truncation: a relative 1e-4 squared, times the third derivative, which is of the order of the first over λ²
    torch.testing.assert_close(slope, differences, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    (
        "solver",
        "shape",
    ),  # without damping: the dual needs the inverse of JJᵀ, QR and Cholesky that of JᵀJ
    [
        *product([SVD()], [(7, 4), (4, 4), (3, 5)]),
        *product([QR(), Cholesky()], [(7, 4), (4, 4)]),
        *product([Dual()], [(4, 4), (3, 5)]),
    ],
    ids=str,
)
def test_the_length_at_zero_damping_has_the_one_sided_derivative(
    solver: Solver, shape: tuple[int, int]
) -> None:
    system = System(shape)
    factor = solver.factor(system.linearization(solver), system.scale)
    zero = torch.zeros((), dtype=torch.float64)
    length, slope = factor.length(zero)
    h = torch.full_like(zero, 1e-8)
    torch.testing.assert_close(length, factor.length(h)[0], rtol=1e-4, atol=0)
    # h times the second derivative is the truncation, ε over h the rounding, times the condition of JᵀJ
    torch.testing.assert_close(slope, (factor.length(h)[0] - length) / h, rtol=1e-3, atol=0)


@given(
    m=st.integers(1, 12),
    n=st.integers(1, 12),
    decades=st.floats(0, 6),
    penalized=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_all_solvers_take_the_same_step(
    m: int, n: int, decades: float, penalized: bool, seed: int
) -> None:
    system = System((m, n), penalized=penalized, condition=10**decades, seed=seed)
    steps = [s.factor(system.linearization(s), system.scale).step(system.damping) for s in SOLVERS]
    # the error of each is ε times the condition of the matrix it factors; with M = λD² + W, JᵀJ + M and JM⁻¹Jᵀ + I
    # have no worse one than the largest eigenvalue of the first over the least of M, with D's spread on top
    eigenvalues = torch.linalg.eigvalsh(system.matrix(system.damping))
    floor = (system.damping * system.scale.square()).min()
    spread = (system.scale.max() / system.scale.min()).square()
    tolerance = 100 * EPS * float(eigenvalues[-1] / floor * spread)
    for step in steps[1:]:
        torch.testing.assert_close(
            step, steps[0], rtol=0, atol=tolerance * float(steps[0].norm()) + 1e-14
        )


@pytest.mark.parametrize("condition", [1e4, 1e6, 1e8])
def test_orthogonal_factorizations_lose_the_condition_and_cholesky_its_square(
    condition: float,
) -> None:
    # r in the range of J, so that the solution of least squares is known and its error is that of the solver
    system = System((20, 5), condition=condition)
    system.scale = torch.ones_like(system.scale)
    truth = torch.ones(5, dtype=torch.float64)
    system.residual = -system.jacobian @ truth
    zero = torch.zeros((), dtype=torch.float64)
    for solver in (SVD(), QR()):
        step = solver.factor(system.linearization(solver), system.scale).step(zero)
        assert (step - truth).norm() / truth.norm() <= 100 * EPS * condition
    step = Cholesky().factor(system.linearization(Cholesky()), system.scale).step(zero)
    error = (step - truth).norm() / truth.norm()
    assert (
        not error > 100 * EPS * condition**2
    )  # or NaN, where JᵀJ has rounded to an indefinite matrix


@pytest.mark.parametrize(
    "solver", [SVD(), QR(), Cholesky(), Dual()], ids=lambda solver: type(solver).__name__
)
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
    system = System((5, 4), batch)
    system.jacobian[..., 3] = system.jacobian[..., 2]  # two parameters that do the same
    system.scale = torch.ones_like(system.scale)
    zero = torch.zeros(batch, dtype=torch.float64)
    step = solver.factor(system.linearization(solver), system.scale).step(zero)
    shortest = -(torch.linalg.pinv(system.jacobian) @ system.residual[..., None])[..., 0]
    for one, truth in zip(step.reshape(-1, 4), shortest.reshape(-1, 4), strict=True):
        if isinstance(solver, SVD):
            torch.testing.assert_close(one, truth)
        elif not isinstance(
            solver, Cholesky
        ):  # whose last pivot is round-off of either sign: the next test
            assert one.isnan().all()


@pytest.mark.parametrize(
    "penalized", [[], [0], [0, 1, 2]], ids=["plain", "prior on one", "prior on some"]
)
def test_the_dual_without_damping_gives_no_step_where_its_weights_or_rows_do_not_determine_one(
    penalized: list[int],
) -> None:
    # rows of whole numbers, whose products have no rounding: the third is the sum of the others
    system = System((3, 5))
    system.jacobian = torch.tensor(
        [[1.0, 2, 0, 1, 3], [0, 1, 1, 2, 1], [1, 3, 1, 3, 4]], dtype=torch.float64
    )
    system.scale = torch.ones(5, dtype=torch.float64)
    if penalized:
        root = torch.zeros(5, dtype=torch.float64)
        root[penalized] = 1.0
        system.prior = Prior(root, root)
    factor = Dual().factor(system.linearization(Dual()), system.scale)
    zero = torch.zeros((), dtype=torch.float64)
    assert factor.step(zero).isnan().all()
    assert factor.length(zero)[0].isnan()
    damping = torch.tensor(0.1, dtype=torch.float64)
    torch.testing.assert_close(system.matrix(damping) @ factor.step(damping), -system.gradient)


def test_the_dual_takes_no_pivot_of_round_off_for_one() -> None:
    # four rows of rank three: the last pivot of JJᵀ is round-off, in about half of the problems positive
    system = System((4, 6), (64,))
    system.jacobian[..., 3, :] = system.jacobian[..., :3, :].sum(-2)
    factor = Dual().factor(system.linearization(Dual()), system.scale)
    zero = torch.zeros(64, dtype=torch.float64)
    assert factor.step(zero).isnan().all()
    assert factor.length(zero)[0].isnan().all()


def test_cholesky_of_an_indefinite_or_singular_matrix_gives_nan_and_a_neighbour_its_step() -> None:
    indefinite, singular, good = (
        [[1.0, 2.0], [2.0, 1.0]],
        [[1.0, 2.0], [2.0, 4.0]],
        [[2.0, 1.0], [1.0, 2.0]],
    )
    normal = torch.tensor([indefinite, good, singular], dtype=torch.float64)
    gradient = torch.tensor([[1.0, 0.0]] * 3, dtype=torch.float64)
    factor = Cholesky().factor(
        Normal(normal, torch.ones(3, dtype=torch.float64), gradient), torch.ones_like(gradient)
    )
    zero = torch.zeros(3, dtype=torch.float64)
    solution = factor.solve(gradient, zero)
    for answer in (factor.step(zero), -solution):
        assert answer[[0, 2]].isnan().all()
        torch.testing.assert_close(answer[1], torch.tensor([-2 / 3, 1 / 3], dtype=torch.float64))
    length, slope = factor.length(zero)
    assert length.isnan().tolist() == slope.isnan().tolist() == [True, False, True]
    # enough damping makes every one of them definite
    damped = factor.step(torch.full_like(zero, 2.0))
    matrices = normal + 2 * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close((matrices @ damped[..., None])[..., 0], -gradient)


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
def test_a_parameter_without_influence_stays_where_it_is(solver: Solver) -> None:
    system = System((5, 4))
    system.jacobian[..., 1] = 0
    step = solver.factor(system.linearization(solver), system.scale).step(system.damping)
    assert step.isfinite().all()
    assert step[1] == 0


@pytest.mark.parametrize("solver", [SVD(), Cholesky()], ids=lambda solver: type(solver).__name__)
def test_without_damping_the_others_step_as_gauss_and_newton_say(solver: Solver) -> None:
    system = System((5, 4))
    system.jacobian[..., 1] = 0
    zero = torch.zeros((), dtype=torch.float64)
    step = solver.factor(system.linearization(solver), system.scale).step(zero)
    kept = [0, 2, 3]
    expected = torch.linalg.lstsq(system.jacobian[:, kept], -system.residual[:, None]).solution[
        :, 0
    ]
    torch.testing.assert_close(step[kept], expected)
    assert step[1] == 0


@solvers
def test_the_form_is_the_one_the_solver_reads(solver: Solver) -> None:
    dense = not isinstance(solver, Cholesky)
    assert isinstance(solver.form, DenseForm) is dense


@solvers
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
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
