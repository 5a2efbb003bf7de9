"""What every source of derivatives promises: the same matrix, in the order of the parameters, block by block."""

import gc
import weakref
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.utils._python_dispatch import TorchDispatchMode

import lmtorch
from lmtorch.jacobians.autograd import Autograd
from lmtorch.jacobians.base import JacobianSource, Workspace, as_block
from lmtorch.jacobians.finite_difference import FiniteDifference
from lmtorch.jacobians.forward import Forward
from lmtorch.jacobians.given import GivenJacobian
from lmtorch.jacobians.layerwise import LayerWise
from lmtorch.jacobians.per_sample import PerSample
from lmtorch.jacobians.reverse import Reverse
from lmtorch.residuals.base import Part
from lmtorch.residuals.function import FunctionResidual

Params = tuple[Tensor, ...]


class Model:
    """A small network on a few samples, k residuals each, and its Jacobian by `jacrev` over the flat vector."""

    def __init__(
        self,
        widths: tuple[int, ...],
        samples: int,
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after, dtype=dtype), nn.Tanh()]
        self.net = nn.Sequential(*layers[:-1])
        self.names = [name for name, _ in self.net.named_parameters()]
        self.params: Params = tuple(p.detach() for p in self.net.parameters())
        self.inputs = torch.randn(samples, widths[0], dtype=dtype)
        self.targets = torch.randn(samples, widths[-1], dtype=dtype)

    def residual(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Rows (s, k)."""
        twins = dict(zip(self.names, params, strict=True))
        return functional_call(self.net, twins, (inputs,)) - targets

    def function(self, params: Params) -> Tensor:
        """All rows, flat."""
        return self.residual(params, self.inputs, self.targets).reshape(-1)

    def part(self, sampled: bool = True) -> Part:
        """As the optimizer hands it out, with or without the samples."""

        def run(other: Callable[..., Any], params: Params) -> Any:
            return other(params)

        if not sampled:
            return Part(self.function, run)

        def sample(params: Params, x: Tensor, y: Tensor) -> Tensor:
            return self.residual(params, x[None], y[None]).reshape(-1)

        return Part(self.function, run, sample=sample, samples=(self.inputs, self.targets))

    def jacobian(self) -> Tensor:
        """(m, n), one parameter's columns after the other's."""
        m = self.function(self.params).shape[0]
        return torch.cat([block.reshape(m, -1) for block in jacrev(self.function)(self.params)], 1)


def whole(source: JacobianSource, part: Part, params: Params) -> tuple[Tensor, Tensor]:
    """A source's blocks, put together; the workspace starts as NaN, so that what is not written is seen."""
    n = sum(p.numel() for p in params)
    residuals, rows = [], []
    workspace = Workspace(lambda m: params[0].new_full((m, n), torch.nan))
    for residual, block in map(as_block, source.blocks(part, params, workspace)):
        residuals.append(residual.detach().clone())
        rows.append(block.dense().detach().clone())
    return torch.cat(residuals), torch.cat(rows)


def sources(model: Model, chunk: int | None) -> dict[str, JacobianSource]:
    """Every exact one."""
    return {
        "forward": Forward(chunk),
        "reverse": Reverse(chunk),
        "autograd": Autograd(chunk),
        "per_sample": PerSample(chunk),
        "layerwise": LayerWise(chunk),
        "given matrix": GivenJacobian(lambda params: model.jacobian()),
        "given blocks": GivenJacobian(jacrev(model.function)),
    }


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
    tolerance = (
        100 * torch.finfo(dtype).eps
    )  # sums of at most five products of numbers of order one
    for name, source in sources(model, chunk).items():
        for sampled in (True, False):
            if not sampled and name in {"per_sample", "layerwise"}:
                continue
            residual, jacobian = whole(source, model.part(sampled), model.params)
            message = f"{name}, {sampled=}"
            assert jacobian.dtype == residual.dtype == dtype, message
            torch.testing.assert_close(
                jacobian, expected, rtol=tolerance, atol=tolerance, msg=message
            )
            torch.testing.assert_close(
                residual, model.function(model.params), rtol=tolerance, atol=tolerance
            )
            evaluated = source.evaluate(model.part(sampled), model.params)
            torch.testing.assert_close(
                evaluated.detach(), residual, rtol=tolerance, atol=tolerance, msg=message
            )


@given(
    widths=st.lists(st.integers(1, 4), min_size=2, max_size=3).map(tuple),
    samples=st.integers(1, 4),
    seed=st.integers(0, 2**16),
    method=st.sampled_from(["2-point", "3-point"]),
)
def test_differences_come_as_near_as_their_order_allows(
    widths: tuple[int, ...], samples: int, seed: int, method: str
) -> None:
    model = Model(widths, samples, torch.float64, seed)
    _, jacobian = whole(FiniteDifference(method), model.part(False), model.params)
    # errors of order ε^½ and ε^⅔ with second and third derivatives of tanh's, which the inputs (up to 3) multiply
    eps = torch.finfo(torch.float64).eps
    tolerance = 100 * (eps ** (1 / 2) if method == "2-point" else eps ** (2 / 3))
    torch.testing.assert_close(jacobian, model.jacobian(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6], ids=str)
@pytest.mark.parametrize("method", ["2-point", "3-point"])
def test_differences_take_a_step_in_proportion_to_large_parameters(
    size: float, method: str
) -> None:
    x = torch.tensor([size, -size], dtype=torch.float64)
    residual = FunctionResidual(lambda v: v**2, x)
    (part,) = residual.parts()
    _, jacobian = whole(FiniteDifference(method), part, (x,))
    # 2-point: exactly 2x + h; 3-point: exact but for rounding
    h = torch.finfo(torch.float64).eps ** (1 / 2 if method == "2-point" else 1 / 3) * max(1.0, size)
    torch.testing.assert_close(jacobian, torch.diag(2 * x), rtol=1e-9, atol=1.1 * h)


@pytest.mark.parametrize(
    "source",
    [Forward(), Forward(2), FiniteDifference("3-point")],
    ids=["forward", "chunks", "differences"],
)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
def test_a_batch_of_problems_has_the_matrices_of_its_problems(
    source: JacobianSource, batch: tuple[int, ...]
) -> None:
    t = torch.linspace(0, 1, 4, dtype=torch.float64)
    x = torch.rand(*batch, 3, dtype=torch.float64) if batch else torch.rand(3, dtype=torch.float64)

    def fun(x: Tensor) -> Tensor:
        return x[..., :1] * torch.exp(-x[..., 1:2] * t) + x[..., 2:]

    (part,) = FunctionResidual(fun, x).parts()
    ((residual, jacobian),) = source.blocks(
        part, (x,), lambda m: x.new_full((*batch, m, 3), torch.nan)
    )
    assert jacobian.shape == (*batch, 4, 3)
    expected = torch.stack([torch.func.jacfwd(fun)(row) for row in x.reshape(-1, 3)]).reshape(
        *batch, 4, 3
    )
    torch.testing.assert_close(jacobian, expected, rtol=1e-8, atol=1e-8)  # ε^⅔ is 4e-11
    torch.testing.assert_close(residual, fun(x))


@pytest.mark.parametrize("name", ["forward", "reverse", "autograd", "per_sample", "2-point"])
def test_a_parameter_that_is_not_used_has_a_column_of_zeros(name: str) -> None:
    model = Model((2, 3), 4)
    extra = torch.ones(2, dtype=torch.float64)
    part = model.part()
    sample = part.sample
    assert sample is not None
    part = Part(
        lambda params: model.function(params[:-1]),
        part.run,
        sample=lambda params, *data: sample(params[:-1], *data),
        samples=part.samples,
    )
    source = {**sources(model, None), "2-point": FiniteDifference()}[name]
    _, jacobian = whole(source, part, (*model.params, extra))
    assert (jacobian[:, -2:] == 0).all()
    assert jacobian.isfinite().all()


def test_rows_come_in_chunks_into_the_workspace_they_asked_for() -> None:
    model = Model((3, 4, 2), 5)
    n = sum(p.numel() for p in model.params)
    given: list[Tensor] = []

    def workspace(rows: int) -> Tensor:
        given.append(torch.full((rows, n), torch.nan, dtype=torch.float64))
        return given[-1]

    blocks = list(Reverse(3).blocks(model.part(False), model.params, workspace))
    assert [block.shape[0] for _, block in blocks] == [3, 3, 3, 1]
    assert all(
        block.data_ptr() == place.data_ptr()
        for (_, block), place in zip(blocks, given, strict=True)
    )


def test_a_given_jacobian_of_another_shape_is_refused() -> None:
    model = Model((2, 3), 4)
    with pytest.raises(lmtorch.InputError, match=r"\(12, 9\)"):
        whole(GivenJacobian(lambda params: torch.zeros(9, 12)), model.part(False), model.params)


def test_per_sample_without_samples_is_refused() -> None:
    model = Model((2, 3), 4)
    with pytest.raises(lmtorch.InputError, match="batch"):
        whole(PerSample(), model.part(False), model.params)


# ---- memory ----------------------------------------------------------------------------------------------------------


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operators return, as long as they live; and the most at any time."""

    def __init__(self, *arguments: Tensor) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known = {
            tensor.untyped_storage()._cdata for tensor in arguments
        }  # views of them hold nothing new

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.known:
                self.known.add(key)
                self.live += size
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._gone, key, size)
        return result

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, tuple | list):
        for item in result:
            yield from _tensors(item)


def peak_of_a_step(samples: int, jacobian: str) -> int:
    """Bytes that a step of the optimizer holds at most, beyond its arguments."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.randn(samples, 4)
    y = torch.sin(x.sum(1, keepdim=True))
    opt = lmtorch.LevenbergMarquardt(
        net, solver="cholesky", curvature="full", jacobian=jacobian, memory_limit=2**20
    )
    opt.step(lambda x, y: net(x) - y, x, y)  # plans, caches
    gc.collect()
    with LiveBytes(x, y) as meter:
        opt.step(lambda x, y: net(x) - y, x, y)
    return meter.peak


@pytest.mark.slow
@pytest.mark.parametrize("jacobian", ["auto", "per_sample"])
def test_the_peak_memory_of_streamed_rows_does_not_grow_with_the_samples(jacobian: str) -> None:
    small, large = 8_000, 64_000
    first, second = peak_of_a_step(small, jacobian), peak_of_a_step(large, jacobian)
    assert second <= 1.05 * first, (
        first,
        second,
    )  # parts of equal size are not all of the same size


def test_the_meter_sees_what_is_held() -> None:
    with LiveBytes() as meter:
        held = torch.zeros(1000, dtype=torch.float64)
        for _ in range(3):
            torch.ones(500, dtype=torch.float64)
        assert meter.live == held.numel() * 8
        assert meter.peak == 12_000


@pytest.mark.parametrize(
    ("name", "sampled"),
    [(name, True) for name in ("forward", "reverse", "autograd", "per_sample", "layerwise")]
    + [(name, False) for name in ("forward", "reverse", "autograd")],  # the others need the samples
)
def test_derivatives_are_had_inside_no_grad_as_well(name: str, sampled: bool) -> None:
    model = Model((2, 3, 1), 4)
    expected = model.jacobian()
    with torch.no_grad():  # an optimizer's step
        _, jacobian = whole(sources(model, None)[name], model.part(sampled), model.params)
    torch.testing.assert_close(jacobian, expected)
