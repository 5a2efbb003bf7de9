"""Small trainings on data that lie with several processes, or with one."""

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import lmtorch
from lmtorch.core.curvature import exact_hessian
from lmtorch.training.terms import terms_of

Data = tuple[Tensor, Tensor]


def data(rows: int = 60) -> Data:
    """Noisy values of a surface of two variables."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(rows, 2, generator=generator, dtype=torch.float64) * 4 - 2
    noise = 0.05 * torch.randn(rows, 1, generator=generator, dtype=torch.float64)
    return x, torch.sin(x[:, :1]) * x[:, 1:] + noise


def share(tensor: Tensor, rank: int, size: int, kind: str = "even") -> Tensor:
    """The samples of one process: as many for each, more for the later, or none for the first."""
    count = len(tensor)
    if kind == "uneven":
        ends = [count * place * (place + 1) // (size * (size + 1)) for place in range(size + 1)]
    elif kind == "empty" and size > 1:
        ends = [0, *(count * place // (size - 1) for place in range(size))]
    else:
        ends = [count * place // size for place in range(size + 1)]
    return tensor[ends[rank] : ends[rank + 1]]


def net(hidden: int, outputs: int = 1) -> nn.Sequential:
    """A network of two inputs."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, outputs)).double()


def group(size: int) -> Any:
    """The group of all processes; None for one."""
    return None if size == 1 else dist.group.WORLD


def parameters(model: nn.Module) -> Tensor:
    """All of them as one vector."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def train(rank: int, size: int, how: Mapping[str, Any]) -> list[Tensor]:
    """The parameters after each step, and the losses before them."""
    return _trained(rank, size, **how)[0]


def status_of(rank: int, size: int, how: Mapping[str, Any]) -> str:
    """Where a training has ended."""
    return _trained(rank, size, **how)[1].status.name


def _trained(
    rank: int,
    size: int,
    steps: int = 4,
    hidden: int = 6,
    rows: int = 60,
    kind: str = "even",
    batch: bool = True,
    options: Mapping[str, Any] | None = None,
    terms: bool = False,
    criterion: bool = False,
    wrapped: bool = False,
    growing: bool = False,
    loader: bool = False,
    dtype: torch.dtype = torch.float64,
) -> tuple[list[Tensor], lmtorch.LevenbergMarquardt]:
    model: nn.Module = net(hidden, 2 if criterion else 1).to(dtype)
    if wrapped:
        model = nn.parallel.DistributedDataParallel(model)
    whole = [t.to(dtype) for t in data(rows)]
    opt = lmtorch.LevenbergMarquardt(model, process_group=group(size), **(options or {}))
    likelihood = lmtorch.CrossEntropyLoss()
    origin = share(torch.zeros(1, 2, dtype=dtype), rank, size)
    after, losses = [], []
    for step in range(steps):
        count = rows - 5 * (steps - step) if growing else rows
        x, y = (share(t[:count], rank, size, kind) for t in whole)

        def residuals(a: Tensor, b: Tensor) -> Any:
            if criterion:
                return likelihood(model(a), (b[:, 0] > 0).long())
            return model(a) - b

        def at_origin(a: Tensor) -> Tensor:
            return 3 * (model(a) - 0.1)

        if terms:
            losses.append(opt.step((residuals, x, y), (at_origin, origin)))
        elif loader:
            table = torch.utils.data.TensorDataset(x, y)
            losses.append(opt.step(residuals, torch.utils.data.DataLoader(table, batch_size=16)))
        elif batch:
            losses.append(opt.step(residuals, x, y))
        else:
            losses.append(opt.step(lambda x=x, y=y: residuals(x, y)))
        after.append(parameters(model))
    return [*after, torch.stack(losses)], opt


def seeded(seed: int) -> nn.Sequential:
    """A network with a buffer, as another process would not make it."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5), nn.Linear(5, 1)).double()
    model[1].running_mean += seed
    return model


def started(rank: int, size: int) -> list[Tensor]:
    """Parameters and buffers when the optimizer has been made."""
    model = seeded(rank)
    lmtorch.LevenbergMarquardt(model, process_group=group(size))
    return [parameters(model), model[1].running_mean.clone()]


def prepared(rank: int, size: int, who: tuple[int, ...]) -> list[Tensor]:
    """Parameters after steps, where some have prepared their state before, as checkpoints do."""
    model = net(40)
    x, y = (share(t, rank, size) for t in data())
    opt = lmtorch.LevenbergMarquardt(model, process_group=group(size))
    for _ in range(2):
        if rank in who:
            opt.step(None)
        opt.step(lambda a, b: model(a) - b, x, y)
    return [parameters(model)]


def normed(rank: int, size: int) -> list[Tensor]:
    """Parameters and buffers after steps in which each has seen its own data."""
    model = seeded(0)
    x, y = (share(t, rank, size) for t in data())
    opt = lmtorch.LevenbergMarquardt(model, process_group=group(size))
    for _ in range(2):
        opt.step(lambda: model(x) - y)
    return [parameters(model), model[1].running_mean.clone(), model[1].num_batches_tracked.clone()]


def dropped(rank: int, size: int) -> list[Tensor]:
    """Parameters after steps with dropout, and what is drawn next."""
    model = nn.Sequential(net(8), nn.Dropout(0.2), nn.Linear(1, 1).double())
    x, y = (share(t, rank, size) for t in data())
    opt = lmtorch.LevenbergMarquardt(model, process_group=group(size))
    torch.manual_seed(rank)
    for _ in range(2):
        opt.step(lambda a, b: model(a) - b, x, y)
    return [parameters(model), torch.rand(3)]


def explained(rank: int, size: int) -> str:
    """What explain() says."""
    _, opt = _trained(rank, size, steps=1, hidden=40, options={"scaling": "more"})
    with contextlib.redirect_stdout(io.StringIO()) as text:
        opt.explain()
    return text.getvalue()


def curved(rank: int, size: int, kind: str) -> list[Tensor]:
    """The exact Hessian at the start of a training, and the gradient."""
    model = net(3)
    x, y = (share(t, rank, size, kind) for t in data())
    opt = lmtorch.LevenbergMarquardt(model, weight_decay=0.3, process_group=group(size))
    with torch.no_grad():
        task = opt._task(terms_of(lambda a, b: model(a) - b, (x, y), empty=True))
        found = exact_hessian(task.problem, task.start.x)
    assert found is not None
    return list(found)
