"""What a process finds of itself, as JSON on its standard output: `python -m fork_probe`."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import resource
import sys
from pathlib import Path


def found() -> dict[str, object]:
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
    )
    return {
        "argv": sys.argv[1:],
        "cmdline": Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode().split("\0"),
        "environ": dict(sorted(os.environ.items())),
        "parent": os.getppid(),
        "leads": [os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid()],
        "signals": {key: status[key] for key in ("SigBlk", "SigIgn", "SigCgt", "Threads")},
        "fds": {fd: link(fd) for fd in range(64) if link(fd)},
        "inheritable": [
            fd for fd in range(3, 64) if Path(f"/proc/self/fd/{fd}").exists() and os.get_inheritable(fd)
        ],
        "folder": [str(Path.cwd()), sys.path],
        "name": [__name__, Path(__file__).name, sys.modules["__main__"].__dict__ is globals()],
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "death signal": death_signal(),
        "gc": [gc.isenabled(), gc.get_threshold()],
        "unbuffered": [sys.stdout.write_through, sys.stdout.encoding],
    }


def death_signal() -> int:
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number))  # PR_GET_PDEATHSIG
    return number.value


def link(fd: int) -> str:
    """What a file descriptor is of, empty when there is none."""
    path = Path(f"/proc/self/fd/{fd}")
    return str(path.readlink()) if path.is_symlink() else ""


if __name__ == "__main__":
    print(json.dumps({"pid": os.getpid(), "random": random.random(), "found": found()}))
