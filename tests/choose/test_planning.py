"""What is decided about a problem is remembered only where nothing else could be decided."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from lmtorch import InputError, _memory, least_squares
from lmtorch.choose import Facts, Options, plan
from lmtorch.damping import Nielsen
from lmtorch.damping.scaling import FixedScale
from lmtorch.losses.robust import cauchy
from lmtorch.solvers import Cholesky, ConjugateGradients, Dual

SMALL = Facts(3, 50, None, 4000, torch.float64, torch.device("cpu"))


def test_a_small_problem_of_names_and_numbers_has_its_plan_once() -> None:
    first = plan([SMALL], Options())
    assert plan([SMALL], Options()) is first
    for facts, options in (
        (SMALL._replace(parameters=4), Options()),
        (SMALL._replace(dtype=torch.float32), Options()),
        (SMALL, Options(ftol=1e-3)),
        (SMALL, Options(polish=0)),
        (SMALL, replace(Options(), solver="qr")),
    ):
        other = plan([facts], options)
        assert (other.method, other.reasons) != (first.method, first.reasons)


def test_a_plan_of_objects_or_of_samples_is_made_anew() -> None:
    # what such an object holds may change, and a plan would keep it alive
    for options in (
        Options(scaling=FixedScale(torch.ones(3, dtype=torch.float64))),
        Options(loss=cauchy),
        Options(jacobian=lambda x: x),
    ):
        assert plan([SMALL], options) is not plan([SMALL], options)
    samples = SMALL._replace(samples=50)
    assert plan([samples], Options()) is not plan([samples], Options())


def test_a_limit_of_memory_holds_for_small_problems_too() -> None:
    plan([SMALL], Options())
    with pytest.raises(InputError, match="may be used on cpu"):
        plan([SMALL], Options(memory_limit=100))
    with pytest.raises(InputError, match="may be used on cpu"):
        least_squares(lambda x: x.repeat(50) - 1, torch.zeros(3), memory_limit=100)


def test_the_system_is_asked_for_free_memory_only_for_what_is_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(_memory, "free_bytes", lambda device: asked.append(device) or 2**33)
    assert least_squares(lambda x: x**2 - 2, torch.ones(1, dtype=torch.float64)).success
    assert not asked
    plan([SMALL._replace(residuals=10**7)], Options())
    assert asked
    cpu = torch.device("cpu")
    for each, count in ((1, 10), (2**20, 16), (2**20, 17), (2**30, 100), (2**40, 3)):
        share = int(_memory.SHARE * 2**33)
        assert _memory.most(each, count, cpu) == max(1, min(count, share // each))
        assert _memory.fits(each * count, cpu) == (each * count <= share)
    assert _memory.most(10, 100, cpu, 55) == 5
    assert not _memory.fits(56, cpu, 55)


# a network of linear layers on a table of samples, and one with convolutions of images
TABLE = Facts(1377, 1030, 1030, 4000, torch.float32, torch.device("cpu"), layers=True)
IMAGES = Facts(1898, 14370, 1437, 4000, torch.float32, torch.device("cpu"), outputs=10)


@pytest.mark.parametrize(
    ("facts", "options", "solver"),
    [
        (TABLE, {}, ConjugateGradients),
        (TABLE._replace(residuals=5000, samples=5000), {}, ConjugateGradients),
        (TABLE._replace(dtype=torch.float64), {}, Dual),  # where digits are wanted
        (TABLE._replace(residuals=512, samples=512), {}, Dual),
        (TABLE._replace(layers=False), {}, Dual),
        (TABLE._replace(samples=None), {}, Dual),
        (TABLE._replace(processes=2), {}, Dual),
        (TABLE, {"curvature": "full"}, Dual),
        (TABLE, {"jacobian": "per_sample"}, Dual),
        (TABLE, {"solver": "dual"}, Dual),
        (IMAGES, {}, ConjugateGradients),
        (IMAGES._replace(dtype=torch.float64), {}, ConjugateGradients),
        (IMAGES._replace(outputs=1), {}, Cholesky),
        (IMAGES._replace(streams=True), {}, Cholesky),
    ],
)
def test_rough_steps_are_for_samples_of_layers_and_of_classes(
    facts: Facts, options: dict[str, Any], solver: type
) -> None:
    found = plan([facts], Options(**options))
    assert isinstance(found.method.solver, solver)
    (why,) = (why for name, _, why in found.reasons if name == "solver")
    assert ("rough steps" in why) == (solver is ConjugateGradients)
    if facts is TABLE and not options:
        assert "solver='dual'" in why  # what to choose for the last digits


def test_of_several_terms_the_steps_are_exact() -> None:
    found = plan([TABLE, TABLE], Options())
    assert not isinstance(found.method.solver, ConjugateGradients)


def test_the_rows_of_images_are_mixed_where_they_are_more_than_some_hundred() -> None:
    few = IMAGES._replace(residuals=4000, samples=400)
    found = plan([few], Options())
    assert found.mixes
    assert found.share == 0.1  # one row an image
    larger = plan([few._replace(residuals=20_000, samples=2000)], Options())
    assert larger.share == 512 / 20_000
    assert plan([few._replace(residuals=1500, samples=150)], Options()).share == 256 / 1500
    assert plan([few._replace(residuals=256, samples=128, outputs=2)], Options()).share is None
    assert not plan([few._replace(streams=True)], Options()).mixes
    # a network of fewer parameters than rows are mixed, too, but none that is small
    modest = few._replace(parameters=136, residuals=1600, outputs=4)
    found = plan([modest], Options())
    assert found.mixes
    assert found.share == 0.25
    small = modest._replace(parameters=64, residuals=80_000, samples=20_000)
    assert isinstance(plan([small], Options()).method.solver, ConjugateGradients)
    assert plan([small], Options()).share is None
    assert plan([small], Options(curvature="sampled", solver="cg")).mixes
    assert plan([few._replace(outputs=1, layers=True)], Options()).share is None


def test_steps_by_products_begin_with_more_damping_and_those_of_classes_with_most() -> None:
    # a table by a network, float32: its first step with Nielsen's 1e-3 is refused once or twice,
    # that of classes two to five times
    table = Facts(1_377, 20_640, 20_640, 2_000, torch.float32, torch.device("cpu"), layers=True)
    images = table._replace(residuals=206_400, outputs=10)
    for facts, first in ((table, 5e-3), (images, 0.2)):
        method = plan([facts], Options()).method
        assert isinstance(method.solver, ConjugateGradients)
        assert method.damping == Nielsen(first)
    # what is asked for by its name is as the name has it, and so are exact steps
    assert plan([table], Options(damping="nielsen")).method.damping == Nielsen(1e-3)
    exact = plan([table], Options(solver="cholesky", acceleration=False)).method
    assert exact.damping == Nielsen(1e-3)
    # of functions without samples nothing was measured
    alone = table._replace(samples=None, layers=False)
    assert plan([alone], Options(solver="cg")).method.damping == Nielsen(1e-3)
