"""How often the host waits for the device in each function: counted on the stand-in for a GPU."""

import warnings
from datetime import UTC, datetime

import torch

from tests import stand_in
from tests.faces import FITS, OPTIMIZER, Run

from .machine import table

INTRODUCTION = """## Host reads

How often the host waits for the device: numbers that it reads, copies, results whose size it must
know. This is counted on the tests' stand-in for a GPU, which shows neither speed nor kernels; the
problems are those of `tests/faces.py`. For an optimizer the steps after the first are counted, and
the report is looked at outside the count; for a fit all is counted from the call to the result. SVD
and eigh wait on a GPU by themselves, within torch, and are counted apart.
"""


def run() -> str:
    """A table of all faces."""
    if stand_in.MISSING is not None:
        return f"{INTRODUCTION}\nNot counted: {stand_in.MISSING}."
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for prefix, faces in (("optimizer, ", OPTIMIZER), ("", FITS)):
            rows += [_row(prefix + name, face()) for name, face in faces.items()]
    counted = (
        f"Counted {datetime.now(UTC).date().isoformat()} with torch "
        f"{torch.__version__}; no GPU.\n\n"
    )
    return f"{INTRODUCTION}\n{counted}" + table(
        ["", "trials", "reads", "a trial", "beyond one a trial", "SVD and eigh"], rows
    )


def _row(name: str, run: Run) -> list[str]:
    reads, factorisations = stand_in.waits(run.counter)
    return [
        name,
        f"{run.trials}",
        f"{reads}",
        f"{reads / run.trials:.2f}",
        f"{reads - run.trials}",
        f"{factorisations}",
    ]
