"""Programs for GPUs: where there is none their kernels run on the CPU, as C++, thread by thread."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch import FallbackWarning, choose
from lmtorch.compiling import doubtful, modules, parallel
from lmtorch.compiling.building import NoCompilerError
from lmtorch.compiling.parallel import Parallel
from lmtorch.core.state import Begun
from lmtorch.core.termination import Status
from lmtorch.minimising import compiled as asked
from lmtorch.minimising import minimise

from ..programs import T, compiler, decays
from . import simulated
from .test_ends import B, signals, two_decays

F32, F64 = torch.float32, torch.float64
pytestmark = pytest.mark.usefixtures("own_programs")
WEIGHTS = torch.linspace(0.5, 1.5, 20, dtype=F64)  # a constant that a model holds


def decay(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return p[0] * torch.exp(-p[1] * t) - y


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of fits of each run of a program for a GPU."""
    counts: list[int] = []
    plain = Parallel.run

    def run(self: Parallel, x: Tensor, *rest: Any, **options: Any) -> Any:
        counts.append(len(x))
        return plain(self, x, *rest, **options)

    monkeypatch.setattr(Parallel, "run", run)
    return counts


@pytest.fixture
def kernels(runs: list[int], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fits of CPU tensors run as on a GPU; the numbers of fits of each run."""
    monkeypatch.setattr(parallel, "module", simulated.module)
    return runs


def on_both(monkeypatch: pytest.MonkeyPatch, fit: Callable[[], Any]) -> tuple[Any, Any]:
    """A fit by threads, and by lanes."""
    found = []
    for kind in ("cuda", "cpu"):
        monkeypatch.setattr(asked, "backend", lambda device, kind=kind: kind)
        with warnings.catch_warnings():
            warnings.simplefilter("error", FallbackWarning)
            found.append(fit())
    return found[0], found[1]


def same(ours: Any, theirs: Any, tolerance: float) -> None:
    torch.testing.assert_close(ours.x, theirs.x, rtol=tolerance, atol=tolerance, equal_nan=True)
    torch.testing.assert_close(ours.cost, theirs.cost, rtol=tolerance, atol=0, equal_nan=True)
    assert torch.equal(ours.success, theirs.success)
    # round-off may decide by which test, or how many trials later, a fit ends
    apart = (ours.nfev != theirs.nfev).double().mean()
    assert float(apart) <= (0.05 if ours.x.dtype == F64 else 0.2)


def weighted(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return WEIGHTS.to(y.dtype) * decay(p, t, y)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights": {"fun": weighted},
    "bounds": {"bounds": ([0.0, 1.2], [1.5, 4.0])},
    "robust": {"loss": "soft_l1", "f_scale": 0.03},
    "short": {"max_nfev": 3},
    "nielsen": {"damping": "nielsen"},
}
# in float32 all that a program may have besides is in one, instead of in one for each
ALL = {name: value for case in ("weights", "bounds", "robust", "nielsen")
       for name, value in CASES[case].items()}  # fmt: skip
EACH = {f"{name} in float64": (name, CASES[name], F64, 1e-9) for name in CASES} | {
    "plain in float32": ("plain", {}, F32, 2e-4),
    "short in float32": ("short", CASES["short"], F32, 2e-4),
    "all in float32": ("bounds", ALL, F32, 2e-4),
}


@compiler
@pytest.mark.parametrize(("case", "options", "dtype", "tolerance"), EACH.values(), ids=EACH)
def test_threads_end_where_lanes_do(
    case: str,
    options: dict[str, Any],
    dtype: torch.dtype,
    tolerance: float,
    kernels: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x0, y = (t.to(dtype) for t in decays(300))
    x0[::7] *= 3  # fits of other lengths
    options = dict(options)
    fun = options.pop("fun", decay)
    if "bounds" in options:
        x0 = x0.clamp(*(torch.tensor(side, dtype=dtype) for side in options["bounds"]))

    def fit() -> Any:
        return lmtorch.least_squares(
            fun, x0, args=(T.to(dtype), y), in_dims=(0, None, 0), compile=True, **options
        )

    ours, theirs = on_both(monkeypatch, fit)
    assert max(kernels) == 300
    same(ours, theirs, tolerance)
    if case == "short":
        assert not ours.success.all()
    else:
        assert ours.success.double().mean() > 0.95
    if case == "bounds":
        assert torch.equal(ours.active_mask, theirs.active_mask)
        assert (ours.active_mask != 0).any()


@compiler
@pytest.mark.usefixtures("kernels")
def test_a_fit_has_the_same_bits_beside_others_and_nan_stays_in_its_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asked, "backend", lambda device: "cuda")
    x0, y = decays(150)
    x0[::5] *= 6
    y[17, 3] = torch.nan

    def fit(order: Tensor) -> Any:
        return lmtorch.least_squares(
            decay, x0[order], args=(T, y[order]), in_dims=(0, None, 0), compile=True
        )

    first = fit(torch.arange(150))
    assert len(first.nfev.unique()) > 3
    assert not first.success[17]
    others = torch.arange(150) != 17
    assert first.success[others].all()
    for order in (torch.arange(150).flip(0), first.nfev.argsort(), torch.arange(18, 21)):
        other = fit(order)
        for name in ("x", "cost", "status", "nfev", "njev", "grad"):
            one, whole = getattr(other, name), getattr(first, name)[order]
            torch.testing.assert_close(one, whole, rtol=0, atol=0, equal_nan=True)


@compiler
def test_second_opinions_and_the_full_look_at_an_end_are_those_of_lanes(
    kernels: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    y = signals(200)
    restarted: list[tuple[Tensor, Begun, Begun]] = []  # the start, and where the first run began
    plain = Parallel.run

    def run(
        self: Parallel, x: Tensor, *rest: Any, begun: Begun | None = None, **options: Any
    ) -> Any:
        ended = plain(self, x, *rest, begun=begun, **options)
        if begun is not None:
            given = Begun(*(part[ended.places] for part in begun))
            restarted.append((x[ended.places], given, ended.standing.state.begun))
        return ended

    monkeypatch.setattr(Parallel, "run", run)

    def fit() -> Any:
        return lmtorch.least_squares(
            two_decays, torch.tensor([1.0, 0.2, 0.02, 0.001], dtype=F64), args=(B, y),
            in_dims=(None, None, 0), compile=True,
        )  # fmt: skip

    ours, theirs = on_both(monkeypatch, fit)
    assert len(kernels) >= 5  # runs of several opinions
    # an end is judged by where the first of several runs began, whatever the start of this one
    assert any(bool((x != given.x).any()) for x, given, _ in restarted)
    for _, given, kept in restarted:
        torch.testing.assert_close(kept.x, given.x, rtol=0, atol=0)
        torch.testing.assert_close(kept.cost, given.cost, rtol=0, atol=0)
    alike = (ours.success == theirs.success).double().mean()
    # what differs are fits that wander: other digits lead them elsewhere
    assert alike >= 0.95
    both = ours.success & theirs.success
    assert int(both.sum()) > 100
    worse = ours.cost[both] > theirs.cost[both] * (1 + 1e-6)
    assert float(worse.double().mean()) <= 0.01


@compiler
def test_one_fit_is_a_batch_of_one(kernels: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    x0, y = decays(1)

    def fit() -> Any:
        return lmtorch.least_squares(decay, x0[0], args=(T, y[0]), compile=True)

    ours, theirs = on_both(monkeypatch, fit)
    assert kernels[-1] == 1
    torch.testing.assert_close(ours.x, theirs.x, rtol=1e-10, atol=0)
    assert ours.success
    assert theirs.success
    assert ours.x.shape == (2,)


@compiler
def test_a_program_that_differs_from_the_loop_is_not_used(
    kernels: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a device's mathematics, or its compiler, were wrong."""
    monkeypatch.setattr(asked, "backend", lambda device: "cuda")
    plain = simulated.module

    def wrong(text: str, device: torch.device) -> Any:
        return plain(
            text.replace("ONE(exp)", "INLINE D exp_(D a) { return exp(1.001 * a); }"), device
        )

    monkeypatch.setattr(parallel, "module", wrong)
    x0, y = decays(30)

    def fit(**options: Any) -> Any:
        return lmtorch.least_squares(decay, x0, args=(T, y), in_dims=(0, None, 0), **options)

    with pytest.warns(FallbackWarning, match="disagree"):
        found = fit(compile=True)
    assert max(kernels) < 30
    assert torch.equal(found.x, fit().x)


@pytest.fixture
def nominal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A device of which nothing but its name is there; the texts that are compiled for it."""
    made: list[str] = []

    def compiled(text: str, options: Any) -> bytes:
        made.append(text)
        return f"{text} {options[-1]}".encode()

    monkeypatch.setenv("LMTORCH_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (9, number))
    monkeypatch.setattr(modules, "_version", lambda: "NVRTC")
    monkeypatch.setattr(modules, "_compiled", compiled)
    return made


def test_code_is_kept_on_disk_for_each_kind_of_device(nominal: list[str]) -> None:
    assert modules._code("a", 0) == modules._code("a", 0) == b"a --gpu-architecture=sm_90"
    assert modules._code("a", 1) == b"a --gpu-architecture=sm_91"
    assert modules._code("b", 0) == b"b --gpu-architecture=sm_90"
    assert nominal == ["a", "a", "b"]


@pytest.mark.parametrize("damage", [b"", b"x", b"x" * 100])
def test_a_damaged_file_is_made_anew(nominal: list[str], damage: bytes, tmp_path: Path) -> None:
    modules._code("a", 0)
    (file,) = tmp_path.glob("*.cubin")
    file.write_bytes(damage if len(damage) > 1 else file.read_bytes()[:-1])
    assert modules._code("a", 0) == b"a --gpu-architecture=sm_90"
    assert nominal == ["a", "a"]
    assert modules._code("a", 0) == b"a --gpu-architecture=sm_90"
    assert len(nominal) == 2


@compiler
def test_without_nvrtc_the_loop_runs_after_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(text: str, device: torch.device) -> Any:
        raise NoCompilerError("there is no libnvrtc.so")

    monkeypatch.setattr(asked, "backend", lambda device: "cuda")
    monkeypatch.setattr(parallel, "module", missing)
    x0, y = decays(30)
    with pytest.warns(FallbackWarning, match=r"no libnvrtc\.so"):
        found = lmtorch.least_squares(decay, x0, args=(T, y), in_dims=(0, None, 0), compile=True)
    assert found.success.all()


there = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@there
@pytest.mark.cuda
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-9), (F32, 2e-4)])
def test_a_gpu_ends_where_the_loop_on_the_cpu_does(
    case: str, dtype: torch.dtype, tolerance: float, runs: list[int]
) -> None:
    x0, y = (t.to(dtype) for t in decays(3000))
    x0[::7] *= 3
    options = dict(CASES[case])
    fun = options.pop("fun", decay)
    if fun is weighted:
        weights = WEIGHTS.to("cuda", dtype)

        def fun(p: Tensor, t: Tensor, y: Tensor) -> Tensor:  # it holds a tensor of the GPU
            return weights.to(p.device) * decay(p, t, y)

    if "bounds" in options:
        x0 = x0.clamp(*(torch.tensor(side, dtype=dtype) for side in options["bounds"]))
    found = [
        lmtorch.least_squares(
            fun, x0.to(device), args=(T.to(device, dtype), y.to(device)), in_dims=(0, None, 0),
            compile=device == "cuda", **options,
        )
        for device in ("cuda", "cpu")
    ]  # fmt: skip
    ours, theirs = found
    assert ours.x.device.type == "cuda"
    assert max(runs) == 3000
    assert torch.equal(ours.success.cpu(), theirs.success)
    torch.testing.assert_close(ours.x.cpu(), theirs.x, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours.cost.cpu(), theirs.cost, rtol=tolerance, atol=0)


@there
@pytest.mark.cuda
def test_what_a_program_cannot_judge_ends_as_on_the_cpu(runs: list[int]) -> None:
    y = signals(2000)
    start = torch.tensor([1.0, 0.2, 0.02, 0.001], dtype=F64)
    ours, theirs = (
        lmtorch.least_squares(
            two_decays, start.to(device), args=(B.to(device), y.to(device)),
            in_dims=(None, None, 0), compile=device == "cuda",
        )
        for device in ("cuda", "cpu")
    )  # fmt: skip
    assert len(runs) >= 5
    mine, success = ours.cost.cpu(), ours.success.cpu()
    assert float((success == theirs.success).double().mean()) >= 0.95
    both = success & theirs.success
    assert int(both.sum()) > 1000
    assert float((mine[both] > theirs.cost[both] * (1 + 1e-6)).double().mean()) <= 0.01


@there
@pytest.mark.cuda
def test_kernels_wait_for_the_current_stream(runs: list[int]) -> None:
    """Data that another stream is still making are read when they are there."""
    x0, y = (t.cuda() for t in decays(2000))
    t = T.cuda()

    def fit(data: Tensor) -> Any:
        return lmtorch.least_squares(decay, x0, args=(t, data), in_dims=(0, None, 0), compile=True)

    expected = fit(y).x
    late = torch.zeros_like(y)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        late.copy_(y)
        found = fit(late).x
    stream.synchronize()
    assert torch.equal(found, expected)
    assert max(runs) == 2000


@pytest.mark.parametrize("holds", [False, True])
def test_few_fits_elsewhere_go_on_on_the_cpu_unless_the_function_holds_a_tensor(
    elsewhere: torch.device, holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x0, y = decays(30)
    weights = WEIGHTS.to(elsewhere)

    def fun(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return (weights if holds else 1.0) * decay(p, t, y)

    runs: list[Any] = []
    plain = minimise.descend

    def first(problem: Any, method: Any, begin: Any, **options: Any) -> Any:
        runs.append((problem, method, begin, options["trials"]))
        return plain(problem, method, begin, **options)

    monkeypatch.setattr(minimise, "descend", first)
    x, t, data = (one.to(elsewhere) for one in (x0, T, y))
    bounds = ([0.0, 0.0], [9.0, 9.0])
    found = lmtorch.least_squares(fun, x, args=(t, data), in_dims=(0, None, 0), bounds=bounds)
    problem, method, begin, trials = runs[0]
    devices: list[str] = []

    def loop(problem: Any, method: Any, begin: Any, **options: Any) -> Any:
        devices.append(begin.x.device.type)
        return plain(problem, method, begin, **options)

    monkeypatch.setattr(doubtful, "descend", loop)
    quick = choose.in_entries(method, 2)
    assert quick is not None
    recipe = asked._recipe(problem, quick, begin.x)
    with torch.no_grad():
        state = doubtful._looped(recipe, problem, method, begin, trials)
    assert devices == (["cpu", elsewhere.type] if holds else ["cpu"])
    assert state.x.device.type == state.certificate.promise.device.type == elsewhere.type
    assert state.status.cpu().gt(0).all()
    torch.testing.assert_close(state.x.cpu(), found.x.cpu(), rtol=1e-9, atol=0)
    if holds:
        return
    # the effort of the program before is added to that of the loop
    before = state._replace(
        status=torch.full_like(state.status, int(Status.LOST)),
        trials=torch.full_like(state.trials, 5), linearizations=torch.full_like(state.trials, 3),
    )  # fmt: skip
    after = doubtful.go_on(recipe, problem, method, begin, before, trials)
    assert torch.equal(after.trials.cpu(), state.trials.cpu() + 5)
    assert torch.equal(after.linearizations.cpu(), state.linearizations.cpu() + 3)
