"""Optima of many fits, found without lmtorch; loops of scipy's; JAX in a process of its own."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import curve_fit, leastsq

from .many_tasks import Task

BLOCK = 20_000  # fits whose optima are sought at once
SETTLED = 1e-13  # of the parameters: a step that short is the last
BESIDE = 1e-3  # of the parameters, by which a start is moved aside of where a fit has ended


def leastsq_loop(task: Task, y: Any) -> Any:
    """MINPACK with its exact Jacobian, one fit after another; parameters, and the code of each."""
    x, model, jacobian = task.x, task.model_numpy, task.jacobian_numpy
    found, codes = [], []
    for one in y:
        p, code = leastsq(
            lambda p, one=one: model(x, *p) - one,
            task.start,
            Dfun=lambda p: jacobian(x, *p),
            col_deriv=True,
        )
        found.append(p)
        codes.append(code)
    return np.array(found), np.array(codes)


def curve_fit_loop(task: Task, y: Any) -> Any:
    """scipy's `curve_fit` as users call it, by differences; parameters, and standard errors."""
    found, errors = [], []
    for one in y:
        try:
            p, covariance = curve_fit(task.model_numpy, task.x, one, task.start)
        except RuntimeError:  # it gave up
            p, covariance = np.full(len(task.start), np.nan), np.eye(len(task.start))
        found.append(p)
        errors.append(np.sqrt(np.diag(covariance)))
    return np.array(found), np.array(errors)


# ---- the optimum ---------------------------------------------------------------------------------


def costs(task: Task, p: Any, y: Any) -> Any:
    """Sum of squares of each fit, in float64 whatever the fit was in."""
    p = np.asarray(p, dtype=float)
    return np.concatenate([
        ((task.model_numpy(task.x, *(c[:, None] for c in p[at].T)) - y[at]) ** 2).sum(-1)
        for at in _blocks(len(p))
    ])  # fmt: skip


class Optima(NamedTuple):
    """Minima that a tight fit in float64 finds, from the truth and from the start of all."""

    task: Task
    y: Any
    minima: list[tuple[Any, Any]]  # parameters and sums of squares

    @classmethod
    def of(cls, task: Task, y: Any, true: Any) -> "Optima":
        """Both, by a method of our own."""
        minima = []
        for start in (true, np.broadcast_to(np.array(task.start), true.shape)):
            p = np.concatenate([_descended(task, y[at], start[at]) for at in _blocks(len(y))])
            minima.append((p, costs(task, p, y)))
        return cls(task, y, minima)

    def near(self, found: Any, tolerance: float) -> tuple[Any, Any]:
        """Which fits have the cost of one of the minima, and which the parameters.

        The first fits may be looked at alone. Costs are compared relatively, parameters relatively
        or, where they are small, absolutely; the sign of a width has no meaning.
        """
        p, some = np.array(found, dtype=float), len(found)
        p[:, self.task.even] = np.abs(p[:, self.task.even])
        cost = costs(self.task, p, self.y[:some])
        right, close = np.zeros((2, some), dtype=bool)
        for best, lowest in self.minima:
            best, lowest = best[:some].copy(), lowest[:some]
            best[:, self.task.even] = np.abs(best[:, self.task.even])
            right |= np.abs(cost - lowest) <= tolerance * lowest
            close |= (np.abs(p - best) <= tolerance * np.maximum(np.abs(best), 1)).all(-1)
        return right | (cost <= np.minimum(*(lowest[:some] for _, lowest in self.minima))), close

    def at_minimum(self, found: Any, chosen: Any, tolerance: float) -> int:
        """How many of the chosen fits are at a minimum of their own.

        A tight fit from a thousandth beside the end comes back to its cost from a minimum; from a
        slope, a saddle or a point where a fit has only stopped it goes on downhill.
        """
        p, y = np.array(found, dtype=float)[chosen], self.y[: len(found)][chosen]
        if not len(p):
            return 0
        aside = p * (1 + BESIDE * np.random.default_rng(0).choice((-1, 1), p.shape))
        lowest = costs(self.task, _descended(self.task, y, aside), y)
        return int(np.sum(np.abs(costs(self.task, p, y) - lowest) <= tolerance * lowest))


def _blocks(count: int) -> list[slice]:
    return [slice(at, at + BLOCK) for at in range(0, count, BLOCK)]


def _descended(task: Task, y: Any, start: Any) -> Any:
    """Levenberg's and Marquardt's method as Marquardt wrote it, all fits at once, until none moves.

    The Jacobian is the one in NumPy, written by hand, so that nothing of lmtorch takes part.
    """
    p = np.array(start, dtype=float)
    damping, cost, going = np.full(len(p), 1e-3), costs(task, p, y), np.arange(len(p))
    for _ in range(500):
        columns = [column[:, None] for column in p[going].T]
        J = task.jacobian_numpy(task.x, *columns).transpose(1, 2, 0)
        r = task.model_numpy(task.x, *columns) - y[going]
        A, g = J.transpose(0, 2, 1) @ J, np.einsum("bmn,bm->bn", J, r)
        diagonal = np.einsum("bnn->bn", A).copy()
        np.einsum("bnn->bn", A)[...] += damping[going, None] * diagonal + 1e-300
        step = -np.linalg.solve(A, g[..., None])[..., 0]
        trial = p[going] + step
        value = costs(task, trial, y[going])
        gained = value <= cost[going]
        better = going[gained]
        p[better], cost[better] = trial[gained], value[gained]
        damping[better] = np.maximum(damping[better] / 10, 1e-14)
        damping[going[~gained]] *= 10
        short = (np.abs(step) <= SETTLED * (np.abs(p[going]) + 1e-3)).all(-1)
        going = going[~short & (damping[going] < 1e12)]
        if not len(going):
            break
    return p


# ---- JAX -----------------------------------------------------------------------------------------

JAX = os.environ.get("JAX_PYTHON", "")  # a Python that has jax, jaxopt and optimistix


def jax_fits(task: Task, y: Any, dtype: str, device: str = "cpu") -> dict[str, dict[str, Any]]:
    """By name of the peer: seconds of the best warm call, of the first, and parameters.

    JAX and torch in one process would share threads and memory, and few have both installed: the
    environment variable JAX_PYTHON names the Python that runs them. Without it there are none.
    """
    if not JAX:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        given, taken = Path(folder) / "given.npz", Path(folder) / "taken.npz"
        np.savez(given, x=task.x, y=y.astype(dtype), start=np.array(task.start))
        child = [JAX, str(Path(__file__).with_name("many_jax.py"))]
        kind = task.name.split(",")[0]
        done = subprocess.run(
            [*child, kind, dtype, device, str(given), str(taken)],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if done.returncode:
            print(f"JAX did not run: {done.stderr.strip().splitlines()[-1:]}")
            return {}
        peers = json.loads(done.stdout.splitlines()[-1])
        with np.load(taken) as file:
            return {name: told | {"p": file[name]} for name, told in peers.items()}
