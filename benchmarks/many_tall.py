"""One iteration of 10⁶ residuals with 50 parameters, and what memory it takes above the data.

Each way has a process of its own (Linux), because the peak of memory is that of a process.
"""

import ctypes
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lmtorch

from .machine import table
from .paired import Spent, shown, timed

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
ROWS, PEAKS = 1_000_000, 16
# of glibc: blocks from this size on go back to the system when they are freed. By itself it raises
# the threshold up to 32 MiB with each that is freed, and keeps what fits of fewer rows have left.
RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
EVALUATIONS = 5


def spectrum(p: Tensor, x: Tensor) -> Tensor:
    """Sixteen Gaussians on a straight line, 50 parameters; as well in NumPy."""
    exp = np.exp if isinstance(x, np.ndarray) else torch.exp
    total = p[48] + p[49] * x
    for i in range(PEAKS):
        total = total + p[i] * exp(-(((x - p[16 + i]) / p[32 + i]) ** 2))
    return total


def spectrum_jacobian(p: Any, x: Any) -> Any:
    """Its derivatives (rows, 50), for scipy."""
    J = np.empty((len(x), 50))
    for i in range(PEAKS):
        z = (x - p[16 + i]) / p[32 + i]
        J[:, i] = np.exp(-(z**2))
        J[:, 16 + i] = 2 * p[i] * J[:, i] * z / p[32 + i]
        J[:, 32 + i] = J[:, 16 + i] * z
    J[:, 48], J[:, 49] = 1, x
    return J


def data(rows: int) -> tuple[Any, Any, Any]:
    """A start, x and y; the truth is a few percent away."""
    rng = np.random.default_rng(0)
    true = np.concatenate([
        rng.uniform(1, 3, PEAKS), (np.arange(PEAKS) + 0.5) / PEAKS, np.full(PEAKS, 0.02), [0.5, 0.2]
    ])  # fmt: skip
    x = np.linspace(0, 1, rows)
    y = spectrum(true, x) + 0.05 * rng.standard_normal(rows)
    return true * (1 + 0.05 * rng.uniform(-1, 1, 50) * (np.arange(50) // 16 != 1)), x, y


# ---- the ways ------------------------------------------------------------------------------------


def _step(start: Any, x: Any, y: Any) -> Callable[[], float]:
    p = torch.from_numpy(start).clone().requires_grad_()
    optimizer = lmtorch.LevenbergMarquardt([p])
    t, z = torch.from_numpy(x), torch.from_numpy(y)

    def iterations() -> float:
        trials = 0
        for _ in range(EVALUATIONS):
            optimizer.step(lambda t, z: spectrum(p, t) - z, t, z)
            trials += 1
        return trials

    return iterations


def _least_squares(start: Any, x: Any, y: Any) -> Callable[[], float]:
    t, z = torch.from_numpy(x), torch.from_numpy(y)
    return lambda: (
        lmtorch.least_squares(
            lambda p, t, z: spectrum(p, t) - z, start, args=(t, z), max_nfev=EVALUATIONS
        ).nfev
    )


def _scipy(start: Any, x: Any, y: Any) -> Callable[[], float]:
    from scipy.optimize import least_squares

    return lambda: (
        least_squares(
            lambda p: spectrum(p, x) - y,
            start,
            lambda p: spectrum_jacobian(p, x),
            max_nfev=EVALUATIONS,
        ).nfev
    )


WAYS = {
    "lmtorch, `step`": _step,
    "lmtorch, `least_squares`": _least_squares,
    "scipy least_squares, exact J": _scipy,
}


def run() -> str:
    """The table."""
    if not RESET.exists():
        return "### Tall\n\nNot measured: this system does not tell the peak of a process."
    rows = []
    for name in WAYS:
        command = [sys.executable, "-W", "ignore", "-m", __spec__.name]
        spent = child([*command, "time", name])
        held = child([*command, "peak", name], RETURNED)
        if spent is None or held is None:
            continue
        rows.append([
            name, shown(spent["processor"]), shown(spent["wall"]), f"{held['peak']:.0f} MiB",
        ])  # fmt: skip
    intro = (
        f"{ROWS:,} residuals, 50 parameters: sixteen Gaussians on a straight line, in float64. "
        f"Time of an iteration: that of {EVALUATIONS} steps, or of a call that may evaluate the "
        f"residuals {EVALUATIONS} times, over their number, with all that belongs to the call. The "
        "peak of memory is that of the process, above what it held with the data; it is measured "
        "by itself, with MALLOC_MMAP_THRESHOLD_=1048576, so that the allocator returns what is "
        "freed in blocks of a mebibyte and more, and times are without that."
    )
    header = ["", "processor, an iteration", "wall, an iteration", "peak above the data"]
    return f"### 10⁶ × 50, an iteration\n\n{intro}\n\n{table(header, rows)}"


def child(
    command: list[str], variables: Mapping[str, str] | None = None
) -> dict[str, float] | None:
    """What a process of its own prints last, None if it fails; with environment variables."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=900,
        env=os.environ | (variables or {}),
    )  # fmt: skip
    if done.returncode:
        print(f"{command[-1]} did not run: {done.stderr.strip().splitlines()[-1:]}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def high_water() -> float:
    """MiB that the process has had resident at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return int(found[1]) / 1024


def _called(name: str) -> Callable[[], float]:
    """A way with its data, after a first call with fewer."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    WAYS[name](*data(2_000))()
    return WAYS[name](*data(ROWS))


def _time(name: str) -> dict[str, float]:
    """The least time of an iteration."""
    call = _called(name)
    count, spent = timed(call)
    again, second = timed(call) if spent.wall < 20 else (count, spent)
    return Spent(*map(min, spent.per(count), second.per(again)))._asdict()


def _peak(name: str) -> dict[str, float]:
    """The peak of memory above the data."""
    call = _called(name)
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator has kept would hide as much of the peak
    RESET.write_text("5")  # the peak begins anew: proc(5), clear_refs
    before = high_water()
    call()
    return {"peak": high_water() - before}


if __name__ == "__main__":
    print(json.dumps({"time": _time, "peak": _peak}[sys.argv[1]](sys.argv[2])))
