"""Fits of which each process has some of the data."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import lmtorch

from .failing import outcome
from .fits import group, share


def model(x: Tensor, t: Tensor) -> Tensor:
    """A decay with an offset."""
    return x[0] * torch.exp(-x[1] * t) + x[2]


def data(rows: int = 60) -> tuple[Tensor, Tensor]:
    """Noisy values of it, with outliers."""
    generator = torch.Generator().manual_seed(2)
    t = torch.linspace(0, 4, rows, dtype=torch.float64)
    noise = torch.randn(rows, generator=generator, dtype=torch.float64)
    y = model(torch.tensor([2.5, 1.3, 0.4], dtype=torch.float64), t) + 0.02 * noise
    y[::11] += 0.5
    return t, y


def residuals(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """Those of some of the data."""
    return model(x, t) - y


def fitted(rank: int, size: int, how: Mapping[str, Any]) -> dict[str, Any]:
    """A fit, and all that its solution says."""
    options = dict(how)
    kind, rows = options.pop("kind", "even"), options.pop("rows", 60)
    t, y = (share(one, rank, size, kind) for one in data(rows))
    start = options.pop("x0", [1.0, 1.0, 0.0])
    if options.pop("stopped", False):
        options["callback"] = _stopping(rank == size - 1)
    found = lmtorch.least_squares(
        residuals, start, args=(t, y), process_group=group(size), **options
    )
    return {
        "x": torch.as_tensor(found.x),
        "cost": float(found.cost),
        "status": found.status,
        "grad": torch.as_tensor(found.grad),
        "optimality": float(found.optimality),
        "nfev": int(found.nfev),
        "fun": torch.as_tensor(found.fun),
        "jac": torch.as_tensor(found.jac),
        "reason": str(found.message),
    }


def _stopping(when: bool) -> Any:
    seen = 0

    def callback(_: Any) -> None:
        nonlocal seen
        seen += 1
        if when and seen == 3:
            raise StopIteration

    return callback


def wide(rank: int, size: int, kind: str) -> Tensor:
    """A fit of more parameters than the SVD is chosen for: where it has ended."""
    t = torch.linspace(0, 3, 300, dtype=torch.float64)
    centres = torch.linspace(0, 3, 70, dtype=torch.float64)
    y = torch.sin(3 * t)

    def fun(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(torch.exp(-4 * (t[:, None] - centres) ** 2) @ x) * 1.2 - y

    shares = (share(one, rank, size, kind) for one in (t, y))
    found = lmtorch.least_squares(
        fun, torch.zeros(70, dtype=torch.float64), args=tuple(shares), max_nfev=8,
        process_group=group(size),
    )  # fmt: skip
    return torch.cat([found.fun.square().sum()[None], found.cost[None], found.x])


def refused(rank: int, size: int) -> list[tuple[str, Any, str]]:
    """What does not go with a group."""
    t, y = (share(one, rank, size) for one in data())
    start = [1.0, 1.0, 0.0]
    shared = {"args": (t, y), "process_group": group(size)}

    def fit(x0: Any = start, fun: Any = residuals, **options: Any) -> Any:
        return outcome(lambda: lmtorch.least_squares(fun, x0, **{**shared, **options}))

    odd = rank == size - 1
    spoiled = y.clone()
    spoiled[0] = float("nan") if odd else spoiled[0]

    def raising(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if odd and bool((x != torch.tensor(start, dtype=x.dtype)).any()):
            raise ZeroDivisionError("no more")
        return residuals(x, t, y)

    return [
        fit(n_starts=3),
        fit(compile=True),
        fit(f_scale="mad", loss="huber"),
        fit(jac="2-point"),
        fit(torch.ones(2, 3, dtype=torch.float64), in_dims=(0, None, None)),
        fit([1.0, 1.0 + odd, 0.0]),
        fit(args=(t.requires_grad_(), y)),
        fit(args=(t.detach(), spoiled)),
        fit(fun=raising, args=(t.detach(), y)),
        fit(args=(t[:0].detach(), y[:0])),
        *(
            fit(args=(t.detach(), y), **options)
            for options in (
                {"max_nfev": 5 + odd},
                {"loss": "cauchy" if odd else "linear"},
                {"bounds": (-1.0 - odd, 9.0)},
            )
        ),
    ]
