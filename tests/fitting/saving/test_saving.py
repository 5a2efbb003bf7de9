"""Fits that are saved and read: the same bits, the same answers, and honest words for the rest."""

import copy
import json
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lmtorch
from lmtorch import (
    CurveFit,
    InputError,
    NotConvergedError,
    OrthogonalFit,
    curve_fit,
    load,
    models,
    odr,
)
from lmtorch.fitting.inference import selection

from ..setting import T, decay, line, noise, noisy

pytestmark = pytest.mark.filterwarnings("ignore:the curve passes the data by")  # a line a decay

Y = noisy()
COUNTS = np.random.default_rng(0).poisson(40 * np.exp(-1.3 * T) + 2)
STACK = Y + noise((2, 3, 40), 0.02)
NEW = np.linspace(0.1, 3, 7)
NUMBERS = (
    "popt", "pcov", "stderr", "correlation", "residual", "deviance_residual", "best_fit", "ndata",
    "nfree", "chisqr", "deviance", "loglikelihood", "pvalue", "redchi", "rsquared", "aic", "bic",
    "success", "status", "nfev",
)  # fmt: skip
LOST = pytest.mark.filterwarnings("ignore:.*need the function of the fit:UserWarning")


def of_dict(t: Any, params: dict[str, Any]) -> Any:
    return params["a"] * torch.exp(-params["b"] * t) + params["c"]


def tie(p: dict[str, Any]) -> Any:
    return 0.2 * p["a"]


def slopes(t: Any, a: Any, b: Any, c: Any) -> Any:
    e = torch.exp(-b * t)
    return torch.stack([e, -a * t * e, torch.ones_like(t)], -1)


def in_numpy(t: Any, a: float, b: float, c: float) -> Any:
    return a * np.exp(-b * np.asarray(t)) + c


def response(x: Any, middle: Any, slope: Any) -> Any:
    return torch.sigmoid(slope * (x - middle))


def logarithm(t: Any, level: Any, rate: Any) -> Any:
    return level - rate * t


PEAKS = 3 * np.exp(-((T - 1.5) ** 2)) + np.exp(-((T - 3) ** 2)) + 0.2 * T + noise(40, 0.02)


def peaks() -> models.Model:
    both = models.Gaussian("g") + models.Lorentzian("l") + models.Linear()
    return both.with_ties("l_center = g_center + 1.5").with_bounds(l_sigma=(0.01, 2))


def holes() -> np.ndarray:
    return np.where(T > 3, np.nan, Y)


FITS: dict[str, Callable[[], CurveFit]] = {
    "plain": lambda: curve_fit(decay, T, Y),
    "sigma": lambda: curve_fit(decay, T, Y, sigma=0.05, absolute_sigma=True),
    "tensors": lambda: curve_fit(decay, torch.as_tensor(T), torch.as_tensor(Y).requires_grad_()),
    "float32": lambda: curve_fit(decay, torch.as_tensor(T).float(), torch.as_tensor(Y).float()),
    "left out": lambda: curve_fit(decay, T, holes(), nan_policy="omit"),
    "covariance": lambda: curve_fit(decay, T, Y, sigma=0.003 * np.eye(40) + 1e-4),
    "bounds": lambda: curve_fit(decay, T, Y, [2, 1, 1], bounds={"c": (0.7, 2)}),
    "fixed": lambda: curve_fit(decay, T, Y, fixed={"c": 0.5}),
    "tied": lambda: curve_fit(decay, T, Y, ties={"c": tie}),
    "transforms": lambda: curve_fit(
        decay, T, Y, [1, 1, 0.4], transforms={"b": "positive", "c": (0, 1)}
    ),
    "robust": lambda: curve_fit(decay, T, Y, loss="huber", f_scale=0.05),
    "dict": lambda: curve_fit(of_dict, T, Y, {"a": 2.0, "b": 1.0, "c": [0.4]}),
    "jac": lambda: curve_fit(decay, T, Y, jac=slopes),
    "full": lambda: curve_fit(decay, T, Y, full_output=True),
    "poisson": lambda: curve_fit(decay, T, COUNTS, [30, 1, 1], likelihood="poisson"),
    "binomial": lambda: curve_fit(
        response, T, COUNTS // 5, [2, -1], likelihood="binomial", total_count=20
    ),
    "criterion": lambda: curve_fit(
        logarithm, T, COUNTS, [3, 1], likelihood=lmtorch.PoissonNLLLoss()
    ),
    "global": lambda: curve_fit(decay, [T, T[:25]], [Y, Y[:25] + 1], shared=["b"]),
    "odr": lambda: odr(decay, T, Y, sx=0.05, sy=0.05),
    "stack": lambda: curve_fit(decay, T, STACK),
    "stack of counts": lambda: curve_fit(
        decay, T, np.stack([COUNTS, COUNTS + 1]), [30, 1, 1], likelihood="poisson"
    ),
    "models": lambda: curve_fit(peaks(), T, PEAKS),
    "tied by text": lambda: curve_fit(decay, T, Y, ties={"c": "0.2 * a + pi / 100"}),
    "models in common": lambda: curve_fit(
        peaks(), [T, T], [PEAKS, PEAKS + 0.1], shared=["g_center"]
    ),
    "response": lambda: curve_fit(
        models.MeasuredResponseDecay(times=T[:9], response=np.exp(-((T[:9] - 0.3) ** 2) / 0.02)),
        T,
        Y,
        fixed={"shift": 0.0},
    ),
    "own function in a sum": lambda: curve_fit(
        models.from_function(decay, "d") + models.Constant(),
        T,
        Y,
        {"d_a": 2, "d_b": 1},
        fixed={"d_c": 0.0},
    ),
    "own x": lambda: curve_fit(decay, np.broadcast_to(T, STACK.shape), STACK),
}


def same(one: Any, other: Any) -> bool:
    one, other = (v.detach().numpy() if torch.is_tensor(v) else np.asarray(v) for v in (one, other))
    return bool(one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True))


def kept(fit: CurveFit, folder: Path, **options: Any) -> CurveFit:
    fit.save(folder / "fit.json")
    return load(folder / "fit.json", **options)


def asked(fit: CurveFit, where: str) -> dict[str, Any]:
    return {"dataset": 1} if where in ("global", "models in common") else {}


@pytest.mark.filterwarnings("ignore::scipy.optimize.OptimizeWarning")
@pytest.mark.parametrize("name", FITS)
def test_a_fit_comes_back_with_every_bit(name: str, tmp_path: Path) -> None:
    fit = FITS[name]()
    again = kept(fit, tmp_path)
    assert type(again) is type(fit)
    for number in NUMBERS:
        assert type(getattr(again, number)) is type(getattr(fit, number)), number
        assert same(getattr(again, number), getattr(fit, number)), number
    assert again.names == fit.names
    assert again.message == fit.message
    assert again.notes == fit.notes
    assert again.report() == fit.report()
    assert len(again) == len(fit)
    # bands are computed anew, with products whose order may differ
    band, other = (one.confidence_band(NEW, **asked(one, name)) for one in (fit, again))
    for side, expected in zip(other, band, strict=True):
        assert same(side, expected)
    first = (tmp_path / "fit.json").read_bytes()
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == first


@pytest.mark.parametrize("name", ["plain", "poisson", "global"])
def test_a_fit_that_was_read_can_be_fitted_again(name: str, tmp_path: Path) -> None:
    fit = FITS[name]()
    again = kept(fit, tmp_path)
    one, other = fit.profile(points=4).intervals, again.profile(points=4).intervals
    assert one == other
    assert same(again.bootstrap(5).samples, fit.bootstrap(5).samples)
    assert len(again.plot().axes) == 2


def test_of_a_stack_every_fit_comes_back(tmp_path: Path) -> None:
    fit = FITS["stack"]()
    one = kept(fit, tmp_path).at(1, 2)
    for number in ("popt", "pcov", "stderr", "residual", "chisqr", "aic", "rsquared", "nfev"):
        assert same(getattr(one, number), getattr(fit, number)[1, 2]), number
    assert one.report() == fit.at(1, 2).report()
    assert one.bootstrap(5).samples.shape == (5, 3)


def test_a_stack_that_was_saved_in_blocks_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FITS["stack"]()
    pcov = whole.pcov
    monkeypatch.setattr(selection._memory, "stream_rows", lambda *_, **__: 2)
    again = kept(FITS["stack"](), tmp_path)
    np.testing.assert_allclose(again.pcov, pcov, rtol=1e-12)
    lower = again.confidence_band(NEW).lower
    np.testing.assert_allclose(lower, whole.confidence_band(NEW).lower, rtol=1e-12)


def test_errors_in_x_come_back(tmp_path: Path) -> None:
    fit = odr(decay, T, Y, sx=0.05, sy=0.05)
    again = kept(fit, tmp_path)
    assert isinstance(again, OrthogonalFit)
    for name in ("delta", "x_fit", "eps"):
        assert same(getattr(again, name), getattr(fit, name))


def test_a_fit_without_a_minimum_comes_back(tmp_path: Path) -> None:
    with pytest.raises(NotConvergedError) as caught:
        curve_fit(decay, T, Y, max_nfev=2)
    again = kept(caught.value.fit, tmp_path)
    assert again.status is lmtorch.Status.EVALUATIONS
    assert not again.success


def test_any_reader_of_json_has_values_with_errors(tmp_path: Path) -> None:
    fit = curve_fit(decay, T, Y)
    fit.save(str(tmp_path / "fit.json"))
    found = json.loads((tmp_path / "fit.json").read_text(encoding="utf-8"))
    assert list(found)[:2] == ["format", "version"]
    assert found["names"] == ["a", "b", "c"]
    assert found["values"]["array"]["values"] == fit.popt.tolist()
    assert found["errors"]["array"]["values"] == fit.stderr.tolist()
    assert found["covariance"]["array"]["values"] == fit.pcov.tolist()
    assert found["data"]["y"]["tensor"]["values"] == Y.tolist()
    assert found["statistics"]["chisqr"] == fit.chisqr
    assert [path.name for path in tmp_path.iterdir()] == ["fit.json"]  # nothing was left beside it


def test_what_explains_a_fit_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = curve_fit(decay, T, Y)
    fit.solution.explain()
    said = capsys.readouterr().out
    kept(fit, tmp_path).solution.explain()
    assert capsys.readouterr().out == said
    assert "nothing is known" not in said


def test_numpy_code_is_found_again(tmp_path: Path) -> None:
    with pytest.warns(lmtorch.FallbackWarning):
        fit = curve_fit(in_numpy, T, Y)
    assert same(kept(fit, tmp_path).predict(NEW), fit.predict(NEW))


def test_a_table_comes_back_for_its_columns(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame({"u": T, "v": T**2})
    with pytest.warns(lmtorch.FallbackWarning):
        fit = curve_fit(of_columns, x, Y)
    assert same(kept(fit, tmp_path).predict(x[:3]), fit.predict(x[:3]))


def of_columns(x: Any, a: Any, b: Any) -> Any:
    return a * x["u"] + b * x["v"]


# ---- code that is not there ----------------------------------------------------------------------


def test_a_sum_of_models_keeps_its_terms(tmp_path: Path) -> None:
    fit = FITS["models"]()
    again = kept(fit, tmp_path)
    for name, curve in fit.components(NEW).items():
        assert same(again.components(NEW)[name], curve)
    assert again.to_dict()["parameters"]["l_center"]["role"] == "tied"
    found = json.loads((tmp_path / "fit.json").read_text(encoding="utf-8"))
    assert found["ties"] == {"l_center": {"text": "g_center + 1.5", "constants": []}}
    assert load(tmp_path / "fit.json", code=False).notes == []  # nothing of it is the user's


def test_a_tie_that_is_more_than_a_formula_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    FITS["tied by text"]().save(path)
    text = path.read_text(encoding="utf-8")
    for evil in ("__import__('os').getcwd()", "a.real", "[a][0]", "(lambda: a)()"):
        path.write_text(text.replace("0.2 * a + pi / 100", evil))
        with pytest.raises(InputError, match=r"tie|cannot|not"):
            load(path)


def test_a_function_in_a_sum_is_imported_only_if_it_may(tmp_path: Path) -> None:
    fit = FITS["own function in a sum"]()
    fit.save(tmp_path / "fit.json")
    with pytest.raises(InputError, match="setting:decay was not imported"):
        load(tmp_path / "fit.json", code=False).predict(NEW)


def nameless() -> dict[str, tuple[CurveFit, Any]]:
    """Fits whose code has no import path, and what gives it back."""

    def f(t: Any, a: Any, b: Any, c: Any) -> Any:
        return decay(t, a, b, c)

    def g(t: Any, p: dict[str, Any]) -> Any:
        return of_dict(t, p)

    module = torch.nn.Linear(1, 1).double()
    total = models.from_function(f, "d") + models.Constant()
    return {
        "local": (curve_fit(f, T, Y), f),
        "dict": (curve_fit(g, T, Y, {"a": 2.0, "b": 1.0, "c": 0.4}), g),
        "module": (curve_fit(module, T[:, None], Y[:, None]), module),
        "global": (curve_fit(f, [T, T[:25]], [Y, Y[:25] + 1], shared=["b"]), [f, f]),
        "odr": (odr(f, T, Y, sx=0.05, sy=0.05), f),
        "counts": (curve_fit(f, T, COUNTS, [30, 1, 1], likelihood="poisson"), f),
        "sum": (curve_fit(total, T, Y, {"d_a": 2, "d_b": 1, "d_c": 0.4}, fixed={"c": 0.0}), total),
    }


@pytest.mark.parametrize("name", ["local", "dict", "module", "global", "odr", "counts", "sum"])
def test_without_its_code_a_fit_has_its_numbers_and_says_what_it_lacks(
    name: str, tmp_path: Path
) -> None:
    fit, f = nameless()[name]
    x = NEW[:, None] if name == "module" else NEW
    with pytest.warns(UserWarning, match=r"need the function of the fit.*load\(path, f=...\)"):
        again = kept(fit, tmp_path)
    for number in NUMBERS:
        assert same(getattr(again, number), getattr(fit, number)), number
    assert again._inference.fitter.model.label == fit._inference.fitter.model.label
    assert "need the function of the fit" in again.notes[0]
    assert again.notes[0] in again.report()
    refused = [lambda: again.predict(x, **asked(again, name)), again.plot]
    if name != "odr":
        refused += [again.profile, lambda: again.bootstrap(5)]
    for one in refused:
        with pytest.raises(InputError, match="the function of the fit is not there"):
            one()
    whole = load(tmp_path / "fit.json", f)
    assert whole.notes == fit.notes
    assert same(whole.predict(x, **asked(whole, name)), fit.predict(x, **asked(fit, name)))
    assert {*whole.params} == {*fit.params}


def test_a_fit_that_lacks_its_code_keeps_where_it_was(tmp_path: Path) -> None:
    fit = curve_fit(decay, T, Y)
    fit.save(tmp_path / "fit.json")
    bare = load(tmp_path / "fit.json", code=False)  # and no warning, as it was asked for
    with pytest.raises(InputError, match="setting:decay was not imported"):
        bare.predict(NEW)
    bare.save(tmp_path / "fit.json")
    assert same(load(tmp_path / "fit.json").predict(NEW), fit.predict(NEW))


def test_a_tie_that_was_not_saved_leaves_values_errors_and_bands(tmp_path: Path) -> None:
    fit = curve_fit(decay, T, Y, ties={"c": lambda p: 0.2 * p["a"]})
    with pytest.warns(UserWarning, match="refits need the ties of c"):
        again = kept(fit, tmp_path)
    assert same(again.pcov, fit.pcov)
    for side, expected in zip(again.confidence_band(NEW), fit.confidence_band(NEW), strict=True):
        np.testing.assert_allclose(side, expected, rtol=1e-13)
    assert again.to_dict()["parameters"]["c"]["role"] == "tied"
    with pytest.raises(InputError, match="the tie of 'c' is not there"):
        again.profile(["a"])


def test_of_a_stack_with_a_tie_that_was_not_saved_curves_are_there(tmp_path: Path) -> None:
    fit = curve_fit(decay, T, STACK, ties={"c": lambda p: 0.2 * p["a"]})
    with pytest.warns(UserWarning, match="refits need the ties of c"):
        again = kept(fit, tmp_path)
    np.testing.assert_allclose(again.predict(NEW), fit.predict(NEW), rtol=1e-13)
    one, other = again.at(1, 1), fit.at(1, 1)
    np.testing.assert_allclose(
        one.confidence_band(NEW).upper, other.confidence_band(NEW).upper, rtol=1e-13
    )


# ---- code that is another ------------------------------------------------------------------------

BEFORE = "import torch\ndef f(t, a, b):\n    return a * torch.exp(-b * t)\n"


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (BEFORE.replace("-b", "-2 * b"), "at the data it differs by up to"),
        (BEFORE.replace("(t, a, b)", "(t, a, k)").replace("-b", "-k"), "has other parameters now"),
        (BEFORE.replace("return", "return nothing +"), "cannot be evaluated at the data: NameErr"),
        ("f = 3\n", "no function or class"),
        ("g = 3\n", "has no attribute 'f'"),
        ("from os import remove as f\n", "no function or class"),
        ("class f:\n    pass\n", "is no function"),
        (None, "No module named"),
    ],
    ids=["values", "names", "error", "number", "gone", "builtin", "class", "no module"],
)
def test_code_that_is_another_now_is_not_used(
    after: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    source = tmp_path / "formulas_of_the_test.py"
    source.write_text(BEFORE)
    from formulas_of_the_test import f  # type: ignore[import-not-found]  # was written above

    fit = curve_fit(f, T, Y - 0.5)
    fit.save(tmp_path / "fit.json")
    assert load(tmp_path / "fit.json").notes == []
    if after is None:
        source.unlink()
    else:
        source.write_text(after)
    monkeypatch.delitem(sys.modules, "formulas_of_the_test")
    with pytest.warns(UserWarning, match=said):
        again = load(tmp_path / "fit.json")
    assert same(again.pcov, fit.pcov)
    with pytest.raises(InputError, match="the function of the fit is not there"):
        again.predict(NEW)
    sys.modules.pop("formulas_of_the_test", None)


@pytest.mark.parametrize(
    ("f", "said"),
    [
        (line, "f has other parameters than the fit that was saved"),
        (lambda t, a, b, c: decay(t, a, b, c) + 1e-3, "f is not the function of this fit"),
        (3, "f is not the function of this fit|f has other parameters"),
    ],
    ids=["names", "values", "number"],
)
def test_a_function_of_another_fit_is_refused(f: Any, said: str, tmp_path: Path) -> None:
    curve_fit(decay, T, Y).save(tmp_path / "fit.json")
    with pytest.raises(InputError, match=said):
        load(tmp_path / "fit.json", f)


# ---- files ---------------------------------------------------------------------------------------


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    for text in ("", "{}", "[1, 2]", '{"format": "another"}', "\x00\x01"):
        path.write_text(text)
        with pytest.raises(InputError, match="no file that save"):
            load(path)
    path.write_bytes(pickle.dumps(3))
    with pytest.raises(InputError, match="no file that save"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.json")
    with pytest.raises(InputError, match="must be the name of a file"):
        load(3)  # type: ignore[arg-type]  # which is what is tested


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    curve_fit(decay, T, Y).save(path)
    record = json.loads(path.read_text(encoding="utf-8"))
    for name in ("kind", "data", "solution", "inference", "model", "names", "bounds", "options"):
        broken = {key: value for key, value in record.items() if key != name}
        path.write_text(json.dumps(broken))
        with pytest.raises(InputError, match=r"damaged|no kind of fit"):
            load(path)
    path.write_text(json.dumps({**record, "version": 2, "lmtorch": "9.0"}))
    with pytest.raises(InputError, match=r"written by a later lmtorch \(9.0\)"):
        load(path)


def test_an_x_that_cannot_be_written_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    path.write_text("before")
    fit = curve_fit(of_thing, Thing(), Y)
    with pytest.raises(InputError, match="Thing cannot be saved as JSON"):
        fit.save(path)
    assert path.read_text() == "before"


class Thing:
    """Points that only f understands."""


def of_thing(_: Any, a: Any, b: Any, c: Any) -> Any:
    return decay(torch.as_tensor(T), a, b, c)


CALLED: list[Any] = []


def trap(**given: Any) -> models.Model:
    CALLED.append(given)
    return models.Linear()


def test_what_a_file_names_as_a_model_is_not_called_unless_it_is_one(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    curve_fit(models.Linear(), T, Y).save(path)
    record = json.loads(path.read_text(encoding="utf-8"))
    record["model"]["function"]["model"]["dict"]["model"] = f"{__name__}:trap"
    path.write_text(json.dumps(record))
    with pytest.warns(UserWarning, match="trap' is no model"):
        load(path)
    assert not CALLED


@pytest.mark.parametrize("what", ["function", "guess", "tie", "option"])
@pytest.mark.parametrize("ending", ["", ":", ":f"])
def test_without_code_nothing_is_imported_whatever_a_file_names(
    what: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "intruder.py").write_text("def f(x, slope, intercept):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path, named = tmp_path / "fit.json", f"intruder{ending}"
    curve_fit(models.Linear(), T, Y).save(path)
    record = json.loads(path.read_text(encoding="utf-8"))
    spec: Any = {"model": "function", "function": f"{__name__}:line"}
    if what == "tie":
        spec = {"model": "Linear", "ties": {"slope": {"function": named}}}
    spec = {**spec, what: named} if what in ("function", "guess") else spec
    record["model"]["function"]["model"] = lmtorch._records.encoded(spec)
    if what == "option":
        record["options"]["jac"] = {"path": named}
    path.write_text(json.dumps(record))
    load(path, code=False)
    assert "intruder" not in sys.modules
    if ending != ":f":  # and such a path is none for anybody
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load(path)
        assert "intruder" not in sys.modules


BROKEN: list[Any] = [True, "x", {"dict": {}}, 10**400, [[1, 2], [3]]]


def test_numbers_that_cannot_be_are_refused_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    curve_fit(decay, T, Y).save(path)
    text = path.read_text(encoding="utf-8").rstrip()[:-1]
    for more in ("[" * 100_000, "9" * 5000):
        path.write_text(f'{text}, "more": {more}}}')
        with pytest.raises(InputError, match="no file that save"):
            load(path)
    record = json.loads(text + "}")
    for version in (0, -3, True, "1", 1.5, None):
        path.write_text(json.dumps({**record, "version": version}))
        with pytest.raises(InputError, match="no version of the format"):
            load(path)
    for part, name in (("data", "root"), ("data", "weights"), ("solution", "fun")):
        for value in BROKEN:
            damaged = {**record, part: {**record[part], name: value}}
            path.write_text(json.dumps(damaged))
            # true among residuals is a one: then the curve is said to be another
            with pytest.raises((InputError, UserWarning), match=r"damaged|another|differs"):
                load(path)


# ---- copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [copy.deepcopy, lambda fit: pickle.loads(pickle.dumps(fit))])
@pytest.mark.parametrize(
    "name", ["plain", "tensors", "stack", "tied", "criterion", "global", "odr"]
)
def test_copies_have_the_same_answers(way: Callable[[Any], Any], name: str) -> None:
    fit = FITS[name]()
    twin = way(fit)
    assert twin.report() == fit.report()
    assert same(twin.pcov, fit.pcov)
    assert same(twin.predict(NEW, **asked(fit, name)), fit.predict(NEW, **asked(fit, name)))


def test_a_copy_of_a_fit_with_a_graph_shares_it() -> None:
    fit = FITS["tensors"]()
    twin = copy.deepcopy(fit)
    assert twin.popt.grad_fn is fit.popt.grad_fn is not None


@pytest.mark.parametrize("name", ["local", "dict", "module", "global", "odr", "counts", "sum"])
def test_a_fit_of_nameless_code_leaves_its_process(name: str) -> None:
    fit, _ = nameless()[name]
    twin = pickle.loads(pickle.dumps(fit))
    for number in NUMBERS:
        assert same(getattr(twin, number), getattr(fit, number)), number
    assert copy.deepcopy(fit).report() == fit.report()


def test_a_fit_on_a_device_is_saved_and_goes_back_to_it(elsewhere: Any, tmp_path: Path) -> None:
    t, y = (torch.as_tensor(v).to(elsewhere) for v in (T, Y))
    fit = curve_fit(decay, t, y)
    fit.save(tmp_path / "fit.json")
    here, there = (load(tmp_path / "fit.json", device=d) for d in (None, elsewhere))
    assert here.popt.device.type == "cpu"
    assert there.popt.device.type == torch.device(elsewhere).type
    for one in (here, there):
        np.testing.assert_array_equal(one.pcov.cpu(), fit.pcov.cpu())
        x = torch.as_tensor(NEW).to(one.popt.device)
        np.testing.assert_allclose(one.predict(x).cpu(), fit.predict(x.to(y.device)).cpu())
    assert same(there.to_dataframe()["value"], fit.popt.cpu())
    region = there.confidence_region(("a", "b"), points=7)
    other = here.confidence_region(("a", "b"), points=7)
    np.testing.assert_allclose(region.rise, other.rise, rtol=1e-6)
