"""What every source of derivatives promises: the same matrix in the order of the parameters."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmtorch._errors import InputError
from lmtorch.jacobians.base import DescendedError
from lmtorch.jacobians.layerwise import NotLayerwiseError

from .cases import Failing, MakeCase, Source, problems, problems_one_by_one
from .members import SOURCES
from .setting import Model, whole

REFUSED = (InputError, NotLayerwiseError)

sources = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
opaque = pytest.mark.parametrize("sampled", [True, False], ids=["samples", "opaque"])


def tolerance(source: Source, dtype: torch.dtype = torch.float64) -> float:
    """To which its derivatives agree with others: sums of some products of numbers of order one."""
    return 100 * float(torch.finfo(dtype).eps) ** source.digits


@given(
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple),
    samples=st.integers(1, 6),
    chunk=st.one_of(st.none(), st.integers(1, 9)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**16),
)
def test_every_source_gives_the_same_matrix(
    widths: tuple[int, ...], samples: int, chunk: int | None, dtype: torch.dtype, seed: int
) -> None:
    model = Model(widths, samples, dtype, seed)
    expected = model.jacobian()
    for name, source in SOURCES.items():
        for sampled in (True, False):
            if source.needs_samples and not sampled:
                continue
            made = source.make(chunk, model.function)
            residual, jacobian = whole(made, model.part(sampled), model.params)
            message = f"{name}, {sampled=}"
            assert jacobian.dtype == residual.dtype == dtype, message
            room = tolerance(source, dtype)
            torch.testing.assert_close(jacobian, expected, rtol=room, atol=room, msg=message)
            room = 100 * torch.finfo(dtype).eps
            rows = model.function(model.params)
            torch.testing.assert_close(residual, rows, rtol=room, atol=room, msg=message)
            evaluated = made.evaluate(model.part(sampled), model.params).detach()
            torch.testing.assert_close(evaluated, residual, rtol=room, atol=room, msg=message)


@sources
def test_a_part_without_samples_is_served_or_refused(source: Source) -> None:
    model = Model((2, 3), 4)
    made = source.make(None, model.function)
    if source.needs_samples:
        with pytest.raises(REFUSED, match="samples"):
            whole(made, model.part(False), model.params)
    else:
        assert whole(made, model.part(False), model.params)[1].isfinite().all()


@sources
@pytest.mark.parametrize("make", [problems, problems_one_by_one], ids=["together", "one by one"])
def test_problems_have_the_matrices_that_they_have_alone(source: Source, make: MakeCase) -> None:
    if not source.takes_batches:
        return
    case = make(Failing())
    across = torch.func.jacfwd(case.rows)(case.x)
    expected = torch.stack([across[place, :, place] for place in range(len(case.x))])
    (part,) = case.residual.parts()
    made = source.make(2, case.users[0])
    residual, jacobian = whole(made, part, case.residual.params(case.x))
    room = tolerance(source)
    torch.testing.assert_close(jacobian, expected, rtol=room, atol=room)
    torch.testing.assert_close(residual, case.rows(case.x))


@sources
@opaque
def test_a_parameter_that_is_not_used_has_a_column_of_zeros(source: Source, sampled: bool) -> None:
    if source.needs_samples and not sampled:
        return
    model = Model((2, 3), 4, unused=2)
    made = source.make(None, model.function)
    _, jacobian = whole(made, model.part(sampled), model.params)
    assert (jacobian[:, -2:] == 0).all()
    assert (jacobian[:, :-2] != 0).any(0).all()


@sources
@opaque
def test_derivatives_are_had_inside_no_grad_as_well(source: Source, sampled: bool) -> None:
    if source.needs_samples and not sampled:
        return
    model = Model((2, 3, 1), 4)
    expected, room = model.jacobian(), tolerance(source)
    with torch.no_grad():  # an optimizer's step
        made = source.make(None, model.function)
        _, jacobian = whole(made, model.part(sampled), model.params)
    torch.testing.assert_close(jacobian, expected, rtol=room, atol=room)


@sources
@opaque
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")  # a ladder takes it for a refusal
def test_a_function_that_fails_leaves_nothing_behind(source: Source, sampled: bool) -> None:
    if source.needs_samples and not sampled:
        return
    model = Model((2, 3, 1), 3)
    expected, room = model.jacobian(), tolerance(source)
    failing = Failing()
    model.residual = failing(model.residual)
    whole(source.make(2, model.function), model.part(sampled), model.params)
    for call in range(failing.calls):
        made = source.make(2, model.function)
        failing.calls, failing.at = 0, call
        with pytest.raises((ZeroDivisionError, DescendedError)):
            whole(made, model.part(sampled), model.params)
        failing.at = None
        assert torch.is_grad_enabled()
        assert not any(p.requires_grad or p.grad is not None for p in model.params)
        _, jacobian = whole(made, model.part(sampled), model.params)
        torch.testing.assert_close(jacobian, expected, rtol=room, atol=room)
