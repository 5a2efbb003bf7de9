"""Recorded arithmetic is that of the loop on NumPy's arrays, to the last bit."""

import numpy as np
import pytest
import torch

import lmtorch
from lmtorch.core import certificate, linearizing, loop
from lmtorch.core.method import Method
from lmtorch.damping.scaling import More
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.recording import steps
from lmtorch.recording.numbers import Line, Record
from lmtorch.recording.operators import UnrecordableError
from lmtorch.recording.values import SCOPE, Given
from lmtorch.solvers.svd import SVD
from tests.nist import PROBLEMS

TURNS = 4  # the first record a way, the next compile it, the last run what is compiled


@pytest.fixture
def recorded(monkeypatch):
    """Runs are recorded from the first one on, and nothing is known of any."""
    monkeypatch.setattr(steps, "FITS", 0)
    monkeypatch.setattr(steps, "_KNOWN", type(steps._KNOWN)())


def both(monkeypatch, fit):
    """A fit as it is without records, and several with them."""
    with monkeypatch.context() as apart:
        apart.setattr(steps, "LARGEST", 0)
        plain = fit()
    return plain, [fit() for _ in range(TURNS)]


def same(plain, other):
    """Whether two solutions are the same to the last bit."""
    return (
        np.array_equal(plain.x, other.x)
        and plain.cost == other.cost
        and (plain.nfev, plain.njev, plain.status) == (other.nfev, other.njev, other.status)
    )


def compiled():
    """How many functions were compiled from records."""
    return sum(one.run is not None for _, *found in steps._KNOWN.values() for one in found)


@pytest.mark.parametrize("name", ["Misra1a", "Lanczos3", "MGH09", "Kirby2", "Thurber", "Gauss1"])
@pytest.mark.parametrize("loss", ["linear", "soft_l1"])
def test_digits_and_effort_are_those_of_the_loop_itself(name, loss, recorded, monkeypatch):
    problem = PROBLEMS[name]
    for start in problem.starts:
        plain, others = both(
            monkeypatch,
            lambda start=start: lmtorch.least_squares(problem.residual, start, loss=loss),
        )
        assert all(same(plain, other) for other in others)
    assert compiled()


def test_what_divides_by_zero_runs_as_ever(recorded, monkeypatch):
    # data that are met exactly: costs and steps of zero
    t = torch.arange(4.0, dtype=torch.float64)

    def residual(b):
        return b[0] * t + b[1] - (2 * t + 1)

    plain, others = both(
        monkeypatch, lambda: lmtorch.least_squares(residual, [0.0, 0.0], second_opinion=False)
    )
    assert plain.success
    assert all(same(plain, other) for other in others)


def test_what_can_be_recorded_now_and_then_is_tried_again(recorded, monkeypatch):
    tried, plain = [], steps._plain_model

    def now_and_then(result):
        if hasattr(result, "gains"):  # not a part of it
            tried.append(result)
            if len(tried) % 3:
                raise UnrecordableError("for a test")
        return plain(result)

    monkeypatch.setattr(steps, "_plain_model", now_and_then)
    monkeypatch.setattr(steps, "FAILURES", 8)
    monkeypatch.setattr(steps, "OFTEN", 1000)  # nothing is compiled, and all is recorded anew
    problem = PROBLEMS["Misra1a"]
    for _ in range(8):
        lmtorch.least_squares(problem.residual, problem.starts[0])
    assert len(tried) > 2 * steps.FAILURES


@pytest.mark.filterwarnings("ignore:divide by zero|invalid value")
def test_a_quotient_by_zero_is_numpys():
    values = (0.0, -0.0, 2.0, -3.0, np.inf, np.nan)
    for a in values:
        for b in values:
            record = Record()
            one, other = (Given(record, v, name, "float") for v, name in ((a, "a"), (b, "b")))
            made = [one / other, a / other, one / b]
            lines = [line for line in record.entries if isinstance(line, Line)]
            scope = {**SCOPE, "a": a, "b": b, "float": float}
            for line in lines:
                exec(f"{line.targets[0]} = {line.text}", scope)
            expected = np.float64(a) / np.float64(b)
            for found in made:
                for value in (found.value, scope[found.name]):
                    assert np.array_equal(value, expected, equal_nan=True)
                    assert np.isnan(value) or np.signbit(value) == np.signbit(expected)


def test_what_cannot_be_recorded_is_not_tried_for_ever(recorded, monkeypatch):
    tried = []

    def refuse(*args):
        tried.append(args)
        raise UnrecordableError("for a test")

    monkeypatch.setattr(steps.Scribe, "written", refuse)
    monkeypatch.setattr(steps, "FAILURES", 8)
    problem = PROBLEMS["Misra1a"]
    plain, others = both(
        monkeypatch,
        lambda: [lmtorch.least_squares(problem.residual, problem.starts[0]) for _ in range(8)],
    )
    assert all(map(same, plain, others[0]))
    # of the start, of a trial and what follows it, and of the look at the end
    assert len(tried) == 3 * steps.FAILURES


@pytest.mark.parametrize("name", ["Misra1a", "Rat42", "Thurber", "Gauss1"])
def test_the_look_at_the_end_is_recorded(name, recorded, monkeypatch):
    problem, looks = PROBLEMS[name], []
    for start in problem.starts:
        for _ in range(TURNS):
            lmtorch.least_squares(problem.residual, start)
    plain = certificate._clear
    monkeypatch.setattr(  # the function stays the one that was recorded
        certificate, "examine", lambda *given, **more: looks.append(given)
    )
    found = lmtorch.least_squares(problem.residual, problem.starts[0])
    assert found.success
    assert certificate._clear is plain
    assert not looks


@pytest.mark.parametrize("scale", ["jac", "marquardt", "levenberg"])
def test_scalings_are_recorded(scale, recorded, monkeypatch):
    problem = PROBLEMS["Misra1a"]
    plain, others = both(
        monkeypatch,
        lambda: lmtorch.least_squares(problem.residual, problem.starts[1], x_scale=scale),
    )
    assert all(same(plain, other) for other in others)
    assert compiled()


@pytest.mark.parametrize("name", ["Thurber", "MGH10", "Misra1a"])
def test_a_trial_and_the_model_after_it_are_those_of_two_calls(name, recorded, monkeypatch):
    # at the ends of windows, and where Newton's steps are tried on the way, something is to be done
    # between them
    problem = PROBLEMS[name]
    one = lmtorch.least_squares(problem.residual, problem.starts[0])
    functions = loop._functions
    monkeypatch.setattr(loop, "_functions", lambda *given: (None, *functions(*given)[1:]))
    for _ in range(TURNS):
        two = lmtorch.least_squares(problem.residual, problem.starts[0])
        assert same(one, two)


def test_a_trial_that_must_be_withdrawn_is(recorded, monkeypatch):
    # the first trial is zero, where the cost is finite and a slope is not: a smaller step is taken
    withdrawn, plain_one = [], linearizing.withdraw

    def withdraw(*given):
        withdrawn.append(given)
        return plain_one(*given)

    monkeypatch.setattr(linearizing, "withdraw", withdraw)

    def residual(b):
        root = torch.sqrt(torch.abs(b))
        return torch.cat([b, torch.where(b > 0.5, torch.zeros_like(b), root), 1 + 0 * b])

    plain, others = both(
        monkeypatch, lambda: lmtorch.least_squares(residual, [1.0], second_opinion=False)
    )
    assert len(withdrawn) >= 2  # without records, and while one is made
    assert all(same(plain, other) for other in others)


def test_many_parameters_are_not_recorded(recorded):
    for _ in range(TURNS):
        lmtorch.least_squares(PROBLEMS["ENSO"].residual, PROBLEMS["ENSO"].starts[1])
    assert not compiled()


INF = np.inf
BOXES = {
    "far off": (0, 1e4),
    "on the way": ([0, 0], [260, INF]),
    "at the end": ([-INF, 6e-4], [INF, 1]),
    "at the start": ([250, 0], [INF, 5e-4]),
    "both fixed": ([250, 5e-4], [250, 5e-4]),
    "one fixed": ([-INF, 5.4e-4], [INF, 5.4e-4]),
}
BEGIN = {"one fixed": (250.0, 5.4e-4), "at the end": (250.0, 7e-4)}


@pytest.mark.parametrize("name", BOXES)
def test_bounds_are_recorded(name, recorded, monkeypatch):
    problem, box = PROBLEMS["Misra1a"], BOXES[name]
    start = BEGIN.get(name, (250.0, 5e-4))
    plain, others = both(
        monkeypatch, lambda: lmtorch.least_squares(problem.residual, start, bounds=box)
    )
    assert all(same(plain, other) for other in others)
    assert all(np.array_equal(plain.active_mask, other.active_mask) for other in others)
    assert compiled() or name == "both fixed"  # of which no trial is made


def test_the_box_of_a_run_is_its_own(recorded, monkeypatch):
    # what is recorded in one box runs in another, where the same trials are cut
    problem = PROBLEMS["Misra1a"]
    boxes = [([0, 0], [high, INF]) for high in (1e4, 245, 1e4, 239.5, 238, 1e4, 239.5)]

    def fits():
        return [
            lmtorch.least_squares(problem.residual, [230.0, 5e-4], bounds=box)
            for box in [*boxes, (-INF, INF)]
        ]

    plain, others = both(monkeypatch, fits)
    assert {tuple(one.active_mask) for one in plain} == {(0, 0), (1, 0)}
    for found in others:
        assert all(map(same, plain, found))
    assert compiled()


def test_a_bound_of_each_run_is_kept(recorded):
    # references: scipy, and the box itself
    from scipy.optimize import least_squares

    t = np.linspace(0, 3, 20)
    y = 2 * np.exp(-1.3 * t) + 0.3

    def scipys(b):
        return b[0] * np.exp(-b[1] * t) + b[2] - y

    points, data = torch.from_numpy(t), torch.from_numpy(y)

    def ours(b):
        return b[0] * torch.exp(-b[1] * points) + b[2] - data

    for high in (5.0, 1.0, 1.2, 5.0, 0.7, 1.31, 1.29, 3.0):
        box = ([0, 0, -1], [INF, high, 0.25 if high == 3.0 else 1])
        found = lmtorch.least_squares(ours, [1.0, 0.5, 0.0], bounds=box)
        expected = least_squares(
            scipys, [1.0, 0.5, 0.0], bounds=box, xtol=1e-14, ftol=1e-14, gtol=1e-14
        )
        assert found.success
        assert np.all((found.x >= box[0]) & (found.x <= box[1]))
        np.testing.assert_allclose(found.x, expected.x, rtol=1e-5, atol=1e-6)
    assert compiled()


def test_an_error_of_the_function_is_heard_once(recorded, monkeypatch):
    t = torch.arange(6.0, dtype=torch.float64)
    seen = []

    def residual(b):
        if fail and float(b[0]) != 1.0:
            seen.append(b)
            raise ValueError("out of range")
        return torch.exp(-b[0] * t) - b[1]

    fail = False
    for _ in range(TURNS):
        lmtorch.least_squares(residual, [1.0, 1.0])
    assert compiled()
    fail = True
    with pytest.raises(ValueError, match="out of range"):
        lmtorch.least_squares(residual, [1.0, 1.0])
    recorded_calls = len(seen)
    seen.clear()
    monkeypatch.setattr(steps, "LARGEST", 0)
    with pytest.raises(ValueError, match="out of range"):
        lmtorch.least_squares(residual, [1.0, 1.0])
    # it is not taken for an error of recorded arithmetic, after which the function is asked again
    assert recorded_calls == len(seen) > 0


def test_what_a_run_is_not_asked_for_tells_its_kind(recorded):
    # the last step is kept only where the run begins with one
    from tests.core.test_loop import minimise, rosenbrock

    x = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    for _ in range(TURNS):
        assert minimise(rosenbrock, x, trials=4).step is None
    assert compiled()
    assert minimise(rosenbrock, x, trials=4, before=torch.zeros_like(x)).step is not None


def test_steps_of_an_optimizer_are_the_same_to_the_last_bit(recorded, monkeypatch):
    t = torch.linspace(0, 2, 12, dtype=torch.float64)

    def run(decay=0.0):
        b = torch.nn.Parameter(torch.tensor([1.0, 0.5], dtype=torch.float64))
        optimizer = lmtorch.LevenbergMarquardt([b], weight_decay=decay)
        for _ in range(8):
            optimizer.step(lambda: b[0] * torch.exp(-b[1] * t) - torch.cos(t))
        return b.detach().numpy()

    with monkeypatch.context() as apart:
        apart.setattr(steps, "LARGEST", 0)
        plain, decayed = run(), run(0.3)
    assert not np.array_equal(plain, decayed)
    for _ in range(2):
        assert np.array_equal(plain, run())
    for _ in range(2):  # after others without a penalty, of which a linear model has a part more
        assert np.array_equal(decayed, run(0.3))
    assert np.array_equal(plain, run())


@pytest.mark.parametrize("at", [3, 6])
def test_a_source_of_derivatives_that_gives_way_in_a_run_is_no_error(at, recorded):
    # from then on residuals come first, and linear models are of another kind
    t = torch.linspace(0, 1, 12, dtype=torch.float64)
    y = 3 * torch.exp(-2 * t) + 0.01 * torch.cos(40 * t)
    calls = {"number": 0, "fails": 0}

    def residual(b):
        calls["number"] += 1
        if calls["number"] == calls["fails"]:
            raise RuntimeError("this once")
        return b[0] * torch.exp(-b[1] * t) - y

    plain = lmtorch.least_squares(residual, [1.0, 1.0])
    for fails in (at,) * TURNS + (0,) * TURNS + (at,) * TURNS:
        calls.update(number=0, fails=fails)
        try:
            found = lmtorch.least_squares(residual, [1.0, 1.0])
        except RuntimeError as error:
            assert str(error) == "this once"  # noqa: PT017  # it may be heard
        else:
            np.testing.assert_allclose(found.x, plain.x, rtol=1e-8)


def test_methods_that_are_equal_share_what_is_recorded_and_others_do_not(monkeypatch):
    monkeypatch.setattr(steps, "_SEEN", {})
    monkeypatch.setattr(steps, "_ALIKE", {})
    monkeypatch.setattr(steps, "KEPT", 4)
    one, other = (Method(SVD(), TrustRegion(), More()) for _ in range(2))
    third = Method(SVD(), TrustRegion(), More(), polish=3)
    alike = steps._alike(one)
    assert steps._alike(other) is alike
    assert steps._alike(third) is not alike
    assert steps._alike(one) is alike
    for polish in range(9):  # each is made where one that is forgotten may have been
        assert steps._alike(Method(SVD(), TrustRegion(), More(), polish=polish + 4)) is not alike
        assert len(steps._SEEN) <= steps.KEPT
    assert steps._alike(third) is not steps._alike(one)
