"""Numbers that write down what is computed with them: their kinds are those of arrays."""

import pytest
import torch

from lmtorch.recording.numbers import Number, Record, Vector


@pytest.mark.parametrize(("value", "kind"), [(2.5, float), (3, int), (True, bool)])
def test_what_is_filled_has_the_kind_of_what_it_is_like(value: float, kind: type) -> None:
    record = Record()
    one = Number(record, value, "one")
    like = Vector([one, Number(record, value, "two")])
    for found in (torch.full_like(like, 1), torch.zeros_like(like)):
        assert [type(entry.value) for entry in found.entries] == [kind, kind]
    assert type(torch.full_like(one, 1).value) is kind
    assert type(torch.full_like(one, 1, dtype=torch.int64).value) is int
    assert torch.zeros_like(one, dtype=torch.bool).value is False
