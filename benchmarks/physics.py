"""What brings a physics-informed network to its digits: damping, scaling, acceleration compared."""

import time
from typing import Any

import torch
from torch import nn

import lmtorch
from examples import poisson_2d

from .machine import table

CHECKED = (100, 300)  # steps
WAYS: dict[str, dict[str, Any]] = {
    "defaults: Nielsen, D = I, geodesic acceleration": {},
    "without acceleration": {"acceleration": False},
    "Marquardt's factors": {"acceleration": False, "damping": "marquardt"},
    "Marquardt's factors, acceleration": {"acceleration": True, "damping": "marquardt"},
    "trust region, SVD": {"acceleration": False, "damping": "trust_region", "solver": "svd"},
    "trust region, SVD, acceleration": {
        "acceleration": True,
        "damping": "trust_region",
        "solver": "svd",
    },
    "Moré's scaling": {"acceleration": False, "scaling": "more"},
    "Moré's scaling, acceleration": {"acceleration": True, "scaling": "more"},
}


def run() -> str:
    """Relative L2 errors of Poisson's equation in two dimensions after some steps."""
    rows = []
    for name, options in WAYS.items():
        net = poisson_2d.PROBLEM.network()
        opt = lmtorch.LevenbergMarquardt(net, **options)
        errors, seconds = _errors(net, opt)
        rows.append(
            [name, *(f"{error:.1e}" for error in errors), f"{seconds / max(CHECKED) * 1e3:.0f} ms"]
        )
    intro = (
        "Poisson's equation on a square (`examples/poisson_2d.py`: 2-20-20-1, n = 501, 1,740 "
        "points, float64). Relative L2 error of the solution."
    )
    header = ["", *(f"after {steps} steps" for steps in CHECKED), "a step"]
    return f"## Physics-informed networks\n\n{intro}\n\n{table(header, rows)}"


def _errors(net: nn.Module, opt: torch.optim.Optimizer) -> tuple[list[float], float]:
    terms, found, seconds = poisson_2d.terms(net), [], 0.0
    for step in range(1, max(CHECKED) + 1):
        begun = time.perf_counter()
        opt.step(*terms)
        seconds += time.perf_counter() - begun
        if step in CHECKED:
            found.append(poisson_2d.error(net))
    return found, seconds
