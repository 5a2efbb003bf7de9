"""What tests of compiled programs share."""

import shutil

import pytest

from lmtorch.compiling import building, descent
from lmtorch.fitting import fronts
from lmtorch.minimising import compiled as asked
from lmtorch.minimising import remembered, repeated

compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="there is no C++ compiler"
)


def forget() -> None:
    """What a process does not know when it begins."""
    descent._PROGRAMS.clear()
    descent._RIGHT.clear()
    building.LOADED.clear()
    asked.TOLD.clear()
    remembered._KNOWN.clear()
    repeated._CHANGED.clear()
    fronts._FRONTS.clear()
