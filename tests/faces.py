"""Runs of every function of the user interface on the stand-in device, for counting host reads."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import lmtorch
from lmtorch import LevenbergMarquardt

from . import stand_in

F64 = torch.float64
STEPS = 6


class Run(NamedTuple):
    """What a run has cost."""

    counter: Counter[str]
    trials: int  # evaluations of the residuals at trial points, in all runs
    steps: int  # of an optimizer; 0: no optimizer


def curve(t: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return a * torch.exp(-b * t) + c


def data(device: str) -> tuple[Tensor, Tensor]:
    """(40,) each, of `curve`."""
    t = torch.linspace(0, 4, 40, dtype=F64)
    noise = torch.randn(40, dtype=F64, generator=torch.Generator().manual_seed(0))
    return t.to(device), (curve(t, 2.5, 1.3, 0.5) + 0.05 * noise).to(device)


def _numbers(**options: Any) -> Callable[[], Run]:
    """Steps of an optimizer of three numbers."""

    def run() -> Run:
        t, y = data(stand_in.NAME)
        theta = torch.ones(3, dtype=F64, device=stand_in.NAME, requires_grad=True)
        opt = LevenbergMarquardt([theta], **options)
        return _steps(opt, lambda: opt.step(lambda: curve(t, *theta) - y))

    return run


def _network(
    width: int, batch: bool = True, terms: bool = False, **options: Any
) -> Callable[[], Run]:
    """Steps of an optimizer of a network."""

    def run() -> Run:
        torch.manual_seed(2)
        model = (
            nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 1))
            .to(F64)
            .to(stand_in.NAME)
        )
        x = torch.randn(60, 2, dtype=F64, generator=torch.Generator().manual_seed(0)).to(
            stand_in.NAME
        )
        y = (x[:, :1] * x[:, 1:]).sin()
        opt = LevenbergMarquardt(model, **options)
        if terms:
            return _steps(opt, lambda: opt.step((lambda x, y: model(x) - y, x, y), (model, x[:5])))
        if batch:
            return _steps(opt, lambda: opt.step(lambda x, y: model(x) - y, x, y))
        return _steps(opt, lambda: opt.step(lambda: model(x) - y))

    return run


def _likelihood(criterion: Callable[..., Any], outputs: int, classes: bool) -> Callable[[], Run]:
    """Steps of an optimizer of a network with a criterion."""

    def run() -> Run:
        torch.manual_seed(2)
        model = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, outputs))
        model = model.to(F64).to(stand_in.NAME)
        t, y = data(stand_in.NAME)
        target = (y > 1).long() if classes else y.abs()[:, None]
        opt = LevenbergMarquardt(model)
        return _steps(
            opt, lambda: opt.step(lambda x, y: criterion(model(x), y), t[:, None], target)
        )

    return run


def _gaussian(outputs: Tensor, y: Tensor) -> Any:
    return lmtorch.GaussianNLLLoss()(outputs[:, :1], y, outputs[:, 1:].exp())


def _steps(opt: LevenbergMarquardt, step: Callable[[], Any]) -> Run:
    """Count in steps after the first, which examines the closure; the report is read outside."""
    step()
    trials, total = 0, Counter[str]()
    for _ in range(STEPS):
        with stand_in.counted() as counter:
            step()
        total += counter
        assert opt.report is not None
        trials += opt.report.trials
    return Run(total, trials, STEPS)


def _counted(fit: Callable[[], Any]) -> Run:
    """A run to its end, with its beginning and its result."""
    with stand_in.counted() as counter:
        found = fit()
    return Run(counter, int(torch.as_tensor(found.nfev).max()), 0)


def _least_squares(**options: Any) -> Callable[[], Run]:
    def run() -> Run:
        t, y = data(stand_in.NAME)
        x0 = torch.ones(3, dtype=F64, device=stand_in.NAME)
        return _counted(lambda: lmtorch.least_squares(lambda x: curve(t, *x) - y, x0, **options))

    return run


def _many(**options: Any) -> Callable[[], Run]:
    def run() -> Run:
        t, y = data(stand_in.NAME)
        many = torch.stack([y, 2 * y, y + 1, y / 2])
        x0 = torch.ones(3, dtype=F64, device=stand_in.NAME)
        return _counted(
            lambda: lmtorch.least_squares(
                lambda x, y: curve(t, *x) - y, x0, args=(many,), in_dims=(None, 0), **options
            )
        )

    return run


def _curve_fit(**options: Any) -> Callable[[], Run]:
    def run() -> Run:
        t, y = data(stand_in.NAME)
        return _counted(lambda: lmtorch.curve_fit(curve, t, y, p0=[1.0, 1.0, 1.0], **options))

    return run


def _counts(many: bool, **options: Any) -> Callable[[], Run]:
    """Fits of counts, by the likelihood that is named."""

    def run() -> Run:
        t, y = data(stand_in.NAME)
        counts = (10 * y).abs().round()
        counts = torch.stack([counts, 2 * counts]) if many else counts
        return _counted(lambda: lmtorch.curve_fit(curve, t, counts, p0=[20.0, 1.0, 5.0], **options))

    return run


def _odr() -> Run:
    t, y = data(stand_in.NAME)
    return _counted(lambda: lmtorch.odr(curve, t, y, p0=[1.0, 1.0, 1.0], sx=0.1, sy=0.05))


OPTIMIZER: dict[str, Callable[[], Run]] = {
    "a closure": _numbers(),
    "a network, a closure": _network(5, batch=False),
    "a network, a batch": _network(5),
    "a larger network, a batch": _network(30),
    "two terms": _network(5, terms=True),
    "weight decay": _network(5, weight_decay=1e-3),
    "weight decay, two terms": _network(30, terms=True, weight_decay=1e-3),
    "bounds": _numbers(lower=0.0, upper=2.0),
    "a robust loss": _numbers(loss="huber", loss_scale=0.1),
    "classes": _likelihood(lmtorch.CrossEntropyLoss(label_smoothing=0.1), 2, classes=True),
    "zero or one": _likelihood(
        lambda f, y: lmtorch.BCEWithLogitsLoss()(f, (y > 1).to(F64)), 1, classes=False
    ),
    "counts": _likelihood(lmtorch.PoissonNLLLoss(), 1, classes=False),
    "scattered counts": _likelihood(lmtorch.NegativeBinomialNLLLoss(2.0), 1, classes=False),
    "mean and variance": _likelihood(_gaussian, 2, classes=False),
    "a learning rate": _numbers(lr=0.9),
    "a learning rate in a tensor": _numbers(lr=torch.tensor(0.9)),
    "sampled curvature": _network(30, curvature="sampled"),
    "geodesic acceleration": _network(30, acceleration=True),
    "finite differences": _numbers(jacobian="2-point"),
    "damping nielsen": _network(5, damping="nielsen"),
    "damping marquardt": _network(5, damping="marquardt"),
    "solver qr": _numbers(solver="qr"),
    "solver cholesky": _numbers(solver="cholesky"),
    "solver dual": _numbers(solver="dual"),
    "solver cg": _numbers(solver="cg"),
}
FITS: dict[str, Callable[[], Run]] = {
    "least_squares": _least_squares(),
    "least_squares, bounds": _least_squares(bounds=(0.0, 4.0)),
    "least_squares, a robust loss": _least_squares(loss="huber", f_scale=0.1),
    'least_squares, f_scale="mad"': _least_squares(loss="huber", f_scale="mad"),
    "least_squares, several starts": _least_squares(bounds=(0.0, 4.0), n_starts=4),
    "least_squares, finite differences": _least_squares(jac="2-point"),
    "least_squares, other strategies asked": _least_squares(bounds=(0.0, 2.0)),
    "many problems": _many(),
    'many problems, f_scale="mad"': _many(loss="cauchy", f_scale="mad"),
    "curve_fit": _curve_fit(),
    "curve_fit, bounds": _curve_fit(bounds=(0.0, 4.0)),
    'curve_fit, f_scale="mad"': _curve_fit(loss="huber", f_scale="mad"),
    "curve_fit, counts": _counts(False, likelihood="poisson"),
    "curve_fit, scattered counts": _counts(
        True, likelihood="negative_binomial", total_count=5.0, bounds=(0.0, 90.0)
    ),
    "odr": _odr,
}
