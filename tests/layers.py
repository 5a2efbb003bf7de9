"""Small models, each with a layer that is hard for `torch.func` or for swapping parameters.

A case gives a seeded float64 model, a batch of inputs and a target; its residual is
`model(inputs) - target`. Row `i` of the residual depends on row `i` of the inputs alone, unless
`couples_samples`. `reference_jacobian` is what every other way to take the Jacobian is compared
with. What `hard` says was seen with torch 2.13 on a CPU.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

SAMPLES = 6
FLOAT = torch.float64


@dataclass(frozen=True)
class LayerCase:
    """A model, its batch, and what makes it hard.

    Attributes:
        name: of the kind of layer.
        build: makes the model, the same at every call, in the mode (train or
            eval) that the case is about.
        inputs: makes the batch `(samples, ...)` and the target, in the shape of the model's output.
        couples_samples: a row of the residual depends on the other samples too
            (statistics over the batch).
        random: the forward pass draws random numbers; seed before each call to compare two of them.
        writes_buffers: the forward pass changes the model's buffers.
        hard: what a transform or a swap of the parameters may trip over; empty where nothing
            should.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, Tensor]]
    couples_samples: bool = False
    random: bool = False
    writes_buffers: bool = False
    hard: str = ""

    def __repr__(self) -> str:
        return self.name


def reference_jacobian(
    model: nn.Module,
    residual: Tensor,  # (samples, ...), of the model's own parameters
) -> Tensor:  # (residuals, parameters)
    """The Jacobian by `.backward()` on the model's own parameters, row by row, without frozen ones.

    Not `torch.autograd.grad`: reentrant checkpoints know `.backward()` only. Nothing
    here is ours or batched.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for entry in residual.flatten():
        model.zero_grad(set_to_none=True)
        entry.backward(retain_graph=True)
        gradients = [
            torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for p in parameters
        ]
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    model.zero_grad(set_to_none=True)
    return torch.stack(rows)


def _seeded(make: Callable[[], nn.Module], train: bool = True) -> Callable[[], nn.Module]:
    """A builder that leaves the global generator as it was."""

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make().to(FLOAT).train(train)

    return build


def _normal(
    inputs: tuple[int, ...], target: tuple[int, ...]
) -> Callable[[], tuple[Tensor, Tensor]]:
    """Standard normal inputs and target of these shapes per sample."""

    def draw() -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(SAMPLES, *inputs, dtype=FLOAT, generator=generator)
        return x, torch.randn(SAMPLES, *target, dtype=FLOAT, generator=generator)

    return draw


def _indices(
    high: int, inputs: tuple[int, ...], target: tuple[int, ...]
) -> Callable[[], tuple[Tensor, Tensor]]:
    """Integer inputs below `high`, repetitions included, and a standard normal target."""

    def draw() -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        x = torch.randint(high, (SAMPLES, *inputs), generator=generator)
        return x, torch.randn(SAMPLES, *target, dtype=FLOAT, generator=generator)

    return draw


# Layers of torch.nn that need a few words around them.


class LastStep(nn.Module):
    """A recurrent layer read at its last time step."""

    def __init__(self, recurrent: nn.Module, features: int):
        super().__init__()
        self.recurrent = recurrent
        self.head = nn.Linear(features, 2)

    def forward(self, x: Tensor) -> Tensor:  # (samples, time, features) -> (samples, 2)
        return self.head(self.recurrent(x)[0][:, -1])


class Cell(nn.Module):
    """A recurrent cell unrolled by hand."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:  # (samples, time, 3) -> (samples, 4)
        h = c = x.new_zeros(x.shape[0], 4)
        for step in x.unbind(1):
            h, c = self.cell(step, (h, c))
        return h


class SelfAttention(nn.Module):
    """`nn.MultiheadAttention` of a sequence with itself."""

    def __init__(self, need_weights: bool):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:  # (samples, time, 4) -> the same
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


class FusedAttention(nn.Module):
    """`F.scaled_dot_product_attention` between linear maps."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:  # (samples, time, 4) -> the same
        query, key, value = self.project(x).view(*x.shape[:2], 3, 2, 2).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class Pairwise(nn.Module):
    """A layer of two arguments fed with one."""

    def __init__(self):
        super().__init__()
        self.bilinear = nn.Bilinear(3, 3, 2)

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 2)
        return self.bilinear(x, x.flip(-1))


class SpatialTransformer(nn.Module):
    """An image resampled on a grid that the parameters bend."""

    def __init__(self):
        super().__init__()
        self.affine = nn.Parameter(torch.tensor([[0.9, 0.1, 0.05], [-0.1, 0.8, -0.03]]))

    def forward(self, x: Tensor) -> Tensor:  # (samples, 1, 5, 5) -> (samples, 16)
        grid = F.affine_grid(
            self.affine.expand(x.shape[0], 2, 3), [x.shape[0], 1, 4, 4], align_corners=False
        )
        return F.grid_sample(x, grid, align_corners=False).flatten(1)


# What users write themselves.


class OldCube(torch.autograd.Function):
    """(x Wᵀ)³ with `ctx` as first argument of forward, as everyone wrote it before torch 2.0."""

    @staticmethod
    def forward(ctx, x, weight):
        y = x @ weight.T
        ctx.save_for_backward(x, weight, y)
        return y**3

    @staticmethod
    def backward(ctx, grad):
        x, weight, y = ctx.saved_tensors
        inner = 3 * y**2 * grad
        return inner @ weight, inner.T @ x


class NewCube(torch.autograd.Function):
    """The same with `setup_context`, for `torch.func`; reverse mode only."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight):
        y = x @ weight.T
        return y**3, y

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx, grad, _):
        x, weight, y = ctx.saved_tensors
        inner = 3 * y**2 * grad
        return inner @ weight, inner.T @ x


class DualCube(NewCube):
    """The same with a forward-mode rule too."""

    @staticmethod
    def setup_context(ctx, inputs, output):
        NewCube.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs, output[1])

    @staticmethod
    def jvp(ctx, x_tangent, weight_tangent):
        x, weight, y = ctx.saved_tensors
        tangent = torch.zeros_like(y)
        if x_tangent is not None:
            tangent = tangent + x_tangent @ weight.T
        if weight_tangent is not None:
            tangent = tangent + x @ weight_tangent.T
        return 3 * y**2 * tangent, None


class Custom(nn.Module):
    """A custom function that is handed the parameter itself, between layers that are not custom."""

    def __init__(self, apply: Callable[..., Tensor | tuple[Tensor, Tensor]]):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.weight = nn.Parameter(torch.randn(2, 3) / 2)
        self.apply_function = apply

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 2)
        y = self.apply_function(torch.tanh(self.first(x)), self.weight)
        return y[0] if isinstance(y, tuple) else y


class Checkpointed(nn.Module):
    """Activations recomputed in the backward pass."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 2)
        return self.head(checkpoint(self.body, x, use_reentrant=False))


class ReentrantCheckpointed(nn.Module):
    """Activations recomputed by the older, reentrant kind, which knows `.backward()` only."""

    def __init__(self, first: bool):
        super().__init__()
        self.stem = nn.Identity() if first else nn.Linear(3, 3)
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.head = nn.Linear(4, 2)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 2)
        # it needs one input that requires a gradient
        y = x.detach().requires_grad_() if self.first else self.stem(x)
        return self.head(checkpoint(self.body, y, use_reentrant=True))


class BranchOnData(nn.Module):
    """Another expert for each sign of a sample's sum."""

    def __init__(self):
        super().__init__()
        self.positive, self.negative = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 2)
        return torch.stack(
            [self.positive(row) if row.sum().item() > 0 else self.negative(row) for row in x]
        )


class BranchOnParameter(nn.Module):
    """A series when the parameter is small, the formula otherwise."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([0.5, 1e-3]))

    def forward(self, x: Tensor) -> Tensor:  # (samples, 1) -> (samples, 2)
        return torch.cat(
            [
                torch.expm1(k * x) / k if abs(k.item()) > 0.01 else x + k * x**2 / 2
                for k in self.rate
            ],
            -1,
        )


class BooleanMask(nn.Module):
    """Boolean indexing: the shape of an intermediate depends on the data."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 2)
        y = self.linear(x)
        mask = x[:, 0] > 0
        return y.index_put((mask,), y[mask].exp())


class FreshZeros(nn.Module):
    """Columns written one by one into zeros that no input made."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 3)
        y = self.linear(x)
        out = torch.zeros(x.shape[0], 3, dtype=x.dtype, device=x.device)
        for i in range(3):
            out[:, i] = y[:, i] ** (i + 1)
        return out


class ZerosLikeInputs(FreshZeros):
    """The same into zeros made from the inputs, which `vmap` over samples knows: what to advise."""

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 3)
        y = self.linear(x)
        out = x.new_zeros(x.shape[0], 3)
        for i in range(3):
            out[:, i] = y[:, i] ** (i + 1)
        return out


class ZerosLikeOutputs(FreshZeros):
    """The same into zeros made from a tensor that carries inputs and parameters."""

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 3)
        y = self.linear(x)
        out = torch.zeros_like(y)
        for i in range(3):
            out[:, i] = y[:, i] ** (i + 1)
        return out


class InPlaceSum(nn.Module):
    """A residual connection by `+=`."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 3)
        y = self.first(x)
        y += torch.tanh(self.second(x))
        y.mul_(2.0)
        return y


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 3)
        return self.decoder(torch.tanh(self.encoder(x)))


class Skew(nn.Module):
    """A user's own parametrization: the skew-symmetric part."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu(1) - weight.triu(1).mT


class Spectral(nn.Module):
    """A learned filter between two Fourier transforms."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(4, 2))

    def forward(self, x: Tensor) -> Tensor:  # (samples, 6) -> (samples, 6)
        return torch.fft.irfft(
            torch.fft.rfft(x) * torch.view_as_complex(self.filter), n=x.shape[-1]
        )


class Unused(nn.Module):
    """A parameter that the output does not depend on."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 2)
        return torch.tanh(self.linear(x))


class Einsum(nn.Module):
    """A low-rank bilinear form."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(3, 2))

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 2)
        return torch.einsum("bi,ir,bj,jr->br", x, self.left, x, self.right)


class Scatter(nn.Module):
    """Messages summed at a graph's nodes, by `index_add_` into fresh zeros and by `scatter_add`."""

    def __init__(self):
        super().__init__()
        self.message = nn.Linear(2, 2)
        self.register_buffer("node", torch.tensor([0, 1, 1, 2]))

    def forward(self, x: Tensor) -> Tensor:  # (samples, 4 edges, 2) -> (samples, 3 nodes, 2)
        message = torch.tanh(self.message(x))
        node = self.node[None, :, None].expand_as(message)
        pushed = torch.zeros(x.shape[0], 3, 2, dtype=x.dtype, device=x.device).index_add_(
            1, self.node, message
        )
        return pushed + message.new_zeros(x.shape[0], 3, 2).scatter_add(1, node, message**2)


class RadialBasis(nn.Module):
    """Distances to learned centres."""

    def __init__(self):
        super().__init__()
        self.centre = nn.Parameter(torch.randn(4, 3))
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 1)
        return self.head(torch.exp(-torch.cdist(x, self.centre)))


class LinearSolve(nn.Module):
    """The solution of a linear system that holds the parameters."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(3) + torch.randn(3, 3) / 5)

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 3)
        return torch.linalg.solve(self.matrix @ self.matrix.mT, x.unsqueeze(-1)).squeeze(-1)


class StopGradient(nn.Module):
    """Constants cut out of the graph, by `detach` and by `no_grad`."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 2)
        y = self.linear(x)
        with torch.no_grad():
            size = self.linear.weight.norm()
        return y * y.detach() + y / size


class InputGradient(nn.Module):
    """A physics-informed residual: the derivative in the inputs by `torch.autograd.grad`."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:  # (samples, 2) -> (samples, 2)
        x = x.detach().requires_grad_()
        u = self.network(x)
        return torch.autograd.grad(u.sum(), x, create_graph=True)[0] + u


class InputGradientFunctional(InputGradient):
    """The same by `torch.func`."""

    def forward(self, x: Tensor) -> Tensor:  # (samples, 2) -> (samples, 2)
        gradient = torch.func.vmap(torch.func.grad(lambda point: self.network(point).squeeze(-1)))
        return gradient(x) + self.network(x)


class Cache(nn.Module):
    """An activation kept on the module, where a dead wrapper of a transform may stay behind."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 2)
        self.last = torch.tanh(self.linear(x))
        return self.last**2


class Counter(nn.Module):
    """A buffer written at each call, by rebinding and in place."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:  # (samples, 3) -> (samples, 2)
        y = torch.tanh(self.linear(x))
        self.mean = 0.9 * self.mean + 0.1 * y.detach().mean(0)
        self.calls += 1
        return y


def _frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    return model


def _hooked_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, but in many a published model
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 3)), nn.Tanh(), nn.Linear(3, 2))


def _skew() -> nn.Module:
    model = nn.Linear(3, 3)
    parametrize.register_parametrization(model, "weight", Skew())
    return model


def _encoder_layer(dropout: float) -> nn.Module:
    return nn.TransformerEncoderLayer(4, 2, dim_feedforward=5, dropout=dropout, batch_first=True)


def _dense(*middle: nn.Module, width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), *middle, nn.Tanh(), nn.Linear(width, 2))


def _convolution(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), *middle, nn.Tanh(), nn.Flatten(), nn.Linear(12, 2))


_ROW = _normal((3,), (2,))
_ROW_3 = _normal((3,), (3,))
_IMAGE = _normal((2, 4, 4), (2,))
_SERIES = _normal((5, 3), (2,))
_TOKENS = _normal((5, 4), (5, 4))

CASES: tuple[LayerCase, ...] = (
    LayerCase("mlp", _seeded(_dense), _ROW),
    LayerCase(
        "frozen_parameter", _seeded(_frozen), _ROW, hard="a parameter that must stay a constant"
    ),
    LayerCase(
        "unused_parameter",
        _seeded(Unused),
        _ROW,
        hard="a column of zeros, which autograd calls None",
    ),
    LayerCase("tied_weights", _seeded(Tied), _ROW_3, hard="two names, one tensor, one column"),
    LayerCase(
        "conv2d",
        _seeded(_convolution),
        _IMAGE,
    ),
    LayerCase(
        "max_pool",
        _seeded(
            lambda: nn.Sequential(
                nn.Conv2d(2, 2, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)
            )
        ),
        _IMAGE,
    ),
    LayerCase(
        "grid_sample",
        _seeded(SpatialTransformer),
        _normal((1, 5, 5), (16,)),
        hard="no forward-mode rule",
    ),
    # Normalization
    LayerCase("batchnorm_eval", _seeded(lambda: _dense(nn.BatchNorm1d(4)), train=False), _ROW),
    LayerCase(
        "batchnorm_train",
        _seeded(lambda: _dense(nn.BatchNorm1d(4))),
        _ROW,
        couples_samples=True,
        writes_buffers=True,
        hard="running statistics are written in place",
    ),
    LayerCase(
        "batchnorm_train_no_statistics",
        _seeded(lambda: _dense(nn.BatchNorm1d(4, track_running_stats=False))),
        _ROW,
        couples_samples=True,
        hard="one sample alone has no statistics",
    ),
    LayerCase(
        "batchnorm2d_train",
        _seeded(lambda: _convolution(nn.BatchNorm2d(3))),
        _IMAGE,
        couples_samples=True,
        writes_buffers=True,
        hard="running statistics are written in place",
    ),
    LayerCase(
        "batchnorm2d_train_no_statistics",
        _seeded(lambda: _convolution(nn.BatchNorm2d(3, track_running_stats=False))),
        _IMAGE,
        couples_samples=True,
        hard=(
            "one sample alone has statistics too, over its pixels: per sample it is "
            "silently another function"
        ),
    ),
    LayerCase("layernorm", _seeded(lambda: _dense(nn.LayerNorm(4))), _ROW),
    LayerCase("groupnorm", _seeded(lambda: _dense(nn.GroupNorm(2, 4))), _ROW),
    LayerCase("rmsnorm", _seeded(lambda: _dense(nn.RMSNorm(4))), _ROW),
    LayerCase(
        "instancenorm",
        _seeded(
            lambda: nn.Sequential(
                nn.Conv1d(5, 2, 1), nn.InstanceNorm1d(2, affine=True), nn.Flatten()
            )
        ),
        _normal((5, 3), (6,)),
    ),
    LayerCase(
        "instancenorm_statistics",
        _seeded(
            lambda: nn.Sequential(
                nn.Conv1d(5, 2, 1),
                nn.InstanceNorm1d(2, affine=True, track_running_stats=True),
                nn.Flatten(),
            )
        ),
        _normal((5, 3), (6,)),
        writes_buffers=True,
        hard="running statistics are written in place",
    ),
    # Random
    LayerCase(
        "dropout",
        _seeded(lambda: _dense(nn.Dropout(0.5), width=8)),
        _ROW,
        random=True,
        hard="draws random numbers",
    ),
    LayerCase(
        "transformer_layer_dropout",
        _seeded(lambda: _encoder_layer(0.3)),
        _TOKENS,
        random=True,
        hard=(
            "dropout of a strided tensor: from one seed, another mask inside torch.func than "
            "outside; vmap over samples of jacfwd ends the process"
        ),
    ),
    # Sequences
    LayerCase(
        "rnn",
        _seeded(lambda: LastStep(nn.RNN(3, 4, batch_first=True), 4)),
        _SERIES,
        hard="fused, weights in a list; no vmap over samples",
    ),
    LayerCase(
        "gru",
        _seeded(lambda: LastStep(nn.GRU(3, 4, batch_first=True), 4)),
        _SERIES,
        hard="fused, weights in a list; no vmap over samples",
    ),
    LayerCase(
        "lstm",
        _seeded(lambda: LastStep(nn.LSTM(3, 4, batch_first=True), 4)),
        _SERIES,
        hard="fused, weights in a list; no vmap over samples",
    ),
    LayerCase(
        "lstm_stacked",
        _seeded(
            lambda: LastStep(
                nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2, batch_first=True), 4
            )
        ),
        _SERIES,
        hard="fused, weights in a list; no vmap over samples",
    ),
    LayerCase("lstm_cell", _seeded(Cell), _normal((5, 3), (4,))),
    LayerCase("multihead_attention", _seeded(lambda: SelfAttention(True)), _TOKENS),
    LayerCase(
        "multihead_attention_fused",
        _seeded(lambda: SelfAttention(False)),
        _TOKENS,
        hard="no forward-mode rule",
    ),
    LayerCase(
        "multihead_attention_eval",
        _seeded(lambda: SelfAttention(False), train=False),
        _TOKENS,
        hard="a fast path without derivatives where nothing seems to need a gradient",
    ),
    LayerCase(
        "transformer_layer",
        _seeded(lambda: _encoder_layer(0.0)),
        _TOKENS,
        hard="no forward-mode rule",
    ),
    LayerCase(
        "transformer_layer_eval",
        _seeded(lambda: _encoder_layer(0.1), train=False),
        _TOKENS,
        hard="a fast path without derivatives where nothing seems to need a gradient",
    ),
    LayerCase("fused_attention", _seeded(FusedAttention), _TOKENS, hard="no forward-mode rule"),
    LayerCase(
        "embedding",
        _seeded(lambda: nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))),
        _indices(5, (2,), (2,)),
        hard="integer inputs",
    ),
    LayerCase(
        "embedding_bag",
        _seeded(lambda: nn.Sequential(nn.EmbeddingBag(5, 3, mode="mean"), nn.Linear(3, 2))),
        _indices(5, (4,), (2,)),
        hard="integer inputs, no forward-mode rule, no second derivative",
    ),
    LayerCase(
        "embedding_sparse",
        _seeded(
            lambda: nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Flatten(), nn.Linear(6, 2))
        ),
        _indices(5, (2,), (2,)),
        hard="the gradient is a sparse tensor",
    ),
    # Parametrizations
    LayerCase(
        "weight_norm",
        _seeded(lambda: _dense(parametrizations.weight_norm(nn.Linear(4, 4)))),
        _ROW,
        hard="no forward-mode rule",
    ),
    LayerCase(
        "weight_norm_hook",
        _seeded(_hooked_weight_norm),
        _ROW,
        hard="a hook leaves the computed weight on the module; no forward-mode rule",
    ),
    LayerCase(
        "spectral_norm",
        _seeded(lambda: _dense(parametrizations.spectral_norm(nn.Linear(4, 4))), train=False),
        _ROW,
    ),
    LayerCase(
        "spectral_norm_train",
        _seeded(lambda: _dense(parametrizations.spectral_norm(nn.Linear(4, 4)))),
        _ROW,
        writes_buffers=True,
        hard=(
            "a power iteration written into buffers moves the output at each "
            "call; no forward-mode rule"
        ),
    ),
    LayerCase(
        "orthogonal", _seeded(lambda: _dense(parametrizations.orthogonal(nn.Linear(4, 4)))), _ROW
    ),
    LayerCase("own_parametrization", _seeded(_skew), _ROW_3),
    # Functions, branches, writes
    LayerCase(
        "old_function", _seeded(lambda: Custom(OldCube.apply)), _ROW, hard="torch.func refuses it"
    ),
    LayerCase(
        "new_function", _seeded(lambda: Custom(NewCube.apply)), _ROW, hard="no forward-mode rule"
    ),
    LayerCase("new_function_forward", _seeded(lambda: Custom(DualCube.apply)), _ROW),
    LayerCase(
        "checkpoint",
        _seeded(Checkpointed),
        _ROW,
        hard="the backward pass reads the parameters again, when a swap may be over",
    ),
    LayerCase(
        "checkpoint_reentrant",
        _seeded(lambda: ReentrantCheckpointed(first=False)),
        _ROW,
        hard="torch.autograd.grad refuses it; .backward() does not",
    ),
    LayerCase(
        "checkpoint_reentrant_first",
        _seeded(lambda: ReentrantCheckpointed(first=True)),
        _ROW,
        hard="torch.autograd.grad takes the checkpointed parameters for unused: silently zero",
    ),
    LayerCase("branch_on_data", _seeded(BranchOnData), _ROW, hard=".item() of a sample"),
    LayerCase(
        "branch_on_parameter",
        _seeded(BranchOnParameter),
        _normal((1,), (2,)),
        hard=".item() of a parameter",
    ),
    LayerCase("boolean_mask", _seeded(BooleanMask), _ROW, hard="a shape that depends on the data"),
    LayerCase(
        "fresh_zeros",
        _seeded(FreshZeros),
        _ROW_3,
        hard="writes into a tensor that vmap does not know",
    ),
    LayerCase("zeros_like_inputs", _seeded(ZerosLikeInputs), _ROW_3),
    LayerCase("zeros_like_outputs", _seeded(ZerosLikeOutputs), _ROW_3),
    LayerCase("inplace_relu", _seeded(lambda: _dense(nn.ReLU(inplace=True))), _ROW),
    LayerCase("inplace_add", _seeded(InPlaceSum), _ROW_3),
    LayerCase(
        "buffer_counter",
        _seeded(Counter),
        _ROW,
        writes_buffers=True,
        hard="buffers rebound and written in place",
    ),
    LayerCase(
        "cached_activation",
        _seeded(Cache),
        _ROW,
        hard="an attribute keeps a tensor of the transform alive",
    ),
    LayerCase(
        "stop_gradient",
        _seeded(StopGradient),
        _ROW,
        hard="forward mode sees through no_grad: silently wrong",
    ),
    LayerCase(
        "input_gradient",
        _seeded(InputGradient),
        _normal((2,), (2,)),
        hard="autograd inside the residual, and none of it under no_grad",
    ),
    LayerCase("input_gradient_functional", _seeded(InputGradientFunctional), _normal((2,), (2,))),
    # Operators
    LayerCase("fft", _seeded(Spectral), _normal((6,), (6,)), hard="complex intermediates"),
    LayerCase("bilinear", _seeded(Pairwise), _ROW),
    LayerCase("einsum", _seeded(Einsum), _ROW),
    LayerCase(
        "scatter", _seeded(Scatter), _normal((4, 2), (3, 2)), hard="in-place sums into fresh zeros"
    ),
    LayerCase(
        "cdist",
        _seeded(RadialBasis),
        _normal((3,), (1,)),
        hard=(
            "no forward-mode rule, no second derivative; vmap over the cotangents of "
            "torch.func.vjp: silently wrong"
        ),
    ),
    LayerCase(
        "linear_solve",
        _seeded(LinearSolve),
        _ROW_3,
        hard="vmap over samples: refused in reverse, silently wrong in forward mode",
    ),
)
