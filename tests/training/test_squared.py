"""A closure that returns losses, squares or penalties in the place of residuals is told so.

Each of these would be minimised in silence: the loss falls, to the minimum of something else.
"""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lmtorch
from lmtorch import InputError, LevenbergMarquardt

F64 = torch.float64


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).to(F64)


X = torch.linspace(-2, 2, 12, dtype=F64)[:, None]
Y = torch.sin(X)


def told(closure, *batch):
    """Messages of the warnings of one step on a model."""
    model = network()
    opt = LevenbergMarquardt(model)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        opt.step(lambda *parts: closure(model, *parts), *batch)
    return [str(w.message) for w in seen]


def squares_of(model):
    return sum(p.square().sum() for p in model.parameters())


SQUARES = {
    "pow": lambda r: r**2,
    "square": lambda r: r.square(),
    "times itself": lambda r: r * r,
    "half": lambda r: 0.5 * r**2,
    "mean over outputs": lambda r: (r**2).mean(1),
    "sum over outputs": lambda r: r.square().sum(-1, keepdim=True),
    "flat": lambda r: (r**2).flatten(),
}


@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
@pytest.mark.parametrize("name", SQUARES)
def test_squares_are_told_that_they_are_squared_again(name, batch):
    square = SQUARES[name]
    if batch:
        (message,) = told(lambda model, x, y: square(model(x) - y), X, Y)
    else:
        (message,) = told(lambda model: square(model(X) - Y))
    assert "sum of fourth powers" in message


MEANT = {
    "a difference": lambda model: model(X) - Y,
    "a difference of squares": lambda model: model(X) ** 2 - Y**2,
    "another power": lambda model: (model(X) - Y) ** 3,
    # as Powell's singular function has
    "a square beside others": lambda model: torch.cat([model(X) - Y, (model(X[:1]) - 3) ** 2]),
    "squares of one term": lambda model: (model(X) - Y, (model(X[:3]) - 3) ** 2),
    "a norm of the weights": lambda model: (model(X) - Y, (squares_of(model) - 1)[None]),
    "one residual": lambda model: (model(X[:1]) - Y[:1])[0],
    "a factor that is fitted": lambda model: model(X) * model(X) * model[2].bias,
    "a penalty by rows": lambda model: [model(X) - Y, *(0.1 * p for p in model.parameters())],
    "a shift": lambda model: model(X) + model[2].weight.sum() - Y,
}


@pytest.mark.parametrize("name", MEANT)
def test_residuals_are_left_alone(name):
    assert told(MEANT[name]) == []


@pytest.mark.parametrize(
    "closure",
    [
        lambda model: (model(X) - Y) + 1e-3 * squares_of(model),
        lambda model: 1e-3 * squares_of(model) + (model(X) - Y),
        lambda model: (model(X) - Y) + 1e-3 * model[0].weight.square().mean(),
    ],
    ids=["after", "before", "mean"],
)
def test_a_penalty_that_is_added_to_each_residual_is_told(closure):
    (message,) = told(closure)
    assert "added to every residual" in message
    assert "weight_decay" in message


@pytest.mark.parametrize(
    "closure",
    [
        lambda model: (model(X) - Y, 1e-3 * squares_of(model)),
        lambda model: {"data": model(X) - Y, "penalty": model[0].weight.pow(2).sum()},
        lambda model: ((model(X) - Y) ** 2).mean().reshape(1),
        lambda model: [((model(X) - Y) ** 2).sum()],
    ],
    ids=["penalty", "in a dict", "mean of squares", "in a list"],
)
def test_a_number_made_of_squares_is_told(closure):
    (message,) = told(closure)
    assert "one number, which a step squares again" in message


def test_an_added_penalty_leads_elsewhere_than_weight_decay():
    """What the warning says is so: the two have other minima."""
    ends = []
    for added in (True, False):
        theta = torch.tensor([1.0], dtype=F64, requires_grad=True)
        opt = LevenbergMarquardt([theta], weight_decay=0.0 if added else 2.0)
        for _ in range(30):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                opt.step(lambda t=theta, a=added: t * X - 2 * X + (t.square().sum() if a else 0))
        ends.append(theta.item())
    s = X.square().sum().item()
    assert ends[1] == pytest.approx(2 * s / (s + 2.0))  # the minimum of ½Σ(θx − 2x)² + θ²
    assert abs(ends[0] - ends[1]) > 0.1


@pytest.mark.parametrize("how", [torch.abs, lambda r: F.l1_loss(r, 0 * r, reduction="none")])
def test_absolute_values_are_told_that_their_squares_are_those_of_differences(how):
    (message,) = told(lambda model: how(model(X) - Y))
    assert "loss='soft_l1'" in message


def test_a_mean_of_absolute_values_is_told_which_loss_to_take():
    with pytest.raises(InputError, match="loss='soft_l1' or 'huber'"):
        told(lambda model: F.l1_loss(model(X), Y))


@pytest.mark.parametrize(
    "closure",
    [
        lambda model: F.mse_loss(model(X), Y)[None],
        lambda model: [F.mse_loss(model(X), Y)],
        lambda model: {"loss": 0.5 * F.mse_loss(model(X), Y, reduction="sum")},
        lambda model: (F.mse_loss(model(X), Y), model(X)),
    ],
    ids=["shaped", "in a list", "in a dict", "with outputs"],
)
def test_a_loss_of_torchs_is_refused_in_any_shape(closure):
    with pytest.raises(InputError, match=r"a loss of torch's.*return model\(x\) - y"):
        told(closure)


def test_a_number_to_be_logged_is_told_that_it_adds_to_the_loss():
    (message,) = told(lambda model: {"r": model(X) - Y, "epoch": torch.tensor(3.0, dtype=F64)})
    assert "does not depend on the parameters" in message


def test_sparse_residuals_are_refused():
    with pytest.raises(InputError, match="to_dense"):
        told(lambda model: (model(X) - Y).to_sparse())


@pytest.mark.parametrize(
    ("criterion", "last", "target", "called"),
    [
        (lmtorch.CrossEntropyLoss, nn.Softmax(1), (X[:, 0] > 0).long(), "a softmax"),
        (lmtorch.BCEWithLogitsLoss, nn.Sigmoid(), (X > 0).to(F64), "a sigmoid"),
    ],
    ids=["softmax", "sigmoid"],
)
@pytest.mark.parametrize("batch", [False, True], ids=["opaque", "samples"])
def test_probabilities_where_logits_belong_are_told(criterion, last, target, called, batch):
    outputs = 2 if called == "a softmax" else 1
    seen = []
    for head in (nn.Sequential(nn.Linear(1, outputs), last), nn.Linear(1, outputs)):
        model = head.to(F64)
        opt = LevenbergMarquardt(model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if batch:
                opt.step(lambda x, y, m=model: criterion()(m(x), y), X, target)
            else:
                opt.step(lambda m=model: criterion()(m(X), target))
        seen.append([str(w.message) for w in caught])
    ((message,), nothing) = seen
    assert f"takes logits, and its outputs come from {called}" in message
    assert nothing == []


TABLES = {
    "minus": lambda out, v: out - v,
    "plus": lambda out, v: out + (-v),
    "weighted": lambda out, v: (out - Y) * v,
    "relative": lambda out, v: (out - Y) / v,
    "ratio": lambda out, v: out / v - 1,
    "masked": lambda out, v: torch.where(v > 0, out - Y, 0.0),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_column_that_meets_a_vector_is_told_whatever_the_operator(name):
    vector = torch.linspace(1, 2, 12, dtype=F64)
    (message,) = told(lambda model: TABLES[name](model(X), vector))
    assert "12 x 12, made of a column (12, 1) and a vector (12,)" in message


TABLE = torch.randn(12, 12, dtype=F64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    "closure",
    [
        lambda model: model(X) * torch.linspace(1, 2, 12, dtype=F64) - TABLE,
        lambda model: model(X) * model(X)[:, 0],
        lambda model: (model(X) - model(X)[:, 0]) - TABLE,
        lambda model: (model(X) - Y) * torch.linspace(1, 2, 12, dtype=F64)[:, None],
    ],
    ids=["a table of data", "both fitted", "distances", "columns"],
)
def test_tables_that_are_meant_are_left_alone(closure):
    assert told(closure) == []


def test_what_fails_on_some_samples_is_told_how_many_there_were():
    edges = torch.randint(0, 12, (2, 30), generator=torch.Generator().manual_seed(3))

    def over_edges(model, x, y):
        sums = torch.zeros_like(x).index_add(0, edges[1], model(x)[edges[0]])
        return sums - y

    with pytest.raises(IndexError) as caught:
        told(over_edges, X, Y)
    (note,) = caught.value.__notes__
    assert "called with 2 of the 12 samples" in note
    assert "step(closure) without the batch" in note
    assert told(lambda model: over_edges(model, X, Y)) == []  # as the note says
