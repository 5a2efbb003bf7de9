"""Where numbers were measured: part of every result."""

import datetime
import platform
import textwrap
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import lmtorch

PACKAGES = ("torch", "numpy", "scipy", "torch-levenberg-marquardt", "pypose")
COLUMNS = 100  # at which lines of prose end


def description() -> str:
    """Date, processor, threads and versions, in one paragraph."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = [f"lmtorch {lmtorch.__version__}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} not installed")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    threads = torch.get_num_threads()
    return (
        f"{today}; {processor}, {threads} thread{'s' * (threads > 1)}, {device}; Python "
        f"{platform.python_version()}; " + ", ".join(versions)
    )


def of_use(machine: str) -> str:
    """What is said of it, without packages that are not there and took no part."""
    return ", ".join(part for part in machine.split(", ") if not part.endswith("not installed"))


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def filled(text: str) -> str:
    """Break long lines of prose; tables and headings stay as they are."""
    return "\n".join(
        line
        if len(line) <= COLUMNS or line.startswith(("|", "#", "!"))
        else textwrap.fill(
            line, COLUMNS, break_long_words=False, break_on_hyphens=False,
            subsequent_indent="  " if line.startswith("* ") else "",
        )
        for line in text.split("\n")
    )  # fmt: skip
