"""Files of results: JSON with a head that says what it is, a line for each part."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._errors import InputError, InputTypeError

FORMAT, VERSION = "lmtorch fit", 1


def head_of(result: Any) -> dict[str, Any]:
    """The first parts of a record.

    Args:
        result: what is saved.

    Returns:
        The format, its version, that of the package, and the kind of the result.
    """
    from . import __version__

    return {
        "format": FORMAT,
        "version": VERSION,
        "lmtorch": __version__,
        "kind": type(result).__name__,
    }


def write(record: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a record to a file, which is there as a whole or not at all.

    Args:
        record: in the terms of JSON.
        path: of the file; one that is there is replaced.

    Raises:
        FileNotFoundError: its folder is not there.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no folder to save in", str(path.parent))
    # a line for each part: to be read by eye, and not ten lines for ten numbers
    lines = (f"{json.dumps(name)}: {_text(value)}" for name, value in record.items())
    text = "{\n" + ",\n".join(lines) + "\n}"
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _text(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The record in a file.

    Args:
        path: of the file.

    Returns:
        The record.

    Raises:
        InputError: it is no file of `save`, or of a later version.
        InputTypeError: the path is none.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputTypeError(f"path={path!r} must be the name of a file.")
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also of numbers that are too long
        raise InputError(f"{path} is no file that save() has written: {error}.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{path} is no file that save() has written.")
    version = record.get("version")
    if type(version) is not int or version < 1:
        raise InputError(f"{path} has no version of the format: {version!r}.")
    if version > VERSION:
        raise InputError(
            f"{path} was written by a later lmtorch ({record.get('lmtorch')}), in version "
            f"{version} of the format; this one reads version {VERSION}: update it."
        )
    return record
