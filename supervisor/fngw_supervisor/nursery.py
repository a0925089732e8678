"""A process that imports what the parts import, and forks one for each request. It does nothing else.

``python -P -m fngw_supervisor.nursery FD``, where FD is its end of a socket pair. Memory that was filled before the
fork is shared until somebody writes into it, and nothing is imported twice.

A part is the *supervisor's* child all the same: the fork that it is forked by ends at once, and the kernel gives
an orphan to the nearest ancestor that asked for them (``PR_SET_CHILD_SUBREAPER``): the supervisor, for that moment.
So exit codes and death signals are as of any child, and nothing happens to the parts when the nursery dies.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import json
import os
import runpy
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fngw_state import footprint
from fngw_supervisor.child import die_with

#: The word at which a part goes its way. Without it, nobody knows of it, and it ends.
GO = b"g"
_MOST_BYTES = 2**20
_MOST_FDS = 16


@dataclass(frozen=True)
class Request:
    """A part to fork. With it come its log, the end of a pipe that says ``GO``, and the files that it inherits.

    Args:
        argv: an interpreter and its options up to ``-m``, a module, and the module's arguments.
        env: the whole environment.
        fds: the numbers that its files are to have.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    fds: Sequence[int]

    def encode(self) -> bytes:
        """Return it as a message."""
        return json.dumps(asdict(self)).encode()


def main(argv: Sequence[str]) -> None:
    """Import, then fork what is asked for, until the supervisor is gone. In a part: be that part, to its end."""
    control, supervisor = socket.socket(fileno=int(argv[0])), os.getppid()
    # Not from the arguments: whoever looks for a part by its module's name is not to find the nursery.
    for module in control.recv(_MOST_BYTES).decode().split():
        _preload(module)
    footprint.settle()
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208 - how many, not which
        sys.exit("an import has started a thread: a fork would not have it, only the locks that it holds")
    part = _serve(control, supervisor)
    if part is not None:
        runpy.run_module(part, run_name="__main__", alter_sys=True)


def _preload(module: str) -> None:
    """Import what a module's ``__main__`` imports. It is itself run later, under that name."""
    try:
        importlib.import_module(f"{module}.__main__")
    except Exception:  # the part imports it again, and its own log tells
        traceback.print_exc()
    sys.modules.pop(f"{module}.__main__", None)


def _serve(control: socket.socket, supervisor: int) -> str | None:
    """Fork for each request. In a part, return the module that it is to run."""
    while True:
        message, fds, _, _ = socket.recv_fds(control, _MOST_BYTES, _MOST_FDS)
        if not message:
            return None
        pid = _fork_orphan()
        if pid == 0:
            control.close()  # before another file gets its number
            return _begin(Request(**json.loads(message)), fds, supervisor)
        for fd in fds:
            os.close(fd)
        control.send(b"%d" % pid)


def _fork_orphan() -> int:
    """Fork a process whose parent has ended when this returns; return its process id, and 0 in that process."""
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        pid = os.fork()
        if pid != 0:
            os.write(writing, b"%d" % pid)
            os._exit(0)
        return 0
    os.close(writing)
    os.waitpid(middle, 0)
    pid = int(os.read(reading, 32))
    os.close(reading)
    return pid


def _begin(request: Request, fds: Sequence[int], supervisor: int) -> str:
    """Make this fork what an interpreter started by the supervisor would be; return the module to run."""
    log, going, *files = fds
    os.setsid()
    if os.read(going, 1) != GO:
        os._exit(1)
    die_with(supervisor)  # not before ``GO``: until then its parent may be the one that is just ending
    os.dup2(log, 1)
    os.dup2(log, 2)
    _hold(files, request.fds)
    os.environ.clear()
    os.environ.update(request.env)
    _show(request.argv)
    sys.argv = list(request.argv[request.argv.index("-m") + 1 :])
    return sys.argv[0]


def _hold(files: Sequence[int], numbers: Sequence[int]) -> None:
    """Give the files their numbers, and close all others."""
    above = max(numbers, default=2) + 1
    for file, number in zip([fcntl.fcntl(file, fcntl.F_DUPFD, above) for file in files], numbers, strict=True):
        os.dup2(file, number)
    for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - names, not paths
        if fd > 2 and fd not in numbers:
            with suppress(OSError):  # the one that this list was read through
                os.close(fd)


def _show(argv: Sequence[str]) -> None:
    """Let ``ps`` show these arguments: they are written over this process's own, which are longer (proc(5))."""
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(stat[45]), int(stat[46])
    if start:  # 0: hidden from us
        text = b"\0".join(map(os.fsencode, argv))[: end - start - 1]
        ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


if __name__ == "__main__":
    main(sys.argv[1:])
