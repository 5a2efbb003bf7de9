"""A C++ program as a function of this process: written, compiled once, and found again on disk."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from functools import lru_cache
from pathlib import Path

# An iteration is one long function without branches, in which what is common was found while it was
# written: for GCC to look for it once more costs two fifths of its time and gains nothing (20,000
# peaks in 146 ms either way, compiled in 18.5 instead of 31.9 s; GCC 12, 2026-11-26). Clang ignores
# both.
FLAGS = ("-std=c++17", "-O3", "-fno-gcse", "-fno-gcse-after-reload", "-march=native",
         "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-w")  # fmt: skip
MOST = 64  # programs that stay loaded
LOADED: dict[str, ctypes.CDLL] = {}
PATIENCE = 300  # seconds that a compiler may take
_LOCK = threading.Lock()


class NoCompilerError(Exception):
    """There is no C++ compiler, or it has refused."""


def folder() -> Path:
    """Where compiled programs are kept: $LMTORCH_CACHE, or lmtorch in the user's cache."""
    named = os.environ.get("LMTORCH_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lmtorch"


def kept(key: str) -> Path:
    """The file of all that belongs to a program, but for the machine code."""
    return folder() / f"{key}.program"


@lru_cache(maxsize=1)
def _machine() -> str:
    """What a program is compiled for, which decides whether it may be taken from the disk."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = platform.processor()
    return f"{platform.machine()} {flags}"


def compiler() -> str:
    """Find the C++ compiler: $CXX, or the first that is there.

    Returns:
        Its path.

    Raises:
        NoCompilerError: there is none.
    """
    asked = os.environ.get("CXX")
    for name in [asked] if asked else ["c++", "g++", "clang++"]:
        found = shutil.which(name)
        if found:
            return found
    raise NoCompilerError(f"there is no C++ compiler ({asked or 'c++, g++ or clang++'})")


def build(text: str) -> ctypes.CDLL:
    """Compile a program, or take it from the disk.

    Returns:
        The program in this process.

    Raises:
        NoCompilerError: there is no compiler, or it has refused.
    """
    found = LOADED.get(text)
    if found is not None:
        return found
    key = hashlib.sha256("\n".join((text, _machine(), *FLAGS)).encode()).hexdigest()[:32]
    found = load(folder() / f"{key}.so", key) or _compiled(key, text)
    with _LOCK:
        LOADED[text] = found
        while len(LOADED) > MOST:
            del LOADED[next(iter(LOADED))]
    return found


def load(place: Path, key: str) -> ctypes.CDLL | None:
    """A program from the disk; None if it is not there, or is another, or none at all."""
    if not place.exists():
        return None
    try:
        library = ctypes.CDLL(str(place))
    except OSError:
        return None
    return library if hasattr(library, _mark(key)) else None


def _mark(key: str) -> str:
    """A symbol that this program alone has: a damaged or strange file of its name has not."""
    return f"lmtorch_{key}"


def _compiled(key: str, text: str) -> ctypes.CDLL:
    command = compiler()
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        source, made = Path(scratch) / "program.cpp", Path(scratch) / "program.so"
        marked = f'{text}\nextern "C" void {_mark(key)}() {{}}\n'
        source.write_text(marked, encoding="utf-8")
        try:
            done = subprocess.run(
                [command, *FLAGS, str(source), "-o", str(made), "-lm"],
                capture_output=True, text=True, timeout=PATIENCE, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoCompilerError(f"{command} failed: {error}") from error
        if done.returncode:
            raise NoCompilerError(f"{command} failed: {done.stderr.strip()[:500]}")
        # loaded from where no file was before: by a path that it knows, a linker takes what it has
        # loaded from there, even if that was a damaged file
        found = load(made, key)
        made.replace(place / f"{key}.so")  # whole, or not at all: other processes look for it
    if found is None:
        raise NoCompilerError("what was compiled cannot be loaded")
    return found
