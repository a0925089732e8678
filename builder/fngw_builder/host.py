"""What environments must fit on this machine: its platform, its C library, the CUDA of its driver."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

#: conda's names of platforms, by what the machine and Docker call theirs.
SUBDIRS = {"x86_64": "linux-64", "amd64": "linux-64", "aarch64": "linux-aarch64", "arm64": "linux-aarch64"}


def subdir(machine: str | None = None) -> str:
    """Return conda's name of a platform; that of an unknown one is its own.

    Args:
        machine: as ``uname -m`` or Docker have it; None: this one.
    """
    name = machine or platform.machine()
    return SUBDIRS.get(name, f"linux-{name}")


def glibc() -> str:
    """Return the version of this machine's C library, ``"0"`` if it is not glibc."""
    name, version = platform.libc_ver()  # of an executable it would tell the oldest that will do
    return version if name == "glibc" else "0"


def cuda() -> str | None:
    """Return the newest CUDA that this machine's driver supports, ``"12.4"``, or None without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def interpreter() -> str:
    """Return the Python that this process's own stands on: outside of its virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable) or sys.executable)
