"""Recurrent layers of torch, whose rows come sample by sample; the reference is autograd's."""

from collections.abc import Callable
from copy import deepcopy
from threading import Event, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmtorch
from lmtorch._threads import without_onednn
from lmtorch.jacobians.per_sample import PerSample
from lmtorch.training.recurrent import has_recurrences, taken_apart
from tests.layers import LastStep

SAMPLES, TIMES, WIDTH = 7, 4, 3
Make = Callable[[], nn.Module]


class Steps(nn.Module):
    """A cell, time by time, and the output of its last state."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.out = cell, nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        start = torch.zeros(len(x), WIDTH, dtype=x.dtype)
        state: Any = (start, start) if isinstance(self.cell, nn.LSTMCell) else start
        for time in range(x.shape[1]):
            state = self.cell(x[:, time], state)
        found: Tensor = self.out(state[0] if isinstance(state, tuple) else state)
        return found


class FromLearnt(nn.Module):
    """A layer that begins with a state that is learnt, one for all samples."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(0.1 * torch.ones(1, 1, WIDTH))
        self.layer, self.out = nn.GRU(2, WIDTH, batch_first=True), nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        start = self.start.expand(1, len(x), WIDTH).contiguous()
        found: Tensor = self.out(self.layer(x, start)[0][:, -1])
        return found


MODELS: dict[str, Make] = {
    "RNN": lambda: LastStep(nn.RNN(2, WIDTH, batch_first=True), WIDTH),
    "RNN of ReLU": lambda: LastStep(nn.RNN(2, WIDTH, nonlinearity="relu", batch_first=True), WIDTH),
    "GRU": lambda: LastStep(nn.GRU(2, WIDTH, batch_first=True), WIDTH),
    "LSTM": lambda: LastStep(nn.LSTM(2, WIDTH, batch_first=True), WIDTH),
    "LSTM both ways": lambda: LastStep(
        nn.LSTM(2, WIDTH, num_layers=2, bidirectional=True, batch_first=True), 2 * WIDTH
    ),
    "RNNCell": lambda: Steps(nn.RNNCell(2, WIDTH)),
    "GRUCell": lambda: Steps(nn.GRUCell(2, WIDTH)),
    "LSTMCell": lambda: Steps(nn.LSTMCell(2, WIDTH)),
    "a learnt state": FromLearnt,
}


def data(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Sequences and sums of them."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, TIMES, 2, generator=generator, dtype=dtype)
    return x, x.sum((1, 2))[:, None].tanh()


# oneDNN has a kernel for an LSTM of float32, and none for float64
@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, torch.float64) for name in MODELS), ("LSTM", torch.float32)]
)
def test_a_recurrent_layer_goes_sample_by_sample_and_steps_as_by_rows_of_autograd(
    name: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    net, (x, y) = MODELS[name]().to(dtype), data(dtype)
    own = tuple(net.parameters())
    rows = [torch.autograd.grad(v, own, retain_graph=True) for v in net(x).reshape(-1)]
    row_by_row = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])
    opt = lmtorch.LevenbergMarquardt(net, solver="dual", damping="nielsen")
    theirs = deepcopy(net)
    opt.step(lambda x, y: net(x) - y, x, y)  # a fallback would warn, which is an error
    assert opt._last is not None
    (ladder,) = opt._last.ladders
    assert isinstance(ladder.current, PerSample)
    given: Any = {"solver": "dual", "damping": "nielsen", "jacobian": lambda x, y: row_by_row}
    lmtorch.LevenbergMarquardt(theirs, **given).step(lambda x, y: theirs(x) - y, x, y)
    # round-off of the rows, which a damping of 1e-3 multiplies by a thousand
    for p, other in zip(own, theirs.parameters(), strict=True):
        torch.testing.assert_close(p, other, rtol=0, atol=1e4 * torch.finfo(dtype).eps)


def test_onednn_is_as_it_was_after_a_call_that_failed() -> None:
    layer = nn.LSTM(2, WIDTH)
    before = torch._C._get_mkldnn_enabled()

    def fails(x: Tensor) -> Tensor:
        with taken_apart():
            return layer(x[:, None, :1])[0]  # one input is missing

    with pytest.raises(RuntimeError, match="input"):
        torch.func.vmap(fails)(torch.ones(5, 4, 2))
    assert torch._C._get_mkldnn_enabled() == before


def test_onednn_is_as_it_was_after_calls_of_two_threads() -> None:
    """The second found it switched off by the first, and had left it so for the whole process."""
    before = torch._C._get_mkldnn_enabled()
    inside, leave = Event(), Event()

    def second() -> None:
        with without_onednn():
            inside.set()
            leave.wait(10)

    thread = Thread(target=second)
    with without_onednn():
        thread.start()
        assert not inside.wait(0.2), "two threads switch it at once"
    leave.set()
    thread.join(10)
    assert inside.is_set()
    assert torch._C._get_mkldnn_enabled() == before


def test_other_calls_are_left_as_they_are() -> None:
    assert not has_recurrences(nn.Sequential(nn.Linear(2, 2), nn.TransformerEncoderLayer(2, 1)))
    with taken_apart():  # no transform: torch's own kernel
        assert torch._C._len_torch_function_stack() == 0
