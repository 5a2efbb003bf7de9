"""What every residual promises: its parts are its rows, in order, whenever they are asked for."""

import pytest
import torch
from torch import Tensor
from torch.func import jvp

from lmtorch.residuals.base import Residual

from .cases import Case, Failing, MakeCase, flat
from .members import RESIDUALS

residuals = pytest.mark.parametrize("make", RESIDUALS.values(), ids=RESIDUALS)


def evaluated(residual: Residual, x: Tensor) -> Tensor:
    """All rows, (..., m), in one evaluation as the loop makes it."""
    with residual.replay():
        params = residual.params(x)
        return torch.cat([part.function(params) for part in residual.parts()], -1)


def expected(case: Case, x: Tensor) -> Tensor:
    """The rows without the residual, from the same random numbers."""
    torch.manual_seed(1)
    return case.rows(x)


@residuals
def test_the_parameters_are_x_in_order(make: MakeCase) -> None:
    case = make(Failing())
    params = case.residual.params(case.x)
    lead = case.x.shape[:-1]
    assert torch.equal(torch.cat([p.reshape(*lead, -1) for p in params], -1), case.x)


@residuals
def test_the_parts_together_are_all_rows(make: MakeCase) -> None:
    case = make(Failing())
    torch.manual_seed(1)
    rows = evaluated(case.residual, case.x)
    torch.testing.assert_close(rows, expected(case, case.x).detach())
    assert rows.shape == (*case.x.shape[:-1], case.residual.rows)


@residuals
def test_a_point_has_the_same_rows_whatever_was_asked_before(make: MakeCase) -> None:
    # with random numbers, too: all evaluations of a step draw the same
    case = make(Failing())
    torch.manual_seed(1)
    first = evaluated(case.residual, case.x)
    elsewhere = evaluated(case.residual, case.x + 0.5)
    torch.testing.assert_close(elsewhere, expected(case, case.x + 0.5).detach())
    assert torch.equal(evaluated(case.residual, case.x), first)


@residuals
def test_the_derivative_of_the_parts_is_that_of_the_rows(make: MakeCase) -> None:
    case = make(Failing())
    if case.draws:
        return  # jvp would draw for each part of it; the sources replay their own
    direction = torch.randn_like(case.x)
    _, along = jvp(lambda x: evaluated(case.residual, x), (case.x,), (direction,))
    _, known = jvp(case.rows, (case.x,), (direction,))
    torch.testing.assert_close(along, known)


@residuals
def test_another_function_is_run_on_what_the_part_is_of(make: MakeCase) -> None:
    case = make(Failing())
    params = case.residual.params(case.x)
    for part in case.residual.parts():
        torch.manual_seed(1)
        rows = part.function(params)
        torch.manual_seed(1)
        found = part.run(case.users[part.term], params)
        torch.testing.assert_close(flat(found), flat(rows))


@residuals
def test_the_samples_of_a_part_one_by_one_are_its_rows(make: MakeCase) -> None:
    case = make(Failing())
    if case.draws:
        return  # alone, a sample draws numbers of its own
    params = case.residual.params(case.x)
    for part in case.residual.parts():
        if part.sample is None:
            continue
        singles = list(zip(*(t.unbind(0) for t in part.samples), strict=True))
        assert part.count == len(singles)
        rows = torch.cat([part.sample(params, *single) for single in singles])
        torch.testing.assert_close(rows, part.function(params))


@residuals
def test_terms_follow_one_another_and_a_whole_part_is_alone(make: MakeCase) -> None:
    case = make(Failing())
    parts = list(case.residual.parts())
    places = [part.term for part in parts]
    assert places == sorted(places)
    assert set(places) == set(range(len(case.users)))
    assert all(part.whole == (len(parts) == 1) for part in parts)
    assert all(part.batch == case.x.ndim - 1 for part in parts)


@residuals
@pytest.mark.parametrize("places", [[2], [3, 0]], ids=str)
def test_some_problems_have_the_rows_of_their_own(make: MakeCase, places: list[int]) -> None:
    case = make(Failing())
    if case.x.ndim == 1:
        places = [0]
    chosen = torch.tensor(places)
    torch.manual_seed(1)
    rows = evaluated(case.residual, case.x)
    x, known = (case.x, rows) if case.x.ndim == 1 else (case.x[chosen], rows[chosen])
    torch.manual_seed(1)
    torch.testing.assert_close(evaluated(case.residual.take(chosen), x), known)
    assert case.residual.take(chosen).rows == case.residual.rows


@residuals
def test_an_evaluation_leaves_what_belongs_to_the_user_as_it_was(make: MakeCase) -> None:
    case = make(Failing())
    before = [tensor.detach().clone() for tensor in case.kept]
    evaluated(case.residual, case.x + 0.5)
    assert all(map(torch.equal, before, case.kept))


@residuals
def test_an_evaluation_that_fails_was_none(make: MakeCase) -> None:
    failing = Failing()
    case = make(failing)
    before = [tensor.detach().clone() for tensor in case.kept]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    failing.calls, failing.at = 0, 0
    with pytest.raises(ZeroDivisionError):
        evaluated(case.residual, case.x)
    failing.at = None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, before, case.kept))
    assert not any(tensor.grad is not None for tensor in case.kept)
    rows = evaluated(case.residual, case.x)
    torch.testing.assert_close(rows, expected(case, case.x).detach())
