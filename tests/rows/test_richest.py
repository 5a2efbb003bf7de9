"""Which kind of rows a source is asked for."""

import pytest

from lmtorch._errors import InputError
from lmtorch.rows.base import richest
from lmtorch.rows.matrix import DenseRows
from lmtorch.rows.outer import OuterRows
from lmtorch.rows.own import OwnRows


def test_the_richest_kind_that_both_know_is_asked_for() -> None:
    assert richest((DenseRows, OuterRows), (OuterRows, DenseRows)) is OuterRows
    assert richest((DenseRows,), (OuterRows, DenseRows)) is DenseRows
    assert richest((OuterRows, DenseRows), (DenseRows,)) is DenseRows


def test_kinds_that_do_not_meet_are_named() -> None:
    with pytest.raises(
        InputError, match="takes OwnRows, and the source of derivatives gives Dense"
    ):
        richest((DenseRows,), (OwnRows,))
