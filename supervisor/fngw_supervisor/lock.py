"""One fngw per data directory: ``<data>/fngw.lock``.

The lock (flock(2)) belongs to an open file, and every part inherits that file. So it is free when the supervisor
*and all its parts* are gone, whichever way they went, and whoever holds it can be found.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fngw.errors import FngwError

LOCK_FILE = "fngw.lock"


@dataclass(frozen=True)
class Running:
    """What the lock file says of the fngw that holds it. ``started_at`` is in Unix seconds."""

    pid: int
    url: str
    started_at: float
    engine: str
    version: str

    @classmethod
    def read(cls, path: Path) -> Running | None:
        """Return what the file says; None when there is none, or nothing was written yet."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            data: dict[str, Any] = json.loads(path.read_text())
            return cls(
                pid=int(data["pid"]),
                url=str(data["url"]),
                started_at=float(data["started_at"]),
                engine=str(data["engine"]),
                version=str(data["version"]),
            )
        return None


class Lock:
    """The lock file, held. Use ``Lock.take``.

    ``fd`` is for the parts to inherit.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def take(cls, path: Path) -> Lock | None:
        """Return the lock, or None while somebody else holds it.

        Raises:
            OSError: the file cannot be written.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        os.ftruncate(fd, 0)  # what stands there is of one that is gone
        return cls(path, fd)

    def write(self, running: Running) -> None:
        """Say who holds it."""
        data = (json.dumps(asdict(running)) + "\n").encode()
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, data, 0)

    def release(self) -> None:
        """Give it back. The file stays: removing it would race with the next one to take it."""
        os.ftruncate(self.fd, 0)
        os.close(self.fd)


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        # Shared: two that only look do not disturb each other.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def holders(path: Path) -> list[int]:
    """Return the processes (of this user) that hold the lock through a file of theirs, but for this one.

    Somebody who only has the file open, such as a pager, is not among them.
    """
    try:
        wanted = path.stat()
    except FileNotFoundError:
        return []
    return [pid for pid in _processes() if pid != os.getpid() and _holds(pid, wanted)]


def _processes() -> list[int]:
    with suppress(OSError):
        return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - names, not paths
    return []


def _holds(pid: int, wanted: os.stat_result) -> bool:
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as fds:  # it ended meanwhile, or is another user's
        for fd in fds:
            with suppress(OSError):
                # proc(5): the locks of this open file; one inherited through fork is the same open file.
                if os.path.samestat(fd.stat(), wanted) and "FLOCK" in _fdinfo(pid, fd.name):
                    return True
    return False


def _fdinfo(pid: int, fd: str) -> str:
    return Path(f"/proc/{pid}/fdinfo/{fd}").read_text()


def already_running(running: Running | None, path: Path) -> FngwError:
    """Return the error of a second fngw on one data directory."""
    data = path.parent
    if running is None:
        what, hint = f"another fngw is just starting on {data}", "try again in a moment, or give another --data-dir"
    else:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(running.started_at))
        what = f"fngw is already running on {data}: process {running.pid}, {running.url}, since {since}"
        hint = "use it, stop it with `fngw down`, or give another --data-dir"
    return FngwError(what, code="already_running", hint=hint)
