"""Rows from layers of every kind, as a matrix and by factors, against `jacrev` of a whole batch."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn import functional

import lmtorch
from lmtorch.jacobians import layerwise
from lmtorch.jacobians.layerwise import LayerWise
from lmtorch.jacobians.per_sample import PerSample
from lmtorch.linearizations.layered import Layered, LayeredForm
from lmtorch.rows import inner
from lmtorch.rows.factors import Lookup, Plain, Weight
from lmtorch.solvers.dual import Dual
from lmtorch.training.terms import terms_of

F64 = torch.float64
# torch tells of a copy of its own
uneven = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(5))


def images(count: int = 6, channels: int = 2, size: int = 5) -> Tensor:
    return drawn(count, channels, size, size)


def linear_model(
    model: nn.Module, solver: Any, x: Tensor, closure: Callable[..., Tensor] | None = None
) -> tuple[Any, Any]:
    """The linear model at the start of a step, and the source of its rows."""
    opt = lmtorch.LevenbergMarquardt(model, solver=solver, scaling="levenberg")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", lmtorch.FallbackWarning)
        task = opt._task(terms_of(closure or (lambda x: model(x).flatten(1)), (x,)))
        found = task.problem.linearize(task.start.x)
        (ladder,) = task.prepared.ladders
    return found, ladder.current


def jacobian(model: nn.Module, x: Tensor) -> Tensor:
    """All rows by reverse mode through the whole batch."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    blocks = jacrev(lambda p: functional_call(model, p, (x,)).flatten())(params)
    return torch.cat([block.flatten(1) for block in blocks.values()], 1)


def agree(model: nn.Module, x: Tensor, source: type = LayerWise) -> Layered:
    """Rows, Gram matrix, gradient and column norms are those of the matrix, in both forms."""
    J = jacobian(model, x)
    # sums of some hundred products of numbers of order one
    near = {"rtol": 1e-10, "atol": 1e-11 * max(1.0, float(J.abs().max()) ** 2)}
    dense, _ = linear_model(model, "qr", x)
    torch.testing.assert_close(dense.jacobian, J, **near)
    found, current = linear_model(model, Dual(LayeredForm()), x)
    assert isinstance(current, source)
    assert isinstance(found, Layered)
    torch.testing.assert_close(found.rows.dense(), J, **near)
    ones = torch.ones_like(J[0])
    for passes in (0, 10**6):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(inner, "PASSES", passes)
            torch.testing.assert_close(found.rows.gram(ones), J @ J.mT, **near)
    torch.testing.assert_close(found.gradient, J.mT @ found.residual, **near)
    torch.testing.assert_close(found.column_norms, J.norm(dim=0), **near)
    torch.testing.assert_close(found.rows.times(ones), J.sum(1), **near)
    return found


# ---- convolutions --------------------------------------------------------------------------------


@uneven
@given(
    d=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.sampled_from([0, 1, 2, "same", "valid"]),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    bias=st.booleans(),
    size=st.integers(3, 6),
)
def test_convolutions_of_all_shapes(
    d: int, kernel: int, stride: int, padding: Any, dilation: int, groups: int, mode: str,
    bias: bool, size: int,
) -> None:  # fmt: skip
    assume(padding != "same" or stride == 1)
    assume(mode == "zeros" or padding != "valid")
    size = size if d < 3 else 4
    reach = dilation * (kernel - 1)
    outer = 2 * padding if isinstance(padding, int) else reach if padding == "same" else 0
    assume(size + outer > reach)
    torch.manual_seed(0)
    of = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[d - 1]
    first = of(
        4, 4, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups,
        padding_mode=mode, bias=bias,
    )  # fmt: skip
    model = nn.Sequential(first, nn.Tanh(), nn.Flatten(), nn.LazyLinear(2)).double()
    x = drawn(3, 4, *(size + i for i in range(d)))
    model(x)
    agree(model, x)


@uneven
@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 3])
def test_padding_to_the_same_size_puts_more_behind(kernel: int, dilation: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv1d(2, 3, kernel, padding="same", dilation=dilation)
    agree(nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.Linear(15, 2)).double(), drawn(4, 2, 5))


def test_sizes_may_differ_along_the_dimensions() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2))
    agree(nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.Linear(63, 2)).double(), images())


@pytest.mark.parametrize("small", [True, False], ids=["some samples at a time", "all"])
def test_patches_are_made_of_some_samples_at_a_time(
    small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("lmtorch.rows.factors.ENTRIES", 100 if small else 10**6)
    conv = nn.Conv2d(2, 3, 2, padding=1)
    agree(nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.Linear(108, 2)).double(), images())


def test_a_convolution_of_few_places_and_many_weights_is_kept_by_factors() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 1)).double()
    found = agree(model, images(5, 8, 4))
    kinds = [type(factor) for factor in found.rows.blocks[0].factors]
    assert kinds == [Weight, Plain, Weight]  # four places of 16 + 72 numbers, and not 1,152


def test_a_relu_may_write_over_the_output_of_a_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(27, 4),
        nn.ReLU(inplace=True), nn.Linear(4, 2),
    ).double()  # fmt: skip
    agree(model, images())


# ---- normalisation, embeddings, and others -------------------------------------------------------


def running(norm: nn.Module) -> nn.Module:
    """With statistics of data that it has seen, for evaluation."""
    norm = norm.double()
    norm(3 * images(20) + 1)
    return norm.eval()


def shuffled(module: nn.Module) -> nn.Module:
    """With weights that are neither one nor zero, but for one that is."""
    for p in module.parameters():
        p.data = torch.randn(p.shape, dtype=F64)
        if p.ndim == 1 and p.numel() > 1:
            p.data[0] = 0
    return module


NORMS: dict[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: nn.LayerNorm(5),
    "layer norm of the space": lambda: nn.LayerNorm((5, 5)),
    "layer norm without bias": lambda: nn.LayerNorm((2, 5, 5), bias=False),
    "rms norm": lambda: nn.RMSNorm(5),
    "rms norm with an eps": lambda: nn.RMSNorm((5, 5), eps=0.1),
    "group norm": lambda: nn.GroupNorm(2, 2, eps=0.1),
    "instance norm": lambda: nn.InstanceNorm2d(2, affine=True),
    "instance norm by running statistics": lambda: running(
        nn.InstanceNorm2d(2, affine=True, track_running_stats=True)
    ),
    "batch norm": lambda: running(nn.BatchNorm2d(2, eps=0.1)),
    "prelu": nn.PReLU,
    "prelu of channels": lambda: nn.PReLU(2),
}


@pytest.mark.parametrize("kind", NORMS)
def test_normalisation_layers(kind: str) -> None:
    torch.manual_seed(0)
    norm = NORMS[kind]()
    head = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), norm, nn.Tanh(), nn.Flatten())
    agree(nn.Sequential(*shuffled(head.double()), nn.Linear(50, 3)).double(), images())


def test_batch_norm_in_training_mode_is_not_taken_for_a_layer_of_samples() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)).double()
    x = drawn(12, 3)
    # without a batch, where rows need not be independent
    opt = lmtorch.LevenbergMarquardt(model)
    opt.step(lambda: model(x).sinh())
    assert opt.report is not None
    assert "LayerWise" not in opt.report.jacobian
    assert "batch norm in training mode" in opt._last.ladders[0].refusals[0]


class Words(nn.Module):
    """A sentence of words, whose vectors are averaged or joined."""

    def __init__(self, padding: int | None = None, tied: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4, padding_idx=padding)
        self.same = nn.Embedding(7, 4, padding_idx=padding)
        self.same.weight = self.table.weight
        self.inner = nn.Linear(4, 4)
        self.out = nn.Linear(4, 7)
        if tied:
            self.out.weight = self.table.weight

    def forward(self, words: Tensor) -> Tensor:
        seen = torch.tanh(self.inner(self.table(words)))
        if seen.ndim > 2:
            seen = seen.mean(1) * self.same(words[:, 0])
        return self.out(seen).tanh()


def test_the_row_without_a_gradient_may_be_counted_from_the_end() -> None:
    torch.manual_seed(0)

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.last = nn.Parameter(torch.randn(7, 4)), nn.Linear(4, 2)

        def forward(self, words: Tensor) -> Tensor:
            return self.last(functional.embedding(words, self.table, -3).mean(1)).tanh()

    words = torch.randint(7, (6, 3), generator=torch.Generator().manual_seed(1))
    agree(Counted().double(), words)


@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize("places", [None, 1, 5])
@pytest.mark.parametrize("tied", [False, True], ids=["own", "tied"])
def test_embeddings(padding: int | None, places: int | None, tied: bool) -> None:
    torch.manual_seed(0)
    model = Words(padding, tied).double()
    shape = (6,) if places is None else (6, places)
    words = torch.randint(7, shape, generator=torch.Generator().manual_seed(1))
    found = agree(model, words)
    assert isinstance(found.rows.blocks[0].factors[0], Plain if tied else Lookup)


def test_an_embedding_with_sparse_gradients() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(40, 4, sparse=True)
    model = nn.Sequential(table, nn.Flatten(), nn.Linear(12, 2)).double()
    words = torch.randint(40, (6, 3), generator=torch.Generator().manual_seed(1))
    found, _ = linear_model(model, Dual(LayeredForm()), words)
    dense = copy.deepcopy(model)
    dense[0].sparse = False
    torch.testing.assert_close(found.rows.dense(), jacobian(dense, words))


@pytest.mark.parametrize("option", [{"max_norm": 0.5}, {"scale_grad_by_freq": True}], ids=str)
def test_an_embedding_that_does_more_than_look_up_is_not_taken_for_one(option: Any) -> None:
    model = nn.Sequential(nn.Embedding(7, 40, **option), nn.Flatten(), nn.Linear(40, 2)).double()
    recorder_sees = layerwise.Recorder(tuple(model.parameters()))
    with recorder_sees:
        functional_call(
            model, dict(zip(["0.weight", "2.weight", "2.bias"], recorder_sees.twins, strict=True)),
            (torch.arange(6),),
        )  # fmt: skip
    assert 0 in recorder_sees.elsewhere


# ---- weights of several layers, and parameters beside the layers ---------------------------------


class Recurrent(nn.Module):
    """The same convolution again and again; and one weight in two layers that are called alike."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5, bias=False)
        self.second.weight = self.first.weight
        self.norm = nn.GroupNorm(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.norm(torch.tanh(self.conv(x)))
        return torch.tanh(self.second(torch.tanh(self.first(x)))).sum((2, 3))


def test_weights_that_are_used_again_have_the_sum_of_their_rows() -> None:
    torch.manual_seed(0)
    agree(Recurrent().double(), images())


class Mixed(nn.Module):
    """Layers, and bare parameters, a transposed convolution and attention beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3)
        self.bare = nn.Parameter(torch.randn(6, 3, 3))
        self.back = nn.ConvTranspose2d(6, 2, 2)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.encode, self.last = nn.Linear(8, 20), nn.Linear(20, 40)
        self.out = nn.Linear(40, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.conv(x)) * self.bare
        x = torch.tanh(self.back(x)).flatten(2).mT.unflatten(1, (4, 4)).flatten(2)
        x = torch.cat([x[..., :4], self.attention(*[x[..., :4]] * 3)[0]], -1).mean(1)
        x = torch.tanh(self.last(torch.tanh(self.encode(x))))
        # a weight that is read by itself as well
        return self.out(x) + self.encode.weight.sinh().sum()


def test_other_parameters_come_by_the_general_path_and_are_added() -> None:
    torch.manual_seed(0)
    model = Mixed().double()
    found = agree(model, images())
    beside = {factor.start for factor in found.rows.blocks[0].factors if isinstance(factor, Plain)}
    starts = [0]
    for p in model.parameters():
        starts.append(starts[-1] + p.numel())
    names = [name for name, _ in model.named_parameters()]
    for name in ("bare", "back.weight", "attention.in_proj_weight", "encode.weight"):
        assert starts[names.index(name)] in beside


class Hidden(torch.autograd.Function):
    """A product that no function of torch shows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.detach().mT

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return w @ weight, w.mT @ x


class Scattered(nn.Module):
    """A weight of a layer, which an `autograd.Function` takes as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 30)
        self.product = Hidden.apply

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x) + 1e-4 * self.product(x, self.first.weight)
        return self.last(torch.tanh(first)).tanh()


def test_a_later_evaluation_remembers_what_the_first_has_found() -> None:
    torch.manual_seed(0)
    model, x = Scattered().double(), drawn(8, 3)
    opt = lmtorch.LevenbergMarquardt(model, solver=Dual(LayeredForm()))
    with torch.no_grad():
        task = opt._task(terms_of(model, (x,)))
        found = [task.problem.linearize(task.start.x) for _ in range(3)]
    assert isinstance(task.prepared.ladders[0].current, LayerWise)
    model.product = functional.linear  # which `jacrev` can see
    for each in found:
        torch.testing.assert_close(each.rows.dense(), jacobian(model, x), rtol=1e-10, atol=1e-12)


def test_where_most_is_beside_the_layers_it_is_refused_quietly() -> None:
    torch.manual_seed(0)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bare, self.last = nn.Parameter(torch.randn(4, 30)), nn.Linear(30, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.tanh(x @ self.bare))

    model, x = Own().double(), drawn(8, 4)
    found, current = linear_model(model, Dual(LayeredForm()), x)
    assert isinstance(current, PerSample)
    torch.testing.assert_close(found.rows.dense(), jacobian(model, x))


# ---- as users have it ----------------------------------------------------------------------------


def test_a_convolutional_network_goes_by_layers_by_default() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 10),
    ).double()  # fmt: skip
    x, y = drawn(20, 1, 8, 8), torch.arange(20) % 10
    whole = copy.deepcopy(model)
    criterion = lmtorch.CrossEntropyLoss()
    opt = lmtorch.LevenbergMarquardt(model)
    other = lmtorch.LevenbergMarquardt(whole, jacobian="per_sample", solver="dual")
    losses = []
    for _ in range(3):
        losses.append(float(opt.step(lambda x, y: criterion(model(x), y), x, y)))
        other.step(lambda x, y: criterion(whole(x), y), x, y)
    assert opt._last.plan.method.solver == Dual(LayeredForm())
    assert isinstance(opt._last.ladders[0].current, LayerWise)
    assert losses[2] < losses[0]
    for p, q in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)


def test_a_table_of_which_nothing_is_looked_up_has_no_share() -> None:
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table, self.out = nn.Embedding(20, 4, dtype=F64), nn.Linear(4, 1, dtype=F64)

        def forward(self, words: Tensor) -> Tensor:
            return self.out(self.table(words).sum(1))

    agree(Summed(), torch.zeros(6, 0, dtype=torch.int64))
