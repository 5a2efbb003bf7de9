"""Some random calls of every face; `make random-calls` makes ten thousand of each."""

import os

import pytest

from .random_calls import FACES, BrokenPromiseError, make

# how many of each face, and from which number on
COUNT, FIRST = (
    int(os.environ.get("RANDOM_CALLS", "50")),
    int(os.environ.get("RANDOM_CALLS_FROM", "0")),
)
CHUNK = 5  # calls of one test, so that processes may share them


@pytest.mark.parametrize("first", range(FIRST, FIRST + COUNT, CHUNK))
@pytest.mark.parametrize("face", FACES)
def test_a_random_call_is_refused_by_name_or_keeps_its_promises(face: str, first: int) -> None:
    broken = []
    for number in range(first, min(first + CHUNK, FIRST + COUNT)):
        try:
            make(face, number)
        except BrokenPromiseError as error:
            broken.append(str(error))
    assert not broken, "\n\n".join(broken)
