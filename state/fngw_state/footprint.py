"""What a process does once it has started, for the sake of the memory that it will hold for months."""

from __future__ import annotations

import ctypes
import gc
import sys

__all__ = ["settle"]


def settle() -> None:
    """Give back what starting took, and leave alone from now on what was imported.

    A full collection would go through all of that (40 ms, while requests wait), and write into pages that a fork
    shares. The C library keeps what imports freed, 1 to 13 MiB, until it is asked for it.
    """
    gc.collect()
    gc.freeze()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        if trim is not None:
            trim(0)
