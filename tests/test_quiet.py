"""Calls that go well write nothing to stderr, not even torch's words about its compiler."""

import subprocess
import sys

CALLS = """
import numpy as np, torch
from torch import nn
import lmtorch

t = torch.linspace(0, 4, 30, dtype=torch.float64)
y = 2.5 * torch.exp(-1.3 * t) + 0.01 * torch.sin(40 * t)
curve = lambda t, a, b: a * torch.exp(-b * t)
lmtorch.least_squares(lambda x: curve(t, *x) - y, [1.0, 1.0])
black_box = lambda x: x[0] * np.exp(-x[1] * t.numpy()) - y.numpy()
lmtorch.least_squares(black_box, [1.0, 1.0], jac="2-point")
fit = lmtorch.curve_fit(curve, t, y, sigma=0.1, bounds=(0, 5))
fit.confidence_band(t), fit.profile("a"), str(fit)
lmtorch.curve_fit(curve, t, torch.stack([y, 2 * y]))
lmtorch.odr(curve, t, y, p0=[1.0, 1.0], sx=0.01, sy=0.01)
model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()
x = (t[:, None] - t.mean()) / t.std()
robust = {"weight_decay": 1e-3, "loss": "huber"}
for options in ({}, {"jacobian": "forward"}, {"acceleration": True}, robust):
    opt = lmtorch.LevenbergMarquardt(model, **options)
    for width in range(26, 31):  # each shape is a new one, of which a compiler might complain
        opt.step(lambda x, y: model(x) - y, x[:width], y[:width, None])
        opt.step(lambda: model(x[:width]) - y[:width, None])
for d in range(1, 12):
    z = torch.randn(5, d, dtype=torch.float64)
    f = lambda z: z.sin().prod(-1) + torch.logsumexp(z, -1)
    for mode in ("auto", "forward", "reverse"):
        lmtorch.laplacian(f, z, mode=mode)
        lmtorch.batch_hessian(f, z, mode=mode)
        lmtorch.batch_jacobian(f, z, mode=mode)
    f = torch.compile(lambda z: z.sin().cumprod(-1).sum(-1), backend="eager")
    lmtorch.laplacian(f, z), lmtorch.batch_jacobian(f, z)
lmtorch.parameter_jacobian(model, x)
compiled = torch.compile(model, backend="eager")
opt = lmtorch.LevenbergMarquardt(model)
for _ in range(4):
    opt.step(lambda x, y: compiled(x) - y, x, y[:, None])
    opt.step(lambda: compiled(x) - y[:, None])
"""


def test_calls_that_go_well_write_nothing_to_stderr():
    run = subprocess.run(
        [sys.executable, "-W", "default", "-c", CALLS],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert (run.returncode, run.stderr) == (0, "")
