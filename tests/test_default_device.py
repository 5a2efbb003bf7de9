"""Whatever torch.set_default_device says, everything stays on the device of the data."""

import numpy as np
import pytest
import torch
from torch import nn

import lmtorch

F64 = torch.float64
T = torch.linspace(0, 4, 30, dtype=F64)
Y = 2.5 * torch.exp(-1.3 * T) + 0.01 * torch.sin(40 * T)


def decay(t, a, b):
    return a * torch.exp(-b * t)


def residual(x, t, y):
    return decay(t, x[0], x[1]) - y


def numpy_residual(x):
    return x[0] * np.exp(-x[1] * T.numpy()) - Y.numpy()


def optimizer(**options):
    def train():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(1, 4, device="cpu"), nn.Tanh(), nn.Linear(4, 1, device="cpu")
        ).double()
        opt = lmtorch.LevenbergMarquardt(model, **options)
        for _ in range(3):
            opt.step(lambda t, y: model(t) - y, T[:, None], Y[:, None])
        if "curvature" not in options:
            opt.step(lambda: model(T[:, None])[:, 0] - Y)
        state = opt.state_dict()
        opt.load_state_dict(state)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    return train


def start(*values):
    return torch.tensor(values, dtype=F64, device="cpu")


def curve(**options):
    def fit():
        found = lmtorch.curve_fit(decay, T, Y, **options)
        x = T[::5]
        return torch.cat(
            [
                found.popt,
                found.pcov.flatten(),
                found.confidence_band(x).lower,
                found.residual.flatten(),
            ]
        )

    return fit


FACES = {
    "least_squares": lambda: lmtorch.least_squares(residual, start(1, 1), args=(T, Y)).x,
    "robust": lambda: (
        lmtorch.least_squares(residual, start(1, 1), args=(T, Y), loss="huber", f_scale="mad").x
    ),
    "bounds": lambda: lmtorch.least_squares(residual, start(1, 1), args=(T, Y), bounds=(0, 2)).x,
    "batch": lambda: (
        lmtorch.least_squares(
            residual, start(1, 1), args=(T, torch.stack([Y, 2 * Y])), in_dims=(None, None, 0)
        ).x
    ),
    "starts": lambda: lmtorch.least_squares(residual, start(1, 1), args=(T, Y), n_starts=3).x,
    "lists": lambda: lmtorch.least_squares(lambda x: residual(x, T, Y), [1.0, 1.0]).x,
    "black box": lambda: lmtorch.least_squares(numpy_residual, [1.0, 1.0], jac="2-point").x,
    "arrays": lambda: lmtorch.curve_fit(decay, T.numpy(), Y.numpy(), sigma=0.1).pcov,
    "curve_fit": curve(),
    "sigma": curve(sigma=0.1, absolute_sigma=True, bounds=(0, [3, 2])),
    "odr": lambda: lmtorch.odr(decay, T, Y, p0=[1.0, 1.0], sx=0.01, sy=0.01).popt,
    "optimizer": optimizer(),
    "penalty": optimizer(weight_decay=1e-3, lower=-3.0, upper=3.0),
    "nielsen": optimizer(
        damping="nielsen", scaling="levenberg", solver="cholesky", curvature="sampled"
    ),
    "accelerated": optimizer(acceleration=True, jacobian="forward"),
    "jacobian": lambda: lmtorch.batch_jacobian(lambda x: x.sin(), T[:, None]),
    "laplacian": lambda: lmtorch.laplacian(lambda x: x.sin().prod(-1), torch.stack([T, Y], 1)),
    "hessian": lambda: lmtorch.batch_hessian(
        lambda x: x.sin().prod(-1), torch.stack([T, Y], 1), mode="reverse"
    ),
    "parameters": lambda: lmtorch.parameter_jacobian(
        nn.Linear(1, 1, device="cpu", dtype=F64), T[:, None]
    )["weight"],
}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_data_on_another_device_than_the_default_stay_where_they_are(face):
    torch.manual_seed(1)
    expected = torch.as_tensor(FACES[face]())
    torch.manual_seed(1)
    # where nothing has a value: any tensor made without a device shows
    torch.set_default_device("meta")
    try:
        found = torch.as_tensor(FACES[face](), device="cpu")
    finally:
        torch.set_default_device(None)
    assert torch.equal(found, expected)
