"""Every form of the linear model answers as the matrix does that its rows stand for."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from lmtorch._errors import InputError
from lmtorch.core.sums import total
from lmtorch.linearizations.base import Exact, Form, Prior
from lmtorch.rows.base import Rows

from .cases import drawn
from .members import FORMS, ROWS

F64 = torch.float64
SAMPLES, K = 6, 3


def rows_of(kind: str) -> Any:
    """Rows of a kind."""
    return ROWS[kind](torch.Generator().manual_seed(0), SAMPLES, K)


def empty(form: Form) -> Any:
    """An accumulator that has seen nothing."""
    return form.accumulator((5,), 1, torch.empty(0, dtype=F64))


def taken(*forms: str) -> Any:
    """Forms with the kinds of rows that they take."""
    pairs = [
        (FORMS[form], kind)
        for form in forms
        for kind in ROWS
        if type(rows_of(kind)) in empty(FORMS[form]).kinds
    ]
    return pytest.mark.parametrize(("form", "kind"), pairs, ids=str)


def some_of(rows: Any, chosen: slice) -> Any:
    """The rows of some samples."""
    each = rows.shape[-2] // SAMPLES
    places = slice(chosen.start * each, chosen.stop * each)
    fields = {}
    if hasattr(rows, "columns"):
        return type(rows)(tuple(c if c is None else c[..., places] for c in rows.columns))
    if hasattr(rows, "map"):
        return rows._replace(map=rows.map.some(places))
    if hasattr(rows, "blocks"):
        return rows._replace(blocks=tuple(some_of_blocks(rows.blocks, chosen)))
    for name, value in rows._asdict().items():
        if isinstance(value, Tensor):
            fields[name] = value[..., places, :]
        elif not isinstance(value, int):  # rows of each point
            known = (k._replace(left=k.left[chosen], right=k.right[chosen]) for k in value)
            fields[name] = tuple(known)
    return type(rows)(**fields)


def some_of_blocks(blocks: Any, chosen: slice) -> Any:
    """The blocks of some samples, which may be in several."""
    begin = 0
    for block in blocks:
        some = slice(max(chosen.start - begin, 0), max(min(chosen.stop - begin, block.samples), 0))
        begin += block.samples
        if some.start >= some.stop:
            continue
        yield block._replace(
            samples=some.stop - some.start,
            factors=tuple(
                factor._replace(
                    **{
                        name: getattr(factor, name)[some]
                        for name in ("left", "right", "places", "matrix")
                        if hasattr(factor, name)
                    }
                )
                for factor in block.factors
            ),
        )


class Written:
    """A model of rows, and the same with the prior below as a matrix and a vector."""

    def __init__(self, form: Form, rows: Rows, penalized: bool) -> None:
        generator = torch.Generator().manual_seed(1)
        *batch, m, n = rows.shape
        self.form, self.rows, self.shape = form, rows, (*batch, n)
        self.residual = drawn(generator, *batch, m)
        self.step = drawn(generator, *batch, n)
        self.matrix, self.vector, self.prior = rows.dense(), self.residual, None
        if penalized:
            root = drawn(generator, *batch, n).exp()
            self.prior = Prior(root, root * drawn(generator, *batch, n))
            self.matrix = torch.cat([self.matrix, torch.diag_embed(root)], -2)
            self.vector = torch.cat([self.residual, self.prior.residual], -1)
        self.cost = self.vector.square().sum(-1) / 2

    def accumulated(self, *chosen: slice) -> Any:
        """An accumulator with these samples."""
        m = self.rows.shape[-2]
        accumulator = self.form.accumulator(self.shape, m, self.residual)
        each = m // SAMPLES
        for some in chosen:
            places = slice(some.start * each, some.stop * each)
            accumulator.add(self.residual[..., places], some_of(self.rows, some))
        return accumulator

    def model(self) -> Any:
        """Made of two blocks."""
        accumulator = self.accumulated(slice(0, 2), slice(2, SAMPLES))
        return accumulator.finish(self.cost, self.prior)


forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
every = taken(*FORMS)
penalties = pytest.mark.parametrize("penalized", [False, True], ids=["plain", "prior"])


@every
@penalties
def test_it_is_the_model_of_the_written_rows(form: Form, kind: str, penalized: bool) -> None:
    of = Written(form, rows_of(kind), penalized)
    model, J = of.model(), of.matrix
    torch.testing.assert_close(model.cost, of.cost)
    torch.testing.assert_close(model.gradient, (J.mT @ of.vector[..., None])[..., 0])
    torch.testing.assert_close(model.column_norms, J.square().sum(-2).sqrt())
    torch.testing.assert_close(model.normal, J.mT @ J)
    moved = (J @ of.step[..., None])[..., 0]
    torch.testing.assert_close(model.squared_length(of.step), moved.square().sum(-1))


@every
@penalties
def test_held_variables_have_no_column_and_no_gradient(
    form: Form, kind: str, penalized: bool
) -> None:
    of = Written(form, rows_of(kind), penalized)
    free = torch.ones(of.shape, dtype=torch.bool)
    free[..., 1] = False
    model, J = of.model().freeze(free), of.matrix * free[..., None, :]
    torch.testing.assert_close(model.gradient, (J.mT @ of.vector[..., None])[..., 0])
    torch.testing.assert_close(model.normal, J.mT @ J)
    torch.testing.assert_close(model.column_norms, J.square().sum(-2).sqrt())
    assert (model.gradient[..., 1] == 0).all()


@every
def test_rows_that_are_kept_are_the_rows(form: Form, kind: str) -> None:
    of = Written(form, rows_of(kind), False)
    kept = of.model().rows
    if kept is not None:
        torch.testing.assert_close(kept.dense(), of.matrix)


@taken(*(name for name, form in FORMS.items() if empty(form).sums))
def test_sums_over_rows_add_up(form: Form, kind: str) -> None:
    of = Written(form, rows_of(kind), False)
    first, second = of.accumulated(slice(0, 2)), of.accumulated(slice(2, SAMPLES))
    first.sums = total([first.sums, second.sums])
    model = first.finish(of.cost, None)
    torch.testing.assert_close(model.normal, of.matrix.mT @ of.matrix)
    torch.testing.assert_close(model.gradient, (of.matrix.mT @ of.vector[..., None])[..., 0])


@every
def test_a_sample_of_the_rows_estimates_or_is_refused(form: Form, kind: str) -> None:
    of = Written(form, rows_of(kind), False)
    gradient = drawn(torch.Generator().manual_seed(2), *of.shape)
    accumulator = of.accumulated(slice(0, SAMPLES))
    if not form.sampled:
        with pytest.raises(InputError, match="sampled"):
            accumulator.finish(of.cost, None, Exact(gradient, 3.0))
        return
    model = accumulator.finish(of.cost, None, Exact(gradient, 3.0))
    torch.testing.assert_close(model.normal, 3 * of.matrix.mT @ of.matrix)
    torch.testing.assert_close(model.gradient, gradient)


@forms
def test_it_says_what_it_keeps(form: Form) -> None:
    assert form.entries(3, 50) > 0
    assert {"3", "50"} & set(re.findall(r"\d+", form.described(3, 50)))
