"""What `import lmtorch` and a first fit do not import: each of these takes a part of a second.

The times themselves are not asserted; `python -X importtime` shows them.
"""

from test_packaging import run

# what only a call may bring that needs it
HEAVY = ("scipy", "sympy", "torch._dynamo", "torch._inductor", "pandas", "matplotlib", "tqdm")


def brought(use: str) -> str:
    """Which of them some code imports that torch has not imported itself."""
    return run(f"""
import sys, torch
before = set(sys.modules)
{use}
print(sorted({set(HEAVY)} & (set(sys.modules) - before)))
""").strip()


def test_an_import_loads_nothing_heavy() -> None:
    assert brought("import lmtorch") == "[]"
