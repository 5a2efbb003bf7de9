"""Steps in which something goes wrong on one process."""

import copy
import os
import pickle
import signal
import time
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import lmtorch

from .fits import data, group, net, parameters, share


def _begun(rank: int, size: int, **options: Any) -> tuple[nn.Module, Any, Tensor, Tensor]:
    """A network and an optimizer after a step."""
    model = net(20)
    x, y = (share(t, rank, size) for t in data())
    opt = lmtorch.LevenbergMarquardt(model, process_group=group(size), **options)
    opt.step(lambda a, b: model(a) - b, x, y)
    return model, opt, x, y


def outcome(call: Any) -> tuple[str, Any, str]:
    """The class of what a call raises, the rank that it names, and its text."""
    try:
        call()
    except Exception as error:
        return type(error).__name__, getattr(error, "rank", None), str(error)
    return "", None, ""


def _failed(call: Any, model: nn.Module, opt: Any, x: Tensor, y: Tensor) -> dict[str, Any]:
    """What a step that fails leaves behind, and the loss of a good one after it."""
    before = parameters(model)
    error, named, text = outcome(call)
    untouched = torch.equal(before, parameters(model))
    again = opt.step(lambda a, b: model(a) - b, x, y)
    return {
        "error": error,
        "rank": named,
        "text": text,
        "untouched": untouched,
        "again": float(again),
        "parameters": parameters(model),
    }


def raises(rank: int, size: int, at: int, options: dict[str, Any]) -> dict[str, Any]:
    """The closure of the last process raises in its so many-th call of a step."""
    model, opt, x, y = _begun(rank, size, **options)
    calls, steps = 0, opt._kept.steps

    def residuals(a: Tensor, b: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if rank == size - 1 and calls >= at:
            raise ZeroDivisionError("no more")
        return model(a) - b

    found = _failed(lambda: opt.step(residuals, x, y), model, opt, x, y)
    return {**found, "calls": calls, "steps": opt._kept.steps - steps}


def interrupted(rank: int, size: int) -> tuple[str, Any]:
    """Ctrl-C on the last process."""
    model, opt, x, y = _begun(rank, size)

    def residuals(a: Tensor, b: Tensor) -> Tensor:
        if rank == size - 1:
            raise KeyboardInterrupt
        return model(a) - b

    try:
        opt.step(residuals, x, y)
    except BaseException as error:
        return type(error).__name__, getattr(error, "rank", None)
    return "", None


def not_finite(rank: int, size: int, value: float) -> dict[str, Any]:
    """NaN among the data of the last process."""
    model, opt, x, y = _begun(rank, size)
    spoiled = y.clone()
    if rank == size - 1:
        spoiled[0] = value
    return _failed(lambda: opt.step(lambda a, b: model(a) - b, x, spoiled), model, opt, x, y)


def falls_back(rank: int, size: int) -> dict[str, Any]:
    """The closure of one process is not for the source that the others use."""
    model = net(20)
    x, y = (share(t, rank, size) for t in data(300))
    opt = lmtorch.LevenbergMarquardt(model, process_group=group(size))

    def residuals(a: Tensor, b: Tensor) -> Tensor:
        moved = model(a)
        if rank == size - 1:  # a weight acts outside of its layer
            moved = moved + 0 * model[0].weight.sum()
        return moved - b

    losses = [float(opt.step(residuals, x, y)) for _ in range(3)]
    return {"jacobian": opt.report.jacobian, "losses": losses, "parameters": parameters(model)}


def little_memory(rank: int, size: int) -> tuple[str, str]:
    """One process may use less memory than the others: all choose what fits there."""
    model = net(60)
    limit = 2**20 if rank == 0 else 2**30
    x, y = (share(t, rank, size) for t in data(3000))
    opt = lmtorch.LevenbergMarquardt(model, process_group=group(size), memory_limit=limit)
    loss = opt.step(lambda a, b: model(a) - b, x, y)
    return opt._last.plan.reasons[2][1], str(float(loss))


def differs(rank: int, size: int, what: str) -> tuple[str, Any, str]:
    """Processes that have come apart between two steps, or were never together."""
    model, opt, x, y = _begun(rank, size)
    odd = rank == size - 1
    if what == "parameters" and odd:
        with torch.no_grad():
            model[0].weight[0, 0] += 1e-9
    elif what == "steps" and odd:
        opt._kept.common["step"] = 7
    elif what in ("lr", "weight_decay", "upper"):  # by a schedule of one process alone
        opt.param_groups[0][what] = 0.5 + odd
    elif what in ("loss_scale", "max_trials", "xtol"):
        value = {what: 1 + odd}
        opt = lmtorch.LevenbergMarquardt(model, process_group=group(size), loss="huber", **value)
    elif what == "loader" and odd:
        return outcome(lambda: opt.step(lambda a, b: model(a) - b, [(x, y)]))
    elif what == "options":
        opt = lmtorch.LevenbergMarquardt(
            model, process_group=group(size), damping="nielsen" if odd else "trust_region"
        )
    elif what == "terms":
        terms = ((lambda a, b: model(a) - b, x, y),) * (2 if odd else 1)
        return outcome(lambda: opt.step(*terms))
    elif what == "batch" and odd:
        return outcome(lambda: opt.step(lambda: model(x) - y))
    elif what == "model":
        other = net(20 + odd)
        return outcome(lambda: lmtorch.LevenbergMarquardt(other, process_group=group(size)))
    elif what == "nothing":
        return outcome(lambda: opt.step(lambda a, b: model(a) - b, x[:0], y[:0]))
    elif what == "residuals" and odd:
        return outcome(lambda: opt.step(lambda a, b: (model(a) - b).sum(), x, y))
    elif what == "closure" and odd:
        return outcome(lambda: opt.step(y))
    return outcome(lambda: opt.step(lambda a, b: model(a) - b, x, y))


def gone_on(rank: int, size: int, what: str) -> list[Tensor]:
    """Steps after something that one process alone has done, and that changes no number."""
    model, opt, x, y = _begun(rank, size)
    if rank == size - 1:
        if what == "loaded":
            opt.load_state_dict(opt.state_dict())
        elif what == "pickled":
            model, opt = pickle.loads(pickle.dumps((model, opt)))
    if what == "refused":
        closure = () if rank == size - 1 else (lambda a, b: model(a) - b, x, y)
        assert outcome(lambda: opt.step(*closure))[0] in ("RankError", "InputError")
    return _two_more(model, opt, x, y)


def rounds_otherwise(rank: int, size: int, solver: str) -> Tensor:
    """Steps in which round-off has one process believe that the data have not changed."""
    from lmtorch.core import linearizing

    model, opt, x, y = _begun(rank, size, solver=solver, momentum="auto")
    own = linearizing._changed
    if rank == size - 1:
        linearizing._changed = lambda *args: ~own(*args)
    try:
        for count in (20, 25):
            opt.step(lambda a, b: model(a) - b, x[:count], y[:count])
    finally:
        linearizing._changed = own
    return parameters(model)


def ends_otherwise(rank: int, size: int) -> tuple[Tensor, int]:
    """A fit at whose points round-off has one process believe that it has come to its end."""
    from lmtorch.core import linearizing

    t = torch.linspace(0, 3, 40, dtype=torch.float64)
    mine = share(t, rank, size)
    own = linearizing.at_point
    if rank == size - 1:
        linearizing.at_point = lambda *args: own(*args) + 1
    try:
        found = lmtorch.least_squares(
            lambda x, t: x[0] * torch.exp(-x[1] * t) - 2 * torch.exp(-1.5 * t) - 0.1 * t,
            [1.0, 1.0], args=(mine,), process_group=group(size),
        )  # fmt: skip
    finally:
        linearizing.at_point = own
    return torch.as_tensor(found.x), int(found.nfev)


def warned(rank: int, size: int) -> list[list[str]]:
    """What is said of a wrapped module without a group, and of samples that are repeated."""
    x, y = data(61)
    table = torch.utils.data.TensorDataset(x, y)
    said = []
    for shared, drop_last in ((False, True), (True, False), (True, True)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = nn.parallel.DistributedDataParallel(net(5))
            opt = lmtorch.LevenbergMarquardt(model, process_group=group(size) if shared else None)
            sampler = torch.utils.data.DistributedSampler(table, drop_last=drop_last)
            loader = torch.utils.data.DataLoader(table, batch_size=20, sampler=sampler)
            for _ in range(2 * shared):
                opt.step(lambda a, b, model=model: model(a) - b, loader)
        said.append([str(one.message) for one in caught if one.category is UserWarning])
    return said


def refused(rank: int, size: int) -> list[tuple[str, Any, str]]:
    """What is refused before anything is sent."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    mesh = init_device_mesh("cpu", (size,))
    sharded = net(20)
    fully_shard(sharded, mesh=mesh)
    wrapped = FullyShardedDataParallel(net(20), device_id=torch.device("cpu"))
    model = net(3)
    return [
        outcome(lambda: lmtorch.LevenbergMarquardt(sharded, process_group=group(size))),
        outcome(lambda: lmtorch.LevenbergMarquardt(sharded.parameters())),
        outcome(lambda: lmtorch.LevenbergMarquardt(wrapped, process_group=group(size))),
        outcome(lambda: lmtorch.LevenbergMarquardt(wrapped.parameters())),
        outcome(lambda: lmtorch.LevenbergMarquardt(model, process_group="world")),
    ]


def killed(rank: int, size: int, how: str) -> dict[str, Any]:
    """The last process ends, or hangs, in the middle of a step."""
    model, opt, x, y = _begun(rank, size)
    before, begun, calls = parameters(model), time.monotonic(), 0

    def residuals(a: Tensor, b: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if rank == size - 1 and calls == 2:
            os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        return model(a) - b

    error, named, text = outcome(lambda: opt.step(residuals, x, y))
    return {
        "error": error,
        "rank": named,
        "text": text,
        "seconds": time.monotonic() - begun,
        "untouched": torch.equal(before, parameters(model)),
    }


def saved(rank: int, size: int) -> tuple[bytes, list[Tensor]]:
    """A checkpoint after two steps, and what comes of it in two more."""
    model = net(20)
    x, y = (share(t, rank, size, "uneven") for t in data())
    opt = lmtorch.LevenbergMarquardt(model, process_group=group(size), solver="cholesky")
    for _ in range(2):
        opt.step(lambda a, b: model(a) - b, x, y)
    kept = pickle.dumps({"model": model.state_dict(), "opt": copy.deepcopy(opt.state_dict())})
    return kept, _two_more(model, opt, x, y)


def restored(rank: int, size: int, checkpoint: bytes) -> list[Tensor]:
    """Two more steps from a checkpoint."""
    kept = pickle.loads(checkpoint)
    model = net(20)
    x, y = (share(t, rank, size, "uneven") for t in data())
    opt = lmtorch.LevenbergMarquardt(model, process_group=group(size), solver="cholesky")
    model.load_state_dict(kept["model"])
    opt.load_state_dict(kept["opt"])
    return _two_more(model, opt, x, y)


def _two_more(model: nn.Module, opt: Any, x: Tensor, y: Tensor) -> list[Tensor]:
    losses = [opt.step(lambda a, b: model(a) - b, x, y) for _ in range(2)]
    return [parameters(model), torch.stack(losses)]


def pickled(rank: int, size: int) -> tuple[bool, str]:
    """An optimizer that was pickled or copied takes the same steps; of another group it cannot."""
    model, opt, x, y = _begun(rank, size)
    again_model, again = pickle.loads(pickle.dumps((model, opt)))
    for one, of in ((model, opt), (again_model, again)):
        of.step(lambda a, b, one=one: one(a) - b, x, y)
    same = torch.equal(parameters(model), parameters(again_model))
    other = lmtorch.LevenbergMarquardt(net(3), process_group=dist.new_group(list(range(size))))
    copied = copy.deepcopy(other)
    assert copied._processes is not None
    same &= copied._processes.group is other._processes.group
    return same, outcome(lambda: pickle.dumps(other))[0]
