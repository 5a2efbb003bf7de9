"""What `import lmtorch` and a first fit do not import: each of these takes a part of a second.

The times themselves are not asserted; `python -X importtime` shows them.
"""

import os
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.linalg import lapack
from test_packaging import run

from lmtorch.arrays import matrices

# what only a call may bring that needs it
HEAVY = {
    *("scipy.linalg", "scipy.optimize", "scipy.special", "scipy.stats", "sympy"),
    *("torch._dynamo", "torch._inductor", "pandas", "matplotlib", "tqdm"),
    *("xarray", "dask", "distributed", "zarr"),
}


def brought(use: str) -> str:
    """Which of them some code imports that torch has not imported itself."""
    return run(f"""
import sys, torch
before = set(sys.modules)
{use}
print(sorted({HEAVY} & (set(sys.modules) - before)))
""").strip()


def test_an_import_loads_nothing_heavy() -> None:
    assert brought("import lmtorch") == "[]"


@pytest.fixture
def fresh() -> Iterator[None]:
    """LAPACK as nobody has looked for it yet."""
    matrices._lapack.cache_clear()
    yield
    matrices._lapack.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_lapack_comes_from_the_package_whose_extension_is_not_as_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matrices, "USED", ("of another name",))
    assert matrices._lapack() is lapack
    matrix = np.arange(6.0).reshape(3, 2) ** 2
    u, singular, vh = matrices.svd(matrix)  # type: ignore[arg-type]
    np.testing.assert_allclose(u * singular @ vh, matrix, atol=1e-13)  # type: ignore[operator]


DATA = """
import lmtorch
x = torch.linspace(0, 1, 30, dtype=torch.float64)
y = 2 * torch.exp(-3 * x) + 0.1 * torch.sin(40 * x)
model = lambda x, a, b: a * torch.exp(-b * x)
residual = lambda p, y: p[0] * torch.exp(-p[1] * x) - y
"""
FITS = {
    "least_squares": "lmtorch.least_squares(residual, [1.0, 1.0], args=(y,)).x",
    "again": "[lmtorch.least_squares(residual, [1.0, 1.0], args=(y,)) for _ in range(16)]",
    "curve_fit": "lmtorch.curve_fit(model, x, y).popt",
    "of arrays": "lmtorch.curve_fit(model, x.numpy(), y.numpy(), [1.0, 1.0]).popt",
    "in a box": "lmtorch.curve_fit(model, x, y, [1.0, 1.0], bounds=(0, 10)).popt",
    "with errors": "fit = lmtorch.curve_fit(model, x, y); fit.pcov, fit.stderr",
    "many": "lmtorch.curve_fit(model, x, torch.stack([y, 2 * y])).popt",
}


# a copy of one process for each, in which none of the others has been
FORKED = """
import os
for name, use in USES.items():
    reading, writing = os.pipe()
    if not os.fork():
        exec(DATA + use)
        os.write(writing, repr(sorted(HEAVY & (set(sys.modules) - before))).encode())
        os._exit(0)
    os.close(writing)
    print(name, os.fdopen(reading).read(), os.wait()[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process cannot be copied")
def test_a_first_fit_loads_nothing_heavy() -> None:
    found = brought(f"DATA, USES, HEAVY = {DATA!r}, {FITS!r}, {HEAVY!r}\n{FORKED}").splitlines()
    assert found == [*(f"{name} [] 0" for name in FITS), "[]"]


def test_what_is_heavy_is_found() -> None:
    """It is looked for in each copy."""
    uses = {"one": "sys.modules['dask'] = sys", "two": ""}
    found = brought(f"DATA, USES, HEAVY = '', {uses!r}, {HEAVY!r}\n{FORKED}").splitlines()
    assert found == ["one ['dask'] 0", "two [] 0", "[]"]
