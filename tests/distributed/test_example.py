"""The example runs under torchrun, and comes to what one process comes to."""

import os
import re
import subprocess
import sys
from pathlib import Path

from examples import many_processes

ROOT = Path(__file__).parents[2]


def test_torchrun() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(ROOT / "examples" / "many_processes.py")],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = re.search(r"2 processes, 4000 samples: root mean square ([\d.]+)", run.stdout)
    assert found is not None, run.stdout
    # the same steps but for the order of sums, whose round-off twenty steps may amplify
    assert abs(float(found[1]) - many_processes.main()) < 1e-5
