"""The bar of the passes over a loader: what it counts, and that it is gone after the step."""

import pickle
import re
import sys
from collections.abc import Iterator
from functools import partial

import pytest
import torch
import tqdm.auto
from torch import Tensor, nn

from lmtorch import InputError, LevenbergMarquardt

ROWS, SIZE = 120, 30


class Reader:
    """Batches of a table, whose passes are counted."""

    def __init__(self, broken: bool = False) -> None:
        self.passes, self.broken = 0, broken

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        x = torch.linspace(-2, 2, ROWS)[:, None]
        for number, some in enumerate(x.split(SIZE)):
            if self.broken and number == 2:
                raise OSError("the disk is gone")
            yield some, torch.sin(some)


def step(opt: LevenbergMarquardt, model: nn.Module, loader: Reader) -> None:
    opt.step(lambda x, y: model(x) - y, loader)


def made(**options: bool) -> tuple[nn.Module, LevenbergMarquardt]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 30), nn.Tanh(), nn.Linear(30, 1))
    return model, LevenbergMarquardt(model, **options)


def shown(text: str) -> list[tuple[int, int, int]]:
    """Step, pass and batches of each line of the bar, in order."""
    found = re.findall(r"step (\d+), pass (\d+):[^\r]*?(\d+)/4 ", text)
    return [(int(a), int(b), int(c)) for a, b, c in found]


def test_the_bar_counts_passes_and_batches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(tqdm.auto.tqdm, mininterval=0, miniters=1)  # batches are shown one by one
    monkeypatch.setattr(tqdm.auto, "tqdm", quick)
    model, opt = made(progress=True)
    loader, passes = Reader(), [0]
    for _ in range(2):
        step(opt, model, loader)
        passes.append(loader.passes)
    out, err = capsys.readouterr()
    assert out == ""
    lines = shown(err)
    assert "step 1, pass 1: 3batch" in err  # whose number is not known in the first pass of all
    assert {a for a, _, _ in lines} == {1, 2}
    for number in (1, 2):
        assert max(b for a, b, _ in lines if a == number) == passes[number] - passes[number - 1]
        assert max(c for a, _, c in lines if a == number) == ROWS // SIZE
    last = err.split("\r")[-1]
    assert not last.strip()  # the bar is gone


def test_without_it_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    model, opt = made()
    step(opt, model, Reader())
    assert capsys.readouterr() == ("", "")


def test_a_bar_of_a_loader_that_fails_is_closed(capsys: pytest.CaptureFixture[str]) -> None:
    model, opt = made(progress=True)
    with pytest.raises(OSError, match="the disk is gone"):
        step(opt, model, Reader(broken=True))
    assert not capsys.readouterr().err.split("\r")[-1].strip()
    step(opt, model, Reader())
    assert opt.report.accepted


def test_steps_on_tensors_make_no_passes(capsys: pytest.CaptureFixture[str]) -> None:
    model, opt = made(progress=True)
    x = torch.linspace(-2, 2, ROWS)[:, None]
    opt.step(lambda x, y: model(x) - y, x, torch.sin(x))
    assert capsys.readouterr() == ("", "")


def test_it_is_pickled_with_the_optimizer(capsys: pytest.CaptureFixture[str]) -> None:
    model, opt = made(progress=True)
    again = pickle.loads(pickle.dumps((model, opt)))
    step(again[1], again[0], Reader())
    assert "step 1" in capsys.readouterr().err


def test_without_tqdm_the_optimizer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(InputError, match="pip install tqdm"):
        made(progress=True)
