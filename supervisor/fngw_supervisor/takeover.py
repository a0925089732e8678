"""Takes the lock of a data directory, also after an fngw that was killed and whose parts are still ending."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fngw.errors import FngwError
from fngw_supervisor.datadir import explained
from fngw_supervisor.lock import LOCK_FILE, Lock, Running, already_running, holders
from fngw_supervisor.say import Say

#: What the parts of a killed fngw get to end by themselves: the kernel told them to when it died.
LEFTOVERS_S = 20.0
#: After SIGKILL, or while somebody has the lock for a moment only.
_MOMENT_S = 3.0
_POLL_S = 0.05


def take_lock(data: Path, say: Say, leftovers_s: float = LEFTOVERS_S) -> Lock:
    """Return the lock of a data directory.

    Args:
        data: the data directory.
        say: told when parts of a killed fngw are waited for.
        leftovers_s: seconds that these get before they are killed.

    Raises:
        FngwError: ``already_running``, or the directory cannot be written.
    """
    path = data / LOCK_FILE
    with explained(data):
        lock = Lock.take(path)
        if lock is None and (left := _left_behind(path)):
            say("cleanup", f"an earlier fngw was killed; its parts are still ending: processes {_listed(left)}")
            lock = _wait(path, leftovers_s) or _kill(path, say)
        if lock is None and Running.read(path) is None:  # it starts or ends right now
            lock = _wait(path, _MOMENT_S)
    if lock is None:
        raise already_running(Running.read(path), path)
    return lock


def _left_behind(path: Path) -> list[int]:
    """Return the parts of a supervisor that is no more; none when it still is."""
    running, held = Running.read(path), holders(path)
    return [] if running is None or running.pid in held else held


def _wait(path: Path, seconds: float) -> Lock | None:
    deadline = time.monotonic() + seconds
    while (lock := Lock.take(path)) is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return lock


def _kill(path: Path, say: Say) -> Lock:
    left = _left_behind(path)
    say("cleanup", f"killing processes {_listed(left)}: they do not end")
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    lock = _wait(path, _MOMENT_S)
    if lock is None:
        raise FngwError(
            f"parts of an earlier fngw are still running: processes {_listed(holders(path))}",
            code="leftovers",
            hint="end them, or give another --data-dir",
        )
    return lock


def _listed(pids: Iterable[int]) -> str:
    return ", ".join(map(str, pids))
