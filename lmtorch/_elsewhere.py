"""Names that other packages have for what is called otherwise here, answered where they are asked.

A mixin with `__getattr__` is asked only for what an object does not have.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class Elsewhere:
    """Says what another package's attribute is called here."""

    _elsewhere: ClassVar[Mapping[str, str]] = {}  # what to write, by the name elsewhere

    def __getattr__(self, name: str) -> Any:
        kind = type(self)
        if hasattr(kind, name):  # what its own property has raised is to be heard
            return object.__getattribute__(self, name)
        said = f"{kind.__name__!r} object has no attribute {name!r}"
        here = kind._elsewhere.get(name)
        raise AttributeError(f"{said}: write {here}" if here else said, name=name, obj=self)
