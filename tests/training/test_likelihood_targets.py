"""Targets that a criterion has no likelihood for, and losses in the wrong place, are refused."""

import pytest
import torch
from torch import nn

import lmtorch
from lmtorch import InputError, LevenbergMarquardt


@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
@pytest.mark.parametrize(
    ("criterion", "outputs", "target", "words"),
    [
        (lmtorch.CrossEntropyLoss(), 3, torch.tensor([0, 1, 2, 3]), "a target 3.*from 0 to 2"),
        (lmtorch.CrossEntropyLoss(), 3, torch.tensor([0, 1, 2, -1]), "a target -1.*ignore_index"),
        (lmtorch.CrossEntropyLoss(), 1, torch.tensor([0, 0, 0, 0]), "BCEWithLogitsLoss"),
        (lmtorch.CrossEntropyLoss(), 2, torch.tensor([[0.5, 0.5]] * 3 + [[2.0, -1]]), "positive"),
        (lmtorch.BCEWithLogitsLoss(), 1, torch.tensor([[1.0], [1], [1], [-1]]), r"\(y \+ 1\) / 2"),
        (lmtorch.PoissonNLLLoss(), 1, torch.tensor([[1.0], [0], [2], [-3]]), "zero or positive"),
        (lmtorch.NegativeBinomialNLLLoss(2.0), 1, torch.tensor([[1.0], [0], [2], [-3]]), "zero"),
        (lmtorch.BinomialNLLLoss(4), 1, torch.tensor([[1.0], [0], [2], [5]]), "total_count"),
    ],
    ids=["class", "negative", "one class", "shares", "signs", "counts", "spread", "successes"],
)
def test_targets_that_have_no_likelihood_are_refused(criterion, outputs, target, words, batch):
    """They stand in the last sample, which no probe of the first two sees."""
    x = torch.linspace(-1, 1, 4)[:, None]
    model = nn.Linear(1, outputs)
    before = model.weight.detach().clone()
    opt = LevenbergMarquardt(model)
    step = (
        (lambda: opt.step(lambda x, y: criterion(model(x), y), x, target))
        if batch
        else (lambda: opt.step(lambda: criterion(model(x), target)))
    )
    with pytest.raises(InputError, match=words):
        step()
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_class_numbers_may_be_any_integers(dtype):
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    y = torch.tensor([0, 1, 0, 2, 1, 2])
    losses = []
    for target in (y, y.to(dtype)):
        torch.manual_seed(0)
        model = nn.Linear(1, 3).double()
        opt = LevenbergMarquardt(model)
        for _ in range(3):
            loss = opt.step(lambda x, y, m=model: lmtorch.CrossEntropyLoss()(m(x), y), x, target)
        losses.append(loss.item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "loss",
    [nn.MSELoss(), nn.functional.mse_loss, lmtorch.CrossEntropyLoss()],
    ids=["module", "function", "criterion"],
)
def test_a_loss_of_outputs_and_targets_is_no_loss_of_residuals(loss):
    with pytest.raises(InputError, match="says what a residual costs"):
        LevenbergMarquardt(nn.Linear(1, 1), loss=loss)


def test_a_number_as_damping_is_told_where_it_belongs():
    with pytest.raises(InputError, match=r"lmtorch\.damping\.Nielsen\(initial=0\.1\)"):
        LevenbergMarquardt(nn.Linear(1, 1), damping=0.1)


@pytest.mark.parametrize(
    ("target", "remedy"),
    [
        (torch.zeros(30), r"target\.long\(\)"),
        (torch.zeros(30, 1, dtype=torch.long), r"target\.squeeze\(1\)"),
        (torch.nn.functional.one_hot(torch.arange(30) % 3), r"target\.float\(\)"),
        (torch.zeros(30, 2), "docstring"),
    ],
    ids=["floats", "column", "one-hot integers", "other classes"],
)
def test_targets_of_classes_in_another_form_are_an_error_that_names_the_form(target, remedy):
    net, criterion = torch.nn.Linear(4, 3), lmtorch.CrossEntropyLoss()
    opt = lmtorch.LevenbergMarquardt(net)
    with pytest.raises(InputError, match=remedy):
        opt.step(lambda x, y: criterion(net(x), y), torch.randn(30, 4), target)


@pytest.mark.parametrize(
    "change",
    [lambda t, x: t * (1 / len(x)), lambda t, x: t / len(x), lambda t, x: 0.5 * len(x) * t],
    ids=["times", "divided", "grows"],
)
def test_a_criterion_that_counts_by_the_length_of_the_batch_is_refused(change):
    net, criterion = torch.nn.Linear(4, 3), lmtorch.CrossEntropyLoss()
    x, y = torch.randn(30, 4), torch.arange(30) % 3
    opt = lmtorch.LevenbergMarquardt(net)
    with pytest.raises(InputError, match=r"division by len\(x\)"):
        opt.step(lambda x, y: change(criterion(net(x), y), x), x, y)
    opt.step(lambda x, y: criterion(net(x), y) / 30, x, y)
    assert opt.report is not None
    assert opt.report.accepted


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda t, r: t + r, "a term of its own"),
        (lambda t, r: r + t, "a term of its own"),
        (lambda t, r: sum([t, t]), "a term of its own"),
        (lambda t, r: t.backward(), "return them from the closure"),
        (lambda t, r: t.mean(), "return them from the closure"),
        (lambda t, r: t.sum(), "return them from the closure"),
        (lambda t, r: t / r, "multiplied by a positive number"),
        (lambda t, r: t / 0, "multiplied by a positive number"),
    ],
)
def test_what_is_done_to_losses_is_an_error_of_a_criterion_that_says_what_to_do(misuse, message):
    net, criterion = torch.nn.Linear(4, 3), lmtorch.CrossEntropyLoss()
    x, y = torch.randn(30, 4), torch.arange(30) % 3
    opt = lmtorch.LevenbergMarquardt(net)
    with pytest.raises(InputError, match=message):
        opt.step(lambda x, y: misuse(criterion(net(x), y), net(x)[:, :1]), x, y)


def test_positions_that_were_flattened_into_the_samples_are_told_of() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    x = torch.randint(0, 5, (12, 3))
    criterion, opt = lmtorch.CrossEntropyLoss(), lmtorch.LevenbergMarquardt(net)
    with pytest.raises(lmtorch.InputError, match="flattened into the samples"):
        opt.step(lambda x, y: criterion(net(x).flatten(0, 1), y.flatten()), x, x)
    apart = torch.nn.functional.cross_entropy(net(x).transpose(1, 2), x, reduction="sum")
    loss = opt.step(lambda x, y: criterion(net(x).transpose(1, 2), y), x, x)  # as the words say
    assert float(loss) == pytest.approx(apart.item(), rel=1e-5)


def test_a_call_that_lacks_an_argument_is_not_told_of_parts_of_the_batch() -> None:
    net = nn.Linear(2, 2)
    opt = lmtorch.LevenbergMarquardt(net)
    x = torch.randn(12, 2)
    with pytest.raises(TypeError, match="variance") as caught:
        opt.step(lambda x, y: lmtorch.GaussianNLLLoss()(net(x)[:, 0], y), x, x[:, 0])
    assert not any("parts of the batch" in note for note in getattr(caught.value, "__notes__", []))
