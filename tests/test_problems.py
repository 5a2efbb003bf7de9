"""The references themselves: certified values, minima and formulas are what their sources say."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from . import problems
from .nist import DIRECTORY, PROBLEMS, NistProblem, log_relative_error
from .problems import CLASSICAL, ClassicalProblem
from .references import scipy_solution

nist_problems = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
classical_problems = pytest.mark.parametrize("problem", CLASSICAL.values(), ids=CLASSICAL)

# ‖r‖ at the standard start, as MINPACK's own test programme prints it (problems of SSQFCN, lmder1).
MINPACK_START_NORMS = {
    "linear_full_rank": 5.0000000e00,
    "linear_rank_1": 2.9152187e02,
    "linear_rank_1_zeros": 1.2603968e02,
    "rosenbrock": 4.9193496e00,
    "helical_valley": 5.0000000e01,
    "powell_singular": 1.4662878e01,
    "freudenstein_roth": 2.0012496e01,
    "bard": 6.4561363e00,
    "kowalik_osborne": 7.2891510e-02,
    "meyer": 4.1153467e04,
    "watson_6": 5.4772256e00,
    "box_3d": 3.2111584e01,
    "jennrich_sampson": 6.4585650e01,
    "brown_dennis": 2.8154384e03,
    "chebyquad_8": 1.9651386e-01,
    "chebyquad_9": 1.6994993e-01,
    "chebyquad_10": 1.8374783e-01,
    "brown_almost_linear": 1.6530216e01,
    "osborne_1": 9.3756402e-01,
    "osborne_2": 1.4468654e00,
}

# ‖r‖² at the standard start, in the dimensions of Algorithm 566's test programme.
ALGORITHM_566_STARTS = {
    "biggs_exp6": (CLASSICAL["biggs_exp6"].start, 7.79e-1),
    "gaussian": (CLASSICAL["gaussian"].start, 3.89e-6),
    "powell_badly_scaled": (CLASSICAL["powell_badly_scaled"].start, 1.14e0),
    "variably_dimensioned": (tuple(1 - j / 40 for j in range(1, 41)), 9.39e10),
    "penalty_1": (tuple(float(j) for j in range(1, 61)), 5.45e9),
    "penalty_2": ((0.5,) * 65, 2.87e5),
    "brown_badly_scaled": (CLASSICAL["brown_badly_scaled"].start, 1.00e12),
    "gulf": (CLASSICAL["gulf"].start, 1.21e1),
    "trigonometric": ((1 / 40,) * 40, 2.01e-3),
    "extended_rosenbrock": ((-1.2, 1.0) * 20, 4.84e2),
    "extended_powell_singular": ((3.0, -1.0, 0.0, 1.0) * 15, 3.23e3),
    "beale": (CLASSICAL["beale"].start, 1.42e1),
    "wood": (CLASSICAL["wood"].start, 1.92e4),
    "chebyquad": (tuple(j / 51 for j in range(1, 51)), 1.39e-2),
}

# Published minima other than the `minimizer` of their problem.
FURTHER_MINIMA = {
    "freudenstein_roth": ((53 - 4 * 22**0.5) / 3, (2 - 22**0.5) / 3),
    "box_3d": (1.0, 10.0, 1.0),
    "biggs_exp6": (1.0, 10.0, 1.0, 5.0, 4.0, 3.0),
    "trigonometric": (0.0,) * 10,
    "brown_almost_linear": (1.0,) * 10,
    "linear_rank_1": (3 / 21, 0.0, 0.0, 0.0, 0.0),
    "linear_rank_1_zeros": (0.0, 3 / 34, 0.0, 0.0, 0.0),
}


def vector(values: tuple[float, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    """A flat tensor of parameters."""
    return torch.tensor(values, dtype=dtype)


def cost(residual: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """½‖r‖²."""
    return residual(x).square().sum().item() / 2


def is_stationary(residual: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether no column of J correlates with r, but for a billionth, which 13 digits of x leave."""
    r, J = residual(x), torch.func.jacfwd(residual)(x)
    return bool(((J.T @ r).abs() <= 1e-9 * J.norm(dim=0) * (1 + r.norm())).all())


def is_known(value: float, problem: ClassicalProblem) -> bool:
    """Whether a cost is one of the problem's: to nine digits, or for zeros to 1e-9 squared."""
    return any(value == pytest.approx(known, rel=1e-9, abs=1e-18) for known in problem.costs)


@nist_problems
def test_a_nist_file_is_read_whole(problem: NistProblem) -> None:
    text = (DIRECTORY / f"{problem.name}.dat").read_text(encoding="ascii")
    said = dict(
        re.findall(
            r"^(Number of Observations|Residual Standard Deviation): +(\S+)", text, re.MULTILINE
        )
    )
    assert problem.m == int(said["Number of Observations"])
    # Tells m - n as well, and truly: for Rat43 NIST's file prints 9 degrees of
    # freedom where 11 were used.
    deviation = (problem.certified_rss / (problem.m - problem.n)) ** 0.5
    assert deviation == pytest.approx(float(said["Residual Standard Deviation"]), rel=1e-9)
    assert [len(start) for start in problem.starts] == [problem.n] * 2
    assert problem.x.shape[-1] == problem.m
    assert problem.residual(problem.certified).shape == (problem.m,)


def test_there_is_a_model_for_every_nist_file() -> None:
    assert sorted(PROBLEMS) == sorted(path.stem for path in DIRECTORY.glob("*.dat"))
    assert len(PROBLEMS) == 27


@nist_problems
def test_certified_parameters_give_the_certified_residual_sum_of_squares(
    problem: NistProblem,
) -> None:
    rss = problem.residual(problem.certified).square().sum().item()
    if problem.name == "Lanczos1":  # 11 digits of the parameters cannot give the certified 1.4e-25
        assert rss == pytest.approx(3.98e-21, rel=1e-2)
    else:
        assert rss == pytest.approx(problem.certified_rss, rel=1e-9)


@nist_problems
def test_certified_deviations_are_those_of_the_exact_jacobian(problem: NistProblem) -> None:
    J = torch.func.jacfwd(problem.residual)(problem.certified)
    norms = J.norm(dim=0)
    inverse = torch.linalg.inv(torch.linalg.qr(J / norms).R)
    std = (problem.certified_rss / (problem.m - problem.n) * inverse.square().sum(1)).sqrt() / norms
    # Relative to the 1e-11 of the printed parameters, J's condition costs two digits at most here.
    torch.testing.assert_close(std, problem.certified_std, rtol=1e-8, atol=0)


@nist_problems
def test_scipy_reaches_the_certified_parameters_from_the_near_start(problem: NistProblem) -> None:
    solution = scipy_solution(problem.residual, problem.starts[1], method="lm")
    assert log_relative_error(solution.x, problem.certified) > 6


def test_the_log_relative_error_counts_the_digits_of_the_worst_parameter() -> None:
    certified = vector((2.0, -400.0))
    assert log_relative_error(vector((2.0 + 2e-7, -400.0)), certified) == pytest.approx(7)
    assert log_relative_error([2.0, -404.0], certified) == pytest.approx(2)
    assert log_relative_error(certified, certified) == 11
    assert log_relative_error(vector((2.0, 400.0)), certified) == 0
    assert log_relative_error(vector((2.0, torch.nan)), certified) == 0
    assert log_relative_error(vector((2.0, -torch.inf)), certified) == 0


@pytest.mark.parametrize("name", MINPACK_START_NORMS)
def test_the_residual_at_the_start_is_minpacks(name: str) -> None:
    problem = CLASSICAL[name]
    norm = problem.residual(vector(problem.start)).norm().item()
    assert norm == pytest.approx(MINPACK_START_NORMS[name], rel=1e-7)  # eight digits are printed


@pytest.mark.parametrize("name", ALGORITHM_566_STARTS)
def test_the_sum_of_squares_at_the_start_is_that_of_algorithm_566(name: str) -> None:
    start, expected = ALGORITHM_566_STARTS[name]
    # as many digits as printed
    assert f"{2 * cost(getattr(problems, name), vector(start)):.2e}" == f"{expected:.2e}"


@pytest.mark.parametrize(
    "name", [name for name, problem in CLASSICAL.items() if problem.minimizer is not None]
)
def test_the_minimizer_is_stationary_and_has_the_lowest_cost(name: str) -> None:
    problem = CLASSICAL[name]
    assert problem.minimizer is not None
    x = vector(problem.minimizer)
    assert is_stationary(problem.residual, x)
    assert cost(problem.residual, x) == pytest.approx(problem.minimum_cost, rel=1e-9, abs=1e-20)


@pytest.mark.parametrize("name", FURTHER_MINIMA)
def test_further_published_minima_are_stationary_and_have_a_known_cost(name: str) -> None:
    problem, x = CLASSICAL[name], vector(FURTHER_MINIMA[name])
    assert is_stationary(problem.residual, x)
    assert is_known(cost(problem.residual, x), problem)


@classical_problems
def test_scipy_ends_at_a_known_cost(problem: ClassicalProblem) -> None:
    solution = scipy_solution(problem.residual, problem.start)
    assert is_known(solution.cost, problem)

    if problem.minimizer is not None and solution.cost == pytest.approx(
        problem.minimum_cost, rel=1e-9, abs=1e-18
    ):
        # Measured by what the difference does to the residual: at a singular minimum x
        # itself is not determined.
        x = vector(problem.minimizer)
        change = torch.func.jacfwd(problem.residual)(x) @ (torch.from_numpy(solution.x) - x)
        assert change.norm() <= 1e-6 * (1 + problem.residual(x).norm())


@classical_problems
def test_costs_are_ordered_and_none_is_below_the_minimum(problem: ClassicalProblem) -> None:
    assert list(problem.costs) == sorted(problem.costs)
    assert problem.minimum_cost <= cost(problem.residual, vector(problem.start))


@pytest.mark.parametrize(
    ("classical", "nist"),
    [("kowalik_osborne", "MGH09"), ("meyer", "MGH10"), ("osborne_1", "MGH17")],
)
def test_problems_that_nist_certifies_too_have_the_same_data_and_minimum(
    classical: str, nist: str
) -> None:
    mine, certified = CLASSICAL[classical], PROBLEMS[nist]
    x = vector(mine.start)
    torch.testing.assert_close(
        mine.residual(x).abs(), certified.residual(x).abs(), rtol=1e-12, atol=1e-15
    )
    assert 2 * mine.minimum_cost == pytest.approx(certified.certified_rss, rel=1e-9)
    assert mine.minimizer is not None
    assert log_relative_error(mine.minimizer, certified.certified) > 9


@classical_problems
@pytest.mark.parametrize("seed", [0])
def test_a_residual_is_fit_for_torch_func(problem: ClassicalProblem, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = vector(problem.start)
    batch = x + 0.01 * torch.rand(3, problem.n, dtype=x.dtype, generator=generator)

    one_by_one = torch.stack([problem.residual(row) for row in batch])
    torch.testing.assert_close(torch.func.vmap(problem.residual)(batch), one_by_one)

    forward = torch.func.vmap(torch.func.jacfwd(problem.residual))(batch)
    reverse = torch.func.vmap(torch.func.jacrev(problem.residual))(batch)
    assert forward.isfinite().all()
    torch.testing.assert_close(forward, reverse)


@classical_problems
def test_a_residual_keeps_the_dtype_of_its_parameters(problem: ClassicalProblem) -> None:
    single = problem.residual(vector(problem.start, torch.float32))
    double = problem.residual(vector(problem.start))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    scale = double.abs().max().item()
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-5 * max(scale, 1.0))


@nist_problems
def test_a_model_is_fit_for_torch_func(problem: NistProblem) -> None:
    batch = torch.stack([vector(problem.starts[1]), problem.certified])
    forward = torch.func.vmap(torch.func.jacfwd(problem.residual))(batch)
    reverse = torch.func.vmap(torch.func.jacrev(problem.residual))(batch)
    assert forward.shape == (2, problem.m, problem.n)
    assert forward.isfinite().all()
    torch.testing.assert_close(forward, reverse)
