"""Recorded evaluations are those of the function to the last bit, or there is no record."""

import math

import pytest
import torch

from lmtorch.jacobians.dual_numbers import bent_vectors, vectors
from lmtorch.jacobians.recorded import recorded
from lmtorch.jacobians.replayed import Replay
from lmtorch.jacobians.signs import simplified
from lmtorch.recording.operators import UnrecordableError
from lmtorch.residuals.base import Part
from tests.nist import PROBLEMS

T = torch.linspace(0, 2, 15, dtype=torch.float64)
X = torch.tensor([1.5, 0.7], dtype=torch.float64)


def evaluation(function, kind=vectors):
    """Evaluates residuals with their derivatives, as a fit does."""
    part = Part(lambda params: function(params[0]), None)
    return lambda x: kind(part, (x,))


def rows(found):
    """Vectors as rows of an array."""
    some = next(one for one in found if one is not None)
    return torch.stack([torch.zeros_like(some) if one is None else one for one in found]).numpy()


def record_of(function, x=X, arguments=(), kind=vectors):
    evaluate = evaluation(function, kind)
    return recorded(lambda: evaluate(x), x, arguments)


def replay_of(*args, **kwargs):
    record = record_of(*args, **kwargs)
    found = Replay(simplified(record))
    found.begin(kwargs.get("arguments", ()))
    return found


@pytest.mark.parametrize("kind", [vectors, bent_vectors])
@pytest.mark.parametrize("name", PROBLEMS)
def test_nists_models_are_replayed_to_the_last_bit(name, kind):
    problem = PROBLEMS[name]
    far, near = (torch.tensor(start, dtype=torch.float64) for start in problem.starts)
    replay = replay_of(problem.residual, far, kind=kind)
    for x in (near, far, problem.certified):
        expected = rows(evaluation(problem.residual, kind)(x))
        assert replay(x.numpy()).tobytes() == expected.tobytes()


def clipped(x):
    return torch.where(x[0] * T > 1, x[0] * T, x[1] ** 2 * T).clamp(max=2.5) - torch.ones_like(T)


def stacked(x):
    return torch.cat([x[0] * T, x[1:] * T.flip(0), x.sum() * T[:3], x]) / x[0]


def picked_by_another(x):
    return (T * x[0])[torch.cos(T) * torch.ones_like(T) > 0.5]


def matrix(x):
    return torch.stack([T, T.square()], -1) @ x - torch.sin(T).to(torch.float32).double()


@pytest.mark.parametrize(
    "function", [clipped, stacked, matrix, picked_by_another, torch.sin, lambda x: x]
)
def test_operators_of_other_kinds_are_replayed(function):
    replay = replay_of(function)
    for x in (X, -X, 3 * X + 1):
        assert replay(x.numpy()).tobytes() == rows(evaluation(function)(x)).tobytes()


def squares(x):  # (3, 5) each, in and out of order
    return (x[0] * T).view(3, 5) * torch.exp(-x[1] * T).view(3, 5)


SHOWN = {
    "reshaped": lambda x: squares(x)[None].reshape(-1),
    "turned": lambda x: squares(x).mT.reshape(-1),
    "turned in memory": lambda x: squares(x).mT.contiguous().mT.reshape(-1),
    "a part": lambda x: squares(x).reshape(-1)[3:],
    "a column": lambda x: squares(x)[:, 1],
    "spread out": lambda x: (x[0] * T[:1]).expand(6),
    "the parameters": lambda x: x.view(1, 2).view(2),
    "the points": lambda x: T.view(3, 5).view(-1),
    "used again": lambda x: squares(x).reshape(-1) * squares(x).reshape(-1).sum(),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_result_is_written_where_it_is_shown(name):
    """One that shows another's memory whole and in order is no copy of it, and the same anyway."""

    def results(x):
        found = SHOWN[name](x)
        return [found, found.view(-1), torch.sin(found)]

    record = recorded(lambda: results(X), X, ())
    replay = Replay(record)
    replay.begin(())
    for x in (X, -X, 3 * X + 1):
        assert replay(x.numpy()).tobytes() == torch.stack(results(x)).numpy().tobytes()
    copies = [line for line in replay._lines if getattr(line.function, "__name__", "") == "copy_"]
    # of two equal results one is made, and the other copied
    assert name not in ("reshaped", "used again") or len(copies) == 1


def test_results_are_not_those_of_the_next_point():
    replay = replay_of(matrix)
    first = replay(X.numpy())
    before = first.copy()
    replay(2 * X.numpy())
    assert (first == before).all()


def test_single_precision_stays_single():
    x, t = X.float(), T.float()

    def function(x):
        return 2.1 * x[0] * torch.exp(-x[1] * t / 3) - 0.3

    found = replay_of(function, x)((2 * x).numpy())
    assert found.dtype == "float32"
    assert found.tobytes() == rows(evaluation(function)(2 * x)).tobytes()


def test_arguments_are_those_of_the_next_fit():
    y = torch.cos(T)

    def function(x):
        return x[0] * torch.exp(-x[1] * T) - torch.log(y.abs()) * 2

    replay = replay_of(function, arguments=(y,))
    expected = rows(evaluation(function)(X))
    y.copy_(torch.sin(T) + 3)  # the record has a copy of what was given
    replay.begin((torch.cos(T),))
    assert replay(X.numpy()).tobytes() == expected.tobytes()
    replay.begin((y,))
    assert replay(X.numpy()).tobytes() == rows(evaluation(function)(X)).tobytes()


def read(x):
    return T * (x[0] if float(x[1]) > 0 else 2 * x[0])


def compared(x):
    return T * x[0] if x[1] > 0 else T * x[1]


def listed(x):
    return T * x[0] * len([one for one in (x * 1.0 > 1).tolist() if one])


def as_array(x):
    return T * x[0] * (x > 1).numpy().sum()


def picked(x):
    return (T * x[0])[T * x[1].detach() > 0.5]


def drawn(x):
    return T * x[0] + torch.rand(15, dtype=torch.float64)


def caught(x):
    try:
        return T * x[0] * float(x[1])
    except Exception:  # as users write it
        return T * x[0]


@pytest.mark.parametrize("function", [read, compared, listed, as_array, picked, drawn, caught])
def test_what_may_go_another_way_next_time_is_not_recorded(function):
    with pytest.raises(UnrecordableError):
        replay_of(function)


@pytest.mark.parametrize(
    "look", [lambda y: float(y.max()), lambda y: y.tolist()[0], lambda y: y.numpy()[0], repr]
)
def test_what_depends_on_the_numbers_of_an_argument_is_not_recorded(look):
    y = torch.cos(T)
    with pytest.raises(UnrecordableError):
        replay_of(lambda x: T * x[0] * (2 if look(y) else 1) - y, arguments=(y,))
    # what depends on constants alone does not change
    replay_of(lambda x: T * x[0] * (2 if look(T) else 1) - y, arguments=(y,))


def test_shapes_may_be_asked_for():
    y = torch.cos(T)

    def function(x):
        assert y.dtype is x.dtype
        return x[0] * T.reshape(y.shape) / len(y) / math.sqrt(y.numel()) - y

    assert replay_of(function, arguments=(y,)).results.shape == (3, 15)


def signs(x):
    t, y = T - 1, torch.cos(T)
    return -torch.neg(x[0] * t) - (-t) * (-x[1]) - -(torch.exp(-x[1] * t) * y) + -x[0] * -x[1]


def test_changes_of_sign_go_into_constants():
    record = record_of(signs)
    before = len(record.operators)
    simplified(record)
    assert sum(not one.view for one in record.operators) <= before - 8
    replay = Replay(record)
    for x in (X, -X, 0 * X):
        assert replay(x.numpy()).tobytes() == rows(evaluation(signs)(x)).tobytes()


def test_what_is_computed_twice_is_run_once():
    def twice(x):
        return torch.exp(x[0] * T) * torch.exp(x[0] * T) + torch.exp(x[0] * T - x[1])

    replay = replay_of(twice)
    assert sum(line.function is torch.exp for line in replay._lines) == 2
    for x in (X, -X):
        assert replay(x.numpy()).tobytes() == rows(evaluation(twice)(x)).tobytes()


@pytest.mark.parametrize("rows", [2**15, 2**18], ids=["views", "too many"])
def test_what_is_kept_of_a_record_is_bounded_and_views_take_nothing(rows):
    x, y = torch.ones(2, dtype=torch.float64), torch.ones(rows, dtype=torch.float64)

    def evaluate():
        found = y[None].expand(50, rows)[0]  # fifty times the numbers, and no memory
        return [found * x[0] - x[1]]

    if rows > 2**15:
        with pytest.raises(UnrecordableError, match="many numbers"):
            recorded(evaluate, x, [y])
    else:
        assert len(recorded(evaluate, x, [y]).outputs) == 1
