"""Peak memory of a step of each Levenberg–Marquardt, each in a process of its own (Linux)."""

import re
import subprocess
import sys
from pathlib import Path

from . import rivals
from .machine import table
from .step_time import TASKS

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def run() -> str:
    """A table for each task."""
    if not RESET.exists():
        return "## Peak memory\n\nNot measured: this system does not tell the peak of a process."
    rows = []
    for key, task in TASKS.items():
        peaks = {name: _peak(key, name) for name in rivals.LM}
        ours = peaks["lmtorch (all rows)"]
        for name, peak in peaks.items():
            rows.append([task.name, name, f"{peak:.0f} MiB", f"{peak / ours:.2f}"])
    intro = (
        "The peak during two steps, above what the process held before, after a warm-up on a few "
        "rows."
    )
    return f"## Peak memory\n\n{intro}\n\n" + table(["", "", "peak", "over lmtorch"], rows)


def _peak(key: str, name: str) -> float:
    child = [sys.executable, "-W", "ignore", "-m", __spec__.name, key, name]
    return float(
        subprocess.run(child, capture_output=True, text=True, check=True).stdout.split()[-1]
    )


def _high_water() -> float:
    """MiB that the process has had resident at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return int(found[1]) / 1024


def _measure(key: str, name: str) -> None:
    task = TASKS[key]
    x, y = task.data()
    rivals.LM[name](task.network(0), x[:50], y[:50])()
    step = rivals.LM[name](task.network(0), x, y)
    RESET.write_text("5")  # the peak begins anew: proc(5), clear_refs
    before = _high_water()
    step()
    step()
    print(_high_water() - before)


if __name__ == "__main__":
    _measure(*sys.argv[1:])
