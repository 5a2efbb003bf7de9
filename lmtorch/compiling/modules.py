"""CUDA as kernels of this process: compiled by NVRTC, kept on disk, and loaded by the driver.

Both come with torch and are called through ctypes: torch's own way is private (2.11 to 2.13), takes
integers of 32 bits alone and keeps nothing on disk.
"""

import ctypes
import hashlib
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch

from .building import NoCompilerError, folder

OPTIONS = ("--std=c++17",)
MOST = 64  # modules that stay loaded
LOADED: dict[tuple[str, int], "Module"] = {}
_LOCK = threading.Lock()


class Module(Protocol):
    """Kernels that are ready to be called."""

    def launch(self, name: str, blocks: int, threads: int, values: Sequence[int]) -> None:
        """Run a kernel, on the current stream, with whole numbers and addresses as arguments."""
        ...


def module(text: str, device: torch.device) -> Module:
    """Compile a program for a device, or take it from memory or disk.

    Returns:
        Its kernels.

    Raises:
        NoCompilerError: there is no NVRTC, or it or the driver has refused.
    """
    number = device.index  # that of a tensor has one
    with _LOCK:
        if (text, number) not in LOADED:
            LOADED[text, number] = _Module(_code(text, number), number)
            while len(LOADED) > MOST:
                del LOADED[next(iter(LOADED))]
        return LOADED[text, number]


class _Module:
    """Kernels on one device."""

    def __init__(self, code: bytes, number: int) -> None:
        self.number = number
        self.handle, self.kernels = ctypes.c_void_p(), dict[str, ctypes.c_void_p]()
        with torch.cuda.device(number):
            torch.cuda.current_stream().synchronize()  # torch's context is there, and the current
            _driver("cuModuleLoadData", ctypes.byref(self.handle), code)

    def launch(self, name: str, blocks: int, threads: int, values: Sequence[int]) -> None:
        kernel = self.kernels.get(name)
        if kernel is None:
            kernel = ctypes.c_void_p()
            _driver("cuModuleGetFunction", ctypes.byref(kernel), self.handle, name.encode())
            self.kernels[name] = kernel
        held = (ctypes.c_int64 * len(values))(*values)
        begin = ctypes.addressof(held)
        pointers = (ctypes.c_void_p * len(values))(*(begin + 8 * i for i in range(len(values))))
        with torch.cuda.device(self.number):
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            _driver(
                "cuLaunchKernel", kernel, blocks, 1, 1, threads, 1, 1, 0, stream, pointers, None
            )


def _code(text: str, number: int) -> bytes:
    """Machine code for a device, from the disk or anew."""
    major, minor = torch.cuda.get_device_capability(number)
    options = (*OPTIONS, f"--gpu-architecture=sm_{major}{minor}")
    key = hashlib.sha256("\n".join((text, _version(), *options)).encode()).hexdigest()
    place = folder() / f"{key[:32]}.cubin"
    with suppress(OSError):
        kept = place.read_bytes()
        if kept[:32] == hashlib.sha256(kept[32:]).digest():  # neither damaged nor cut short
            return kept[32:]
    code = _compiled(text, options)
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = place.with_suffix(f".{threading.get_ident()}")
        scratch.write_bytes(hashlib.sha256(code).digest() + code)
        scratch.replace(place)
    return code


def _compiled(text: str, options: Sequence[str]) -> bytes:
    nvrtc = _nvrtc()
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"lmtorch.cu", 0, None, None)
    try:
        asked = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        if nvrtc.nvrtcCompileProgram(program, len(options), asked):
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            lines = log.value.decode(errors="replace").splitlines()
            errors = [line for line in lines if "error" in line] or lines
            raise NoCompilerError(f"NVRTC failed: {' '.join(errors)[:500]}")
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        code = ctypes.create_string_buffer(size.value)
        if nvrtc.nvrtcGetCUBIN(program, code):
            raise NoCompilerError("NVRTC failed: it has made no code")
        return code.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


@cache
def _nvrtc() -> Any:
    """NVRTC of torch's version of CUDA, as torch finds it, or where its packages put it.

    Returns:
        The library.

    Raises:
        NoCompilerError: it is not there.
    """
    major = str(torch.version.cuda).split(".")[0]
    name = f"libnvrtc.so.{major}"
    for place in (name, *_installed(name), f"nvrtc64_{major}0_0.dll", "libnvrtc.so"):
        with suppress(OSError):
            return ctypes.CDLL(place)
    raise NoCompilerError(f"there is no {name}, which compiles for GPUs")


def _installed(name: str) -> list[str]:
    """Libraries of a name among the files of NVIDIA's packages."""
    found = []
    for package in metadata.distributions():
        if str(package.metadata["Name"]).startswith("nvidia-cuda-nvrtc"):
            found += [str(f.locate()) for f in package.files or () if Path(f).name == name]
    return found


def _version() -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"NVRTC {major.value}.{minor.value}"


@cache
def _library() -> Any:
    """The driver, which torch has loaded.

    Returns:
        The library.

    Raises:
        NoCompilerError: it is not there.
    """
    for name in ("libcuda.so.1", "nvcuda.dll"):
        with suppress(OSError):
            return ctypes.CDLL(name)
    raise NoCompilerError("there is no driver of CUDA")


def _driver(name: str, *arguments: Any) -> None:
    """Call the driver.

    Raises:
        NoCompilerError: it has refused.
    """
    error = getattr(_library(), name)(*arguments)
    if error:
        said = ctypes.c_char_p()
        _library().cuGetErrorString(error, ctypes.byref(said))
        raise NoCompilerError(f"{name} failed: {(said.value or b'').decode()} ({error})")
