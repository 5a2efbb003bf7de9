"""`compile=True`: the same ends as the loop's and scipy's; a warning and the loop elsewhere."""

import ctypes
import math
import re
import shutil
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import leastsq
from torch import Tensor

import lmtorch
from lmtorch import FallbackWarning
from lmtorch.compiling import building, descent
from lmtorch.compiling.iteration import iterate
from lmtorch.compiling.lanes import Lanes
from lmtorch.compiling.operators import RULES
from lmtorch.compiling.prelude import PRELUDE
from lmtorch.compiling.programs import Program
from lmtorch.minimising import effort, kinds
from lmtorch.minimising.watch import Watcher

from ..nist import PROBLEMS, log_relative_error
from ..programs import T, compiler, decays, forget

F64 = torch.float64
pytestmark = pytest.mark.usefixtures("own_programs")
FACTOR = 1.0  # a global that a model reads


def decay(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return FACTOR * p[0] * torch.exp(-p[1] * t) - y


def fit(count: int = 50, compile: bool | str = True, fun: Any = decay, **options: Any) -> Any:
    x0, y = decays(count)
    return lmtorch.least_squares(
        fun, x0, args=(T, y), in_dims=(0, None, 0), compile=compile, **options
    )


@compiler
@pytest.mark.usefixtures("as_users_have_them")
def test_a_batch_ends_where_scipys_fits_do() -> None:
    found = fit(21)
    x0, y = decays(21)
    for start, data, x in zip(x0.numpy(), y.numpy(), found.x.numpy(), strict=True):
        best = leastsq(
            lambda p, data=data: p[0] * np.exp(-p[1] * T.numpy()) - data,
            start, xtol=1e-14, ftol=1e-14,
        )[0]  # fmt: skip
        # scipy differentiates by differences, to half the digits
        np.testing.assert_allclose(x, best, rtol=1e-7)
    assert found.success.all()
    loop = fit(21, compile=False)
    # both were polished: the loop's digits but for the order of sums
    torch.testing.assert_close(found.x, loop.x, rtol=1e-10, atol=0)
    assert torch.equal(found.status > 0, loop.status > 0)
    assert found.nfev.double().mean() <= loop.nfev.double().mean() + 1


@compiler
def test_a_fit_does_not_depend_on_those_that_run_beside_it() -> None:
    """Fits of very different length, in three orders: a lane serves many, and mixes none up."""
    x0, y = decays(41)
    x0[::5] *= 6
    fun, in_dims = decay, (0, None, 0)
    first = lmtorch.least_squares(fun, x0, args=(T, y), in_dims=in_dims, compile=True)
    assert len(first.nfev.unique()) > 3
    for order in (torch.arange(41).flip(0), first.nfev.argsort(), torch.arange(41)[-3:]):
        other = lmtorch.least_squares(
            fun, x0[order], args=(T, y[order]), in_dims=in_dims, compile=True
        )
        for name in ("x", "cost", "status", "nfev", "njev", "grad"):
            assert torch.equal(getattr(other, name), getattr(first, name)[order]), name


@compiler
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_trial_evaluates_the_function_once_at_each_point(dtype: torch.dtype) -> None:
    """The cost of a trial and the linear model there come from one exponential of the decay."""
    x0, y = (part.to(dtype) for part in decays(20))
    lmtorch.least_squares(
        decay, x0, args=(T.to(dtype), y), in_dims=(0, None, 0), compile=True, second_opinion=False
    )
    [program] = descent._PROGRAMS.values()
    assert isinstance(program, Program)
    step = program.text.split("FUNCTION void step(")[1].split("FUNCTION void look(")[0]
    # two points are written side by side, of which the second has other names
    made = re.findall(r"v(\d+)_* = exp_\(", step)
    made += [name for pair in re.findall(r"exp_both\(\w+, \w+, v(\d+), v(\d+)_\)", step)
             for name in pair]  # fmt: skip
    assert len(made) > 1
    assert len(set(made)) == 1


@compiler
def test_blocks_have_the_bits_of_all_together_and_nan_stays_in_its_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x0, y = decays(41)
    y[17, 3] = torch.nan

    def found() -> Any:
        return lmtorch.least_squares(decay, x0, args=(T, y), in_dims=(0, None, 0), compile=True)

    whole = found()
    monkeypatch.setattr("lmtorch.minimising.minimise.COMPILED", 8)  # and a fit alone at last
    blocks = found()
    assert whole.success.tolist() == [place != 17 for place in range(41)]
    for name in ("x", "cost", "status", "nfev", "njev", "grad"):
        values = getattr(blocks, name)
        assert torch.equal(values[:17], getattr(whole, name)[:17]), name
        assert torch.equal(values[18:], getattr(whole, name)[18:]), name


@compiler
def test_auto_takes_a_program_that_there_is_and_makes_one_for_many_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("LMTORCH_CACHE", str(tmp_path))  # where nothing is known yet
    runs: list[int] = []
    run = descent.run

    def counted(recipe: Any, program: Any, problem: Any, *rest: Any) -> Any:
        runs.append(len(rest[1].x))
        return run(recipe, program, problem, *rest)

    monkeypatch.setattr(descent, "run", counted)
    expected = fit(50, compile=False).x
    torch.testing.assert_close(fit(50, compile="auto").x, expected, rtol=1e-10, atol=0)
    assert not runs
    for name in ("PROGRAM", "PROGRAM_SQUARED"):  # which costs nothing now
        monkeypatch.setattr(effort, name, 0.0)
    for count in (50, 2):
        found = fit(count, compile="auto").x
        torch.testing.assert_close(found, fit(count, compile=False).x, rtol=1e-10, atol=0)
    assert runs[0] == 50
    assert 2 in runs
    fit(1, compile="auto", callback=lambda iterate: None)  # which says nothing
    assert not [w for w in recwarn if issubclass(w.category, FallbackWarning)]


@compiler
def test_a_bar_counts_compiled_fits_block_by_block(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lmtorch.minimising.minimise.COMPILED", 20)
    shown: list[int] = []
    show = Watcher.ended
    monkeypatch.setattr(
        Watcher, "ended", lambda self, status: (show(self, status), shown.append(self.bar.n))
    )
    found = fit(50, progress=True)
    assert shown == [20, 40, 50]
    last = capsys.readouterr().err.split("\r")[-1]
    assert "50/50" in last
    assert f"failed={1 - found.success.double().mean():.2%}" in last


@compiler
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"bounds": ([0, 1.4], [1.5, 9])}, id="bounds"),
        pytest.param({"loss": "soft_l1", "f_scale": 0.02}, id="a robust loss"),
        pytest.param({"n_starts": 2}, id="starts"),
    ],
)
def test_options_end_where_the_loop_does(options: dict[str, Any]) -> None:
    x0, y = decays(20)
    low, high = options.get("bounds", (-torch.inf, torch.inf))
    x0 = torch.minimum(torch.maximum(x0, torch.as_tensor(low)), torch.as_tensor(high))
    ends = [
        lmtorch.least_squares(
            decay, x0, args=(T, y), in_dims=(0, None, 0), compile=compiled, **options
        )
        for compiled in (True, False)
    ]
    torch.testing.assert_close(ends[0].x, ends[1].x, rtol=1e-8, atol=1e-10)
    assert torch.equal(ends[0].success, ends[1].success)
    assert torch.equal(ends[0].active_mask, ends[1].active_mask)


@compiler
def test_curve_fit_with_weights_a_mask_fixed_and_tied_parameters() -> None:
    _, y = decays(20)

    def curve(t: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return a * torch.exp(-b * t) + c * d

    ends = [
        lmtorch.curve_fit(
            curve, T, y, p0=[1.5, 1.5, 0.1, 1.0], sigma=0.02 * (1 + T), mask=y > 0.05,
            fixed={"d": 1.0}, ties={"c": lambda p: 0.01 * p["a"]}, compile=compiled,
        )
        for compiled in (True, False)
    ]  # fmt: skip
    torch.testing.assert_close(ends[0].popt, ends[1].popt, rtol=1e-9, atol=0)
    torch.testing.assert_close(ends[0].pcov, ends[1].pcov, rtol=1e-6, atol=1e-12)


@compiler
def test_a_program_serves_other_batches_other_processes_and_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit(50)

    def never(*_: Any) -> None:
        raise AssertionError("traced anew")

    monkeypatch.setattr(descent, "written", never)
    expected = fit(123, compile=False).x
    torch.testing.assert_close(fit(123).x, expected, rtol=1e-10, atol=0)
    forget()  # as in another process, which has the disk alone
    results: dict[int, Tensor] = {}

    def run(number: int) -> None:
        results[number] = fit(123).x

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for x in results.values():
        torch.testing.assert_close(x, expected, rtol=1e-10, atol=0)


@compiler
def test_a_global_that_has_changed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fit(20).x
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    torch.testing.assert_close(fit(20).x[:, 0], before[:, 0] / 2, rtol=1e-9, atol=0)


@compiler
@pytest.mark.parametrize("evaluations", [1, 3, 4, 6, 7])
def test_evaluations_are_as_many_as_the_loop_may_have(evaluations: int) -> None:
    """Of some fits they are enough, and of others not."""
    found = fit(50, max_nfev=evaluations)
    loop = fit(50, compile=False, max_nfev=evaluations)
    assert torch.equal(found.success, loop.success)
    assert torch.equal(found.status == 0, loop.status == 0)
    assert torch.equal(found.nfev, loop.nfev)
    torch.testing.assert_close(found.x, loop.x, rtol=1e-9, atol=0)
    _, y = decays(1)
    one, other = (
        lmtorch.least_squares(
            decay, [2.0, 2.0], args=(T, y[0]), max_nfev=evaluations, compile=compiled
        )
        for compiled in (True, False)
    )
    assert (one.status, one.nfev) == (other.status, other.nfev)
    torch.testing.assert_close(one.x, other.x, rtol=1e-9, atol=0)


@compiler
@pytest.mark.parametrize("budget", [2, 9, 25])
def test_what_the_loop_goes_on_with_is_within_max_nfev(budget: int) -> None:
    """Of data that are nothing but noise some ends cannot be judged by the program."""
    drawn = torch.Generator().manual_seed(0)
    x0 = 1.5 * torch.randn(100, 2, generator=drawn, dtype=F64)
    y = torch.randn(100, len(T), generator=drawn, dtype=F64)
    found = lmtorch.least_squares(
        decay, x0, args=(T, y), in_dims=(0, None, 0), compile=True, max_nfev=budget
    )
    assert int(found.nfev.max()) <= budget


@compiler
@pytest.mark.parametrize("name", ["Misra1a"])
def test_a_single_fit_has_the_certified_digits(name: str) -> None:
    assert digits(name, 1) > 9


# one of each kind of formula, and the largest: with all that a compiler can do to them
OPTIMIZED = (
    "Misra1a", "Lanczos3", "Gauss1", "Thurber", "Bennett5", "Nelson", "Roszman1", "Rat43", "MGH10",
)  # fmt: skip


@compiler
@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("name", PROBLEMS)
def test_nist(name: str, start: int, request: pytest.FixtureRequest) -> None:
    if name in OPTIMIZED:
        request.getfixturevalue("as_users_have_them")
    assert digits(name, start) > 9


def digits(name: str, start: int) -> float:
    """Digits of a compiled fit of one of NIST's problems."""
    problem = PROBLEMS[name]
    model = problem.model  # by itself: problems of one formula and as many points share a program
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)  # more than eight parameters
        found = lmtorch.curve_fit(
            lambda x, *b: model(b, x), problem.x, problem.y, problem.starts[start], compile=True
        )
    return log_relative_error(found.popt.numpy(), problem.certified)


# ---- what is not compiled ----------------------------------------------------------------------


def drawing(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return decay(p, t, y) + 0 * torch.rand(len(t), dtype=t.dtype)


def sorting(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return torch.sort(decay(p, t, y)).values


def test_what_cannot_be_written_runs_as_ever_after_one_warning() -> None:
    with pytest.warns(FallbackWarning, match="not compiled") as told:
        found = fit(20, fun=sorting)
    assert len(told) == 1
    expected = fit(20, compile=False)
    torch.testing.assert_close(found.x, expected.x, rtol=1e-8, atol=0)


def branching(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return decay(p if p[0] > -1e6 else -p, t, y)


@pytest.mark.parametrize("fun", [branching, drawing])
def test_a_single_fit_that_differs_from_call_to_call_runs_as_ever_after_one_warning(
    fun: Callable[..., Tensor],
) -> None:
    _, y = decays(1)
    with pytest.warns(FallbackWarning, match="not compiled") as told:
        found = lmtorch.least_squares(fun, [1.0, 1.0], args=(T, y[0]), compile=True)
    assert len(told) == 1
    assert found.success


def test_without_a_compiler_there_is_one_warning_and_the_loop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "nothing"))
    monkeypatch.setenv("LMTORCH_CACHE", str(tmp_path / "empty"))
    with pytest.warns(FallbackWarning, match="no C\\+\\+ compiler") as told:
        found = [fit(20) for _ in range(3)][-1]
    assert len(told) == 1
    torch.testing.assert_close(found.x, fit(20, compile=False).x, rtol=1e-10, atol=0)
    with pytest.warns(FallbackWarning, match="no C\\+\\+ compiler"):  # of another function
        fit(20, fun=lambda p, t, y: 2 * decay(p, t, y))


def test_curves_are_told_apart_in_warnings() -> None:
    _, y = decays(20)

    def first(t: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.sort(a * torch.exp(-b * t), descending=True).values

    def second(t: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.sort(a * torch.exp(-b * t), descending=True).values

    with pytest.warns(FallbackWarning, match="not compiled") as told:
        [lmtorch.curve_fit(f, T, y, p0=[1.5, 1.5], compile=True) for f in (first, first, second)]
    assert len(told) == 2


@compiler
@pytest.mark.parametrize("there", [True, False])
def test_a_wrong_file_in_the_place_of_a_program_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, programs: Path, there: bool
) -> None:
    fit(20)
    monkeypatch.setenv("LMTORCH_CACHE", str(tmp_path / "of another"))
    building.build('extern "C" int other() { return 0; }')
    (other,) = (tmp_path / "of another").glob("*.so")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for place in programs.glob("*.program"):
        shutil.copy(place, mixed)
    for place in programs.glob("*.so"):
        shutil.copy(other, mixed / place.name)
    forget()  # as in another process, which has the disk alone
    monkeypatch.setenv("LMTORCH_CACHE", str(mixed))
    expected = fit(20, compile=False).x
    if there:
        found = fit(20)  # a warning would be an error
    else:
        monkeypatch.setenv("CXX", str(tmp_path / "nothing"))
        with pytest.warns(FallbackWarning, match="no C\\+\\+ compiler") as told:
            found = fit(20)
        assert len(told) == 1
    torch.testing.assert_close(found.x, expected, rtol=1e-10, atol=0)


WRONG: dict[str, Callable[..., Any]] = {
    "other numbers": lambda call, a: call.apply("exp", call.apply("mul", a, 1.01)),
    "no numbers": lambda call, a: call.apply("log", a),  # of negative ones
}


@compiler
@pytest.mark.parametrize("rule", WRONG.values(), ids=WRONG)
def test_what_is_compiled_wrong_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rule: Callable[..., Any]
) -> None:
    monkeypatch.setenv("LMTORCH_CACHE", str(tmp_path))
    monkeypatch.setitem(RULES, "exp", rule)
    with pytest.warns(FallbackWarning, match="disagree") as told:
        found = fit(20)
    assert len(told) == 1
    torch.testing.assert_close(found.x, fit(20, compile=False).x, rtol=1e-10, atol=0)


@compiler
@pytest.mark.parametrize(("share", "noticed"), [(1e-4, True), (1e-12, False)])
def test_a_step_that_is_not_the_loops_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, share: float, noticed: bool
) -> None:
    def elsewhere(problem: Any, method: Any, standing: Any) -> Any:
        found = iterate(problem, method, standing)
        moved = found.state.x + share * (found.state.x - standing.state.x)
        return found._replace(state=found.state._replace(x=moved))

    monkeypatch.setenv("LMTORCH_CACHE", str(tmp_path))
    monkeypatch.setattr(descent, "iterate", elsewhere)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = fit(20)
    assert any("the compiled step is not that" in str(one.message) for one in told) == noticed
    torch.testing.assert_close(found.x, fit(20, compile=False).x, rtol=1e-10, atol=0)


def test_steps_are_compared_by_what_they_change() -> None:
    """A parameter that residuals do not depend on may be anywhere, but for not being a number."""
    x, step = torch.zeros(1, 2, dtype=F64), torch.ones(1, 2, dtype=F64)
    normal = torch.diag(torch.tensor([1.0, 1e-14], dtype=F64))[None]
    model = SimpleNamespace(normal=normal, cost=torch.zeros(1, dtype=F64))
    eps = torch.finfo(F64).eps

    def apart(first: float, second: float) -> bool:
        mine = step + torch.tensor([[first, second]], dtype=F64)
        return bool(descent._steps_apart(mine, x + step, x, model, eps))

    assert not apart(1e-9, 1e-3)
    assert apart(1e-6, 0.0)
    assert apart(0.0, 1e3)
    assert apart(0.0, math.nan)


@compiler
def test_of_exact_data_only_round_off_is_left_after_one_step() -> None:
    """What the program and the loop find then has no digit in common."""
    y = 0.1864 + 0.003 * T
    for x0 in torch.linspace(-3, 3, 8, dtype=F64).reshape(4, 2):
        forget()  # the program is held to the loop each time
        kinds._KNOWN.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = lmtorch.least_squares(exact, x0, args=(T, y), compile=True)
        torch.testing.assert_close(found.x, torch.tensor([0.1864, 0.003], dtype=F64))


@compiler
def test_to_check_a_program_refuses_no_source_of_derivatives(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is checked on a batch of one, in which what was found out of one fit has another shape."""
    _, y = decays(1)
    found = lmtorch.least_squares(decay, [2.0, 2.0], args=(T, y[0]), compile=True)
    assert descent._RIGHT
    found.explain()
    assert "refused" not in capsys.readouterr().out


@compiler
def test_a_residual_of_zero_is_not_called_rejected() -> None:
    """The program, whose exponential may round otherwise, has found a cost there."""
    for rate in torch.linspace(0.3, 0.9, 30, dtype=F64):
        y = 1.1384 * torch.exp(-rate * T)
        found = lmtorch.least_squares(decay, [1.0, 0.5], args=(T, y), compile=True)
        assert found.success
        torch.testing.assert_close(found.x[1], rate.item())


def exact(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return p[0] + p[1] * t - y


# ---- numbers -----------------------------------------------------------------------------------


FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    # of u within (0.3, 0.7), where all are defined, of a parameter v and of points s
    "spectra": lambda u, v, s: (
        torch.exp(u) + 2 * torch.cos(3 * u) + 1 / (1 + u**2) + torch.log(u) * torch.sin(v * s)
        + torch.where(u > 0.5, u, u * u) + torch.tanh(u) + u**v + torch.clamp(u, 0.4, 0.6)
    ),
    "sums over points": lambda u, v, s: u - u.mean() + v * u / u.sum() + u.amax() - u.amin(),
    "trigonometry": lambda u, v, s: (
        torch.tan(u) + torch.asin(u) + torch.acos(u) + v * torch.atan(u) + torch.sinh(u)
        + torch.cosh(u) + torch.asinh(u) + torch.acosh(1 + u) + torch.atanh(u) + torch.sinc(u)
        + torch.atan2(u, s + 2)
    ),
    "exponentials": lambda u, v, s: (
        torch.erf(u) + torch.erfc(u) + torch.log1p(u) + torch.expm1(u) + v * torch.log2(u)
        + torch.log10(u) + torch.exp2(u) + torch.logaddexp(u, s)
        + torch.nn.functional.softplus(u) + torch.nn.functional.silu(u)
    ),
    "roots and powers": lambda u, v, s: (
        torch.sqrt(u) + torch.rsqrt(u) + v * u**-2 + u**0.5 + torch.hypot(u, s)
        + torch.reciprocal(u) + u.abs() + torch.relu(s - u) + torch.maximum(u, 0.5 * s)
        + torch.lerp(u, s, 0.3)
    ),
}  # fmt: skip


@compiler
@pytest.mark.parametrize("name", list(FUNCTIONS)[:2])
def test_functions_have_their_values_and_derivatives(name: str) -> None:
    functions_are_torchs(name)


@compiler
@pytest.mark.slow
@pytest.mark.usefixtures("as_users_have_them")  # with functions of whole vectors
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_vectors_have_their_values_and_derivatives(name: str) -> None:
    functions_are_torchs(name)


def functions_are_torchs(name: str) -> None:
    """The first use of a program is held to torch, and a difference would be a warning."""

    def fun(p: Tensor, s: Tensor) -> Tensor:
        return FUNCTIONS[name](0.3 + 0.4 * torch.sigmoid(p[0] * s), p[1], s) - s

    s = torch.linspace(-1, 1, 30, dtype=F64)
    start = torch.tensor([[0.7, 1.3], [0.9, 1.1]], dtype=F64)
    ends = [
        lmtorch.least_squares(fun, start, args=(s,), in_dims=(0, None), compile=compiled)
        for compiled in (True, False)
    ]
    torch.testing.assert_close(ends[0].cost, ends[1].cost, rtol=1e-9, atol=0)


@compiler
@pytest.mark.parametrize("points", [30, 31])
def test_two_points_in_one_vector_are_what_they_are_alone(
    points: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32: what is chosen between, and what is not, to the last bit."""

    def fun(p: Tensor, s: Tensor, y: Tensor) -> Tensor:
        bent = torch.where(s > 0.2, torch.maximum(p[0] * s, p[1]), torch.sin(p[1] * s) / 2)
        return bent + torch.exp(-s.abs()) * p[0] ** 2 - y

    s = torch.linspace(-1, 1, points)
    y = torch.linspace(0.5, 2, 6 * points).reshape(6, points)
    start = torch.tensor([0.7, 0.3])

    def fit() -> Any:
        return lmtorch.least_squares(fun, start, args=(s, y), in_dims=(None, None, 0), compile=True)

    together = fit()
    assert re.search(r"const P v\d+ = ", list(building.LOADED)[-1])
    monkeypatch.setattr(Lanes, "pairs", False)
    monkeypatch.setenv("LMTORCH_CACHE", str(tmp_path))  # none is on disk
    forget()
    alone = fit()
    assert not re.search(r"const P v\d+ = ", list(building.LOADED)[-1])
    assert torch.equal(together.x, alone.x)
    assert torch.equal(together.cost, alone.cost)
    expected = lmtorch.least_squares(fun, start, args=(s, y), in_dims=(None, None, 0))
    torch.testing.assert_close(together.cost, expected.cost, rtol=1e-5, atol=0)


@compiler
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "points", [64, 131]
)  # one tile, and two with a part of a third that is odd
def test_costly_functions_are_made_tile_by_tile(points: int, dtype: torch.dtype) -> None:
    """Functions of functions, and what both loops over the points need."""

    def fun(b: torch.Tensor, s: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        wave = torch.sin(b[1] * torch.exp(-s) + s)
        return b[0] * wave * torch.exp(0.3 * wave) + torch.log1p(s * s) * b[1] - z

    torch.manual_seed(0)
    s = torch.linspace(-1, 2, points, dtype=dtype)
    true = torch.tensor([1.5, 0.7], dtype=dtype) + 0.2 * torch.rand(7, 2, dtype=dtype)
    y = torch.stack([fun(b, s, torch.zeros_like(s)) for b in true])
    y = y + 0.01 * torch.randn(7, points, dtype=dtype)
    start = torch.tensor([1.4, 0.9], dtype=dtype)
    options = {"args": (s, y), "in_dims": (None, None, 0)}
    expected = lmtorch.least_squares(fun, start, **options)
    found = lmtorch.least_squares(fun, start, compile=True, **options)
    [program] = descent._PROGRAMS.values()
    assert isinstance(program, Program)
    assert "[TILE]" in program.text
    assert bool(found.success.all())
    rtol = 1e-7 if dtype == torch.float64 else 1e-3
    torch.testing.assert_close(found.x, expected.x, rtol=rtol, atol=0)
    torch.testing.assert_close(found.cost, expected.cost, rtol=rtol, atol=0)


@compiler
@pytest.mark.usefixtures("as_users_have_them")
@pytest.mark.parametrize("width", [8, 4, 2])  # with the widest registers, and without
def test_the_exponential_is_right_to_the_last_digit(width: int) -> None:
    """Whatever stands beside a number in its vector: some overflow, some are below the normal."""
    text = f"#define W {width}\n{PRELUDE}" + "".join(
        f'extern "C" void of_{vector}(const {kind} *x, {kind} *y, int n) {{'
        f" {vector} v; for (int i = 0; i < n; i += sizeof(v) / sizeof(v[0])) {{"
        " std::memcpy(&v, x + i, sizeof v); v = exp_(v); std::memcpy(y + i, &v, sizeof v); } }"
        for vector, kind in (("D", "double"), ("S", "float"), ("P", "float"))
    )
    # in each half of the numbers, beside those of the other half
    text += (
        'extern "C" void of_both(const double *x, double *y, int n) {'
        " D v, w, a, b; for (int i = 0; i < n / 2; i += W) {"
        " std::memcpy(&v, x + i, sizeof v); std::memcpy(&w, x + n / 2 + i, sizeof w);"
        " exp_both(v, w, a, b);"
        " std::memcpy(y + i, &a, sizeof a); std::memcpy(y + n / 2 + i, &b, sizeof b); } }"
    )
    library = building.build(text)
    rng = np.random.default_rng(0)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 710.0, -746.0, -745.0])
    special[:1].view(np.int64)[:] |= 1954  # with a payload, as R marks what is missing
    plain = np.concatenate([np.linspace(-745, 709.7, 100_000), np.linspace(-1, 1, 9_992)])
    for vector, x in (
        ("D", np.concatenate([plain, special])),
        ("both", np.concatenate([plain, special])),
        ("S", np.concatenate([plain / 745 * 104, special]).astype(np.float32)),
        ("P", np.concatenate([plain / 745 * 104, special]).astype(np.float32)),
    ):
        x = rng.permutation(x)
        y = np.empty_like(x)
        call = getattr(library, f"of_{vector}")
        call(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), len(x))
        with np.errstate(over="ignore", under="ignore"):
            exact = np.exp(x.astype(np.longdouble))
            rounded = exact.astype(x.dtype)
        there = np.isfinite(x) & np.isfinite(rounded) & (rounded > 0)
        np.testing.assert_array_equal(y[~there], rounded[~there])
        apart = np.abs(y[there] - exact[there]) / np.spacing(rounded[there])
        assert apart.max() < 1
