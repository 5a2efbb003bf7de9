"""What stands in for code that was not saved with a fit, and says so when it is called."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ..._errors import InputError


class Unsaved:
    """A function of which only names are known.

    Args:
        what: what it is, in words.
        why: why it is not there.
        names: of its parameters after x, for a model.
        record: what was saved of it.
    """

    def __init__(
        self,
        what: str,
        why: str,
        names: Sequence[str] = (),
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.what = what
        self.why = why
        self.record = dict(record or {})
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        known = [name for name in dict.fromkeys(("x", *names)) if name.isidentifier()]
        self.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in known])

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Say that it is not there.

        Raises:
            InputError: always.
        """
        raise InputError(f"{self.what} is not there: {self.why}.")
