"""One host read a trial: the host waits for the device once for each evaluation, and seldom beside.

Counted on the stand-in. Factorisations that wait by themselves within torch, SVD and eigh, are not
of our making and are counted apart.
"""

import pytest
import torch

import lmtorch

from . import stand_in
from .faces import FITS, OPTIMIZER, data

pytestmark = [
    pytest.mark.skipif(
        stand_in.MISSING is not None,
        reason=f"reads are counted on the stand-in: {stand_in.MISSING}",
    ),
    # finite differences, which are the point
    pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning"),
]
# reads of a whole fit beside its trials: what was given is checked, the function tried, the end
# looked at, the result told; a read more in each trial would exceed them. odr asks as well whether
# it has ended at a saddle, beside which it would go on.
AROUND = {"least_squares": 24, "many problems": 24, "curve_fit": 38, "odr": 35}


@pytest.mark.parametrize("face", OPTIMIZER)
def test_a_step_reads_once_a_trial(face: str) -> None:
    counter, trials, steps = OPTIMIZER[face]()
    reads, _ = stand_in.waits(counter)
    # and once more where a step has come to rest and the certificate looks at its end, and whether
    # its data are those of the step before; and in each
    # step of a closure without a batch that is served layer by layer: whether its rows are
    # independent is looked at whenever it is used; and once in ten iterations by products, of which
    # so few parameters need no more
    allowed = {"(_judge)": steps, "(_closed)": steps, "jacobians/layerwise.py": steps}
    for of, most in (allowed | {"solvers/conjugate_gradients.py": trials}).items():
        looked = sum(number for key, number in counter.items() if of in key)
        assert looked <= most
        reads -= looked
    assert 0 < reads <= trials, counter


@pytest.mark.parametrize("face", FITS)
def test_a_fit_reads_once_a_trial_and_a_constant_number_around(face: str) -> None:
    counter, evaluations, _ = FITS[face]()
    reads, _ = stand_in.waits(counter)
    assert reads <= evaluations + AROUND[face.partition(",")[0]], counter
    assert reads > 0  # the counter counts


def test_reads_around_a_fit_do_not_grow_with_its_trials() -> None:
    t, y = data(stand_in.NAME)
    beside = []
    for start in (1.0, 30.0):
        x0 = torch.tensor([start, 1 / start, -start], dtype=torch.float64, device=stand_in.NAME)
        with stand_in.counted() as counter:
            found = lmtorch.least_squares(lambda x: x[0] * torch.exp(-x[1] * t) + x[2] - y, x0)
        beside.append((stand_in.waits(counter)[0] - found.nfev, found.nfev))
    (near, few), (far, many) = beside
    assert many > few + 5
    assert far <= near


@pytest.mark.parametrize("size", [3, 30])
def test_reads_do_not_grow_with_the_number_of_problems(size: int) -> None:
    t, y = data(stand_in.NAME)
    many = y * torch.linspace(1, 2, size, dtype=torch.float64, device=stand_in.NAME)[:, None]
    x0 = torch.ones(3, dtype=torch.float64, device=stand_in.NAME)
    with stand_in.counted() as counter:
        found = lmtorch.least_squares(
            lambda x, y: x[0] * torch.exp(-x[1] * t) + x[2] - y, x0, args=(many,), in_dims=(None, 0)
        )
    assert stand_in.waits(counter)[0] <= int(found.nfev.max()) + AROUND["many problems"]
    # how many problems leave is known from the trial's own read
    assert not [
        key for key in counter if key.startswith(("size", "boolean index")) and "core/" in key
    ]


def test_a_learning_rate_of_zero_on_the_device_leaves_the_damping_alone() -> None:
    t, y = data(stand_in.NAME)
    theta = torch.ones(3, dtype=torch.float64, device=stand_in.NAME, requires_grad=True)
    rate = torch.ones((), dtype=torch.float64, device=stand_in.NAME)
    opt = lmtorch.LevenbergMarquardt([theta], lr=rate)

    def step() -> int:
        with stand_in.counted() as counter:
            opt.step(lambda: theta[0] * torch.exp(-theta[1] * t) + theta[2] - y)
        return stand_in.waits(counter)[0]

    step()
    damping = opt.state_dict()["state"][0]["damping"]["damping"].item()
    before = theta.detach().clone()
    rate.zero_()
    assert step() == 1
    assert torch.equal(theta.detach(), before)
    assert opt.state_dict()["state"][0]["damping"]["damping"].item() == damping
