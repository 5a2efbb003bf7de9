"""Steps of several processes beside those of one on all data: the same to round-off."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lmtorch.solvers.conjugate_gradients import ConjugateGradients
from lmtorch.solvers.row_sample import RowSample

from . import fits
from .ranks import Ranks

# Of more than eight parameters conjugate gradients estimate column norms, and λ begins elsewhere.
ROUND_OFF = 1e-8  # relative, after some steps, which magnify it


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    """Two processes that stay for all tests of this module."""
    started = Ranks(2)
    yield started
    started.close()


@pytest.fixture(scope="module")
def four() -> Iterator[Ranks]:
    """Four of them."""
    started = Ranks(4)
    yield started
    started.close()


def compared(ranks: Ranks, tolerance: float = ROUND_OFF, **how: Any) -> list[Tensor]:
    """The training by all processes, held to that of one; the first process's."""
    many = ranks.run(fits.train, how)
    expected = fits.train(0, 1, how)
    for other in many[1:]:
        assert all(torch.equal(a, b) for a, b in zip(many[0], other, strict=True))
    for found, wanted in zip(many[0], expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    assert many[0][-1][-1] < 0.98 * many[0][-1][0]  # it has got somewhere
    return many[0]


WAYS = pytest.mark.parametrize(
    ("hidden", "rows"), [(6, 60), (40, 60), (20, 300)], ids=["SVD", "layers", "Cholesky"]
)


@pytest.mark.parametrize(("kind", "batch"), [("even", True), ("uneven", False), ("empty", True)])
@WAYS
def test_shards(two: Ranks, hidden: int, rows: int, kind: str, batch: bool) -> None:
    compared(two, hidden=hidden, rows=rows, kind=kind, batch=batch)


@WAYS
def test_four_processes_one_of_them_without_data(four: Ranks, hidden: int, rows: int) -> None:
    compared(four, hidden=hidden, rows=rows, kind="empty", batch=rows > 60, steps=2)


@pytest.mark.parametrize(
    "options",
    [{"solver": "dual", "scaling": "more"}, {"solver": ConjugateGradients(forcing=1e-13)}],
    ids=["rows", "products"],
)
def test_four_processes_that_hold_rows(four: Ranks, options: dict[str, Any]) -> None:
    hidden = 30 if options["solver"] == "dual" else 1
    compared(four, hidden=hidden, kind="uneven", options=options, steps=2)


@pytest.mark.parametrize("kind", ["uneven", "empty"])
def test_products_divided_by_all_rows_of_all_processes_are_exact(two: Ranks, kind: str) -> None:
    options = {"solver": ConjugateGradients(preconditioner=RowSample(10**6))}
    compared(two, hidden=20, kind=kind, options=options)


@pytest.mark.parametrize("kind", ["uneven", "empty"])
def test_rough_steps_come_as_far_as_those_of_one_process(two: Ranks, kind: str) -> None:
    how = {"hidden": 80, "rows": 2000, "steps": 6, "options": {"solver": "cg"}}
    many, one = two.run(fits.train, {**how, "kind": kind}), fits.train(0, 1, how)
    assert all(torch.equal(a, b) for a, b in zip(*many, strict=True))
    losses, alone = many[0][-1], one[-1]
    assert losses[-1] < 1.25 * alone[-1]  # another sample; without rows it is 1.6 times
    assert alone[-1] < 0.01 * alone[0]


@pytest.mark.parametrize(
    ("hidden", "options"),
    [
        (6, {"solver": "qr"}),
        (6, {"loss": "cauchy", "loss_scale": 0.1}),
        (6, {"weight_decay": 1e-2}),
        (6, {"lower": -0.8, "upper": 0.8}),
        (6, {"polish": 3}),
        (20, {"solver": "cholesky", "loss": "huber", "loss_scale": 0.1}),
        (20, {"solver": "cholesky", "weight_decay": 1e-2, "lower": -0.8, "upper": 0.8}),
        (30, {"solver": "dual", "scaling": "more"}),
        (30, {"solver": "dual", "scaling": "more", "weight_decay": 1e-2}),
        (30, {"solver": "dual", "scaling": "more", "lower": -0.8, "upper": 0.8}),
        (30, {"solver": "dual", "acceleration": True}),
        (1, {"solver": ConjugateGradients(forcing=1e-13)}),
        (1, {"solver": ConjugateGradients(forcing=1e-13), "loss": "huber", "loss_scale": 0.1}),
        (1, {"solver": ConjugateGradients(forcing=1e-13), "lower": -1.0, "upper": 1.0}),
    ],
    ids=str,
)
def test_options(two: Ranks, hidden: int, options: dict[str, Any]) -> None:
    compared(two, hidden=hidden, options=options, kind="uneven")


def test_differences(two: Ranks) -> None:
    compared(two, 1e-4, options={"jacobian": "2-point"}, kind="empty")


def test_to_the_minimum_with_its_certificate(two: Ranks) -> None:
    found = compared(two, 1e-6, hidden=2, steps=40, kind="empty")
    statuses = two.run(fits.status_of, {"hidden": 2, "steps": 40, "kind": "uneven"})
    assert len(set(statuses)) == 1
    assert statuses[0] == fits.status_of(0, 1, {"hidden": 2, "steps": 40})
    assert found[-1][-1] > 0


@pytest.mark.parametrize("kind", ["uneven", "empty"])
def test_the_exact_hessian_is_that_of_all_rows(two: Ranks, kind: str) -> None:
    model, (x, y) = fits.net(3), fits.data()
    shapes = {name: p.shape for name, p in model.named_parameters()}

    def loss(theta: Tensor) -> Tensor:
        parts = theta.split([shape.numel() for shape in shapes.values()])
        named = {
            name: part.view(shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }
        r = torch.func.functional_call(model, named, (x,)) - y
        return r.square().sum() / 2 + 0.3 * theta.square().sum() / 2

    theta = fits.parameters(model)
    expected = torch.func.hessian(loss)(theta), torch.func.grad(loss)(theta)
    for found in two.run(fits.curved, kind):
        for one, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(one, wanted, rtol=1e-9, atol=1e-9)


def test_several_terms_of_which_one_is_with_one_process(two: Ranks) -> None:
    compared(two, kind="uneven", hidden=20, terms=True)


@pytest.mark.parametrize("kind", ["even", "empty"])
@pytest.mark.parametrize("hidden", [4, 20])
def test_a_criterion(two: Ranks, hidden: int, kind: str) -> None:
    compared(two, hidden=hidden, kind=kind, criterion=True)


@pytest.mark.parametrize("solver", ["cholesky", ConjugateGradients(forcing=1e-13)], ids=str)
def test_sampled_curvature_is_the_same_step_on_all(two: Ranks, solver: Any) -> None:
    how = {"hidden": 20, "rows": 2000, "steps": 6, "kind": "uneven"}
    options = {"curvature": "sampled", "solver": solver}
    many = two.run(fits.train, {**how, "options": options})
    full = fits.train(0, 1, how)
    assert all(torch.equal(a, b) for one in many[1:] for a, b in zip(many[0], one, strict=True))
    losses = many[0][-1]
    torch.testing.assert_close(losses[0], full[-1][0])  # cost and gradient are those of all rows
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("kind", ["uneven", "empty"])
def test_few_sampled_rows_of_a_criterion_are_the_same_step_on_all(two: Ranks, kind: str) -> None:
    options = {"curvature": "sampled", "solver": "cg"}
    how = {"hidden": 20, "rows": 800, "steps": 4, "kind": kind, "criterion": True}
    many = two.run(fits.train, {**how, "options": options})
    assert all(torch.equal(a, b) for one in many[1:] for a, b in zip(many[0], one, strict=True))
    losses = many[0][-1]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("solver", ["auto", "cholesky", ConjugateGradients(forcing=1e-13)], ids=str)
def test_a_loader_on_each_process(two: Ranks, solver: Any) -> None:
    hidden = 1 if isinstance(solver, ConjugateGradients) else 6
    compared(two, hidden=hidden, kind="uneven", loader=True, options={"solver": solver})


def test_a_module_under_distributed_data_parallel(two: Ranks) -> None:
    plain, wrapped = (
        two.run(fits.train, {"hidden": 20, "kind": "uneven", "wrapped": w}) for w in (False, True)
    )
    for one, other in zip(plain, wrapped, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_float32(two: Ranks) -> None:
    compared(two, 1e-3, hidden=20, dtype=torch.float32, steps=3)


def test_data_of_other_lengths_at_each_step(two: Ranks) -> None:
    compared(two, batch=False, kind="uneven", growing=True)
    compared(two, batch=True, kind="empty", growing=True)


def test_processes_start_at_the_first_ones_parameters_and_buffers(two: Ranks) -> None:
    found = two.run(fits.started)
    assert all(torch.equal(a, b) for one in found for a, b in zip(found[0], one, strict=True))
    torch.testing.assert_close(found[0][0], fits.parameters(fits.seeded(0)))


def test_buffers_stay_those_of_the_first(two: Ranks) -> None:
    found = two.run(fits.normed)
    assert all(torch.equal(a, b) for one in found for a, b in zip(found[0], one, strict=True))
    assert found[0][1].abs().sum() > 0  # running means


def test_dropout_draws_its_own_mask_on_each_process(two: Ranks) -> None:
    found = two.run(fits.dropped)
    assert all(torch.equal(found[0][0], one[0]) for one in found)
    assert not torch.equal(found[0][1], found[1][1])


def test_what_is_planned_is_said(two: Ranks) -> None:
    (text, *others) = two.run(fits.explained)
    assert all(other == text for other in others)
    assert "m = 60" in text
    assert "60 x 60 matrix: all rows pass by" in text


def test_a_state_may_be_prepared_on_one_process_alone(two: Ranks) -> None:
    found = [two.run(fits.prepared, who)[0][0] for who in ((), (1,), (0,))]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
