"""What an installed lmtorch must do where nothing but its own requirements is installed.

`make package` runs this in an empty environment, from a folder without the sources: a file that
the wheel lacks, or a module that imports what users need not have, is found here.
"""

import importlib
import importlib.util
import math
import pkgutil
import sys
from importlib.metadata import metadata, version
from pathlib import Path

import torch
from torch import nn

import lmtorch

NAME = "levenberg-marquardt"
EXTRAS = ("matplotlib", "tqdm", "pandas", "xarray", "dask", "zarr", "uncertainties")


def the_package_is_the_installed_one() -> None:
    assert Path(lmtorch.__file__).is_relative_to(sys.prefix), lmtorch.__file__
    assert version(NAME) == lmtorch.__version__
    assert metadata(NAME)["License-Expression"] == "BSD-3-Clause"
    assert (Path(lmtorch.__file__).parent / "py.typed").exists()


def every_module_is_there_and_needs_no_extra() -> None:
    assert not [name for name in EXTRAS if importlib.util.find_spec(name)]
    # the one folder that is nothing without its extra is not imported by `import lmtorch`
    found = pkgutil.walk_packages(lmtorch.__path__, "lmtorch.", onerror=lambda name: None)
    for module in found:
        if module.name != "lmtorch.xarray":
            importlib.import_module(module.name)


def a_curve_is_fitted() -> None:
    t = [0.1 * i for i in range(40)]
    y = [2.5 * math.exp(-1.3 * s) + 0.01 * math.sin(40 * s) for s in t]
    fit = lmtorch.curve_fit(lambda t, a, k: a * torch.exp(-k * t), t, y)
    assert fit.success
    assert abs(fit["k"] - 1.3) < 0.01
    assert "k" in fit.report()


def a_network_is_trained() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 10), nn.Tanh(), nn.Linear(10, 1))
    x = torch.linspace(-1, 1, 100)[:, None]
    opt = lmtorch.LevenbergMarquardt(model)
    losses = [float(opt.step(lambda x: model(x) - torch.sin(3 * x), x)) for _ in range(40)]
    assert losses[-1] < 1e-3 * losses[0]


def a_peak_of_the_library_is_guessed_and_fitted() -> None:
    peak = lmtorch.models.Voigt("v") + lmtorch.models.Linear()
    x = torch.linspace(0, 10, 200, dtype=torch.float64)
    values = {"amplitude": 3.0, "center": 4.0, "sigma": 0.5, "gamma": 0.2}
    true = {
        **{f"v_{name}": value for name, value in values.items()},
        "slope": 0.1,
        "intercept": 1.0,
    }
    fit = lmtorch.curve_fit(peak, x, peak(x, **true))
    assert fit.success
    assert all(abs(fit[name] - value) < 1e-6 for name, value in true.items())


def derivatives_are_exact() -> None:
    x = torch.rand(5, 3, dtype=torch.float64)
    found = lmtorch.laplacian(lambda x: (x**3).sum(-1, keepdim=True), x)
    assert torch.allclose(found.reshape(-1), 6 * x.sum(-1))


def a_missing_extra_is_named() -> None:
    fit = lmtorch.curve_fit(lambda x, a: a * x, [1.0, 2.0, 3.0], [2.0, 4.1, 6.0])
    try:
        fit.plot()
    except lmtorch.InputError as error:
        told = str(error)
    else:
        told = "nothing"
    assert "matplotlib" in told, told
    try:
        importlib.import_module("lmtorch.xarray")
    except ImportError as error:
        told = str(error)
    assert f"{NAME}[xarray]" in told, told


CHECKS = (
    the_package_is_the_installed_one,
    every_module_is_there_and_needs_no_extra,
    a_curve_is_fitted,
    a_peak_of_the_library_is_guessed_and_fitted,
    a_network_is_trained,
    derivatives_are_exact,
    a_missing_extra_is_named,
)

if __name__ == "__main__":
    for check in CHECKS:
        check()
        print("passed:", check.__name__.replace("_", " "))
