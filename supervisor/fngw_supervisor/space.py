"""Sees when the disk of the data directory gets full, and when it no longer is, and says so once each time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from fngw_supervisor.say import Say

#: Redis rewrites its file before it swaps it in, and deploys store code: with less than this, either may fail.
LOW = 16 * 2**20


def free_bytes(path: Path) -> int:
    """Return the bytes that this user can still write on the disk of ``path``."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class Space:
    """Watches one disk.

    Args:
        data: the data directory.
        say: told of a change.
        free: returns the free bytes at a path.
    """

    def __init__(self, data: Path, say: Say, free: Callable[[Path], int] = free_bytes) -> None:
        self._data = data
        self._say = say
        self._free = free
        self._low = False

    def check(self) -> None:
        """Look again."""
        free = self._free(self._data)
        if (free < LOW) == self._low:
            return
        self._low = free < LOW
        if self._low:
            self._say(
                "disk",
                f"{free >> 20} MiB are left for {self._data}: free some space\n"
                "what runs goes on; deploys and changes are refused when nothing is left",
            )
        else:
            self._say("disk", f"{self._data} has space again")
