"""NIST's problems that are shapes of the library, fitted without a start."""

import pytest

import lmtorch
from lmtorch import models
from lmtorch.models import Model
from tests.nist import load


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("DanWood", models.PowerLaw()),
        ("Rat42", models.Logistic()),
        ("Eckerle4", models.Gaussian()),
        ("MGH17", models.Biexponential() + models.Constant()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_problem_of_nist_is_solved_without_a_start(name: str, model: Model) -> None:
    problem = load(name)
    fit = lmtorch.curve_fit(model, problem.x, problem.y)
    best = float((problem.model(problem.certified, problem.x) - problem.y).square().sum())
    assert float(fit.chisqr) <= best * (1 + 1e-6)
